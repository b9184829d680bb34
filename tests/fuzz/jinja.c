// SPDX-License-Identifier: Apache-2.0
// A template and the JSON of its variables, with a NUL between: compiles, renders under small
// limits, and checks that the spans cover the text.
#include "template/chat_template.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t len = nul ? (size_t)(nul - data) : size;
    qn_chat_template *t = NULL;
    qn_error err = {0};
    if (qn_template_compile((const char *)data, len, &t, &err) != QN_OK) {
        if (t || !err.message[0]) abort();
        return 0;
    }
    json_t *vars = NULL;
    if (nul) vars = json_loadb((const char *)nul + 1, size - len - 1, JSON_ALLOW_NUL, NULL);
    const qn_template_limits limits = {
        .max_steps = 20000, .max_output = 1 << 18, .max_memory = 4 << 20};
    qn_rendered r;
    err = (qn_error){0};
    qn_status st =
        qn_template_render(t, json_is_object(vars) ? vars : NULL, NULL, 1e9, &limits, &r, &err);
    if (st == QN_ERR_INTERNAL || (st != QN_OK && !err.message[0])) abort();
    bool marked = !memchr(data, 2, len) && !memchr(data, '\\', len);
    size_t sum = 0;
    for (size_t i = 0; i < r.n_spans; i++) {
        if (r.spans[i].len == 0 || (i && r.spans[i].trusted == r.spans[i - 1].trusted)) abort();
        const char *run = r.text.data + sum;
        if (marked && r.spans[i].trusted && memchr(run, 2, r.spans[i].len)) abort();
        sum += r.spans[i].len;
    }
    if (sum != r.text.len || sum > limits.max_output) abort();
    qn_rendered_free(&r);
    json_decref(vars);
    qn_template_free(t);
    return 0;
}
