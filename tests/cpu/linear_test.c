// SPDX-License-Identifier: Apache-2.0
// LINEAR for every weight type, shape and number of tokens: within the stated bound of a product in
// double, and the same bits from every instruction set, batch and split over panels.
#include "base/checked.h"
#include "cpu/executable.h"
#include "tests/cpu/isas.h"
#include "tools/synth_blocks.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const int32_t row_counts[] = {1, 15, 17, 33, 64, 130};
// The narrow ones where the type's blocks divide them.
static const int32_t widths[] = {32, 64, 96, 256, 288, 512};
static const int32_t token_counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 33};
enum { MAX_TOKENS = 33, MAX_ROWS = 144, MAX_K = 512 };

typedef struct problem {
    qn_dtype type;
    int32_t n, k;
    float w[MAX_ROWS * MAX_K]; // dequantized
    float x[MAX_TOKENS * MAX_K];
    float bias[MAX_ROWS];
    uint8_t *panels;
    size_t stride;
    int32_t n_panels;
} problem;

static void make_problem(problem *p, qn_dtype type, int32_t n, int32_t k, uint64_t seed) {
    qn_rng rng = {.key = seed};
    p->type = type;
    p->n = n;
    p->k = k;
    uint64_t row_bytes;
    assert_true(qn_dtype_row_bytes(qn_dtype_get((uint32_t)type), (uint64_t)k, &row_bytes));
    uint8_t *rows = malloc((size_t)n * row_bytes);
    assert_non_null(rows);
    const qn_dtype_info *info = qn_dtype_get((uint32_t)type);
    qn_synth_blocks blocks;
    if (is_int_type(type)) qn_synth_blocks_init(&blocks, type, seed, 0.05);
    for (int32_t r = 0; r < n; r++) {
        uint8_t *row = rows + (size_t)r * row_bytes;
        float t[MAX_K];
        const size_t n_blocks = (size_t)k / info->block_size;
        if (is_int_type(type)) {
            qn_synth_blocks_make(&blocks, (size_t)r * n_blocks, n_blocks, row);
        } else {
            for (int32_t i = 0; i < k; i++) t[i] = random_value(&rng) * 0.1f;
            qn_quantize_row(type, t, row, (size_t)k);
        }
        if (type == QN_Q8_0 && r % 5 == 0) row[2] = 0x80; // -128, which a quantizer never writes
        qn_dequantize_row(type, row, p->w + (size_t)r * (size_t)k, (size_t)k);
    }
    for (int32_t i = 0; i < MAX_TOKENS * k; i++) p->x[i] = random_value(&rng);
    for (int32_t i = 0; i < k && i < 32; i++) p->x[i] = 0; // a block of zeros
    memset(p->bias, 0, sizeof p->bias);
    for (int32_t i = 0; i < n; i++) p->bias[i] = random_value(&rng);
    p->n_panels = QN_CEIL_DIV(n, PANEL_ROWS);
    p->stride = qn_cpu_panel_bytes(type, k);
    p->panels = aligned_alloc(64, (size_t)p->n_panels * p->stride);
    assert_non_null(p->panels);
    for (int32_t i = 0; i < p->n_panels; i++) {
        qn_cpu_pack_panel(type, k, rows + (size_t)i * PANEL_ROWS * row_bytes, row_bytes,
                          QN_MIN(n - i * PANEL_ROWS, (int32_t)PANEL_ROWS),
                          p->panels + (size_t)i * p->stride);
    }
    free(rows);
}

// y [m][n_panels * 16], computed in pieces: panels split at `cut`, tokens from `first`.
static void run(const problem *p, const cpu_kernels *kernels, int32_t first, int32_t m, int32_t cut,
                bool bias, float *y) {
    const size_t q_stride = act_row_bytes(p->k, kernels->act_elem_bytes);
    uint8_t *q = aligned_alloc(64, (size_t)m * q_stride);
    assert_non_null(q);
    if (is_int_type(p->type)) {
        for (int32_t t = 0; t < m; t++) {
            kernels->quantize(p->x + (size_t)(first + t) * (size_t)p->k, p->k,
                              q + (size_t)t * q_stride);
        }
    }
    const size_t width = (size_t)p->n_panels * PANEL_ROWS;
    linear_args a = {.type = p->type, .k = p->k, .panels = p->panels, .panel_stride = p->stride,
                     .m = m, .x = p->x + (size_t)first * (size_t)p->k, .x_stride = (size_t)p->k,
                     .q = q, .q_stride = q_stride, .bias = bias ? p->bias : NULL, .y = y,
                     .y_stride = width};
    for (size_t i = 0; i < (size_t)m * width; i++) y[i] = NAN;
    a.panel_begin = 0;
    a.panel_end = cut;
    kernels->linear(&a);
    a.panel_begin = cut;
    a.panel_end = p->n_panels;
    kernels->linear(&a);
    free(q);
}

// The bound: rounding of a chain of k additions, and for integer types half a step of the
// activation's 8-bit grid in each element. With mins a term is the difference of two that are
// larger: at most 16 times the mean weight.
static void check_against_double(const problem *p, const float *y, int32_t m) {
    const size_t width = (size_t)p->n_panels * PANEL_ROWS;
    const qn_form *form = qn_cpu_form(p->type);
    for (int32_t t = 0; t < m; t++) {
        const float *x = p->x + (size_t)t * (size_t)p->k;
        for (int32_t r = 0; r < p->n; r++) {
            const float *w = p->w + (size_t)r * (size_t)p->k;
            double sum = p->bias[r], size = fabs(sum), grid = 0;
            for (int32_t b = 0; b < p->k; b += QBLOCK) {
                double amax = 0, weights = 0;
                for (int32_t i = b; i < b + QBLOCK; i++) {
                    sum += (double)w[i] * (double)x[i];
                    size += fabs((double)w[i] * (double)x[i]);
                    weights += fabs((double)w[i]);
                    amax = fmax(amax, fabs((double)x[i]));
                }
                grid += 0.5 * amax / 127 * weights;
            }
            if (form && form->has_min) size *= 16;
            const double bound = size * (p->k + 2) * 0x1p-24 +
                                 (is_int_type(p->type) ? grid * 1.0001 : 0);
            const double difference = fabs((double)y[(size_t)t * width + (size_t)r] - sum);
            if (!(difference <= bound)) {
                fail_msg("%s: off by %g, %g allowed", qn_dtype_get((uint32_t)p->type)->name,
                         difference, bound);
            }
        }
    }
}

static void test_linear(void **state) {
    (void)state;
    problem *p = malloc(sizeof *p);
    float *want = malloc(sizeof(float) * MAX_TOKENS * MAX_ROWS);
    float *y = malloc(sizeof(float) * MAX_TOKENS * MAX_ROWS);
    assert_true(p && want && y);
    uint64_t seed = 1;
    const qn_dtype_info *info;
    for (size_t ti = 0; (info = qn_dtype_at(ti)) != NULL; ti++) {
        for (size_t ri = 0; ri < QN_COUNT(row_counts); ri++) {
            for (size_t ki = 0; ki < QN_COUNT(widths); ki++) {
                if ((uint32_t)widths[ki] % info->block_size != 0) continue;
                make_problem(p, info->type, row_counts[ri], widths[ki], seed++);
                const size_t width = (size_t)p->n_panels * PANEL_ROWS;
                run(p, &qn_cpu_kernels_scalar, 0, MAX_TOKENS, p->n_panels, true, want);
                check_against_double(p, want, MAX_TOKENS);
                for (size_t isa = 0; isa < N_ISAS; isa++) {
                    const cpu_kernels *kernels = qn_cpu_kernels_find(isa_names[isa]);
                    if (!kernels) continue;
                    for (size_t mi = 0; mi < QN_COUNT(token_counts); mi++) {
                        const int32_t m = token_counts[mi];
                        const int32_t first = (int32_t)(seed * 7 % (MAX_TOKENS - (uint64_t)m + 1));
                        const int32_t cut = (int32_t)(seed * 5 % (uint64_t)(p->n_panels + 1));
                        run(p, kernels, first, m, cut, true, y);
                        for (int32_t t = 0; t < m; t++) {
                            if (memcmp(y + (size_t)t * width, want + (size_t)(first + t) * width,
                                       (size_t)p->n * sizeof(float)) != 0) {
                                fail_msg("%s, %s: %d tokens of width %d give other bits",
                                         info->name, isa_names[isa], m, p->k);
                            }
                        }
                    }
                }
                free(p->panels);
            }
        }
    }
    free(p);
    free(want);
    free(y);
}

// Without a bias, and the padding rows of the last panel give 0.
static void test_padding(void **state) {
    (void)state;
    problem *p = malloc(sizeof *p);
    assert_non_null(p);
    const qn_dtype_info *info;
    for (size_t ti = 0; (info = qn_dtype_at(ti)) != NULL; ti++) {
        make_problem(p, info->type, 17, 256, 99 + ti);
        for (size_t isa = 0; isa < N_ISAS; isa++) {
            const cpu_kernels *kernels = qn_cpu_kernels_find(isa_names[isa]);
            if (!kernels) continue;
            float y[2 * 32];
            run(p, kernels, 0, 2, 1, false, y);
            for (int i = 17; i < 32; i++) assert_true(y[i] == 0 && y[32 + i] == 0);
        }
        free(p->panels);
    }
    free(p);
}

// A NaN or infinite activation reaches every output of its row, and no other row's.
static void test_not_finite(void **state) {
    (void)state;
    problem *p = malloc(sizeof *p);
    assert_non_null(p);
    const float values[] = {NAN, INFINITY, -INFINITY};
    const qn_dtype_info *info;
    for (size_t ti = 0; (info = qn_dtype_at(ti)) != NULL; ti++) {
        for (size_t v = 0; v < QN_COUNT(values); v++) {
            make_problem(p, info->type, 33, 256, 7 + ti);
            p->x[1 * 256 + 70] = values[v];
            for (size_t isa = 0; isa < N_ISAS; isa++) {
                const cpu_kernels *kernels = qn_cpu_kernels_find(isa_names[isa]);
                if (!kernels) continue;
                float y[3 * 48];
                run(p, kernels, 0, 3, 2, true, y);
                for (int i = 0; i < 33; i++) {
                    assert_true(isfinite(y[i]) && isfinite(y[96 + i]));
                    if (is_int_type(p->type)) assert_true(isnan(y[48 + i]));
                    else if (p->w[(size_t)i * 256 + 70] != 0) assert_true(!isfinite(y[48 + i]));
                }
            }
            free(p->panels);
        }
    }
    free(p);
}

// One row out of the panels is what the file's row dequantizes to.
static void test_panel_row(void **state) {
    (void)state;
    problem *p = malloc(sizeof *p);
    assert_non_null(p);
    const qn_dtype_info *info;
    for (size_t ti = 0; (info = qn_dtype_at(ti)) != NULL; ti++) {
        make_problem(p, info->type, 33, 256, 31 + ti);
        for (int32_t r = 0; r < 33; r++) {
            float row[256];
            qn_cpu_panel_row(p->type, 256, p->panels, p->stride, r, row);
            assert_memory_equal(row, p->w + (size_t)r * 256, sizeof row);
        }
        free(p->panels);
    }
    free(p);
}

// The same for any bytes at all: scales that are zero, subnormal, infinite, NaN. IQ1_S is kept in
// another form (cpu/panels.c), whose zeros have no sign and whose infinities can be NaN.
static void test_panel_of_any_bytes(void **state) {
    (void)state;
    enum { K = 512, ROWS = 37, PANELS = 3 };
    qn_rng rng = {.key = 77};
    const qn_dtype_info *info;
    float *want = malloc(sizeof(float) * K), *got = malloc(sizeof(float) * K);
    assert_true(want && got);
    for (size_t ti = 0; (info = qn_dtype_at(ti)) != NULL; ti++) {
        uint64_t row_bytes;
        assert_true(qn_dtype_row_bytes(info, K, &row_bytes));
        const size_t stride = qn_cpu_panel_bytes(info->type, K);
        uint8_t *rows = malloc(ROWS * row_bytes), *panels = aligned_alloc(64, PANELS * stride);
        assert_true(rows && panels);
        for (size_t i = 0; i < ROWS * row_bytes; i++) rows[i] = (uint8_t)qn_rng_next(&rng);
        for (int32_t i = 0; i < PANELS; i++) {
            qn_cpu_pack_panel(info->type, K, rows + (size_t)i * PANEL_ROWS * row_bytes, row_bytes,
                              QN_MIN(ROWS - i * PANEL_ROWS, (int32_t)PANEL_ROWS),
                              panels + (size_t)i * stride);
        }
        for (int32_t r = 0; r < ROWS; r++) {
            qn_dequantize_row(info->type, rows + (size_t)r * row_bytes, want, K);
            qn_cpu_panel_row(info->type, K, panels, stride, r, got);
            for (int32_t i = 0; i < K; i++) {
                const bool other = info->type == QN_IQ1_S;
                if (isnan(want[i]) && isnan(got[i])) continue;
                if (other && want[i] == 0 && got[i] == 0) continue;
                if (other && isinf(want[i]) && !isfinite(got[i])) continue;
                if (memcmp(&got[i], &want[i], sizeof(float)) != 0) {
                    fail_msg("%s: row %d, input %d: %a, not %a", info->name, r, i, (double)got[i],
                             (double)want[i]);
                }
            }
        }
        free(rows);
        free(panels);
    }
    free(want);
    free(got);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_padding),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_panel_row),
        cmocka_unit_test(test_panel_of_any_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
