// SPDX-License-Identifier: Apache-2.0
// String views and a growing byte buffer.
#ifndef QN_BASE_BUF_H
#define QN_BASE_BUF_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

// A view: not owned, not NUL-terminated.
typedef struct qn_str {
    const char *data;
    size_t len;
} qn_str;

#define QN_STR(literal) ((qn_str){(literal), sizeof(literal) - 1})

static inline qn_str qn_str_from(const char *cstr) {
    return (qn_str){cstr, cstr ? strlen(cstr) : 0};
}
static inline bool qn_str_eq(qn_str a, qn_str b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}
static inline bool qn_str_is(qn_str a, const char *cstr) {
    return qn_str_eq(a, qn_str_from(cstr));
}

// A growing buffer. Zero-initialize. After a failed allocation `failed` stays set, later appends do
// nothing and return false: a sequence of appends can be checked once, at its end.
typedef struct qn_buf {
    char *data; // NUL-terminated whenever not NULL
    size_t len;
    size_t cap;
    size_t limit; // 0: none; growing past it fails
    bool failed;
} qn_buf;

bool qn_buf_reserve(qn_buf *buf, size_t extra);
bool qn_buf_append(qn_buf *buf, const void *data, size_t len);
bool qn_buf_puts(qn_buf *buf, const char *cstr);
bool qn_buf_putc(qn_buf *buf, char c);
bool qn_buf_printf(qn_buf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool qn_buf_vprintf(qn_buf *buf, const char *fmt, va_list args);
// Appends s as a JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD.
bool qn_buf_json_string(qn_buf *buf, const char *s, size_t len);
// Appends s with control characters (and bytes that are not UTF-8) made visible, safe to print on a
// terminal. keep_newlines: '\n' and '\t' pass through.
bool qn_buf_visible(qn_buf *buf, const char *s, size_t len, bool keep_newlines);
// Removes n bytes from the front.
void qn_buf_consume(qn_buf *buf, size_t n);
void qn_buf_clear(qn_buf *buf); // keeps the memory
void qn_buf_free(qn_buf *buf);
static inline qn_str qn_buf_str(const qn_buf *buf) { return (qn_str){buf->data, buf->len}; }

// Grows *items (element size `size`) so that it holds at least need elements; doubling, checked.
// For plain arrays: if (!qn_grow((void **)&v, &cap, n + 1, sizeof *v)) -> out of memory.
bool qn_grow(void *items_ptr, size_t *cap, size_t need, size_t size);

#endif
