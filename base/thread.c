// SPDX-License-Identifier: Apache-2.0
#include "base/thread.h"

#include "base/checked.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

typedef struct start {
    void (*fn)(void *);
    void *arg;
    char name[16];
} start;

static void *run(void *p) {
    start s = *(start *)p;
    free(p);
    pthread_setname_np(pthread_self(), s.name);
    s.fn(s.arg);
    return NULL;
}

qn_status qn_thread_start(qn_thread *t, const char *name, void (*fn)(void *), void *arg,
                          qn_error *err) {
    start *s = malloc(sizeof *s);
    if (!s) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    s->fn = fn;
    s->arg = arg;
    snprintf(s->name, sizeof s->name, "%s", name);
    sigset_t all, old;
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&t->id, NULL, run, s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    t->running = rc == 0;
    if (rc != 0) {
        free(s);
        return qn_fail(err, QN_ERR_IO, "cannot start thread %s: %s", name, strerror(rc));
    }
    return QN_OK;
}

void qn_thread_join(qn_thread *t) {
    if (t->running) pthread_join(t->id, NULL);
    t->running = false;
}

qn_status qn_wakeup_open(qn_wakeup *w, qn_error *err) {
    w->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return w->fd >= 0 ? QN_OK : qn_fail(err, QN_ERR_IO, "eventfd: %s", strerror(errno));
}

void qn_wakeup_signal(const qn_wakeup *w) {
    uint64_t one = 1;
    // EAGAIN means that the counter is full, so the waiter is awake already.
    ssize_t n = write(w->fd, &one, sizeof one);
    (void)n;
}

void qn_wakeup_clear(const qn_wakeup *w) {
    uint64_t count;
    ssize_t n = read(w->fd, &count, sizeof count);
    (void)n;
}

void qn_wakeup_close(qn_wakeup *w) {
    if (w->fd >= 0) close(w->fd);
    w->fd = -1;
}

struct qn_queue {
    pthread_mutex_t lock;
    size_t head, count, capacity;
    uint64_t items[];
};

qn_queue *qn_queue_create(size_t capacity) {
    size_t bytes;
    if (!qn_mul_size(capacity, sizeof(uint64_t), &bytes) ||
        !qn_add_size(bytes, sizeof(qn_queue), &bytes)) {
        return NULL;
    }
    qn_queue *q = calloc(1, bytes);
    if (!q) return NULL;
    q->capacity = capacity;
    pthread_mutex_init(&q->lock, NULL);
    return q;
}

void qn_queue_destroy(qn_queue *q) {
    if (!q) return;
    pthread_mutex_destroy(&q->lock);
    free(q);
}

bool qn_queue_push(qn_queue *q, uint64_t value) {
    pthread_mutex_lock(&q->lock);
    bool ok = q->count < q->capacity;
    if (ok) q->items[(q->head + q->count++) % q->capacity] = value;
    pthread_mutex_unlock(&q->lock);
    return ok;
}

bool qn_queue_pop(qn_queue *q, uint64_t *value) {
    pthread_mutex_lock(&q->lock);
    bool ok = q->count > 0;
    if (ok) {
        *value = q->items[q->head];
        q->head = (q->head + 1) % q->capacity;
        q->count--;
    }
    pthread_mutex_unlock(&q->lock);
    return ok;
}

size_t qn_queue_count(qn_queue *q) {
    pthread_mutex_lock(&q->lock);
    size_t n = q->count;
    pthread_mutex_unlock(&q->lock);
    return n;
}
