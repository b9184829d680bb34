// SPDX-License-Identifier: Apache-2.0
// Splits a template into text, tags and the tokens inside tags, with Jinja2's rules for white space
// (trim_blocks and lstrip_blocks on): a block tag takes the newline after it and the blanks before
// it on its line; `-` takes all white space on its side; `+` switches the rule off.
#include "template/interp.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

enum { MODE_TEXT, MODE_BLOCK, MODE_VAR };
enum { TAG_NONE, TAG_BLOCK, TAG_VAR, TAG_COMMENT, TAG_RAW };

void tpl_lexer_init(tpl_lexer *lx, const char *src, size_t len, qn_arena *arena, qn_error *err) {
    *lx = (tpl_lexer){
        .src = src, .len = len, .line = 1, .line_starting = true, .arena = arena, .err = err};
}

static qn_status lex_fail(tpl_lexer *lx, const char *what) {
    return qn_fail(lx->err, QN_ERR_FORMAT, "template line %u: %s", lx->line, what);
}

// Moves to a position, counting lines.
static void advance(tpl_lexer *lx, size_t to) {
    for (const char *p = lx->src + lx->pos, *end = lx->src + to;
         p < end && (p = memchr(p, '\n', (size_t)(end - p)));) {
        lx->line++;
        p++;
    }
    lx->pos = to;
}

static size_t skip_space(const tpl_lexer *lx, size_t at) {
    size_t n;
    while ((n = tpl_space_at(lx->src + at, lx->len - at))) at += n;
    return at;
}

static bool at_text(const tpl_lexer *lx, size_t at, const char *lit) {
    size_t n = strlen(lit);
    return lx->len - at >= n && memcmp(lx->src + at, lit, n) == 0;
}

// The end of a closing tag at `at`, with the white space it takes; 0 if there is none.
static size_t closing(const tpl_lexer *lx, size_t at, const char *close, bool plus, bool trim) {
    if (at_text(lx, at, close)) {
        at += 2;
        return trim && at < lx->len && lx->src[at] == '\n' ? at + 1 : at;
    }
    if (at < lx->len && at_text(lx, at + 1, close)) {
        if (lx->src[at] == '-') return skip_space(lx, at + 3);
        if (lx->src[at] == '+' && plus) return at + 3;
    }
    return 0;
}

// Whether {% raw %} begins at `at` (the position of its brace); *end: where its content begins.
static bool raw_begin(const tpl_lexer *lx, size_t at, size_t *end) {
    size_t p = at + 2;
    if (p < lx->len && (lx->src[p] == '-' || lx->src[p] == '+')) p++;
    p = skip_space(lx, p);
    if (!at_text(lx, p, "raw")) return false;
    p = skip_space(lx, p + 3);
    *end = closing(lx, p, "%}", false, false);
    return *end != 0;
}

// The end of the text before a tag at `tag`, after what the tag takes from it.
static size_t strip_before(const tpl_lexer *lx, size_t from, size_t tag, char sign, bool variable) {
    size_t end = tag;
    if (sign == '-') {
        size_t n;
        while ((n = tpl_space_before(lx->src + from, end - from))) end -= n;
        return end;
    }
    if (sign == '+' || variable) return end;
    size_t start = from;
    for (size_t i = tag; i > from; i--) {
        if (lx->src[i - 1] == '\n') {
            start = i;
            break;
        }
        size_t n = tpl_space_before(lx->src + from, i - from);
        if (n == 0) return tag;
        i -= n - 1;
    }
    return start > from || lx->line_starting ? start : tag;
}

static qn_status lex_text(tpl_lexer *lx, tpl_token *out) {
    while (lx->pos < lx->len || lx->pending) {
        if (lx->pending == TAG_NONE) {
            size_t from = lx->pos, at = from;
            int tag = TAG_NONE;
            for (const char *p; at < lx->len; at++) {
                p = memchr(lx->src + at, '{', lx->len - at);
                if (!p || p + 1 >= lx->src + lx->len) {
                    at = lx->len;
                    break;
                }
                at = (size_t)(p - lx->src);
                tag = p[1] == '{'   ? TAG_VAR
                      : p[1] == '%' ? TAG_BLOCK
                      : p[1] == '#' ? TAG_COMMENT
                                    : 0;
                if (tag) break;
            }
            size_t end = at;
            if (tag) {
                char sign = at + 2 < lx->len ? lx->src[at + 2] : 0;
                end = strip_before(lx, from, at, sign, tag == TAG_VAR);
                size_t raw;
                if (tag == TAG_BLOCK && raw_begin(lx, at, &raw)) tag = TAG_RAW;
            }
            lx->pending = tag;
            uint32_t line = lx->line;
            advance(lx, at);
            if (end > from) {
                *out =
                    (tpl_token){.kind = T_DATA, .line = line, .text = {lx->src + from, end - from}};
                return QN_OK;
            }
            continue;
        }
        int tag = lx->pending;
        lx->pending = TAG_NONE;
        size_t at = lx->pos;
        if (tag == TAG_RAW) {
            size_t begin = 0;
            (void)raw_begin(lx, at, &begin);
            // The end of the raw block, and of its text.
            for (size_t p = begin;; p++) {
                const char *q = p < lx->len ? memchr(lx->src + p, '{', lx->len - p) : NULL;
                if (!q) return lex_fail(lx, "missing end of raw block");
                p = (size_t)(q - lx->src);
                if (!at_text(lx, p, "{%")) continue;
                char sign = p + 2 < lx->len ? lx->src[p + 2] : 0;
                size_t e = skip_space(lx, p + 2 + (sign == '-' || sign == '+'));
                if (!at_text(lx, e, "endraw")) continue;
                size_t done = closing(lx, skip_space(lx, e + 6), "%}", true, true);
                if (!done) continue;
                lx->line_starting = lx->src[begin - 1] == '\n';
                size_t end = strip_before(lx, begin, p, sign, false);
                advance(lx, begin);
                uint32_t line = lx->line;
                advance(lx, done);
                lx->line_starting = lx->src[done - 1] == '\n';
                *out = (tpl_token){
                    .kind = T_DATA, .line = line, .text = {lx->src + begin, end - begin}};
                return QN_OK;
            }
        }
        if (tag == TAG_COMMENT) {
            size_t p = at + 2, end = 0;
            // The sign of the opening tag is not part of the closing one.
            if (p < lx->len && (lx->src[p] == '-' || lx->src[p] == '+')) p++;
            for (; p < lx->len; p++) {
                const char *q = memchr(lx->src + p, '#', lx->len - p);
                if (!q) break;
                size_t hash = (size_t)(q - lx->src);
                bool sign = hash > p && (q[-1] == '-' || q[-1] == '+');
                p = hash;
                if ((end = closing(lx, sign ? hash - 1 : hash, "#}", true, true))) break;
            }
            if (!end) return lex_fail(lx, "missing end of comment tag");
            advance(lx, end);
            lx->line_starting = lx->src[end - 1] == '\n';
            continue;
        }
        char sign = at + 2 < lx->len ? lx->src[at + 2] : 0;
        *out = (tpl_token){.kind = tag == TAG_VAR ? T_VAR_BEGIN : T_BLOCK_BEGIN, .line = lx->line};
        advance(lx, at + 2 + (sign == '-' || sign == '+'));
        lx->mode = tag == TAG_VAR ? MODE_VAR : MODE_BLOCK;
        lx->open = 0;
        return QN_OK;
    }
    *out = (tpl_token){.kind = T_EOF, .line = lx->line};
    return QN_OK;
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}
static int hex_value(char c) {
    if (is_digit(c)) return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

// Digits of a base with single underscores between; the end of them.
static size_t digits(const tpl_lexer *lx, size_t at, int base) {
    size_t p = at;
    while (p < lx->len) {
        int v = hex_value(lx->src[p]);
        if (v >= 0 && v < base) {
            p++;
            continue;
        }
        if (lx->src[p] == '_' && p > at && p + 1 < lx->len) {
            v = hex_value(lx->src[p + 1]);
            if (v >= 0 && v < base) {
                p += 2;
                continue;
            }
        }
        break;
    }
    return p;
}

static qn_status lex_number(tpl_lexer *lx, tpl_token *out) {
    const char *s = lx->src;
    size_t at = lx->pos, p = digits(lx, at, 10);
    bool real = false;
    bool after_dot = at > 0 && s[at - 1] == '.';
    if (!after_dot) {
        size_t q = p;
        if (q + 1 < lx->len && s[q] == '.' && is_digit(s[q + 1])) {
            q = digits(lx, q + 1, 10);
            real = true;
        }
        if (q < lx->len && (s[q] == 'e' || s[q] == 'E')) {
            size_t e = q + 1;
            if (e < lx->len && (s[e] == '+' || s[e] == '-')) e++;
            if (e < lx->len && is_digit(s[e])) {
                q = digits(lx, e, 10);
                real = true;
            }
        }
        if (real) p = q;
    }
    int base = 10;
    if (!real && s[at] == '0' && at + 1 < lx->len) {
        char c = s[at + 1];
        base = c == 'x' || c == 'X' ? 16 : c == 'o' || c == 'O' ? 8 : c == 'b' || c == 'B' ? 2 : 10;
        size_t q = base == 10 ? 0 : digits(lx, at + 2, base);
        if (q > at + 2) {
            p = q;
            at += 2;
        } else {
            base = 10;
        }
    }
    if (real) {
        char text[512];
        size_t n = 0;
        for (size_t i = at; i < p; i++) {
            if (s[i] == '_') continue;
            if (n + 1 >= sizeof text) return lex_fail(lx, "number too long");
            text[n++] = s[i];
        }
        text[n] = 0;
        *out = (tpl_token){.kind = T_FLOAT, .line = lx->line, .f = strtod(text, NULL)};
    } else {
        int64_t v = 0;
        // No decimal number begins with 0 but 0 itself, which may be written 00 (as Python has it).
        if (base == 10 && s[at] == '0') {
            while (p > at && s[p - 1] != '0') p--;
            for (size_t i = at; i < p; i++) {
                if (s[i] != '0' && s[i] != '_') p = i;
            }
        }
        for (size_t i = at; i < p; i++) {
            if (s[i] == '_') continue;
            if (__builtin_mul_overflow(v, base, &v) ||
                __builtin_add_overflow(v, hex_value(s[i]), &v)) {
                return lex_fail(lx, "integer too large");
            }
        }
        *out = (tpl_token){.kind = T_INT, .line = lx->line, .i = v};
    }
    advance(lx, p);
    return QN_OK;
}

// Python's escapes: those that it does not know stay as they are.
static qn_status lex_string(tpl_lexer *lx, tpl_token *out) {
    const char *s = lx->src;
    char quote = s[lx->pos];
    size_t p = lx->pos + 1, escapes = 0;
    while (p < lx->len && s[p] != quote) {
        if (s[p] == '\\') {
            escapes++;
            p++;
        }
        p++;
    }
    if (p >= lx->len) return lex_fail(lx, "string without end");
    size_t from = lx->pos + 1;
    *out = (tpl_token){.kind = T_STRING, .line = lx->line, .text = {s + from, p - from}};
    if (escapes) {
        char *t = qn_arena_alloc(lx->arena, p - from + 1);
        if (!t) return qn_fail(lx->err, QN_ERR_NOMEM, "out of memory");
        size_t n = 0;
        for (size_t i = from; i < p; i++) {
            if (s[i] != '\\') {
                t[n++] = s[i];
                continue;
            }
            char c = s[++i];
            static const char from_c[] = "\\'\"abfnrtv", to_c[] = "\\'\"\a\b\f\n\r\t\v";
            const char *known = memchr(from_c, c, sizeof from_c - 1);
            size_t hex = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
            uint32_t cp = 0;
            if (known) {
                t[n++] = to_c[known - from_c];
                continue;
            } else if (c == '\n') {
                continue;
            } else if (c >= '0' && c <= '7') {
                size_t k = 0;
                for (; k < 3 && i + k < p && s[i + k] >= '0' && s[i + k] <= '7'; k++) {
                    cp = cp * 8 + (uint32_t)(s[i + k] - '0');
                }
                i += k - 1;
            } else if (hex) {
                for (size_t k = 1; k <= hex; k++) {
                    int v = i + k < p ? hex_value(s[i + k]) : -1;
                    if (v < 0) return lex_fail(lx, "malformed escape in a string");
                    cp = cp * 16 + (uint32_t)v;
                }
                i += hex;
            } else {
                t[n++] = '\\';
                t[n++] = c;
                continue;
            }
            // An escape is at least as long as what it stands for, so t cannot run over: \xHH and
            // octal give at most 2 bytes, \uHHHH 3, \UHHHHHHHH 4; \7 gives 1.
            size_t k = qn_utf8_encode(cp, t + n);
            if (k == 0) return lex_fail(lx, "escape in a string is no character");
            n += k;
        }
        out->text = (qn_str){t, n};
    }
    advance(lx, p + 1);
    return QN_OK;
}

// Letters, digits, underscore and all else that Unicode lets into words. 0: none.
static size_t word_at(const tpl_lexer *lx, size_t at, bool first) {
    unsigned char c = (unsigned char)lx->src[at];
    if (c < 0x80) {
        bool alpha = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        return alpha || (!first && is_digit((char)c));
    }
    uint32_t cp;
    size_t n = qn_utf8_decode(lx->src + at, lx->len - at, &cp);
    if (n == 0) return 0;
    utf8proc_category_t cat = utf8proc_category((utf8proc_int32_t)cp);
    bool letter = cat >= UTF8PROC_CATEGORY_LU && cat <= UTF8PROC_CATEGORY_LO;
    bool more = cat >= UTF8PROC_CATEGORY_MN && cat <= UTF8PROC_CATEGORY_NL;
    return letter || cat == UTF8PROC_CATEGORY_NL || (!first && more) ? n : 0;
}

static qn_status lex_operator(tpl_lexer *lx, tpl_token *out) {
    static const struct {
        char text[3];
        uint8_t op;
    } ops[] = {
        {"//", OP_FLOORDIV}, {"**", OP_POW},      {"==", OP_EQ},    {"!=", OP_NE},
        {">=", OP_GE},       {"<=", OP_LE},       {"+", OP_ADD},    {"-", OP_SUB},
        {"/", OP_DIV},       {"*", OP_MUL},       {"%", OP_MOD},    {"~", OP_TILDE},
        {"[", OP_LBRACKET},  {"]", OP_RBRACKET},  {"(", OP_LPAREN}, {")", OP_RPAREN},
        {"{", OP_LBRACE},    {"}", OP_RBRACE},    {">", OP_GT},     {"<", OP_LT},
        {"=", OP_ASSIGN},    {".", OP_DOT},       {":", OP_COLON},  {"|", OP_PIPE},
        {",", OP_COMMA},     {";", OP_SEMICOLON},
    };
    for (size_t i = 0; i < QN_COUNT(ops); i++) {
        if (!at_text(lx, lx->pos, ops[i].text)) continue;
        tpl_op op = (tpl_op)ops[i].op;
        if (op == OP_LBRACKET || op == OP_LPAREN || op == OP_LBRACE) lx->open++;
        if (op == OP_RBRACKET || op == OP_RPAREN || op == OP_RBRACE) {
            if (lx->open-- <= 0) break;
        }
        *out = (tpl_token){.kind = T_OP, .op = op, .line = lx->line};
        out->text = (qn_str){lx->src + lx->pos, strlen(ops[i].text)};
        advance(lx, lx->pos + strlen(ops[i].text));
        return QN_OK;
    }
    unsigned char c = (unsigned char)lx->src[lx->pos];
    return qn_fail(lx->err, QN_ERR_FORMAT, "template line %u: unexpected character %s%c%s",
                   lx->line, c >= 0x20 && c < 0x7f ? "'" : "", c >= 0x20 && c < 0x7f ? c : '?',
                   c >= 0x20 && c < 0x7f ? "'" : "");
}

qn_status tpl_lex(tpl_lexer *lx, tpl_token *out) {
    if (lx->mode == MODE_TEXT) return lex_text(lx, out);
    bool var = lx->mode == MODE_VAR;
    for (;;) {
        if (lx->pos >= lx->len) return lex_fail(lx, "template ends inside a tag");
        if (lx->open == 0) {
            size_t end = closing(lx, lx->pos, var ? "}}" : "%}", !var, !var);
            if (end) {
                *out = (tpl_token){.kind = var ? T_VAR_END : T_BLOCK_END, .line = lx->line};
                advance(lx, end);
                lx->line_starting = lx->src[end - 1] == '\n';
                lx->mode = MODE_TEXT;
                return QN_OK;
            }
        }
        size_t n = tpl_space_at(lx->src + lx->pos, lx->len - lx->pos);
        if (n == 0) break;
        advance(lx, lx->pos + n);
    }
    char c = lx->src[lx->pos];
    if (is_digit(c)) return lex_number(lx, out);
    if (c == '"' || c == '\'') return lex_string(lx, out);
    size_t n = word_at(lx, lx->pos, true);
    if (n == 0) return lex_operator(lx, out);
    size_t end = lx->pos;
    while (end < lx->len && (n = word_at(lx, end, end == lx->pos))) end += n;
    *out =
        (tpl_token){.kind = T_NAME, .line = lx->line, .text = {lx->src + lx->pos, end - lx->pos}};
    lx->pos = end;
    return QN_OK;
}
