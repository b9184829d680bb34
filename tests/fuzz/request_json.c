// SPDX-License-Identifier: Apache-2.0
// Request bodies: the first byte chooses the parser, the rest is the body. What is accepted must be
// inside the limits, what is refused must say why in the one error shape.
#include "server/request.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void check(bool ok) {
    if (!ok) abort();
}

static void check_error(const qn_api_error *err) {
    check(err->status >= 400 && err->status < 600 && err->message[0]);
    qn_buf b = {0};
    qn_api_error_json(err, &b);
    json_t *j = b.failed ? NULL : json_loadb(b.data, b.len, JSON_REJECT_DUPLICATES, NULL);
    check(j && json_object_size(json_object_get(j, "error")) == 4);
    json_decref(j);
    qn_buf_free(&b);
}

static void check_request(const qn_request_limits *l, const qn_gen_request *r) {
    check(r->n >= 1 && (size_t)r->n * r->n_prompts <= QN_REQUEST_MAX_CHOICES);
    check(isfinite(r->temperature) && r->temperature >= 0);
    check(r->top_p > 0 && r->top_p <= 1 && r->min_p >= 0 && r->min_p <= 1 && r->top_k >= 0);
    check(r->max_tokens >= 0 && r->max_tokens < l->max_model_len);
    check(r->min_tokens >= 0 && (r->max_tokens == 0 || r->min_tokens <= r->max_tokens));
    check(r->n_logprobs >= -1 && r->n_logprobs <= l->max_logprobs);
    check(r->n_prompt_logprobs >= -1 && r->n_prompt_logprobs <= l->max_logprobs);
    check(r->n_prompt_logprobs < 0 || !r->stream);
    check(!r->echo_only || (r->echo && !r->chat && r->max_tokens == 1 && r->min_tokens == 0));
    check(r->n_stops <= QN_REQUEST_MAX_STOPS && r->n_stop_ids <= QN_REQUEST_MAX_STOP_IDS);
    for (size_t i = 0; i < r->n_stops; i++) {
        check(r->stops[i].len > 0 && r->stops[i].len <= QN_REQUEST_MAX_STOP_BYTES);
    }
    for (size_t i = 0; i < r->n_stop_ids; i++) {
        check(r->stop_ids[i] >= 0 && r->stop_ids[i] < l->vocab_size);
    }
    check(fabsf(r->presence_penalty) <= 2 && fabsf(r->frequency_penalty) <= 2);
    check(r->repetition_penalty > 0 && r->repetition_penalty <= 100);
    check(r->n_biases <= 1024 && r->n_bad_words <= QN_REQUEST_MAX_BAD_WORDS);
    for (size_t i = 0; i < r->n_biases; i++) {
        check(r->bias_ids[i] >= 0 && r->bias_ids[i] < l->vocab_size);
        check(fabsf(r->biases[i]) <= 100);
        for (size_t k = 0; k < i && k < 8; k++) check(r->bias_ids[k] != r->bias_ids[i]);
    }
    check(!r->allowed_ids == (r->n_allowed_ids == 0));
    for (size_t i = 0; i < r->n_allowed_ids; i++) {
        check(r->allowed_ids[i] >= 0 && r->allowed_ids[i] < l->vocab_size);
    }
    for (size_t i = 0; i < r->n_bad_words; i++) {
        check(r->bad_words[i].len > 0 && r->bad_words[i].len <= QN_REQUEST_MAX_BAD_WORD_BYTES);
    }
    check(!r->request_id || qn_request_id_valid(qn_str_from(r->request_id)));
    check(!r->cache_salt || (r->cache_salt[0] && strlen(r->cache_salt) <= 128));
    if (r->chat) {
        check(json_array_size(r->messages) > 0);
        check(!r->continue_final || !r->add_generation_prompt);
        for (size_t i = 0; i < json_array_size(r->messages); i++) {
            const json_t *m = json_array_get(r->messages, i);
            check(json_is_string(json_object_get(m, "role")));
            check(json_is_string(json_object_get(m, "content")));
        }
        return;
    }
    for (size_t i = 0; i < r->n_prompts; i++) {
        check(r->prompts[i].text || r->prompts[i].n_ids > 0);
        for (size_t k = 0; k < r->prompts[i].n_ids; k++) {
            check(r->prompts[i].ids[k] >= 0 && r->prompts[i].ids[k] < l->vocab_size);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const qn_request_limits limits = {
        .vocab_size = 1000,
        .max_model_len = 64,
        .max_logprobs = 20,
        .temperature = 1,
        .top_p = 1,
        .repetition_penalty = 1.1f,
        .max_new_tokens = 5,
    };
    if (size < 1) return 0;
    const char *body = (const char *)data + 1;
    size_t len = size - 1;
    qn_api_error err = {0};
    bool ok;
    switch (data[0] % 4) {
    case 0:
    case 1: {
        qn_gen_request *r = qn_gen_request_parse(&limits, data[0] % 4 == 0, body, len, &err);
        ok = r != NULL;
        if (r) check_request(&limits, r);
        qn_gen_request_free(r);
        break;
    }
    case 2: {
        qn_tokenize_request t;
        ok = qn_tokenize_request_parse(&limits, body, len, &t, &err);
        if (ok) {
            check(t.chat || t.prompt);
            qn_tokenize_request_free(&t);
        }
        break;
    }
    default: {
        qn_detokenize_request d;
        ok = qn_detokenize_request_parse(&limits, body, len, &d, &err);
        if (ok) {
            for (size_t i = 0; i < d.n_ids; i++) check(d.ids[i] >= 0 && d.ids[i] < 1000);
            qn_detokenize_request_free(&d);
        }
        break;
    }
    }
    if (!ok) check_error(&err);
    return 0;
}
