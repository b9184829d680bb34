// SPDX-License-Identifier: Apache-2.0
#include "base/buf.h"

#include "base/checked.h"
#include "base/utf8.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

bool qn_buf_reserve(qn_buf *buf, size_t extra) {
    size_t need;
    if (buf->failed) return false;
    if (!qn_add_size(buf->len, extra, &need) || !qn_add_size(need, 1, &need) ||
        (buf->limit && need - 1 > buf->limit)) {
        buf->failed = true;
        return false;
    }
    if (need <= buf->cap) return true;
    size_t cap = QN_MAX(buf->cap * 2, QN_MAX(need, (size_t)64));
    char *data = realloc(buf->data, cap);
    if (!data) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->cap = cap;
    return true;
}

bool qn_buf_append(qn_buf *buf, const void *data, size_t len) {
    if (!qn_buf_reserve(buf, len)) return false;
    if (len) memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    buf->data[buf->len] = '\0';
    return true;
}

bool qn_buf_puts(qn_buf *buf, const char *cstr) { return qn_buf_append(buf, cstr, strlen(cstr)); }

bool qn_buf_putc(qn_buf *buf, char c) { return qn_buf_append(buf, &c, 1); }

bool qn_buf_vprintf(qn_buf *buf, const char *fmt, va_list args) {
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    if (n < 0) buf->failed = true;
    bool ok = n >= 0 && qn_buf_reserve(buf, (size_t)n);
    if (ok) {
        vsnprintf(buf->data + buf->len, (size_t)n + 1, fmt, again);
        buf->len += (size_t)n;
    }
    va_end(again);
    return ok;
}

bool qn_buf_printf(qn_buf *buf, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    bool ok = qn_buf_vprintf(buf, fmt, args);
    va_end(args);
    return ok;
}

bool qn_buf_json_string(qn_buf *buf, const char *s, size_t len) {
    static const char hex[] = "0123456789abcdef";
    qn_buf_putc(buf, '"');
    for (size_t i = 0; i < len && !buf->failed;) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x80) {
            uint32_t cp;
            size_t n = qn_utf8_decode(s + i, len - i, &cp);
            if (n) {
                qn_buf_append(buf, s + i, n);
            } else {
                qn_buf_puts(buf, "\xEF\xBF\xBD");
                n = 1;
            }
            i += n;
            continue;
        }
        i++;
        switch (c) {
        case '"': qn_buf_puts(buf, "\\\""); break;
        case '\\': qn_buf_puts(buf, "\\\\"); break;
        case '\n': qn_buf_puts(buf, "\\n"); break;
        case '\r': qn_buf_puts(buf, "\\r"); break;
        case '\t': qn_buf_puts(buf, "\\t"); break;
        default:
            if (c < 0x20 || c == 0x7f) {
                const char esc[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
                qn_buf_append(buf, esc, sizeof esc);
            } else {
                qn_buf_putc(buf, (char)c);
            }
        }
    }
    return qn_buf_putc(buf, '"');
}

bool qn_buf_visible(qn_buf *buf, const char *s, size_t len, bool keep_newlines) {
    for (size_t i = 0; i < len && !buf->failed;) {
        uint32_t cp = 0;
        size_t n = qn_utf8_decode(s + i, len - i, &cp);
        if (n == 0) {
            qn_buf_printf(buf, "\\x%02x", (unsigned char)s[i]);
            i++;
            continue;
        }
        bool bidi = (cp >= 0x202a && cp <= 0x202e) || (cp >= 0x2066 && cp <= 0x2069);
        if (keep_newlines && (cp == '\n' || cp == '\t')) {
            qn_buf_putc(buf, (char)cp);
        } else if (cp == '\n') {
            qn_buf_puts(buf, "\\n");
        } else if (cp == '\t') {
            qn_buf_puts(buf, "\\t");
        } else if (cp == '\r') {
            qn_buf_puts(buf, "\\r");
        } else if (cp < 0x20 || cp == 0x7f) {
            qn_buf_printf(buf, "\\x%02x", (unsigned)cp);
        } else if ((cp >= 0x80 && cp < 0xa0) || bidi) {
            qn_buf_printf(buf, "\\u%04x", (unsigned)cp);
        } else {
            qn_buf_append(buf, s + i, n);
        }
        i += n;
    }
    return !buf->failed;
}

void qn_buf_consume(qn_buf *buf, size_t n) {
    n = QN_MIN(n, buf->len);
    if (n == 0) return;
    memmove(buf->data, buf->data + n, buf->len - n);
    buf->len -= n;
    buf->data[buf->len] = '\0';
}

void qn_buf_clear(qn_buf *buf) {
    buf->len = 0;
    buf->failed = false;
    if (buf->data) buf->data[0] = '\0';
}

void qn_buf_free(qn_buf *buf) {
    free(buf->data);
    *buf = (qn_buf){.limit = buf->limit};
}

bool qn_grow(void *items_ptr, size_t *cap, size_t need, size_t size) {
    if (need <= *cap) return true;
    size_t grown = *cap <= SIZE_MAX / 2 ? *cap * 2 : need;
    size_t next = QN_MAX(QN_MAX(need, grown), (size_t)8);
    size_t bytes;
    void *items;
    memcpy(&items, items_ptr, sizeof items);
    if (!qn_mul_size(next, size, &bytes)) return false;
    items = realloc(items, bytes);
    if (!items) return false;
    memcpy(items_ptr, &items, sizeof items);
    *cap = next;
    return true;
}
