// SPDX-License-Identifier: Apache-2.0
// Block pool, id map and wait queue, each against a plain model of itself.
#include "base/hash.h"
#include "scheduler/block_pool.h"
#include "scheduler/id_map.h"
#include "scheduler/wait_queue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint64_t rng_state;
static uint32_t below(uint32_t n) {
    rng_state += 0x9e3779b97f4a7c15u;
    return (uint32_t)(qn_hash_u64(rng_state) % n);
}

static void pool_gives_each_block_once(void **state) {
    (void)state;
    qn_block_pool p;
    assert_true(qn_block_pool_init(&p, 5));
    bool seen[5] = {false};
    for (int i = 0; i < 5; i++) {
        int32_t id = qn_block_pool_take(&p);
        assert_in_range(id, 0, 4);
        assert_false(seen[id]);
        seen[id] = true;
        assert_int_equal(p.n_free, 4 - i);
        assert_true(qn_block_pool_check(&p));
    }
    assert_int_equal(qn_block_pool_take(&p), -1);
    assert_true(qn_block_pool_release(&p, 3));
    assert_int_equal(qn_block_pool_take(&p), 3);
    qn_block_pool_free(&p);
}

static void pool_counts_references(void **state) {
    (void)state;
    qn_block_pool p;
    assert_true(qn_block_pool_init(&p, 2));
    int32_t id = qn_block_pool_take(&p);
    qn_block_pool_retain(&p, id);
    assert_false(qn_block_pool_release(&p, id));
    assert_int_equal(p.n_free, 1);
    assert_true(qn_block_pool_release(&p, id));
    assert_int_equal(p.n_free, 2);
    // A block without owners: neither call brings it into the list twice, or back to life.
    assert_false(qn_block_pool_release(&p, id));
    qn_block_pool_retain(&p, id);
    assert_int_equal(p.n_free, 2);
    assert_true(qn_block_pool_check(&p));
    qn_block_pool_free(&p);
}

static void pool_check_sees_damage(void **state) {
    (void)state;
    qn_block_pool p;
    assert_true(qn_block_pool_init(&p, 4));
    qn_block_pool_take(&p);
    p.free_ids[0] = p.free_ids[1]; // one id twice
    assert_false(qn_block_pool_check(&p));
    p.free_ids[0] = 7;
    assert_false(qn_block_pool_check(&p));
    p.free_ids[0] = 3;
    assert_true(qn_block_pool_check(&p));
    p.n_free--; // one lost
    assert_false(qn_block_pool_check(&p));
    p.n_free++;
    p.n_free = -1;
    assert_false(qn_block_pool_check(&p));
    p.n_free = 5;
    assert_false(qn_block_pool_check(&p));
    p.n_free = 3;
    p.blocks[0].refs = -1;
    assert_false(qn_block_pool_check(&p));
    qn_block_pool_free(&p);
}

static void pool_random_traffic(void **state) {
    (void)state;
    enum { N = 37 };
    qn_block_pool p;
    assert_true(qn_block_pool_init(&p, N));
    int32_t refs[N] = {0}, used = 0;
    rng_state = 11;
    for (int i = 0; i < 20000; i++) {
        int32_t id = (int32_t)below(N);
        switch (below(3)) {
        case 0:
            id = qn_block_pool_take(&p);
            assert_true((id == -1) == (used == N));
            if (id < 0) break;
            assert_int_equal(refs[id], 0);
            refs[id] = 1;
            used++;
            break;
        case 1:
            qn_block_pool_retain(&p, id);
            if (refs[id] > 0) refs[id]++;
            break;
        default:
            assert_int_equal(qn_block_pool_release(&p, id), refs[id] == 1);
            if (refs[id] == 1) used--;
            if (refs[id] > 0) refs[id]--;
        }
        assert_int_equal(p.n_free, N - used);
        assert_true(qn_block_pool_check(&p));
    }
    qn_block_pool_free(&p);
}

static void id_map_random_traffic(void **state) {
    (void)state;
    enum { N = 40 };
    qn_id_map m;
    assert_true(qn_id_map_init(&m, N));
    uint64_t ids[N] = {0};
    rng_state = 5;
    for (int i = 0; i < 40000; i++) {
        uint32_t at = below(N);
        if (ids[at] == 0) {
            ids[at] = 1 + (uint64_t)i;
            qn_id_map_put(&m, ids[at], (int32_t)at);
        } else {
            assert_true(qn_id_map_remove(&m, ids[at]));
            assert_false(qn_id_map_remove(&m, ids[at]));
            ids[at] = 0;
        }
        int32_t count = 0;
        for (int32_t k = 0; k < N; k++) {
            if (ids[k]) assert_int_equal(qn_id_map_get(&m, ids[k]), k);
            count += ids[k] != 0;
        }
        assert_int_equal(m.count, count);
        assert_int_equal(qn_id_map_get(&m, 1 + (uint64_t)i + N), -1);
    }
    assert_int_equal(qn_id_map_get(&m, 0), -1);
    assert_false(qn_id_map_remove(&m, 0));
    qn_id_map_free(&m);
}

static void queue_keeps_its_order(void **state) {
    (void)state;
    enum { N = 50 };
    qn_wait_queue q;
    assert_true(qn_wait_queue_init(&q, N));
    qn_wait_entry model[N];
    int32_t n = 0;
    uint64_t arrival = 0;
    rng_state = 3;
    for (int i = 0; i < 40000; i++) {
        // Mostly arrivals at the end and departures at the front, as in a server.
        if (n < N && below(100) < 52) {
            bool arriving = below(4) != 0;
            qn_wait_entry e = {arriving ? 0 : (int32_t)below(3) - 1,
                               arriving ? 1 : (int32_t)below(2), arrival++, (int32_t)below(1000)};
            int32_t at = n;
            while (at > 0 && qn_wait_compare(&e, &model[at - 1]) < 0) at--;
            memmove(&model[at + 1], &model[at], (size_t)(n - at) * sizeof e);
            model[at] = e;
            n++;
            qn_wait_queue_insert(&q, e);
        } else if (n > 0) {
            int32_t at = below(3) ? 0 : (int32_t)below((uint32_t)n);
            qn_wait_entry e = model[at];
            memmove(&model[at], &model[at + 1], (size_t)(n - at - 1) * sizeof e);
            n--;
            assert_true(qn_wait_queue_remove(&q, e));
            assert_false(qn_wait_queue_remove(&q, e));
        }
        assert_int_equal(q.count, n);
        for (int32_t k = 0; k < n; k++) {
            assert_int_equal(qn_wait_queue_at(&q, k)->arrival, model[k].arrival);
            assert_int_equal(qn_wait_queue_at(&q, k)->seq, model[k].seq);
        }
        assert_true(q.start >= 0 && q.start + q.count <= 2 * N);
    }
    qn_wait_queue_free(&q);
}

static void queue_order_is_priority_preempted_arrival(void **state) {
    (void)state;
    const qn_wait_entry sorted[] = {
        {-2, 1, 9, 0}, {0, 0, 5, 0}, {0, 0, 7, 0}, {0, 1, 1, 0}, {0, 1, 2, 0}, {1, 0, 0, 0}};
    for (int i = 0; i < 6; i++) {
        for (int k = 0; k < 6; k++) {
            int c = qn_wait_compare(&sorted[i], &sorted[k]);
            assert_int_equal((c > 0) - (c < 0), (i > k) - (i < k));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pool_gives_each_block_once),
        cmocka_unit_test(pool_counts_references),
        cmocka_unit_test(pool_check_sees_damage),
        cmocka_unit_test(pool_random_traffic),
        cmocka_unit_test(id_map_random_traffic),
        cmocka_unit_test(queue_keeps_its_order),
        cmocka_unit_test(queue_order_is_priority_preempted_arrival),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
