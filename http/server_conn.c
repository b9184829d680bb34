// SPDX-License-Identifier: Apache-2.0
// Invariants:
// 1. A connection is freed only by conn_free, and that is called only at the end of an event callback
//    (settle) or by destroy: a handler may abort the connection it is being told about.
// 2. One exchange at a time: the next request is parsed when the response before it is complete.
// 3. Reading stays enabled while a response is pending (up to INPUT_HIGH bytes, then EV_CLOSED
//    watches), so that a client that leaves is seen in every phase. At the high-water mark reading is
//    disabled by hand: libevent calls a read callback over and over while a full input is enabled.
// 4. on_close is called exactly when on_request was called and the response did not become complete
//    (unless the producer itself aborted); on_finish once for every exchange that began.
// 5. Input and output held for a connection are bounded: input by twice INPUT_HIGH and the body limit,
//    output by output_high plus one write of the producer.
// 6. A connection that moves to another server takes descriptor, parser and waiting bytes along, and
//    leaves nothing that could close or read the descriptor.
#include "http/server_conn.h"

#include "base/checked.h"
#include "base/os.h"
#include "http/tls.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

enum {
    INPUT_HIGH = 64 * 1024,
    SEND_BUFFER = 128 * 1024, // of the kernel; else it would grow to megabytes for a slow reader
    MAX_LISTENERS = 4,
    TLS_ROOM = 64 * 1024,
};
static const double LINGER_SECONDS = 2.0;

typedef enum conn_state {
    C_IDLE,   // no byte of the next request
    C_HEAD,   // in a head
    C_BODY,   // in a body
    C_WAIT,   // the request was handed over, the response is not complete
    C_FLUSH,  // the last response is complete, its bytes are not all written
    C_LINGER, // our side is shut; waiting for the peer's close, so that it reads the response
} conn_state;

struct qn_http_conn {
    qn_http_server *server;
    qn_http_conn *prev, *next;
    struct bufferevent *bev;
    struct event *timer, *kick, *closed;
    qn_http_parser *parser;
    conn_state state;
    qn_buf body;
    size_t taken;  // bytes of the body that were taken away
    qn_buf fields; // of the response to come
    void *user;
    int tag;
    uint64_t notes[QN_HTTP_NOTES];
    int status;         // of the response; 0: none yet
    bool have_head;     // the parser's head is valid
    bool handed_over;   // on_request was called
    bool chunked;       // the response is sent in chunks
    bool silent;        // the request was HEAD: bodies are not sent
    bool sse;
    bool close_after;
    bool paused;
    bool dead;
    bool eof;
    bool outlives_eof; // this exchange's response is given even if the peer sends no more
    bool stopped; // reading is disabled: the input is full
    bool in_process;
    bool handshake; // TLS, and not yet agreed
    bool moving; // to another server, at the end of this callback
    uint64_t begun_ns;    // first byte of the head
    uint64_t state_ns;    // when the state began
    uint64_t progress_ns; // last time output went out or became non-empty
    uint64_t written_ns;  // last time something was added to the output
    uint64_t bytes;
};

struct qn_http_moved {
    int fd;
    qn_http_parser *parser;
    struct evbuffer *in, *out;
    uint64_t begun_ns;
    bool eof;
};

struct qn_http_server {
    struct event_base *base;
    qn_http_limits limits;
    qn_http_handlers handlers;
    const qn_log *log;
    qn_tls *tls; // NULL: plain
    struct evconnlistener *listeners[MAX_LISTENERS];
    size_t n_listeners;
    struct event *resume; // accepts again after an error
    qn_http_conn *conns;
    size_t n_conns;
    uint64_t body_bytes;
    bool draining;
    qn_buf scratch;
    int64_t date_second;
    char date[64];
};

static void process(qn_http_conn *c);
static void poke(qn_http_conn *c);
static void on_output_change(struct evbuffer *buffer, const struct evbuffer_cb_info *info, void *arg);

static double since(uint64_t ns, uint64_t now) { return now > ns ? (double)(now - ns) * 1e-9 : 0; }
static size_t output_len(const qn_http_conn *c) {
    return evbuffer_get_length(bufferevent_get_output(c->bev));
}
static bool peer_waits(const qn_http_conn *c) { return c->state == C_WAIT && !c->dead; }

// ---------------------------------------------------------------- timers

// Seconds until the connection has to be looked at again; < 0: a deadline has passed.
static double next_check(const qn_http_conn *c, uint64_t now) {
    const qn_http_limits *l = &c->server->limits;
    double in_state = since(c->state_ns, now);
    double tick = l->stall_seconds / 4;
    switch (c->state) {
    case C_IDLE:
        if (output_len(c)) {
            double left = l->stall_seconds - since(c->progress_ns, now);
            return QN_MIN(left, l->idle_seconds - in_state);
        }
        return (c->handshake ? l->head_seconds : l->idle_seconds) - in_state;
    case C_HEAD:
        return l->head_seconds - in_state;
    case C_BODY:
        return l->body_seconds + (double)c->body.len / l->min_rate - in_state;
    case C_WAIT:
    case C_FLUSH:
        if (output_len(c)) return QN_MIN(tick, l->stall_seconds - since(c->progress_ns, now));
        if (c->sse) {
            double left = l->comment_seconds - since(c->written_ns, now);
            return QN_MIN(tick, QN_MAX(left, 0));
        }
        return tick;
    case C_LINGER:
        return LINGER_SECONDS - in_state;
    }
    return tick;
}

static void arm(qn_http_conn *c) {
    double left = next_check(c, qn_os_now_ns());
    if (left < 0.001) left = 0.001;
    struct timeval tv = {(time_t)left, 0};
    tv.tv_usec = (suseconds_t)((left - (double)tv.tv_sec) * 1e6);
    // Without memory for its clock a connection would be held for as long as the peer likes.
    if (evtimer_add(c->timer, &tv) != 0 && !c->dead) {
        c->dead = true;
        poke(c);
    }
}

static void enter(qn_http_conn *c, conn_state state) {
    c->state = state;
    c->state_ns = qn_os_now_ns();
    arm(c);
}

// ---------------------------------------------------------------- life

static void finish_exchange(qn_http_conn *c, bool complete) {
    qn_http_server *s = c->server;
    if (s->handlers.on_finish) {
        qn_http_outcome outcome = {
            .status = c->status,
            .complete = complete,
            .bytes = c->bytes,
            .seconds = since(c->begun_ns, qn_os_now_ns()),
            .head = c->have_head ? qn_http_parser_head(c->parser) : NULL,
        };
        s->handlers.on_finish(s->handlers.user, c, &outcome);
    }
    s->body_bytes -= c->body.len + c->taken;
    c->taken = 0;
    if (c->body.cap > 16 * 1024) qn_buf_free(&c->body);
    qn_buf_clear(&c->body);
    qn_buf_clear(&c->fields);
    c->user = NULL;
    c->tag = 0;
    memset(c->notes, 0, sizeof c->notes);
    c->status = 0;
    c->bytes = 0;
    c->have_head = false;
    c->handed_over = false;
    c->chunked = false;
    c->silent = false;
    c->sse = false;
    c->outlives_eof = false;
}

static void conn_drop(qn_http_conn *c) {
    qn_http_server *s = c->server;
    if (c->prev) c->prev->next = c->next;
    else s->conns = c->next;
    if (c->next) c->next->prev = c->prev;
    s->n_conns--;
    if (c->timer) event_free(c->timer);
    if (c->kick) event_free(c->kick);
    if (c->closed) event_free(c->closed);
    if (c->bev) {
        // libevent may be in the middle of a write, whose event brought us here, and drains afterwards.
        evbuffer_remove_cb(bufferevent_get_output(c->bev), on_output_change, c);
        bufferevent_free(c->bev);
    }
    qn_http_parser_destroy(c->parser);
    qn_buf_free(&c->body);
    qn_buf_free(&c->fields);
    free(c);
}

static void conn_free(qn_http_conn *c) {
    qn_http_server *s = c->server;
    bool in_exchange = c->state == C_HEAD || c->state == C_BODY || c->state == C_WAIT;
    bool tell = c->handed_over && c->state == C_WAIT;
    c->dead = true;
    if (tell && s->handlers.on_close) s->handlers.on_close(s->handlers.user, c);
    if (in_exchange) finish_exchange(c, false);
    conn_drop(c);
}

void qn_http_moved_free(qn_http_moved *m) {
    if (!m) return;
    if (m->in) evbuffer_free(m->in);
    if (m->out) evbuffer_free(m->out);
    if (m->fd >= 0) evutil_closesocket(m->fd);
    qn_http_parser_destroy(m->parser);
    free(m);
}

static void conn_move(qn_http_conn *c) {
    qn_http_server *s = c->server;
    qn_http_moved *m = calloc(1, sizeof *m);
    if (m) {
        m->fd = -1;
        m->in = evbuffer_new();
        m->out = evbuffer_new();
    }
    struct evbuffer *out = bufferevent_get_output(c->bev);
    // libevent lets nobody but itself take from an output's front, unless told.
    bool ok = m && m->in && m->out && bufferevent_disable(c->bev, EV_READ | EV_WRITE) == 0 &&
              evbuffer_unfreeze(out, 1) == 0 && evbuffer_add_buffer(m->out, out) == 0 &&
              evbuffer_add_buffer(m->in, bufferevent_get_input(c->bev)) == 0;
    int fd = bufferevent_getfd(c->bev);
    if (!ok || bufferevent_setfd(c->bev, -1) != 0) {
        qn_http_moved_free(m);
        conn_free(c);
        return;
    }
    m->fd = fd;
    m->parser = c->parser;
    m->begun_ns = c->begun_ns;
    m->eof = c->eof;
    c->parser = NULL;
    conn_drop(c);
    s->handlers.on_moved(s->handlers.user, m);
}

// TLS: says that nothing was cut off. Not where it was.
static void goodbye(qn_http_conn *c) {
    struct ssl_st *ssl = bufferevent_openssl_get_ssl(c->bev);
    if (ssl && !c->status) qn_tls_goodbye(ssl);
}

// The end of every event callback: what was decided inside is done here.
static void settle(qn_http_conn *c) {
    if (c->moving && !c->dead) {
        conn_move(c);
        return;
    }
    if (!c->dead && c->state == C_FLUSH && output_len(c) == 0) {
        evutil_socket_t fd = bufferevent_getfd(c->bev);
        goodbye(c);
        if (c->eof || shutdown(fd, SHUT_WR) != 0) c->dead = true;
        else enter(c, C_LINGER);
    }
    if (c->dead) conn_free(c);
}

static void poke(qn_http_conn *c) { event_active(c->kick, EV_TIMEOUT, 0); }

// ---------------------------------------------------------------- responses

static const char *http_date(qn_http_server *s) {
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    int64_t second = (int64_t)qn_os_wall_time();
    if (second != s->date_second) {
        time_t t = (time_t)second;
        struct tm tm;
        if (!gmtime_r(&t, &tm)) return "Thu, 01 Jan 1970 00:00:00 GMT";
        snprintf(s->date, sizeof s->date, "%s, %02d %s %04d %02d:%02d:%02d GMT",
                 days[tm.tm_wday % 7], tm.tm_mday, months[tm.tm_mon % 12], tm.tm_year + 1900,
                 tm.tm_hour, tm.tm_min, tm.tm_sec);
        s->date_second = second;
    }
    return s->date;
}

static void output(qn_http_conn *c, const char *data, size_t len) {
    if (c->dead || len == 0) return;
    uint64_t now = qn_os_now_ns();
    if (output_len(c) == 0) c->progress_ns = now;
    c->written_ns = now;
    // Enabled anew each time: libevent's own callback that starts the writing is missing if there was no
    // memory for it when the connection was made.
    if (bufferevent_write(c->bev, data, len) != 0 || bufferevent_enable(c->bev, EV_WRITE) != 0) {
        c->dead = true;
        poke(c);
    }
}

void qn_http_conn_add_field(qn_http_conn *c, const char *name, qn_str value) {
    qn_buf_puts(&c->fields, name);
    qn_buf_puts(&c->fields, ": ");
    for (size_t i = 0; i < value.len; i++) {
        if ((unsigned char)value.data[i] >= 0x20 && value.data[i] != 0x7f) {
            qn_buf_putc(&c->fields, value.data[i]);
        }
    }
    qn_buf_puts(&c->fields, "\r\n");
}

// length < 0: unknown.
static void write_head(qn_http_conn *c, int status, const char *content_type, int64_t length) {
    qn_http_server *s = c->server;
    const qn_http_head *head = c->have_head ? qn_http_parser_head(c->parser) : NULL;
    if (!head || !head->keep_alive || s->draining || c->eof) c->close_after = true;
    // A body that was not read to its end would be taken for the next request.
    if (c->state == C_HEAD || c->state == C_BODY) {
        if (!head || head->chunked || head->content_length > 0) c->close_after = true;
    }
    c->chunked = length < 0 && head && head->minor == 1;
    if (length < 0 && !c->chunked) c->close_after = true;
    c->silent = head && qn_str_is(head->method, "HEAD");
    c->status = status;
    qn_buf *b = &s->scratch;
    qn_buf_clear(b);
    qn_buf_printf(b, "HTTP/1.1 %d %s\r\nServer: quern\r\nDate: %s\r\n", status,
                  qn_http_status_text(status), http_date(s));
    if (content_type) qn_buf_printf(b, "Content-Type: %s\r\n", content_type);
    if (length >= 0) qn_buf_printf(b, "Content-Length: %lld\r\n", (long long)length);
    else if (c->chunked) qn_buf_puts(b, "Transfer-Encoding: chunked\r\n");
    if (c->close_after) qn_buf_puts(b, "Connection: close\r\n");
    else if (head && head->minor == 0) qn_buf_puts(b, "Connection: keep-alive\r\n");
    if (c->fields.len) qn_buf_append(b, c->fields.data, c->fields.len);
    qn_buf_puts(b, "\r\n");
    if (b->failed || c->fields.failed) {
        c->dead = true;
        poke(c);
        return;
    }
    output(c, b->data, b->len);
}

// The response is complete: on to the next request, or to the close.
static void end_exchange(qn_http_conn *c) {
    if (c->dead) return;
    bool close = c->close_after;
    finish_exchange(c, true);
    if (close) {
        enter(c, C_FLUSH);
    } else {
        qn_http_parser_reset(c->parser);
        enter(c, C_IDLE);
    }
    if (!c->in_process) poke(c);
}

void qn_http_respond(qn_http_conn *c, int status, const char *content_type, const char *body,
                     size_t len) {
    if (c->dead || c->status) return;
    write_head(c, status, content_type, (int64_t)len);
    if (!c->silent) {
        output(c, body, len);
        c->bytes += len;
    }
    end_exchange(c);
}

void qn_http_stream_begin(qn_http_conn *c, int status, const char *content_type) {
    if (c->dead || c->status) return;
    write_head(c, status, content_type, -1);
    arm(c);
}

void qn_http_stream_write(qn_http_conn *c, const char *data, size_t len) {
    if (c->dead || len == 0 || c->silent) return;
    c->bytes += len;
    if (c->chunked) {
        char size[24];
        int n = snprintf(size, sizeof size, "%zx\r\n", len);
        output(c, size, (size_t)n);
    }
    output(c, data, len);
    if (c->chunked) output(c, "\r\n", 2);
}

void qn_http_stream_end(qn_http_conn *c) {
    if (c->dead || !c->status) return;
    if (c->chunked && !c->silent) output(c, "0\r\n\r\n", 5);
    end_exchange(c);
}

void qn_http_sse_begin(qn_http_conn *c) {
    if (c->dead || c->status) return;
    qn_http_conn_add_field(c, "Cache-Control", QN_STR("no-cache, no-transform"));
    qn_http_conn_add_field(c, "X-Accel-Buffering", QN_STR("no"));
    c->sse = true;
    qn_http_stream_begin(c, 200, "text/event-stream; charset=utf-8");
}

void qn_http_sse_data(qn_http_conn *c, const char *data, size_t len) {
    if (c->dead || c->silent) return;
    qn_buf *b = &c->server->scratch;
    qn_buf_clear(b);
    // One write: the chunk's size, the event, the chunk's end.
    size_t event = 6 + len + 2;
    if (c->chunked) qn_buf_printf(b, "%zx\r\n", event);
    qn_buf_append(b, "data: ", 6);
    qn_buf_append(b, data, len);
    qn_buf_append(b, "\n\n\r\n", c->chunked ? 4 : 2);
    if (b->failed) {
        c->dead = true;
        poke(c);
        return;
    }
    c->bytes += event;
    output(c, b->data, b->len);
}

void qn_http_conn_abort(qn_http_conn *c) {
    if (c->dead) return;
    c->handed_over = false; // the producer knows
    c->dead = true;
    poke(c);
}

bool qn_http_conn_responding(const qn_http_conn *c) { return c->status != 0; }

bool qn_http_conn_paused(qn_http_conn *c) {
    bool paused = output_len(c) >= c->server->limits.output_high;
    if (paused) c->paused = true;
    return paused;
}

uint64_t *qn_http_conn_notes(qn_http_conn *c) { return c->notes; }
qn_str qn_http_conn_fields(const qn_http_conn *c) { return qn_buf_str(&c->fields); }

void qn_http_conn_take_body(qn_http_conn *c, qn_buf *out) {
    *out = c->body;
    c->taken = c->body.len;
    c->body = (qn_buf){0};
}

void qn_http_conn_close_after(qn_http_conn *c) { c->close_after = true; }
void qn_http_conn_outlive_eof(qn_http_conn *c) { c->outlives_eof = true; }
void qn_http_conn_set_user(qn_http_conn *c, void *user) { c->user = user; }
void *qn_http_conn_user(const qn_http_conn *c) { return c->user; }
void qn_http_conn_set_tag(qn_http_conn *c, int tag) { c->tag = tag; }
int qn_http_conn_tag(const qn_http_conn *c) { return c->tag; }

// An error found by this layer: answered in the server's own form, then the connection closes.
static void fail(qn_http_conn *c, int status, const char *reason) {
    qn_http_server *s = c->server;
    c->close_after = true;
    if (c->status) { // too late for an answer
        c->dead = true;
        return;
    }
    qn_buf body = {0};
    if (s->handlers.format_error) s->handlers.format_error(s->handlers.user, status, reason, &body);
    if (status == 503) qn_http_conn_add_field(c, "Retry-After", QN_STR("1"));
    qn_http_respond(c, status, "application/json", body.failed ? "" : body.data,
                    body.failed ? 0 : body.len);
    qn_buf_free(&body);
}

// ---------------------------------------------------------------- requests

static void handle_head(qn_http_conn *c, bool adopted) {
    qn_http_server *s = c->server;
    const qn_http_head *head = qn_http_parser_head(c->parser);
    if (!adopted && s->handlers.leaves && s->handlers.leaves(s->handlers.user, head)) {
        c->moving = true;
        return;
    }
    c->have_head = true;
    if (s->handlers.on_head) s->handlers.on_head(s->handlers.user, c, head);
    if (c->dead || c->state != C_HEAD) return; // answered
    bool has_body = head->chunked || head->content_length > 0;
    if (!has_body) return;
    if (head->content_length > 0 &&
        s->body_bytes + (uint64_t)head->content_length > s->limits.max_body_total) {
        fail(c, 503, "too many request bodies at once");
        return;
    }
    enter(c, C_BODY);
    if (head->expect_continue) {
        static const char go[] = "HTTP/1.1 100 Continue\r\n\r\n";
        output(c, go, sizeof go - 1);
    }
}

static void handle_body(qn_http_conn *c, qn_str piece) {
    qn_http_server *s = c->server;
    if (s->body_bytes + piece.len > s->limits.max_body_total) {
        fail(c, 503, "too many request bodies at once");
        return;
    }
    // A body of known length gets its room at once, but not on a mere promise of megabytes.
    if (c->body.cap == 0) {
        int64_t n = qn_http_parser_head(c->parser)->content_length;
        if (n > 0 && n <= 256 * 1024) qn_buf_reserve(&c->body, (size_t)n);
    }
    if (!qn_buf_append(&c->body, piece.data, piece.len)) {
        fail(c, 503, "out of memory");
        return;
    }
    s->body_bytes += piece.len;
}

static void handle_done(qn_http_conn *c) {
    qn_http_server *s = c->server;
    enter(c, C_WAIT);
    c->handed_over = true;
    if (s->handlers.on_request) {
        s->handlers.on_request(s->handlers.user, c, qn_http_parser_head(c->parser),
                               (qn_str){c->body.data ? c->body.data : "", c->body.len});
    }
}

static bool parsing(const qn_http_conn *c) {
    return !c->dead && !c->moving &&
           (c->state == C_IDLE || c->state == C_HEAD || c->state == C_BODY);
}

static void process(qn_http_conn *c) {
    if (c->in_process || c->dead || c->moving) return;
    c->in_process = true;
    struct evbuffer *in = bufferevent_get_input(c->bev);
    while (parsing(c)) {
        // A client that pipelines and does not read must not fill our memory.
        if (c->state == C_IDLE && output_len(c) >= c->server->limits.output_high) break;
        struct evbuffer_iovec v = {0};
        if (evbuffer_peek(in, -1, NULL, &v, 1) < 1) v = (struct evbuffer_iovec){0};
        if (c->state == C_IDLE && v.iov_len) {
            c->begun_ns = qn_os_now_ns();
            enter(c, C_HEAD);
        }
        size_t used = 0;
        qn_http_event e = qn_http_parse(c->parser, v.iov_len ? v.iov_base : "", v.iov_len, &used);
        // Bodies are views of the input: used before it is drained. The handlers do not touch it.
        switch (e) {
        case QN_HTTP_NEED_MORE:
            break;
        case QN_HTTP_HEAD:
            handle_head(c, false);
            break;
        case QN_HTTP_BODY:
            handle_body(c, qn_http_parser_body(c->parser));
            break;
        case QN_HTTP_DONE:
            handle_done(c);
            break;
        case QN_HTTP_BAD:
            fail(c, qn_http_parser_status(c->parser), qn_http_parser_reason(c->parser));
            break;
        }
        evbuffer_drain(in, used);
        if (e == QN_HTTP_NEED_MORE && evbuffer_get_length(in) == 0) break;
    }
    if (!c->dead && (c->state == C_FLUSH || c->state == C_LINGER)) {
        evbuffer_drain(in, evbuffer_get_length(in));
    }
    if (c->stopped && !c->dead && evbuffer_get_length(in) < INPUT_HIGH) {
        c->stopped = false;
        if (c->closed) event_del(c->closed);
        bufferevent_enable(c->bev, EV_READ);
    }
    c->in_process = false;
}

// ---------------------------------------------------------------- events

static void on_peer_closed(evutil_socket_t fd, short what, void *arg) {
    qn_http_conn *c = arg;
    (void)fd;
    (void)what;
    if (c->stopped && !c->outlives_eof) conn_free(c);
}

static void on_read(struct bufferevent *bev, void *arg) {
    qn_http_conn *c = arg;
    process(c);
    if (!c->dead && !c->moving && evbuffer_get_length(bufferevent_get_input(bev)) >= INPUT_HIGH) {
        bufferevent_disable(bev, EV_READ);
        c->stopped = true;
        if (!c->closed) {
            c->closed = event_new(c->server->base, bufferevent_getfd(bev), EV_CLOSED,
                                  on_peer_closed, c);
        }
        if (c->closed) event_add(c->closed, NULL);
    }
    settle(c);
}

static void on_write(struct bufferevent *bev, void *arg) {
    qn_http_conn *c = arg;
    qn_http_server *s = c->server;
    (void)bev;
    if (c->paused && !c->dead) {
        c->paused = false;
        if (peer_waits(c) && s->handlers.on_writable) {
            s->handlers.on_writable(s->handlers.user, c);
        }
    }
    process(c);
    settle(c);
}

static void on_event(struct bufferevent *bev, short what, void *arg) {
    qn_http_conn *c = arg;
    if (what & BEV_EVENT_CONNECTED) { // TLS is agreed
        c->handshake = false;
        if (c->state == C_IDLE) enter(c, C_IDLE);
        return;
    }
    // The peer will send no more. (libevent also calls it the end when a write under TLS fails: then
    // nobody is there.)
    if ((what & BEV_EVENT_EOF) && !(what & BEV_EVENT_WRITING)) {
        c->eof = true;
        // A response that is complete is still written out; one that is not has lost its reader, unless
        // it is known to be a matter of moments.
        bool complete = (c->state == C_IDLE || c->state == C_FLUSH) && output_len(c);
        if (complete || (c->state == C_WAIT && c->outlives_eof)) {
            // Under TLS libevent has stopped writing too.
            if (bufferevent_enable(bev, EV_WRITE) != 0) c->dead = true;
            if (c->state == C_IDLE) enter(c, C_FLUSH);
            settle(c);
            return;
        }
        goodbye(c);
    }
    conn_free(c);
}

static void on_kick(evutil_socket_t fd, short what, void *arg) {
    qn_http_conn *c = arg;
    (void)fd;
    (void)what;
    process(c);
    settle(c);
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
    qn_http_conn *c = arg;
    (void)fd;
    (void)what;
    uint64_t now = qn_os_now_ns();
    if (c->dead) {
        settle(c);
        return;
    }
    if (c->state == C_WAIT && c->sse && output_len(c) == 0 &&
        since(c->written_ns, now) >= c->server->limits.comment_seconds) {
        qn_http_stream_write(c, ":\n\n", 3);
    }
    if (next_check(c, now) > 0) {
        arm(c);
    } else if (c->state == C_HEAD) {
        fail(c, 408, "the request's header did not arrive in time");
    } else if (c->state == C_BODY) {
        fail(c, 408, "the request's body did not arrive in time");
    } else {
        goodbye(c);
        conn_free(c);
        return;
    }
    settle(c);
}

static void on_output_change(struct evbuffer *buffer, const struct evbuffer_cb_info *info,
                             void *arg) {
    qn_http_conn *c = arg;
    (void)buffer;
    if (info->n_deleted) c->progress_ns = qn_os_now_ns();
}

// ---------------------------------------------------------------- accepting

static void refuse(qn_http_server *s, evutil_socket_t fd) {
    qn_buf body = {0}, all = {0};
    if (s->handlers.format_error) {
        s->handlers.format_error(s->handlers.user, 503, "too many connections", &body);
    }
    qn_buf_printf(&all,
                  "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
                  "Content-Length: %zu\r\nRetry-After: 1\r\nConnection: close\r\n\r\n",
                  body.len);
    if (body.len) qn_buf_append(&all, body.data, body.len);
    // Best effort: a fresh socket has room for this much. (TLS clients just see the close.)
    if (!all.failed && !s->tls) (void)!send(fd, all.data, all.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    qn_buf_free(&body);
    qn_buf_free(&all);
    evutil_closesocket(fd);
}

// Takes fd and parser, also when it fails (NULL).
static qn_http_conn *conn_open(qn_http_server *s, evutil_socket_t fd, qn_http_parser *parser) {
    qn_http_conn *c = calloc(1, sizeof *c);
    struct bufferevent *bev = NULL;
    struct ssl_st *ssl = NULL;
    if (c && s->tls) {
        // libevent crashes if it runs out of memory in the middle of making such a connection: what it
        // needs has to be there before it begins.
        void *room = malloc(TLS_ROOM);
        if (room) ssl = qn_tls_session(s->tls, fd);
        free(room);
    }
    if (ssl) {
        // With CLOSE_ON_FREE it takes the session, also when it fails.
        bev = bufferevent_openssl_socket_new(s->base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING,
                                             BEV_OPT_CLOSE_ON_FREE);
        if (bev) bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
    } else if (c && !s->tls) {
        bev = bufferevent_socket_new(s->base, fd, BEV_OPT_CLOSE_ON_FREE);
    }
    if (!bev) {
        free(c);
        qn_http_parser_destroy(parser);
        evutil_closesocket(fd);
        return NULL;
    }
    c->server = s;
    c->bev = bev;
    c->handshake = ssl != NULL;
    c->next = s->conns;
    if (s->conns) s->conns->prev = c;
    s->conns = c;
    s->n_conns++;
    c->parser = parser;
    c->timer = evtimer_new(s->base, on_timer, c);
    c->kick = event_new(s->base, -1, 0, on_kick, c);
    if (!c->parser || !c->timer || !c->kick ||
        !evbuffer_add_cb(bufferevent_get_output(bev), on_output_change, c)) {
        conn_free(c);
        return NULL;
    }
    bufferevent_setcb(bev, on_read, on_write, on_event, c);
    // No mark of libevent's for reading: with TLS bytes would be left inside the session that no event
    // announces, and it crashes if there is no memory for the mark. Reading is stopped by hand, past
    // INPUT_HIGH by at most one read and one record.
    bufferevent_setwatermark(bev, EV_WRITE, s->limits.output_high / 4, 0);
    bufferevent_set_max_single_read(bev, INPUT_HIGH);
    bufferevent_set_max_single_write(bev, s->limits.output_high);
    return c;
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *addr,
                      int addr_len, void *arg) {
    qn_http_server *s = arg;
    (void)listener;
    (void)addr;
    (void)addr_len;
    if (s->n_conns >= s->limits.max_connections) {
        refuse(s, fd);
        return;
    }
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); // fails on a Unix socket; no matter
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    int size = SEND_BUFFER;
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    qn_http_conn *c = conn_open(s, fd, qn_http_parser_create(true, s->limits.max_body));
    if (!c) return;
    enter(c, C_IDLE);
    if (bufferevent_enable(c->bev, EV_READ | EV_WRITE) != 0) conn_free(c);
}

void qn_http_server_adopt(qn_http_server *s, qn_http_moved *m) {
    if (s->n_conns >= s->limits.max_connections) {
        refuse(s, m->fd);
        m->fd = -1;
        qn_http_moved_free(m);
        return;
    }
    qn_http_conn *c = conn_open(s, m->fd, m->parser);
    m->fd = -1;
    m->parser = NULL;
    if (!c) {
        qn_http_moved_free(m);
        return;
    }
    c->begun_ns = m->begun_ns;
    c->eof = m->eof;
    struct evbuffer *in = bufferevent_get_input(c->bev);
    enter(c, C_HEAD);
    // The read side is frozen against everybody but libevent.
    bool ok = evbuffer_unfreeze(in, 0) == 0 && evbuffer_add_buffer(in, m->in) == 0 &&
              evbuffer_freeze(in, 0) == 0 &&
              evbuffer_add_buffer(bufferevent_get_output(c->bev), m->out) == 0 &&
              bufferevent_enable(c->bev, EV_READ | EV_WRITE) == 0;
    qn_http_moved_free(m);
    if (!ok) {
        conn_free(c);
        return;
    }
    c->progress_ns = qn_os_now_ns();
    c->in_process = true;
    handle_head(c, true);
    c->in_process = false;
    on_read(c->bev, c); // what came behind the head
}

static void on_accept_error(struct evconnlistener *listener, void *arg) {
    qn_http_server *s = arg;
    // Out of descriptors, most likely: without a pause this would spin.
    qn_logf(s->log, QN_LOG_WARN, "accepting connections failed: %s", strerror(errno));
    struct timeval tv = {0, 100 * 1000};
    if (evtimer_add(s->resume, &tv) == 0) evconnlistener_disable(listener);
}

static void on_resume(evutil_socket_t fd, short what, void *arg) {
    qn_http_server *s = arg;
    (void)fd;
    (void)what;
    bool ok = true;
    for (size_t i = 0; i < s->n_listeners; i++) {
        if (evconnlistener_enable(s->listeners[i]) != 0) ok = false;
    }
    struct timeval tv = {0, 100 * 1000};
    if (!ok) evtimer_add(s->resume, &tv); // it was pending: there is room for it
}

qn_status qn_http_server_accept(qn_http_server *s, int fd, qn_error *err) {
    if (s->n_listeners == MAX_LISTENERS) return qn_fail(err, QN_ERR_LIMIT, "too many listeners");
    // Enabled by hand: libevent does not look whether it could.
    struct evconnlistener *l = evconnlistener_new(
        s->base, on_accept, s, LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_DISABLED, 0, fd);
    if (!l || evconnlistener_enable(l) != 0) {
        if (l) evconnlistener_free(l);
        return qn_fail(err, QN_ERR_NOMEM, "cannot watch the listening socket");
    }
    evconnlistener_set_error_cb(l, on_accept_error);
    s->listeners[s->n_listeners++] = l;
    return QN_OK;
}

void qn_http_server_stop_accept(qn_http_server *s) {
    for (size_t i = 0; i < s->n_listeners; i++) evconnlistener_free(s->listeners[i]);
    s->n_listeners = 0;
}

void qn_http_server_set_tls(qn_http_server *s, struct qn_tls *tls) { s->tls = tls; }

void qn_http_server_drain(qn_http_server *s) { s->draining = true; }

size_t qn_http_server_busy(const qn_http_server *s) {
    size_t busy = 0;
    for (const qn_http_conn *c = s->conns; c; c = c->next) {
        busy += c->state == C_WAIT || (c->state != C_LINGER && output_len(c) > 0);
    }
    return busy;
}

size_t qn_http_server_count(const qn_http_server *s) { return s->n_conns; }

qn_status qn_http_server_create(struct event_base *base, const qn_http_limits *limits,
                                const qn_http_handlers *handlers, const qn_log *log,
                                qn_http_server **out, qn_error *err) {
    *out = NULL;
    qn_http_server *s = calloc(1, sizeof *s);
    if (!s) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    s->base = base;
    s->handlers = *handlers;
    s->log = log;
    if (limits) s->limits = *limits;
    qn_http_limits *l = &s->limits;
    if (!l->max_body) l->max_body = 8 << 20;
    if (!l->max_body_total) l->max_body_total = QN_MAX((uint64_t)256 << 20, l->max_body);
    if (!l->max_connections) l->max_connections = 4096;
    if (!l->output_high) l->output_high = 256 * 1024;
    if (!(l->head_seconds > 0)) l->head_seconds = 10;
    if (!(l->body_seconds > 0)) l->body_seconds = 30;
    if (!(l->min_rate > 0)) l->min_rate = 16 * 1024;
    if (!(l->idle_seconds > 0)) l->idle_seconds = 75;
    if (!(l->stall_seconds > 0)) l->stall_seconds = 30;
    if (!(l->comment_seconds > 0)) l->comment_seconds = 15;
    s->resume = evtimer_new(base, on_resume, s);
    if (!s->resume) {
        free(s);
        return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    *out = s;
    return QN_OK;
}

void qn_http_server_destroy(qn_http_server *s) {
    if (!s) return;
    qn_http_server_stop_accept(s);
    while (s->conns) conn_free(s->conns);
    event_free(s->resume);
    qn_buf_free(&s->scratch);
    free(s);
}
