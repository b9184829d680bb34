// SPDX-License-Identifier: Apache-2.0
#include "http/client.h"

#include "base/checked.h"
#include "base/os.h"
#include "http/sse.h"

#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

struct qn_http_client {
    struct event_base *base;
    qn_url url;
    struct sockaddr_storage addr;
    socklen_t addr_len;
    struct bufferevent *bev;
    struct event *timer;
    qn_http_parser *parser;
    qn_sse sse;
    qn_http_call call;
    bool active;    // a call is under way
    bool connected; // the connection is usable
    bool reused;    // the call went out on a connection that had served another
    bool got_bytes; // of this call's response
    bool is_event_stream;
    uint64_t begun_ns, last_ns;
    qn_buf request; // kept for one more try on a fresh connection
    qn_error error;
};

qn_status qn_url_parse(const char *text, qn_url *url, qn_error *err) {
    *url = (qn_url){.port = 80};
    qn_str t = qn_str_from(text);
    if (t.len >= 8 && qn_http_equal((qn_str){t.data, 8}, "https://")) {
        return qn_fail(err, QN_ERR_UNSUPPORTED, "https is not supported by this client: %s", text);
    }
    if (t.len >= 7 && qn_http_equal((qn_str){t.data, 7}, "http://")) {
        t = (qn_str){t.data + 7, t.len - 7};
    } else if (strstr(text, "://")) {
        return qn_fail(err, QN_ERR_INVALID, "not an http URL: %s", text);
    }
    size_t i = 0, begin = 0, end;
    if (t.len && t.data[0] == '[') {
        begin = 1;
        while (i < t.len && t.data[i] != ']') i++;
        end = i++;
        if (i > t.len) return qn_fail(err, QN_ERR_INVALID, "malformed host in URL: %s", text);
    } else {
        while (i < t.len && t.data[i] != ':' && t.data[i] != '/') i++;
        end = i;
    }
    if (end <= begin || end - begin >= sizeof url->host) {
        return qn_fail(err, QN_ERR_INVALID, "no host in URL: %s", text);
    }
    memcpy(url->host, t.data + begin, end - begin);
    for (const char *p = url->host; *p; p++) {
        if ((unsigned char)*p <= ' ' || strchr("\"<>\\^`{|}@?#", *p) || *p == 0x7f) {
            return qn_fail(err, QN_ERR_INVALID, "malformed host in URL");
        }
    }
    if (i < t.len && t.data[i] == ':') {
        uint32_t port = 0;
        size_t digits = 0;
        for (i++; i < t.len && t.data[i] >= '0' && t.data[i] <= '9' && digits < 6; i++, digits++) {
            port = port * 10 + (uint32_t)(t.data[i] - '0');
        }
        if (digits == 0 || port == 0 || port > 65535) {
            return qn_fail(err, QN_ERR_INVALID, "malformed port in URL: %s", text);
        }
        url->port = (uint16_t)port;
    }
    qn_str path = {t.data + i, t.len - i};
    if (path.len && path.data[0] != '/') {
        return qn_fail(err, QN_ERR_INVALID, "malformed URL: %s", text);
    }
    if (path.len >= sizeof url->path) return qn_fail(err, QN_ERR_LIMIT, "the URL is too long");
    for (size_t k = 0; k < path.len; k++) {
        char ch = path.data[k];
        if ((unsigned char)ch <= ' ' || ch == 0x7f || ch == '?' || ch == '#') {
            return qn_fail(err, QN_ERR_INVALID, "malformed path in URL");
        }
    }
    if (path.len) memcpy(url->path, path.data, path.len);
    else url->path[0] = '/';
    return QN_OK;
}

static void disconnect(qn_http_client *c) {
    if (c->bev) bufferevent_free(c->bev);
    c->bev = NULL;
    c->connected = false;
}

// Ends the call. Nothing of c may be touched after it: on_done may have destroyed it.
static void done(qn_http_client *c) {
    qn_http_call call = c->call;
    qn_error error = c->error;
    bool keep = error.status == QN_OK && c->connected && qn_http_parser_head(c->parser)->keep_alive;
    c->active = false;
    evtimer_del(c->timer);
    if (!keep) disconnect(c);
    qn_sse_free(&c->sse);
    qn_buf_clear(&c->request);
    if (call.on_done) call.on_done(call.user, error.status ? &error : NULL);
}

static void arm(qn_http_client *c) {
    uint64_t now = qn_os_now_ns();
    double quiet = (double)(now - c->last_ns) * 1e-9, all = (double)(now - c->begun_ns) * 1e-9;
    double left = (c->connected ? c->call.silence_seconds : c->call.connect_seconds) - quiet;
    if (c->call.total_seconds > 0) left = QN_MIN(left, c->call.total_seconds - all);
    left = QN_MAX(left, 0.001);
    struct timeval tv = {(time_t)left, 0};
    tv.tv_usec = (suseconds_t)((left - (double)tv.tv_sec) * 1e6);
    evtimer_add(c->timer, &tv);
}

static void on_timer(evutil_socket_t fd, short what, void *arg) {
    qn_http_client *c = arg;
    (void)fd;
    (void)what;
    if (!c->active) return;
    uint64_t now = qn_os_now_ns();
    double quiet = (double)(now - c->last_ns) * 1e-9, all = (double)(now - c->begun_ns) * 1e-9;
    double limit = c->connected ? c->call.silence_seconds : c->call.connect_seconds;
    if (quiet < limit && (c->call.total_seconds <= 0 || all < c->call.total_seconds)) {
        arm(c);
        return;
    }
    qn_fail(&c->error, QN_ERR_TIMEOUT, "%s port %u: %s", c->url.host, (unsigned)c->url.port,
            c->connected ? "no answer in time" : "no connection in time");
    done(c);
}

static void give_event(void *user, qn_str name, qn_str data) {
    qn_http_client *c = user;
    c->call.on_event(c->call.user, name, data);
}

// Returns true if the call ended (and c is not to be touched).
static bool parse_input(qn_http_client *c) {
    struct evbuffer *in = bufferevent_get_input(c->bev);
    for (;;) {
        struct evbuffer_iovec v = {0};
        if (evbuffer_peek(in, -1, NULL, &v, 1) < 1) v = (struct evbuffer_iovec){0};
        size_t used = 0;
        qn_http_event e = qn_http_parse(c->parser, v.iov_len ? v.iov_base : "", v.iov_len, &used);
        const qn_http_head *head = qn_http_parser_head(c->parser);
        if (e == QN_HTTP_HEAD) {
            qn_str type = {0};
            qn_http_find(head, "content-type", &type);
            type.len = QN_MIN(type.len, strlen("text/event-stream"));
            c->is_event_stream = qn_http_equal(type, "text/event-stream") && c->call.on_event;
            if (c->call.on_head) c->call.on_head(c->call.user, head);
        } else if (e == QN_HTTP_BODY) {
            qn_str piece = qn_http_parser_body(c->parser);
            if (c->is_event_stream) {
                if (qn_sse_feed(&c->sse, piece.data, piece.len, give_event, c, &c->error) != QN_OK) {
                    done(c);
                    return true;
                }
            } else if (c->call.on_body) {
                c->call.on_body(c->call.user, piece);
            }
        }
        evbuffer_drain(in, used);
        if (e == QN_HTTP_BAD) {
            qn_fail(&c->error, QN_ERR_FORMAT, "malformed response: %s",
                    qn_http_parser_reason(c->parser));
            done(c);
            return true;
        }
        if (e == QN_HTTP_DONE) {
            done(c);
            return true;
        }
        if (e == QN_HTTP_NEED_MORE && evbuffer_get_length(in) == 0) return false;
    }
}

static void on_read(struct bufferevent *bev, void *arg) {
    qn_http_client *c = arg;
    if (!c->active) { // bytes that nobody asked for
        evbuffer_drain(bufferevent_get_input(bev), evbuffer_get_length(bufferevent_get_input(bev)));
        disconnect(c);
        return;
    }
    c->last_ns = qn_os_now_ns();
    c->got_bytes = true;
    parse_input(c);
}

static bool start(qn_http_client *c);

static void on_event(struct bufferevent *bev, short what, void *arg) {
    qn_http_client *c = arg;
    (void)bev;
    if (what & BEV_EVENT_CONNECTED) {
        c->connected = true;
        c->last_ns = qn_os_now_ns();
        arm(c);
        return;
    }
    int saved = EVUTIL_SOCKET_ERROR();
    bool was_connected = c->connected;
    if (!c->active) {
        disconnect(c);
        return;
    }
    // A kept connection may have been closed before our request reached the server: once more.
    if (c->reused && !c->got_bytes) {
        disconnect(c);
        c->reused = false;
        if (start(c)) return;
        done(c);
        return;
    }
    if (what & BEV_EVENT_EOF) {
        c->connected = false;
        if (qn_http_parse_eof(c->parser) != QN_HTTP_DONE) {
            qn_fail(&c->error, QN_ERR_IO, "%s port %u closed the connection before the answer was "
                    "complete", c->url.host, (unsigned)c->url.port);
        }
    } else {
        qn_fail(&c->error, QN_ERR_IO, "%s %s port %u: %s",
                was_connected ? "the connection to" : "cannot connect to", c->url.host,
                (unsigned)c->url.port, strerror(saved));
    }
    done(c);
}

// Sends c->request, over a new connection if there is none. False: c->error says why.
static bool start(qn_http_client *c) {
    qn_http_parser_destroy(c->parser);
    c->parser = qn_http_parser_create(false, c->call.max_body);
    if (!c->parser) {
        qn_fail(&c->error, QN_ERR_NOMEM, "out of memory");
        return false;
    }
    if (strcmp(c->call.method, "HEAD") == 0) qn_http_parser_expect_no_body(c->parser);
    c->last_ns = qn_os_now_ns();
    c->reused = c->bev != NULL;
    if (!c->bev) {
        c->bev = bufferevent_socket_new(c->base, -1, BEV_OPT_CLOSE_ON_FREE);
        if (!c->bev) {
            qn_fail(&c->error, QN_ERR_NOMEM, "out of memory");
            return false;
        }
        bufferevent_setcb(c->bev, on_read, NULL, on_event, c);
        bufferevent_enable(c->bev, EV_READ | EV_WRITE);
        if (bufferevent_socket_connect(c->bev, (struct sockaddr *)&c->addr, (int)c->addr_len) != 0) {
            qn_fail(&c->error, QN_ERR_IO, "cannot connect to %s port %u: %s", c->url.host,
                    (unsigned)c->url.port, strerror(EVUTIL_SOCKET_ERROR()));
            disconnect(c);
            return false;
        }
        int on = 1;
        setsockopt(bufferevent_getfd(c->bev), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
    if (bufferevent_write(c->bev, c->request.data, c->request.len) != 0) {
        qn_fail(&c->error, QN_ERR_NOMEM, "out of memory");
        return false;
    }
    arm(c);
    return true;
}

qn_status qn_http_client_send(qn_http_client *c, const qn_http_call *call, qn_error *err) {
    if (c->active) return qn_fail(err, QN_ERR_BUSY, "a call is under way on this connection");
    c->call = *call;
    if (c->call.connect_seconds <= 0) c->call.connect_seconds = 10;
    if (c->call.silence_seconds <= 0) c->call.silence_seconds = 300;
    if (c->call.max_body == 0) c->call.max_body = 64 << 20;
    qn_buf *b = &c->request;
    qn_buf_clear(b);
    bool v6 = strchr(c->url.host, ':') != NULL;
    qn_buf_printf(b, "%s %s HTTP/1.1\r\nHost: %s%s%s:%u\r\n", call->method, call->path,
                  v6 ? "[" : "", c->url.host, v6 ? "]" : "", (unsigned)c->url.port);
    qn_buf_puts(b, "User-Agent: quern\r\n");
    if (call->content_type) qn_buf_printf(b, "Content-Type: %s\r\n", call->content_type);
    if (call->body) qn_buf_printf(b, "Content-Length: %zu\r\n", call->len);
    if (call->fields) qn_buf_puts(b, call->fields);
    qn_buf_puts(b, "\r\n");
    if (call->body) qn_buf_append(b, call->body, call->len);
    if (b->failed) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    // Of the call only what outlives it is kept.
    c->call.path = c->call.content_type = c->call.fields = c->call.body = NULL;
    c->call.method = strcmp(call->method, "HEAD") == 0 ? "HEAD" : "";
    c->active = true;
    c->got_bytes = false;
    c->is_event_stream = false;
    c->begun_ns = qn_os_now_ns();
    qn_error_clear(&c->error);
    if (start(c)) return QN_OK;
    c->active = false;
    evtimer_del(c->timer);
    disconnect(c);
    return qn_fail(err, c->error.status, "%s", c->error.message);
}

qn_status qn_http_client_create(struct event_base *base, const qn_url *url, qn_http_client **out,
                                qn_error *err) {
    *out = NULL;
    qn_http_client *c = calloc(1, sizeof *c);
    if (!c) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    c->base = base;
    c->url = *url;
    char service[8];
    snprintf(service, sizeof service, "%u", (unsigned)url->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    int rc = getaddrinfo(url->host, service, &hints, &list);
    if (rc != 0) {
        free(c);
        return qn_fail(err, QN_ERR_IO, "host %s: %s", url->host, gai_strerror(rc));
    }
    // Of several addresses the IPv4 one: servers on this machine listen there by default.
    const struct addrinfo *pick = list;
    for (const struct addrinfo *a = list; a; a = a->ai_next) {
        if (a->ai_family == AF_INET) {
            pick = a;
            break;
        }
    }
    memcpy(&c->addr, pick->ai_addr, pick->ai_addrlen);
    c->addr_len = pick->ai_addrlen;
    freeaddrinfo(list);
    c->timer = evtimer_new(base, on_timer, c);
    if (!c->timer) {
        free(c);
        return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    *out = c;
    return QN_OK;
}

void qn_http_client_destroy(qn_http_client *c) {
    if (!c) return;
    disconnect(c);
    event_free(c->timer);
    qn_http_parser_destroy(c->parser);
    qn_sse_free(&c->sse);
    qn_buf_free(&c->request);
    free(c);
}

typedef struct fetch {
    struct event_base *base;
    const qn_http_call *call;
    qn_error error;
} fetch;

static void fetch_head(void *user, const qn_http_head *head) {
    fetch *f = user;
    if (f->call->on_head) f->call->on_head(f->call->user, head);
}
static void fetch_body(void *user, qn_str piece) {
    fetch *f = user;
    if (f->call->on_body) f->call->on_body(f->call->user, piece);
}
static void fetch_event(void *user, qn_str name, qn_str data) {
    fetch *f = user;
    f->call->on_event(f->call->user, name, data);
}
static void fetch_done(void *user, const qn_error *error) {
    fetch *f = user;
    if (error) f->error = *error;
    if (f->call->on_done) f->call->on_done(f->call->user, error);
    event_base_loopbreak(f->base);
}

qn_status qn_http_fetch(const qn_url *url, const qn_http_call *call, qn_error *err) {
    fetch f = {.base = event_base_new(), .call = call};
    if (!f.base) return qn_fail(err, QN_ERR_NOMEM, "cannot make an event loop");
    qn_http_call inner = *call;
    inner.user = &f;
    inner.on_head = fetch_head;
    inner.on_body = fetch_body;
    inner.on_event = call->on_event ? fetch_event : NULL;
    inner.on_done = fetch_done;
    qn_http_client *c = NULL;
    qn_status st = qn_http_client_create(f.base, url, &c, err);
    if (st == QN_OK) st = qn_http_client_send(c, &inner, err);
    if (st == QN_OK) {
        event_base_dispatch(f.base);
        if (f.error.status) st = qn_fail(err, f.error.status, "%s", f.error.message);
    }
    qn_http_client_destroy(c);
    event_base_free(f.base);
    return st;
}
