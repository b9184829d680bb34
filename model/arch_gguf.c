// SPDX-License-Identifier: Apache-2.0
// GGUF metadata -> architecture. The keys are "<architecture>.<name>".
#include "model/arch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct reader {
    const qn_gguf *g;
    qn_str arch;
    qn_error *err;
    qn_status status; // the first failure; later reads do nothing
} reader;

static const char *full_key(const reader *r, const char *name, char *key, size_t size) {
    snprintf(key, size, "%.*s.%s", (int)r->arch.len, r->arch.data, name);
    return key;
}

static bool has(const reader *r, const char *name) {
    char key[192];
    return qn_gguf_find(r->g, full_key(r, name, key, sizeof key)) != NULL;
}

// Required where fallback is negative.
static int32_t read_int(reader *r, const char *name, int32_t fallback) {
    char key[192];
    uint64_t v = 0;
    if (r->status != QN_OK) return 0;
    full_key(r, name, key, sizeof key);
    if (fallback >= 0 && !qn_gguf_find(r->g, key)) return fallback;
    const qn_gguf_kv *kv = qn_gguf_find(r->g, key);
    if (kv && kv->type == QN_GGUF_ARRAY) {
        // Some families give one value a layer; here they must all be the same.
        bool same = kv->count > 0 && kv->item_type != QN_GGUF_STRING &&
                    kv->item_type != QN_GGUF_ARRAY;
        for (uint64_t i = 1; same && i < kv->count; i++) {
            same = qn_gguf_item_i64(kv, i) == qn_gguf_item_i64(kv, 0);
        }
        if (!same) {
            r->status = qn_fail(r->err, QN_ERR_UNSUPPORTED,
                                "%s: key '%s': values that differ by layer are not supported",
                                qn_gguf_path(r->g), key);
            return 0;
        }
        v = (uint64_t)qn_gguf_item_i64(kv, 0);
    } else {
        r->status = qn_gguf_get_u64(r->g, key, &v, r->err);
    }
    if (r->status == QN_OK && v > INT32_MAX) {
        r->status = qn_fail(r->err, QN_ERR_FORMAT, "%s: key '%s': value %llu is too large",
                            qn_gguf_path(r->g), key, (unsigned long long)v);
    }
    return r->status == QN_OK ? (int32_t)v : 0;
}

// Required where fallback is NaN.
static double read_float(reader *r, const char *name, double fallback) {
    char key[192];
    double v = fallback;
    if (r->status != QN_OK) return 0;
    full_key(r, name, key, sizeof key);
    if (!isnan(fallback) && !qn_gguf_find(r->g, key)) return fallback;
    r->status = qn_gguf_get_f64(r->g, key, &v, r->err);
    return r->status == QN_OK ? v : 0;
}

static void read_rope_scaling(reader *r, qn_rope_desc *rope, int32_t context) {
    char key[192];
    qn_str type = QN_STR("none");
    if (r->status != QN_OK) return;
    full_key(r, "rope.scaling.type", key, sizeof key);
    if (qn_gguf_find(r->g, key)) r->status = qn_gguf_get_str(r->g, key, &type, r->err);
    if (r->status != QN_OK) return;
    // Old files say only a factor, by one of two names; it means linear scaling.
    double factor = read_float(r, "rope.scaling.factor", 0);
    if (factor == 0) factor = read_float(r, "rope.scale_linear", 0);
    if (qn_str_is(type, "none")) {
        rope->scaling = has(r, "rope.scaling.type") || factor == 0 || factor == 1 ? QN_ROPE_PLAIN
                                                                                 : QN_ROPE_LINEAR;
    } else if (qn_str_is(type, "linear")) {
        rope->scaling = factor == 0 ? QN_ROPE_PLAIN : QN_ROPE_LINEAR;
    } else if (qn_str_is(type, "yarn")) {
        rope->scaling = QN_ROPE_YARN;
    } else {
        r->status = qn_fail(r->err, QN_ERR_UNSUPPORTED,
                            "%s: key '%s': rope scaling '%.*s' is not supported (none, linear, yarn)",
                            qn_gguf_path(r->g), key, (int)(type.len < 40 ? type.len : 40),
                            type.data);
        return;
    }
    rope->factor = factor == 0 ? 1 : factor;
    rope->original_context = read_int(r, "rope.scaling.original_context_length", context);
    rope->beta_fast = read_float(r, "rope.scaling.yarn_beta_fast", 32);
    rope->beta_slow = read_float(r, "rope.scaling.yarn_beta_slow", 1);
    rope->truncate = true;
    double attn = read_float(r, "rope.scaling.attn_factor", 0);
    if (rope->scaling == QN_ROPE_YARN && attn > 0 && attn != 1) {
        // GGUF's factor multiplies the formula's value.
        rope->attention_factor = attn * (rope->factor <= 1 ? 1 : 0.1 * log(rope->factor) + 1);
    }
}

// rope_freqs.weight: one divisor for each pair (llama3 scaling, computed by the converter).
static void read_rope_divisors(reader *r, qn_rope_desc *rope) {
    const qn_gguf_tensor *t = qn_gguf_find_tensor(r->g, "rope_freqs.weight");
    if (r->status != QN_OK || !t || rope->dims <= 0) return;
    uint64_t n = (uint64_t)rope->dims / 2;
    if (t->type != QN_F32 || t->n_dims != 1 || t->dims[0] != n) {
        r->status = qn_fail(r->err, QN_ERR_FORMAT,
                            "%s: tensor 'rope_freqs.weight': expected %llu f32 values, has %llu of %s",
                            qn_gguf_path(r->g), (unsigned long long)n,
                            (unsigned long long)t->dims[0], qn_dtype_gguf_name(t->type));
        return;
    }
    rope->divisors = malloc(n * sizeof(float));
    if (!rope->divisors) {
        r->status = qn_fail(r->err, QN_ERR_NOMEM, "out of memory");
        return;
    }
    r->status = qn_gguf_read_tensor(r->g, t, 0, rope->divisors, n * sizeof(float), r->err);
    for (uint64_t i = 0; r->status == QN_OK && i < n; i++) {
        if (!(rope->divisors[i] > 0) || !isfinite(rope->divisors[i])) {
            r->status = qn_fail(r->err, QN_ERR_FORMAT,
                                "%s: tensor 'rope_freqs.weight': value %llu is not a positive number",
                                qn_gguf_path(r->g), (unsigned long long)i);
        }
    }
}

qn_status qn_arch_from_gguf(const qn_gguf *g, qn_arch *a, qn_error *err) {
    *a = (qn_arch){0};
    reader r = {.g = g, .err = err};
    r.status = qn_gguf_get_str(g, "general.architecture", &r.arch, err);
    if (r.status != QN_OK) return r.status;
    a->family = qn_family_by_gguf(r.arch);
    if (!a->family) {
        char list[256];
        qn_buf shown = {0};
        qn_family_list(list, sizeof list);
        qn_buf_visible(&shown, r.arch.data, r.arch.len < 64 ? r.arch.len : 64, false);
        r.status = qn_fail(err, QN_ERR_UNSUPPORTED,
                           "%s: architecture '%s' is not supported (supported: %s)",
                           qn_gguf_path(g), shown.data ? shown.data : "", list);
        qn_buf_free(&shown);
        return r.status;
    }
    uint64_t parts = 1;
    if (qn_gguf_find(g, "split.count") && qn_gguf_get_u64(g, "split.count", &parts, err) == QN_OK &&
        parts > 1) {
        return qn_fail(err, QN_ERR_UNSUPPORTED,
                       "%s: key 'split.count': this is one of %llu parts; merge them into one file",
                       qn_gguf_path(g), (unsigned long long)parts);
    }
    a->n_layers = read_int(&r, "block_count", -1);
    a->hidden = read_int(&r, "embedding_length", -1);
    a->ffn = read_int(&r, "feed_forward_length", -1);
    a->n_heads = read_int(&r, "attention.head_count", -1);
    a->n_kv_heads = read_int(&r, "attention.head_count_kv", a->n_heads);
    a->context_length = read_int(&r, "context_length", -1);
    a->head_dim = read_int(&r, "attention.key_length", a->n_heads ? a->hidden / a->n_heads : 0);
    a->norm_eps = (float)read_float(&r, "attention.layer_norm_rms_epsilon", (double)NAN);
    int32_t value_dim = read_int(&r, "attention.value_length", a->head_dim);
    if (r.status == QN_OK && value_dim != a->head_dim) {
        return qn_fail(err, QN_ERR_UNSUPPORTED,
                       "%s: key 'attention.value_length': %d differs from key_length %d",
                       qn_gguf_path(g), value_dim, a->head_dim);
    }
    if (read_int(&r, "expert_count", 0) > 0) {
        return qn_fail(err, QN_ERR_UNSUPPORTED,
                       "%s: key 'expert_count': models with experts are not supported",
                       qn_gguf_path(g));
    }
    a->activation = QN_ACT_SILU;
    a->rope.kind = a->family->gguf_rope;
    a->rope.dims = read_int(&r, "rope.dimension_count", a->head_dim);
    a->rope.base = read_float(&r, "rope.freq_base", 10000);
    read_rope_scaling(&r, &a->rope, a->context_length);
    read_rope_divisors(&r, &a->rope);
    a->window = read_int(&r, "attention.sliding_window", 0);
    if (r.status == QN_OK && a->n_layers <= QN_MAX_LAYERS) {
        for (int32_t i = 0; i < a->n_layers; i++) a->layer_window[i] = a->window > 0;
    }
    const qn_gguf_tensor *embd = qn_gguf_find_tensor(g, "token_embd.weight");
    if (r.status == QN_OK && embd && embd->n_dims == 2 && embd->dims[1] <= INT32_MAX) {
        a->vocab_size = (int32_t)embd->dims[1];
    }
    a->tied = qn_gguf_find_tensor(g, "output.weight") == NULL;
    if (r.status == QN_OK) r.status = qn_arch_check(a, qn_gguf_path(g), err);
    if (r.status != QN_OK) qn_arch_free(a);
    return r.status;
}
