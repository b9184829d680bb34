// SPDX-License-Identifier: Apache-2.0
// Slots, and lists of slot numbers through them: free ones, waiting ones, and for each loop its done
// ones. All of it under one lock, which nobody holds while a job runs.
#include "server/pool.h"

#include "base/checked.h"

#include <stdio.h>
#include <stdlib.h>

enum { NONE = -1 };

typedef enum slot_state { FREE, WAITING, RUNNING, CANCELLED, DONE } slot_state;

typedef struct slot {
    slot_state state;
    uint32_t generation;
    int32_t next, prev;
    size_t loop;
    qn_job *job;
    void *owner;
} slot;

typedef struct list {
    int32_t first, last;
} list;

struct qn_pool {
    qn_pool_options options;
    pthread_mutex_t lock;
    pthread_cond_t work;
    slot *slots;
    list free, waiting;
    list *done;               // for each loop
    const qn_wakeup **wakeup; // for each loop
    size_t n_busy;            // waiting or running
    bool stopping;
    qn_thread *threads;
};

static void push(qn_pool *p, list *l, int32_t i) {
    slot *s = &p->slots[i];
    s->next = NONE;
    s->prev = l->last;
    if (l->last == NONE) l->first = i;
    else p->slots[l->last].next = i;
    l->last = i;
}

static void drop(qn_pool *p, list *l, int32_t i) {
    slot *s = &p->slots[i];
    if (s->prev == NONE) l->first = s->next;
    else p->slots[s->prev].next = s->next;
    if (s->next == NONE) l->last = s->prev;
    else p->slots[s->next].prev = s->prev;
}

static void release(qn_pool *p, int32_t i) {
    slot *s = &p->slots[i];
    s->state = FREE;
    s->generation++;
    s->job = NULL;
    s->owner = NULL;
    push(p, &p->free, i);
}

qn_status qn_pool_create(const qn_pool_options *options, qn_pool **out, qn_error *err) {
    *out = NULL;
    if (options->threads == 0 || options->capacity == 0 || options->capacity > INT32_MAX / 2) {
        return qn_fail(err, QN_ERR_INVALID, "a pool of %zu threads for %zu jobs", options->threads,
                       options->capacity);
    }
    qn_pool *p = calloc(1, sizeof *p);
    if (!p) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    p->options = *options;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    p->slots = calloc(options->capacity, sizeof *p->slots);
    p->done = calloc(options->n_loops, sizeof *p->done);
    p->wakeup = calloc(options->n_loops, sizeof *p->wakeup);
    p->threads = calloc(options->threads, sizeof *p->threads);
    if (!p->slots || !p->done || !p->wakeup || !p->threads) {
        qn_pool_destroy(p);
        return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    p->free = p->waiting = (list){NONE, NONE};
    for (size_t i = 0; i < options->n_loops; i++) p->done[i] = (list){NONE, NONE};
    for (size_t i = 0; i < options->capacity; i++) push(p, &p->free, (int32_t)i);
    *out = p;
    return QN_OK;
}

void qn_pool_destroy(qn_pool *p) {
    if (!p) return;
    for (size_t i = 0; p->slots && i < p->options.capacity; i++) {
        if (p->slots[i].job) p->options.destroy(p->slots[i].job);
    }
    free(p->slots);
    free(p->done);
    free(p->wakeup);
    free(p->threads);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

static void work(void *arg) {
    qn_pool *p = arg;
    pthread_mutex_lock(&p->lock);
    while (!p->stopping) {
        int32_t i = p->waiting.first;
        if (i == NONE) {
            pthread_cond_wait(&p->work, &p->lock);
            continue;
        }
        slot *s = &p->slots[i];
        drop(p, &p->waiting, i);
        s->state = RUNNING;
        pthread_mutex_unlock(&p->lock);
        p->options.run(p->options.user, s->job); // the slot stays this thread's until it is DONE
        pthread_mutex_lock(&p->lock);
        p->n_busy--;
        if (s->state == CANCELLED) {
            qn_job *job = s->job;
            release(p, i);
            pthread_mutex_unlock(&p->lock);
            p->options.destroy(job);
            pthread_mutex_lock(&p->lock);
        } else {
            s->state = DONE;
            push(p, &p->done[s->loop], i);
            const qn_wakeup *w = p->wakeup[s->loop];
            if (w) qn_wakeup_signal(w);
        }
    }
    pthread_mutex_unlock(&p->lock);
}

qn_status qn_pool_start(qn_pool *p, qn_error *err) {
    for (size_t i = 0; i < p->options.threads; i++) {
        char name[16];
        snprintf(name, sizeof name, "quern-prep-%d", (int)i);
        qn_status st = qn_thread_start(&p->threads[i], name, work, p, err);
        if (st != QN_OK) {
            qn_pool_stop(p);
            return st;
        }
    }
    return QN_OK;
}

void qn_pool_stop(qn_pool *p) {
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (size_t i = 0; i < p->options.threads; i++) qn_thread_join(&p->threads[i]);
}

void qn_pool_attach(qn_pool *p, size_t loop, const qn_wakeup *wakeup) { p->wakeup[loop] = wakeup; }

uint64_t qn_pool_submit(qn_pool *p, size_t loop, qn_job *job, void *owner) {
    uint64_t handle = 0;
    pthread_mutex_lock(&p->lock);
    int32_t i = p->free.first;
    if (i != NONE) {
        slot *s = &p->slots[i];
        drop(p, &p->free, i);
        s->state = WAITING;
        s->loop = loop;
        s->job = job;
        s->owner = owner;
        push(p, &p->waiting, i);
        p->n_busy++;
        handle = (uint64_t)s->generation << 32 | (uint32_t)(i + 1);
        pthread_cond_signal(&p->work);
    }
    pthread_mutex_unlock(&p->lock);
    return handle;
}

void qn_pool_cancel(qn_pool *p, uint64_t handle) {
    uint64_t number = handle & UINT32_MAX;
    qn_job *job = NULL;
    if (number == 0 || number > p->options.capacity) return;
    int32_t i = (int32_t)number - 1;
    pthread_mutex_lock(&p->lock);
    slot *s = &p->slots[i];
    if (s->generation == handle >> 32) {
        s->owner = NULL;
        if (s->state == RUNNING) {
            s->state = CANCELLED;
        } else if (s->state == WAITING || s->state == DONE) {
            drop(p, s->state == WAITING ? &p->waiting : &p->done[s->loop], i);
            p->n_busy -= s->state == WAITING;
            job = s->job;
            release(p, i);
        }
    }
    pthread_mutex_unlock(&p->lock);
    if (job) p->options.destroy(job);
}

bool qn_pool_take(qn_pool *p, size_t loop, qn_job **job, void **owner) {
    pthread_mutex_lock(&p->lock);
    int32_t i = p->done[loop].first;
    if (i != NONE) {
        *job = p->slots[i].job;
        *owner = p->slots[i].owner;
        drop(p, &p->done[loop], i);
        release(p, i);
    }
    pthread_mutex_unlock(&p->lock);
    return i != NONE;
}

size_t qn_pool_count(qn_pool *p) {
    pthread_mutex_lock(&p->lock);
    size_t n = p->n_busy;
    pthread_mutex_unlock(&p->lock);
    return n;
}
