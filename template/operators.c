// SPDX-License-Identifier: Apache-2.0
// Arithmetic and slices, as Python has them; integers are 64 bits and say so when they overflow.
#include "template/interp.h"

#include <math.h>
#include <string.h>

static bool overflow(tpl_render *r) {
    return tpl_fail(r, QN_ERR_INVALID, "integer too large (64 bits)");
}

static const char *const symbols[] = {
    [OP_ADD] = "+",       [OP_SUB] = "-", [OP_MUL] = "*",          [OP_DIV] = "/",
    [OP_FLOORDIV] = "//", [OP_MOD] = "%", [OP_POW] = "** or pow()"};

static bool bad_operands(tpl_render *r, int op, tpl_val a, tpl_val b) {
    if (a.kind == V_UNDEF || b.kind == V_UNDEF) {
        tpl_val u = a.kind == V_UNDEF ? a : b;
        return tpl_fail_undefined(r, u);
    }
    return tpl_fail(r, QN_ERR_INVALID, "unsupported operand type(s) for %s: '%s' and '%s'",
                    symbols[op], tpl_type_name(a), tpl_type_name(b));
}

static bool int_pow(tpl_render *r, int64_t a, int64_t b, tpl_val *out) {
    if (b < 0) {
        if (a == 0) return tpl_fail(r, QN_ERR_INVALID, "zero to a negative power");
        *out = tpl_float(pow((double)a, (double)b));
        return true;
    }
    int64_t result = 1;
    if (a == 0 || a == 1 || a == -1) {
        result = b == 0 ? 1 : a == -1 ? (b % 2 ? -1 : 1) : a;
        *out = tpl_int(result);
        return true;
    }
    for (int64_t i = 0; i < b; i++) { // overflows after 63 rounds at most
        if (__builtin_mul_overflow(result, a, &result)) return overflow(r);
    }
    *out = tpl_int(result);
    return true;
}

static bool int_op(tpl_render *r, int op, int64_t a, int64_t b, tpl_val *out) {
    int64_t v = 0;
    bool bad = false;
    switch (op) {
    case OP_ADD: bad = __builtin_add_overflow(a, b, &v); break;
    case OP_SUB: bad = __builtin_sub_overflow(a, b, &v); break;
    case OP_MUL: bad = __builtin_mul_overflow(a, b, &v); break;
    case OP_POW: return int_pow(r, a, b, out);
    default:
        if (b == 0) return tpl_fail(r, QN_ERR_INVALID, "division by zero");
        if (op == OP_DIV) {
            *out = tpl_float((double)a / (double)b);
            return true;
        }
        if (b == -1) { // INT64_MIN / -1 traps
            bad = op == OP_FLOORDIV && __builtin_sub_overflow((int64_t)0, a, &v);
            break;
        }
        v = op == OP_FLOORDIV ? a / b : a % b;
        if (a % b != 0 && (a < 0) != (b < 0)) v += op == OP_FLOORDIV ? -1 : b;
    }
    if (bad) return overflow(r);
    *out = tpl_int(v);
    return true;
}

static bool float_op(tpl_render *r, int op, double a, double b, tpl_val *out) {
    double v = 0;
    switch (op) {
    case OP_ADD: v = a + b; break;
    case OP_SUB: v = a - b; break;
    case OP_MUL: v = a * b; break;
    case OP_POW:
        if (a == 0 && b < 0) return tpl_fail(r, QN_ERR_INVALID, "zero to a negative power");
        if (a < 0 && isfinite(b) && floor(b) != b) {
            return tpl_fail(r, QN_ERR_UNSUPPORTED, "complex result");
        }
        v = pow(a, b);
        if (isinf(v) && isfinite(a) && isfinite(b)) {
            return tpl_fail(r, QN_ERR_INVALID, "numerical result out of range");
        }
        break;
    default:
        if (b == 0) return tpl_fail(r, QN_ERR_INVALID, "division by zero");
        if (op == OP_DIV) {
            v = a / b;
            break;
        }
        // The remainder has the divisor's sign.
        double m = fmod(a, b), d = (a - m) / b;
        if (m != 0 && (m < 0) != (b < 0)) {
            m += b;
            d -= 1;
        } else if (m == 0) {
            m = copysign(0, b);
        }
        if (op == OP_MOD) {
            v = m;
        } else {
            v = d == 0 ? copysign(0, a / b) : floor(d);
            if (d - v > 0.5) v += 1;
        }
    }
    *out = tpl_float(v);
    return true;
}

static bool repeat(tpl_render *r, tpl_val v, int64_t times, tpl_val *out) {
    size_t n = times > 0 ? (size_t)times : 0;
    size_t total;
    if (v.kind == V_STR) {
        if (!qn_mul_size(v.u.s->len, n, &total) || total > r->max_memory) {
            return tpl_fail(r, QN_ERR_LIMIT, "makes a string of more than %zu bytes",
                            r->max_memory);
        }
        if (total == 0) n = 0;
        if (n == 1) {
            *out = v;
            return true;
        }
        if (!tpl_flatten(r, v.u.s) || !tpl_step(r, n / 16)) return false;
        tpl_str *s = NULL;
        if (v.u.s->origin != TPL_MIXED) {
            char *data = tpl_alloc(r, total + 1);
            if (!data || !tpl_work(r, total)) return false;
            for (size_t i = 0; i < n; i++) memcpy(data + i * v.u.s->len, v.u.s->data, v.u.s->len);
            s = tpl_str_ref(r, data, total, v.u.s->origin == TPL_TRUSTED);
        } else {
            tpl_builder b = {0};
            for (size_t i = 0; i < n; i++) {
                if (!tpl_step(r, 1) || !tpl_builder_str(r, &b, v.u.s)) return false;
            }
            s = tpl_builder_finish(r, &b);
        }
        if (s) *out = tpl_strval(s);
        return s != NULL;
    }
    const tpl_seq *q = v.u.seq;
    if (!qn_mul_size(q->n, n, &total) || total > r->max_memory / sizeof(tpl_val)) {
        return tpl_fail(r, QN_ERR_LIMIT, "makes a list of more than %zu bytes", r->max_memory);
    }
    if (total == 0) n = 0;
    tpl_seq *s = tpl_seq_new(r, q->type, total);
    if (!s || !tpl_work(r, total * sizeof(tpl_val))) return false;
    for (size_t i = 0; i < n; i++) {
        memcpy(s->items + i * q->n, q->items, q->n * sizeof *q->items);
    }
    s->n = total;
    *out = tpl_seqval(s);
    return true;
}

static bool is_list(tpl_val v) {
    return v.kind == V_SEQ && v.u.seq->type <= SEQ_TUPLE;
}

bool tpl_binary(tpl_render *r, int op, tpl_val a, tpl_val b, tpl_val *out) {
    if (tpl_is_num(a) && tpl_is_num(b)) {
        if (a.kind == V_FLOAT || b.kind == V_FLOAT) {
            return float_op(r, op, tpl_as_float(a), tpl_as_float(b), out);
        }
        return int_op(r, op, tpl_as_int(a), tpl_as_int(b), out);
    }
    if (op == OP_ADD && a.kind == V_STR && b.kind == V_STR) {
        tpl_str *s = tpl_concat(r, a.u.s, b.u.s);
        if (s) *out = tpl_strval(s);
        return s != NULL;
    }
    if (op == OP_ADD && is_list(a) && is_list(b) && a.u.seq->type == b.u.seq->type) {
        size_t n;
        if (!qn_add_size(a.u.seq->n, b.u.seq->n, &n)) return overflow(r);
        tpl_seq *s = tpl_seq_new(r, a.u.seq->type, n);
        if (!s || !tpl_work(r, n * sizeof(tpl_val))) return false;
        if (a.u.seq->n) memcpy(s->items, a.u.seq->items, a.u.seq->n * sizeof *s->items);
        if (b.u.seq->n) {
            memcpy(s->items + a.u.seq->n, b.u.seq->items, b.u.seq->n * sizeof *s->items);
        }
        s->n = n;
        *out = tpl_seqval(s);
        return true;
    }
    if (op == OP_MUL) {
        bool ia = a.kind == V_INT || a.kind == V_BOOL, ib = b.kind == V_INT || b.kind == V_BOOL;
        if (ib && (a.kind == V_STR || is_list(a))) return repeat(r, a, tpl_as_int(b), out);
        if (ia && (b.kind == V_STR || is_list(b))) return repeat(r, b, tpl_as_int(a), out);
    }
    if (op == OP_MOD && a.kind == V_STR) {
        tpl_str *s = tpl_percent(r, a.u.s, b);
        if (s) *out = tpl_strval(s);
        return s != NULL;
    }
    return bad_operands(r, op, a, b);
}

static bool slice_index(tpl_render *r, tpl_val v, int64_t *out, bool *given) {
    *given = v.kind != V_NONE;
    if (!*given) return true;
    if (v.kind != V_INT && v.kind != V_BOOL) {
        return tpl_fail(r, QN_ERR_INVALID,
                        "slice indices must be integers or None or have an __index__ method");
    }
    *out = tpl_as_int(v);
    return true;
}

// One end of a slice brought into [low, high].
static int64_t clamp(int64_t i, int64_t n, int64_t low, int64_t high) {
    if (i < 0) {
        i = i < -n ? low : i + n;
    }
    return i < low ? low : i > high ? high : i;
}

bool tpl_slice(tpl_render *r, tpl_val obj, tpl_val lo_v, tpl_val hi_v, tpl_val step_v,
               tpl_val *out) {
    int64_t lo = 0, hi = 0, step = 1;
    bool has_lo, has_hi, has_step;
    bool str = obj.kind == V_STR;
    if (!str && !(obj.kind == V_SEQ && obj.u.seq->type <= SEQ_RANGE)) {
        if (obj.kind == V_UNDEF) {
            return tpl_fail_undefined(r, obj);
        }
        return tpl_fail(r, QN_ERR_INVALID, "'%s' object cannot be sliced", tpl_type_name(obj));
    }
    if (!slice_index(r, step_v, &step, &has_step) || !slice_index(r, lo_v, &lo, &has_lo) ||
        !slice_index(r, hi_v, &hi, &has_hi)) {
        return false;
    }
    if (step == 0) return tpl_fail(r, QN_ERR_INVALID, "slice step cannot be zero");
    size_t len = 0;
    if (!str)
        len = obj.u.seq->n;
    else if (!tpl_str_length(r, obj.u.s, &len))
        return false;
    int64_t n = (int64_t)len;
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
    lo = has_lo ? clamp(lo, n, low, high) : step < 0 ? high : 0;
    hi = has_hi ? clamp(hi, n, low, high) : step < 0 ? -1 : n;
    if (str && step == 1) {
        if (hi < lo) hi = lo;
        size_t from = tpl_char_offset(obj.u.s, 0, (size_t)lo);
        size_t to = tpl_char_offset(obj.u.s, from, (size_t)(hi - lo));
        if (!tpl_is_ascii(obj.u.s) && !tpl_work(r, to)) return false;
        tpl_str *s = tpl_str_sub(r, obj.u.s, from, to - from);
        if (s) *out = tpl_strval(s);
        return s != NULL;
    }
    tpl_seq *from = tpl_iterate(r, obj);
    if (!from) return false;
    tpl_seq *s = tpl_seq_new(r, str ? SEQ_LIST : from->type, 0);
    if (!s) return false;
    if (from->type == SEQ_RANGE && (__builtin_mul_overflow(lo, from->step, &s->start) ||
                                    __builtin_add_overflow(s->start, from->start, &s->start) ||
                                    __builtin_mul_overflow(hi, from->step, &s->stop) ||
                                    __builtin_add_overflow(s->stop, from->start, &s->stop) ||
                                    __builtin_mul_overflow(step, from->step, &s->step))) {
        return overflow(r);
    }
    for (int64_t i = lo; step > 0 ? i < hi : i > hi;) {
        if (!tpl_seq_push(r, s, from->items[i])) return false;
        if (__builtin_add_overflow(i, step, &i)) break;
    }
    if (!tpl_work(r, s->n * sizeof(tpl_val))) return false;
    if (!str) {
        *out = tpl_seqval(s);
        return true;
    }
    tpl_str *empty = tpl_str_ref(r, "", 0, true);
    tpl_str *joined = empty ? tpl_join(r, empty, s) : NULL;
    if (joined) *out = tpl_strval(joined);
    return joined != NULL;
}
