// SPDX-License-Identifier: Apache-2.0
#include "model/compile.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

// The roles a tensor can have, and its name in either format (%d: the layer).
typedef enum role {
    TOKEN_EMBD, OUTPUT_NORM, OUTPUT,
    ATTN_NORM, ATTN_Q, ATTN_K, ATTN_V, ATTN_OUT, ATTN_Q_BIAS, ATTN_K_BIAS, ATTN_V_BIAS,
    ATTN_OUT_BIAS, ATTN_Q_NORM, ATTN_K_NORM,
    FFN_NORM, FFN_GATE, FFN_UP, FFN_DOWN, FFN_GATE_BIAS, FFN_UP_BIAS, FFN_DOWN_BIAS,
} role;

static const struct {
    const char *gguf, *hf;
} names[] = {
    [TOKEN_EMBD] = {"token_embd.weight", "model.embed_tokens.weight"},
    [OUTPUT_NORM] = {"output_norm.weight", "model.norm.weight"},
    [OUTPUT] = {"output.weight", "lm_head.weight"},
    [ATTN_NORM] = {"blk.%d.attn_norm.weight", "model.layers.%d.input_layernorm.weight"},
    [ATTN_Q] = {"blk.%d.attn_q.weight", "model.layers.%d.self_attn.q_proj.weight"},
    [ATTN_K] = {"blk.%d.attn_k.weight", "model.layers.%d.self_attn.k_proj.weight"},
    [ATTN_V] = {"blk.%d.attn_v.weight", "model.layers.%d.self_attn.v_proj.weight"},
    [ATTN_OUT] = {"blk.%d.attn_output.weight", "model.layers.%d.self_attn.o_proj.weight"},
    [ATTN_Q_BIAS] = {"blk.%d.attn_q.bias", "model.layers.%d.self_attn.q_proj.bias"},
    [ATTN_K_BIAS] = {"blk.%d.attn_k.bias", "model.layers.%d.self_attn.k_proj.bias"},
    [ATTN_V_BIAS] = {"blk.%d.attn_v.bias", "model.layers.%d.self_attn.v_proj.bias"},
    [ATTN_OUT_BIAS] = {"blk.%d.attn_output.bias", "model.layers.%d.self_attn.o_proj.bias"},
    [ATTN_Q_NORM] = {"blk.%d.attn_q_norm.weight", "model.layers.%d.self_attn.q_norm.weight"},
    [ATTN_K_NORM] = {"blk.%d.attn_k_norm.weight", "model.layers.%d.self_attn.k_norm.weight"},
    [FFN_NORM] = {"blk.%d.ffn_norm.weight", "model.layers.%d.post_attention_layernorm.weight"},
    [FFN_GATE] = {"blk.%d.ffn_gate.weight", "model.layers.%d.mlp.gate_proj.weight"},
    [FFN_UP] = {"blk.%d.ffn_up.weight", "model.layers.%d.mlp.up_proj.weight"},
    [FFN_DOWN] = {"blk.%d.ffn_down.weight", "model.layers.%d.mlp.down_proj.weight"},
    [FFN_GATE_BIAS] = {"blk.%d.ffn_gate.bias", "model.layers.%d.mlp.gate_proj.bias"},
    [FFN_UP_BIAS] = {"blk.%d.ffn_up.bias", "model.layers.%d.mlp.up_proj.bias"},
    [FFN_DOWN_BIAS] = {"blk.%d.ffn_down.bias", "model.layers.%d.mlp.down_proj.bias"},
};

typedef struct builder {
    const qn_arch *a;
    const qn_checkpoint *files;
    qn_program *p;
    qn_checkpoint_tensor *tensors;
    size_t cap_tensors;
    int32_t layer;
    qn_error *err;
    qn_status status; // the first failure; everything after it does nothing
    // Buffers
    int32_t x, xn, q, k, v, attn, gate, up, last, logits;
} builder;

static void fail_memory(builder *b) {
    if (b->status == QN_OK) b->status = qn_fail(b->err, QN_ERR_NOMEM, "out of memory");
}

static const char *tensor_name(const builder *b, role r, char *text, size_t size) {
    // The format strings are the table above; those without %d ignore the layer.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(text, size, b->files->gguf ? names[r].gguf : names[r].hf, b->layer);
#pragma GCC diagnostic pop
    return text;
}

// Finds a tensor and checks its shape (n_rows 1: a vector). -1: absent and optional, or failed.
static int32_t weight(builder *b, role r, int64_t n_rows, int64_t n_cols, bool required) {
    char name[96];
    qn_checkpoint_tensor t;
    if (b->status != QN_OK) return -1;
    tensor_name(b, r, name, sizeof name);
    const char *file = b->files->gguf ? qn_gguf_path(b->files->gguf)
                                      : qn_safetensors_file(b->files->st, 0);
    if (!qn_checkpoint_find(b->files, name, &t)) {
        if (required) {
            b->status = qn_fail(b->err, QN_ERR_FORMAT, "%s: tensor '%s' is missing", file, name);
        }
        return -1;
    }
    if (!t.known) {
        b->status = qn_fail(b->err, QN_ERR_UNSUPPORTED, "%s: tensor '%s': type %s is not supported "
                            "(f32, f16, bf16, q4_0 to q8_0, q2_K to q6_K, iq1 to iq4, tq1_0, tq2_0, mxfp4)", t.file, name, t.type_name);
        return -1;
    }
    bool vector = n_rows == 1;
    if (t.n_rows != n_rows || t.n_cols != n_cols || (vector ? t.n_dims != 1 : t.n_dims != 2)) {
        b->status = qn_fail(b->err, QN_ERR_FORMAT,
                            "%s: tensor '%s': shape is [%lld, %lld] (%u dimensions), expected "
                            "[%lld, %lld]", t.file, name, (long long)t.n_rows, (long long)t.n_cols,
                            t.n_dims, (long long)n_rows, (long long)n_cols);
        return -1;
    }
    if (t.row_bytes == 0) {
        b->status = qn_fail(b->err, QN_ERR_FORMAT, "%s: tensor '%s': rows of %lld do not divide into "
                            "blocks of %s", t.file, name, (long long)t.n_cols, t.type_name);
        return -1;
    }
    if (vector && t.type != QN_F32 && t.type != QN_F16 && t.type != QN_BF16) {
        b->status = qn_fail(b->err, QN_ERR_UNSUPPORTED, "%s: tensor '%s': a vector of type %s is not "
                            "supported", t.file, name, t.type_name);
        return -1;
    }
    int32_t index = qn_program_add_weight(b->p, name, t.type, n_rows, n_cols);
    if (index < 0 || !qn_grow(&b->tensors, &b->cap_tensors, b->p->n_weights, sizeof t)) {
        fail_memory(b);
        return -1;
    }
    b->tensors[index] = t;
    return index;
}

static int32_t buffer(builder *b, const char *name, int64_t width, qn_row_kind rows) {
    if (b->status != QN_OK) return 0;
    if (width > INT32_MAX / 4) {
        b->status = qn_fail(b->err, QN_ERR_LIMIT, "buffer %s of width %lld is too wide", name,
                            (long long)width);
        return 0;
    }
    int32_t index = qn_program_add_buffer(b->p, name, (int32_t)width, rows);
    if (index < 0) fail_memory(b);
    return index;
}

static void emit(builder *b, qn_op op) {
    if (b->status == QN_OK && qn_program_add_op(b->p, op) < 0) fail_memory(b);
}

#define OP(kind_, dst_, src_, ...)                                                              \
    ((qn_op){.kind = (kind_), .dst = (dst_), .src = (src_), .src2 = -1, .weight = -1,           \
             .bias = -1, .adapter_slot = -1, .layer = b->layer, __VA_ARGS__})

static void norm(builder *b, role r, int32_t dst, int32_t src, int32_t group) {
    int32_t w = weight(b, r, 1, group, true);
    qn_op op = OP(QN_OP_RMS_NORM, dst, src, );
    op.weight = w;
    op.norm.group = group;
    op.norm.eps = b->a->norm_eps;
    emit(b, op);
}

// adapter slots number the seven matrices of a layer: layer * 7 + 0..6.
static void linear(builder *b, role r, role bias, int32_t dst, int32_t src, int32_t adapter) {
    if (b->status != QN_OK) return;
    int32_t n = b->p->buffers[dst].width, k = b->p->buffers[src].width;
    qn_op op = OP(QN_OP_LINEAR, dst, src, );
    op.weight = weight(b, r, n, k, true);
    if (bias != r) {
        bool required = b->a->family->qkv_bias && bias >= ATTN_Q_BIAS && bias <= ATTN_V_BIAS;
        op.bias = weight(b, bias, 1, n, required);
    }
    op.adapter_slot = adapter;
    emit(b, op);
}

static void layer(builder *b, int32_t group, int32_t index_in_group) {
    const qn_arch *a = b->a;
    const int32_t hd = a->head_dim, first = b->layer * 7;
    norm(b, ATTN_NORM, b->xn, b->x, a->hidden);
    linear(b, ATTN_Q, ATTN_Q_BIAS, b->q, b->xn, first);
    linear(b, ATTN_K, ATTN_K_BIAS, b->k, b->xn, first + 1);
    linear(b, ATTN_V, ATTN_V_BIAS, b->v, b->xn, first + 2);
    if (a->family->qk_norm) {
        norm(b, ATTN_Q_NORM, b->q, b->q, hd);
        norm(b, ATTN_K_NORM, b->k, b->k, hd);
    }
    qn_op rope = OP(QN_OP_ROPE, b->q, -1, );
    rope.rope.n_heads = a->n_heads;
    rope.rope.head_dim = hd;
    emit(b, rope);
    rope.dst = b->k;
    rope.rope.n_heads = a->n_kv_heads;
    emit(b, rope);
    qn_op attn = OP(QN_OP_KV_WRITE, -1, b->k, );
    attn.src2 = b->v;
    attn.layer = index_in_group;
    attn.attn.group = group;
    attn.attn.n_heads = a->n_heads;
    attn.attn.n_kv_heads = a->n_kv_heads;
    attn.attn.head_dim = hd;
    attn.attn.scale = (float)(1.0 / sqrt((double)hd));
    emit(b, attn);
    attn.kind = QN_OP_ATTENTION;
    attn.dst = b->attn;
    attn.src = b->q;
    attn.src2 = -1;
    emit(b, attn);
    linear(b, ATTN_OUT, ATTN_OUT_BIAS, b->xn, b->attn, first + 3);
    qn_op add = OP(QN_OP_ADD, b->x, b->x, );
    add.src2 = b->xn;
    emit(b, add);

    norm(b, FFN_NORM, b->xn, b->x, a->hidden);
    linear(b, FFN_GATE, FFN_GATE_BIAS, b->gate, b->xn, first + 4);
    linear(b, FFN_UP, FFN_UP_BIAS, b->up, b->xn, first + 5);
    qn_op act = OP(QN_OP_GATED, b->gate, b->gate, );
    act.src2 = b->up;
    act.act = a->activation;
    emit(b, act);
    linear(b, FFN_DOWN, FFN_DOWN_BIAS, b->xn, b->gate, first + 6);
    emit(b, add);
}

// Layers that see the same tokens share a KV group: one for full attention, one for the window.
static void make_groups(builder *b, int32_t group_of[2]) {
    const qn_arch *a = b->a;
    for (int w = 0; w < 2; w++) {
        int32_t n = 0;
        for (int32_t i = 0; i < a->n_layers; i++) n += a->layer_window[i] == (w == 1);
        group_of[w] = b->p->n_groups;
        if (n == 0) continue;
        b->p->groups[b->p->n_groups++] = (qn_kv_group){
            .kind = w ? QN_KV_WINDOW : QN_KV_FULL,
            .window = w ? a->window : 0,
            .n_layers = n,
            .n_kv_heads = a->n_kv_heads,
            .head_dim = a->head_dim,
        };
    }
}

qn_status qn_arch_compile(const qn_arch *a, const qn_checkpoint *files, qn_program *p,
                          qn_checkpoint_tensor **tensors, qn_error *err) {
    *p = (qn_program){.vocab_size = a->vocab_size, .hidden = a->hidden};
    builder builder_ = {.a = a, .files = files, .p = p, .err = err}, *b = &builder_;
    int32_t group_of[2], used[2] = {0, 0};
    make_groups(b, group_of);
    const int64_t q_width = (int64_t)a->n_heads * a->head_dim;
    const int64_t kv_width = (int64_t)a->n_kv_heads * a->head_dim;
    b->x = buffer(b, "x", a->hidden, QN_ROWS_TOKENS);
    b->xn = buffer(b, "xn", a->hidden, QN_ROWS_TOKENS);
    b->q = buffer(b, "q", q_width, QN_ROWS_TOKENS);
    b->k = buffer(b, "k", kv_width, QN_ROWS_TOKENS);
    b->v = buffer(b, "v", kv_width, QN_ROWS_TOKENS);
    b->attn = buffer(b, "attn", q_width, QN_ROWS_TOKENS);
    b->gate = buffer(b, "gate", a->ffn, QN_ROWS_TOKENS);
    b->up = buffer(b, "up", a->ffn, QN_ROWS_TOKENS);
    b->last = buffer(b, "last", a->hidden, QN_ROWS_LOGITS);
    b->logits = buffer(b, "logits", a->vocab_size, QN_ROWS_LOGITS);
    p->logits = b->logits;

    float *inv_freq = calloc((size_t)a->rope.dims / 2 + 1, sizeof *inv_freq), mscale;
    if (inv_freq) {
        qn_rope_frequencies(&a->rope, inv_freq, &mscale);
        if (qn_program_add_rope(p, a->rope.kind, a->rope.dims, inv_freq, mscale) < 0) fail_memory(b);
    } else {
        fail_memory(b);
    }
    free(inv_freq);

    qn_op embed = OP(QN_OP_EMBED, b->x, -1, );
    embed.layer = -1;
    embed.weight = weight(b, TOKEN_EMBD, a->vocab_size, a->hidden, true);
    emit(b, embed);
    for (b->layer = 0; b->layer < a->n_layers && b->status == QN_OK; b->layer++) {
        int w = a->layer_window[b->layer];
        layer(b, group_of[w], used[w]++);
    }
    b->layer = -1;
    emit(b, OP(QN_OP_SELECT, b->last, b->x, ));
    norm(b, OUTPUT_NORM, b->last, b->last, a->hidden);
    qn_op head = OP(QN_OP_LINEAR, b->logits, b->last, );
    if (a->tied && embed.weight >= 0) {
        head.weight = embed.weight;
        p->weights[embed.weight].also_embed = true;
    } else {
        head.weight = weight(b, OUTPUT, a->vocab_size, a->hidden, true);
    }
    emit(b, head);
    if (b->status == QN_OK) b->status = qn_program_check(p, err);
    if (b->status != QN_OK) {
        qn_program_free(p);
        free(b->tensors);
        b->tensors = NULL;
    }
    *tensors = b->tensors;
    return b->status;
}
