// SPDX-License-Identifier: Apache-2.0
// Recursive descent over the grammar of Jinja2 (its order of operators is not Python's: `~` binds
// tighter than `+`, `**` is left-associative, and a unary minus binds tighter than `**`).
#include "template/interp.h"

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

typedef struct parser {
    qn_chat_template *t;
    tpl_lexer lx;
    tpl_token cur, peek;
    bool has_peek;
    int depth;
    int loops;         // enclosing for statements, for break and continue
    tpl_params *macro; // the enclosing macro
    qn_map names;
    size_t cap_names;
    qn_error *err;
    qn_status status;
} parser;

// Growing list of nodes; the array lives in the arena.
typedef struct nodes {
    tpl_node **v;
    size_t n, cap;
} nodes;

static void *fail(parser *p, qn_status st, uint32_t line, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static void *fail(parser *p, qn_status st, uint32_t line, const char *fmt, ...) {
    if (p->status != QN_OK) return NULL;
    char text[400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    p->status = qn_fail(p->err, st, "template line %u: %s", line, text);
    return NULL;
}
static void *oom(parser *p) {
    return fail(p, QN_ERR_NOMEM, p->cur.line, "out of memory");
}

static void *alloc(parser *p, size_t n) {
    void *m = qn_arena_alloc(&p->t->arena, n);
    return m ? m : oom(p);
}

static bool next(parser *p) {
    if (p->status != QN_OK) return false;
    if (p->has_peek) {
        p->cur = p->peek;
        p->has_peek = false;
        return true;
    }
    p->status = tpl_lex(&p->lx, &p->cur);
    return p->status == QN_OK;
}

static const tpl_token *look(parser *p) {
    if (!p->has_peek && p->status == QN_OK) {
        p->status = tpl_lex(&p->lx, &p->peek);
        p->has_peek = true;
        if (p->status != QN_OK) p->peek = (tpl_token){.kind = T_EOF};
    }
    return &p->peek;
}

static bool is_op(const parser *p, tpl_op op) {
    return p->cur.kind == T_OP && p->cur.op == op;
}
static bool is_name(const parser *p, const char *name) {
    return p->cur.kind == T_NAME && qn_str_is(p->cur.text, name);
}

static const char *token_text(const tpl_token *t, char buf[48]) {
    switch (t->kind) {
    case T_EOF: return "end of template";
    case T_BLOCK_END: return "end of statement block";
    case T_VAR_END: return "end of print statement";
    case T_NAME:
    case T_OP:
        snprintf(buf, 48, "'%.*s'", (int)QN_MIN(t->text.len, (size_t)40), t->text.data);
        break;
    case T_STRING: return "a string";
    case T_INT:
    case T_FLOAT: return "a number";
    default: return "text";
    }
    return buf;
}

static void *unexpected(parser *p, const char *wanted) {
    char buf[48];
    return fail(p, QN_ERR_FORMAT, p->cur.line, "expected %s, got %s", wanted,
                token_text(&p->cur, buf));
}

static bool skip_op(parser *p, tpl_op op) {
    return is_op(p, op) && next(p);
}
static bool skip_name(parser *p, const char *name) {
    return is_name(p, name) && next(p);
}
static bool expect_op(parser *p, tpl_op op, const char *text) {
    if (!is_op(p, op)) {
        unexpected(p, text);
        return false;
    }
    return next(p);
}

static bool push(parser *p, nodes *list, tpl_node *n) {
    if (!n) return false;
    if (list->n == list->cap) {
        size_t cap = list->cap ? list->cap * 2 : 4;
        tpl_node **v = qn_arena_array(&p->t->arena, cap, sizeof *v);
        if (!v) {
            oom(p);
            return false;
        }
        if (list->n) memcpy(v, list->v, list->n * sizeof *v);
        list->v = v;
        list->cap = cap;
    }
    list->v[list->n++] = n;
    return true;
}

static tpl_node *node(parser *p, tpl_node_kind kind, uint32_t line) {
    tpl_node *n = alloc(p, sizeof *n);
    if (!n) return NULL;
    n->kind = (uint8_t)kind;
    n->line = line;
    return n;
}

static uint16_t deeper(uint16_t d, const tpl_node *n) {
    return n && n->depth > d ? n->depth : d;
}

// Ends the making of a node: its depth from its children's, checked.
static tpl_node *done(parser *p, tpl_node *n) {
    if (!n || p->status != QN_OK) return NULL;
    uint16_t d = 0;
    d = deeper(deeper(deeper(deeper(deeper(d, n->a), n->b), n->c), n->d), n->e);
    for (size_t i = 0; i < n->n_items; i++) d = deeper(d, n->items[i]);
    if (n->call) {
        for (size_t i = 0; i < n->call->n; i++) d = deeper(d, n->call->pos[i]);
        for (size_t i = 0; i < n->call->n_kw; i++) d = deeper(d, n->call->kw[i]);
        d = deeper(deeper(d, n->call->star), n->call->star_star);
    }
    if (n->params) {
        for (size_t i = 0; i < n->params->n; i++) d = deeper(d, n->params->defaults[i]);
    }
    if (d >= TPL_MAX_TREE) return fail(p, QN_ERR_LIMIT, n->line, "nested too deeply");
    n->depth = (uint16_t)(d + 1);
    return n;
}

static tpl_node *done_items(parser *p, tpl_node *n, const nodes *list) {
    if (n) {
        n->items = list->v;
        n->n_items = list->n;
    }
    return done(p, n);
}

static bool enter(parser *p) {
    if (p->depth >= TPL_MAX_NEST) {
        fail(p, QN_ERR_LIMIT, p->cur.line, "nested too deeply");
        return false;
    }
    p->depth++;
    return true;
}

static tpl_str *new_str(parser *p, qn_str text) {
    tpl_str *s = alloc(p, sizeof *s);
    if (!s) return NULL;
    *s = (tpl_str){.len = text.len, .data = text.len ? text.data : "", .origin = TPL_TRUSTED};
    s->ascii = tpl_scan_ascii(s->data, s->len);
    return s;
}

// The id of a name; false on failure.
static bool intern(parser *p, qn_str text, uint32_t *id) {
    if (qn_map_get(&p->names, text, id)) return true;
    qn_chat_template *t = p->t;
    if (t->n_names == p->cap_names) {
        size_t cap = p->cap_names ? p->cap_names * 2 : 32;
        tpl_str **v = qn_arena_array(&t->arena, cap, sizeof *v);
        if (!v) {
            oom(p);
            return false;
        }
        if (t->n_names) memcpy(v, t->names, t->n_names * sizeof *v);
        t->names = v;
        p->cap_names = cap;
    }
    tpl_str *s = new_str(p, text);
    if (!s) return false;
    *id = (uint32_t)t->n_names;
    if (!qn_map_put(&p->names, tpl_view(s), *id)) {
        oom(p);
        return false;
    }
    t->names[t->n_names++] = s;
    return true;
}

static tpl_node *parse_expr(parser *p);
static tpl_node *parse_or(parser *p);
static tpl_node *parse_unary(parser *p, bool with_filter);
static tpl_node *parse_body(parser *p, const char *const *ends, size_t n_ends, size_t *which);

static tpl_node *name_node(parser *p, qn_str text, uint32_t line) {
    tpl_node *n = node(p, N_NAME, line);
    if (!n || !intern(p, text, &n->name)) return NULL;
    if (p->macro) {
        p->macro->uses_caller |= qn_str_is(text, "caller");
        p->macro->uses_varargs |= qn_str_is(text, "varargs");
        p->macro->uses_kwargs |= qn_str_is(text, "kwargs");
    }
    return done(p, n);
}

static tpl_node *const_node(parser *p, tpl_val v, uint32_t line) {
    tpl_node *n = node(p, N_CONST, line);
    if (n) n->value = v;
    return done(p, n);
}

static bool constant_name(qn_str s, tpl_val *v) {
    if (qn_str_is(s, "true") || qn_str_is(s, "True")) {
        *v = tpl_bool(true);
    } else if (qn_str_is(s, "false") || qn_str_is(s, "False")) {
        *v = tpl_bool(false);
    } else if (qn_str_is(s, "none") || qn_str_is(s, "None")) {
        *v = tpl_none();
    } else {
        return false;
    }
    return true;
}

// Expressions with commas between make a tuple. ternary: whether `x if y` may stand in it bare.
// empty_ok: () is the empty tuple. end_name: a word that ends it, or NULL.
static tpl_node *parse_tuple(parser *p, bool ternary, bool empty_ok, const char *end_name) {
    uint32_t line = p->cur.line;
    nodes list = {0};
    bool tuple = false;
    for (;;) {
        if (list.n && !expect_op(p, OP_COMMA, "','")) return NULL;
        if (p->cur.kind == T_VAR_END || p->cur.kind == T_BLOCK_END || is_op(p, OP_RPAREN) ||
            (end_name && is_name(p, end_name))) {
            break;
        }
        if (!push(p, &list, ternary ? parse_expr(p) : parse_or(p))) return NULL;
        if (!is_op(p, OP_COMMA)) break;
        tuple = true;
    }
    if (!tuple) {
        if (list.n) return list.v[0];
        if (!empty_ok) return unexpected(p, "an expression");
    }
    return done_items(p, node(p, N_TUPLE, line), &list);
}

static tpl_node *parse_string(parser *p) {
    uint32_t line = p->cur.line;
    qn_str text = p->cur.text;
    if (!next(p)) return NULL;
    if (p->cur.kind == T_STRING) {
        qn_buf buf = {0};
        qn_buf_append(&buf, text.data, text.len);
        while (p->cur.kind == T_STRING) {
            qn_buf_append(&buf, p->cur.text.data, p->cur.text.len);
            if (!next(p)) break;
        }
        char *copy = buf.failed ? NULL : qn_arena_strndup(&p->t->arena, buf.data, buf.len);
        text = (qn_str){copy, buf.len};
        qn_buf_free(&buf);
        if (!copy) return oom(p);
    }
    tpl_str *s = new_str(p, text);
    return s ? const_node(p, tpl_strval(s), line) : NULL;
}

static tpl_node *parse_primary(parser *p) {
    tpl_token t = p->cur;
    tpl_val v;
    switch (t.kind) {
    case T_NAME:
        if (!next(p)) return NULL;
        return constant_name(t.text, &v) ? const_node(p, v, t.line) : name_node(p, t.text, t.line);
    case T_STRING: return parse_string(p);
    case T_INT: return next(p) ? const_node(p, tpl_int(t.i), t.line) : NULL;
    case T_FLOAT: return next(p) ? const_node(p, tpl_float(t.f), t.line) : NULL;
    default: break;
    }
    if (skip_op(p, OP_LPAREN)) {
        tpl_node *n = parse_tuple(p, true, true, NULL);
        return n && expect_op(p, OP_RPAREN, "')'") ? n : NULL;
    }
    nodes list = {0};
    if (skip_op(p, OP_LBRACKET)) {
        while (p->status == QN_OK && !is_op(p, OP_RBRACKET)) {
            if (list.n && !expect_op(p, OP_COMMA, "','")) return NULL;
            if (is_op(p, OP_RBRACKET)) break;
            if (!push(p, &list, parse_expr(p))) return NULL;
        }
        if (!next(p)) return NULL;
        return done_items(p, node(p, N_LIST, t.line), &list);
    }
    if (skip_op(p, OP_LBRACE)) {
        while (p->status == QN_OK && !is_op(p, OP_RBRACE)) {
            if (list.n && !expect_op(p, OP_COMMA, "','")) return NULL;
            if (is_op(p, OP_RBRACE)) break;
            if (!push(p, &list, parse_expr(p)) || !expect_op(p, OP_COLON, "':'") ||
                !push(p, &list, parse_expr(p))) {
                return NULL;
            }
        }
        if (!next(p)) return NULL;
        return done_items(p, node(p, N_DICT, t.line), &list);
    }
    return unexpected(p, "an expression");
}

// The arguments of a call, from '(' past ')'.
static tpl_call *parse_args(parser *p) {
    tpl_call *call = alloc(p, sizeof *call);
    if (!call || !expect_op(p, OP_LPAREN, "'('")) return NULL;
    nodes pos = {0}, kw = {0}, kw_names = {0};
    bool first = true;
    while (!is_op(p, OP_RPAREN)) {
        if (!first && !expect_op(p, OP_COMMA, "','")) return NULL;
        if (!first && is_op(p, OP_RPAREN)) break;
        first = false;
        uint32_t line = p->cur.line;
        tpl_node **star = is_op(p, OP_MUL) ? &call->star : &call->star_star;
        if (is_op(p, OP_MUL) || is_op(p, OP_POW)) {
            if (*star || call->star_star) {
                return fail(p, QN_ERR_FORMAT, line, "invalid syntax for a function call");
            }
            if (!next(p) || !(*star = parse_expr(p))) return NULL;
        } else if (p->cur.kind == T_NAME && look(p)->kind == T_OP && look(p)->op == OP_ASSIGN) {
            tpl_node *name = const_node(p, tpl_none(), line);
            if (!name || !(name->str = new_str(p, p->cur.text))) return NULL;
            if (call->star_star) {
                return fail(p, QN_ERR_FORMAT, line, "invalid syntax for a function call");
            }
            if (!next(p) || !next(p)) return NULL;
            for (size_t i = 0; i < kw_names.n; i++) {
                if (qn_str_eq(tpl_view(kw_names.v[i]->str), tpl_view(name->str))) {
                    return fail(p, QN_ERR_FORMAT, line, "keyword argument given twice");
                }
            }
            if (kw_names.n >= 64) return fail(p, QN_ERR_LIMIT, line, "too many arguments");
            if (!push(p, &kw_names, name) || !push(p, &kw, parse_expr(p))) return NULL;
        } else {
            if (kw.n || call->star || call->star_star) {
                return fail(p, QN_ERR_FORMAT, line, "invalid syntax for a function call");
            }
            if (!push(p, &pos, parse_expr(p))) return NULL;
        }
    }
    if (!next(p)) return NULL;
    call->pos = pos.v;
    call->n = pos.n;
    call->kw = kw.v;
    call->n_kw = kw.n;
    if (kw.n) {
        call->kw_names = alloc(p, kw.n * sizeof *call->kw_names);
        if (!call->kw_names) return NULL;
        for (size_t i = 0; i < kw.n; i++) call->kw_names[i] = kw_names.v[i]->str;
    }
    return call;
}

static tpl_node *parse_call(parser *p, tpl_node *callee) {
    tpl_node *n = node(p, N_CALL, p->cur.line);
    if (!n || !(n->call = parse_args(p))) return NULL;
    n->a = callee;
    return done(p, n);
}

static tpl_node *parse_subscript_item(parser *p) {
    uint32_t line = p->cur.line;
    tpl_node *first = NULL;
    if (!is_op(p, OP_COLON)) {
        first = parse_expr(p);
        if (!first || !is_op(p, OP_COLON)) return first;
    }
    if (!next(p)) return NULL;
    tpl_node *n = node(p, N_SLICE, line);
    if (!n) return NULL;
    n->a = first;
    if (!is_op(p, OP_COLON) && !is_op(p, OP_RBRACKET) && !is_op(p, OP_COMMA)) {
        if (!(n->b = parse_expr(p))) return NULL;
    }
    if (skip_op(p, OP_COLON) && !is_op(p, OP_RBRACKET) && !is_op(p, OP_COMMA)) {
        if (!(n->c = parse_expr(p))) return NULL;
    }
    return done(p, n);
}

static tpl_node *parse_subscript(parser *p, tpl_node *obj) {
    uint32_t line = p->cur.line;
    tpl_node *n;
    if (skip_op(p, OP_DOT)) {
        tpl_token t = p->cur;
        if (t.kind == T_NAME) {
            n = node(p, N_ATTR, line);
            if (!n || !(n->str = new_str(p, t.text)) || !next(p)) return NULL;
            n->a = obj;
            return done(p, n);
        }
        if (t.kind != T_INT) return unexpected(p, "name or number");
        n = node(p, N_ITEM, line);
        if (!n || !next(p)) return NULL;
        n->a = obj;
        n->b = const_node(p, tpl_int(t.i), t.line);
        return done(p, n);
    }
    if (!next(p)) return NULL;
    nodes list = {0};
    bool tuple = false;
    while (!is_op(p, OP_RBRACKET)) {
        if (list.n && !expect_op(p, OP_COMMA, "','")) return NULL;
        if (list.n) tuple = true;
        if (!push(p, &list, parse_subscript_item(p))) return NULL;
    }
    if (!next(p)) return NULL;
    n = node(p, N_ITEM, line);
    if (!n) return NULL;
    n->a = obj;
    if (list.n == 1 && !tuple) {
        n->b = list.v[0];
    } else { // x[] is x[()]
        for (size_t i = 0; i < list.n; i++) {
            if (list.v[i]->kind == N_SLICE) {
                return fail(p, QN_ERR_FORMAT, line, "a slice inside a tuple");
            }
        }
        n->b = done_items(p, node(p, N_TUPLE, line), &list);
    }
    return done(p, n);
}

static tpl_node *parse_postfix(parser *p, tpl_node *n) {
    while (n) {
        if (is_op(p, OP_DOT) || is_op(p, OP_LBRACKET)) {
            n = parse_subscript(p, n);
        } else if (is_op(p, OP_LPAREN)) {
            n = parse_call(p, n);
        } else {
            break;
        }
    }
    return n;
}

// The name of a filter or test: words with dots between (none of ours has a dot, but the error must
// come only where it is used).
static tpl_str *parse_dotted(parser *p) {
    if (p->cur.kind != T_NAME) return unexpected(p, "a name");
    qn_str text = p->cur.text;
    if (!next(p)) return NULL;
    while (skip_op(p, OP_DOT)) {
        if (p->cur.kind != T_NAME) return unexpected(p, "a name");
        // All of it lies in the source, from the first word to the last.
        text.len = (size_t)(p->cur.text.data + p->cur.text.len - text.data);
        if (!next(p)) return NULL;
    }
    return new_str(p, text);
}

// One filter, its name being the current token.
static tpl_node *parse_filter(parser *p, tpl_node *value) {
    tpl_node *n = node(p, N_FILTER, p->cur.line);
    if (!n || !(n->str = parse_dotted(p))) return NULL;
    n->id = tpl_filter_find(tpl_view(n->str));
    n->a = value;
    if (is_op(p, OP_LPAREN) && !(n->call = parse_args(p))) return NULL;
    return done(p, n);
}

static tpl_node *parse_filters(parser *p, tpl_node *n, bool inline_start) {
    bool first = true;
    while (is_op(p, OP_PIPE) || (first && inline_start)) {
        if (!(first && inline_start) && !next(p)) return NULL;
        first = false;
        if (!(n = parse_filter(p, n))) return NULL;
    }
    return n;
}

static tpl_node *parse_test(parser *p, tpl_node *value) {
    tpl_node *n = node(p, N_TEST, p->cur.line);
    if (!n || !next(p)) return NULL;
    n->negated = skip_name(p, "not");
    if (!(n->str = parse_dotted(p))) return NULL;
    n->id = tpl_test_find(tpl_view(n->str));
    n->a = value;
    bool argument = p->cur.kind == T_NAME || p->cur.kind == T_STRING || p->cur.kind == T_INT ||
                    p->cur.kind == T_FLOAT || is_op(p, OP_LBRACKET) || is_op(p, OP_LBRACE);
    if (is_op(p, OP_LPAREN)) {
        if (!(n->call = parse_args(p))) return NULL;
    } else if (argument && !is_name(p, "else") && !is_name(p, "or") && !is_name(p, "and")) {
        if (is_name(p, "is")) {
            return fail(p, QN_ERR_FORMAT, p->cur.line, "you cannot chain multiple tests with is");
        }
        if (!enter(p)) return NULL;
        tpl_node *arg = parse_postfix(p, parse_primary(p));
        p->depth--;
        nodes list = {0};
        if (!push(p, &list, arg) || !(n->call = alloc(p, sizeof *n->call))) return NULL;
        n->call->pos = list.v;
        n->call->n = 1;
    }
    return done(p, n);
}

static tpl_node *parse_unary(parser *p, bool with_filter) {
    if (!enter(p)) return NULL;
    tpl_node *n;
    uint32_t line = p->cur.line;
    if (is_op(p, OP_SUB) || is_op(p, OP_ADD)) {
        n = node(p, is_op(p, OP_SUB) ? N_NEG : N_POS, line);
        if (!n || !next(p) || !(n->a = parse_unary(p, false))) return NULL;
        n = done(p, n);
    } else {
        n = parse_primary(p);
    }
    n = parse_postfix(p, n);
    while (n && with_filter) {
        if (is_op(p, OP_PIPE)) {
            n = next(p) ? parse_filter(p, n) : NULL;
        } else if (is_name(p, "is")) {
            n = parse_test(p, n);
        } else if (is_op(p, OP_LPAREN)) {
            n = parse_call(p, n);
        } else {
            break;
        }
    }
    p->depth--;
    return n;
}

static tpl_node *binary(parser *p, tpl_op op, tpl_node *a, tpl_node *b, uint32_t line) {
    tpl_node *n = a && b ? node(p, N_BIN, line) : NULL;
    if (!n) return NULL;
    n->op = (uint8_t)op;
    n->a = a;
    n->b = b;
    return done(p, n);
}

static tpl_node *parse_pow(parser *p) {
    tpl_node *a = parse_unary(p, true);
    while (a && is_op(p, OP_POW)) {
        uint32_t line = p->cur.line;
        if (!next(p)) return NULL;
        a = binary(p, OP_POW, a, parse_unary(p, true), line);
    }
    return a;
}

static tpl_node *parse_product(parser *p) {
    tpl_node *a = parse_pow(p);
    while (a &&
           (is_op(p, OP_MUL) || is_op(p, OP_DIV) || is_op(p, OP_FLOORDIV) || is_op(p, OP_MOD))) {
        uint32_t line = p->cur.line;
        tpl_op op = p->cur.op;
        if (!next(p)) return NULL;
        a = binary(p, op, a, parse_pow(p), line);
    }
    return a;
}

static tpl_node *parse_concat(parser *p) {
    uint32_t line = p->cur.line;
    tpl_node *a = parse_product(p);
    if (!a || !is_op(p, OP_TILDE)) return a;
    nodes list = {0};
    if (!push(p, &list, a)) return NULL;
    while (skip_op(p, OP_TILDE)) {
        if (!push(p, &list, parse_product(p))) return NULL;
    }
    return done_items(p, node(p, N_CONCAT, line), &list);
}

static tpl_node *parse_sum(parser *p) {
    tpl_node *a = parse_concat(p);
    while (a && (is_op(p, OP_ADD) || is_op(p, OP_SUB))) {
        uint32_t line = p->cur.line;
        tpl_op op = p->cur.op;
        if (!next(p)) return NULL;
        a = binary(p, op, a, parse_concat(p), line);
    }
    return a;
}

static tpl_op compare_op(parser *p) {
    if (p->cur.kind == T_OP) {
        tpl_op op = p->cur.op;
        return op >= OP_EQ && op <= OP_LE ? op : OP_NONE;
    }
    if (is_name(p, "in")) return OP_IN;
    if (is_name(p, "not") && look(p)->kind == T_NAME && qn_str_is(look(p)->text, "in")) {
        return OP_NOT_IN;
    }
    return OP_NONE;
}

static tpl_node *parse_compare(parser *p) {
    uint32_t line = p->cur.line;
    tpl_node *a = parse_sum(p);
    if (!a || compare_op(p) == OP_NONE) return a;
    nodes list = {0};
    if (!push(p, &list, a)) return NULL;
    uint8_t ops[64];
    size_t n = 0;
    for (tpl_op op; (op = compare_op(p)) != OP_NONE;) {
        if (n == sizeof ops) return fail(p, QN_ERR_LIMIT, line, "too many comparisons in a row");
        ops[n++] = (uint8_t)op;
        if (op == OP_NOT_IN && !next(p)) return NULL;
        if (!next(p) || !push(p, &list, parse_sum(p))) return NULL;
    }
    tpl_node *c = node(p, N_COMPARE, line);
    uint8_t *copy = c ? alloc(p, n) : NULL;
    if (!copy) return NULL;
    memcpy(copy, ops, n);
    c->ops = copy;
    return done_items(p, c, &list);
}

static tpl_node *parse_not(parser *p) {
    if (!is_name(p, "not")) return parse_compare(p);
    tpl_node *n = node(p, N_NOT, p->cur.line);
    if (!n || !next(p) || !enter(p)) return NULL;
    n->a = parse_not(p);
    p->depth--;
    return n->a ? done(p, n) : NULL;
}

static tpl_node *parse_logic(parser *p, bool is_or) {
    uint32_t line = p->cur.line;
    const char *word = is_or ? "or" : "and";
    tpl_node *a = is_or ? parse_logic(p, false) : parse_not(p);
    if (!a || !is_name(p, word)) return a;
    nodes list = {0};
    if (!push(p, &list, a)) return NULL;
    while (skip_name(p, word)) {
        if (!push(p, &list, is_or ? parse_logic(p, false) : parse_not(p))) return NULL;
    }
    return done_items(p, node(p, is_or ? N_OR : N_AND, line), &list);
}

static tpl_node *parse_or(parser *p) {
    return parse_logic(p, true);
}

static tpl_node *parse_expr(parser *p) {
    if (!enter(p)) return NULL;
    uint32_t line = p->cur.line;
    tpl_node *a = parse_or(p);
    while (a && is_name(p, "if")) {
        tpl_node *n = node(p, N_COND, line);
        if (!n || !next(p)) return NULL;
        n->a = a;
        if (!(n->b = parse_or(p))) return NULL;
        if (skip_name(p, "else") && !(n->c = parse_expr(p))) return NULL;
        a = done(p, n);
    }
    p->depth--;
    return a;
}

// ---- Statements -----------------------------------------------------------------------------

static bool expect_end(parser *p) {
    if (p->cur.kind == T_BLOCK_END) return next(p);
    unexpected(p, "end of statement block");
    return false;
}

// A name, or a tuple of targets. namespace: name.attribute is allowed.
static tpl_node *parse_target(parser *p, bool namespace) {
    uint32_t line = p->cur.line;
    if (!enter(p)) return NULL;
    nodes list = {0};
    bool tuple = false;
    while (p->status == QN_OK) {
        tpl_node *n = NULL;
        tpl_token t = p->cur;
        tpl_val v;
        if (skip_op(p, OP_LPAREN)) {
            n = parse_target(p, false);
            if (!n || !expect_op(p, OP_RPAREN, "')'")) return NULL;
        } else if (t.kind == T_NAME) {
            if (constant_name(t.text, &v)) {
                return fail(p, QN_ERR_FORMAT, t.line, "cannot assign to a constant");
            }
            if (!next(p)) return NULL;
            n = node(p, N_NAME, t.line);
            if (!n || !intern(p, t.text, &n->name)) return NULL;
            if (namespace && list.n == 0 && is_op(p, OP_DOT)) {
                n->kind = N_NSREF;
                if (!next(p)) return NULL;
                if (p->cur.kind != T_NAME) return unexpected(p, "a name");
                if (!(n->str = new_str(p, p->cur.text)) || !next(p)) return NULL;
                p->depth--;
                return done(p, n);
            }
            n = done(p, n);
        } else {
            return unexpected(p, "a name to assign to");
        }
        if (!push(p, &list, n)) return NULL;
        if (!is_op(p, OP_COMMA)) break;
        tuple = true;
        if (!next(p)) return NULL;
        if (is_op(p, OP_ASSIGN) || is_name(p, "in") || is_op(p, OP_RPAREN)) break;
    }
    p->depth--;
    if (!tuple) return list.n ? list.v[0] : NULL;
    return done_items(p, node(p, N_TUPLE, line), &list);
}

static tpl_node *parse_if(parser *p, uint32_t line) {
    static const char *const ends[] = {"elif", "else", "endif"};
    nodes list = {0};
    tpl_node *n = node(p, N_IF, line);
    size_t which = 0;
    do {
        if (!push(p, &list, parse_tuple(p, false, false, NULL)) ||
            !push(p, &list, parse_body(p, ends, 3, &which))) {
            return NULL;
        }
    } while (which == 0);
    if (which == 1 && !(n->c = parse_body(p, ends + 2, 1, &which))) return NULL;
    return expect_end(p) ? done_items(p, n, &list) : NULL;
}

static tpl_node *parse_for(parser *p, uint32_t line) {
    static const char *const ends[] = {"endfor", "else"};
    tpl_node *n = node(p, N_FOR, line);
    if (!n || !(n->a = parse_target(p, false))) return NULL;
    if (!is_name(p, "in")) return unexpected(p, "'in'");
    if (!next(p) || !(n->b = parse_tuple(p, false, false, "recursive"))) return NULL;
    if (skip_name(p, "if") && !(n->e = parse_expr(p))) return NULL;
    if (is_name(p, "recursive")) {
        return fail(p, QN_ERR_UNSUPPORTED, line, "recursive loops are not supported");
    }
    size_t which;
    p->loops++;
    n->c = parse_body(p, ends, 2, &which);
    p->loops--;
    if (!n->c) return NULL;
    if (which == 1 && !(n->d = parse_body(p, ends, 1, &which))) return NULL;
    return expect_end(p) ? done(p, n) : NULL;
}

static tpl_node *parse_set(parser *p, uint32_t line) {
    static const char *const ends[] = {"endset"};
    tpl_node *n = node(p, N_SET, line);
    if (!n || !(n->a = parse_target(p, true))) return NULL;
    if (skip_op(p, OP_ASSIGN)) {
        if (!(n->b = parse_tuple(p, true, false, NULL))) return NULL;
        return expect_end(p) ? done(p, n) : NULL;
    }
    n->kind = N_SETBLOCK;
    if (is_op(p, OP_PIPE) && !(n->b = parse_filters(p, NULL, false))) return NULL;
    size_t which;
    if (!(n->c = parse_body(p, ends, 1, &which))) return NULL;
    return expect_end(p) ? done(p, n) : NULL;
}

// The parameters of a macro, from '(' past ')'.
static bool parse_params(parser *p, tpl_params *out) {
    if (!expect_op(p, OP_LPAREN, "'('")) return false;
    nodes names = {0}, defaults = {0};
    bool has_default = false;
    while (p->status == QN_OK && !is_op(p, OP_RPAREN)) {
        if (names.n && !expect_op(p, OP_COMMA, "','")) return false;
        if (is_op(p, OP_RPAREN) && names.n) break;
        tpl_token t = p->cur;
        if (t.kind != T_NAME) {
            unexpected(p, "a parameter");
            return false;
        }
        if (names.n >= 64) {
            fail(p, QN_ERR_LIMIT, t.line, "too many parameters");
            return false;
        }
        tpl_node *name = node(p, N_NAME, t.line);
        if (!name || !intern(p, t.text, &name->name) || !next(p)) return false;
        for (size_t i = 0; i < names.n; i++) {
            if (names.v[i]->name != name->name) continue;
            fail(p, QN_ERR_FORMAT, t.line, "parameter named twice");
            return false;
        }
        tpl_node *value = name; // stands for: no default
        if (skip_op(p, OP_ASSIGN)) {
            has_default = true;
            value = parse_expr(p);
        } else if (has_default) {
            fail(p, QN_ERR_FORMAT, t.line, "non-default argument follows default argument");
            return false;
        }
        if (!push(p, &names, name) || !push(p, &defaults, value)) return false;
    }
    if (!next(p)) return false;
    size_t n = names.n;
    out->names = alloc(p, n * sizeof *out->names);
    out->texts = alloc(p, n * sizeof *out->texts);
    out->defaults = alloc(p, n * sizeof(tpl_node *));
    if (!out->names || !out->texts || !out->defaults) return false;
    for (size_t i = 0; i < n; i++) {
        out->names[i] = names.v[i]->name;
        out->texts[i] = p->t->names[out->names[i]];
        out->defaults[i] = defaults.v[i] == names.v[i] ? NULL : defaults.v[i];
    }
    out->n = n;
    return true;
}

// The body of a macro or a call block; what it uses counts for the macro around it too.
static tpl_node *parse_macro_body(parser *p, tpl_params *params, const char *end) {
    tpl_params *outer = p->macro;
    int loops = p->loops;
    p->macro = params;
    p->loops = 0;
    size_t which;
    tpl_node *body = parse_body(p, &end, 1, &which);
    p->macro = outer;
    p->loops = loops;
    if (outer) {
        outer->uses_caller |= params->uses_caller;
        outer->uses_varargs |= params->uses_varargs;
        outer->uses_kwargs |= params->uses_kwargs;
    }
    return body && expect_end(p) ? body : NULL;
}

static tpl_node *parse_macro(parser *p, uint32_t line) {
    tpl_node *n = node(p, N_MACRO, line);
    if (!n || !(n->params = alloc(p, sizeof *n->params))) return NULL;
    if (p->cur.kind != T_NAME) return unexpected(p, "the name of a macro");
    tpl_val v;
    if (constant_name(p->cur.text, &v)) {
        return fail(p, QN_ERR_FORMAT, line, "cannot assign to a constant");
    }
    if (!intern(p, p->cur.text, &n->name) || !next(p) || !parse_params(p, n->params)) return NULL;
    if (!(n->c = parse_macro_body(p, n->params, "endmacro"))) return NULL;
    return done(p, n);
}

static tpl_node *parse_callblock(parser *p, uint32_t line) {
    tpl_node *n = node(p, N_CALLBLOCK, line);
    if (!n || !(n->params = alloc(p, sizeof *n->params))) return NULL;
    if (is_op(p, OP_LPAREN) && !parse_params(p, n->params)) return NULL;
    if (!(n->a = parse_expr(p))) return NULL;
    if (n->a->kind != N_CALL) return fail(p, QN_ERR_FORMAT, line, "expected a call");
    if (!(n->c = parse_macro_body(p, n->params, "endcall"))) return NULL;
    return done(p, n);
}

static tpl_node *parse_with(parser *p, uint32_t line) {
    static const char *const ends[] = {"endwith"};
    tpl_node *n = node(p, N_WITH, line);
    nodes list = {0};
    while (p->cur.kind != T_BLOCK_END) {
        if (list.n && !expect_op(p, OP_COMMA, "','")) return NULL;
        if (!push(p, &list, parse_target(p, false)) || !expect_op(p, OP_ASSIGN, "'='") ||
            !push(p, &list, parse_expr(p))) {
            return NULL;
        }
    }
    size_t which;
    if (!n || !(n->c = parse_body(p, ends, 1, &which))) return NULL;
    return expect_end(p) ? done_items(p, n, &list) : NULL;
}

// The statement whose name is the current token.
static tpl_node *parse_statement(parser *p) {
    tpl_token t = p->cur;
    if (t.kind != T_NAME) return unexpected(p, "the name of a statement");
    if (!next(p)) return NULL;
    size_t which;
    if (qn_str_is(t.text, "if")) return parse_if(p, t.line);
    if (qn_str_is(t.text, "for")) return parse_for(p, t.line);
    if (qn_str_is(t.text, "set")) return parse_set(p, t.line);
    if (qn_str_is(t.text, "macro")) return parse_macro(p, t.line);
    if (qn_str_is(t.text, "call")) return parse_callblock(p, t.line);
    if (qn_str_is(t.text, "with")) return parse_with(p, t.line);
    if (qn_str_is(t.text, "generation")) {
        tpl_node *n = node(p, N_GENERATION, t.line);
        if (!n || !(n->params = alloc(p, sizeof *n->params))) return NULL;
        n->c = parse_macro_body(p, n->params, "endgeneration");
        return n->c ? done(p, n) : NULL;
    }
    if (qn_str_is(t.text, "filter")) {
        static const char *const ends[] = {"endfilter"};
        tpl_node *n = node(p, N_FILTERBLOCK, t.line);
        if (!n || !(n->b = parse_filters(p, NULL, true))) return NULL;
        if (!(n->c = parse_body(p, ends, 1, &which))) return NULL;
        return expect_end(p) ? done(p, n) : NULL;
    }
    bool brk = qn_str_is(t.text, "break");
    if (brk || qn_str_is(t.text, "continue")) {
        if (p->loops == 0) {
            return fail(p, QN_ERR_FORMAT, t.line, "break or continue outside a loop");
        }
        return expect_end(p) ? done(p, node(p, brk ? N_BREAK : N_CONTINUE, t.line)) : NULL;
    }
    return fail(p, QN_ERR_FORMAT, t.line, "unknown tag '%.*s'", (int)QN_MIN(t.text.len, (size_t)80),
                t.text.data);
}

// Statements up to one of the tags named in ends (its name is then consumed); with no ends, up to
// the end of the template. Comes in at the end of the opening tag.
static tpl_node *parse_body(parser *p, const char *const *ends, size_t n_ends, size_t *which) {
    tpl_node *body = node(p, N_BODY, p->cur.line);
    if (!body || !enter(p)) return NULL;
    if (n_ends) {
        (void)skip_op(p, OP_COLON);
        if (!expect_end(p)) return NULL;
    }
    nodes list = {0};
    while (p->status == QN_OK) {
        tpl_token t = p->cur;
        tpl_node *n = NULL;
        if (t.kind == T_EOF) {
            if (n_ends) {
                return fail(p, QN_ERR_FORMAT, t.line, "template ends where '%s' is missing",
                            ends[n_ends - 1]);
            }
            break;
        }
        if (!next(p)) return NULL;
        if (t.kind == T_DATA) {
            tpl_str *s = new_str(p, t.text);
            n = s ? const_node(p, tpl_strval(s), t.line) : NULL;
        } else if (t.kind == T_VAR_BEGIN) {
            tpl_node *e = parse_tuple(p, true, false, NULL);
            if (!e) return NULL;
            if (p->cur.kind != T_VAR_END) return unexpected(p, "end of print statement");
            if (!next(p)) return NULL;
            n = e;
        } else if (t.kind == T_BLOCK_BEGIN) {
            for (size_t i = 0; i < n_ends; i++) {
                if (!is_name(p, ends[i])) continue;
                *which = i;
                p->depth--;
                return next(p) ? done_items(p, body, &list) : NULL;
            }
            if (!push(p, &list, parse_statement(p))) return NULL;
            continue;
        } else {
            return unexpected(p, "text or a tag");
        }
        tpl_node *out = n ? node(p, N_OUTPUT, n->line) : NULL;
        if (!out) return NULL;
        out->a = n;
        if (!push(p, &list, done(p, out))) return NULL;
    }
    p->depth--;
    return done_items(p, body, &list);
}

qn_status tpl_parse(qn_chat_template *t, const char *src, size_t len, qn_error *err) {
    parser p = {.t = t, .err = err};
    tpl_lexer_init(&p.lx, src, len, &t->arena, err);
    bool ok = intern(&p, QN_STR("caller"), &t->name_caller) &&
              intern(&p, QN_STR("varargs"), &t->name_varargs) &&
              intern(&p, QN_STR("kwargs"), &t->name_kwargs) &&
              intern(&p, QN_STR("loop"), &t->name_loop) && next(&p);
    if (ok) t->body = parse_body(&p, NULL, 0, NULL);
    qn_map_free(&p.names);
    if (p.status == QN_OK && !t->body)
        p.status = qn_fail(err, QN_ERR_INTERNAL, "template: no tree");
    return p.status;
}
