// SPDX-License-Identifier: Apache-2.0
// Tensor element and block types. The ids are GGUF's own, so that a file's type is used as it is.
#ifndef QN_QUANT_DTYPE_H
#define QN_QUANT_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Q8_1 and Q8_K are no types of files: llama.cpp makes them of activations.
typedef enum qn_dtype {
    QN_F32 = 0,
    QN_F16 = 1,
    QN_Q4_0 = 2,
    QN_Q4_1 = 3,
    QN_Q5_0 = 6,
    QN_Q5_1 = 7,
    QN_Q8_0 = 8,
    QN_Q2_K = 10,
    QN_Q3_K = 11,
    QN_Q4_K = 12,
    QN_Q5_K = 13,
    QN_Q6_K = 14,
    QN_IQ2_XXS = 16,
    QN_IQ2_XS = 17,
    QN_IQ3_XXS = 18,
    QN_IQ1_S = 19,
    QN_IQ4_NL = 20,
    QN_IQ3_S = 21,
    QN_IQ2_S = 22,
    QN_IQ4_XS = 23,
    QN_IQ1_M = 29,
    QN_BF16 = 30,
    QN_TQ1_0 = 34,
    QN_TQ2_0 = 35,
    QN_MXFP4 = 39,
} qn_dtype;

typedef struct qn_dtype_info {
    qn_dtype type;
    const char *name;     // "f32", "q8_0", "q4_K"
    uint32_t block_size;  // elements in a block; 1 for plain types
    uint32_t block_bytes; // bytes of a block
    bool quantizes;       // qn_quantize_row can write it
} qn_dtype_info;

enum { QN_BLOCK_MAX_BYTES = 210, QN_BLOCK_MAX = 256 }; // of any type

// NULL for a type that quern does not read.
const qn_dtype_info *qn_dtype_get(uint32_t type);
// By name, case ignored; NULL if unknown.
const qn_dtype_info *qn_dtype_by_name(const char *name);
// All types that quern reads, in the order of their ids; NULL past the last.
const qn_dtype_info *qn_dtype_at(size_t i);
// The name of any GGUF tensor type, known to quern or not ("q8_K", "nvfp4"); "type 99" is NULL.
const char *qn_dtype_gguf_name(uint32_t type);
// Bytes of a row of n elements; false if n is not a multiple of the block or the product overflows.
bool qn_dtype_row_bytes(const qn_dtype_info *info, uint64_t n, uint64_t *bytes);

// Reference dequantization, bit for bit as the GGUF definition (the PyPI package `gguf`): src is
// n / block_size blocks, n a multiple of the block size.
void qn_dequantize_row(qn_dtype type, const void *src, float *dst, size_t n);
// Rounds to the nearest level, bit for bit as `gguf` for finite input: no search for better scales.
// A block with NaN or infinity gets a scale that is NaN (TQ1_0, TQ2_0 too; MXFP4 has none: its
// largest scale). F16, BF16: to nearest even. False, and nothing written, for a type without
// `quantizes`.
bool qn_quantize_row(qn_dtype type, const float *src, void *dst, size_t n);

// Exact conversions (IEEE binary16, bfloat16), round to nearest even, NaN stays NaN.
float qn_f16_to_f32(uint16_t h);
uint16_t qn_f32_to_f16(float f);
static inline float qn_bf16_to_f32(uint16_t h) {
    union {
        uint32_t u;
        float f;
    } v = {(uint32_t)h << 16};
    return v.f;
}
uint16_t qn_f32_to_bf16(float f);

#endif
