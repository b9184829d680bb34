// SPDX-License-Identifier: Apache-2.0
// Every quantized type in one form: small unsigned codes, a level (an integer) for each code, and
// scales. Backends repack weights from this form, so that only it has to know the bytes of a block.
//
// The weight with code c in group g of a block is, in float, exactly in this order:
//     s = scale of the group          (below)
//     w = s * level(c)                or, with mins, s * level(c) + min of the group
// level(c) = levels[c], or c - excess where there is no table.
#ifndef QN_QUANT_LEVELS_H
#define QN_QUANT_LEVELS_H

#include "quant/dtype.h"

typedef enum qn_scale_kind {
    QN_SCALE_F16,   // d of each block; min = m of the block
    QN_SCALE_BF16,  // the same as bfloat16 (MXFP4's powers of two)
    QN_SCALE_SUPER, // (d * unit) * scale[g] (exact in float); min = -(m * min[g])
} qn_scale_kind;

typedef struct qn_form {
    qn_dtype type;
    uint8_t bits;  // of a code: 2, 3, 4, 6 or 8
    uint16_t group; // elements with one scale: 16, 32, or the block
    qn_scale_kind scale;
    bool has_min;
    uint8_t excess;
    const int8_t *levels; // [16]; NULL: none
    float unit;           // a power of two
} qn_form;

enum { QN_MAX_GROUPS = 16 };

typedef struct qn_codes {
    uint8_t code[QN_BLOCK_MAX]; // in the order of the elements
    uint16_t d, m;              // binary16 or bfloat16
    int8_t scale[QN_MAX_GROUPS];
    uint8_t min[QN_MAX_GROUPS];
} qn_codes;

// NULL for F32, F16, BF16 and types that quern does not read.
const qn_form *qn_form_get(qn_dtype type);
// One block. Members that the form does not use are not written.
void qn_unpack_block(qn_dtype type, const uint8_t *block, qn_codes *out);

#endif
