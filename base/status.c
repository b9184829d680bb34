// SPDX-License-Identifier: Apache-2.0
#include "base/status.h"

#include <stdio.h>
#include <string.h>

qn_status qn_vfail(qn_error *err, qn_status status, const char *fmt, va_list args) {
    if (err && err->status == QN_OK) {
        err->status = status;
        vsnprintf(err->message, sizeof err->message, fmt, args);
    }
    return status;
}

qn_status qn_fail(qn_error *err, qn_status status, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    qn_vfail(err, status, fmt, args);
    va_end(args);
    return status;
}

qn_status qn_error_prefix(qn_error *err, const char *fmt, ...) {
    if (!err || err->status == QN_OK) return QN_OK;
    char old[sizeof err->message];
    memcpy(old, err->message, sizeof old);
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(err->message, sizeof err->message, fmt, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof err->message) {
        snprintf(err->message + n, sizeof err->message - (size_t)n, ": %s", old);
    }
    return err->status;
}

void qn_error_clear(qn_error *err) {
    if (err) {
        err->status = QN_OK;
        err->message[0] = '\0';
    }
}

const char *qn_status_name(qn_status status) {
    switch (status) {
    case QN_OK: return "ok";
    case QN_ERR_INVALID: return "invalid";
    case QN_ERR_FORMAT: return "format";
    case QN_ERR_UNSUPPORTED: return "unsupported";
    case QN_ERR_NOT_FOUND: return "not found";
    case QN_ERR_LIMIT: return "limit";
    case QN_ERR_IO: return "i/o";
    case QN_ERR_NOMEM: return "out of memory";
    case QN_ERR_BUSY: return "busy";
    case QN_ERR_CANCELLED: return "cancelled";
    case QN_ERR_TIMEOUT: return "timeout";
    case QN_ERR_NUMERIC: return "numeric";
    case QN_ERR_INTERNAL: return "internal";
    }
    return "unknown";
}
