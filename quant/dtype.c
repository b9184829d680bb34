// SPDX-License-Identifier: Apache-2.0
#include "quant/dtype.h"

#include "base/checked.h"

#include <math.h>
#include <string.h>
#include <strings.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "block layouts are little-endian");

enum { BLOCK = 32, Q8_0_BYTES = 34, Q4_0_BYTES = 18 };

static const qn_dtype_info infos[] = {
    {QN_F32, "f32", 1, 4},
    {QN_F16, "f16", 1, 2},
    {QN_BF16, "bf16", 1, 2},
    {QN_Q8_0, "q8_0", BLOCK, Q8_0_BYTES},
    {QN_Q4_0, "q4_0", BLOCK, Q4_0_BYTES},
};

const qn_dtype_info *qn_dtype_get(uint32_t type) {
    for (size_t i = 0; i < QN_COUNT(infos); i++) {
        if ((uint32_t)infos[i].type == type) return &infos[i];
    }
    return NULL;
}

const qn_dtype_info *qn_dtype_by_name(const char *name) {
    for (size_t i = 0; name && i < QN_COUNT(infos); i++) {
        if (strcasecmp(infos[i].name, name) == 0) return &infos[i];
    }
    return NULL;
}

const char *qn_dtype_gguf_name(uint32_t type) {
    // 4, 5, 31-33 and 36-38 were withdrawn from the format; files with them still exist.
    static const char *const names[] = {
        [0] = "f32",       [1] = "f16",       [2] = "q4_0",       [3] = "q4_1",
        [4] = "q4_2",      [5] = "q4_3",      [6] = "q5_0",       [7] = "q5_1",
        [8] = "q8_0",      [9] = "q8_1",      [10] = "q2_K",      [11] = "q3_K",
        [12] = "q4_K",     [13] = "q5_K",     [14] = "q6_K",      [15] = "q8_K",
        [16] = "iq2_xxs",  [17] = "iq2_xs",   [18] = "iq3_xxs",   [19] = "iq1_s",
        [20] = "iq4_nl",   [21] = "iq3_s",    [22] = "iq2_s",     [23] = "iq4_xs",
        [24] = "i8",       [25] = "i16",      [26] = "i32",       [27] = "i64",
        [28] = "f64",      [29] = "iq1_m",    [30] = "bf16",      [31] = "q4_0_4_4",
        [32] = "q4_0_4_8", [33] = "q4_0_8_8", [34] = "tq1_0",     [35] = "tq2_0",
        [36] = "iq4_nl_4_4", [37] = "iq4_nl_4_8", [38] = "iq4_nl_8_8", [39] = "mxfp4",
        [40] = "nvfp4",    [41] = "q1_0",
    };
    return type < QN_COUNT(names) ? names[type] : NULL;
}

bool qn_dtype_row_bytes(const qn_dtype_info *info, uint64_t n, uint64_t *bytes) {
    if (n % info->block_size != 0) return false;
    return qn_mul_u64(n / info->block_size, info->block_bytes, bytes);
}

static uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

float qn_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t exponent = (h >> 10) & 31u, mantissa = h & 0x3ffu;
    if (exponent == 31) return float_of(sign | 0x7f800000u | mantissa << 13);
    if (exponent == 0) {
        // Zero and subnormals: mantissa * 2^-24, exact in binary32.
        float f = (float)mantissa * 0x1p-24f;
        return float_of(sign | bits_of(f));
    }
    return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t qn_f32_to_f16(float f) {
    uint32_t u = bits_of(f);
    uint32_t sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) {
        // The top bits of the payload stay; the quiet bit keeps it a NaN when they are all zero.
        return (uint16_t)(sign | 0x7c00u | 0x200u | ((magnitude >> 13) & 0x3ffu));
    }
    if (magnitude >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); // rounds to 2^16 or more
    if (magnitude < 0x38800000u) {
        // Subnormal result: adding 0.5 makes the FPU round at bit 2^-24, to nearest even.
        float shifted = float_of(magnitude) + 0.5f;
        return (uint16_t)(sign | (bits_of(shifted) - 0x3f000000u));
    }
    uint32_t odd = (magnitude >> 13) & 1u;
    return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

uint16_t qn_f32_to_bf16(float f) {
    uint32_t u = bits_of(f);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

static uint16_t load16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static void store16(uint8_t *p, uint16_t v) { memcpy(p, &v, sizeof v); }

void qn_dequantize_row(qn_dtype type, const void *src, float *dst, size_t n) {
    const uint8_t *p = src;
    switch (type) {
    case QN_F32: memcpy(dst, src, n * sizeof *dst); break;
    case QN_F16:
        for (size_t i = 0; i < n; i++) dst[i] = qn_f16_to_f32(load16(p + 2 * i));
        break;
    case QN_BF16:
        for (size_t i = 0; i < n; i++) dst[i] = qn_bf16_to_f32(load16(p + 2 * i));
        break;
    case QN_Q8_0:
        for (size_t b = 0; b < n / BLOCK; b++, p += Q8_0_BYTES, dst += BLOCK) {
            float d = qn_f16_to_f32(load16(p));
            for (int i = 0; i < BLOCK; i++) dst[i] = d * (float)(int8_t)p[2 + i];
        }
        break;
    case QN_Q4_0:
        // Low nibbles are elements 0..15, high nibbles 16..31.
        for (size_t b = 0; b < n / BLOCK; b++, p += Q4_0_BYTES, dst += BLOCK) {
            float d = qn_f16_to_f32(load16(p));
            for (int i = 0; i < BLOCK / 2; i++) {
                dst[i] = d * (float)((p[2 + i] & 15) - 8);
                dst[i + BLOCK / 2] = d * (float)((p[2 + i] >> 4) - 8);
            }
        }
        break;
    }
}

// 1/d, or 0 where the block is zero or too small for its reciprocal (such a d is 0 as binary16).
static float reciprocal(float d) {
    float inverse = d != 0.0f ? 1.0f / d : 0.0f;
    return isfinite(inverse) ? inverse : 0.0f;
}

static void quantize_q8_0(const float *x, uint8_t *block) {
    float max = 0.0f;
    bool finite = true;
    for (int i = 0; i < BLOCK; i++) {
        finite = finite && isfinite(x[i]);
        max = fmaxf(max, fabsf(x[i]));
    }
    float d = max / 127.0f, inverse = reciprocal(d);
    // A block that is not finite keeps that property: scale NaN, visible downstream.
    store16(block, finite ? qn_f32_to_f16(d) : 0x7e00u);
    for (int i = 0; i < BLOCK; i++) {
        block[2 + i] = finite ? (uint8_t)(int8_t)roundf(x[i] * inverse) : 1;
    }
}

static int q4_level(float x, float inverse) {
    int q = (int)(x * inverse + 8.5f); // truncation makes it a round
    return QN_MIN(QN_MAX(q, 0), 15);
}

static void quantize_q4_0(const float *x, uint8_t *block) {
    float max = 0.0f;
    bool finite = true;
    for (int i = 0; i < BLOCK; i++) {
        finite = finite && isfinite(x[i]);
        if (fabsf(x[i]) > fabsf(max)) max = x[i];
    }
    float d = max / -8.0f, inverse = reciprocal(d);
    store16(block, finite ? qn_f32_to_f16(d) : 0x7e00u);
    for (int i = 0; i < BLOCK / 2; i++) {
        int low = finite ? q4_level(x[i], inverse) : 9;
        int high = finite ? q4_level(x[i + BLOCK / 2], inverse) : 9;
        block[2 + i] = (uint8_t)(low | high << 4);
    }
}

void qn_quantize_row(qn_dtype type, const float *src, void *dst, size_t n) {
    uint8_t *p = dst;
    switch (type) {
    case QN_F32: memcpy(dst, src, n * sizeof *src); break;
    case QN_F16:
        for (size_t i = 0; i < n; i++) store16(p + 2 * i, qn_f32_to_f16(src[i]));
        break;
    case QN_BF16:
        for (size_t i = 0; i < n; i++) store16(p + 2 * i, qn_f32_to_bf16(src[i]));
        break;
    case QN_Q8_0:
        for (size_t b = 0; b < n / BLOCK; b++) quantize_q8_0(src + b * BLOCK, p + b * Q8_0_BYTES);
        break;
    case QN_Q4_0:
        for (size_t b = 0; b < n / BLOCK; b++) quantize_q4_0(src + b * BLOCK, p + b * Q4_0_BYTES);
        break;
    }
}
