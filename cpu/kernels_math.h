// SPDX-License-Identifier: Apache-2.0
// exp, tanh and the activations on 16 lanes. Included after a lanes_*.h.
#ifndef QN_CPU_KERNELS_MATH_H
#define QN_CPU_KERNELS_MATH_H

// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln 2 / 2; exp(r) = 1 + r + r^2 P(r), P fitted at
// Chebyshev nodes. Below 1.2 ulp on [-87.33, 88.37]; 0 below, +inf above; NaN stays NaN.
static inline v16 v16_exp(v16 x) {
    const v16 lo = v16_set1(-87.33f), hi = v16_set1(88.37f);
    const v16 magic = v16_set1(12582912.0f); // 1.5 * 2^23: the sum's low bits are the integer
    v16 c = v16_min(hi, v16_max(lo, x));
    v16 t = v16_fma(c, v16_set1(0x1.715476p+0f), magic);
    v16 n = v16_sub(t, magic);
    v16 r = v16_fnma(n, v16_set1(0x1.62e4p-1f), c);
    r = v16_fnma(n, v16_set1(0x1.7f7d1cp-20f), r);
    v16 p = v16_set1(0x1.6d43b4p-10f);
    p = v16_fma(p, r, v16_set1(0x1.120be8p-7f));
    p = v16_fma(p, r, v16_set1(0x1.5554e8p-5f));
    p = v16_fma(p, r, v16_set1(0x1.5554dcp-3f));
    p = v16_fma(p, r, v16_set1(0.5f));
    v16 y = v16_fma(v16_mul(r, r), p, r);
    y = v16_mul(v16_add(y, v16_set1(1.0f)), v16_pow2(t));
    y = v16_if_less(x, lo, v16_set1(0.0f), y);
    return v16_if_less(hi, x, v16_set1(__builtin_inff()), y);
}

// |x| < 0.625: x + x^3 P(x^2); else 1 - 2 / (exp(2|x|) + 1) with x's sign. Below 3 ulp.
static inline v16 v16_tanh(v16 x) {
    v16 u = v16_mul(x, x);
    v16 p = v16_set1(0x1.29e33cp-9f);
    p = v16_fma(p, u, v16_set1(-0x1.10d6e6p-7f));
    p = v16_fma(p, u, v16_set1(0x1.64934ap-6f));
    p = v16_fma(p, u, v16_set1(-0x1.ba0770p-5f));
    p = v16_fma(p, u, v16_set1(0x1.1110e6p-3f));
    p = v16_fma(p, u, v16_set1(-0x1.555556p-2f));
    v16 near = v16_fma(v16_mul(x, u), p, x);
    v16 a = v16_abs(x), one = v16_set1(1.0f);
    v16 e = v16_exp(v16_add(a, a));
    v16 far = v16_sub(one, v16_div(v16_set1(2.0f), v16_add(e, one)));
    far = v16_if_less(x, v16_set1(0.0f), v16_sub(v16_set1(0.0f), far), far);
    return v16_if_less(a, v16_set1(0.625f), near, far);
}

// x / (1 + exp(-x)).
static inline v16 v16_silu(v16 x) {
    v16 e = v16_exp(v16_sub(v16_set1(0.0f), x));
    return v16_div(x, v16_add(v16_set1(1.0f), e));
}

// x (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3), written as x / (1 + exp(-2u)).
static inline v16 v16_gelu_tanh(v16 x) {
    v16 x2 = v16_mul(x, x);
    v16 inner = v16_fma(v16_mul(x2, x), v16_set1(0.044715f), x);
    v16 e = v16_exp(v16_mul(inner, v16_set1(-2.0f * 0.7978845608f)));
    return v16_div(x, v16_add(v16_set1(1.0f), e));
}

static inline v16 v16_relu2(v16 x) {
    v16 r = v16_max(v16_set1(0.0f), x);
    return v16_mul(r, r);
}

#endif
