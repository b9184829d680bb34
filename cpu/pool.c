// SPDX-License-Identifier: Apache-2.0
// Invariants:
// 1. A section's fields (fn, user, n, next) are written only while `open` is 0 and `inside` is 0.
// 2. A worker adds itself to `inside` before it looks at `open`; the caller clears `open` before it
//    looks at `inside`; both sequentially consistent. So either the worker sees the section
//    closed and leaves, or the caller sees the worker and waits for it. One that sleeps through a
//    section never delays it.
// 3. `open` holds the section's number (never 0), so that a worker which finished a section does
//    not enter it again.
// 4. A worker sleeps only under `lock`, after it raised `sleepers` and saw nothing open; the caller
//    opens first and looks at `sleepers` afterwards. So no wake-up is lost.
#include "cpu/pool.h"

#include "base/os.h"
#include "base/thread.h"

#include <stdatomic.h>
#include <sched.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct worker {
    pool *owner;
    qn_thread thread;
    int32_t index;
} worker;

struct pool {
    pool_fn fn;
    void *user;
    int32_t n;
    uint32_t sections;
    int32_t spins; // before a worker sleeps
    alignas(64) atomic_int next;
    alignas(64) atomic_uint open;
    alignas(64) atomic_int inside;
    atomic_int sleepers;
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int32_t n_workers;
    worker workers[];
};

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void work(pool *p, int32_t index) {
    for (;;) {
        const int item = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (item >= p->n) return;
        p->fn(p->user, item, index);
    }
}

// Waits until a section other than `done` is open, or the pool stops.
static uint32_t wait_open(pool *p, uint32_t done) {
    for (int32_t i = 0; i < p->spins; i++) {
        const uint32_t open = atomic_load_explicit(&p->open, memory_order_acquire);
        if ((open && open != done) || atomic_load_explicit(&p->stop, memory_order_relaxed)) {
            return open;
        }
        relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers, 1);
    uint32_t open;
    for (;;) {
        open = atomic_load(&p->open);
        if ((open && open != done) || atomic_load(&p->stop)) break;
        pthread_cond_wait(&p->wake, &p->lock);
    }
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->lock);
    return open;
}

static void worker_main(void *arg) {
    worker *w = arg;
    pool *p = w->owner;
    uint32_t done = 0;
    for (;;) {
        wait_open(p, done);
        if (atomic_load(&p->stop)) return;
        atomic_fetch_add(&p->inside, 1);
        const uint32_t open = atomic_load(&p->open);
        if (open && open != done) {
            work(p, w->index);
            done = open;
        }
        atomic_fetch_sub(&p->inside, 1);
    }
}

qn_status pool_create(int32_t threads, pool **out, qn_error *err) {
    *out = NULL;
    if (threads < 1) threads = 1;
    const size_t n = (size_t)threads - 1;
    const size_t bytes = (sizeof(pool) + n * sizeof(worker) + 63) & ~(size_t)63;
    pool *p = aligned_alloc(64, bytes);
    if (!p) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    p->sections = 0;
    // With more threads than CPUs a spinning thread keeps a working one off its CPU.
    p->spins = threads > qn_os_cpu_count() ? 1 : 4000;
    atomic_init(&p->next, 0);
    atomic_init(&p->open, 0);
    atomic_init(&p->inside, 0);
    atomic_init(&p->sleepers, 0);
    atomic_init(&p->stop, false);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    p->n_workers = 0;
    for (size_t i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof name, "cpu-%d", (int)(i + 1) % 10000);
        worker *w = &p->workers[i];
        *w = (worker){.owner = p, .index = (int32_t)i + 1};
        qn_status st = qn_thread_start(&w->thread, name, worker_main, w, err);
        if (st != QN_OK) {
            pool_destroy(p);
            return st;
        }
        p->n_workers++;
    }
    *out = p;
    return QN_OK;
}

void pool_destroy(pool *p) {
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->stop, true);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int32_t i = 0; i < p->n_workers; i++) qn_thread_join(&p->workers[i].thread);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

int32_t pool_threads(const pool *p) { return p->n_workers + 1; }

void pool_run(pool *p, pool_fn fn, void *user, int32_t n) {
    if (n <= 1 || p->n_workers == 0) {
        for (int32_t i = 0; i < n; i++) fn(user, i, 0);
        return;
    }
    p->fn = fn;
    p->user = user;
    p->n = n;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    if (++p->sections == 0) p->sections = 1;
    atomic_store(&p->open, p->sections);
    if (atomic_load(&p->sleepers) > 0) {
        pthread_mutex_lock(&p->lock);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
    }
    work(p, 0);
    atomic_store(&p->open, 0);
    for (int32_t i = 0; atomic_load(&p->inside) > 0; i++) {
        if (i < p->spins) relax();
        else sched_yield();
    }
}
