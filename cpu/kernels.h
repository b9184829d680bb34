// SPDX-License-Identifier: Apache-2.0
// The kernels of one instruction set, as a table, and the layouts that all of them read.
//
// The canonical order (the arithmetic contract): every set gives the same bits, for every output is
// defined as one sequence of IEEE operations, fma meaning one rounding:
// 1. LINEAR with F32, F16, BF16 weights: acc = fma(w[k], x[k], acc), k ascending from acc = 0; then
//    + bias. F16 and BF16 are widened exactly.
// 2. LINEAR with Q8_0, Q4_0: the row x is quantized in blocks of 32: amax = max |x|; where amax <
//    2^-100, scale = 0 and all q = 0; else scale = amax / 127, q = round_to_even(x * (127 / amax)).
//    Where an x is NaN or infinite, scale = NaN. Per block the integers' dot product is exact;
//    acc = fma((float)dot, weight scale * scale, acc), blocks ascending from acc = 0; then + bias.
// 3. Sums over a row (RMS_NORM, the denominators of ATTENTION): 16 lanes, lane i takes elements i,
//    i + 16, ... ascending; then the tree i and i + 8, + 4, + 2, + 1.
// 4. ATTENTION: per span of QN_KV_SPAN keys, score = (fma chain over d ascending) * scale, the
//    maximum m, p = exp(score - m), l = sum of p (rule 3, lane = position mod 16), o = fma chain of
//    p * v over keys ascending; the spans that hold a visible key are merged in ascending order:
//    M' = max(M, m), a = exp(M - M'), b = exp(m - M'), L = fma(l, b, L * a), O = fma(o, b, O * a).
//    At the end y = O / L. A hidden key's K and V never enter the arithmetic.
// 5. exp, tanh: polynomials in kernels_math.h, the same steps on every set.
// NaN results are NaN everywhere, but their sign and payload are not defined.
#ifndef QN_CPU_KERNELS_H
#define QN_CPU_KERNELS_H

#include "attention/kv.h"
#include "backend/program.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Weights are repacked into panels of 16 rows (the last one padded with zero rows), so that 16
// outputs are the lanes of one register:
//   F32, F16, BF16: [k][16] elements.
//   Q8_0: per block of 32 inputs [8][16 rows][4] bytes w + 128 (VPDPBUSD multiplies unsigned by
//         signed bytes; the activation is the signed side, and the excess is taken back with
//         -128 * its block sum, one broadcast), for all blocks; then [blocks][16] f16 scales.
//   Q4_0: per block [4][16 rows][4] bytes, the low nibble w + 8 of input 4g + j, the high nibble of
//         input 16 + 4g + j; then the scales. The excess is -8 * block sum.
// A panel starts at a multiple of 64 bytes.
enum { PANEL_ROWS = 16, QBLOCK = 32, Q8_BLOCK_BYTES = 512, Q4_BLOCK_BYTES = 256 };

// One quantized row of activations: quants, then f32 scales, i32 -128 * sum, i32 -8 * sum [blocks]
// each. The quants are int8 in order, or (act_elem_bytes 2) int16 with each four as 0 2 1 3.
typedef struct linear_args {
    qn_dtype type;
    int32_t k;
    const uint8_t *panels;
    size_t panel_stride;
    int32_t panel_begin, panel_end;
    int32_t m;        // rows of activations
    const float *x;   // F32, F16, BF16
    size_t x_stride;  // floats
    const uint8_t *q; // Q8_0, Q4_0
    size_t q_stride;  // bytes
    const float *bias; // padded to whole panels; NULL: none
    float *y;          // rows hold whole panels
    size_t y_stride;
} linear_args;

// K and V of one layer and KV head inside a page of B tokens, D = head_dim rounded up to 16:
//   K [B / 16][head_dim][16 tokens], V [B][D].
typedef struct attention_args {
    const float *q; // first row, first head of the group
    size_t q_stride;
    float *out;
    size_t out_stride;
    int32_t n_rows, n_group, head_dim; // n_group: query heads of this KV head
    int32_t pos;                       // of the first row
    int32_t window;                    // 0: all keys
    float scale, softcap;
    const int32_t *blocks; // the sequence's block table
    int32_t block_size;
    const uint8_t *pages;
    size_t page_bytes, k_offset, v_offset;
    bool f16;
    float *scratch; // attention_scratch_floats
} attention_args;

typedef struct cpu_kernels {
    const char *name;
    size_t act_elem_bytes;
    void (*quantize)(const float *x, int32_t k, uint8_t *q);
    void (*linear)(const linear_args *a);
    void (*rms_norm)(const float *x, const float *w, float *y, int32_t width, int32_t group,
                     float eps);
    void (*add)(const float *x, const float *x2, float *y, int32_t n);
    void (*gated)(qn_activation act, const float *x, const float *x2, float *y, int32_t n);
    void (*scale)(const float *x, float value, float *y, int32_t n);
    void (*softcap)(const float *x, float value, float *y, int32_t n);
    void (*rope)(float *y, int32_t n_heads, int32_t head_dim, qn_rope_kind kind, int32_t rot_dims,
                 const float *cos, const float *sin);
    // One row's K and V of one head into its page slab; t: token inside the page.
    void (*kv_write)(const float *k, const float *v, int32_t head_dim, int32_t t, bool f16,
                     uint8_t *k_slab, uint8_t *v_slab);
    void (*attention)(const attention_args *a);
} cpu_kernels;

extern const cpu_kernels qn_cpu_kernels_scalar;
#ifdef QN_CPU_X86
extern const cpu_kernels qn_cpu_kernels_avx2, qn_cpu_kernels_avx512vnni;
#endif

// isa NULL: the best this machine runs. NULL when it is unknown or this machine lacks it.
const cpu_kernels *qn_cpu_kernels_find(const char *isa);

static inline int32_t round_up16(int32_t n) { return (n + 15) & ~15; }

static inline const float *act_scales(const uint8_t *q, int32_t k, size_t elem) {
    return (const float *)(const void *)(q + (size_t)k * elem);
}
static inline const int32_t *act_sums128(const uint8_t *q, int32_t k, size_t elem) {
    return (const int32_t *)(const void *)(act_scales(q, k, elem) + k / QBLOCK);
}
static inline const int32_t *act_sums8(const uint8_t *q, int32_t k, size_t elem) {
    return act_sums128(q, k, elem) + k / QBLOCK;
}
static inline size_t act_row_bytes(int32_t k, size_t elem) {
    return ((size_t)k * elem + (size_t)(k / QBLOCK) * 12 + 63) & ~(size_t)63;
}

// Queries of an attention call (n_rows * n_group) that are meant to be taken at once.
enum { ATTENTION_QUERIES = 32 };
static inline size_t attention_scratch_floats(int32_t queries, int32_t head_dim) {
    size_t d = (size_t)round_up16(head_dim);
    return (size_t)queries * (QN_KV_SPAN + 3 * d + 16);
}

#endif
