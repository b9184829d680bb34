// SPDX-License-Identifier: Apache-2.0
// LINEAR with F32, F16 and BF16 weights on 16 lanes, and the walk over panels and tokens that the
// integer kernels share. Included after a lanes_*.h.
//
// A tile is P panels times T tokens of accumulators. P and T are constants after inlining, so the
// arrays become registers; they never change a result, for each accumulator is a chain of its own.
#ifndef QN_CPU_KERNELS_LINEAR_H
#define QN_CPU_KERNELS_LINEAR_H

#define QN_TILE static inline __attribute__((always_inline)) void

static inline __attribute__((always_inline)) v16 load_weights(const uint8_t *p, size_t i,
                                                              const qn_dtype type) {
    if (type == QN_F16) return v16_load_f16((const uint16_t *)(const void *)p + i);
    if (type == QN_BF16) return v16_load_bf16((const uint16_t *)(const void *)p + i);
    return v16_load((const float *)(const void *)p + i);
}

// y = acc (+ bias).
static inline void store_output(const linear_args *a, int32_t panel, int32_t token, v16 acc) {
    const size_t row = (size_t)panel * PANEL_ROWS;
    if (a->bias) acc = v16_add(acc, v16_load(a->bias + row));
    v16_store(a->y + (size_t)token * a->y_stride + row, acc);
}

QN_TILE float_tile(const linear_args *a, int32_t panel, int32_t token, const int P, const int T,
                   const qn_dtype type) {
    v16 acc[8][8];
    const uint8_t *w[8];
    const float *x[8];
    const size_t ahead = type == QN_F32 ? 64 : 32; // bytes of one k, times 32 below
#pragma GCC unroll 8
    for (int p = 0; p < P; p++) w[p] = a->panels + (size_t)(panel + p) * a->panel_stride;
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
        x[t] = a->x + (size_t)(token + t) * a->x_stride;
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) acc[p][t] = v16_set1(0.0f);
    }
    for (int32_t k = 0; k < a->k; k++) {
        v16 wk[8];
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) {
            __builtin_prefetch(w[p] + ((size_t)k + 32) * ahead, 0, 2);
            wk[p] = load_weights(w[p], (size_t)k * PANEL_ROWS, type);
        }
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
            const v16 xk = v16_set1(x[t][k]);
#pragma GCC unroll 8
            for (int p = 0; p < P; p++) acc[p][t] = v16_fma(wk[p], xk, acc[p][t]);
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
#pragma GCC unroll 8
        for (int p = 0; p < P; p++) store_output(a, panel + p, token + t, acc[p][t]);
    }
}

QN_TILE float_walk(const linear_args *a, const qn_dtype type) {
    for (int32_t p = a->panel_begin; p < a->panel_end;) {
        const int32_t left = a->panel_end - p;
        if (a->m == 1 && left >= LINEAR_PANELS_ONE) {
            float_tile(a, p, 0, LINEAR_PANELS_ONE, 1, type);
            p += LINEAR_PANELS_ONE;
            continue;
        }
        const bool wide = left >= LINEAR_PANELS;
        int32_t t = 0;
        while (t < a->m) {
            const int32_t rest = a->m - t;
            if (rest >= LINEAR_TOKENS) {
                if (wide) float_tile(a, p, t, LINEAR_PANELS, LINEAR_TOKENS, type);
                else float_tile(a, p, t, 1, LINEAR_TOKENS, type);
                t += LINEAR_TOKENS;
            } else if (rest >= 2 && LINEAR_TOKENS > 2) {
                if (wide) float_tile(a, p, t, LINEAR_PANELS, 2, type);
                else float_tile(a, p, t, 1, 2, type);
                t += 2;
            } else {
                if (wide) float_tile(a, p, t, LINEAR_PANELS, 1, type);
                else float_tile(a, p, t, 1, 1, type);
                t++;
            }
        }
        p += wide ? LINEAR_PANELS : 1;
    }
}

static void linear_f32(const linear_args *a) { float_walk(a, QN_F32); }
static void linear_f16(const linear_args *a) { float_walk(a, QN_F16); }
static void linear_bf16(const linear_args *a) { float_walk(a, QN_BF16); }

#endif
