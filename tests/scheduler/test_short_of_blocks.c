// SPDX-License-Identifier: Apache-2.0
// When blocks are short: preemption, waiting, overtaking, windows.
#include "tests/scheduler/fixtures.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void the_last_to_come_is_preempted(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.n_blocks[0] = 7; // no watermark below eight
    open_with(c);
    add(1, 4, 40);
    add(2, 4, 40);
    add(3, 4, 40);
    for (int i = 0; i < 5; i++) { // to nine tokens each
        assert_true(plan(0));
        assert_int_equal(plans[0]->n_seqs, 3);
        commit(0, 10 + i);
    }
    // Each has filled two blocks and needs a third; one is free.
    assert_int_equal(stats().blocks_used[0], 6);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 2);
    assert_rows(0, 0, 1, 8, 1, 1);
    assert_rows(0, 1, 2, 8, 1, 1);
    assert_int_equal(info(3).slot, -1);
    assert_int_equal(info(3).preemptions, 1);
    assert_int_equal(info(3).n_output, 5);
    assert_int_equal(stats().preemptions, 1);
    assert_int_equal(stats().waiting, 1);
    commit(0, 20);
    add(4, 1, 1);
    // It comes back before those that arrived later, with its outputs as prompt, and goes on.
    assert_true(qn_sched_abort(sched, 1));
    assert_true(plan(0));
    assert_rows(0, 0, 2, 9, 1, 1);
    assert_rows(0, 1, 3, 0, 9, 1);
    const int32_t again[] = {1, 2, 3, 4, 10, 11, 12, 13, 14};
    assert_memory_equal(qn_plan_tokens(plans[0]) + 1, again, sizeof again);
    commit(0, 21);
    assert_finished(0, 1, QN_FINISH_ABORT, -1);
    assert_token(1, 2, 21, 0);
    assert_token(2, 3, 21, 1);
    assert_int_equal(info(3).n_output, 6);
    assert_int_equal(stats().prompt_tokens, 13); // none twice
}

static void priority_decides_who_is_preempted(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.n_blocks[0] = 4;
    open_with(c);
    assert_int_equal(add_request((qn_sched_request){.id = 1, .n_prompt = 4, .max_tokens = 12,
                                                    .priority = 5}), QN_OK);
    assert_int_equal(add_request((qn_sched_request){.id = 2, .n_prompt = 4, .max_tokens = 12,
                                                    .priority = -5}), QN_OK);
    while (stats().preemptions == 0) {
        assert_true(plan(0));
        assert_rows(0, 0, 2, seq(0, 0)->position, seq(0, 0)->query_len, 1);
        commit(0, 5);
    }
    assert_int_equal(info(1).preemptions, 1);
    assert_int_equal(info(2).preemptions, 0);
}

static void preempted_while_in_a_step(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.n_blocks[0] = 2;
    open_with(c);
    add(1, 3, 6);
    add(2, 3, 6);
    assert_true(plan(0)); // both prompts
    assert_true(plan(1)); // position 3 of both
    commit(0, 30);
    // Position 4 of both needs a block. The first takes the second's, once the step is done with
    // it.
    assert_false(plan(0));
    assert_int_equal(info(2).preemptions, 1);
    assert_int_equal(stats().blocks_used[0], 2);
    commit(1, 31); // the result that was under way is kept
    assert_token(1, 2, 31, 1);
    assert_int_equal(info(2).n_output, 2);
    assert_int_equal(info(2).slot, -1);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 1);
    assert_rows(0, 0, 1, 4, 1, 1);
    // The second needs both blocks to come back (five tokens and one more): it waits for the first.
    for (int i = 0; i < 3; i++) {
        commit(0, 40 + i);
        assert_true(plan(0));
        assert_rows(0, 0, 1, 5 + i, 1, 1);
    }
    commit(0, 50);
    assert_finished(1, 1, QN_FINISH_LENGTH, -1);
    assert_true(plan(0));
    assert_rows(0, 0, 2, 0, 5, 1);
    const int32_t again[] = {1, 2, 3, 30, 31};
    assert_memory_equal(qn_plan_tokens(plans[0]), again, sizeof again);
}

static void blocks_on_their_way_back_are_waited_for(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.n_blocks[0] = 3;
    open_with(c);
    add(1, 3, 8);
    add(2, 1, 2);
    add(3, 1, 8);
    assert_true(plan(0));
    assert_true(plan(1)); // the last token of the second
    commit(0, 30);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 1);
    assert_rows(0, 0, 3, 2, 1, 1);
    commit(1, 31);
    assert_true(plan(1));
    assert_rows(1, 0, 1, 4, 1, 1);
    assert_int_equal(stats().preemptions, 0);
}

static void no_more_are_preempted_than_needed(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.n_blocks[0] = 4;
    open_with(c);
    for (uint64_t id = 1; id <= 4; id++) add(id, id == 1 ? 3 : 1, 12);
    assert_true(plan(0));
    assert_true(plan(1));
    commit(0, 30);
    assert_true(plan(0)); // the first needs a block, the others' blocks are in the step under way
    assert_int_equal(plans[0]->n_seqs, 2);
    assert_int_equal(stats().preemptions, 1);
    assert_int_equal(info(4).preemptions, 1);
    assert_rows(0, 0, 2, 2, 1, 1);
    assert_int_equal(info(3).preemptions, 0);
    commit(1, 31);
    assert_int_equal(info(4).slot, -1);
    assert_true(plan(1));
    assert_rows(1, 0, 1, 4, 1, 1);
    assert_int_equal(stats().preemptions, 1);
}

static void after_four_preemptions_never_again(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.max_len = 200;
    c.n_blocks[0] = 6;
    c.max_waiting = 60;
    open_with(c);
    // A long one with low priority, and short ones that press it out, again and again.
    assert_int_equal(add_request((qn_sched_request){.id = 1, .n_prompt = 4, .max_tokens = 20,
                                                    .priority = 1}), QN_OK);
    bool finished = false;
    uint64_t id = 2;
    int32_t most = 0;
    for (int i = 0; i < 2000 && !finished; i++) {
        if (id < 60 && stats().waiting == 0) add(id++, 1, 15);
        if (!plan(0)) continue;
        commit(0, 5);
        for (size_t e = 0; e < n_events; e++) {
            if (events[e].kind == QN_SCHED_FINISHED && events[e].id == 1) finished = true;
        }
        int32_t n = info(1).preemptions;
        if (n > most) most = n;
    }
    assert_true(finished);
    assert_int_equal(most, 4);
}

static void a_big_waiter_is_overtaken_but_not_for_ever(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.n_blocks[0] = 7;
    c.max_waiting = 100;
    open_with(c);
    add(1, 4, 20); // holds blocks for twenty steps
    assert_true(plan(0));
    commit(0, 5);
    add(2, 26, 1); // needs all seven
    int overtaken = 0;
    bool served = false;
    uint64_t id = 3;
    for (int i = 0; i < 400 && !served; i++) {
        add(id++, 1, 1);
        if (stats().waiting < 4) add(id++, 4, 12);
        if (!plan(0)) continue;
        for (int32_t k = 0; k < plans[0]->n_seqs; k++) {
            uint64_t who = qn_sched_slot_id(sched, seq(0, k)->slot);
            served |= who == 2;
            overtaken += who > 2 && seq(0, k)->position == 0;
        }
        commit(0, 5);
    }
    assert_true(served);
    assert_true(overtaken >= 16);
    assert_true(overtaken <= 32 + 16); // its own step's, and some that were preempted, come on top
}

// Who fits is found behind those who do not, and behind forks that wait, but not behind any number.
static void how_far_the_queue_is_looked_at(void **state) {
    for (int forks = 0; forks < 2; forks++) {
        for (int further = 0; further < 2; further++) {
            qn_sched_config c = small_config();
            c.n_blocks[0] = 20;
            c.long_prefill_threshold = 4;
            c.max_waiting = 200;
            open_with(c);
            add(1, 40, 20);
            assert_true(plan(0));
            commit(0, 5);
            uint64_t last = (forks ? 129 : 17) + (uint64_t)further;
            for (uint64_t id = 2; id < last; id++) {
                qn_sched_request r = {.id = id, .n_prompt = 60, .max_tokens = 2}; // 16 blocks
                if (forks) r.n_prompt = 40;
                if (forks) r.fork_of = 1;
                assert_int_equal(add_request(r), QN_OK);
            }
            add(last, 2, 2);
            add(last + 1, 2, 2);
            assert_true(plan(0));
            assert_int_equal(plans[0]->n_seqs, further ? 1 : 3);
            close_it(state);
        }
    }
}

static void the_window_gives_blocks_back(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.n_groups = 2;
    c.groups[1] = (qn_kv_group){.kind = QN_KV_WINDOW, .window = 6};
    c.n_blocks[1] = 12;
    c.max_rows = 4;
    open_with(c);
    add(1, 4, 40);
    for (int i = 0; i < 30; i++) {
        assert_true(plan(0));
        const qn_plan_seq *p = seq(0, 0);
        const int32_t *full = qn_plan_blocks(plans[0]) + p->block_start[0];
        const int32_t *window = qn_plan_blocks(plans[0]) + p->block_start[1];
        int32_t first = p->position >= 6 ? (p->position - 5) / 4 : 0;
        assert_int_equal(p->n_blocks[1], p->n_blocks[0]);
        for (int32_t b = 0; b < p->n_blocks[1]; b++) {
            assert_true(full[b] >= 0);
            assert_int_equal(window[b] >= 0, b >= first);
        }
        commit(0, 5);
        assert_true(stats().blocks_used[1] <= 3);
    }
    assert_true(stats().blocks_used[0] >= 8);
}

static void a_window_smaller_than_its_cache_takes_any_length(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.groups[0] = (qn_kv_group){.kind = QN_KV_WINDOW, .window = 6};
    c.n_blocks[0] = 3; // 6 neighbours touch three blocks at most
    open_with(c);
    add(1, 40, 20);
    int steps = 0;
    while (plan(0)) {
        commit(0, 5);
        assert_true(++steps < 100);
    }
    assert_int_equal(stats().generated_tokens, 20);
    close_it(state);
    c.groups[0].window = 5; // two blocks at most
    c.n_blocks[0] = 2;
    open_with(c);
    add(1, 40, 3);
    for (steps = 0; plan(0); steps++) commit(0, 5);
    assert_int_equal(stats().generated_tokens, 3);
    close_it(state);
    c.groups[0].window = 6;
    c.n_blocks[0] = 2; // too small for the window: as a full group of eight tokens
    open_with(c);
    assert_int_equal(add_request((qn_sched_request){.id = 1, .n_prompt = 8, .max_tokens = 1}),
                     QN_ERR_LIMIT);
    add(1, 7, 20);
    for (steps = 0; plan(0); steps++) commit(0, 5);
    assert_int_equal(stats().generated_tokens, 2);
}

static void a_long_prompt_in_a_window_asks_only_for_the_window(void **state) {
    (void)state;
    const struct {
        int32_t window, n_blocks;
    } cases[] = {
        {6, 7},   // 13 positions, the window and two chunks of four, touch four blocks
        {20, 15}, // 39, with two chunks of ten, touch eleven; one is kept for those that run
        {21, 15}, // 40: eleven
        {22, 17}, // 43: twelve; two are kept
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int32_t fewer = 0; fewer < 2; fewer++) {
            qn_sched_config c = small_config();
            c.groups[0] = (qn_kv_group){.kind = QN_KV_WINDOW, .window = cases[i].window};
            c.n_blocks[0] = cases[i].n_blocks - fewer;
            c.long_prefill_threshold = 4;
            open_with(c);
            add(1, 60, 4); // sixteen blocks
            add(2, 3, 5);
            add(3, 3, 5);
            add(4, 3, 5);
            assert_true(plan(0));
            assert_int_equal(plans[0]->n_seqs, 4 - fewer);
            close_it(state);
        }
    }
}

static void waiting_for_a_window_ends(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.groups[0] = (qn_kv_group){.kind = QN_KV_WINDOW, .window = 10}; // three blocks or four
    c.n_blocks[0] = 6;
    open_with(c);
    add(1, 3, 40);
    add(2, 11, 40);
    int a = 0;
    assert_true(plan(a));
    int32_t reached = 0;
    for (int i = 0; i < 25 && reached < 14; i++) {
        bool planned = plan(!a);
        commit(a, 5);
        if (planned) {
            a = !a;
        } else {
            assert_true(plan(a));
        }
        if (qn_sched_slot_id(sched, seq(a, 0)->slot) == 1) reached = seq(a, 0)->position;
    }
    assert_int_equal(reached, 14); // it took the fourth block that it needs at twelve
    assert_int_equal(info(2).preemptions, 1);
    assert_int_equal(info(1).preemptions, 0);
}
static void who_would_be_thrown_out_again_waits(void **state) {
    (void)state;
    for (int32_t overcommit = 0; overcommit <= 1000; overcommit += 1000) {
        qn_sched_config c = small_config();
        c.overcommit_percent = overcommit;
        c.n_blocks[0] = 16;
        open_with(c);
        for (uint64_t id = 1; id <= 4; id++) add(id, 4, 28); // eight blocks each, in the end
        assert_true(plan(0));
        assert_int_equal(plans[0]->n_seqs, 4); // nothing is known to be wrong with that
        commit(0, 7);
        run_to_the_end();
        uint64_t preemptions = stats().preemptions;
        assert_true(preemptions > 0);
        for (uint64_t id = 1; id <= 4; id++) add(id, 4, 28);
        assert_true(plan(0));
        assert_int_equal(plans[0]->n_seqs, overcommit ? 4 : 2);
        commit(0, 7);
        run_to_the_end();
        assert_int_equal(stats().preemptions > preemptions, overcommit > 0);
        close_it(state);
    }
}

static void what_is_computed_again_is_counted(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.n_blocks[0] = 4;
    c.long_prefill_threshold = 7;
    open_with(c);
    add(1, 4, 40);
    add(2, 4, 40);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(stats().recomputed_tokens, 0);
        assert_true(plan(0));
        commit(0, 5);
    }
    assert_true(plan(0)); // nine positions of the first; eight of the second were computed
    assert_int_equal(info(2).preemptions, 1);
    commit(0, 5);
    assert_true(qn_sched_abort(sched, 1));
    for (int32_t again = 7; again <= 9; again++) { // seven rows, then one with a new one, then none
        assert_true(plan(0));
        commit(0, 5);
        assert_int_equal(stats().recomputed_tokens, again < 8 ? again : 8);
    }
    assert_int_equal(stats().prompt_tokens, 8);
}

static void blocks_that_do_not_come_back_are_not_waited_for(void **state) {
    for (int32_t n_groups = 1; n_groups <= 2; n_groups++) {
        qn_sched_config c = small_config();
        c.groups[0] = (qn_kv_group){.kind = QN_KV_WINDOW, .window = 17};
        c.n_groups = n_groups; // the second keeps all, and is as short
        c.block_size = 16;
        c.max_rows = 64;
        c.n_blocks[0] = c.n_blocks[1] = 4;
        open_with(c);
        add(1, 15, 40);
        add(2, 20, 40); // two blocks until its 33rd position
        add(3, 3, 40);
        assert_true(plan(0));
        assert_true(plan(1));
        assert_int_equal(plans[1]->n_seqs, 3);
        for (int i = 0; i < 2; i++) { // the first needs a block and waits for two steps
            commit(i, 5);
            assert_true(plan(i));
            assert_int_equal(plans[i]->n_seqs, 2);
            assert_rows(i, 0, 2, 21 + i, 1, 1);
            assert_int_equal(stats().preemptions, 0);
        }
        commit(0, 5);
        assert_true(plan(0)); // then it takes the last one's, when the step under way has retired
        assert_rows(0, 0, 2, 23, 1, 1);
        assert_int_equal(plans[0]->n_seqs, 1);
        assert_int_equal(info(3).preemptions, 1);
        assert_int_equal(stats().preemptions, 1);
        commit(1, 5);
        assert_true(plan(1));
        assert_rows(1, 0, 1, 16, 1, 1);
        assert_int_equal(stats().preemptions, 1);
        close_it(state);
    }
}

// Some blocks are kept for those that run: one for each, an eighth at most.
static void what_is_kept_for_those_that_run(void **state) {
    (void)state;
    const struct {
        int32_t n_blocks, running, n_prompt; // n_prompt: the longest that is admitted
    } cases[] = {{40, 2, 143}, {16, 3, 43}, {40, 0, 159}, {7, 3, 15}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int32_t more = 0; more < 2; more++) {
            qn_sched_config c = small_config();
            c.max_len = 200;
            c.n_blocks[0] = cases[i].n_blocks;
            open_with(c);
            for (int32_t k = 0; k < cases[i].running; k++) add(1 + (uint64_t)k, 2, 40);
            if (cases[i].running > 0) {
                assert_true(plan(0));
                commit(0, 5);
            }
            static const int32_t prompt[200] = {3};
            qn_sched_request r = {.id = 9, .prompt = prompt, .max_tokens = 10,
                                  .n_prompt = cases[i].n_prompt + 4 * more};
            assert_int_equal(add_request(r), more && !cases[i].running ? QN_ERR_LIMIT : QN_OK);
            if (more && !cases[i].running) {
                close_it(state);
                continue;
            }
            assert_true(plan(0));
            assert_int_equal(plans[0]->n_seqs, cases[i].running + !more);
            close_it(state);
        }
    }
}

// A preemption, so that admissions look ahead; then nobody is left. The forecast counts in groups
// that keep everything: the window's blocks come back.
static void the_forecast_is_about_full_groups(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.overcommit_percent = 0;
    c.n_groups = 2;
    c.groups[1] = (qn_kv_group){.kind = QN_KV_WINDOW, .window = 8};
    c.n_blocks[1] = 7;
    open_with(c);
    for (uint64_t id = 1; id <= 4; id++) add(id, 4, 20);
    run_to_the_end();
    assert_true(stats().preemptions > 0);
    add(5, 4, 40);
    add(6, 4, 40);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 2);
}

static void the_forecast_knows_what_comes_back(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.overcommit_percent = 0;
    c.max_rows = 64;
    c.n_blocks[0] = 16;
    open_with(c);
    for (uint64_t id = 1; id <= 4; id++) add(id, 4, 28);
    run_to_the_end();
    assert_true(stats().preemptions > 0);
    add(5, 29, 2);
    add(6, 4, 9);
    assert_true(plan(0));
    assert_true(plan(1)); // the last token of the fifth: its eight blocks come back
    commit(0, 7);
    assert_int_equal(stats().blocks_used[0], 10);
    add(7, 4, 40); // eleven blocks in the end
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 2);
    assert_rows(0, 1, 7, 0, 4, 1);
}

// Whether a second request is admitted beside one that has 25 outputs, when 24 are usual.
// plenty: a group beside it that has more blocks; -1: none.
static bool admitted_with(int32_t n_blocks, int32_t overcommit, int plenty) {
    qn_sched_config c = small_config();
    c.overcommit_percent = overcommit;
    c.n_groups = plenty < 0 ? 1 : 2;
    c.n_blocks[0] = c.n_blocks[1] = n_blocks;
    if (plenty >= 0) c.n_blocks[plenty] = 64;
    open_with(c);
    for (uint64_t id = 1; id <= 320; id++) {
        add(id, 4, 24);
        if (id % 4 == 0) run_to_the_end();
    }
    assert_true(stats().preemptions > 0);
    add(1001, 4, 60);
    for (int i = 0; i < 25; i++) {
        assert_true(plan(0));
        commit(0, 5);
    }
    add(1002, 4, 60);
    assert_true(plan(0));
    bool admitted = plans[0]->n_seqs == 2;
    close_it(NULL);
    return admitted;
}
static bool admitted_beside(int32_t n_blocks, int32_t overcommit) {
    bool admitted = admitted_with(n_blocks, overcommit, -1);
    assert_int_equal(admitted_with(n_blocks, overcommit, 0), admitted);
    assert_int_equal(admitted_with(n_blocks, overcommit, 1), admitted);
    return admitted;
}

static void the_forecast_to_the_block(void **state) {
    (void)state;
    // The first has 30 tokens in eight blocks, and goes on for a quarter of what is usual: nine
    // blocks. The second is promised two, and will have 28 tokens, in seven. When the first has got
    // its ninth the second may have three.
    assert_true(admitted_beside(12, 0));
    assert_false(admitted_beside(11, 0));
    assert_false(admitted_beside(11, 9)); // 11.99
    assert_true(admitted_beside(11, 10));
}

static void likely_lengths_are_learned(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.overcommit_percent = 0;
    c.n_blocks[0] = 16;
    open_with(c);
    for (uint64_t id = 1; id <= 4; id++) add(id, 4, 28); // eight blocks each, in the end
    run_to_the_end();
    assert_true(stats().preemptions > 0);
    const int32_t stop = 7;
    qn_sched_request r = {.n_prompt = 4, .max_tokens = 28, .stop_ids = &stop, .n_stop_ids = 1};
    for (r.id = 12; r.id < 300; r.id++) {
        assert_int_equal(add_request(r), QN_OK);
        if (r.id % 4 < 3) continue;
        assert_true(plan(0));
        if (r.id < 60) assert_int_equal(plans[0]->n_seqs, 2); // 256 are taken for likely at first
        commit(0, 7);
        run_to_the_end();
    }
    for (int i = 0; i < 4; i++, r.id++) assert_int_equal(add_request(r), QN_OK);
    assert_true(plan(0)); // one token each, most likely
    assert_int_equal(plans[0]->n_seqs, 4);
    commit(0, 7);
    run_to_the_end();
    // Who ends by its length counts, who is aborted does not.
    r = (qn_sched_request){.id = r.id, .n_prompt = 4, .max_tokens = 28};
    for (int i = 0; i < 60; i++, r.id++) {
        assert_int_equal(add_request(r), QN_OK);
        run_to_the_end();
    }
    for (int i = 0; i < 300; i++, r.id++) {
        assert_int_equal(add_request(r), QN_OK);
        assert_true(qn_sched_abort(sched, r.id));
        take();
    }
    for (int i = 0; i < 4; i++, r.id++) assert_int_equal(add_request(r), QN_OK);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(the_last_to_come_is_preempted),
        TEST(priority_decides_who_is_preempted),
        TEST(preempted_while_in_a_step),
        TEST(blocks_on_their_way_back_are_waited_for),
        TEST(no_more_are_preempted_than_needed),
        TEST(after_four_preemptions_never_again),
        TEST(a_big_waiter_is_overtaken_but_not_for_ever),
        TEST(how_far_the_queue_is_looked_at),
        TEST(the_window_gives_blocks_back),
        TEST(a_window_smaller_than_its_cache_takes_any_length),
        TEST(a_long_prompt_in_a_window_asks_only_for_the_window),
        TEST(waiting_for_a_window_ends),
        TEST(what_is_computed_again_is_counted),
        TEST(blocks_that_do_not_come_back_are_not_waited_for),
        TEST(what_is_kept_for_those_that_run),
        TEST(the_forecast_is_about_full_groups),
        TEST(the_forecast_knows_what_comes_back),
        TEST(the_forecast_to_the_block),
        TEST(likely_lengths_are_learned),
        TEST(who_would_be_thrown_out_again_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
