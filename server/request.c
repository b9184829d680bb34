// SPDX-License-Identifier: Apache-2.0
#include "server/request.h"

#include "base/checked.h"
#include "base/json_tree.h"
#include "engine/engine.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

// ---------------------------------------------------------------- JSON

// Counts what a document tree would cost before one is made, without a tree: nesting, containers,
// values. Only strings need care; what is malformed is left to the parser.
static bool within_caps(const char *body, size_t len, qn_api_error *err) {
    size_t depth = 0, containers = 0, values = 1;
    bool in_string = false;
    for (size_t i = 0; i < len; i++) {
        char c = body[i];
        if (in_string) {
            if (c == '\\') i++;
            else if (c == '"') in_string = false;
            continue;
        }
        if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > QN_REQUEST_MAX_DEPTH) {
                return qn_api_fail(err, 400, NULL, "the JSON is nested deeper than %d levels",
                                   QN_REQUEST_MAX_DEPTH);
            }
            if (++containers > QN_REQUEST_MAX_CONTAINERS) {
                return qn_api_fail(err, 400, NULL, "the JSON holds more than %d objects and arrays",
                                   QN_REQUEST_MAX_CONTAINERS);
            }
        } else if (c == '}' || c == ']') {
            if (depth) depth--;
        } else if (c == ',' && ++values > QN_REQUEST_MAX_VALUES) {
            return qn_api_fail(err, 400, NULL, "the JSON holds more than %d values",
                               QN_REQUEST_MAX_VALUES);
        }
    }
    return true;
}

json_t *qn_request_json(const char *body, size_t len, qn_api_error *err) {
    if (!within_caps(body, len, err)) return NULL;
    json_t *root;
    qn_error why = {0};
    qn_status st = qn_json_tree(body, len, &root, &why);
    if (st == QN_ERR_NOMEM) qn_api_fail(err, 503, NULL, "out of memory");
    else if (st != QN_OK) qn_api_fail(err, 400, NULL, "the body is not valid JSON: %s", why.message);
    if (st != QN_OK) return NULL;
    if (!json_is_object(root)) {
        qn_api_fail(err, 400, NULL, "the body must be a JSON object");
        json_decref(root);
        return NULL;
    }
    return root;
}

typedef struct parse {
    json_t *root;
    qn_api_error *err;
    const qn_request_limits *limits;
} parse;

// A field that is there and not null.
static json_t *field(const parse *p, const char *name) {
    json_t *v = json_object_get(p->root, name);
    return v && !json_is_null(v) ? v : NULL;
}

static bool wrong_type(const parse *p, const char *name, const char *what) {
    return qn_api_fail(p->err, 400, name, "%s must be %s", name, what);
}

static bool get_bool(const parse *p, const char *name, bool *out) {
    json_t *v = field(p, name);
    if (!v) return true;
    if (!json_is_boolean(v)) return wrong_type(p, name, "a boolean");
    *out = json_is_true(v);
    return true;
}

static bool get_int(const parse *p, const char *name, int64_t min, int64_t max, int32_t *out) {
    json_t *v = field(p, name);
    if (!v) return true;
    if (!json_is_integer(v)) return wrong_type(p, name, "an integer");
    json_int_t n = json_integer_value(v);
    if (n < min || n > max) {
        return qn_api_fail(p->err, 400, name, "%s must be between %lld and %lld, it is %lld", name,
                           (long long)min, (long long)max, (long long)n);
    }
    *out = (int32_t)n;
    return true;
}

static bool get_float(const parse *p, const char *name, double min, bool min_open, double max,
                      float *out) {
    json_t *v = field(p, name);
    if (!v) return true;
    if (!json_is_number(v)) return wrong_type(p, name, "a number");
    double n = json_number_value(v);
    // What is positive here must be positive as a float too.
    if (!isfinite(n) || n < min || (min_open && !((float)n > min)) || n > max) {
        return qn_api_fail(p->err, 400, name, "%s must be %s %g and at most %g", name,
                           min_open ? "above" : "at least", min, max);
    }
    *out = (float)n;
    return true;
}

static bool get_string(const parse *p, const char *name, const char **out) {
    json_t *v = field(p, name);
    if (!v) return true;
    if (!json_is_string(v)) return wrong_type(p, name, "a string");
    *out = json_string_value(v);
    return true;
}

// ids: an array of token ids -> malloc'ed.
static bool get_ids(const parse *p, const char *name, const json_t *array, int32_t **out,
                    size_t *n_out) {
    size_t n = json_array_size(array);
    int32_t *ids = malloc((n ? n : 1) * sizeof *ids);
    if (!ids) return qn_api_fail(p->err, 503, NULL, "out of memory");
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(array, i);
        json_int_t id = json_is_integer(v) ? json_integer_value(v) : -1;
        if (id < 0 || id >= p->limits->vocab_size) {
            free(ids);
            return qn_api_fail(p->err, 400, name,
                               "%s: element %zu is not a token id between 0 and %d", name, i,
                               p->limits->vocab_size - 1);
        }
        ids[i] = (int32_t)id;
    }
    *out = ids;
    *n_out = n;
    return true;
}

// ---------------------------------------------------------------- fields that are not supported

typedef enum neutral { // which values change nothing
    NEUTRAL_NULL,
    NEUTRAL_FALSE,
    NEUTRAL_TRUE,
    NEUTRAL_EMPTY, // "", [], {}
    NEUTRAL_ZERO,
    NEUTRAL_ONE,
} neutral;

static const struct {
    const char *name;
    neutral neutral;
} refused[] = {
    {"length_penalty", NEUTRAL_ONE},
    {"use_beam_search", NEUTRAL_FALSE},
    {"functions", NEUTRAL_EMPTY},
    {"guided_json", NEUTRAL_NULL},
    {"guided_regex", NEUTRAL_NULL},
    {"guided_choice", NEUTRAL_NULL},
    {"guided_grammar", NEUTRAL_NULL},
    {"structured_outputs", NEUTRAL_NULL},
    {"structural_tag", NEUTRAL_NULL},
    {"grammar", NEUTRAL_EMPTY},
    {"suffix", NEUTRAL_EMPTY},
    {"audio", NEUTRAL_NULL},
    {"moderation", NEUTRAL_NULL},
    {"web_search_options", NEUTRAL_NULL},
    {"truncate_prompt_tokens", NEUTRAL_NULL},
    {"return_tokens_as_token_ids", NEUTRAL_FALSE},
    {"prompt_embeds", NEUTRAL_NULL},
    {"logits_processors", NEUTRAL_EMPTY},
    {"documents", NEUTRAL_EMPTY},
    {"chat_template", NEUTRAL_NULL},
    {"mm_processor_kwargs", NEUTRAL_EMPTY},
    {"media_io_kwargs", NEUTRAL_EMPTY},
    {"kv_transfer_params", NEUTRAL_EMPTY},
    {"vllm_xargs", NEUTRAL_EMPTY},
    {"thinking_token_budget", NEUTRAL_NULL},
    {"include_reasoning", NEUTRAL_TRUE},
    {"parallel_tool_calls", NEUTRAL_TRUE},
    {"spaces_between_special_tokens", NEUTRAL_TRUE},
    {"early_stopping", NEUTRAL_FALSE},
};

static bool is_neutral(const json_t *v, neutral n) {
    switch (n) {
    case NEUTRAL_NULL:
        return false;
    case NEUTRAL_FALSE:
        return json_is_false(v);
    case NEUTRAL_TRUE:
        return json_is_true(v);
    case NEUTRAL_EMPTY:
        return (json_is_string(v) && json_string_length(v) == 0) ||
               (json_is_array(v) && json_array_size(v) == 0) ||
               (json_is_object(v) && json_object_size(v) == 0);
    case NEUTRAL_ZERO:
        return json_is_number(v) && !(json_number_value(v) < 0) && !(json_number_value(v) > 0);
    case NEUTRAL_ONE:
        return json_is_number(v) && !(json_number_value(v) < 1) && !(json_number_value(v) > 1);
    }
    return false;
}

static bool unsupported(const parse *p, const char *name) {
    p->err->code = "unsupported_parameter";
    return qn_api_fail(p->err, 400, name, "%s is not supported by this server", name);
}

static bool check_refused(const parse *p) {
    for (size_t i = 0; i < QN_COUNT(refused); i++) {
        json_t *v = field(p, refused[i].name);
        if (!v || is_neutral(v, refused[i].neutral)) continue;
        return unsupported(p, refused[i].name);
    }
    json_t *v = field(p, "response_format");
    if (v) {
        const json_t *type = json_object_get(v, "type");
        if (!json_is_string(type)) {
            return wrong_type(p, "response_format", "an object with a type");
        }
        if (strcmp(json_string_value(type), "text") != 0) return unsupported(p, "response_format");
    }
    v = field(p, "tool_choice");
    if (v && !(json_is_string(v) && (strcmp(json_string_value(v), "none") == 0 ||
                                     strcmp(json_string_value(v), "auto") == 0))) {
        return unsupported(p, "tool_choice");
    }
    v = field(p, "function_call");
    if (v && !(json_is_string(v) && (strcmp(json_string_value(v), "none") == 0 ||
                                     strcmp(json_string_value(v), "auto") == 0))) {
        return unsupported(p, "function_call");
    }
    v = field(p, "modalities");
    if (v) {
        if (!json_is_array(v)) return wrong_type(p, "modalities", "an array");
        for (size_t i = 0; i < json_array_size(v); i++) {
            const char *s = json_string_value(json_array_get(v, i));
            if (!s || strcmp(s, "text") != 0) return unsupported(p, "modalities");
        }
    }
    v = field(p, "verbosity");
    if (v && !(json_is_string(v) && strcmp(json_string_value(v), "medium") == 0)) {
        return unsupported(p, "verbosity");
    }
    return true;
}

// ---------------------------------------------------------------- messages

static bool message_fail(const parse *p, size_t index, const char *what) {
    char name[64];
    snprintf(name, sizeof name, "messages[%zu]", index);
    return qn_api_fail(p->err, 400, name, "%s: %s", name, what);
}

// Content parts are joined to one string: the text is what a template gets to see.
static json_t *join_parts(const parse *p, size_t index, const json_t *parts) {
    qn_buf text = {0};
    size_t n = json_array_size(parts);
    json_t *out = NULL;
    if (n > QN_REQUEST_MAX_PARTS) {
        message_fail(p, index, "too many content parts");
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *part = json_array_get(parts, i);
        const char *type = json_string_value(json_object_get(part, "type"));
        const json_t *t = json_object_get(part, "text");
        if (!type) {
            message_fail(p, index, "a content part has no type");
            goto end;
        }
        if (strcmp(type, "text") != 0) {
            char what[120];
            snprintf(what, sizeof what, "content parts of type %.40s are not supported, only text",
                     type);
            p->err->code = "unsupported_content";
            message_fail(p, index, what);
            goto end;
        }
        if (!json_is_string(t)) {
            message_fail(p, index, "a text part's text must be a string");
            goto end;
        }
        if (i) qn_buf_putc(&text, '\n');
        qn_buf_append(&text, json_string_value(t), json_string_length(t));
    }
    if (!text.failed) out = json_stringn(text.data ? text.data : "", text.len);
    if (!out) qn_api_fail(p->err, 503, NULL, "out of memory");
end:
    qn_buf_free(&text);
    return out;
}

// Tool calls of an earlier answer; templates expect the arguments as an object, the API has them as a
// string of JSON.
static bool fix_tool_calls(const parse *p, size_t index, json_t *calls) {
    if (!json_is_array(calls)) return message_fail(p, index, "tool_calls must be an array");
    if (json_array_size(calls) > QN_REQUEST_MAX_TOOLS) {
        return message_fail(p, index, "too many tool calls");
    }
    for (size_t i = 0; i < json_array_size(calls); i++) {
        json_t *function = json_object_get(json_array_get(calls, i), "function");
        if (!json_is_string(json_object_get(function, "name"))) {
            return message_fail(p, index, "a tool call needs function.name");
        }
        json_t *args = json_object_get(function, "arguments");
        if (!args || !json_is_string(args)) continue;
        size_t len = json_string_length(args);
        json_t *parsed = NULL;
        if (len == 0) {
            parsed = json_object();
        } else {
            qn_api_error inner = {0};
            parsed = qn_request_json(json_string_value(args), len, &inner);
            if (!parsed && inner.status != 503) {
                return message_fail(p, index, "a tool call's arguments must be a JSON object");
            }
        }
        if (!parsed || json_object_set_new(function, "arguments", parsed) != 0) {
            return qn_api_fail(p->err, 503, NULL, "out of memory");
        }
    }
    return true;
}

static bool one_message(const parse *p, size_t index, json_t *in, json_t *out) {
    static const char *const texts[] = {"name", "tool_call_id", "reasoning_content", "reasoning"};
    if (!json_is_object(in)) return message_fail(p, index, "must be an object");
    json_t *role = json_object_get(in, "role");
    if (!json_is_string(role) || json_string_length(role) == 0 || json_string_length(role) > 64) {
        return message_fail(p, index, "role must be a string");
    }
    bool ok = json_object_set(out, "role", role) == 0;
    json_t *content = json_object_get(in, "content");
    json_t *calls = json_object_get(in, "tool_calls");
    if (json_is_null(calls)) calls = NULL;
    if (json_is_string(content)) {
        ok = ok && json_object_set(out, "content", content) == 0;
    } else if (json_is_array(content)) {
        json_t *text = join_parts(p, index, content);
        if (!text) return false;
        if (json_object_set_new(out, "content", text) != 0) ok = false; // takes text in any case
    } else if (!content || json_is_null(content)) {
        if (strcmp(json_string_value(role), "assistant") != 0) {
            return message_fail(p, index, "content is missing");
        }
        ok = ok && json_object_set_new(out, "content", json_string("")) == 0;
    } else {
        return message_fail(p, index, "content must be a string or an array of parts");
    }
    for (size_t i = 0; i < QN_COUNT(texts); i++) {
        json_t *v = json_object_get(in, texts[i]);
        if (!v || json_is_null(v)) continue;
        if (!json_is_string(v)) return message_fail(p, index, "a text field is not a string");
        ok = ok && json_object_set(out, texts[i], v) == 0;
    }
    static const char *const never[] = {"function_call", "audio"};
    for (size_t i = 0; i < QN_COUNT(never); i++) {
        json_t *v = json_object_get(in, never[i]);
        if (!v || json_is_null(v)) continue;
        char what[64];
        snprintf(what, sizeof what, "%s is not supported", never[i]);
        return message_fail(p, index, what);
    }
    if (calls && json_is_array(calls) && json_array_size(calls) == 0) calls = NULL;
    if (calls) {
        if (!fix_tool_calls(p, index, calls)) return false;
        ok = ok && json_object_set(out, "tool_calls", calls) == 0;
    }
    return ok ? true : qn_api_fail(p->err, 503, NULL, "out of memory");
}

static bool parse_messages(const parse *p, qn_gen_request *r) {
    json_t *in = field(p, "messages");
    if (!in) return qn_api_fail(p->err, 400, "messages", "messages is required");
    if (!json_is_array(in)) return wrong_type(p, "messages", "an array");
    size_t n = json_array_size(in);
    if (n == 0) return qn_api_fail(p->err, 400, "messages", "messages is empty");
    if (n > QN_REQUEST_MAX_MESSAGES) {
        return qn_api_fail(p->err, 400, "messages", "more than %d messages",
                           QN_REQUEST_MAX_MESSAGES);
    }
    r->messages = json_array();
    if (!r->messages) return qn_api_fail(p->err, 503, NULL, "out of memory");
    for (size_t i = 0; i < n; i++) {
        json_t *out = json_object();
        if (!out || json_array_append_new(r->messages, out) != 0) {
            return qn_api_fail(p->err, 503, NULL, "out of memory");
        }
        if (!one_message(p, i, json_array_get(in, i), out)) return false;
    }
    return true;
}

static bool parse_tools(const parse *p, qn_gen_request *r) {
    json_t *v = field(p, "tools");
    if (!v) return true;
    if (!json_is_array(v)) return wrong_type(p, "tools", "an array");
    if (json_array_size(v) == 0) return true;
    if (json_array_size(v) > QN_REQUEST_MAX_TOOLS) {
        return qn_api_fail(p->err, 400, "tools", "more than %d tools", QN_REQUEST_MAX_TOOLS);
    }
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *tool = json_array_get(v, i);
        const char *type = json_string_value(json_object_get(tool, "type"));
        const json_t *function = json_object_get(tool, "function");
        if (!type || strcmp(type, "function") != 0 ||
            !json_is_string(json_object_get(function, "name"))) {
            return qn_api_fail(p->err, 400, "tools",
                               "tools[%zu] must have type \"function\" and a function with a name",
                               i);
        }
    }
    r->tools = json_incref(v);
    return true;
}

static bool parse_kwargs(const parse *p, qn_gen_request *r) {
    static const char *const reserved[] = {"messages", "tools", "add_generation_prompt", "bos_token",
                                           "eos_token", "documents"};
    json_t *v = field(p, "chat_template_kwargs");
    if (v) {
        if (!json_is_object(v)) return wrong_type(p, "chat_template_kwargs", "an object");
        for (size_t i = 0; i < QN_COUNT(reserved); i++) {
            if (json_object_get(v, reserved[i])) {
                return qn_api_fail(p->err, 400, "chat_template_kwargs",
                                   "chat_template_kwargs may not set %s", reserved[i]);
            }
        }
    }
    const char *effort = NULL;
    if (!get_string(p, "reasoning_effort", &effort)) return false;
    if (!v && !effort) return true;
    r->template_kwargs = v ? qn_json_copy(v) : json_object();
    if (!r->template_kwargs ||
        (effort && !json_object_get(r->template_kwargs, "reasoning_effort") &&
         json_object_set_new(r->template_kwargs, "reasoning_effort", json_string(effort)) != 0)) {
        return qn_api_fail(p->err, 503, NULL, "out of memory");
    }
    return true;
}

// ---------------------------------------------------------------- prompts

static bool parse_prompt(const parse *p, qn_gen_request *r) {
    json_t *v = field(p, "prompt");
    if (!v) return qn_api_fail(p->err, 400, "prompt", "prompt is required");
    bool list = json_is_array(v) && (json_is_string(json_array_get(v, 0)) ||
                                     json_is_array(json_array_get(v, 0)));
    if (!json_is_string(v) && !json_is_array(v)) {
        return wrong_type(p, "prompt", "a string, an array of strings or of token ids");
    }
    if (json_is_array(v) && json_array_size(v) == 0) {
        return qn_api_fail(p->err, 400, "prompt", "prompt is empty");
    }
    size_t n = list ? json_array_size(v) : 1;
    if (n > QN_REQUEST_MAX_CHOICES) {
        return qn_api_fail(p->err, 400, "prompt", "more than %d prompts", QN_REQUEST_MAX_CHOICES);
    }
    r->prompts = calloc(n, sizeof *r->prompts);
    if (!r->prompts) return qn_api_fail(p->err, 503, NULL, "out of memory");
    r->n_prompts = n;
    for (size_t i = 0; i < n; i++) {
        json_t *one = list ? json_array_get(v, i) : v;
        if (json_is_string(one)) {
            r->prompts[i].text = json_string_value(one);
            r->prompts[i].len = json_string_length(one);
        } else if (json_is_array(one) && json_array_size(one) > 0) {
            if (json_array_size(one) > (size_t)p->limits->max_model_len) {
                p->err->code = "context_length_exceeded";
                return qn_api_fail(p->err, 400, "prompt",
                                   "the prompt has %zu tokens, the model's context is %d tokens",
                                   json_array_size(one), p->limits->max_model_len);
            }
            if (!get_ids(p, "prompt", one, &r->prompts[i].ids, &r->prompts[i].n_ids)) return false;
        } else {
            return wrong_type(p, "prompt", "a string, an array of strings or of token ids");
        }
    }
    return true;
}

// ---------------------------------------------------------------- the rest

static bool parse_stops(const parse *p, qn_gen_request *r) {
    json_t *v = field(p, "stop");
    if (v && !json_is_string(v) && !json_is_array(v)) {
        return wrong_type(p, "stop", "a string or an array of strings");
    }
    size_t n = json_is_array(v) ? json_array_size(v) : v ? 1 : 0;
    if (n > QN_REQUEST_MAX_STOPS) {
        return qn_api_fail(p->err, 400, "stop", "more than %d stop strings", QN_REQUEST_MAX_STOPS);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *s = json_is_array(v) ? json_array_get(v, i) : v;
        if (!json_is_string(s)) return wrong_type(p, "stop", "a string or an array of strings");
        size_t len = json_string_length(s);
        if (len == 0) {
            return qn_api_fail(p->err, 400, "stop", "a stop string may not be empty");
        }
        if (len > QN_REQUEST_MAX_STOP_BYTES) {
            return qn_api_fail(p->err, 400, "stop", "a stop string is longer than %d bytes",
                               QN_REQUEST_MAX_STOP_BYTES);
        }
        r->stops[r->n_stops++] = (qn_str){json_string_value(s), len};
    }
    v = field(p, "stop_token_ids");
    if (!v) return true;
    if (!json_is_array(v)) return wrong_type(p, "stop_token_ids", "an array of token ids");
    if (json_array_size(v) > QN_REQUEST_MAX_STOP_IDS) {
        return qn_api_fail(p->err, 400, "stop_token_ids", "more than %d stop token ids",
                           QN_REQUEST_MAX_STOP_IDS);
    }
    int32_t *ids = NULL;
    if (!get_ids(p, "stop_token_ids", v, &ids, &r->n_stop_ids)) return false;
    memcpy(r->stop_ids, ids, r->n_stop_ids * sizeof *ids);
    free(ids);
    return true;
}

static bool parse_logprobs(const parse *p, qn_gen_request *r) {
    if (!get_int(p, "prompt_logprobs", 0, p->limits->max_logprobs, &r->n_prompt_logprobs)) return false;
    if (r->n_prompt_logprobs >= 0 && r->stream) {
        return qn_api_fail(p->err, 400, "prompt_logprobs",
                           "prompt_logprobs are not available when stream is true");
    }
    if (!r->chat) return get_int(p, "logprobs", 0, p->limits->max_logprobs, &r->n_logprobs);
    bool wanted = false;
    int32_t top = -1;
    if (!get_bool(p, "logprobs", &wanted) ||
        !get_int(p, "top_logprobs", 0, p->limits->max_logprobs, &top)) {
        return false;
    }
    if (top > 0 && !wanted) {
        return qn_api_fail(p->err, 400, "top_logprobs", "top_logprobs needs logprobs to be true");
    }
    if (wanted) r->n_logprobs = QN_MAX(top, 0);
    return true;
}

static bool parse_sampling(const parse *p, qn_gen_request *r) {
    const qn_request_limits *l = p->limits;
    r->temperature = l->temperature;
    r->top_p = l->top_p;
    r->min_p = l->min_p;
    r->top_k = l->top_k;
    if (!get_float(p, "temperature", 0, false, 100, &r->temperature) ||
        !get_float(p, "top_p", 0, true, 1, &r->top_p) ||
        !get_float(p, "min_p", 0, false, 1, &r->min_p) ||
        !get_int(p, "top_k", -1, INT32_MAX, &r->top_k)) {
        return false;
    }
    if (r->top_k < 0) r->top_k = 0;
    // A temperature that is no longer a number when divided by is greedy.
    if (r->temperature < 1e-5f) r->temperature = 0;
    json_t *seed = field(p, "seed");
    if (seed) {
        if (!json_is_integer(seed)) return wrong_type(p, "seed", "an integer");
        r->has_seed = true;
        r->seed = (uint64_t)json_integer_value(seed);
    }
    return true;
}

// A decimal number without sign or leading zeros.
static bool parse_id(const char *s, int32_t vocab_size, int32_t *out) {
    int64_t n = 0;
    size_t i = 0;
    for (; s[i] >= '0' && s[i] <= '9' && i < 10; i++) n = n * 10 + (s[i] - '0');
    if (i == 0 || s[i] != '\0' || (s[0] == '0' && i > 1) || n >= vocab_size) return false;
    *out = (int32_t)n;
    return true;
}

static bool parse_bias(const parse *p, qn_gen_request *r) {
    json_t *v = field(p, "logit_bias"), *value;
    const char *key;
    if (!v) return true;
    if (!json_is_object(v)) return wrong_type(p, "logit_bias", "an object");
    size_t n = json_object_size(v);
    if (n == 0) return true;
    if (n > QN_MAX_BIASES) {
        return qn_api_fail(p->err, 400, "logit_bias", "logit_bias has more than %d entries",
                           QN_MAX_BIASES);
    }
    r->bias_ids = calloc(n, sizeof *r->bias_ids);
    r->biases = calloc(n, sizeof *r->biases);
    if (!r->bias_ids || !r->biases) return qn_api_fail(p->err, 503, NULL, "out of memory");
    json_object_foreach(v, key, value) {
        double x = json_is_number(value) ? json_number_value(value) : NAN;
        if (!parse_id(key, p->limits->vocab_size, &r->bias_ids[r->n_biases])) {
            return qn_api_fail(p->err, 400, "logit_bias",
                               "logit_bias: \"%.32s\" is not a token id between 0 and %d", key,
                               p->limits->vocab_size - 1);
        }
        if (!(x >= -100 && x <= 100)) {
            return qn_api_fail(p->err, 400, "logit_bias",
                               "logit_bias: the value of \"%.32s\" must be between -100 and 100",
                               key);
        }
        r->biases[r->n_biases++] = (float)x;
    }
    return true;
}

static bool parse_allowed(const parse *p, qn_gen_request *r) {
    json_t *v = field(p, "allowed_token_ids");
    if (!v) return true;
    size_t n = json_array_size(v);
    if (!json_is_array(v) || n == 0 || n > (size_t)p->limits->vocab_size) {
        return wrong_type(p, "allowed_token_ids",
                          "an array of token ids, not empty and no longer than the vocabulary");
    }
    return get_ids(p, "allowed_token_ids", v, &r->allowed_ids, &r->n_allowed_ids);
}

static bool parse_bad_words(const parse *p, qn_gen_request *r) {
    json_t *v = field(p, "bad_words");
    if (!v) return true;
    if (!json_is_array(v)) return wrong_type(p, "bad_words", "an array of strings");
    if (json_array_size(v) > QN_REQUEST_MAX_BAD_WORDS) {
        return qn_api_fail(p->err, 400, "bad_words", "more than %d bad words",
                           QN_REQUEST_MAX_BAD_WORDS);
    }
    for (size_t i = 0; i < json_array_size(v); i++) {
        const json_t *s = json_array_get(v, i);
        if (!json_is_string(s)) return wrong_type(p, "bad_words", "an array of strings");
        qn_str word = {json_string_value(s), json_string_length(s)};
        if (word.len > QN_REQUEST_MAX_BAD_WORD_BYTES) {
            return qn_api_fail(p->err, 400, "bad_words", "a bad word is longer than %d bytes",
                               QN_REQUEST_MAX_BAD_WORD_BYTES);
        }
        // With and without a space before it: what is there already does not matter.
        while (word.len && (*word.data == ' ' || (*word.data >= '\t' && *word.data <= '\r'))) {
            word.data++;
            word.len--;
        }
        if (word.len == 0) {
            return qn_api_fail(p->err, 400, "bad_words", "a bad word may not be empty or blank");
        }
        r->bad_words[r->n_bad_words++] = word;
    }
    return true;
}

static bool parse_penalties(const parse *p, qn_gen_request *r) {
    r->repetition_penalty = p->limits->repetition_penalty > 0 ? p->limits->repetition_penalty : 1;
    return get_float(p, "presence_penalty", -2, false, 2, &r->presence_penalty) &&
           get_float(p, "frequency_penalty", -2, false, 2, &r->frequency_penalty) &&
           get_float(p, "repetition_penalty", 0, true, QN_MAX_REPETITION_PENALTY,
                     &r->repetition_penalty) &&
           parse_bias(p, r) && parse_allowed(p, r) && parse_bad_words(p, r);
}

bool qn_request_id_valid(qn_str id) {
    if (id.len == 0 || id.len > 128) return false;
    for (size_t i = 0; i < id.len; i++) {
        char c = id.data[i];
        bool ok = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                  c == '.' || c == '_' || c == '-';
        if (!ok) return false;
    }
    return true;
}

static bool parse_request_id(const parse *p, qn_gen_request *r) {
    if (!get_string(p, "request_id", &r->request_id)) return false;
    if (r->request_id && !qn_request_id_valid(qn_str_from(r->request_id))) {
        return qn_api_fail(p->err, 400, "request_id",
                           "request_id must be 1 to 128 letters, digits, dots, dashes and "
                           "underscores");
    }
    return true;
}

static bool parse_counts(const parse *p, qn_gen_request *r) {
    int64_t most = p->limits->max_model_len;
    int32_t max_completion = 0, best_of = 0;
    r->n = 1;
    const bool may_be_empty = r->echo && !r->chat;
    if (!get_int(p, "max_tokens", may_be_empty ? 0 : 1, INT32_MAX, &r->max_tokens) ||
        !get_int(p, "max_completion_tokens", 1, INT32_MAX, &max_completion) ||
        !get_int(p, "min_tokens", 0, most, &r->min_tokens) ||
        !get_int(p, "n", 1, QN_REQUEST_MAX_CHOICES, &r->n) ||
        !get_int(p, "best_of", 1, QN_REQUEST_MAX_CHOICES, &best_of) ||
        !get_int(p, "priority", INT32_MIN, INT32_MAX, &r->priority)) {
        return false;
    }
    const char *name = "max_tokens";
    if (r->chat && max_completion) {
        r->max_tokens = max_completion;
        name = "max_completion_tokens";
    }
    if (!r->chat && r->max_tokens == 0) {
        r->echo_only = field(p, "max_tokens") != NULL;
        r->max_tokens = r->echo_only ? 1 : 16; // the API's default
    }
    if (r->max_tokens == 0) r->likely_max_tokens = p->limits->max_new_tokens;
    if (r->max_tokens >= most) {
        p->err->code = "context_length_exceeded";
        return qn_api_fail(p->err, 400, name,
                           "%s is %d, which with a prompt cannot fit the model's context of %lld "
                           "tokens", name, r->max_tokens, (long long)most);
    }
    if (r->max_tokens && r->min_tokens > (r->echo_only ? 0 : r->max_tokens)) {
        return qn_api_fail(p->err, 400, "min_tokens", "min_tokens %d is more than max_tokens %d",
                           r->min_tokens, r->echo_only ? 0 : r->max_tokens);
    }
    if (best_of && best_of != r->n) return unsupported(p, "best_of");
    if ((size_t)r->n * r->n_prompts > QN_REQUEST_MAX_CHOICES) {
        return qn_api_fail(p->err, 400, "n", "n times the number of prompts is more than %d",
                           QN_REQUEST_MAX_CHOICES);
    }
    return true;
}

static bool parse_stream(const parse *p, qn_gen_request *r) {
    if (!get_bool(p, "stream", &r->stream)) return false;
    json_t *v = field(p, "stream_options");
    if (!v) return true;
    if (!json_is_object(v)) return wrong_type(p, "stream_options", "an object");
    if (!r->stream) {
        return qn_api_fail(p->err, 400, "stream_options",
                           "stream_options needs stream to be true");
    }
    const parse inner = {v, p->err, p->limits};
    return get_bool(&inner, "include_usage", &r->include_usage) &&
           get_bool(&inner, "continuous_usage_stats", &r->continuous_usage);
}

static bool parse_salt(const parse *p, qn_gen_request *r) {
    const char *user = NULL;
    if (!get_string(p, "cache_salt", &r->cache_salt) || !get_string(p, "user", &user)) return false;
    const char *salt = r->cache_salt;
    if (salt && (strlen(salt) == 0 || strlen(salt) > 128 || strpbrk(salt, "@/\\"))) {
        return qn_api_fail(p->err, 400, "cache_salt",
                           "cache_salt must have 1 to 128 characters, none of them @, / or \\");
    }
    return true;
}

static bool parse_flags(const parse *p, qn_gen_request *r) {
    r->skip_special = true;
    r->add_special_tokens = -1;
    bool add = false;
    if (!get_bool(p, "include_stop_str_in_output", &r->include_stop) ||
        !get_bool(p, "ignore_eos", &r->ignore_eos) ||
        !get_bool(p, "skip_special_tokens", &r->skip_special) ||
        !get_bool(p, "add_special_tokens", &add)) {
        return false;
    }
    if (field(p, "add_special_tokens")) r->add_special_tokens = add;
    // In a chat they are the template's business; a second BOS is nobody's wish.
    if (r->chat && add) return unsupported(p, "add_special_tokens");
    if (!get_bool(p, "return_token_ids", &r->return_ids) || !get_bool(p, "echo", &r->echo)) {
        return false;
    }
    if (!r->chat) return true;
    if (!get_bool(p, "continue_final_message", &r->continue_final)) return false;
    r->add_generation_prompt = !r->continue_final;
    if (!get_bool(p, "add_generation_prompt", &r->add_generation_prompt)) return false;
    const json_t *last = json_array_get(r->messages, json_array_size(r->messages) - 1);
    const char *role = json_string_value(json_object_get(last, "role"));
    if (r->echo && role && strcmp(role, "assistant") == 0) {
        const json_t *text = json_object_get(last, "content");
        r->last_message = (qn_str){json_string_value(text), json_string_length(text)};
    }
    if (!r->continue_final) return true;
    if (r->add_generation_prompt) {
        return qn_api_fail(p->err, 400, "continue_final_message",
                           "continue_final_message and add_generation_prompt exclude each other");
    }
    if (!role || strcmp(role, "assistant") != 0 || json_object_get(last, "tool_calls")) {
        return qn_api_fail(p->err, 400, "continue_final_message",
                           "continue_final_message needs a last message of the assistant's, without "
                           "tool calls");
    }
    return true;
}

qn_gen_request *qn_gen_request_parse(const qn_request_limits *limits, bool chat, const char *body,
                                     size_t len, qn_api_error *err) {
    parse p = {.err = err, .limits = limits};
    p.root = qn_request_json(body, len, err);
    if (!p.root) return NULL;
    qn_gen_request *r = calloc(1, sizeof *r);
    if (!r) {
        json_decref(p.root);
        qn_api_fail(err, 503, NULL, "out of memory");
        return NULL;
    }
    r->root = p.root;
    r->chat = chat;
    r->n_logprobs = r->n_prompt_logprobs = -1;
    r->n_prompts = 1;
    bool ok = get_string(&p, "model", &r->model) && check_refused(&p) &&
              (chat ? parse_messages(&p, r) && parse_tools(&p, r) && parse_kwargs(&p, r)
                    : parse_prompt(&p, r)) &&
              parse_flags(&p, r) && parse_sampling(&p, r) && parse_penalties(&p, r) &&
              parse_request_id(&p, r) && parse_counts(&p, r) &&
              parse_stops(&p, r) && parse_stream(&p, r) && parse_logprobs(&p, r) &&
              parse_salt(&p, r);
    if (!ok) {
        qn_gen_request_free(r);
        return NULL;
    }
    return r;
}

void qn_gen_request_free(qn_gen_request *r) {
    if (!r) return;
    for (size_t i = 0; r->prompts && i < r->n_prompts; i++) {
        free(r->prompts[i].ids);
        qn_buf_free(&r->prompts[i].echo);
    }
    free(r->prompts);
    free(r->bias_ids);
    free(r->biases);
    free(r->allowed_ids);
    qn_ids_free(&r->bad_ids);
    json_decref(r->messages);
    json_decref(r->tools);
    json_decref(r->template_kwargs);
    json_decref(r->root);
    free(r);
}

bool qn_tokenize_request_parse(const qn_request_limits *limits, const char *body, size_t len,
                               qn_tokenize_request *out, qn_api_error *err) {
    *out = (qn_tokenize_request){.add_special_tokens = true};
    parse p = {.err = err, .limits = limits};
    p.root = out->root = qn_request_json(body, len, err);
    if (!p.root) return false;
    bool ok = get_string(&p, "model", &out->model) &&
              get_bool(&p, "return_token_strs", &out->return_token_strs);
    if (ok && field(&p, "messages")) {
        out->chat = qn_gen_request_parse(limits, true, body, len, err);
        ok = out->chat != NULL;
    } else if (ok) {
        ok = get_bool(&p, "add_special_tokens", &out->add_special_tokens) &&
             get_string(&p, "prompt", &out->prompt);
        if (ok && !out->prompt) ok = qn_api_fail(err, 400, "prompt", "prompt is required");
        if (ok) out->len = json_string_length(json_object_get(p.root, "prompt"));
    }
    if (!ok) qn_tokenize_request_free(out);
    return ok;
}

void qn_tokenize_request_free(qn_tokenize_request *r) {
    qn_gen_request_free(r->chat);
    json_decref(r->root);
    *r = (qn_tokenize_request){0};
}

bool qn_detokenize_request_parse(const qn_request_limits *limits, const char *body, size_t len,
                                 qn_detokenize_request *out, qn_api_error *err) {
    *out = (qn_detokenize_request){0};
    parse p = {.err = err, .limits = limits};
    p.root = out->root = qn_request_json(body, len, err);
    if (!p.root) return false;
    json_t *tokens = field(&p, "tokens");
    bool ok = get_string(&p, "model", &out->model);
    if (ok && !json_is_array(tokens)) ok = wrong_type(&p, "tokens", "an array of token ids");
    ok = ok && get_ids(&p, "tokens", tokens, &out->ids, &out->n_ids);
    if (!ok) qn_detokenize_request_free(out);
    return ok;
}

void qn_detokenize_request_free(qn_detokenize_request *r) {
    free(r->ids);
    json_decref(r->root);
    *r = (qn_detokenize_request){0};
}
