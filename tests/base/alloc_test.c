// SPDX-License-Identifier: Apache-2.0
// The arena; and every allocation of base/ failing in turn. The linker routes malloc, calloc and
// realloc of this program through the functions below.
#include "base/arena.h"
#include "base/checked.h"
#include "base/hash.h"
#include "base/json_reader.h"
#include "base/os.h"
#include "base/philox.h"
#include "base/thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static int countdown = -1; // allocations until one fails; below 0: none does

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *p, size_t size);

static bool fails(void) { return countdown >= 0 && countdown-- == 0; }
void *__wrap_malloc(size_t size) { return fails() ? NULL : __real_malloc(size); }
void *__wrap_calloc(size_t count, size_t size) { return fails() ? NULL : __real_calloc(count, size); }
void *__wrap_realloc(void *p, size_t size) { return fails() ? NULL : __real_realloc(p, size); }

// Runs work with the first, second, ... allocation failing, until one run meets no failure. work
// returns whether it succeeded; it must clean up either way. Returns how many allocations it makes.
static int each_failure(bool (*work)(void)) {
    for (int n = 0;; n++) {
        countdown = n;
        bool ok = work();
        bool met = countdown < 0;
        countdown = -1;
        if (!met) {
            assert_true(ok);
            return n;
        }
        assert_false(ok);
        assert_true(n < 1000);
    }
}

static bool use_buf(void) {
    qn_buf b = {0};
    for (int i = 0; i < 2000; i++) qn_buf_puts(&b, "some text");
    qn_buf_printf(&b, "%d", 5);
    qn_buf_json_string(&b, "\x01\x02", 2);
    qn_buf_visible(&b, "\x01\x02", 2, false);
    bool ok = !b.failed;
    if (ok) assert_int_equal(b.len, 2000 * 9 + 1 + 14 + 8);
    qn_buf_free(&b);
    return ok;
}

static bool use_map(void) {
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";
    qn_map map = {0};
    bool ok = true;
    size_t added = 0;
    for (size_t i = 0; i < 26 && ok; i++) {
        for (size_t n = 1; n < 20 && ok; n++) {
            ok = qn_map_put(&map, (qn_str){letters + i, n}, (uint32_t)(i * 100 + n));
            added += ok;
        }
    }
    // What was added before the failure is still there.
    size_t found = 0;
    for (size_t i = 0; i < 26; i++) {
        for (size_t n = 1; n < 20; n++) {
            uint32_t v;
            if (!qn_map_get(&map, (qn_str){letters + i, n}, &v)) continue;
            assert_int_equal(v, i * 100 + n);
            found++;
        }
    }
    assert_int_equal(found, added);
    qn_map_free(&map);
    return ok;
}

static bool use_json(void) {
    const char *text = "{\"a\\n\":[\"x\\u0041\",1000000000000000000000000000000000000000000000000000"
                       "000000000000000000000000000000000000000000000]}";
    qn_json_reader r;
    qn_json_open(&r, text, strlen(text));
    qn_error err = {0};
    qn_status st;
    while ((st = qn_json_next(&r, &err)) == QN_OK && r.kind != QN_JSON_END) {}
    assert_true(st == QN_OK || st == QN_ERR_NOMEM);
    qn_json_close(&r);
    return st == QN_OK;
}

static void nothing(void *arg) { (void)arg; }

static bool use_threads(void) {
    qn_queue *q = qn_queue_create(10);
    qn_thread t = {0};
    // Only our own allocation is of interest: what pthread_create needs is the C library's.
    qn_status st = q ? qn_thread_start(&t, "t", nothing, NULL, NULL) : QN_ERR_NOMEM;
    qn_thread_join(&t);
    qn_queue_destroy(q);
    assert_true(st == QN_OK || st == QN_ERR_NOMEM);
    return st == QN_OK;
}

static bool use_arena(void) {
    qn_arena a;
    qn_arena_init(&a, 0);
    bool ok = true;
    for (size_t i = 0; i < 100 && ok; i++) ok = qn_arena_alloc(&a, i * 50) != NULL;
    ok = ok && qn_arena_strndup(&a, "abc", 3);
    qn_arena_free(&a);
    return ok;
}

static bool use_file(void) {
    char *data = NULL;
    size_t size;
    qn_error err = {0};
    qn_status st = qn_os_read_file(QN_SOURCE_DIR "/LICENSE", 1 << 20, &data, &size, &err);
    assert_true(st == QN_OK || st == QN_ERR_NOMEM);
    free(data);
    return st == QN_OK;
}

static void test_each_allocation_fails(void **state) {
    (void)state;
    assert_true(each_failure(use_buf) >= 5);
    assert_true(each_failure(use_map) >= 3);
    assert_true(each_failure(use_json) >= 1);
    assert_int_equal(each_failure(use_threads), 2);
    assert_true(each_failure(use_arena) >= 5);
    assert_int_equal(each_failure(use_file), 1);
}

static void test_arena(void **state) {
    (void)state;
    qn_arena a;
    qn_arena_init(&a, 0);
    qn_rng rng = {.key = 21};
    unsigned char *pieces[500];
    size_t sizes[500];
    for (size_t i = 0; i < QN_COUNT(pieces); i++) {
        sizes[i] = (size_t)qn_rng_below(&rng, qn_rng_below(&rng, 10) ? 300 : 40000);
        pieces[i] = qn_arena_alloc(&a, sizes[i]);
        assert_non_null(pieces[i]);
        assert_int_equal((uintptr_t)pieces[i] % 16, 0);
        for (size_t k = 0; k < sizes[i]; k++) assert_int_equal(pieces[i][k], 0);
        memset(pieces[i], (int)(i % 255) + 1, sizes[i]);
        if (i > 0) assert_ptr_not_equal(pieces[i], pieces[i - 1]);
    }
    for (size_t i = 0; i < QN_COUNT(pieces); i++) { // no piece overlaps another
        for (size_t k = 0; k < sizes[i]; k++) assert_int_equal(pieces[i][k], i % 255 + 1);
    }
    assert_string_equal(qn_arena_strndup(&a, "hello world", 5), "hello");
    assert_string_equal(qn_arena_strndup(&a, NULL, 0), "");
    assert_null(qn_arena_array(&a, SIZE_MAX / 2, 3));
    assert_null(qn_arena_alloc(&a, SIZE_MAX));
    assert_null(qn_arena_alloc(&a, SIZE_MAX - 20));
    assert_null(qn_arena_strndup(&a, "x", SIZE_MAX));
    qn_arena_free(&a);
    assert_non_null(qn_arena_alloc(&a, 10)); // can be used again
    qn_arena_free(&a);
    qn_arena_free(&a);
}

static void test_arena_limit(void **state) {
    (void)state;
    qn_arena a;
    qn_arena_init(&a, 100000);
    size_t got = 0;
    while (qn_arena_alloc(&a, 1000)) {
        got += 1000;
        assert_true(got <= 100000);
    }
    assert_true(got >= 50000);
    assert_true(a.total <= 100000);
    assert_null(qn_arena_alloc(&a, 50000));
    qn_arena_free(&a);
    assert_null(qn_arena_alloc(&a, 100001)); // the limit stays
    assert_non_null(qn_arena_alloc(&a, 90000));
    qn_arena_free(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_allocation_fails),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_arena_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
