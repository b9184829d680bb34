// SPDX-License-Identifier: Apache-2.0
// Knuth-Morris-Pratt for each string at once. What is held back is always the longest beginning of
// a stop string that the text ends with, so it need not be stored: it is that string's own bytes.
#include "tokenizer/tokenizer.h"

#include <stdlib.h>

enum { MAX_STRINGS = 64, MAX_LENGTH = 1024 };

typedef struct needle {
    char *text;
    uint16_t *fail; // fail[i]: the longest proper beginning that text[0..i] ends with
    size_t len;
    size_t state; // bytes matched
} needle;

struct qn_stop_matcher {
    needle *needles;
    size_t n;
    size_t longest; // which needle has the largest state
    bool done;
};

static void build(needle *s) {
    size_t k = 0;
    s->fail[0] = 0;
    for (size_t i = 1; i < s->len; i++) {
        while (k > 0 && s->text[i] != s->text[k])
            k = s->fail[k - 1];
        if (s->text[i] == s->text[k]) k++;
        s->fail[i] = (uint16_t)k;
    }
}

qn_status qn_stop_matcher_create(const qn_str *strings, size_t n, qn_stop_matcher **out,
                                 qn_error *err) {
    *out = NULL;
    if (n > MAX_STRINGS) {
        return qn_fail(err, QN_ERR_LIMIT, "%zu stop strings (limit %d)", n, MAX_STRINGS);
    }
    for (size_t i = 0; i < n; i++) {
        if (strings[i].len == 0) return qn_fail(err, QN_ERR_INVALID, "a stop string is empty");
        if (strings[i].len > MAX_LENGTH) {
            return qn_fail(err, QN_ERR_LIMIT, "a stop string of %zu bytes (limit %d)",
                           strings[i].len, MAX_LENGTH);
        }
    }
    qn_stop_matcher *m = calloc(1, sizeof *m);
    bool ok = m && (m->needles = calloc(n ? n : 1, sizeof *m->needles));
    for (size_t i = 0; i < n && ok; i++) {
        needle *s = &m->needles[i];
        m->n = i + 1;
        s->len = strings[i].len;
        s->text = malloc(s->len);
        s->fail = malloc(s->len * sizeof *s->fail);
        ok = s->text && s->fail;
        if (ok) {
            memcpy(s->text, strings[i].data, s->len);
            build(s);
        }
    }
    if (!ok) {
        qn_stop_matcher_destroy(m);
        return qn_fail(err, QN_ERR_NOMEM, "out of memory for the stop strings");
    }
    *out = m;
    return QN_OK;
}

void qn_stop_matcher_destroy(qn_stop_matcher *m) {
    if (!m) return;
    for (size_t i = 0; i < m->n; i++) {
        free(m->needles[i].text);
        free(m->needles[i].fail);
    }
    free(m->needles);
    free(m);
}

static bool step(needle *s, char c) {
    while (s->state > 0 && (s->state == s->len || s->text[s->state] != c)) {
        s->state = s->fail[s->state - 1];
    }
    if (s->text[s->state] == c) s->state++;
    return s->state == s->len;
}

// Appends bytes [0, n) of the held text followed by text.
static void emit(const char *held, size_t n_held, const char *text, size_t n, qn_buf *out) {
    size_t from_held = n < n_held ? n : n_held;
    qn_buf_append(out, held, from_held);
    qn_buf_append(out, text, n - from_held);
}

int qn_stop_matcher_push(qn_stop_matcher *m, const char *text, size_t len, bool include,
                         qn_buf *out) {
    if (m->done) return -1;
    if (m->n == 0) {
        qn_buf_append(out, text, len);
        return -1;
    }
    const char *held = m->needles[m->longest].text;
    size_t n_held = m->needles[m->longest].state;
    for (size_t i = 0; i < len; i++) {
        int hit = -1;
        for (size_t k = 0; k < m->n; k++) {
            // Of several that end here the longest counts: it began first.
            if (step(&m->needles[k], text[i]) &&
                (hit < 0 || m->needles[k].len > m->needles[hit].len)) {
                hit = (int)k;
            }
        }
        if (hit >= 0) {
            size_t end = n_held + i + 1;
            emit(held, n_held, text, include ? end : end - m->needles[hit].len, out);
            m->done = true;
            return hit;
        }
    }
    size_t longest = 0;
    for (size_t k = 1; k < m->n; k++) {
        if (m->needles[k].state > m->needles[longest].state) longest = k;
    }
    m->longest = longest;
    emit(held, n_held, text, n_held + len - m->needles[longest].state, out);
    return -1;
}

void qn_stop_matcher_flush(qn_stop_matcher *m, qn_buf *out) {
    if (m->done) return;
    m->done = true;
    if (m->n) qn_buf_append(out, m->needles[m->longest].text, m->needles[m->longest].state);
}
