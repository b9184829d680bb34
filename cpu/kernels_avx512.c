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

// P panels x T tokens; bits 8 or 4.
QN_TILE int_tile(const linear_args *a, int32_t panel, int32_t token, const int P, const int T,
                 const int bits) {
    const int32_t blocks = a->k / QBLOCK;
    const size_t block_bytes = bits == 8 ? Q8_BLOCK_BYTES : Q4_BLOCK_BYTES;
    const uint8_t *w[4], *x[8];
    const float *xs[8];
    const int32_t *sums[8];
    __m512 acc[4][8];
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) w[p] = a->panels + (size_t)(panel + p) * a->panel_stride;
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
        x[t] = a->q + (size_t)(token + t) * a->q_stride;
        xs[t] = act_scales(x[t], a->k, ACT_ELEM_BYTES);
        sums[t] = bits == 8 ? act_sums128(x[t], a->k, ACT_ELEM_BYTES)
                            : act_sums8(x[t], a->k, ACT_ELEM_BYTES);
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) acc[p][t] = _mm512_setzero_ps();
    }
    for (int32_t b = 0; b < blocks; b++) {
        __m512i dot[4][8];
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
#pragma GCC unroll 4
            for (int p = 0; p < P; p++) dot[p][t] = _mm512_set1_epi32(sums[t][b]);
        }
        const __m512i low = _mm512_set1_epi8(15);
        if (bits == 8) {
#pragma GCC unroll 8
            for (int g = 0; g < 8; g++) {
                __m512i wg[4];
#pragma GCC unroll 4
                for (int p = 0; p < P; p++) {
                    const uint8_t *at = w[p] + (size_t)b * Q8_BLOCK_BYTES + g * 64;
                    __builtin_prefetch(at + 4096, 0, 2);
                    wg[p] = _mm512_loadu_si512(at);
                }
#pragma GCC unroll 8
                for (int t = 0; t < T; t++) {
                    int32_t four;
                    memcpy(&four, x[t] + (size_t)b * QBLOCK + g * 4, 4);
                    const __m512i xg = _mm512_set1_epi32(four);
#pragma GCC unroll 4
                    for (int p = 0; p < P; p++) {
                        dot[p][t] = _mm512_dpbusd_epi32(dot[p][t], wg[p], xg);
                    }
                }
            }
        } else {
#pragma GCC unroll 4
            for (int g = 0; g < 4; g++) {
                __m512i wl[4], wh[4];
#pragma GCC unroll 4
                for (int p = 0; p < P; p++) {
                    const uint8_t *at = w[p] + (size_t)b * Q4_BLOCK_BYTES + g * 64;
                    __builtin_prefetch(at + 4096, 0, 2);
                    const __m512i both = _mm512_loadu_si512(at);
                    wl[p] = _mm512_and_si512(both, low);
                    wh[p] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
                }
#pragma GCC unroll 8
                for (int t = 0; t < T; t++) {
                    int32_t lo4, hi4;
                    memcpy(&lo4, x[t] + (size_t)b * QBLOCK + g * 4, 4);
                    memcpy(&hi4, x[t] + (size_t)b * QBLOCK + 16 + g * 4, 4);
                    const __m512i xl = _mm512_set1_epi32(lo4), xh = _mm512_set1_epi32(hi4);
#pragma GCC unroll 4
                    for (int p = 0; p < P; p++) {
                        dot[p][t] = _mm512_dpbusd_epi32(dot[p][t], wl[p], xl);
                        dot[p][t] = _mm512_dpbusd_epi32(dot[p][t], wh[p], xh);
                    }
                }
            }
        }
        __m512 ws[4];
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) {
            ws[p] = v16_load_f16((const uint16_t *)(const void *)(w[p] + (size_t)blocks *
                                                                         block_bytes) +
                                 (size_t)b * PANEL_ROWS);
        }
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
            const __m512 s = _mm512_set1_ps(xs[t][b]);
#pragma GCC unroll 4
            for (int p = 0; p < P; p++) {
                acc[p][t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[p][t]), _mm512_mul_ps(ws[p], s),
                                            acc[p][t]);
            }
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
#pragma GCC unroll 4
        for (int p = 0; p < P; p++) store_output(a, panel + p, token + t, acc[p][t]);
    }
}

// All tokens against P panels, in tiles of nearly the same size.
QN_TILE int_panels(const linear_args *a, int32_t panel, const int P, const int bits) {
    int32_t tiles = QN_CEIL_DIV(a->m, 6);
    for (int32_t t = 0, n; t < a->m; t += n, tiles--) {
        n = QN_CEIL_DIV(a->m - t, tiles);
        switch (n) {
        case 6: int_tile(a, panel, t, P, 6, bits); break;
        case 5: int_tile(a, panel, t, P, 5, bits); break;
        case 4: int_tile(a, panel, t, P, 4, bits); break;
        case 3: int_tile(a, panel, t, P, 3, bits); break;
        case 2: int_tile(a, panel, t, P, 2, bits); break;
        default: int_tile(a, panel, t, P, 1, bits); break;
        }
    }
}

QN_TILE int_walk(const linear_args *a, const int bits) {
    int32_t p = a->panel_begin;
    if (a->m == 1) {
        for (; p + 4 <= a->panel_end; p += 4) int_tile(a, p, 0, 4, 1, bits);
    }
    for (; p + 2 <= a->panel_end; p += 2) int_panels(a, p, 2, bits);
    if (p < a->panel_end) int_panels(a, p, 1, bits);
}

static void linear_q8(const linear_args *a) { int_walk(a, 8); }
static void linear_q4(const linear_args *a) { int_walk(a, 4); }

#include "cpu/kernels_table.h"

const cpu_kernels qn_cpu_kernels_avx512vnni = CPU_KERNELS("avx512vnni");
