// SPDX-License-Identifier: Apache-2.0
// The 16-lane vector that the kernels are written in, in plain C: the reference for the others.
// max and min are a > b ? a : b and a < b ? a : b, as the x86 instructions are, so that a NaN in
// the second operand comes through.
#ifndef QN_CPU_LANES_SCALAR_H
#define QN_CPU_LANES_SCALAR_H

#include "quant/dtype.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef struct v16 {
    float f[16];
} v16;

// Tile sizes: how many accumulators the register file holds.
enum {
    LINEAR_PANELS = 1, LINEAR_PANELS_ONE = 1, LINEAR_TOKENS = 1,
    SCORE_SUBS = 1, SCORE_SUBS_FEW = 1, SCORE_QUERIES = 1,
    VALUE_QUERIES = 1, VALUE_VECTORS = 1, VALUE_VECTORS_TWO = 1, VALUE_VECTORS_ONE = 1,
};

#define V16_EACH for (int i = 0; i < 16; i++)

static inline v16 v16_set1(float x) {
    v16 r;
    V16_EACH r.f[i] = x;
    return r;
}
static inline v16 v16_load(const float *p) {
    v16 r;
    memcpy(r.f, p, sizeof r.f);
    return r;
}
static inline void v16_store(float *p, v16 v) { memcpy(p, v.f, sizeof v.f); }
// The first n lanes; the others are 0.
static inline v16 v16_load_n(const float *p, int n) {
    v16 r = v16_set1(0.0f);
    memcpy(r.f, p, (size_t)n * sizeof(float));
    return r;
}
static inline void v16_store_n(float *p, v16 v, int n) {
    memcpy(p, v.f, (size_t)n * sizeof(float));
}
static inline v16 v16_load_f16(const uint16_t *p) {
    v16 r;
    V16_EACH r.f[i] = qn_f16_to_f32(p[i]);
    return r;
}
static inline v16 v16_load_bf16(const uint16_t *p) {
    v16 r;
    V16_EACH r.f[i] = qn_bf16_to_f32(p[i]);
    return r;
}
static inline void v16_store_f16(uint16_t *p, v16 v) { V16_EACH p[i] = qn_f32_to_f16(v.f[i]); }

static inline v16 v16_add(v16 a, v16 b) {
    V16_EACH a.f[i] += b.f[i];
    return a;
}
static inline v16 v16_sub(v16 a, v16 b) {
    V16_EACH a.f[i] -= b.f[i];
    return a;
}
static inline v16 v16_mul(v16 a, v16 b) {
    V16_EACH a.f[i] *= b.f[i];
    return a;
}
static inline v16 v16_div(v16 a, v16 b) {
    V16_EACH a.f[i] /= b.f[i];
    return a;
}
// a * b + c and c - a * b, rounded once.
static inline v16 v16_fma(v16 a, v16 b, v16 c) {
    V16_EACH c.f[i] = fmaf(a.f[i], b.f[i], c.f[i]);
    return c;
}
static inline v16 v16_fnma(v16 a, v16 b, v16 c) {
    V16_EACH c.f[i] = fmaf(-a.f[i], b.f[i], c.f[i]);
    return c;
}
static inline v16 v16_max(v16 a, v16 b) {
    V16_EACH a.f[i] = a.f[i] > b.f[i] ? a.f[i] : b.f[i];
    return a;
}
static inline v16 v16_min(v16 a, v16 b) {
    V16_EACH a.f[i] = a.f[i] < b.f[i] ? a.f[i] : b.f[i];
    return a;
}
static inline v16 v16_abs(v16 a) {
    V16_EACH a.f[i] = fabsf(a.f[i]);
    return a;
}
// a < b ? x : y; y where a or b is NaN.
static inline v16 v16_if_less(v16 a, v16 b, v16 x, v16 y) {
    V16_EACH x.f[i] = a.f[i] < b.f[i] ? x.f[i] : y.f[i];
    return x;
}
// Lanes lo <= i < hi of v, fill elsewhere.
static inline v16 v16_keep(v16 v, int lo, int hi, float fill) {
    V16_EACH v.f[i] = i >= lo && i < hi ? v.f[i] : fill;
    return v;
}
// 2^n, where t = 1.5 * 2^23 + n.
static inline v16 v16_pow2(v16 t) {
    V16_EACH {
        uint32_t u;
        memcpy(&u, &t.f[i], sizeof u);
        u = (u << 23) + 0x3f800000u;
        memcpy(&t.f[i], &u, sizeof u);
    }
    return t;
}
static inline bool v16_all_finite(v16 v) {
    bool ok = true;
    V16_EACH ok = ok && isfinite(v.f[i]);
    return ok;
}
// Trees: lanes i and i + 8, then i and i + 4, 2, 1.
static inline float v16_hsum(v16 v) {
    for (int half = 8; half; half /= 2) {
        for (int i = 0; i < half; i++) v.f[i] += v.f[i + half];
    }
    return v.f[0];
}
static inline float v16_hmax(v16 v) {
    for (int half = 8; half; half /= 2) {
        for (int i = 0; i < half; i++) v.f[i] = v.f[i] > v.f[i + half] ? v.f[i] : v.f[i + half];
    }
    return v.f[0];
}
// Rounds to nearest even; |v| <= 127.
static inline void v16_store_i8(int8_t *p, v16 v) { V16_EACH p[i] = (int8_t)rintf(v.f[i]); }

#endif
