// SPDX-License-Identifier: Apache-2.0
// Invariants:
// 1. The bytes of a tensor are a function of (seed, tensor name, block number): blocks may be made
//    in any order and in chunks of any size.
// 2. Q8_0 levels are never -128: real quantizers never write it, and kernels may rely on that.
#include "tools/synth.h"

#include "base/checked.h"
#include "base/hash.h"
#include "base/os.h"
#include "formats/gguf.h"
#include "tools/synth_blocks.h"
#include "tools/synth_vocab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK = 32,
    NORMALS = 4096,   // entries of the table of normal values
    LEVELS = 256,     // entries of the tables of quantized levels
    SCALES = 16,      // block scales that occur in a tensor
    CHUNK = 1 << 20, // bytes made at a time, about
};

typedef enum tensor_kind { MATRIX, NORM, BIAS, ROPE_FREQS } tensor_kind;

typedef struct tensor {
    char name[48];
    qn_dtype type;
    tensor_kind kind;
    uint32_t n_dims;
    uint64_t dims[2];
} tensor;

typedef struct synth {
    const qn_synth_options *options;
    qn_synth_shape shape;
    tensor *tensors;
    size_t count, cap;
    bool failed; // out of memory
    float normals[NORMALS];
    int8_t q8[LEVELS], q4[LEVELS]; // q4: -7..7
    double q8_deviation, q4_deviation;
    uint8_t *chunk;
    uint64_t done, total;
} synth;

// x with P(normal < x) = p, on a grid of 1/4096: the grid hides the last bits of the C library.
static double normal_quantile(double p) {
    double low = -8, high = 8;
    for (int i = 0; i < 48; i++) {
        double mid = (low + high) / 2;
        if (0.5 * erfc(-mid * 0.70710678118654752) < p) {
            low = mid;
        } else {
            high = mid;
        }
    }
    return round(low * 4096) / 4096;
}

static double make_levels(int8_t *levels, int largest) {
    double sum = 0, top = normal_quantile((LEVELS - 0.5) / LEVELS);
    for (int i = 0; i < LEVELS / 2; i++) {
        int q = (int)round(largest * normal_quantile((LEVELS / 2 + i + 0.5) / LEVELS) / top);
        levels[LEVELS / 2 + i] = (int8_t)q;
        levels[LEVELS / 2 - 1 - i] = (int8_t)-q;
        sum += 2.0 * q * q;
    }
    return sqrt(sum / LEVELS);
}

static void make_tables(synth *s) {
    for (int i = 0; i < NORMALS / 2; i++) {
        double x = normal_quantile((NORMALS / 2 + i + 0.5) / NORMALS);
        s->normals[NORMALS / 2 + i] = (float)x;
        s->normals[NORMALS / 2 - 1 - i] = (float)-x;
    }
    s->q8_deviation = make_levels(s->q8, 127);
    s->q4_deviation = make_levels(s->q4, 7);
}

static qn_dtype matrix_type(const synth *s, const char *name, uint64_t cols) {
    const qn_synth_shape *p = &s->shape;
    const qn_mix *mix = s->options->mix;
    const qn_mix_model model = {.layers = p->layers, .heads = p->heads, .kv_heads = p->kv_heads,
                                .tied = p->tied};
    return s->options->pure ? qn_mix_fitting(mix->base, cols)
                            : qn_mix_type(mix, &model, name, 2, cols);
}

static void add(synth *s, tensor_kind kind, uint64_t d0, uint64_t d1, const char *fmt, ...)
    __attribute__((format(printf, 5, 6)));
static void add(synth *s, tensor_kind kind, uint64_t d0, uint64_t d1, const char *fmt, ...) {
    tensor t = {.type = QN_F32, .kind = kind, .n_dims = d1 ? 2 : 1, .dims = {d0, d1}};
    va_list args;
    va_start(args, fmt);
    vsnprintf(t.name, sizeof t.name, fmt, args);
    va_end(args);
    if (kind == MATRIX) t.type = matrix_type(s, t.name, d0);
    if (!qn_grow(&s->tensors, &s->cap, s->count + 1, sizeof t)) {
        s->failed = true;
        return;
    }
    s->tensors[s->count++] = t;
}

static void add_layer(synth *s, uint32_t i) {
    const qn_synth_shape *p = &s->shape;
    uint64_t q = (uint64_t)p->heads * p->head_dim, kv = (uint64_t)p->kv_heads * p->head_dim;
    add(s, NORM, p->hidden, 0, "blk.%u.attn_norm.weight", i);
    add(s, MATRIX, p->hidden, q, "blk.%u.attn_q.weight", i);
    add(s, MATRIX, p->hidden, kv, "blk.%u.attn_k.weight", i);
    add(s, MATRIX, p->hidden, kv, "blk.%u.attn_v.weight", i);
    add(s, MATRIX, q, p->hidden, "blk.%u.attn_output.weight", i);
    if (p->family == QN_SYNTH_QWEN2) {
        add(s, BIAS, q, 0, "blk.%u.attn_q.bias", i);
        add(s, BIAS, kv, 0, "blk.%u.attn_k.bias", i);
        add(s, BIAS, kv, 0, "blk.%u.attn_v.bias", i);
    }
    if (p->family == QN_SYNTH_QWEN3) {
        add(s, NORM, p->head_dim, 0, "blk.%u.attn_q_norm.weight", i);
        add(s, NORM, p->head_dim, 0, "blk.%u.attn_k_norm.weight", i);
    }
    add(s, NORM, p->hidden, 0, "blk.%u.ffn_norm.weight", i);
    add(s, MATRIX, p->hidden, p->ff, "blk.%u.ffn_gate.weight", i);
    add(s, MATRIX, p->hidden, p->ff, "blk.%u.ffn_up.weight", i);
    add(s, MATRIX, p->ff, p->hidden, "blk.%u.ffn_down.weight", i);
}

static void plan(synth *s) {
    const qn_synth_shape *p = &s->shape;
    add(s, MATRIX, p->hidden, p->vocab, "token_embd.weight");
    if (p->rope == QN_SYNTH_ROPE_LLAMA3) {
        add(s, ROPE_FREQS, p->head_dim / 2, 0, "rope_freqs.weight");
    }
    for (uint32_t i = 0; i < p->layers; i++) add_layer(s, i);
    add(s, NORM, p->hidden, 0, "output_norm.weight");
    if (!p->tied) add(s, MATRIX, p->hidden, p->vocab, "output.weight");
}

static uint64_t word(uint64_t key, uint64_t i) {
    return qn_hash_u64(key + i * UINT64_C(0x9e3779b97f4a7c15));
}

// What the blocks of one matrix have in common.
typedef struct matrix {
    uint64_t key;
    uint16_t scales[SCALES]; // binary16
    float f32[NORMALS];
    uint16_t f16[NORMALS];
} matrix;

static void prepare(const synth *s, const tensor *t, uint64_t key, matrix *m) {
    double deviation = 1.0 / sqrt((double)t->dims[0]);
    double levels = t->type == QN_Q4_0 ? s->q4_deviation : s->q8_deviation;
    m->key = key;
    for (int i = 0; i < SCALES; i++) {
        // From 0.76 to 1.24 of the mean: blocks of real weights differ about so much.
        double spread = 1.0 + 0.032 * (i - (SCALES - 1) / 2.0);
        m->scales[i] = qn_f32_to_f16((float)(deviation * spread / levels));
    }
    for (int i = 0; i < NORMALS; i++) {
        m->f32[i] = s->normals[i] * (float)deviation;
        m->f16[i] = t->type == QN_BF16 ? qn_f32_to_bf16(m->f32[i]) : qn_f32_to_f16(m->f32[i]);
    }
}

static uint16_t block_scale(const matrix *m, uint64_t b) {
    return m->scales[word(~m->key, b) % SCALES];
}

static void q8_0_blocks(const synth *s, const matrix *m, uint64_t first, size_t n, uint8_t *dst) {
    for (size_t b = 0; b < n; b++, dst += 34) {
        uint16_t scale = block_scale(m, first + b);
        memcpy(dst, &scale, sizeof scale);
        for (unsigned k = 0; k < 4; k++) {
            uint64_t r = word(m->key, (first + b) * 4 + k);
            for (unsigned i = 0; i < 8; i++) dst[2 + k * 8 + i] = (uint8_t)s->q8[r >> 8 * i & 255];
        }
    }
}

static void q4_0_blocks(const synth *s, const matrix *m, uint64_t first, size_t n, uint8_t *dst) {
    for (size_t b = 0; b < n; b++, dst += 18) {
        uint16_t scale = block_scale(m, first + b);
        memcpy(dst, &scale, sizeof scale);
        for (unsigned k = 0; k < 4; k++) {
            uint64_t r = word(m->key, (first + b) * 4 + k);
            for (unsigned i = 0; i < 4; i++) {
                int low = s->q4[r >> 16 * i & 255] + 8, high = s->q4[r >> (16 * i + 8) & 255] + 8;
                dst[2 + k * 4 + i] = (uint8_t)(low | high << 4);
            }
        }
    }
}

// n elements, both multiples of 4 but at the tensor's end.
static void plain_elements(const matrix *m, qn_dtype type, uint64_t first, size_t n, uint8_t *dst) {
    for (size_t i = 0; i < n; i += 4) {
        uint64_t r = word(m->key, (first + i) / 4);
        for (size_t k = 0; k < 4 && i + k < n; k++) {
            size_t index = r >> 16 * k & (NORMALS - 1);
            if (type == QN_F32) {
                memcpy(dst + 4 * (i + k), &m->f32[index], 4);
            } else {
                memcpy(dst + 2 * (i + k), &m->f16[index], 2);
            }
        }
    }
}

static qn_status report(synth *s, uint64_t bytes, qn_error *err) {
    s->done += bytes;
    const qn_synth_options *o = s->options;
    if (!o->progress || o->progress(o->user, s->done, s->total)) return QN_OK;
    return qn_fail(err, QN_ERR_CANCELLED, "%s: cancelled", o->dst);
}

static qn_status write_matrix(synth *s, const tensor *t, uint64_t key, matrix *m,
                              qn_gguf_writer *w, qn_error *err) {
    const qn_dtype_info *info = qn_dtype_get((uint32_t)t->type);
    uint64_t blocks = t->dims[0] / info->block_size * t->dims[1]; // fits: the writer checked it
    size_t step = CHUNK / info->block_bytes;
    const bool plain = info->block_size == 1, normal = t->type == QN_Q8_0 || t->type == QN_Q4_0;
    qn_synth_blocks random;
    if (plain || normal) prepare(s, t, key, m);
    else qn_synth_blocks_init(&random, t->type, key, 1.0 / sqrt((double)t->dims[0]));
    for (uint64_t at = 0; at < blocks;) {
        size_t n = (size_t)QN_MIN(blocks - at, (uint64_t)step);
        if (t->type == QN_Q8_0) {
            q8_0_blocks(s, m, at, n, s->chunk);
        } else if (t->type == QN_Q4_0) {
            q4_0_blocks(s, m, at, n, s->chunk);
        } else if (plain) {
            plain_elements(m, t->type, at, n, s->chunk);
        } else {
            qn_synth_blocks_make(&random, at, n, s->chunk);
        }
        qn_status st = qn_gguf_write_data(w, s->chunk, n * info->block_bytes, err);
        if (st == QN_OK) st = report(s, n * info->block_bytes, err);
        if (st != QN_OK) return st;
        at += n;
    }
    return QN_OK;
}

// The divisors of llama3 rope scaling (Hugging Face, modeling_rope_utils: wavelengths above
// original / low are stretched by factor, those below original / high stay, between them a ramp).
static float rope_divisor(const qn_synth_shape *p, uint64_t i) {
    double frequency = pow(p->rope_theta, -2.0 * (double)i / p->head_dim);
    double wavelength = 6.283185307179586 / frequency, original = p->rope_original_context;
    if (wavelength < original / p->rope_high) return 1.0f;
    if (wavelength > original / p->rope_low) return (float)p->rope_factor;
    double smooth = (original / wavelength - p->rope_low) / (p->rope_high - p->rope_low);
    return (float)(1.0 / ((1.0 - smooth) / p->rope_factor + smooth));
}

static qn_status write_vector(synth *s, const tensor *t, uint64_t key, qn_gguf_writer *w,
                              qn_error *err) {
    uint64_t n = t->dims[0];
    for (uint64_t i = 0; i < n; i++) {
        float x = s->normals[word(key, i) % NORMALS] * 0.02f;
        if (t->kind == NORM) x += 1.0f;
        if (t->kind == ROPE_FREQS) x = rope_divisor(&s->shape, i);
        qn_status st = qn_gguf_write_data(w, &x, sizeof x, err);
        if (st != QN_OK) return st;
    }
    return report(s, n * sizeof(float), err);
}

static void put_u32(qn_gguf_writer *w, const char *arch, const char *key, uint32_t v) {
    char full[96];
    snprintf(full, sizeof full, "%s.%s", arch, key);
    qn_gguf_put_u32(w, full, v);
}

static void put_f32(qn_gguf_writer *w, const char *arch, const char *key, double v) {
    char full[96];
    snprintf(full, sizeof full, "%s.%s", arch, key);
    qn_gguf_put_f32(w, full, (float)v);
}

static void put_rope_scaling(qn_gguf_writer *w, const char *arch, const qn_synth_shape *p) {
    if (p->rope != QN_SYNTH_ROPE_LINEAR && p->rope != QN_SYNTH_ROPE_YARN) return;
    char key[96];
    snprintf(key, sizeof key, "%s.rope.scaling.type", arch);
    qn_gguf_put_str(w, key, p->rope == QN_SYNTH_ROPE_YARN ? QN_STR("yarn") : QN_STR("linear"));
    put_f32(w, arch, "rope.scaling.factor", p->rope_factor);
    if (p->rope == QN_SYNTH_ROPE_LINEAR) return;
    put_u32(w, arch, "rope.scaling.original_context_length", p->rope_original_context);
    put_f32(w, arch, "rope.scaling.yarn_beta_fast", p->beta_fast);
    put_f32(w, arch, "rope.scaling.yarn_beta_slow", p->beta_slow);
}

static void put_metadata(const synth *s, qn_gguf_writer *w) {
    const qn_synth_shape *p = &s->shape;
    const char *arch = qn_synth_architecture(p->family);
    char name[96];
    snprintf(name, sizeof name, "synthetic %s", p->name);
    qn_gguf_put_str(w, "general.architecture", qn_str_from(arch));
    qn_gguf_put_str(w, "general.type", QN_STR("model"));
    qn_gguf_put_str(w, "general.name", qn_str_from(name));
    qn_gguf_put_str(w, "general.description", QN_STR("random weights, for benchmarks"));
    qn_gguf_put_u32(w, "general.file_type", s->options->mix->file_type);
    qn_gguf_put_u32(w, "general.quantization_version", 2);
    put_u32(w, arch, "vocab_size", p->vocab);
    put_u32(w, arch, "context_length", p->context);
    put_u32(w, arch, "embedding_length", p->hidden);
    put_u32(w, arch, "block_count", p->layers);
    put_u32(w, arch, "feed_forward_length", p->ff);
    put_u32(w, arch, "attention.head_count", p->heads);
    put_u32(w, arch, "attention.head_count_kv", p->kv_heads);
    put_u32(w, arch, "attention.key_length", p->head_dim);
    put_u32(w, arch, "attention.value_length", p->head_dim);
    put_f32(w, arch, "attention.layer_norm_rms_epsilon", p->norm_eps);
    if (p->window) put_u32(w, arch, "attention.sliding_window", p->window);
    put_u32(w, arch, "rope.dimension_count", p->head_dim);
    put_f32(w, arch, "rope.freq_base", p->rope_theta);
    put_rope_scaling(w, arch, p);
}

static bool is_tokenizer_key(qn_str key) {
    static const char prefix[] = "tokenizer.";
    return key.len >= sizeof prefix - 1 && memcmp(key.data, prefix, sizeof prefix - 1) == 0;
}

// The other file's tokenizer, open in *from; its number of tokens becomes the vocabulary's size.
static qn_status open_tokenizer(synth *s, qn_gguf **from, qn_error *err) {
    const char *path = s->options->tokenizer_from;
    qn_status st = qn_gguf_open(path, from, err);
    if (st != QN_OK) return st;
    const qn_gguf_kv *tokens = qn_gguf_find(*from, "tokenizer.ggml.tokens");
    if (!tokens || tokens->type != QN_GGUF_ARRAY || tokens->item_type != QN_GGUF_STRING ||
        tokens->count == 0 || tokens->count > (1u << 22)) {
        return qn_fail(err, QN_ERR_FORMAT,
                       "%s: key 'tokenizer.ggml.tokens': a list of strings expected", path);
    }
    s->shape.vocab = (uint32_t)tokens->count;
    return QN_OK;
}

static qn_status put_tokenizer(const synth *s, const qn_gguf *from, qn_gguf_writer *w,
                               qn_error *err) {
    if (!from) return qn_synth_put_vocab(w, s->shape.family, s->shape.vocab, err);
    for (size_t i = 0; i < qn_gguf_kv_count(from); i++) {
        const qn_gguf_kv *kv = qn_gguf_kv_at(from, i);
        if (is_tokenizer_key(kv->key)) qn_gguf_put_kv(w, kv);
    }
    if (!qn_gguf_find(from, "tokenizer.chat_template")) {
        qn_gguf_put_str(w, "tokenizer.chat_template", qn_synth_chat_template());
    }
    return QN_OK;
}

static qn_status count_up(synth *s, qn_synth_result *result, qn_error *err) {
    for (size_t i = 0; i < s->count; i++) {
        const tensor *t = &s->tensors[i];
        uint64_t elements, bytes;
        if (!qn_mul_u64(t->dims[0], t->n_dims == 2 ? t->dims[1] : 1, &elements) ||
            !qn_dtype_row_bytes(qn_dtype_get((uint32_t)t->type), elements, &bytes) ||
            !qn_add_u64(s->total, bytes, &s->total)) {
            return qn_fail(err, QN_ERR_LIMIT, "%s: the model's size overflows", s->options->shape);
        }
        result->parameters += elements;
    }
    result->tensors = s->count;
    result->bytes = s->total;
    return QN_OK;
}

static qn_status write_file(synth *s, const qn_gguf *from, qn_error *err) {
    qn_gguf_writer *w;
    matrix *m = malloc(sizeof *m);
    if (!m) return qn_fail(err, QN_ERR_NOMEM, "%s: out of memory", s->options->dst);
    qn_status st = qn_gguf_writer_open(s->options->dst, &w, err);
    if (st != QN_OK) {
        free(m);
        return st;
    }
    put_metadata(s, w);
    st = put_tokenizer(s, from, w, err);
    for (size_t i = 0; i < s->count; i++) {
        const tensor *t = &s->tensors[i];
        qn_gguf_add_tensor(w, t->name, t->type, t->n_dims, t->dims);
    }
    if (st == QN_OK) st = qn_gguf_writer_begin_data(w, err);
    for (size_t i = 0; i < s->count && st == QN_OK; i++) {
        const tensor *t = &s->tensors[i];
        uint64_t key = qn_hash_bytes(t->name, strlen(t->name), s->options->seed);
        st = t->kind == MATRIX ? write_matrix(s, t, key, m, w, err)
                               : write_vector(s, t, key, w, err);
    }
    free(m);
    if (st == QN_OK) return qn_gguf_writer_finish(w, err);
    qn_gguf_writer_abort(w);
    return st;
}

qn_status qn_synth(const qn_synth_options *options, qn_synth_result *result, qn_error *err) {
    qn_synth_result ours = {0};
    synth *s = calloc(1, sizeof *s);
    if (s) s->chunk = malloc(CHUNK);
    if (!s || !s->chunk) {
        free(s);
        return qn_fail(err, QN_ERR_NOMEM, "%s: out of memory", options->dst);
    }
    s->options = options;
    qn_gguf *from = NULL;
    qn_status st = qn_synth_shape_load(options->shape, &s->shape, err);
    if (st == QN_OK && options->tokenizer_from) st = open_tokenizer(s, &from, err);
    if (st == QN_OK) {
        make_tables(s);
        plan(s);
        st = s->failed ? qn_fail(err, QN_ERR_NOMEM, "%s: out of memory", options->dst)
                       : count_up(s, &ours, err);
    }
    if (st == QN_OK) st = write_file(s, from, err);
    if (st == QN_OK && result) *result = ours;
    qn_gguf_close(from);
    free(s->tensors);
    free(s->chunk);
    free(s);
    return st;
}
