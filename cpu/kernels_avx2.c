// SPDX-License-Identifier: Apache-2.0
// AVX2 with FMA and F16C.
#include "base/checked.h"
#include "cpu/kernels.h"
#include "cpu/lanes_avx2.h"

#include <math.h>
#include <string.h>

#include "cpu/kernels_math.h"

// VPMADDUBSW adds two products in 16 bits and saturates with w + 128 up to 255. So bytes 0 and 2 of
// each four, and bytes 1 and 3, are taken apart into 16 bits (a mask and a shift, for all tokens)
// and multiplied by VPMADDWD, which is exact; the quants are stored in that order.
enum { ACT_ELEM_BYTES = 2 };
#include "cpu/kernels_rows.h"
#include "cpu/kernels_linear.h"
#include "cpu/kernels_attention.h"

typedef struct half_panel { // 8 rows x 4 inputs
    __m256i even, odd;
} half_panel;

static inline __m256i add_dot(__m256i dot, half_panel w, const int16_t *x) {
    int32_t even, odd;
    memcpy(&even, x, 4);
    memcpy(&odd, x + 2, 4);
    dot = _mm256_add_epi32(dot, _mm256_madd_epi16(w.even, _mm256_set1_epi32(even)));
    return _mm256_add_epi32(dot, _mm256_madd_epi16(w.odd, _mm256_set1_epi32(odd)));
}

static inline __attribute__((always_inline)) __m256i load_words(const uint8_t *p, int i) {
    return _mm256_load_si256((const __m256i *)(const void *)(p + i * 64));
}

static inline __attribute__((always_inline)) __m256i two_bits(__m256i v, const int s) {
    const __m256i low = s == 0   ? v
                        : s == 1 ? _mm256_srli_epi16(v, 2)
                        : s == 2 ? _mm256_srli_epi16(v, 4)
                                 : _mm256_srli_epi16(v, 6);
    return _mm256_and_si256(low, _mm256_set1_epi8(3));
}

// Of 3 bits; two groups of 16 share their words, odd: 1 for the second.
static inline __attribute__((always_inline)) __m256i
unpack_three(const uint8_t *w, const int odd, int i, const int group) {
    const int fours = group / 16;
    const __m256i v = two_bits(load_words(w - odd * 32, i % fours), i / fours);
    __m256i third = load_words(w + 128 - odd * 96, 0);
    i += odd * 4;
    third = i == 0   ? _mm256_slli_epi16(third, 2)
            : i == 1 ? _mm256_slli_epi16(third, 1)
            : i == 2 ? third
            : i == 3 ? _mm256_srli_epi16(third, 1)
            : i == 4 ? _mm256_srli_epi16(third, 2)
            : i == 5 ? _mm256_srli_epi16(third, 3)
            : i == 6 ? _mm256_srli_epi16(third, 4)
                     : _mm256_srli_epi16(third, 5);
    return _mm256_or_si256(v, _mm256_and_si256(third, _mm256_set1_epi8(4)));
}

// Word i of group g: 8 rows x 4 inputs, unsigned. extra: the table of levels, or what is added.
static inline __attribute__((always_inline)) __m256i
unpack_word(const uint8_t *w, const int odd, int i, const int bits, const int group,
            const bool table, const bool min, __m256i extra) {
    if (bits == 8) return load_words(w, i);
    if (bits == 3) return _mm256_shuffle_epi8(extra, unpack_three(w, odd, i, group));
    const int pairs = group / 8, fours = group / 16;
    __m256i v = _mm256_setzero_si256();
    if (bits >= 4) {
        v = load_words(w, i % pairs);
        if (i >= pairs) v = _mm256_srli_epi16(v, 4);
        v = _mm256_and_si256(v, _mm256_set1_epi8(15));
        w += pairs * 64;
    }
    if (bits == 4) return table ? _mm256_shuffle_epi8(extra, v) : v;
    __m256i two = load_words(w, i % fours);
    const int s = i / fours; // the two bits' place in the byte
    if (bits == 2) {
        v = two_bits(two, s);
    } else {
        two = s == 0   ? _mm256_slli_epi16(two, 4)
              : s == 1 ? _mm256_slli_epi16(two, 2)
              : s == 2 ? two
                       : _mm256_srli_epi16(two, 2);
        v = _mm256_or_si256(v, _mm256_and_si256(two, _mm256_set1_epi8(48)));
    }
    return min ? v : _mm256_add_epi8(v, extra);
}

// The scales, or (second) mins, of group g of a record, for the 8 rows that the pointer is at.
static inline __attribute__((always_inline)) __m256 group_scale(const uint8_t *record,
                                                                const int_shape s, int32_t g, int h,
                                                                const scale_form form,
                                                                const bool second) {
    const uint16_t *d = (const uint16_t *)(const void *)record + (second ? PANEL_ROWS : 0) + 8 * h;
    if (form == SCALES_BF16) return widen_bf16(d);
    const __m256 f = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)d));
    if (form != SCALES_SUPER) return f;
    const uint8_t *at = record + (second ? s.mins : s.scales) + g * PANEL_ROWS + 8 * h;
    const __m128i bytes = _mm_loadl_epi64((const __m128i *)(const void *)at);
    const __m256i wide = second ? _mm256_cvtepu8_epi32(bytes) : _mm256_cvtepi8_epi32(bytes);
    return _mm256_mul_ps(f, _mm256_cvtepi32_ps(wide));
}

// Half h (8 rows) of a panel x T tokens. One half at a time leaves enough of the 16 registers; the
// second finds the panel in a near cache.
QN_TILE int_tile(const linear_args *a, const qn_form *form, int32_t panel, int32_t token, int h,
                 const int T, const int bits, const int group, const bool table, const bool min,
                 const scale_form scales) {
    const int_shape s = int_shape_of(bits, group, min, scales);
    const int32_t groups = a->k / group;
    const int fours = group / 16;
    const uint8_t *w = a->panels + (size_t)panel * a->panel_stride;
    const uint8_t *record = w + (size_t)groups * s.group_bytes;
    const uint8_t *row = a->q + (size_t)token * a->q_stride;
    const float *xs = act_floats(row, a->k, ACT_ELEM_BYTES, ACT_SCALES);
    const float *xsums = act_floats(row, a->k, ACT_ELEM_BYTES,
                                    group == 32 ? ACT_XSUMS : ACT_HALF_XSUMS);
    const int32_t *start = act_ints(row, a->k, ACT_ELEM_BYTES,
                                    group == 16             ? ACT_HALVES128
                                    : bits == 4 && !table ? ACT_SUMS8
                                                            : ACT_SUMS128);
    const int16_t *x = (const int16_t *)(const void *)row;
    const size_t next = a->q_stride / 4; // from token to token, in words
    __m256i extra = _mm256_set1_epi8((char)(128 - form->excess));
    if (table) {
        const __m128i levels = _mm_loadu_si128((const __m128i *)(const void *)form->levels);
        extra = _mm256_broadcastsi128_si256(_mm_xor_si128(levels, _mm_set1_epi8((char)0x80)));
    }
    __m256 acc[4];
    w += 32 * h;
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) acc[t] = _mm256_setzero_ps();
    // Two at a time where two share words.
    const int together = bits == 3 && group == 16 ? 2 : 1;
    for (int32_t g = 0, in = 0; g < groups;) {
#pragma GCC unroll 2
        for (int odd = 0; odd < together; odd++, g++, w += s.group_bytes, x += group) {
            __m256i dot[4];
#pragma GCC unroll 4
            for (int t = 0; t < T; t++) {
                dot[t] = min ? _mm256_setzero_si256()
                             : _mm256_set1_epi32(start[(size_t)t * next + (size_t)g]);
            }
            if (h == 0) {
#pragma GCC unroll 8
                for (size_t line = 0; line < s.group_bytes; line += 64) {
                    __builtin_prefetch(w + line + 2048, 0, 2);
                }
            }
#pragma GCC unroll 8
            for (int n = 0; n < group / 4; n++) {
                const int i = n % 4 * fours + n / 4;
                const __m256i v = unpack_word(w, odd, i, bits, group, table, min, extra);
                const half_panel both = {_mm256_and_si256(v, _mm256_set1_epi16(255)),
                                         _mm256_srli_epi16(v, 8)};
#pragma GCC unroll 4
                for (int t = 0; t < T; t++) {
                    dot[t] = add_dot(dot[t], both, x + (size_t)t * next * 2 + i * 4);
                }
            }
            const __m256 ws = group_scale(record, s, in, h, scales, false);
            const __m256 wm = min ? group_scale(record, s, in, h, scales, true) : ws;
            const size_t block = (size_t)(group == 32 ? g : g / 2);
#pragma GCC unroll 4
            for (int t = 0; t < T; t++) {
                const __m256 scale = _mm256_set1_ps(xs[(size_t)t * next + block]);
                acc[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[t]), _mm256_mul_ps(ws, scale),
                                         acc[t]);
                if (!min) continue;
                acc[t] = _mm256_fmadd_ps(wm, _mm256_set1_ps(xsums[(size_t)t * next + (size_t)g]),
                                         acc[t]);
            }
            if (++in == s.groups) {
                in = 0;
                record += s.record_bytes;
            }
        }
    }
    const size_t at = (size_t)panel * PANEL_ROWS + (size_t)(8 * h);
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
        if (scales == SCALES_SUPER) {
            acc[t] = _mm256_mul_ps(acc[t], _mm256_set1_ps(form->unit));
        }
        if (a->bias) acc[t] = _mm256_add_ps(acc[t], _mm256_loadu_ps(a->bias + at));
        _mm256_storeu_ps(a->y + (size_t)(token + t) * a->y_stride + at, acc[t]);
    }
}

#define INT_TILE(T) int_tile(a, form, p, t, h, T, bits, group, table, min, scales)

QN_TILE int_walk(const linear_args *a, const qn_form *form, const int bits, const int group,
                 const bool table, const bool min, const scale_form scales) {
    for (int32_t p = a->panel_begin; p < a->panel_end; p++) {
        for (int h = 0; h < 2; h++) {
            int32_t t = 0;
            for (; a->m - t >= 4; t += 4) INT_TILE(4);
            switch (a->m - t) {
            case 3: INT_TILE(3); break;
            case 2: INT_TILE(2); break;
            case 1: INT_TILE(1); break;
            default: break;
            }
        }
    }
}

#include "cpu/kernels_table.h"

const cpu_kernels qn_cpu_kernels_avx2 = CPU_KERNELS("avx2");
