// SPDX-License-Identifier: Apache-2.0
// The filters.
#include "template/interp.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#define PARAMS(...)                                                                                \
    (const char *const[]) {                                                                        \
        __VA_ARGS__                                                                                \
    }

typedef bool filter_fn(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out);

static bool give(tpl_str *s, tpl_val *out) {
    if (s) *out = tpl_strval(s);
    return s != NULL;
}
static bool give_seq(tpl_seq *s, tpl_val *out) {
    if (s) *out = tpl_seqval(s);
    return s != NULL;
}
static bool is_given(tpl_val v) {
    return v.kind != V_MISSING && v.kind != V_NONE;
}

static tpl_str *flat_str(tpl_render *r, tpl_val v) {
    tpl_str *s = tpl_to_str(r, v);
    return s && tpl_flatten(r, s) ? s : NULL;
}

// ---- Attributes of items --------------------------------------------------------------------

// item.a.b.0 for an attribute "a.b.0" (parts of digits are indices); lower: strings in lower case.
static bool get_path(tpl_render *r, tpl_val item, tpl_val attr, const tpl_val *dflt, bool lower,
                     tpl_val *out) {
    *out = item;
    if (is_given(attr) && attr.kind != V_STR) {
        if (!tpl_getitem(r, item, attr, out)) return false;
        if (out->kind == V_UNDEF && dflt) *out = *dflt;
    } else if (attr.kind == V_STR) {
        if (!tpl_flatten(r, attr.u.s)) return false;
        size_t from = 0;
        const tpl_str *s = attr.u.s;
        for (;;) {
            const char *dot = memchr(s->data + from, '.', s->len - from);
            size_t to = dot ? (size_t)(dot - s->data) : s->len;
            bool digits = to > from && to - from < 10;
            for (size_t i = from; i < to; i++) digits &= s->data[i] >= '0' && s->data[i] <= '9';
            tpl_val key;
            if (digits) {
                int64_t n = 0;
                for (size_t i = from; i < to; i++) n = n * 10 + (s->data[i] - '0');
                key = tpl_int(n);
            } else {
                tpl_str *part = tpl_str_sub(r, s, from, to - from);
                if (!part) return false;
                key = tpl_strval(part);
            }
            if (!tpl_step(r, 1) || !tpl_getitem(r, *out, key, out)) return false;
            if (out->kind == V_UNDEF && dflt) *out = *dflt;
            if (!dot) break;
            from = to + 1;
        }
    }
    if (lower && out->kind == V_STR) return give(tpl_case(r, out->u.s, CASE_LOWER), out);
    return true;
}

static tpl_args drop_first(const tpl_args *args, size_t n) {
    tpl_args rest = *args;
    rest.pos = n < args->n ? args->pos + n : NULL;
    rest.n = n < args->n ? args->n - n : 0;
    return rest;
}

static bool f_map(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    if (!tpl_truth(v)) return give_seq(tpl_seq_new(r, SEQ_GEN, 0), out); // even if not iterable
    tpl_seq *in = tpl_iterate(r, v), *res = in ? tpl_seq_new(r, SEQ_GEN, in->n) : NULL;
    if (!res) return false;
    if (args->n == 0) {
        tpl_val p[2];
        if (!tpl_bind(r, "map", args, PARAMS("attribute", "default"), 2, 1, p)) return false;
        for (size_t i = 0; i < in->n; i++) {
            tpl_val item;
            if (!tpl_step(r, 1) ||
                !get_path(r, in->items[i], p[0], p[1].kind == V_MISSING ? NULL : &p[1], false,
                          &item) ||
                !tpl_seq_push(r, res, item)) {
                return false;
            }
        }
        return give_seq(res, out);
    }
    tpl_val name = args->pos[0];
    if (name.kind != V_STR || !tpl_flatten(r, name.u.s)) {
        return tpl_fail(r, QN_ERR_INVALID, "map: the name of a filter must be a string");
    }
    int id = tpl_filter_find(tpl_view(name.u.s));
    if (id < 0) {
        return tpl_fail(r, QN_ERR_INVALID, "no filter named '%.*s'",
                        (int)QN_MIN(name.u.s->len, (size_t)100), name.u.s->data);
    }
    tpl_args rest = drop_first(args, 1);
    for (size_t i = 0; i < in->n; i++) {
        tpl_val item;
        if (!tpl_step(r, 1) || !tpl_filter(r, id, in->items[i], &rest, &item) ||
            !tpl_seq_push(r, res, item)) {
            return false;
        }
    }
    return give_seq(res, out);
}

// select, reject, selectattr, rejectattr: args may begin with the name of a test.
static bool pick(tpl_render *r, tpl_val v, const tpl_args *args, bool attr, bool want,
                 tpl_val *out) {
    size_t skip = attr ? 1 : 0;
    if (!tpl_truth(v)) return give_seq(tpl_seq_new(r, SEQ_GEN, 0), out); // even if not iterable
    if (args->n < skip) return tpl_fail(r, QN_ERR_INVALID, "missing parameter for attribute name");
    int test = -1;
    if (args->n > skip) {
        tpl_val name = args->pos[skip];
        if (name.kind != V_STR || !tpl_flatten(r, name.u.s)) {
            return tpl_fail(r, QN_ERR_INVALID, "the name of a test must be a string");
        }
        test = tpl_test_find(tpl_view(name.u.s));
        if (test < 0) {
            return tpl_fail(r, QN_ERR_INVALID, "no test named '%.*s'",
                            (int)QN_MIN(name.u.s->len, (size_t)100), name.u.s->data);
        }
    }
    tpl_args rest = drop_first(args, skip + 1);
    tpl_seq *in = tpl_iterate(r, v), *res = in ? tpl_seq_new(r, SEQ_GEN, 0) : NULL;
    for (size_t i = 0; res && i < in->n; i++) {
        tpl_val item = in->items[i];
        bool yes;
        if (!tpl_step(r, 1)) return false;
        if (attr && !get_path(r, item, args->pos[0], NULL, false, &item)) return false;
        if (test >= 0) {
            if (!tpl_test(r, test, item, &rest, &yes)) return false;
        } else {
            yes = tpl_truth(item);
        }
        if (yes == want && !tpl_seq_push(r, res, in->items[i])) return false;
    }
    return give_seq(res, out);
}
static bool f_select(tpl_render *r, tpl_val v, const tpl_args *a, tpl_val *out) {
    return pick(r, v, a, false, true, out);
}
static bool f_reject(tpl_render *r, tpl_val v, const tpl_args *a, tpl_val *out) {
    return pick(r, v, a, false, false, out);
}
static bool f_selectattr(tpl_render *r, tpl_val v, const tpl_args *a, tpl_val *out) {
    return pick(r, v, a, true, true, out);
}
static bool f_rejectattr(tpl_render *r, tpl_val v, const tpl_args *a, tpl_val *out) {
    return pick(r, v, a, true, false, out);
}

// ---- Order ----------------------------------------------------------------------------------

typedef struct keyed {
    tpl_val key, item;
} keyed;

// Merge sort: stable, and comparisons may fail.
static bool sort_keyed(tpl_render *r, keyed *v, keyed *tmp, size_t n, bool down) {
    for (size_t width = 1; width < n; width *= 2) {
        if (!tpl_work(r, n * sizeof *v)) return false;
        for (size_t lo = 0; lo < n; lo += 2 * width) {
            size_t mid = QN_MIN(lo + width, n), hi = QN_MIN(lo + 2 * width, n);
            size_t a = lo, b = mid;
            for (size_t k = lo; k < hi; k++) {
                bool second = a >= mid;
                if (!second && b < hi) {
                    int order;
                    if (!tpl_compare(r, v[b].key, v[a].key, "<", &order, 1)) return false;
                    second = down ? order > 0 && order != 2 : order < 0;
                }
                tmp[k] = second ? v[b++] : v[a++];
            }
        }
        memcpy(v, tmp, n * sizeof *v);
    }
    return true;
}

static keyed *keyed_items(tpl_render *r, const tpl_seq *in, tpl_val attr, bool lower) {
    keyed *v = tpl_array(r, in->n, sizeof *v);
    for (size_t i = 0; v && i < in->n; i++) {
        v[i].item = in->items[i];
        if (!tpl_step(r, 1) || !get_path(r, v[i].item, attr, NULL, lower, &v[i].key)) return NULL;
    }
    return v;
}

static tpl_seq *sorted(tpl_render *r, const tpl_seq *in, keyed *v, bool down) {
    keyed *tmp = v ? tpl_array(r, in->n, sizeof *tmp) : NULL;
    if (!tmp || !sort_keyed(r, v, tmp, in->n, down)) return NULL;
    tpl_seq *s = tpl_seq_new(r, SEQ_LIST, in->n);
    if (!s) return NULL;
    for (size_t i = 0; i < in->n; i++) s->items[i] = v[i].item;
    s->n = in->n;
    return s;
}

// The sort key of an item: the values of one or several attributes ("a,b.c"), as a list, so that
// equal values need no order of their own (as Jinja2 does).
static bool sort_key(tpl_render *r, tpl_val item, tpl_val attr, bool lower, tpl_val *out) {
    tpl_seq *key = tpl_seq_new(r, SEQ_LIST, 1);
    if (!key) return false;
    const tpl_str *s = attr.kind == V_STR ? attr.u.s : NULL;
    size_t from = 0;
    for (;;) {
        const char *comma = s ? memchr(s->data + from, ',', s->len - from) : NULL;
        size_t to = comma ? (size_t)(comma - s->data) : s ? s->len : 0;
        tpl_val part = attr, v;
        if (s) {
            tpl_str *name = tpl_str_sub(r, s, from, to - from);
            if (!name) return false;
            part = tpl_strval(name);
        }
        if (!tpl_step(r, 1) || !get_path(r, item, part, NULL, lower, &v) ||
            !tpl_seq_push(r, key, v)) {
            return false;
        }
        if (!comma) break;
        from = to + 1;
    }
    *out = tpl_seqval(key);
    return true;
}

static bool f_sort(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_val p[3];
    if (!tpl_bind(r, "sort", args, PARAMS("reverse", "case_sensitive", "attribute"), 3, 0, p)) {
        return false;
    }
    tpl_seq *in = tpl_iterate(r, v);
    if (!in || (p[2].kind == V_STR && !tpl_flatten(r, p[2].u.s))) return false;
    keyed *k = tpl_array(r, in->n, sizeof *k);
    for (size_t i = 0; k && i < in->n; i++) {
        k[i].item = in->items[i];
        if (!sort_key(r, k[i].item, p[2], !tpl_truth(p[1]), &k[i].key)) return false;
    }
    return k && give_seq(sorted(r, in, k, tpl_truth(p[0])), out);
}

static bool f_dictsort(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_val p[3];
    if (!tpl_bind(r, "dictsort", args, PARAMS("case_sensitive", "by", "reverse"), 3, 0, p)) {
        return false;
    }
    if (v.kind != V_DICT) {
        return v.kind == V_UNDEF ? tpl_fail_undefined(r, v)
                                 : tpl_fail(r, QN_ERR_INVALID, "dictsort needs a mapping");
    }
    bool by_value = p[1].kind == V_STR && tpl_flatten(r, p[1].u.s) && tpl_str_is(p[1].u.s, "value");
    if (p[1].kind != V_MISSING && !by_value &&
        !(p[1].kind == V_STR && tpl_str_is(p[1].u.s, "key"))) {
        return tpl_fail(r, QN_ERR_INVALID, "you can only sort by either \"key\" or \"value\"");
    }
    tpl_seq *in = tpl_dict_seq(r, v.u.d, SEQ_ITEMS);
    if (!in) return false;
    keyed *k = keyed_items(r, in, tpl_int(by_value), !tpl_truth(p[0]));
    return k && give_seq(sorted(r, in, k, tpl_truth(p[2])), out);
}

static bool f_unique(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_val p[2], unused;
    if (!tpl_bind(r, "unique", args, PARAMS("case_sensitive", "attribute"), 2, 0, p)) return false;
    tpl_seq *in = tpl_iterate(r, v), *res = in ? tpl_seq_new(r, SEQ_GEN, 0) : NULL;
    tpl_dict *seen = tpl_dict_new(r, 0);
    if (!res || !seen) return false;
    for (size_t i = 0; i < in->n; i++) {
        tpl_val key;
        if (!tpl_step(r, 1) || !get_path(r, in->items[i], p[1], NULL, !tpl_truth(p[0]), &key)) {
            return false;
        }
        int got = tpl_dict_get(r, seen, key, &unused);
        if (got < 0) return false;
        if (!got &&
            (!tpl_dict_put(r, seen, key, tpl_none()) || !tpl_seq_push(r, res, in->items[i]))) {
            return false;
        }
    }
    return give_seq(res, out);
}

static bool extreme(tpl_render *r, tpl_val v, const tpl_args *args, bool max, tpl_val *out) {
    tpl_val p[2], best = tpl_none();
    if (!tpl_bind(r, "min, max", args, PARAMS("case_sensitive", "attribute"), 2, 0, p))
        return false;
    tpl_seq *in = tpl_iterate(r, v);
    if (!in) return false;
    if (in->n == 0) {
        *out = tpl_undef_named(r, "no aggregated item, sequence was empty");
        return true;
    }
    for (size_t i = 0; i < in->n; i++) {
        tpl_val key;
        int order = 1;
        if (!tpl_step(r, 1) || !get_path(r, in->items[i], p[1], NULL, !tpl_truth(p[0]), &key) ||
            (i && !tpl_compare(r, key, best, max ? ">" : "<", &order, 1))) {
            return false;
        }
        if (i == 0 || (order != 2 && (max ? order > 0 : order < 0))) {
            best = key;
            *out = in->items[i];
        }
    }
    return true;
}
static bool f_max(tpl_render *r, tpl_val v, const tpl_args *a, tpl_val *out) {
    return extreme(r, v, a, true, out);
}
static bool f_min(tpl_render *r, tpl_val v, const tpl_args *a, tpl_val *out) {
    return extreme(r, v, a, false, out);
}

static bool f_groupby(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_val p[3];
    if (!tpl_bind(r, "groupby", args, PARAMS("attribute", "default", "case_sensitive"), 3, 1, p)) {
        return false;
    }
    tpl_seq *in = tpl_iterate(r, v);
    tpl_seq *res = in ? tpl_seq_new(r, SEQ_LIST, 0) : NULL;
    keyed *k = res ? tpl_array(r, in->n, sizeof *k) : NULL;
    keyed *tmp = k ? tpl_array(r, in->n, sizeof *k) : NULL;
    if (!tmp) return false;
    bool lower = !tpl_truth(p[2]);
    const tpl_val *dflt = p[1].kind == V_MISSING ? NULL : &p[1];
    for (size_t i = 0; i < in->n; i++) {
        k[i].item = in->items[i];
        if (!tpl_step(r, 1) || !get_path(r, k[i].item, p[0], dflt, lower, &k[i].key)) return false;
    }
    if (!sort_keyed(r, k, tmp, in->n, false)) return false;
    for (size_t i = 0; i < in->n;) {
        tpl_seq *pair = tpl_seq_new(r, SEQ_TUPLE, 2), *list = tpl_seq_new(r, SEQ_LIST, 0);
        if (!pair || !list || !get_path(r, k[i].item, p[0], dflt, false, &pair->items[0])) {
            return false;
        }
        pair->items[1] = tpl_seqval(list);
        pair->n = 2;
        for (size_t from = i; i < in->n; i++) {
            int eq = tpl_equal(r, k[from].key, k[i].key, 1);
            if (eq < 0 || (eq && !tpl_seq_push(r, list, k[i].item))) return false;
            if (!eq) break;
        }
        if (list->n == 0)
            return tpl_fail(r, QN_ERR_INVALID, "groupby: a key is not equal to itself");
        if (!tpl_seq_push(r, res, tpl_seqval(pair))) return false;
    }
    return give_seq(res, out);
}

// ---- Sequences ------------------------------------------------------------------------------

static bool f_first(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    if (!tpl_bind(r, "first", args, NULL, 0, 0, NULL)) return false;
    if (v.kind == V_STR && tpl_flatten(r, v.u.s) && v.u.s->len) {
        return give(tpl_str_sub(r, v.u.s, 0, tpl_char_offset(v.u.s, 0, 1)), out);
    }
    if (v.kind == V_SEQ && v.u.seq->type == SEQ_GEN && v.u.seq->n) {
        *out = *v.u.seq->items++; // a generator keeps the rest
        v.u.seq->n--;
        v.u.seq->cap--;
        return true;
    }
    tpl_seq *s = tpl_iterate(r, v);
    if (!s) return false;
    *out = s->n ? s->items[0] : tpl_undef_named(r, "no first item, sequence was empty");
    return true;
}

static bool f_last(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    if (!tpl_bind(r, "last", args, NULL, 0, 0, NULL)) return false;
    if (v.kind == V_SEQ && v.u.seq->type == SEQ_GEN) {
        return tpl_fail(r, QN_ERR_INVALID, "'generator' object is not reversible");
    }
    tpl_seq *s = tpl_iterate(r, v);
    if (!s) return false;
    *out = s->n ? s->items[s->n - 1] : tpl_undef_named(r, "no last item, sequence was empty");
    return true;
}

static bool f_length(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    if (!tpl_bind(r, "length", args, NULL, 0, 0, NULL)) return false;
    size_t n = 0;
    if (v.kind == V_STR) {
        if (!tpl_str_length(r, v.u.s, &n)) return false;
    } else if (v.kind == V_DICT) {
        n = v.u.d->n;
    } else if (v.kind == V_SEQ && v.u.seq->type != SEQ_GEN) {
        n = v.u.seq->n;
    } else if (v.kind == V_LOOP) {
        n = v.u.loop->seq->n;
    } else if (v.kind != V_UNDEF) {
        return tpl_fail(r, QN_ERR_INVALID, "object of type '%s' has no len()", tpl_type_name(v));
    }
    *out = tpl_int((int64_t)n);
    return true;
}

static bool f_list(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    if (!tpl_bind(r, "list", args, NULL, 0, 0, NULL)) return false;
    tpl_seq *s = tpl_iterate(r, v), *copy = s ? tpl_seq_new(r, SEQ_LIST, s->n) : NULL;
    if (!copy || !tpl_work(r, s->n * sizeof *s->items)) return false;
    if (s->n) memcpy(copy->items, s->items, s->n * sizeof *s->items);
    copy->n = s->n;
    return give_seq(copy, out);
}

static bool f_reverse(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    if (!tpl_bind(r, "reverse", args, NULL, 0, 0, NULL)) return false;
    if (v.kind == V_SEQ && v.u.seq->type == SEQ_GEN) {
        // Jinja2 makes a list of it first.
        tpl_seq *all = tpl_iterate(r, v);
        if (!all) return false;
        v = tpl_seqval(all);
    }
    if (v.kind == V_STR) return tpl_slice(r, v, tpl_none(), tpl_none(), tpl_int(-1), out);
    tpl_seq *s = tpl_iterate(r, v), *res = s ? tpl_seq_new(r, SEQ_GEN, s->n) : NULL;
    if (!res || !tpl_work(r, s->n * sizeof *s->items)) return false;
    for (size_t i = s->n; i > 0; i--) res->items[res->n++] = s->items[i - 1];
    return give_seq(res, out);
}

static bool f_items(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    if (!tpl_bind(r, "items", args, NULL, 0, 0, NULL)) return false;
    if (v.kind == V_UNDEF) return give_seq(tpl_seq_new(r, SEQ_GEN, 0), out);
    if (v.kind != V_DICT) {
        // Jinja2 says so only when the pairs are asked for.
        tpl_seq *bad = tpl_seq_new(r, SEQ_GEN, 0);
        if (bad) bad->start = 1;
        return give_seq(bad, out);
    }
    tpl_seq *s = tpl_dict_seq(r, v.u.d, SEQ_ITEMS);
    if (s) s->type = SEQ_GEN;
    return give_seq(s, out);
}

static bool f_join(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_val p[2];
    if (!tpl_bind(r, "join", args, PARAMS("d", "attribute"), 2, 0, p)) return false;
    tpl_seq *s = tpl_iterate(r, v);
    tpl_str *sep = p[0].kind == V_MISSING ? tpl_str_ref(r, "", 0, true) : tpl_to_str(r, p[0]);
    if (!s || !sep) return false;
    if (is_given(p[1])) {
        tpl_seq *got = tpl_seq_new(r, SEQ_LIST, s->n);
        for (size_t i = 0; got && i < s->n; i++) {
            tpl_val item;
            if (!tpl_step(r, 1) || !get_path(r, s->items[i], p[1], NULL, false, &item) ||
                !tpl_seq_push(r, got, item)) {
                return false;
            }
        }
        if (!(s = got)) return false;
    }
    return give(tpl_join(r, sep, s), out);
}

static bool f_sum(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_val p[2];
    if (!tpl_bind(r, "sum", args, PARAMS("attribute", "start"), 2, 0, p)) return false;
    tpl_seq *s = tpl_iterate(r, v);
    if (!s) return false;
    tpl_val sum = p[1].kind == V_MISSING ? tpl_int(0) : p[1];
    if (sum.kind == V_STR) return tpl_fail(r, QN_ERR_INVALID, "sum() can't sum strings");
    for (size_t i = 0; i < s->n; i++) {
        tpl_val item;
        if (!tpl_step(r, 1) || !get_path(r, s->items[i], p[0], NULL, false, &item) ||
            !tpl_binary(r, OP_ADD, sum, item, &sum)) {
            return false;
        }
    }
    *out = sum;
    return true;
}

static bool f_batch(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_val p[2];
    int64_t n = 0;
    if (!tpl_bind(r, "batch", args, PARAMS("linecount", "fill_with"), 2, 1, p)) return false;
    if (!tpl_arg_int(r, "batch", p[0], &n)) return false;
    tpl_seq *s = tpl_iterate(r, v), *res = s ? tpl_seq_new(r, SEQ_GEN, 0) : NULL;
    tpl_seq *row = NULL;
    if (!res) return false;
    for (size_t i = 0; i < s->n; i++) {
        if (!tpl_step(r, 1)) return false;
        if (!row || (int64_t)row->n == n) {
            if (!(row = tpl_seq_new(r, SEQ_LIST, 0)) || !tpl_seq_push(r, res, tpl_seqval(row))) {
                return false;
            }
        }
        if (!tpl_seq_push(r, row, s->items[i])) return false;
    }
    while (row && is_given(p[1]) && (int64_t)row->n < n) {
        if (!tpl_step(r, 1) || !tpl_seq_push(r, row, p[1])) return false;
    }
    return give_seq(res, out);
}

// ---- Text -----------------------------------------------------------------------------------

static bool case_filter(tpl_render *r, tpl_val v, const tpl_args *args, int how, tpl_val *out) {
    if (!tpl_bind(r, "filter", args, NULL, 0, 0, NULL)) return false;
    tpl_str *s = tpl_to_str(r, v);
    return s && give(tpl_case(r, s, how), out);
}
static bool f_upper(tpl_render *r, tpl_val v, const tpl_args *a, tpl_val *out) {
    return case_filter(r, v, a, CASE_UPPER, out);
}
static bool f_lower(tpl_render *r, tpl_val v, const tpl_args *a, tpl_val *out) {
    return case_filter(r, v, a, CASE_LOWER, out);
}
static bool f_capitalize(tpl_render *r, tpl_val v, const tpl_args *a, tpl_val *out) {
    return case_filter(r, v, a, CASE_CAPITALIZE, out);
}

static bool f_title(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    // Words begin after blanks, hyphens and opening brackets, not after other marks.
    tpl_str *s = flat_str(r, v);
    tpl_builder b = {0};
    if (!s || !tpl_bind(r, "title", args, NULL, 0, 0, NULL)) return false;
    for (size_t i = 0; i < s->len;) {
        size_t from = i;
        for (size_t n; i < s->len; i += n) {
            n = memchr("-({[<", s->data[i], 5) ? 1 : tpl_space_at(s->data + i, s->len - i);
            if (n == 0) break;
        }
        if (!tpl_builder_sub(r, &b, s, from, i - from)) return false;
        from = i;
        while (i < s->len && !memchr("-({[<", s->data[i], 5) &&
               !tpl_space_at(s->data + i, s->len - i)) {
            i++;
        }
        tpl_str *word = tpl_str_sub(r, s, from, i - from);
        word = word ? tpl_case(r, word, CASE_CAPITALIZE) : NULL;
        if (!word || !tpl_step(r, 1) || !tpl_builder_str(r, &b, word)) return false;
    }
    return give(tpl_builder_finish(r, &b), out);
}

static bool f_trim(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_val p[1];
    if (!tpl_bind(r, "trim", args, PARAMS("chars"), 1, 0, p)) return false;
    tpl_str *s = tpl_to_str(r, v), *chars = NULL;
    if (is_given(p[0])) {
        if (p[0].kind != V_STR) return tpl_fail(r, QN_ERR_INVALID, "trim: chars must be a string");
        chars = p[0].u.s;
    }
    return s && give(tpl_strip(r, s, chars, true, true), out);
}

static bool f_replace(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_val p[3];
    int64_t count = -1;
    if (!tpl_bind(r, "replace", args, PARAMS("old", "new", "count"), 3, 2, p)) return false;
    if (is_given(p[2]) && !tpl_arg_int(r, "replace", p[2], &count)) return false;
    tpl_str *s = tpl_to_str(r, v), *from = tpl_to_str(r, p[0]), *to = tpl_to_str(r, p[1]);
    return s && from && to && give(tpl_replace(r, s, from, to, count), out);
}

static bool f_string(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    return tpl_bind(r, "string", args, NULL, 0, 0, NULL) && give(tpl_to_str(r, v), out);
}

static bool f_escape(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_str *s = flat_str(r, v);
    tpl_builder b = {0};
    if (!s || !tpl_bind(r, "escape", args, NULL, 0, 0, NULL) || !tpl_work(r, s->len)) return false;
    size_t from = 0;
    for (size_t i = 0; i < s->len; i++) {
        const char *e = NULL;
        switch (s->data[i]) {
        case '&': e = "&amp;"; break;
        case '<': e = "&lt;"; break;
        case '>': e = "&gt;"; break;
        case '"': e = "&#34;"; break;
        case '\'': e = "&#39;"; break;
        default: continue;
        }
        // What stands for a character of the value is as untrusted as the value.
        if (!tpl_builder_sub(r, &b, s, from, i - from) ||
            !tpl_builder_add(r, &b, e, strlen(e), s->origin == TPL_TRUSTED)) {
            return false;
        }
        from = i + 1;
    }
    return tpl_builder_sub(r, &b, s, from, s->len - from) && give(tpl_builder_finish(r, &b), out);
}

// A string argument, or that many blanks. *out NULL where it is not given.
static bool blanks_arg(tpl_render *r, tpl_val v, tpl_str **out) {
    *out = NULL;
    if (v.kind == V_STR) {
        *out = v.u.s;
        return tpl_flatten(r, v.u.s);
    }
    int64_t n = 0;
    tpl_val made;
    if (!tpl_arg_int(r, "indent", v, &n)) return false;
    tpl_str *blank = tpl_str_ref(r, " ", 1, true);
    if (!blank || !tpl_binary(r, OP_MUL, tpl_strval(blank), tpl_int(n), &made)) return false;
    *out = made.u.s;
    return tpl_flatten(r, made.u.s);
}

static bool f_indent(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_val p[3];
    if (!tpl_bind(r, "indent", args, PARAMS("width", "first", "blank"), 3, 0, p)) return false;
    if (v.kind == V_UNDEF) return tpl_fail_undefined(r, v);
    if (v.kind != V_STR) {
        return tpl_fail(r, QN_ERR_INVALID, "indent needs a string, not %s", tpl_type_name(v));
    }
    tpl_str *s = flat_str(r, v), *by;
    if (p[0].kind == V_MISSING) p[0] = tpl_int(4);
    if (!s || !blanks_arg(r, p[0], &by)) return false;
    tpl_str *newline = tpl_str_ref(r, "\n", 1, true);
    tpl_str *ended = newline ? tpl_concat(r, s, newline) : NULL;
    tpl_seq *lines = ended ? tpl_splitlines(r, ended, false) : NULL;
    if (!lines) return false;
    tpl_builder b = {0};
    bool first = tpl_truth(p[1]), blank = tpl_truth(p[2]);
    for (size_t i = 0; i < lines->n; i++) {
        tpl_str *line = lines->items[i].u.s;
        bool in = i == 0 ? first : blank || line->len > 0;
        if (!tpl_step(r, 1) || (i && !tpl_builder_str(r, &b, newline)) ||
            (in && !tpl_builder_str(r, &b, by)) || !tpl_builder_str(r, &b, line)) {
            return false;
        }
    }
    return give(tpl_builder_finish(r, &b), out);
}

static bool f_tojson(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_val p[4];
    tpl_str *indent = NULL, *item = NULL, *key = NULL;
    if (!tpl_bind(r, "tojson", args, PARAMS("ensure_ascii", "indent", "separators", "sort_keys"), 4,
                  0, p)) {
        return false;
    }
    if (is_given(p[1]) && !blanks_arg(r, p[1], &indent)) return false;
    if (is_given(p[2])) {
        const tpl_seq *s = p[2].kind == V_SEQ ? p[2].u.seq : NULL;
        if (!s || s->n != 2 || s->items[0].kind != V_STR || s->items[1].kind != V_STR) {
            return tpl_fail(r, QN_ERR_INVALID, "tojson: separators must be two strings");
        }
        item = s->items[0].u.s;
        key = s->items[1].u.s;
        if (!tpl_flatten(r, item) || !tpl_flatten(r, key)) return false;
    }
    return give(tpl_json(r, v, indent, item, key, tpl_truth(p[0]), tpl_truth(p[3])), out);
}

static bool f_format(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_str *s = tpl_to_str(r, v);
    if (!s) return false;
    if (args->n && args->n_kw) {
        return tpl_fail(r, QN_ERR_INVALID,
                        "can't handle positional and keyword arguments together");
    }
    tpl_seq tuple = {.items = args->pos, .n = args->n, .cap = args->n, .type = SEQ_TUPLE};
    tpl_val given = tpl_seqval(&tuple);
    if (args->n_kw) {
        tpl_dict *d = tpl_dict_new(r, args->n_kw);
        for (size_t i = 0; d && i < args->n_kw; i++) {
            if (!tpl_dict_put(r, d, tpl_strval(args->kw_names[i]), args->kw[i])) return false;
        }
        if (!d) return false;
        given = tpl_dictval(d);
    }
    return give(tpl_percent(r, s, given), out);
}

static bool f_center(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_val p[1], left, right;
    int64_t width = 80;
    size_t chars;
    if (!tpl_bind(r, "center", args, PARAMS("width"), 1, 0, p)) return false;
    if (!tpl_arg_int(r, "center", p[0], &width)) return false;
    tpl_str *s = flat_str(r, v), *blank = tpl_str_ref(r, " ", 1, true);
    if (!s || !blank || !tpl_str_length(r, s, &chars)) return false;
    int64_t pad = width > (int64_t)chars ? width - (int64_t)chars : 0;
    int64_t before = pad / 2 + (pad & width & 1);
    if (!tpl_binary(r, OP_MUL, tpl_strval(blank), tpl_int(before), &left) ||
        !tpl_binary(r, OP_MUL, tpl_strval(blank), tpl_int(pad - before), &right)) {
        return false;
    }
    tpl_str *t = tpl_concat(r, left.u.s, s);
    return t && give(tpl_concat(r, t, right.u.s), out);
}

static bool f_wordcount(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_str *s = flat_str(r, v);
    int64_t n = 0;
    bool in = false;
    if (!s || !tpl_bind(r, "wordcount", args, NULL, 0, 0, NULL) || !tpl_work(r, s->len))
        return false;
    for (size_t i = 0; i < s->len;) {
        utf8proc_int32_t cp;
        utf8proc_ssize_t len = utf8proc_iterate((const utf8proc_uint8_t *)s->data + i,
                                                (utf8proc_ssize_t)(s->len - i), &cp);
        i += len > 0 ? (size_t)len : 1;
        utf8proc_category_t c = len > 0 ? utf8proc_category(cp) : UTF8PROC_CATEGORY_CN;
        bool word = cp == '_' || (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO) ||
                    (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO);
        n += word && !in;
        in = word;
    }
    *out = tpl_int(n);
    return true;
}

// ---- Numbers --------------------------------------------------------------------------------

// Python's int(text) or float(text): blanks around, underscores between digits.
static bool parse_number(tpl_str *s, int base, bool real, tpl_val *out) {
    char text[400];
    size_t n = 0, from = 0, to = s->len, k;
    while (from < to && (k = tpl_space_at(s->data + from, to - from))) from += k;
    while (from < to && (k = tpl_space_before(s->data + from, to - from))) to -= k;
    if (from == to || to - from >= sizeof text) return false;
    for (size_t i = from; i < to; i++) {
        char c = s->data[i];
        bool alnum = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
        if (c == '_') {
            char next = i + 1 < to ? s->data[i + 1] : 0;
            if (n == 0 || next == '_' || next == 0) return false;
            continue;
        }
        bool point =
            real && (c == '.' || ((c == '-' || c == '+') && n && (text[n - 1] | 32) == 'e'));
        if (!alnum && !point && !((c == '-' || c == '+') && n == 0)) return false;
        if (real && (c == 'x' || c == 'X' || c == 'p' || c == 'P' || c == '(')) return false;
        text[n++] = c;
    }
    text[n] = 0;
    char *end;
    if (real) {
        double f = strtod(text, &end);
        if (*end || end == text) return false;
        *out = tpl_float(f);
        return true;
    }
    const char *digits = text + (text[0] == '-' || text[0] == '+');
    if (*digits == '-' || *digits == '+' || *digits == 0) return false;
    if (base == 10 && digits[0] == '0' && (digits[1] | 32) == 'x') return false;
    int64_t v = 0;
    if ((base == 16 && digits[0] == '0' && (digits[1] | 32) == 'x') ||
        (base == 8 && digits[0] == '0' && (digits[1] | 32) == 'o') ||
        (base == 2 && digits[0] == '0' && (digits[1] | 32) == 'b')) {
        digits += 2;
    }
    for (const char *p = digits; *p; p++) {
        int d = *p <= '9' ? *p - '0' : (*p | 32) - 'a' + 10;
        if (d < 0 || d >= base) return false;
        if (__builtin_mul_overflow(v, base, &v) || __builtin_sub_overflow(v, d, &v)) return false;
    }
    if (text[0] != '-' && __builtin_sub_overflow((int64_t)0, v, &v)) return false;
    *out = tpl_int(v);
    return *digits != 0;
}

static bool f_int(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_val p[2], f;
    int64_t base = 10;
    if (!tpl_bind(r, "int", args, PARAMS("default", "base"), 2, 0, p)) return false;
    if (!tpl_arg_int(r, "int", p[1], &base)) return false;
    if (base < 2 || base > 36) return tpl_fail(r, QN_ERR_INVALID, "int: base must be 2 to 36");
    if (v.kind == V_UNDEF) return tpl_fail_undefined(r, v);
    *out = p[0].kind == V_MISSING ? tpl_int(0) : p[0];
    if (v.kind == V_INT || v.kind == V_BOOL) {
        *out = tpl_int(tpl_as_int(v));
        return true;
    }
    f = v;
    if (v.kind == V_STR) {
        if (!tpl_flatten(r, v.u.s)) return false;
        if (parse_number(v.u.s, (int)base, false, out)) return true;
        if (!parse_number(v.u.s, 10, true, &f)) return true;
    }
    if (f.kind != V_FLOAT || isnan(f.u.f)) return true;
    if (isinf(f.u.f)) {
        return v.kind == V_STR ||
               tpl_fail(r, QN_ERR_INVALID, "cannot convert float infinity to integer");
    }
    if (!(fabs(f.u.f) < 9.2e18)) return tpl_fail(r, QN_ERR_INVALID, "integer too large (64 bits)");
    *out = tpl_int((int64_t)f.u.f);
    return true;
}

static bool f_float(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_val p[1];
    if (!tpl_bind(r, "float", args, PARAMS("default"), 1, 0, p)) return false;
    if (v.kind == V_UNDEF) return tpl_fail_undefined(r, v);
    *out = p[0].kind == V_MISSING ? tpl_float(0) : p[0];
    if (tpl_is_num(v)) *out = tpl_float(tpl_as_float(v));
    if (v.kind == V_STR) {
        if (!tpl_flatten(r, v.u.s)) return false;
        (void)parse_number(v.u.s, 10, true, out);
    }
    return true;
}

static bool f_abs(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    if (!tpl_bind(r, "abs", args, NULL, 0, 0, NULL)) return false;
    if (v.kind == V_UNDEF) return tpl_fail_undefined(r, v);
    if (!tpl_is_num(v)) {
        return tpl_fail(r, QN_ERR_INVALID, "bad operand type for abs(): '%s'", tpl_type_name(v));
    }
    if (v.kind == V_FLOAT) {
        *out = tpl_float(fabs(v.u.f));
        return true;
    }
    if (tpl_as_int(v) >= 0) {
        *out = tpl_int(tpl_as_int(v));
        return true;
    }
    return tpl_binary(r, OP_SUB, tpl_int(0), v, out);
}

static bool f_round(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_val p[2];
    int64_t digits = 0;
    if (!tpl_bind(r, "round", args, PARAMS("precision", "method"), 2, 0, p)) return false;
    if (!tpl_arg_int(r, "round", p[0], &digits)) return false;
    if (digits < -300 || digits > 300)
        return tpl_fail(r, QN_ERR_LIMIT, "round: precision above 300");
    if (v.kind == V_UNDEF) return tpl_fail_undefined(r, v);
    if (!tpl_is_num(v)) return tpl_fail(r, QN_ERR_INVALID, "round: not a number");
    double f = tpl_as_float(v);
    if (p[1].kind == V_STR && tpl_flatten(r, p[1].u.s) && !tpl_str_is(p[1].u.s, "common")) {
        bool up = tpl_str_is(p[1].u.s, "ceil");
        if (!up && !tpl_str_is(p[1].u.s, "floor")) {
            return tpl_fail(r, QN_ERR_INVALID, "method must be common, ceil or floor");
        }
        double scale = pow(10, (double)digits), x = f * scale;
        if (!isfinite(x)) return tpl_fail(r, QN_ERR_INVALID, "round: out of range");
        *out = tpl_float((up ? ceil(x) : floor(x)) / scale);
        return true;
    }
    if (v.kind != V_FLOAT && digits >= 0) {
        *out = tpl_int(tpl_as_int(v));
        return true;
    }
    if (v.kind != V_FLOAT) return tpl_fail(r, QN_ERR_UNSUPPORTED, "round of an integer to tens");
    char text[700];
    if (digits >= 0 && isfinite(f)) {
        // printf rounds the exact value half to even, as Python does.
        snprintf(text, sizeof text, "%.*f", (int)digits, f);
        f = strtod(text, NULL);
    } else if (isfinite(f)) {
        double scale = pow(10, (double)-digits);
        f = rint(f / scale) * scale;
    }
    *out = tpl_float(f);
    return true;
}

// ---- Others ---------------------------------------------------------------------------------

static bool f_default(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_val p[2];
    if (!tpl_bind(r, "default", args, PARAMS("default_value", "boolean"), 2, 0, p)) return false;
    *out = v;
    if (v.kind == V_UNDEF || (tpl_truth(p[1]) && !tpl_truth(v))) {
        if (p[0].kind == V_MISSING) return give(tpl_str_ref(r, "", 0, true), out);
        *out = p[0];
    }
    return true;
}

static bool f_attr(tpl_render *r, tpl_val v, const tpl_args *args, tpl_val *out) {
    tpl_val p[1];
    if (!tpl_bind(r, "attr", args, PARAMS("name"), 1, 1, p)) return false;
    tpl_str *name = flat_str(r, p[0]);
    if (!name) return false;
    // Attributes only, never the members of a mapping.
    if (v.kind == V_DICT && tpl_method_find(v, name) < 0) {
        *out = tpl_undef_named(r, "'dict object' has no attribute '%.*s'",
                               (int)QN_MIN(name->len, (size_t)100), name->data);
        return true;
    }
    return tpl_getattr(r, v, name, out);
}

static const struct {
    const char *name;
    filter_fn *fn;
} filters[] = {
    {"abs", f_abs},
    {"attr", f_attr},
    {"batch", f_batch},
    {"capitalize", f_capitalize},
    {"center", f_center},
    {"count", f_length},
    {"d", f_default},
    {"default", f_default},
    {"dictsort", f_dictsort},
    {"e", f_escape},
    {"escape", f_escape},
    {"first", f_first},
    {"float", f_float},
    {"format", f_format},
    {"groupby", f_groupby},
    {"indent", f_indent},
    {"int", f_int},
    {"items", f_items},
    {"join", f_join},
    {"last", f_last},
    {"length", f_length},
    {"list", f_list},
    {"lower", f_lower},
    {"map", f_map},
    {"max", f_max},
    {"min", f_min},
    {"reject", f_reject},
    {"rejectattr", f_rejectattr},
    {"replace", f_replace},
    {"reverse", f_reverse},
    {"round", f_round},
    {"safe", f_string},
    {"select", f_select},
    {"selectattr", f_selectattr},
    {"sort", f_sort},
    {"string", f_string},
    {"sum", f_sum},
    {"title", f_title},
    {"tojson", f_tojson},
    {"trim", f_trim},
    {"unique", f_unique},
    {"upper", f_upper},
    {"wordcount", f_wordcount},
};

int tpl_filter_find(qn_str name) {
    for (size_t i = 0; i < QN_COUNT(filters); i++) {
        if (qn_str_is(name, filters[i].name)) return (int)i;
    }
    return -1;
}

bool tpl_filter(tpl_render *r, int id, tpl_val v, const tpl_args *args, tpl_val *out) {
    // map can nest filters: map('map', 'map', ...), each level one argument shorter.
    if (!tpl_step(r, 1)) return false;
    if (r->depth >= TPL_MAX_EVAL_DEPTH) return tpl_fail(r, QN_ERR_LIMIT, "nested too deeply");
    r->depth++;
    bool ok = filters[id].fn(r, v, args, out);
    r->depth--;
    return ok;
}
