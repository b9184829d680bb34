// SPDX-License-Identifier: Apache-2.0
#include "server/api_error.h"

#include <stdio.h>

bool qn_api_fail(qn_api_error *e, int status, const char *param, const char *fmt, ...) {
    if (e->status) return false;
    e->status = status;
    snprintf(e->param, sizeof e->param, "%s", param ? param : "");
    va_list args;
    va_start(args, fmt);
    vsnprintf(e->message, sizeof e->message, fmt, args);
    va_end(args);
    if (status == 503 && e->retry_after == 0) e->retry_after = 1;
    return false;
}

bool qn_api_fail_status(qn_api_error *e, const qn_error *err, const char *param) {
    int status = 500;
    switch (err->status) {
    case QN_ERR_INVALID:
    case QN_ERR_FORMAT:
    case QN_ERR_UNSUPPORTED:
    case QN_ERR_LIMIT:
        status = 400;
        break;
    case QN_ERR_NOT_FOUND:
        status = 404;
        break;
    case QN_ERR_BUSY:
    case QN_ERR_NOMEM:
    case QN_ERR_CANCELLED:
        status = 503;
        break;
    default:
        break;
    }
    return qn_api_fail(e, status, status < 500 ? param : NULL, "%s", err->message);
}

static const char *type_of(int status) {
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 429:
        return "rate_limit_error";
    case 503:
        return "service_unavailable_error";
    default:
        return status >= 500 ? "server_error" : "invalid_request_error";
    }
}

static void string_or_null(qn_buf *out, const char *s) {
    if (s && *s) qn_buf_json_string(out, s, strlen(s));
    else qn_buf_puts(out, "null");
}

void qn_api_error_json(const qn_api_error *e, qn_buf *out) {
    qn_buf_puts(out, "{\"error\":{\"message\":");
    qn_buf_json_string(out, e->message, strlen(e->message));
    qn_buf_puts(out, ",\"type\":");
    string_or_null(out, e->type ? e->type : type_of(e->status));
    qn_buf_puts(out, ",\"param\":");
    string_or_null(out, e->param);
    qn_buf_puts(out, ",\"code\":");
    string_or_null(out, e->code);
    qn_buf_puts(out, "}}");
}
