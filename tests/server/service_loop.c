// SPDX-License-Identifier: Apache-2.0
// The service loop answers while every loop of the API stands still: the log's sink, called by an API
// loop at the end of a request, holds it until the test lets go.
#include "base/os.h"
#include "http/client.h"
#include "server/server.h"
#include "tests/support/fake_backend.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const model_path = QN_SOURCE_DIR "/models/quern-demo-q8_0.gguf";

typedef struct gate {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool closed;
    atomic_int held;
} gate;

static void sink(void *user, qn_log_level level, const char *line) {
    gate *g = user;
    (void)level;
    if (!strstr(line, "/v1/models")) return;
    atomic_fetch_add(&g->held, 1);
    pthread_mutex_lock(&g->lock);
    while (g->closed) pthread_cond_wait(&g->changed, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

static void run_server(void *server) { assert_int_equal(qn_server_run(server, NULL), QN_OK); }

typedef struct ask {
    uint16_t port;
    const char *method, *path;
    atomic_int status; // 0: not yet
    int code;
} ask;

static void note_status(void *user, const qn_http_head *head) { ((ask *)user)->code = head->status; }

static void fetch(void *user) {
    ask *a = user;
    qn_url url = {.port = a->port};
    snprintf(url.host, sizeof url.host, "127.0.0.1");
    snprintf(url.path, sizeof url.path, "/");
    const qn_http_call call = {.method = a->method, .path = a->path, .user = a,
                               .on_head = note_status, .total_seconds = 20};
    qn_error err = {0};
    if (qn_http_fetch(&url, &call, &err) != QN_OK) fprintf(stderr, "%s\n", err.message);
    atomic_store(&a->status, a->code ? a->code : -1);
}

static int status_of(uint16_t port, const char *method, const char *path, double *seconds) {
    ask a = {.port = port, .method = method, .path = path};
    uint64_t begin = qn_os_now_ns();
    fetch(&a);
    if (seconds) *seconds = (double)(qn_os_now_ns() - begin) * 1e-9;
    return a.status;
}

static void test_stalled_loops(void **state) {
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    gate g = {.closed = true};
    pthread_mutex_init(&g.lock, NULL);
    pthread_cond_init(&g.changed, NULL);
    const qn_log log = {.write = sink, .user = &g, .min_level = QN_LOG_INFO};
    const qn_engine_options eo = {.backend = &qn_fake_backend, .kv_cache_memory_bytes = 8 << 20};
    qn_engine *engine;
    qn_error err = {0};
    if (qn_engine_open(model_path, &eo, &engine, &err) != QN_OK) fail_msg("%s", err.message);
    const qn_server_options so = {.engine = engine, .io_threads = 2, .admin_port = -1, .log = &log,
                                  .log_requests = true};
    qn_server *server;
    if (qn_server_create(&so, &server, &err) != QN_OK) fail_msg("%s", err.message);
    uint16_t port = (uint16_t)qn_server_port(server);
    uint16_t admin = (uint16_t)qn_server_admin_port(server);
    qn_thread thread = {0};
    assert_int_equal(qn_thread_start(&thread, "server", run_server, server, NULL), QN_OK);

    // Two requests, one for each loop: they are answered, and then their loops stand.
    ask models[2];
    qn_thread askers[2] = {0};
    for (int i = 0; i < 2; i++) {
        models[i] = (ask){.port = port, .method = "GET", .path = "/v1/models"};
        assert_int_equal(qn_thread_start(&askers[i], "asker", fetch, &models[i], NULL), QN_OK);
        for (int k = 0; k < 5000 && atomic_load(&g.held) <= i; k++) usleep(1000);
    }
    assert_int_equal(atomic_load(&g.held), 2);
    // A third one waits.
    ask third = {.port = port, .method = "GET", .path = "/v1/models"};
    qn_thread third_asker = {0};
    assert_int_equal(qn_thread_start(&third_asker, "asker", fetch, &third, NULL), QN_OK);
    static const char *const paths[] = {"/health", "/ping", "/version", "/metrics"};
    double worst = 0;
    for (int i = 0; i < 40; i++) {
        double seconds;
        assert_int_equal(status_of(i % 8 < 4 ? port : admin, "GET", paths[i % 4], &seconds), 200);
        if (seconds > worst) worst = seconds;
    }
    assert_true(worst < 0.5);
    assert_int_equal(atomic_load(&third.status), 0);

    pthread_mutex_lock(&g.lock);
    g.closed = false;
    pthread_cond_broadcast(&g.changed);
    pthread_mutex_unlock(&g.lock);
    for (int i = 0; i < 2; i++) {
        qn_thread_join(&askers[i]);
        assert_int_equal(models[i].status, 200);
    }
    qn_thread_join(&third_asker);
    assert_int_equal(third.status, 200);

    // The admin port has no API, and the API's port no drain.
    assert_int_equal(status_of(admin, "GET", "/v1/models", NULL), 404);
    assert_int_equal(status_of(port, "POST", "/drain", NULL), 404);
    assert_int_equal(status_of(admin, "GET", "/drain", NULL), 405);
    assert_int_equal(status_of(admin, "POST", "/drain", NULL), 202);
    qn_thread_join(&thread);
    qn_server_destroy(server);
    qn_engine_close(engine);
    pthread_cond_destroy(&g.changed);
    pthread_mutex_destroy(&g.lock);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_stalled_loops)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
