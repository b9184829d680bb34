// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/internal.h"

#include "base/checked.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <utf8proc.h>

qn_status qn_norm_add(qn_norm *norm, qn_norm_kind kind, bool first_only, qn_str a, qn_str b,
                      qn_error *err) {
    if (norm->n == QN_NORM_MAX_STEPS) {
        return qn_fail(err, QN_ERR_LIMIT, "more than %d normalizers", QN_NORM_MAX_STEPS);
    }
    qn_norm_step *s = &norm->steps[norm->n];
    if (a.len > sizeof s->a || b.len > sizeof s->b || (kind == QN_NORM_REPLACE && a.len == 0)) {
        return qn_fail(err, QN_ERR_LIMIT, "normalizer: a string is empty or above %zu bytes",
                       sizeof s->a);
    }
    *s = (qn_norm_step){.kind = kind, .first_only = first_only, .a_len = a.len, .b_len = b.len};
    if (a.len) memcpy(s->a, a.data, a.len);
    if (b.len) memcpy(s->b, b.data, b.len);
    norm->n++;
    return QN_OK;
}

static void replace_all(const qn_norm_step *s, qn_str text, qn_buf *out) {
    const char *p = text.data, *end = text.data + text.len;
    qn_buf_reserve(out, text.len);
    while (p < end) {
        const char *hit = memmem(p, (size_t)(end - p), s->a, s->a_len);
        if (!hit) break;
        qn_buf_append(out, p, (size_t)(hit - p));
        qn_buf_append(out, s->b, s->b_len);
        p = hit + s->a_len;
    }
    qn_buf_append(out, p, (size_t)(end - p));
}

// Below U+0300 nothing combines and NFC changes nothing; the other forms change from U+00A0 on.
static size_t plain_prefix(qn_norm_kind kind, qn_str s) {
    size_t i = 0;
    if (kind != QN_NORM_NFC) {
        while (i < s.len && (uint8_t)s.data[i] < 0x80)
            i++;
        return i;
    }
    while (i < s.len && (uint8_t)s.data[i] < 0xcc) {
        size_t n = (uint8_t)s.data[i] < 0x80 ? 1 : 2;
        if (n == 2 && (i + 1 >= s.len || ((uint8_t)s.data[i + 1] & 0xc0) != 0x80 ||
                       (uint8_t)s.data[i] < 0xc2)) {
            break;
        }
        i += n;
    }
    return i;
}

typedef struct code_points {
    utf8proc_int32_t *data;
    size_t len, cap;
} code_points;

static bool push_decomposed(code_points *cps, uint32_t cp, utf8proc_option_t options) {
    for (;;) {
        if (!qn_grow(&cps->data, &cps->cap, cps->len + 32, sizeof *cps->data)) return false;
        int boundary = 0;
        utf8proc_ssize_t room = (utf8proc_ssize_t)(cps->cap - cps->len);
        utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, cps->data + cps->len,
                                                     room, options, &boundary);
        if (n < 0) { // not assigned: stays as it is
            cps->data[cps->len++] = (utf8proc_int32_t)cp;
            return true;
        }
        if (n <= room) {
            cps->len += (size_t)n;
            return true;
        }
        if (!qn_grow(&cps->data, &cps->cap, cps->len + (size_t)n, sizeof *cps->data)) return false;
    }
}

static int combining_class(utf8proc_int32_t cp) {
    return cp < 0x300 ? 0 : (int)utf8proc_get_property(cp)->combining_class;
}

// Canonical ordering (UAX 15): each run of marks sorted by class, stable. Counting by merge: a run
// may be as long as the text.
static bool order_marks(code_points *cps) {
    for (size_t i = 0; i < cps->len;) {
        if (combining_class(cps->data[i]) == 0) {
            i++;
            continue;
        }
        size_t end = i;
        bool sorted = true;
        while (end < cps->len && combining_class(cps->data[end]) != 0) {
            if (end > i && combining_class(cps->data[end - 1]) > combining_class(cps->data[end])) {
                sorted = false;
            }
            end++;
        }
        if (!sorted) {
            size_t n = end - i, count[257] = {0};
            utf8proc_int32_t *tmp = malloc(n * sizeof *tmp);
            if (!tmp) return false;
            for (size_t k = 0; k < n; k++)
                count[combining_class(cps->data[i + k]) + 1]++;
            for (size_t c = 1; c < 257; c++)
                count[c] += count[c - 1];
            for (size_t k = 0; k < n; k++) {
                tmp[count[combining_class(cps->data[i + k])]++] = cps->data[i + k];
            }
            memcpy(cps->data + i, tmp, n * sizeof *tmp);
            free(tmp);
        }
        i = end;
    }
    return true;
}

static bool flush(code_points *cps, utf8proc_option_t options, qn_buf *out) {
    if (cps->len == 0) return true;
    if (!order_marks(cps)) return false;
    utf8proc_ssize_t n = (utf8proc_ssize_t)cps->len;
    if (options & UTF8PROC_COMPOSE) n = utf8proc_normalize_utf32(cps->data, n, options);
    for (utf8proc_ssize_t i = 0; i < n; i++) {
        char utf8[4];
        qn_buf_append(out, utf8, qn_utf8_encode((uint32_t)cps->data[i], utf8));
    }
    cps->len = 0;
    return n >= 0 && !out->failed;
}

static bool unicode_form(qn_norm_kind kind, qn_str text, qn_buf *out) {
    utf8proc_option_t options = UTF8PROC_STABLE;
    bool compose = kind == QN_NORM_NFC || kind == QN_NORM_NFKC;
    options |= compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    if (kind == QN_NORM_NFKC || kind == QN_NORM_NFKD) options |= UTF8PROC_COMPAT;
    code_points cps = {0};
    bool ok = true;
    for (size_t i = 0; i < text.len && ok;) {
        // Plain stretches are copied, but for their last character: a mark may follow it.
        size_t plain = plain_prefix(kind, (qn_str){text.data + i, text.len - i});
        while (plain > 0 && i + plain < text.len) {
            plain--;
            if (((uint8_t)text.data[i + plain] & 0xc0) != 0x80) break;
        }
        if (plain > 0) {
            ok = flush(&cps, options, out) && qn_buf_append(out, text.data + i, plain);
            i += plain;
            if (i >= text.len) break;
        }
        uint32_t cp;
        size_t n = qn_utf8_decode(text.data + i, text.len - i, &cp);
        if (n == 0) { // passes through
            ok = ok && flush(&cps, options, out) && qn_buf_append(out, text.data + i, 1);
            i++;
            continue;
        }
        ok = ok && push_decomposed(&cps, cp, options);
        i += n;
    }
    ok = ok && flush(&cps, options, out);
    free(cps.data);
    return ok;
}

qn_status qn_norm_run(const qn_norm *norm, bool first, qn_str text, qn_buf *one, qn_buf *two,
                      qn_str *result, qn_error *err) {
    for (size_t k = 0; k < norm->n && text.len > 0; k++) {
        const qn_norm_step *s = &norm->steps[k];
        bool same = false;
        switch (s->kind) {
        case QN_NORM_PREFIX:
            same = text.len >= s->a_len && memcmp(text.data, s->a, s->a_len) == 0;
            same = same || (s->first_only && !first);
            break;
        case QN_NORM_PREPEND:
            same = s->first_only && !first;
            break;
        case QN_NORM_REPLACE:
            same = !memmem(text.data, text.len, s->a, s->a_len);
            break;
        default:
            same = plain_prefix(s->kind, text) == text.len;
        }
        if (same) continue;
        qn_buf *out = text.data == one->data ? two : one;
        qn_buf_clear(out);
        bool ok = true;
        if (s->kind == QN_NORM_PREFIX || s->kind == QN_NORM_PREPEND) {
            qn_buf_append(out, s->a, s->a_len);
            qn_buf_append(out, text.data, text.len);
        } else if (s->kind == QN_NORM_REPLACE) {
            replace_all(s, text, out);
        } else {
            ok = unicode_form(s->kind, text, out);
        }
        if (!ok || out->failed) return qn_fail(err, QN_ERR_NOMEM, "out of memory for a text");
        text = qn_buf_str(out);
    }
    *result = text;
    return QN_OK;
}
