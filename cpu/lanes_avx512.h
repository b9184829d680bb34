// SPDX-License-Identifier: Apache-2.0
// The 16-lane vector as one AVX-512 register. Semantics: lanes_scalar.h.
#ifndef QN_CPU_LANES_AVX512_H
#define QN_CPU_LANES_AVX512_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

typedef __m512 v16;

enum {
    LINEAR_PANELS = 4, LINEAR_PANELS_ONE = 8, LINEAR_TOKENS = 6,
    SCORE_SUBS = 2, SCORE_SUBS_FEW = 4, SCORE_QUERIES = 8,
    VALUE_QUERIES = 4, VALUE_VECTORS = 4, VALUE_VECTORS_TWO = 8, VALUE_VECTORS_ONE = 8,
};

static inline v16 v16_set1(float x) { return _mm512_set1_ps(x); }
static inline v16 v16_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v16_store(float *p, v16 v) { _mm512_storeu_ps(p, v); }
static inline __mmask16 first_lanes(int n) { return (__mmask16)((1u << n) - 1u); }
static inline v16 v16_load_n(const float *p, int n) {
    return _mm512_maskz_loadu_ps(first_lanes(n), p);
}
static inline void v16_store_n(float *p, v16 v, int n) {
    _mm512_mask_storeu_ps(p, first_lanes(n), v);
}
static inline v16 v16_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
static inline v16 v16_load_bf16(const uint16_t *p) {
    __m512i u = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(u, 16));
}
static inline void v16_store_f16(uint16_t *p, v16 v) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
static inline v16 v16_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
static inline v16 v16_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
static inline v16 v16_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
static inline v16 v16_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
static inline v16 v16_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
static inline v16 v16_fnma(v16 a, v16 b, v16 c) { return _mm512_fnmadd_ps(a, b, c); }
static inline v16 v16_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }
static inline v16 v16_min(v16 a, v16 b) { return _mm512_min_ps(a, b); }
static inline v16 v16_abs(v16 a) { return _mm512_abs_ps(a); }
static inline v16 v16_if_less(v16 a, v16 b, v16 x, v16 y) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
static inline v16 v16_keep(v16 v, int lo, int hi, float fill) {
    lo = lo < 0 ? 0 : lo > 16 ? 16 : lo;
    hi = hi < 0 ? 0 : hi > 16 ? 16 : hi;
    __mmask16 keep = (__mmask16)(first_lanes(hi) & ~first_lanes(lo));
    return _mm512_mask_blend_ps(keep, _mm512_set1_ps(fill), v);
}
static inline v16 v16_pow2(v16 t) {
    __m512i u = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(u, _mm512_set1_epi32(0x3f800000)));
}
static inline bool v16_all_finite(v16 v) {
    return _mm512_cmp_ps_mask(_mm512_abs_ps(v), _mm512_set1_ps(__builtin_inff()), _CMP_LT_OQ) ==
           0xffff;
}
static inline __m256 upper_half(v16 v) {
    return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1));
}
static inline float v16_hsum(v16 v) {
    __m256 s = _mm256_add_ps(_mm512_castps512_ps256(v), upper_half(v));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
static inline float v16_hmax(v16 v) {
    __m256 s = _mm256_max_ps(_mm512_castps512_ps256(v), upper_half(v));
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
static inline void v16_store_i8(int8_t *p, v16 v) {
    _mm_storeu_si128((__m128i *)p, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)));
}

#endif
