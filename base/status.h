// SPDX-License-Identifier: Apache-2.0
// Errors are values: a status code and, where the caller wants it, a one-line context.
#ifndef QN_BASE_STATUS_H
#define QN_BASE_STATUS_H

#include <stdarg.h>
#include <stdbool.h>

typedef enum qn_status {
    QN_OK = 0,
    QN_ERR_INVALID,     // an argument or a request is wrong (HTTP 400)
    QN_ERR_FORMAT,      // bytes from outside are malformed
    QN_ERR_UNSUPPORTED, // well formed, but not something this build can do
    QN_ERR_NOT_FOUND,   // file, key, tensor, model or handle does not exist
    QN_ERR_LIMIT,       // exceeds a stated limit
    QN_ERR_IO,          // the operating system failed a read, write, map or socket call
    QN_ERR_NOMEM,       // an allocation failed
    QN_ERR_BUSY,        // a bounded queue is full; may be tried again
    QN_ERR_CANCELLED,   // the work was cancelled by its owner
    QN_ERR_TIMEOUT,     // a deadline passed
    QN_ERR_NUMERIC,     // a result is NaN or infinite
    QN_ERR_INTERNAL,    // an invariant of ours does not hold
} qn_status;

// One line of context, owned by the caller. Zero-initialize it; a NULL qn_error * is always allowed.
typedef struct qn_error {
    qn_status status;
    char message[496];
} qn_error;

// Records status and message and returns status. The first error survives: a second qn_fail on the
// same qn_error (a failing cleanup, say) changes nothing and returns its own status.
qn_status qn_fail(qn_error *err, qn_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
qn_status qn_vfail(qn_error *err, qn_status status, const char *fmt, va_list args);

// Puts "prefix: " before the recorded message (a file name, say). Returns err's status, QN_OK if none.
qn_status qn_error_prefix(qn_error *err, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void qn_error_clear(qn_error *err);

// A short lower-case name: "invalid", "format", ... Never NULL.
const char *qn_status_name(qn_status status);

#endif
