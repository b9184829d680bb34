// SPDX-License-Identifier: Apache-2.0
// Rounding to the nearest level: the reference quantizers of the simple types.
#include "base/checked.h"
#include "quant/bytes.h"
#include "quant/dtype.h"

#include <math.h>

enum { BLOCK = 32, TERNARY = 256, NAN16 = 0x7e00 };

// 1/d, or 0 where the block is zero or too small for its reciprocal (such a d is 0 as binary16).
static float reciprocal(float d) {
    float inverse = d != 0.0f ? 1.0f / d : 0.0f;
    return isfinite(inverse) ? inverse : 0.0f;
}

typedef struct range {
    float min, max;
    float signed_max; // the value of the largest magnitude, the first of equals
    bool finite;
} range;

static range range_of(const float *x, int n) {
    range r = {x[0], x[0], x[0], true};
    for (int i = 0; i < n; i++) {
        r.finite = r.finite && isfinite(x[i]);
        r.min = fminf(r.min, x[i]);
        r.max = fmaxf(r.max, x[i]);
        if (fabsf(x[i]) > fabsf(r.signed_max)) r.signed_max = x[i];
    }
    return r;
}

// A block that is not finite keeps that property: scale NaN, visible downstream.
static void store_scale(uint8_t *p, const range *r, float d) {
    store16(p, r->finite ? qn_f32_to_f16(d) : (uint16_t)NAN16);
}

// x truncated and clipped to 0..top; top where the block is not finite.
static uint8_t level(float x, int top, const range *r) {
    const int q = r->finite ? (int)x : top;
    return (uint8_t)QN_MIN(QN_MAX(q, 0), top);
}

static void store_nibbles(const uint8_t q[BLOCK], uint8_t *dst) {
    for (int i = 0; i < BLOCK / 2; i++) {
        dst[i] = (uint8_t)((q[i] & 15) | (q[i + BLOCK / 2] & 15) << 4);
    }
}

static void store_fifth_bits(const uint8_t q[BLOCK], uint8_t *dst) {
    memset(dst, 0, BLOCK / 8);
    for (int i = 0; i < BLOCK; i++) dst[i / 8] |= (uint8_t)((q[i] >> 4 & 1) << i % 8);
}

static void q8_0(const float *x, uint8_t *block) {
    const range r = range_of(x, BLOCK);
    const float d = fabsf(r.signed_max) / 127.0f, inverse = reciprocal(d);
    store_scale(block, &r, d);
    for (int i = 0; i < BLOCK; i++) {
        block[2 + i] = r.finite ? (uint8_t)(int8_t)roundf(x[i] * inverse) : 1;
    }
}

// Levels -half .. half - 1; the signed maximum gets -half.
static void symmetric(const float *x, int half, uint8_t *scale, uint8_t q[BLOCK]) {
    const range r = range_of(x, BLOCK);
    const float d = r.signed_max / (float)-half, inverse = reciprocal(d);
    store_scale(scale, &r, d);
    for (int i = 0; i < BLOCK; i++) {
        q[i] = level(x[i] * inverse + ((float)half + 0.5f), 2 * half - 1, &r);
    }
}

static void from_min(const float *x, int top, uint8_t *scale, uint8_t q[BLOCK]) {
    const range r = range_of(x, BLOCK);
    const float d = (r.max - r.min) / (float)top, inverse = reciprocal(d);
    store_scale(scale, &r, d);
    store_scale(scale + 2, &r, r.min);
    for (int i = 0; i < BLOCK; i++) q[i] = level((x[i] - r.min) * inverse + 0.5f, top, &r);
}

static void mxfp4(const float *x, uint8_t *block) {
    static const int8_t values[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                      0, -1, -2, -3, -4, -6, -8, -12}; // doubled
    const range r = range_of(x, BLOCK);
    const float max = fabsf(r.signed_max);
    uint8_t q[BLOCK];
    if (!r.finite) {
        // 12 * 2^127: as infinite as the type can be.
        memset(q, 7, sizeof q);
        block[0] = 255;
        store_nibbles(q, block + 1);
        return;
    }
    const int e = max > 0 ? (int)floorf(log2f(max)) - 2 + 127 : 0;
    block[0] = (uint8_t)QN_MAX(e, 0);
    const float d = ldexpf(1.0f, (int)block[0] - 128);
    for (int i = 0; i < BLOCK; i++) {
        float best = INFINITY;
        for (uint8_t k = 0; k < 16; k++) {
            const float error = fabsf(d * (float)values[k] - x[i]);
            if (error < best) {
                best = error;
                q[i] = k;
            }
        }
        if (best == INFINITY) q[i] = 0;
    }
    store_nibbles(q, block + 1);
}

static void ternary(const float *x, uint8_t *scale, uint8_t q[TERNARY]) {
    const range r = range_of(x, TERNARY);
    const float d = fabsf(r.signed_max), inverse = reciprocal(d);
    store_scale(scale, &r, d);
    for (int i = 0; i < TERNARY; i++) {
        q[i] = r.finite ? (uint8_t)((int)roundf(x[i] * inverse) + 1) : 2;
    }
}

// Base-3 digits of n elements that lie `stride` apart, as a fraction of 256, rounded up.
static uint8_t trits(const uint8_t *q, int n, int stride) {
    unsigned v = 0;
    for (int i = 0; i < 5; i++) v = v * 3 + (i < n ? q[i * stride] : 0);
    return (uint8_t)((v * 256 + 242) / 243);
}

static void tq1_0(const float *x, uint8_t *block) {
    uint8_t q[TERNARY];
    ternary(x, block + 52, q);
    for (int i = 0; i < 32; i++) block[i] = trits(q + i, 5, 32);
    for (int i = 0; i < 16; i++) block[32 + i] = trits(q + 160 + i, 5, 16);
    for (int i = 0; i < 4; i++) block[48 + i] = trits(q + 240 + i, 4, 4);
}

static void tq2_0(const float *x, uint8_t *block) {
    uint8_t q[TERNARY];
    ternary(x, block + 64, q);
    for (int i = 0; i < 64; i++) {
        const uint8_t *p = q + i / 32 * 128 + i % 32;
        block[i] = (uint8_t)(p[0] | p[32] << 2 | p[64] << 4 | p[96] << 6);
    }
}

static void quantize_block(qn_dtype type, const float *x, uint8_t *p) {
    uint8_t q[BLOCK];
    switch (type) {
    case QN_Q8_0: q8_0(x, p); break;
    case QN_Q4_0:
        symmetric(x, 8, p, q);
        store_nibbles(q, p + 2);
        break;
    case QN_Q4_1:
        from_min(x, 15, p, q);
        store_nibbles(q, p + 4);
        break;
    case QN_Q5_0:
        symmetric(x, 16, p, q);
        store_fifth_bits(q, p + 2);
        store_nibbles(q, p + 6);
        break;
    case QN_Q5_1:
        from_min(x, 31, p, q);
        store_fifth_bits(q, p + 4);
        store_nibbles(q, p + 8);
        break;
    case QN_MXFP4: mxfp4(x, p); break;
    case QN_TQ1_0: tq1_0(x, p); break;
    case QN_TQ2_0: tq2_0(x, p); break;
    default: break;
    }
}

bool qn_quantize_row(qn_dtype type, const float *src, void *dst, size_t n) {
    const qn_dtype_info *info = qn_dtype_get((uint32_t)type);
    uint8_t *p = dst;
    if (!info || !info->quantizes) return false;
    if (type == QN_F32) {
        memcpy(dst, src, n * sizeof *src);
    } else if (type == QN_F16) {
        for (size_t i = 0; i < n; i++) store16(p + 2 * i, qn_f32_to_f16(src[i]));
    } else if (type == QN_BF16) {
        for (size_t i = 0; i < n; i++) store16(p + 2 * i, qn_f32_to_bf16(src[i]));
    } else {
        for (size_t i = 0; i < n; i += info->block_size, p += info->block_bytes) {
            quantize_block(type, src + i, p);
        }
    }
    return true;
}
