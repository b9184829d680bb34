// SPDX-License-Identifier: Apache-2.0
// Tensor element and block types. The ids are GGUF's own, so that a file's type is used as it is.
#ifndef QN_QUANT_DTYPE_H
#define QN_QUANT_DTYPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum qn_dtype {
    QN_F32 = 0,
    QN_F16 = 1,
    QN_Q4_0 = 2,
    QN_Q8_0 = 8,
    QN_BF16 = 30,
} qn_dtype;

typedef struct qn_dtype_info {
    qn_dtype type;
    const char *name;     // "f32", "q8_0"
    uint32_t block_size;  // elements in a block; 1 for plain types
    uint32_t block_bytes; // bytes of a block
} qn_dtype_info;

// NULL for a type that quern does not read.
const qn_dtype_info *qn_dtype_get(uint32_t type);
// By name, case ignored; NULL if unknown.
const qn_dtype_info *qn_dtype_by_name(const char *name);
// The name of any GGUF tensor type, known to quern or not ("q4_K", "iq2_xxs"); "type 99" is NULL.
const char *qn_dtype_gguf_name(uint32_t type);
// Bytes of a row of n elements; false if n is not a multiple of the block or the product overflows.
bool qn_dtype_row_bytes(const qn_dtype_info *info, uint64_t n, uint64_t *bytes);

// Reference dequantization, exact as the GGUF definition: src is n / block_size blocks, n a
// multiple of the block size. Quantization rounds as llama.cpp's reference (Q8_0: round half away
// from zero, scale max|x|/127; Q4_0: scale of the signed maximum / -8; a block with NaN or infinity
// gets the scale NaN); F16, BF16: round to nearest even.
void qn_dequantize_row(qn_dtype type, const void *src, float *dst, size_t n);
void qn_quantize_row(qn_dtype type, const float *src, void *dst, size_t n);

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
