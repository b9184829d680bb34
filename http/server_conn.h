// SPDX-License-Identifier: Apache-2.0
// HTTP/1.1 connections of a server on one event loop. Everything here runs on that loop's thread;
// several loops accept from the same listening descriptors, each with a qn_http_server of its own.
//
// The process must ignore SIGPIPE.
#ifndef QN_HTTP_SERVER_CONN_H
#define QN_HTTP_SERVER_CONN_H

#include "base/log.h"
#include "base/status.h"
#include "http/codec.h"

#include <stdint.h>

struct event_base;
typedef struct qn_http_server qn_http_server;
typedef struct qn_http_conn qn_http_conn;
// A connection between two servers: its descriptor, a request whose head has been read, and the bytes
// that wait on either side. It belongs to whoever holds it, on any thread.
typedef struct qn_http_moved qn_http_moved;

typedef struct qn_http_limits { // zero: the default
    uint64_t max_body;          // bytes of one body; 8 MiB
    uint64_t max_body_total;    // of all bodies being received or answered; 256 MiB
    size_t max_connections;     // 4096; one more is answered 503 and closed
    size_t output_high;         // bytes held for one connection before its producer pauses; 256 KiB
    double head_seconds;        // from a head's first byte; 10
    double body_seconds;        // from the head's end, plus received / min_rate; 30
    double min_rate;            // bytes a second; 16 KiB
    double idle_seconds;        // between requests; 75
    double stall_seconds;       // a response of which nothing is taken; 30
    double comment_seconds;     // silence in an event stream before a comment line; 15
} qn_http_limits;

// How an exchange (request and response) ended.
typedef struct qn_http_outcome {
    int status;      // 0: the client left before there was one
    bool complete;   // the whole response was handed to the socket's buffer
    uint64_t bytes;  // of response bodies
    double seconds;  // from the head's first byte
    const qn_http_head *head; // NULL: the request could not be parsed
} qn_http_outcome;

// Callbacks may call any function below on the connection they are given. NULL ones are left out.
typedef struct qn_http_handlers {
    void *user;
    // Asked first when a head has come: true if another server is to answer this request and what
    // follows on the connection. Then on_moved gets the connection, and nothing else is called.
    bool (*leaves)(void *user, const qn_http_head *head);
    void (*on_moved)(void *user, qn_http_moved *m);
    // The head has come, the body has not. A handler that responds here ends the exchange (the
    // connection closes afterwards if there was a body to come).
    void (*on_head)(void *user, qn_http_conn *c, const qn_http_head *head);
    // The whole request is here. head and body stay valid until the response is complete (or on_close).
    // The response may be given now or later, from this loop.
    void (*on_request)(void *user, qn_http_conn *c, const qn_http_head *head, qn_str body);
    // The peer left, or was cut off for not reading, while the response was not complete. The
    // connection is gone when this returns.
    void (*on_close)(void *user, qn_http_conn *c);
    // There is room again after qn_http_conn_paused was true.
    void (*on_writable)(void *user, qn_http_conn *c);
    // An exchange has ended (also after on_close). For logs and metrics.
    void (*on_finish)(void *user, qn_http_conn *c, const qn_http_outcome *outcome);
    // Writes the body (application/json) of an error found by this layer.
    void (*format_error)(void *user, int status, const char *reason, qn_buf *body);
} qn_http_handlers;

// The base must outlive the server. limits may be NULL.
qn_status qn_http_server_create(struct event_base *base, const qn_http_limits *limits,
                                const qn_http_handlers *handlers, const qn_log *log,
                                qn_http_server **out, qn_error *err);
// Cuts all connections (with on_close for those being answered) and frees everything.
void qn_http_server_destroy(qn_http_server *s);

// Opens a listening socket: host a name or address, port 0 for any. *bound_port says which;
// *loopback whether only this machine can reach it. The descriptor is the caller's.
qn_status qn_http_listen(const char *host, uint16_t port, int *fd, uint16_t *bound_port,
                         bool *loopback, qn_error *err);
// A Unix socket at path, for this user only (mode 0600). A socket file that nobody listens on any more
// is replaced; anything else there is an error.
typedef struct qn_http_unix {
    int fd;
    uint64_t device, inode; // of the file
} qn_http_unix;
qn_status qn_http_listen_unix(const char *path, qn_http_unix *out, qn_error *err);
// Removes the file if it still is the one that was made.
void qn_http_unlink_unix(const char *path, const qn_http_unix *u);
// Accepts from a listening descriptor, which stays the caller's and must outlive the server.
qn_status qn_http_server_accept(qn_http_server *s, int fd, qn_error *err);
// From now on accepted connections speak TLS; tls stays the caller's and must outlive the server. Such a
// server's connections cannot leave for another.
struct qn_tls;
void qn_http_server_set_tls(qn_http_server *s, struct qn_tls *tls);
void qn_http_server_stop_accept(qn_http_server *s);
// Takes over a connection that left another server; its request is handled at once. Past
// max_connections it is answered 503 and closed.
void qn_http_server_adopt(qn_http_server *s, qn_http_moved *m);
void qn_http_moved_free(qn_http_moved *m); // closes it
// From now on every response says "Connection: close".
void qn_http_server_drain(qn_http_server *s);
// Connections whose response is not complete or not yet written out.
size_t qn_http_server_busy(const qn_http_server *s);
size_t qn_http_server_count(const qn_http_server *s); // open connections

// The exchange's own pointer and number, for the handlers; NULL and 0 when a request begins.
void qn_http_conn_set_user(qn_http_conn *c, void *user);
void *qn_http_conn_user(const qn_http_conn *c);
void qn_http_conn_set_tag(qn_http_conn *c, int tag);
int qn_http_conn_tag(const qn_http_conn *c);
// Room for the handlers' own numbers about the exchange; zeros when a request begins.
enum { QN_HTTP_NOTES = 5 };
uint64_t *qn_http_conn_notes(qn_http_conn *c);
// The lines that were added to the response so far.
qn_str qn_http_conn_fields(const qn_http_conn *c);

// The request's body becomes the caller's (out is overwritten); `body` of on_request is gone then. It
// still counts towards max_body_total until the exchange ends.
void qn_http_conn_take_body(qn_http_conn *c, qn_buf *out);

// Adds a field to the response to come. value: no control characters (they are dropped).
void qn_http_conn_add_field(qn_http_conn *c, const char *name, qn_str value);
// The whole response. Afterwards the exchange is over and its user pointer is forgotten.
void qn_http_respond(qn_http_conn *c, int status, const char *content_type, const char *body,
                     size_t len);
// A response of unknown length.
void qn_http_stream_begin(qn_http_conn *c, int status, const char *content_type);
void qn_http_stream_write(qn_http_conn *c, const char *data, size_t len);
void qn_http_stream_end(qn_http_conn *c);
// An event stream: status 200 and the fields that keep proxies from buffering; a comment line goes
// out in silence. data must have no newline. Ends with qn_http_stream_end.
void qn_http_sse_begin(qn_http_conn *c);
void qn_http_sse_data(qn_http_conn *c, const char *data, size_t len);
// Ends an exchange that cannot be completed: the client sees a connection cut off. No on_close.
void qn_http_conn_abort(qn_http_conn *c);
// The response has begun (a status can no longer be chosen).
bool qn_http_conn_responding(const qn_http_conn *c);
// Too much output waits: produce no more until on_writable.
bool qn_http_conn_paused(qn_http_conn *c);
// A client that shuts its sending side while it waits is taken for one that left: that is all that is
// seen of most that do. Not so in this exchange: its response comes soon, and is given.
void qn_http_conn_outlive_eof(qn_http_conn *c);
// The connection closes after this response.
void qn_http_conn_close_after(qn_http_conn *c);

#endif
