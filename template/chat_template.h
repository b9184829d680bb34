// SPDX-License-Identifier: Apache-2.0
// Chat templates: a Jinja interpreter for what model templates use, with limits, and with spans of
// origin: which bytes of the output come from the template's own literals, and which from values
// (message content, tools, names). Only literals may be parsed for special tokens.
#ifndef QN_TEMPLATE_CHAT_TEMPLATE_H
#define QN_TEMPLATE_CHAT_TEMPLATE_H

#include "base/buf.h"
#include "base/status.h"

#include <jansson.h>

typedef struct qn_chat_template qn_chat_template;

typedef struct qn_template_limits {
    size_t max_steps;  // statements and expressions evaluated; 0: default (1,000,000)
    size_t max_output; // bytes; 0: default (4 MiB)
    size_t max_memory; // bytes of values alive; 0: default (64 MiB)
} qn_template_limits;

// Compiles source (copied; at most 1 MB). Errors name line and reason. Immutable afterwards: many
// threads may render one template at the same time.
qn_status qn_template_compile(const char *source, size_t len, qn_chat_template **out,
                              qn_error *err);
void qn_template_free(qn_chat_template *t);

// One run of output bytes of one origin.
typedef struct qn_origin_span {
    size_t len;
    bool trusted; // from the template's own literals (or a trusted variable such as bos_token)
} qn_origin_span;

typedef struct qn_rendered {
    qn_buf text;
    qn_origin_span *spans; // cover the text exactly, neighbours differ in `trusted`
    size_t n_spans, cap_spans;
} qn_rendered;

// Renders with the members of `variables` (an object: messages, tools, add_generation_prompt, and
// the template's keyword arguments) as globals. Strings in it are untrusted. trusted_variables (an
// object or NULL: bos_token, eos_token, ...): their strings are trusted; where both have a name,
// `variables` wins. Both must stay unchanged during the call. now: what strftime_now uses, seconds
// since 1970 (UTC). raise_exception gives QN_ERR_INVALID with the template's message; other
// template faults QN_ERR_INVALID too (QN_ERR_UNSUPPORTED for what Jinja2 has and this has not),
// limits QN_ERR_LIMIT. Needs up to 1 MiB of stack. On failure out is empty.
qn_status qn_template_render(const qn_chat_template *t, const json_t *variables,
                             const json_t *trusted_variables, double now,
                             const qn_template_limits *limits, qn_rendered *out, qn_error *err);
void qn_rendered_free(qn_rendered *r);

// The ChatML template of ours, for models that bring none.
extern const char qn_template_chatml[];

#endif
