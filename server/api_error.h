// SPDX-License-Identifier: Apache-2.0
// The one shape of every error that a client sees: {"error":{"message","type","param","code"}}.
#ifndef QN_SERVER_API_ERROR_H
#define QN_SERVER_API_ERROR_H

#include "base/buf.h"
#include "base/status.h"

typedef struct qn_api_error { // zero-initialize
    int status;               // HTTP; 0: no error
    const char *type;         // static; NULL: by status
    const char *code;         // static; NULL: null
    char param[64];           // the field at fault; "": null
    char message[512];
    int retry_after; // seconds; 0: no Retry-After
} qn_api_error;

// Records the first error; always returns false, so that parsers can `return qn_api_fail(...)`.
// param NULL: none.
bool qn_api_fail(qn_api_error *e, int status, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
// From a status of the engine, tokenizer or template: which HTTP status that is.
bool qn_api_fail_status(qn_api_error *e, const qn_error *err, const char *param);
// Appends the JSON text.
void qn_api_error_json(const qn_api_error *e, qn_buf *out);

#endif
