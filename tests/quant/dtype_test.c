// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <math.h>

#include "base/buf.h"
#include "base/os.h"
#include "base/philox.h"
#include "quant/dtype.h"

static uint32_t bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

typedef struct golden {
    char *data;
    size_t size, at;
} golden;

static const void *take(golden *g, size_t n) {
    assert_true(n <= g->size - g->at);
    const void *p = g->data + g->at;
    g->at += n;
    return p;
}

static uint32_t take_u32(golden *g) {
    uint32_t v;
    memcpy(&v, take(g, sizeof v), sizeof v);
    return v;
}

// tests/golden/README.md has the layout: blocks, and their values by the gguf package.
static void one_golden(qn_dtype type, const char *name) {
    char path[600];
    golden g = {0};
    qn_error err = {0};
    snprintf(path, sizeof path, "%s/tests/golden/data/dequant_%s.bin", QN_SOURCE_DIR, name);
    if (qn_os_read_file(path, 1 << 26, &g.data, &g.size, &err) != QN_OK) {
        fail_msg("%s", err.message);
    }
    assert_memory_equal(take(&g, 4), "QNDQ", 4);
    assert_int_equal(take_u32(&g), 1);
    uint32_t sections = take_u32(&g);
    const qn_dtype_info *info = qn_dtype_get((uint32_t)type);
    size_t compared = 0;
    for (uint32_t s = 0; s < sections; s++) {
        uint32_t special = take_u32(&g) & 1, n = take_u32(&g), bytes = take_u32(&g);
        uint32_t values = take_u32(&g);
        assert_int_equal(bytes * info->block_size, values * info->block_bytes);
        const uint8_t *blocks = take(&g, (size_t)n * bytes);
        const uint8_t *expected = take(&g, (size_t)n * values * 4);
        float *got = calloc((size_t)n * values, sizeof *got);
        assert_non_null(got);
        qn_dequantize_row(type, blocks, got, (size_t)n * values);
        for (size_t i = 0; i < (size_t)n * values; i++) {
            float want;
            memcpy(&want, expected + 4 * i, 4);
            if (special && isnan(want)) {
                assert_true(isnan(got[i]));
            } else if (bits(got[i]) != bits(want)) {
                fail_msg("%s section %u value %zu: %a, expected %a", name, s, i, (double)got[i],
                         (double)want);
            }
            compared++;
        }
        free(got);
    }
    assert_int_equal(g.at, g.size);
    assert_true(compared > 1000);
    free(g.data);
}

static void golden_values(void **state) {
    (void)state;
    one_golden(QN_F16, "f16");
    one_golden(QN_BF16, "bf16");
    one_golden(QN_Q8_0, "q8_0");
    one_golden(QN_Q4_0, "q4_0");
}

static void names(void **state) {
    (void)state;
    static const struct {
        uint32_t id;
        const char *name;
    } all[] = {{0, "f32"},      {1, "f16"},     {2, "q4_0"},   {3, "q4_1"},    {6, "q5_0"},
               {7, "q5_1"},     {8, "q8_0"},    {9, "q8_1"},   {10, "q2_K"},   {11, "q3_K"},
               {12, "q4_K"},    {13, "q5_K"},   {14, "q6_K"},  {15, "q8_K"},   {16, "iq2_xxs"},
               {17, "iq2_xs"},  {18, "iq3_xxs"}, {19, "iq1_s"}, {20, "iq4_nl"}, {21, "iq3_s"},
               {22, "iq2_s"},   {23, "iq4_xs"}, {24, "i8"},    {25, "i16"},    {26, "i32"},
               {27, "i64"},     {28, "f64"},    {29, "iq1_m"}, {30, "bf16"},   {34, "tq1_0"},
               {35, "tq2_0"},   {39, "mxfp4"}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        assert_string_equal(qn_dtype_gguf_name(all[i].id), all[i].name);
    }
    assert_null(qn_dtype_gguf_name(99));
    assert_null(qn_dtype_gguf_name(UINT32_MAX));
    assert_null(qn_dtype_get(15));
    assert_null(qn_dtype_get(UINT32_MAX));
    assert_int_equal(qn_dtype_by_name("Q8_0")->type, QN_Q8_0);
    assert_int_equal(qn_dtype_by_name("bf16")->type, QN_BF16);
    assert_null(qn_dtype_by_name("q8"));
    assert_null(qn_dtype_by_name(NULL));
}

static void row_bytes(void **state) {
    (void)state;
    uint64_t n;
    assert_true(qn_dtype_row_bytes(qn_dtype_get(QN_Q8_0), 64, &n));
    assert_int_equal(n, 68);
    assert_true(qn_dtype_row_bytes(qn_dtype_get(QN_Q4_0), 64, &n));
    assert_int_equal(n, 36);
    assert_true(qn_dtype_row_bytes(qn_dtype_get(QN_F32), 0, &n));
    assert_int_equal(n, 0);
    assert_false(qn_dtype_row_bytes(qn_dtype_get(QN_Q8_0), 33, &n));
    assert_false(qn_dtype_row_bytes(qn_dtype_get(QN_F32), UINT64_C(1) << 62, &n));
}

// Every binary16 value goes to binary32 and back; between two neighbours a value rounds to the
// nearer, halfway to the even one.
static void halves(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = qn_f16_to_f32((uint16_t)h);
        uint32_t exponent = h >> 10 & 31, mantissa = h & 0x3ff;
        if (exponent == 31 && mantissa) {
            assert_true(isnan(f));
            assert_true(isnan(qn_f16_to_f32(qn_f32_to_f16(f))));
            continue;
        }
        double sign = h & 0x8000 ? -1.0 : 1.0;
        double want = exponent == 31 ? INFINITY
                      : exponent     ? ldexp(1024 + mantissa, (int)exponent - 25)
                                     : ldexp(mantissa, -24);
        assert_true((double)f == sign * want);
        assert_int_equal(qn_f32_to_f16(f), h);
        if (h >= 0x7bff) continue;
        float next = qn_f16_to_f32((uint16_t)(h + 1)), middle = (f + next) / 2; // exact
        uint32_t even = h & 1 ? h + 1 : h;
        assert_int_equal(qn_f32_to_f16(middle), even);
        assert_int_equal(qn_f32_to_f16(nextafterf(middle, 0)), h);
        assert_int_equal(qn_f32_to_f16(nextafterf(middle, INFINITY)), h + 1);
    }
    assert_int_equal(qn_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(qn_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(qn_f32_to_f16(-1e30f), 0xfc00);
    assert_int_equal(qn_f32_to_f16(1e-30f), 0);
    assert_true(isnan(qn_f16_to_f32(qn_f32_to_f16(from_bits(0x7f800001)))));
}

static void brains(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = qn_bf16_to_f32((uint16_t)h);
        assert_int_equal(bits(f), h << 16);
        if (isnan(f)) {
            assert_true(isnan(qn_bf16_to_f32(qn_f32_to_bf16(f))));
            continue;
        }
        assert_int_equal(qn_f32_to_bf16(f), h);
        if ((h & 0x7fff) >= 0x7f80) continue;
        assert_int_equal(qn_f32_to_bf16(from_bits(h << 16 | 0x7fff)), h);
        assert_int_equal(qn_f32_to_bf16(from_bits(h << 16 | 0x8000)), h + (h & 1));
        assert_int_equal(qn_f32_to_bf16(from_bits(h << 16 | 0x8001)), h + 1);
    }
    assert_true(isnan(qn_bf16_to_f32(qn_f32_to_bf16(from_bits(0x7f800001)))));
}

// Bytes that llama.cpp's rounding gives for blocks worked out by hand.
static void known_blocks(void **state) {
    (void)state;
    float x[32] = {0};
    uint8_t q8[34], q4[18];
    x[0] = 127.0f;
    x[1] = 0.5f; // halves go away from zero
    x[2] = -0.5f;
    x[3] = -127.0f;
    x[4] = 63.49f;
    qn_quantize_row(QN_Q8_0, x, q8, 32);
    assert_int_equal(q8[0] | q8[1] << 8, 0x3c00); // scale 1
    static const int8_t levels[] = {127, 1, -1, -127, 63, 0};
    for (int i = 0; i < 6; i++) assert_int_equal((int8_t)q8[2 + i], levels[i]);

    memset(x, 0, sizeof x);
    x[0] = 8.0f; // the signed maximum gets level 0: scale -1
    x[1] = -7.0f;
    x[2] = 0.49f;
    x[16] = 1.0f;
    x[17] = -9.5e-1f;
    qn_quantize_row(QN_Q4_0, x, q4, 32);
    assert_int_equal(q4[0] | q4[1] << 8, 0xbc00);
    assert_int_equal(q4[2], 0 | 7 << 4);
    assert_int_equal(q4[3], 15 | 9 << 4);
    assert_int_equal(q4[4], 8 | 8 << 4);

    memset(x, 0, sizeof x);
    qn_quantize_row(QN_Q8_0, x, q8, 32);
    for (int i = 0; i < 34; i++) assert_int_equal(q8[i], 0);
}

// |x - dequantized| is at most half a level (and the rounding of the scale) for random blocks.
static void round_trips(void **state) {
    (void)state;
    qn_rng rng = {.key = 7};
    for (int b = 0; b < 2000; b++) {
        float x[32], back[32], largest = 0;
        uint8_t block[34];
        // Scales that are normal binary16 numbers.
        float scale = ldexpf(1.0f, (int)qn_rng_below(&rng, 20) - 5);
        for (int i = 0; i < 32; i++) {
            x[i] = (float)(2 * qn_rng_uniform(&rng) - 1) * scale;
            largest = fmaxf(largest, fabsf(x[i]));
        }
        qn_quantize_row(QN_Q8_0, x, block, 32);
        qn_dequantize_row(QN_Q8_0, block, back, 32);
        for (int i = 0; i < 32; i++) assert_true(fabsf(x[i] - back[i]) <= largest * 0.0046f);
        qn_quantize_row(QN_Q4_0, x, block, 32);
        qn_dequantize_row(QN_Q4_0, block, back, 32);
        for (int i = 0; i < 32; i++) assert_true(fabsf(x[i] - back[i]) <= largest * 0.1255f);
    }
}

static void not_finite_stays_visible(void **state) {
    (void)state;
    static const qn_dtype types[] = {QN_Q8_0, QN_Q4_0, QN_F16, QN_BF16, QN_F32};
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t t = 0; t < 5; t++) {
        for (size_t k = 0; k < 3; k++) {
            float x[32], back[32];
            uint8_t block[128];
            for (int i = 0; i < 32; i++) x[i] = 1.0f;
            x[5] = bad[k];
            qn_quantize_row(types[t], x, block, 32);
            qn_dequantize_row(types[t], block, back, 32);
            bool finite = isfinite(back[5]);
            assert_false(finite);
        }
    }
    // Denormal blocks do not divide by zero.
    float x[32], back[32];
    uint8_t block[34];
    for (int i = 0; i < 32; i++) x[i] = 1e-44f;
    for (size_t t = 0; t < 2; t++) {
        qn_quantize_row(types[t], x, block, 32);
        qn_dequantize_row(types[t], block, back, 32);
        for (int i = 0; i < 32; i++) assert_true(back[i] == 0.0f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_values), cmocka_unit_test(names),
        cmocka_unit_test(row_bytes),     cmocka_unit_test(halves),
        cmocka_unit_test(brains),        cmocka_unit_test(known_blocks),
        cmocka_unit_test(round_trips),   cmocka_unit_test(not_finite_stays_visible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
