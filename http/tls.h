// SPDX-License-Identifier: Apache-2.0
// A server's certificate and key, which may change while it runs. TLS 1.2 and up.
#ifndef QN_HTTP_TLS_H
#define QN_HTTP_TLS_H

#include "base/status.h"

struct ssl_st;
typedef struct qn_tls qn_tls;

// PEM files: the certificate with its chain, and the key (without a pass phrase).
qn_status qn_tls_create(const char *cert_path, const char *key_path, qn_tls **out, qn_error *err);
void qn_tls_destroy(qn_tls *t);
// Reads the files again if one has changed (or force); new connections get what was read. On errors
// everything stays as it was. One thread only.
qn_status qn_tls_reload(qn_tls *t, bool force, bool *changed, qn_error *err);
// One connection's state over fd, SSL_free is the caller's; NULL: out of memory. Any thread.
struct ssl_st *qn_tls_session(qn_tls *t, int fd);
// Says goodbye on a connection that is about to be shut.
void qn_tls_goodbye(struct ssl_st *ssl);

#endif
