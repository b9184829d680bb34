// SPDX-License-Identifier: Apache-2.0
#include "engine/prompt.h"

#include "base/os.h"

#include <stdlib.h>

static qn_status tokenize(const qn_engine_info *info, const qn_rendered *r, size_t max_ids,
                          qn_ids *ids, qn_error *err) {
    qn_text_span *spans = calloc(r->n_spans ? r->n_spans : 1, sizeof *spans);
    if (!spans) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    for (size_t i = 0; i < r->n_spans; i++) {
        spans[i] = (qn_text_span){r->spans[i].len, r->spans[i].trusted};
    }
    qn_status st = qn_tokenize(info->tokenizer, r->text.data ? r->text.data : "", r->text.len, spans,
                               r->n_spans, info->chat_template_is_fallback, max_ids, ids, err);
    free(spans);
    return st;
}

qn_status qn_prompt_from_chat(const qn_engine_info *info, const json_t *variables, size_t max_ids,
                              qn_ids *ids, qn_buf *text, qn_error *err) {
    if (!info->chat_template) {
        return qn_fail(err, QN_ERR_UNSUPPORTED, "%s", info->chat_template_error);
    }
    json_t *trusted = json_pack("{s:s, s:s}", "bos_token", info->bos_text, "eos_token",
                                info->eos_text);
    if (!trusted) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    qn_rendered rendered = {0};
    qn_status st = qn_template_render(info->chat_template, variables, trusted, qn_os_wall_time(),
                                      NULL, &rendered, err);
    if (st == QN_OK) st = tokenize(info, &rendered, max_ids, ids, err);
    if (st == QN_OK && text) {
        qn_buf_append(text, rendered.text.data ? rendered.text.data : "", rendered.text.len);
    }
    qn_rendered_free(&rendered);
    json_decref(trusted);
    return st;
}
