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

// Half h (8 rows) of a panel x T tokens; bits 8 or 4. One half at a time leaves enough of the 16
// registers; the second finds the panel in a near cache.
QN_TILE int_tile(const linear_args *a, int32_t panel, int32_t token, int h, const int T,
                 const int bits) {
    const int32_t blocks = a->k / QBLOCK;
    const size_t block_bytes = bits == 8 ? Q8_BLOCK_BYTES : Q4_BLOCK_BYTES;
    const uint8_t *w = a->panels + (size_t)panel * a->panel_stride;
    const uint16_t *ws = (const uint16_t *)(const void *)(w + (size_t)blocks * block_bytes) + 8 * h;
    const uint8_t *row = a->q + (size_t)token * a->q_stride;
    const float *xs = act_scales(row, a->k, ACT_ELEM_BYTES);
    const int32_t *sums = bits == 8 ? act_sums128(row, a->k, ACT_ELEM_BYTES)
                                    : act_sums8(row, a->k, ACT_ELEM_BYTES);
    const int16_t *x = (const int16_t *)(const void *)row;
    const size_t next = a->q_stride / 4; // from token to token, in scales
    __m256 acc[4];
    w += 32 * h;
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) acc[t] = _mm256_setzero_ps();
    for (int32_t b = 0; b < blocks; b++, w += block_bytes, x += QBLOCK) {
        __m256i dot[4];
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) dot[t] = _mm256_set1_epi32(sums[(size_t)t * next + (size_t)b]);
#pragma GCC unroll 8
        for (int g = 0; g < bits; g++) {
            const uint8_t *at = w + g * 64;
            if (h == 0) __builtin_prefetch(at + 2048, 0, 2);
            const __m256i v = _mm256_load_si256((const __m256i *)(const void *)at);
            half_panel lo, hi;
            if (bits == 8) {
                lo = (half_panel){_mm256_and_si256(v, _mm256_set1_epi16(255)),
                                  _mm256_srli_epi16(v, 8)};
            } else {
                const __m256i low = _mm256_set1_epi16(15);
                lo = (half_panel){_mm256_and_si256(v, low),
                                  _mm256_and_si256(_mm256_srli_epi16(v, 8), low)};
                hi = (half_panel){_mm256_and_si256(_mm256_srli_epi16(v, 4), low),
                                  _mm256_srli_epi16(v, 12)};
            }
#pragma GCC unroll 4
            for (int t = 0; t < T; t++) {
                const int16_t *xg = x + (size_t)t * next * 2 + g * 4;
                dot[t] = add_dot(dot[t], lo, xg);
                if (bits == 4) dot[t] = add_dot(dot[t], hi, xg + 16);
            }
        }
        const __m256 scale = _mm256_cvtph_ps(
            _mm_loadu_si128((const __m128i *)(const void *)(ws + b * PANEL_ROWS)));
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
            const __m256 s = _mm256_set1_ps(xs[(size_t)t * next + (size_t)b]);
            acc[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[t]), _mm256_mul_ps(scale, s), acc[t]);
        }
    }
    const size_t at = (size_t)panel * PANEL_ROWS + (size_t)(8 * h);
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
        if (a->bias) acc[t] = _mm256_add_ps(acc[t], _mm256_loadu_ps(a->bias + at));
        _mm256_storeu_ps(a->y + (size_t)(token + t) * a->y_stride + at, acc[t]);
    }
}

QN_TILE int_walk(const linear_args *a, const int bits) {
    for (int32_t p = a->panel_begin; p < a->panel_end; p++) {
        for (int h = 0; h < 2; h++) {
            int32_t t = 0;
            for (; a->m - t >= 4; t += 4) int_tile(a, p, t, h, 4, bits);
            switch (a->m - t) {
            case 3: int_tile(a, p, t, h, 3, bits); break;
            case 2: int_tile(a, p, t, h, 2, bits); break;
            case 1: int_tile(a, p, t, h, 1, bits); break;
            default: break;
            }
        }
    }
}

static void linear_q8(const linear_args *a) { int_walk(a, 8); }
static void linear_q4(const linear_args *a) { int_walk(a, 4); }

#include "cpu/kernels_table.h"

const cpu_kernels qn_cpu_kernels_avx2 = CPU_KERNELS("avx2");
