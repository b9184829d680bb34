// SPDX-License-Identifier: Apache-2.0
// Unpacking blocks. The layouts are GGUF's; in the comments "element" is the place in the block.
#include "quant/levels.h"

#include "base/checked.h"
#include "quant/bytes.h"
#include "quant/grids.h"

static const int8_t iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
static const int8_t e2m1_levels[16] = {0, 1,  2,  3,  4,  6,  8,  12, // doubled
                                       0, -1, -2, -3, -4, -6, -8, -12};
static const int8_t q3_levels[16] = {-4, -3, -2, -1, 0, 1, 2, 3};
// Codes of the IQ types: index of the magnitude, and above it the sign.
static const int8_t iq2_levels[16] = {8, 25, 43, 0, -8, -25, -43, 0};
static const int8_t iq3_xxs_levels[16] = {4,  12,  20,  28,  36,  44,  52,  62,
                                          -4, -12, -20, -28, -36, -44, -52, -62};
static const int8_t iq3_s_levels[16] = {1,  3,  5,  7,  9,  11,  13,  15,
                                        -1, -3, -5, -7, -9, -11, -13, -15};
// -1, 0, 1 plus (from 4 on: minus) an eighth, in eighths.
static const int8_t iq1_levels[16] = {-7, 1, 9, 0, -9, -1, 7, 0};

static const qn_form forms[] = {
    {QN_Q4_0, 4, 32, QN_SCALE_F16, false, 8, NULL, 1},
    {QN_Q4_1, 4, 32, QN_SCALE_F16, true, 0, NULL, 1},
    {QN_Q5_0, 6, 32, QN_SCALE_F16, false, 16, NULL, 1},
    {QN_Q5_1, 6, 32, QN_SCALE_F16, true, 0, NULL, 1},
    {QN_Q8_0, 8, 32, QN_SCALE_F16, false, 128, NULL, 1},
    {QN_Q2_K, 2, 16, QN_SCALE_SUPER, true, 0, NULL, 1},
    {QN_Q3_K, 3, 16, QN_SCALE_SUPER, false, 4, q3_levels, 1},
    {QN_Q4_K, 4, 32, QN_SCALE_SUPER, true, 0, NULL, 1},
    {QN_Q5_K, 6, 32, QN_SCALE_SUPER, true, 0, NULL, 1},
    {QN_Q6_K, 6, 16, QN_SCALE_SUPER, false, 32, NULL, 1},
    {QN_IQ2_XXS, 3, 32, QN_SCALE_SUPER, false, 0, iq2_levels, 0.125f},
    {QN_IQ2_XS, 3, 16, QN_SCALE_SUPER, false, 0, iq2_levels, 0.125f},
    {QN_IQ2_S, 3, 16, QN_SCALE_SUPER, false, 0, iq2_levels, 0.125f},
    {QN_IQ3_XXS, 4, 32, QN_SCALE_SUPER, false, 0, iq3_xxs_levels, 0.25f},
    {QN_IQ3_S, 4, 32, QN_SCALE_SUPER, false, 0, iq3_s_levels, 1},
    {QN_IQ1_S, 3, 32, QN_SCALE_SUPER, false, 0, iq1_levels, 0.125f},
    {QN_IQ1_M, 3, 16, QN_SCALE_SUPER, false, 0, iq1_levels, 0.125f},
    {QN_IQ4_NL, 4, 32, QN_SCALE_F16, false, 0, iq4_levels, 1},
    {QN_IQ4_XS, 4, 32, QN_SCALE_SUPER, false, 0, iq4_levels, 1},
    {QN_MXFP4, 4, 32, QN_SCALE_BF16, false, 0, e2m1_levels, 1},
    {QN_TQ1_0, 2, 256, QN_SCALE_F16, false, 1, NULL, 1},
    {QN_TQ2_0, 2, 256, QN_SCALE_F16, false, 1, NULL, 1},
};

const qn_form *qn_form_get(qn_dtype type) {
    for (size_t i = 0; i < QN_COUNT(forms); i++) {
        if (forms[i].type == type) return &forms[i];
    }
    return NULL;
}

// ---- eight elements at once, one in each byte of a word ----

// 2-bit elements of a grid's entry.
static inline uint64_t spread2(uint16_t v) {
    uint64_t x = v;
    x = (x | x << 24) & UINT64_C(0x000000ff000000ff);
    x = (x | x << 12) & UINT64_C(0x000f000f000f000f);
    return (x | x << 6) & UINT64_C(0x0303030303030303);
}

// 4-bit elements of two entries, of 4 elements each.
static inline uint64_t spread4(uint16_t low, uint16_t high) {
    uint64_t x = (uint64_t)high << 32 | low;
    x = (x | x << 8) & UINT64_C(0x00ff00ff00ff00ff);
    return (x | x << 4) & UINT64_C(0x0f0f0f0f0f0f0f0f);
}

// Bit i of the byte becomes bit `to` of element i.
static inline uint64_t spread_bits(uint8_t bits, int to) {
    uint64_t x = bits * UINT64_C(0x0101010101010101) & UINT64_C(0x8040201008040201);
    x = (x + UINT64_C(0x7f7f7f7f7f7f7f7f)) & UINT64_C(0x8080808080808080);
    return x >> (7 - to);
}

// The eighth sign makes the number of minus signs even.
static inline uint8_t even_signs(uint32_t seven) {
    return (uint8_t)(seven | (uint32_t)__builtin_parity(seven) << 7);
}

// ---- blocks of 32 ----

static void nibbles(const uint8_t *src, uint8_t *code) {
    for (int i = 0; i < 16; i++) {
        code[i] = src[i] & 15;
        code[i + 16] = src[i] >> 4;
    }
}

static void fifth_bits(uint32_t bits, uint8_t *code) {
    for (int i = 0; i < 4; i++) {
        uint64_t eight;
        memcpy(&eight, code + 8 * i, sizeof eight);
        store64(code + 8 * i, eight | spread_bits((uint8_t)(bits >> 8 * i), 4));
    }
}

static void mxfp4(const uint8_t *p, qn_codes *c) {
    // Half of 2^(e - 127), for the levels are doubled; the two smallest are subnormal.
    c->d = (uint16_t)(p[0] < 2 ? 0x20 << p[0] : (p[0] - 1) << 7);
    nibbles(p + 1, c->code);
}

// ---- K-quants ----

// Elements h * 128 + 32 l + i are bits 2l of byte 32 h + i.
static void crumbs(const uint8_t *src, uint8_t *code) {
    for (int h = 0; h < 2; h++) {
        for (int l = 0; l < 4; l++) {
            for (int i = 0; i < 32; i++) code[h * 128 + l * 32 + i] = src[h * 32 + i] >> 2 * l & 3;
        }
    }
}

static void q2_k(const uint8_t *p, qn_codes *c) {
    for (int g = 0; g < 16; g++) {
        c->scale[g] = p[g] & 15;
        c->min[g] = p[g] >> 4;
    }
    crumbs(p + 16, c->code);
    c->d = load16(p + 80);
    c->m = load16(p + 82);
}

static void q3_k(const uint8_t *p, qn_codes *c) {
    const uint8_t *s = p + 96;
    crumbs(p + 32, c->code);
    for (int g = 0; g < 8; g++) { // element 32 g + i has its third bit in bit g of byte i
        for (int i = 0; i < 32; i++) c->code[g * 32 + i] |= (uint8_t)((p[i] >> g & 1) << 2);
    }
    for (int g = 0; g < 16; g++) {
        const int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4, high = s[8 + g % 4] >> g / 4 * 2 & 3;
        c->scale[g] = (int8_t)((low | high << 4) - 32);
    }
    c->d = load16(p + 108);
}

// 8 scales and 8 mins of 6 bits in 12 bytes: 0..3 in the low bits of bytes 0..3 and 4..7; of 4..7
// the low four bits in bytes 8..11, the high two above the first ones.
static void k_scales(const uint8_t *s, qn_codes *c) {
    for (int g = 0; g < 4; g++) {
        c->scale[g] = (int8_t)(s[g] & 63);
        c->min[g] = s[g + 4] & 63;
        c->scale[g + 4] = (int8_t)((s[g + 8] & 15) | (s[g] >> 6) << 4);
        c->min[g + 4] = (uint8_t)(s[g + 8] >> 4 | (s[g + 4] >> 6) << 4);
    }
}

// Elements 64 h + i: low nibbles of bytes 32 h + i; 64 h + 32 + i: the high ones.
static void k_nibbles(const uint8_t *src, uint8_t *code) {
    for (int h = 0; h < 4; h++) {
        for (int i = 0; i < 32; i++) {
            code[h * 64 + i] = src[h * 32 + i] & 15;
            code[h * 64 + 32 + i] = src[h * 32 + i] >> 4;
        }
    }
}

static void q4_k(const uint8_t *p, qn_codes *c) {
    c->d = load16(p);
    c->m = load16(p + 2);
    k_scales(p + 4, c);
    k_nibbles(p + 16, c->code);
}

static void q5_k(const uint8_t *p, qn_codes *c) {
    c->d = load16(p);
    c->m = load16(p + 2);
    k_scales(p + 4, c);
    k_nibbles(p + 48, c->code);
    for (int g = 0; g < 8; g++) {
        for (int i = 0; i < 32; i++) c->code[g * 32 + i] |= (uint8_t)((p[16 + i] >> g & 1) << 4);
    }
}

static void q6_k(const uint8_t *p, qn_codes *c) {
    for (int h = 0; h < 2; h++) {
        const uint8_t *low = p + 64 * h, *high = p + 128 + 32 * h;
        uint8_t *code = c->code + 128 * h;
        for (int i = 0; i < 64; i++) {
            code[i] = low[i] & 15;
            code[64 + i] = low[i] >> 4;
        }
        for (int l = 0; l < 4; l++) {
            for (int i = 0; i < 32; i++) {
                code[32 * l + i] |= (uint8_t)((high[i] >> 2 * l & 3) << 4);
            }
        }
    }
    memcpy(c->scale, p + 192, 16);
    c->d = load16(p + 208);
}

// ---- IQ types ----

static void iq4_xs(const uint8_t *p, qn_codes *c) {
    const unsigned high = load16(p + 2);
    c->d = load16(p);
    for (int g = 0; g < 8; g++) {
        const unsigned low = p[4 + g / 2] >> g % 2 * 4 & 15;
        c->scale[g] = (int8_t)((int)(low | (high >> 2 * g & 3) << 4) - 32);
        nibbles(p + 8 + g * 16, c->code + g * 32);
    }
}

static void iq2_xxs(const uint8_t *p, qn_codes *c) {
    c->d = load16(p);
    for (int g = 0; g < 8; g++) {
        const uint8_t *index = p + 2 + g * 8;
        const uint32_t signs = load32(index + 4);
        c->scale[g] = (int8_t)(2 * (signs >> 28) + 1);
        for (int i = 0; i < 4; i++) {
            const uint64_t sign = spread_bits(even_signs(signs >> 7 * i & 127), 2);
            store64(c->code + g * 32 + i * 8, spread2(qn_grid_iq2_xxs[index[i]]) | sign);
        }
    }
}

// Two scales in a byte, each 2 s + 1.
static void odd_scales(const uint8_t *src, int n, int8_t *scale) {
    for (int g = 0; g < n; g++) scale[g] = (int8_t)(2 * (src[g / 2] >> g % 2 * 4 & 15) + 1);
}

static void iq2_xs(const uint8_t *p, qn_codes *c) {
    c->d = load16(p);
    odd_scales(p + 66, 16, c->scale);
    for (int i = 0; i < 32; i++) {
        const uint16_t v = load16(p + 2 + 2 * i);
        store64(c->code + i * 8,
                spread2(qn_grid_iq2_xs[v & 511]) | spread_bits(even_signs(v >> 9), 2));
    }
}

static void iq2_s(const uint8_t *p, qn_codes *c) {
    c->d = load16(p);
    odd_scales(p + 74, 16, c->scale);
    for (int i = 0; i < 32; i++) {
        const int index = p[2 + i] | (p[66 + i / 4] >> i % 4 * 2 & 3) << 8;
        store64(c->code + i * 8, spread2(qn_grid_iq2_s[index]) | spread_bits(p[34 + i], 2));
    }
}

static void iq3_xxs(const uint8_t *p, qn_codes *c) {
    c->d = load16(p);
    for (int g = 0; g < 8; g++) {
        const uint8_t *index = p + 2 + g * 8;
        const uint32_t signs = load32(p + 66 + g * 4);
        c->scale[g] = (int8_t)(2 * (signs >> 28) + 1);
        for (int i = 0; i < 4; i++) {
            const uint64_t sign = spread_bits(even_signs(signs >> 7 * i & 127), 3);
            store64(c->code + g * 32 + i * 8, spread4(qn_grid_iq3_xxs[index[2 * i]],
                                                      qn_grid_iq3_xxs[index[2 * i + 1]]) | sign);
        }
    }
}

static void iq3_s(const uint8_t *p, qn_codes *c) {
    c->d = load16(p);
    odd_scales(p + 106, 8, c->scale);
    for (int i = 0; i < 32; i++) {
        const int high = p[66 + i / 4] >> i % 4 * 2; // the ninth bits of two entries
        const int a = p[2 + 2 * i] | (high & 1) << 8, b = p[3 + 2 * i] | (high & 2) << 7;
        store64(c->code + i * 8,
                spread4(qn_grid_iq3_s[a], qn_grid_iq3_s[b]) | spread_bits(p[74 + i], 3));
    }
}

// Eight elements whose eighth is added, or (minus) taken away.
static void iq1_eight(int index, bool minus, uint8_t *code) {
    store64(code, spread2(qn_grid_iq1[index]) | (minus ? UINT64_C(0x0404040404040404) : 0));
}

static void iq1_s(const uint8_t *p, qn_codes *c) {
    c->d = load16(p);
    for (int g = 0; g < 8; g++) {
        const unsigned h = load16(p + 34 + g * 2);
        c->scale[g] = (int8_t)(2 * (h >> 12 & 7) + 1);
        for (int i = 0; i < 4; i++) {
            const int index = p[2 + g * 4 + i] | (int)(h >> 3 * i & 7) << 8;
            iq1_eight(index, h >> 15, c->code + g * 32 + i * 8);
        }
    }
}

static void iq1_m(const uint8_t *p, qn_codes *c) {
    unsigned d = 0; // in four pieces, above the scales
    for (int g = 0; g < 4; g++) {
        const unsigned s = load16(p + 48 + 2 * g);
        d |= (s >> 12) << 4 * g;
        for (int i = 0; i < 4; i++) c->scale[g * 4 + i] = (int8_t)(2 * (s >> 3 * i & 7) + 1);
    }
    c->d = (uint16_t)d;
    for (int i = 0; i < 32; i++) {
        const int h = p[32 + i / 2] >> i % 2 * 4;
        iq1_eight(p[i] | (h & 7) << 8, h & 8, c->code + i * 8);
    }
}

// ---- ternary ----

// n bytes of `trits` base-3 digits as a fraction of 256, the first digit on top; digit l of byte i
// is element l * n + i.
static void trits(const uint8_t *src, int n, int digits, uint8_t *code) {
    for (int l = 0, power = 1; l < digits; l++, power *= 3) {
        for (int i = 0; i < n; i++) {
            code[l * n + i] = (uint8_t)((uint8_t)(src[i] * power) * 3 >> 8);
        }
    }
}

static void tq1_0(const uint8_t *p, qn_codes *c) {
    trits(p, 32, 5, c->code);
    trits(p + 32, 16, 5, c->code + 160);
    trits(p + 48, 4, 4, c->code + 240);
    c->d = load16(p + 52);
}

void qn_unpack_block(qn_dtype type, const uint8_t *p, qn_codes *c) {
    switch (type) {
    case QN_F32:
    case QN_F16:
    case QN_BF16: break; // no blocks
    case QN_Q4_0:
    case QN_IQ4_NL:
        c->d = load16(p);
        nibbles(p + 2, c->code);
        break;
    case QN_Q4_1:
        c->d = load16(p);
        c->m = load16(p + 2);
        nibbles(p + 4, c->code);
        break;
    case QN_Q5_0:
        c->d = load16(p);
        nibbles(p + 6, c->code);
        fifth_bits(load32(p + 2), c->code);
        break;
    case QN_Q5_1:
        c->d = load16(p);
        c->m = load16(p + 2);
        nibbles(p + 8, c->code);
        fifth_bits(load32(p + 4), c->code);
        break;
    case QN_Q8_0:
        c->d = load16(p);
        for (int i = 0; i < 32; i++) c->code[i] = p[2 + i] ^ 0x80;
        break;
    case QN_MXFP4: mxfp4(p, c); break;
    case QN_Q2_K: q2_k(p, c); break;
    case QN_Q3_K: q3_k(p, c); break;
    case QN_Q4_K: q4_k(p, c); break;
    case QN_Q5_K: q5_k(p, c); break;
    case QN_Q6_K: q6_k(p, c); break;
    case QN_IQ4_XS: iq4_xs(p, c); break;
    case QN_IQ2_XXS: iq2_xxs(p, c); break;
    case QN_IQ2_XS: iq2_xs(p, c); break;
    case QN_IQ2_S: iq2_s(p, c); break;
    case QN_IQ3_XXS: iq3_xxs(p, c); break;
    case QN_IQ3_S: iq3_s(p, c); break;
    case QN_IQ1_S: iq1_s(p, c); break;
    case QN_IQ1_M: iq1_m(p, c); break;
    case QN_TQ1_0: tq1_0(p, c); break;
    case QN_TQ2_0:
        crumbs(p, c->code);
        c->d = load16(p + 64);
        break;
    }
}
