// SPDX-License-Identifier: Apache-2.0
#include "engine/prompt.h"

#include "base/json_tree.h"
#include "base/os.h"

#include <stdio.h>
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

// Ends the rendered text at `len`.
static void cut(qn_rendered *r, size_t len) {
    size_t at = 0, n = 0;
    while (n < r->n_spans && at + r->spans[n].len < len) at += r->spans[n++].len;
    if (n < r->n_spans) r->spans[n++].len = len - at;
    while (n > 0 && r->spans[n - 1].len == 0) n--;
    r->n_spans = n;
    r->text.len = len;
    if (r->text.data) r->text.data[len] = '\0';
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Where the mark (with a space behind it, which a template that trims takes away) is.
static qn_status cut_at_mark(qn_rendered *r, const char *mark, qn_error *err) {
    const size_t n = strlen(mark);
    const char *found = r->text.len ? memmem(r->text.data, r->text.len, mark, n) : NULL;
    if (found) {
        const size_t at = (size_t)(found - r->text.data);
        if (memmem(found + n, r->text.len - at - n, mark, n)) {
            return qn_fail(err, QN_ERR_INVALID, "continue_final_message: the model's chat template "
                           "shows the last message's content more than once");
        }
        size_t len = at;
        const bool trimmed = at + n >= r->text.len || r->text.data[at + n] != ' ';
        while (trimmed && len > 0 && is_space(r->text.data[len - 1])) len--;
        cut(r, len);
        return QN_OK;
    }
    return qn_fail(err, QN_ERR_INVALID, "continue_final_message: the model's chat template does not "
                   "show the last message's content");
}

// A copy of variables whose last message ends with the mark and a space. NULL: out of memory.
static json_t *with_mark(const json_t *variables, const char *mark) {
    const json_t *messages = json_object_get(variables, "messages");
    const size_t n = json_array_size(messages);
    json_t *copy = qn_json_copy(variables);
    json_t *list = qn_json_copy(messages);
    json_t *last = n > 0 ? qn_json_copy(json_array_get(messages, n - 1)) : NULL;
    qn_buf text = {0};
    const json_t *content = json_object_get(last, "content");
    qn_buf_append(&text, json_string_value(content), json_string_length(content));
    qn_buf_printf(&text, "%s ", mark);
    bool ok = !text.failed && copy && list && last &&
              json_object_set_new(last, "content", json_stringn(text.data, text.len)) == 0 &&
              json_array_set(list, n - 1, last) == 0 &&
              json_object_set(copy, "messages", list) == 0;
    qn_buf_free(&text);
    json_decref(last);
    json_decref(list);
    if (ok) return copy;
    json_decref(copy);
    return NULL;
}

// mark NULL: the whole prompt.
static qn_status from_chat(const qn_engine_info *info, const json_t *variables, const char *mark,
                           size_t max_ids, qn_ids *ids, qn_buf *text, qn_error *err) {
    if (!info->chat_template) {
        return qn_fail(err, QN_ERR_UNSUPPORTED, "%s", info->chat_template_error);
    }
    json_t *trusted = json_pack("{s:s, s:s}", "bos_token", info->bos_text, "eos_token",
                                info->eos_text);
    if (!trusted) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    qn_rendered rendered = {0};
    qn_status st = qn_template_render(info->chat_template, variables, trusted, qn_os_wall_time(),
                                      NULL, &rendered, err);
    if (st == QN_OK && mark) st = cut_at_mark(&rendered, mark, err);
    if (st == QN_OK) st = tokenize(info, &rendered, max_ids, ids, err);
    if (st == QN_OK && text) {
        qn_buf_append(text, rendered.text.data ? rendered.text.data : "", rendered.text.len);
    }
    qn_rendered_free(&rendered);
    json_decref(trusted);
    return st;
}

qn_status qn_prompt_from_chat(const qn_engine_info *info, const json_t *variables, size_t max_ids,
                              qn_ids *ids, qn_buf *text, qn_error *err) {
    return from_chat(info, variables, NULL, max_ids, ids, text, err);
}

qn_status qn_prompt_continue_chat(const qn_engine_info *info, const json_t *variables,
                                  size_t max_ids, qn_ids *ids, qn_buf *text, qn_error *err) {
    const json_t *messages = json_object_get(variables, "messages");
    const size_t n = json_array_size(messages);
    if (n == 0 || !json_is_string(json_object_get(json_array_get(messages, n - 1), "content"))) {
        return qn_fail(err, QN_ERR_INVALID, "continue_final_message: the last message has no text");
    }
    // Random, so that no message can hold it.
    uint64_t random[2];
    char mark[40];
    if (!qn_os_random(random, sizeof random)) {
        return qn_fail(err, QN_ERR_BUSY, "the system gives no random numbers");
    }
    snprintf(mark, sizeof mark, "Mark%016llx%016llx", (unsigned long long)random[0],
             (unsigned long long)random[1]);
    json_t *marked = with_mark(variables, mark);
    if (!marked) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    qn_status st = from_chat(info, marked, mark, max_ids, ids, text, err);
    json_decref(marked);
    return st;
}
