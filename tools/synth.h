// SPDX-License-Identifier: Apache-2.0
// Synthetic models: a GGUF file in the shape of a real model with random but valid weights, for
// benchmarks and tests where the words do not matter but the sizes do.
//
// Weights have standard deviation 1/sqrt(row length) and are drawn directly in the file's type (in
// f32, f16, bf16, q8_0 and q4_0 from a normal distribution, else with random codes); norms lie
// around 1, biases are small: activations stay of order one through any number of layers. The bytes
// depend only on shape, mix, tokenizer and seed.
#ifndef QN_TOOLS_SYNTH_H
#define QN_TOOLS_SYNTH_H

#include "base/status.h"
#include "quant/mix.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum qn_synth_family {
    QN_SYNTH_LLAMA,
    QN_SYNTH_MISTRAL, // written as GGUF architecture "llama"
    QN_SYNTH_QWEN2,
    QN_SYNTH_QWEN3,
} qn_synth_family;

typedef enum qn_synth_rope {
    QN_SYNTH_ROPE_PLAIN,
    QN_SYNTH_ROPE_LINEAR,
    QN_SYNTH_ROPE_YARN,
    QN_SYNTH_ROPE_LLAMA3, // written as the tensor rope_freqs.weight
} qn_synth_rope;

typedef struct qn_synth_shape {
    char name[64]; // as given: "qwen3-0.6b", or the family of a config.json
    qn_synth_family family;
    uint32_t hidden, layers, heads, kv_heads, head_dim, ff, vocab, context;
    uint32_t window; // sliding window in tokens; 0: none
    double norm_eps, rope_theta;
    bool tied; // the output matrix is the embedding
    qn_synth_rope rope;
    double rope_factor, rope_low, rope_high; // llama3: low and high frequency factors
    double beta_fast, beta_slow;             // yarn
    uint32_t rope_original_context;
} qn_synth_shape;

// Names of the built-in shapes, in order; NULL past the last.
const char *qn_synth_shape_name(size_t i);
// A built-in name, or the path of an HF config.json (or of its directory) of the families above.
// Errors name the file and the member, or list the names.
qn_status qn_synth_shape_load(const char *name_or_path, qn_synth_shape *out, qn_error *err);
// "llama", "qwen2", "qwen3": general.architecture.
const char *qn_synth_architecture(qn_synth_family family);

typedef struct qn_synth_options {
    const char *shape;          // as qn_synth_shape_load
    const char *dst;            // replaced if it exists
    const qn_mix *mix;          // the types of the matrices; 1-D tensors are F32
    bool pure;                  // every matrix in the mix's base type
    const char *tokenizer_from; // a GGUF file whose tokenizer is copied; NULL: a synthetic one
    uint64_t seed;
    // Called now and then with tensor bytes; false stops with QN_ERR_CANCELLED. May be NULL.
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
} qn_synth_options;

typedef struct qn_synth_result {
    uint64_t tensors, parameters, bytes; // bytes of tensor data
} qn_synth_result;

// Writes the file. Where blocks do not divide a row the type gives way as qn_mix_fitting says. A
// copied tokenizer sets the vocabulary's size. On error no file appears. result may be NULL.
qn_status qn_synth(const qn_synth_options *options, qn_synth_result *result, qn_error *err);

#endif
