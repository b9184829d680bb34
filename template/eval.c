// SPDX-License-Identifier: Apache-2.0
// Evaluates expressions.
#include "template/interp.h"

#include <string.h>

// ---- Looking things up ----------------------------------------------------------------------

static const char *object_name(tpl_val v) {
    return v.kind == V_NONE ? "None" : tpl_type_name(v);
}

static tpl_val no_attribute(tpl_render *r, tpl_val obj, tpl_str *name) {
    return tpl_undef_named(r, "'%s object' has no attribute '%.*s'", object_name(obj),
                           (int)QN_MIN(name->len, (size_t)100), name->data);
}

static bool bind_method(tpl_render *r, tpl_val self, int id, tpl_val *out) {
    tpl_method *m = tpl_alloc(r, sizeof *m);
    if (!m) return false;
    *m = (tpl_method){self, id};
    *out = (tpl_val){.kind = V_METHOD, .u.m = m};
    return true;
}

// What Python's getattr finds; *found false if nothing.
static bool attribute(tpl_render *r, tpl_val obj, tpl_str *name, tpl_val *out, bool *found) {
    *found = false;
    if (obj.kind == V_NS) {
        int got = tpl_dict_get(r, obj.u.d, tpl_strval(name), out);
        *found = got == 1;
        return got >= 0;
    }
    if (obj.kind == V_LOOP) {
        if (!tpl_loop_attr(r, obj.u.loop, name, out, found) || *found) return r->status == QN_OK;
    }
    if (obj.kind == V_CYCLER && tpl_str_is(name, "current")) {
        *out = obj.u.seq->items[obj.u.seq->start];
        *found = true;
        return true;
    }
    if (obj.kind == V_MACRO && tpl_str_is(name, "name")) {
        const tpl_node *n = obj.u.macro->node;
        *out = n->kind == N_MACRO ? tpl_strval(r->t->names[n->name]) : tpl_none();
        *found = true;
        return true;
    }
    int id = tpl_method_find(obj, name);
    if (id < 0) return true;
    *found = true;
    return bind_method(r, obj, id, out);
}

// What obj[key] finds; *found false where Python raises an error of look-up or type.
static bool subscript(tpl_render *r, tpl_val obj, tpl_val key, tpl_val *out, bool *found) {
    *found = false;
    if (obj.kind == V_DICT) {
        int got = tpl_dict_get(r, obj.u.d, key, out);
        *found = got == 1;
        return got >= 0;
    }
    bool index = key.kind == V_INT || key.kind == V_BOOL;
    if (!index) return true;
    int64_t i = tpl_as_int(key);
    if (obj.kind == V_SEQ && obj.u.seq->type <= SEQ_RANGE) {
        int64_t n = (int64_t)obj.u.seq->n;
        if (i < 0) i += n;
        if (i < 0 || i >= n) return true;
        *out = obj.u.seq->items[i];
        *found = true;
    } else if (obj.kind == V_STR) {
        size_t chars;
        if (!tpl_str_length(r, obj.u.s, &chars)) return false;
        int64_t n = (int64_t)chars;
        if (i < 0) i += n;
        if (i < 0 || i >= n) return true;
        size_t from = tpl_char_offset(obj.u.s, 0, (size_t)i);
        tpl_str *s = tpl_str_sub(r, obj.u.s, from, tpl_char_offset(obj.u.s, from, 1) - from);
        if (!s) return false;
        *out = tpl_strval(s);
        *found = true;
    }
    return true;
}

bool tpl_getattr(tpl_render *r, tpl_val obj, tpl_str *name, tpl_val *out) {
    if (obj.kind == V_UNDEF) return tpl_fail_undefined(r, obj);
    bool found;
    if (!tpl_flatten(r, name) || !attribute(r, obj, name, out, &found)) return false;
    if (!found && !subscript(r, obj, tpl_strval(name), out, &found)) return false;
    if (!found) *out = no_attribute(r, obj, name);
    return true;
}

bool tpl_getitem(tpl_render *r, tpl_val obj, tpl_val key, tpl_val *out) {
    if (obj.kind == V_UNDEF) return tpl_fail_undefined(r, obj);
    bool found = false;
    bool hashable = key.kind != V_DICT && key.kind != V_NS &&
                    !(key.kind == V_SEQ && key.u.seq->type != SEQ_TUPLE);
    if (hashable && !subscript(r, obj, key, out, &found)) return false;
    if (found) return true;
    if (key.kind == V_STR) {
        if (!tpl_flatten(r, key.u.s) || !attribute(r, obj, key.u.s, out, &found)) return false;
        if (!found) *out = no_attribute(r, obj, key.u.s);
        return true;
    }
    *out = tpl_undef_named(r, "'%s object' has no such element", object_name(obj));
    return true;
}

// ---- Calls ----------------------------------------------------------------------------------

static bool eval_args(tpl_render *r, tpl_scope *sc, const tpl_call *c, tpl_args *out) {
    *out = (tpl_args){0};
    if (!c) return true;
    size_t n = c->n, n_kw = c->n_kw;
    tpl_seq *star = NULL;
    tpl_val v, extra = tpl_none();
    if (c->star) {
        if (!tpl_eval(r, sc, c->star, &v) || !(star = tpl_iterate(r, v))) return false;
        if (!qn_add_size(n, star->n, &n)) return tpl_fail(r, QN_ERR_LIMIT, "too many arguments");
    }
    if (c->star_star) {
        if (!tpl_eval(r, sc, c->star_star, &extra)) return false;
        if (extra.kind != V_DICT) {
            return tpl_fail(r, QN_ERR_INVALID, "argument after ** must be a mapping, not %s",
                            tpl_type_name(extra));
        }
        if (extra.u.d->n > 64) return tpl_fail(r, QN_ERR_LIMIT, "too many arguments");
        n_kw += extra.u.d->n;
    }
    if (n) {
        if (!(out->pos = tpl_array(r, n, sizeof *out->pos))) return false;
        for (size_t i = 0; i < c->n; i++) {
            if (!tpl_eval(r, sc, c->pos[i], &out->pos[i])) return false;
        }
        for (size_t i = c->n; i < n; i++) out->pos[i] = star->items[i - c->n];
        out->n = n;
    }
    if (n_kw) {
        out->kw = tpl_array(r, n_kw, sizeof *out->kw);
        out->kw_names = tpl_array(r, n_kw, sizeof *out->kw_names);
        if (!out->kw || !out->kw_names) return false;
        for (size_t i = 0; i < c->n_kw; i++) {
            out->kw_names[i] = c->kw_names[i];
            if (!tpl_eval(r, sc, c->kw[i], &out->kw[i])) return false;
        }
        for (size_t i = c->n_kw; i < n_kw; i++) {
            const tpl_entry *e = &extra.u.d->items[i - c->n_kw];
            if (e->key.kind != V_STR) {
                return tpl_fail(r, QN_ERR_INVALID, "keywords must be strings");
            }
            for (size_t k = 0; k < i; k++) {
                if (qn_str_eq(tpl_view(out->kw_names[k]), tpl_view(e->key.u.s))) {
                    return tpl_fail(r, QN_ERR_INVALID, "keyword argument given twice");
                }
            }
            out->kw_names[i] = e->key.u.s;
            out->kw[i] = e->value;
        }
        out->n_kw = n_kw;
    }
    return true;
}

bool tpl_call_value(tpl_render *r, tpl_val f, const tpl_args *args, tpl_val *out) {
    switch (f.kind) {
    case V_MACRO: return tpl_call_macro(r, f.u.macro, args, out);
    case V_FUNC: return tpl_function(r, (int)f.u.i, args, out);
    case V_METHOD: return tpl_call_method(r, f.u.m->self, f.u.m->id, args, out);
    case V_JOINER: {
        tpl_seq *j = f.u.seq;
        *out = j->start ? j->items[0] : tpl_strval(tpl_str_ref(r, "", 0, true));
        j->start = 1;
        return out->kind != V_STR || out->u.s;
    }
    case V_UNDEF: return tpl_fail_undefined(r, f);
    default: return tpl_fail(r, QN_ERR_INVALID, "'%s' object is not callable", tpl_type_name(f));
    }
}

static bool eval_call(tpl_render *r, tpl_scope *sc, const tpl_node *n, tpl_val *out) {
    tpl_val f;
    tpl_args args;
    if (!tpl_eval(r, sc, n->a, &f) || !eval_args(r, sc, n->call, &args)) return false;
    r->line = n->line;
    return tpl_call_value(r, f, &args, out);
}

static bool eval_filter(tpl_render *r, tpl_scope *sc, const tpl_node *n, const tpl_val *input,
                        tpl_val *out) {
    tpl_val v;
    tpl_args args;
    if (n->a) {
        if (!(input ? tpl_eval_chain(r, sc, n->a, *input, &v) : tpl_eval(r, sc, n->a, &v))) {
            return false;
        }
    } else if (input) {
        v = *input;
    } else {
        return tpl_fail(r, QN_ERR_INTERNAL, "filter of nothing");
    }
    r->line = n->line;
    if (n->id < 0) {
        return tpl_fail(r, QN_ERR_INVALID, "no filter named '%.*s'",
                        (int)QN_MIN(n->str->len, (size_t)100), n->str->data);
    }
    return eval_args(r, sc, n->call, &args) && tpl_filter(r, n->id, v, &args, out);
}

bool tpl_eval_chain(tpl_render *r, tpl_scope *sc, const tpl_node *n, tpl_val input, tpl_val *out) {
    return eval_filter(r, sc, n, &input, out);
}

static bool eval_test(tpl_render *r, tpl_scope *sc, const tpl_node *n, tpl_val *out) {
    tpl_val v;
    tpl_args args;
    if (!tpl_eval(r, sc, n->a, &v)) return false;
    r->line = n->line;
    if (n->id < 0) {
        return tpl_fail(r, QN_ERR_INVALID, "no test named '%.*s'",
                        (int)QN_MIN(n->str->len, (size_t)100), n->str->data);
    }
    bool yes;
    if (!eval_args(r, sc, n->call, &args) || !tpl_test(r, n->id, v, &args, &yes)) return false;
    *out = tpl_bool(yes != n->negated);
    return true;
}

// ---- Operators ------------------------------------------------------------------------------

static bool eval_compare(tpl_render *r, tpl_scope *sc, const tpl_node *n, tpl_val *out) {
    tpl_val a, b;
    if (!tpl_eval(r, sc, n->items[0], &a)) return false;
    for (size_t i = 1; i < n->n_items; i++) {
        if (!tpl_eval(r, sc, n->items[i], &b)) return false;
        r->line = n->line;
        bool yes;
        int order;
        uint8_t op = n->ops[i - 1];
        if (op == OP_EQ || op == OP_NE) {
            int eq = tpl_equal(r, a, b, 0);
            if (eq < 0) return false;
            yes = eq == (op == OP_EQ);
        } else if (op == OP_IN || op == OP_NOT_IN) {
            int in = tpl_contains(r, a, b);
            if (in < 0) return false;
            yes = in == (op == OP_IN);
        } else {
            const char *text = op == OP_GT ? ">" : op == OP_GE ? ">=" : op == OP_LT ? "<" : "<=";
            if (!tpl_compare(r, a, b, text, &order, 0)) return false;
            yes = order != 2 && (op == OP_GT   ? order > 0
                                 : op == OP_GE ? order >= 0
                                 : op == OP_LT ? order < 0
                                               : order <= 0);
        }
        *out = tpl_bool(yes);
        if (!yes) return true;
        a = b;
    }
    return true;
}

static bool eval_unary(tpl_render *r, tpl_scope *sc, const tpl_node *n, tpl_val *out) {
    tpl_val v;
    if (!tpl_eval(r, sc, n->a, &v)) return false;
    r->line = n->line;
    if (v.kind == V_UNDEF) return tpl_fail_undefined(r, v);
    if (!tpl_is_num(v)) {
        return tpl_fail(r, QN_ERR_INVALID, "bad operand type for unary %c: '%s'",
                        n->kind == N_NEG ? '-' : '+', tpl_type_name(v));
    }
    if (v.kind == V_FLOAT) {
        *out = n->kind == N_NEG ? tpl_float(-v.u.f) : v;
        return true;
    }
    int64_t i = tpl_as_int(v);
    if (n->kind == N_NEG && __builtin_sub_overflow((int64_t)0, i, &i)) {
        return tpl_fail(r, QN_ERR_INVALID, "integer too large (64 bits)");
    }
    *out = tpl_int(i);
    return true;
}

static bool eval_concat(tpl_render *r, tpl_scope *sc, const tpl_node *n, tpl_val *out) {
    tpl_str *sum = NULL;
    for (size_t i = 0; i < n->n_items; i++) {
        tpl_val v;
        if (!tpl_eval(r, sc, n->items[i], &v)) return false;
        tpl_str *s = tpl_to_str(r, v);
        sum = !s ? NULL : sum ? tpl_concat(r, sum, s) : s;
        if (!sum) return false;
    }
    *out = tpl_strval(sum);
    return true;
}

static bool eval_list(tpl_render *r, tpl_scope *sc, const tpl_node *n, tpl_val *out) {
    tpl_seq *s = tpl_seq_new(r, n->kind == N_LIST ? SEQ_LIST : SEQ_TUPLE, n->n_items);
    if (!s) return false;
    for (size_t i = 0; i < n->n_items; i++) {
        if (!tpl_eval(r, sc, n->items[i], &s->items[i])) return false;
        s->n = i + 1;
    }
    *out = tpl_seqval(s);
    return true;
}

static bool eval_dict(tpl_render *r, tpl_scope *sc, const tpl_node *n, tpl_val *out) {
    tpl_dict *d = tpl_dict_new(r, n->n_items / 2);
    if (!d) return false;
    for (size_t i = 0; i + 1 < n->n_items; i += 2) {
        tpl_val k, v;
        if (!tpl_eval(r, sc, n->items[i], &k) || !tpl_eval(r, sc, n->items[i + 1], &v) ||
            !tpl_dict_put(r, d, k, v)) {
            return false;
        }
    }
    *out = tpl_dictval(d);
    return true;
}

static bool eval_item(tpl_render *r, tpl_scope *sc, const tpl_node *n, tpl_val *out) {
    tpl_val obj, key;
    if (!tpl_eval(r, sc, n->a, &obj)) return false;
    if (n->b->kind == N_SLICE) {
        const tpl_node *s = n->b;
        tpl_val lo = tpl_none(), hi = tpl_none(), step = tpl_none();
        if ((s->a && !tpl_eval(r, sc, s->a, &lo)) || (s->b && !tpl_eval(r, sc, s->b, &hi)) ||
            (s->c && !tpl_eval(r, sc, s->c, &step))) {
            return false;
        }
        r->line = n->line;
        return tpl_slice(r, obj, lo, hi, step, out);
    }
    if (!tpl_eval(r, sc, n->b, &key)) return false;
    r->line = n->line;
    return tpl_getitem(r, obj, key, out);
}

static bool eval_name(tpl_render *r, const tpl_scope *sc, const tpl_node *n, tpl_val *out) {
    bool found;
    if (!tpl_scope_get(r, sc, n->name, out, &found)) return false;
    if (!found) {
        const tpl_str *name = r->t->names[n->name];
        *out = tpl_undef_named(r, "'%.*s' is undefined", (int)QN_MIN(name->len, (size_t)100),
                               name->data);
    }
    return true;
}

static bool eval_node(tpl_render *r, tpl_scope *sc, const tpl_node *n, tpl_val *out) {
    tpl_val v, w;
    switch (n->kind) {
    case N_CONST: *out = n->value; return true;
    case N_NAME: return eval_name(r, sc, n, out);
    case N_LIST:
    case N_TUPLE: return eval_list(r, sc, n, out);
    case N_DICT: return eval_dict(r, sc, n, out);
    case N_ATTR:
        if (!tpl_eval(r, sc, n->a, &v)) return false;
        r->line = n->line;
        return tpl_getattr(r, v, n->str, out);
    case N_ITEM: return eval_item(r, sc, n, out);
    case N_CALL: return eval_call(r, sc, n, out);
    case N_FILTER: return eval_filter(r, sc, n, NULL, out);
    case N_TEST: return eval_test(r, sc, n, out);
    case N_NOT:
        if (!tpl_eval(r, sc, n->a, &v)) return false;
        *out = tpl_bool(!tpl_truth(v));
        return true;
    case N_NEG:
    case N_POS: return eval_unary(r, sc, n, out);
    case N_AND:
    case N_OR:
        for (size_t i = 0; i < n->n_items; i++) {
            if (!tpl_eval(r, sc, n->items[i], out)) return false;
            if (tpl_truth(*out) == (n->kind == N_OR)) break;
        }
        return true;
    case N_BIN:
        if (!tpl_eval(r, sc, n->a, &v) || !tpl_eval(r, sc, n->b, &w)) return false;
        r->line = n->line;
        return tpl_binary(r, n->op, v, w, out);
    case N_CONCAT: return eval_concat(r, sc, n, out);
    case N_COMPARE: return eval_compare(r, sc, n, out);
    case N_COND:
        if (!tpl_eval(r, sc, n->b, &v)) return false;
        if (tpl_truth(v)) return tpl_eval(r, sc, n->a, out);
        if (n->c) return tpl_eval(r, sc, n->c, out);
        *out = tpl_undef_named(r,
                               "the inline if-expression on line %u evaluated to false and no "
                               "else section was defined",
                               n->line);
        return true;
    default: return tpl_fail(r, QN_ERR_INTERNAL, "not an expression");
    }
}

bool tpl_eval(tpl_render *r, tpl_scope *sc, const tpl_node *n, tpl_val *out) {
    if (!tpl_step(r, 1)) return false;
    if (r->depth >= TPL_MAX_EVAL_DEPTH) return tpl_fail(r, QN_ERR_LIMIT, "nested too deeply");
    r->depth++;
    bool ok = eval_node(r, sc, n, out);
    r->depth--;
    return ok;
}
