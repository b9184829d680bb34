// SPDX-License-Identifier: Apache-2.0
// AVX-512 with VNNI: one register is the 16 rows of a panel, times 4 inputs in the integer kernels.
#include "base/checked.h"
#include "cpu/kernels.h"
#include "cpu/lanes_avx512.h"

#include <math.h>
#include <string.h>

#include "cpu/kernels_math.h"

enum { ACT_ELEM_BYTES = 1 };
#include "cpu/kernels_rows.h"
#include "cpu/kernels_linear.h"
#include "cpu/kernels_attention.h"

static inline __attribute__((always_inline)) __m512i load_words(const uint8_t *p, int i) {
    return _mm512_loadu_si512(p + i * 64);
}

static inline __attribute__((always_inline)) __m512i two_bits(__m512i v, const int s) {
    const __m512i low = s == 0   ? v
                        : s == 1 ? _mm512_srli_epi16(v, 2)
                        : s == 2 ? _mm512_srli_epi16(v, 4)
                                 : _mm512_srli_epi16(v, 6);
    return _mm512_and_si512(low, _mm512_set1_epi8(3));
}

// Of 3 bits; two groups of 16 share their words, odd: 1 for the second.
static inline __attribute__((always_inline)) __m512i
unpack_three(const uint8_t *w, const int odd, int i, const int group) {
    const int fours = group / 16;
    const __m512i v = two_bits(load_words(w - odd * 32, i % fours), i / fours);
    __m512i third = load_words(w + 128 - odd * 96, 0);
    i += odd * 4;
    third = i == 0   ? _mm512_slli_epi16(third, 2)
            : i == 1 ? _mm512_slli_epi16(third, 1)
            : i == 2 ? third
            : i == 3 ? _mm512_srli_epi16(third, 1)
            : i == 4 ? _mm512_srli_epi16(third, 2)
            : i == 5 ? _mm512_srli_epi16(third, 3)
            : i == 6 ? _mm512_srli_epi16(third, 4)
                     : _mm512_srli_epi16(third, 5);
    return _mm512_or_si512(v, _mm512_and_si512(third, _mm512_set1_epi8(4)));
}

// Word i of group g: 16 rows x 4 inputs, unsigned. extra: the table of levels, or what is added.
static inline __attribute__((always_inline)) __m512i
unpack_word(const uint8_t *w, const int odd, int i, const int bits, const int group,
            const bool table, const bool min, __m512i extra) {
    if (bits == 8) return load_words(w, i);
    if (bits == 3) return _mm512_shuffle_epi8(extra, unpack_three(w, odd, i, group));
    const int pairs = group / 8, fours = group / 16;
    __m512i v = _mm512_setzero_si512();
    if (bits >= 4) {
        v = load_words(w, i % pairs);
        if (i >= pairs) v = _mm512_srli_epi16(v, 4);
        v = _mm512_and_si512(v, _mm512_set1_epi8(15));
        w += pairs * 64;
    }
    if (bits == 4) return table ? _mm512_shuffle_epi8(extra, v) : v;
    __m512i two = load_words(w, i % fours);
    const int s = i / fours; // the two bits' place in the byte
    if (bits == 2) {
        v = two_bits(two, s);
    } else {
        two = s == 0   ? _mm512_slli_epi16(two, 4)
              : s == 1 ? _mm512_slli_epi16(two, 2)
              : s == 2 ? two
                       : _mm512_srli_epi16(two, 2);
        v = _mm512_or_si512(v, _mm512_and_si512(two, _mm512_set1_epi8(48)));
    }
    return min ? v : _mm512_add_epi8(v, extra);
}

static inline __attribute__((always_inline)) __m128i load_bytes(const uint8_t *p) {
    return _mm_loadu_si128((const __m128i *)(const void *)p);
}

// The scales, or (second) mins, of group g of a record.
static inline __attribute__((always_inline)) v16 group_scale(const uint8_t *record,
                                                             const int_shape s, int32_t g,
                                                             const scale_form form,
                                                             const bool second) {
    const uint16_t *d = (const uint16_t *)(const void *)record + (second ? PANEL_ROWS : 0);
    if (form == SCALES_BF16) return v16_load_bf16(d);
    const v16 f = v16_load_f16(d);
    if (form != SCALES_SUPER) return f;
    const __m128i bytes = load_bytes(record + (second ? s.mins : s.scales) + g * PANEL_ROWS);
    const __m512i wide = second ? _mm512_cvtepu8_epi32(bytes) : _mm512_cvtepi8_epi32(bytes);
    return _mm512_mul_ps(f, _mm512_cvtepi32_ps(wide));
}

// P panels x T tokens.
QN_TILE int_tile(const linear_args *a, const qn_form *form, int32_t panel, int32_t token,
                 const int P, const int T, const int bits, const int group, const bool table,
                 const bool min, const scale_form scales) {
    const int_shape s = int_shape_of(bits, group, min, scales);
    const int32_t groups = a->k / group;
    const int fours = group / 16;
    const uint8_t *w[4], *record[4], *x[8];
    const float *xs[8], *xsums[8];
    const int32_t *start[8];
    __m512 acc[4][8];
    __m512i extra = _mm512_set1_epi8((char)(128 - form->excess));
    if (table) {
        const __m128i levels = load_bytes((const uint8_t *)form->levels);
        extra = _mm512_broadcast_i32x4(_mm_xor_si128(levels, _mm_set1_epi8((char)0x80)));
    }
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) {
        w[p] = a->panels + (size_t)(panel + p) * a->panel_stride;
        record[p] = w[p] + (size_t)groups * s.group_bytes;
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
        x[t] = a->q + (size_t)(token + t) * a->q_stride;
        xs[t] = act_floats(x[t], a->k, ACT_ELEM_BYTES, ACT_SCALES);
        xsums[t] = act_floats(x[t], a->k, ACT_ELEM_BYTES,
                              group == 32 ? ACT_XSUMS : ACT_HALF_XSUMS);
        start[t] = act_ints(x[t], a->k, ACT_ELEM_BYTES,
                            group == 16             ? ACT_HALVES128
                            : bits == 4 && !table ? ACT_SUMS8
                                                    : ACT_SUMS128);
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) acc[p][t] = _mm512_setzero_ps();
    }
    // What to fetch ahead: these panels, then the next ones'. Where more tokens follow, they find the
    // panels in the cache, and fetch the next ones from their beginning.
    const size_t next = (size_t)P * a->panel_stride;
    const bool again = token > 0 && panel + 2 * P <= a->panel_end;
    const int32_t near_end = groups - (int32_t)(4096 / s.group_bytes);
    // Two at a time where two share words.
    const int together = bits == 3 && group == 16 ? 2 : 1;
    for (int32_t g = 0, in = 0; g < groups;) {
#pragma GCC unroll 2
        for (int odd = 0; odd < together; odd++, g++) {
            __m512i dot[4][8];
            const size_t ahead = again ? next
                                 : g < near_end ? 4096
                                                : 4096 + next - a->panel_stride;
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) {
#pragma GCC unroll 4
                for (int p = 0; p < P; p++) {
                    dot[p][t] = min ? _mm512_setzero_si512() : _mm512_set1_epi32(start[t][g]);
                }
            }
#pragma GCC unroll 8
            for (size_t line = 0; line < s.group_bytes; line += 64) {
#pragma GCC unroll 4
                for (int p = 0; p < P; p++) __builtin_prefetch(w[p] + line + ahead, 0, 2);
            }
            // The words that come from the same bytes, one after another.
#pragma GCC unroll 8
            for (int n = 0; n < group / 4; n++) {
                const int i = n % 4 * fours + n / 4;
                __m512i wi[4];
#pragma GCC unroll 4
                for (int p = 0; p < P; p++) {
                    wi[p] = unpack_word(w[p], odd, i, bits, group, table, min, extra);
                }
#pragma GCC unroll 8
                for (int t = 0; t < T; t++) {
                    int32_t four;
                    memcpy(&four, x[t] + (size_t)g * (size_t)group + i * 4, 4);
                    const __m512i xi = _mm512_set1_epi32(four);
#pragma GCC unroll 4
                    for (int p = 0; p < P; p++) {
                        dot[p][t] = _mm512_dpbusd_epi32(dot[p][t], wi[p], xi);
                    }
                }
            }
            __m512 ws[4], wm[4];
#pragma GCC unroll 4
            for (int p = 0; p < P; p++) {
                ws[p] = group_scale(record[p], s, in, scales, false);
                if (min) wm[p] = group_scale(record[p], s, in, scales, true);
                w[p] += s.group_bytes;
            }
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) {
                const __m512 scale = _mm512_set1_ps(xs[t][group == 32 ? g : g / 2]);
                const __m512 sum = min ? _mm512_set1_ps(xsums[t][g]) : scale;
#pragma GCC unroll 4
                for (int p = 0; p < P; p++) {
                    acc[p][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[p][t]),
                                                _mm512_mul_ps(ws[p], scale), acc[p][t]);
                    if (min) acc[p][t] = _mm512_fmadd_ps(wm[p], sum, acc[p][t]);
                }
            }
            if (++in == s.groups) {
                in = 0;
#pragma GCC unroll 4
                for (int p = 0; p < P; p++) record[p] += s.record_bytes;
            }
        }
    }
    const __m512 unit = _mm512_set1_ps(form->unit);
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) {
            if (scales == SCALES_SUPER) acc[p][t] = _mm512_mul_ps(acc[p][t], unit);
            store_output(a, panel + p, token + t, acc[p][t]);
        }
    }
}

#define INT_TILE(panel, token, P, T) \
    int_tile(a, form, panel, token, P, T, bits, group, table, min, scales)

// All tokens against two panels, in tiles of nearly the same size.
QN_TILE int_pair(const linear_args *a, const qn_form *form, int32_t panel, const int bits,
                 const int group, const bool table, const bool min, const scale_form scales) {
    int32_t tiles = QN_CEIL_DIV(a->m, 6);
    for (int32_t t = 0, n; t < a->m; t += n, tiles--) {
        n = QN_CEIL_DIV(a->m - t, tiles);
        switch (n) {
        case 6: INT_TILE(panel, t, 2, 6); break;
        case 5: INT_TILE(panel, t, 2, 5); break;
        case 4: INT_TILE(panel, t, 2, 4); break;
        case 3: INT_TILE(panel, t, 2, 3); break;
        case 2: INT_TILE(panel, t, 2, 2); break;
        default: INT_TILE(panel, t, 2, 1); break;
        }
    }
}

QN_TILE int_walk(const linear_args *a, const qn_form *form, const int bits, const int group,
                 const bool table, const bool min, const scale_form scales) {
    int32_t p = a->panel_begin;
    if (a->m == 1) {
        for (; p + 4 <= a->panel_end; p += 4) INT_TILE(p, 0, 4, 1);
    }
    for (; p + 2 <= a->panel_end; p += 2) int_pair(a, form, p, bits, group, table, min, scales);
    if (p == a->panel_end) return;
    int32_t t = 0;
    for (; t + 4 <= a->m; t += 4) INT_TILE(p, t, 1, 4);
    for (; t < a->m; t++) INT_TILE(p, t, 1, 1);
}

#include "cpu/kernels_table.h"

const cpu_kernels qn_cpu_kernels_avx512vnni = CPU_KERNELS("avx512vnni");
