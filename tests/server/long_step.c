// SPDX-License-Identifier: Apache-2.0
// A client that leaves while a step takes a second: its abort is counted while that step still runs,
// nothing more is computed for it afterwards, and its blocks are free two steps later at the latest.
#include "base/os.h"
#include "http/client.h"
#include "server/server.h"
#include "tests/support/fake_backend.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const model_path = QN_SOURCE_DIR "/models/quern-demo-q8_0.gguf";
static const double STEP = 1.0;

static void run_server(void *server) { assert_int_equal(qn_server_run(server, NULL), QN_OK); }

static void append(void *user, qn_str piece) { qn_buf_append(user, piece.data, piece.len); }

// The value of the first sample whose line begins so.
static double sample(uint16_t port, const char *begin) {
    qn_buf text = {0};
    qn_url url = {.host = "127.0.0.1", .port = port, .path = "/"};
    const qn_http_call call = {.method = "GET", .path = "/metrics", .user = &text,
                               .on_body = append, .total_seconds = 20};
    qn_error err = {0};
    if (qn_http_fetch(&url, &call, &err) != QN_OK) fail_msg("%s", err.message);
    qn_buf_putc(&text, '\0');
    assert_false(text.failed);
    const char *line = strstr(text.data, begin);
    if (!line) fail_msg("no %s", begin);
    const char *space = strchr(line, ' ');
    double value = space ? strtod(space, NULL) : -1;
    qn_buf_free(&text);
    return value;
}

#define LABELS "{model_name=\"quern-demo\",engine=\"0\""
#define STEPS "vllm:scheduler_steps_total{"
#define ABORTS "vllm:request_success_total" LABELS ",finished_reason=\"abort\"}"
#define IN_TWO "vllm:request_abort_steps_bucket" LABELS ",le=\"2\"}"
#define ALL "vllm:request_abort_steps_count{"

static double until(uint16_t port, const char *begin, double least) {
    uint64_t deadline = qn_os_now_ns() + (uint64_t)60e9;
    for (;;) {
        double v = sample(port, begin);
        if (v >= least) return v;
        if (qn_os_now_ns() > deadline) fail_msg("%s stays %g", begin, v);
        usleep(1000);
    }
}

static int begin_request(uint16_t port, const char *fields) {
    char body[300], text[600];
    snprintf(body, sizeof body, "{\"prompt\":\"a b c d e f g h\",\"ignore_eos\":true%s}", fields);
    snprintf(text, sizeof text,
             "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
             "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    return fd;
}

static void leaves(const qn_backend_api *backend) {
    signal(SIGPIPE, SIG_IGN);
    qn_fake_backend_set((qn_fake_options){.step_seconds = STEP});
    // One sequence, four tokens a step: the first client is in prefill, the second waits.
    const qn_engine_options eo = {.backend = backend, .kv_cache_memory_bytes = 8 << 20,
                                  .max_num_seqs = 1, .max_num_batched_tokens = 4};
    qn_engine *engine;
    qn_server *server;
    qn_error err = {0};
    if (qn_engine_open(model_path, &eo, &engine, &err) != QN_OK) fail_msg("%s", err.message);
    const qn_server_options so = {.engine = engine, .admin_port = -1};
    if (qn_server_create(&so, &server, &err) != QN_OK) fail_msg("%s", err.message);
    uint16_t port = (uint16_t)qn_server_port(server);
    uint16_t admin = (uint16_t)qn_server_admin_port(server);
    qn_thread thread = {0};
    assert_int_equal(qn_thread_start(&thread, "server", run_server, server, NULL), QN_OK);

    int running = begin_request(port, ",\"stream\":true,\"max_tokens\":1000");
    until(admin, STEPS, 1); // a step has ended, the next has begun
    int waiting = begin_request(port, ",\"max_tokens\":7");
    usleep(20000);
    double steps = until(admin, STEPS, sample(admin, STEPS) + 1);
    uint64_t begin = qn_os_now_ns();
    close(waiting);
    close(running);
    until(admin, ABORTS, 2);
    double seconds = (double)(qn_os_now_ns() - begin) * 1e-9;
    double at = sample(admin, STEPS);
    print_message("aborted after %.1f ms, in a step of %.0f ms\n", seconds * 1e3, STEP * 1e3);
    assert_true(at <= steps + 1); // a machine that stands still for a second may see the next one
    assert_true(seconds < STEP + 5);
    until(admin, ALL, 2);
    assert_true(sample(admin, IN_TWO) >= 2);
    assert_true(sample(admin, "vllm:kv_cache_usage_perc{") <= 0);
    assert_true(sample(admin, "vllm:num_requests_running{") <= 0);
    double last = sample(admin, STEPS);
    assert_true(last <= steps + 2);
    usleep((useconds_t)(1.5e6 * STEP));
    assert_true(sample(admin, STEPS) <= last); // no step for nobody

    qn_server_stop(server);
    qn_thread_join(&thread);
    qn_server_destroy(server);
    qn_engine_close(engine);
    qn_fake_backend_set((qn_fake_options){0});
}

static void test_one_step(void **state) {
    (void)state;
    leaves(&qn_fake_backend);
}

static void test_look_ahead(void **state) {
    (void)state;
    leaves(&qn_fake_backend_lookahead);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_one_step),
                                       cmocka_unit_test(test_look_ahead)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
