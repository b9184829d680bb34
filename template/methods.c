// SPDX-License-Identifier: Apache-2.0
// Methods of strings, dictionaries, lists, loops and cyclers.
#include "template/interp.h"

#include <string.h>

#include <utf8proc.h>

enum {
    // str
    M_CAPITALIZE,
    M_COUNT,
    M_ENDSWITH,
    M_FIND,
    M_INDEX,
    M_ISALNUM,
    M_ISALPHA,
    M_ISDIGIT,
    M_ISLOWER,
    M_ISSPACE,
    M_ISUPPER,
    M_JOIN,
    M_LJUST,
    M_LOWER,
    M_LSTRIP,
    M_PARTITION,
    M_REMOVEPREFIX,
    M_REMOVESUFFIX,
    M_REPLACE,
    M_RFIND,
    M_RINDEX,
    M_RJUST,
    M_RPARTITION,
    M_RSPLIT,
    M_RSTRIP,
    M_SPLIT,
    M_SPLITLINES,
    M_STARTSWITH,
    M_STRIP,
    M_SWAPCASE,
    M_TITLE,
    M_UPPER,
    M_ZFILL,
    // dict
    M_GET,
    M_ITEMS,
    M_KEYS,
    M_VALUES,
    M_COPY,
    M_POP,
    M_SETDEFAULT,
    M_UPDATE,
    // list
    M_APPEND,
    M_EXTEND,
    M_INSERT,
    M_REVERSE,
    M_LPOP,
    M_LINDEX,
    M_LCOUNT,
    M_LCOPY,
    // loop, cycler
    M_CYCLE,
    M_CHANGED,
    M_NEXT,
    M_RESET,
};

typedef struct method_name {
    const char *name;
    uint8_t id;
} method_name;

static const method_name str_methods[] = {
    {"capitalize", M_CAPITALIZE},
    {"count", M_COUNT},
    {"endswith", M_ENDSWITH},
    {"find", M_FIND},
    {"index", M_INDEX},
    {"isalnum", M_ISALNUM},
    {"isalpha", M_ISALPHA},
    {"isdigit", M_ISDIGIT},
    {"islower", M_ISLOWER},
    {"isspace", M_ISSPACE},
    {"isupper", M_ISUPPER},
    {"join", M_JOIN},
    {"ljust", M_LJUST},
    {"lower", M_LOWER},
    {"lstrip", M_LSTRIP},
    {"partition", M_PARTITION},
    {"removeprefix", M_REMOVEPREFIX},
    {"removesuffix", M_REMOVESUFFIX},
    {"replace", M_REPLACE},
    {"rfind", M_RFIND},
    {"rindex", M_RINDEX},
    {"rjust", M_RJUST},
    {"rpartition", M_RPARTITION},
    {"rsplit", M_RSPLIT},
    {"rstrip", M_RSTRIP},
    {"split", M_SPLIT},
    {"splitlines", M_SPLITLINES},
    {"startswith", M_STARTSWITH},
    {"strip", M_STRIP},
    {"swapcase", M_SWAPCASE},
    {"title", M_TITLE},
    {"upper", M_UPPER},
    {"zfill", M_ZFILL},
};
static const method_name dict_methods[] = {
    {"get", M_GET},
    {"items", M_ITEMS},
    {"keys", M_KEYS},
    {"values", M_VALUES},
    {"copy", M_COPY},
    {"pop", M_POP},
    {"setdefault", M_SETDEFAULT},
    {"update", M_UPDATE},
};
static const method_name list_methods[] = {
    {"append", M_APPEND}, {"extend", M_EXTEND}, {"insert", M_INSERT}, {"reverse", M_REVERSE},
    {"pop", M_LPOP},      {"index", M_LINDEX},  {"count", M_LCOUNT},  {"copy", M_LCOPY},
};
static const method_name tuple_methods[] = {{"index", M_LINDEX}, {"count", M_LCOUNT}};
static const method_name loop_methods[] = {{"cycle", M_CYCLE}, {"changed", M_CHANGED}};
static const method_name cycler_methods[] = {{"next", M_NEXT}, {"reset", M_RESET}};

int tpl_method_find(tpl_val self, const tpl_str *name) {
    const method_name *v = NULL;
    size_t n = 0;
    switch (self.kind) {
    case V_STR:
        v = str_methods;
        n = QN_COUNT(str_methods);
        break;
    case V_DICT:
        v = dict_methods;
        n = QN_COUNT(dict_methods);
        break;
    case V_LOOP:
        v = loop_methods;
        n = QN_COUNT(loop_methods);
        break;
    case V_CYCLER:
        v = cycler_methods;
        n = QN_COUNT(cycler_methods);
        break;
    case V_SEQ:
        if (self.u.seq->type == SEQ_LIST) {
            v = list_methods;
            n = QN_COUNT(list_methods);
        } else if (self.u.seq->type <= SEQ_RANGE) {
            v = tuple_methods;
            n = QN_COUNT(tuple_methods);
        }
        break;
    default: break;
    }
    for (size_t i = 0; i < n; i++) {
        if (tpl_str_is(name, v[i].name)) return v[i].id;
    }
    return -1;
}

// ---- Strings --------------------------------------------------------------------------------

static bool need_str(tpl_render *r, tpl_val v, tpl_str **out) {
    if (v.kind == V_UNDEF) return tpl_fail_undefined(r, v);
    if (v.kind != V_STR) {
        return tpl_fail(r, QN_ERR_INVALID, "must be str, not %s", tpl_type_name(v));
    }
    *out = v.u.s;
    return tpl_flatten(r, v.u.s);
}

static bool give(tpl_str *s, tpl_val *out) {
    if (s) *out = tpl_strval(s);
    return s != NULL;
}

static bool push_sub(tpl_render *r, tpl_seq *out, const tpl_str *s, size_t from, size_t to) {
    tpl_str *t = tpl_str_sub(r, s, from, to - from);
    return t && tpl_step(r, 1) && tpl_seq_push(r, out, tpl_strval(t));
}

static void reverse(tpl_seq *s) {
    for (size_t i = 0, j = s->n; i + 1 < j; i++) {
        tpl_val t = s->items[i];
        s->items[i] = s->items[--j];
        s->items[j] = t;
    }
}

// The last place of n in s, by searching backwards; NULL: none. Each byte is compared at most as
// often as the needle is long, which the caller pays for.
static const char *find_last(const char *s, size_t len, const tpl_str *n) {
    if (n->len > len) return NULL;
    for (size_t i = len - n->len + 1; i-- > 0;) {
        if (memcmp(s + i, n->data, n->len) == 0) return s + i;
    }
    return NULL;
}

static bool work_reverse(tpl_render *r, const tpl_str *s, const tpl_str *needle) {
    return tpl_step(r, s->len / TPL_BYTES_PER_STEP * (1 + needle->len / 64));
}

static bool split(tpl_render *r, const tpl_str *s, tpl_val sep_v, int64_t max, bool right,
                  tpl_val *out) {
    tpl_seq *v = tpl_seq_new(r, SEQ_LIST, 0);
    tpl_str *sep = NULL;
    if (!v || !tpl_work(r, s->len)) return false;
    if (sep_v.kind != V_NONE && sep_v.kind != V_MISSING && !need_str(r, sep_v, &sep)) return false;
    if (sep && sep->len == 0) return tpl_fail(r, QN_ERR_INVALID, "empty separator");
    size_t from = 0, to = s->len;
    if (sep && !right) {
        const char *p;
        while (max != 0 && (p = tpl_find(s->data + from, to - from, sep))) {
            size_t at = (size_t)(p - s->data);
            if (!push_sub(r, v, s, from, at)) return false;
            from = at + sep->len;
            max--;
        }
        if (!push_sub(r, v, s, from, to)) return false;
    } else if (sep) {
        const char *p;
        if (!work_reverse(r, s, sep)) return false;
        while (max != 0 && (p = find_last(s->data, to, sep))) {
            size_t at = (size_t)(p - s->data);
            if (!push_sub(r, v, s, at + sep->len, to)) return false;
            to = at;
            max--;
        }
        if (!push_sub(r, v, s, 0, to)) return false;
        reverse(v);
    } else if (!right) {
        for (;;) {
            size_t n;
            while (from < to && (n = tpl_space_at(s->data + from, to - from))) from += n;
            if (from == to) break;
            size_t end = from;
            if (max == 0) end = to; // the rest, with the blanks at its end
            while (max != 0 && end < to && !tpl_space_at(s->data + end, to - end)) {
                end = tpl_char_offset(s, end, 1);
            }
            if (!push_sub(r, v, s, from, end)) return false;
            from = max == 0 ? to : end;
            max--;
        }
    } else {
        for (;;) {
            size_t n;
            while ((n = tpl_space_before(s->data, to))) to -= n;
            if (to == 0) break;
            size_t start = to;
            if (max == 0) start = 0;
            while (max != 0 && start > 0 && !tpl_space_before(s->data, start)) start--;
            // Not into the middle of a character.
            while (start < to && start > 0 && ((unsigned char)s->data[start] & 0xc0) == 0x80) {
                start++;
            }
            if (!push_sub(r, v, s, start, to)) return false;
            to = max == 0 ? 0 : start;
            max--;
        }
        reverse(v);
    }
    *out = tpl_seqval(v);
    return true;
}

static bool partition(tpl_render *r, tpl_str *s, tpl_str *sep, bool right, tpl_val *out) {
    if (sep->len == 0) return tpl_fail(r, QN_ERR_INVALID, "empty separator");
    if (!tpl_work(r, s->len) || (right && !work_reverse(r, s, sep))) return false;
    const char *p = right ? find_last(s->data, s->len, sep) : tpl_find(s->data, s->len, sep);
    tpl_seq *v = tpl_seq_new(r, SEQ_TUPLE, 3);
    if (!v) return false;
    size_t at = p ? (size_t)(p - s->data) : right ? 0 : s->len;
    size_t after = p ? at + sep->len : at;
    if (!push_sub(r, v, s, 0, at) || !push_sub(r, v, s, at, after) ||
        !push_sub(r, v, s, after, s->len)) {
        return false;
    }
    *out = tpl_seqval(v);
    return true;
}

// Brings Python's start and end (characters) to byte offsets.
static bool window(tpl_render *r, tpl_str *s, const tpl_val *v, size_t *from, size_t *to,
                   size_t *from_chars) {
    size_t chars;
    if (!tpl_str_length(r, s, &chars)) return false;
    int64_t n = (int64_t)chars, lo = 0, hi = n;
    if (v[0].kind != V_NONE && !tpl_arg_int(r, "start", v[0], &lo)) return false;
    if (v[1].kind != V_NONE && !tpl_arg_int(r, "end", v[1], &hi)) return false;
    if (lo < 0) lo = lo < -n ? 0 : lo + n;
    if (hi < 0) hi = hi < -n ? 0 : hi + n;
    if (hi > n) hi = n;
    *from_chars = (size_t)lo;
    if (lo > hi) {
        *from = 1;
        *to = 0;
        return true;
    }
    *from = tpl_char_offset(s, 0, (size_t)lo);
    *to = tpl_char_offset(s, *from, (size_t)(hi - lo));
    return true;
}

static bool search(tpl_render *r, tpl_str *s, int id, const tpl_val *v, tpl_val *out) {
    tpl_str *n = NULL;
    size_t from, to, chars;
    if (!need_str(r, v[0], &n) || !window(r, s, v + 1, &from, &to, &chars)) return false;
    bool right = id == M_RFIND || id == M_RINDEX;
    if (!tpl_work(r, s->len) || (right && !work_reverse(r, s, n))) return false;
    const char *p = NULL;
    if (from <= to) {
        p = right ? find_last(s->data + from, to - from, n)
                  : (n->len ? tpl_find(s->data + from, to - from, n) : s->data + from);
    }
    if (!p && (id == M_INDEX || id == M_RINDEX)) {
        return tpl_fail(r, QN_ERR_INVALID, "substring not found");
    }
    int64_t at = -1;
    if (p) {
        at = (int64_t)chars;
        for (const char *q = s->data + from; q < p; q++) at += ((unsigned char)*q & 0xc0) != 0x80;
    }
    *out = tpl_int(at);
    return true;
}

static bool affix(tpl_render *r, tpl_str *s, bool end, const tpl_val *v, tpl_val *out) {
    size_t from, to, chars;
    if (!window(r, s, v + 1, &from, &to, &chars)) return false;
    tpl_seq one = {.items = (tpl_val *)(uintptr_t)v, .n = 1};
    const tpl_seq *all = v[0].kind == V_SEQ && v[0].u.seq->type == SEQ_TUPLE ? v[0].u.seq : &one;
    bool yes = false;
    for (size_t i = 0; i < all->n && !yes; i++) {
        tpl_str *t = NULL;
        if (!need_str(r, all->items[i], &t) || !tpl_step(r, 1) || !tpl_work(r, t->len))
            return false;
        yes = from <= to && t->len <= to - from &&
              memcmp(s->data + (end ? to - t->len : from), t->data, t->len) == 0;
    }
    *out = tpl_bool(yes);
    return true;
}

static bool classify(tpl_render *r, const tpl_str *s, int id, tpl_val *out) {
    bool yes = s->len > 0, cased = false;
    if (!tpl_work(r, s->len)) return false;
    for (size_t i = 0; i < s->len && yes;) {
        utf8proc_int32_t cp;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s->data + i,
                                              (utf8proc_ssize_t)(s->len - i), &cp);
        i += n > 0 ? (size_t)n : 1;
        utf8proc_category_t c = n > 0 ? utf8proc_category(cp) : UTF8PROC_CATEGORY_CN;
        bool alpha = c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
        bool digit = c == UTF8PROC_CATEGORY_ND;
        bool upper = c == UTF8PROC_CATEGORY_LU, lower = c == UTF8PROC_CATEGORY_LL;
        cased |= id == M_ISUPPER ? upper : lower;
        switch (id) {
        case M_ISALNUM:
            yes = alpha || digit || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO;
            break;
        case M_ISALPHA: yes = alpha; break;
        case M_ISDIGIT: yes = digit; break;
        case M_ISSPACE: yes = n > 0 && tpl_is_space((uint32_t)cp); break;
        case M_ISUPPER: yes = !lower && c != UTF8PROC_CATEGORY_LT; break;
        default: yes = !upper && c != UTF8PROC_CATEGORY_LT; break;
        }
    }
    if (id == M_ISUPPER || id == M_ISLOWER) yes = yes && cased;
    *out = tpl_bool(yes);
    return true;
}

static bool justify(tpl_render *r, tpl_str *s, int id, const tpl_val *v, tpl_val *out) {
    int64_t width = 0;
    size_t chars;
    if (!tpl_arg_int(r, "width", v[0], &width) || !tpl_str_length(r, s, &chars)) return false;
    tpl_str *fill = tpl_str_ref(r, id == M_ZFILL ? "0" : " ", 1, true);
    if (!fill) return false;
    if (id != M_ZFILL && v[1].kind != V_MISSING) {
        size_t n;
        if (!need_str(r, v[1], &fill) || !tpl_str_length(r, fill, &n)) return false;
        if (n != 1) {
            return tpl_fail(r, QN_ERR_INVALID, "the fill character must be exactly one character");
        }
    }
    if (width <= 0 || (size_t)width <= chars) {
        *out = tpl_strval(s);
        return true;
    }
    tpl_val pad;
    if (!tpl_binary(r, OP_MUL, tpl_strval(fill), tpl_int(width - (int64_t)chars), &pad))
        return false;
    if (id == M_LJUST) return give(tpl_concat(r, s, pad.u.s), out);
    if (id == M_ZFILL && s->len && (s->data[0] == '-' || s->data[0] == '+')) {
        tpl_str *sign = tpl_str_sub(r, s, 0, 1), *rest = tpl_str_sub(r, s, 1, s->len - 1);
        tpl_str *head = sign && rest ? tpl_concat(r, sign, pad.u.s) : NULL;
        return head && give(tpl_concat(r, head, rest), out);
    }
    return give(tpl_concat(r, pad.u.s, s), out);
}

static bool str_method(tpl_render *r, tpl_str *s, int id, const tpl_args *args, tpl_val *out) {
    // Parameters: at most three; how many must be there and may be there, by method.
    static const char *const by_split[] = {"sep", "maxsplit"};
    static const char *const by_lines[] = {"keepends"};
    static const char *const plain[] = {"", "", ""};
    tpl_val v[3];
    const char *const *names = plain;
    size_t n = 0, required = 0;
    switch (id) {
    case M_SPLIT:
    case M_RSPLIT:
        names = by_split;
        n = 2;
        break;
    case M_SPLITLINES:
        names = by_lines;
        n = 1;
        break;
    case M_STRIP:
    case M_LSTRIP:
    case M_RSTRIP: n = 1; break;
    case M_JOIN:
    case M_PARTITION:
    case M_RPARTITION:
    case M_REMOVEPREFIX:
    case M_REMOVESUFFIX:
    case M_ZFILL: n = required = 1; break;
    case M_LJUST:
    case M_RJUST:
        n = 2;
        required = 1;
        break;
    case M_REPLACE:
        n = 3;
        required = 2;
        break;
    case M_COUNT:
    case M_ENDSWITH:
    case M_FIND:
    case M_INDEX:
    case M_RFIND:
    case M_RINDEX:
    case M_STARTSWITH:
        n = 3;
        required = 1;
        break;
    default: break;
    }
    if (!tpl_flatten(r, s) || !tpl_bind(r, "method of str", args, names, n, required, v))
        return false;
    tpl_str *a = NULL, *b = NULL;
    int64_t max = -1;
    switch (id) {
    case M_CAPITALIZE: return give(tpl_case(r, s, CASE_CAPITALIZE), out);
    case M_LOWER: return give(tpl_case(r, s, CASE_LOWER), out);
    case M_SWAPCASE: return give(tpl_case(r, s, CASE_SWAP), out);
    case M_TITLE: return give(tpl_case(r, s, CASE_TITLE), out);
    case M_UPPER: return give(tpl_case(r, s, CASE_UPPER), out);
    case M_STRIP:
    case M_LSTRIP:
    case M_RSTRIP:
        if (v[0].kind != V_MISSING && v[0].kind != V_NONE && !need_str(r, v[0], &a)) return false;
        return give(tpl_strip(r, s, a, id != M_RSTRIP, id != M_LSTRIP), out);
    case M_SPLIT:
    case M_RSPLIT:
        if (!tpl_arg_int(r, "maxsplit", v[1], &max)) return false;
        return split(r, s, v[0], max, id == M_RSPLIT, out);
    case M_SPLITLINES: {
        tpl_seq *lines = tpl_splitlines(r, s, tpl_truth(v[0]));
        if (lines) *out = tpl_seqval(lines);
        return lines != NULL;
    }
    case M_PARTITION:
    case M_RPARTITION: return need_str(r, v[0], &a) && partition(r, s, a, id == M_RPARTITION, out);
    case M_REMOVEPREFIX:
    case M_REMOVESUFFIX: {
        if (!need_str(r, v[0], &a)) return false;
        bool suffix = id == M_REMOVESUFFIX;
        bool hit = a->len <= s->len &&
                   memcmp(s->data + (suffix ? s->len - a->len : 0), a->data, a->len) == 0;
        if (!hit) return give(s, out);
        return give(tpl_str_sub(r, s, suffix ? 0 : a->len, s->len - a->len), out);
    }
    case M_REPLACE:
        if (!need_str(r, v[0], &a) || !need_str(r, v[1], &b)) return false;
        if (!tpl_arg_int(r, "count", v[2], &max)) return false;
        return give(tpl_replace(r, s, a, b, max), out);
    case M_JOIN: {
        tpl_seq *items = tpl_iterate(r, v[0]);
        for (size_t i = 0; items && i < items->n; i++) {
            if (!need_str(r, items->items[i], &a)) return false;
        }
        return items && give(tpl_join(r, s, items), out);
    }
    case M_STARTSWITH:
    case M_ENDSWITH: return affix(r, s, id == M_ENDSWITH, v, out);
    case M_FIND:
    case M_INDEX:
    case M_RFIND:
    case M_RINDEX: return search(r, s, id, v, out);
    case M_COUNT: {
        size_t from, to, chars, hits = 0;
        if (!need_str(r, v[0], &a) || !window(r, s, v + 1, &from, &to, &chars)) return false;
        if (!tpl_work(r, s->len)) return false;
        if (a->len == 0) {
            for (size_t i = from; i < to; i++) hits += ((unsigned char)s->data[i] & 0xc0) != 0x80;
            *out = tpl_int(from <= to ? (int64_t)hits + 1 : 0);
            return true;
        }
        for (const char *p; from < to && (p = tpl_find(s->data + from, to - from, a));) {
            hits++;
            from = (size_t)(p - s->data) + a->len;
        }
        *out = tpl_int((int64_t)hits);
        return true;
    }
    case M_LJUST:
    case M_RJUST:
    case M_ZFILL: return justify(r, s, id, v, out);
    default: return classify(r, s, id, out);
    }
}

// ---- Dictionaries and lists -----------------------------------------------------------------

static bool dict_method(tpl_render *r, tpl_dict *d, int id, const tpl_args *args, tpl_val *out) {
    static const char *const plain[] = {"", ""};
    tpl_val v[2];
    size_t n = id == M_GET || id == M_POP || id == M_SETDEFAULT ? 2 : 0;
    if (id != M_UPDATE && !tpl_bind(r, "method of dict", args, plain, n, n ? 1 : 0, v))
        return false;
    *out = tpl_none();
    tpl_seq *s;
    switch (id) {
    case M_GET:
    case M_POP:
    case M_SETDEFAULT: {
        int got = tpl_dict_get(r, d, v[0], out);
        if (got < 0) return false;
        if (got) return id != M_POP || tpl_dict_remove(r, d, v[0]);
        if (id == M_POP && v[1].kind == V_MISSING) {
            return tpl_fail(r, QN_ERR_INVALID, "pop(): key not found");
        }
        *out = v[1].kind == V_MISSING ? tpl_none() : v[1];
        return id != M_SETDEFAULT || tpl_dict_put(r, d, v[0], *out);
    }
    case M_COPY: {
        tpl_dict *copy = tpl_dict_new(r, d->n);
        for (size_t i = 0; copy && i < d->n; i++) {
            if (!tpl_dict_put(r, copy, d->items[i].key, d->items[i].value)) return false;
        }
        if (copy) *out = tpl_dictval(copy);
        return copy && tpl_step(r, d->n / 8);
    }
    case M_UPDATE:
        if (args->n > 1 || (args->n && args->pos[0].kind != V_DICT)) {
            return tpl_fail(r, QN_ERR_INVALID, "update() expects a dict");
        }
        for (size_t i = 0; args->n && i < args->pos[0].u.d->n; i++) {
            const tpl_entry *e = &args->pos[0].u.d->items[i];
            if (!tpl_step(r, 1) || !tpl_dict_put(r, d, e->key, e->value)) return false;
        }
        for (size_t i = 0; i < args->n_kw; i++) {
            if (!tpl_dict_put(r, d, tpl_strval(args->kw_names[i]), args->kw[i])) return false;
        }
        return true;
    default:
        s = tpl_dict_seq(r, d, id == M_ITEMS ? SEQ_ITEMS : id == M_KEYS ? SEQ_KEYS : SEQ_VALUES);
        if (s) *out = tpl_seqval(s);
        return s != NULL;
    }
}

static bool list_method(tpl_render *r, tpl_seq *s, int id, const tpl_args *args, tpl_val *out) {
    static const char *const plain[] = {"", ""};
    size_t n = id == M_INSERT ? 2 : id == M_REVERSE || id == M_LCOPY ? 0 : 1;
    tpl_val v[2];
    if (!tpl_bind(r, "method of list", args, plain, n, id == M_LPOP ? 0 : n, v)) return false;
    *out = tpl_none();
    int64_t len = (int64_t)s->n, at = -1;
    switch (id) {
    case M_APPEND: return tpl_seq_push(r, s, v[0]);
    case M_EXTEND: {
        tpl_seq *more = tpl_iterate(r, v[0]);
        if (!more || !tpl_work(r, more->n * sizeof(tpl_val))) return false;
        size_t count = more->n; // it may be s itself
        for (size_t i = 0; i < count; i++) {
            if (!tpl_seq_push(r, s, more->items[i])) return false;
        }
        return true;
    }
    case M_INSERT:
        if (!tpl_arg_int(r, "insert()", v[0], &at) || !tpl_seq_push(r, s, v[1])) return false;
        if (at < 0) at = at < -len ? 0 : at + len;
        if (at > len) at = len;
        memmove(s->items + at + 1, s->items + at, (size_t)(len - at) * sizeof *s->items);
        s->items[at] = v[1];
        return tpl_work(r, (size_t)(len - at) * sizeof *s->items);
    case M_LPOP:
        if (!tpl_arg_int(r, "pop()", v[0], &at)) return false;
        if (at < 0) at += len;
        if (at < 0 || at >= len) return tpl_fail(r, QN_ERR_INVALID, "pop index out of range");
        *out = s->items[at];
        memmove(s->items + at, s->items + at + 1, (size_t)(len - at - 1) * sizeof *s->items);
        s->n--;
        return tpl_work(r, (size_t)(len - at) * sizeof *s->items);
    case M_REVERSE: reverse(s); return tpl_work(r, s->n * sizeof *s->items);
    case M_LCOPY: {
        tpl_seq *copy = tpl_seq_new(r, SEQ_LIST, s->n);
        if (!copy || !tpl_work(r, s->n * sizeof *s->items)) return false;
        if (s->n) memcpy(copy->items, s->items, s->n * sizeof *s->items);
        copy->n = s->n;
        *out = tpl_seqval(copy);
        return true;
    }
    default: {
        int64_t count = 0, first = -1;
        for (size_t i = 0; i < s->n; i++) {
            int eq = tpl_equal(r, s->items[i], v[0], 1);
            if (eq < 0) return false;
            count += eq;
            if (eq && first < 0) first = (int64_t)i;
        }
        if (id == M_LINDEX && first < 0) {
            return tpl_fail(r, QN_ERR_INVALID, "value is not in list");
        }
        *out = tpl_int(id == M_LINDEX ? first : count);
        return true;
    }
    }
}

static bool loop_method(tpl_render *r, tpl_loop *l, int id, const tpl_args *args, tpl_val *out) {
    if (args->n_kw) return tpl_fail(r, QN_ERR_INVALID, "loop methods take no keyword arguments");
    if (id == M_CYCLE) {
        if (args->n == 0) return tpl_fail(r, QN_ERR_INVALID, "no items for cycling given");
        *out = args->pos[l->at % args->n];
        return true;
    }
    tpl_seq *now = tpl_seq_new(r, SEQ_TUPLE, args->n);
    if (!now) return false;
    if (args->n) memcpy(now->items, args->pos, args->n * sizeof *now->items);
    now->n = args->n;
    int eq = l->changed.kind == V_SEQ ? tpl_equal(r, l->changed, tpl_seqval(now), 0) : 0;
    if (eq < 0) return false;
    l->changed = tpl_seqval(now);
    *out = tpl_bool(!eq);
    return true;
}

bool tpl_call_method(tpl_render *r, tpl_val self, int id, const tpl_args *args, tpl_val *out) {
    switch (self.kind) {
    case V_STR: return str_method(r, self.u.s, id, args, out);
    case V_DICT: return dict_method(r, self.u.d, id, args, out);
    case V_SEQ: return list_method(r, self.u.seq, id, args, out);
    case V_LOOP: return loop_method(r, self.u.loop, id, args, out);
    default: {
        tpl_seq *s = self.u.seq;
        *out = id == M_NEXT ? s->items[s->start] : tpl_none();
        s->start = id == M_NEXT ? (s->start + 1) % (int64_t)s->n : 0;
        return true;
    }
    }
}
