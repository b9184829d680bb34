// SPDX-License-Identifier: Apache-2.0
// The inside of the template interpreter: values, syntax tree, and the state of one render.
//
// Invariants:
// 1. A compiled template (tree, constants) is never written to after compile: threads share it.
// 2. Everything made during a render lives in that render's arena; nothing is freed singly. The
//    arena's limit is the memory limit.
// 3. Every function that can fail returns false (or NULL) after tpl_fail recorded why, once.
// 4. Recursion in C is bounded: in the parser by tree depth, in the evaluator by r->depth, in walks
//    over values by their own depth count. The bounds fit in 1 MiB of stack.
// 5. Work that grows with the length of a value is charged to the step count, so that the step
//    limit bounds time.
// 6. A byte of a string is trusted only if it came from the template's text, a trusted variable, or
//    was made by the interpreter from something that is not a string. In doubt it is untrusted.
#ifndef QN_TEMPLATE_INTERP_H
#define QN_TEMPLATE_INTERP_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/checked.h"
#include "base/status.h"
#include "template/chat_template.h"

#include <stdint.h>

enum {
    TPL_MAX_SOURCE = 1 << 20,
    TPL_MAX_NEST = 200,        // brackets and blocks inside each other
    TPL_MAX_TREE = 400,        // depth of the syntax tree (long chains of operators)
    TPL_MAX_CALL_DEPTH = 64,   // macros inside macros
    TPL_MAX_EVAL_DEPTH = 1200, // nested evaluations, all macros together
    TPL_MAX_VALUE_DEPTH = 200, // lists inside lists, when printed, compared or converted
    TPL_MAX_RANGE = 100000,    // as Jinja2's sandbox
    TPL_BYTES_PER_STEP = 256,  // how many bytes copied or scanned cost one step
};

// ---- Values ---------------------------------------------------------------------------------

enum { TPL_UNTRUSTED, TPL_TRUSTED, TPL_MIXED };
enum { TPL_ASCII_UNKNOWN, TPL_ASCII, TPL_NOT_ASCII };

typedef struct tpl_run {
    size_t end; // offset of the first byte after the run
    bool trusted;
} tpl_run;

// A string, UTF-8. A rope (data NULL) is a concatenation not yet carried out; each rope is part of
// at most one other, so that carrying it out costs its length once.
typedef struct tpl_str {
    size_t len;
    const char *data;
    struct tpl_str *left, *right;
    const tpl_run *runs; // mixed only
    size_t n_runs;
    uint8_t origin, ascii;
    bool used; // a rope that is part of another
} tpl_str;

typedef enum tpl_kind {
    V_MISSING, // an argument not given; never seen by a template
    V_UNDEF,   // s: what is undefined (a whole sentence), or NULL
    V_NONE,
    V_BOOL,
    V_INT,
    V_FLOAT,
    V_STR,
    V_SEQ,
    V_DICT,
    V_NS, // d: its attributes
    V_MACRO,
    V_FUNC,   // i: enum tpl_func
    V_METHOD, // m
    V_LOOP,
    V_CYCLER, // seq; start holds the position
    V_JOINER, // seq: one item, the separator; start: whether it was used
} tpl_kind;

typedef struct tpl_val {
    tpl_kind kind;
    union {
        bool b;
        int64_t i;
        double f;
        tpl_str *s;
        struct tpl_seq *seq;
        struct tpl_dict *d;
        struct tpl_macro *macro;
        struct tpl_method *m;
        struct tpl_loop *loop;
    } u;
} tpl_val;

enum { SEQ_LIST, SEQ_TUPLE, SEQ_RANGE, SEQ_GEN, SEQ_KEYS, SEQ_VALUES, SEQ_ITEMS };

typedef struct tpl_seq {
    tpl_val *items;
    size_t n, cap;
    int type;
    int64_t start, stop, step; // SEQ_RANGE; start in SEQ_GEN: 1 if it fails when asked for items
} tpl_seq;

typedef struct tpl_entry {
    tpl_val key, value;
    uint64_t hash;
} tpl_entry;

typedef struct tpl_dict {
    tpl_entry *items; // in order of insertion
    size_t n, cap;
    uint32_t *index; // open addressing, entry + 1; NULL while small
    size_t mask;
} tpl_dict;

typedef struct tpl_method {
    tpl_val self;
    int id;
} tpl_method;

typedef struct tpl_loop {
    const tpl_seq *seq;
    size_t at;
    tpl_val changed; // V_SEQ of the last loop.changed() arguments
} tpl_loop;

typedef struct tpl_binding {
    uint32_t name;
    tpl_val value;
} tpl_binding;

typedef struct tpl_scope {
    struct tpl_scope *parent;
    tpl_binding *items;
    size_t n, cap;
} tpl_scope;

typedef struct tpl_macro {
    const struct tpl_node *node; // N_MACRO or N_CALLBLOCK
    tpl_scope *closure;
} tpl_macro;

typedef struct tpl_args {
    tpl_val *pos;
    size_t n;
    tpl_str **kw_names;
    tpl_val *kw;
    size_t n_kw;
} tpl_args;

// ---- Syntax tree ----------------------------------------------------------------------------

typedef enum tpl_node_kind {
    N_CONST,  // value
    N_NAME,   // name
    N_LIST,   // items
    N_TUPLE,  // items
    N_DICT,   // items: key, value, key, value
    N_ATTR,   // a.str
    N_ITEM,   // a[b]
    N_SLICE,  // a : b : c, each may be NULL; only as b of N_ITEM
    N_CALL,   // a(call)
    N_FILTER, // a | id(call); a NULL in a filter block
    N_TEST,   // a is id(call)
    N_NOT,
    N_NEG,
    N_POS,
    N_AND,     // items
    N_OR,      // items
    N_BIN,     // a op b
    N_CONCAT,  // items
    N_COMPARE, // items, ops
    N_COND,    // a if b else c
    // Statements
    N_BODY,        // items
    N_OUTPUT,      // a
    N_IF,          // items: test, body, test, body ...; c: else
    N_FOR,         // a: target, b: iterable, c: body, d: else, e: filter
    N_SET,         // a: target, b: value
    N_SETBLOCK,    // a: target, b: filter chain or NULL, c: body
    N_MACRO,       // name, params, c: body
    N_CALLBLOCK,   // params, a: call, c: body
    N_FILTERBLOCK, // b: filter chain, c: body
    N_WITH,        // items: target, value ...; c: body
    N_GENERATION,  // c: body
    N_BREAK,
    N_CONTINUE,
    N_NSREF, // target only: name.str
} tpl_node_kind;

typedef enum tpl_op {
    OP_NONE,
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOORDIV,
    OP_MOD,
    OP_POW,
    OP_TILDE,
    OP_LBRACKET,
    OP_RBRACKET,
    OP_LPAREN,
    OP_RPAREN,
    OP_LBRACE,
    OP_RBRACE,
    OP_EQ,
    OP_NE,
    OP_GT,
    OP_GE,
    OP_LT,
    OP_LE,
    OP_ASSIGN,
    OP_DOT,
    OP_COLON,
    OP_PIPE,
    OP_COMMA,
    OP_SEMICOLON,
    OP_IN,
    OP_NOT_IN,
} tpl_op;

typedef struct tpl_call {
    struct tpl_node **pos;
    size_t n;
    tpl_str **kw_names;
    struct tpl_node **kw;
    size_t n_kw;
    struct tpl_node *star, *star_star; // *args and **kwargs, or NULL
} tpl_call;

typedef struct tpl_params {
    uint32_t *names;
    tpl_str **texts;
    struct tpl_node **defaults; // NULL: none
    size_t n;
    bool uses_caller, uses_varargs, uses_kwargs;
} tpl_params;

typedef struct tpl_node {
    uint8_t kind, op;
    uint16_t depth; // of the tree below
    bool negated;   // N_TEST
    int id;         // N_FILTER, N_TEST: which, -1 unknown
    uint32_t line;
    uint32_t name;
    struct tpl_node *a, *b, *c, *d, *e;
    struct tpl_node **items;
    size_t n_items;
    const uint8_t *ops;
    tpl_str *str;
    tpl_call *call;
    tpl_params *params;
    tpl_val value;
} tpl_node;

struct qn_chat_template {
    qn_arena arena;
    tpl_node *body;
    tpl_str **names; // by name id
    size_t n_names;
    uint32_t name_caller, name_varargs, name_kwargs, name_loop;
};

// ---- Lexer (lexer.c) ------------------------------------------------------------------------

typedef enum tpl_token_kind {
    T_EOF,
    T_DATA,
    T_BLOCK_BEGIN,
    T_BLOCK_END,
    T_VAR_BEGIN,
    T_VAR_END,
    T_NAME,
    T_STRING,
    T_INT,
    T_FLOAT,
    T_OP,
} tpl_token_kind;

typedef struct tpl_token {
    tpl_token_kind kind;
    tpl_op op;
    uint32_t line;
    qn_str text; // T_DATA, T_NAME, T_STRING (escapes resolved)
    int64_t i;
    double f;
} tpl_token;

typedef struct tpl_lexer {
    const char *src;
    size_t len, pos;
    uint32_t line;
    int mode;    // 0 text, 1 in a block, 2 in a variable
    int open;    // brackets open
    int pending; // a tag found after the text that was just returned
    bool line_starting;
    qn_arena *arena;
    qn_error *err;
} tpl_lexer;

// src: newlines normalized, valid UTF-8, must outlive the tokens.
void tpl_lexer_init(tpl_lexer *lx, const char *src, size_t len, qn_arena *arena, qn_error *err);
qn_status tpl_lex(tpl_lexer *lx, tpl_token *out);

// ---- Parser (parser.c) ----------------------------------------------------------------------

qn_status tpl_parse(qn_chat_template *t, const char *src, size_t len, qn_error *err);

// ---- State of a render ----------------------------------------------------------------------

typedef struct tpl_piece {
    const char *data;
    size_t len;
    bool trusted;
} tpl_piece;

// Collects pieces of text by reference; tpl_builder_finish makes one string of them.
typedef struct tpl_builder {
    tpl_piece *pieces;
    size_t n, cap, len;
} tpl_builder;

typedef struct tpl_render {
    const qn_chat_template *t;
    qn_arena arena;
    qn_error *err;
    qn_status status; // the first failure
    size_t steps, max_steps, max_output, max_memory;
    int depth, call_depth;
    size_t closures; // macros made so far: a scope that one of them may hold is not reused
    uint32_t line;
    double now;
    tpl_scope *globals;
    tpl_builder *capture; // where output goes; NULL: to out
    qn_rendered *out;
} tpl_render;

bool tpl_fail(tpl_render *r, qn_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
bool tpl_step(tpl_render *r, size_t n);      // counts n steps
bool tpl_work(tpl_render *r, size_t bytes);  // counts the steps that touching bytes costs
void *tpl_alloc(tpl_render *r, size_t size); // NULL after tpl_fail
void *tpl_array(tpl_render *r, size_t n, size_t size);
// Grows *items to hold need elements (moved, the old stays in the arena).
bool tpl_grow(tpl_render *r, void *items_ptr, size_t *cap, size_t need, size_t size);

// ---- Values (value.c) -----------------------------------------------------------------------

static inline tpl_val tpl_none(void) {
    return (tpl_val){.kind = V_NONE};
}
static inline tpl_val tpl_bool(bool b) {
    return (tpl_val){.kind = V_BOOL, .u.b = b};
}
static inline tpl_val tpl_int(int64_t i) {
    return (tpl_val){.kind = V_INT, .u.i = i};
}
static inline tpl_val tpl_float(double f) {
    return (tpl_val){.kind = V_FLOAT, .u.f = f};
}
static inline tpl_val tpl_strval(tpl_str *s) {
    return (tpl_val){.kind = V_STR, .u.s = s};
}
static inline tpl_val tpl_seqval(tpl_seq *s) {
    return (tpl_val){.kind = V_SEQ, .u.seq = s};
}
static inline tpl_val tpl_dictval(tpl_dict *d) {
    return (tpl_val){.kind = V_DICT, .u.d = d};
}
static inline tpl_val tpl_undef(void) {
    return (tpl_val){.kind = V_UNDEF};
}
static inline bool tpl_is_num(tpl_val v) {
    return v.kind == V_INT || v.kind == V_FLOAT || v.kind == V_BOOL;
}
static inline int64_t tpl_as_int(tpl_val v) {
    return v.kind == V_BOOL ? v.u.b : v.u.i;
}
static inline double tpl_as_float(tpl_val v) {
    return v.kind == V_FLOAT ? v.u.f : (double)tpl_as_int(v);
}

tpl_val tpl_undef_named(tpl_render *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
const char *tpl_type_name(tpl_val v); // Python's: "str", "dict", ...
bool tpl_truth(tpl_val v);
// 1 equal, 0 not, -1 failed.
int tpl_equal(tpl_render *r, tpl_val a, tpl_val b, int depth);
// Order of two values; fails where Python has none. *out <0, 0, >0.
bool tpl_compare(tpl_render *r, tpl_val a, tpl_val b, const char *op, int *out, int depth);
// 1 found, 0 not, -1 failed.
int tpl_contains(tpl_render *r, tpl_val item, tpl_val in);

// Strings. data is kept by reference.
tpl_str *tpl_str_ref(tpl_render *r, const char *data, size_t len, bool trusted);
tpl_str *tpl_str_copy(tpl_render *r, const char *data, size_t len, bool trusted);
tpl_str *tpl_str_printf(tpl_render *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
// The bytes [at, at + len) of a flat string.
tpl_str *tpl_str_sub(tpl_render *r, const tpl_str *s, size_t at, size_t len);
tpl_str *tpl_concat(tpl_render *r, tpl_str *a, tpl_str *b);
bool tpl_flatten(tpl_render *r, tpl_str *s);
bool tpl_is_ascii(tpl_str *s); // of a flat string
uint8_t tpl_scan_ascii(const char *s, size_t n);
bool tpl_str_length(tpl_render *r, tpl_str *s, size_t *chars);
// Byte offset of character `at` (at most the length) of a flat string, from byte offset `from`.
size_t tpl_char_offset(const tpl_str *s, size_t from, size_t at);
bool tpl_all_trusted(const tpl_str *s);
static inline qn_str tpl_view(const tpl_str *s) {
    return (qn_str){s->data, s->len};
}
static inline bool tpl_str_is(const tpl_str *s, const char *lit) {
    return s->data && qn_str_is(tpl_view(s), lit);
}

bool tpl_builder_add(tpl_render *r, tpl_builder *b, const char *data, size_t len, bool trusted);
bool tpl_builder_str(tpl_render *r, tpl_builder *b, tpl_str *s);
// A part of a flat string.
bool tpl_builder_sub(tpl_render *r, tpl_builder *b, const tpl_str *s, size_t at, size_t len);
tpl_str *tpl_builder_finish(tpl_render *r, tpl_builder *b);

// Sequences and dictionaries.
tpl_seq *tpl_seq_new(tpl_render *r, int type, size_t cap);
bool tpl_seq_push(tpl_render *r, tpl_seq *s, tpl_val v);
// Any iterable as a sequence (a dictionary: its keys; a string: its characters; a generator:
// emptied). Not to be written to. NULL after failing.
tpl_seq *tpl_iterate(tpl_render *r, tpl_val v);
bool tpl_iterable(tpl_val v);
tpl_dict *tpl_dict_new(tpl_render *r, size_t cap);
bool tpl_dict_put(tpl_render *r, tpl_dict *d, tpl_val key, tpl_val value);
// 1 found, 0 not, -1 failed (a key that cannot be hashed).
int tpl_dict_get(tpl_render *r, const tpl_dict *d, tpl_val key, tpl_val *out);
bool tpl_dict_remove(tpl_render *r, tpl_dict *d, tpl_val key);
tpl_seq *tpl_dict_seq(tpl_render *r, const tpl_dict *d, int type);
// A copy of a JSON value; strings are referred to, not copied.
bool tpl_from_json(tpl_render *r, const json_t *j, bool trusted, tpl_val *out, int depth);

// ---- Text of values (text.c) ----------------------------------------------------------------

size_t tpl_format_double(double f, char out[40]); // as Python's repr
tpl_str *tpl_to_str(tpl_render *r, tpl_val v);    // as Python's str()
tpl_str *tpl_repr(tpl_render *r, tpl_val v);      // as Python's repr()
// As json.dumps(ensure_ascii=False). indent NULL: none. sort: by key.
tpl_str *tpl_json(tpl_render *r, tpl_val v, const tpl_str *indent, const tpl_str *item_sep,
                  const tpl_str *key_sep, bool ascii, bool sort);
tpl_str *tpl_percent(tpl_render *r, tpl_str *fmt, tpl_val args); // '...' % args
bool tpl_is_space(uint32_t cp);                                  // as Python's str.isspace
// The length of the white space character at s, 0 if there is none there.
size_t tpl_space_at(const char *s, size_t len);
size_t tpl_space_before(const char *s, size_t len); // that ends at s + len
// The first place of a flat needle in s, or NULL.
const char *tpl_find(const char *s, size_t len, const tpl_str *needle);
enum { CASE_UPPER, CASE_LOWER, CASE_CAPITALIZE, CASE_TITLE, CASE_SWAP };
tpl_str *tpl_case(tpl_render *r, tpl_str *s, int how);
tpl_str *tpl_strip(tpl_render *r, tpl_str *s, tpl_str *chars, bool left, bool right);
tpl_str *tpl_replace(tpl_render *r, tpl_str *s, tpl_str *from, tpl_str *to, int64_t count);
tpl_str *tpl_join(tpl_render *r, tpl_str *sep, const tpl_seq *items);
tpl_seq *tpl_splitlines(tpl_render *r, tpl_str *s, bool keep);

// ---- Evaluation (eval.c, operators.c) -------------------------------------------------------

bool tpl_eval(tpl_render *r, tpl_scope *sc, const tpl_node *n, tpl_val *out);
bool tpl_call_value(tpl_render *r, tpl_val callee, const tpl_args *args, tpl_val *out);
bool tpl_getattr(tpl_render *r, tpl_val obj, tpl_str *name, tpl_val *out);
bool tpl_getitem(tpl_render *r, tpl_val obj, tpl_val key, tpl_val *out);
bool tpl_binary(tpl_render *r, int op, tpl_val a, tpl_val b, tpl_val *out);
bool tpl_slice(tpl_render *r, tpl_val obj, tpl_val lo, tpl_val hi, tpl_val step, tpl_val *out);
// Evaluates the filters of a chain whose innermost value is `input`.
bool tpl_eval_chain(tpl_render *r, tpl_scope *sc, const tpl_node *n, tpl_val input, tpl_val *out);

// ---- Statements (exec.c) --------------------------------------------------------------------

typedef enum tpl_flow { FLOW_NEXT, FLOW_BREAK, FLOW_CONTINUE, FLOW_FAIL } tpl_flow;
tpl_flow tpl_exec(tpl_render *r, tpl_scope *sc, const tpl_node *n);
bool tpl_call_macro(tpl_render *r, const tpl_macro *m, const tpl_args *args, tpl_val *out);
bool tpl_scope_set(tpl_render *r, tpl_scope *sc, uint32_t name, tpl_val v);
// Finds a name in the scopes around; counts what a long search costs.
bool tpl_scope_get(tpl_render *r, const tpl_scope *sc, uint32_t name, tpl_val *out, bool *found);
// Fails with what is known about an undefined value.
bool tpl_fail_undefined(tpl_render *r, tpl_val v);

// ---- Filters, tests, functions, methods -----------------------------------------------------

int tpl_filter_find(qn_str name); // -1: none
bool tpl_filter(tpl_render *r, int id, tpl_val v, const tpl_args *args, tpl_val *out);
int tpl_test_find(qn_str name);
bool tpl_test(tpl_render *r, int id, tpl_val v, const tpl_args *args, bool *out);
bool tpl_add_functions(tpl_render *r); // binds the names of the global functions that are used
bool tpl_function(tpl_render *r, int id, const tpl_args *args, tpl_val *out);
int tpl_method_find(tpl_val self, const tpl_str *name); // -1: none
bool tpl_call_method(tpl_render *r, tpl_val self, int id, const tpl_args *args, tpl_val *out);
bool tpl_loop_attr(tpl_render *r, tpl_loop *loop, const tpl_str *name, tpl_val *out, bool *found);

// Sorts arguments into parameters. names: n of them; out[i] is V_MISSING where none was given. The
// first `required` must be there.
bool tpl_bind(tpl_render *r, const char *what, const tpl_args *args, const char *const *names,
              size_t n, size_t required, tpl_val *out);
// Reads an argument as int or string, or keeps the default where it is missing.
bool tpl_arg_int(tpl_render *r, const char *what, tpl_val v, int64_t *out);

#endif
