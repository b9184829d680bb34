// SPDX-License-Identifier: Apache-2.0
// A parser of event streams (WHATWG HTML, "Server-sent events"): bytes in, events out.
#ifndef QN_HTTP_SSE_H
#define QN_HTTP_SSE_H

#include "base/buf.h"
#include "base/status.h"

typedef struct qn_sse { // zero-initialize
    qn_buf line, data, name;
    bool after_cr; // a line feed that follows belongs to the line end before it
    bool have_data;
} qn_sse;

enum { QN_SSE_MAX_EVENT = 4 * 1024 * 1024 }; // bytes of an event

// Takes all bytes; on_event is called for every event that they complete (views valid during the
// call; name is empty unless the stream gave one). Errors: QN_ERR_LIMIT, QN_ERR_NOMEM.
qn_status qn_sse_feed(qn_sse *s, const char *bytes, size_t len,
                      void (*on_event)(void *user, qn_str name, qn_str data), void *user,
                      qn_error *err);
void qn_sse_free(qn_sse *s);

#endif
