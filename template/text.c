// SPDX-License-Identifier: Apache-2.0
// Text of values (str, repr, JSON, printf-style) and the work on strings that filters and methods
// share. Everything keeps the origin of each byte; repr and JSON of a container are trusted only if
// every string in it is.
#include "template/interp.h"

#include "base/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

// ---- Characters -----------------------------------------------------------------------------

bool tpl_is_space(uint32_t c) {
    if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x1f);
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

size_t tpl_space_at(const char *s, size_t len) {
    uint32_t cp;
    if (len == 0) return 0;
    if ((unsigned char)s[0] < 0x80) return tpl_is_space((unsigned char)s[0]);
    size_t n = qn_utf8_decode(s, len, &cp);
    return n && tpl_is_space(cp) ? n : 0;
}

// The start of the last character of s.
static size_t last_char(const char *s, size_t len) {
    size_t at = len - 1;
    while (at > 0 && len - at < 4 && ((unsigned char)s[at] & 0xc0) == 0x80) at--;
    return at;
}

size_t tpl_space_before(const char *s, size_t len) {
    if (len == 0) return 0;
    size_t at = last_char(s, len);
    return tpl_space_at(s + at, len - at) == len - at ? len - at : 0;
}

// The character at s, or the byte itself where it is not UTF-8. Never 0 long.
static size_t char_at(const char *s, size_t len, uint32_t *cp) {
    size_t n = qn_utf8_decode(s, len, cp);
    if (n) return n;
    *cp = (unsigned char)s[0];
    return 1;
}

// ---- Numbers --------------------------------------------------------------------------------

size_t tpl_format_double(double f, char out[40]) {
    if (isnan(f)) return (size_t)snprintf(out, 40, "nan");
    if (isinf(f)) return (size_t)snprintf(out, 40, f < 0 ? "-inf" : "inf");
    // The shortest digits that read back as the same number.
    char e[40];
    for (int prec = 0; prec < 17; prec++) {
        snprintf(e, sizeof e, "%.*e", prec, f);
        if (strtod(e, NULL) == f) break;
    }
    char *mark = strchr(e, 'e');
    int exp = (int)strtol(mark + 1, NULL, 10);
    if (exp < -4 || exp >= 16) {
        *mark = 0;
        return (size_t)snprintf(out, 40, "%se%c%02d", e, exp < 0 ? '-' : '+', abs(exp));
    }
    int digits = (int)(mark - e) - (e[0] == '-') - (strchr(e, '.') != NULL);
    int decimals = digits - 1 - exp;
    return (size_t)snprintf(out, 40, "%.*f", decimals < 1 ? 1 : decimals, f);
}

// ---- Writing values -------------------------------------------------------------------------

// Text made here, before it becomes a string of the render.
typedef struct writer {
    tpl_render *r;
    char *data;
    size_t len, cap;
    bool untrusted;
} writer;

static bool put(writer *w, const char *s, size_t n) {
    if (n > w->r->max_memory || !tpl_work(w->r, n)) {
        return tpl_fail(w->r, QN_ERR_LIMIT, "text too long");
    }
    if (!tpl_grow(w->r, &w->data, &w->cap, w->len + n, 1)) return false;
    if (n) memcpy(w->data + w->len, s, n);
    w->len += n;
    return true;
}
static bool puts_(writer *w, const char *s) {
    return put(w, s, strlen(s));
}
static tpl_str *written(writer *w) {
    return tpl_str_ref(w->r, w->data, w->len, !w->untrusted);
}

static bool printable(uint32_t cp) {
    if (cp < 0x80) return cp >= 0x20 && cp < 0x7f;
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS: return false;
    default: return true;
    }
}

static bool repr_str(writer *w, tpl_str *s) {
    if (!tpl_flatten(w->r, s)) return false;
    w->untrusted |= !tpl_all_trusted(s);
    char quote = memchr(s->data, '\'', s->len) && !memchr(s->data, '"', s->len) ? '"' : '\'';
    if (!put(w, &quote, 1)) return false;
    for (size_t i = 0; i < s->len;) {
        uint32_t cp;
        size_t n = char_at(s->data + i, s->len - i, &cp);
        char esc[16] = "";
        if (cp == (uint32_t)quote || cp == '\\')
            snprintf(esc, sizeof esc, "\\%c", (char)cp);
        else if (cp == '\n')
            memcpy(esc, "\\n", 3);
        else if (cp == '\r')
            memcpy(esc, "\\r", 3);
        else if (cp == '\t')
            memcpy(esc, "\\t", 3);
        else if (!printable(cp)) {
            snprintf(esc, sizeof esc,
                     cp < 0x100     ? "\\x%02x"
                     : cp < 0x10000 ? "\\u%04x"
                                    : "\\U%08x",
                     cp);
        }
        if (!(esc[0] ? puts_(w, esc) : put(w, s->data + i, n))) return false;
        i += n;
    }
    return put(w, &quote, 1);
}

static bool write_number(writer *w, tpl_val v) {
    char text[40];
    if (v.kind == V_FLOAT) return put(w, text, tpl_format_double(v.u.f, text));
    return put(w, text, (size_t)snprintf(text, sizeof text, "%lld", (long long)v.u.i));
}

static bool write_repr(writer *w, tpl_val v, int depth);

static bool repr_items(writer *w, const tpl_seq *s, const char *open, const char *close,
                       int depth) {
    if (!puts_(w, open)) return false;
    for (size_t i = 0; i < s->n; i++) {
        if (i && !puts_(w, ", ")) return false;
        if (!write_repr(w, s->items[i], depth + 1)) return false;
    }
    return puts_(w, close);
}

static bool repr_dict(writer *w, const tpl_dict *d, int depth) {
    if (!puts_(w, "{")) return false;
    for (size_t i = 0; i < d->n; i++) {
        if (i && !puts_(w, ", ")) return false;
        if (!write_repr(w, d->items[i].key, depth + 1) || !puts_(w, ": ") ||
            !write_repr(w, d->items[i].value, depth + 1)) {
            return false;
        }
    }
    return puts_(w, "}");
}

static bool write_repr(writer *w, tpl_val v, int depth) {
    tpl_render *r = w->r;
    if (depth >= TPL_MAX_VALUE_DEPTH) {
        return tpl_fail(r, QN_ERR_LIMIT, "value nested too deeply to print");
    }
    if (!tpl_step(r, 1)) return false;
    char text[96];
    switch (v.kind) {
    case V_MISSING:
    case V_UNDEF: return puts_(w, "Undefined");
    case V_NONE: return puts_(w, "None");
    case V_BOOL: return puts_(w, v.u.b ? "True" : "False");
    case V_INT:
    case V_FLOAT: return write_number(w, v);
    case V_STR: return repr_str(w, v.u.s);
    case V_DICT: return repr_dict(w, v.u.d, depth);
    case V_NS: return puts_(w, "<Namespace ") && repr_dict(w, v.u.d, depth) && puts_(w, ">");
    case V_SEQ: {
        const tpl_seq *s = v.u.seq;
        switch (s->type) {
        case SEQ_LIST: return repr_items(w, s, "[", "]", depth);
        case SEQ_TUPLE: return repr_items(w, s, "(", s->n == 1 ? ",)" : ")", depth);
        case SEQ_KEYS: return repr_items(w, s, "dict_keys([", "])", depth);
        case SEQ_VALUES: return repr_items(w, s, "dict_values([", "])", depth);
        case SEQ_ITEMS: return repr_items(w, s, "dict_items([", "])", depth);
        case SEQ_RANGE:
            snprintf(text, sizeof text,
                     s->step == 1 ? "range(%lld, %lld)" : "range(%lld, %lld, %lld)",
                     (long long)s->start, (long long)s->stop, (long long)s->step);
            return puts_(w, text);
        default: return puts_(w, "<generator object>");
        }
    }
    default: snprintf(text, sizeof text, "<%s>", tpl_type_name(v)); return puts_(w, text);
    }
}

tpl_str *tpl_repr(tpl_render *r, tpl_val v) {
    writer w = {.r = r};
    return write_repr(&w, v, 0) ? written(&w) : NULL;
}

tpl_str *tpl_to_str(tpl_render *r, tpl_val v) {
    if (v.kind == V_STR) return v.u.s;
    if (v.kind == V_UNDEF || v.kind == V_MISSING) return tpl_str_ref(r, "", 0, true);
    if (v.kind == V_JOINER) return tpl_str_ref(r, "<Joiner>", 8, true);
    return tpl_repr(r, v);
}

// ---- JSON -----------------------------------------------------------------------------------

typedef struct json_writer {
    writer w;
    const tpl_str *indent, *item_sep, *key_sep;
    bool ascii, sort;
} json_writer;

static bool json_str(json_writer *j, tpl_str *s) {
    writer *w = &j->w;
    if (!tpl_flatten(w->r, s)) return false;
    w->untrusted |= !tpl_all_trusted(s);
    if (!puts_(w, "\"")) return false;
    size_t plain = 0; // start of what is copied as it is
    for (size_t i = 0; i < s->len;) {
        unsigned char c = (unsigned char)s->data[i];
        char esc[16] = "";
        size_t n = 1;
        static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
        const char *known = c ? memchr(from, c, sizeof from - 1) : NULL;
        if (known) {
            snprintf(esc, sizeof esc, "\\%c", to[known - from]);
        } else if (c < 0x20) {
            snprintf(esc, sizeof esc, "\\u%04x", c);
        } else if (c >= 0x80 && j->ascii) {
            uint32_t cp;
            n = char_at(s->data + i, s->len - i, &cp);
            if (cp < 0x10000) {
                snprintf(esc, sizeof esc, "\\u%04x", cp);
            } else {
                snprintf(esc, sizeof esc, "\\u%04x\\u%04x", 0xd7c0 + (cp >> 10),
                         0xdc00 + (cp & 0x3ff));
            }
        }
        if (esc[0]) {
            if (!put(w, s->data + plain, i - plain) || !puts_(w, esc)) return false;
            plain = i + n;
        }
        i += n;
    }
    return put(w, s->data + plain, s->len - plain) && puts_(w, "\"");
}

static bool json_scalar(json_writer *j, tpl_val v) {
    writer *w = &j->w;
    switch (v.kind) {
    case V_NONE: return puts_(w, "null");
    case V_BOOL: return puts_(w, v.u.b ? "true" : "false");
    case V_FLOAT:
        if (isnan(v.u.f)) return puts_(w, "NaN");
        if (isinf(v.u.f)) return puts_(w, v.u.f < 0 ? "-Infinity" : "Infinity");
        return write_number(w, v);
    default: return write_number(w, v);
    }
}

static bool json_newline(json_writer *j, int depth) {
    if (!j->indent) return true;
    if (!puts_(&j->w, "\n")) return false;
    for (int i = 0; i < depth; i++) {
        if (!put(&j->w, j->indent->data, j->indent->len)) return false;
    }
    return true;
}

static bool json_key(json_writer *j, tpl_val key) {
    if (key.kind == V_STR) return json_str(j, key.u.s);
    if (key.kind != V_NONE && !tpl_is_num(key)) {
        return tpl_fail(j->w.r, QN_ERR_INVALID,
                        "keys must be str, int, float, bool or None, not %s", tpl_type_name(key));
    }
    return puts_(&j->w, "\"") && json_scalar(j, key) && puts_(&j->w, "\"");
}

static bool sorted_keys(tpl_render *r, const tpl_dict *d, tpl_dict *out) {
    // Insertion by binary search over a copy; keys that Python cannot order fail.
    *out = *d;
    out->items = tpl_array(r, d->n, sizeof *d->items);
    if (!out->items) return false;
    for (size_t i = 0; i < d->n; i++) {
        size_t lo = 0, hi = i;
        while (lo < hi) {
            size_t mid = (lo + hi) / 2;
            int order;
            if (!tpl_compare(r, d->items[i].key, out->items[mid].key, "<", &order, 1)) return false;
            if (order < 0)
                hi = mid;
            else
                lo = mid + 1;
        }
        if (!tpl_work(r, (i - lo) * sizeof *d->items)) return false;
        memmove(out->items + lo + 1, out->items + lo, (i - lo) * sizeof *d->items);
        out->items[lo] = d->items[i];
    }
    return true;
}

static bool write_json(json_writer *j, tpl_val v, int depth) {
    tpl_render *r = j->w.r;
    if (depth >= TPL_MAX_VALUE_DEPTH) {
        return tpl_fail(r, QN_ERR_LIMIT, "value nested too deeply for JSON");
    }
    if (!tpl_step(r, 1)) return false;
    if (v.kind == V_STR) return json_str(j, v.u.s);
    if (v.kind == V_NONE || tpl_is_num(v)) return json_scalar(j, v);
    bool dict = v.kind == V_DICT;
    if (!dict && !(v.kind == V_SEQ && v.u.seq->type <= SEQ_TUPLE)) {
        return tpl_fail(r, QN_ERR_INVALID, "Object of type %s is not JSON serializable",
                        tpl_type_name(v));
    }
    size_t n = dict ? v.u.d->n : v.u.seq->n;
    if (n == 0) return puts_(&j->w, dict ? "{}" : "[]");
    tpl_dict d = {0};
    if (dict) d = *v.u.d;
    if (dict && j->sort && !sorted_keys(r, v.u.d, &d)) return false;
    if (!puts_(&j->w, dict ? "{" : "[")) return false;
    for (size_t i = 0; i < n; i++) {
        if (i && !put(&j->w, j->item_sep->data, j->item_sep->len)) return false;
        if (!json_newline(j, depth + 1)) return false;
        if (dict &&
            (!json_key(j, d.items[i].key) || !put(&j->w, j->key_sep->data, j->key_sep->len))) {
            return false;
        }
        if (!write_json(j, dict ? d.items[i].value : v.u.seq->items[i], depth + 1)) return false;
    }
    return json_newline(j, depth) && puts_(&j->w, dict ? "}" : "]");
}

tpl_str *tpl_json(tpl_render *r, tpl_val v, const tpl_str *indent, const tpl_str *item_sep,
                  const tpl_str *key_sep, bool ascii, bool sort) {
    static const tpl_str comma = {.len = 1, .data = ",", .origin = TPL_TRUSTED};
    static const tpl_str comma_blank = {.len = 2, .data = ", ", .origin = TPL_TRUSTED};
    static const tpl_str colon = {.len = 2, .data = ": ", .origin = TPL_TRUSTED};
    json_writer j = {.w = {.r = r}, .indent = indent, .ascii = ascii, .sort = sort};
    j.item_sep = item_sep ? item_sep : indent ? &comma : &comma_blank;
    j.key_sep = key_sep ? key_sep : &colon;
    j.w.untrusted = (indent && !tpl_all_trusted(indent)) || !tpl_all_trusted(j.item_sep) ||
                    !tpl_all_trusted(j.key_sep);
    return write_json(&j, v, 0) ? written(&j.w) : NULL;
}

// ---- '...' % args ---------------------------------------------------------------------------

typedef struct percent {
    const tpl_seq *seq; // the arguments, or NULL
    tpl_val single;
    size_t at;
    bool taken;
} percent;

static bool percent_next(tpl_render *r, percent *a, tpl_val *out) {
    if (a->seq ? a->at >= a->seq->n : a->taken) {
        return tpl_fail(r, QN_ERR_INVALID, "not enough arguments for format string");
    }
    *out = a->seq ? a->seq->items[a->at++] : a->single;
    a->taken = true;
    return true;
}

static tpl_str *percent_item(tpl_render *r, char conv, const char *flags, int width, int prec,
                             tpl_val v) {
    if (conv == 's' || conv == 'r') {
        tpl_str *s = conv == 's' ? tpl_to_str(r, v) : tpl_repr(r, v);
        size_t chars;
        if (!s || !tpl_str_length(r, s, &chars)) return NULL;
        if (prec >= 0 && (size_t)prec < chars) {
            s = tpl_str_sub(r, s, 0, tpl_char_offset(s, 0, (size_t)prec));
            if (!s) return NULL;
            chars = (size_t)prec;
        }
        if (width < 0 || (size_t)width <= chars) return s;
        char spaces[256];
        size_t pad = (size_t)width - chars;
        memset(spaces, ' ', pad);
        tpl_str *p = tpl_str_copy(r, spaces, pad, true);
        if (!p) return NULL;
        return strchr(flags, '-') ? tpl_concat(r, s, p) : tpl_concat(r, p, s);
    }
    if (!tpl_is_num(v)) {
        tpl_fail(r, QN_ERR_INVALID, "%%%c format: a number is required, not %s", conv,
                 tpl_type_name(v));
        return NULL;
    }
    char spec[32], text[400];
    bool real = strchr("eEfFgG", conv) != NULL;
    bool precise = prec >= 0;
    if (!precise) prec = 6;
    if (width < 0) width = 0;
    if (real) {
        snprintf(spec, sizeof spec, "%%%s*.*%c", flags, conv);
        int n = snprintf(text, sizeof text, spec, width, prec, tpl_as_float(v));
        if (n < 0 || (size_t)n >= sizeof text) {
            tpl_fail(r, QN_ERR_LIMIT, "formatted number too long");
            return NULL;
        }
        return tpl_str_copy(r, text, (size_t)n, true);
    }
    if (v.kind == V_FLOAT) {
        if (conv != 'd' && conv != 'i' && conv != 'u') {
            tpl_fail(r, QN_ERR_INVALID, "%%%c format: an integer is required, not float", conv);
            return NULL;
        }
        if (!(fabs(v.u.f) < 9.2e18)) {
            tpl_fail(r, QN_ERR_INVALID, "cannot convert float to integer");
            return NULL;
        }
        v = tpl_int((int64_t)v.u.f);
    }
    int64_t i = tpl_as_int(v);
    if (conv == 'd' || conv == 'i' || conv == 'u') {
        snprintf(spec, sizeof spec, precise ? "%%%s*.*lld" : "%%%s*lld", flags);
        int n = precise ? snprintf(text, sizeof text, spec, width, prec, (long long)i)
                        : snprintf(text, sizeof text, spec, width, (long long)i);
        return tpl_str_copy(r, text, n < 0 ? 0 : QN_MIN((size_t)n, sizeof text - 1), true);
    }
    if (i < 0) {
        tpl_fail(r, QN_ERR_UNSUPPORTED, "%%%c of a negative number", conv);
        return NULL;
    }
    snprintf(spec, sizeof spec, "%%%s*ll%c", flags, conv);
    int n = snprintf(text, sizeof text, spec, width, (unsigned long long)i);
    return tpl_str_copy(r, text, n < 0 ? 0 : QN_MIN((size_t)n, sizeof text - 1), true);
}

tpl_str *tpl_percent(tpl_render *r, tpl_str *fmt, tpl_val args) {
    if (!tpl_flatten(r, fmt)) return NULL;
    percent a = {.single = args};
    if (args.kind == V_SEQ && args.u.seq->type == SEQ_TUPLE) a.seq = args.u.seq;
    tpl_builder b = {0};
    for (size_t i = 0; i < fmt->len;) {
        const char *p = memchr(fmt->data + i, '%', fmt->len - i);
        size_t stop = p ? (size_t)(p - fmt->data) : fmt->len;
        if (!tpl_step(r, 1) || !tpl_builder_sub(r, &b, fmt, i, stop - i)) return NULL;
        if (!p) break;
        i = stop + 1;
        tpl_val v = tpl_none();
        bool have = false;
        if (i < fmt->len && fmt->data[i] == '(') {
            const char *close = memchr(fmt->data + i, ')', fmt->len - i);
            if (!close || args.kind != V_DICT) {
                tpl_fail(r, QN_ERR_INVALID,
                         close ? "format requires a mapping" : "incomplete format key");
                return NULL;
            }
            size_t end = (size_t)(close - fmt->data);
            tpl_str *key = tpl_str_sub(r, fmt, i + 1, end - i - 1);
            int found = key ? tpl_dict_get(r, args.u.d, tpl_strval(key), &v) : -1;
            if (found == 0) tpl_fail(r, QN_ERR_INVALID, "format key not found");
            if (found != 1) return NULL;
            have = a.taken = true;
            i = end + 1;
        }
        char flags[8];
        size_t n_flags = 0;
        while (i < fmt->len && n_flags < 6 && fmt->data[i] && strchr("-+ 0#", fmt->data[i])) {
            flags[n_flags++] = fmt->data[i++];
        }
        flags[n_flags] = 0;
        int num[2] = {-1, -1};
        for (int k = 0; k < 2; k++) {
            if (k == 1) {
                if (i >= fmt->len || fmt->data[i] != '.') break;
                i++;
                num[1] = 0;
            }
            while (i < fmt->len && fmt->data[i] >= '0' && fmt->data[i] <= '9') {
                num[k] = (num[k] < 0 ? 0 : num[k] * 10) + (fmt->data[i++] - '0');
                if (num[k] > 200) {
                    tpl_fail(r, QN_ERR_LIMIT, "width or precision above 200 in a format");
                    return NULL;
                }
            }
        }
        char conv = i < fmt->len ? fmt->data[i++] : 0;
        if (conv == '%') {
            if (!tpl_builder_sub(r, &b, fmt, i - 1, 1)) return NULL;
            continue;
        }
        if (!conv || !strchr("srdiuxXoeEfFgG", conv)) {
            tpl_fail(r, QN_ERR_INVALID,
                     conv ? "unsupported format character" : "incomplete format");
            return NULL;
        }
        if (!have && !percent_next(r, &a, &v)) return NULL;
        tpl_str *s = percent_item(r, conv, flags, num[0], num[1], v);
        if (!s || !tpl_builder_str(r, &b, s)) return NULL;
    }
    bool all = a.seq ? a.at == a.seq->n
                     : a.taken || args.kind == V_DICT || args.kind == V_SEQ || args.kind == V_UNDEF;
    if (!all) {
        tpl_fail(r, QN_ERR_INVALID, "not all arguments converted during string formatting");
        return NULL;
    }
    return tpl_builder_finish(r, &b);
}

// ---- Work on strings ------------------------------------------------------------------------

const char *tpl_find(const char *s, size_t len, const tpl_str *needle) {
    if (needle->len == 1) return memchr(s, needle->data[0], len);
    return memmem(s, len, needle->data, needle->len); // linear in glibc, whatever the needle
}

tpl_str *tpl_case(tpl_render *r, tpl_str *s, int how) {
    if (!tpl_flatten(r, s)) return NULL;
    size_t cap = 0;
    char *data = NULL;
    if (!tpl_work(r, s->len)) return NULL;
    tpl_builder b = {0};
    size_t n = 0, i = 0;
    bool start = true;
    for (size_t run = 0; run < QN_MAX(s->n_runs, (size_t)1); run++) {
        size_t end = s->n_runs ? s->runs[run].end : s->len;
        n = 0;
        cap = 0;
        data = NULL;
        if (!tpl_grow(r, &data, &cap, end - i + 16, 1)) return NULL;
        while (i < end) {
            uint32_t cp;
            // A run may end inside a character only if it was made of bytes that are not UTF-8.
            size_t len = char_at(s->data + i, end - i, &cp);
            if (!tpl_grow(r, &data, &cap, n + 16, 1)) return NULL;
            bool upper = how == CASE_UPPER || (how != CASE_LOWER && how != CASE_SWAP && start);
            if (how == CASE_SWAP) {
                upper = (uint32_t)utf8proc_toupper((utf8proc_int32_t)cp) != cp;
            }
            if (len == 1 && cp >= 0x80) {
                data[n++] = s->data[i];
            } else if (cp < 0x80) {
                char c = (char)cp;
                if (upper && c >= 'a' && c <= 'z')
                    c = (char)(c - 32);
                else if (!upper && c >= 'A' && c <= 'Z')
                    c = (char)(c + 32);
                data[n++] = c;
            } else if (cp == 0xdf && upper) { // sharp s
                memcpy(data + n, how == CASE_UPPER || how == CASE_SWAP ? "SS" : "Ss", 2);
                n += 2;
            } else {
                utf8proc_int32_t c = (utf8proc_int32_t)cp;
                c = !upper                                  ? utf8proc_tolower(c)
                    : how == CASE_UPPER || how == CASE_SWAP ? utf8proc_toupper(c)
                                                            : utf8proc_totitle(c);
                n += qn_utf8_encode((uint32_t)c, data + n);
            }
            if (how == CASE_TITLE) {
                start = cp < 0x80
                            ? !((cp | 32) >= 'a' && (cp | 32) <= 'z')
                            : (utf8proc_category((utf8proc_int32_t)cp) > UTF8PROC_CATEGORY_LT);
            } else {
                start = false;
            }
            i += len;
        }
        bool trusted = s->n_runs ? s->runs[run].trusted : s->origin == TPL_TRUSTED;
        if (!tpl_builder_add(r, &b, data, n, trusted)) return NULL;
    }
    return tpl_builder_finish(r, &b);
}

static bool in_chars(const tpl_str *chars, const char *c, size_t n) {
    return memmem(chars->data, chars->len, c, n) != NULL;
}

tpl_str *tpl_strip(tpl_render *r, tpl_str *s, tpl_str *chars, bool left, bool right) {
    if (!tpl_flatten(r, s) || (chars && !tpl_flatten(r, chars))) return NULL;
    size_t from = 0, to = s->len;
    while (left && from < to) {
        size_t n =
            chars ? tpl_char_offset(s, from, 1) - from : tpl_space_at(s->data + from, to - from);
        if (n == 0 || (chars && !in_chars(chars, s->data + from, n))) break;
        if (chars && !tpl_work(r, chars->len)) return NULL;
        from += n;
    }
    while (right && from < to) {
        size_t n = chars ? to - from - last_char(s->data + from, to - from)
                         : tpl_space_before(s->data + from, to - from);
        if (n == 0 || (chars && !in_chars(chars, s->data + to - n, n))) break;
        if (chars && !tpl_work(r, chars->len)) return NULL;
        to -= n;
    }
    if (!tpl_work(r, s->len - (to - from))) return NULL;
    return from == 0 && to == s->len ? s : tpl_str_sub(r, s, from, to - from);
}

tpl_str *tpl_replace(tpl_render *r, tpl_str *s, tpl_str *from, tpl_str *to, int64_t count) {
    if (!tpl_flatten(r, s) || !tpl_flatten(r, from) || !tpl_flatten(r, to)) return NULL;
    if (!tpl_work(r, s->len)) return NULL;
    tpl_builder b = {0};
    size_t at = 0;
    if (from->len == 0) {
        // Between all characters, and at both ends.
        for (;;) {
            if (count != 0) {
                if (!tpl_step(r, 1) || !tpl_builder_sub(r, &b, to, 0, to->len)) return NULL;
                count--;
            }
            if (at >= s->len) break;
            size_t next = count == 0 ? s->len : tpl_char_offset(s, at, 1);
            if (!tpl_builder_sub(r, &b, s, at, next - at)) return NULL;
            at = next;
            if (count == 0) break;
        }
        return tpl_builder_finish(r, &b);
    }
    while (count != 0) {
        const char *p = tpl_find(s->data + at, s->len - at, from);
        if (!p) break;
        size_t hit = (size_t)(p - s->data);
        if (!tpl_step(r, 1) || !tpl_builder_sub(r, &b, s, at, hit - at) ||
            !tpl_builder_sub(r, &b, to, 0, to->len)) {
            return NULL;
        }
        at = hit + from->len;
        count--;
    }
    if (at == 0) return s;
    return tpl_builder_sub(r, &b, s, at, s->len - at) ? tpl_builder_finish(r, &b) : NULL;
}

tpl_str *tpl_join(tpl_render *r, tpl_str *sep, const tpl_seq *items) {
    tpl_builder b = {0};
    for (size_t i = 0; i < items->n; i++) {
        if (!tpl_step(r, 1) || (i && !tpl_builder_str(r, &b, sep))) return NULL;
        tpl_str *s = tpl_to_str(r, items->items[i]);
        if (!s || !tpl_builder_str(r, &b, s)) return NULL;
    }
    return tpl_builder_finish(r, &b);
}

tpl_seq *tpl_splitlines(tpl_render *r, tpl_str *s, bool keep) {
    tpl_seq *out = tpl_seq_new(r, SEQ_LIST, 0);
    if (!out || !tpl_flatten(r, s) || !tpl_work(r, s->len)) return NULL;
    size_t start = 0;
    for (size_t i = 0; i < s->len;) {
        uint32_t cp;
        size_t n = char_at(s->data + i, s->len - i, &cp);
        bool brk = (cp >= 10 && cp <= 13) || (cp >= 0x1c && cp <= 0x1e) || cp == 0x85 ||
                   cp == 0x2028 || cp == 0x2029;
        if (brk) {
            size_t end = i + n;
            if (cp == '\r' && end < s->len && s->data[end] == '\n') end++;
            tpl_str *line = tpl_str_sub(r, s, start, (keep ? end : i) - start);
            if (!line || !tpl_step(r, 1) || !tpl_seq_push(r, out, tpl_strval(line))) return NULL;
            start = i = end;
        } else {
            i += n;
        }
    }
    if (start < s->len) {
        tpl_str *line = tpl_str_sub(r, s, start, s->len - start);
        if (!line || !tpl_seq_push(r, out, tpl_strval(line))) return NULL;
    }
    return out;
}
