// SPDX-License-Identifier: Apache-2.0
// Values: strings with their origins, sequences, dictionaries, equality and order as in Python.
#include "template/interp.h"

#include "base/hash.h"
#include "base/utf8.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- State ----------------------------------------------------------------------------------

bool tpl_fail(tpl_render *r, qn_status status, const char *fmt, ...) {
    if (r->status != QN_OK) return false;
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    r->status = status;
    if (r->line) {
        (void)qn_fail(r->err, status, "template line %u: %s", r->line, text);
    } else {
        (void)qn_fail(r->err, status, "template: %s", text);
    }
    return false;
}

bool tpl_fail_undefined(tpl_render *r, tpl_val v) {
    return tpl_fail(r, QN_ERR_INVALID, "%s", v.u.s ? v.u.s->data : "a value is undefined");
}

bool tpl_step(tpl_render *r, size_t n) {
    if (n > r->max_steps - r->steps) {
        return tpl_fail(r, QN_ERR_LIMIT, "takes more than %zu steps", r->max_steps);
    }
    r->steps += n;
    return true;
}

bool tpl_work(tpl_render *r, size_t bytes) {
    return tpl_step(r, bytes / TPL_BYTES_PER_STEP);
}

void *tpl_alloc(tpl_render *r, size_t size) {
    void *p = size <= r->max_memory ? qn_arena_alloc(&r->arena, size) : NULL;
    if (!p) {
        // The arena says no for two reasons; one is the limit, told by what is left of it (its
        // chunks have a head of their own, so near the limit the answer is "limit").
        bool limit = size > r->max_memory ||
                     r->max_memory - QN_MIN(r->arena.total, r->max_memory) < size + 32 * 1024;
        tpl_fail(r, limit ? QN_ERR_LIMIT : QN_ERR_NOMEM,
                 limit ? "needs more than %zu bytes of memory" : "out of memory", r->max_memory);
    }
    return p;
}

void *tpl_array(tpl_render *r, size_t n, size_t size) {
    size_t bytes;
    if (!qn_mul_size(n, size, &bytes)) bytes = SIZE_MAX;
    return tpl_alloc(r, bytes);
}

bool tpl_grow(tpl_render *r, void *items_ptr, size_t *cap, size_t need, size_t size) {
    if (need <= *cap) return true;
    size_t want = *cap < 4 ? 4 : *cap * 2;
    if (want < need) want = need;
    void *old;
    memcpy(&old, items_ptr, sizeof old);
    void *v = tpl_array(r, want, size);
    if (!v) return false;
    if (*cap) memcpy(v, old, *cap * size);
    memcpy(items_ptr, &v, sizeof v);
    *cap = want;
    return true;
}

// ---- Strings --------------------------------------------------------------------------------

uint8_t tpl_scan_ascii(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)s[i] >= 0x80) return TPL_NOT_ASCII;
    }
    return TPL_ASCII;
}

tpl_str *tpl_str_ref(tpl_render *r, const char *data, size_t len, bool trusted) {
    tpl_str *s = tpl_alloc(r, sizeof *s);
    if (!s) return NULL;
    *s = (tpl_str){.len = len, .data = len ? data : "", .origin = trusted || len == 0};
    return s;
}

tpl_str *tpl_str_copy(tpl_render *r, const char *data, size_t len, bool trusted) {
    char *copy = tpl_alloc(r, len + 1);
    if (!copy || !tpl_work(r, len)) return NULL;
    if (len) memcpy(copy, data, len);
    return tpl_str_ref(r, copy, len, trusted);
}

tpl_str *tpl_str_printf(tpl_render *r, const char *fmt, ...) {
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    size_t len = n < 0 ? 0 : QN_MIN((size_t)n, sizeof text - 1);
    return tpl_str_copy(r, text, len, true);
}

tpl_val tpl_undef_named(tpl_render *r, const char *fmt, ...) {
    char text[300];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    size_t len = n < 0 ? 0 : QN_MIN((size_t)n, sizeof text - 1);
    // Out of memory leaves the reason out; the next allocation that matters will fail too.
    return (tpl_val){.kind = V_UNDEF, .u.s = tpl_str_copy(r, text, len, false)};
}

bool tpl_is_ascii(tpl_str *s) {
    if (s->ascii == TPL_ASCII_UNKNOWN) s->ascii = tpl_scan_ascii(s->data, s->len);
    return s->ascii == TPL_ASCII;
}

bool tpl_all_trusted(const tpl_str *s) {
    if (s->data) return s->origin == TPL_TRUSTED;
    return false; // a rope: not asked before it is flat
}

// The run that holds byte `at`.
static size_t find_run(const tpl_str *s, size_t at) {
    size_t lo = 0, hi = s->n_runs;
    while (lo + 1 < hi) {
        size_t mid = (lo + hi) / 2;
        if (s->runs[mid - 1].end <= at)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

tpl_str *tpl_str_sub(tpl_render *r, const tpl_str *s, size_t at, size_t len) {
    tpl_str *t = tpl_str_ref(r, s->data + at, len, s->origin == TPL_TRUSTED);
    if (!t || len == 0) return t;
    if (s->ascii == TPL_ASCII) t->ascii = TPL_ASCII;
    if (s->origin != TPL_MIXED) return t;
    size_t first = find_run(s, at), last = find_run(s, at + len - 1);
    t->origin = s->runs[first].trusted;
    if (first == last) return t;
    t->n_runs = last - first + 1;
    tpl_run *runs = tpl_array(r, t->n_runs, sizeof *runs);
    if (!runs || !tpl_work(r, t->n_runs * sizeof *runs)) return NULL;
    for (size_t i = 0; i < t->n_runs; i++) {
        runs[i] = s->runs[first + i];
        runs[i].end = QN_MIN(runs[i].end, at + len) - at;
    }
    t->runs = runs;
    t->origin = TPL_MIXED;
    return t;
}

size_t tpl_char_offset(const tpl_str *s, size_t from, size_t at) {
    if (s->ascii == TPL_ASCII) return QN_MIN(from + at, s->len);
    size_t p = from;
    for (; at > 0 && p < s->len; at--) {
        do p++;
        while (p < s->len && ((unsigned char)s->data[p] & 0xc0) == 0x80);
    }
    return p;
}

bool tpl_str_length(tpl_render *r, tpl_str *s, size_t *chars) {
    if (!tpl_flatten(r, s)) return false;
    *chars = s->len;
    if (tpl_is_ascii(s)) return true;
    size_t n = 0;
    for (size_t i = 0; i < s->len; i++) n += ((unsigned char)s->data[i] & 0xc0) != 0x80;
    *chars = n;
    return tpl_work(r, s->len);
}

bool tpl_builder_add(tpl_render *r, tpl_builder *b, const char *data, size_t len, bool trusted) {
    if (len == 0) return true;
    if (len > r->max_memory || b->len > r->max_memory - len) {
        return tpl_fail(r, QN_ERR_LIMIT, "makes a string of more than %zu bytes", r->max_memory);
    }
    if (!tpl_grow(r, &b->pieces, &b->cap, b->n + 1, sizeof *b->pieces)) return false;
    b->pieces[b->n++] = (tpl_piece){data, len, trusted};
    b->len += len;
    return true;
}

bool tpl_builder_sub(tpl_render *r, tpl_builder *b, const tpl_str *s, size_t at, size_t len) {
    if (s->origin != TPL_MIXED || len == 0) {
        return tpl_builder_add(r, b, s->data + at, len, s->origin == TPL_TRUSTED);
    }
    for (size_t i = find_run(s, at), end = at + len; at < end; i++) {
        size_t stop = QN_MIN(s->runs[i].end, end);
        if (!tpl_builder_add(r, b, s->data + at, stop - at, s->runs[i].trusted)) return false;
        at = stop;
    }
    return true;
}

bool tpl_builder_str(tpl_render *r, tpl_builder *b, tpl_str *s) {
    return tpl_flatten(r, s) && tpl_builder_sub(r, b, s, 0, s->len);
}

// Gives s the pieces' bytes and origins.
static bool set_pieces(tpl_render *r, tpl_str *s, const tpl_piece *v, size_t n, size_t len) {
    if (n == 0) {
        *s = (tpl_str){.data = "", .origin = TPL_TRUSTED, .ascii = TPL_ASCII};
        return true;
    }
    size_t n_runs = 1;
    for (size_t i = 1; i < n; i++) n_runs += v[i].trusted != v[i - 1].trusted;
    const char *data = v[0].data;
    if (n > 1) {
        char *copy = tpl_alloc(r, len + 1);
        if (!copy || !tpl_work(r, len)) return false;
        size_t at = 0;
        for (size_t i = 0; i < n; i++) {
            memcpy(copy + at, v[i].data, v[i].len);
            at += v[i].len;
        }
        data = copy;
    }
    tpl_run *runs = NULL;
    if (n_runs > 1) {
        runs = tpl_array(r, n_runs, sizeof *runs);
        if (!runs) return false;
        size_t k = 0, at = 0;
        for (size_t i = 0; i < n; i++) {
            at += v[i].len;
            if (i && v[i].trusted != v[i - 1].trusted) k++;
            runs[k] = (tpl_run){at, v[i].trusted};
        }
    }
    *s = (tpl_str){.len = len, .data = data, .runs = runs, .n_runs = runs ? n_runs : 0};
    s->origin = runs ? TPL_MIXED : v[0].trusted;
    return true;
}

tpl_str *tpl_builder_finish(tpl_render *r, tpl_builder *b) {
    tpl_str *s = tpl_alloc(r, sizeof *s);
    return s && set_pieces(r, s, b->pieces, b->n, b->len) ? s : NULL;
}

bool tpl_flatten(tpl_render *r, tpl_str *s) {
    if (s->data) return true;
    // A walk with a stack of its own: a rope may be as deep as the steps allow.
    tpl_str **stack = NULL;
    size_t n = 0, cap = 0;
    tpl_builder b = {0};
    if (!tpl_grow(r, &stack, &cap, 1, sizeof *stack)) return false;
    tpl_str *at = s;
    while (at) {
        if (!at->data) {
            if (!tpl_grow(r, &stack, &cap, n + 1, sizeof *stack)) return false;
            stack[n++] = at->right;
            at = at->left;
            continue;
        }
        if (!tpl_builder_sub(r, &b, at, 0, at->len)) return false;
        at = n ? stack[--n] : NULL;
    }
    bool used = s->used;
    if (!set_pieces(r, s, b.pieces, b.n, b.len)) return false;
    s->used = used;
    return true;
}

tpl_str *tpl_concat(tpl_render *r, tpl_str *a, tpl_str *b) {
    if (a->len == 0) return b;
    if (b->len == 0) return a;
    if (a->len > r->max_memory || b->len > r->max_memory - a->len) {
        tpl_fail(r, QN_ERR_LIMIT, "makes a string of more than %zu bytes", r->max_memory);
        return NULL;
    }
    // Each rope has one parent, so that no walk over ropes is longer than what made them.
    if ((!a->data && a->used && !tpl_flatten(r, a)) ||
        (!b->data && b->used && !tpl_flatten(r, b))) {
        return NULL;
    }
    if (!a->data) a->used = true;
    if (!b->data && b->used && !tpl_flatten(r, b)) return NULL; // a and b are the same
    if (!b->data) b->used = true;
    if (a->data && b->data && a->len + b->len <= 256) {
        tpl_builder t = {0};
        if (!tpl_builder_sub(r, &t, a, 0, a->len) || !tpl_builder_sub(r, &t, b, 0, b->len)) {
            return NULL;
        }
        return tpl_builder_finish(r, &t);
    }
    tpl_str *s = tpl_alloc(r, sizeof *s);
    if (s) *s = (tpl_str){.len = a->len + b->len, .left = a, .right = b};
    return s;
}

// ---- Kinds ----------------------------------------------------------------------------------

const char *tpl_type_name(tpl_val v) {
    static const char *const seq[] = {"list",      "tuple",       "range",     "generator",
                                      "dict_keys", "dict_values", "dict_items"};
    switch (v.kind) {
    case V_MISSING:
    case V_UNDEF: return "Undefined";
    case V_NONE: return "NoneType";
    case V_BOOL: return "bool";
    case V_INT: return "int";
    case V_FLOAT: return "float";
    case V_STR: return "str";
    case V_SEQ: return seq[v.u.seq->type];
    case V_DICT: return "dict";
    case V_NS: return "Namespace";
    case V_MACRO: return "Macro";
    case V_FUNC: return "function";
    case V_METHOD: return "method";
    case V_LOOP: return "LoopContext";
    case V_CYCLER: return "Cycler";
    case V_JOINER: return "Joiner";
    }
    return "object";
}

bool tpl_truth(tpl_val v) {
    switch (v.kind) {
    case V_MISSING:
    case V_UNDEF:
    case V_NONE: return false;
    case V_BOOL: return v.u.b;
    case V_INT: return v.u.i != 0;
    case V_FLOAT: return v.u.f != 0;
    case V_STR: return v.u.s->len != 0;
    case V_SEQ: return v.u.seq->type == SEQ_GEN || v.u.seq->n != 0;
    case V_DICT: return v.u.d->n != 0;
    default: return true;
    }
}

static bool too_deep(tpl_render *r, int depth) {
    if (depth < TPL_MAX_VALUE_DEPTH) return false;
    tpl_fail(r, QN_ERR_LIMIT, "value nested too deeply");
    return true;
}

// Order of an int and a float without rounding.
static int int_float_order(int64_t i, double f) {
    if (f >= 9223372036854775808.0) return -1;
    if (f < -9223372036854775808.0) return 1;
    int64_t t = (int64_t)f;
    if (i != t) return i < t ? -1 : 1;
    double frac = f - (double)t;
    return frac > 0 ? -1 : frac < 0 ? 1 : 0;
}

// <0, 0, >0; 2 when unordered (NaN).
static int number_order(tpl_val a, tpl_val b) {
    if (a.kind == V_FLOAT && b.kind == V_FLOAT) {
        if (isnan(a.u.f) || isnan(b.u.f)) return 2;
        return (a.u.f > b.u.f) - (a.u.f < b.u.f);
    }
    if (a.kind == V_FLOAT) return isnan(a.u.f) ? 2 : -int_float_order(tpl_as_int(b), a.u.f);
    if (b.kind == V_FLOAT) return isnan(b.u.f) ? 2 : int_float_order(tpl_as_int(a), b.u.f);
    int64_t x = tpl_as_int(a), y = tpl_as_int(b);
    return (x > y) - (x < y);
}

static bool str_order(tpl_render *r, tpl_str *a, tpl_str *b, int *out) {
    if (!tpl_flatten(r, a) || !tpl_flatten(r, b)) return false;
    size_t n = QN_MIN(a->len, b->len);
    int c = n ? memcmp(a->data, b->data, n) : 0;
    *out = c ? (c > 0) - (c < 0) : (a->len > b->len) - (a->len < b->len);
    return tpl_work(r, n);
}

static bool same_seq_type(const tpl_seq *a, const tpl_seq *b) {
    return a->type == b->type && a->type != SEQ_GEN && a->type != SEQ_VALUES;
}

int tpl_equal(tpl_render *r, tpl_val a, tpl_val b, int depth) {
    if (too_deep(r, depth) || !tpl_step(r, depth > 0)) return -1;
    if (tpl_is_num(a) && tpl_is_num(b)) return number_order(a, b) == 0;
    if (a.kind != b.kind) return 0;
    switch (a.kind) {
    case V_MISSING:
    case V_UNDEF:
    case V_NONE: return 1;
    case V_STR: {
        if (a.u.s->len != b.u.s->len) return 0;
        int order;
        return str_order(r, a.u.s, b.u.s, &order) ? order == 0 : -1;
    }
    case V_SEQ:
        if (a.u.seq == b.u.seq) return 1;
        if (!same_seq_type(a.u.seq, b.u.seq) || a.u.seq->n != b.u.seq->n) return 0;
        for (size_t i = 0; i < a.u.seq->n; i++) {
            int eq = tpl_equal(r, a.u.seq->items[i], b.u.seq->items[i], depth + 1);
            if (eq != 1) return eq;
        }
        return 1;
    case V_DICT:
        if (a.u.d == b.u.d) return 1;
        if (a.u.d->n != b.u.d->n) return 0;
        for (size_t i = 0; i < a.u.d->n; i++) {
            tpl_val other;
            int found = tpl_dict_get(r, b.u.d, a.u.d->items[i].key, &other);
            if (found != 1) return found;
            int eq = tpl_equal(r, a.u.d->items[i].value, other, depth + 1);
            if (eq != 1) return eq;
        }
        return 1;
    case V_FUNC: return a.u.i == b.u.i;
    default: return a.u.m == b.u.m;
    }
}

bool tpl_compare(tpl_render *r, tpl_val a, tpl_val b, const char *op, int *out, int depth) {
    if (too_deep(r, depth) || !tpl_step(r, depth > 0)) return false;
    if (tpl_is_num(a) && tpl_is_num(b)) {
        *out = number_order(a, b);
        return true;
    }
    if (a.kind == V_STR && b.kind == V_STR) return str_order(r, a.u.s, b.u.s, out);
    if (a.kind == V_SEQ && b.kind == V_SEQ && a.u.seq->type == b.u.seq->type &&
        a.u.seq->type <= SEQ_TUPLE) {
        const tpl_seq *x = a.u.seq, *y = b.u.seq;
        for (size_t i = 0; i < x->n && i < y->n; i++) {
            int eq = tpl_equal(r, x->items[i], y->items[i], depth + 1);
            if (eq < 0) return false;
            if (eq == 0) return tpl_compare(r, x->items[i], y->items[i], op, out, depth + 1);
        }
        *out = (x->n > y->n) - (x->n < y->n);
        return true;
    }
    if (a.kind == V_UNDEF || b.kind == V_UNDEF) {
        tpl_val u = a.kind == V_UNDEF ? a : b;
        return tpl_fail_undefined(r, u);
    }
    return tpl_fail(r, QN_ERR_INVALID, "'%s' not supported between instances of '%s' and '%s'", op,
                    tpl_type_name(a), tpl_type_name(b));
}

int tpl_contains(tpl_render *r, tpl_val item, tpl_val in) {
    switch (in.kind) {
    case V_STR:
        if (item.kind != V_STR) {
            tpl_fail(r, QN_ERR_INVALID, "'in <string>' requires string as left operand, not %s",
                     tpl_type_name(item));
            return -1;
        }
        if (!tpl_flatten(r, in.u.s) || !tpl_flatten(r, item.u.s) || !tpl_work(r, in.u.s->len)) {
            return -1;
        }
        return item.u.s->len == 0 || tpl_find(in.u.s->data, in.u.s->len, item.u.s) != NULL;
    case V_DICT: {
        tpl_val v;
        return tpl_dict_get(r, in.u.d, item, &v);
    }
    case V_SEQ: {
        tpl_seq *s = tpl_iterate(r, in);
        if (!s) return -1;
        for (size_t i = 0; i < s->n; i++) {
            int eq = tpl_equal(r, item, s->items[i], 1);
            if (eq) return eq;
        }
        return 0;
    }
    case V_UNDEF: return 0;
    default:
        tpl_fail(r, QN_ERR_INVALID, "argument of type '%s' is not iterable", tpl_type_name(in));
        return -1;
    }
}

// ---- Sequences ------------------------------------------------------------------------------

tpl_seq *tpl_seq_new(tpl_render *r, int type, size_t cap) {
    tpl_seq *s = tpl_alloc(r, sizeof *s);
    if (!s) return NULL;
    s->type = type;
    if (cap) {
        s->items = tpl_array(r, cap, sizeof *s->items);
        if (!s->items) return NULL;
        s->cap = cap;
    }
    return s;
}

bool tpl_seq_push(tpl_render *r, tpl_seq *s, tpl_val v) {
    if (!tpl_grow(r, &s->items, &s->cap, s->n + 1, sizeof *s->items)) return false;
    s->items[s->n++] = v;
    return true;
}

bool tpl_iterable(tpl_val v) {
    return v.kind == V_UNDEF || v.kind == V_STR || v.kind == V_SEQ || v.kind == V_DICT ||
           v.kind == V_LOOP;
}

tpl_seq *tpl_iterate(tpl_render *r, tpl_val v) {
    switch (v.kind) {
    case V_UNDEF: return tpl_seq_new(r, SEQ_LIST, 0);
    case V_DICT: return tpl_dict_seq(r, v.u.d, SEQ_KEYS);
    case V_SEQ: {
        if (v.u.seq->type != SEQ_GEN) return v.u.seq;
        if (v.u.seq->start) {
            tpl_fail(r, QN_ERR_INVALID, "can only get item pairs from a mapping");
            return NULL;
        }
        tpl_seq *s = tpl_seq_new(r, SEQ_LIST, 0);
        if (!s) return NULL;
        s->items = v.u.seq->items;
        s->n = s->cap = v.u.seq->n;
        v.u.seq->items = NULL;
        v.u.seq->n = v.u.seq->cap = 0;
        return s;
    }
    case V_STR: {
        tpl_str *t = v.u.s;
        size_t chars;
        if (!tpl_str_length(r, t, &chars)) return NULL;
        tpl_seq *s = tpl_seq_new(r, SEQ_LIST, chars);
        for (size_t at = 0; s && at < t->len;) {
            size_t end = tpl_char_offset(t, at, 1);
            tpl_str *c = tpl_str_sub(r, t, at, end - at);
            if (!c || !tpl_seq_push(r, s, tpl_strval(c))) return NULL;
            at = end;
        }
        return s;
    }
    default:
        tpl_fail(r, QN_ERR_INVALID, "'%s' object is not iterable", tpl_type_name(v));
        return NULL;
    }
}

// ---- Dictionaries ---------------------------------------------------------------------------

static bool hash_value(tpl_render *r, tpl_val v, uint64_t *out, int depth) {
    uint64_t seed = (uint64_t)(uintptr_t)r; // differs by run; nothing depends on the order
    if (too_deep(r, depth) || !tpl_step(r, depth > 0)) return false;
    switch (v.kind) {
    case V_UNDEF:
    case V_NONE: *out = qn_hash_u64(seed ^ v.kind); return true;
    case V_BOOL:
    case V_INT: *out = qn_hash_u64(seed ^ (uint64_t)tpl_as_int(v)); return true;
    case V_FLOAT:
        // A float equal to an int has the int's hash.
        if (v.u.f >= -9.2e18 && v.u.f <= 9.2e18 && floor(v.u.f) == v.u.f) {
            *out = qn_hash_u64(seed ^ (uint64_t)(int64_t)v.u.f);
        } else {
            *out = qn_hash_bytes(&v.u.f, sizeof v.u.f, seed);
        }
        return true;
    case V_STR:
        if (!tpl_flatten(r, v.u.s) || !tpl_work(r, v.u.s->len)) return false;
        *out = qn_hash_bytes(v.u.s->data, v.u.s->len, seed);
        return true;
    case V_SEQ:
        if (v.u.seq->type == SEQ_TUPLE) {
            uint64_t h = seed;
            for (size_t i = 0; i < v.u.seq->n; i++) {
                uint64_t e = 0;
                if (!hash_value(r, v.u.seq->items[i], &e, depth + 1)) return false;
                h = qn_hash_u64(h * 31 + e);
            }
            *out = h;
            return true;
        }
        break;
    case V_MACRO:
    case V_FUNC:
    case V_METHOD:
    case V_LOOP: *out = qn_hash_u64(seed ^ (uint64_t)v.u.i); return true;
    default: break;
    }
    return tpl_fail(r, QN_ERR_INVALID, "unhashable type: '%s'", tpl_type_name(v));
}

tpl_dict *tpl_dict_new(tpl_render *r, size_t cap) {
    tpl_dict *d = tpl_alloc(r, sizeof *d);
    if (!d) return NULL;
    if (cap) {
        d->items = tpl_array(r, cap, sizeof *d->items);
        if (!d->items) return NULL;
        d->cap = cap;
    }
    return d;
}

enum { SMALL_DICT = 8 };

// The entry of a key: its number + 1, 0 none, and in *slot where it belongs in the index.
static bool find_entry(tpl_render *r, const tpl_dict *d, tpl_val key, uint64_t h, size_t *entry,
                       size_t *slot) {
    *entry = 0;
    *slot = 0;
    size_t n = d->index ? d->mask + 1 : d->n;
    for (size_t k = 0; k < n; k++) {
        size_t e = k;
        if (d->index) {
            *slot = ((size_t)h + k) & d->mask;
            if (!d->index[*slot]) return true;
            e = d->index[*slot] - 1;
        }
        if (d->items[e].hash != h) continue;
        int eq = tpl_equal(r, d->items[e].key, key, 1);
        if (eq < 0) return false;
        if (eq) {
            *entry = e + 1;
            return true;
        }
    }
    return true;
}

static bool build_index(tpl_render *r, tpl_dict *d, size_t slots) {
    uint32_t *index = tpl_array(r, slots, sizeof *index);
    if (!index || !tpl_work(r, slots * sizeof *index)) return false;
    d->index = index;
    d->mask = slots - 1;
    for (size_t i = 0; i < d->n; i++) {
        size_t at = (size_t)d->items[i].hash & d->mask;
        while (index[at]) at = (at + 1) & d->mask;
        index[at] = (uint32_t)i + 1;
    }
    return true;
}

bool tpl_dict_put(tpl_render *r, tpl_dict *d, tpl_val key, tpl_val value) {
    uint64_t h = 0;
    size_t e = 0, slot = 0;
    if (!hash_value(r, key, &h, 0) || !find_entry(r, d, key, h, &e, &slot)) return false;
    if (e) {
        d->items[e - 1].value = value;
        return true;
    }
    if (!tpl_grow(r, &d->items, &d->cap, d->n + 1, sizeof *d->items)) return false;
    d->items[d->n++] = (tpl_entry){key, value, h};
    if (d->index && d->n * 2 <= d->mask) {
        d->index[slot] = (uint32_t)d->n;
        return true;
    }
    if (d->n <= SMALL_DICT) return true;
    return build_index(r, d, d->index ? (d->mask + 1) * 2 : 4 * SMALL_DICT);
}

int tpl_dict_get(tpl_render *r, const tpl_dict *d, tpl_val key, tpl_val *out) {
    uint64_t h = 0;
    size_t e = 0, slot = 0;
    if (!hash_value(r, key, &h, 0) || !find_entry(r, d, key, h, &e, &slot)) return -1;
    if (!e) return 0;
    *out = d->items[e - 1].value;
    return 1;
}

bool tpl_dict_remove(tpl_render *r, tpl_dict *d, tpl_val key) {
    uint64_t h = 0;
    size_t e = 0, slot = 0;
    if (!hash_value(r, key, &h, 0) || !find_entry(r, d, key, h, &e, &slot)) return false;
    if (!e) return true;
    if (!tpl_work(r, (d->n - e) * sizeof *d->items)) return false;
    memmove(d->items + e - 1, d->items + e, (d->n - e) * sizeof *d->items);
    d->n--;
    return !d->index || build_index(r, d, d->mask + 1);
}

tpl_seq *tpl_dict_seq(tpl_render *r, const tpl_dict *d, int type) {
    tpl_seq *s = tpl_seq_new(r, type, d->n);
    if (!s || !tpl_step(r, d->n / 16)) return NULL;
    for (size_t i = 0; i < d->n; i++) {
        tpl_val v = type == SEQ_VALUES ? d->items[i].value : d->items[i].key;
        if (type == SEQ_ITEMS) {
            tpl_seq *pair = tpl_seq_new(r, SEQ_TUPLE, 2);
            if (!pair) return NULL;
            pair->items[0] = d->items[i].key;
            pair->items[1] = d->items[i].value;
            pair->n = 2;
            v = tpl_seqval(pair);
        }
        s->items[s->n++] = v;
    }
    return s;
}

// ---- JSON -----------------------------------------------------------------------------------

bool tpl_from_json(tpl_render *r, const json_t *j, bool trusted, tpl_val *out, int depth) {
    if (too_deep(r, depth)) return false;
    switch (json_typeof(j)) {
    case JSON_NULL: *out = tpl_none(); return true;
    case JSON_TRUE: *out = tpl_bool(true); return true;
    case JSON_FALSE: *out = tpl_bool(false); return true;
    case JSON_INTEGER: *out = tpl_int(json_integer_value(j)); return true;
    case JSON_REAL: *out = tpl_float(json_real_value(j)); return true;
    case JSON_STRING: {
        tpl_str *s = tpl_str_ref(r, json_string_value(j), json_string_length(j), trusted);
        if (s) *out = tpl_strval(s);
        return s != NULL;
    }
    case JSON_ARRAY: {
        tpl_seq *s = tpl_seq_new(r, SEQ_LIST, json_array_size(j));
        if (!s) return false;
        for (size_t i = 0; i < json_array_size(j); i++) {
            tpl_val v;
            if (!tpl_from_json(r, json_array_get(j, i), trusted, &v, depth + 1)) return false;
            s->items[s->n++] = v;
        }
        *out = tpl_seqval(s);
        return true;
    }
    case JSON_OBJECT: {
        tpl_dict *d = tpl_dict_new(r, json_object_size(j));
        // jansson's iterators do not write to the object, though their types say that they may.
        json_t *o = (json_t *)(uintptr_t)j;
        for (void *it = json_object_iter(o); d && it; it = json_object_iter_next(o, it)) {
            const char *key = json_object_iter_key(it);
            tpl_str *k = tpl_str_ref(r, key, strlen(key), trusted);
            tpl_val v;
            if (!k || !tpl_from_json(r, json_object_iter_value(it), trusted, &v, depth + 1) ||
                !tpl_dict_put(r, d, tpl_strval(k), v)) {
                return false;
            }
        }
        if (d) *out = tpl_dictval(d);
        return d != NULL;
    }
    }
    return tpl_fail(r, QN_ERR_INTERNAL, "unknown kind of JSON value");
}
