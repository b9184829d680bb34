// SPDX-License-Identifier: Apache-2.0
// The 16-lane vector as two AVX2 registers; needs FMA and F16C. Semantics: lanes_scalar.h.
#ifndef QN_CPU_LANES_AVX2_H
#define QN_CPU_LANES_AVX2_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

typedef struct v16 {
    __m256 a, b;
} v16;

enum {
    LINEAR_PANELS = 1, LINEAR_PANELS_ONE = 4, LINEAR_TOKENS = 6,
    SCORE_SUBS = 1, SCORE_SUBS_FEW = 2, SCORE_QUERIES = 4,
    VALUE_QUERIES = 2, VALUE_VECTORS = 2, VALUE_VECTORS_TWO = 2, VALUE_VECTORS_ONE = 4,
};

static inline v16 v16_set1(float x) {
    __m256 v = _mm256_set1_ps(x);
    return (v16){v, v};
}
static inline v16 v16_load(const float *p) {
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
static inline void v16_store(float *p, v16 v) {
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
}
static inline v16 v16_load_n(const float *p, int n) {
    float t[16] = {0};
    memcpy(t, p, (size_t)n * sizeof(float));
    return v16_load(t);
}
static inline void v16_store_n(float *p, v16 v, int n) {
    float t[16];
    v16_store(t, v);
    memcpy(p, t, (size_t)n * sizeof(float));
}
static inline v16 v16_load_f16(const uint16_t *p) {
    return (v16){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                 _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}
static inline __m256 widen_bf16(const uint16_t *p) {
    __m256i u = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(u, 16));
}
static inline v16 v16_load_bf16(const uint16_t *p) {
    return (v16){widen_bf16(p), widen_bf16(p + 8)};
}
static inline void v16_store_f16(uint16_t *p, v16 v) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT));
}

static inline v16 v16_add(v16 x, v16 y) {
    return (v16){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}
static inline v16 v16_sub(v16 x, v16 y) {
    return (v16){_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}
static inline v16 v16_mul(v16 x, v16 y) {
    return (v16){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}
static inline v16 v16_div(v16 x, v16 y) {
    return (v16){_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}
static inline v16 v16_fma(v16 x, v16 y, v16 z) {
    return (v16){_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
static inline v16 v16_fnma(v16 x, v16 y, v16 z) {
    return (v16){_mm256_fnmadd_ps(x.a, y.a, z.a), _mm256_fnmadd_ps(x.b, y.b, z.b)};
}
static inline v16 v16_max(v16 x, v16 y) {
    return (v16){_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}
static inline v16 v16_min(v16 x, v16 y) {
    return (v16){_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)};
}
static inline v16 v16_abs(v16 x) {
    __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    return (v16){_mm256_and_ps(x.a, mask), _mm256_and_ps(x.b, mask)};
}
static inline v16 v16_if_less(v16 p, v16 q, v16 x, v16 y) {
    return (v16){_mm256_blendv_ps(y.a, x.a, _mm256_cmp_ps(p.a, q.a, _CMP_LT_OQ)),
                 _mm256_blendv_ps(y.b, x.b, _mm256_cmp_ps(p.b, q.b, _CMP_LT_OQ))};
}
static inline v16 v16_keep(v16 v, int lo, int hi, float fill) {
    __m256i i = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i below = _mm256_set1_epi32(lo - 1), end = _mm256_set1_epi32(hi);
    __m256 f = _mm256_set1_ps(fill);
    __m256i ka = _mm256_and_si256(_mm256_cmpgt_epi32(i, below), _mm256_cmpgt_epi32(end, i));
    i = _mm256_add_epi32(i, _mm256_set1_epi32(8));
    __m256i kb = _mm256_and_si256(_mm256_cmpgt_epi32(i, below), _mm256_cmpgt_epi32(end, i));
    return (v16){_mm256_blendv_ps(f, v.a, _mm256_castsi256_ps(ka)),
                 _mm256_blendv_ps(f, v.b, _mm256_castsi256_ps(kb))};
}
static inline __m256 pow2_half(__m256 t) {
    __m256i u = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(u, _mm256_set1_epi32(0x3f800000)));
}
static inline v16 v16_pow2(v16 t) { return (v16){pow2_half(t.a), pow2_half(t.b)}; }
static inline bool v16_all_finite(v16 v) {
    v16 m = v16_abs(v);
    __m256 inf = _mm256_set1_ps(__builtin_inff());
    __m256 ok = _mm256_and_ps(_mm256_cmp_ps(m.a, inf, _CMP_LT_OQ),
                              _mm256_cmp_ps(m.b, inf, _CMP_LT_OQ));
    return _mm256_movemask_ps(ok) == 0xff;
}
static inline float v16_hsum(v16 v) {
    __m256 s = _mm256_add_ps(v.a, v.b);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
static inline float v16_hmax(v16 v) {
    __m256 s = _mm256_max_ps(v.a, v.b);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
static inline void v16_store_i8(int8_t *p, v16 v) {
    __m256i w = _mm256_packs_epi32(_mm256_cvtps_epi32(v.a), _mm256_cvtps_epi32(v.b));
    w = _mm256_permute4x64_epi64(w, 0xd8);
    _mm_storeu_si128((__m128i *)p, _mm_packs_epi16(_mm256_castsi256_si128(w),
                                                   _mm256_extracti128_si256(w, 1)));
}

#endif
