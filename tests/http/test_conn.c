// SPDX-License-Identifier: Apache-2.0
// Connections of the server, on a loop in this thread: deadlines (with limits of fractions of a
// second), pausing, slow readers, disconnects, refusals; and the client against it.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/os.h"
#include "http/client.h"
#include "http/server_conn.h"

typedef struct fixture {
    struct event_base *base;
    qn_http_server *server;
    int fd;
    uint16_t port;
    qn_http_conn *waiting; // the last request on /wait or /stream
    int requests, closes, finishes, writables;
    int last_status;
    bool last_complete;
} fixture;

static void on_request(void *user, qn_http_conn *c, const qn_http_head *head, qn_str body) {
    fixture *f = user;
    f->requests++;
    if (qn_str_is(head->path, "/echo")) {
        qn_http_respond(c, 200, "text/plain", body.data, body.len);
    } else if (qn_str_is(head->path, "/sse")) {
        f->waiting = c;
        qn_http_sse_begin(c);
    } else if (qn_str_is(head->path, "/wait")) {
        f->waiting = c;
    } else {
        qn_http_respond(c, 404, NULL, "", 0);
    }
}

static void on_close(void *user, qn_http_conn *c) {
    fixture *f = user;
    assert_ptr_equal(f->waiting, c);
    f->waiting = NULL;
    f->closes++;
}

static void on_writable(void *user, qn_http_conn *c) {
    fixture *f = user;
    assert_ptr_equal(f->waiting, c);
    f->writables++;
}

static void on_finish(void *user, qn_http_conn *c, const qn_http_outcome *o) {
    fixture *f = user;
    (void)c;
    f->finishes++;
    f->last_status = o->status;
    f->last_complete = o->complete;
}

static void format_error(void *user, int status, const char *reason, qn_buf *body) {
    (void)user;
    qn_buf_printf(body, "{\"%d\":\"%s\"}", status, reason);
}

static int setup(void **state) {
    static const qn_http_limits limits = {
        .max_body = 4 << 20,
        .max_body_total = 6 << 20,
        .max_connections = 4,
        .output_high = 64 * 1024,
        .head_seconds = 0.2,
        .body_seconds = 0.2,
        .min_rate = 10e6,
        .idle_seconds = 0.5,
        .stall_seconds = 0.4,
        .comment_seconds = 0.1,
    };
    signal(SIGPIPE, SIG_IGN);
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->base = event_base_new();
    assert_non_null(f->base);
    const qn_http_handlers handlers = {
        .user = f,
        .on_request = on_request,
        .on_close = on_close,
        .on_writable = on_writable,
        .on_finish = on_finish,
        .format_error = format_error,
    };
    bool loopback = false;
    assert_int_equal(qn_http_server_create(f->base, &limits, &handlers, NULL, &f->server, NULL),
                     QN_OK);
    assert_int_equal(qn_http_listen("127.0.0.1", 0, &f->fd, &f->port, &loopback, NULL), QN_OK);
    assert_true(loopback && f->port);
    assert_int_equal(qn_http_server_accept(f->server, f->fd, NULL), QN_OK);
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    qn_http_server_destroy(f->server);
    close(f->fd);
    event_base_free(f->base);
    free(f);
    return 0;
}

static double now(void) { return (double)qn_os_now_ns() * 1e-9; }

static void spin(fixture *f, double seconds) {
    for (double end = now() + seconds; now() < end;) {
        event_base_loop(f->base, EVLOOP_NONBLOCK);
        usleep(500);
    }
}

static int dial(fixture *f, int receive_buffer) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    if (receive_buffer) {
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    }
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(f->port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void say(int fd, const char *text) {
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

// Reads until `until` is there, the peer closed (*closed) or the time is over.
static void hear(fixture *f, int fd, const char *until, double seconds, qn_buf *out, bool *closed) {
    *closed = false;
    for (double end = now() + seconds; now() < end && !*closed;) {
        char piece[4096];
        event_base_loop(f->base, EVLOOP_NONBLOCK);
        ssize_t n = recv(fd, piece, sizeof piece, 0);
        if (n > 0) qn_buf_append(out, piece, (size_t)n);
        else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) *closed = true;
        else usleep(500);
        if (until && out->data && strstr(out->data, until)) return;
    }
}

#define HOST "Host: a\r\n"

static void test_deadlines(void **state) {
    fixture *f = *state;
    static const struct {
        const char *say, *want;
        double least, most;
    } cases[] = {
        {"GET /echo HT", "HTTP/1.1 408 ", 0.18, 1},
        {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhel", "HTTP/1.1 408 ", 0.18, 1},
        {"GET /echo HTTP/1.1\r\n" HOST "\r\n", "HTTP/1.1 200 ", 0.45, 2}, // then idle
        {"", "", 0.45, 2},
    };
    for (size_t i = 0; i < QN_COUNT(cases); i++) {
        int fd = dial(f, 0);
        double begin = now();
        say(fd, cases[i].say);
        qn_buf out = {0};
        bool closed;
        hear(f, fd, NULL, 4, &out, &closed);
        assert_true(closed);
        assert_true(now() - begin > cases[i].least && now() - begin < cases[i].most);
        assert_int_equal(strncmp(out.data ? out.data : "", cases[i].want, strlen(cases[i].want)), 0);
        qn_buf_free(&out);
        close(fd);
    }
    spin(f, 0.05);
    assert_int_equal(qn_http_server_count(f->server), 0);
}

// One byte now and then does not move the head's deadline.
static void test_trickle(void **state) {
    fixture *f = *state;
    int fd = dial(f, 0);
    qn_buf out = {0};
    bool closed = false;
    double begin = now();
    for (int i = 0; i < 100 && !closed; i++) {
        send(fd, i ? "a" : "GET /", i ? 1 : 5, MSG_NOSIGNAL);
        hear(f, fd, "408", 0.02, &out, &closed);
        if (out.data && strstr(out.data, "408")) break;
    }
    assert_non_null(strstr(out.data, "408"));
    assert_true(now() - begin < 0.6);
    qn_buf_free(&out);
    close(fd);
}

static void test_disconnect_while_waiting(void **state) {
    fixture *f = *state;
    int fd = dial(f, 0);
    say(fd, "GET /wait HTTP/1.1\r\n" HOST "\r\n");
    spin(f, 0.05);
    assert_non_null(f->waiting);
    close(fd);
    spin(f, 0.05);
    assert_null(f->waiting);
    assert_int_equal(f->closes, 1);
    assert_int_equal(f->finishes, 1);
    assert_false(f->last_complete);
    assert_int_equal(qn_http_server_count(f->server), 0);
    // Also when so much is pipelined behind it that reading has stopped.
    fd = dial(f, 0);
    say(fd, "GET /wait HTTP/1.1\r\n" HOST "\r\n");
    char *junk = malloc(100000);
    assert_non_null(junk);
    memset(junk, 'a', 100000);
    spin(f, 0.02);
    for (size_t sent = 0; sent < 100000;) {
        ssize_t n = send(fd, junk, 100000 - sent, MSG_NOSIGNAL);
        if (n <= 0) break;
        sent += (size_t)n;
        spin(f, 0.005);
    }
    free(junk);
    assert_non_null(f->waiting);
    close(fd);
    spin(f, 0.1);
    assert_null(f->waiting);
    assert_int_equal(f->closes, 2);
}

static void test_answer_later(void **state) {
    fixture *f = *state;
    int fd = dial(f, 0);
    say(fd, "GET /wait HTTP/1.1\r\n" HOST "\r\nGET /echo HTTP/1.1\r\n" HOST "\r\n");
    spin(f, 0.05);
    assert_int_equal(f->requests, 1); // the second waits for the first's answer
    qn_http_respond(f->waiting, 200, "text/plain", "late", 4);
    spin(f, 0.05);
    assert_int_equal(f->requests, 2);
    qn_buf out = {0};
    bool closed;
    hear(f, fd, NULL, 0.1, &out, &closed);
    const char *late = strstr(out.data, "late");
    assert_non_null(late);
    assert_non_null(strstr(late, "HTTP/1.1 200 OK"));
    assert_false(closed);
    assert_int_equal(f->closes, 0);
    assert_int_equal(f->finishes, 2);
    qn_buf_free(&out);
    close(fd);
}

static void test_event_stream(void **state) {
    fixture *f = *state;
    int fd = dial(f, 0);
    say(fd, "GET /sse HTTP/1.1\r\n" HOST "\r\n");
    qn_buf out = {0};
    bool closed;
    hear(f, fd, "\r\n\r\n", 1, &out, &closed);
    // The head is there before any event.
    assert_non_null(strstr(out.data, "text/event-stream"));
    assert_non_null(strstr(out.data, "X-Accel-Buffering: no\r\n"));
    hear(f, fd, ":\n\n", 1, &out, &closed);
    assert_non_null(strstr(out.data, "3\r\n:\n\n\r\n"));
    qn_http_sse_data(f->waiting, "x", 1);
    qn_http_stream_end(f->waiting);
    hear(f, fd, "\r\n0\r\n\r\n", 1, &out, &closed);
    assert_non_null(strstr(out.data, "9\r\ndata: x\n\n\r\n0\r\n\r\n"));
    assert_true(f->last_complete);
    qn_buf_free(&out);
    close(fd);
}

// A reader that stops: the producer is paused, then told when there is room, or that he was cut off.
static void test_slow_reader(void **state) {
    fixture *f = *state;
    static char event[8192];
    memset(event, 'x', sizeof event);
    for (int reads = 0; reads < 2; reads++) {
        int fd = dial(f, 4096);
        f->writables = f->closes = 0;
        say(fd, "GET /sse HTTP/1.1\r\n" HOST "\r\n");
        spin(f, 0.05);
        size_t produced = 0;
        // As much as the kernel's buffers take, until it stays paused.
        for (int i = 0; i < 30; i++) {
            while (!qn_http_conn_paused(f->waiting)) {
                qn_http_sse_data(f->waiting, event, sizeof event);
                produced += sizeof event;
                assert_true(produced < 4u << 20);
                i = 0;
            }
            spin(f, 0.002);
        }
        int before = f->writables;
        if (reads) {
            qn_buf out = {0};
            bool closed;
            for (int i = 0; i < 200 && f->writables == before; i++) {
                hear(f, fd, NULL, 0.005, &out, &closed);
                assert_false(closed);
            }
            assert_true(f->writables > before);
            assert_false(qn_http_conn_paused(f->waiting));
            qn_buf_free(&out);
            close(fd);
            spin(f, 0.05);
        } else {
            double begin = now();
            while (f->waiting && now() - begin < 3) spin(f, 0.02);
            assert_true(now() - begin > 0.1 && now() - begin < 1.5);
            close(fd);
        }
        assert_null(f->waiting);
        assert_int_equal(f->closes, 1);
    }
}

// Many answers that nobody reads: what waits stays bounded, and the connection ends.
static void test_pipelining_without_reading(void **state) {
    fixture *f = *state;
    int fd = dial(f, 4096);
    char ask[4096 + 100];
    int n = snprintf(ask, sizeof ask, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 4096\r\n\r\n");
    memset(ask + n, 'x', 4096);
    n += 4096;
    double begin = now();
    int stuck = 0;
    for (size_t at = 0; now() - begin < 3 && stuck < 50;) {
        ssize_t k = send(fd, ask + at, (size_t)n - at, MSG_NOSIGNAL);
        if (k > 0) at = (at + (size_t)k) % (size_t)n;
        stuck = k > 0 ? 0 : stuck + 1;
        event_base_loop(f->base, EVLOOP_NONBLOCK);
        if (k <= 0) usleep(1000);
    }
    assert_true(stuck == 50);
    begin = now();
    while (qn_http_server_count(f->server) && now() - begin < 3) spin(f, 0.02);
    assert_int_equal(qn_http_server_count(f->server), 0);
    close(fd);
}

static void test_too_many(void **state) {
    fixture *f = *state;
    int fds[6];
    for (int i = 0; i < 6; i++) fds[i] = dial(f, 0);
    spin(f, 0.05);
    assert_int_equal(qn_http_server_count(f->server), 4);
    int refused = 0;
    for (int i = 0; i < 6; i++) {
        qn_buf out = {0};
        bool closed;
        hear(f, fds[i], "503", 0.02, &out, &closed);
        refused += out.data && strstr(out.data, "HTTP/1.1 503") && strstr(out.data, "Retry-After");
        qn_buf_free(&out);
        close(fds[i]);
    }
    assert_int_equal(refused, 2);
    // Bodies at once are limited too: the second 4 MiB do not fit 6 MiB.
    spin(f, 0.05);
    int a = dial(f, 0), b = dial(f, 0);
    char *body = calloc(1, 4 << 20);
    assert_non_null(body);
    say(a, "POST /wait HTTP/1.1\r\n" HOST "Content-Length: 4194304\r\n\r\n");
    for (size_t at = 0; at < 4u << 20;) {
        ssize_t n = send(a, body + at, (4u << 20) - at, MSG_NOSIGNAL);
        if (n > 0) at += (size_t)n;
        event_base_loop(f->base, EVLOOP_NONBLOCK);
    }
    free(body);
    spin(f, 0.05);
    assert_non_null(f->waiting);
    say(b, "POST /wait HTTP/1.1\r\n" HOST "Content-Length: 4194304\r\n\r\n");
    qn_buf out = {0};
    bool closed;
    hear(f, b, "\r\n\r\n", 1, &out, &closed);
    assert_int_equal(strncmp(out.data, "HTTP/1.1 503", 12), 0);
    qn_buf_free(&out);
    close(a);
    close(b);
    spin(f, 0.05);
}

static void test_drain(void **state) {
    fixture *f = *state;
    int fd = dial(f, 0);
    say(fd, "GET /wait HTTP/1.1\r\n" HOST "\r\n");
    spin(f, 0.05);
    assert_int_equal(qn_http_server_busy(f->server), 1);
    qn_http_server_drain(f->server);
    qn_http_respond(f->waiting, 200, "text/plain", "end", 3);
    qn_buf out = {0};
    bool closed;
    hear(f, fd, NULL, 1, &out, &closed);
    assert_true(closed);
    assert_non_null(strstr(out.data, "Connection: close\r\n"));
    assert_non_null(strstr(out.data, "\r\n\r\nend"));
    assert_int_equal(qn_http_server_busy(f->server), 0);
    qn_buf_free(&out);
    close(fd);
}

// ---------------------------------------------------------------- the client

typedef struct answer {
    int status, events;
    qn_buf body;
    bool done;
    qn_error error;
    fixture *f;
} answer;

static void answer_head(void *user, const qn_http_head *head) {
    ((answer *)user)->status = head->status;
}
static void answer_body(void *user, qn_str piece) {
    qn_buf_append(&((answer *)user)->body, piece.data, piece.len);
}
static void answer_event(void *user, qn_str name, qn_str data) {
    answer *a = user;
    (void)name;
    a->events++;
    qn_buf_append(&a->body, data.data, data.len);
}
static void answer_done(void *user, const qn_error *error) {
    answer *a = user;
    a->done = true;
    if (error) a->error = *error;
}

static qn_http_call call_for(answer *a, const char *method, const char *path, const char *body) {
    return (qn_http_call){.method = method,
                          .path = path,
                          .content_type = body ? "text/plain" : NULL,
                          .body = body,
                          .len = body ? strlen(body) : 0,
                          .silence_seconds = 0.3,
                          .user = a,
                          .on_head = answer_head,
                          .on_body = answer_body,
                          .on_event = answer_event,
                          .on_done = answer_done};
}

static void wait_done(fixture *f, answer *a) {
    for (double end = now() + 3; now() < end && !a->done;) spin(f, 0.002);
    assert_true(a->done);
}

static void test_client(void **state) {
    fixture *f = *state;
    qn_url url = {.host = "127.0.0.1", .port = f->port};
    qn_http_client *c = NULL;
    assert_int_equal(qn_http_client_create(f->base, &url, &c, NULL), QN_OK);
    for (int i = 0; i < 3; i++) {
        answer a = {0};
        // The third call finds that the server has closed the idle connection, and dials again.
        if (i == 2) spin(f, 0.6);
        qn_http_call call = call_for(&a, "POST", "/echo", "hello");
        assert_int_equal(qn_http_client_send(c, &call, NULL), QN_OK);
        assert_int_equal(qn_http_client_send(c, &call, NULL), QN_ERR_BUSY);
        wait_done(f, &a);
        assert_int_equal(a.error.status, QN_OK);
        assert_int_equal(a.status, 200);
        assert_string_equal(a.body.data, "hello");
        if (i == 1) assert_int_equal(qn_http_server_count(f->server), 1); // kept alive
        qn_buf_free(&a.body);
    }
    answer a = {0};
    qn_http_call call = call_for(&a, "GET", "/sse", NULL);
    assert_int_equal(qn_http_client_send(c, &call, NULL), QN_OK);
    while (!f->waiting) spin(f, 0.002);
    qn_http_sse_data(f->waiting, "one", 3);
    spin(f, 0.15); // a comment goes by
    qn_http_sse_data(f->waiting, "two", 3);
    qn_http_stream_end(f->waiting);
    wait_done(f, &a);
    assert_int_equal(a.events, 2);
    assert_string_equal(a.body.data, "onetwo");
    qn_buf_free(&a.body);
    // Silence has a limit.
    a = (answer){0};
    call = call_for(&a, "GET", "/wait", NULL);
    assert_int_equal(qn_http_client_send(c, &call, NULL), QN_OK);
    wait_done(f, &a);
    assert_int_equal(a.error.status, QN_ERR_TIMEOUT);
    spin(f, 0.05);
    assert_null(f->waiting);
    qn_http_client_destroy(c);
    // Nobody listens.
    url.port = 1;
    assert_int_equal(qn_http_client_create(f->base, &url, &c, NULL), QN_OK);
    a = (answer){0};
    call = call_for(&a, "GET", "/", NULL);
    if (qn_http_client_send(c, &call, NULL) == QN_OK) {
        wait_done(f, &a);
        assert_int_equal(a.error.status, QN_ERR_IO);
    }
    qn_http_client_destroy(c);
}

static void test_urls(void **state) {
    (void)state;
    qn_url u;
    assert_int_equal(qn_url_parse("http://localhost:8000/v1", &u, NULL), QN_OK);
    assert_string_equal(u.host, "localhost");
    assert_int_equal(u.port, 8000);
    assert_string_equal(u.path, "/v1");
    assert_int_equal(qn_url_parse("example.org", &u, NULL), QN_OK);
    assert_int_equal(u.port, 80);
    assert_string_equal(u.path, "/");
    assert_int_equal(qn_url_parse("http://[::1]:9/", &u, NULL), QN_OK);
    assert_string_equal(u.host, "::1");
    assert_int_equal(u.port, 9);
    assert_int_equal(qn_url_parse("https://a/", &u, NULL), QN_ERR_UNSUPPORTED);
    static const char *const bad[] = {"",          "http://",      "http://:80", "http://a:0",
                                      "http://a:", "http://a:99999", "ftp://a",    "http://a b/",
                                      "http://[::1", "http://a/b?c", "http://a:8x", "http://u@a/"};
    for (size_t i = 0; i < QN_COUNT(bad); i++) {
        if (qn_url_parse(bad[i], &u, NULL) != QN_ERR_INVALID) fail_msg("%s was accepted", bad[i]);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_deadlines),
        TEST(test_trickle),
        TEST(test_disconnect_while_waiting),
        TEST(test_answer_later),
        TEST(test_event_stream),
        TEST(test_slow_reader),
        TEST(test_pipelining_without_reading),
        TEST(test_too_many),
        TEST(test_drain),
        TEST(test_client),
        cmocka_unit_test(test_urls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
