// SPDX-License-Identifier: Apache-2.0
// The kernels of one instruction set, as a table, and the layouts that all of them read.
//
// The canonical order (the arithmetic contract): every set gives the same bits, for every output is
// defined as one sequence of IEEE operations, fma meaning one rounding:
// 1. LINEAR with F32, F16, BF16 weights: acc = fma(w[k], x[k], acc), k ascending from acc = 0; then
//    + bias. F16 and BF16 are widened exactly.
// 2. LINEAR with quantized weights (quant/levels.h): the row x is quantized in blocks of 32: amax =
//    max |x|; where amax < 2^-100, scale = 0 and all q = 0; else scale = amax / 127, q =
//    round_to_even(x * (127 / amax)). Where an x is NaN or infinite, scale = NaN. A group is 16 or
//    32 inputs with one weight scale ws and one min wm; ws, wm are exact in float. Groups ascending
//    from acc = 0: acc = fma((float)dot, ws * scale, acc), dot = the exact sum of level * q; and
//    where the type has mins acc = fma(wm, scale * (float)sum of q, acc). At the end, where the
//    type has a unit, acc * unit (a power of two); then + bias.
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
#include "quant/levels.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Weights are repacked into panels of 16 rows (the last one padded with zero rows), so that 16
// outputs are the lanes of one register:
//   F32, F16, BF16: [k][16] elements.
//   Quantized: the codes of all groups, then the scale records. Codes of one group of G inputs, in
//   words of 4 bytes for the rows 0..15, each byte for one of 4 consecutive inputs; word i has
//   inputs 4 i .. 4 i + 3:
//     8 bits: [G/4] words.
//     4 bits: [G/8], the low nibbles word i, the high nibbles word G/8 + i.
//     2 bits: [G/16], bits 2 s are word s G/16 + i.
//     6 bits: the low four bits as above, then the upper two.
//     3 bits: the low two bits as above, then one word with bit i of word i's upper bits; of two
//     groups
//       of 16 inputs both low parts, then one word with bits 0 .. 3 of the first, 4 .. 7 of the
//       second.
//   The kernels multiply unsigned by signed bytes (VPDPBUSD), the weight on the unsigned side: with
//   mins it is the code; else level + 128 (or + 8: Q4_0), and dot starts at -128 (-8) times the sum
//   of the activation's quants, one broadcast.
//   A scale record is of one block of 32 inputs: d[16], and with mins m[16], 16-bit floats; or of a
//   superblock of 256: d[16] (f16), with mins -m[16] (f16), i8 scale[groups][16], with mins
//   u8 min[groups][16]: ws = d * scale, wm = -m * min; or (ternary types) of 256 inputs: d[16].
// A panel starts at a multiple of 64 bytes.
enum { PANEL_ROWS = 16, QBLOCK = 32, SUPERBLOCK = 256 };

typedef enum scale_form { SCALES_F16, SCALES_BF16, SCALES_SUPER, SCALES_SHARED } scale_form;

// What a kernel has to know of a type; constants after inlining.
typedef struct int_shape {
    int32_t group;  // inputs of one dot product: 16 or 32
    int32_t groups; // in a scale record
    size_t group_bytes, record_bytes;
    size_t scales, mins; // in a record
} int_shape;

static inline __attribute__((always_inline)) int_shape int_shape_of(int bits, int group, bool min,
                                                                    scale_form form) {
    int_shape s = {.group = group, .groups = SUPERBLOCK / group};
    s.group_bytes = (size_t)(group * bits * PANEL_ROWS / 8);
    s.record_bytes = min ? 4 * PANEL_ROWS : 2 * PANEL_ROWS;
    if (form == SCALES_F16 || form == SCALES_BF16) s.groups = 1;
    if (form == SCALES_SUPER) {
        s.scales = s.record_bytes;
        s.mins = s.scales + (size_t)s.groups * PANEL_ROWS;
        s.record_bytes = s.mins + (min ? (size_t)s.groups * PANEL_ROWS : 0);
    }
    return s;
}

// The form of a quantized type's panels: the type's own, but for IQ1_S. NULL: not a quantized type.
const qn_form *qn_cpu_form(qn_dtype type);

static inline scale_form scale_form_of(const qn_form *form) {
    if (form->group > QBLOCK) return SCALES_SHARED;
    return form->scale == QN_SCALE_SUPER  ? SCALES_SUPER
           : form->scale == QN_SCALE_BF16 ? SCALES_BF16
                                          : SCALES_F16;
}

static inline int_shape int_shape_get(const qn_form *form) {
    return int_shape_of(form->bits, form->group > QBLOCK ? QBLOCK : form->group, form->has_min,
                        scale_form_of(form));
}

// One quantized row of activations: quants, then the words of act_words, [k / 32] each. The quants
// are int8 in order, or (act_elem_bytes 2) int16 with each four as 0 2 1 3.
typedef struct linear_args {
    qn_dtype type;
    int32_t k;
    const uint8_t *panels;
    size_t panel_stride;
    int32_t panel_begin, panel_end;
    int32_t m;        // rows of activations
    const float *x;   // F32, F16, BF16
    size_t x_stride;  // floats
    const uint8_t *q; // quantized types
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

typedef enum act_words {
    ACT_SCALES,      // f32
    ACT_SUMS128,     // i32: -128 * the sum of the block's quants
    ACT_SUMS8,       // i32: -8 * the sum
    ACT_HALVES128,   // i32, two of each block: -128 * the sum of 16 quants
    ACT_XSUMS = 5,   // f32: scale * (float)sum
    ACT_HALF_XSUMS,  // f32, two: scale * (float)sum of 16
    ACT_WORDS = 8,
} act_words;

static inline uint8_t *act_at(const uint8_t *q, int32_t k, size_t elem, act_words which) {
    return (uint8_t *)q + (size_t)k * elem + (size_t)(k / QBLOCK) * which * 4;
}
static inline const float *act_floats(const uint8_t *q, int32_t k, size_t elem, act_words which) {
    return (const float *)(const void *)act_at(q, k, elem, which);
}
static inline const int32_t *act_ints(const uint8_t *q, int32_t k, size_t elem, act_words which) {
    return (const int32_t *)(const void *)act_at(q, k, elem, which);
}
static inline size_t act_row_bytes(int32_t k, size_t elem) {
    return ((size_t)k * elem + (size_t)(k / QBLOCK) * ACT_WORDS * 4 + 63) & ~(size_t)63;
}

// Queries of an attention call (n_rows * n_group) that are meant to be taken at once.
enum { ATTENTION_QUERIES = 32 };
static inline size_t attention_scratch_floats(int32_t queries, int32_t head_dim) {
    size_t d = (size_t)round_up16(head_dim);
    return (size_t)queries * (QN_KV_SPAN + 3 * d + 16);
}

#endif
