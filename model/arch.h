// SPDX-License-Identifier: Apache-2.0
// An architecture as data: what a model file says of its sizes and features, in one form for every
// family and file format. arch_gguf.c and arch_hf.c fill it in, compile.c turns it into an op program.
#ifndef QN_MODEL_ARCH_H
#define QN_MODEL_ARCH_H

#include "backend/program.h"
#include "base/status.h"
#include "formats/gguf.h"
#include "formats/hf_dir.h"

enum { QN_MAX_LAYERS = 512 };

typedef enum qn_rope_scaling {
    QN_ROPE_PLAIN,
    QN_ROPE_LINEAR, // Chen et al. 2023: positions divided by factor
    QN_ROPE_LLAMA3, // Llama 3.1: low frequencies divided by factor, a ramp between
    QN_ROPE_YARN,   // Peng et al. 2023, "YaRN": NTK by parts, with an attention factor
} qn_rope_scaling;

typedef struct qn_rope_desc {
    qn_rope_scaling scaling;
    qn_rope_kind kind;
    int32_t dims; // rotated elements of a head
    double base;
    double factor;
    double original_context;
    double low_freq_factor, high_freq_factor; // LLAMA3
    double beta_fast, beta_slow;              // YARN
    double attention_factor;                  // YARN; 0: from the formula
    double mscale, mscale_all_dim;            // YARN; 0: not given
    bool truncate;                            // YARN: correction range rounded to whole dims
    float *divisors; // [dims / 2] from rope_freqs.weight, or NULL; owned by the arch
} qn_rope_desc;

// What a family does that its files do not say. Registered in families.c.
typedef struct qn_family {
    const char *name;          // quern's name and GGUF's general.architecture
    const char *hf_model_type; // config.json's model_type
    bool qk_norm;              // RMS norm of each q and k head before the rotation
    bool qkv_bias;             // HF: biases are there though config.json has no field for them
    qn_rope_kind gguf_rope;    // GGUF's llama rows are permuted for neighbouring pairs
} qn_family;

const qn_family *qn_family_by_gguf(qn_str architecture);
const qn_family *qn_family_by_hf(const char *model_type);
// "llama, qwen2, qwen3", for error messages.
void qn_family_list(char *text, size_t size);

typedef struct qn_arch {
    const qn_family *family;
    int32_t n_layers, hidden, ffn, n_heads, n_kv_heads, head_dim, vocab_size;
    int32_t context_length;
    float norm_eps;
    qn_activation activation;
    qn_rope_desc rope;
    int32_t window;                  // tokens; 0: none
    bool layer_window[QN_MAX_LAYERS]; // which layers attend to the window only
    bool tied;                       // the output head is the embedding
} qn_arch;

qn_status qn_arch_from_gguf(const qn_gguf *g, qn_arch *arch, qn_error *err);
qn_status qn_arch_from_hf(const qn_hf_dir *dir, qn_arch *arch, qn_error *err);
// Ranges of every field and of the pairs that must agree.
qn_status qn_arch_check(const qn_arch *arch, const char *file, qn_error *err);
void qn_arch_free(qn_arch *arch);

// inv_freq [dims / 2] and the factor for cos and sin. Sources of the formulas: the papers above, as
// transformers' modeling_rope_utils computes them.
void qn_rope_frequencies(const qn_rope_desc *rope, float *inv_freq, float *mscale);

#endif
