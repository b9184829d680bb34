// SPDX-License-Identifier: Apache-2.0
// Global functions, the attributes of `loop`, and the sorting of arguments into parameters.
#include "template/interp.h"

#include <string.h>
#include <time.h>

enum { F_RANGE, F_DICT, F_NAMESPACE, F_RAISE, F_STRFTIME, F_CYCLER, F_JOINER };

static const struct {
    const char *name;
    int id;
} functions[] = {
    {"range", F_RANGE},           {"dict", F_DICT},
    {"namespace", F_NAMESPACE},   {"raise_exception", F_RAISE},
    {"strftime_now", F_STRFTIME}, {"cycler", F_CYCLER},
    {"joiner", F_JOINER},
};

bool tpl_bind(tpl_render *r, const char *what, const tpl_args *args, const char *const *names,
              size_t n, size_t required, tpl_val *out) {
    for (size_t i = 0; i < n; i++) out[i] = (tpl_val){.kind = V_MISSING};
    if (args->n > n) {
        return tpl_fail(r, QN_ERR_INVALID, "%s takes at most %zu argument(s), %zu given", what, n,
                        args->n);
    }
    for (size_t i = 0; i < args->n; i++) out[i] = args->pos[i];
    for (size_t k = 0; k < args->n_kw; k++) {
        size_t i = 0;
        while (i < n && !tpl_str_is(args->kw_names[k], names[i])) i++;
        if (i == n) {
            return tpl_fail(r, QN_ERR_INVALID, "%s got an unexpected keyword argument '%.*s'", what,
                            (int)QN_MIN(args->kw_names[k]->len, (size_t)100),
                            args->kw_names[k]->data);
        }
        if (out[i].kind != V_MISSING) {
            return tpl_fail(r, QN_ERR_INVALID, "%s got two values for '%s'", what, names[i]);
        }
        out[i] = args->kw[k];
    }
    for (size_t i = 0; i < required; i++) {
        if (out[i].kind == V_MISSING) {
            return tpl_fail(r, QN_ERR_INVALID, "%s misses its argument '%s'", what, names[i]);
        }
    }
    return true;
}

bool tpl_arg_int(tpl_render *r, const char *what, tpl_val v, int64_t *out) {
    if (v.kind == V_MISSING) return true;
    if (v.kind == V_UNDEF) return tpl_fail_undefined(r, v);
    if (v.kind != V_INT && v.kind != V_BOOL) {
        return tpl_fail(r, QN_ERR_INVALID, "%s: '%s' object cannot be interpreted as an integer",
                        what, tpl_type_name(v));
    }
    *out = tpl_as_int(v);
    return true;
}

bool tpl_add_functions(tpl_render *r) {
    // Only names that the template uses have an id; the others need no binding.
    for (uint32_t id = 0; id < r->t->n_names; id++) {
        for (size_t k = 0; k < QN_COUNT(functions); k++) {
            if (!tpl_str_is(r->t->names[id], functions[k].name)) continue;
            tpl_val v = {.kind = V_FUNC, .u.i = functions[k].id};
            if (!tpl_scope_set(r, r->globals, id, v)) return false;
        }
    }
    return true;
}

static bool f_range(tpl_render *r, const tpl_args *args, tpl_val *out) {
    static const char *const names[] = {"start", "stop", "step"};
    tpl_val v[3];
    int64_t n[3] = {0, 0, 1};
    if (args->n_kw) return tpl_fail(r, QN_ERR_INVALID, "range() takes no keyword arguments");
    if (!tpl_bind(r, "range()", args, names, 3, 1, v)) return false;
    for (size_t i = 0; i < 3; i++) {
        if (!tpl_arg_int(r, "range()", v[i], &n[i])) return false;
    }
    if (v[1].kind == V_MISSING) {
        n[1] = n[0];
        n[0] = 0;
    }
    if (n[2] == 0) return tpl_fail(r, QN_ERR_INVALID, "range() arg 3 must not be zero");
    uint64_t span = 0, step = n[2] < 0 ? 0 - (uint64_t)n[2] : (uint64_t)n[2];
    if (n[2] > 0 && n[1] > n[0]) span = (uint64_t)n[1] - (uint64_t)n[0];
    if (n[2] < 0 && n[1] < n[0]) span = (uint64_t)n[0] - (uint64_t)n[1];
    uint64_t count = span / step + (span % step != 0);
    if (count > TPL_MAX_RANGE) {
        return tpl_fail(r, QN_ERR_LIMIT, "range too big, the maximum is %d", TPL_MAX_RANGE);
    }
    tpl_seq *s = tpl_seq_new(r, SEQ_RANGE, (size_t)count);
    if (!s || !tpl_work(r, (size_t)count * sizeof(tpl_val))) return false;
    s->start = n[0];
    s->stop = n[1];
    s->step = n[2];
    for (uint64_t i = 0; i < count; i++) {
        s->items[i] = tpl_int((int64_t)((uint64_t)n[0] + i * (uint64_t)n[2]));
    }
    s->n = (size_t)count;
    *out = tpl_seqval(s);
    return true;
}

// dict() and namespace(): a mapping or pairs, then keyword arguments.
static bool make_dict(tpl_render *r, const tpl_args *args, tpl_dict **out) {
    tpl_dict *d = tpl_dict_new(r, 0);
    if (!d) return false;
    if (args->n > 1) return tpl_fail(r, QN_ERR_INVALID, "expected at most 1 argument");
    if (args->n && args->pos[0].kind == V_DICT) {
        const tpl_dict *from = args->pos[0].u.d;
        for (size_t i = 0; i < from->n; i++) {
            if (!tpl_step(r, 1) || !tpl_dict_put(r, d, from->items[i].key, from->items[i].value)) {
                return false;
            }
        }
    } else if (args->n) {
        tpl_seq *s = tpl_iterate(r, args->pos[0]);
        for (size_t i = 0; s && i < s->n; i++) {
            tpl_seq *pair = tpl_iterate(r, s->items[i]);
            if (!pair || !tpl_step(r, 1)) return false;
            if (pair->n != 2) {
                return tpl_fail(r, QN_ERR_INVALID,
                                "dictionary update sequence element has length "
                                "%zu; 2 is required",
                                pair->n);
            }
            if (!tpl_dict_put(r, d, pair->items[0], pair->items[1])) return false;
        }
        if (!s) return false;
    }
    for (size_t i = 0; i < args->n_kw; i++) {
        if (!tpl_dict_put(r, d, tpl_strval(args->kw_names[i]), args->kw[i])) return false;
    }
    *out = d;
    return true;
}

static bool f_raise(tpl_render *r, const tpl_args *args) {
    static const char *const names[] = {"message"};
    tpl_val v;
    if (!tpl_bind(r, "raise_exception()", args, names, 1, 1, &v)) return false;
    tpl_str *s = tpl_to_str(r, v);
    if (!s || !tpl_flatten(r, s)) return false;
    return tpl_fail(r, QN_ERR_INVALID, "%.*s", (int)QN_MIN(s->len, (size_t)350), s->data);
}

static bool f_strftime(tpl_render *r, const tpl_args *args, tpl_val *out) {
    static const char *const names[] = {"format"};
    tpl_val v;
    if (!tpl_bind(r, "strftime_now()", args, names, 1, 1, &v)) return false;
    if (v.kind != V_STR || !tpl_flatten(r, v.u.s)) {
        return tpl_fail(r, QN_ERR_INVALID, "strftime_now() needs a string");
    }
    if (v.u.s->len > 256 || memchr(v.u.s->data, 0, v.u.s->len)) {
        return tpl_fail(r, QN_ERR_LIMIT, "strftime_now(): format too long");
    }
    char fmt[260], text[1024];
    memcpy(fmt, v.u.s->data, v.u.s->len);
    fmt[v.u.s->len] = 0;
    // glibc takes a field width after %, which would let a short format write much.
    for (const char *p = fmt; (p = strchr(p, '%')); p++) {
        p++;
        while (*p && strchr("-_0^#EO", *p)) p++;
        if ((*p >= '0' && *p <= '9') || *p == '+') {
            return tpl_fail(r, QN_ERR_UNSUPPORTED, "strftime_now(): field widths");
        }
        if (!*p) break;
    }
    double now = r->now;
    if (!(now > -6e10 && now < 2.5e11)) now = 0;
    time_t t = (time_t)now;
    struct tm tm;
    if (!gmtime_r(&t, &tm)) return tpl_fail(r, QN_ERR_INVALID, "strftime_now(): no such time");
    size_t n = strftime(text, sizeof text, fmt, &tm);
    if (n == 0 && fmt[0]) return tpl_fail(r, QN_ERR_LIMIT, "strftime_now(): text too long");
    tpl_str *s = tpl_str_copy(r, text, n, v.u.s->origin == TPL_TRUSTED);
    if (s) *out = tpl_strval(s);
    return s != NULL;
}

bool tpl_function(tpl_render *r, int id, const tpl_args *args, tpl_val *out) {
    static const char *const sep_name[] = {"sep"};
    tpl_dict *d = NULL;
    switch (id) {
    case F_RANGE: return f_range(r, args, out);
    case F_DICT:
    case F_NAMESPACE:
        if (!make_dict(r, args, &d)) return false;
        *out = (tpl_val){.kind = id == F_DICT ? V_DICT : V_NS, .u.d = d};
        return true;
    case F_RAISE: return f_raise(r, args);
    case F_STRFTIME: return f_strftime(r, args, out);
    case F_CYCLER: {
        if (args->n == 0)
            return tpl_fail(r, QN_ERR_INVALID, "at least one item has to be provided");
        if (args->n_kw) return tpl_fail(r, QN_ERR_INVALID, "cycler() takes no keyword arguments");
        tpl_seq *s = tpl_seq_new(r, SEQ_LIST, args->n);
        if (!s) return false;
        memcpy(s->items, args->pos, args->n * sizeof *s->items);
        s->n = args->n;
        *out = (tpl_val){.kind = V_CYCLER, .u.seq = s};
        return true;
    }
    default: {
        tpl_val sep;
        if (!tpl_bind(r, "joiner()", args, sep_name, 1, 0, &sep)) return false;
        tpl_seq *s = tpl_seq_new(r, SEQ_LIST, 1);
        if (!s) return false;
        if (sep.kind == V_MISSING) {
            tpl_str *comma = tpl_str_ref(r, ", ", 2, true);
            if (!comma) return false;
            sep = tpl_strval(comma);
        }
        s->items[0] = sep;
        s->n = 1;
        *out = (tpl_val){.kind = V_JOINER, .u.seq = s};
        return true;
    }
    }
}

bool tpl_loop_attr(tpl_render *r, tpl_loop *l, const tpl_str *name, tpl_val *out, bool *found) {
    int64_t at = (int64_t)l->at, n = (int64_t)l->seq->n;
    *found = true;
    if (tpl_str_is(name, "index"))
        *out = tpl_int(at + 1);
    else if (tpl_str_is(name, "index0"))
        *out = tpl_int(at);
    else if (tpl_str_is(name, "revindex"))
        *out = tpl_int(n - at);
    else if (tpl_str_is(name, "revindex0"))
        *out = tpl_int(n - at - 1);
    else if (tpl_str_is(name, "first"))
        *out = tpl_bool(at == 0);
    else if (tpl_str_is(name, "last"))
        *out = tpl_bool(at == n - 1);
    else if (tpl_str_is(name, "length"))
        *out = tpl_int(n);
    else if (tpl_str_is(name, "depth"))
        *out = tpl_int(1); // of recursive loops only
    else if (tpl_str_is(name, "depth0"))
        *out = tpl_int(0);
    else if (tpl_str_is(name, "previtem")) {
        *out = at > 0 ? l->seq->items[at - 1] : tpl_undef_named(r, "there is no previous item");
    } else if (tpl_str_is(name, "nextitem")) {
        *out = at + 1 < n ? l->seq->items[at + 1] : tpl_undef_named(r, "there is no next item");
    } else {
        *found = false;
    }
    return true;
}
