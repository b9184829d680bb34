// SPDX-License-Identifier: Apache-2.0
#include "template/chat_template.h"

#include "base/utf8.h"
#include "template/interp.h"

#include <stdlib.h>
#include <string.h>

enum { COMPILE_MEMORY = 192 << 20 };

const char qn_template_chatml[] =
    "{%- for message in messages %}\n"
    "    {{- '<|im_start|>' + message.role + '\\n' }}\n"
    "    {%- if message.content is string %}\n"
    "        {{- message.content }}\n"
    "    {%- elif message.content is iterable %}\n"
    "        {%- for part in message.content if part.type == 'text' %}\n"
    "            {{- part.text }}\n"
    "        {%- endfor %}\n"
    "    {%- endif %}\n"
    "    {{- '<|im_end|>\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n"
    "    {{- '<|im_start|>assistant\\n' }}\n"
    "{%- endif %}\n";

// The source with \r\n and \r as \n, and without one newline at the end, as Jinja2 reads it.
static char *normalize(qn_arena *arena, const char *source, size_t *len) {
    char *copy = qn_arena_alloc(arena, *len + 1);
    if (!copy) return NULL;
    size_t n = 0;
    for (size_t i = 0; i < *len; i++) {
        if (source[i] == '\r') {
            copy[n++] = '\n';
            if (i + 1 < *len && source[i + 1] == '\n') i++;
        } else {
            copy[n++] = source[i];
        }
    }
    if (n && copy[n - 1] == '\n') n--;
    *len = n;
    return copy;
}

qn_status qn_template_compile(const char *source, size_t len, qn_chat_template **out,
                              qn_error *err) {
    *out = NULL;
    if (len > TPL_MAX_SOURCE) {
        return qn_fail(err, QN_ERR_LIMIT, "template: longer than %d bytes", TPL_MAX_SOURCE);
    }
    if (!qn_utf8_valid(source, len)) return qn_fail(err, QN_ERR_FORMAT, "template: not UTF-8");
    qn_chat_template *t = calloc(1, sizeof *t);
    if (!t) return qn_fail(err, QN_ERR_NOMEM, "template: out of memory");
    qn_arena_init(&t->arena, COMPILE_MEMORY);
    char *copy = normalize(&t->arena, source, &len);
    qn_status st =
        copy ? tpl_parse(t, copy, len, err) : qn_fail(err, QN_ERR_NOMEM, "template: out of memory");
    if (st != QN_OK) {
        qn_template_free(t);
        return st;
    }
    *out = t;
    return QN_OK;
}

void qn_template_free(qn_chat_template *t) {
    if (!t) return;
    qn_arena_free(&t->arena);
    free(t);
}

void qn_rendered_free(qn_rendered *r) {
    qn_buf_free(&r->text);
    free(r->spans);
    *r = (qn_rendered){0};
}

// Binds the members of an object that the template names.
static bool add_globals(tpl_render *r, const json_t *object, bool trusted) {
    if (!object) return true;
    if (!json_is_object(object)) return tpl_fail(r, QN_ERR_INVALID, "variables are not an object");
    for (uint32_t id = 0; id < r->t->n_names; id++) {
        const tpl_str *name = r->t->names[id];
        const json_t *j = json_object_getn(object, name->data, name->len);
        tpl_val v;
        if (!j) continue;
        if (!tpl_from_json(r, j, trusted, &v, 0) || !tpl_scope_set(r, r->globals, id, v)) {
            return false;
        }
    }
    return true;
}

qn_status qn_template_render(const qn_chat_template *t, const json_t *variables,
                             const json_t *trusted_variables, double now,
                             const qn_template_limits *limits, qn_rendered *out, qn_error *err) {
    tpl_render r = {.t = t, .err = err, .now = now, .out = out};
    *out = (qn_rendered){0};
    r.max_steps = limits && limits->max_steps ? limits->max_steps : 1000 * 1000;
    r.max_output = limits && limits->max_output ? limits->max_output : (size_t)4 << 20;
    r.max_memory = limits && limits->max_memory ? limits->max_memory : (size_t)64 << 20;
    qn_arena_init(&r.arena, r.max_memory);
    r.globals = tpl_alloc(&r, sizeof *r.globals);
    tpl_scope *top = tpl_alloc(&r, sizeof *top);
    if (r.globals && top && tpl_add_functions(&r) && add_globals(&r, trusted_variables, true) &&
        add_globals(&r, variables, false)) {
        top->parent = r.globals;
        (void)tpl_exec(&r, top, t->body);
    }
    qn_arena_free(&r.arena);
    if (r.status != QN_OK) qn_rendered_free(out);
    return r.status;
}
