// SPDX-License-Identifier: Apache-2.0
#include "tests/faults/web.h"

#include "tests/faults/inject.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

// Memory is there again after a while: libevent tries again to read from TLS until it can.
enum { PATIENCE_MS = 15000, SLICE_MS = 20, RECOVER_MS = 200 };

typedef struct wire {
    const web_server *server;
    int fd;
    SSL *tls;
    int waited;
} wire;

// False: nothing to read for too long, or nobody left who would write.
static bool wait_for(wire *w, short events) {
    for (; w->waited < PATIENCE_MS; w->waited += SLICE_MS) {
        struct pollfd p = {w->fd, events, 0};
        if (poll(&p, 1, SLICE_MS) > 0) return true;
        if (w->server->ended && atomic_load(w->server->ended)) return false;
        if (w->waited == RECOVER_MS) inject_close();
    }
    return false;
}

// > 0: bytes; 0: closed; < 0: hangs.
static long wire_read(wire *w, char *data, size_t size) {
    for (;;) {
        long n = w->tls ? SSL_read(w->tls, data, (int)size) : recv(w->fd, data, size, MSG_DONTWAIT);
        if (n > 0) return n;
        short events = POLLIN;
        if (w->tls) {
            int why = SSL_get_error(w->tls, (int)n);
            ERR_clear_error();
            if (why == SSL_ERROR_WANT_WRITE) events = POLLOUT;
            else if (why != SSL_ERROR_WANT_READ) return 0;
        } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
            return 0;
        }
        if (!wait_for(w, events)) return w->waited >= PATIENCE_MS ? -1 : 0;
    }
}

static bool wire_write(wire *w, const char *data, size_t len) {
    while (len > 0) {
        long n = w->tls ? SSL_write(w->tls, data, (int)len)
                        : send(w->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            data += n;
            len -= (size_t)n;
            continue;
        }
        short events = POLLOUT;
        if (w->tls) {
            int why = SSL_get_error(w->tls, (int)n);
            ERR_clear_error();
            if (why == SSL_ERROR_WANT_READ) events = POLLIN;
            else if (why != SSL_ERROR_WANT_WRITE) return false;
        } else if (errno != EAGAIN && errno != EINTR) {
            return false;
        }
        if (!wait_for(w, events)) return false;
    }
    return true;
}

// One response at p; returns where it ends, NULL if it is cut off.
static const char *parse(const char *p, const char *end, web_answer *a) {
    a->status = 0;
    a->complete = a->chunked = false;
    a->len = 0;
    a->body[0] = '\0';
    const char *blank = memmem(p, (size_t)(end - p), "\r\n\r\n", 4);
    if (!blank || sscanf(p, "HTTP/1.1 %d", &a->status) != 1) return NULL;
    size_t length = 0;
    bool known = false;
    for (const char *line = p; line < blank;) {
        const char *next = memmem(line, (size_t)(blank + 2 - line), "\r\n", 2);
        if (strncasecmp(line, "content-length:", 15) == 0) {
            length = strtoul(line + 15, NULL, 10);
            known = true;
        }
        if (strncasecmp(line, "transfer-encoding: chunked", 26) == 0) a->chunked = true;
        line = next + 2;
    }
    p = blank + 4;
    if (a->status == 100) {
        a->status = 0; // the answer is yet to come
        return p;
    }
    if (a->chunked) {
        for (;;) {
            const char *line = memmem(p, (size_t)(end - p), "\r\n", 2);
            if (!line) return NULL;
            size_t n = strtoul(p, NULL, 16);
            p = line + 2;
            if ((size_t)(end - p) < n + 2) n = (size_t)(end - p);
            memcpy(a->body + a->len, p, n);
            a->len += n;
            a->body[a->len] = '\0';
            if ((size_t)(end - p) < n + 2) return NULL;
            p += n + 2;
            if (n == 0) break;
        }
    } else {
        size_t there = (size_t)(end - p);
        if (!known) length = there;
        a->len = there < length ? there : length;
        memcpy(a->body, p, a->len);
        a->body[a->len] = '\0';
        if (there < length) return NULL;
        p += length;
    }
    a->complete = true;
    return p;
}

void web_ask(const web_server *s, const char *request, size_t len, size_t leave_after, web_answer *a) {
    a->status = 0;
    a->complete = a->chunked = a->hangs = false;
    a->len = a->raw_len = 0;
    a->body[0] = a->raw[0] = '\0';
    wire w = {.server = s, .fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(s->port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (w.fd < 0 || connect(w.fd, (struct sockaddr *)&to, sizeof to) != 0) {
        if (w.fd >= 0) close(w.fd);
        return;
    }
    fcntl(w.fd, F_SETFL, O_NONBLOCK);
    bool ok = true;
    if (s->tls) {
        w.tls = SSL_new(s->tls);
        SSL_set_fd(w.tls, w.fd);
        for (int rc = 0; ok && (rc = SSL_connect(w.tls)) != 1;) {
            int why = SSL_get_error(w.tls, rc);
            ERR_clear_error();
            ok = (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) &&
                 wait_for(&w, why == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT);
        }
    }
    // A server that refused early may have closed: what it said is read all the same.
    if (ok) wire_write(&w, request, len);
    while (ok && a->raw_len < WEB_MAX - 1) {
        long n = wire_read(&w, a->raw + a->raw_len, WEB_MAX - 1 - a->raw_len);
        a->hangs = n < 0;
        if (n <= 0) break;
        a->raw_len += (size_t)n;
        a->raw[a->raw_len] = '\0';
        if (leave_after && a->raw_len >= leave_after) break;
    }
    if (w.tls) SSL_free(w.tls);
    close(w.fd);
    const char *end = a->raw + a->raw_len;
    for (const char *p = a->raw; p && p < end;) p = parse(p, end, a);
}

bool web_make_certificate(const char *cert_path, const char *key_path) {
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    bool ok = key && x;
    if (ok) {
        X509_set_version(x, 2);
        ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
        X509_gmtime_adj(X509_getm_notBefore(x), -3600);
        X509_gmtime_adj(X509_getm_notAfter(x), 86400);
        X509_set_pubkey(x, key);
        X509_NAME *name = X509_get_subject_name(x);
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"localhost", -1,
                                   -1, 0);
        X509_set_issuer_name(x, name);
        ok = X509_sign(x, key, EVP_sha256()) > 0;
    }
    FILE *f = ok ? fopen(cert_path, "w") : NULL;
    ok = f && PEM_write_X509(f, x) == 1;
    if (f) fclose(f);
    f = ok ? fopen(key_path, "w") : NULL;
    ok = f && PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) == 1;
    if (f) fclose(f);
    X509_free(x);
    EVP_PKEY_free(key);
    return ok;
}
