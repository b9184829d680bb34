// SPDX-License-Identifier: Apache-2.0
// Cuts text into the pieces that merges may not cross. Stages are applied one after another, each
// to every piece of the one before, as if the piece were a text of its own.
#include "tokenizer/internal.h"

#include "base/utf8.h"

// Limits of one match. Patterns come from files; those of real models stay far below.
enum { MATCH_LIMIT = 20 * 1000 * 1000, HEAP_LIMIT_KIB = 64 * 1024, MAX_PATTERN = 16 * 1024 };

// What Oniguruma (which the patterns are written for) and PCRE2 read differently: \s is the
// property White_Space (PCRE2 adds U+180E), \w has marks, connectors and a few numbers of Latin-1,
// \h is a hexadecimal digit, classes nest and intersect.
static qn_status translate(const char *p, size_t len, qn_buf *out, qn_error *err) {
    static const char word[] =
        "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";
    bool in_class = false;
    for (size_t i = 0; i < len; i++) {
        char c = p[i];
        if (c == '\\' && i + 1 < len) {
            char e = p[++i];
            switch (e) {
            case 's':
                qn_buf_puts(out, "\\p{White_Space}");
                break;
            case 'S':
                qn_buf_puts(out, "\\P{White_Space}");
                break;
            case 'w':
                qn_buf_printf(out, in_class ? "%s" : "[%s]", word);
                break;
            case 'h':
                qn_buf_puts(out, in_class ? "0-9A-Fa-f" : "[0-9A-Fa-f]");
                break;
            case 'W':
            case 'H':
                if (in_class) {
                    return qn_fail(err, QN_ERR_UNSUPPORTED,
                                   "pattern: \\%c inside a character class is not supported", e);
                }
                qn_buf_printf(out, "[^%s]", e == 'W' ? word : "0-9A-Fa-f");
                break;
            default:
                qn_buf_putc(out, '\\');
                qn_buf_putc(out, e);
            }
            continue;
        }
        if (!in_class && c == '[') {
            in_class = true;
            qn_buf_putc(out, c);
            if (i + 1 < len && p[i + 1] == '^') qn_buf_putc(out, p[++i]);
            if (i + 1 < len && p[i + 1] == ']') { // a literal first in a class
                qn_buf_puts(out, "\\]");
                i++;
            }
            continue;
        }
        if (in_class && c == ']') in_class = false;
        if (in_class && c == '[') {
            if (i + 1 < len && p[i + 1] == ':') { // [:alpha:]
                const char *end = memchr(p + i, ']', len - i);
                size_t n = end ? (size_t)(end - (p + i)) + 1 : 0;
                if (n > 3 && p[i + n - 2] == ':') {
                    qn_buf_append(out, p + i, n);
                    i += n - 1;
                    continue;
                }
            }
            return qn_fail(err, QN_ERR_UNSUPPORTED,
                           "pattern: a character class inside another is not supported");
        }
        if (in_class && c == '&' && i + 1 < len && p[i + 1] == '&') {
            return qn_fail(err, QN_ERR_UNSUPPORTED,
                           "pattern: intersection of character classes (&&) is not supported");
        }
        qn_buf_putc(out, c);
    }
    return out->failed ? qn_fail(err, QN_ERR_NOMEM, "out of memory for a pattern") : QN_OK;
}

static qn_status new_stage(qn_pre *pre, qn_pre_stage stage, qn_error *err) {
    if (pre->n == QN_PRE_MAX_STAGES) {
        return qn_fail(err, QN_ERR_LIMIT, "more than %d pre-tokenizers", QN_PRE_MAX_STAGES);
    }
    pre->stages[pre->n++] = stage;
    return QN_OK;
}

static qn_status compile(const char *pattern, size_t len, bool literal, pcre2_code **code,
                         qn_error *err) {
    int number;
    PCRE2_SIZE offset;
    uint32_t options = literal ? PCRE2_LITERAL | PCRE2_UTF
                               : PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    *code = pcre2_compile((PCRE2_SPTR)pattern, len, options, &number, &offset, NULL);
    if (!*code && number == PCRE2_ERROR_HEAP_FAILED) {
        return qn_fail(err, QN_ERR_NOMEM, "out of memory for a pattern");
    }
    if (!*code) {
        char text[128] = "";
        pcre2_get_error_message(number, (PCRE2_UCHAR *)text, sizeof text);
        return qn_fail(err, QN_ERR_UNSUPPORTED, "pattern: %s at byte %zu", text, (size_t)offset);
    }
    pcre2_jit_compile(*code, PCRE2_JIT_COMPLETE); // where there is no JIT, it is interpreted
    return QN_OK;
}

qn_status qn_pre_add_regex(qn_pre *pre, const char *pattern, size_t len, bool literal,
                           qn_pre_behavior behavior, bool invert, qn_error *err) {
    if (len > MAX_PATTERN) return qn_fail(err, QN_ERR_LIMIT, "pattern of %zu bytes", len);
    if (!pre->limits) {
        pre->limits = pcre2_match_context_create(NULL);
        if (!pre->limits) return qn_fail(err, QN_ERR_NOMEM, "out of memory for a pattern");
        pcre2_set_match_limit(pre->limits, MATCH_LIMIT);
        pcre2_set_heap_limit(pre->limits, HEAP_LIMIT_KIB);
    }
    qn_buf buf = {0};
    pcre2_code *code = NULL;
    qn_status st = QN_OK;
    if (!literal) {
        st = translate(pattern, len, &buf, err);
        pattern = buf.data ? buf.data : "";
        len = buf.len;
    }
    if (st == QN_OK) st = compile(pattern, len, literal, &code, err);
    qn_buf_free(&buf);
    if (st != QN_OK) return st;
    qn_pre_stage stage = {
        .kind = QN_PRE_REGEX, .behavior = behavior, .invert = invert, .code = code};
    st = new_stage(pre, stage, err);
    if (st != QN_OK) pcre2_code_free(code);
    return st;
}

qn_status qn_pre_add(qn_pre *pre, const char *pattern, size_t len, bool literal,
                     qn_pre_behavior behavior, bool invert, qn_error *err) {
    // These patterns match everything, so "isolated" and "removed, inverted" cut alike.
    bool cuts = behavior == QN_PRE_ISOLATED || (behavior == QN_PRE_REMOVED && invert);
    qn_str p = {pattern, len};
    if (cuts && !literal) {
        if (qn_str_is(p, QN_PATTERN_GPT2)) {
            return new_stage(pre, (qn_pre_stage){.kind = QN_PRE_GPT2}, err);
        }
        if (qn_str_is(p, QN_PATTERN_LLAMA3)) {
            return new_stage(pre, (qn_pre_stage){.kind = QN_PRE_CL100K, .max_digits = 3}, err);
        }
        if (qn_str_is(p, QN_PATTERN_QWEN2)) {
            return new_stage(pre, (qn_pre_stage){.kind = QN_PRE_CL100K, .max_digits = 1}, err);
        }
    }
    // As written this is tried at every space of a run that does not end the text: quadratic. The
    // run's first space decides.
    if (!literal && qn_str_is(p, "\\s+$")) {
        p = QN_STR("(?<!\\s)\\s+$");
    }
    return qn_pre_add_regex(pre, p.data, p.len, literal, behavior, invert, err);
}

qn_status qn_pre_add_wordstart(qn_pre *pre, qn_error *err) {
    return new_stage(pre, (qn_pre_stage){.kind = QN_PRE_WORDSTART}, err);
}

void qn_pre_free(qn_pre *pre) {
    for (size_t i = 0; i < pre->n; i++)
        pcre2_code_free(pre->stages[i].code);
    pcre2_match_context_free(pre->limits);
    memset(pre, 0, sizeof *pre);
}

typedef struct splitter {
    const qn_pre *pre;
    pcre2_match_data **match_data;
    qn_piece_fn fn;
    void *user;
    qn_error *err;
} splitter;

// The piece that a behaviour may still make longer.
typedef struct pending {
    const char *s;
    size_t len;
    bool match;
} pending;

static qn_status run(const splitter *sp, size_t stage, const char *s, size_t len);

static qn_status flush(const splitter *sp, size_t stage, pending *p) {
    size_t len = p->len;
    p->len = 0;
    return len ? run(sp, stage + 1, p->s, len) : QN_OK;
}

// The next part of a text, as it was matched or lay between matches.
static qn_status part(const splitter *sp, size_t stage, pending *p, const char *s, size_t len,
                      bool match) {
    const qn_pre_stage *st = &sp->pre->stages[stage];
    if (len == 0) return QN_OK;
    match = match != st->invert;
    if (st->behavior == QN_PRE_ISOLATED) return run(sp, stage + 1, s, len);
    if (st->behavior == QN_PRE_REMOVED) return match ? QN_OK : run(sp, stage + 1, s, len);
    bool join = p->len > 0 && ((st->behavior == QN_PRE_CONTIGUOUS && match == p->match) ||
                               (st->behavior == QN_PRE_WITH_PREVIOUS && match && !p->match) ||
                               (st->behavior == QN_PRE_WITH_NEXT && !match && p->match));
    if (join) {
        p->len += len;
        p->match = match;
        return QN_OK;
    }
    qn_status status = flush(sp, stage, p);
    *p = (pending){s, len, match};
    return status;
}

static qn_status match_at(const splitter *sp, const qn_pre_stage *st, const char *s, size_t len,
                          size_t pos, size_t *start, size_t *end, bool *found) {
    *found = false;
    if (!*sp->match_data) {
        *sp->match_data = pcre2_match_data_create(1, NULL);
        if (!*sp->match_data) return qn_fail(sp->err, QN_ERR_NOMEM, "out of memory");
    }
    int rc = pcre2_match(st->code, (PCRE2_SPTR)s, len, pos, PCRE2_NO_UTF_CHECK, *sp->match_data,
                         sp->pre->limits);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
        rc = pcre2_match(st->code, (PCRE2_SPTR)s, len, pos, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         *sp->match_data, sp->pre->limits);
    }
    if (rc == PCRE2_ERROR_NOMATCH) return QN_OK;
    if (rc == PCRE2_ERROR_NOMEMORY) return qn_fail(sp->err, QN_ERR_NOMEM, "out of memory");
    if (rc < 0) {
        char text[128] = "";
        pcre2_get_error_message(rc, (PCRE2_UCHAR *)text, sizeof text);
        return qn_fail(sp->err, QN_ERR_LIMIT, "pre-tokenizer pattern: %s", text);
    }
    const PCRE2_SIZE *o = pcre2_get_ovector_pointer(*sp->match_data);
    *start = o[0];
    *end = o[1];
    if (o[0] < pos || o[1] < o[0] || o[1] > len) {
        return qn_fail(sp->err, QN_ERR_UNSUPPORTED, "pre-tokenizer pattern: match runs backwards");
    }
    *found = true;
    return QN_OK;
}

static qn_status run_regex(const splitter *sp, size_t stage, const char *s, size_t len) {
    pending p = {0};
    size_t done = 0, pos = 0;
    qn_status status = QN_OK;
    while (status == QN_OK && pos <= len) {
        size_t start, end;
        bool found;
        status = match_at(sp, &sp->pre->stages[stage], s, len, pos, &start, &end, &found);
        if (status != QN_OK || !found) break;
        status = part(sp, stage, &p, s + done, start - done, false);
        if (status == QN_OK) status = part(sp, stage, &p, s + start, end - start, true);
        done = end;
        pos = end;
        if (end == start) { // an empty match only cuts
            pos++;
            while (pos < len && ((uint8_t)s[pos] & 0xc0) == 0x80)
                pos++;
        }
    }
    if (status == QN_OK) status = part(sp, stage, &p, s + done, len - done, false);
    return status == QN_OK ? flush(sp, stage, &p) : status;
}

static size_t next_word_start(const char *s, size_t len, size_t pos) {
    bool mark = false;
    for (; pos < len; pos++) {
        bool is =
            (uint8_t)s[pos] == 0xe2 && len - pos >= 3 && memcmp(s + pos, QN_SPACE_MARK, 3) == 0;
        if (!is) {
            mark = false;
            continue;
        }
        if (!mark) return pos;
        pos += 2;
    }
    return len;
}

static qn_status run(const splitter *sp, size_t stage, const char *s, size_t len) {
    if (stage == sp->pre->n) return sp->fn(sp->user, s, len);
    const qn_pre_stage *st = &sp->pre->stages[stage];
    if (st->kind == QN_PRE_REGEX) return run_regex(sp, stage, s, len);
    qn_status status = QN_OK;
    for (size_t pos = 0, end; pos < len && status == QN_OK; pos = end) {
        if (st->kind == QN_PRE_GPT2) {
            end = qn_scan_gpt2(s, len, pos);
        } else if (st->kind == QN_PRE_CL100K) {
            end = qn_scan_cl100k(s, len, pos, st->max_digits);
        } else {
            end = pos;
            while (len - end >= 3 && memcmp(s + end, QN_SPACE_MARK, 3) == 0)
                end += 3;
            end = next_word_start(s, len, end);
        }
        status = run(sp, stage + 1, s + pos, end - pos);
    }
    return status;
}

qn_status qn_pre_split(const qn_pre *pre, const char *s, size_t len, pcre2_match_data **match_data,
                       qn_piece_fn fn, void *user, qn_error *err) {
    splitter sp = {pre, match_data, fn, user, err};
    if (len == 0) return QN_OK;
    if (pre->n == 0) return fn(user, s, len);
    qn_status st = QN_OK;
    for (size_t pos = 0; pos < len && st == QN_OK;) {
        uint32_t cp;
        size_t end = pos, n;
        while (end < len &&
               (n = (uint8_t)s[end] < 0x80 ? 1 : qn_utf8_decode(s + end, len - end, &cp)))
            end += n;
        if (end > pos) st = run(&sp, 0, s + pos, end - pos);
        pos = end;
        while (end < len && qn_utf8_decode(s + end, len - end, &cp) == 0)
            end++;
        if (st == QN_OK && end > pos) st = fn(user, s + pos, end - pos);
        pos = end;
    }
    return st;
}
