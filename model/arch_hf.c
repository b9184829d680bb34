// SPDX-License-Identifier: Apache-2.0
// config.json -> architecture.
#include "model/arch.h"

#include "base/checked.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct reader {
    const json_t *config;
    const char *file;
    qn_error *err;
    qn_status status;
} reader;

static int32_t read_int(reader *r, const char *key, bool required, int32_t fallback) {
    int64_t v = fallback;
    if (r->status == QN_OK) {
        r->status = qn_json_i64(r->config, r->file, key, required, 0, INT32_MAX, &v, r->err);
    }
    return (int32_t)v;
}

static double read_float(reader *r, const json_t *obj, const char *key, bool required,
                         double fallback) {
    double v = fallback;
    if (r->status == QN_OK) r->status = qn_json_f64(obj, r->file, key, required, &v, r->err);
    return v;
}

static bool read_bool(reader *r, const char *key, bool fallback) {
    bool v = fallback;
    if (r->status == QN_OK) r->status = qn_json_bool(r->config, r->file, key, false, &v, r->err);
    return v;
}

static void read_rope(reader *r, qn_arch *a) {
    // Since transformers 5 all of it is in rope_parameters; before, rope_theta and rope_scaling.
    const json_t *params = json_object_get(r->config, "rope_parameters");
    const json_t *scaling = json_is_object(params) ? params
                                                   : json_object_get(r->config, "rope_scaling");
    qn_rope_desc *rope = &a->rope;
    rope->kind = QN_ROPE_HALVES;
    rope->dims = a->head_dim;
    rope->base = read_float(r, r->config, "rope_theta", false, 10000);
    rope->factor = 1;
    rope->truncate = true;
    static const char *const keys[] = {"rope_parameters", "rope_scaling"};
    for (size_t i = 0; i < QN_COUNT(keys) && r->status == QN_OK; i++) {
        const json_t *v = json_object_get(r->config, keys[i]);
        if (v && !json_is_null(v) && !json_is_object(v)) {
            r->status = qn_fail(r->err, QN_ERR_FORMAT, "%s: '%s' is not an object", r->file, keys[i]);
        }
    }
    if (!json_is_object(scaling)) return;
    rope->base = read_float(r, scaling, "rope_theta", false, rope->base);
    const json_t *type = json_object_get(scaling, "rope_type");
    if (!json_is_string(type)) type = json_object_get(scaling, "type");
    const char *name = json_is_string(type) ? json_string_value(type) : "default";
    const json_t *other = json_object_get(scaling, "rope_type");
    if (r->status == QN_OK && !json_is_string(type) &&
        ((type && !json_is_null(type)) || (other && !json_is_null(other)))) {
        r->status = qn_fail(r->err, QN_ERR_FORMAT, "%s: rope type is not a string", r->file);
    }
    if (strcmp(name, "default") == 0) return;
    rope->factor = read_float(r, scaling, "factor", true, 1);
    rope->original_context = read_float(r, scaling, "original_max_position_embeddings", false,
                                        a->context_length);
    if (strcmp(name, "linear") == 0) {
        rope->scaling = QN_ROPE_LINEAR;
    } else if (strcmp(name, "llama3") == 0) {
        rope->scaling = QN_ROPE_LLAMA3;
        rope->low_freq_factor = read_float(r, scaling, "low_freq_factor", true, 1);
        rope->high_freq_factor = read_float(r, scaling, "high_freq_factor", true, 4);
    } else if (strcmp(name, "yarn") == 0) {
        rope->scaling = QN_ROPE_YARN;
        rope->beta_fast = read_float(r, scaling, "beta_fast", false, 32);
        rope->beta_slow = read_float(r, scaling, "beta_slow", false, 1);
        rope->attention_factor = read_float(r, scaling, "attention_factor", false, 0);
        rope->mscale = read_float(r, scaling, "mscale", false, 0);
        rope->mscale_all_dim = read_float(r, scaling, "mscale_all_dim", false, 0);
        const json_t *truncate = json_object_get(scaling, "truncate");
        if (truncate) rope->truncate = json_is_true(truncate);
    } else if (r->status == QN_OK) {
        r->status = qn_fail(r->err, QN_ERR_UNSUPPORTED,
                            "%s: rope type '%.40s' is not supported (default, linear, llama3, yarn)",
                            r->file, name);
    }
}

static void read_windows(reader *r, qn_arch *a, const char *model_type) {
    int32_t window = read_int(r, "sliding_window", false, 0);
    bool qwen = strncmp(model_type, "qwen", 4) == 0;
    bool use = window > 0 && read_bool(r, "use_sliding_window", !qwen) &&
               strcmp(model_type, "llama") != 0;
    int32_t first = qwen ? read_int(r, "max_window_layers", false, 28) : 0;
    const json_t *types = json_object_get(r->config, "layer_types");
    if (r->status != QN_OK || a->n_layers > QN_MAX_LAYERS) return;
    if (json_is_array(types) && json_array_size(types) != (size_t)a->n_layers) {
        r->status = qn_fail(r->err, QN_ERR_FORMAT,
                            "%s: layer_types has %zu entries, num_hidden_layers is %d", r->file,
                            json_array_size(types), a->n_layers);
        return;
    }
    for (int32_t i = 0; i < a->n_layers; i++) {
        bool windowed = use && i >= first;
        if (json_is_array(types)) {
            const char *name = json_string_value(json_array_get(types, (size_t)i));
            if (name && strcmp(name, "sliding_attention") == 0) {
                windowed = true;
            } else if (name && strcmp(name, "full_attention") == 0) {
                windowed = false;
            } else {
                r->status = qn_fail(r->err, QN_ERR_UNSUPPORTED,
                                    "%s: layer_types[%d] '%.40s' is not supported", r->file, i,
                                    name ? name : "");
                return;
            }
            if (windowed && window <= 0) {
                r->status = qn_fail(r->err, QN_ERR_FORMAT,
                                    "%s: layer %d slides, but there is no sliding_window", r->file,
                                    i);
                return;
            }
        }
        a->layer_window[i] = windowed;
        if (windowed) a->window = window;
    }
}

qn_status qn_arch_from_hf(const qn_hf_dir *dir, qn_arch *a, qn_error *err) {
    char file[512];
    snprintf(file, sizeof file, "%s/config.json", dir->path);
    *a = (qn_arch){0};
    reader r = {.config = dir->config, .file = file, .err = err};
    const char *type = json_string_value(json_object_get(dir->config, "model_type"));
    if (!type) return qn_fail(err, QN_ERR_FORMAT, "%s: no model_type", file);
    a->family = qn_family_by_hf(type);
    if (!a->family) {
        char list[256];
        qn_family_list(list, sizeof list);
        return qn_fail(err, QN_ERR_UNSUPPORTED, "%s: model_type '%.64s' is not supported "
                       "(supported: %s)", file, type, list);
    }
    if (json_is_object(json_object_get(dir->config, "quantization_config"))) {
        const json_t *q = json_object_get(dir->config, "quantization_config");
        const char *method = json_string_value(json_object_get(q, "quant_method"));
        return qn_fail(err, QN_ERR_UNSUPPORTED, "%s: quantization '%.40s' is not supported", file,
                       method ? method : "unknown");
    }
    a->n_layers = read_int(&r, "num_hidden_layers", true, 0);
    a->hidden = read_int(&r, "hidden_size", true, 0);
    a->ffn = read_int(&r, "intermediate_size", true, 0);
    a->n_heads = read_int(&r, "num_attention_heads", true, 0);
    a->n_kv_heads = read_int(&r, "num_key_value_heads", false, a->n_heads);
    a->head_dim = read_int(&r, "head_dim", false, a->n_heads ? a->hidden / a->n_heads : 0);
    a->vocab_size = read_int(&r, "vocab_size", true, 0);
    a->context_length = read_int(&r, "max_position_embeddings", false, 2048);
    a->norm_eps = (float)read_float(&r, r.config, "rms_norm_eps", false, 1e-6);
    a->tied = read_bool(&r, "tie_word_embeddings", false);
    a->activation = QN_ACT_SILU;
    const char *act = json_string_value(json_object_get(dir->config, "hidden_act"));
    if (r.status == QN_OK && act && strcmp(act, "silu") != 0) {
        r.status = qn_fail(err, QN_ERR_UNSUPPORTED, "%s: hidden_act '%.40s' is not supported (silu)",
                           file, act);
    }
    read_rope(&r, a);
    read_windows(&r, a, type);
    if (r.status == QN_OK) r.status = qn_arch_check(a, file, err);
    if (r.status != QN_OK) qn_arch_free(a);
    return r.status;
}

qn_status qn_arch_check(const qn_arch *a, const char *file, qn_error *err) {
    const struct {
        const char *what;
        int32_t value, min, max;
    } ranges[] = {
        {"number of layers", a->n_layers, 1, QN_MAX_LAYERS},
        {"hidden size", a->hidden, 1, 1 << 18},
        {"feed-forward size", a->ffn, 1, 1 << 20},
        {"number of heads", a->n_heads, 1, 1 << 12},
        {"number of KV heads", a->n_kv_heads, 1, 1 << 12},
        {"head size", a->head_dim, 2, 1 << 10},
        {"vocabulary size", a->vocab_size, 1, 1 << 22},
        {"context length", a->context_length, 2, 1 << 28},
        {"rotated dimensions", a->rope.dims, 2, a->head_dim},
        {"sliding window", a->window, 0, INT32_MAX},
    };
    for (size_t i = 0; i < QN_COUNT(ranges); i++) {
        if (ranges[i].value < ranges[i].min || ranges[i].value > ranges[i].max) {
            return qn_fail(err, QN_ERR_FORMAT, "%s: %s is %d, must be %d to %d", file,
                           ranges[i].what, ranges[i].value, ranges[i].min, ranges[i].max);
        }
    }
    if (a->n_heads % a->n_kv_heads != 0) {
        return qn_fail(err, QN_ERR_FORMAT, "%s: %d heads are not a multiple of %d KV heads", file,
                       a->n_heads, a->n_kv_heads);
    }
    if (a->rope.dims % 2 != 0 || a->head_dim % 2 != 0) {
        return qn_fail(err, QN_ERR_FORMAT, "%s: head size %d or rotated dimensions %d are odd", file,
                       a->head_dim, a->rope.dims);
    }
    if (!(a->norm_eps >= 0) || !(a->norm_eps < 1)) {
        return qn_fail(err, QN_ERR_FORMAT, "%s: norm epsilon %g is out of range", file,
                       (double)a->norm_eps);
    }
    const qn_rope_desc *r = &a->rope;
    bool rope_ok = isfinite(r->base) && r->base > 0 && isfinite(r->factor) && r->factor > 0;
    if (r->scaling == QN_ROPE_LLAMA3) {
        rope_ok = rope_ok && r->original_context > 0 && r->low_freq_factor > 0 &&
                  r->high_freq_factor > r->low_freq_factor;
    }
    if (r->scaling == QN_ROPE_YARN) {
        rope_ok = rope_ok && r->base > 1 && r->original_context > 0 && r->beta_fast > 0 &&
                  r->beta_slow > 0 && r->attention_factor >= 0 && isfinite(r->attention_factor);
    }
    return rope_ok ? QN_OK : qn_fail(err, QN_ERR_FORMAT, "%s: rope parameters are out of range",
                                     file);
}

void qn_arch_free(qn_arch *a) {
    free(a->rope.divisors);
    a->rope.divisors = NULL;
}
