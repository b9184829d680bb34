// SPDX-License-Identifier: Apache-2.0
#include "base/json_reader.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

// What may come next.
enum {
    VALUE,          // a value (document start, after ':' or after ',' in an array)
    VALUE_OR_CLOSE, // just after '['
    KEY_OR_CLOSE,   // just after '{'
    KEY_ONLY,       // after ',' in an object
    COMMA_OR_CLOSE, // after a value inside a container
    DONE,           // after the document's value
};

void qn_json_open(qn_json_reader *r, const char *data, size_t len) {
    memset(r, 0, sizeof *r);
    r->start = r->p = data;
    r->end = data + len;
    r->state = VALUE;
}

void qn_json_close(qn_json_reader *r) { qn_buf_free(&r->scratch); }

static qn_status bad(qn_json_reader *r, qn_error *err, const char *what) {
    r->problem = what;
    return qn_fail(err, QN_ERR_FORMAT, "JSON: %s at byte %zu", what, (size_t)(r->p - r->start));
}

static int hex4(const char *p, const char *end, uint32_t *out) {
    if (end - p < 4) return 0;
    uint32_t v = 0;
    for (int i = 0; i < 4; i++) {
        char c = p[i];
        uint32_t d;
        if (c >= '0' && c <= '9') {
            d = (uint32_t)(c - '0');
        } else if ((c | 32) >= 'a' && (c | 32) <= 'f') {
            d = (uint32_t)((c | 32) - 'a' + 10);
        } else {
            return 0;
        }
        v = v << 4 | d;
    }
    *out = v;
    return 1;
}

// p stands behind the opening quote.
static qn_status read_string(qn_json_reader *r, qn_error *err) {
    const char *s = r->p;
    r->half_surrogate = false;
    while (s < r->end && *s != '"' && *s != '\\' && (unsigned char)*s >= 0x20) s++;
    if (s < r->end && *s == '"') {
        r->text = (qn_str){r->p, (size_t)(s - r->p)};
        r->p = s + 1;
        return QN_OK;
    }
    qn_buf_clear(&r->scratch);
    qn_buf_append(&r->scratch, r->p, (size_t)(s - r->p));
    r->p = s;
    for (;;) {
        if (r->p >= r->end) return bad(r, err, "unterminated string");
        unsigned char c = (unsigned char)*r->p;
        if (c == '"') break;
        if (c < 0x20) return bad(r, err, "control character in a string");
        if (c != '\\') {
            const char *run = r->p;
            while (r->p < r->end && *r->p != '"' && *r->p != '\\' && (unsigned char)*r->p >= 0x20) {
                r->p++;
            }
            qn_buf_append(&r->scratch, run, (size_t)(r->p - run));
            continue;
        }
        if (r->end - r->p < 2) return bad(r, err, "unterminated string");
        char e = r->p[1];
        r->p += 2;
        char plain = 0;
        switch (e) {
        case '"': plain = '"'; break;
        case '\\': plain = '\\'; break;
        case '/': plain = '/'; break;
        case 'b': plain = '\b'; break;
        case 'f': plain = '\f'; break;
        case 'n': plain = '\n'; break;
        case 'r': plain = '\r'; break;
        case 't': plain = '\t'; break;
        case 'u': {
            uint32_t cp, low;
            if (!hex4(r->p, r->end, &cp)) return bad(r, err, "bad \\u escape");
            r->p += 4;
            if (cp >= 0xd800 && cp < 0xdc00 && r->end - r->p >= 6 && r->p[0] == '\\' &&
                r->p[1] == 'u' && hex4(r->p + 2, r->end, &low) && low >= 0xdc00 && low < 0xe000) {
                cp = 0x10000 + ((cp - 0xd800) << 10) + (low - 0xdc00);
                r->p += 6;
            }
            char utf8[4];
            size_t n = qn_utf8_encode(cp, utf8);
            if (n == 0) {
                r->half_surrogate = true;
                n = qn_utf8_encode(0xfffd, utf8);
            }
            qn_buf_append(&r->scratch, utf8, n);
            continue;
        }
        default: return bad(r, err, "unknown escape");
        }
        qn_buf_putc(&r->scratch, plain);
    }
    r->p++;
    if (r->scratch.failed) return qn_fail(err, QN_ERR_NOMEM, "JSON: out of memory");
    r->text = r->scratch.data ? qn_buf_str(&r->scratch) : (qn_str){r->p, 0};
    return QN_OK;
}

static bool is_digit(const qn_json_reader *r, const char *p) {
    return p < r->end && *p >= '0' && *p <= '9';
}

static qn_status read_number(qn_json_reader *r, qn_error *err) {
    const char *s = r->p;
    if (*s == '-') s++;
    if (!is_digit(r, s)) return bad(r, err, "bad number");
    if (*s == '0') {
        s++;
    } else {
        while (is_digit(r, s)) s++;
    }
    if (s < r->end && *s == '.') {
        s++;
        if (!is_digit(r, s)) return bad(r, err, "bad number");
        while (is_digit(r, s)) s++;
    }
    if (s < r->end && (*s == 'e' || *s == 'E')) {
        s++;
        if (s < r->end && (*s == '+' || *s == '-')) s++;
        if (!is_digit(r, s)) return bad(r, err, "bad number");
        while (is_digit(r, s)) s++;
    }
    r->text = (qn_str){r->p, (size_t)(s - r->p)};
    // strtod needs a NUL; a number that is too long for the stack goes through scratch.
    char copy[64];
    if (r->text.len < sizeof copy) {
        memcpy(copy, r->p, r->text.len);
        copy[r->text.len] = '\0';
        r->number = strtod(copy, NULL);
    } else {
        qn_buf_clear(&r->scratch);
        if (!qn_buf_append(&r->scratch, r->p, r->text.len)) {
            return qn_fail(err, QN_ERR_NOMEM, "JSON: out of memory");
        }
        r->number = strtod(r->scratch.data, NULL);
    }
    r->p = s;
    r->kind = QN_JSON_NUMBER;
    return QN_OK;
}

static qn_status literal(qn_json_reader *r, const char *word, qn_json_kind kind, qn_error *err) {
    size_t n = strlen(word);
    if ((size_t)(r->end - r->p) < n || memcmp(r->p, word, n) != 0) {
        return bad(r, err, "unexpected character");
    }
    r->p += n;
    r->kind = kind;
    return QN_OK;
}

static void after_value(qn_json_reader *r) { r->state = r->depth ? COMMA_OR_CLOSE : DONE; }

static void skip_space(qn_json_reader *r) {
    while (r->p < r->end && (*r->p == ' ' || *r->p == '\n' || *r->p == '\r' || *r->p == '\t')) {
        r->p++;
    }
}

static qn_status close_container(qn_json_reader *r, char c, qn_error *err) {
    if (r->depth == 0 || r->open[r->depth - 1] != (c == '}' ? '{' : '[')) {
        return bad(r, err, "unbalanced bracket");
    }
    r->p++;
    r->depth--;
    r->kind = c == '}' ? QN_JSON_OBJECT_END : QN_JSON_ARRAY_END;
    after_value(r);
    return QN_OK;
}

qn_status qn_json_next(qn_json_reader *r, qn_error *err) {
    skip_space(r);
    if (r->state == DONE) {
        if (r->p < r->end) return bad(r, err, "text after the document");
        r->kind = QN_JSON_END;
        return QN_OK;
    }
    if (r->p >= r->end) return bad(r, err, "unexpected end");
    char c = *r->p;
    if (r->state == COMMA_OR_CLOSE) {
        if (c == '}' || c == ']') return close_container(r, c, err);
        if (c != ',') return bad(r, err, "expected ',' or a closing bracket");
        r->p++;
        skip_space(r);
        if (r->p >= r->end) return bad(r, err, "unexpected end");
        c = *r->p;
        r->state = r->open[r->depth - 1] == '{' ? KEY_ONLY : VALUE;
    }
    if (r->state == KEY_OR_CLOSE || r->state == KEY_ONLY) {
        if (c == '}' && r->state == KEY_OR_CLOSE) return close_container(r, c, err);
        if (c != '"') return bad(r, err, "expected a member name");
        r->p++;
        qn_status st = read_string(r, err);
        if (st != QN_OK) return st;
        skip_space(r);
        if (r->p >= r->end || *r->p != ':') return bad(r, err, "expected ':'");
        r->p++;
        r->kind = QN_JSON_KEY;
        r->state = VALUE;
        return QN_OK;
    }
    if (c == ']' && r->state == VALUE_OR_CLOSE) return close_container(r, c, err);
    if (c == '{' || c == '[') {
        if (r->depth >= QN_JSON_MAX_DEPTH) {
            return qn_fail(err, QN_ERR_LIMIT, "JSON: nested deeper than %d", QN_JSON_MAX_DEPTH);
        }
        r->open[r->depth++] = c;
        r->p++;
        r->kind = c == '{' ? QN_JSON_OBJECT_BEGIN : QN_JSON_ARRAY_BEGIN;
        r->state = c == '{' ? KEY_OR_CLOSE : VALUE_OR_CLOSE;
        return QN_OK;
    }
    qn_status st;
    if (c == '"') {
        r->p++;
        st = read_string(r, err);
        r->kind = QN_JSON_STRING;
    } else if (c == '-' || (c >= '0' && c <= '9')) {
        st = read_number(r, err);
    } else if (c == 't') {
        st = literal(r, "true", QN_JSON_TRUE, err);
    } else if (c == 'f') {
        st = literal(r, "false", QN_JSON_FALSE, err);
    } else {
        st = literal(r, "null", QN_JSON_NULL, err);
    }
    if (st == QN_OK) after_value(r);
    return st;
}

qn_status qn_json_skip(qn_json_reader *r, qn_error *err) {
    if (r->kind == QN_JSON_KEY) {
        qn_status st = qn_json_next(r, err);
        if (st != QN_OK) return st;
    }
    if (r->kind != QN_JSON_OBJECT_BEGIN && r->kind != QN_JSON_ARRAY_BEGIN) return QN_OK;
    int until = r->depth - 1;
    while (r->depth > until) {
        qn_status st = qn_json_next(r, err);
        if (st != QN_OK) return st;
    }
    return QN_OK;
}
