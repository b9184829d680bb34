// SPDX-License-Identifier: Apache-2.0
// Opening and closing an engine: the model, the sizes, the thread.
#include "engine/internal.h"

#include "base/checked.h"
#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// With few sequences too, prompts whose every token is scored are computed in chunks.
enum { MIN_LOGIT_ROWS = 16 };

double engine_now(void) { return (double)qn_os_now_ns() * 1e-9; }

const qn_engine_info *qn_engine_get_info(const qn_engine *e) { return &e->info; }

static int32_t or_default(int32_t value, int32_t fallback) { return value > 0 ? value : fallback; }

static qn_status check_options(const qn_engine_options *o, qn_error *err) {
    const int32_t bs = or_default(o->block_size, 16);
    if (!o->backend) return qn_fail(err, QN_ERR_INVALID, "no backend");
    if (bs < 16 || bs > QN_KV_SPAN || (bs & (bs - 1)) != 0) {
        return qn_fail(err, QN_ERR_INVALID, "block size is %d, must be 16, 32, 64, 128 or 256", bs);
    }
    if (o->max_num_seqs > 4096) {
        return qn_fail(err, QN_ERR_INVALID, "max-num-seqs is %d, must be 1 to 4096", o->max_num_seqs);
    }
    if (o->max_num_batched_tokens > 1 << 16) {
        return qn_fail(err, QN_ERR_INVALID, "max-num-batched-tokens is %d, must be 1 to 65536",
                       o->max_num_batched_tokens);
    }
    return QN_OK;
}

// Tokens of one sequence that a group must be able to hold at once.
static int64_t group_tokens(const qn_kv_group *g, const qn_exec_limits *l) {
    int64_t len = l->max_len;
    if (g->kind == QN_KV_WINDOW) len = QN_MIN(len, (int64_t)g->window + l->max_rows + l->block_size);
    return QN_CEIL_DIV(len, l->block_size) * l->block_size;
}

static uint64_t sequence_bytes(const qn_program *p, const qn_memory_need *need,
                               const qn_exec_limits *l) {
    uint64_t bytes = 0;
    for (int32_t g = 0; g < p->n_groups; g++) {
        bytes += (uint64_t)(group_tokens(&p->groups[g], l) / l->block_size) * need->block[g];
    }
    return bytes;
}

// How much KV memory there is and how many blocks each group gets. The default: 4 GiB or one whole
// context, whichever is more, but no more than every slot can use, and than 80% of the memory that is
// left. max_len is cut where not even one sequence would fit.
static qn_status size_kv(qn_engine *e, const qn_engine_options *o, const qn_program *p,
                         qn_error *err) {
    qn_exec_limits *l = &e->limits;
    qn_memory_need need = {0};
    qn_status st = e->api->measure(e->backend, p, l, &need, err);
    if (st != QN_OK) return st;
    char allowed[1600];
    qn_os_limits_text(allowed, sizeof allowed);
    qn_logf(e->log, QN_LOG_INFO, "may be used: %s", allowed);
    uint64_t limit = qn_os_memory_limit();
    uint64_t taken = need.weights + need.workspace + qn_os_resident_bytes() + (64u << 20);
    uint64_t left = limit > taken ? (limit - taken) / 5 * 4 : 0;
    uint64_t budget = o->kv_cache_memory_bytes;
    const char *why = "as asked for";
    if (o->num_blocks_override > 0) {
        budget = 0;
        why = "for the number of blocks asked for";
        for (int32_t g = 0; g < p->n_groups; g++) {
            l->n_blocks[g] = o->num_blocks_override;
            budget += (uint64_t)o->num_blocks_override * need.block[g];
        }
    } else {
        uint64_t one = sequence_bytes(p, &need, l);
        if (budget == 0) {
            uint64_t all = (uint64_t)l->max_seqs * one, usual = (uint64_t)4 << 30;
            budget = QN_MAX(usual, one);
            why = budget == usual ? "the default" : "one whole context";
            if (all < budget) {
                budget = all;
                why = "all that max-num-seqs sequences can use";
            }
            if (left < budget) {
                budget = left;
                why = "80% of the memory that is left";
            }
        } else if (budget > left) {
            qn_logf(e->log, QN_LOG_WARN, "KV cache of %.2f GiB asked for, only %.2f GiB are left",
                    (double)budget / 0x1p30, (double)left / 0x1p30);
        }
        // In fractions of a whole sequence, so that the groups run out together.
        double share = one > 0 ? (double)budget / (double)one : 0;
        for (int32_t g = 0; g < p->n_groups; g++) {
            double blocks = share * (double)(group_tokens(&p->groups[g], l) / l->block_size);
            l->n_blocks[g] = (int32_t)QN_MIN(blocks, (double)(INT32_MAX / 2 / l->block_size));
        }
    }
    qn_logf(e->log, QN_LOG_INFO,
            "memory: %.2f GiB may be used, weights %.2f GiB, workspace %.2f GiB; "
            "KV cache %.2f GiB: %s", (double)limit / 0x1p30, (double)need.weights / 0x1p30,
            (double)need.workspace / 0x1p30, (double)budget / 0x1p30, why);
    // A sequence of max_len must fit into every group, else it could never finish.
    int32_t len = l->max_len;
    for (int32_t g = 0; g < p->n_groups; g++) {
        int64_t tokens = (int64_t)l->n_blocks[g] * l->block_size;
        if (tokens < group_tokens(&p->groups[g], l)) len = (int32_t)QN_MIN((int64_t)len, tokens);
    }
    if (len < 2) {
        return qn_fail(err, QN_ERR_LIMIT, "%s: no memory for a KV cache: %.0f MiB for %d blocks of "
                       "%d tokens", e->path, (double)budget / 0x1p20, l->n_blocks[0], l->block_size);
    }
    if (len < l->max_len) {
        if (o->max_model_len > 0) {
            return qn_fail(err, QN_ERR_LIMIT, "max-model-len %d needs %.2f GiB of KV cache, there "
                           "are %.2f GiB (room for %d tokens)", l->max_len,
                           (double)sequence_bytes(p, &need, l) / 0x1p30, (double)budget / 0x1p30,
                           len);
        }
        qn_logf(e->log, QN_LOG_WARN, "context cut from %d to %d tokens: that is what the KV cache "
                "holds", l->max_len, len);
        l->max_len = len;
    }
    e->info.kv_bytes = 0;
    for (int32_t g = 0; g < p->n_groups; g++) {
        e->info.kv_bytes += (uint64_t)l->n_blocks[g] * need.block[g];
    }
    e->info.weight_bytes = need.weights;
    return QN_OK;
}

static void token_text(const qn_tokenizer *t, int32_t id, char *text, size_t size) {
    text[0] = '\0';
    if (id < 0) return;
    qn_str s = qn_tokenizer_token(t, id);
    if (s.len < size) {
        memcpy(text, s.data, s.len);
        text[s.len] = '\0';
    }
}

static qn_status open_template(qn_engine *e, const qn_engine_options *o, qn_error *err) {
    const char *source = o->chat_template ? o->chat_template : qn_model_chat_template(e->model);
    if (!source) {
        if (qn_tokenizer_find(e->tokenizer, QN_STR("<|im_start|>")) < 0 ||
            qn_tokenizer_find(e->tokenizer, QN_STR("<|im_end|>")) < 0) {
            snprintf(e->template_error, sizeof e->template_error,
                     "the model has no chat template; give one with --chat-template");
            return QN_OK;
        }
        source = qn_template_chatml;
        e->info.chat_template_is_fallback = true;
    }
    qn_error why = {0};
    qn_status st = qn_template_compile(source, strlen(source), &e->chat_template, &why);
    if (st == QN_OK) return QN_OK;
    if (o->chat_template) return qn_fail(err, st, "--chat-template: %s", why.message);
    // Completions still work without it.
    snprintf(e->template_error, sizeof e->template_error, "the model's chat template: %s",
             why.message);
    qn_logf(e->log, QN_LOG_WARN, "%s: %s", e->path, e->template_error);
    return QN_OK;
}

static void fill_info(qn_engine *e, const qn_engine_options *o) {
    const qn_model_info *m = qn_model_get_info(e->model);
    qn_engine_info *i = &e->info;
    i->name = m->name;
    i->architecture = m->architecture;
    i->path = e->path;
    i->vocab_size = m->vocab_size;
    i->context_length = m->context_length;
    i->max_model_len = e->limits.max_len;
    i->block_size = e->limits.block_size;
    i->n_blocks = e->limits.n_blocks[0];
    i->kv_dtype = e->limits.kv_dtype == QN_KV_F16 ? "float16" : "float32";
    i->prefix_caching = !o->no_prefix_caching;
    i->max_num_seqs = e->limits.max_seqs;
    i->max_num_batched_tokens = e->limits.max_rows;
    i->tokenizer = e->tokenizer;
    i->chat_template = e->chat_template;
    i->chat_template_error = e->template_error;
    token_text(e->tokenizer, qn_tokenizer_bos(e->tokenizer), e->bos_text, sizeof e->bos_text);
    token_text(e->tokenizer, qn_tokenizer_eos(e->tokenizer), e->eos_text, sizeof e->eos_text);
    i->bos_text = e->bos_text;
    i->eos_text = e->eos_text;
    i->temperature = m->has_temperature ? m->temperature : 1;
    i->top_p = m->has_top_p ? m->top_p : 1;
    i->min_p = m->has_min_p ? m->min_p : 0;
    i->top_k = m->has_top_k ? m->top_k : 0;
    i->repetition_penalty = m->repetition_penalty > 0 ? m->repetition_penalty : 1;
    i->max_new_tokens = m->max_new_tokens;
    e->api->describe(e->backend, e->backend_text, sizeof e->backend_text);
    i->backend = e->backend_text;
}

static qn_status make_scheduler(qn_engine *e, const qn_engine_options *o, const qn_program *p,
                                qn_error *err) {
    // The engine's own count refuses at the door; the scheduler's queue has room for all it lets in.
    const uint32_t table = (uint32_t)(e->max_queued + e->limits.max_seqs) * 2;
    const double slowdown = o->max_decode_slowdown == 0 ? QN_DEFAULT_DECODE_SLOWDOWN
                                                        : o->max_decode_slowdown;
    qn_sched_config c = {
        .max_seqs = e->limits.max_seqs,
        .max_rows = e->limits.max_rows,
        .max_len = e->limits.max_len,
        .block_size = e->limits.block_size,
        .n_groups = p->n_groups,
        .max_waiting = (int32_t)table,
        .long_prefill_threshold = o->long_prefill_threshold,
        .max_step_seconds = o->max_step_seconds,
        .max_decode_slowdown = slowdown >= 1 ? slowdown : 0,
        .short_prompt_seconds = 0.1, // a stall that readers of a stream hardly notice
        .max_logits = e->limits.max_logits,
        .enable_prefix_caching = !o->no_prefix_caching,
    };
    if (!qn_os_random(&c.prefix_hash_seed, sizeof c.prefix_hash_seed)) {
        c.prefix_hash_seed = qn_os_now_ns();
    }
    memcpy(c.groups, p->groups, sizeof c.groups);
    memcpy(c.n_blocks, e->limits.n_blocks, sizeof c.n_blocks);
    qn_status st = qn_sched_create(&c, &e->sched, err);
    if (st != QN_OK) return st;
    e->max_in_flight = QN_MIN(QN_MAX(e->api->max_in_flight, 1), QN_ENGINE_MAX_STEPS);
    bool ok = true;
    for (int32_t i = 0; i < QN_ENGINE_MAX_STEPS; i++) {
        e->steps[i].plan = qn_sched_make_plan(e->sched);
        e->steps[i].rows = calloc((size_t)e->limits.max_logits, sizeof *e->steps[i].rows);
        ok = ok && e->steps[i].plan && e->steps[i].rows;
    }
    e->results = calloc((size_t)e->limits.max_logits, sizeof *e->results);
    e->cap_events = 2 * (size_t)e->limits.max_logits + 64;
    e->events = calloc(e->cap_events, sizeof *e->events);
    if (!ok || !e->results || !e->events) {
        return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    return requests_init(e, table, err);
}

static qn_status open_all(qn_engine *e, const char *path, const qn_engine_options *o,
                          qn_error *err) {
    qn_status st = check_options(o, err);
    if (st == QN_OK) st = qn_model_open(path, o->log, &e->model, err);
    if (st == QN_OK) st = qn_model_tokenizer(e->model, o->log, &e->tokenizer, err);
    if (st == QN_OK) st = open_template(e, o, err);
    if (st == QN_OK) st = e->api->open(&o->backend_options, &e->backend, err);
    if (st != QN_OK) return st;

    const qn_program *p = qn_model_program(e->model);
    const qn_model_info *m = qn_model_get_info(e->model);
    qn_exec_limits *l = &e->limits;
    l->block_size = or_default(o->block_size, 16);
    l->max_seqs = or_default(o->max_num_seqs, 64);
    l->max_rows = QN_MAX(or_default(o->max_num_batched_tokens, 512), l->max_seqs);
    l->max_logits = QN_MIN(l->max_rows, QN_MAX(l->max_seqs, (int32_t)MIN_LOGIT_ROWS));
    l->max_len = or_default(o->max_model_len, m->context_length);
    l->kv_dtype = o->kv_dtype;
    if (l->max_len > m->context_length) {
        qn_logf(o->log, QN_LOG_WARN, "max-model-len %d is more than the model's context of %d",
                l->max_len, m->context_length);
    }
    e->max_queued = or_default(o->max_num_queued_reqs, 1024);
    e->max_queued_tokens = o->max_num_queued_tokens > 0 ? o->max_num_queued_tokens : 4 << 20;
    st = size_kv(e, o, p, err);
    if (st != QN_OK) return st;
    qn_weight_source weights = qn_model_weights(e->model);
    if (o->progress) {
        // The source's user is the model's: progress has its own.
        weights.progress = o->progress;
        weights.progress_user = o->progress_user;
    }
    st = e->api->compile(e->backend, p, &weights, l, &e->exec, err);
    if (st != QN_OK) return st;
    qn_model_drop_files(e->model);
    fill_info(e, o);
    return make_scheduler(e, o, p, err);
}

qn_status qn_engine_open(const char *path, const qn_engine_options *o, qn_engine **out,
                         qn_error *err) {
    *out = NULL;
    double started = engine_now();
    qn_engine *e = calloc(1, sizeof *e);
    if (!e) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    e->api = o->backend;
    e->log = o->log;
    pthread_mutex_init(&e->lock, NULL);
    pthread_cond_init(&e->work, NULL);
    pthread_cond_init(&e->job_done, NULL);
    e->path = strdup(path);
    qn_status st = e->path ? open_all(e, path, o, err)
                           : qn_fail(err, QN_ERR_NOMEM, "out of memory");
    if (st == QN_OK) {
        e->info.load_seconds = engine_now() - started;
        e->stats.last_progress_ns = qn_os_now_ns();
        st = qn_thread_start(&e->thread, "qn-engine", qn_engine_thread, e, err);
    }
    if (st != QN_OK) {
        qn_engine_close(e);
        return st;
    }
    *out = e;
    return QN_OK;
}

void qn_engine_close(qn_engine *e) {
    if (!e) return;
    pthread_mutex_lock(&e->lock);
    e->stop = true;
    pthread_cond_signal(&e->work);
    pthread_mutex_unlock(&e->lock);
    qn_thread_join(&e->thread);
    if (e->sched) qn_sched_destroy(e->sched);
    requests_destroy(e);
    for (int32_t i = 0; i < QN_ENGINE_MAX_STEPS; i++) {
        free(e->steps[i].plan);
        free(e->steps[i].rows);
    }
    free(e->results);
    free(e->events);
    if (e->exec) e->api->release(e->exec);
    if (e->backend) e->api->close(e->backend);
    if (e->chat_template) qn_template_free(e->chat_template);
    if (e->tokenizer) qn_tokenizer_close(e->tokenizer);
    qn_model_close(e->model);
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->work);
    pthread_cond_destroy(&e->job_done);
    free(e->path);
    free(e);
}
