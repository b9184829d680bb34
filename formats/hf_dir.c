// SPDX-License-Identifier: Apache-2.0
#include "formats/hf_dir.h"

#include "base/os.h"
#include "formats/json_doc.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    CONFIG_LIMIT = 1 << 20,
    TOKENIZER_CONFIG_LIMIT = 4 << 20,
    TEMPLATE_LIMIT = 1 << 20,
};

static char *join(const char *dir, const char *name) {
    qn_buf path = {0};
    qn_buf_printf(&path, "%s/%s", dir, name);
    if (path.failed) qn_buf_free(&path);
    return path.data;
}

// Reads an object. An absent file leaves *out NULL, unless it is required.
static qn_status read_object(const char *dir, const char *name, size_t limit, bool required,
                             json_t **out, qn_error *err) {
    char *path = join(dir, name);
    if (!path) return qn_fail(err, QN_ERR_NOMEM, "%s: out of memory", dir);
    qn_status st = QN_OK;
    if (required || qn_os_exists(path, NULL)) {
        st = qn_json_doc_read(path, limit, out, err);
        if (st == QN_OK && !json_is_object(*out)) {
            st = qn_fail(err, QN_ERR_FORMAT, "%s: an object expected", path);
        }
    }
    free(path);
    return st;
}

// The template in tokenizer_config.json: a string, or a list of {"name", "template"}.
static const char *template_of(const json_t *tokenizer_config) {
    const json_t *t = json_object_get(tokenizer_config, "chat_template");
    if (!json_is_array(t)) return json_string_value(t);
    for (size_t i = 0; i < json_array_size(t); i++) {
        const json_t *entry = json_array_get(t, i);
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name && strcmp(name, "default") == 0) {
            return json_string_value(json_object_get(entry, "template"));
        }
    }
    return NULL;
}

static qn_status read_template(qn_hf_dir *dir, qn_error *err) {
    char *path = join(dir->path, "chat_template.jinja");
    if (!path) return qn_fail(err, QN_ERR_NOMEM, "%s: out of memory", dir->path);
    qn_status st = QN_OK;
    if (qn_os_exists(path, NULL)) {
        size_t len = 0;
        st = qn_os_read_file(path, TEMPLATE_LIMIT, &dir->chat_template, &len, err);
        if (st == QN_OK && memchr(dir->chat_template, 0, len)) {
            st = qn_fail(err, QN_ERR_FORMAT, "%s: text with a NUL byte", path);
        }
    } else {
        const char *text = template_of(dir->tokenizer_config);
        if (text) {
            dir->chat_template = strdup(text);
            if (!dir->chat_template) {
                st = qn_fail(err, QN_ERR_NOMEM, "%s: out of memory", dir->path);
            }
        }
    }
    free(path);
    return st;
}

qn_status qn_hf_dir_open(const char *path, qn_hf_dir **out, qn_error *err) {
    *out = NULL;
    bool is_dir = false;
    if (!qn_os_exists(path, &is_dir)) {
        return qn_fail(err, QN_ERR_NOT_FOUND, "%s: no such directory", path);
    }
    if (!is_dir) return qn_fail(err, QN_ERR_INVALID, "%s: not a directory", path);
    qn_hf_dir *dir = calloc(1, sizeof *dir);
    if (dir) dir->path = strdup(path);
    if (!dir || !dir->path) {
        free(dir);
        return qn_fail(err, QN_ERR_NOMEM, "%s: out of memory", path);
    }
    qn_status st = read_object(path, "config.json", CONFIG_LIMIT, true, &dir->config, err);
    if (st == QN_OK) {
        st = read_object(path, "generation_config.json", CONFIG_LIMIT, false,
                         &dir->generation_config, err);
    }
    if (st == QN_OK) {
        st = read_object(path, "tokenizer_config.json", TOKENIZER_CONFIG_LIMIT, false,
                         &dir->tokenizer_config, err);
    }
    if (st == QN_OK) st = read_template(dir, err);
    if (st != QN_OK) {
        qn_hf_dir_close(dir);
        return st;
    }
    *out = dir;
    return QN_OK;
}

void qn_hf_dir_close(qn_hf_dir *dir) {
    if (!dir) return;
    json_decref(dir->config);
    json_decref(dir->generation_config);
    json_decref(dir->tokenizer_config);
    free(dir->chat_template);
    free(dir->path);
    free(dir);
}

// QN_OK with *value NULL: absent or null, and that is allowed.
static qn_status member(const json_t *obj, const char *file, const char *key, bool required,
                        const json_t **value, qn_error *err) {
    *value = json_object_get(obj, key);
    if (json_is_null(*value)) *value = NULL;
    if (*value || !required) return QN_OK;
    return qn_fail(err, QN_ERR_NOT_FOUND, "%s: '%s' is missing", file, key);
}

qn_status qn_json_i64(const json_t *obj, const char *file, const char *key, bool required,
                      int64_t min, int64_t max, int64_t *out, qn_error *err) {
    const json_t *value;
    qn_status st = member(obj, file, key, required, &value, err);
    if (st != QN_OK || !value) return st;
    if (!json_is_integer(value)) {
        return qn_fail(err, QN_ERR_FORMAT, "%s: '%s': an integer expected", file, key);
    }
    int64_t v = json_integer_value(value);
    if (v < min || v > max) {
        return qn_fail(err, QN_ERR_FORMAT,
                       "%s: '%s': %" PRId64 " is not between %" PRId64 " and %" PRId64, file, key,
                       v, min, max);
    }
    *out = v;
    return QN_OK;
}

qn_status qn_json_f64(const json_t *obj, const char *file, const char *key, bool required,
                      double *out, qn_error *err) {
    const json_t *value;
    qn_status st = member(obj, file, key, required, &value, err);
    if (st != QN_OK || !value) return st;
    if (!json_is_number(value)) {
        return qn_fail(err, QN_ERR_FORMAT, "%s: '%s': a number expected", file, key);
    }
    double v = json_number_value(value);
    if (!isfinite(v)) {
        return qn_fail(err, QN_ERR_FORMAT, "%s: '%s': not a finite number", file, key);
    }
    *out = v;
    return QN_OK;
}

qn_status qn_json_bool(const json_t *obj, const char *file, const char *key, bool required,
                       bool *out, qn_error *err) {
    const json_t *value;
    qn_status st = member(obj, file, key, required, &value, err);
    if (st != QN_OK || !value) return st;
    if (!json_is_boolean(value)) {
        return qn_fail(err, QN_ERR_FORMAT, "%s: '%s': true or false expected", file, key);
    }
    *out = json_is_true(value);
    return QN_OK;
}
