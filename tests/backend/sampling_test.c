// SPDX-License-Identifier: Apache-2.0
// Sampling against a naive reference (everything sorted, libm, in double), the distribution it
// gives, and the cases at the edges.
#include "backend/sampling.h"
#include "base/checked.h"
#include "base/philox.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
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

// The sampled id, by the text of sampling.h alone.
static int32_t reference(const float *logits, int32_t n, const qn_sample_row *row) {
    entry *e = malloc((size_t)n * sizeof *e);
    assert_non_null(e);
    int32_t left = 0;
    for (int32_t i = 0; i < n; i++) {
        bool keep = isfinite(logits[i]);
        for (int32_t b = 0; b < row->n_banned; b++) keep = keep && row->banned[b] != i;
        if (keep) e[left++] = (entry){(double)logits[i], i};
    }
    assert_true(left > 0);
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
    assert_true(fabs((double)s->logprob - ((double)logits[s->id] - lse)) < 1e-5);
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
                assert_true(got.logprob == 0 && got.n_top == 0);
            }
        }
        free_rig(&r);
    }
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
        cmocka_unit_test(test_reference),  cmocka_unit_test(test_distribution),
        cmocka_unit_test(test_ties),       cmocka_unit_test(test_stateless),
        cmocka_unit_test(test_bad_logits), cmocka_unit_test(test_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
