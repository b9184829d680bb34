// SPDX-License-Identifier: Apache-2.0
// Blocks that sequences share: through the prefix cache, and forks.
#include "tests/scheduler/fixtures.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static qn_sched_config cached(void) {
    qn_sched_config c = small_config();
    c.enable_prefix_caching = true;
    return c;
}
static void add_salted(uint64_t id, int32_t n_prompt, const char *salt) {
    assert_int_equal(add_request((qn_sched_request){.id = id, .n_prompt = n_prompt, .max_tokens = 2,
                                                    .cache_salt = salt,
                                                    .cache_salt_len = salt ? strlen(salt) : 0}),
                     QN_OK);
    check_all();
}

static void a_prompt_is_found_again(void **state) {
    (void)state;
    open_with(cached());
    add(1, 12, 3);
    run_to_the_end();
    assert_int_equal(stats().prefix_queries, 12);
    assert_int_equal(stats().prefix_hits, 0);
    // 12 tokens of prompt and two of output have KV: three full blocks.
    assert_int_equal(stats().blocks_cached[0], 3);
    // Cached to its end: the last block is computed again, into another block.
    add(2, 12, 3);
    assert_true(plan(0));
    assert_rows(0, 0, 2, 8, 4, 1);
    assert_int_equal(info(2).n_cached, 8);
    assert_int_equal(stats().prefix_hits, 8);
    assert_int_equal(stats().blocks_used[0], 3);
    commit(0, 7);
    run_to_the_end();
    // A token more: all three.
    add(3, 13, 3);
    assert_true(plan(0));
    assert_rows(0, 0, 3, 12, 1, 1);
    commit(0, 7);
    run_to_the_end();
    assert_int_equal(stats().prefix_queries, 37);
    assert_int_equal(stats().prefix_hits, 20);
    assert_int_equal(stats().prompt_tokens, 37 - 20);
}

static void outputs_are_found_by_the_next_turn(void **state) {
    (void)state;
    open_with(cached());
    add(1, 6, 7); // 12 tokens have KV: 6 of the prompt, 6 sevens
    run_to_the_end();
    int32_t turn[16];
    for (int i = 0; i < 16; i++) turn[i] = i < 6 ? tokens[i] : 7;
    assert_int_equal(add_request((qn_sched_request){.id = 2, .prompt = turn, .n_prompt = 16,
                                                    .max_tokens = 1}),
                     QN_OK);
    assert_true(plan(0));
    assert_rows(0, 0, 2, 12, 4, 1);
    commit(0, 7);
}

static void tenants_and_adapters_do_not_share(void **state) {
    (void)state;
    open_with(cached());
    const char *salts[] = {"a", "b", "ab", NULL};
    for (uint64_t i = 0; i < 4; i++) {
        add_salted(i + 1, 10, salts[i]);
        run_to_the_end();
    }
    assert_int_equal(stats().prefix_hits, 0);
    assert_int_equal(add_request((qn_sched_request){.id = 8, .n_prompt = 10, .max_tokens = 2,
                                                    .adapter = 3}), QN_OK);
    run_to_the_end();
    assert_int_equal(stats().prefix_hits, 0);
    for (uint64_t i = 0; i < 4; i++) {
        add_salted(i + 11, 10, salts[i]);
        run_to_the_end();
        assert_int_equal(stats().prefix_hits, 8 * (i + 1));
    }
    char longest[QN_SCHED_MAX_SALT + 1];
    memset(longest, 's', sizeof longest);
    qn_sched_request r = {.id = 20, .n_prompt = 4, .max_tokens = 1, .cache_salt = longest,
                          .cache_salt_len = QN_SCHED_MAX_SALT};
    assert_int_equal(add_request(r), QN_OK);
    r.id = 21;
    r.cache_salt_len++;
    assert_int_equal(add_request(r), QN_ERR_LIMIT);
    r.cache_salt_len = 1;
    r.cache_salt = NULL;
    assert_int_equal(add_request(r), QN_ERR_INVALID);
}

static void who_does_not_want_cached_rows_computes_all(void **state) {
    (void)state;
    open_with(cached());
    add(1, 12, 3);
    run_to_the_end();
    assert_int_equal(add_request((qn_sched_request){.id = 2, .n_prompt = 12, .max_tokens = 3,
                                                    .skip_cache_read = true}), QN_OK);
    assert_true(plan(0));
    assert_rows(0, 0, 2, 0, 12, 1);
    assert_int_equal(stats().prefix_queries, 12);
    commit(0, 7);
    run_to_the_end();
}

static void the_oldest_tail_is_evicted_first(void **state) {
    (void)state;
    qn_sched_config c = cached();
    c.n_blocks[0] = 6;
    open_with(c);
    add(1, 12, 1);
    run_to_the_end(); // three blocks
    int32_t other[16] = {90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 90, 91, 92, 93, 94, 95};
    assert_int_equal(add_request((qn_sched_request){.id = 2, .prompt = other, .n_prompt = 15,
                                                    .max_tokens = 1}), QN_OK);
    run_to_the_end(); // four, so the first one's last is gone
    assert_int_equal(stats().prefix_evictions, 1);
    add(3, 13, 1);
    assert_true(plan(0));
    assert_int_equal(seq(0, 0)->position, 8);
    commit(0, 7);
    run_to_the_end();
}

static void a_step_that_failed_publishes_nothing(void **state) {
    (void)state;
    open_with(cached());
    add(1, 20, 3);
    assert_true(plan(0)); // 16 rows
    qn_sched_commit_failed(sched, plans[0], now);
    check_all();
    take();
    assert_int_equal(stats().blocks_cached[0], 0);
    add(2, 8, 3);
    assert_true(plan(0));
    rows[0] = (qn_sched_row){0, false};
    qn_sched_commit(sched, plans[0], rows, now);
    check_all();
    take();
    assert_int_equal(stats().blocks_cached[0], 0);
}

static void a_fork_shares_the_prompt(void **state) {
    (void)state;
    open_with(small_config());
    add(1, 11, 4);
    qn_sched_request r = {.id = 2, .n_prompt = 11, .max_tokens = 4, .fork_of = 1, .priority = 5};
    assert_int_equal(add_request(r), QN_OK);
    r.id = 3;
    r.cache_salt = "x";
    r.cache_salt_len = 1;
    assert_int_equal(add_request(r), QN_ERR_INVALID);
    r.cache_salt_len = 0;
    r.adapter = 2;
    assert_int_equal(add_request(r), QN_ERR_INVALID);
    r.adapter = -1;
    r.prompt = tokens + 1;
    assert_int_equal(add_request(r), QN_ERR_INVALID);
    r.prompt = tokens;
    r.n_prompt = 10;
    assert_int_equal(add_request(r), QN_ERR_INVALID);
    check_all();
    r.fork_of = 99; // nobody: like any other
    assert_int_equal(add_request(r), QN_OK);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 2); // the fork waits, and holds up nobody
    assert_rows(0, 0, 1, 0, 11, 1);
    commit(0, 7);
    assert_true(plan(1));
    assert_int_equal(plans[1]->n_copies, 1);
    // Positions 8 and 9 are copied, 10 is computed again.
    assert_rows(1, 2, 2, 10, 1, 1);
    const int32_t *a = qn_plan_blocks(plans[1]) + seq(1, 0)->block_start[0];
    const int32_t *b = qn_plan_blocks(plans[1]) + seq(1, 2)->block_start[0];
    const qn_plan_copy *copy = qn_plan_copies(plans[1]);
    assert_int_equal(a[0], b[0]);
    assert_int_equal(a[1], b[1]);
    assert_int_not_equal(a[2], b[2]);
    assert_int_equal(copy->src, a[2]);
    assert_int_equal(copy->dst, b[2]);
    assert_int_equal(stats().forks, 1);
    assert_int_equal(info(2).n_cached, 10);
    assert_int_equal(stats().prefix_queries, 0); // not the cache's doing
    assert_true(plan(2)); // ahead of the copy's results
    assert_int_equal(plans[2]->n_copies, 0);
    // The parent goes while the copy is under way: its block stays until that has retired.
    assert_true(qn_sched_abort(sched, 1));
    check_all();
    commit(1, 7);
    commit(2, 7);
    run_to_the_end();
}

static void a_fork_whose_parent_is_gone_is_computed(void **state) {
    (void)state;
    open_with(small_config());
    add(1, 11, 1);
    assert_int_equal(add_request((qn_sched_request){.id = 2, .n_prompt = 11, .max_tokens = 4,
                                                    .fork_of = 1}), QN_OK);
    assert_true(plan(0));
    commit(0, 7); // its only token
    assert_true(plan(0));
    assert_rows(0, 0, 2, 0, 11, 1);
    commit(0, 7);
    run_to_the_end();
}

// After a preemption admissions look ahead: what is shared counts once.
static void the_forecast_knows_of_shared_blocks(void **state) {
    (void)state;
    qn_sched_config c = cached();
    c.overcommit_percent = 0;
    c.max_rows = 64;
    c.n_blocks[0] = 16;
    open_with(c);
    for (uint64_t id = 1; id <= 4; id++) add(id, 4, 28);
    run_to_the_end();
    assert_true(stats().preemptions > 0);
    add(5, 33, 5); // ten blocks in the end
    assert_true(plan(0));
    commit(0, 7);
    add(6, 33, 5); // eight of those, and two
    add(7, 33, 5);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 3);
    assert_rows(0, 1, 6, 32, 1, 1);
    assert_rows(0, 2, 7, 32, 1, 1);
    commit(0, 7);
    // Eleven are in use. With two for this one, and one more for each, there would be one too few.
    int32_t other[7] = {99};
    assert_int_equal(add_request((qn_sched_request){.id = 8, .prompt = other, .n_prompt = 7,
                                                    .max_tokens = 20}), QN_OK);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 3);
    commit(0, 7);
    run_to_the_end();
}

static void what_is_shared_makes_a_prompt_short(void **state) {
    (void)state;
    qn_sched_config c = cached();
    c.max_rows = 64;
    c.max_decode_slowdown = 2;
    c.short_prompt_seconds = 5;
    open_with(c);
    add(1, 40, 1);
    run_to_the_end();
    add(2, 1, 40);
    assert_true(plan(0));
    commit(0, 5);
    qn_sched_set_step_time(sched, &(qn_step_time_model){.per_row = 1});
    add(3, 36, 5); // 32 are there; a long prompt would get one second, as the stream does
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 2);
    assert_rows(0, 1, 3, 32, 4, 1);
    commit(0, 5);
    add(4, 13, 5); // 12 are there, and the others' rows cost the time of one
    int32_t other[8] = {99};
    assert_int_equal(add_request((qn_sched_request){.id = 5, .prompt = other, .n_prompt = 8,
                                                    .max_tokens = 5}), QN_OK);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 4);
    assert_rows(0, 2, 4, 12, 1, 1);
    assert_rows(0, 3, 5, 0, 1, 0);
}

static void a_window_needs_only_its_last_blocks(void **state) {
    (void)state;
    qn_sched_config c = cached();
    c.n_groups = 2;
    c.groups[1] = (qn_kv_group){.kind = QN_KV_WINDOW, .window = 5};
    c.n_blocks[1] = 4;
    open_with(c);
    add(1, 9, 2); // it lets the first block go, then the second
    run_to_the_end();
    assert_int_equal(stats().blocks_cached[1], 2);
    int32_t other[9] = {99};
    assert_int_equal(add_request((qn_sched_request){.id = 2, .prompt = other, .n_prompt = 9,
                                                    .max_tokens = 1}), QN_OK);
    run_to_the_end(); // the window group's block of the first four tokens is gone
    assert_int_equal(stats().prefix_evictions, 1);
    add(3, 9, 1); // the row at 8 sees 4..8
    assert_true(plan(0));
    assert_rows(0, 0, 3, 8, 1, 1);
    assert_int_equal(qn_plan_blocks(plans[0])[seq(0, 0)->block_start[1]], -1);
    commit(0, 7);
    run_to_the_end();
}

// A window gives shared blocks back to those who share them. Who must not be preempted again needs
// its own.
static void the_last_time_nothing_is_shared_in_a_window(void **state) {
    (void)state;
    for (int round = 0; round < 3; round++) { // one window, four, four groups that keep all
        qn_sched_config c = cached();
        c.n_groups = round > 0 ? QN_MAX_KV_GROUPS : 1;
        for (int32_t g = 0; g < c.n_groups; g++) {
            c.groups[g] = (qn_kv_group){.kind = QN_KV_WINDOW, .window = 40};
            if (round == 2) c.groups[g].kind = QN_KV_FULL;
            c.n_blocks[g] = 11;
        }
        c.max_len = 200;
        c.max_waiting = 60;
        open_with(c);
        assert_int_equal(add_request((qn_sched_request){.id = 1, .n_prompt = 4, .max_tokens = 30,
                                                        .priority = 1}), QN_OK);
        int32_t begun[5] = {-1, -1, -1, -1, -1}, other[4];
        uint64_t id = 2;
        for (int i = 0; i < 2000; i++) {
            for (int k = 0; k < 4; k++) other[k] = 1000 + (int32_t)id;
            if (id < 60 && stats().waiting == 0) {
                qn_sched_request r = {.id = id++, .prompt = other, .n_prompt = 1, .max_tokens = 10};
                assert_int_equal(add_request(r), QN_OK);
            }
            if (!plan(0)) continue;
            qn_sched_seq_info x = {.slot = -1};
            qn_sched_seq(sched, 1, &x);
            for (int32_t k = 0; k < plans[0]->n_seqs && x.slot >= 0; k++) {
                if (seq(0, k)->slot == x.slot && begun[x.preemptions] < 0) {
                    begun[x.preemptions] = seq(0, k)->position;
                }
            }
            commit(0, 5);
        }
        assert_int_equal(begun[0], 0);
        assert_int_equal(begun[4] > 0, round == 2);
        assert_true(begun[1] > 0 && begun[2] > 0 && begun[3] > 0);
        close_it(state);
    }
}

// A row behind a long cached prompt sees many keys: there may be no time for it, though there was
// for the prompt's first row.
static void no_time_behind_a_cached_prompt(void **state) {
    (void)state;
    qn_sched_config c = cached();
    c.max_rows = 64;
    c.max_step_seconds = 20;
    open_with(c);
    add(1, 41, 1);
    run_to_the_end();
    qn_sched_set_step_time(sched, &(qn_step_time_model){.per_key = 1});
    int32_t other[4] = {99};
    assert_int_equal(add_request((qn_sched_request){.id = 2, .prompt = other, .n_prompt = 4,
                                                    .max_tokens = 1}), QN_OK); // ten keys
    add(3, 41, 5);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 1);
    assert_int_equal(info(3).slot, -1);
    commit(0, 7);
    assert_true(plan(0));
    assert_rows(0, 0, 3, 40, 1, 1);
}

static void the_forecast_knows_of_blocks_that_were_found(void **state) {
    (void)state;
    qn_sched_config c = cached();
    c.overcommit_percent = 0;
    c.max_rows = 64;
    c.n_blocks[0] = 16;
    open_with(c);
    for (uint64_t id = 1; id <= 4; id++) add(id, 4, 28);
    run_to_the_end();
    assert_true(stats().preemptions > 0);
    add(5, 33, 1);
    run_to_the_end();
    add(6, 33, 5); // eight blocks that it found, one of its own, one more in the end
    assert_true(plan(0));
    assert_rows(0, 0, 6, 32, 1, 1);
    commit(0, 7);
    int32_t other[4] = {99}; // seven blocks in the end: fifteen with the eight
    assert_int_equal(add_request((qn_sched_request){.id = 7, .prompt = other, .n_prompt = 4,
                                                    .max_tokens = 24}), QN_OK);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 2);
}

// Two are admitted in one step, or one: what the first finds is in use then.
static void the_forecast_adds_up_what_is_found(void **state) {
    for (int32_t longer = 0; longer < 2; longer++) {
        qn_sched_config c = cached();
        c.overcommit_percent = 0;
        c.max_rows = 64;
        c.n_blocks[0] = 16;
        open_with(c);
        for (uint64_t id = 1; id <= 4; id++) add(id, 4, 28);
        run_to_the_end();
        assert_true(stats().preemptions > 0);
        add(5, 33, 1);
        run_to_the_end();
        int32_t other[4] = {99};
        qn_sched_request r = {.id = 6, .prompt = other, .n_prompt = 2, .max_tokens = 8};
        assert_int_equal(add_request(r), QN_OK);
        assert_true(plan(0));
        commit(0, 7);
        add(7, 33, 5); // finds eight
        r = (qn_sched_request){.id = 8, .prompt = other, .n_prompt = 4,
                               .max_tokens = longer ? 32 : 24}; // nine blocks or seven
        assert_int_equal(add_request(r), QN_OK);
        assert_true(plan(0));
        assert_int_equal(plans[0]->n_seqs, longer ? 2 : 3);
        close_it(state);
    }
}

// One block of tokens that nobody else has.
static void add_other(uint64_t id) {
    int32_t other[4];
    for (int k = 0; k < 4; k++) other[k] = 1000 + (int32_t)id;
    assert_int_equal(add_request((qn_sched_request){.id = id, .prompt = other, .n_prompt = 4,
                                                    .max_tokens = 1}), QN_OK);
}

// Two compute the same at the same time. The first one's blocks get the names, and are evicted
// before the second has ended: then its own get them. Once, so that the work stays bounded.
static void names_pass_to_who_is_left(void **state) {
    (void)state;
    for (int evicted = 0; evicted < 4; evicted++) {
        qn_sched_config c = cached();
        c.n_blocks[0] = 20;
        c.long_prefill_threshold = 4;
        open_with(c);
        add(1, 12, 1);
        add(2, 56, 6); // 61 positions: sixteen blocks, of which fifteen are full
        for (int i = 0; i < 3; i++) {
            assert_true(plan(0));
            assert_int_equal(plans[0]->n_seqs, 2);
            commit(0, 7);
        }
        // Fourteen blocks are clean, the second needs thirteen. For the last two of those, which
        // hold outputs, it evicts nothing or blocks of the first one, and sees that when it ends;
        // or also for the last of its prompt, and sees it twice.
        assert_int_equal(stats().blocks_cached[0], 3);
        for (int i = 0; i <= evicted; i++) add_other(10 + (uint64_t)i);
        run_to_the_end();
        assert_int_equal(stats().prefix_evictions, evicted);
        add(3, 60, 1);
        assert_true(plan(0));
        assert_int_equal(seq(0, 0)->position, evicted < 3 ? 56 : 0);
        commit(0, 7);
        close_it(state);
    }
}

static void copies_do_not_overflow_a_smaller_plan(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.n_groups = 2;
    c.n_blocks[1] = 64;
    open_with(c);
    add(1, 11, 4);
    for (uint64_t id = 2; id <= 4; id++) {
        assert_int_equal(add_request((qn_sched_request){.id = id, .n_prompt = 11, .max_tokens = 4,
                                                        .fork_of = 1}), QN_OK);
    }
    assert_true(plan(0));
    commit(0, 7);
    free(plans[1]);
    plans[1] = qn_step_plan_create(4, 16, 64, 2, 2); // copies of one sequence in two groups
    assert_non_null(plans[1]);
    assert_true(plan(1));
    assert_int_equal(plans[1]->n_seqs, 2);
    assert_int_equal(plans[1]->n_copies, 2);
    assert_true(info(3).slot >= 0); // it holds what it is to be a copy of
    assert_true(qn_sched_abort(sched, 3));
    check_all();
    commit(1, 7);
    assert_true(plan(1));
    assert_int_equal(plans[1]->n_seqs, 3);
    assert_int_equal(plans[1]->n_copies, 2);
    commit(1, 7);
    run_to_the_end();
}

static void a_fork_of_one_token_shares_nothing(void **state) {
    (void)state;
    open_with(small_config());
    add(1, 1, 4);
    assert_int_equal(add_request((qn_sched_request){.id = 2, .n_prompt = 1, .max_tokens = 4,
                                                    .fork_of = 1}), QN_OK);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 2);
    assert_int_equal(stats().forks, 0);
}

// Who did not fit with what it found is looked up again some steps later.
static void look_ups_pause(void **state) {
    (void)state;
    qn_sched_config c = cached();
    c.n_blocks[0] = 16;
    c.long_prefill_threshold = 4;
    open_with(c);
    add(1, 40, 9);
    add(2, 40, 9); // eleven blocks, of which four are there: it fits when seven are shared
    for (int i = 0; i < 9; i++) {
        assert_true(plan(0));
        assert_int_equal(plans[0]->n_seqs, 1);
        commit(0, 7);
    }
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 2);
    assert_rows(0, 1, 2, 36, 4, 1);
}

// A prompt shares blocks that its window passes while another request holds them: they do not come
// back to it, and here there are no others.
static void a_prompt_behind_shared_window_blocks_takes_them(void **state) {
    (void)state;
    qn_sched_config c = cached();
    c.groups[0] = (qn_kv_group){.kind = QN_KV_WINDOW, .window = 6}; // 5 positions before a row
    c.n_blocks[0] = 4;
    open_with(c);
    qn_sched_request r = {.id = 1, .n_prompt = 8, .max_tokens = 20, .priority = 5};
    assert_int_equal(add_request(r), QN_OK);
    assert_true(plan(0));
    commit(0, 7);
    r = (qn_sched_request){.id = 2, .n_prompt = 24, .max_tokens = 20};
    assert_int_equal(add_request(r), QN_OK);
    // A plan with room for two table entries: the first one's third block has to wait, and the
    // second, which comes before it, is admitted to the first two and promised the others.
    free(plans[1]);
    plans[1] = qn_step_plan_create(4, 16, 2, 0, 1);
    assert_non_null(plans[1]);
    assert_false(plan(1));
    assert_int_equal(info(2).n_cached, 8);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 1);
    assert_rows(0, 0, 2, 8, 8, 0);
    commit(0, 7);
    // Its window has left the shared blocks, which the first still has; all four are in use.
    assert_int_equal(stats().blocks_used[0], 4);
    assert_true(plan(0));
    assert_rows(0, 0, 2, 16, 8, 1);
    assert_int_equal(info(1).preemptions, 1);
    assert_int_equal(info(2).preemptions, 0);
    commit(0, 7);
    run_to_the_end();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_prompt_is_found_again),
        TEST(outputs_are_found_by_the_next_turn),
        TEST(tenants_and_adapters_do_not_share),
        TEST(who_does_not_want_cached_rows_computes_all),
        TEST(the_oldest_tail_is_evicted_first),
        TEST(a_step_that_failed_publishes_nothing),
        TEST(a_fork_shares_the_prompt),
        TEST(a_fork_whose_parent_is_gone_is_computed),
        TEST(the_forecast_knows_of_shared_blocks),
        TEST(what_is_shared_makes_a_prompt_short),
        TEST(a_window_needs_only_its_last_blocks),
        TEST(the_last_time_nothing_is_shared_in_a_window),
        TEST(no_time_behind_a_cached_prompt),
        TEST(the_forecast_knows_of_blocks_that_were_found),
        TEST(the_forecast_adds_up_what_is_found),
        TEST(names_pass_to_who_is_left),
        TEST(copies_do_not_overflow_a_smaller_plan),
        TEST(a_fork_of_one_token_shares_nothing),
        TEST(look_ups_pause),
        TEST(a_prompt_behind_shared_window_blocks_takes_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
