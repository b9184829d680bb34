// SPDX-License-Identifier: Apache-2.0
// One request on an engine in this process, its text handed over as it comes. For generate and chat.
#ifndef QN_CLI_LOCAL_H
#define QN_CLI_LOCAL_H

#include "base/buf.h"
#include "engine/engine.h"

typedef struct qn_local_result {
    qn_ids ids;
    qn_buf text;
    float *logprobs; // of each id; NULL unless asked for
    qn_request_state state;
    bool interrupted;
    double first_token_seconds, total_seconds; // from the submit
} qn_local_result;

// on_text may be NULL. at_start: the answer begins a text of its own. Ctrl-C ends the request, not
// the process. Errors of the request are in err.
qn_status qn_local_run(qn_engine *e, const qn_request *request, bool special, bool at_start,
                       void (*on_text)(void *user, const char *text, size_t len), void *user,
                       qn_local_result *out, qn_error *err);
void qn_local_result_free(qn_local_result *r);

// Writes text to the terminal with control characters escaped, newlines and tabs kept, and flushes.
void qn_print_text(void *unused, const char *text, size_t len);

#endif
