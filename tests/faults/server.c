// SPDX-License-Identifier: Apache-2.0
// The server: its start, its requests over plain and encrypted connections, its files that change.
// A request that allocations fail in is answered, or refused with 500 or 503, or its connection is
// closed; an answer that looks complete is right.
#include "base/checked.h"
#include "base/os.h"
#include "cpu/cpu_backend.h"
#include "http/tls.h"
#include "server/keys.h"
#include "server/server.h"
#include "tests/faults/faults.h"
#include "tests/faults/web.h"

#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEMO QN_SOURCE_DIR "/models/quern-demo-q8_0.gguf"

static qn_engine *engine;
static web_answer answer;
static char key_file[256], cert_file[256], cert_key_file[256], socket_file[256];
static SSL_CTX *client_tls;

// ---------------------------------------------------------------- a server under test

typedef struct running {
    qn_server *server;
    qn_thread thread;
    web_server web;
    uint16_t admin_port;
    atomic_bool ended;
    qn_error error;
} running;

static running plain, secret; // the second one with TLS

static void on_log(void *user, qn_log_level level, const char *line) {
    (void)user;
    (void)level;
    (void)line;
}
static const qn_log log_sink = {.write = on_log, .min_level = QN_LOG_DEBUG};

static void serve(void *arg) {
    running *r = arg;
    qn_server_run(r->server, &r->error);
    atomic_store(&r->ended, true);
}

static qn_status start(running *r, bool tls, bool uds, qn_error *err) {
    static const char *const keys[] = {"first-key", "second-key"};
    static const char *const origins[] = {"https://example.org"};
    static const char *const names[] = {"demo", "other name"};
    const qn_server_options o = {
        .engine = engine,
        .api_keys = keys,
        .n_api_keys = 2,
        .api_key_file = key_file,
        .ssl_certfile = tls ? cert_file : NULL,
        .ssl_keyfile = tls ? cert_key_file : NULL,
        .uds = uds ? socket_file : NULL,
        .model_names = names,
        .n_model_names = 2,
        .allowed_origins = origins,
        .n_allowed_origins = 1,
        .io_threads = 1,
        .prepare_threads = 1,
        .admin_port = -1,
        .max_queued = 16,
        .shutdown_timeout = 1,
        .version = "1",
        .log_requests = true,
        .log = &log_sink,
    };
    memset(r, 0, sizeof *r);
    qn_status st = qn_server_create(&o, &r->server, err);
    if (st != QN_OK) return st;
    r->web = (web_server){(uint16_t)qn_server_port(r->server), tls ? client_tls : NULL, &r->ended};
    r->admin_port = (uint16_t)qn_server_admin_port(r->server);
    st = qn_thread_start(&r->thread, "server", serve, r, err);
    if (st != QN_OK) {
        qn_server_destroy(r->server);
        r->server = NULL;
    }
    return st;
}

static void stop(running *r) {
    qn_server_stop(r->server);
    qn_server_stop(r->server);
    qn_thread_join(&r->thread);
    qn_server_destroy(r->server);
}

// ---------------------------------------------------------------- requests

typedef enum answer_kind { TEXT, SAME, ANY, LEAVE } answer_kind;

typedef struct request {
    running *server;
    const char *line;   // "POST /v1/completions"
    const char *fields; // more header lines
    const char *body;   // NULL: none
    int status;         // what it gives undisturbed
    answer_kind kind;
    const char *raw;    // the whole request instead
    bool admin;
} request;

// The values of all members "text" and "content", and why each choice ended: the same however the
// chunks of a stream were cut.
static uint64_t hash_texts(const char *p) {
    static const char *const members[] = {"\"text\":\"", "\"content\":\"", "\"finish_reason\":\"",
                                          "\"token_ids\":["};
    uint64_t h[QN_COUNT(members)] = {1, 2, 3, 4}, all = 0;
    for (size_t m = 0; m < QN_COUNT(members); m++) {
        const size_t n = strlen(members[m]);
        const char end = members[m][n - 1] == '[' ? ']' : '"';
        for (const char *at = p; (at = strstr(at, members[m]));) {
            at += n;
            // What ends a list of token ids is the next chunk's business.
            for (; *at && *at != end; at++) {
                if (*at == '\\' && at[1]) at++;
                h[m] = (h[m] ^ (unsigned char)*at) * UINT64_C(0x100000001B3);
            }
            if (end == ']') h[m] = (h[m] ^ ',') * UINT64_C(0x100000001B3);
        }
        all = all * 31 + h[m];
    }
    return all;
}

static faults_result refused(qn_error *err, const char *how) {
    qn_fail(err, QN_ERR_NOMEM, "%s", how);
    return FAULTS_FAILED;
}

static faults_result judge(const faults_scenario *s, const request *r, const web_answer *a,
                           qn_error *err) {
    if (a->hangs) return faults_wrong(err, "no answer");
    if (r->kind == LEAVE) return FAULTS_DONE;
    if (a->status == 0) return refused(err, "closed without a response");
    if (a->status == 500 || a->status == 503) return refused(err, "refused");
    // An error without memory for its text still has its status.
    if (a->status == r->status && a->status >= 400 && a->len == 0) return refused(err, "no text");
    if (a->status != r->status) {
        return faults_wrong(err, "status %d: %.300s", a->status, a->body);
    }
    if (!a->complete) return refused(err, "cut off");
    if (strstr(a->body, "data: ")) {
        const bool done = strstr(a->body, "data: [DONE]") != NULL;
        if (strstr(a->body, "data: {\"error\":")) {
            return done ? faults_wrong(err, "an error, and [DONE]") : refused(err, "an error event");
        }
        if (!done) return faults_wrong(err, "a stream that ends without [DONE]: %.300s", a->body);
    }
    if (r->kind == ANY) return FAULTS_DONE;
    if (r->kind == TEXT) return faults_same(s, 0, hash_texts(a->body), err);
    uint64_t h = 1;
    for (size_t i = 0; i < a->len; i++) h = (h ^ (unsigned char)a->body[i]) * UINT64_C(0x100000001B3);
    faults_result result = faults_same(s, 0, h, err);
    if (result == FAULTS_WRONG) return faults_wrong(err, "another answer: %.400s", a->body);
    return result;
}

static faults_result ask(const faults_scenario *s, qn_error *err) {
    const request *r = s->user;
    static char text[64 * 1024];
    web_server web = r->server->web;
    if (r->admin) web = (web_server){r->server->admin_port, NULL, NULL};
    int n = r->raw ? snprintf(text, sizeof text, "%s", r->raw)
            : r->body
                ? snprintf(text, sizeof text,
                           "%s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer file-key\r\n"
                           "Connection: close\r\n%sContent-Type: application/json\r\n"
                           "Content-Length: %zu\r\n\r\n%s",
                           r->line, r->fields ? r->fields : "", strlen(r->body), r->body)
                : snprintf(text, sizeof text,
                           "%s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer file-key\r\n"
                           "Connection: close\r\n%s\r\n",
                           r->line, r->fields ? r->fields : "");
    web_ask(&web, text, (size_t)n, r->kind == LEAVE ? 300 : 0, &answer);
    return judge(s, r, &answer, err);
}

static bool settle(const faults_scenario *s, qn_error *err) {
    qn_engine_stats stats;
    (void)s;
    for (int i = 0; i < 5000; i++) {
        qn_engine_get_stats(engine, &stats);
        if (!stats.has_work && stats.running == 0 && stats.waiting == 0 && !(stats.kv_usage > 0)) {
            return true;
        }
        usleep(i < 100 ? 50 : 1000);
    }
    qn_fail(err, QN_ERR_INTERNAL, "%d run, %d wait, KV use %g", stats.running, stats.waiting,
            stats.kv_usage);
    return false;
}

// ---------------------------------------------------------------- start, files

typedef struct start_kind {
    bool tls, uds;
} start_kind;

static faults_result start_and_stop(const faults_scenario *s, qn_error *err) {
    static running r;
    const start_kind *k = s->user;
    qn_status st = start(&r, k->tls, k->uds, err);
    if (st != QN_OK) return FAULTS_FAILED;
    inject_count_thread(false);
    static const char health[] = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    if (!k->uds) web_ask(&r.web, health, sizeof health - 1, 0, &answer);
    inject_count_thread(true);
    stop(&r);
    if (r.error.status) {
        *err = r.error;
        return FAULTS_FAILED;
    }
    if (k->uds) return FAULTS_DONE;
    if (answer.hangs) return faults_wrong(err, "no answer");
    if (answer.status == 200) return FAULTS_DONE;
    return answer.status == 0 || answer.status >= 500
               ? refused(err, "refused")
               : faults_wrong(err, "status %d", answer.status);
}

static faults_result read_keys(const faults_scenario *s, qn_error *err) {
    static const char *const fixed[] = {"a", "b"};
    qn_keys *k;
    qn_key_grant grant, none;
    (void)s;
    qn_status st = qn_keys_create(fixed, 2, key_file, &k, err);
    if (st != QN_OK) return FAULTS_FAILED;
    bool changed = false, again = false;
    st = qn_keys_reload(k, true, &changed, err);
    // What could not be read again stays as it was.
    if (qn_keys_count(k) != 4) return faults_wrong(err, "%zu keys", qn_keys_count(k));
    if (st != QN_OK) qn_keys_reload(k, false, &again, NULL);
    inject_count_thread(false);
    const bool good = qn_keys_accept(k, "file-key", 8, &grant) && !qn_keys_accept(k, "c", 1, &none);
    qn_key_release(grant.key);
    inject_count_thread(true);
    qn_keys_destroy(k);
    if (!good) return faults_wrong(err, "another key is accepted");
    if (st == QN_OK && !changed) return faults_wrong(err, "not read");
    return st == QN_OK ? FAULTS_DONE : FAULTS_FAILED;
}

static faults_result read_certificate(const faults_scenario *s, qn_error *err) {
    qn_tls *t;
    (void)s;
    qn_status st = qn_tls_create(cert_file, cert_key_file, &t, err);
    if (st != QN_OK) return FAULTS_FAILED;
    bool changed;
    st = qn_tls_reload(t, true, &changed, err);
    SSL *ssl = qn_tls_session(t, 0);
    if (ssl) SSL_free(ssl);
    qn_tls_destroy(t);
    return st == QN_OK && ssl ? FAULTS_DONE : st == QN_OK ? refused(err, "no session") : FAULTS_FAILED;
}

// ---------------------------------------------------------------- main

#define CHAT "{\"messages\":[{\"role\":\"user\",\"content\":\"what is a quern?\"}],\"temperature\":0,"
#define PROMPT "{\"prompt\":\"A quern is\",\"temperature\":0,"

static const request requests[] = {
    {&plain, "GET /health", NULL, NULL, 200, SAME, NULL, false},
    {&plain, "GET /version", NULL, NULL, 200, SAME, NULL, false},
    {&plain, "GET /metrics", NULL, NULL, 200, ANY, NULL, false},
    {&plain, "GET /health", NULL, NULL, 200, SAME, NULL, true},
    {&plain, "GET /v1/models", NULL, NULL, 200, SAME, NULL, false},
    {&plain, "GET /v1/models/demo", NULL, NULL, 200, SAME, NULL, false},
    {&plain, "GET /v1/models/none", NULL, NULL, 404, SAME, NULL, false},
    {&plain, "POST /tokenize", NULL, "{\"prompt\":\"A quern is\",\"return_token_strs\":true}", 200, SAME,
     NULL, false},
    {&plain, "POST /tokenize", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}", 200, SAME,
     NULL, false},
    {&plain, "POST /detokenize", NULL, "{\"tokens\":[300,301,302]}", 200, SAME, NULL, false},
    {&plain, "POST /v1/completions", NULL, PROMPT "\"max_tokens\":4}", 200, TEXT, NULL, false},
    {&plain, "POST /v1/completions", "X-Request-Id: mine\r\nOrigin: https://example.org\r\n",
     PROMPT "\"max_tokens\":6,\"n\":2,\"seed\":1,\"logprobs\":3,\"stop\":[\"zzz\",\"qqq\"],"
     "\"stop_token_ids\":[7],\"logit_bias\":{\"40\":-1},\"bad_words\":[\"bad\",\"worse words\"],"
     "\"repetition_penalty\":1.1,\"presence_penalty\":0.1,\"return_token_ids\":true,"
     "\"allowed_token_ids\":null,\"min_tokens\":2,\"cache_salt\":\"salt\",\"echo\":false,"
     "\"request_id\":\"mine\",\"priority\":1,\"ignore_eos\":true,\"include_stop_str_in_output\":true}",
     200, TEXT, NULL, false},
    {&plain, "POST /v1/completions", NULL,
     "{\"prompt\":[\"A quern\",\"The mill\"],\"temperature\":0,\"max_tokens\":3,\"model\":\"other name\"}",
     200, TEXT, NULL, false},
    {&plain, "POST /v1/completions", NULL,
     "{\"prompt\":[300,301,302],\"temperature\":0,\"max_tokens\":3,\"suffix\":null}", 200, TEXT, NULL,
     false},
    {&plain, "POST /v1/completions", NULL,
     PROMPT "\"max_tokens\":6,\"stream\":true,\"stream_options\":{\"include_usage\":true},"
     "\"logprobs\":2,\"return_token_ids\":true,\"stop\":\"zzz\"}", 200, TEXT, NULL, false},
    {&plain, "POST /v1/completions", NULL,
     "{\"prompt\":[[300,301,302],[303,304]],\"temperature\":0,\"max_tokens\":3,\"n\":2,\"echo\":true,"
     "\"logprobs\":2,\"prompt_logprobs\":3,\"return_token_ids\":true}", 200, TEXT, NULL, false},
    {&plain, "POST /v1/completions", NULL,
     PROMPT "\"max_tokens\":0,\"echo\":true,\"logprobs\":1,\"stream\":true}", 200, TEXT, NULL, false},
    {&plain, "POST /v1/chat/completions", NULL, CHAT "\"max_tokens\":2,\"prompt_logprobs\":1}", 200, TEXT,
     NULL, false},
    {&plain, "POST /v1/chat/completions", NULL, CHAT "\"max_tokens\":4}", 200, TEXT, NULL, false},
    {&plain, "POST /v1/chat/completions", NULL,
     CHAT "\"max_tokens\":6,\"stream\":true,\"logprobs\":true,\"top_logprobs\":2,"
     "\"stream_options\":{\"include_usage\":true}}", 200, TEXT, NULL, false},
    {&plain, "POST /v1/chat/completions", NULL,
     "{\"messages\":[{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"be brief\"}]},"
     "{\"role\":\"user\",\"content\":\"hi\"},{\"role\":\"assistant\",\"content\":\"A hand\"}],"
     "\"temperature\":0,\"max_tokens\":3,\"continue_final_message\":true,"
     "\"add_generation_prompt\":false,\"chat_template_kwargs\":{\"a\":1,\"b\":[1,2]},"
     "\"reasoning_effort\":\"low\"}", 200, TEXT, NULL, false},
    {&plain, "POST /v1/chat/completions", NULL,
     CHAT "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{}}}],"
     "\"max_tokens\":3,\"tool_choice\":\"none\"}", 200, ANY, NULL, false},
    {&plain, "POST /v1/chat/completions", NULL, CHAT "\"max_tokens\":100,\"stream\":true,"
     "\"ignore_eos\":true}", 200, LEAVE, NULL, false},
    {&plain, "POST /v1/completions", NULL, "{\"prompt\":", 400, SAME, NULL, false},
    {&plain, "POST /v1/completions", NULL, PROMPT "\"max_tokens\":-1}", 400, SAME, NULL, false},
    {&plain, "POST /v1/completions", NULL, PROMPT "\"model\":\"none\"}", 404, SAME, NULL, false},
    {&plain, "GET /nowhere", NULL, NULL, 404, SAME, NULL, false},
    {&plain, "DELETE /v1/models", NULL, NULL, 405, SAME, NULL, false},
    {&plain, "OPTIONS /v1/completions",
     "Origin: https://example.org\r\nAccess-Control-Request-Method: POST\r\n", NULL, 204, SAME, NULL,
     false},
    {&plain, "GET /v1/models", NULL, NULL, 401, SAME,
     "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\n"
     "Connection: close\r\n\r\n", false},
    {&plain, NULL, NULL, NULL, 400, SAME, "GET / HTTP/1.1\r\nHost : x\r\n\r\n", false},
    {&plain, NULL, NULL, NULL, 400, SAME, "\x16\x03\x01 this is TLS\r\n\r\n", false},
    {&plain, NULL, NULL, NULL, 200, TEXT,
     "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
     "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer first-key\r\n"
     "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n"
     "Connection: close\r\n\r\n"
     "10\r\n{\"prompt\":\"A que\r\n30\r\nrn is\",\"temperature\":0,\"max_tokens\":2, \"n\" : 1 }\r\n0\r\n\r\n",
     false},
    {&secret, "GET /health", NULL, NULL, 200, SAME, NULL, false},
    {&secret, "POST /v1/chat/completions", NULL,
     CHAT "\"max_tokens\":4,\"stream\":true}", 200, TEXT, NULL, false},
};

static const char *const names[] = {
    "health", "version", "metrics", "admin_health", "models", "model", "model_unknown", "tokenize",
    "tokenize_chat", "detokenize", "completion", "completion_fields", "completion_list",
    "completion_ids", "completion_stream", "completion_scored", "echo_stream", "chat_scored", "chat",
    "chat_stream", "chat_continue", "chat_tools",
    "chat_leaves", "bad_json", "bad_field", "wrong_model", "no_route", "wrong_method", "preflight",
    "wrong_key", "bad_header", "not_http", "pipelined_chunked", "tls_health", "tls_chat_stream",
};
_Static_assert(QN_COUNT(names) == QN_COUNT(requests), "one name for each request");

static bool write_file(char *path, size_t size, const char *name, const char *text) {
    snprintf(path, size, "%s/faults-%d-%s", QN_BINARY_DIR, (int)getpid(), name);
    FILE *f = text ? fopen(path, "w") : NULL;
    bool ok = !text || (f && fputs(text, f) >= 0);
    if (f) ok = fclose(f) == 0 && ok;
    return ok;
}

static bool set_up(qn_error *err) {
    const qn_engine_options o = {.backend = &qn_cpu_backend, .backend_options = {.threads = 1},
                                 .max_num_seqs = 4, .max_num_queued_reqs = 16, .max_model_len = 512,
                                 .num_blocks_override = 64, .kv_dtype = QN_KV_F16};
    client_tls = SSL_CTX_new(TLS_client_method());
    bool files = write_file(key_file, sizeof key_file, "keys", "# keys\nfile-key\nanother-key\n") &&
                 write_file(cert_file, sizeof cert_file, "cert.pem", "") &&
                 write_file(cert_key_file, sizeof cert_key_file, "key.pem", "") &&
                 write_file(socket_file, sizeof socket_file, "socket", NULL);
    if (!client_tls || !files || !web_make_certificate(cert_file, cert_key_file)) {
        qn_fail(err, QN_ERR_IO, "cannot make files in %s", QN_BINARY_DIR);
        return false;
    }
    return qn_engine_open(DEMO, &o, &engine, err) == QN_OK && start(&plain, false, false, err) == QN_OK &&
           start(&secret, true, false, err) == QN_OK;
}

int main(int argc, char **argv) {
    inject_init();
    qn_error err = {0};
    if (!set_up(&err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    static const start_kind kinds[] = {{false, false}, {true, false}, {false, true}};
    static faults_scenario scenarios[QN_COUNT(requests) + 5] = {
        {.name = "start", .user = &kinds[0], .run = start_and_stop},
        {.name = "start_tls", .user = &kinds[1], .run = start_and_stop},
        {.name = "start_unix_socket", .user = &kinds[2], .run = start_and_stop},
        {.name = "key_file", .run = read_keys},
        {.name = "certificate", .run = read_certificate},
    };
    for (size_t i = 0; i < QN_COUNT(requests); i++) {
        scenarios[5 + i] = (faults_scenario){.name = names[i], .user = &requests[i], .run = ask,
                                             .settle = settle, .own_thread_exempt = true,
                                             .lasting = true};
    }
    int rc = faults_main(argc, argv, scenarios, QN_COUNT(scenarios));
    stop(&plain);
    stop(&secret);
    qn_engine_close(engine);
    SSL_CTX_free(client_tls);
    unlink(key_file);
    unlink(cert_file);
    unlink(cert_key_file);
    return rc;
}
