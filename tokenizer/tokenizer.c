// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/internal.h"

#include "base/checked.h"
#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>

// Tokens that end a turn or a text in the families we know, where they are control tokens.
static const char *const end_names[] = {
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "</s>",
    "<|end_of_text|>",
    "<|eot|>",
    "<|END_OF_TURN_TOKEN|>",
    "<\uFF5Cend\u2581of\u2581sentence\uFF5C>",
};

qn_tokenizer *qn_tokenizer_new(qn_error *err) {
    qn_tokenizer *t = calloc(1, sizeof *t);
    if (!t) {
        qn_fail(err, QN_ERR_NOMEM, "out of memory for a tokenizer");
        return NULL;
    }
    t->bos = t->eos = t->unk = -1;
    for (size_t i = 0; i < 256; i++)
        t->byte_id[i] = -1;
    return t;
}

void qn_tokenizer_close(qn_tokenizer *t) {
    if (!t) return;
    qn_vocab_free(&t->vocab);
    qn_merges_free(&t->merges);
    qn_pre_free(&t->pre);
    free(t->added.items);
    free(t);
}

void qn_tokenizer_add_stop(qn_tokenizer *t, int64_t id) {
    if (id < 0 || (uint64_t)id >= t->vocab.n || t->n_stop == QN_TOK_MAX_STOP) return;
    for (size_t i = 0; i < t->n_stop; i++) {
        if (t->stop[i] == id) return;
    }
    t->stop[t->n_stop++] = (int32_t)id;
}

// The GPT-2 alphabet: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and on.
uint32_t qn_byte_char(uint8_t b) {
    if ((b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae) return b;
    if (b <= 0x20) return 0x100u + b;
    if (b <= 0xa0) return 0x100u + 33 + (b - 0x7fu);
    return 0x100u + 67; // 0xad
}

int qn_char_byte(uint32_t cp) {
    if (cp < 0x100) return qn_byte_char((uint8_t)cp) == cp ? (int)cp : -1;
    if (cp <= 0x120) return (int)(cp - 0x100);
    if (cp <= 0x142) return (int)(cp - 0x121 + 0x7f);
    return cp == 0x143 ? 0xad : -1;
}

static void fill_byte_table(qn_tokenizer *t) {
    const uint8_t no = QN_TOKEN_CONTROL | QN_TOKEN_UNKNOWN;
    for (unsigned b = 0; b < 256; b++) {
        char key[8];
        size_t n = t->byte_level ? qn_utf8_encode(qn_byte_char((uint8_t)b), key)
                                 : (size_t)snprintf(key, sizeof key, "<0x%02X>", b);
        int32_t id = qn_vocab_find(&t->vocab, key, n);
        if (id < 0 || (t->vocab.attrs[id] & no)) continue;
        if (!t->byte_level) t->vocab.attrs[id] = QN_TOKEN_BYTE;
        t->byte_id[b] = id;
    }
}

static qn_status add_by_attributes(qn_tokenizer *t, qn_error *err) {
    const uint8_t added = QN_TOKEN_CONTROL | QN_TOKEN_USER_DEFINED | QN_TOKEN_UNKNOWN;
    uint8_t *seen = calloc(1, t->vocab.n + 1);
    if (!seen) return qn_fail(err, QN_ERR_NOMEM, "out of memory for the added tokens");
    bool ok = true;
    for (size_t i = 0; i < t->added.n; i++) {
        qn_added *a = &t->added.items[i];
        seen[a->id] = 1;
        a->control = !(t->vocab.attrs[a->id] & QN_TOKEN_USER_DEFINED);
    }
    for (size_t id = 0; id < t->vocab.n && ok; id++) {
        if (seen[id] || !(t->vocab.attrs[id] & added)) continue;
        bool control = !(t->vocab.attrs[id] & QN_TOKEN_USER_DEFINED);
        ok = qn_added_push(&t->added, (qn_added){.id = (int32_t)id, .control = control});
    }
    free(seen);
    if (!ok) return qn_fail(err, QN_ERR_NOMEM, "out of memory for the added tokens");
    return qn_added_sort(&t->added, &t->vocab, err);
}

qn_status qn_tokenizer_finish(qn_tokenizer *t, qn_error *err) {
    qn_vocab *v = &t->vocab;
    if (t->bos < 0 && t->n_prefix > 0) t->bos = t->prefix[0];
    if (t->eos >= 0) qn_tokenizer_add_stop(t, t->eos);
    for (size_t i = 0; i < QN_COUNT(end_names); i++) {
        int32_t id = qn_vocab_find(v, end_names[i], strlen(end_names[i]));
        if (id >= 0 && (v->attrs[id] & QN_TOKEN_CONTROL)) qn_tokenizer_add_stop(t, id);
    }
    // What ends or begins a text must not come out of a user's words.
    for (size_t i = 0; i < t->n_stop; i++)
        v->attrs[t->stop[i]] = QN_TOKEN_CONTROL;
    if (t->bos >= 0) v->attrs[t->bos] = QN_TOKEN_CONTROL;
    fill_byte_table(t);
    return add_by_attributes(t, err);
}

bool qn_tokenizer_words_end_at_space(const qn_tokenizer *t) {
    const uint8_t no = QN_TOKEN_CONTROL | QN_TOKEN_UNKNOWN | QN_TOKEN_USER_DEFINED;
    const qn_vocab *v = &t->vocab;
    // Without a token of its own the mark might become one unknown with what is before it.
    if (t->fuse_unk && qn_vocab_find(v, QN_SPACE_MARK, 3) < 0) return false;
    for (size_t id = 0; id < v->n; id++) {
        if (v->attrs[id] & no) continue;
        qn_str s = qn_vocab_text(v, id);
        while (s.len >= 3 && memcmp(s.data, QN_SPACE_MARK, 3) == 0) {
            s.data += 3;
            s.len -= 3;
        }
        if (s.len && memmem(s.data, s.len, QN_SPACE_MARK, 3)) return false;
    }
    return true;
}

int32_t qn_tokenizer_size(const qn_tokenizer *t) {
    return (int32_t)t->vocab.n;
}

qn_str qn_tokenizer_token(const qn_tokenizer *t, int32_t id) {
    if (id < 0 || (size_t)id >= t->vocab.n) return (qn_str){"", 0};
    return qn_vocab_text(&t->vocab, (size_t)id);
}

uint32_t qn_tokenizer_attrs(const qn_tokenizer *t, int32_t id) {
    return id < 0 || (size_t)id >= t->vocab.n ? 0 : t->vocab.attrs[id];
}

int32_t qn_tokenizer_find(const qn_tokenizer *t, qn_str token) {
    return qn_vocab_find(&t->vocab, token.data, token.len);
}

int32_t qn_tokenizer_bos(const qn_tokenizer *t) {
    return t->bos;
}
int32_t qn_tokenizer_eos(const qn_tokenizer *t) {
    return t->eos;
}

bool qn_tokenizer_add_bos(const qn_tokenizer *t) {
    return t->n_prefix > 0 && t->bos >= 0 && t->prefix[0] == t->bos;
}

size_t qn_tokenizer_stop_ids(const qn_tokenizer *t, const int32_t **ids) {
    *ids = t->stop;
    return t->n_stop;
}

const char *qn_tokenizer_kind(const qn_tokenizer *t) {
    return t->kind_name;
}
