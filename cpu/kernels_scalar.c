// SPDX-License-Identifier: Apache-2.0
// The reference: every kernel in plain C. Slow, runs anywhere, and defines the bits.
#include "base/checked.h"
#include "cpu/executable.h"
#include "cpu/lanes_scalar.h"

#include "cpu/kernels_math.h"

enum { ACT_ELEM_BYTES = 1 };
#include "cpu/kernels_rows.h"
#include "cpu/kernels_linear.h"
#include "cpu/kernels_attention.h"

static void int_walk(const linear_args *a, const qn_form *form, int bits, int group, bool table,
                     bool min, scale_form scales) {
    const int_shape s = int_shape_of(bits, group, min, scales);
    const int32_t groups = a->k / group;
    for (int32_t panel = a->panel_begin; panel < a->panel_end; panel++) {
        const uint8_t *w = a->panels + (size_t)panel * a->panel_stride;
        for (int32_t t = 0; t < a->m; t++) {
            const uint8_t *row = a->q + (size_t)t * a->q_stride;
            const float *xs = act_floats(row, a->k, ACT_ELEM_BYTES, ACT_SCALES);
            const float *xsums = act_floats(row, a->k, ACT_ELEM_BYTES,
                                            group == 32 ? ACT_XSUMS : ACT_HALF_XSUMS);
            v16 acc = v16_set1(0.0f);
            for (int32_t g = 0; g < groups; g++) {
                const uint8_t *record = w + (size_t)groups * s.group_bytes +
                                        (size_t)(g / s.groups) * s.record_bytes;
                const int8_t *x = (const int8_t *)row + (size_t)(g * group);
                for (int r = 0; r < PANEL_ROWS; r++) {
                    const size_t at = (size_t)(g % s.groups * PANEL_ROWS + r);
                    int32_t dot = 0;
                    for (int i = 0; i < group; i++) {
                        const int32_t c = qn_cpu_panel_code(&s, bits, w, g, i, r);
                        dot += (table ? form->levels[c] : min ? c : c - form->excess) * x[i];
                    }
                    const uint16_t *d = (const uint16_t *)(const void *)record;
                    float ws = scales == SCALES_BF16 ? qn_bf16_to_f32(d[r]) : qn_f16_to_f32(d[r]);
                    if (scales == SCALES_SUPER) ws *= (float)(int8_t)record[s.scales + at];
                    acc.f[r] = fmaf((float)dot, ws * xs[g * group / QBLOCK], acc.f[r]);
                    if (!min) continue;
                    float wm = qn_f16_to_f32(d[PANEL_ROWS + r]);
                    if (scales == SCALES_SUPER) wm *= (float)record[s.mins + at];
                    acc.f[r] = fmaf(wm, xsums[g], acc.f[r]);
                }
            }
            if (scales == SCALES_SUPER) acc = v16_mul(acc, v16_set1(form->unit));
            store_output(a, panel, t, acc);
        }
    }
}

#include "cpu/kernels_table.h"

const cpu_kernels qn_cpu_kernels_scalar = CPU_KERNELS("scalar");
