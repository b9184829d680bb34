// SPDX-License-Identifier: Apache-2.0
// The prefix cache and the cached blocks of a pool, without a scheduler.
#include "scheduler/prefix_cache.h"

#include "base/checked.h"
#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

enum { SIZE = 2 };

static qn_block_pool pools[2];
static qn_prefix_cache cache;
static uint64_t rng_state;

static uint32_t below(uint32_t n) {
    rng_state += 0x9e3779b97f4a7c15u;
    return (uint32_t)(qn_hash_u64(rng_state) % n);
}

static void open_cache(int32_t n_blocks, bool window, uint64_t hash_mask) {
    const qn_kv_group groups[2] = {{.kind = QN_KV_FULL}, {.kind = QN_KV_WINDOW, .window = 3}};
    int32_t n_groups = window ? 2 : 1;
    for (int32_t g = 0; g < n_groups; g++) assert_true(qn_block_pool_init(&pools[g], n_blocks));
    assert_true(
        qn_prefix_cache_init(&cache, pools, groups, n_groups, SIZE, 8, 42, hash_mask, true));
}

static int close_cache(void **state) {
    (void)state;
    qn_prefix_cache_free(&cache);
    for (int g = 0; g < 2; g++) qn_block_pool_free(&pools[g]);
    return 0;
}

static void check(void) {
    assert_true(qn_prefix_cache_check(&cache, -1));
    for (int32_t g = 0; g < cache.n_groups; g++) assert_true(qn_block_pool_check(&pools[g]));
}

static void cached_blocks_are_free_and_come_back(void **state) {
    (void)state;
    qn_block_pool *p = &pools[0];
    assert_true(qn_block_pool_init(p, 3));
    int32_t ids[3];
    for (int i = 0; i < 3; i++) {
        ids[i] = qn_block_pool_take(p);
        qn_block_pool_set_name(p, ids[i], i);
    }
    assert_int_equal(p->n_free, 0);
    const int order[] = {1, 2, 0};
    for (int i = 0; i < 3; i++) {
        assert_true(qn_block_pool_release(p, ids[order[i]]));
        assert_int_equal(p->n_free, i + 1);
        assert_true(qn_block_pool_check(p));
    }
    assert_int_equal(qn_block_pool_take(p), -1); // free, but none is clean
    assert_int_equal(p->oldest, ids[1]);
    assert_int_equal(p->newest, ids[0]);
    qn_block_pool_retain(p, ids[2]); // from the middle
    assert_int_equal(p->n_free, 2);
    assert_int_equal(p->blocks[ids[2]].refs, 1);
    assert_true(qn_block_pool_check(p));
    qn_block_pool_clear_name(p, ids[1]);
    assert_true(qn_block_pool_check(p));
    assert_int_equal(p->oldest, ids[0]);
    assert_int_equal(qn_block_pool_take(p), ids[1]);
    qn_block_pool_clear_name(p, ids[2]); // in use: it keeps its owner
    assert_true(qn_block_pool_release(p, ids[2]));
    assert_int_equal(p->n_clean, 1);
    assert_true(qn_block_pool_check(p));
    p->newest = ids[2];
    assert_false(qn_block_pool_check(p));
    p->newest = ids[0];
    p->blocks[ids[0]].older = ids[0];
    assert_false(qn_block_pool_check(p));
}

static void salts_are_kept_once(void **state) {
    (void)state;
    open_cache(4, false, 0);
    qn_prefix_salt *a, *b, *c, *none;
    assert_true(qn_prefix_salt_hold(&cache, "one", 3, &a));
    assert_true(qn_prefix_salt_hold(&cache, "one", 3, &b));
    assert_true(qn_prefix_salt_hold(&cache, "on\0", 3, &c));
    assert_true(qn_prefix_salt_hold(&cache, "", 0, &none));
    assert_ptr_equal(a, b);
    assert_ptr_not_equal(a, c);
    assert_null(none);
    assert_int_equal(cache.n_salts, 2);
    qn_prefix_salt_drop(&cache, a);
    qn_prefix_salt_drop(&cache, c);
    qn_prefix_salt_drop(&cache, NULL);
    assert_int_equal(cache.n_salts, 1);
    // A first node is an owner too, until it is evicted.
    int32_t block = qn_prefix_take_block(&cache, 0);
    const int32_t tokens[SIZE] = {1, 2};
    assert_true(qn_prefix_publish(&cache, -1, b, 0, tokens, &block) >= 0);
    qn_prefix_salt_drop(&cache, b);
    assert_int_equal(cache.n_salts, 1);
    check();
    qn_block_pool_release(&pools[0], block);
    for (int i = 0; i < 4; i++) assert_true(qn_prefix_take_block(&cache, 0) >= 0);
    assert_int_equal(cache.n_salts, 0);
    assert_int_equal(qn_prefix_take_block(&cache, 0), -1);
    check();
}

static void a_full_bucket_takes_no_more(void **state) {
    (void)state;
    open_cache(200, false, 1); // two buckets
    int32_t published = 0;
    for (int32_t i = 0; i < 200; i++) {
        int32_t block = qn_prefix_take_block(&cache, 0), tokens[SIZE] = {i, 0};
        bool done = qn_prefix_publish(&cache, -1, NULL, -1, tokens, &block) >= 0;
        published += done;
        assert_int_equal(pools[0].blocks[block].name >= 0, done);
        assert_int_equal(qn_prefix_find(&cache, -1, NULL, -1, tokens) >= 0, done);
    }
    assert_int_equal(published, 2 * QN_PREFIX_MAX_BUCKET);
    check();
}

static void a_window_block_goes_alone(void **state) {
    (void)state;
    open_cache(2, true, 0);
    int32_t tokens[SIZE] = {5, 6};
    int32_t blocks[2] = {qn_prefix_take_block(&cache, 0), qn_prefix_take_block(&cache, 1)};
    int32_t node = qn_prefix_publish(&cache, -1, NULL, -1, tokens, blocks);
    assert_true(node >= 0);
    for (int g = 0; g < 2; g++) qn_block_pool_release(&pools[g], blocks[g]);
    for (int i = 0; i < 2; i++) assert_true(qn_prefix_take_block(&cache, 1) >= 0);
    check();
    assert_int_equal(qn_prefix_find(&cache, -1, NULL, -1, tokens), node);
    assert_int_equal(cache.nodes[node].blocks[1], -1);
    // Somebody who has computed it again fills it in; the full group's block stays the old one.
    qn_block_pool_release(&pools[1], 0);
    int32_t again[2] = {qn_prefix_take_block(&cache, 0), qn_prefix_take_block(&cache, 1)};
    assert_int_equal(qn_prefix_publish(&cache, -1, NULL, -1, tokens, again), node);
    assert_int_equal(cache.nodes[node].blocks[0], blocks[0]);
    assert_int_equal(cache.nodes[node].blocks[1], again[1]);
    check();
    // With the full group's block the node goes; the block in use only loses its name.
    assert_true(qn_prefix_take_block(&cache, 0) >= 0);
    assert_int_equal(qn_prefix_find(&cache, -1, NULL, -1, tokens), -1);
    assert_int_equal(pools[1].blocks[again[1]].name, -1);
    assert_int_equal(pools[1].blocks[again[1]].refs, 1);
    check();
}

static void as_many_nodes_as_blocks_can_need(void **state) {
    (void)state;
    qn_kv_group groups[3] = {{.kind = QN_KV_WINDOW, .window = 3},
                             {.kind = QN_KV_WINDOW, .window = 3}};
    const int32_t n_blocks[3] = {5, 7, 6};
    qn_block_pool three[3];
    for (int g = 0; g < 3; g++) assert_true(qn_block_pool_init(&three[g], n_blocks[g]));
    // In windows alone a node may be there without a block.
    assert_true(qn_prefix_cache_init(&cache, three, groups, 2, SIZE, 8, 42, 0, true));
    assert_int_equal(cache.n_nodes, 2 * (5 + 7));
    qn_prefix_cache_free(&cache);
    groups[1].kind = groups[2].kind = QN_KV_FULL; // the one with the fewest blocks
    assert_true(qn_prefix_cache_init(&cache, three, groups, 3, SIZE, 8, 42, 0, true));
    assert_int_equal(cache.n_nodes, 6);
    qn_prefix_cache_free(&cache);
    assert_true(qn_prefix_cache_init(&cache, three, groups, 3, SIZE, 8, 42, 0, false));
    assert_int_equal(cache.n_nodes, 1);
    for (int g = 0; g < 3; g++) qn_block_pool_free(&three[g]);
}

// Paths of two kinds of tokens, up to four blocks long, against a plain list.
static void random_traffic(void **state) {
    (void)state;
    enum { N = 12, DEPTH = 4 };
    typedef struct entry {
        int32_t depth, path[DEPTH], adapter, block;
    } entry;
    for (uint64_t round = 0; round < 40; round++) {
        rng_state = round;
        open_cache(N, false, round % 2 ? 1 : 0);
        entry all[N];
        int32_t n = 0;
        for (int i = 0; i < 400; i++) {
            // A walk from the root publishes what is not there.
            int32_t depth = 1 + (int32_t)below(DEPTH), adapter = (int32_t)below(2) - 1;
            int32_t node = -1, held[DEPTH], n_held = 0;
            entry e = {.adapter = adapter};
            for (e.depth = 1; e.depth <= depth; e.depth++) {
                e.path[e.depth - 1] = (int32_t)below(3);
                const int32_t tokens[SIZE] = {e.path[e.depth - 1], 7};
                int32_t next = qn_prefix_find(&cache, node, NULL, adapter, tokens), listed = -1;
                for (int32_t k = 0; k < n; k++) {
                    if (all[k].depth == e.depth && all[k].adapter == adapter &&
                        memcmp(all[k].path, e.path, (size_t)e.depth * sizeof *e.path) == 0) {
                        listed = k;
                    }
                }
                assert_int_equal(next >= 0, listed >= 0);
                if (next >= 0) {
                    assert_int_equal(cache.nodes[next].blocks[0], all[listed].block);
                    held[n_held++] = all[listed].block;
                    qn_block_pool_retain(&pools[0], all[listed].block);
                    node = next;
                    continue;
                }
                int32_t oldest = pools[0].n_clean == 0 ? pools[0].oldest : -1;
                int32_t block = qn_prefix_take_block(&cache, 0);
                assert_true(block >= 0);
                // Gone: the oldest, which nobody held, and none that goes on in another.
                for (int32_t k = 0; k < n; k++) {
                    if (pools[0].blocks[all[k].block].name >= 0 && all[k].block != block) continue;
                    assert_int_equal(all[k].block, oldest);
                    oldest = -1;
                    for (int32_t o = 0; o < n; o++) {
                        assert_false(all[o].depth > all[k].depth &&
                                     all[o].adapter == all[k].adapter &&
                                     memcmp(all[o].path, all[k].path,
                                            (size_t)all[k].depth * sizeof *e.path) == 0);
                    }
                    all[k--] = all[--n];
                }
                assert_int_equal(oldest, -1);
                held[n_held++] = e.block = block;
                node = qn_prefix_publish(&cache, node, NULL, adapter, tokens, &block);
                assert_true(node >= 0);
                all[n++] = e;
                check();
            }
            while (n_held > 0) qn_block_pool_release(&pools[0], held[--n_held]);
            check();
            assert_int_equal(pools[0].n_free, N);
        }
        assert_true(cache.evictions > 0);
        close_cache(state);
    }
}

int main(void) {
#define TEST(name) cmocka_unit_test_teardown(name, close_cache)
    const struct CMUnitTest tests[] = {
        TEST(cached_blocks_are_free_and_come_back), TEST(salts_are_kept_once),
        TEST(a_full_bucket_takes_no_more),          TEST(a_window_block_goes_alone),
        TEST(as_many_nodes_as_blocks_can_need),     TEST(random_traffic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
