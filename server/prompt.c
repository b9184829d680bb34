// SPDX-License-Identifier: Apache-2.0
#include "server/prompt.h"

#include "engine/prompt.h"

static bool too_long(const qn_engine_info *info, qn_api_error *err) {
    err->code = "context_length_exceeded";
    return qn_api_fail(err, 400, NULL,
                       "the prompt leaves no room for an answer in the model's context of %d tokens",
                       info->max_model_len);
}

static json_t *template_variables(const qn_gen_request *r) {
    json_t *v = json_object();
    if (!v) return NULL;
    bool ok = json_object_set(v, "messages", r->messages) == 0 &&
              (!r->tools || json_object_set(v, "tools", r->tools) == 0) &&
              json_object_set_new(v, "add_generation_prompt",
                                  json_boolean(r->add_generation_prompt)) == 0 &&
              (!r->template_kwargs || json_object_update_missing(v, r->template_kwargs) == 0);
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
        qn_status st = qn_prompt_from_chat(info, variables, most, out, NULL, &e);
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
