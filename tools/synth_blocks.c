// SPDX-License-Identifier: Apache-2.0
#include "tools/synth_blocks.h"

#include "base/checked.h"
#include "base/hash.h"

#include <math.h>
#include <string.h>

static uint64_t word(uint64_t key, uint64_t i) {
    return qn_hash_u64(key + i * UINT64_C(0x9e3779b97f4a7c15));
}

static void put16(uint8_t *p, uint16_t v) { memcpy(p, &v, sizeof v); }

static uint16_t times(uint16_t d, float x) { return qn_f32_to_f16(qn_f16_to_f32(d) * x); }

// d, and where the type has mins, one that makes the block's codes symmetric.
static void set_scale(qn_dtype type, uint8_t *p, uint16_t d) {
    switch (type) {
    case QN_Q2_K:
        put16(p + 80, d);
        put16(p + 82, times(d, 1.5f));
        break;
    case QN_Q3_K: put16(p + 108, d); break;
    case QN_Q6_K: put16(p + 208, d); break;
    case QN_TQ1_0: put16(p + 52, d); break;
    case QN_TQ2_0: put16(p + 64, d); break;
    case QN_Q4_1:
        put16(p, d);
        put16(p + 2, times(d, -7.5f));
        break;
    case QN_Q5_1:
        put16(p, d);
        put16(p + 2, times(d, -15.5f));
        break;
    case QN_Q4_K:
        put16(p, d);
        put16(p + 2, times(d, 7.5f));
        break;
    case QN_Q5_K:
        put16(p, d);
        put16(p + 2, times(d, 15.5f));
        break;
    case QN_IQ1_M: // in the upper four bits of four words
        for (int i = 0; i < 4; i++) {
            p[49 + 2 * i] = (uint8_t)((p[49 + 2 * i] & 15) | (d >> 4 * i & 15) << 4);
        }
        break;
    case QN_MXFP4: p[0] = (uint8_t)d; break;
    default: put16(p, d); break;
    }
}

// 8 scales of 32 .. 63 and the same as mins, as K-quants pack them.
static void k_scales(uint8_t *s) {
    for (int i = 0; i < 4; i++) {
        const uint8_t a = 32 | (s[i] & 31), b = 32 | (s[i + 4] & 31);
        s[i] = s[i + 4] = (uint8_t)(a | (b >> 4) << 6);
        s[i + 8] = (uint8_t)((b & 15) | (b & 15) << 4);
    }
}

// Bytes that hold no code of the type are replaced.
static void make_valid(qn_dtype type, uint8_t *p) {
    switch (type) {
    case QN_Q2_K:
        for (int i = 0; i < 16; i++) p[i] = (uint8_t)((8 | (p[i] & 7)) * 17);
        break;
    case QN_Q4_K:
    case QN_Q5_K: k_scales(p + 4); break;
    case QN_Q8_0:
        for (int i = 2; i < 34; i++) p[i] = p[i] == 0x80 ? 0x81 : p[i];
        break;
    case QN_TQ1_0:
        for (int i = 0; i < 48; i++) p[i] = (uint8_t)((p[i] % 243u * 256 + 242) / 243);
        for (int i = 48; i < 52; i++) p[i] = (uint8_t)((p[i] % 81u * 3 * 256 + 242) / 243);
        break;
    case QN_TQ2_0:
        for (int i = 0; i < 64; i++) { // 3 becomes 1
            const unsigned both = p[i] & p[i] >> 1 & 0x55u;
            p[i] = (uint8_t)(p[i] & ~(both << 1));
        }
        break;
    default: break;
    }
}

static void make(const qn_dtype_info *info, uint64_t key, uint64_t number, uint16_t scale,
                 uint8_t *dst) {
    const uint64_t first = number * QN_CEIL_DIV(info->block_bytes, 8);
    for (uint32_t i = 0; i < info->block_bytes; i += 8) {
        const uint64_t w = word(key, first + i / 8);
        memcpy(dst + i, &w, QN_MIN(info->block_bytes - i, (uint32_t)sizeof w));
    }
    make_valid(info->type, dst);
    set_scale(info->type, dst, scale);
}

// The deviation of the values where d is 1 (MXFP4: where the exponent is 127).
static double unit_deviation(const qn_dtype_info *info, uint64_t key) {
    enum { BLOCKS = 64 };
    double squares = 0;
    for (uint64_t b = 0; b < BLOCKS; b++) {
        uint8_t block[QN_BLOCK_MAX_BYTES];
        float x[QN_BLOCK_MAX];
        make(info, key, b, info->type == QN_MXFP4 ? 127 : 0x3c00, block);
        qn_dequantize_row(info->type, block, x, info->block_size);
        for (uint32_t i = 0; i < info->block_size; i++) squares += (double)x[i] * (double)x[i];
    }
    return sqrt(squares / (BLOCKS * info->block_size));
}

void qn_synth_blocks_init(qn_synth_blocks *b, qn_dtype type, uint64_t key, double deviation) {
    b->info = qn_dtype_get((uint32_t)type);
    b->key = key;
    const double d = deviation / unit_deviation(b->info, key);
    int exponent;
    const double fraction = 2 * frexp(d, &exponent); // d = fraction * 2^(exponent - 1)
    // So many sixteenths have the next power of two that the mean square is right.
    const int upper = (int)round(16 * (fraction * fraction - 1) / 3);
    for (int i = 0; i < 16; i++) {
        // From 0.76 to 1.24 of the mean: blocks of real weights differ about so much.
        const double spread = 1.0 + 0.032 * (i - 7.5);
        b->scales[i] = type == QN_MXFP4 ? (uint16_t)(126 + exponent + (i < upper))
                                        : qn_f32_to_f16((float)(d * spread));
    }
}

void qn_synth_blocks_make(const qn_synth_blocks *b, uint64_t first, size_t n, uint8_t *dst) {
    for (size_t i = 0; i < n; i++, dst += b->info->block_bytes) {
        make(b->info, b->key, first + i, b->scales[word(~b->key, first + i) % 16], dst);
    }
}
