// SPDX-License-Identifier: Apache-2.0
// Sampling against a naive reference (everything sorted, libm, in double), the distribution it
// gives, and the cases at the edges.
#include "backend/sampling.h"
#include "base/checked.h"
#include "base/philox.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

typedef struct entry {
    double logit;
    int32_t id;
} entry;

static int by_logit(const void *a, const void *b) {
    const entry *x = a, *y = b;
    if (x->logit != y->logit) return x->logit > y->logit ? -1 : 1;
    return (x->id > y->id) - (x->id < y->id);
}

static double noise(const qn_sample_row *row, int32_t id) {
    const uint32_t counter[4] = {(uint32_t)id, (uint32_t)row->position, (uint32_t)row->choice, 0};
    uint32_t out[4];
    qn_philox4x32(row->seed, counter, out);
    return -log(-log((out[0] + 0.5) / 4294967296.0));
}

static bool contains(const int32_t *ids, int32_t n, int32_t id) {
    for (int32_t i = 0; i < n; i++) {
        if (ids[i] == id) return true;
    }
    return false;
}

// Point 3 of sampling.h, one id at a time.
static double changed(const float *logits, const qn_sample_row *row, int32_t id) {
    double x = (double)logits[id];
    if (row->allowed && !(row->allowed[id / 32] & 1u << id % 32)) x = -INFINITY;
    if (contains(row->banned, row->n_banned, id)) x = -INFINITY;
    if (!isfinite(x)) return x;
    for (int32_t i = 0; i < row->n_biases; i++) {
        if (row->bias_ids[i] == id) x = (double)(float)(x + (double)row->biases[i]);
    }
    const double r = row->repetition_penalty == 0 ? 1 : (double)row->repetition_penalty;
    if (contains(row->output, row->n_output, id) || contains(row->prompt, row->n_prompt, id)) {
        x = x > 0 ? x / r : x * r;
    }
    int32_t count = 0;
    for (int32_t i = 0; i < row->n_output; i++) count += row->output[i] == id;
    x -= (double)row->frequency_penalty * count;
    if (count > 0) x -= (double)row->presence_penalty;
    return (double)(float)fmin(fmax(x, -(double)FLT_MAX), (double)FLT_MAX);
}

// The sampled id, by the text of sampling.h alone. -1: nothing is left.
static int32_t reference(const float *logits, int32_t n, const qn_sample_row *row) {
    entry *e = malloc((size_t)n * sizeof *e);
    assert_non_null(e);
    int32_t left = 0;
    for (int32_t i = 0; i < n; i++) {
        const double x = changed(logits, row, i);
        if (isfinite(x)) e[left++] = (entry){x, i};
    }
    if (left == 0) {
        free(e);
        return -1;
    }
    qsort(e, (size_t)left, sizeof *e, by_logit);
    int32_t id = e[0].id;
    if (row->temperature > 0) {
        const double t = (double)row->temperature, top = e[0].logit / t;
        if (row->top_k > 0) left = QN_MIN(left, row->top_k);
        double total = 0, sum = 0;
        for (int32_t i = 0; i < left; i++) total += exp(e[i].logit / t - top);
        if (row->top_p < 1) {
            int32_t i = 0;
            for (; i < left && sum < (double)row->top_p * total; i++) {
                sum += exp(e[i].logit / t - top);
            }
            left = i;
        }
        while (left > 1 && exp(e[left - 1].logit / t - top) < (double)row->min_p) left--;
        double best = -INFINITY;
        for (int32_t i = 0; i < left; i++) {
            const double v = e[i].logit / t + noise(row, e[i].id);
            if (v > best || (v == best && e[i].id < id)) {
                best = v;
                id = e[i].id;
            }
        }
    }
    free(e);
    return id;
}

static void check_logprobs(const float *logits, int32_t n, int32_t want, const qn_sample *s) {
    double max = -INFINITY, sum = 0;
    entry *e = malloc((size_t)n * sizeof *e);
    assert_non_null(e);
    for (int32_t i = 0; i < n; i++) {
        max = fmax(max, (double)logits[i]);
        e[i] = (entry){(double)logits[i], i};
    }
    for (int32_t i = 0; i < n; i++) sum += exp((double)logits[i] - max);
    qsort(e, (size_t)n, sizeof *e, by_logit);
    const double lse = max + log(sum);
    if (isfinite(logits[s->id])) {
        assert_true(fabs((double)s->logprob - ((double)logits[s->id] - lse)) < 1e-5);
    } else {
        assert_true(isinf(s->logprob) && s->logprob < 0);
    }
    int32_t larger = 0;
    while (larger < n && e[larger].logit > (double)logits[s->id]) larger++;
    assert_int_equal(s->rank, larger + 1);
    int32_t finite = 0;
    while (finite < n && isfinite(e[finite].logit)) finite++;
    assert_int_equal(s->n_top, QN_MIN(want, finite));
    for (int32_t i = 0; i < s->n_top; i++) {
        assert_int_equal(s->top_ids[i], e[i].id);
        assert_true(fabs((double)s->top_logprobs[i] - (e[i].logit - lse)) < 1e-5);
    }
    free(e);
}

typedef struct rig {
    float *logits;
    void *scratch;
    int32_t n;
} rig;

static rig make_rig(int32_t n) {
    rig r = {.logits = malloc((size_t)n * sizeof(float)),
             .scratch = malloc(qn_sample_scratch_bytes(n)), .n = n};
    assert_true(r.logits && r.scratch);
    return r;
}

static void free_rig(rig *r) {
    free(r->logits);
    free(r->scratch);
}

static qn_sample sample(const rig *r, const qn_sample_row *row) {
    qn_sample out;
    qn_sample_logits(r->logits, r->n, row, r->scratch, &out);
    return out;
}

static void test_reference(void **state) {
    (void)state;
    static const int32_t sizes[] = {1, 2, 15, 16, 17, 100, 1000, 5000};
    static const float temperatures[] = {0, 0.01f, 0.7f, 1, 2, 100};
    static const float top_ps[] = {1, 0.999f, 0.9f, 0.5f, 1e-6f};
    static const int32_t top_ks[] = {0, 1, 2, 40, 64, 65, 256, 300, 100000};
    static const float min_ps[] = {0, 0.01f, 0.3f, 1};
    qn_rng rng = {.key = 1};
    for (size_t si = 0; si < QN_COUNT(sizes); si++) {
        rig r = make_rig(sizes[si]);
        for (int round = 0; round < 400; round++) {
            const double spread = round % 4 == 0 ? 30 : round % 4 == 1 ? 0.1 : 4;
            for (int32_t i = 0; i < r.n; i++) {
                double v = qn_rng_uniform(&rng) + qn_rng_uniform(&rng) - 1;
                r.logits[i] = (float)(v * spread);
                // Many equal logits, zeros of both signs, masked ids.
                if (round % 3 == 0) r.logits[i] = roundf(r.logits[i]);
                if (round % 5 == 0 && i % 7 == 3) r.logits[i] = -INFINITY;
            }
            int32_t banned[5];
            for (int i = 0; i < 5; i++) banned[i] = (int32_t)qn_rng_below(&rng, (uint64_t)r.n + 3);
            const qn_sample_row row = {
                .seed = qn_rng_next(&rng), .position = round, .choice = round % 3,
                .temperature = temperatures[qn_rng_below(&rng, QN_COUNT(temperatures))],
                .top_p = top_ps[qn_rng_below(&rng, QN_COUNT(top_ps))],
                .top_k = top_ks[qn_rng_below(&rng, QN_COUNT(top_ks))],
                .min_p = min_ps[qn_rng_below(&rng, QN_COUNT(min_ps))],
                .n_logprobs = round % 23 - 1, .banned = banned,
                .n_banned = r.n > 15 ? round % 6 : 0};
            const qn_sample got = sample(&r, &row);
            assert_int_equal(got.status, QN_OK);
            assert_int_equal(got.id, reference(r.logits, r.n, &row));
            if (row.n_logprobs >= 0) {
                check_logprobs(r.logits, r.n, QN_MIN(row.n_logprobs, 20), &got);
            } else {
                assert_true(got.logprob == 0 && got.n_top == 0 && got.rank == 0);
            }
        }
        free_rig(&r);
    }
}

// Rows that only score: any id, whatever the other parameters say; the same numbers as of a sample.
static void test_scores(void **state) {
    (void)state;
    qn_rng rng = {.key = 6};
    static const int32_t sizes[] = {1, 15, 16, 17, 1000};
    for (size_t si = 0; si < QN_COUNT(sizes); si++) {
        rig r = make_rig(sizes[si]);
        for (int round = 0; round < 200; round++) {
            for (int32_t i = 0; i < r.n; i++) {
                r.logits[i] = (float)(8 * qn_rng_uniform(&rng) - 4);
                if (round % 3 == 0) r.logits[i] = roundf(r.logits[i]);
                if (round % 5 == 0 && i % 7 == 3) r.logits[i] = -INFINITY;
            }
            const int32_t target = (int32_t)qn_rng_below(&rng, (uint64_t)r.n);
            // Were it sampled, nothing would be left.
            const qn_sample_row row = {.score_only = true, .target = target, .temperature = 1,
                                       .top_p = 0.5f, .n_logprobs = round % 21, .banned = &target,
                                       .n_banned = 1, .allowed = (const uint32_t[32]){0}};
            const qn_sample got = sample(&r, &row);
            assert_int_equal(got.status, QN_OK);
            assert_int_equal(got.id, target);
            check_logprobs(r.logits, r.n, row.n_logprobs, &got);
            const qn_sample_row greedy = {.top_p = 1, .n_logprobs = 20};
            const qn_sample best = sample(&r, &greedy);
            if (best.id == target) assert_memory_equal(&best.logprob, &got.logprob, sizeof got.logprob);
            assert_int_equal(best.rank, 1);
            qn_sample_row none = row;
            none.n_logprobs = -1;
            const qn_sample bare = sample(&r, &none);
            assert_true(bare.id == target && bare.rank == 0 && bare.n_top == 0);
        }
        r.logits[0] = NAN;
        const qn_sample_row row = {.score_only = true, .n_logprobs = 0};
        assert_int_equal(sample(&r, &row).status, QN_ERR_NUMERIC);
        free_rig(&r);
    }
}

// The same with masks, biases and penalties in every combination, ids outside the vocabulary and
// repeated ones among them.
static void test_changed_logits(void **state) {
    (void)state;
    static const int32_t sizes[] = {1, 2, 31, 32, 33, 100, 1000};
    static const float repetitions[] = {0, 1, 1.3f, 0.5f, 100, 1e-30f};
    static const float penalties[] = {0, 2, -2, 0.37f};
    enum { HISTORY = 64 };
    qn_rng rng = {.key = 2};
    int empty = 0, other = 0;
    for (size_t si = 0; si < QN_COUNT(sizes); si++) {
        rig r = make_rig(sizes[si]);
        const uint64_t range = (uint64_t)r.n + 2;
        for (int round = 0; round < 800; round++) {
            for (int32_t i = 0; i < r.n; i++) {
                r.logits[i] = (float)((qn_rng_uniform(&rng) - 0.5) * 8);
                if (round % 3 == 0) r.logits[i] = roundf(r.logits[i]);
            }
            int32_t prompt[HISTORY], output[HISTORY], banned[4], bias_ids[8];
            float biases[8];
            uint32_t allowed[32];
            for (int i = 0; i < HISTORY; i++) {
                prompt[i] = (int32_t)qn_rng_below(&rng, range) - 1;
                output[i] = (int32_t)qn_rng_below(&rng, range) - 1;
            }
            for (int i = 0; i < 4; i++) banned[i] = (int32_t)qn_rng_below(&rng, range) - 1;
            for (int i = 0; i < 8; i++) {
                bias_ids[i] = (int32_t)qn_rng_below(&rng, range) - 1;
                biases[i] = (float)((qn_rng_uniform(&rng) - 0.5) * 20);
            }
            for (int i = 0; i < 32; i++) allowed[i] = (uint32_t)qn_rng_next(&rng);
            const qn_sample_row plain = {
                .seed = qn_rng_next(&rng), .position = round, .top_p = round % 4 == 1 ? 0.9f : 1,
                .temperature = round % 2 ? 0.8f : 0, .top_k = round % 5 == 1 ? 7 : 0,
                .n_logprobs = 3};
            qn_sample_row row = plain;
            row.banned = banned;
            row.n_banned = (int32_t)qn_rng_below(&rng, 5);
            row.allowed = qn_rng_below(&rng, 2) ? allowed : NULL;
            row.bias_ids = bias_ids;
            row.biases = biases;
            row.n_biases = qn_rng_below(&rng, 2) ? (int32_t)qn_rng_below(&rng, 9) : 0;
            row.repetition_penalty = repetitions[qn_rng_below(&rng, QN_COUNT(repetitions))];
            row.presence_penalty = penalties[qn_rng_below(&rng, QN_COUNT(penalties))];
            row.frequency_penalty = penalties[qn_rng_below(&rng, QN_COUNT(penalties))];
            row.prompt = prompt;
            row.n_prompt = (int32_t)qn_rng_below(&rng, HISTORY + 1);
            row.output = output;
            row.n_output = (int32_t)qn_rng_below(&rng, HISTORY + 1);
            const qn_sample got = sample(&r, &row);
            const int32_t want = reference(r.logits, r.n, &row);
            assert_int_equal(got.id, want);
            assert_int_equal(got.status, want < 0 ? QN_ERR_INVALID : QN_OK);
            empty += want < 0;
            other += want != sample(&r, &plain).id;
            // Of the raw logits.
            if (want >= 0) check_logprobs(r.logits, r.n, 3, &got);
        }
        free_rig(&r);
    }
    assert_true(empty > 20 && other > 1000);
}

// By hand: what each of them does to a greedy choice.
static void test_each_change(void **state) {
    (void)state;
    rig r = make_rig(4);
    const float logits[] = {4, 3, -1, -2};
    memcpy(r.logits, logits, sizeof logits);
    const int32_t ids[] = {0, 1, 1, 1}, bias_ids[] = {3};
    const float bias[] = {6.5f};
    const uint32_t allowed[] = {0xc};
    qn_sample_row row = {.top_p = 1, .n_logprobs = -1};
    assert_int_equal(sample(&r, &row).id, 0);
    row.allowed = allowed;
    assert_int_equal(sample(&r, &row).id, 2);
    row.allowed = NULL;
    row.bias_ids = bias_ids;
    row.biases = bias;
    row.n_biases = 1;
    assert_int_equal(sample(&r, &row).id, 3); // 4.5
    row.n_biases = 0;
    row.prompt = ids;
    row.n_prompt = 1;
    row.presence_penalty = 2;
    row.frequency_penalty = 2;
    assert_int_equal(sample(&r, &row).id, 0); // the prompt does not count for these
    row.presence_penalty = row.frequency_penalty = 0;
    row.repetition_penalty = 1.5f;
    assert_int_equal(sample(&r, &row).id, 1); // 4 / 1.5 < 3
    row.output = ids;
    row.n_output = 4;
    assert_int_equal(sample(&r, &row).id, 0); // both are divided, once each
    row.repetition_penalty = 0;
    row.presence_penalty = 1.5f;
    assert_int_equal(sample(&r, &row).id, 0); // 2.5, 1.5
    row.presence_penalty = 0;
    row.frequency_penalty = -1;
    assert_int_equal(sample(&r, &row).id, 1); // 5, 6
    row.frequency_penalty = 2;
    assert_int_equal(sample(&r, &row).id, 0); // 2, -3, -1
    row.output = ids + 1;
    row.n_output = 3;
    row.repetition_penalty = 100;
    row.frequency_penalty = 0;
    assert_int_equal(sample(&r, &row).id, 0); // 0.04, 0.03; id 2 stays -1: not in the history
    // A negative logit moves down, not up.
    for (int32_t i = 0; i < 4; i++) r.logits[i] = (float)(-1 - i);
    row.repetition_penalty = 3.5f;
    assert_int_equal(sample(&r, &row).id, 2); // -3.5, -7, -3, -4
    free_rig(&r);
}

// Chi-square of 20,000 samples over 12 ids at the 99.9% point of 11 degrees, plain and truncated.
static void test_distribution(void **state) {
    (void)state;
    enum { N = 12, DRAWS = 20000 };
    rig r = make_rig(N);
    for (int32_t i = 0; i < N; i++) r.logits[i] = (float)(i * 7 % N) * 0.3f;
    for (int way = 0; way < 3; way++) {
        qn_sample_row row = {.seed = 42 + (uint64_t)way, .temperature = 0.8f, .top_p = 1,
                             .n_logprobs = -1};
        if (way == 1) row.top_k = 6;
        if (way == 2) row.top_p = 0.85f;
        double p[N], total = 0, chi = 0;
        int32_t counts[N] = {0}, kept = 0;
        double sorted[N];
        for (int32_t i = 0; i < N; i++) sorted[i * 7 % N] = exp((double)r.logits[i] / 0.8);
        for (int32_t i = 0; i < N; i++) total += sorted[i];
        double cut = 0, sum = 0; // sorted ascends
        for (int32_t i = N - 1; i >= 0; i--) {
            if ((way == 1 && kept == 6) || (way == 2 && sum >= 0.85 * total)) break;
            sum += sorted[i];
            kept++;
            cut = sorted[i];
        }
        for (int32_t i = 0; i < N; i++) {
            const double w = exp((double)r.logits[i] / 0.8);
            p[i] = w >= cut * (1 - 1e-9) ? w / sum : 0;
        }
        for (int32_t i = 0; i < DRAWS; i++) {
            row.position = i;
            row.choice = i % 2;
            counts[sample(&r, &row).id]++;
        }
        for (int32_t i = 0; i < N; i++) {
            if (p[i] == 0) {
                assert_int_equal(counts[i], 0);
                continue;
            }
            const double want = p[i] * DRAWS;
            chi += (counts[i] - want) * (counts[i] - want) / want;
        }
        print_message("way %d: %d ids, chi-square %.1f\n", way, kept, chi);
        assert_true(chi < 31.3);
    }
    free_rig(&r);
}

static void test_ties(void **state) {
    (void)state;
    rig r = make_rig(300);
    for (int32_t i = 0; i < 300; i++) r.logits[i] = i % 10 == 4 ? 2.0f : i % 2 ? -0.0f : 0.0f;
    qn_sample_row row = {.temperature = 0, .top_p = 1, .n_logprobs = 20};
    qn_sample s = sample(&r, &row);
    assert_int_equal(s.id, 4);
    for (int32_t i = 0; i < 20; i++) assert_int_equal(s.top_ids[i], 4 + 10 * i);
    // Of equal ones, the smallest ids fill the k.
    row.temperature = 1;
    row.top_k = 32;
    row.n_logprobs = -1;
    for (int32_t i = 0; i < 500; i++) {
        row.seed = (uint64_t)i;
        const int32_t id = sample(&r, &row).id;
        assert_true(id % 10 == 4 || id == 0 || id == 1);
    }
    free_rig(&r);
}

// Only seed, choice, position and the logits decide.
static void test_stateless(void **state) {
    (void)state;
    rig r = make_rig(1000);
    for (int32_t i = 0; i < r.n; i++) r.logits[i] = (float)(i % 13) * 0.1f;
    qn_sample_row row = {.seed = 9, .position = 3, .temperature = 1, .top_p = 0.95f,
                         .n_logprobs = -1};
    const qn_sample first = sample(&r, &row);
    memset(r.scratch, 0xa5, qn_sample_scratch_bytes(r.n));
    const qn_sample again = sample(&r, &row);
    assert_memory_equal(&first, &again, sizeof first);
    int different = 0;
    for (int field = 0; field < 3; field++) {
        qn_sample_row other = row;
        if (field == 0) other.seed++;
        if (field == 1) other.position++;
        if (field == 2) other.choice++;
        different += sample(&r, &other).id != first.id;
    }
    assert_true(different >= 2);
    free_rig(&r);
}

static void test_bad_logits(void **state) {
    (void)state;
    rig r = make_rig(50);
    const qn_sample_row rows[] = {
        {.temperature = 0, .top_p = 1, .n_logprobs = -1},
        {.temperature = 1, .top_p = 1, .n_logprobs = 5},
        {.temperature = 1, .top_p = 0.9f, .top_k = 5, .n_logprobs = 0},
    };
    for (size_t w = 0; w < QN_COUNT(rows); w++) {
        for (int32_t at = 0; at < 50; at += 7) {
            for (int32_t i = 0; i < 50; i++) r.logits[i] = (float)i;
            r.logits[at] = NAN;
            assert_int_equal(sample(&r, &rows[w]).status, QN_ERR_NUMERIC);
            r.logits[at] = INFINITY;
            assert_int_equal(sample(&r, &rows[w]).status, QN_ERR_NUMERIC);
            assert_int_equal(sample(&r, &rows[w]).id, -1);
            r.logits[at] = -INFINITY;
            assert_int_equal(sample(&r, &rows[w]).status, QN_OK);
        }
        for (int32_t i = 0; i < 50; i++) r.logits[i] = -INFINITY;
        assert_int_equal(sample(&r, &rows[w]).status, QN_ERR_NUMERIC);
        r.logits[31] = -5;
        assert_int_equal(sample(&r, &rows[w]).id, 31);
        const int32_t banned[] = {31, -1, 5000};
        qn_sample_row row = rows[w];
        row.banned = banned;
        row.n_banned = 3;
        assert_int_equal(sample(&r, &row).status, QN_ERR_INVALID);
        r.logits[30] = -6;
        assert_int_equal(sample(&r, &row).id, 30);
    }
    free_rig(&r);
}

// Temperatures and logits at the ends of their ranges.
static void test_extremes(void **state) {
    (void)state;
    rig r = make_rig(100);
    for (int32_t i = 0; i < 100; i++) r.logits[i] = (float)(i - 50) * 6e36f;
    static const float temperatures[] = {1e-38f, 1e-45f, 1, 3e38f};
    for (size_t t = 0; t < QN_COUNT(temperatures); t++) {
        for (int way = 0; way < 4; way++) {
            const qn_sample_row row = {.seed = 3, .temperature = temperatures[t],
                                       .top_p = way & 1 ? 0.9f : 1, .min_p = way & 2 ? 0.1f : 0,
                                       .n_logprobs = 2};
            const qn_sample s = sample(&r, &row);
            assert_int_equal(s.status, QN_OK);
            assert_int_equal(s.id, reference(r.logits, r.n, &row));
        }
    }
    free_rig(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),  cmocka_unit_test(test_scores),
        cmocka_unit_test(test_changed_logits),
        cmocka_unit_test(test_each_change), cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_ties),       cmocka_unit_test(test_stateless),
        cmocka_unit_test(test_bad_logits), cmocka_unit_test(test_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
