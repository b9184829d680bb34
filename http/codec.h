// SPDX-License-Identifier: Apache-2.0
// A strict HTTP/1.1 parser (RFC 9110, RFC 9112): bytes in, events out. No sockets, no clock. What is
// ambiguous is refused, so that no proxy in front can see other messages than we do.
#ifndef QN_HTTP_CODEC_H
#define QN_HTTP_CODEC_H

#include "base/buf.h"
#include "base/status.h"

#include <stdint.h>

typedef enum qn_http_event {
    QN_HTTP_NEED_MORE, // everything given was used
    QN_HTTP_HEAD,      // the header block is complete: qn_http_parser_head
    QN_HTTP_BODY,      // a piece of the body: qn_http_parser_body
    QN_HTTP_DONE,      // the message is complete; reset before the next
    QN_HTTP_BAD,       // malformed: qn_http_parser_status and _reason; the connection is unusable
} qn_http_event;

enum {
    QN_HTTP_MAX_HEAD = 32 * 1024, // bytes of a header block
    QN_HTTP_MAX_LINES = 100,      // lines of it
    QN_HTTP_MAX_METHOD = 24,
};

typedef struct qn_http_field {
    qn_str name, value; // as sent; value without the white space around it
} qn_http_field;

typedef struct qn_http_head {
    // Of a request:
    qn_str method;
    qn_str target; // as sent
    qn_str path;   // canonical: decoded once, begins with '/', no empty, "." or ".." segment (or "*")
    qn_str query;  // after '?', as sent
    qn_str host;   // the Host field, or the authority of an absolute target; empty if none
    bool expect_continue;
    // Of a response:
    int status;
    // Of both:
    int minor;              // 1: HTTP/1.1, 0: HTTP/1.0
    int64_t content_length; // -1: none given
    bool chunked;
    bool keep_alive; // as far as this message says
    const qn_http_field *fields;
    size_t n_fields;
} qn_http_head;

typedef struct qn_http_parser qn_http_parser;

// request: a parser of requests, else of responses. max_body: the most bytes a body may have (413).
// NULL: out of memory.
qn_http_parser *qn_http_parser_create(bool request, uint64_t max_body);
void qn_http_parser_destroy(qn_http_parser *p);
// Ready for the next message of the connection. Views of the last head become invalid.
void qn_http_parser_reset(qn_http_parser *p);
// A response parser: the next response answers a HEAD request, so it has no body.
void qn_http_parser_expect_no_body(qn_http_parser *p);

// Takes bytes from data until there is an event; *used says how many. NEED_MORE only when all were
// used. After DONE or BAD nothing is used until a reset (after BAD, ever).
qn_http_event qn_http_parse(qn_http_parser *p, const char *data, size_t len, size_t *used);
// The peer closed: DONE where that ends the message (a response delimited by it), NEED_MORE when
// nothing of a message has come, else BAD.
qn_http_event qn_http_parse_eof(qn_http_parser *p);

// Valid from HEAD until reset.
const qn_http_head *qn_http_parser_head(const qn_http_parser *p);
// Valid after BODY until the next call; points into the data given.
qn_str qn_http_parser_body(const qn_http_parser *p);
// True once a byte of a message has been taken (a blank line before it does not count).
bool qn_http_parser_started(const qn_http_parser *p);
// After BAD: the HTTP status to answer with and a short reason (static).
int qn_http_parser_status(const qn_http_parser *p);
const char *qn_http_parser_reason(const qn_http_parser *p);

// How many fields have that name (compared without case); *value is the first one's.
size_t qn_http_find(const qn_http_head *head, const char *name, qn_str *value);
// True if two strings are equal but for the case of ASCII letters.
bool qn_http_equal(qn_str a, const char *b);
// "Not Found" for 404; "Status" for one that has no name here.
const char *qn_http_status_text(int status);

#endif
