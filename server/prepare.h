// SPDX-License-Identifier: Apache-2.0
// The long work of a request, done on a thread of the pool: its JSON, the chat template, tokenizing,
// and the whole answer where no engine is needed. Touches nothing but the job and what is constant.
#ifndef QN_SERVER_PREPARE_H
#define QN_SERVER_PREPARE_H

#include "server/internal.h"

typedef enum qn_job_kind {
    QN_JOB_CHAT,
    QN_JOB_COMPLETION,
    QN_JOB_TOKENIZE,
    QN_JOB_DETOKENIZE,
} qn_job_kind;

struct qn_job {
    qn_job_kind kind;
    qn_buf body;
    // What comes of it:
    qn_api_error err; // status 0: none
    // Of a generation:
    qn_gen_request *request;
    const char *model;
    qn_ids ids;   // of all prompts
    size_t *ends; // ends[i]: where prompt i ends in ids
    // Of the others: the answer's JSON.
    qn_buf answer;
};

// Takes the body's bytes. NULL: out of memory (the body is freed).
qn_job *qn_job_create(qn_job_kind kind, qn_buf *body);
void qn_job_destroy(qn_job *job);
void qn_job_run(void *server, qn_job *job);

#endif
