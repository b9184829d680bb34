// SPDX-License-Identifier: Apache-2.0
// The worker pool: threads made once, parallel sections one after another.
#ifndef QN_CPU_POOL_H
#define QN_CPU_POOL_H

#include "base/status.h"

#include <stdint.h>

typedef struct pool pool;

// Items are handed out one at a time, in order, to whichever thread is free; worker is 0 for the
// caller, 1..threads-1 for the others: an index for scratch memory, nothing else may depend on it.
typedef void (*pool_fn)(void *user, int32_t item, int32_t worker);

// threads counts the caller of pool_run.
qn_status pool_create(int32_t threads, pool **out, qn_error *err);
void pool_destroy(pool *p); // NULL allowed
int32_t pool_threads(const pool *p);
// Calls fn for items 0..n-1 and returns when all are done. From one thread at a time.
void pool_run(pool *p, pool_fn fn, void *user, int32_t n);

#endif
