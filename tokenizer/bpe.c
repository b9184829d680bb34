// SPDX-License-Identifier: Apache-2.0
// One word to ids: BPE by merge rank, and SPM by score. Both join the best neighbours until none
// can be joined; they differ in where a pair's key comes from.
//
// Invariants:
// 1. Symbols are a linked list in text order; a joined right part has len 0 and is unlinked.
// 2. Every pair of neighbours that can be joined is in the heap. An entry is stale when one of its
//    two has changed; lengths only grow, so the sum of lengths tells.
// 3. Ties go to the leftmost pair.
#include "tokenizer/internal.h"

#include "base/utf8.h"

enum { NONE = UINT32_MAX, SHORT_WORD = 24 };

static qn_status no_memory(qn_tok_work *w) {
    return qn_fail(w->err, QN_ERR_NOMEM, "out of memory while tokenizing");
}

static bool push_symbol(qn_tok_work *w, size_t start, size_t len, int32_t id) {
    if (!qn_grow(&w->symbols, &w->cap_symbols, w->n_symbols + 1, sizeof *w->symbols)) return false;
    w->symbols[w->n_symbols++] =
        (qn_symbol){.start = (uint32_t)start, .len = (uint32_t)len, .id = id};
    return true;
}

// Floats in order as unsigned integers, the largest first.
static uint32_t score_key(float score) {
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    uint32_t up = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return ~up;
}

// The pair (a, b) as a heap entry; false where they cannot be joined.
static bool find_pair(const qn_tokenizer *t, const char *s, const qn_symbol *a, const qn_symbol *b,
                      qn_pair *pair) {
    uint32_t len = a->len + b->len;
    if (t->kind == QN_TOK_BPE) {
        if (a->id < 0 || b->id < 0) return false;
        const qn_merge *m = qn_merges_get(&t->merges, (uint32_t)a->id, (uint32_t)b->id);
        if (!m) return false;
        pair->key = m->rank;
        pair->id = m->id;
    } else {
        if (len > QN_TOK_MAX_PIECE) return false;
        int32_t id = qn_vocab_find(&t->vocab, s + a->start, len);
        if (id < 0) return false;
        if (t->vocab.attrs[id] & (QN_TOKEN_CONTROL | QN_TOKEN_UNKNOWN | QN_TOKEN_BYTE))
            return false;
        pair->key = score_key(t->vocab.scores ? t->vocab.scores[id] : 0.0f);
        pair->id = (uint32_t)id;
    }
    pair->len = len;
    return true;
}

// ---- short words: look through all pairs each time; faster than a heap while there are few

static void join_short(qn_tok_work *w, const char *s) {
    qn_symbol *sym = w->symbols;
    size_t n = w->n_symbols;
    qn_pair pairs[SHORT_WORD];
    bool can[SHORT_WORD] = {false};
    for (size_t i = 0; i + 1 < n; i++)
        can[i] = find_pair(w->t, s, &sym[i], &sym[i + 1], &pairs[i]);
    for (;;) {
        size_t best = SIZE_MAX;
        for (size_t i = 0; i + 1 < n; i++) {
            if (can[i] && (best == SIZE_MAX || pairs[i].key < pairs[best].key)) best = i;
        }
        if (best == SIZE_MAX) break;
        sym[best].len += sym[best + 1].len;
        sym[best].id = (int32_t)pairs[best].id;
        n--;
        for (size_t i = best + 1; i < n; i++) {
            sym[i] = sym[i + 1];
            pairs[i] = pairs[i + 1];
            can[i] = can[i + 1];
        }
        can[n - 1] = false;
        if (best + 1 < n) can[best] = find_pair(w->t, s, &sym[best], &sym[best + 1], &pairs[best]);
        if (best > 0) {
            can[best - 1] = find_pair(w->t, s, &sym[best - 1], &sym[best], &pairs[best - 1]);
        }
    }
    w->n_symbols = n;
}

// ---- long words: a heap

static inline bool before(const qn_pair *a, const qn_pair *b) {
    return a->key != b->key ? a->key < b->key : a->pos < b->pos;
}

static void sift_down(qn_pair *heap, size_t n, size_t i) {
    qn_pair item = heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n) break;
        if (child + 1 < n && before(&heap[child + 1], &heap[child])) child++;
        if (!before(&heap[child], &item)) break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = item;
}

static bool push_pair(qn_tok_work *w, const char *s, uint32_t left, uint32_t right) {
    qn_pair pair;
    if (left == NONE || right == NONE) return true;
    if (!find_pair(w->t, s, &w->symbols[left], &w->symbols[right], &pair)) return true;
    pair.pos = left;
    pair.right = right;
    if (!qn_grow(&w->heap, &w->cap_heap, w->n_heap + 1, sizeof *w->heap)) return false;
    size_t i = w->n_heap++;
    while (i > 0 && before(&pair, &w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = pair;
    return true;
}

static bool join_long(qn_tok_work *w, const char *s) {
    qn_symbol *sym = w->symbols;
    uint32_t n = (uint32_t)w->n_symbols;
    w->n_heap = 0;
    for (uint32_t i = 0; i < n; i++) {
        sym[i].prev = i ? i - 1 : NONE;
        sym[i].next = i + 1 < n ? i + 1 : NONE;
    }
    for (uint32_t i = 0; i + 1 < n; i++) {
        qn_pair pair;
        if (!find_pair(w->t, s, &sym[i], &sym[i + 1], &pair)) continue;
        pair.pos = i;
        pair.right = i + 1;
        if (!qn_grow(&w->heap, &w->cap_heap, w->n_heap + 1, sizeof *w->heap)) return false;
        w->heap[w->n_heap++] = pair;
    }
    for (size_t i = w->n_heap / 2; i-- > 0;)
        sift_down(w->heap, w->n_heap, i);
    while (w->n_heap > 0) {
        qn_pair pair = w->heap[0];
        w->heap[0] = w->heap[--w->n_heap];
        if (w->n_heap) sift_down(w->heap, w->n_heap, 0);
        qn_symbol *left = &sym[pair.pos], *right = &sym[pair.right];
        if (left->len == 0 || right->len == 0 || left->len + right->len != pair.len) continue;
        left->len = pair.len;
        left->id = (int32_t)pair.id;
        left->next = right->next;
        if (right->next != NONE) sym[right->next].prev = pair.pos;
        right->len = 0;
        if (!push_pair(w, s, left->prev, pair.pos) || !push_pair(w, s, pair.pos, left->next)) {
            return false;
        }
    }
    size_t kept = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (sym[i].len) sym[kept++] = sym[i];
    }
    w->n_symbols = kept;
    return true;
}

// ---- from characters or bytes, to ids

// A character that is no token, as bytes; false when some byte has no token.
static bool push_bytes(qn_tok_work *w, const char *s, size_t start, size_t len, bool *ok) {
    const qn_tokenizer *t = w->t;
    for (size_t i = 0; i < len; i++) {
        if (t->byte_id[(uint8_t)s[start + i]] < 0) return false;
    }
    for (size_t i = 0; i < len && *ok; i++) {
        *ok = push_symbol(w, start + i, 1, t->byte_id[(uint8_t)s[start + i]]);
    }
    return true;
}

static bool start_symbols(qn_tok_work *w, const char *s, size_t len) {
    const qn_tokenizer *t = w->t;
    bool ok = true;
    w->n_symbols = 0;
    if (t->byte_level) {
        for (size_t i = 0; i < len && ok; i++) {
            int32_t id = t->byte_id[(uint8_t)s[i]];
            if (id < 0) id = t->unk;
            if (id >= 0) ok = push_symbol(w, i, 1, id);
        }
        return ok;
    }
    for (size_t i = 0, n; i < len && ok; i += n) {
        uint32_t cp;
        n = qn_utf8_decode(s + i, len - i, &cp);
        bool valid = n > 0;
        if (!valid) n = 1;
        int32_t id = valid ? qn_vocab_find(&t->vocab, s + i, n) : -1;
        if (id >= 0 && (t->vocab.attrs[id] & (QN_TOKEN_CONTROL | QN_TOKEN_UNKNOWN))) id = -1;
        if (t->kind == QN_TOK_SPM) { // may still be joined; bytes come at the end
            ok = push_symbol(w, i, n, id);
            continue;
        }
        if (id >= 0) {
            ok = push_symbol(w, i, n, id);
        } else if (!(t->byte_fallback && push_bytes(w, s, i, n, &ok)) && t->unk >= 0) {
            qn_symbol *last = w->n_symbols ? &w->symbols[w->n_symbols - 1] : NULL;
            if (t->fuse_unk && last && last->id == t->unk && last->start + last->len == i) {
                last->len += (uint32_t)n;
            } else {
                ok = push_symbol(w, i, n, t->unk);
            }
        }
    }
    return ok;
}

static bool emit_without_token(qn_tok_work *w, const char *s, const qn_symbol *sym) {
    const qn_tokenizer *t = w->t;
    for (uint32_t i = 0; i < sym->len; i++) {
        int32_t id = t->byte_id[(uint8_t)s[sym->start + i]];
        if (id < 0) return t->unk < 0 || qn_ids_push(w->out, t->unk);
    }
    for (uint32_t i = 0; i < sym->len; i++) {
        if (!qn_ids_push(w->out, t->byte_id[(uint8_t)s[sym->start + i]])) return false;
    }
    return true;
}

// The id of a whole word, for ignore_merges; -1: none.
static int32_t find_word(const qn_tokenizer *t, const char *s, size_t len) {
    char key[QN_TOK_MAX_PIECE];
    size_t n = 0;
    if (len > t->vocab.max_len) return -1;
    if (t->byte_level) {
        for (size_t i = 0; i < len; i++) {
            if (n + 2 > sizeof key) return -1;
            n += qn_utf8_encode(qn_byte_char((uint8_t)s[i]), key + n);
        }
        s = key;
        len = n;
    }
    int32_t id = qn_vocab_find(&t->vocab, s, len);
    if (id < 0 || (t->vocab.attrs[id] & ~(uint32_t)QN_TOKEN_USER_DEFINED)) return -1;
    return id;
}

qn_status qn_bpe_word(qn_tok_work *w, const char *s, size_t len) {
    if (w->t->ignore_merges) {
        int32_t id = find_word(w->t, s, len);
        if (id >= 0) return qn_ids_push(w->out, id) ? QN_OK : no_memory(w);
    }
    if (!start_symbols(w, s, len)) return no_memory(w);
    if (w->n_symbols > 1) {
        if (w->n_symbols <= SHORT_WORD && !w->always_heap) {
            join_short(w, s);
        } else if (!join_long(w, s)) {
            return no_memory(w);
        }
    }
    for (size_t i = 0; i < w->n_symbols; i++) {
        const qn_symbol *sym = &w->symbols[i];
        bool ok = sym->id >= 0 ? qn_ids_push(w->out, sym->id) : emit_without_token(w, s, sym);
        if (!ok) return no_memory(w);
    }
    return QN_OK;
}
