// SPDX-License-Identifier: Apache-2.0
// Loops and their life. The phase only grows (serve, drain, stop); every loop acts on it by itself,
// woken through its mailbox's descriptor, and leaves when nothing of its own is under way.
#include "server/prepare.h"

#include "base/checked.h"
#include "base/os.h"
#include "http/tls.h"

#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MAILBOX = 64 * 1024 };
static const double DRAIN_TICK = 0.02, FLUSH_GRACE = 0.1, LOG_SECONDS = 10, FILE_SECONDS = 1;

static struct timeval to_timeval(double seconds) {
    struct timeval tv = {(time_t)seconds, 0};
    tv.tv_usec = (suseconds_t)((seconds - (double)tv.tv_sec) * 1e6);
    return tv;
}

void qn_loop_name(qn_loop *l, char out[33]) {
    // Unique in this process by the count, elsewhere by the random key; it guards nothing.
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)l->id_key,
             (unsigned long long)(l->id_key ^ ++l->id_count));
}

// ---------------------------------------------------------------- phases

static void raise_phase(struct qn_server *s, int phase) {
    int old = atomic_load(&s->phase);
    while (old < phase && !atomic_compare_exchange_weak(&s->phase, &old, phase)) {
    }
    for (size_t i = 0; i < s->n_loops; i++) qn_wakeup_signal(&s->loops[i].mailbox.wakeup);
}

void qn_server_drain(struct qn_server *s) { raise_phase(s, QN_PHASE_DRAIN); }

static void follow_phase(qn_loop *l) {
    struct qn_server *s = l->server;
    int phase = atomic_load(&s->phase);
    if (phase >= QN_PHASE_DRAIN && l->phase == QN_PHASE_SERVE) {
        l->phase = QN_PHASE_DRAIN;
        double timeout = s->options.shutdown_timeout;
        l->deadline_ns = qn_os_now_ns() + (uint64_t)(timeout * 1e9);
        qn_http_server_drain(l->http);
        if (l->admin) qn_http_server_drain(l->admin);
        struct timeval tick = to_timeval(DRAIN_TICK);
        event_add(l->drain_tick, &tick);
        if (l->index == 0) {
            qn_logf(s->options.log, QN_LOG_INFO,
                    "shutting down: finishing what runs, for at most %g s", timeout);
        }
    }
    if (phase >= QN_PHASE_STOP && l->phase != QN_PHASE_STOP) {
        l->phase = QN_PHASE_STOP;
        event_base_loopbreak(l->base);
    }
}

static void on_drain_tick(evutil_socket_t fd, short what, void *arg) {
    qn_loop *l = arg;
    (void)fd;
    (void)what;
    if (qn_http_server_busy(l->http) == 0) {
        // The service loop is the last to leave: it takes the second signal.
        if (l->index > 0 || atomic_load(&l->server->others) == 0) event_base_loopbreak(l->base);
        return;
    }
    uint64_t now = qn_os_now_ns();
    if (now >= l->deadline_ns) {
        qn_generate_abort_all(l);
        // What the streams were told last gets a moment to leave.
        if ((double)(now - l->deadline_ns) * 1e-9 > FLUSH_GRACE) event_base_loopbreak(l->base);
    }
}

// ---------------------------------------------------------------- moving connections

// The least loaded of the API's loops, in turn where several are.
static qn_loop *choose_loop(struct qn_server *s) {
    size_t n = s->n_loops - 1;
    qn_loop *best = NULL;
    for (size_t i = 0; i < n; i++) {
        qn_loop *l = &s->loops[1 + (s->next_loop + i) % n];
        if (!best || atomic_load(&l->n_conns) < atomic_load(&best->n_conns)) best = l;
    }
    s->next_loop++;
    return best;
}

static void on_moved(void *loop, qn_http_moved *m) {
    struct qn_server *s = ((qn_loop *)loop)->server;
    qn_loop *to = choose_loop(s);
    pthread_mutex_lock(&to->inbox_lock);
    bool ok = qn_grow(&to->inbox, &to->cap_inbox, to->n_inbox + 1, sizeof(qn_http_moved *));
    if (ok) to->inbox[to->n_inbox++] = m;
    pthread_mutex_unlock(&to->inbox_lock);
    if (ok) {
        atomic_fetch_add(&to->n_conns, 1);
        qn_wakeup_signal(&to->mailbox.wakeup);
    } else {
        qn_http_moved_free(m);
    }
}

static void take_inbox(qn_loop *l) {
    if (l->index == 0) return;
    for (;;) {
        pthread_mutex_lock(&l->inbox_lock);
        qn_http_moved *m = l->n_inbox ? l->inbox[--l->n_inbox] : NULL;
        pthread_mutex_unlock(&l->inbox_lock);
        if (!m) break;
        qn_http_server_adopt(l->http, m);
    }
    atomic_store(&l->n_conns, qn_http_server_count(l->http));
}

// ---------------------------------------------------------------- events

static void on_wake(evutil_socket_t fd, short what, void *arg) {
    qn_loop *l = arg;
    uint64_t handle;
    (void)fd;
    (void)what;
    // At most as many as the mailbox holds: what comes in meanwhile has its turn after the sockets'.
    for (size_t i = 0; i < 4096; i++) {
        if (!qn_mailbox_take(&l->mailbox, &handle)) break;
        qn_generate_ready(l, handle);
    }
    qn_request_prepared(l);
    take_inbox(l);
    follow_phase(l);
}

static void on_signal(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    qn_server_stop(arg);
}

static void on_stop(evutil_socket_t fd, short what, void *arg) {
    struct qn_server *s = arg;
    uint64_t count = 0;
    (void)what;
    // The descriptor counts the calls, so two that come together are seen as two.
    if (read(fd, &count, sizeof count) != (ssize_t)sizeof count) return;
    int phase = atomic_load(&s->phase);
    raise_phase(s, phase == QN_PHASE_SERVE && count == 1 ? QN_PHASE_DRAIN : QN_PHASE_STOP);
}

void qn_server_stop(qn_server *s) { qn_wakeup_signal(&s->stop); }

// Files that may change while the server runs.
static void reload_keys(struct qn_server *s, bool force) {
    bool changed = false;
    qn_error err = {0};
    if (qn_keys_reload(s->keys, force, &changed, &err) != QN_OK) {
        // A missing file is looked for at every tick: say it when asked, or when there was a new one.
        if (force || err.status != QN_ERR_IO) {
            qn_logf(s->options.log, QN_LOG_WARN, "the API keys stay as they were: %s", err.message);
        }
    } else if (changed) {
        qn_logf(s->options.log, QN_LOG_INFO, "read the API keys again: %zu", qn_keys_count(s->keys));
    }
}

static void reload_all(struct qn_server *s, bool force) {
    bool changed = false;
    qn_error err = {0};
    reload_keys(s, force);
    if (!s->tls) return;
    if (qn_tls_reload(s->tls, force, &changed, &err) != QN_OK) {
        if (force || err.status != QN_ERR_IO) {
            qn_logf(s->options.log, QN_LOG_WARN, "the certificate stays as it was: %s", err.message);
        }
    } else if (changed) {
        qn_logf(s->options.log, QN_LOG_INFO, "read the certificate again");
    }
}

static void on_file_tick(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    reload_all(arg, false);
}

static void on_sighup(evutil_socket_t fd, short what, void *arg) {
    (void)fd;
    (void)what;
    reload_all(arg, true);
}

static void on_log_tick(evutil_socket_t fd, short what, void *arg) {
    qn_loop *l = arg;
    struct qn_server *s = l->server;
    (void)fd;
    (void)what;
    qn_engine_stats now;
    qn_engine_get_stats(s->engine, &now);
    uint64_t t = qn_os_now_ns();
    double seconds = (double)(t - l->logged_ns) * 1e-9;
    uint64_t prompt = now.prompt_tokens - l->logged.prompt_tokens;
    uint64_t generated = now.generated_tokens - l->logged.generated_tokens;
    uint64_t queries = now.prefix_queries - l->logged.prefix_queries;
    uint64_t hits = now.prefix_hits - l->logged.prefix_hits;
    if (seconds > 0 && (prompt || generated || now.has_work)) {
        qn_logf(s->options.log, QN_LOG_INFO,
                "prompt %.1f tok/s, generation %.1f tok/s, running %d, waiting %d, KV use %.1f%%, "
                "prefix cache hits %.1f%%",
                (double)prompt / seconds, (double)generated / seconds, now.running,
                now.waiting + (int32_t)qn_pool_count(s->pool), now.kv_usage * 100,
                queries ? (double)hits * 100 / (double)queries : 0);
    }
    l->logged = now;
    l->logged_ns = t;
}

// ---------------------------------------------------------------- loops

static qn_status loop_open(struct qn_server *s, int index, qn_loop *l, qn_error *err) {
    l->server = s;
    l->index = index;
    if (pthread_mutex_init(&l->inbox_lock, NULL) != 0) {
        l->server = NULL;
        return qn_fail(err, QN_ERR_NOMEM, "cannot make a lock");
    }
    qn_status st = qn_mailbox_open(&l->mailbox, MAILBOX, err);
    if (st != QN_OK) return st;
    l->base = event_base_new();
    if (!l->base || !qn_handle_map_init(&l->live, QN_SERVER_MAX_LIVE) ||
        !qn_os_random(&l->id_key, sizeof l->id_key)) {
        return qn_fail(err, QN_ERR_NOMEM, "cannot make an event loop");
    }
    qn_http_handlers handlers = {
        .user = l,
        .on_head = qn_routes_head,
        .on_request = qn_routes_request,
        .on_close = qn_generate_close,
        .on_writable = qn_generate_writable,
        .on_finish = qn_routes_finish,
        .format_error = qn_routes_format_error,
    };
    if (index == 0) {
        handlers.leaves = qn_routes_leaves;
        handlers.on_moved = on_moved;
    }
    st = qn_http_server_create(l->base, &s->options.http, &handlers, s->options.log, &l->http, err);
    if (st == QN_OK) qn_http_server_set_tls(l->http, s->tls);
    if (st == QN_OK && (index == 0) == !s->tls) {
        st = qn_http_server_accept(l->http, s->listen_fd, err);
    }
    if (st == QN_OK && index == 0 && s->admin_fd >= 0) {
        handlers.leaves = NULL;
        handlers.on_moved = NULL;
        handlers.on_head = qn_routes_admin_head;
        st = qn_http_server_create(l->base, &s->options.http, &handlers, s->options.log, &l->admin,
                                   err);
        if (st == QN_OK) st = qn_http_server_accept(l->admin, s->admin_fd, err);
    }
    if (st != QN_OK) return st;
    l->wake = event_new(l->base, l->mailbox.wakeup.fd, EV_READ | EV_PERSIST, on_wake, l);
    l->drain_tick = event_new(l->base, -1, EV_PERSIST, on_drain_tick, l);
    qn_pool_attach(s->pool, (size_t)index, &l->mailbox.wakeup);
    if (!l->wake || !l->drain_tick || event_add(l->wake, NULL) != 0) {
        return qn_fail(err, QN_ERR_NOMEM, "cannot make an event loop");
    }
    if (index > 0) return QN_OK;
    s->stop_event = event_new(l->base, s->stop.fd, EV_READ | EV_PERSIST, on_stop, s);
    l->log_tick = event_new(l->base, -1, EV_PERSIST, on_log_tick, l);
    l->file_tick = event_new(l->base, -1, EV_PERSIST, on_file_tick, s);
    struct timeval tick = to_timeval(LOG_SECONDS), file_tick = to_timeval(FILE_SECONDS);
    if (!s->stop_event || !l->log_tick || !l->file_tick ||
        event_add(l->file_tick, &file_tick) != 0 || event_add(s->stop_event, NULL) != 0 ||
        event_add(l->log_tick, &tick) != 0) {
        return qn_fail(err, QN_ERR_NOMEM, "cannot make an event loop");
    }
    return QN_OK;
}

// From here on a signal drains; one that comes before run is seen by it.
static qn_status watch_signals(struct qn_server *s, qn_error *err) {
    qn_loop *l = &s->loops[0];
    signal(SIGPIPE, SIG_IGN);
    l->sigterm = evsignal_new(l->base, SIGTERM, on_signal, s);
    l->sigint = evsignal_new(l->base, SIGINT, on_signal, s);
    l->sighup = evsignal_new(l->base, SIGHUP, on_sighup, s);
    if (!l->sigterm || !l->sigint || !l->sighup || event_add(l->sighup, NULL) != 0 || event_add(l->sigterm, NULL) != 0 ||
        event_add(l->sigint, NULL) != 0) {
        return qn_fail(err, QN_ERR_NOMEM, "cannot watch signals");
    }
    return QN_OK;
}

static void free_event(struct event *e) {
    if (e) event_free(e);
}

static void loop_close(qn_loop *l) {
    if (!l->server) return;
    for (size_t i = 0; i < l->n_inbox; i++) qn_http_moved_free(l->inbox[i]);
    free(l->inbox);
    pthread_mutex_destroy(&l->inbox_lock);
    qn_http_server_destroy(l->admin);
    qn_http_server_destroy(l->http); // ends the generations of connections that are left
    free_event(l->wake);
    free_event(l->drain_tick);
    free_event(l->log_tick);
    free_event(l->file_tick);
    free_event(l->sighup);
    free_event(l->sigterm);
    free_event(l->sigint);
    if (l->index == 0) free_event(l->server->stop_event);
    if (l->base) event_base_free(l->base);
    if (l->mailbox.ready) qn_mailbox_close(&l->mailbox);
    qn_handle_map_free(&l->live);
    qn_buf_free(&l->scratch);
    qn_buf_free(&l->piece);
}

static void loop_run(void *arg) {
    qn_loop *l = arg;
    follow_phase(l);
    if (l->phase != QN_PHASE_STOP) event_base_dispatch(l->base);
    if (l->index > 0) atomic_fetch_sub(&l->server->others, 1);
}

// ---------------------------------------------------------------- life

static char *copy(const char *s) { return strdup(s ? s : ""); }

static qn_status take_options(struct qn_server *s, const qn_server_options *o, qn_error *err) {
    s->options = *o;
    qn_server_options *x = &s->options;
    if (!o->engine) return qn_fail(err, QN_ERR_INVALID, "no engine");
    if (!x->host) x->host = "127.0.0.1";
    if (o->port < 0 || o->port > 65535) {
        return qn_fail(err, QN_ERR_INVALID, "port %d is not between 0 and 65535", o->port);
    }
    if (x->io_threads == 0) x->io_threads = 1;
    if (x->io_threads < 1 || x->io_threads > QN_SERVER_MAX_LOOPS) {
        return qn_fail(err, QN_ERR_INVALID, "%d I/O threads (1 to %d)", x->io_threads,
                       QN_SERVER_MAX_LOOPS);
    }
    if (x->prepare_threads == 0) {
        x->prepare_threads = QN_MAX(2, QN_MIN(qn_os_cpu_count() / 4, 8));
    }
    if (x->prepare_threads < 1 || x->prepare_threads > QN_SERVER_MAX_LOOPS) {
        return qn_fail(err, QN_ERR_INVALID, "%d threads for prompts (1 to %d)", x->prepare_threads,
                       QN_SERVER_MAX_LOOPS);
    }
    if (!x->admin_host) x->admin_host = "127.0.0.1";
    if (o->admin_port < -1 || o->admin_port > 65535) {
        return qn_fail(err, QN_ERR_INVALID, "admin port %d is not between 1 and 65535", o->admin_port);
    }
    if (x->max_queued <= 0) x->max_queued = 1024;
    if (x->max_logprobs <= 0 || x->max_logprobs > QN_MAX_TOP_LOGPROBS) {
        x->max_logprobs = QN_MAX_TOP_LOGPROBS;
    }
    if (x->shutdown_timeout < 0) x->shutdown_timeout = 0;
    else if (!(x->shutdown_timeout > 0)) x->shutdown_timeout = 30;
    x->shutdown_timeout = QN_MIN(x->shutdown_timeout, 86400.0);
    if (!(x->watchdog_seconds > 0)) x->watchdog_seconds = 120;
    s->version = copy(x->version);
    s->prefix = copy(x->metrics_prefix ? x->metrics_prefix : "vllm:");
    if (!s->version || !s->prefix) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    for (const char *p = s->prefix; *p; p++) {
        bool ok = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || *p == '_' || *p == ':' ||
                  (*p >= '0' && *p <= '9' && p > s->prefix);
        if (!ok) return qn_fail(err, QN_ERR_INVALID, "metrics prefix: letters, digits, _ and : only");
    }
    const char *own = qn_engine_get_info(o->engine)->name;
    const char *const *names = o->n_model_names ? o->model_names : &own;
    s->n_names = o->n_model_names ? o->n_model_names : 1;
    s->names = calloc(s->n_names, sizeof *s->names);
    for (size_t i = 0; s->names && i < s->n_names; i++) {
        if (!names[i] || !*names[i]) return qn_fail(err, QN_ERR_INVALID, "an empty model name");
        s->names[i] = copy(names[i]);
        if (!s->names[i]) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    s->origins = calloc(o->n_allowed_origins + 1, sizeof *s->origins);
    if (!s->names || !s->origins) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    for (; s->n_origins < o->n_allowed_origins; s->n_origins++) {
        s->origins[s->n_origins] = copy(o->allowed_origins[s->n_origins]);
        if (!s->origins[s->n_origins]) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    if (o->uds && !(s->uds = copy(o->uds))) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    qn_status st = qn_keys_create(o->api_keys, o->n_api_keys, o->api_key_file, &s->keys, err);
    if (st != QN_OK) return st;
    if (!o->ssl_certfile != !o->ssl_keyfile) {
        return qn_fail(err, QN_ERR_INVALID, "TLS needs both a certificate and a key");
    }
    if (o->ssl_certfile) {
        st = qn_tls_create(o->ssl_certfile, o->ssl_keyfile, &s->tls, err);
        if (st != QN_OK) return st;
    }
    // Nothing of the caller's is kept.
    x->model_names = x->api_keys = x->allowed_origins = NULL;
    x->api_key_file = x->uds = x->ssl_certfile = x->ssl_keyfile = NULL;
    x->version = x->metrics_prefix = NULL;
    return QN_OK;
}

qn_status qn_server_create(const qn_server_options *options, qn_server **out, qn_error *err) {
    *out = NULL;
    struct qn_server *s = calloc(1, sizeof *s);
    if (!s) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    s->listen_fd = s->admin_fd = -1;
    s->stop.fd = -1;
    atomic_init(&s->phase, QN_PHASE_SERVE);
    qn_status st = take_options(s, options, err);
    if (st != QN_OK) goto fail;
    s->engine = options->engine;
    s->info = qn_engine_get_info(s->engine);
    s->started = (int64_t)qn_os_wall_time();
    s->limits = (qn_request_limits){
        .vocab_size = s->info->vocab_size,
        .max_model_len = s->info->max_model_len,
        .max_logprobs = s->options.max_logprobs,
        .temperature = s->info->temperature,
        .top_p = s->info->top_p,
        .min_p = s->info->min_p,
        .top_k = s->info->top_k,
        .repetition_penalty = s->info->repetition_penalty,
        .max_new_tokens = s->info->max_new_tokens,
    };
    s->metrics = qn_metrics_create(s->prefix, s->names[0], s->info->max_model_len,
                                   qn_route_handlers, qn_route_handler_count());
    if (!s->metrics) {
        st = qn_fail(err, QN_ERR_NOMEM, "out of memory");
        goto fail;
    }
    if (s->uds) {
        st = qn_http_listen_unix(s->uds, &s->unix_socket, err);
        s->listen_fd = s->unix_socket.fd;
    } else {
        st = qn_http_listen(s->options.host, (uint16_t)options->port, &s->listen_fd, &s->port,
                            &s->loopback, err);
    }
    if (st == QN_OK && options->admin_port != 0) {
        st = qn_http_listen(s->options.admin_host, (uint16_t)QN_MAX(options->admin_port, 0),
                            &s->admin_fd, &s->admin_port, &s->admin_loopback, err);
    }
    s->options.host = s->options.admin_host = NULL;
    if (st == QN_OK) st = qn_wakeup_open(&s->stop, err);
    if (st != QN_OK) goto fail;
    s->n_loops = 1 + (size_t)s->options.io_threads;
    s->loops = calloc(s->n_loops, sizeof *s->loops);
    if (!s->loops) {
        s->n_loops = 0;
        st = qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    const qn_pool_options po = {
        .threads = (size_t)s->options.prepare_threads,
        .capacity = (size_t)QN_MIN(s->options.max_queued, 64 * 1024) +
                    (size_t)s->options.prepare_threads,
        .n_loops = s->n_loops,
        .run = qn_job_run,
        .destroy = qn_job_destroy,
        .user = s,
    };
    if (st == QN_OK) st = qn_pool_create(&po, &s->pool, err);
    for (size_t i = 0; st == QN_OK && i < s->n_loops; i++) {
        st = loop_open(s, (int)i, &s->loops[i], err);
    }
    if (st == QN_OK && s->options.handle_signals) st = watch_signals(s, err);
    if (st == QN_OK) {
        *out = s;
        return QN_OK;
    }
fail:
    qn_server_destroy(s);
    return st;
}

int32_t qn_server_port(const qn_server *s) { return s->port; }
int32_t qn_server_admin_port(const qn_server *s) { return s->admin_port; }

qn_status qn_server_run(qn_server *s, qn_error *err) {
    qn_status st = qn_pool_start(s->pool, err);
    qn_loop *first = &s->loops[0];
    first->logged_ns = qn_os_now_ns();
    for (size_t i = 1; st == QN_OK && i < s->n_loops; i++) {
        char name[16];
        snprintf(name, sizeof name, "quern-io-%d", (int)i);
        atomic_fetch_add(&s->others, 1);
        st = qn_thread_start(&s->loops[i].thread, name, loop_run, &s->loops[i], err);
        if (st != QN_OK) atomic_fetch_sub(&s->others, 1);
    }
    if (st == QN_OK) loop_run(first);
    raise_phase(s, QN_PHASE_STOP);
    for (size_t i = 1; i < s->n_loops; i++) qn_thread_join(&s->loops[i].thread);
    qn_pool_stop(s->pool);
    return st;
}

void qn_server_destroy(qn_server *s) {
    if (!s) return;
    for (size_t i = 0; i < s->n_loops; i++) loop_close(&s->loops[i]);
    free(s->loops);
    qn_pool_destroy(s->pool);
    if (s->stop.fd >= 0) qn_wakeup_close(&s->stop);
    if (s->listen_fd >= 0) {
        close(s->listen_fd);
        if (s->uds) qn_http_unlink_unix(s->uds, &s->unix_socket);
    }
    if (s->admin_fd >= 0) close(s->admin_fd);
    qn_metrics_destroy(s->metrics);
    for (size_t i = 0; s->names && i < s->n_names; i++) free(s->names[i]);
    free(s->names);
    qn_keys_destroy(s->keys);
    qn_tls_destroy(s->tls);
    for (size_t i = 0; i < s->n_origins; i++) free(s->origins[i]);
    free(s->origins);
    free(s->uds);
    free(s->version);
    free(s->prefix);
    free(s);
}
