// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/internal.h"

#include "base/utf8.h"

static const char replacement[] = "\xEF\xBF\xBD";

// Byte-level token text to bytes. A text with a character outside the alphabet is not in it at all.
static bool append_byte_level(qn_str s, qn_buf *out) {
    size_t start = out->len;
    for (size_t i = 0; i < s.len;) {
        uint32_t cp;
        size_t n = qn_utf8_decode(s.data + i, s.len - i, &cp);
        int byte = n ? qn_char_byte(cp) : -1;
        if (byte < 0) {
            out->len = start;
            return qn_buf_append(out, s.data, s.len);
        }
        if (!qn_buf_putc(out, (char)byte)) return false;
        i += n;
    }
    return true;
}

static bool append_marked(qn_str s, qn_buf *out) {
    while (s.len) {
        const char *hit = memmem(s.data, s.len, QN_SPACE_MARK, 3);
        size_t n = hit ? (size_t)(hit - s.data) : s.len;
        qn_buf_append(out, s.data, n);
        if (!hit) break;
        qn_buf_putc(out, ' ');
        s.data += n + 3;
        s.len -= n + 3;
    }
    return !out->failed;
}

static int hex(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

bool qn_token_bytes(const qn_tokenizer *t, int32_t id, bool special, qn_buf *out) {
    if (id < 0 || (size_t)id >= t->vocab.n) return !out->failed;
    qn_str s = qn_vocab_text(&t->vocab, (size_t)id);
    uint8_t attrs = t->vocab.attrs[id];
    if (attrs & (QN_TOKEN_CONTROL | QN_TOKEN_UNKNOWN | QN_TOKEN_UNUSED)) {
        return special ? qn_buf_append(out, s.data, s.len) : !out->failed;
    }
    if (t->byte_level) {
        return attrs & QN_TOKEN_USER_DEFINED ? qn_buf_append(out, s.data, s.len)
                                             : append_byte_level(s, out);
    }
    if ((attrs & QN_TOKEN_BYTE) && s.len == 6 && hex(s.data[3]) >= 0 && hex(s.data[4]) >= 0) {
        return qn_buf_putc(out, (char)(hex(s.data[3]) << 4 | hex(s.data[4])));
    }
    return append_marked(s, out);
}

void qn_detok_init(qn_detok *d, const qn_tokenizer *t, bool special, bool at_start) {
    *d = (qn_detok){.tokenizer = t, .special = special, .started = !at_start || !t->strip_first};
}

// The longest well-formed beginning of a character at s that goes no further: what one U+FFFD
// stands for (Unicode 15, section 3.9, as Python and Rust do it).
static size_t broken_length(const char *s, size_t len) {
    size_t n = 1;
    while (n < 3 && n < len && qn_utf8_incomplete_tail(s, n + 1) == n + 1)
        n++;
    return n;
}

// Appends s with broken characters replaced; what is cut off at its end stays in d->pending.
static bool append_text(qn_detok *d, const char *s, size_t len, bool last, qn_buf *out) {
    size_t good = 0;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        size_t n = (uint8_t)s[i] < 0x80 ? 1 : qn_utf8_decode(s + i, len - i, &cp);
        if (n) {
            i += n;
            continue;
        }
        qn_buf_append(out, s + good, i - good);
        if (!last && qn_utf8_incomplete_tail(s + i, len - i) == len - i) {
            memcpy(d->pending, s + i, len - i);
            d->n_pending = (uint8_t)(len - i);
            return !out->failed;
        }
        qn_buf_append(out, replacement, 3);
        i += broken_length(s + i, len - i);
        good = i;
    }
    return qn_buf_append(out, s + good, len - good);
}

bool qn_detok_push(qn_detok *d, int32_t id, qn_buf *out) {
    size_t start = out->len;
    qn_buf_append(out, d->pending, d->n_pending);
    if (!qn_token_bytes(d->tokenizer, id, d->special, out) || out->failed) return false;
    size_t len = out->len - start;
    if (len == d->n_pending) { // nothing to show: what is pending stays so
        out->len = start;
        return true;
    }
    char *text = out->data + start;
    d->n_pending = 0;
    if (!d->started && text[0] == ' ') memmove(text, text + 1, --len);
    d->started = true;
    // Nearly always all of it is good, or all but a beginning of a character.
    size_t tail = qn_utf8_incomplete_tail(text, len);
    out->len = start + len - tail;
    if (qn_utf8_valid(text, len - tail)) {
        memcpy(d->pending, text + len - tail, tail);
        d->n_pending = (uint8_t)tail;
        out->data[out->len] = '\0';
        return true;
    }
    qn_buf broken = {0};
    qn_buf_append(&broken, text, len);
    out->len = start;
    bool ok = !broken.failed && append_text(d, broken.data, len, false, out);
    qn_buf_free(&broken);
    return ok;
}

bool qn_detok_flush(qn_detok *d, qn_buf *out) {
    char bytes[sizeof d->pending];
    size_t n = d->n_pending;
    memcpy(bytes, d->pending, n);
    d->n_pending = 0;
    return n == 0 || append_text(d, bytes, n, true, out);
}
