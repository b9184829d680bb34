// SPDX-License-Identifier: Apache-2.0
#include "tools/synth.h"

#include "base/checked.h"
#include "base/os.h"
#include "formats/hf_dir.h"
#include "formats/json_doc.h"
#include "formats/shown.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_LIMIT = 1 << 20 };

// From the models' own config.json files.
static const qn_synth_shape shapes[] = {
    {.name = "qwen3-0.6b", .family = QN_SYNTH_QWEN3, .hidden = 1024, .layers = 28, .heads = 16,
     .kv_heads = 8, .head_dim = 128, .ff = 3072, .vocab = 151936, .context = 40960,
     .norm_eps = 1e-6, .rope_theta = 1e6, .tied = true},
    {.name = "qwen3-4b", .family = QN_SYNTH_QWEN3, .hidden = 2560, .layers = 36, .heads = 32,
     .kv_heads = 8, .head_dim = 128, .ff = 9728, .vocab = 151936, .context = 40960,
     .norm_eps = 1e-6, .rope_theta = 1e6, .tied = true},
    {.name = "llama-3.2-1b", .family = QN_SYNTH_LLAMA, .hidden = 2048, .layers = 16, .heads = 32,
     .kv_heads = 8, .head_dim = 64, .ff = 8192, .vocab = 128256, .context = 131072,
     .norm_eps = 1e-5, .rope_theta = 5e5, .tied = true, .rope = QN_SYNTH_ROPE_LLAMA3,
     .rope_factor = 32, .rope_low = 1, .rope_high = 4, .rope_original_context = 8192},
    {.name = "llama-3.1-8b", .family = QN_SYNTH_LLAMA, .hidden = 4096, .layers = 32, .heads = 32,
     .kv_heads = 8, .head_dim = 128, .ff = 14336, .vocab = 128256, .context = 131072,
     .norm_eps = 1e-5, .rope_theta = 5e5, .tied = false, .rope = QN_SYNTH_ROPE_LLAMA3,
     .rope_factor = 8, .rope_low = 1, .rope_high = 4, .rope_original_context = 8192},
};

const char *qn_synth_shape_name(size_t i) { return i < QN_COUNT(shapes) ? shapes[i].name : NULL; }

const char *qn_synth_architecture(qn_synth_family family) {
    switch (family) {
    case QN_SYNTH_LLAMA:
    case QN_SYNTH_MISTRAL: return "llama";
    case QN_SYNTH_QWEN2: return "qwen2";
    case QN_SYNTH_QWEN3: return "qwen3";
    }
    return "llama";
}

typedef struct config {
    const json_t *json;
    const char *file;
    qn_error *err;
    qn_status status; // of the first member that failed
} config;

// A whole number in [1, max]; absent: fallback, or an error where fallback is 0.
static uint32_t number(config *c, const char *key, uint32_t max, uint32_t fallback) {
    int64_t v = fallback;
    if (c->status == QN_OK) {
        c->status = qn_json_i64(c->json, c->file, key, fallback == 0, 1, max, &v, c->err);
    }
    return (uint32_t)v;
}

static double real(config *c, const json_t *object, const char *key, bool required,
                   double fallback) {
    double v = fallback;
    if (c->status == QN_OK) {
        c->status = qn_json_f64(object, c->file, key, required, &v, c->err);
    }
    if (c->status == QN_OK && !(v > 0 && v < 1e30)) {
        c->status = qn_fail(c->err, QN_ERR_FORMAT, "%s: '%s': a positive number expected", c->file,
                            key);
    }
    return v;
}

static bool flag(config *c, const char *key, bool fallback) {
    bool v = fallback;
    if (c->status == QN_OK) {
        c->status = qn_json_bool(c->json, c->file, key, false, &v, c->err);
    }
    return v;
}

static void read_family(config *c, qn_synth_shape *s) {
    static const struct {
        const char *name;
        qn_synth_family family;
    } families[] = {{"llama", QN_SYNTH_LLAMA},
                    {"mistral", QN_SYNTH_MISTRAL},
                    {"qwen2", QN_SYNTH_QWEN2},
                    {"qwen3", QN_SYNTH_QWEN3}};
    const char *type = json_string_value(json_object_get(c->json, "model_type"));
    for (size_t i = 0; type && i < QN_COUNT(families); i++) {
        if (strcmp(type, families[i].name) == 0) {
            s->family = families[i].family;
            snprintf(s->name, sizeof s->name, "%s", type);
            return;
        }
    }
    c->status = qn_fail(c->err, QN_ERR_UNSUPPORTED,
                        "%s: 'model_type': '%s' is not one of llama, mistral, qwen2, qwen3",
                        c->file, type ? qn_show_cstr(type).text : "");
}

// Older configs have rope_theta and rope_scaling, newer ones put both into rope_parameters.
static void read_rope(config *c, qn_synth_shape *s) {
    const json_t *rope = json_object_get(c->json, "rope_parameters");
    if (!json_is_object(rope)) rope = json_object_get(c->json, "rope_scaling");
    s->rope_theta = real(c, c->json, "rope_theta", false, 10000.0);
    if (!json_is_object(rope)) return;
    s->rope_theta = real(c, rope, "rope_theta", false, s->rope_theta);
    const char *type = json_string_value(json_object_get(rope, "rope_type"));
    if (!type) type = json_string_value(json_object_get(rope, "type"));
    if (!type || strcmp(type, "default") == 0) return;
    if (strcmp(type, "linear") == 0) {
        s->rope = QN_SYNTH_ROPE_LINEAR;
    } else if (strcmp(type, "yarn") == 0) {
        s->rope = QN_SYNTH_ROPE_YARN;
    } else if (strcmp(type, "llama3") == 0) {
        s->rope = QN_SYNTH_ROPE_LLAMA3;
    } else {
        c->status = qn_fail(c->err, QN_ERR_UNSUPPORTED,
                            "%s: 'rope_type': '%s' is not one of linear, yarn, llama3", c->file,
                            qn_show_cstr(type).text);
        return;
    }
    s->rope_factor = real(c, rope, "factor", true, 1.0);
    s->rope_low = real(c, rope, "low_freq_factor", false, 1.0);
    s->rope_high = real(c, rope, "high_freq_factor", false, 4.0);
    s->beta_fast = real(c, rope, "beta_fast", false, 32.0);
    s->beta_slow = real(c, rope, "beta_slow", false, 1.0);
    double original = real(c, rope, "original_max_position_embeddings", false, (double)s->context);
    if (c->status == QN_OK && original > (double)(1 << 30)) {
        c->status = qn_fail(c->err, QN_ERR_FORMAT, "%s: 'original_max_position_embeddings' is too "
                            "large", c->file);
        return;
    }
    s->rope_original_context = (uint32_t)original;
    if (c->status == QN_OK && s->rope == QN_SYNTH_ROPE_LLAMA3 && s->rope_high <= s->rope_low) {
        c->status = qn_fail(c->err, QN_ERR_FORMAT,
                            "%s: 'high_freq_factor' is not above 'low_freq_factor'", c->file);
    }
}

static void read_window(config *c, qn_synth_shape *s) {
    bool used = s->family == QN_SYNTH_MISTRAL;
    if (s->family == QN_SYNTH_QWEN2 || s->family == QN_SYNTH_QWEN3) {
        if (flag(c, "use_sliding_window", false)) {
            c->status = qn_fail(c->err, QN_ERR_UNSUPPORTED,
                                "%s: 'use_sliding_window': true is not supported for this family",
                                c->file);
        }
    }
    if (used && json_is_integer(json_object_get(c->json, "sliding_window"))) {
        s->window = number(c, "sliding_window", 1 << 30, 0);
    }
}

static qn_status read_config(const json_t *json, const char *file, qn_synth_shape *s,
                             qn_error *err) {
    config c = {.json = json, .file = file, .err = err};
    if (!json_is_object(json)) return qn_fail(err, QN_ERR_FORMAT, "%s: an object expected", file);
    read_family(&c, s);
    s->hidden = number(&c, "hidden_size", 1 << 17, 0);
    s->layers = number(&c, "num_hidden_layers", 1024, 0);
    s->heads = number(&c, "num_attention_heads", 4096, 0);
    s->kv_heads = number(&c, "num_key_value_heads", 4096, s->heads ? s->heads : 1);
    uint32_t head_dim = s->heads && s->hidden >= s->heads ? s->hidden / s->heads : 1;
    if (s->family == QN_SYNTH_QWEN3) head_dim = 128; // the family's default
    s->head_dim = number(&c, "head_dim", 4096, head_dim);
    s->ff = number(&c, "intermediate_size", 1 << 20, 0);
    s->vocab = number(&c, "vocab_size", 1 << 22, 0);
    s->context = number(&c, "max_position_embeddings", 1 << 30, 2048);
    s->norm_eps = real(&c, json, "rms_norm_eps", false, 1e-6);
    s->tied = flag(&c, "tie_word_embeddings", false);
    if (flag(&c, "attention_bias", false) || flag(&c, "mlp_bias", false)) {
        return qn_fail(err, QN_ERR_UNSUPPORTED,
                       "%s: 'attention_bias' and 'mlp_bias' are not supported", file);
    }
    if (c.status == QN_OK) read_rope(&c, s);
    if (c.status == QN_OK) read_window(&c, s);
    if (c.status == QN_OK && s->heads % s->kv_heads != 0) {
        c.status = qn_fail(err, QN_ERR_FORMAT,
                           "%s: 'num_attention_heads' is not a multiple of 'num_key_value_heads'",
                           file);
    }
    if (c.status == QN_OK && s->head_dim % 2 != 0) {
        c.status = qn_fail(err, QN_ERR_FORMAT, "%s: the head size %u is odd", file, s->head_dim);
    }
    return c.status;
}

static qn_status unknown_shape(const char *name, qn_error *err) {
    qn_buf known = {0};
    for (size_t i = 0; i < QN_COUNT(shapes); i++) {
        qn_buf_printf(&known, "%s%s", i ? ", " : "", shapes[i].name);
    }
    qn_status st = qn_fail(err, QN_ERR_NOT_FOUND,
                           "'%s' is neither a known shape (%s) nor a config.json", name,
                           known.data ? known.data : "");
    qn_buf_free(&known);
    return st;
}

qn_status qn_synth_shape_load(const char *name_or_path, qn_synth_shape *out, qn_error *err) {
    *out = (qn_synth_shape){0};
    for (size_t i = 0; i < QN_COUNT(shapes); i++) {
        if (strcmp(name_or_path, shapes[i].name) == 0) {
            *out = shapes[i];
            return QN_OK;
        }
    }
    bool is_dir = false;
    if (!qn_os_exists(name_or_path, &is_dir)) return unknown_shape(name_or_path, err);
    qn_buf path = {0};
    if (!qn_buf_printf(&path, is_dir ? "%s/config.json" : "%s", name_or_path)) {
        qn_buf_free(&path);
        return qn_fail(err, QN_ERR_NOMEM, "%s: out of memory", name_or_path);
    }
    json_t *json;
    qn_status st = qn_json_doc_read(path.data, CONFIG_LIMIT, &json, err);
    if (st == QN_OK) st = read_config(json, path.data, out, err);
    json_decref(json);
    qn_buf_free(&path);
    return st;
}
