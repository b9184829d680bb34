// SPDX-License-Identifier: Apache-2.0
#include "model/model.h"

#include "base/hash.h"
#include "base/os.h"
#include "model/compile.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct qn_model {
    char *path;
    qn_checkpoint files;
    qn_hf_dir *dir; // NULL for GGUF
    qn_program program;
    qn_checkpoint_tensor *tensors; // of each of the program's weights
    char *chat_template;
    qn_model_info info;
};

static void set_name(qn_model_info *info, qn_str name) {
    qn_buf shown = {0};
    if (qn_buf_visible(&shown, name.data, name.len < 100 ? name.len : 100, false) && shown.data) {
        snprintf(info->name, sizeof info->name, "%s", shown.data);
    }
    qn_buf_free(&shown);
}

static qn_str last_part(const char *path) {
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') len--;
    size_t start = len;
    while (start > 0 && path[start - 1] != '/') start--;
    return (qn_str){path + start, len - start};
}

static qn_status open_gguf(qn_model *m, qn_arch *arch, qn_error *err) {
    qn_str s;
    qn_status st = qn_gguf_open(m->path, &m->files.gguf, err);
    if (st == QN_OK) st = qn_arch_from_gguf(m->files.gguf, arch, err);
    if (st != QN_OK) return st;
    if (qn_gguf_get_str(m->files.gguf, "general.name", &s, NULL) == QN_OK && s.len > 0) {
        set_name(&m->info, s);
    }
    if (qn_gguf_get_str(m->files.gguf, "tokenizer.chat_template", &s, NULL) == QN_OK) {
        m->chat_template = strndup(s.data, s.len);
        if (!m->chat_template) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    return QN_OK;
}

static qn_status open_hf(qn_model *m, qn_arch *arch, qn_error *err) {
    qn_status st = qn_hf_dir_open(m->path, &m->dir, err);
    if (st == QN_OK) st = qn_arch_from_hf(m->dir, arch, err);
    if (st == QN_OK) st = qn_safetensors_open(m->path, &m->files.st, err);
    if (st != QN_OK) return st;
    if (m->dir->chat_template) {
        m->chat_template = strdup(m->dir->chat_template);
        if (!m->chat_template) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    return QN_OK;
}

// generation_config.json of the directory. Values that make no sense are ignored, not fatal: they are
// defaults that a request can override.
static void read_generation_config(qn_model *m) {
    const json_t *g = m->dir ? m->dir->generation_config : NULL;
    if (!json_is_object(g)) return;
    qn_model_info *info = &m->info;
    const json_t *v = json_object_get(g, "temperature");
    if (json_is_number(v) && json_number_value(v) >= 0 && json_number_value(v) <= 100) {
        info->has_temperature = true;
        info->temperature = (float)json_number_value(v);
    }
    if (json_is_false(json_object_get(g, "do_sample"))) {
        info->has_temperature = true;
        info->temperature = 0;
    }
    v = json_object_get(g, "top_k");
    if (json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= INT32_MAX) {
        info->has_top_k = true;
        info->top_k = (int32_t)json_integer_value(v);
    }
    v = json_object_get(g, "top_p");
    if (json_is_number(v) && json_number_value(v) > 0 && json_number_value(v) <= 1) {
        info->has_top_p = true;
        info->top_p = (float)json_number_value(v);
    }
    v = json_object_get(g, "min_p");
    if (json_is_number(v) && json_number_value(v) >= 0 && json_number_value(v) <= 1) {
        info->has_min_p = true;
        info->min_p = (float)json_number_value(v);
    }
    v = json_object_get(g, "repetition_penalty");
    if (json_is_number(v) && (float)json_number_value(v) > 0 && json_number_value(v) <= 100) {
        info->repetition_penalty = (float)json_number_value(v);
    }
    v = json_object_get(g, "max_new_tokens");
    if (json_is_integer(v) && json_integer_value(v) > 0 && json_integer_value(v) <= INT32_MAX) {
        info->max_new_tokens = (int32_t)json_integer_value(v);
    }
}

// Warns of tensors that no op reads, once, with an example: a sign that the file is of another family.
static void warn_extra(const qn_model *m, const qn_log *log) {
    qn_map used;
    size_t extra = 0;
    const char *example = NULL;
    if (!qn_map_init(&used, m->program.n_weights, 0)) return;
    for (size_t i = 0; i < m->program.n_weights; i++) {
        if (!qn_map_put(&used, qn_str_from(m->program.weights[i].name), 0)) {
            qn_map_free(&used);
            return;
        }
    }
    for (size_t i = 0; i < qn_checkpoint_count(&m->files); i++) {
        const char *name = qn_checkpoint_name_at(&m->files, i);
        uint32_t ignored;
        // rope_freqs is read as part of the architecture; a tied head and old rotary tables are not
        // needed.
        if (qn_map_get(&used, qn_str_from(name), &ignored) ||
            strcmp(name, "rope_freqs.weight") == 0 || strcmp(name, "lm_head.weight") == 0 ||
            strstr(name, "rotary_emb.inv_freq")) {
            continue;
        }
        extra++;
        if (!example) example = name;
    }
    if (extra) {
        qn_logf(log, QN_LOG_WARN, "%s: %zu tensors are not used by architecture %s ('%s')", m->path,
                extra, m->info.architecture, example);
    }
    qn_map_free(&used);
}

qn_status qn_model_open(const char *path, const qn_log *log, qn_model **out, qn_error *err) {
    bool is_dir = false;
    *out = NULL;
    if (!qn_os_exists(path, &is_dir)) {
        return qn_fail(err, QN_ERR_NOT_FOUND, "%s: no such file or directory", path);
    }
    qn_model *m = calloc(1, sizeof *m);
    qn_arch arch = {0};
    if (m) m->path = strdup(path);
    if (!m || !m->path) {
        free(m);
        return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    qn_status st = is_dir ? open_hf(m, &arch, err) : open_gguf(m, &arch, err);
    if (st == QN_OK) st = qn_arch_compile(&arch, &m->files, &m->program, &m->tensors, err);
    if (st == QN_OK) {
        qn_model_info *info = &m->info;
        if (!info->name[0]) set_name(info, last_part(path));
        snprintf(info->architecture, sizeof info->architecture, "%s", arch.family->name);
        info->context_length = arch.context_length;
        info->vocab_size = arch.vocab_size;
        for (size_t i = 0; i < m->program.n_weights; i++) {
            const qn_program_weight *w = &m->program.weights[i];
            info->n_params += (uint64_t)(w->n_rows * w->n_cols);
            info->weight_bytes += (uint64_t)w->n_rows * m->tensors[i].row_bytes;
        }
        read_generation_config(m);
        warn_extra(m, log);
    }
    qn_arch_free(&arch);
    if (st != QN_OK) {
        qn_model_close(m);
        return st;
    }
    *out = m;
    return QN_OK;
}

void qn_model_drop_files(qn_model *m) { qn_checkpoint_close(&m->files); }

void qn_model_close(qn_model *m) {
    if (!m) return;
    qn_checkpoint_close(&m->files);
    if (m->dir) qn_hf_dir_close(m->dir);
    qn_program_free(&m->program);
    free(m->tensors);
    free(m->chat_template);
    free(m->path);
    free(m);
}

const qn_model_info *qn_model_get_info(const qn_model *m) { return &m->info; }
const qn_program *qn_model_program(const qn_model *m) { return &m->program; }
const char *qn_model_chat_template(const qn_model *m) { return m->chat_template; }

static qn_status source_read(void *user, int32_t index, int64_t row, int64_t n_rows, void *dst,
                             qn_error *err) {
    const qn_model *m = user;
    const qn_checkpoint_tensor *t = &m->tensors[index];
    return qn_checkpoint_read(&m->files, t, row, n_rows, dst, err);
}

static void source_done(void *user, int32_t index) {
    const qn_model *m = user;
    qn_checkpoint_release(&m->files, &m->tensors[index]);
}

qn_weight_source qn_model_weights(qn_model *m) {
    return (qn_weight_source){.user = m, .read = source_read, .done = source_done};
}

qn_status qn_model_tokenizer(const qn_model *m, const qn_log *log, qn_tokenizer **out,
                             qn_error *err) {
    return m->files.gguf ? qn_tokenizer_from_gguf(m->files.gguf, log, out, err)
                         : qn_tokenizer_from_hf(m->path, log, out, err);
}
