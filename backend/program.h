// SPDX-License-Identifier: Apache-2.0
// The op program: a model compiled, once at load, into a flat list of unfused ops over named buffers.
// model/ writes it, a backend compiles it (and there chooses fusing, layout, threads and graphs).
//
// Every op is a row function (the arithmetic contract): the bits of an output row depend only on that
// row's inputs, the weights, and the KV at absolute positions. Buffers hold f32 rows; all buffers of
// one row kind have the same number of rows in a step.
//
// The ops (x a row of src, y the row of dst; * elementwise):
//   EMBED        y = weight[token id]                             weight [vocab][width]
//   RMS_NORM     for each group of `group` elements: y = x / sqrt(mean(x^2) + eps) * weight
//                weight [group]; the group is the whole row, or one head
//   LINEAR       y = weight x (+ bias)                             weight [n][k], bias [n]
//   ROPE         in place on dst: each head's first rot_dims elements are rotated by position
//   KV_WRITE     K row src, V row src2 into the KV page of the row's position (group, layer)
//   ATTENTION    y = softmax(q k^T scale) v per head, q = src; GQA: head h reads KV head
//                h / (n_heads / n_kv_heads); visibility as attention/kv.h says
//   ADD          y = x + x2
//   GATED        y = act(x) * x2
//   SCALE        y = value * x
//   SOFTCAP      y = value * tanh(x / value)
//   SELECT       dst (a LOGITS buffer) = the rows of src that want logits, in order
#ifndef QN_BACKEND_PROGRAM_H
#define QN_BACKEND_PROGRAM_H

#include "attention/kv.h"
#include "base/buf.h"
#include "base/status.h"
#include "quant/dtype.h"

typedef enum qn_op_kind {
    QN_OP_EMBED, QN_OP_RMS_NORM, QN_OP_LINEAR, QN_OP_ROPE, QN_OP_KV_WRITE, QN_OP_ATTENTION,
    QN_OP_ADD, QN_OP_GATED, QN_OP_SCALE, QN_OP_SOFTCAP, QN_OP_SELECT,
} qn_op_kind;

typedef enum qn_activation { QN_ACT_SILU, QN_ACT_GELU_TANH, QN_ACT_RELU2 } qn_activation;

// Which elements a rotation pairs: neighbours (2i, 2i+1), or halves (i, i + rot_dims/2) as NEOX.
typedef enum qn_rope_kind { QN_ROPE_ADJACENT, QN_ROPE_HALVES } qn_rope_kind;

typedef enum qn_row_kind { QN_ROWS_TOKENS, QN_ROWS_LOGITS } qn_row_kind;

typedef struct qn_program_buffer {
    char name[16];
    int32_t width; // elements of a row, f32
    qn_row_kind rows;
} qn_program_buffer;

typedef struct qn_program_weight {
    char name[96];        // as in the file: what the weight source is asked for and errors say
    qn_dtype type;        // as stored
    int64_t n_rows;       // outputs; 1 for a vector
    int64_t n_cols;       // inputs; the contiguous dimension
    bool also_embed;      // also read by EMBED (tied embeddings)
} qn_program_weight;

// Angle of pair i at position p: p * inv_freq[i], in f32; cos and sin are multiplied by mscale.
typedef struct qn_program_rope {
    qn_rope_kind kind;
    int32_t rot_dims;
    float *inv_freq; // [rot_dims / 2], owned by the program
    float mscale;
} qn_program_rope;

typedef struct qn_op {
    qn_op_kind kind;
    int32_t dst, src, src2; // buffers; -1: none
    int32_t weight, bias;   // weights; -1: none
    int32_t layer;          // for KV ops: the layer's index inside its group; else for printing
    int32_t adapter_slot;   // LINEAR: which adapted matrix this is; -1: none
    union {
        struct {
            int32_t group;
            float eps;
        } norm;
        struct {
            int32_t table; // index into ropes
            int32_t n_heads, head_dim;
        } rope;
        struct {
            int32_t group; // KV group
            int32_t n_heads, n_kv_heads, head_dim;
            float scale, softcap; // softcap 0: none
        } attn; // KV_WRITE and ATTENTION
        qn_activation act;
        float value;
    };
} qn_op;

typedef struct qn_program {
    qn_program_buffer *buffers;
    qn_program_weight *weights;
    qn_program_rope *ropes;
    qn_op *ops;
    size_t n_buffers, n_weights, n_ropes, n_ops;
    size_t cap_buffers, cap_weights, cap_ropes, cap_ops;
    qn_kv_group groups[QN_MAX_KV_GROUPS];
    int32_t n_groups;
    int32_t vocab_size;
    int32_t logits; // the LOGITS buffer that holds the result, width vocab_size
    int32_t hidden; // width of the residual stream
} qn_program;

// Building blocks; each returns the new index or -1 when out of memory.
int32_t qn_program_add_buffer(qn_program *p, const char *name, int32_t width, qn_row_kind rows);
int32_t qn_program_add_weight(qn_program *p, const char *name, qn_dtype type, int64_t n_rows,
                              int64_t n_cols);
int32_t qn_program_add_rope(qn_program *p, qn_rope_kind kind, int32_t rot_dims,
                            const float *inv_freq, float mscale);
int32_t qn_program_add_op(qn_program *p, qn_op op);
void qn_program_free(qn_program *p); // and zeroes it

// Checks every index, width and shape. A backend may rely on it.
qn_status qn_program_check(const qn_program *p, qn_error *err);
// One line an op, for `quern inspect`: "12  linear  q = blk.0.attn_q.weight [1024 x 1024 q8_0] * xn".
void qn_program_print(const qn_program *p, qn_buf *out);
const char *qn_op_name(qn_op_kind kind);

#endif
