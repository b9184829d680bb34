// SPDX-License-Identifier: Apache-2.0
// Random blocks of every quantized type: all codes occur, scales and mins are such that the values
// have about mean 0 and the deviation asked for, and nothing that no quantizer would write.
#ifndef QN_TOOLS_SYNTH_BLOCKS_H
#define QN_TOOLS_SYNTH_BLOCKS_H

#include "quant/dtype.h"

typedef struct qn_synth_blocks {
    const qn_dtype_info *info;
    uint64_t key;
    uint16_t scales[16]; // what occurs; of MXFP4 the exponents
} qn_synth_blocks;

// type: any but F32, F16, BF16. The blocks depend only on (type, key, deviation, number).
void qn_synth_blocks_init(qn_synth_blocks *b, qn_dtype type, uint64_t key, double deviation);
// Blocks first .. first + n - 1.
void qn_synth_blocks_make(const qn_synth_blocks *b, uint64_t first, size_t n, uint8_t *dst);

#endif
