// SPDX-License-Identifier: Apache-2.0
#include "cpu/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

enum { ITEMS = 64 };

typedef struct counts {
    int32_t plain[ITEMS]; // written by one thread each, read after the barrier
    atomic_int bad_worker;
    int32_t threads;
} counts;

static void count(void *user, int32_t item, int32_t worker) {
    counts *c = user;
    if (worker < 0 || worker >= c->threads) atomic_fetch_add(&c->bad_worker, 1);
    c->plain[item]++;
}

// Every item once, in every section, with fewer and more threads than CPUs and pauses between.
static void test_sections(void **state) {
    (void)state;
    static const int32_t threads[] = {1, 2, 3, 8};
    for (size_t t = 0; t < sizeof threads / sizeof *threads; t++) {
        pool *p;
        assert_int_equal(pool_create(threads[t], &p, NULL), QN_OK);
        assert_int_equal(pool_threads(p), threads[t]);
        counts c = {.threads = threads[t]};
        int32_t want[ITEMS] = {0};
        for (int round = 0; round < 500; round++) {
            const int32_t n = round % (ITEMS + 1);
            pool_run(p, count, &c, n);
            for (int32_t i = 0; i < n; i++) want[i]++;
            for (int32_t i = 0; i < ITEMS; i++) assert_int_equal(c.plain[i], want[i]);
            if (round % 100 == 0) {
                // Long enough for the workers to fall asleep.
                nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
            }
        }
        assert_int_equal(atomic_load(&c.bad_worker), 0);
        pool_destroy(p);
    }
}

static void test_create_destroy(void **state) {
    (void)state;
    for (int i = 0; i < 20; i++) {
        pool *p;
        assert_int_equal(pool_create(1 + i % 5, &p, NULL), QN_OK);
        pool_destroy(p);
    }
    pool_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sections),
        cmocka_unit_test(test_create_destroy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
