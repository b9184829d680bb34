// SPDX-License-Identifier: Apache-2.0
// Invariants:
// 1. Everything that can be refused is refused before the first byte of a 200.
// 2. A choice with a handle is in the loop's handle map; releasing takes it out of both, once.
// 3. A generation lives until its response is complete, its client left, or the loop aborts it; each
//    of the three ends in generation_free, which releases what still runs.
// 4. A request that the pool has is known to its loop as a qn_preparing, which is freed when its job
//    comes back, or with a cancel when its client leaves or the loop ends: then no job comes back.
// 5. Text is sent only when no stop string can begin in it any more; the usage counts the tokens up
//    to the match.
#include "server/generation.h"
#include "server/prepare.h"

#include "base/checked.h"
#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    READ_BATCH = 64,
    // So many waiting tokens still get a chunk each, as clients expect. More means that the loop is
    // behind: then they share one.
    CHUNK_EACH = 16,
};

static qn_metrics *metrics(const qn_generation *g) { return g->loop->server->metrics; }

// ---------------------------------------------------------------- life

static void release(qn_choice *c) {
    if (!c->handle) return;
    qn_handle_map_remove(&c->gen->loop->live, c->handle);
    qn_engine_release(c->gen->loop->server->engine, c->handle);
    c->handle = 0;
}

static void generation_free(qn_generation *g) {
    qn_loop *l = g->loop;
    for (size_t i = 0; i < g->n_choices; i++) {
        qn_choice *c = &g->choices[i];
        release(c);
        qn_stop_matcher_destroy(c->stops);
        qn_choice_free_output(c);
    }
    if (g->prev) g->prev->next = g->next;
    else if (l->generations == g) l->generations = g->next;
    if (g->next) g->next->prev = g->prev;
    if (g->conn) qn_http_conn_set_user(g->conn, NULL);
    qn_output_free_prompts(g);
    qn_gen_request_free(g->request);
    qn_ids_free(&g->prompt_ids);
    free(g->prompt_ends);
    free(g->choices);
    free(g);
}

static double seconds_since(uint64_t from, uint64_t to) {
    return to > from ? (double)(to - from) * 1e-9 : 0;
}

// Counts a choice that ended. state NULL: it was cut off by us.
static void count_finish(qn_choice *c, qn_finish_label label, const qn_request_state *state) {
    qn_generation *g = c->gen;
    qn_metrics *m = metrics(g);
    qn_metrics_finished(m, label);
    if (label != QN_FINISHED_STOP && label != QN_FINISHED_LENGTH) return;
    uint64_t now = qn_os_now_ns();
    qn_metrics_observe(m, QN_HIST_E2E, seconds_since(g->arrived_ns, now));
    qn_metrics_observe(m, QN_HIST_GENERATION_TOKENS, c->n_tokens);
    if (c->n_tokens > 1) {
        qn_metrics_observe(m, QN_HIST_TPOT,
                           seconds_since(c->first_ns, c->last_ns) / (double)(c->n_tokens - 1));
    }
    if (!state) return;
    qn_metrics_observe(m, QN_HIST_QUEUE, state->queue_seconds);
    qn_metrics_observe(m, QN_HIST_PREFILL, state->prefill_seconds);
    qn_metrics_observe(m, QN_HIST_DECODE, state->decode_seconds);
    qn_metrics_observe(m, QN_HIST_INFERENCE, state->prefill_seconds + state->decode_seconds);
}

// The whole request failed after it had been admitted.
static void fail_generation(qn_generation *g, const qn_api_error *err) {
    qn_http_conn *conn = g->conn;
    for (size_t i = 0; i < g->n_choices; i++) {
        if (!g->choices[i].finish) count_finish(&g->choices[i], QN_FINISHED_ERROR, NULL);
    }
    if (qn_http_conn_responding(conn)) {
        qn_buf *b = &g->loop->scratch;
        qn_buf_clear(b);
        qn_api_error_json(err, b);
        bool told = !b->failed;
        if (told) qn_http_sse_data(conn, b->data, b->len);
        qn_http_conn_close_after(conn);
        generation_free(g);
        // Without a word about it, a stream that just ends would look complete to some.
        if (told) qn_http_stream_end(conn);
        else qn_http_conn_abort(conn);
    } else {
        qn_loop *l = g->loop;
        generation_free(g);
        qn_respond_error(l, conn, err);
    }
}

static void out_of_memory(qn_generation *g) {
    qn_api_error err = {0};
    qn_api_fail(&err, 503, NULL, "out of memory");
    fail_generation(g, &err);
}

// ---------------------------------------------------------------- text

// Takes text that the detokenizer gave (in piece). False: out of memory.
static bool take_text(qn_choice *c, qn_buf *piece) {
    const qn_gen_request *r = c->gen->request;
    c->produced += piece->len;
    size_t before = c->text.len;
    if (c->stops) {
        int hit = qn_stop_matcher_push(c->stops, piece->data ? piece->data : "", piece->len,
                                       r->include_stop, &c->text);
        if (hit >= 0) {
            c->stop_string = hit;
            c->finish = "stop";
        }
    } else if (piece->len) {
        qn_buf_append(&c->text, piece->data, piece->len);
    }
    c->emitted += c->text.len - before;
    return !piece->failed && !c->text.failed;
}

// A token becomes part of the answer.
static bool take_token(qn_choice *c, const qn_token_event *e) {
    qn_loop *l = c->gen->loop;
    if (c->gen->request->n_logprobs >= 0) {
        if (!qn_grow(&c->pending, &c->cap_pending, c->n_pending + 1, sizeof *c->pending)) {
            return false;
        }
        c->pending[c->n_pending++] = (qn_pending_token){c->produced, *e};
    }
    qn_buf_clear(&l->piece);
    if (!qn_detok_push(&c->detok, e->id, &l->piece) || !take_text(c, &l->piece)) return false;
    qn_output_logprobs(c, c->emitted, &l->piece);
    return true;
}

// The text ends here: what was held back comes out, and may still complete a stop string.
static bool end_text(qn_choice *c) {
    qn_loop *l = c->gen->loop;
    qn_buf_clear(&l->piece);
    if (!qn_detok_flush(&c->detok, &l->piece) || !take_text(c, &l->piece)) return false;
    if (c->stops && c->stop_string < 0) {
        size_t before = c->text.len;
        qn_stop_matcher_flush(c->stops, &c->text);
        c->emitted += c->text.len - before;
    }
    qn_output_logprobs(c, c->stop_string >= 0 ? c->emitted : SIZE_MAX, &l->piece);
    return !c->text.failed;
}

// Could this token be the one that ends the sequence? Then it is held until it is known not to be.
static bool may_stop(const qn_choice *c, int32_t id) {
    const qn_gen_request *r = c->gen->request;
    const qn_tokenizer *t = c->gen->loop->server->info->tokenizer;
    for (size_t i = 0; i < r->n_stop_ids; i++) {
        if (r->stop_ids[i] == id) return true;
    }
    const int32_t *ids;
    size_t n = qn_tokenizer_stop_ids(t, &ids);
    for (size_t i = 0; i < n; i++) {
        if (ids[i] == id) return true;
    }
    return (qn_tokenizer_attrs(t, id) & QN_TOKEN_CONTROL) != 0;
}

static bool on_token(qn_choice *c, const qn_token_event *e) {
    if (c->gen->request->echo_only) return true;
    if (c->gen->request->return_ids) {
        if (!qn_grow(&c->ids, &c->cap_ids, (size_t)c->n_tokens + 1, sizeof *c->ids)) return false;
        c->ids[c->n_tokens] = e->id;
    }
    c->n_tokens++;
    if (c->held) {
        c->held = false;
        if (!take_token(c, &c->held_event)) return false;
        if (c->finish) { // the one before completed a stop string: this one is past the end
            c->n_tokens--;
            return true;
        }
    }
    if (may_stop(c, e->id)) {
        c->held = true;
        c->held_event = *e;
        return true;
    }
    return take_token(c, e);
}

// ---------------------------------------------------------------- reading the engine

static void count_tokens(qn_choice *c, size_t n) {
    qn_metrics *m = metrics(c->gen);
    uint64_t now = qn_os_now_ns();
    uint64_t *notes = qn_http_conn_notes(c->gen->conn);
    notes[QN_NOTE_OUTPUT_TOKENS] += n;
    if (!c->first_ns) {
        c->first_ns = c->last_ns = now;
        if (!notes[QN_NOTE_FIRST_NS]) notes[QN_NOTE_FIRST_NS] = now - c->gen->arrived_ns;
        qn_metrics_observe(m, QN_HIST_TTFT, seconds_since(c->gen->arrived_ns, now));
        n--;
    }
    if (n) {
        qn_metrics_observe_many(m, QN_HIST_ITL, seconds_since(c->last_ns, now) / (double)n, n);
    }
    c->last_ns = now;
}

// One chunk with what is ready, if there is anything.
static bool send_chunk(qn_choice *c) {
    if (!c->text.len && !c->logprobs.a.len && !c->finish) return true;
    qn_generation *g = c->gen;
    qn_buf *b = &g->loop->scratch;
    qn_buf_clear(b);
    qn_output_chunk(c, !c->first_sent, b);
    c->first_sent = true;
    c->n_ids_sent = (size_t)c->n_tokens;
    qn_buf_clear(&c->text);
    qn_output_clear_logprobs(c);
    if (b->failed) return false;
    qn_http_sse_data(g->conn, b->data, b->len);
    return true;
}

static void finish_generation(qn_generation *g) {
    int32_t longest = 0;
    for (size_t i = 0; i < g->n_choices; i++) longest = QN_MAX(longest, g->choices[i].n_tokens);
    qn_metrics_observe(metrics(g), QN_HIST_MAX_GENERATION_TOKENS, longest);
    qn_http_conn *conn = g->conn;
    qn_buf *b = &g->loop->scratch;
    qn_buf_clear(b);
    if (g->request->stream) {
        if (g->request->include_usage) {
            qn_output_usage_chunk(g, b);
            if (b->failed) {
                out_of_memory(g);
                return;
            }
            qn_http_sse_data(conn, b->data, b->len);
        }
        qn_http_sse_data(conn, "[DONE]", 6);
        generation_free(g);
        qn_http_stream_end(conn);
        return;
    }
    qn_output_response(g, b);
    if (b->failed) {
        out_of_memory(g);
        return;
    }
    generation_free(g);
    qn_respond_json(conn, b);
}

// The choice has its finish_reason: its last chunk goes out. False: out of memory.
static bool finish_choice(qn_choice *c, const qn_request_state *state) {
    qn_generation *g = c->gen;
    bool length = strcmp(c->finish, "length") == 0;
    count_finish(c, length ? QN_FINISHED_LENGTH : QN_FINISHED_STOP, state);
    // Once for each prompt: its other choices find the first one's KV.
    if (state && c->index % g->request->n == 0) g->n_cached += state->n_cached;
    release(c);
    g->n_open--;
    return !g->request->stream || send_chunk(c);
}

static bool take_end(qn_choice *c, const qn_request_state *state) {
    const qn_gen_request *r = c->gen->request;
    if (c->held) {
        c->held = false;
        // The stop token itself is shown only to who asked for it.
        bool ends = state->outcome == QN_DONE_STOP && state->stop_id == c->held_event.id;
        if ((!ends || r->include_stop) && !take_token(c, &c->held_event)) return false;
    }
    if (!c->finish && !end_text(c)) return false;
    if (c->finish) return true; // a stop string after all
    const bool stopped = state->outcome == QN_DONE_STOP && !r->echo_only;
    c->finish = stopped ? "stop" : "length";
    if (stopped) {
        // A stop of the model's own is not worth a reason; one that was asked for is.
        for (size_t i = 0; i < r->n_stop_ids; i++) {
            if (r->stop_ids[i] == state->stop_id) c->stop_id = state->stop_id;
        }
    }
    return true;
}

static void fail_from_state(qn_generation *g, const qn_request_state *state) {
    qn_api_error err = {0};
    if (state->outcome == QN_DONE_ERROR) {
        qn_logf(g->loop->server->options.log, QN_LOG_ERROR, "request %s failed: %s", g->id,
                state->error.message);
        if (state->error.status == QN_ERR_NOMEM || state->error.status == QN_ERR_BUSY ||
            state->error.status == QN_ERR_INVALID) {
            qn_api_fail_status(&err, &state->error, NULL);
        } else {
            qn_api_fail(&err, 500, NULL, "the engine failed: %s", state->error.message);
        }
    } else {
        qn_api_fail(&err, 503, NULL, "the engine is stopping");
    }
    fail_generation(g, &err);
}

// Reads what the engine has for a choice. The generation may be gone afterwards.
static void pump(qn_choice *c) {
    qn_generation *g = c->gen;
    qn_engine *engine = g->loop->server->engine;
    qn_token_event events[READ_BATCH];
    c->unread = false;
    for (;;) {
        if (g->request->stream && qn_http_conn_paused(g->conn)) {
            c->unread = true;
            return;
        }
        qn_request_state state;
        size_t n = 0;
        if (qn_engine_read(engine, c->handle, events, READ_BATCH, &n, &state) != QN_OK) {
            qn_api_error err = {0};
            qn_api_fail(&err, 500, NULL, "the engine lost the request");
            fail_generation(g, &err);
            return;
        }
        if (n && !g->request->echo_only) count_tokens(c, n);
        bool ok = n == 0 || qn_output_begin(c, &g->loop->piece);
        for (size_t i = 0; i < n && ok && !c->finish; i++) {
            ok = on_token(c, &events[i]);
            bool last = i + 1 == n || c->finish; // the last one goes out with what follows below
            if (ok && g->request->stream && n <= CHUNK_EACH && !last) ok = send_chunk(c);
        }
        bool over = state.outcome != QN_RUNNING;
        if (ok && !c->finish && (state.outcome == QN_DONE_ERROR || state.outcome == QN_DONE_ABORT)) {
            fail_from_state(g, &state);
            return;
        }
        if (ok && !c->finish && over) ok = take_end(c, &state);
        else if (ok && c->finish) qn_output_logprobs(c, c->emitted, &g->loop->piece);
        if (ok && c->finish) ok = finish_choice(c, over ? &state : NULL);
        else if (ok && g->request->stream) ok = send_chunk(c);
        if (!ok) {
            out_of_memory(g);
            return;
        }
        if (c->finish) {
            if (g->n_open == 0) finish_generation(g);
            return;
        }
        if (n < READ_BATCH) return;
    }
}

void qn_generate_ready(qn_loop *l, uint64_t handle) {
    qn_choice *c = qn_handle_map_get(&l->live, handle);
    if (c) pump(c);
}

void qn_generate_writable(void *loop, qn_http_conn *conn) {
    const qn_exchange *x = qn_http_conn_user(conn);
    (void)loop;
    if (!x || x->preparing) return;
    qn_generation *g = qn_http_conn_user(conn);
    // pump may end the generation: the last choice that is open is the last that is looked at.
    for (size_t i = 0; g && i < g->n_choices; i++) {
        if (!g->choices[i].unread) continue;
        pump(&g->choices[i]);
        g = qn_http_conn_user(conn);
    }
}

static void cut_off(qn_generation *g) {
    for (size_t i = 0; i < g->n_choices; i++) {
        if (!g->choices[i].finish) count_finish(&g->choices[i], QN_FINISHED_ABORT, NULL);
    }
}

static void preparing_free(qn_preparing *w) {
    if (w->prev) w->prev->next = w->next;
    else w->loop->waiting = w->next;
    if (w->next) w->next->prev = w->prev;
    qn_http_conn_set_user(w->conn, NULL);
    free(w);
}

void qn_generate_close(void *loop, qn_http_conn *conn) {
    qn_exchange *x = qn_http_conn_user(conn);
    (void)loop;
    if (!x) return;
    if (x->preparing) {
        qn_preparing *w = qn_http_conn_user(conn);
        qn_pool_cancel(w->loop->server->pool, w->handle);
        qn_metrics_finished(w->loop->server->metrics, QN_FINISHED_ABORT);
        preparing_free(w);
        return;
    }
    qn_generation *g = qn_http_conn_user(conn);
    cut_off(g);
    generation_free(g);
}

void qn_generate_abort_all(qn_loop *l) {
    while (l->waiting) {
        qn_preparing *w = l->waiting;
        qn_http_conn *conn = w->conn;
        qn_pool_cancel(l->server->pool, w->handle);
        preparing_free(w);
        qn_api_error err = {0};
        qn_api_fail(&err, 503, NULL, "the server is shutting down");
        qn_respond_error(l, conn, &err);
    }
    while (l->generations) {
        qn_api_error err = {0};
        qn_api_fail(&err, 503, NULL, "the server is shutting down");
        fail_generation(l->generations, &err);
    }
}

// ---------------------------------------------------------------- admission

static bool reject(qn_loop *l, qn_reject_label label, qn_api_error *err, const char *why) {
    qn_metrics_rejected(l->server->metrics, label);
    return qn_api_fail(err, 503, NULL, "%s", why);
}

// What can be known before the body is looked at.
static bool admit(qn_loop *l, qn_api_error *err) {
    if (atomic_load(&l->server->phase) != QN_PHASE_SERVE) {
        return reject(l, QN_REJECT_DRAINING, err, "the server is shutting down");
    }
    qn_engine_stats stats;
    qn_engine_get_stats(l->server->engine, &stats);
    size_t waiting = (size_t)QN_MAX(stats.waiting, 0) + qn_pool_count(l->server->pool);
    if (waiting >= (size_t)l->server->options.max_queued || l->live.count >= QN_SERVER_MAX_LIVE) {
        return reject(l, QN_REJECT_QUEUE, err, "too many requests are waiting; try again later");
    }
    return true;
}

static bool submit(qn_choice *c, const qn_ids *prompt, size_t first, size_t n_prompt, int32_t k,
                   qn_api_error *err) {
    qn_generation *g = c->gen;
    const qn_gen_request *r = g->request;
    struct qn_server *s = g->loop->server;
    qn_error e = {0};
    if (r->n_stops && qn_stop_matcher_create(r->stops, r->n_stops, &c->stops, &e) != QN_OK) {
        return qn_api_fail_status(err, &e, "stop");
    }
    qn_detok_init(&c->detok, s->info->tokenizer, !r->skip_special, r->chat);
    const int32_t prompt_logprobs = k == 0 ? qn_output_prompt_logprobs(r) : -1;
    qn_request q = {
        .prompt = prompt->data + first,
        .n_prompt = (int32_t)n_prompt,
        .max_tokens = r->max_tokens ? r->max_tokens : r->likely_max_tokens,
        .min_tokens = r->min_tokens,
        .stop_ids = r->stop_ids,
        .n_stop_ids = (int32_t)r->n_stop_ids,
        .ignore_eos = r->ignore_eos,
        .priority = r->priority,
        .choice = k,
        .fork_of = k > 0 ? (c - k)->handle : 0, // n > 1: the choices share their prompt's KV
        .has_seed = r->has_seed,
        .seed = r->seed,
        .temperature = r->temperature,
        .top_p = r->top_p,
        .min_p = r->min_p,
        .top_k = r->top_k,
        .n_logprobs = r->n_logprobs,
        .prompt_logprobs = prompt_logprobs >= 0,
        .n_prompt_logprobs = QN_MAX(prompt_logprobs, 0),
        .cache_salt = g->salted ? (const void *)g->salt : r->cache_salt,
        .cache_salt_len = g->salted ? sizeof g->salt : r->cache_salt ? strlen(r->cache_salt) : 0,
        .repetition_penalty = r->repetition_penalty,
        .presence_penalty = r->presence_penalty,
        .frequency_penalty = r->frequency_penalty,
        .bias_ids = r->bias_ids,
        .biases = r->biases,
        .n_biases = (int32_t)r->n_biases,
        .allowed_ids = r->allowed_ids,
        .n_allowed_ids = (int32_t)r->n_allowed_ids,
        .bad_word_ids = r->bad_ids.data,
        .bad_word_lens = r->bad_lens,
        .n_bad_words = (int32_t)r->n_bad_lens,
    };
    uint64_t handle = 0;
    qn_status st = qn_engine_submit(s->engine, &q, &g->loop->mailbox, &handle, &e);
    if (st != QN_OK) {
        if (st == QN_ERR_BUSY) qn_metrics_rejected(s->metrics, QN_REJECT_QUEUE);
        if (st == QN_ERR_LIMIT) qn_metrics_rejected(s->metrics, QN_REJECT_LENGTH);
        return qn_api_fail_status(err, &e, NULL);
    }
    if (!qn_handle_map_put(&g->loop->live, handle, c)) {
        qn_engine_release(s->engine, handle);
        return reject(g->loop, QN_REJECT_QUEUE, err, "too many requests are waiting");
    }
    c->handle = handle;
    return true;
}

static qn_generation *generation_create(qn_loop *l, qn_http_conn *conn, qn_gen_request *r,
                                        const char *model, uint64_t arrived_ns) {
    qn_generation *g = calloc(1, sizeof *g);
    size_t n = r->n_prompts * (size_t)r->n;
    qn_choice *choices = calloc(n, sizeof *choices);
    if (!g || !choices) {
        free(g);
        free(choices);
        return NULL;
    }
    g->loop = l;
    g->conn = conn;
    g->request = r;
    g->model = model;
    g->created = (int64_t)qn_os_wall_time();
    g->arrived_ns = arrived_ns;
    g->choices = choices;
    g->n_choices = g->n_open = n;
    for (size_t i = 0; i < n; i++) {
        choices[i].gen = g;
        choices[i].index = (int32_t)i;
        choices[i].stop_string = -1;
        choices[i].stop_id = -1;
    }
    char name[33];
    qn_loop_name(l, name);
    snprintf(g->id, sizeof g->id, "%s-%s", r->chat ? "chatcmpl" : "cmpl",
             r->request_id ? r->request_id : name);
    g->next = l->generations;
    if (g->next) g->next->prev = g;
    l->generations = g;
    return g;
}

// Keeps the prompts' ids for the answer, and room for what it says of them.
static bool keep_ids(qn_generation *g, const qn_ids *ids, const size_t *ends, qn_api_error *err) {
    const qn_gen_request *r = g->request;
    const int32_t n_logprobs = qn_output_prompt_logprobs(r);
    const char *name = n_logprobs < 0 ? "return_token_ids" : r->n_prompt_logprobs < 0 ? "echo"
                                                                                    : "prompt_logprobs";
    size_t copies = r->chat ? 1 : (size_t)r->n, each = (size_t)(n_logprobs + 1);
    if (each > 0 && ids->len > QN_MAX_PROMPT_LOGPROBS / copies / each) {
        return qn_api_fail(err, 400, name, "%s: the answer would have %zu logprobs of each of %zu "
                           "prompt tokens, more than %d in all", name, copies * each, ids->len,
                           QN_MAX_PROMPT_LOGPROBS);
    }
    if (ids->len > QN_REQUEST_MAX_ECHOED_IDS / copies) {
        return qn_api_fail(err, 400, name,
                           "%s: the answer would repeat more than %d prompt tokens", name,
                           QN_REQUEST_MAX_ECHOED_IDS);
    }
    g->prompts = each > 0 ? calloc(r->n_prompts, sizeof *g->prompts) : NULL;
    if (each > 0 && !g->prompts) return qn_api_fail(err, 503, NULL, "out of memory");
    g->prompt_ends = calloc(r->n_prompts, sizeof *g->prompt_ends);
    if (!g->prompt_ends || !qn_grow(&g->prompt_ids.data, &g->prompt_ids.cap, ids->len,
                                    sizeof *g->prompt_ids.data)) {
        return qn_api_fail(err, 503, NULL, "out of memory");
    }
    memcpy(g->prompt_ends, ends, r->n_prompts * sizeof *ends);
    memcpy(g->prompt_ids.data, ids->data, ids->len * sizeof *ids->data);
    g->prompt_ids.len = ids->len;
    return true;
}

// From ids to a running generation.
static bool start(qn_generation *g, const qn_ids *ids, const size_t *ends, qn_api_error *err) {
    const qn_gen_request *r = g->request;
    qn_metrics *m = metrics(g);
    const bool keep = r->return_ids || qn_output_prompt_logprobs(r) >= 0;
    if (keep && !keep_ids(g, ids, ends, err)) return false;
    for (size_t i = 0; i < r->n_prompts; i++) {
        size_t first = i ? ends[i - 1] : 0, n = ends[i] - first;
        for (int32_t k = 0; k < r->n; k++) {
            qn_choice *c = &g->choices[i * (size_t)r->n + (size_t)k];
            if (!submit(c, ids, first, n, k, err)) return false;
        }
        qn_metrics_observe(m, QN_HIST_PROMPT_TOKENS, (double)n);
    }
    g->n_prompt = (int64_t)ids->len;
    qn_metrics_observe(m, QN_HIST_PARAMS_N, r->n);
    if (r->max_tokens) {
        qn_metrics_observe(m, QN_HIST_PARAMS_MAX_TOKENS, r->echo_only ? 0 : r->max_tokens);
    }
    return true;
}

// Requests of different keys share no cached KV: how fast an answer comes would tell one what another
// has asked.
static bool set_salt(qn_generation *g, const qn_key *key, qn_api_error *err) {
    const char *asked = g->request->cache_salt;
    if (!key || g->loop->server->options.shared_prefix_cache) return true;
    g->salted = qn_key_salt(key, asked, asked ? strlen(asked) : 0, g->salt);
    return g->salted || qn_api_fail(err, 500, NULL, "cannot hash the cache's salt");
}

// The pool is done with a generation's request.
static void begin(qn_loop *l, qn_http_conn *conn, qn_job *job, uint64_t arrived_ns) {
    qn_api_error err = {0};
    qn_generation *g = generation_create(l, conn, job->request, job->model, arrived_ns);
    bool ok = g != NULL;
    if (g) job->request = NULL; // it is the generation's now
    else qn_api_fail(&err, 503, NULL, "out of memory");
    ok = ok && set_salt(g, qn_exchange_key(conn), &err) && start(g, &job->ids, job->ends, &err);
    if (!ok) {
        if (g) {
            g->conn = NULL;
            generation_free(g);
        }
        qn_respond_error(l, conn, &err);
        return;
    }
    qn_http_conn_set_user(conn, g);
    qn_http_conn_notes(conn)[QN_NOTE_PROMPT_TOKENS] = (uint64_t)g->n_prompt;
    if (g->request->stream) qn_http_sse_begin(conn);
}

void qn_request_prepared(qn_loop *l) {
    qn_job *job;
    void *owner;
    while (qn_pool_take(l->server->pool, (size_t)l->index, &job, &owner)) {
        qn_preparing *w = owner;
        qn_http_conn *conn = w->conn;
        uint64_t arrived_ns = w->arrived_ns;
        preparing_free(w);
        if (job->err.status) {
            qn_respond_error(l, conn, &job->err);
        } else if (job->kind == QN_JOB_CHAT || job->kind == QN_JOB_COMPLETION) {
            begin(l, conn, job, arrived_ns);
        } else {
            qn_respond_json(conn, &job->answer);
        }
        qn_job_destroy(job);
    }
}

void qn_request_admit(qn_loop *l, qn_http_conn *conn, int kind) {
    qn_api_error err = {0};
    qn_buf body;
    bool generates = kind == QN_JOB_CHAT || kind == QN_JOB_COMPLETION;
    if (generates && !admit(l, &err)) {
        qn_respond_error(l, conn, &err);
        return;
    }
    qn_preparing *w = calloc(1, sizeof *w);
    qn_http_conn_take_body(conn, &body);
    qn_job *job = qn_job_create((qn_job_kind)kind, &body);
    if (w && job) {
        *w = (qn_preparing){.base = {.preparing = true}, .loop = l, .conn = conn,
                            .arrived_ns = qn_os_now_ns()};
        w->handle = qn_pool_submit(l->server->pool, (size_t)l->index, job, w);
        if (!w->handle) reject(l, QN_REJECT_QUEUE, &err, "too many requests are waiting");
    } else {
        qn_api_fail(&err, 503, NULL, "out of memory");
    }
    if (err.status) {
        free(w);
        qn_job_destroy(job);
        qn_respond_error(l, conn, &err);
        return;
    }
    w->next = l->waiting;
    if (w->next) w->next->prev = w;
    l->waiting = w;
    qn_http_conn_set_user(conn, w);
}
