// SPDX-License-Identifier: Apache-2.0
// A tokenizer from the bytes of a Hugging Face tokenizer.json. The file is walked once; vocabulary
// and merges (all but its whole size) go straight from the pull reader into the tables.
#include "tokenizer/internal.h"

#include "base/json_reader.h"
#include "base/json_tree.h"
#include "base/utf8.h"
#include "tokenizer/json_parts.h"

#include <stdio.h>
#include <stdlib.h>

enum { MAX_PART = 4 << 20 }; // bytes of a component that is parsed as a tree

typedef struct part {
    const char *data; // NULL: absent
    size_t len;
} part;

typedef struct added_token {
    qn_str content; // owned
    size_t id;
    bool special, lstrip, rstrip, single_word;
} added_token;

typedef struct loader {
    qn_tokenizer *t;
    const qn_log *log;
    part normalizer, pre_tokenizer, decoder, post_processor, added, model;
    part vocab, merges;
    added_token *tokens;
    size_t n_tokens, cap_tokens;
    char unk[256];
    size_t unk_len;
    bool have_unk;
    qn_error *err;
} loader;

static qn_status bad(loader *l, const char *what) {
    return qn_fail(l->err, QN_ERR_FORMAT, "%s", what);
}

// Behind a KEY: where the value lies. It is skipped.
static qn_status take_part(qn_json_reader *r, part *out, qn_error *err) {
    const char *start = r->p;
    qn_status st = qn_json_skip(r, err);
    *out = (part){start, (size_t)(r->p - start)};
    return st;
}

static qn_status parse_tree(loader *l, const part *p, const char *name, json_t **out) {
    *out = NULL;
    if (!p->data) return QN_OK;
    if (p->len > MAX_PART) {
        return qn_fail(l->err, QN_ERR_LIMIT, "'%s' has %zu bytes (limit %d)", name, p->len,
                       MAX_PART);
    }
    qn_error why = {0};
    qn_status st = qn_json_tree(p->data, p->len, out, &why);
    return st == QN_OK ? st : qn_fail(l->err, st, "'%s': %s", name, why.message);
}

static qn_status whole_number(loader *l, const qn_json_reader *r, size_t *out) {
    if (r->kind != QN_JSON_NUMBER || r->text.len == 0 || r->text.len > 9) {
        return bad(l, "a token id is not a number in range");
    }
    size_t v = 0;
    for (size_t i = 0; i < r->text.len; i++) {
        if (r->text.data[i] < '0' || r->text.data[i] > '9') {
            return bad(l, "a token id is not a whole number");
        }
        v = v * 10 + (size_t)(r->text.data[i] - '0');
    }
    if (v >= QN_VOCAB_MAX) {
        return qn_fail(l->err, QN_ERR_LIMIT, "token id %zu is above the limit of %d", v,
                       QN_VOCAB_MAX);
    }
    *out = v;
    return QN_OK;
}

static bool copy_str(qn_str s, qn_str *out) {
    char *copy = malloc(s.len + 1);
    if (!copy) return false;
    if (s.len) memcpy(copy, s.data, s.len);
    free((char *)(uintptr_t)out->data);
    *out = (qn_str){copy, s.len};
    return true;
}

static qn_status read_added_token(loader *l, qn_json_reader *r) {
    if (!qn_grow(&l->tokens, &l->cap_tokens, l->n_tokens + 1, sizeof *l->tokens)) {
        return qn_fail(l->err, QN_ERR_NOMEM, "out of memory for the added tokens");
    }
    added_token *a = &l->tokens[l->n_tokens++];
    *a = (added_token){.id = SIZE_MAX};
    for (;;) {
        qn_status st = qn_json_next(r, l->err);
        if (st != QN_OK) return st;
        if (r->kind == QN_JSON_OBJECT_END) break;
        char key[16] = "";
        if (r->text.len < sizeof key) memcpy(key, r->text.data, r->text.len);
        bool *flag = !strcmp(key, "special")       ? &a->special
                     : !strcmp(key, "lstrip")      ? &a->lstrip
                     : !strcmp(key, "rstrip")      ? &a->rstrip
                     : !strcmp(key, "single_word") ? &a->single_word
                                                   : NULL;
        bool is_id = !strcmp(key, "id"), is_content = !strcmp(key, "content");
        if (!flag && !is_id && !is_content) {
            st = qn_json_skip(r, l->err);
            if (st != QN_OK) return st;
            continue;
        }
        st = qn_json_next(r, l->err);
        if (st != QN_OK) return st;
        if (is_id) {
            st = whole_number(l, r, &a->id);
            if (st != QN_OK) return st;
        } else if (is_content) {
            if (r->kind != QN_JSON_STRING) return bad(l, "an added token's content is no string");
            if (!copy_str(r->text, &a->content)) {
                return qn_fail(l->err, QN_ERR_NOMEM, "out of memory for the added tokens");
            }
        } else if (r->kind == QN_JSON_TRUE || r->kind == QN_JSON_FALSE) {
            *flag = r->kind == QN_JSON_TRUE;
        } else {
            return bad(l, "an added token's flag is not true or false");
        }
    }
    if (a->id == SIZE_MAX || a->content.len == 0) {
        return bad(l, "an added token without id or content");
    }
    return QN_OK;
}

static qn_status read_added_tokens(loader *l) {
    qn_json_reader r;
    if (!l->added.data) return QN_OK;
    qn_json_open(&r, l->added.data, l->added.len);
    qn_status st = qn_json_next(&r, l->err);
    if (st == QN_OK && r.kind == QN_JSON_NULL) goto done;
    if (st == QN_OK && r.kind != QN_JSON_ARRAY_BEGIN) st = bad(l, "added_tokens is not an array");
    while (st == QN_OK) {
        st = qn_json_next(&r, l->err);
        if (st != QN_OK || r.kind == QN_JSON_ARRAY_END) break;
        st = r.kind == QN_JSON_OBJECT_BEGIN ? read_added_token(l, &r)
                                            : bad(l, "an added token is not an object");
    }
done:
    qn_json_close(&r);
    return st;
}

static qn_status read_vocab(loader *l) {
    qn_json_reader r;
    qn_vocab *v = &l->t->vocab;
    if (!l->vocab.data) return bad(l, "the model has no vocab");
    qn_json_open(&r, l->vocab.data, l->vocab.len);
    qn_status st = qn_json_next(&r, l->err);
    if (st == QN_OK && r.kind == QN_JSON_ARRAY_BEGIN) {
        st = qn_fail(l->err, QN_ERR_UNSUPPORTED, "model type 'Unigram' is not supported (BPE is)");
    }
    if (st == QN_OK && r.kind != QN_JSON_OBJECT_BEGIN) st = bad(l, "vocab is not an object");
    while (st == QN_OK) {
        st = qn_json_next(&r, l->err);
        if (st != QN_OK || r.kind == QN_JSON_OBJECT_END) break;
        // The text is gone with the next token: it is put at the end of the strings first.
        size_t at = v->bytes.len, len = r.text.len, id;
        if (len > UINT32_MAX || at > UINT32_MAX - len ||
            !qn_buf_append(&v->bytes, r.text.data, len)) {
            st = qn_fail(l->err, QN_ERR_NOMEM, "out of memory for the vocabulary");
            break;
        }
        st = qn_json_next(&r, l->err);
        if (st == QN_OK) st = whole_number(l, &r, &id);
        if (st == QN_OK) st = qn_vocab_put(v, id, at, len, 0, l->err);
    }
    qn_json_close(&r);
    return st;
}

static qn_status apply_added(loader *l) {
    qn_vocab *v = &l->t->vocab;
    for (size_t i = 0; i < l->n_tokens; i++) {
        const added_token *a = &l->tokens[i];
        uint8_t attrs = a->special ? QN_TOKEN_CONTROL : QN_TOKEN_USER_DEFINED;
        if (a->id < v->n && v->place[a->id].len > 0) {
            if (!qn_str_eq(qn_vocab_text(v, a->id), a->content)) {
                return qn_fail(l->err, QN_ERR_FORMAT,
                               "added token %zu is another string in the vocabulary", a->id);
            }
            v->attrs[a->id] = attrs;
        } else {
            qn_status st = qn_vocab_set(v, a->id, a->content, attrs, l->err);
            if (st != QN_OK) return st;
        }
        qn_added item = {.id = (int32_t)a->id,
                         .lstrip = a->lstrip,
                         .rstrip = a->rstrip,
                         .single_word = a->single_word};
        if (!qn_added_push(&l->t->added, item)) {
            return qn_fail(l->err, QN_ERR_NOMEM, "out of memory for the added tokens");
        }
    }
    return QN_OK;
}

// ["a", "b"]; the begin has been read.
static qn_status merge_pair(loader *l, qn_json_reader *r) {
    char left[QN_TOK_MAX_PIECE];
    qn_status st = qn_json_next(r, l->err);
    if (st == QN_OK && r->kind != QN_JSON_STRING) return bad(l, "a merge is not two strings");
    if (st != QN_OK) return st;
    size_t n = r->text.len;
    bool fits = n <= sizeof left;
    if (fits && n) memcpy(left, r->text.data, n);
    st = qn_json_next(r, l->err);
    if (st == QN_OK && r->kind != QN_JSON_STRING) return bad(l, "a merge is not two strings");
    if (st == QN_OK) {
        st = qn_merges_add(&l->t->merges, &l->t->vocab, (qn_str){left, fits ? n : 0}, r->text,
                           l->err);
    }
    if (st == QN_OK) st = qn_json_next(r, l->err);
    if (st == QN_OK && r->kind != QN_JSON_ARRAY_END) return bad(l, "a merge is not two strings");
    return st;
}

static qn_status read_merges(loader *l) {
    qn_json_reader r;
    if (!l->merges.data) return bad(l, "the model has no merges");
    // A merge takes 7 bytes at least ("a b",): a bound for the first guess.
    size_t guess = l->merges.len / 24;
    qn_status st =
        qn_merges_init(&l->t->merges, guess < QN_VOCAB_MAX ? guess : QN_VOCAB_MAX, l->err);
    if (st != QN_OK) return st;
    qn_json_open(&r, l->merges.data, l->merges.len);
    st = qn_json_next(&r, l->err);
    if (st == QN_OK && r.kind != QN_JSON_ARRAY_BEGIN) st = bad(l, "merges is not an array");
    while (st == QN_OK) {
        st = qn_json_next(&r, l->err);
        if (st != QN_OK || r.kind == QN_JSON_ARRAY_END) break;
        if (l->t->merges.next_rank >= 4u * QN_VOCAB_MAX) {
            st = qn_fail(l->err, QN_ERR_LIMIT, "more than %u merges", 4u * QN_VOCAB_MAX);
        } else if (r.kind == QN_JSON_ARRAY_BEGIN) {
            st = merge_pair(l, &r);
        } else if (r.kind == QN_JSON_STRING) {
            const char *space = r.text.len ? memchr(r.text.data, ' ', r.text.len) : NULL;
            if (!space) {
                st = bad(l, "a merge without a space");
                break;
            }
            size_t n = (size_t)(space - r.text.data);
            st = qn_merges_add(&l->t->merges, &l->t->vocab, (qn_str){r.text.data, n},
                               (qn_str){space + 1, r.text.len - n - 1}, l->err);
        } else {
            st = bad(l, "a merge is not a string or a pair");
        }
    }
    qn_json_close(&r);
    if (st == QN_OK && l->t->merges.skipped) {
        qn_logf(l->log, QN_LOG_DEBUG, "tokenizer.json: %zu merges make no token",
                l->t->merges.skipped);
    }
    return st;
}

static qn_status read_bool(loader *l, qn_json_reader *r, bool *out) {
    qn_status st = qn_json_next(r, l->err);
    if (st != QN_OK) return st;
    if (r->kind == QN_JSON_NULL) return QN_OK;
    if (r->kind != QN_JSON_TRUE && r->kind != QN_JSON_FALSE) {
        return bad(l, "a flag of the model is not true or false");
    }
    *out = r->kind == QN_JSON_TRUE;
    return QN_OK;
}

static qn_status model_member(loader *l, qn_json_reader *r) {
    char key[32] = "";
    if (r->text.len < sizeof key) memcpy(key, r->text.data, r->text.len);
    if (!strcmp(key, "vocab")) return take_part(r, &l->vocab, l->err);
    if (!strcmp(key, "merges")) return take_part(r, &l->merges, l->err);
    if (!strcmp(key, "fuse_unk")) return read_bool(l, r, &l->t->fuse_unk);
    if (!strcmp(key, "byte_fallback")) return read_bool(l, r, &l->t->byte_fallback);
    if (!strcmp(key, "ignore_merges")) return read_bool(l, r, &l->t->ignore_merges);
    bool affix = !strcmp(key, "continuing_subword_prefix") || !strcmp(key, "end_of_word_suffix");
    bool dropout = !strcmp(key, "dropout"), unk = !strcmp(key, "unk_token");
    bool type = !strcmp(key, "type");
    if (!affix && !dropout && !unk && !type) return qn_json_skip(r, l->err);
    qn_status st = qn_json_next(r, l->err);
    if (st != QN_OK) return st;
    if (r->kind == QN_JSON_OBJECT_BEGIN || r->kind == QN_JSON_ARRAY_BEGIN) {
        return bad(l, "a setting of the model is a container");
    }
    if (type && !(r->kind == QN_JSON_STRING && qn_str_is(r->text, "BPE"))) {
        qn_buf shown = {0};
        qn_buf_visible(&shown, r->text.data, r->text.len < 40 ? r->text.len : 40, false);
        st = qn_fail(l->err, QN_ERR_UNSUPPORTED, "model type '%s' is not supported (BPE is)",
                     shown.data ? shown.data : "");
        qn_buf_free(&shown);
    } else if (affix && r->kind == QN_JSON_STRING && r->text.len > 0) {
        st = qn_fail(l->err, QN_ERR_UNSUPPORTED, "model: %s is not supported", key);
    } else if (dropout && r->kind == QN_JSON_NUMBER && r->number != 0) {
        st = qn_fail(l->err, QN_ERR_UNSUPPORTED, "model: dropout is not supported");
    } else if (unk && r->kind == QN_JSON_STRING) {
        if (r->text.len > sizeof l->unk) return bad(l, "unk_token is too long");
        memcpy(l->unk, r->text.data, r->text.len);
        l->unk_len = r->text.len;
        l->have_unk = true;
    }
    return st;
}

static qn_status walk(loader *l, const char *data, size_t len) {
    qn_json_reader r;
    bool in_model = false, saw_model = false;
    qn_json_open(&r, data, len);
    qn_status st = qn_json_next(&r, l->err);
    if (st == QN_OK && r.kind != QN_JSON_OBJECT_BEGIN) st = bad(l, "not an object");
    while (st == QN_OK) {
        st = qn_json_next(&r, l->err);
        if (st != QN_OK || r.kind == QN_JSON_END) break;
        if (r.kind == QN_JSON_OBJECT_END) {
            in_model = false;
            continue;
        }
        if (in_model) {
            st = model_member(l, &r);
            continue;
        }
        const struct {
            const char *name;
            part *out;
        } parts[] = {{"normalizer", &l->normalizer},
                     {"pre_tokenizer", &l->pre_tokenizer},
                     {"decoder", &l->decoder},
                     {"post_processor", &l->post_processor},
                     {"added_tokens", &l->added}};
        part other, *out = &other;
        for (size_t i = 0; i < 5; i++) {
            if (qn_str_is(r.text, parts[i].name)) out = parts[i].out;
        }
        if (out == &other && qn_str_is(r.text, "model")) {
            st = qn_json_next(&r, l->err);
            if (st == QN_OK && r.kind != QN_JSON_OBJECT_BEGIN) st = bad(l, "model is no object");
            in_model = saw_model = true;
            continue;
        }
        st = take_part(&r, out, l->err);
    }
    qn_json_close(&r);
    return st == QN_OK && !saw_model ? bad(l, "no model") : st;
}

typedef qn_status (*tree_fn)(qn_tokenizer *t, const json_t *tree, qn_error *err);

static qn_status component(loader *l, const part *p, const char *name, tree_fn fn) {
    json_t *tree;
    qn_status st = parse_tree(l, p, name, &tree);
    if (st == QN_OK) st = fn(l->t, tree, l->err);
    json_decref(tree);
    return st;
}

static void name_kind(qn_tokenizer *t) {
    const qn_pre_stage *s = &t->pre.stages[0];
    const char *name = "pattern";
    if (!t->byte_level)
        name = "metaspace";
    else if (t->pre.n == 1 && s->kind == QN_PRE_GPT2)
        name = "gpt-2";
    else if (t->pre.n == 1 && s->kind == QN_PRE_CL100K)
        name = s->max_digits == 1 ? "qwen2" : "llama-bpe";
    snprintf(t->kind_name, sizeof t->kind_name, "bpe (%s)", name);
}

static qn_status build(loader *l) {
    qn_tokenizer *t = l->t;
    qn_status st = component(l, &l->normalizer, "normalizer", qn_json_normalizer);
    if (st == QN_OK) {
        st = component(l, &l->pre_tokenizer, "pre_tokenizer", qn_json_pre_tokenizer);
    }
    if (st == QN_OK) st = component(l, &l->decoder, "decoder", qn_json_decoder);
    if (st == QN_OK) st = read_added_tokens(l);
    if (st == QN_OK) st = read_vocab(l);
    if (st == QN_OK) st = apply_added(l);
    if (st == QN_OK && t->vocab.n == 0) st = bad(l, "the vocabulary is empty");
    if (st == QN_OK) st = qn_vocab_index(&t->vocab, l->err);
    if (st == QN_OK) st = read_merges(l);
    if (st == QN_OK && l->have_unk) {
        t->unk = qn_vocab_find(&t->vocab, l->unk, l->unk_len);
        if (t->unk < 0) st = bad(l, "unk_token is not in the vocabulary");
    }
    if (st == QN_OK) {
        st = component(l, &l->post_processor, "post_processor", qn_json_post_processor);
    }
    if (st == QN_OK && !t->byte_level && qn_tokenizer_words_end_at_space(t)) {
        st = qn_pre_add_wordstart(&t->pre, l->err);
    }
    name_kind(t);
    return st;
}

qn_status qn_tokenizer_read_json(const char *data, size_t len, const qn_log *log,
                                 qn_tokenizer **out, qn_error *err) {
    *out = NULL;
    loader l = {.log = log, .err = err, .t = qn_tokenizer_new(err)};
    if (!l.t) return QN_ERR_NOMEM;
    l.t->kind = QN_TOK_BPE;
    qn_status st = walk(&l, data, len);
    if (st == QN_OK) st = build(&l);
    for (size_t i = 0; i < l.n_tokens; i++)
        free((char *)(uintptr_t)l.tokens[i].content.data);
    free(l.tokens);
    if (st != QN_OK) {
        qn_tokenizer_close(l.t);
        return st;
    }
    *out = l.t;
    return QN_OK;
}

qn_status qn_tokenizer_from_json_memory(const char *data, size_t len, const qn_log *log,
                                        qn_tokenizer **out, qn_error *err) {
    qn_status st = qn_tokenizer_read_json(data, len, log, out, err);
    if (st == QN_OK) st = qn_tokenizer_finish(*out, err);
    if (st != QN_OK) {
        qn_tokenizer_close(*out);
        *out = NULL;
    }
    return st;
}
