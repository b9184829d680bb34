// SPDX-License-Identifier: Apache-2.0
#include "base/json_tree.h"

#include "base/json_reader.h"
#include "base/utf8.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

typedef struct builder {
    qn_json_reader reader;
    json_t *root;                    // NULL until the first value
    json_t *open[QN_JSON_MAX_DEPTH]; // containers, borrowed from root
    int depth;
    qn_buf key; // of the member whose value comes next
} builder;

// Line and column of the byte where the reader stands, from 1.
static void where(const builder *b, size_t *line, size_t *column) {
    *line = *column = 1;
    for (const char *p = b->reader.start; p < b->reader.p; p++) {
        (*column)++;
        if (*p == '\n') {
            (*line)++;
            *column = 1;
        }
    }
}

static qn_status bad(const builder *b, const char *what, qn_error *err) {
    size_t line, column;
    where(b, &line, &column);
    return qn_fail(err, QN_ERR_FORMAT, "line %zu, column %zu: %s", line, column, what);
}

static qn_status no_memory(qn_error *err) { return qn_fail(err, QN_ERR_NOMEM, "out of memory"); }

static qn_status check_text(const builder *b, qn_error *err) {
    const qn_str s = b->reader.text;
    if (b->reader.half_surrogate) return bad(b, "half of a surrogate pair", err);
    if (!qn_utf8_valid(s.data, s.len)) return bad(b, "a string is not UTF-8", err);
    return s.len && memchr(s.data, 0, s.len) ? bad(b, "a string holds a NUL", err) : QN_OK;
}

static qn_status take_number(const builder *b, json_t **out, qn_error *err) {
    const qn_str s = b->reader.text;
    bool whole = true;
    for (size_t i = 0; i < s.len; i++) whole = whole && s.data[i] != '.' && (s.data[i] | 32) != 'e';
    if (whole) {
        char digits[24]; // 64 bits have at most 20 with the sign
        if (s.len >= sizeof digits) return bad(b, "an integer is too big", err);
        memcpy(digits, s.data, s.len);
        digits[s.len] = '\0';
        errno = 0;
        const long long v = strtoll(digits, NULL, 10);
        if (errno) return bad(b, "an integer is too big", err);
        *out = json_integer(v);
    } else {
        if (!isfinite(b->reader.number)) return bad(b, "a number is too big", err);
        *out = json_real(b->reader.number);
    }
    return *out ? QN_OK : no_memory(err);
}

// The value of the token just read, to its place. Takes it.
static qn_status put(builder *b, json_t *value, qn_error *err) {
    if (!value) return no_memory(err);
    if (!b->root) {
        b->root = value;
        return QN_OK;
    }
    json_t *into = b->open[b->depth - 1];
    const int rc = json_is_array(into) ? json_array_append_new(into, value)
                                       : json_object_set_new_nocheck(into, b->key.data, value);
    return rc == 0 ? QN_OK : no_memory(err);
}

static qn_status open_container(builder *b, json_t *value, qn_error *err) {
    qn_status st = put(b, value, err);
    if (st == QN_OK) b->open[b->depth++] = value; // the reader bounds the depth
    return st;
}

static qn_status take(builder *b, qn_error *err) {
    const qn_str s = b->reader.text;
    json_t *value = NULL;
    qn_status st = QN_OK;
    switch (b->reader.kind) {
    case QN_JSON_OBJECT_BEGIN: return open_container(b, json_object(), err);
    case QN_JSON_ARRAY_BEGIN: return open_container(b, json_array(), err);
    case QN_JSON_OBJECT_END:
    case QN_JSON_ARRAY_END: b->depth--; return QN_OK;
    case QN_JSON_KEY:
        st = check_text(b, err);
        if (st != QN_OK) return st;
        qn_buf_clear(&b->key);
        if (!qn_buf_append(&b->key, s.data, s.len)) return no_memory(err);
        if (json_object_get(b->open[b->depth - 1], b->key.data)) {
            return bad(b, "a member comes twice", err);
        }
        return QN_OK;
    case QN_JSON_STRING:
        st = check_text(b, err);
        return st == QN_OK ? put(b, json_stringn_nocheck(s.data, s.len), err) : st;
    case QN_JSON_NUMBER:
        st = take_number(b, &value, err);
        return st == QN_OK ? put(b, value, err) : st;
    case QN_JSON_TRUE: return put(b, json_true(), err);
    case QN_JSON_FALSE: return put(b, json_false(), err);
    case QN_JSON_NULL: return put(b, json_null(), err);
    case QN_JSON_END: break;
    }
    return QN_OK;
}

qn_status qn_json_tree(const char *text, size_t len, json_t **out, qn_error *err) {
    builder b = {.root = NULL};
    qn_status st;
    *out = NULL;
    qn_json_open(&b.reader, text, len);
    do {
        qn_error why = {0};
        st = qn_json_next(&b.reader, &why);
        if (st == QN_ERR_FORMAT) bad(&b, b.reader.problem, err);
        else if (st != QN_OK) qn_fail(err, st, "%s", why.message);
        else st = take(&b, err);
    } while (st == QN_OK && b.reader.kind != QN_JSON_END);
    qn_json_close(&b.reader);
    qn_buf_free(&b.key);
    if (st == QN_OK) *out = b.root;
    else json_decref(b.root);
    return st;
}

json_t *qn_json_copy(const json_t *value) {
    json_t *from = (json_t *)(uintptr_t)value;
    json_t *copy = json_is_object(from) ? json_object() : json_is_array(from) ? json_array() : NULL;
    if (!copy) return NULL;
    const int rc = json_is_object(from) ? json_object_update(copy, from) : json_array_extend(copy, from);
    if (rc == 0) return copy;
    json_decref(copy);
    return NULL;
}
