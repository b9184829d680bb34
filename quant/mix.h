// SPDX-License-Identifier: Apache-2.0
// The mixes that llama.cpp's names stand for: which tensor gets which type. "Q4_K_M" is mostly
// Q4_K, with Q6_K where it matters. The rules are those of llama-quantize for llama-like models.
#ifndef QN_QUANT_MIX_H
#define QN_QUANT_MIX_H

#include "quant/dtype.h"

typedef struct qn_mix {
    const char *name;   // "Q4_K_M"
    qn_dtype base;      // of most tensors
    uint32_t file_type; // general.file_type
} qn_mix;

// By name, case ignored; "Q3_K", "Q4_K", "Q5_K" are their _M. NULL if unknown.
const qn_mix *qn_mix_by_name(const char *name);
// All of them, from F32 to the smallest; NULL past the last.
const qn_mix *qn_mix_at(size_t i);

typedef struct qn_mix_model {
    uint32_t layers, heads, kv_heads, experts;
    bool tied;    // the output matrix is the embedding
    bool imatrix; // an importance matrix is at hand
} qn_mix_model;

// The type of the tensor of that GGUF name, with n_dims dimensions and rows of `cols` elements.
// F32 for what is never quantized: 1-D tensors, norms, the router. A type whose blocks do not
// divide the row gives way to the next larger one that does, at last F16.
qn_dtype qn_mix_type(const qn_mix *mix, const qn_mix_model *model, const char *name,
                     uint32_t n_dims, uint64_t cols);
// The type itself, or what it gives way to for rows of `cols` elements.
qn_dtype qn_mix_fitting(qn_dtype type, uint64_t cols);

#endif
