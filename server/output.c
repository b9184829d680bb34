// SPDX-License-Identifier: Apache-2.0
// The JSON of answers: OpenAI's shapes, written straight into a buffer.
#include "server/generation.h"

#include "base/checked.h"
#include "base/utf8.h"

#include <math.h>
#include <stdlib.h>

static void json_str(qn_buf *out, const char *s) { qn_buf_json_string(out, s, strlen(s)); }

static void json_text(qn_buf *out, const qn_buf *text) {
    qn_buf_json_string(out, text->data ? text->data : "", text->len);
}

// JSON has no infinity: what has no probability gets the value that vLLM gives it.
static void json_logprob(qn_buf *out, float lp) {
    qn_buf_printf(out, "%.9g", isfinite(lp) ? (double)lp : -9999.0);
}

// Into scratch. out fails with it: the next token would clear scratch's own failure.
static void token_bytes(const qn_generation *g, int32_t id, qn_buf *scratch, qn_buf *out) {
    qn_buf_clear(scratch);
    if (!qn_token_bytes(g->loop->server->info->tokenizer, id, true, scratch)) out->failed = true;
}

static void json_bytes(qn_buf *out, const qn_buf *bytes) {
    qn_buf_putc(out, '[');
    for (size_t i = 0; i < bytes->len; i++) {
        qn_buf_printf(out, i ? ",%u" : "%u", (unsigned)(unsigned char)bytes->data[i]);
    }
    qn_buf_putc(out, ']');
}

static void chat_entry(qn_choice *c, int32_t id, float lp, qn_buf *out, qn_buf *scratch) {
    token_bytes(c->gen, id, scratch, out);
    qn_buf_puts(out, "{\"token\":");
    json_text(out, scratch);
    qn_buf_puts(out, ",\"logprob\":");
    json_logprob(out, lp);
    qn_buf_puts(out, ",\"bytes\":");
    json_bytes(out, scratch);
}

static void chat_token(qn_choice *c, const qn_token_event *e, qn_buf *scratch) {
    qn_buf *out = &c->logprobs.a;
    if (out->len) qn_buf_putc(out, ',');
    chat_entry(c, e->id, e->logprob, out, scratch);
    qn_buf_puts(out, ",\"top_logprobs\":[");
    for (int32_t i = 0; i < e->n_top; i++) {
        if (i) qn_buf_putc(out, ',');
        chat_entry(c, e->top_ids[i], e->top_logprobs[i], out, scratch);
        qn_buf_putc(out, '}');
    }
    qn_buf_puts(out, "]}");
}

// Characters, as text offsets count them: malformed bytes become one character each.
static size_t count_chars(const qn_buf *b) {
    size_t n = 0;
    for (size_t i = 0; i < b->len; n++) {
        uint32_t cp;
        size_t k = qn_utf8_decode(b->data + i, b->len - i, &cp);
        i += k ? k : 1;
    }
    return n;
}

// A token of the text from its l->chars-th character on; e NULL: the first, which nothing predicts.
static void completion_token(const qn_generation *g, qn_logprob_text *l, int32_t token,
                             const qn_token_event *e, qn_buf *scratch) {
    const char *comma = l->a.len ? "," : "";
    token_bytes(g, token, scratch, &l->a);
    qn_buf_puts(&l->a, comma);
    json_text(&l->a, scratch);
    qn_buf_printf(&l->offsets, "%s%zu", comma, l->chars);
    l->chars += count_chars(scratch);
    qn_buf_puts(&l->probs, comma);
    if (e) json_logprob(&l->probs, e->logprob);
    else qn_buf_puts(&l->probs, "null");
    qn_buf_puts(&l->tops, comma);
    if (!e || g->request->n_logprobs == 0) {
        qn_buf_puts(&l->tops, "null");
        return;
    }
    // An object by text: of tokens that read the same the likeliest stays; the sampled one is added.
    qn_buf seen = {0};
    qn_buf_putc(&l->tops, '{');
    bool sampled = false;
    size_t n = 0;
    for (int32_t i = 0; i <= e->n_top; i++) {
        if (i == e->n_top && sampled) break;
        int32_t id = i < e->n_top ? e->top_ids[i] : e->id;
        sampled = sampled || id == e->id;
        token_bytes(g, id, scratch, &l->tops);
        qn_buf key = {0};
        json_text(&key, scratch);
        bool again = key.data && seen.data && strstr(seen.data, key.data) != NULL;
        if (key.data && !again) {
            if (n++) qn_buf_putc(&l->tops, ',');
            qn_buf_append(&l->tops, key.data, key.len);
            qn_buf_putc(&l->tops, ':');
            json_logprob(&l->tops, i < e->n_top ? e->top_logprobs[i] : e->logprob);
            qn_buf_append(&seen, key.data, key.len); // quotes delimit the keys
        }
        if (key.failed || seen.failed) l->tops.failed = true;
        qn_buf_free(&key);
    }
    qn_buf_putc(&l->tops, '}');
    qn_buf_free(&seen);
}

void qn_output_logprobs(qn_choice *c, size_t end, qn_buf *scratch) {
    size_t n = 0;
    while (n < c->n_pending && c->pending[n].start < end) {
        const qn_token_event *e = &c->pending[n++].event;
        if (c->gen->request->chat) chat_token(c, e, scratch);
        else completion_token(c->gen, &c->logprobs, e->id, e, scratch);
    }
    if (n == 0) return;
    c->n_pending -= n;
    memmove(c->pending, c->pending + n, c->n_pending * sizeof *c->pending);
}

// ---------------------------------------------------------------- what the prompt adds

int32_t qn_output_prompt_logprobs(const qn_gen_request *r) {
    int32_t echoed = r->echo && !r->chat ? r->n_logprobs : -1;
    return QN_MAX(r->n_prompt_logprobs, echoed);
}

// {"7":{"logprob":-0.1,"rank":1,"decoded_token":" a"},...}: the token, then the most likely ones.
static void prompt_scores(const qn_generation *g, const qn_token_score *row, int32_t n_top, qn_buf *out,
                          qn_buf *scratch) {
    qn_buf_putc(out, '{');
    for (int32_t i = 0; i <= n_top; i++) {
        const qn_token_score *s = &row[i];
        if (s->id < 0 || (i > 0 && s->id == row->id)) continue;
        token_bytes(g, s->id, scratch, out);
        qn_buf_printf(out, "%s\"%d\":{\"logprob\":", i ? "," : "", s->id);
        json_logprob(out, s->logprob);
        qn_buf_printf(out, ",\"rank\":%d,\"decoded_token\":", s->rank);
        json_text(out, scratch);
        qn_buf_putc(out, '}');
    }
    qn_buf_putc(out, '}');
}

static void echo_token(const qn_generation *g, qn_logprob_text *l, const qn_token_score *row,
                       int32_t n_top, qn_buf *scratch) {
    qn_token_event e = {.id = row->id, .logprob = row->logprob};
    for (int32_t i = 1; i <= n_top && row[i].id >= 0; i++) {
        e.top_ids[e.n_top] = row[i].id;
        e.top_logprobs[e.n_top++] = row[i].logprob;
    }
    completion_token(g, l, row->id, &e, scratch);
}

// The logprobs of prompt k, once. ids: its n tokens.
static bool make_prompt(qn_generation *g, size_t k, const int32_t *ids, size_t n, qn_buf *scratch) {
    const qn_gen_request *r = g->request;
    const qn_prompt_input *input = r->prompts ? &r->prompts[k] : NULL;
    const qn_tokenizer *t = g->loop->server->info->tokenizer;
    qn_prompt_output *out = &g->prompts[k];
    qn_logprob_text *l = &out->tokens;
    qn_prompt_logprobs p;
    if (out->ready) return true;
    if (qn_engine_prompt_logprobs(g->loop->server->engine, g->choices[k * (size_t)r->n].handle, &p) !=
            QN_OK || (size_t)p.n_prompt != n) {
        return false;
    }
    const size_t stride = (size_t)p.n_top + 1;
    const bool echo = r->echo && !r->chat && r->n_logprobs >= 0;
    // Where each token begins in the echoed text, which is not always the tokens' own: a BOS that was
    // put before it is not shown, nor the space that some tokenizers begin with.
    qn_buf shown = {0};
    qn_detok d;
    qn_detok_init(&d, t, true, true);
    bool lost = false;
    size_t chars = 0, most = echo ? count_chars(&input->echo) : 0;
    for (size_t i = 0; i < n; i++) {
        const qn_token_score *row = p.scores + i * stride;
        if (r->n_prompt_logprobs >= 0) {
            if (i) qn_buf_putc(&out->scores, ',');
            if (i) prompt_scores(g, row, r->n_prompt_logprobs, &out->scores, scratch);
            else qn_buf_puts(&out->scores, "null");
        }
        if (!echo) continue;
        l->chars = QN_MIN(chars, most);
        if (i) echo_token(g, l, row, r->n_logprobs, scratch);
        else completion_token(g, l, ids[0], NULL, scratch);
        const bool hidden = i == 0 && input->text && r->add_special_tokens != 0 &&
                            qn_tokenizer_add_bos(t) && ids[0] == qn_tokenizer_bos(t);
        qn_buf_clear(&shown);
        if (!hidden && !qn_detok_push(&d, ids[i], &shown)) lost = true;
        chars += count_chars(&shown);
    }
    l->chars = most;
    bool ok = !(lost || out->scores.failed || l->a.failed ||
                l->probs.failed || l->tops.failed || l->offsets.failed);
    qn_buf_free(&shown);
    out->ready = ok;
    return ok;
}

static void copy_buf(qn_buf *to, const qn_buf *from) {
    if (from->len) qn_buf_append(to, from->data, from->len);
}

bool qn_output_begin(qn_choice *c, qn_buf *scratch) {
    qn_generation *g = c->gen;
    const qn_gen_request *r = g->request;
    const size_t k = (size_t)c->index / (size_t)r->n;
    if (c->begun) return true;
    c->begun = true;
    if (g->prompts) {
        const size_t first = k ? g->prompt_ends[k - 1] : 0;
        if (!make_prompt(g, k, g->prompt_ids.data + first, g->prompt_ends[k] - first, scratch)) {
            return false;
        }
    }
    if (!r->echo) return true;
    if (r->chat) {
        if (r->last_message.len) qn_buf_append(&c->text, r->last_message.data, r->last_message.len);
        return !c->text.failed;
    }
    copy_buf(&c->text, &r->prompts[k].echo);
    if (r->n_logprobs >= 0) {
        const qn_logprob_text *from = &g->prompts[k].tokens;
        qn_logprob_text *to = &c->logprobs;
        copy_buf(&to->a, &from->a);
        copy_buf(&to->probs, &from->probs);
        copy_buf(&to->tops, &from->tops);
        copy_buf(&to->offsets, &from->offsets);
        to->chars = from->chars;
        if (to->a.failed || to->probs.failed || to->tops.failed || to->offsets.failed) return false;
    }
    return !c->text.failed;
}

static void free_logprobs(qn_logprob_text *l) {
    qn_buf_free(&l->a);
    qn_buf_free(&l->probs);
    qn_buf_free(&l->tops);
    qn_buf_free(&l->offsets);
}

void qn_output_free_prompts(qn_generation *g) {
    for (size_t k = 0; g->prompts && k < g->request->n_prompts; k++) {
        qn_buf_free(&g->prompts[k].scores);
        free_logprobs(&g->prompts[k].tokens);
    }
    free(g->prompts);
    g->prompts = NULL;
}

void qn_output_clear_logprobs(qn_choice *c) {
    qn_buf_clear(&c->logprobs.a);
    qn_buf_clear(&c->logprobs.probs);
    qn_buf_clear(&c->logprobs.tops);
    qn_buf_clear(&c->logprobs.offsets);
}

void qn_choice_free_output(qn_choice *c) {
    qn_buf_free(&c->text);
    free_logprobs(&c->logprobs);
    free(c->ids);
    c->ids = NULL;
    free(c->pending);
    c->pending = NULL;
    c->n_pending = c->cap_pending = 0;
}

static void json_part(qn_buf *out, const char *name, const qn_buf *elements) {
    qn_buf_puts(out, name);
    if (elements->failed) out->failed = true;
    if (elements->len) qn_buf_append(out, elements->data, elements->len);
    qn_buf_putc(out, ']');
}

static void logprobs_field(const qn_choice *c, qn_buf *out) {
    const qn_logprob_text *l = &c->logprobs;
    if (c->gen->request->n_logprobs < 0) {
        qn_buf_puts(out, ",\"logprobs\":null");
        return;
    }
    if (c->gen->request->chat) {
        json_part(out, ",\"logprobs\":{\"content\":[", &l->a);
    } else {
        json_part(out, ",\"logprobs\":{\"tokens\":[", &l->a);
        json_part(out, ",\"token_logprobs\":[", &l->probs);
        json_part(out, ",\"top_logprobs\":[", &l->tops);
        json_part(out, ",\"text_offset\":[", &l->offsets);
    }
    qn_buf_putc(out, '}');
}

static void finish_fields(const qn_choice *c, qn_buf *out) {
    qn_buf_puts(out, ",\"finish_reason\":");
    if (!c->finish) {
        qn_buf_puts(out, "null");
        return;
    }
    json_str(out, c->finish);
    qn_buf_puts(out, ",\"stop_reason\":");
    if (c->stop_string >= 0) {
        qn_str s = c->gen->request->stops[c->stop_string];
        qn_buf_json_string(out, s.data, s.len);
    } else if (c->stop_id >= 0) {
        qn_buf_printf(out, "%d", c->stop_id);
    } else {
        qn_buf_puts(out, "null");
    }
}

static void ids_field(qn_buf *out, const char *name, const int32_t *ids, size_t n) {
    qn_buf_printf(out, ",\"%s\":[", name);
    for (size_t i = 0; i < n; i++) qn_buf_printf(out, i ? ",%d" : "%d", ids[i]);
    qn_buf_putc(out, ']');
}

// Of the choice's prompt.
static void prompt_ids_field(const qn_choice *c, qn_buf *out) {
    const qn_generation *g = c->gen;
    size_t k = (size_t)c->index / (size_t)g->request->n;
    size_t first = k ? g->prompt_ends[k - 1] : 0;
    ids_field(out, "prompt_token_ids", g->prompt_ids.data + first, g->prompt_ends[k] - first);
}

static void prompt_logprobs_field(const qn_choice *c, qn_buf *out) {
    const qn_generation *g = c->gen;
    if (g->request->n_prompt_logprobs < 0) return;
    json_part(out, ",\"prompt_logprobs\":[",
              &g->prompts[(size_t)c->index / (size_t)g->request->n].scores);
}

static void token_ids_field(const qn_choice *c, size_t first, qn_buf *out) {
    size_t n = (size_t)c->n_tokens;
    ids_field(out, "token_ids", n ? c->ids + first : NULL, n - first);
}

static void head_fields(const qn_generation *g, const char *object, qn_buf *out) {
    qn_buf_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", g->id, object,
                  (long long)g->created);
    json_str(out, g->model);
}

static void usage_field(const qn_generation *g, qn_buf *out) {
    int64_t n = 0;
    for (size_t i = 0; i < g->n_choices; i++) n += g->choices[i].n_tokens;
    qn_buf_printf(out,
                  ",\"usage\":{\"prompt_tokens\":%lld,\"completion_tokens\":%lld,"
                  "\"total_tokens\":%lld,\"prompt_tokens_details\":{\"cached_tokens\":%lld}}",
                  (long long)g->n_prompt, (long long)n, (long long)(g->n_prompt + n),
                  (long long)g->n_cached);
}

void qn_output_chunk(const qn_choice *c, bool first, qn_buf *out) {
    const qn_generation *g = c->gen;
    bool chat = g->request->chat, with_role = chat && first;
    head_fields(g, chat ? "chat.completion.chunk" : "text_completion", out);
    qn_buf_printf(out, ",\"choices\":[{\"index\":%d", c->index);
    if (chat) {
        qn_buf_puts(out, ",\"delta\":{");
        if (with_role) qn_buf_puts(out, "\"role\":\"assistant\"");
        if (with_role || c->text.len) {
            qn_buf_puts(out, with_role ? ",\"content\":" : "\"content\":");
            json_text(out, &c->text);
        }
        qn_buf_putc(out, '}');
    } else {
        qn_buf_puts(out, ",\"text\":");
        json_text(out, &c->text);
    }
    const qn_buf *a = &c->logprobs.a;
    if (g->request->n_logprobs >= 0 && a->len == 0 && !a->failed) qn_buf_puts(out, ",\"logprobs\":null");
    else logprobs_field(c, out);
    finish_fields(c, out);
    if (g->request->return_ids) {
        if (first && !chat) prompt_ids_field(c, out);
        token_ids_field(c, c->n_ids_sent, out);
    }
    qn_buf_puts(out, "}]");
    if (g->request->return_ids && first && chat) prompt_ids_field(c, out);
    if (g->request->continuous_usage) usage_field(g, out);
    qn_buf_putc(out, '}');
}

void qn_output_usage_chunk(const qn_generation *g, qn_buf *out) {
    head_fields(g, g->request->chat ? "chat.completion.chunk" : "text_completion", out);
    qn_buf_puts(out, ",\"choices\":[]");
    usage_field(g, out);
    qn_buf_putc(out, '}');
}

void qn_output_response(const qn_generation *g, qn_buf *out) {
    bool chat = g->request->chat;
    head_fields(g, chat ? "chat.completion" : "text_completion", out);
    qn_buf_puts(out, ",\"choices\":[");
    for (size_t i = 0; i < g->n_choices; i++) {
        const qn_choice *c = &g->choices[i];
        qn_buf_printf(out, "%s{\"index\":%d", i ? "," : "", c->index);
        if (chat) {
            qn_buf_puts(out, ",\"message\":{\"role\":\"assistant\",\"content\":");
            json_text(out, &c->text);
            qn_buf_putc(out, '}');
        } else {
            qn_buf_puts(out, ",\"text\":");
            json_text(out, &c->text);
        }
        logprobs_field(c, out);
        finish_fields(c, out);
        if (!chat) prompt_logprobs_field(c, out);
        if (g->request->return_ids) {
            if (!chat) prompt_ids_field(c, out);
            token_ids_field(c, 0, out);
        }
        qn_buf_putc(out, '}');
    }
    qn_buf_putc(out, ']');
    if (g->request->return_ids && chat) prompt_ids_field(&g->choices[0], out);
    if (chat) prompt_logprobs_field(&g->choices[0], out);
    usage_field(g, out);
    qn_buf_putc(out, '}');
}
