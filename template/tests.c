// SPDX-License-Identifier: Apache-2.0
// The tests of `is`.
#include "template/interp.h"

#include <string.h>

#include <utf8proc.h>

enum {
    T_BOOLEAN,
    T_CALLABLE,
    T_DEFINED,
    T_DIVISIBLEBY,
    T_EQ,
    T_ESCAPED,
    T_EVEN,
    T_FALSE,
    T_FILTER,
    T_FLOATING,
    T_GE,
    T_GT,
    T_IN,
    T_INTEGER,
    T_ITERABLE,
    T_LE,
    T_LOWER,
    T_LT,
    T_MAPPING,
    T_NE,
    T_NONE,
    T_NUMBER,
    T_ODD,
    T_SAMEAS,
    T_SEQUENCE,
    T_STR,
    T_TEST,
    T_TRUE,
    T_UNDEFINED,
    T_UPPER,
};

static const struct {
    const char *name;
    uint8_t id, args;
} tests[] = {
    {"boolean", T_BOOLEAN, 0},
    {"callable", T_CALLABLE, 0},
    {"defined", T_DEFINED, 0},
    {"divisibleby", T_DIVISIBLEBY, 1},
    {"eq", T_EQ, 1},
    {"equalto", T_EQ, 1},
    {"==", T_EQ, 1},
    {"escaped", T_ESCAPED, 0},
    {"even", T_EVEN, 0},
    {"false", T_FALSE, 0},
    {"filter", T_FILTER, 0},
    {"float", T_FLOATING, 0},
    {"ge", T_GE, 1},
    {">=", T_GE, 1},
    {"gt", T_GT, 1},
    {"greaterthan", T_GT, 1},
    {">", T_GT, 1},
    {"in", T_IN, 1},
    {"integer", T_INTEGER, 0},
    {"iterable", T_ITERABLE, 0},
    {"le", T_LE, 1},
    {"<=", T_LE, 1},
    {"lower", T_LOWER, 0},
    {"lt", T_LT, 1},
    {"lessthan", T_LT, 1},
    {"<", T_LT, 1},
    {"mapping", T_MAPPING, 0},
    {"ne", T_NE, 1},
    {"!=", T_NE, 1},
    {"none", T_NONE, 0},
    {"number", T_NUMBER, 0},
    {"odd", T_ODD, 0},
    {"sameas", T_SAMEAS, 1},
    {"sequence", T_SEQUENCE, 0},
    {"string", T_STR, 0},
    {"test", T_TEST, 0},
    {"true", T_TRUE, 0},
    {"undefined", T_UNDEFINED, 0},
    {"upper", T_UPPER, 0},
};

int tpl_test_find(qn_str name) {
    for (size_t i = 0; i < QN_COUNT(tests); i++) {
        if (qn_str_is(name, tests[i].name)) return (int)i;
    }
    return -1;
}

static bool modulo(tpl_render *r, tpl_val v, tpl_val by, int64_t want, bool *out) {
    tpl_val m;
    if (!tpl_binary(r, OP_MOD, v, by, &m)) return false;
    *out = tpl_is_num(m) && tpl_as_float(m) == (double)want;
    return true;
}

static bool same(tpl_val a, tpl_val b) {
    if (a.kind != b.kind) return false;
    switch (a.kind) {
    case V_UNDEF:
    case V_NONE: return true;
    case V_BOOL: return a.u.b == b.u.b;
    case V_FLOAT: return a.u.f == b.u.f;
    default: return a.u.i == b.u.i;
    }
}

// Whether there is a letter with case and none of the other case.
static bool all_case(tpl_render *r, tpl_val v, bool upper, bool *out) {
    tpl_str *s = tpl_to_str(r, v);
    if (!s || !tpl_flatten(r, s) || !tpl_work(r, s->len)) return false;
    bool any = false;
    *out = false;
    for (size_t i = 0; i < s->len;) {
        utf8proc_int32_t cp;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)s->data + i,
                                              (utf8proc_ssize_t)(s->len - i), &cp);
        i += n > 0 ? (size_t)n : 1;
        if (n <= 0) continue;
        utf8proc_category_t cat = utf8proc_category(cp);
        if (cat == (upper ? UTF8PROC_CATEGORY_LL : UTF8PROC_CATEGORY_LU) ||
            cat == UTF8PROC_CATEGORY_LT) {
            return true;
        }
        any |= cat == (upper ? UTF8PROC_CATEGORY_LU : UTF8PROC_CATEGORY_LL);
    }
    *out = any;
    return true;
}

static bool ordered(tpl_render *r, int id, tpl_val a, tpl_val b, bool *out) {
    int o;
    const char *op = id == T_GE ? ">=" : id == T_GT ? ">" : id == T_LE ? "<=" : "<";
    if (!tpl_compare(r, a, b, op, &o, 0)) return false;
    *out = o != 2 && (id == T_GE ? o >= 0 : id == T_GT ? o > 0 : id == T_LE ? o <= 0 : o < 0);
    return true;
}

bool tpl_test(tpl_render *r, int index, tpl_val v, const tpl_args *args, bool *out) {
    static const char *const names[] = {"other"};
    int id = tests[index].id;
    tpl_val b = tpl_none();
    if (tests[index].args) {
        if (!tpl_bind(r, tests[index].name, args, names, 1, 1, &b)) return false;
    } else if (args->n || args->n_kw) {
        return tpl_fail(r, QN_ERR_INVALID, "test '%s' takes no argument", tests[index].name);
    }
    int got;
    *out = false;
    switch (id) {
    case T_BOOLEAN: *out = v.kind == V_BOOL; return true;
    case T_CALLABLE:
        *out = v.kind == V_FUNC || v.kind == V_METHOD || v.kind == V_MACRO || v.kind == V_UNDEF ||
               v.kind == V_JOINER || v.kind == V_LOOP;
        return true;
    case T_DEFINED: *out = v.kind != V_UNDEF; return true;
    case T_UNDEFINED: *out = v.kind == V_UNDEF; return true;
    case T_DIVISIBLEBY: return modulo(r, v, b, 0, out);
    case T_EVEN: return modulo(r, v, tpl_int(2), 0, out);
    case T_ODD: return modulo(r, v, tpl_int(2), 1, out);
    case T_EQ:
    case T_NE:
        got = tpl_equal(r, v, b, 0);
        *out = got == (id == T_EQ);
        return got >= 0;
    case T_ESCAPED: return true;
    case T_FALSE: *out = v.kind == V_BOOL && !v.u.b; return true;
    case T_TRUE: *out = v.kind == V_BOOL && v.u.b; return true;
    case T_FILTER:
    case T_TEST:
        if (v.kind == V_STR && tpl_flatten(r, v.u.s)) {
            *out = (id == T_TEST ? tpl_test_find : tpl_filter_find)(tpl_view(v.u.s)) >= 0;
        }
        return r->status == QN_OK;
    case T_FLOATING: *out = v.kind == V_FLOAT; return true;
    case T_INTEGER: *out = v.kind == V_INT; return true;
    case T_NUMBER: *out = tpl_is_num(v); return true;
    case T_IN:
        got = tpl_contains(r, v, b);
        *out = got == 1;
        return got >= 0;
    case T_ITERABLE: *out = tpl_iterable(v); return true;
    case T_LOWER: return all_case(r, v, false, out);
    case T_UPPER: return all_case(r, v, true, out);
    case T_MAPPING: *out = v.kind == V_DICT; return true;
    case T_NONE: *out = v.kind == V_NONE; return true;
    case T_SAMEAS: *out = same(v, b); return true;
    case T_SEQUENCE:
        *out = v.kind == V_STR || v.kind == V_DICT || v.kind == V_UNDEF ||
               (v.kind == V_SEQ && v.u.seq->type <= SEQ_RANGE);
        return true;
    case T_STR: *out = v.kind == V_STR; return true;
    default: return ordered(r, id, v, b, out);
    }
}
