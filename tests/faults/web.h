// SPDX-License-Identifier: Apache-2.0
// A plain client for the fault tests: blocking sockets, fixed buffers, no allocation of the product's.
#ifndef QN_TESTS_FAULTS_WEB_H
#define QN_TESTS_FAULTS_WEB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WEB_MAX = 1 << 20 };

typedef struct web_answer {
    int status;    // 0: the connection was closed without a response
    bool complete; // all of it came: its length, or the last chunk
    bool chunked;
    bool hangs;    // nothing came in time
    size_t len;
    char body[WEB_MAX]; // without chunk framing; NUL-terminated
    size_t raw_len;
    char raw[WEB_MAX];
} web_answer;

typedef struct web_server {
    uint16_t port;
    struct ssl_ctx_st *tls; // NULL: plain
    atomic_bool *ended;     // set when nobody will answer any more; NULL: never
} web_server;

// Sends bytes and reads until the server closes the connection. leave_after > 0: closes it as soon as
// so many bytes of the answer have come. Of several answers on the connection the last is parsed.
void web_ask(const web_server *s, const char *request, size_t len, size_t leave_after, web_answer *a);

// A certificate and its key, made new, as PEM files. False: OpenSSL does not want to.
bool web_make_certificate(const char *cert_path, const char *key_path);

#endif
