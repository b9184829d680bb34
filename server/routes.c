// SPDX-License-Identifier: Apache-2.0
// The table of routes, what is checked before any of them, and the small ones.
//
// A route is found by the codec's canonical path alone, and the same entry says who may use it: there
// is no second reading of the path. Without an entry there is no access.
#include "server/prepare.h"

#include "base/checked.h"
#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>

enum { GET = 1, POST = 2 };

typedef void route_fn(qn_loop *l, qn_http_conn *c, const qn_http_head *head, qn_str body);

// Who answers: the API's loops, the service loop, or the service loop on the admin port only.
typedef enum route_place { API, SERVICE, ADMIN } route_place;

typedef struct route {
    const char *path;
    const char *handler; // its name in metrics
    int methods;
    bool is_public;
    route_place place;
    bool prefix; // path ends with '/': what follows is the route's argument
    route_fn *fn;
} route;

static route_fn chat, completions, models, one_model, tokenize, detokenize, health, version, metrics,
    drain;

static const route routes[] = {
    {"", "none", 0, false, API, false, NULL}, // [0]: what no route took
    {"/v1/chat/completions", "/v1/chat/completions", POST, false, API, false, chat},
    {"/v1/completions", "/v1/completions", POST, false, API, false, completions},
    {"/v1/models", "/v1/models", GET, false, API, false, models},
    {"/v1/models/", "/v1/models/{model}", GET, false, API, true, one_model},
    {"/tokenize", "/tokenize", POST, false, API, false, tokenize},
    {"/detokenize", "/detokenize", POST, false, API, false, detokenize},
    {"/health", "/health", GET, true, SERVICE, false, health},
    {"/version", "/version", GET, true, SERVICE, false, version},
    {"/metrics", "/metrics", GET, true, SERVICE, false, metrics},
    {"/ping", "/ping", GET | POST, true, SERVICE, false, health},
    {"/drain", "/drain", POST, false, ADMIN, false, drain},
};

const char *const qn_route_handlers[] = {
    "none",        "/v1/chat/completions", "/v1/completions", "/v1/models",
    "/v1/models/{model}", "/tokenize", "/detokenize", "/health",
    "/version",    "/metrics",             "/ping",           "/drain",
};
_Static_assert(QN_COUNT(routes) == QN_COUNT(qn_route_handlers), "one name for each route");
size_t qn_route_handler_count(void) { return QN_COUNT(qn_route_handlers); }

// ---------------------------------------------------------------- answers

void qn_respond_error(qn_loop *l, qn_http_conn *c, const qn_api_error *err) {
    qn_buf b = {0};
    (void)l;
    qn_api_error_json(err, &b);
    if (err->retry_after) {
        char text[16];
        snprintf(text, sizeof text, "%d", err->retry_after);
        qn_http_conn_add_field(c, "Retry-After", qn_str_from(text));
    }
    if (err->status == 401) qn_http_conn_add_field(c, "WWW-Authenticate", QN_STR("Bearer"));
    qn_http_respond(c, err->status, "application/json", b.failed ? "" : b.data, b.failed ? 0 : b.len);
    qn_buf_free(&b);
}

void qn_respond_json(qn_http_conn *c, const qn_buf *body) {
    qn_http_respond(c, 200, "application/json", body->data, body->len);
}

void qn_routes_format_error(void *loop, int status, const char *reason, qn_buf *body) {
    qn_api_error err = {0};
    (void)loop;
    qn_api_fail(&err, status, NULL, "%s", reason);
    qn_api_error_json(&err, body);
}

static void respond_buf(qn_loop *l, qn_http_conn *c, const qn_buf *b) {
    if (!b->failed) {
        qn_respond_json(c, b);
        return;
    }
    qn_api_error err = {0};
    qn_api_fail(&err, 503, NULL, "out of memory");
    qn_respond_error(l, c, &err);
}

// ---------------------------------------------------------------- checks before a route

// The host of a Host field, without its port, as far as it names this machine itself.
static bool names_loopback(qn_str host) {
    if (host.len && host.data[0] == '[') {
        const char *end = memchr(host.data, ']', host.len);
        qn_str inner = {host.data + 1, end ? (size_t)(end - host.data) - 1 : 0};
        return qn_str_is(inner, "::1") || qn_str_is(inner, "::ffff:127.0.0.1");
    }
    const char *colon = memchr(host.data, ':', host.len);
    if (colon) host.len = (size_t)(colon - host.data);
    if (qn_http_equal(host, "localhost")) return true;
    if (host.len > 10 && qn_http_equal((qn_str){host.data + host.len - 10, 10}, ".localhost")) {
        return true;
    }
    // 127.a.b.c and nothing else that begins so.
    if (host.len < 9 || memcmp(host.data, "127.", 4) != 0) return false;
    for (size_t i = 4; i < host.len; i++) {
        if (host.data[i] != '.' && (host.data[i] < '0' || host.data[i] > '9')) return false;
    }
    return true;
}

static const route *find_route(qn_str path) {
    for (size_t i = 1; i < QN_COUNT(routes); i++) {
        const route *r = &routes[i];
        size_t n = strlen(r->path);
        if (r->prefix ? path.len > n && memcmp(path.data, r->path, n) == 0
                      : qn_str_is(path, r->path)) {
            return r;
        }
    }
    return NULL;
}

qn_key *qn_exchange_key(qn_http_conn *c) {
    return (qn_key *)(uintptr_t)qn_http_conn_notes(c)[QN_NOTE_KEY];
}

// The exchange has ended.
static void forget_key(qn_http_conn *c) {
    qn_key *key = qn_exchange_key(c);
    if (key && qn_http_conn_notes(c)[QN_NOTE_COUNTED]) qn_key_end(key);
    qn_key_release(key);
    qn_http_conn_notes(c)[QN_NOTE_KEY] = 0;
}

static bool key_accepted(qn_http_conn *c, const struct qn_server *s, const qn_http_head *head,
                         qn_key_grant *grant) {
    qn_str v = {0};
    if (qn_http_find(head, "authorization", &v) != 1) return false;
    if (v.len < 7 || !qn_http_equal((qn_str){v.data, 7}, "bearer ")) return false;
    size_t at = 7;
    while (at < v.len && v.data[at] == ' ') at++;
    if (!qn_keys_accept(s->keys, v.data + at, v.len - at, grant)) return false;
    qn_http_conn_notes(c)[QN_NOTE_KEY] = (uint64_t)(uintptr_t)grant->key;
    return true;
}

// Does the request bring a key that is good for this route?
static bool check_key(const struct qn_server *s, qn_http_conn *c, const qn_http_head *head,
                      const route *r, qn_key_grant *grant, qn_api_error *err) {
    if (!key_accepted(c, s, head, grant)) {
        err->code = "invalid_api_key";
        return qn_api_fail(err, 401, NULL,
                           "missing or wrong API key: send \"Authorization: Bearer KEY\"");
    }
    int scope = r->place == API ? QN_SCOPE_INFER : r->place == ADMIN ? QN_SCOPE_ADMIN
                                                                     : QN_SCOPE_METRICS;
    if (grant->scopes & scope) return true;
    err->code = "insufficient_permissions";
    return qn_api_fail(err, 403, NULL, "this API key is not for %s",
                       scope == QN_SCOPE_INFER ? "inference"
                                               : scope == QN_SCOPE_ADMIN ? "administration" : "metrics");
}

// True if the request comes from a web page that may call; says so in the response.
static bool allow_origin(const struct qn_server *s, qn_http_conn *c, const qn_http_head *head) {
    qn_str origin = {0};
    if (s->n_origins == 0) return false;
    qn_http_conn_add_field(c, "Vary", QN_STR("Origin"));
    if (qn_http_find(head, "origin", &origin) != 1) return false;
    for (size_t i = 0; i < s->n_origins; i++) {
        bool any = strcmp(s->origins[i], "*") == 0;
        if (!any && !qn_str_is(origin, s->origins[i])) continue;
        qn_http_conn_add_field(c, "Access-Control-Allow-Origin", any ? QN_STR("*") : origin);
        qn_http_conn_add_field(c, "Access-Control-Expose-Headers", QN_STR("X-Request-Id, Retry-After"));
        return true;
    }
    return false;
}

// A browser asks before it sends what a form could not: true if that was answered.
static bool preflight(qn_http_conn *c, const qn_http_head *head) {
    qn_str method = {0};
    if (!qn_str_is(head->method, "OPTIONS") ||
        qn_http_find(head, "access-control-request-method", &method) != 1) {
        return false;
    }
    qn_http_conn_add_field(c, "Access-Control-Allow-Methods", QN_STR("GET, HEAD, POST"));
    qn_http_conn_add_field(c, "Access-Control-Allow-Headers",
                           QN_STR("Authorization, Content-Type, X-Request-Id"));
    qn_http_conn_add_field(c, "Access-Control-Max-Age", QN_STR("600"));
    qn_http_respond(c, 204, NULL, "", 0);
    return true;
}

static bool json_content_type(const qn_http_head *head) {
    qn_str v = {0};
    if (qn_http_find(head, "content-type", &v) != 1) return false;
    const char *semicolon = memchr(v.data, ';', v.len);
    if (semicolon) v.len = (size_t)(semicolon - v.data);
    while (v.len && (v.data[v.len - 1] == ' ' || v.data[v.len - 1] == '\t')) v.len--;
    return qn_http_equal(v, "application/json");
}

bool qn_routes_leaves(void *loop, const qn_http_head *head) {
    qn_loop *l = loop;
    const route *r = find_route(head->path);
    // Once the others may have left, everything is answered (refused, that is) here.
    return r && r->place == API && atomic_load(&l->server->phase) == QN_PHASE_SERVE;
}

static bool check_head(qn_loop *l, qn_http_conn *c, const qn_http_head *head, bool admin,
                       qn_api_error *err) {
    struct qn_server *s = l->server;
    // A page in a browser that has its own name resolve to this machine must not reach the server.
    if ((admin ? s->admin_loopback : s->loopback) && head->host.len && !names_loopback(head->host)) {
        return qn_api_fail(err, 403, NULL,
                           "this server listens on this machine only: the Host header must name "
                           "localhost or a loopback address");
    }
    qn_str origin;
    if (admin && qn_http_find(head, "origin", &origin) > 0) {
        return qn_api_fail(err, 403, NULL, "the admin port is not for web pages");
    }
    const route *r = find_route(head->path);
    if (r && (admin ? r->place == API : r->place == ADMIN)) r = NULL;
    if (!r) return qn_api_fail(err, 404, NULL, "there is no such path here");
    qn_http_conn_set_tag(c, (int)(r - routes));
    if (!admin && allow_origin(s, c, head) && preflight(c, head)) return true;
    bool is_get = qn_str_is(head->method, "GET") || qn_str_is(head->method, "HEAD");
    int method = is_get ? GET : qn_str_is(head->method, "POST") ? POST : 0;
    if (!(r->methods & method)) {
        qn_http_conn_add_field(c, "Allow", r->methods == POST  ? QN_STR("POST")
                                           : r->methods == GET ? QN_STR("GET, HEAD")
                                                               : QN_STR("GET, HEAD, POST"));
        return qn_api_fail(err, 405, NULL, "the method is not allowed for this path");
    }
    bool is_public = r->is_public &&
                     !(s->options.protect_metrics && r->fn == metrics);
    qn_key_grant grant = {0};
    if (qn_keys_required(s->keys) && !is_public && !check_key(s, c, head, r, &grant, err)) return false;
    if (method != POST || r->place != API) return true;
    if (!json_content_type(head)) {
        return qn_api_fail(err, 400, NULL, "the Content-Type must be application/json");
    }
    const char *why;
    int retry_after;
    if (grant.key && !qn_key_begin(&grant, qn_os_now_ns(), &why, &retry_after)) {
        qn_metrics_rejected(s->metrics, QN_REJECT_KEY_LIMIT);
        err->code = "rate_limit_exceeded";
        err->retry_after = retry_after;
        return qn_api_fail(err, 429, NULL, "%s; try again in %d s", why, retry_after);
    }
    qn_http_conn_notes(c)[QN_NOTE_COUNTED] = grant.key != NULL;
    return true;
}

static void routes_head(qn_loop *l, qn_http_conn *c, const qn_http_head *head, bool admin) {
    qn_api_error err = {0};
    qn_str id = {0};
    char name[33];
    if (qn_http_find(head, "x-request-id", &id) != 1 || !qn_request_id_valid(id)) {
        qn_loop_name(l, name);
        id = qn_str_from(name);
    }
    qn_http_conn_add_field(c, "X-Request-Id", id);
    if (!check_head(l, c, head, admin, &err)) qn_respond_error(l, c, &err);
}

void qn_routes_head(void *loop, qn_http_conn *c, const qn_http_head *head) {
    routes_head(loop, c, head, false);
}

void qn_routes_admin_head(void *loop, qn_http_conn *c, const qn_http_head *head) {
    routes_head(loop, c, head, true);
}

void qn_routes_request(void *loop, qn_http_conn *c, const qn_http_head *head, qn_str body) {
    qn_loop *l = loop;
    routes[qn_http_conn_tag(c)].fn(l, c, head, body);
}

// One JSON object: names and numbers only, nothing of what was said.
static void log_request(qn_loop *l, qn_http_conn *c, const qn_http_outcome *o) {
    const uint64_t *notes = qn_http_conn_notes(c);
    qn_buf b = {0};
    qn_str fields = qn_http_conn_fields(c), method = o->head ? o->head->method : QN_STR("");
    qn_buf_puts(&b, "{\"request_id\":");
    // The id is the first field of every response.
    const char *end = fields.len > 14 ? memchr(fields.data, '\r', fields.len) : NULL;
    if (end) qn_buf_json_string(&b, fields.data + 14, (size_t)(end - fields.data) - 14);
    else qn_buf_puts(&b, "null");
    qn_key *key = qn_exchange_key(c);
    if (key) {
        char name[QN_KEY_NAME];
        qn_key_name(key, name);
        qn_buf_printf(&b, ",\"key\":\"%016llx\"", (unsigned long long)qn_key_id(key));
        if (*name) qn_buf_printf(&b, ",\"key_name\":\"%s\"", name);
    }
    qn_buf_puts(&b, ",\"method\":");
    qn_buf_json_string(&b, method.len ? method.data : "", method.len);
    qn_buf_printf(&b, ",\"route\":\"%s\",\"status\":%d,\"complete\":%s,\"bytes\":%llu,\"seconds\":%.6f",
                  qn_route_handlers[qn_http_conn_tag(c)], o->status, o->complete ? "true" : "false",
                  (unsigned long long)o->bytes, o->seconds);
    if (notes[QN_NOTE_PROMPT_TOKENS]) {
        qn_buf_printf(&b, ",\"prompt_tokens\":%llu,\"output_tokens\":%llu",
                      (unsigned long long)notes[QN_NOTE_PROMPT_TOKENS],
                      (unsigned long long)notes[QN_NOTE_OUTPUT_TOKENS]);
    }
    if (notes[QN_NOTE_FIRST_NS]) {
        qn_buf_printf(&b, ",\"first_token_seconds\":%.6f", (double)notes[QN_NOTE_FIRST_NS] * 1e-9);
    }
    qn_buf_putc(&b, '}');
    if (!b.failed) qn_logf(l->server->options.log, QN_LOG_INFO, "%s", b.data);
    qn_buf_free(&b);
}

void qn_routes_finish(void *loop, qn_http_conn *c, const qn_http_outcome *o) {
    qn_loop *l = loop;
    atomic_store(&l->n_conns, qn_http_server_count(l->http));
    if (o->status != 0) { // else the client left before there was anything to count
        size_t tag = (size_t)qn_http_conn_tag(c);
        qn_str method = o->head ? o->head->method : (qn_str){0};
        qn_metrics_http(l->server->metrics, tag, method, o->status, o->seconds);
    }
    if (l->server->options.log_requests && (o->status != 0 || o->head)) log_request(l, c, o);
    forget_key(c);
}

// ---------------------------------------------------------------- models

const char *qn_server_model(const struct qn_server *s, const char *name, qn_api_error *err) {
    if (!name) return s->names[0];
    for (size_t i = 0; i < s->n_names; i++) {
        if (strcmp(name, s->names[i]) == 0) return s->names[0];
    }
    err->code = "model_not_found";
    qn_api_fail(err, 404, "model", "the model `%.200s` does not exist here", name);
    return NULL;
}

static void model_json(const struct qn_server *s, const char *name, qn_buf *b) {
    qn_buf_puts(b, "{\"id\":");
    qn_buf_json_string(b, name, strlen(name));
    qn_buf_printf(b, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"quern\",\"root\":",
                  (long long)s->started);
    qn_buf_json_string(b, s->names[0], strlen(s->names[0]));
    qn_buf_printf(b, ",\"parent\":null,\"max_model_len\":%d}", s->info->max_model_len);
}

static void models(qn_loop *l, qn_http_conn *c, const qn_http_head *head, qn_str body) {
    (void)head;
    (void)body;
    qn_buf *b = &l->scratch;
    qn_buf_clear(b);
    qn_buf_puts(b, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < l->server->n_names; i++) {
        if (i) qn_buf_putc(b, ',');
        model_json(l->server, l->server->names[i], b);
    }
    qn_buf_puts(b, "]}");
    respond_buf(l, c, b);
}

static void one_model(qn_loop *l, qn_http_conn *c, const qn_http_head *head, qn_str body) {
    (void)body;
    size_t skip = strlen("/v1/models/");
    qn_str want = {head->path.data + skip, head->path.len - skip};
    for (size_t i = 0; i < l->server->n_names; i++) {
        if (!qn_str_is(want, l->server->names[i])) continue;
        qn_buf *b = &l->scratch;
        qn_buf_clear(b);
        model_json(l->server, l->server->names[i], b);
        respond_buf(l, c, b);
        return;
    }
    qn_api_error err = {.code = "model_not_found"};
    qn_api_fail(&err, 404, "model", "the model `%.*s` does not exist here",
                (int)QN_MIN(want.len, (size_t)200), want.data);
    qn_respond_error(l, c, &err);
}

// ---------------------------------------------------------------- generation, tokens

static void chat(qn_loop *l, qn_http_conn *c, const qn_http_head *head, qn_str body) {
    (void)head;
    (void)body;
    qn_request_admit(l, c, QN_JOB_CHAT);
}

static void completions(qn_loop *l, qn_http_conn *c, const qn_http_head *head, qn_str body) {
    (void)head;
    (void)body;
    qn_request_admit(l, c, QN_JOB_COMPLETION);
}

// The answer comes in a moment: also to who sends no more. Who left, of whom no more is seen, costs no
// more than that.
static void outlive_eof(qn_http_conn *c, qn_str body) {
    if (body.len <= 256 * 1024) qn_http_conn_outlive_eof(c);
}

static void tokenize(qn_loop *l, qn_http_conn *c, const qn_http_head *head, qn_str body) {
    (void)head;
    outlive_eof(c, body);
    qn_request_admit(l, c, QN_JOB_TOKENIZE);
}

static void detokenize(qn_loop *l, qn_http_conn *c, const qn_http_head *head, qn_str body) {
    (void)head;
    outlive_eof(c, body);
    qn_request_admit(l, c, QN_JOB_DETOKENIZE);
}

// ---------------------------------------------------------------- operations

// since: seconds since a step ended, while there is work.
static qn_watchdog watch(const struct qn_server *s, const qn_engine_stats *stats, double *since) {
    uint64_t now = qn_os_now_ns();
    *since = 0;
    if (!stats->has_work) return QN_WATCHDOG_IDLE;
    if (now > stats->last_progress_ns) *since = (double)(now - stats->last_progress_ns) * 1e-9;
    return *since > s->options.watchdog_seconds ? QN_WATCHDOG_STALLED : QN_WATCHDOG_WORKING;
}

bool qn_server_healthy(struct qn_server *s, const char **why) {
    if (atomic_load(&s->phase) != QN_PHASE_SERVE) {
        *why = "the server is shutting down";
        return false;
    }
    qn_engine_stats stats;
    double since;
    qn_engine_get_stats(s->engine, &stats);
    if (watch(s, &stats, &since) == QN_WATCHDOG_STALLED) {
        *why = "the engine has work and makes no progress";
        return false;
    }
    return true;
}

static void health(qn_loop *l, qn_http_conn *c, const qn_http_head *head, qn_str body) {
    const char *why = NULL;
    (void)head;
    (void)body;
    if (qn_server_healthy(l->server, &why)) {
        qn_http_respond(c, 200, "application/json", "{\"status\":\"ok\"}", 15);
        return;
    }
    qn_api_error err = {0};
    qn_api_fail(&err, 503, NULL, "%s", why);
    qn_respond_error(l, c, &err);
}

static void version(qn_loop *l, qn_http_conn *c, const qn_http_head *head, qn_str body) {
    (void)head;
    (void)body;
    qn_buf *b = &l->scratch;
    qn_buf_clear(b);
    qn_buf_puts(b, "{\"version\":");
    qn_buf_json_string(b, l->server->version, strlen(l->server->version));
    qn_buf_putc(b, '}');
    respond_buf(l, c, b);
}

static void metrics(qn_loop *l, qn_http_conn *c, const qn_http_head *head, qn_str body) {
    (void)head;
    (void)body;
    struct qn_server *s = l->server;
    qn_metrics_state state = {.version = s->version, .info = s->info};
    qn_engine_get_stats(s->engine, &state.stats);
    state.watchdog = watch(s, &state.stats, &state.since_progress);
    state.healthy = atomic_load(&s->phase) == QN_PHASE_SERVE && state.watchdog != QN_WATCHDOG_STALLED;
    state.stats.waiting += (int32_t)qn_pool_count(s->pool);
    qn_buf *b = &l->scratch;
    qn_buf_clear(b);
    qn_metrics_text(s->metrics, &state, b);
    if (b->failed) {
        respond_buf(l, c, b);
        return;
    }
    qn_http_respond(c, 200, "text/plain; version=0.0.4; charset=utf-8", b->data, b->len);
}

static void drain(qn_loop *l, qn_http_conn *c, const qn_http_head *head, qn_str body) {
    (void)head;
    (void)body;
    qn_server_drain(l->server);
    qn_http_respond(c, 202, "application/json", "{\"status\":\"draining\"}", 21);
}
