// SPDX-License-Identifier: Apache-2.0
#include "quant/dtype.h"

#include "base/checked.h"

#include <string.h>
#include <strings.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "block layouts are little-endian");

static const qn_dtype_info infos[] = {
    {QN_F32, "f32", 1, 4, true},          {QN_F16, "f16", 1, 2, true},
    {QN_Q4_0, "q4_0", 32, 18, true},      {QN_Q4_1, "q4_1", 32, 20, true},
    {QN_Q5_0, "q5_0", 32, 22, true},      {QN_Q5_1, "q5_1", 32, 24, true},
    {QN_Q8_0, "q8_0", 32, 34, true},      {QN_Q2_K, "q2_K", 256, 84, false},
    {QN_Q3_K, "q3_K", 256, 110, false},   {QN_Q4_K, "q4_K", 256, 144, false},
    {QN_Q5_K, "q5_K", 256, 176, false},   {QN_Q6_K, "q6_K", 256, 210, false},
    {QN_IQ2_XXS, "iq2_xxs", 256, 66, false}, {QN_IQ2_XS, "iq2_xs", 256, 74, false},
    {QN_IQ3_XXS, "iq3_xxs", 256, 98, false}, {QN_IQ1_S, "iq1_s", 256, 50, false},
    {QN_IQ4_NL, "iq4_nl", 32, 18, false}, {QN_IQ3_S, "iq3_s", 256, 110, false},
    {QN_IQ2_S, "iq2_s", 256, 82, false},  {QN_IQ4_XS, "iq4_xs", 256, 136, false},
    {QN_IQ1_M, "iq1_m", 256, 56, false},  {QN_BF16, "bf16", 1, 2, true},
    {QN_TQ1_0, "tq1_0", 256, 54, true},   {QN_TQ2_0, "tq2_0", 256, 66, true},
    {QN_MXFP4, "mxfp4", 32, 17, true},
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

const qn_dtype_info *qn_dtype_at(size_t i) { return i < QN_COUNT(infos) ? &infos[i] : NULL; }

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
