// SPDX-License-Identifier: Apache-2.0
// The reference: every kernel in plain C. Slow, runs anywhere, and defines the bits.
#include "base/checked.h"
#include "cpu/kernels.h"
#include "cpu/lanes_scalar.h"

#include "cpu/kernels_math.h"

enum { ACT_ELEM_BYTES = 1 };
#include "cpu/kernels_rows.h"
#include "cpu/kernels_linear.h"
#include "cpu/kernels_attention.h"

static void linear_int(const linear_args *a, int bits) {
    const int32_t blocks = a->k / QBLOCK;
    const size_t block_bytes = bits == 8 ? Q8_BLOCK_BYTES : Q4_BLOCK_BYTES;
    for (int32_t panel = a->panel_begin; panel < a->panel_end; panel++) {
        const uint8_t *w = a->panels + (size_t)panel * a->panel_stride;
        const uint16_t *ws = (const uint16_t *)(const void *)(w + (size_t)blocks * block_bytes);
        for (int32_t t = 0; t < a->m; t++) {
            const uint8_t *row = a->q + (size_t)t * a->q_stride;
            const int8_t *x = (const int8_t *)row;
            const float *xs = act_scales(row, a->k, ACT_ELEM_BYTES);
            v16 acc = v16_set1(0.0f);
            for (int32_t b = 0; b < blocks; b++) {
                const uint8_t *wb = w + (size_t)b * block_bytes;
                const int8_t *xb = x + (size_t)b * QBLOCK;
                for (int r = 0; r < PANEL_ROWS; r++) {
                    int32_t dot = 0;
                    for (int i = 0; i < QBLOCK; i++) {
                        const int at = (i / 4 % (bits)) * 64 + r * 4 + i % 4;
                        const int weight = bits == 8 ? wb[at] - 128
                                         : i < 16    ? (wb[at] & 15) - 8
                                                     : (wb[at] >> 4) - 8;
                        dot += weight * xb[i];
                    }
                    const float scale = qn_f16_to_f32(ws[b * PANEL_ROWS + r]) * xs[b];
                    acc.f[r] = fmaf((float)dot, scale, acc.f[r]);
                }
            }
            store_output(a, panel, t, acc);
        }
    }
}

static void linear_q8(const linear_args *a) { linear_int(a, 8); }
static void linear_q4(const linear_args *a) { linear_int(a, 4); }

#include "cpu/kernels_table.h"

const cpu_kernels qn_cpu_kernels_scalar = CPU_KERNELS("scalar");
