// SPDX-License-Identifier: Apache-2.0
#include "tests/support/fake_backend.h"

#include "base/checked.h"
#include "base/hash.h"
#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static qn_fake_options next_options;

void qn_fake_backend_set(qn_fake_options options) { next_options = options; }

struct qn_backend {
    qn_fake_options options;
};

typedef struct fake_step {
    const qn_step_plan *plan;
    const qn_sample_row *rows;
} fake_step;

struct qn_executable {
    qn_fake_options options;
    qn_exec_limits limits;
    int32_t vocab_size;
    uint64_t *kv;    // [n_blocks[0]][block_size]: hash of the tokens up to the position
    int32_t *last;   // [max_seqs] last sampled id of a slot
    qn_sample *samples;
    fake_step steps[2];
    int32_t n_steps;
    uint64_t count;
};

static uint64_t extend(uint64_t history, int32_t token) {
    return qn_hash_u64(history * 0x9e3779b97f4a7c15u + (uint64_t)(uint32_t)token + 1);
}

static int32_t pick(uint64_t history, uint64_t seed, int32_t vocab_size) {
    return (int32_t)(qn_hash_u64(history ^ qn_hash_u64(seed + 7)) % (uint64_t)vocab_size);
}

int32_t qn_fake_next(const int32_t *tokens, int32_t position, uint64_t seed, int32_t vocab_size) {
    uint64_t h = 1;
    for (int32_t i = 0; i < position; i++) h = extend(h, tokens[i]);
    return pick(h, seed, vocab_size);
}

static float score(uint64_t history, int32_t target) {
    return -(float)(qn_hash_u64(history ^ (uint64_t)(uint32_t)target) % 10000) / 1000;
}

float qn_fake_logprob(const int32_t *tokens, int32_t position) {
    uint64_t h = 1;
    for (int32_t i = 0; i < position; i++) h = extend(h, tokens[i]);
    return score(h, tokens[position]);
}

static qn_status fake_open(const qn_backend_options *options, qn_backend **out, qn_error *err) {
    (void)options;
    *out = malloc(sizeof **out);
    if (!*out) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    (*out)->options = next_options;
    return QN_OK;
}

static void fake_close(qn_backend *b) { free(b); }

static void fake_describe(const qn_backend *b, char *text, size_t size) {
    (void)b;
    snprintf(text, size, "fake");
}

static qn_status fake_measure(qn_backend *b, const qn_program *p, const qn_exec_limits *l,
                              qn_memory_need *need, qn_error *err) {
    (void)b, (void)err;
    *need = (qn_memory_need){.weights = 1, .workspace = 1};
    for (int32_t g = 0; g < p->n_groups; g++) need->block[g] = (uint64_t)l->block_size * 8;
    return QN_OK;
}

static void fake_release(qn_executable *x) {
    if (!x) return;
    free(x->kv);
    free(x->last);
    free(x->samples);
    free(x);
}

static qn_status fake_compile(qn_backend *b, const qn_program *p, const qn_weight_source *w,
                              const qn_exec_limits *l, qn_executable **out, qn_error *err) {
    (void)w;
    qn_executable *x = calloc(1, sizeof *x);
    if (!x) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    x->options = b->options;
    x->limits = *l;
    x->vocab_size = p->vocab_size;
    x->kv = calloc((size_t)l->n_blocks[0] * (size_t)l->block_size, sizeof *x->kv);
    x->last = calloc((size_t)l->max_seqs, sizeof *x->last);
    x->samples = calloc((size_t)l->max_logits, sizeof *x->samples);
    if (!x->kv || !x->last || !x->samples) {
        fake_release(x);
        return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    *out = x;
    return QN_OK;
}

static qn_status fake_submit(qn_executable *x, const qn_step_plan *plan, const qn_sample_row *rows,
                             qn_error *err) {
    const char *reason;
    if (!qn_step_plan_valid(plan, x->limits.block_size, x->limits.n_blocks, x->vocab_size,
                            &reason)) {
        return qn_fail(err, QN_ERR_INTERNAL, "bad plan: %s", reason);
    }
    if (x->n_steps == 2) return qn_fail(err, QN_ERR_INTERNAL, "too many steps in flight");
    x->steps[x->n_steps++] = (fake_step){plan, rows};
    return QN_OK;
}

static uint64_t *cell(qn_executable *x, const qn_step_plan *p, const qn_plan_seq *s, int32_t pos) {
    int32_t block = qn_plan_blocks(p)[s->block_start[0] + pos / x->limits.block_size];
    return &x->kv[(size_t)block * (size_t)x->limits.block_size +
                  (size_t)(pos % x->limits.block_size)];
}

static void run_sequence(qn_executable *x, const fake_step *step, const qn_plan_seq *s) {
    const qn_step_plan *p = step->plan;
    for (int32_t i = 0; i < s->query_len; i++) {
        int32_t pos = s->position + i, token = qn_plan_tokens(p)[s->query_start + i];
        if (token == QN_TOKEN_PENDING) token = x->last[s->slot];
        uint64_t before = pos ? *cell(x, p, s, pos - 1) : 1;
        uint64_t history = *cell(x, p, s, pos) = extend(before, token);
        int32_t j = i - (s->query_len - s->n_logits);
        if (j < 0) continue;
        int32_t row = s->logit_start + j;
        if (step->rows[row].score_only) {
            int32_t target = step->rows[row].target;
            x->samples[row] = (qn_sample){.id = target, .rank = 1,
                                          .logprob = score(history, target)};
            continue;
        }
        int32_t id = pick(history, step->rows[row].seed, x->vocab_size);
        x->samples[row] = (qn_sample){.id = id, .logprob = -1};
        x->last[s->slot] = id;
    }
}

static void wait_seconds(double seconds) {
    if (seconds <= 0) return;
    struct timespec ts = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    nanosleep(&ts, NULL);
}

static qn_status fake_collect(qn_executable *x, qn_step_result *result, qn_error *err) {
    if (x->n_steps == 0) return qn_fail(err, QN_ERR_INTERNAL, "no step in flight");
    fake_step step = x->steps[0];
    x->steps[0] = x->steps[--x->n_steps];
    const qn_step_plan *p = step.plan;
    size_t page = (size_t)x->limits.block_size;
    const uint64_t begin = qn_os_now_ns();
    wait_seconds(x->options.step_seconds + x->options.row_seconds * p->n_rows);
    const uint64_t computed = qn_os_now_ns();
    for (int32_t i = 0; i < p->n_copies; i++) {
        const qn_plan_copy *c = &qn_plan_copies(p)[i];
        if (c->group != 0) continue;
        memcpy(x->kv + (size_t)c->dst * page, x->kv + (size_t)c->src * page, page * sizeof *x->kv);
    }
    for (int32_t i = 0; i < p->n_seqs; i++) run_sequence(x, &step, &qn_plan_seqs(p)[i]);
    *result = (qn_step_result){.n_logits = p->n_logits,
                               .samples = x->samples,
                               .seconds_forward = (double)(computed - begin) * 1e-9,
                               .seconds_sample = (double)(qn_os_now_ns() - computed) * 1e-9};
    if (x->options.fail_every && ++x->count % (uint64_t)x->options.fail_every == 0) {
        return qn_fail(err, QN_ERR_INTERNAL, "a failure that the test asked for");
    }
    return QN_OK;
}

static qn_status fake_read_logits(qn_executable *x, int32_t row, float *dst, qn_error *err) {
    (void)row, (void)err;
    memset(dst, 0, (size_t)x->vocab_size * sizeof *dst);
    return QN_OK;
}

#define FAKE(steps)                                                                               \
    {                                                                                             \
        .name = "fake", .open = fake_open, .close = fake_close, .describe = fake_describe,        \
        .measure = fake_measure, .compile = fake_compile, .release = fake_release,                \
        .submit = fake_submit, .collect = fake_collect, .read_logits = fake_read_logits,          \
        .max_in_flight = (steps),                                                                 \
    }

const qn_backend_api qn_fake_backend = FAKE(1);
const qn_backend_api qn_fake_backend_lookahead = FAKE(2);
