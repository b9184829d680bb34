// SPDX-License-Identifier: Apache-2.0
// A bounded pool of threads for the long work of requests (JSON, templates, tokenizing), so that event
// loops never do it.
//
// Ownership:
// 1. A job belongs to the pool from a submit that succeeded until take hands it back. In between one
//    thread at a time touches it: first none, then the worker that runs it, then none.
// 2. `owner` is the loop's own pointer. The pool keeps it and never looks behind it; workers do not get
//    it. It comes back with the job, or never, if the handle was cancelled before: so what it points to
//    may be freed after a cancel.
// 3. A handle is a slot and its generation. Cancelling one that is stale does nothing.
// 4. Submit, cancel and take for one loop are called by that loop's thread only.
#ifndef QN_SERVER_POOL_H
#define QN_SERVER_POOL_H

#include "base/thread.h"

typedef struct qn_pool qn_pool;
typedef struct qn_job qn_job;

typedef struct qn_pool_options {
    size_t threads;
    size_t capacity; // jobs waiting, running, or done and not yet taken
    size_t n_loops;
    void (*run)(void *user, qn_job *job); // on a worker
    void (*destroy)(qn_job *job);         // of a job that was cancelled; any thread
    void *user;
} qn_pool_options;

qn_status qn_pool_create(const qn_pool_options *options, qn_pool **out, qn_error *err);
// After stop. Destroys what was never taken.
void qn_pool_destroy(qn_pool *p);
qn_status qn_pool_start(qn_pool *p, qn_error *err);
void qn_pool_stop(qn_pool *p); // joins the threads; what waits stays

// Where a loop is woken when a job of its is done; before start.
void qn_pool_attach(qn_pool *p, size_t loop, const qn_wakeup *wakeup);

// 0: the pool is full, and the job still the caller's.
uint64_t qn_pool_submit(qn_pool *p, size_t loop, qn_job *job, void *owner);
// The job is not wanted any more: one that waits is destroyed at once, one that runs at its end.
void qn_pool_cancel(qn_pool *p, uint64_t handle);
// One job of this loop that is done, oldest first; false: none.
bool qn_pool_take(qn_pool *p, size_t loop, qn_job **job, void **owner);
size_t qn_pool_count(qn_pool *p); // jobs that wait or run

#endif
