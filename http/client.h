// SPDX-License-Identifier: Apache-2.0
// A small HTTP/1.1 client on an event loop: one connection, one call at a time, kept alive between
// calls. The process must ignore SIGPIPE.
#ifndef QN_HTTP_CLIENT_H
#define QN_HTTP_CLIENT_H

#include "base/status.h"
#include "http/codec.h"

struct event_base;

typedef struct qn_url {
    char host[256]; // without brackets
    uint16_t port;
    char path[1024]; // begins with '/', no query
} qn_url;

// "http://host[:port][/path]" or "host:port". https is refused (QN_ERR_UNSUPPORTED).
qn_status qn_url_parse(const char *text, qn_url *url, qn_error *err);

typedef struct qn_http_call {
    const char *method;       // "POST"
    const char *path;         // the whole target
    const char *content_type; // NULL: none
    const char *fields;       // more header lines, each ended by CRLF; NULL: none
    const char *body;
    size_t len;
    double connect_seconds; // 0: 10
    double silence_seconds; // the longest time without a byte from the server; 0: 300
    double total_seconds;   // 0: no limit
    uint64_t max_body;      // bytes of the response; 0: 64 MiB
    void *user;
    // The callbacks; NULL ones are left out. on_event takes the body of an event stream (and then
    // on_body is not called for it). on_done is the last of a call: error NULL if the response is
    // complete. Only on_done may send the next call or destroy the client.
    void (*on_head)(void *user, const qn_http_head *head);
    void (*on_body)(void *user, qn_str piece);
    void (*on_event)(void *user, qn_str name, qn_str data);
    void (*on_done)(void *user, const qn_error *error);
} qn_http_call;

typedef struct qn_http_client qn_http_client;

// Resolves the host (may block). The base must outlive the client.
qn_status qn_http_client_create(struct event_base *base, const qn_url *url, qn_http_client **out,
                                qn_error *err);
// No callbacks come.
void qn_http_client_destroy(qn_http_client *c);
// Starts a call (its strings and body are copied). QN_ERR_BUSY: one is under way.
qn_status qn_http_client_send(qn_http_client *c, const qn_http_call *call, qn_error *err);

// One call from start to end on a loop of its own: blocks. Callbacks come as above.
qn_status qn_http_fetch(const qn_url *url, const qn_http_call *call, qn_error *err);

#endif
