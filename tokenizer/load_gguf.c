// SPDX-License-Identifier: Apache-2.0
// A tokenizer from `tokenizer.ggml.*`.
#include "tokenizer/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { GGUF_NORMAL = 1, GGUF_UNKNOWN, GGUF_CONTROL, GGUF_USER_DEFINED, GGUF_UNUSED, GGUF_BYTE };

#define KEY(name) "tokenizer.ggml." name

static uint8_t attributes(int64_t type) {
    switch (type) {
    case GGUF_UNKNOWN:
        return QN_TOKEN_UNKNOWN;
    case GGUF_CONTROL:
        return QN_TOKEN_CONTROL;
    case GGUF_USER_DEFINED:
        return QN_TOKEN_USER_DEFINED;
    case GGUF_UNUSED:
        return QN_TOKEN_UNUSED;
    case GGUF_BYTE:
        return QN_TOKEN_BYTE;
    default:
        return 0;
    }
}

static bool is_number(qn_gguf_type type) {
    return type != QN_GGUF_STRING && type != QN_GGUF_ARRAY;
}

// An array of n numbers; *kv NULL where there is none.
static qn_status number_array(const qn_gguf *g, const char *key, uint64_t n, const qn_gguf_kv **kv,
                              qn_error *err) {
    *kv = qn_gguf_find(g, key);
    if (!*kv) return QN_OK;
    if ((*kv)->type != QN_GGUF_ARRAY || !is_number((*kv)->item_type)) {
        return qn_fail(err, QN_ERR_FORMAT, "%s: %s is not an array of numbers", qn_gguf_path(g),
                       key);
    }
    if ((*kv)->count != n) {
        return qn_fail(err, QN_ERR_FORMAT, "%s: %s has %llu items for %llu tokens", qn_gguf_path(g),
                       key, (unsigned long long)(*kv)->count, (unsigned long long)n);
    }
    return QN_OK;
}

static qn_status string_array(const qn_gguf *g, const char *key, const qn_gguf_kv **kv,
                              qn_error *err) {
    *kv = qn_gguf_find(g, key);
    if (!*kv) return qn_fail(err, QN_ERR_NOT_FOUND, "%s: no %s", qn_gguf_path(g), key);
    if ((*kv)->type != QN_GGUF_ARRAY || (*kv)->item_type != QN_GGUF_STRING) {
        return qn_fail(err, QN_ERR_FORMAT, "%s: %s is not an array of strings", qn_gguf_path(g),
                       key);
    }
    return QN_OK;
}

static qn_status load_vocab(qn_tokenizer *t, const qn_gguf *g, qn_error *err) {
    const qn_gguf_kv *tokens, *types, *scores;
    qn_status st = string_array(g, KEY("tokens"), &tokens, err);
    if (st != QN_OK) return st;
    if (tokens->count == 0 || tokens->count > QN_VOCAB_MAX) {
        return qn_fail(err, QN_ERR_LIMIT, "%s: %llu tokens (1 to %d are supported)",
                       qn_gguf_path(g), (unsigned long long)tokens->count, QN_VOCAB_MAX);
    }
    st = number_array(g, KEY("token_type"), tokens->count, &types, err);
    if (st == QN_OK) st = number_array(g, KEY("scores"), tokens->count, &scores, err);
    const uint8_t *cursor = tokens->data;
    for (uint64_t i = 0; i < tokens->count && st == QN_OK; i++) {
        uint8_t attrs = types ? attributes(qn_gguf_item_i64(types, i)) : 0;
        st = qn_vocab_set(&t->vocab, i, qn_gguf_next_string(&cursor), attrs, err);
    }
    if (st != QN_OK || t->kind != QN_TOK_SPM) return st;
    if (!scores) return qn_fail(err, QN_ERR_NOT_FOUND, "%s: no " KEY("scores"), qn_gguf_path(g));
    t->vocab.scores = malloc((size_t)scores->count * sizeof *t->vocab.scores);
    if (!t->vocab.scores) return qn_fail(err, QN_ERR_NOMEM, "out of memory for the vocabulary");
    for (uint64_t i = 0; i < scores->count; i++) {
        double s = qn_gguf_item_f64(scores, i);
        t->vocab.scores[i] = isnan(s) ? -INFINITY : (float)s;
    }
    return QN_OK;
}

static qn_status load_merges(qn_tokenizer *t, const qn_gguf *g, const qn_log *log, qn_error *err) {
    const qn_gguf_kv *merges;
    qn_status st = string_array(g, KEY("merges"), &merges, err);
    if (st != QN_OK) return st;
    if (merges->count > 4u * QN_VOCAB_MAX) {
        return qn_fail(err, QN_ERR_LIMIT, "%s: %llu merges (limit %u)", qn_gguf_path(g),
                       (unsigned long long)merges->count, 4u * QN_VOCAB_MAX);
    }
    st = qn_merges_init(&t->merges, (size_t)merges->count, err);
    const uint8_t *cursor = merges->data;
    for (uint64_t i = 0; i < merges->count && st == QN_OK; i++) {
        qn_str s = qn_gguf_next_string(&cursor);
        const char *space = s.len > 1 ? memchr(s.data + 1, ' ', s.len - 1) : NULL;
        if (!space) {
            return qn_fail(err, QN_ERR_FORMAT, "%s: " KEY("merges") "[%llu] has no space",
                           qn_gguf_path(g), (unsigned long long)i);
        }
        size_t n = (size_t)(space - s.data);
        st = qn_merges_add(&t->merges, &t->vocab, (qn_str){s.data, n},
                           (qn_str){space + 1, s.len - n - 1}, err);
    }
    if (st == QN_OK && t->merges.skipped) {
        qn_logf(log, QN_LOG_DEBUG, "%s: %zu merges make no token", qn_gguf_path(g),
                t->merges.skipped);
    }
    return st;
}

// A token id; *out keeps its value where the key is missing, and is -1 where it names no token.
static qn_status get_id(const qn_tokenizer *t, const qn_gguf *g, const char *key, const qn_log *log,
                        int32_t *out, qn_error *err) {
    int64_t id;
    if (!qn_gguf_find(g, key)) {
        if (*out >= 0 && (size_t)*out >= t->vocab.n) *out = -1;
        return QN_OK;
    }
    qn_status st = qn_gguf_get_i64(g, key, &id, err);
    if (st != QN_OK) return st;
    *out = -1;
    if (id < 0 || (uint64_t)id >= t->vocab.n) {
        qn_logf(log, QN_LOG_WARN, "%s: %s is %lld, but there are %zu tokens", qn_gguf_path(g), key,
                (long long)id, t->vocab.n);
    } else {
        *out = (int32_t)id;
    }
    return QN_OK;
}

static qn_status get_flag(const qn_gguf *g, const char *key, bool *out, qn_error *err) {
    return qn_gguf_find(g, key) ? qn_gguf_get_bool(g, key, out, err) : QN_OK;
}

static qn_status load_special(qn_tokenizer *t, const qn_gguf *g, const qn_log *log, bool add_bos,
                              qn_error *err) {
    bool add_eos = false;
    int32_t eot = -1, eom = -1;
    qn_status st = get_id(t, g, KEY("bos_token_id"), log, &t->bos, err);
    if (st == QN_OK) st = get_id(t, g, KEY("eos_token_id"), log, &t->eos, err);
    if (st == QN_OK) st = get_id(t, g, KEY("unknown_token_id"), log, &t->unk, err);
    if (st == QN_OK) st = get_id(t, g, KEY("eot_token_id"), log, &eot, err);
    if (st == QN_OK) st = get_id(t, g, KEY("eom_token_id"), log, &eom, err);
    if (st == QN_OK) st = get_flag(g, KEY("add_bos_token"), &add_bos, err);
    if (st == QN_OK) st = get_flag(g, KEY("add_eos_token"), &add_eos, err);
    if (st != QN_OK) return st;
    if (t->eos >= 0) qn_tokenizer_add_stop(t, t->eos);
    qn_tokenizer_add_stop(t, eot);
    qn_tokenizer_add_stop(t, eom);
    if (add_bos && t->bos >= 0) t->prefix[t->n_prefix++] = t->bos;
    if (add_eos && t->eos >= 0) t->suffix[t->n_suffix++] = t->eos;
    return QN_OK;
}

static bool names_phi3(qn_str name) {
    for (size_t i = 0; i + 4 <= name.len; i++) {
        const char *p = name.data + i;
        bool phi = (p[0] | 32) == 'p' && (p[1] | 32) == 'h' && (p[2] | 32) == 'i';
        if (phi && (p[3] == '3' || (p[3] == '-' && i + 4 < name.len && p[4] == '3'))) return true;
    }
    return false;
}

// Phi-3's special tokens swallow the white space behind them, which GGUF has no key for: the models
// are known by their name.
static qn_status phi3_tokens(qn_tokenizer *t, const qn_gguf *g, qn_error *err) {
    static const char *const without[] = {"<unk>", "<s>", "<|endoftext|>"};
    qn_str name;
    if (qn_gguf_get_str(g, "general.name", &name, NULL) != QN_OK || !names_phi3(name)) return QN_OK;
    for (size_t id = 0; id < t->vocab.n; id++) {
        qn_str s = qn_vocab_text(&t->vocab, id);
        bool strips = (t->vocab.attrs[id] & QN_TOKEN_CONTROL) || qn_str_is(s, "</s>");
        for (size_t k = 0; k < 3; k++)
            strips = strips && !qn_str_is(s, without[k]);
        if (strips && !qn_added_push(&t->added, (qn_added){.id = (int32_t)id, .rstrip = true})) {
            return qn_fail(err, QN_ERR_NOMEM, "out of memory for the added tokens");
        }
    }
    return QN_OK;
}

static qn_status load_bpe(qn_tokenizer *t, const qn_gguf *g, const qn_log *log, bool *add_bos,
                          qn_error *err) {
    qn_str pre = QN_STR("default");
    qn_status st = QN_OK;
    t->byte_level = true;
    if (qn_gguf_find(g, KEY("pre"))) {
        st = qn_gguf_get_str(g, KEY("pre"), &pre, err);
    } else {
        qn_logf(log, QN_LOG_WARN, "%s: no " KEY("pre") ": the default pre-tokenizer is taken",
                qn_gguf_path(g));
    }
    if (st == QN_OK) {
        st = qn_pre_by_name(&t->pre, pre, &t->ignore_merges, add_bos, err);
        if (st != QN_OK) qn_error_prefix(err, "%s", qn_gguf_path(g));
    }
    if (st != QN_OK) return st;
    snprintf(t->kind_name, sizeof t->kind_name, "bpe (%.*s)", (int)pre.len, pre.data);
    // Qwen's tokenizer composes text first (its tokenizer.json has an NFC normalizer).
    if (qn_str_is(pre, "qwen2") || qn_str_is(pre, "qwen35")) {
        st = qn_norm_add(&t->norm, QN_NORM_NFC, false, QN_STR(""), QN_STR(""), err);
    }
    return st == QN_OK ? load_merges(t, g, log, err) : st;
}

static qn_status load_spm(qn_tokenizer *t, const qn_gguf *g, bool *add_bos, qn_error *err) {
    bool prefix = true;
    qn_str mark = QN_STR(QN_SPACE_MARK);
    *add_bos = true;
    t->bos = 1;
    t->eos = 2;
    t->unk = 0;
    snprintf(t->kind_name, sizeof t->kind_name, "spm");
    qn_status st = get_flag(g, KEY("add_space_prefix"), &prefix, err);
    t->strip_first = prefix;
    if (st == QN_OK && prefix) st = qn_norm_add(&t->norm, QN_NORM_PREPEND, false, mark, mark, err);
    if (st == QN_OK) st = qn_norm_add(&t->norm, QN_NORM_REPLACE, false, QN_STR(" "), mark, err);
    if (st == QN_OK && qn_tokenizer_words_end_at_space(t)) st = qn_pre_add_wordstart(&t->pre, err);
    return st;
}

qn_status qn_tokenizer_from_gguf(const qn_gguf *g, const qn_log *log, qn_tokenizer **out,
                                 qn_error *err) {
    qn_str model;
    bool add_bos = false;
    *out = NULL;
    qn_status st = qn_gguf_get_str(g, KEY("model"), &model, err);
    if (st != QN_OK) return st;
    qn_tokenizer *t = qn_tokenizer_new(err);
    if (!t) return QN_ERR_NOMEM;
    if (qn_str_is(model, "llama")) {
        t->kind = QN_TOK_SPM;
    } else if (qn_str_is(model, "gpt2")) {
        t->kind = QN_TOK_BPE;
    } else {
        qn_buf shown = {0};
        qn_buf_visible(&shown, model.data, model.len < 40 ? model.len : 40, false);
        st = qn_fail(err, QN_ERR_UNSUPPORTED,
                     "%s: " KEY("model") " is '%s'; supported are gpt2 (BPE) and llama (SPM)",
                     qn_gguf_path(g), shown.data ? shown.data : "");
        qn_buf_free(&shown);
    }
    if (st == QN_OK) st = load_vocab(t, g, err);
    if (st == QN_OK) st = qn_vocab_index(&t->vocab, err);
    if (st == QN_OK) {
        st = t->kind == QN_TOK_BPE ? load_bpe(t, g, log, &add_bos, err)
                                   : load_spm(t, g, &add_bos, err);
    }
    if (st == QN_OK) st = load_special(t, g, log, add_bos, err);
    if (st == QN_OK) st = phi3_tokens(t, g, err);
    if (st == QN_OK) st = qn_tokenizer_finish(t, err);
    if (st != QN_OK) {
        qn_tokenizer_close(t);
        return st;
    }
    *out = t;
    return QN_OK;
}
