// SPDX-License-Identifier: Apache-2.0
#include "server/pool.h"

#include "base/philox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

struct qn_job {
    int number;
    bool ran;
};

typedef struct fixture {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool closed;        // workers stand in run
    atomic_int running; // how many stand
} fixture;

static atomic_int live_jobs; // made and not destroyed: nothing may be lost or destroyed twice

static qn_job *job_create(int number) {
    qn_job *job = calloc(1, sizeof *job);
    assert_non_null(job);
    job->number = number;
    atomic_fetch_add(&live_jobs, 1);
    return job;
}

static void job_destroy(qn_job *job) {
    atomic_fetch_sub(&live_jobs, 1);
    free(job);
}

static void run(void *user, qn_job *job) {
    fixture *f = user;
    pthread_mutex_lock(&f->lock);
    atomic_fetch_add(&f->running, 1);
    while (f->closed) pthread_cond_wait(&f->changed, &f->lock);
    atomic_fetch_sub(&f->running, 1);
    pthread_mutex_unlock(&f->lock);
    job->ran = true;
}

static void set_closed(fixture *f, bool closed) {
    pthread_mutex_lock(&f->lock);
    f->closed = closed;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static qn_pool *open_pool(fixture *f, size_t threads, size_t capacity) {
    const qn_pool_options o = {.threads = threads, .capacity = capacity, .n_loops = 2, .run = run,
                               .destroy = job_destroy, .user = f};
    qn_pool *p;
    assert_int_equal(qn_pool_create(&o, &p, NULL), QN_OK);
    return p;
}

static bool take_within(qn_pool *p, size_t loop, qn_job **job, void **owner) {
    for (int i = 0; i < 5000; i++) {
        if (qn_pool_take(p, loop, job, owner)) return true;
        usleep(1000);
    }
    return false;
}

static void test_order_and_cancel(void **state) {
    (void)state;
    fixture f = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER,
                 .closed = true};
    qn_pool *p = open_pool(&f, 1, 6);
    qn_wakeup wake;
    assert_int_equal(qn_wakeup_open(&wake, NULL), QN_OK);
    qn_pool_attach(p, 0, &wake);
    assert_int_equal(qn_pool_start(p, NULL), QN_OK);
    int owners[8];
    uint64_t handles[8];
    for (int i = 0; i < 6; i++) {
        handles[i] = qn_pool_submit(p, i == 5, job_create(i), &owners[i]);
        assert_true(handles[i] != 0);
    }
    qn_job *extra = job_create(6);
    assert_int_equal(qn_pool_submit(p, 0, extra, &owners[6]), 0);
    for (int i = 0; i < 5000 && !atomic_load(&f.running); i++) usleep(1000);
    assert_int_equal(qn_pool_count(p), 6);
    qn_pool_cancel(p, handles[2]); // waits: gone at once
    assert_int_equal(live_jobs, 6);
    qn_pool_cancel(p, handles[2]); // stale
    qn_pool_cancel(p, handles[0]); // runs: gone when it is done
    assert_int_equal(live_jobs, 6);
    // A cancelled one's slot is free for another, whose handle is not the old one's.
    handles[6] = qn_pool_submit(p, 0, extra, &owners[6]);
    assert_true(handles[6] != 0 && handles[6] != handles[2]);
    qn_pool_cancel(p, handles[2]);
    set_closed(&f, false);
    qn_job *job;
    void *owner;
    static const int want[] = {1, 3, 4, 6};
    for (int i = 0; i < 4; i++) {
        assert_true(take_within(p, 0, &job, &owner));
        assert_int_equal(job->number, want[i]);
        assert_ptr_equal(owner, &owners[want[i]]);
        assert_true(job->ran);
        job_destroy(job);
    }
    assert_false(qn_pool_take(p, 0, &job, &owner));
    // The other loop's job is its own; done and cancelled, it is not taken any more.
    for (int i = 0; i < 5000 && qn_pool_count(p); i++) usleep(1000);
    qn_pool_cancel(p, handles[5]);
    assert_false(qn_pool_take(p, 1, &job, &owner));
    assert_int_equal(live_jobs, 0);
    qn_pool_cancel(p, 0);
    qn_pool_cancel(p, UINT64_MAX);
    // What was never taken goes with the pool.
    assert_true(qn_pool_submit(p, 1, job_create(7), NULL) != 0);
    qn_pool_stop(p);
    qn_pool_destroy(p);
    assert_int_equal(live_jobs, 0);
    qn_wakeup_close(&wake);
}

// A few threads, random submits, cancels and takes: every job ends once.
static void test_random(void **state) {
    (void)state;
    fixture f = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    qn_pool *p = open_pool(&f, 3, 16);
    assert_int_equal(qn_pool_start(p, NULL), QN_OK);
    qn_rng rng = {.key = 9};
    struct {
        uint64_t handle;
        bool wanted;
    } known[20000];
    int n = 0, taken = 0, cancelled = 0;
    qn_job *job;
    void *owner;
    while (n < 20000) {
        qn_job *next = job_create(n);
        uint64_t h = qn_pool_submit(p, (size_t)n % 2, next, &known[n]);
        if (h) {
            known[n].handle = h;
            known[n++].wanted = true;
        } else {
            job_destroy(next);
        }
        if (n && qn_rng_below(&rng, 3) == 0) {
            int back = (int)qn_rng_below(&rng, 12);
            int i = n - 1 - (back < n ? back : 0);
            qn_pool_cancel(p, known[i].handle);
            cancelled += known[i].wanted;
            known[i].wanted = false;
        }
        while (qn_pool_take(p, (size_t)qn_rng_below(&rng, 2), &job, &owner)) {
            assert_ptr_equal(owner, &known[job->number]);
            assert_true(known[job->number].wanted);
            known[job->number].wanted = false;
            taken++;
            job_destroy(job);
        }
    }
    while (qn_pool_count(p)) usleep(1000);
    for (size_t loop = 0; loop < 2; loop++) {
        while (qn_pool_take(p, loop, &job, &owner)) {
            assert_true(known[job->number].wanted);
            taken++;
            job_destroy(job);
        }
    }
    assert_int_equal(taken + cancelled, n);
    assert_true(cancelled > 100 && taken > 100);
    qn_pool_stop(p);
    assert_int_equal(live_jobs, 0);
    qn_pool_destroy(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_order_and_cancel),
                                       cmocka_unit_test(test_random)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
