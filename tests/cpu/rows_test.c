// SPDX-License-Identifier: Apache-2.0
// Row kernels: the functions against double with stated bounds, every instruction set bit for bit.
#include "base/checked.h"
#include "tests/cpu/isas.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const int32_t widths[] = {1, 7, 16, 31, 64, 80, 96, 200};
enum { MAX_WIDTH = 208 };

static double ulps(double got, double want) {
    if (fabs(want) < (double)FLT_MIN) return fabs(got - want) / 0x1p-149;
    int e;
    frexp(want, &e);
    return fabs(got - want) / ldexp(1.0, e - 24);
}

static double silu(double x) { return x / (1 + exp(-x)); }
static double gelu(double x) {
    return 0.5 * x * (1 + tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
}

// Sweeps the functions; ones as the second factor lets the activation itself through.
static void test_functions(void **state) {
    (void)state;
    double worst_silu = 0, worst_gelu = 0, worst_cap = 0;
    float x[16], one[16], y[16];
    for (int i = 0; i < 16; i++) one[i] = 1;
    for (int step = 0; step < 400000; step += 16) {
        for (int i = 0; i < 16; i++) x[i] = (float)(step + i) * 1e-4f - 20.0f;
        qn_cpu_kernels_scalar.gated(QN_ACT_SILU, x, one, y, 16);
        for (int i = 0; i < 16; i++) {
            worst_silu = fmax(worst_silu, ulps((double)y[i], silu((double)x[i])));
        }
        qn_cpu_kernels_scalar.softcap(x, 5.0f, y, 16);
        for (int i = 0; i < 16; i++) {
            worst_cap = fmax(worst_cap, ulps((double)y[i], 5 * tanh((double)x[i] / 5)));
        }
        qn_cpu_kernels_scalar.gated(QN_ACT_GELU_TANH, x, one, y, 16);
        for (int i = 0; i < 16; i++) {
            // In its left tail the rounding of the cubic's value is magnified: absolute there.
            if (x[i] > -1) {
                worst_gelu = fmax(worst_gelu, ulps((double)y[i], gelu((double)x[i])));
            } else {
                assert_true(fabs((double)y[i] - gelu((double)x[i])) < 2e-7);
            }
        }
    }
    print_message("worst errors in ulp: silu %.2f, gelu %.2f, softcap %.2f\n", worst_silu,
                  worst_gelu, worst_cap);
    assert_true(worst_silu < 3 && worst_gelu < 4 && worst_cap < 5);
    const float in[16] = {NAN, 100, -100, -3, 0, INFINITY};
    qn_cpu_kernels_scalar.gated(QN_ACT_RELU2, in, one, y, 16);
    assert_true(isnan(y[0]) && y[1] == 10000 && y[2] == 0 && y[3] == 0);
    qn_cpu_kernels_scalar.gated(QN_ACT_SILU, in, one, y, 16);
    assert_true(isnan(y[0]) && y[1] == 100 && y[2] == 0 && y[4] == 0);
    qn_cpu_kernels_scalar.softcap(in, 30.0f, y, 16);
    assert_true(isnan(y[0]) && y[4] == 0 && y[5] == 30);
}

typedef struct inputs {
    float a[MAX_WIDTH], b[MAX_WIDTH], w[MAX_WIDTH];
} inputs;

typedef struct results {
    float add[MAX_WIDTH], scale[MAX_WIDTH], cap[MAX_WIDTH], norm[MAX_WIDTH];
    float gated[3][MAX_WIDTH], halves[MAX_WIDTH], adjacent[MAX_WIDTH];
} results;

static void run_all(const cpu_kernels *k, const inputs *in, int32_t n, results *r) {
    memset(r, 0, sizeof *r);
    k->add(in->a, in->b, r->add, n);
    k->scale(in->a, 1.7f, r->scale, n);
    k->softcap(in->a, 3.0f, r->cap, n);
    k->rms_norm(in->a, in->w, r->norm, n, n, 1e-6f);
    k->gated(QN_ACT_SILU, in->a, in->b, r->gated[0], n);
    k->gated(QN_ACT_GELU_TANH, in->a, in->b, r->gated[1], n);
    k->gated(QN_ACT_RELU2, in->a, in->b, r->gated[2], n);
    memcpy(r->halves, in->a, sizeof r->halves);
    memcpy(r->adjacent, in->a, sizeof r->adjacent);
    k->rope(r->halves, 1, n, QN_ROPE_HALVES, n & ~1, in->b, in->w);
    k->rope(r->adjacent, 1, n, QN_ROPE_ADJACENT, n & ~1, in->b, in->w);
}

static void test_rows(void **state) {
    (void)state;
    qn_rng rng = {.key = 3};
    for (size_t wi = 0; wi < QN_COUNT(widths); wi++) {
        const int32_t n = widths[wi], half = n / 2;
        inputs in;
        results want, got;
        for (int32_t i = 0; i < MAX_WIDTH; i++) {
            in.a[i] = random_value(&rng);
            in.b[i] = random_value(&rng);
            in.w[i] = random_value(&rng);
        }
        run_all(&qn_cpu_kernels_scalar, &in, n, &want);
        double sum = 0;
        for (int32_t i = 0; i < n; i++) sum += (double)in.a[i] * (double)in.a[i];
        const double inv = 1 / sqrt(sum / n + (double)1e-6f);
        for (int32_t i = 0; i < n; i++) {
            assert_true(want.add[i] == in.a[i] + in.b[i]);
            assert_true(want.scale[i] == in.a[i] * 1.7f);
            assert_true(ulps((double)want.norm[i], (double)in.a[i] * inv * (double)in.w[i]) < 12);
        }
        for (int32_t i = 0; i < half; i++) {
            const double c = (double)in.b[i], s = (double)in.w[i];
            const double a = (double)in.a[i], b = (double)in.a[i + half];
            assert_true(fabs((double)want.halves[i] - (a * c - b * s)) < 1e-4);
            assert_true(fabs((double)want.halves[i + half] - (a * s + b * c)) < 1e-4);
            const double p = (double)in.a[2 * i], q = (double)in.a[2 * i + 1];
            assert_true(fabs((double)want.adjacent[2 * i] - (p * c - q * s)) < 1e-4);
            assert_true(fabs((double)want.adjacent[2 * i + 1] - (p * s + q * c)) < 1e-4);
        }
        for (size_t isa = 1; isa < N_ISAS; isa++) {
            const cpu_kernels *kernels = qn_cpu_kernels_find(isa_names[isa]);
            if (!kernels) continue;
            run_all(kernels, &in, n, &got);
            assert_memory_equal(&got, &want, sizeof got);
        }
    }
}

// Norms of several groups in one row are those of each group alone.
static void test_norm_groups(void **state) {
    (void)state;
    qn_rng rng = {.key = 4};
    float x[120], w[40], y[120], one[40];
    for (int i = 0; i < 120; i++) x[i] = random_value(&rng);
    for (int i = 0; i < 40; i++) w[i] = random_value(&rng);
    for (size_t isa = 0; isa < N_ISAS; isa++) {
        const cpu_kernels *kernels = qn_cpu_kernels_find(isa_names[isa]);
        if (!kernels) continue;
        kernels->rms_norm(x, w, y, 120, 40, 1e-5f);
        for (int g = 0; g < 3; g++) {
            kernels->rms_norm(x + 40 * g, w, one, 40, 40, 1e-5f);
            assert_memory_equal(one, y + 40 * g, sizeof one);
        }
    }
}

// Quantized activations: the grid, zero and tiny blocks, blocks that are not finite.
static void test_quantize(void **state) {
    (void)state;
    qn_rng rng = {.key = 5};
    float x[128];
    for (int i = 0; i < 32; i++) x[i] = random_value(&rng);
    for (int i = 32; i < 64; i++) x[i] = 0;
    for (int i = 64; i < 96; i++) x[i] = 1e-35f;
    for (int i = 96; i < 128; i++) x[i] = i == 100 ? NAN : 1.0f;
    for (size_t isa = 0; isa < N_ISAS; isa++) {
        const cpu_kernels *kernels = qn_cpu_kernels_find(isa_names[isa]);
        if (!kernels) continue;
        const size_t elem = kernels->act_elem_bytes;
        uint8_t *q = aligned_alloc(64, act_row_bytes(128, elem));
        assert_non_null(q);
        kernels->quantize(x, 128, q);
        const float *scales = act_floats(q, 128, elem, ACT_SCALES);
        float amax = 0;
        int32_t sum = 0, first = 0;
        for (int i = 0; i < 32; i++) amax = fmaxf(amax, fabsf(x[i]));
        assert_true(scales[0] == amax / 127.0f && scales[1] == 0 && scales[2] == 0);
        assert_true(isnan(scales[3]));
        static const int order[] = {0, 2, 1, 3};
        for (int i = 0; i < 128; i++) {
            const int at = i / 4 * 4 + order[i % 4];
            const int v = elem == 1 ? (int8_t)q[i] : ((const int16_t *)(const void *)q)[at];
            if (i < 32) {
                assert_int_equal(v, (int)rintf(x[i] * (127.0f / amax)));
                sum += v;
                if (i < 16) first += v;
            } else {
                assert_int_equal(v, 0);
            }
        }
        const int32_t *halves = act_ints(q, 128, elem, ACT_HALVES128);
        const float *half_sums = act_floats(q, 128, elem, ACT_HALF_XSUMS);
        assert_int_equal(act_ints(q, 128, elem, ACT_SUMS128)[0], -128 * sum);
        assert_int_equal(act_ints(q, 128, elem, ACT_SUMS8)[0], -8 * sum);
        assert_int_equal(halves[0], -128 * first);
        assert_int_equal(halves[1], -128 * (sum - first));
        assert_true(act_floats(q, 128, elem, ACT_XSUMS)[0] == scales[0] * (float)sum);
        assert_true(half_sums[0] == scales[0] * (float)first);
        assert_true(half_sums[1] == scales[0] * (float)(sum - first));
        free(q);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_functions),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_norm_groups),
        cmocka_unit_test(test_quantize),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
