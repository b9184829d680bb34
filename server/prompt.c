// SPDX-License-Identifier: Apache-2.0
#include "server/prompt.h"

#include "base/json_tree.h"
#include "engine/prompt.h"

static bool too_long(const qn_engine_info *info, qn_api_error *err) {
    err->code = "context_length_exceeded";
    return qn_api_fail(err, 400, NULL,
                       "the prompt leaves no room for an answer in the model's context of %d tokens",
                       info->max_model_len);
}

static json_t *template_variables(const qn_gen_request *r) {
    // What the request sets comes first: ours stands above it. (json_object_update_missing would leave
    // members out when an allocation fails.)
    json_t *v = r->template_kwargs ? qn_json_copy(r->template_kwargs) : json_object();
    if (!v) return NULL;
    bool ok = json_object_set(v, "messages", r->messages) == 0 &&
              (!r->tools || json_object_set(v, "tools", r->tools) == 0) &&
              json_object_set_new(v, "add_generation_prompt",
                                  json_boolean(r->add_generation_prompt)) == 0;
    if (ok) return v;
    json_decref(v);
    return NULL;
}

static bool done(const qn_engine_info *info, qn_status st, const qn_error *e, const char *param,
                 qn_api_error *err) {
    if (st == QN_OK) return true;
    if (st == QN_ERR_LIMIT) return too_long(info, err);
    return qn_api_fail_status(err, e, param);
}

bool qn_prompt_build(const qn_engine_info *info, const qn_gen_request *r, size_t index, qn_ids *out,
                     qn_api_error *err) {
    size_t before = out->len, most = (size_t)info->max_model_len;
    qn_error e = {0};
    if (r->chat) {
        json_t *variables = template_variables(r);
        if (!variables) return qn_api_fail(err, 503, NULL, "out of memory");
        qn_status st = r->continue_final
                           ? qn_prompt_continue_chat(info, variables, most, out, NULL, &e)
                           : qn_prompt_from_chat(info, variables, most, out, NULL, &e);
        json_decref(variables);
        if (!done(info, st, &e, "messages", err)) return false;
    } else if (r->prompts[index].text) {
        qn_status st = qn_tokenize(info->tokenizer, r->prompts[index].text, r->prompts[index].len,
                                   NULL, 0, r->add_special_tokens != 0, most, out, &e);
        if (!done(info, st, &e, "prompt", err)) return false;
    } else {
        for (size_t i = 0; i < r->prompts[index].n_ids; i++) {
            if (!qn_ids_push(out, r->prompts[index].ids[i])) {
                return qn_api_fail(err, 503, NULL, "out of memory");
            }
        }
    }
    size_t n = out->len - before;
    if (n == 0) {
        return qn_api_fail(err, 400, r->chat ? "messages" : "prompt", "the prompt has no tokens");
    }
    if (n >= most) return too_long(info, err);
    if (r->max_tokens > info->max_model_len - (int32_t)n) {
        err->code = "context_length_exceeded";
        return qn_api_fail(err, 400, "max_tokens",
                           "the prompt has %zu tokens and max_tokens is %d, the model's context is "
                           "%d tokens", n, r->max_tokens, info->max_model_len);
    }
    return true;
}

bool qn_bad_words_build(const qn_engine_info *info, qn_gen_request *r, qn_api_error *err) {
    qn_buf text = {0};
    qn_error e = {0};
    qn_status st = QN_OK;
    for (size_t i = 0; i < r->n_bad_words && st == QN_OK; i++) {
        size_t plain = r->bad_ids.len;
        for (int space = 0; space < 2 && st == QN_OK; space++) {
            size_t first = r->bad_ids.len;
            qn_buf_clear(&text);
            if (space) qn_buf_putc(&text, ' ');
            qn_buf_append(&text, r->bad_words[i].data, r->bad_words[i].len);
            if (text.failed) {
                st = qn_fail(&e, QN_ERR_NOMEM, "out of memory");
                break;
            }
            st = qn_tokenize(info->tokenizer, text.data, text.len, NULL, 0, false,
                             QN_MAX_BAD_WORD_IDS, &r->bad_ids, &e);
            if (st != QN_OK) break;
            size_t n = r->bad_ids.len - first;
            // Ids that end with the plain word's are banned with those. (vLLM drops more: every one
            // that has another length, so that words of several tokens may still come after a space.)
            size_t n_plain = first - plain;
            if (n == 0 || (space && n >= n_plain &&
                memcmp(r->bad_ids.data + r->bad_ids.len - n_plain, r->bad_ids.data + plain,
                       n_plain * sizeof *r->bad_ids.data) == 0)) {
                r->bad_ids.len = first;
            } else {
                r->bad_lens[r->n_bad_lens++] = (int32_t)n;
            }
        }
    }
    qn_buf_free(&text);
    if (st == QN_OK) return true;
    if (st == QN_ERR_LIMIT) {
        return qn_api_fail(err, 400, "bad_words", "a bad word has more than %d tokens",
                           QN_MAX_BAD_WORD_IDS);
    }
    return qn_api_fail_status(err, &e, "bad_words");
}

static bool echo_ids(const qn_tokenizer *t, const int32_t *ids, size_t n, size_t most, qn_buf *out) {
    qn_detok d;
    qn_detok_init(&d, t, true, true);
    for (size_t i = 0; i < n && out->len <= most; i++) {
        if (!qn_detok_push(&d, ids[i], out)) return false;
    }
    return qn_detok_flush(&d, out);
}

bool qn_echo_build(const qn_engine_info *info, qn_gen_request *r, const qn_ids *ids,
                   const size_t *ends, qn_api_error *err) {
    const size_t copies = (size_t)r->n;
    size_t bytes = r->last_message.len;
    if (!r->echo) return true;
    for (size_t i = 0; !r->chat && i < r->n_prompts; i++) {
        qn_prompt_input *p = &r->prompts[i];
        const size_t first = i ? ends[i - 1] : 0, most = QN_REQUEST_MAX_ECHOED_BYTES;
        if (p->text) qn_buf_append(&p->echo, p->text, p->len);
        else if (!echo_ids(info->tokenizer, ids->data + first, ends[i] - first, most, &p->echo)) {
            p->echo.failed = true;
        }
        if (p->echo.failed) return qn_api_fail(err, 503, NULL, "out of memory");
        bytes += p->echo.len;
        if (bytes > most / copies) break;
    }
    if (bytes <= QN_REQUEST_MAX_ECHOED_BYTES / copies) return true;
    return qn_api_fail(err, 400, "echo", "echo: the answer would repeat more than %d bytes",
                       QN_REQUEST_MAX_ECHOED_BYTES);
}
