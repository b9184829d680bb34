// SPDX-License-Identifier: Apache-2.0
// Executes statements: scopes, loops, macros, and where output goes.
#include "template/interp.h"

#include <stdlib.h>
#include <string.h>

// ---- Scopes ---------------------------------------------------------------------------------

static tpl_scope *new_scope(tpl_render *r, tpl_scope *parent) {
    tpl_scope *sc = tpl_alloc(r, sizeof *sc);
    if (sc) sc->parent = parent;
    return sc;
}

bool tpl_scope_set(tpl_render *r, tpl_scope *sc, uint32_t name, tpl_val v) {
    if (!tpl_step(r, sc->n / 64)) return false;
    for (size_t i = 0; i < sc->n; i++) {
        if (sc->items[i].name == name) {
            sc->items[i].value = v;
            return true;
        }
    }
    if (!tpl_grow(r, &sc->items, &sc->cap, sc->n + 1, sizeof *sc->items)) return false;
    sc->items[sc->n++] = (tpl_binding){name, v};
    return true;
}

bool tpl_scope_get(tpl_render *r, const tpl_scope *sc, uint32_t name, tpl_val *out, bool *found) {
    *found = false;
    size_t looked = 0;
    for (; sc; sc = sc->parent) {
        looked += sc->n + 1;
        for (size_t i = 0; i < sc->n; i++) {
            if (sc->items[i].name != name) continue;
            *out = sc->items[i].value;
            *found = true;
            return tpl_step(r, looked / 64);
        }
    }
    return tpl_step(r, looked / 64);
}

static bool assign(tpl_render *r, tpl_scope *sc, const tpl_node *target, tpl_val v) {
    r->line = target->line;
    if (target->kind == N_NAME) return tpl_scope_set(r, sc, target->name, v);
    if (target->kind == N_NSREF) {
        tpl_val ns;
        bool found;
        if (!tpl_scope_get(r, sc, target->name, &ns, &found)) return false;
        if (!found || ns.kind != V_NS) {
            return tpl_fail(r, QN_ERR_INVALID, "cannot assign attribute on non-namespace object");
        }
        return tpl_dict_put(r, ns.u.d, tpl_strval(target->str), v);
    }
    if (r->depth >= TPL_MAX_EVAL_DEPTH) return tpl_fail(r, QN_ERR_LIMIT, "nested too deeply");
    tpl_seq *s = tpl_iterate(r, v);
    if (!s) return false;
    if (s->n != target->n_items) {
        return tpl_fail(r, QN_ERR_INVALID, "%s values to unpack (expected %zu, got %zu)",
                        s->n < target->n_items ? "not enough" : "too many", target->n_items, s->n);
    }
    r->depth++;
    bool ok = true;
    for (size_t i = 0; ok && i < s->n; i++) ok = assign(r, sc, target->items[i], s->items[i]);
    r->depth--;
    return ok;
}

// ---- Output ---------------------------------------------------------------------------------

static bool emit_run(tpl_render *r, const char *data, size_t len, bool trusted) {
    qn_rendered *out = r->out;
    if (len == 0) return true;
    if (len > r->max_output - out->text.len) {
        return tpl_fail(r, QN_ERR_LIMIT, "writes more than %zu bytes", r->max_output);
    }
    bool grow = out->n_spans == 0 || out->spans[out->n_spans - 1].trusted != trusted;
    if (grow) {
        if (!qn_grow((void **)&out->spans, &out->cap_spans, out->n_spans + 1, sizeof *out->spans)) {
            return tpl_fail(r, QN_ERR_NOMEM, "out of memory");
        }
    }
    if (!qn_buf_append(&out->text, data, len)) return tpl_fail(r, QN_ERR_NOMEM, "out of memory");
    if (grow) out->spans[out->n_spans++] = (qn_origin_span){0, trusted};
    out->spans[out->n_spans - 1].len += len;
    return true;
}

static bool emit(tpl_render *r, tpl_str *s) {
    if (r->capture) return tpl_builder_str(r, r->capture, s);
    if (!tpl_flatten(r, s) || !tpl_work(r, s->len)) return false;
    if (s->origin != TPL_MIXED) return emit_run(r, s->data, s->len, s->origin == TPL_TRUSTED);
    size_t at = 0;
    for (size_t i = 0; i < s->n_runs; i++) {
        if (!emit_run(r, s->data + at, s->runs[i].end - at, s->runs[i].trusted)) return false;
        at = s->runs[i].end;
    }
    return true;
}

// What a call or filter block gives is not converted: Jinja2 fails on all but strings.
static bool emit_block(tpl_render *r, tpl_val v) {
    if (v.kind == V_STR) return emit(r, v.u.s);
    return tpl_fail(r, QN_ERR_INVALID, "block gives %s, not a string", tpl_type_name(v));
}

// Executes a body and makes a string of what it writes.
static tpl_flow capture(tpl_render *r, tpl_scope *sc, const tpl_node *body, tpl_val *out) {
    tpl_builder b = {0};
    tpl_builder *outer = r->capture;
    r->capture = &b;
    tpl_flow flow = tpl_exec(r, sc, body);
    r->capture = outer;
    if (flow == FLOW_FAIL) return flow;
    tpl_str *s = tpl_builder_finish(r, &b);
    if (!s) return FLOW_FAIL;
    *out = tpl_strval(s);
    return flow;
}

// ---- Macros ---------------------------------------------------------------------------------

static tpl_macro *new_macro(tpl_render *r, tpl_scope *sc, const tpl_node *n) {
    tpl_macro *m = tpl_alloc(r, sizeof *m);
    if (m) *m = (tpl_macro){n, sc};
    r->closures++;
    return m;
}

static bool bind_params(tpl_render *r, tpl_scope *sc, const tpl_node *n, const tpl_args *args) {
    const tpl_params *p = n->params;
    const char *name = n->kind == N_MACRO ? r->t->names[n->name]->data : "caller";
    int name_len = n->kind == N_MACRO ? (int)QN_MIN(r->t->names[n->name]->len, (size_t)100) : 6;
    tpl_val caller = tpl_undef();
    tpl_dict *extra = p->uses_kwargs ? tpl_dict_new(r, 0) : NULL;
    tpl_seq *more = p->uses_varargs ? tpl_seq_new(r, SEQ_TUPLE, 0) : NULL;
    if ((p->uses_kwargs && !extra) || (p->uses_varargs && !more)) return false;
    for (size_t i = p->n; i < args->n; i++) {
        if (!more) {
            return tpl_fail(r, QN_ERR_INVALID, "macro '%.*s' takes not more than %zu argument(s)",
                            name_len, name, p->n);
        }
        if (!tpl_seq_push(r, more, args->pos[i])) return false;
    }
    for (size_t k = 0; k < args->n_kw; k++) {
        qn_str key = tpl_view(args->kw_names[k]);
        bool taken = false;
        for (size_t i = 0; i < p->n; i++) {
            if (!qn_str_eq(key, tpl_view(p->texts[i]))) continue;
            if (i < args->n) {
                return tpl_fail(r, QN_ERR_INVALID, "macro '%.*s' got two values for '%.*s'",
                                name_len, name, (int)QN_MIN(key.len, (size_t)100), key.data);
            }
            taken = true;
        }
        if (taken) continue;
        if (p->uses_caller && qn_str_is(key, "caller")) {
            caller = args->kw[k];
        } else if (!extra) {
            return tpl_fail(r, QN_ERR_INVALID, "macro '%.*s' takes no keyword argument '%.*s'",
                            name_len, name, (int)QN_MIN(key.len, (size_t)100), key.data);
        } else if (!tpl_dict_put(r, extra, tpl_strval(args->kw_names[k]), args->kw[k])) {
            return false;
        }
    }
    for (size_t i = 0; i < p->n; i++) {
        tpl_val v = {.kind = V_MISSING};
        if (i < args->n) v = args->pos[i];
        for (size_t k = 0; k < args->n_kw; k++) {
            if (qn_str_eq(tpl_view(args->kw_names[k]), tpl_view(p->texts[i]))) v = args->kw[k];
        }
        if (v.kind == V_MISSING && p->defaults[i]) {
            // Defaults see the parameters before them.
            if (!tpl_eval(r, sc, p->defaults[i], &v)) return false;
        } else if (v.kind == V_MISSING) {
            v = tpl_undef_named(r, "parameter '%.*s' was not provided",
                                (int)QN_MIN(p->texts[i]->len, (size_t)100), p->texts[i]->data);
        }
        if (!tpl_scope_set(r, sc, p->names[i], v)) return false;
    }
    return (!p->uses_caller || tpl_scope_set(r, sc, r->t->name_caller, caller)) &&
           (!extra || tpl_scope_set(r, sc, r->t->name_kwargs, tpl_dictval(extra))) &&
           (!more || tpl_scope_set(r, sc, r->t->name_varargs, tpl_seqval(more)));
}

bool tpl_call_macro(tpl_render *r, const tpl_macro *m, const tpl_args *args, tpl_val *out) {
    if (r->call_depth >= TPL_MAX_CALL_DEPTH) {
        return tpl_fail(r, QN_ERR_LIMIT, "macros nested more than %d deep", TPL_MAX_CALL_DEPTH);
    }
    tpl_scope *sc = new_scope(r, m->closure);
    if (!sc || !bind_params(r, sc, m->node, args)) return false;
    r->call_depth++;
    tpl_flow flow = capture(r, sc, m->node->c, out);
    r->call_depth--;
    return flow != FLOW_FAIL;
}

static bool call_block(tpl_render *r, tpl_scope *sc, const tpl_node *n) {
    tpl_macro *m = new_macro(r, sc, n);
    if (!m) return false;
    // The call, with one keyword argument more: caller, under a hidden name.
    tpl_scope *inner = new_scope(r, sc);
    tpl_call call = *n->a->call;
    tpl_node name = {.kind = N_CONST, .line = n->line};
    name.value = (tpl_val){.kind = V_MACRO, .u.macro = m};
    tpl_node **kw = tpl_array(r, call.n_kw + 1, sizeof *kw);
    tpl_str **kw_names = tpl_array(r, call.n_kw + 1, sizeof *kw_names);
    if (!inner || !kw || !kw_names) return false;
    if (call.n_kw) {
        memcpy(kw, call.kw, call.n_kw * sizeof *kw);
        memcpy(kw_names, call.kw_names, call.n_kw * sizeof *kw_names);
    }
    kw[call.n_kw] = &name;
    kw_names[call.n_kw] = r->t->names[r->t->name_caller];
    call.kw = kw;
    call.kw_names = kw_names;
    call.n_kw++;
    tpl_node node = *n->a;
    node.call = &call;
    tpl_val v;
    return tpl_eval(r, sc, &node, &v) && emit_block(r, v);
}

// ---- Loops ----------------------------------------------------------------------------------

// The items that the loop's `if` lets pass.
static tpl_seq *filter_items(tpl_render *r, tpl_scope *sc, const tpl_node *n, const tpl_seq *all) {
    tpl_seq *kept = tpl_seq_new(r, SEQ_LIST, 0);
    for (size_t i = 0; kept && i < all->n; i++) {
        tpl_scope *inner = new_scope(r, sc);
        tpl_val yes;
        if (!inner || !assign(r, inner, n->a, all->items[i]) || !tpl_eval(r, inner, n->e, &yes)) {
            return NULL;
        }
        if (tpl_truth(yes) && !tpl_seq_push(r, kept, all->items[i])) return NULL;
    }
    return kept;
}

static tpl_flow exec_for(tpl_render *r, tpl_scope *sc, const tpl_node *n) {
    tpl_val v;
    if (!tpl_eval(r, sc, n->b, &v)) return FLOW_FAIL;
    r->line = n->line;
    tpl_seq *items = tpl_iterate(r, v);
    if (items && n->e) items = filter_items(r, sc, n, items);
    if (!items) return FLOW_FAIL;
    if (items->n == 0) {
        if (!n->d) return FLOW_NEXT;
        tpl_scope *inner = new_scope(r, sc);
        return inner ? tpl_exec(r, inner, n->d) : FLOW_FAIL;
    }
    // The body may append to the list; the loop sees the items that were there.
    tpl_seq *seen = tpl_alloc(r, sizeof *seen);
    tpl_loop *loop = tpl_alloc(r, sizeof *loop);
    if (!seen || !loop) return FLOW_FAIL;
    *seen = *items;
    *loop = (tpl_loop){.seq = seen};
    tpl_scope *inner = NULL;
    size_t closures = 0;
    tpl_flow flow = FLOW_NEXT;
    for (size_t i = 0; i < seen->n; i++) {
        if (inner && closures == r->closures) {
            inner->n = 0;
        } else if (!(inner = new_scope(r, sc))) {
            flow = FLOW_FAIL;
            break;
        }
        closures = r->closures;
        loop->at = i;
        flow = FLOW_FAIL;
        if (!tpl_step(r, 1)) break;
        if (!tpl_scope_set(r, inner, r->t->name_loop, (tpl_val){.kind = V_LOOP, .u.loop = loop}) ||
            !assign(r, inner, n->a, seen->items[i])) {
            break;
        }
        flow = tpl_exec(r, inner, n->c);
        if (flow == FLOW_FAIL || flow == FLOW_BREAK) break;
        flow = FLOW_NEXT;
    }
    return flow == FLOW_FAIL ? FLOW_FAIL : FLOW_NEXT;
}

// ---- Statements -----------------------------------------------------------------------------

static tpl_flow exec_body(tpl_render *r, tpl_scope *sc, const tpl_node *n) {
    for (size_t i = 0; i < n->n_items; i++) {
        tpl_flow flow = tpl_exec(r, sc, n->items[i]);
        if (flow != FLOW_NEXT) return flow;
    }
    return FLOW_NEXT;
}

static tpl_flow exec_if(tpl_render *r, tpl_scope *sc, const tpl_node *n) {
    for (size_t i = 0; i + 1 < n->n_items; i += 2) {
        tpl_val v;
        if (!tpl_eval(r, sc, n->items[i], &v)) return FLOW_FAIL;
        if (tpl_truth(v)) return tpl_exec(r, sc, n->items[i + 1]);
    }
    return n->c ? tpl_exec(r, sc, n->c) : FLOW_NEXT;
}

static tpl_flow exec_block(tpl_render *r, tpl_scope *sc, const tpl_node *n) {
    tpl_scope *inner = new_scope(r, sc);
    tpl_val v;
    if (!inner) return FLOW_FAIL;
    for (size_t i = 0; i + 1 < n->n_items; i += 2) { // with: values see the outer scope only
        if (!tpl_eval(r, sc, n->items[i + 1], &v) || !assign(r, inner, n->items[i], v)) {
            return FLOW_FAIL;
        }
    }
    if (n->kind == N_WITH || n->kind == N_GENERATION) return tpl_exec(r, inner, n->c);
    tpl_flow flow = capture(r, inner, n->c, &v);
    if (flow == FLOW_FAIL) return flow;
    if (flow != FLOW_NEXT) return flow; // break: what was captured is dropped
    if (n->b && !tpl_eval_chain(r, sc, n->b, v, &v)) return FLOW_FAIL;
    if (n->kind == N_SETBLOCK) return assign(r, sc, n->a, v) ? FLOW_NEXT : FLOW_FAIL;
    return emit_block(r, v) ? FLOW_NEXT : FLOW_FAIL;
}

static tpl_flow exec_node(tpl_render *r, tpl_scope *sc, const tpl_node *n) {
    tpl_val v;
    tpl_str *s;
    switch (n->kind) {
    case N_BODY: return exec_body(r, sc, n);
    case N_OUTPUT:
        if (!tpl_eval(r, sc, n->a, &v)) return FLOW_FAIL;
        s = tpl_to_str(r, v);
        return s && emit(r, s) ? FLOW_NEXT : FLOW_FAIL;
    case N_IF: return exec_if(r, sc, n);
    case N_FOR: return exec_for(r, sc, n);
    case N_SET:
        if (!tpl_eval(r, sc, n->b, &v)) return FLOW_FAIL;
        return assign(r, sc, n->a, v) ? FLOW_NEXT : FLOW_FAIL;
    case N_MACRO: {
        tpl_macro *m = new_macro(r, sc, n);
        if (!m || !tpl_scope_set(r, sc, n->name, (tpl_val){.kind = V_MACRO, .u.macro = m})) {
            return FLOW_FAIL;
        }
        return FLOW_NEXT;
    }
    case N_CALLBLOCK: return call_block(r, sc, n) ? FLOW_NEXT : FLOW_FAIL;
    case N_SETBLOCK:
    case N_FILTERBLOCK:
    case N_WITH:
    case N_GENERATION: return exec_block(r, sc, n);
    case N_BREAK: return FLOW_BREAK;
    case N_CONTINUE: return FLOW_CONTINUE;
    default: tpl_fail(r, QN_ERR_INTERNAL, "not a statement"); return FLOW_FAIL;
    }
}

tpl_flow tpl_exec(tpl_render *r, tpl_scope *sc, const tpl_node *n) {
    r->line = n->line;
    if (!tpl_step(r, 1)) return FLOW_FAIL;
    if (r->depth >= TPL_MAX_EVAL_DEPTH) {
        tpl_fail(r, QN_ERR_LIMIT, "nested too deeply");
        return FLOW_FAIL;
    }
    r->depth++;
    tpl_flow flow = exec_node(r, sc, n);
    r->depth--;
    return flow;
}
