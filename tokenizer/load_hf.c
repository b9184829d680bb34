// SPDX-License-Identifier: Apache-2.0
// A tokenizer from a Hugging Face directory: tokenizer.json, and what the files beside it say about
// special tokens.
#include "tokenizer/internal.h"

#include "base/json_tree.h"
#include "base/os.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_TOKENIZER_JSON = 512 << 20, MAX_CONFIG = 16 << 20 };

// A JSON object in dir; *out NULL where there is no such file.
static qn_status read_config(const char *dir, const char *name, json_t **out, qn_error *err) {
    char *data = NULL;
    size_t size;
    qn_buf path = {0};
    *out = NULL;
    if (!qn_buf_printf(&path, "%s/%s", dir, name))
        return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    qn_status st = QN_OK;
    bool is_dir;
    if (qn_os_exists(path.data, &is_dir) && !is_dir) {
        st = qn_os_read_file(path.data, MAX_CONFIG, &data, &size, err);
        if (st == QN_OK) {
            qn_error why = {0};
            st = qn_json_tree(data, size, out, &why);
            if (st == QN_OK && !json_is_object(*out)) {
                st = qn_fail(&why, QN_ERR_FORMAT, "not an object");
                json_decref(*out);
                *out = NULL;
            }
            if (st != QN_OK) qn_fail(err, st, "%s: %s", path.data, why.message);
            free(data);
        }
    }
    qn_buf_free(&path);
    return st;
}

// "bos_token": "<s>", or an object with the string in "content".
static int32_t token_by_name(const qn_tokenizer *t, const json_t *config, const char *key) {
    const json_t *v = json_object_get(config, key);
    if (json_is_object(v)) v = json_object_get(v, "content");
    return json_is_string(v) ? qn_vocab_find(&t->vocab, json_string_value(v), json_string_length(v))
                             : -1;
}

// "eos_token_id": 2 or [2, 5]. The first is returned (-1: none); with stops, all are end ids.
static int32_t token_by_id(qn_tokenizer *t, const json_t *config, const char *key, bool stops) {
    const json_t *v = json_object_get(config, key);
    int32_t first = -1;
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_is_array(v) ? json_array_get(v, i) : v;
        json_int_t id = json_is_integer(item) ? json_integer_value(item) : -1;
        if (id < 0 || (uint64_t)id >= t->vocab.n) continue;
        if (first < 0) first = (int32_t)id;
        if (stops) qn_tokenizer_add_stop(t, id);
    }
    return first;
}

static qn_status add_configs(qn_tokenizer *t, const char *dir, qn_error *err) {
    json_t *tok = NULL, *gen = NULL, *model = NULL;
    qn_status st = read_config(dir, "tokenizer_config.json", &tok, err);
    if (st == QN_OK) st = read_config(dir, "generation_config.json", &gen, err);
    if (st == QN_OK) st = read_config(dir, "config.json", &model, err);
    if (st == QN_OK) {
        t->bos = token_by_name(t, tok, "bos_token");
        if (t->bos < 0) t->bos = token_by_id(t, gen, "bos_token_id", false);
        if (t->bos < 0) t->bos = token_by_id(t, model, "bos_token_id", false);
        t->eos = token_by_name(t, tok, "eos_token");
        int32_t eos = token_by_id(t, gen, "eos_token_id", true);
        if (eos < 0) eos = token_by_id(t, model, "eos_token_id", true);
        if (t->eos < 0) t->eos = eos;
        // The post-processor of tokenizer.json decides; where it adds nothing, add_*_token may.
        if (t->n_prefix == 0 && t->bos >= 0 &&
            json_is_true(json_object_get(tok, "add_bos_token"))) {
            t->prefix[t->n_prefix++] = t->bos;
        }
        if (t->n_suffix == 0 && t->eos >= 0 &&
            json_is_true(json_object_get(tok, "add_eos_token"))) {
            t->suffix[t->n_suffix++] = t->eos;
        }
    }
    json_decref(tok);
    json_decref(gen);
    json_decref(model);
    return st;
}

qn_status qn_tokenizer_from_hf(const char *dir, const qn_log *log, qn_tokenizer **out,
                               qn_error *err) {
    char *data = NULL;
    size_t size;
    qn_buf path = {0};
    *out = NULL;
    if (!qn_buf_printf(&path, "%s/tokenizer.json", dir)) {
        return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    qn_status st = qn_os_read_file(path.data, MAX_TOKENIZER_JSON, &data, &size, err);
    if (st == QN_OK) {
        st = qn_tokenizer_read_json(data, size, log, out, err);
        if (st != QN_OK) qn_error_prefix(err, "%s", path.data);
        free(data);
        if (st == QN_OK) st = add_configs(*out, dir, err);
        if (st == QN_OK) st = qn_tokenizer_finish(*out, err);
    }
    if (st != QN_OK) {
        qn_tokenizer_close(*out);
        *out = NULL;
    }
    qn_buf_free(&path);
    return st;
}
