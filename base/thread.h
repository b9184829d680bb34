// SPDX-License-Identifier: Apache-2.0
// Threads with a name, and the wake-up that goes with a queue. Mutexes and conditions are pthread's.
#ifndef QN_BASE_THREAD_H
#define QN_BASE_THREAD_H

#include "base/status.h"

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

typedef struct qn_thread {
    pthread_t id;
    bool running;
} qn_thread;

// name: at most 15 characters. All signals but faults are blocked in the thread: main handles them.
qn_status qn_thread_start(qn_thread *t, const char *name, void (*fn)(void *), void *arg,
                          qn_error *err);
void qn_thread_join(qn_thread *t); // does nothing if it does not run

// A wake-up through a descriptor that poll() and libevent understand.
typedef struct qn_wakeup {
    int fd;
} qn_wakeup;
qn_status qn_wakeup_open(qn_wakeup *w, qn_error *err);
void qn_wakeup_signal(const qn_wakeup *w); // any thread; several may be seen as one
void qn_wakeup_clear(const qn_wakeup *w);  // the waiter, before it looks at its queue
void qn_wakeup_close(qn_wakeup *w);

// A bounded queue of 64-bit values: many producers, one or more consumers.
typedef struct qn_queue qn_queue;
qn_queue *qn_queue_create(size_t capacity); // NULL: out of memory
void qn_queue_destroy(qn_queue *q);
bool qn_queue_push(qn_queue *q, uint64_t value); // false: full
bool qn_queue_pop(qn_queue *q, uint64_t *value); // false: empty
size_t qn_queue_count(qn_queue *q);

#endif
