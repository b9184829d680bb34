// SPDX-License-Identifier: Apache-2.0
// A conversation in the terminal, with a model in this process or with a server.
#include "cli/commands.h"

#include "base/checked.h"
#include "base/utf8.h"
#include "cli/engine_flags.h"
#include "cli/local.h"
#include "engine/prompt.h"
#include "http/client.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct chat {
    json_t *messages; // the conversation so far
    const char *system, *model_name, *prompt, *api_key;
    int64_t max_tokens;
    qn_sampling_flags sampling;
    qn_engine *engine; // or:
    qn_url url;
    bool remote;
} chat;

static bool add_message(chat *c, const char *role, const char *text, size_t len) {
    json_t *content = json_stringn(text, len);
    json_t *m = content ? json_pack("{s:s, s:o}", "role", role, "content", content) : NULL;
    return m && json_array_append_new(c->messages, m) == 0;
}

static qn_status answer_local(chat *c, qn_buf *reply, qn_error *err) {
    const qn_engine_info *info = qn_engine_get_info(c->engine);
    json_t *variables = json_pack("{s:O, s:b}", "messages", c->messages, "add_generation_prompt", 1);
    if (!variables) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    qn_ids ids = {0};
    qn_local_result result = {0};
    qn_status st = qn_prompt_from_chat(info, variables, (size_t)info->max_model_len, &ids, NULL, err);
    if (st == QN_OK) {
        qn_request request = {
            .prompt = ids.data,
            .n_prompt = (int32_t)ids.len,
            .max_tokens = (int32_t)c->max_tokens,
            .n_logprobs = -1,
        };
        qn_sampling_flags_apply(&c->sampling, info, &request);
        st = qn_local_run(c->engine, &request, false, true, qn_print_text, NULL, &result, err);
    }
    if (st == QN_OK) qn_buf_append(reply, result.text.data ? result.text.data : "", result.text.len);
    qn_local_result_free(&result);
    qn_ids_free(&ids);
    json_decref(variables);
    return st;
}

typedef struct remote_answer {
    qn_buf *reply;
    qn_buf body; // of an answer that is not a stream: an error
    int status;
    bool complete; // the stream came to its own end
    qn_error error;
} remote_answer;

static void on_head(void *user, const qn_http_head *head) {
    ((remote_answer *)user)->status = head->status;
}

static void on_body(void *user, qn_str piece) {
    remote_answer *a = user;
    a->body.limit = 1 << 20;
    qn_buf_append(&a->body, piece.data, piece.len);
}

static void on_event(void *user, qn_str name, qn_str data) {
    (void)name;
    remote_answer *a = user;
    if (qn_str_is(data, "[DONE]")) {
        a->complete = true;
        return;
    }
    json_t *event = json_loadb(data.data, data.len, JSON_ALLOW_NUL, NULL);
    if (!json_is_object(event) && a->error.status == QN_OK) {
        qn_fail(&a->error, QN_ERR_FORMAT, "the server sent an event that is not a JSON object");
    }
    const char *problem =
        json_string_value(json_object_get(json_object_get(event, "error"), "message"));
    if (problem) qn_fail(&a->error, QN_ERR_INVALID, "%s", problem);
    const json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
    const json_t *text = json_object_get(json_object_get(choice, "delta"), "content");
    if (json_is_string(text)) {
        qn_print_text(NULL, json_string_value(text), json_string_length(text));
        qn_buf_append(a->reply, json_string_value(text), json_string_length(text));
    }
    json_decref(event);
}

static void on_done(void *user, const qn_error *error) {
    remote_answer *a = user;
    if (error) qn_fail(&a->error, error->status, "%s", error->message);
}

static qn_status answer_remote(chat *c, qn_buf *reply, qn_error *err) {
    json_t *body = json_pack("{s:s, s:O, s:b}", "model", c->model_name ? c->model_name : "",
                             "messages", c->messages, "stream", 1);
    if (!body) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    if (!c->model_name) json_object_del(body, "model");
    if (c->max_tokens > 0) json_object_set_new(body, "max_tokens", json_integer(c->max_tokens));
    if (c->sampling.seed >= 0) json_object_set_new(body, "seed", json_integer(c->sampling.seed));
    if (c->sampling.temperature >= 0) json_object_set_new(body, "temperature", json_real(c->sampling.temperature));
    if (c->sampling.top_p > 0) json_object_set_new(body, "top_p", json_real(c->sampling.top_p));
    if (c->sampling.min_p >= 0) json_object_set_new(body, "min_p", json_real(c->sampling.min_p));
    if (c->sampling.top_k >= 0) json_object_set_new(body, "top_k", json_integer(c->sampling.top_k));
    char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    if (!text) return qn_fail(err, QN_ERR_NOMEM, "out of memory");

    qn_buf path = {0}, fields = {0};
    // "http://host:8000" and "http://host:8000/v1" both work.
    const char *base = strcmp(c->url.path, "/") == 0 ? "/v1" : c->url.path;
    size_t len = strlen(base);
    while (len > 0 && base[len - 1] == '/') len--;
    qn_buf_append(&path, base, len);
    qn_buf_puts(&path, "/chat/completions");
    if (c->api_key) qn_buf_printf(&fields, "Authorization: Bearer %s\r\n", c->api_key);
    remote_answer a = {.reply = reply};
    const qn_http_call call = {
        .method = "POST",
        .path = path.data,
        .content_type = "application/json",
        .fields = fields.data,
        .body = text,
        .len = strlen(text),
        .user = &a,
        .on_head = on_head,
        .on_body = on_body,
        .on_event = on_event,
        .on_done = on_done,
    };
    qn_status st = path.failed || fields.failed ? qn_fail(err, QN_ERR_NOMEM, "out of memory")
                                                : qn_http_fetch(&c->url, &call, err);
    if (st == QN_OK && a.status != 200) {
        json_t *problem = a.body.data ? json_loadb(a.body.data, a.body.len, 0, NULL) : NULL;
        const char *message =
            json_string_value(json_object_get(json_object_get(problem, "error"), "message"));
        st = qn_fail(err, QN_ERR_INVALID, "the server answered %d: %s", a.status,
                     message ? message : "no reason given");
        json_decref(problem);
    } else if (st == QN_OK && a.error.status != QN_OK) {
        st = qn_fail(err, a.error.status, "%s", a.error.message);
    } else if (st == QN_OK && !a.complete) {
        st = qn_fail(err, QN_ERR_IO, "the server's answer broke off");
    }
    qn_buf_free(&path);
    qn_buf_free(&fields);
    qn_buf_free(&a.body);
    free(text);
    return st;
}

// One question and its answer. The question is forgotten again if there is no answer.
static qn_status turn(chat *c, const char *text, size_t len, qn_error *err) {
    qn_buf reply = {0};
    size_t before = json_array_size(c->messages);
    if (!qn_utf8_valid(text, len)) return qn_fail(err, QN_ERR_INVALID, "the message is not UTF-8");
    if (!add_message(c, "user", text, len)) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    qn_status st = c->remote ? answer_remote(c, &reply, err) : answer_local(c, &reply, err);
    putchar('\n');
    fflush(stdout);
    if (st == QN_OK && !add_message(c, "assistant", reply.data ? reply.data : "", reply.len)) {
        st = qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    while (st != QN_OK && json_array_size(c->messages) > before) {
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
    }
    qn_buf_free(&reply);
    return st;
}

static bool start_conversation(chat *c) {
    json_decref(c->messages);
    c->messages = json_array();
    return c->messages && (!c->system || add_message(c, "system", c->system, strlen(c->system)));
}

static int converse(chat *c) {
    bool terminal = isatty(STDIN_FILENO);
    char *line = NULL;
    size_t cap = 0;
    int rc = 0;
    if (!start_conversation(c)) {
        qn_cli_error("out of memory");
        return 1;
    }
    if (c->prompt) {
        qn_error err = {0};
        if (turn(c, c->prompt, strlen(c->prompt), &err) == QN_OK) return 0;
        qn_cli_error("%s", err.message);
        return 1;
    }
    if (terminal) puts("Type a message. /new starts again, /quit (or Ctrl-D) leaves.");
    for (;;) {
        if (terminal) {
            fputs("> ", stdout);
            fflush(stdout);
        }
        ssize_t n = getline(&line, &cap, stdin);
        if (n < 0) break;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = '\0';
        if (n == 0) continue;
        if (strcmp(line, "/quit") == 0 || strcmp(line, "/exit") == 0 || strcmp(line, "/bye") == 0) {
            break;
        }
        if (strcmp(line, "/new") == 0) {
            if (!start_conversation(c)) break;
            continue;
        }
        qn_error err = {0};
        if (turn(c, line, (size_t)n, &err) != QN_OK) {
            qn_cli_error("%s", err.message);
            rc = 1;
            if (!terminal) break; // a script wants to know; a person goes on
        }
    }
    if (terminal) rc = 0;
    free(line);
    return rc;
}

int qn_cli_chat(int argc, char **argv) {
    chat c = {0};
    const char *url = NULL;
    qn_engine_flags engine;
    qn_sampling_flags_init(&c.sampling);
    qn_engine_flags_init(&engine);
    engine.max_num_seqs = 1;
    qn_flag flags[6 + QN_SAMPLING_FLAG_COUNT + QN_ENGINE_FLAG_COUNT] = {
        {"url", 0, QN_FLAG_TEXT, &url, "URL", "talk to this server instead of a model file", 0, 0},
        {"model", 'm', QN_FLAG_TEXT, &c.model_name, "NAME", "with --url: the model's name", 0, 0},
        {"prompt", 'p', QN_FLAG_TEXT, &c.prompt, "TEXT", "ask this and leave", 0, 0},
        {"system", 0, QN_FLAG_TEXT, &c.system, "TEXT", "the system message", 0, 0},
        {"max-tokens", 'n', QN_FLAG_INT, &c.max_tokens, "N", "most tokens of an answer", 1, 1 << 28},
        {"api-key", 0, QN_FLAG_TEXT, &c.api_key, "KEY",
         "with --url: the key (better: QUERN_API_KEY in the environment)", 0, 0},
    };
    qn_sampling_flags_table(&c.sampling, flags + 6);
    qn_engine_flags_table(&engine, flags + 6 + QN_SAMPLING_FLAG_COUNT);
    const qn_flag_set set = {
        .command = "chat",
        .usage = "quern chat MODEL [options]\n       quern chat --url URL [options]",
        .about = "A conversation in the terminal, with a GGUF file, a Hugging Face directory or a name\n"
                 "on the hub (owner/name), or with a server that speaks the OpenAI API.",
        .examples = "  quern chat model.gguf\n  quern chat --url http://localhost:8000\n"
                    "  echo 'What is 2 + 3?' | quern chat model.gguf --temperature 0\n",
        .flags = flags,
        .n_flags = QN_COUNT(flags),
    };
    const char *model = NULL;
    size_t n = 0;
    int rc = qn_flags_parse(&set, argc, argv, &model, 1, &n);
    if (rc >= 0) return rc;
    if ((n == 1) == (url != NULL)) {
        qn_cli_error("chat needs a model or --url, one of the two");
        fprintf(stderr, "quern: see 'quern chat --help'\n");
        return 2;
    }
    if (c.system && !qn_utf8_valid(c.system, strlen(c.system))) {
        qn_cli_error("--system: not UTF-8");
        return 2;
    }
    if (!c.api_key) c.api_key = getenv("QUERN_API_KEY");
    if (url) {
        qn_error err = {0};
        c.remote = true;
        if (qn_url_parse(url, &c.url, &err) != QN_OK) {
            qn_cli_error("--url: %s", err.message);
            return 2;
        }
        if (c.api_key && strpbrk(c.api_key, "\r\n")) {
            qn_cli_error("--api-key: must be one line");
            return 2;
        }
    } else {
        rc = qn_engine_flags_open(&engine, model, &c.engine);
    }
    if (url || rc == 0) rc = converse(&c);
    json_decref(c.messages);
    qn_engine_close(c.engine);
    qn_engine_flags_free(&engine);
    return rc;
}
