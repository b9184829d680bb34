// SPDX-License-Identifier: Apache-2.0
// The way of a text: added tokens are found, what lies between is normalized, cut into words, and
// each word becomes ids.
#include "tokenizer/internal.h"

#include "base/checked.h"
#include "base/utf8.h"

#include <stdlib.h>

enum { CACHE_MIN_TEXT = 256, CACHE_MAX_SLOTS = 16384, CACHE_MAX_WORD = 64 };

void qn_ids_free(qn_ids *ids) {
    free(ids->data);
    *ids = (qn_ids){0};
}

bool qn_ids_push(qn_ids *ids, int32_t id) {
    if (ids->len == ids->cap && !qn_grow(&ids->data, &ids->cap, ids->len + 1, sizeof *ids->data)) {
        return false;
    }
    ids->data[ids->len++] = id;
    return true;
}

// A cache's hash: words that collide only cost time, and never more than without the cache.
static size_t word_hash(const char *s, size_t len) {
    uint64_t h = len * 0x9e3779b97f4a7c15u, part;
    for (; len >= 8; s += 8, len -= 8) {
        memcpy(&part, s, 8);
        h = (h ^ part) * 0xd6e8feb86659fd93u;
        h ^= h >> 32;
    }
    part = 0;
    for (size_t i = 0; i < len; i++)
        part |= (uint64_t)(uint8_t)s[i] << (8 * i);
    h = (h ^ part) * 0xd6e8feb86659fd93u;
    return (size_t)(h ^ h >> 32);
}

static qn_status check_count(const qn_tok_work *w) {
    if (w->max_ids && w->out->len - w->base > w->max_ids) {
        return qn_fail(w->err, QN_ERR_LIMIT, "the text has more than %zu tokens", w->max_ids);
    }
    return QN_OK;
}

static qn_status word(void *user, const char *s, size_t len) {
    qn_tok_work *w = user;
    qn_word_slot *slot = NULL;
    if (w->words && len <= CACHE_MAX_WORD) {
        slot = &w->words[word_hash(s, len) & w->word_mask];
        if (slot->generation == w->generation && slot->len == len && memcmp(slot->s, s, len) == 0) {
            qn_ids *ids = w->out;
            if (!qn_grow(&ids->data, &ids->cap, ids->len + slot->n, sizeof *ids->data)) {
                return qn_fail(w->err, QN_ERR_NOMEM, "out of memory while tokenizing");
            }
            for (size_t i = 0; i < slot->n; i++)
                ids->data[ids->len++] = ids->data[slot->out + i];
            return check_count(w);
        }
    }
    size_t before = w->out->len;
    qn_status st = qn_bpe_word(w, s, len);
    if (st != QN_OK) return st;
    if (slot) {
        *slot = (qn_word_slot){.s = s,
                               .len = (uint32_t)len,
                               .generation = w->generation,
                               .n = (uint32_t)(w->out->len - before),
                               .out = before};
    }
    return check_count(w);
}

static qn_status segment(qn_tok_work *w, const char *s, size_t len, bool first) {
    qn_str text;
    if (len == 0) return QN_OK;
    qn_status st = qn_norm_run(&w->t->norm, first, (qn_str){s, len}, &w->norm_one, &w->norm_two,
                               &text, w->err);
    if (st != QN_OK) return st;
    // A buffer that is used again must not answer for words of the segment before; the text itself
    // stays (generation 1).
    w->generation = text.data == s ? 1 : w->segments++;
    return qn_pre_split(&w->t->pre, text.data, text.len, &w->match_data, word, w, w->err);
}

static bool is_word_char(uint32_t cp) {
    return cp == '_' || (qn_char_class(cp) & 3) != 0;
}

// The character before text[pos] (0 at the beginning) and its length.
static uint32_t char_before(const char *text, size_t pos, size_t *n) {
    for (*n = 1; *n <= 4 && *n <= pos; ++*n) {
        uint32_t cp;
        if (qn_utf8_decode(text + pos - *n, *n, &cp) == *n) return cp;
    }
    *n = pos ? 1 : 0;
    return 0;
}

static bool stands_alone(const char *text, size_t len, size_t start, size_t end) {
    size_t n;
    uint32_t cp;
    if (is_word_char(char_before(text, start, &n))) return false;
    return end >= len || qn_utf8_decode(text + end, len - end, &cp) == 0 || !is_word_char(cp);
}

static size_t skip_space_back(const char *text, size_t from, size_t pos) {
    size_t n;
    while (pos > from) {
        uint32_t cp = char_before(text, pos, &n);
        if (qn_char_class(cp) != 4 || n > pos - from) break;
        pos -= n;
    }
    return pos;
}

static size_t skip_space(const char *text, size_t len, size_t pos) {
    uint32_t cp;
    size_t n;
    while (pos < len && (n = qn_utf8_decode(text + pos, len - pos, &cp)) &&
           qn_char_class(cp) == 4) {
        pos += n;
    }
    return pos;
}

static qn_status encode(qn_tok_work *w, const char *text, size_t len, const qn_text_span *spans,
                        size_t n_spans) {
    const qn_added_set *set = &w->t->added;
    size_t segment_start = 0, pos = 0, k = 0;
    size_t run_end = 0;   // end of the run of spans of one kind that holds pos
    bool special = false; // that kind
    while (pos < len) {
        while (pos >= run_end) {
            special = spans[k].parse_special;
            while (k < n_spans && (spans[k].parse_special == special || spans[k].len == 0)) {
                run_end += spans[k++].len;
            }
        }
        uint8_t b = (uint8_t)text[pos];
        size_t match_len = 0;
        const qn_added *hit = NULL;
        if (set->root[b] < set->root[b + 1]) {
            hit = qn_added_match(set, &w->t->vocab, text, len, pos, special ? run_end : 0,
                                 &match_len);
        }
        if (hit && hit->single_word && !stands_alone(text, len, pos, pos + match_len)) hit = NULL;
        if (!hit) {
            pos++;
            continue;
        }
        size_t end = hit->lstrip ? skip_space_back(text, segment_start, pos) : pos;
        qn_status st = segment(w, text + segment_start, end - segment_start, segment_start == 0);
        if (st != QN_OK) return st;
        if (!qn_ids_push(w->out, hit->id)) {
            return qn_fail(w->err, QN_ERR_NOMEM, "out of memory while tokenizing");
        }
        st = check_count(w);
        if (st != QN_OK) return st;
        pos += match_len;
        if (hit->rstrip) pos = skip_space(text, len, pos);
        segment_start = pos;
    }
    return segment(w, text + segment_start, len - segment_start, segment_start == 0);
}

static qn_status check_spans(size_t len, const qn_text_span *spans, size_t n_spans, qn_error *err) {
    size_t sum = 0;
    for (size_t i = 0; i < n_spans; i++) {
        if (!qn_add_size(sum, spans[i].len, &sum)) break;
    }
    if (sum != len) return qn_fail(err, QN_ERR_INVALID, "spans do not cover the text");
    return QN_OK;
}

qn_status qn_tokenize(const qn_tokenizer *t, const char *text, size_t len,
                      const qn_text_span *spans, size_t n_spans, bool add_special, size_t max_ids,
                      qn_ids *out, qn_error *err) {
    const qn_text_span whole = {len, true};
    if (!spans) {
        spans = &whole;
        n_spans = 1;
    }
    qn_status st = check_spans(len, spans, n_spans, err);
    if (st != QN_OK) return st;
    if (len > QN_TOK_MAX_TEXT) {
        return qn_fail(err, QN_ERR_LIMIT, "a text of %zu bytes (limit %d)", len, QN_TOK_MAX_TEXT);
    }
    qn_tok_work w = {
        .t = t, .out = out, .base = out->len, .max_ids = max_ids, .err = err, .segments = 2};
    if (len >= CACHE_MIN_TEXT) {
        size_t slots = 64;
        while (slots < CACHE_MAX_SLOTS && slots < len / 16)
            slots *= 2;
        w.words = calloc(slots, sizeof *w.words); // NULL: no cache
        w.word_mask = slots - 1;
    }
    bool ok = true;
    for (size_t i = 0; add_special && i < t->n_prefix && ok; i++)
        ok = qn_ids_push(out, t->prefix[i]);
    if (len) st = encode(&w, text, len, spans, n_spans);
    for (size_t i = 0; add_special && i < t->n_suffix && ok; i++)
        ok = qn_ids_push(out, t->suffix[i]);
    if (!ok && st == QN_OK) st = qn_fail(err, QN_ERR_NOMEM, "out of memory while tokenizing");
    if (st == QN_OK) st = check_count(&w);
    free(w.words);
    free(w.symbols);
    free(w.heap);
    qn_buf_free(&w.norm_one);
    qn_buf_free(&w.norm_two);
    pcre2_match_data_free(w.match_data);
    if (st != QN_OK) out->len = w.base;
    return st;
}
