// SPDX-License-Identifier: Apache-2.0
#include "http/tls.h"

#include "http/file_stamp.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct qn_tls {
    char *cert_path, *key_path;
    qn_file_stamp cert, key;
    pthread_mutex_t lock; // of the context
    SSL_CTX *context;
};

// A key that asks for a pass phrase is refused; the library must not ask on the terminal.
static int no_password(char *buf, int size, int writing, void *user) {
    (void)buf;
    (void)size;
    (void)writing;
    (void)user;
    return 0;
}

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *in, unsigned int in_len, void *user) {
    static const unsigned char ours[] = "\x08http/1.1";
    unsigned char *chosen;
    (void)ssl;
    (void)user;
    if (SSL_select_next_proto(&chosen, out_len, ours, sizeof ours - 1, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED) {
        return SSL_TLSEXT_ERR_NOACK;
    }
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static qn_status fail(qn_error *err, const char *path) {
    unsigned long last = ERR_peek_last_error();
    bool no_memory = last == 0; // nor for a word about it
    for (unsigned long code; (code = ERR_get_error()) != 0;) {
        no_memory = no_memory || ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE;
    }
    const char *why = no_memory ? "out of memory" : ERR_reason_error_string(last);
    qn_status st = qn_fail(err, no_memory ? QN_ERR_NOMEM : QN_ERR_FORMAT, "%s: %s", path,
                           why ? why : "cannot be used");
    ERR_clear_error();
    return st;
}

static qn_status load(const qn_tls *t, SSL_CTX **out, qn_error *err) {
    ERR_clear_error();
    SSL_CTX *c = SSL_CTX_new(TLS_server_method());
    if (!c) return qn_fail(err, QN_ERR_NOMEM, "cannot make a TLS context");
    qn_status st = QN_OK;
    SSL_CTX_set_default_passwd_cb(c, no_password);
    SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                               SSL_OP_CIPHER_SERVER_PREFERENCE);
    // Bytes that wait move about in memory between two attempts to write them.
    SSL_CTX_set_mode(c, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_ENABLE_PARTIAL_WRITE |
                            SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_alpn_select_cb(c, choose_protocol, NULL);
    if (SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION) != 1) st = fail(err, "TLS 1.2");
    else if (SSL_CTX_use_certificate_chain_file(c, t->cert_path) != 1) st = fail(err, t->cert_path);
    else if (SSL_CTX_use_PrivateKey_file(c, t->key_path, SSL_FILETYPE_PEM) != 1 ||
             SSL_CTX_check_private_key(c) != 1) {
        st = fail(err, t->key_path);
    }
    if (st != QN_OK) {
        SSL_CTX_free(c);
        return st;
    }
    *out = c;
    return QN_OK;
}

qn_status qn_tls_create(const char *cert_path, const char *key_path, qn_tls **out, qn_error *err) {
    *out = NULL;
    qn_tls *t = calloc(1, sizeof *t);
    if (!t) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    pthread_mutex_init(&t->lock, NULL);
    t->cert_path = strdup(cert_path);
    t->key_path = strdup(key_path);
    bool changed;
    qn_status st = t->cert_path && t->key_path ? qn_tls_reload(t, true, &changed, err)
                                               : qn_fail(err, QN_ERR_NOMEM, "out of memory");
    if (st != QN_OK) {
        qn_tls_destroy(t);
        return st;
    }
    *out = t;
    return QN_OK;
}

void qn_tls_destroy(qn_tls *t) {
    if (!t) return;
    SSL_CTX_free(t->context);
    free(t->cert_path);
    free(t->key_path);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

qn_status qn_tls_reload(qn_tls *t, bool force, bool *changed, qn_error *err) {
    *changed = false;
    qn_file_stamp cert, key;
    if (!qn_file_stamp_of(t->cert_path, &cert)) {
        return qn_fail(err, QN_ERR_IO, "%s: %s", t->cert_path, strerror(errno));
    }
    if (!qn_file_stamp_of(t->key_path, &key)) {
        return qn_fail(err, QN_ERR_IO, "%s: %s", t->key_path, strerror(errno));
    }
    if (!force && qn_file_stamp_equal(&cert, &t->cert) && qn_file_stamp_equal(&key, &t->key)) {
        return QN_OK;
    }
    t->cert = cert; // also if they are bad: one complaint for each version
    t->key = key;
    SSL_CTX *fresh = NULL;
    qn_status st = load(t, &fresh, err);
    if (st != QN_OK) return st;
    pthread_mutex_lock(&t->lock);
    SSL_CTX *old = t->context;
    t->context = fresh;
    pthread_mutex_unlock(&t->lock);
    SSL_CTX_free(old); // connections keep theirs
    *changed = true;
    return QN_OK;
}

SSL *qn_tls_session(qn_tls *t, int fd) {
    pthread_mutex_lock(&t->lock);
    SSL *ssl = SSL_new(t->context);
    pthread_mutex_unlock(&t->lock);
    // Here, because libevent, which would do it, does not look whether it could.
    if (ssl && SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        ssl = NULL;
    }
    if (!ssl) ERR_clear_error();
    return ssl;
}

void qn_tls_goodbye(SSL *ssl) {
    ERR_clear_error();
    if (SSL_is_init_finished(ssl)) SSL_shutdown(ssl);
    ERR_clear_error();
}
