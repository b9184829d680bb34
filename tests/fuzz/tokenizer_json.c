// SPDX-License-Identifier: Apache-2.0
// A tokenizer.json from the input up to its last NUL byte, then the rest as a text: half of it may
// hold special tokens, half may not. The ids go back through the streaming detokenizer.
#include "base/utf8.h"
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(const qn_tokenizer *t, const char *text, size_t len) {
    const qn_text_span spans[2] = {{len / 2, true}, {len - len / 2, false}};
    qn_ids ids = {0};
    qn_buf out = {0};
    qn_detok d;
    if (qn_tokenize(t, text, len, spans, 2, true, 4096, &ids, NULL) == QN_OK) {
        qn_detok_init(&d, t, false, true);
        for (size_t i = 0; i < ids.len; i++) {
            if (ids.data[i] < 0 || ids.data[i] >= qn_tokenizer_size(t)) abort();
            if (!qn_detok_push(&d, ids.data[i], &out)) break;
        }
        qn_detok_flush(&d, &out);
        if (out.data && !qn_utf8_valid(out.data, out.len)) abort();
    }
    qn_ids_free(&ids);
    qn_buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t json = size;
    while (json > 0 && data[json - 1] != 0)
        json--;
    size_t text = json;
    if (json > 0)
        json--;
    else
        json = text = size;
    qn_tokenizer *t = NULL;
    qn_error err = {0};
    if (qn_tokenizer_from_json_memory((const char *)data, json, NULL, &t, &err) != QN_OK) return 0;
    const int32_t *stop;
    for (size_t i = 0, n = qn_tokenizer_stop_ids(t, &stop); i < n; i++) {
        if (stop[i] < 0 || stop[i] >= qn_tokenizer_size(t)) abort();
    }
    round_trip(t, (const char *)data + text, size - text);
    qn_tokenizer_close(t);
    return 0;
}
