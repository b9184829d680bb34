// SPDX-License-Identifier: Apache-2.0
// Special cases of the scheduler, one at a time; the simulator does the crowd.
#include "tests/scheduler/fixtures.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// ---- configuration and requests ----

static void bad_configurations(void **state) {
    (void)state;
    qn_sched_config bad[40];
    int n = 0;
    for (; n < 40; n++) bad[n] = small_config();
    n = 0;
    bad[n++].max_seqs = 0;
    bad[n++].max_seqs = (1 << 16) + 1;
    bad[n++].max_rows = 0;
    bad[n++].max_rows = (1 << 22) + 1;
    bad[n++].max_len = 1;
    bad[n++].max_len = (1 << 26) + 1;
    bad[n++].max_waiting = (1 << 22) + 1;
    bad[n++].overcommit_percent = -1;
    bad[n++].overcommit_percent = 1001;
    bad[n++].max_logits = -1;
    bad[n++].max_logits = (1 << 22) + 1;
    bad[n++].max_logits = 3; // four sequences may run
    bad[n++].max_decode_slowdown = 0.5;
    bad[n++].max_decode_slowdown = -1;
    bad[n++].max_decode_slowdown = (double)NAN;
    bad[n++].max_decode_slowdown = (double)INFINITY;
    bad[n++].short_prompt_seconds = -1;
    bad[n++].short_prompt_seconds = (double)INFINITY;
    bad[n++].groups[0] = (qn_kv_group){.kind = QN_KV_WINDOW, .window = (1 << 26) + 1};
    bad[n++].block_size = 0;
    bad[n++].block_size = 3;
    bad[n++].block_size = 512;
    bad[n++].n_groups = 0;
    bad[n++].n_groups = QN_MAX_KV_GROUPS + 1;
    bad[n++].n_blocks[0] = 0;
    bad[n++].max_waiting = 0;
    bad[n++].max_waiting_tokens = -1;
    bad[n++].long_prefill_threshold = -1;
    bad[n++].max_step_seconds = (double)NAN;
    bad[n++].max_step_seconds = (double)INFINITY;
    bad[n++].max_step_seconds = -1;
    bad[n++].groups[0] = (qn_kv_group){.kind = QN_KV_WINDOW, .window = 0};
    for (int i = 0; i < n; i++) {
        qn_error err = {0};
        sched = (qn_sched *)events; // not to be left there
        assert_int_equal(qn_sched_create(&bad[i], &sched, &err), QN_ERR_INVALID);
        assert_null(sched);
        assert_true(err.message[0]);
    }
    // The last that is still allowed.
    qn_sched_config good = {.max_seqs = 1,
                            .max_rows = 1,
                            .max_len = 2,
                            .block_size = 1,
                            .n_groups = 1,
                            .n_blocks = {1},
                            .groups = {{.kind = QN_KV_WINDOW, .window = 1}},
                            .max_waiting = 1,
                            .max_logits = 1,
                            .max_decode_slowdown = 1};
    open_with(good);
    close_it(state);
    good.max_rows = 1 << 22;
    good.max_len = 1 << 26;
    good.block_size = QN_KV_SPAN;
    good.groups[0].window = 1 << 26;
    good.overcommit_percent = 1000;
    good.max_logits = 1 << 22;
    assert_int_equal(qn_sched_create(&good, &sched, NULL), QN_OK);
}

static void bad_requests(void **state) {
    (void)state;
    open_with(small_config());
    const int32_t negative[] = {5, -1, 5};
    const qn_sched_request bad[] = {
        {.id = 0, .n_prompt = 1, .max_tokens = 1},
        {.id = 1, .n_prompt = 0, .max_tokens = 1},
        {.id = 1, .n_prompt = -5, .max_tokens = 1},
        {.id = 1, .n_prompt = 1, .max_tokens = 0},
        {.id = 1, .n_prompt = 1, .max_tokens = 2, .min_tokens = 3},
        {.id = 1, .n_prompt = 1, .max_tokens = 2, .min_tokens = -1},
        {.id = 1, .n_prompt = 1, .max_tokens = 2, .n_stop_ids = -1},
        {.id = 1, .n_prompt = 1, .max_tokens = 2, .n_stop_ids = 1},
        {.id = 1, .n_prompt = 1, .max_tokens = 2, .adapter = -2},
        {.id = 1, .prompt = negative, .n_prompt = 2, .max_tokens = 2},
        {.id = 1, .prompt = negative + 1, .n_prompt = 2, .max_tokens = 2},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(add_request(bad[i]), QN_ERR_INVALID);
        check_all();
    }
    assert_int_equal(add_request((qn_sched_request){.id = 1, .n_prompt = 1, .max_tokens = 1,
                                                    .stop_ids = tokens, .n_stop_ids = 100000}),
                     QN_ERR_LIMIT);
    add(1, 1, 1);
    assert_int_equal(add_request((qn_sched_request){.id = 1, .n_prompt = 1, .max_tokens = 1}),
                     QN_ERR_INVALID);
    assert_false(qn_sched_abort(sched, 77));
    assert_false(qn_sched_abort(sched, 0));
    assert_int_equal(qn_sched_slot_id(sched, -1), 0);
    assert_int_equal(qn_sched_slot_id(sched, 4), 0);
    assert_int_equal(qn_sched_slot_id(sched, 3), 0);
}

static void what_can_never_fit_is_refused_with_numbers(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.n_blocks[0] = 5; // 20 tokens
    c.max_len = 64;
    open_with(c);
    qn_error err = {0};
    qn_sched_request r = {.id = 1, .prompt = tokens, .n_prompt = 20, .max_tokens = 1};
    assert_int_equal(qn_sched_add(sched, &r, 0, &err), QN_ERR_LIMIT);
    assert_non_null(strstr(err.message, "20 tokens"));
    assert_non_null(strstr(err.message, "19"));
    r.n_prompt = 64;
    qn_error_clear(&err);
    assert_int_equal(qn_sched_add(sched, &r, 0, &err), QN_ERR_LIMIT);
    assert_non_null(strstr(err.message, "64"));
    assert_non_null(strstr(err.message, "63"));
    // What fits alone runs to the cache's end: 20 positions hold 21 tokens, the last without KV.
    add(2, 19, 50);
    int outputs = 0;
    while (plan(0)) {
        commit(0, 7);
        outputs += n_events > 0 && events[0].kind == QN_SCHED_TOKEN;
    }
    assert_int_equal(outputs, 2);
    assert_finished(1, 2, QN_FINISH_LENGTH, -1);
}

static void the_most_that_is_taken(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.max_len = 13; // a block and a bit less than the cache
    c.n_blocks[0] = 4;
    c.max_waiting_tokens = 12;
    open_with(c);
    static int32_t stops[1025];
    for (int32_t i = 0; i < 1025; i++) stops[i] = 2000 - i;
    qn_sched_request r = {.id = 1, .n_prompt = 12, .max_tokens = 5, .min_tokens = 5,
                          .stop_ids = stops, .n_stop_ids = 1025};
    assert_int_equal(add_request(r), QN_ERR_LIMIT);
    r.n_stop_ids = 1024; // the last, 976, is not among them
    r.n_prompt = 13;
    assert_int_equal(add_request(r), QN_ERR_LIMIT);
    r.n_prompt = 12;
    assert_int_equal(add_request(r), QN_OK);
    assert_int_equal(add_request((qn_sched_request){.id = 2, .n_prompt = 1, .max_tokens = 1}),
                     QN_ERR_BUSY);
    assert_true(plan(0));
    commit(0, 977); // a stop id, before min_tokens; max_len leaves one token
    assert_int_equal(n_events, 2);
    assert_finished(1, 1, QN_FINISH_LENGTH, -1);
    const qn_sched_request s = {.id = 3, .n_prompt = 2, .max_tokens = 9, .stop_ids = stops,
                                .n_stop_ids = 1024};
    assert_int_equal(add_request(s), QN_OK);
    const int32_t sampled[] = {976, 2001, 1500};
    for (int i = 0; i < 3; i++) {
        assert_true(plan(0));
        commit(0, sampled[i]);
        assert_int_equal(n_events, i < 2 ? 1 : 2);
    }
    assert_finished(1, 3, QN_FINISH_STOP, 1500);
}

static void a_full_queue_is_busy(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.max_waiting = 2;
    c.max_waiting_tokens = 10;
    open_with(c);
    qn_sched_request r = {.id = 1, .n_prompt = 11, .max_tokens = 1};
    assert_int_equal(add_request(r), QN_ERR_LIMIT);
    add(1, 6, 1);
    r.id = 2;
    r.n_prompt = 5;
    assert_int_equal(add_request(r), QN_ERR_BUSY);
    add(2, 4, 1);
    assert_int_equal(stats().waiting_tokens, 10);
    r.id = 3;
    r.n_prompt = 1;
    assert_int_equal(add_request(r), QN_ERR_BUSY);
    assert_true(plan(0));
    assert_int_equal(stats().waiting_tokens, 0);
    add(3, 10, 1);
    close_it(state);
    c.max_waiting_tokens = 1;
    open_with(c);
    r.id = 1;
    r.n_prompt = 2;
    assert_int_equal(add_request(r), QN_ERR_LIMIT);
    add(1, 1, 1);
    r.id = 2;
    r.n_prompt = 1;
    assert_int_equal(add_request(r), QN_ERR_BUSY);
}

// ---- a request's way ----

static void a_prompt_in_chunks_then_tokens(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.long_prefill_threshold = 6;
    open_with(c);
    assert_false(plan(0));
    qn_sched_request r = {.id = 9, .n_prompt = 13, .max_tokens = 2, .adapter = 3};
    assert_int_equal(add_request(r), QN_OK);
    assert_int_equal(info(9).slot, -1);
    assert_true(plan(0));
    assert_rows(0, 0, 9, 0, 6, 0);
    assert_int_equal(seq(0, 0)->adapter, 3);
    assert_int_equal(seq(0, 0)->n_blocks[0], 2);
    assert_memory_equal(qn_plan_tokens(plans[0]), tokens, 6 * sizeof(int32_t));
    assert_true(info(9).first_scheduled == now);
    commit(0, 50);
    assert_int_equal(n_events, 0);
    assert_int_equal(stats().prompt_tokens, 6);
    assert_true(plan(0));
    assert_rows(0, 0, 9, 6, 6, 0);
    commit(0, 50);
    assert_true(plan(0));
    assert_rows(0, 0, 9, 12, 1, 1);
    commit(0, 50);
    assert_int_equal(n_events, 1);
    assert_token(0, 9, 50, 0);
    assert_true(info(9).first_token == now);
    assert_true(plan(0));
    assert_rows(0, 0, 9, 13, 1, 1);
    assert_int_equal(qn_plan_tokens(plans[0])[0], 50);
    commit(0, 51);
    assert_int_equal(n_events, 2);
    assert_token(0, 9, 51, 0);
    assert_finished(1, 9, QN_FINISH_LENGTH, -1);
    // Known while its end is handled; forgotten at the next call.
    assert_int_equal(info(9).n_output, 2);
    assert_int_equal(info(9).slot, -1);
    assert_false(plan(0));
    qn_sched_seq_info x;
    assert_false(qn_sched_seq(sched, 9, &x));
    assert_int_equal(stats().blocks_used[0], 0);
    assert_int_equal(stats().prompt_tokens, 13);
    assert_int_equal(stats().generated_tokens, 2);
    assert_int_equal(stats().steps, 4);
    add(9, 1, 1); // the id is free again
}

static void a_prompt_row_by_row(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.long_prefill_threshold = 1;
    open_with(c);
    add(1, 3, 1);
    for (int32_t i = 0; i < 3; i++) {
        assert_true(plan(0));
        assert_rows(0, 0, 1, i, 1, i == 2);
        commit(0, 5);
    }
    assert_int_equal(n_events, 2);
}

static void stop_ids_and_min_tokens(void **state) {
    (void)state;
    open_with(small_config());
    const int32_t stops[] = {40, 9, 30};
    qn_sched_request r = {.id = 1, .n_prompt = 2, .max_tokens = 9, .min_tokens = 2,
                          .stop_ids = stops, .n_stop_ids = 3};
    assert_int_equal(add_request(r), QN_OK);
    assert_true(plan(0));
    commit(0, 30); // too early
    assert_int_equal(n_events, 1);
    assert_true(plan(0));
    commit(0, 30);
    assert_int_equal(n_events, 2);
    assert_token(0, 1, 30, 0);
    assert_finished(1, 1, QN_FINISH_STOP, 30);
    // The last allowed token may be a stop id, too.
    r = (qn_sched_request){.id = 2, .n_prompt = 2, .max_tokens = 1, .stop_ids = stops,
                           .n_stop_ids = 3};
    assert_int_equal(add_request(r), QN_OK);
    assert_true(plan(0));
    commit(0, 9);
    assert_finished(1, 2, QN_FINISH_STOP, 9);
}

static void looking_ahead(void **state) {
    (void)state;
    open_with(small_config());
    const int32_t stops[] = {99};
    qn_sched_request r = {.id = 1, .n_prompt = 4, .max_tokens = 10, .stop_ids = stops,
                          .n_stop_ids = 1};
    assert_int_equal(add_request(r), QN_OK);
    assert_true(plan(0));
    assert_true(plan(1));
    assert_rows(1, 0, 1, 4, 1, 1);
    assert_int_equal(qn_plan_tokens(plans[1])[0], QN_TOKEN_PENDING);
    assert_int_equal(seq(1, 0)->slot, seq(0, 0)->slot);
    assert_false(plan(2)); // two are uncommitted
    qn_sched_commit(sched, plans[1], rows, now); // not the oldest: ignored
    check_all();
    assert_int_equal(stats().steps, 0);
    commit(0, 20);
    assert_token(0, 1, 20, 0);
    assert_true(plan(0));
    assert_int_equal(qn_plan_tokens(plans[0])[0], QN_TOKEN_PENDING);
    int32_t slot = seq(0, 0)->slot;
    commit(1, 99);
    assert_finished(1, 1, QN_FINISH_STOP, 99);
    // The step that was planned past the stop still uses slot and blocks; its result is discarded.
    assert_int_equal(stats().blocks_used[0], 2);
    assert_int_equal(qn_sched_slot_id(sched, slot), 0);
    add(1, 4, 1); // the id is free, though the old sequence drains
    assert_true(plan(1));
    assert_int_not_equal(seq(1, 0)->slot, slot);
    commit(0, 21);
    assert_int_equal(n_events, 0);
    assert_int_equal(stats().blocks_used[0], 1);
    commit(1, 22);
    assert_int_equal(stats().blocks_used[0], 0);
    assert_int_equal(stats().generated_tokens, 3);
}

static void the_last_token_is_known_ahead(void **state) {
    (void)state;
    open_with(small_config());
    add(1, 4, 2);
    assert_true(plan(0));
    assert_true(plan(1));
    commit(0, 20);
    assert_false(plan(0)); // both tokens are given out
    assert_int_equal(qn_sched_slot_id(sched, seq(1, 0)->slot), 1);
    assert_int_equal(stats().running, 1);
    commit(1, 21);
    assert_token(0, 1, 21, 0);
    assert_finished(1, 1, QN_FINISH_LENGTH, -1);
    assert_int_equal(stats().blocks_used[0], 0);
}

static void aborts_in_every_state(void **state) {
    (void)state;
    open_with(small_config());
    add(1, 4, 10);
    assert_true(qn_sched_abort(sched, 1)); // waiting
    check_all();
    assert_false(qn_sched_abort(sched, 1));
    take();
    assert_int_equal(n_events, 1);
    assert_finished(0, 1, QN_FINISH_ABORT, -1);
    assert_int_equal(stats().waiting_tokens, 0);

    add(2, 4, 10); // running, in no step
    assert_true(plan(0));
    commit(0, 5);
    assert_true(qn_sched_abort(sched, 2));
    check_all();
    take();
    assert_finished(0, 2, QN_FINISH_ABORT, -1);
    assert_int_equal(stats().blocks_used[0], 0);

    add(3, 4, 10); // in two steps
    assert_true(plan(0));
    assert_true(plan(1));
    assert_true(qn_sched_abort(sched, 3));
    assert_true(qn_sched_abort(sched, 3)); // again, and still live
    check_all();
    commit(0, 5);
    assert_int_equal(n_events, 0);
    assert_true(stats().blocks_used[0] > 0);
    assert_false(plan(0));
    commit(1, 5);
    assert_int_equal(n_events, 1);
    assert_finished(0, 3, QN_FINISH_ABORT, -1);
    assert_int_equal(stats().blocks_used[0], 0);
    assert_int_equal(stats().generated_tokens, 1); // of request 2

    add(4, 4, 1); // its last token is under way
    assert_true(plan(0));
    assert_true(qn_sched_abort(sched, 4));
    commit(0, 5);
    assert_int_equal(n_events, 1);
    assert_finished(0, 4, QN_FINISH_ABORT, -1);
}

static void failures(void **state) {
    (void)state;
    open_with(small_config());
    add(1, 2, 10);
    add(2, 2, 10);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_logits, 2);
    rows[0] = (qn_sched_row){5, true};
    rows[1] = (qn_sched_row){5, false};
    qn_sched_commit(sched, plans[0], rows, now);
    take();
    assert_token(0, 1, 5, 0);
    assert_finished(1, 2, QN_FINISH_ERROR, -1);
    add(3, 2, 10);
    assert_true(plan(0));
    assert_true(plan(1));
    qn_sched_commit_failed(sched, plans[0], now);
    take();
    assert_int_equal(n_events, 2);
    assert_finished(0, 1, QN_FINISH_ERROR, -1);
    assert_finished(1, 3, QN_FINISH_ERROR, -1);
    commit(1, 5);
    assert_int_equal(n_events, 0);
    assert_int_equal(stats().blocks_used[0], 0);
    add(4, 2, 10);
    assert_true(plan(0));
    commit(0, -7); // no such token
    assert_finished(0, 4, QN_FINISH_ERROR, -1);
    add(5, 2, 10);
    assert_true(plan(0));
    qn_sched_commit(sched, plans[0], NULL, now); // results that are missing
    take();
    assert_finished(0, 5, QN_FINISH_ERROR, -1);
    qn_sched_commit(sched, plans[0], rows, now); // nothing is under way
    check_all();
    uint64_t prompt_tokens = stats().prompt_tokens;
    add(6, 20, 10);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_logits, 0);
    qn_sched_commit(sched, plans[0], NULL, now); // no row wanted a result
    take();
    assert_int_equal(n_events, 0);
    assert_int_equal(stats().prompt_tokens, prompt_tokens + 16);
    assert_true(plan(0));
    qn_sched_commit_failed(sched, plans[0], now);
    take();
    assert_finished(0, 6, QN_FINISH_ERROR, -1);
    assert_int_equal(stats().prompt_tokens, prompt_tokens + 16);
}

// ---- sharing a step ----

static void streams_first_then_the_prompt_takes_the_rest(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.max_rows = 8;
    open_with(c);
    add(1, 2, 30);
    add(2, 2, 30);
    assert_true(plan(0));
    commit(0, 5);
    add(3, 10, 5);
    add(4, 10, 5);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 3);
    assert_rows(0, 0, 1, 2, 1, 1);
    assert_rows(0, 1, 2, 2, 1, 1);
    assert_rows(0, 2, 3, 0, 6, 0);
    commit(0, 5);
    assert_true(plan(0));
    assert_rows(0, 2, 3, 6, 4, 1);
    assert_rows(0, 3, 4, 0, 2, 0);
    assert_int_equal(seq(0, 2)->logit_start, 2);
    assert_int_equal(plans[0]->n_logits, 3);
}

static void more_slots_than_rows(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.max_rows = 2;
    open_with(c);
    for (uint64_t id = 1; id <= 4; id++) add(id, 3, 4);
    for (int i = 0; plan(0); i++) {
        assert_true(plans[0]->n_rows <= 2);
        assert_true(stats().running <= 2);
        assert_true(i < 40);
        commit(0, 5);
    }
    assert_int_equal(stats().generated_tokens, 16);
}

static void the_step_time_bounds_prompts_only(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.max_step_seconds = 0.010;
    open_with(c);
    qn_sched_set_step_time(sched, &(qn_step_time_model){0.001, 0.001, 0.0001, 0});
    add(1, 16, 30);
    // 1 ms + r rows of 1 ms + r (r + 1) / 2 keys of 0.1 ms: seven rows take 10.8 ms, six 9.1.
    assert_true(plan(0));
    assert_rows(0, 0, 1, 0, 6, 0);
    assert_true(fabs(qn_sched_plan_keys(sched, plans[0]) - 21) < 1e-9);
    commit(0, 5);
    // No time at all: a block's worth for the first prompt, nothing for the next.
    qn_sched_set_step_time(sched, &(qn_step_time_model){1, 0.001, 0, 0});
    add(2, 16, 30);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 1);
    assert_rows(0, 0, 1, 6, 4, 0);
    commit(0, 5);
    // A model that makes no sense bounds nothing.
    qn_sched_set_step_time(sched, &(qn_step_time_model){(double)NAN, -1, (double)INFINITY, 0});
    assert_true(plan(0));
    assert_rows(0, 0, 1, 10, 6, 1);
    assert_rows(0, 1, 2, 0, 10, 0);
    commit(0, 5);
    // Three rows at 0 see three keys together.
    close_it(state);
    open_with(c);
    qn_sched_set_step_time(sched, &(qn_step_time_model){.per_context = 0.003});
    add(1, 16, 30);
    add(2, 16, 30);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 1);
    assert_rows(0, 0, 1, 0, 4, 0); // a block's worth, though the time is for three
    commit(0, 5);
    qn_sched_set_step_time(sched, &(qn_step_time_model){.per_context = 0.001});
    assert_true(plan(0));
    assert_rows(0, 0, 1, 4, 6, 0); // ten keys
    commit(0, 5);
    qn_sched_set_step_time(sched, &(qn_step_time_model){0});
    assert_true(plan(0));
    assert_rows(0, 0, 1, 10, 6, 1);
    assert_rows(0, 1, 2, 0, 10, 0);
    commit(0, 5);
    // Streams run whatever they cost.
    qn_sched_set_step_time(sched, &(qn_step_time_model){1, 1, 0, 0});
    assert_true(plan(0));
    assert_rows(0, 0, 1, 16, 1, 1);
    assert_rows(0, 1, 2, 10, 4, 0);
}

// Two streams, and prompts beside them that take as long as max_decode_slowdown says.
static void open_with_streams(double base, double slowdown, double short_prompt) {
    qn_sched_config c = small_config();
    c.max_rows = 64;
    c.max_decode_slowdown = slowdown;
    c.short_prompt_seconds = short_prompt;
    open_with(c);
    add(1, 2, 30);
    add(2, 2, 30);
    assert_true(plan(0));
    commit(0, 5);
    qn_sched_set_step_time(sched, &(qn_step_time_model){base, 1, 0, 0}); // a row takes a second
}

static void prompts_do_not_slow_streams_down(void **state) {
    (void)state;
    open_with_streams(1, 3, 0); // streams alone: three seconds; so six for prompts
    add(3, 20, 5);
    add(4, 20, 5);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 3);
    assert_rows(0, 2, 3, 0, 6, 0);
    commit(0, 5);
    assert_true(plan(0));
    assert_rows(0, 2, 3, 6, 6, 0);
    commit(0, 5);
    // Without a stream nothing is held back.
    assert_true(qn_sched_abort(sched, 1));
    assert_true(qn_sched_abort(sched, 2));
    assert_true(plan(0));
    assert_rows(0, 0, 3, 12, 8, 1);
    assert_rows(0, 1, 4, 0, 20, 1);
    close_it(state);
    // Nor without a model of the time.
    open_with_streams(1, 3, 0);
    qn_sched_set_step_time(sched, &(qn_step_time_model){0, 0, 0, 0});
    add(3, 20, 5);
    assert_true(plan(0));
    assert_rows(0, 2, 3, 0, 20, 1);
    close_it(state);
    // Short prompts are not held back, and cost the others their time.
    open_with_streams(1, 3, 5);
    add(3, 4, 5);
    add(4, 5, 5);
    assert_true(plan(0));
    assert_rows(0, 2, 3, 0, 4, 1);
    assert_rows(0, 3, 4, 0, 2, 0);
}

// Long prompts wait for one another; a short one that comes last does not wait for them.
static void short_prompts_pass_long_ones_that_wait_for_time(void **state) {
    (void)state;
    open_with_streams(1, 3, 4.5); // long: five rows and more
    add(3, 20, 5);
    add(4, 20, 5);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 3);
    assert_rows(0, 2, 3, 0, 6, 0);
    assert_true(info(4).slot >= 0);
    commit(0, 5);
    assert_true(qn_sched_abort(sched, 2)); // makes room for one more
    take();
    add(5, 4, 5);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 3);
    assert_rows(0, 1, 3, 6, 6, 0); // three heads to one stream of two seconds
    assert_rows(0, 2, 5, 0, 4, 1);
    commit(0, 5);
    run_to_the_end();
}

static void many_prompts_share_time_by_heads(void **state) {
    (void)state;
    open_with_streams(10, 1, 0);
    // One prompt beside two streams: half their twelve seconds. It comes first.
    const qn_sched_request r = {.id = 3, .n_prompt = 30, .max_tokens = 5, .priority = -1};
    assert_int_equal(add_request(r), QN_OK);
    assert_true(plan(0));
    assert_rows(0, 2, 3, 0, 6, 0);
    commit(0, 5);
    add(4, 30, 5); // two: as much as they
    assert_true(plan(0));
    assert_rows(0, 2, 3, 6, 12, 0);
    assert_int_equal(plans[0]->n_seqs, 3);
    commit(0, 5);
    add(5, 30, 5); // there is no slot for a third
    add(6, 30, 5);
    assert_true(plan(0));
    assert_rows(0, 2, 3, 18, 12, 1);
    commit(0, 5);
    assert_true(plan(0)); // three streams; one prompt has a slot
    assert_rows(0, 3, 4, 0, 4, 0);
}

static void rows_of_a_prompt_that_want_logits(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.n_blocks[0] = 5;
    c.max_logits = 6;
    c.enable_prefix_caching = true;
    open_with(c);
    add(9, 9, 1);
    assert_true(plan(0));
    commit(0, 7); // the prompt is in the prefix cache now
    qn_sched_request r = {.id = 1, .n_prompt = 9, .max_tokens = 9, .prompt_logits = true,
                          .fork_of = 9};
    assert_int_equal(add_request(r), QN_ERR_INVALID);
    add(2, 1, 20);
    assert_true(plan(0));
    commit(0, 7);
    r.fork_of = 0;
    assert_int_equal(add_request(r), QN_OK);
    assert_true(plan(0));
    assert_rows(0, 0, 2, 1, 1, 1);
    assert_rows(0, 1, 1, 0, 5, 5); // what is left of max_logits
    assert_int_equal(seq(0, 1)->logit_start, 1);
    for (int i = 0; i < 6; i++) rows[i] = (qn_sched_row){i ? -1 : 7, true}; // no ids wanted
    qn_sched_commit(sched, plans[0], rows, now);
    check_all();
    take();
    assert_int_equal(n_events, 1);
    assert_token(0, 2, 7, 0);
    assert_true(plan(0));
    assert_rows(0, 1, 1, 5, 4, 4);
    assert_true(plan(1)); // the token is pending
    assert_rows(1, 1, 1, 9, 1, 1);
    for (int i = 0; i < 5; i++) rows[i] = (qn_sched_row){20 + i, true};
    qn_sched_commit(sched, plans[0], rows, now);
    check_all();
    take();
    assert_int_equal(n_events, 2);
    assert_token(0, 2, 20, 0);
    assert_token(1, 1, 24, 4); // the last row's
    commit(1, 7);
    // Computed once more after a preemption, they give no logits.
    for (int i = 0; i < 9 && stats().preemptions == 0; i++) {
        assert_true(plan(0));
        commit(0, 7);
    }
    assert_int_equal(info(1).preemptions, 1);
    int32_t known = 9 + info(1).n_output;
    assert_true(qn_sched_abort(sched, 2));
    assert_true(plan(0));
    assert_rows(0, 0, 1, 0, known - 1, 0);
    commit(0, 7);
    assert_true(plan(0));
    assert_rows(0, 0, 1, known - 1, 1, 1);
    commit(0, 7);
    run_to_the_end();
    // One of its rows fails: so does the request, and nobody finds what was computed.
    qn_sched_clear_cache(sched);
    check_all();
    assert_int_equal(stats().blocks_cached[0], 0);
    r.id = 3;
    assert_int_equal(add_request(r), QN_OK);
    assert_true(plan(0));
    assert_rows(0, 0, 3, 0, 6, 6);
    for (int i = 0; i < 6; i++) rows[i] = (qn_sched_row){7, i != 3};
    qn_sched_commit(sched, plans[0], rows, now);
    check_all();
    take();
    assert_int_equal(n_events, 1);
    assert_finished(0, 3, QN_FINISH_ERROR, -1);
    assert_int_equal(stats().blocks_cached[0], 0);
}

static void keys_of_groups_are_averaged_by_layers(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.n_groups = 2;
    c.groups[0].n_layers = 1;
    c.groups[1] = (qn_kv_group){.kind = QN_KV_WINDOW, .window = 3, .n_layers = 3};
    c.n_blocks[1] = 64;
    open_with(c);
    add(1, 5, 5);
    assert_true(plan(0));
    // full: 1+2+3+4+5 = 15; window: 1+2+3+3+3 = 12.
    assert_true(fabs(qn_sched_plan_keys(sched, plans[0]) - (15 + 3 * 12) / 4.0) < 1e-9);
    assert_true(fabs(qn_sched_plan_context(sched, plans[0]) - 5) < 1e-9);
    commit(0, 5);
    add(2, 3, 5);
    assert_true(plan(0)); // the first sees 6 or 3, the second 3
    assert_true(fabs(qn_sched_plan_keys(sched, plans[0]) - (6 + 3 * 3) / 4.0 - 6) < 1e-9);
    assert_true(fabs(qn_sched_plan_context(sched, plans[0]) - (6 + 3 * 3) / 4.0 - 3) < 1e-9);
    close_it(state);
    c.groups[1].n_layers = 0;
    open_with(c);
    add(1, 5, 5);
    assert_true(plan(0));
    assert_true(fabs(qn_sched_plan_keys(sched, plans[0]) - 15) < 1e-9);
    close_it(state);
    c.groups[0].n_layers = 0; // no layers at all: groups alike
    open_with(c);
    add(1, 5, 5);
    assert_true(plan(0));
    assert_true(fabs(qn_sched_plan_keys(sched, plans[0]) - (15 + 12) / 2.0) < 1e-9);
}

static void a_smaller_plan_is_filled_as_far_as_it_goes(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.n_blocks[0] = 20;
    open_with(c);
    assert_int_equal(plans[0]->cap_seqs, 4);
    assert_int_equal(plans[0]->cap_rows, 16);
    assert_int_equal(plans[0]->cap_blocks, 4 * 16); // tables may share blocks
    const struct {
        int32_t seqs, rows, blocks;
        int32_t planned;
    } cases[] = {{1, 16, 20, 1}, {2, 16, 20, 2}, {4, 3, 20, 2}, {4, 16, 2, 2}, {4, 16, 3, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        close_it(state);
        open_with(c);
        free(plans[1]);
        plans[1] = qn_step_plan_create(cases[i].seqs, cases[i].rows, cases[i].blocks, 0, 1);
        assert_non_null(plans[1]);
        for (uint64_t id = 1; id <= 4; id++) add(id, 2, 20);
        assert_true(plan(1));
        assert_int_equal(plans[1]->n_seqs, cases[i].planned);
        commit(1, 5);
        for (int k = 0; k < 6; k++) { // streams too, and no cap is passed
            assert_true(plan(1));
            commit(1, 5);
        }
    }
}

static void streams_do_not_overflow_a_smaller_plan(void **state) {
    (void)state;
    open_with(small_config());
    for (uint64_t id = 1; id <= 4; id++) add(id, 2, 20);
    assert_true(plan(0));
    commit(0, 5);
    const int32_t caps[][3] = {{4, 3, 64}, {3, 16, 64}, {4, 16, 3}};
    for (int i = 0; i < 3; i++) {
        free(plans[1]);
        plans[1] = qn_step_plan_create(caps[i][0], caps[i][1], caps[i][2], 0, 1);
        assert_non_null(plans[1]);
        assert_true(plan(1));
        // The last has three blocks: two for the first, one for the fourth, which is behind.
        assert_int_equal(plans[1]->n_seqs, i < 2 ? 3 : 2);
        commit(1, 5);
    }
}

// ---- events ----

static void events_that_are_not_taken_stop_the_steps(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.max_seqs = 1;
    open_with(c);
    add(1, 1, 50);
    int steps = 0;
    for (; plan(0); steps++) {
        assert_true(steps < 50);
        rows[0] = (qn_sched_row){100 + steps, true};
        qn_sched_commit(sched, plans[0], rows, now);
        check_all();
    }
    assert_int_equal(steps, 4);
    for (int i = 0; i < steps; i++) { // one by one, in order
        n_events = qn_sched_take_events(sched, events, 1);
        assert_int_equal(n_events, 1);
        assert_token(0, 1, 100 + i, 0);
        check_all();
    }
    assert_int_equal(qn_sched_take_events(sched, events, 64), 0);
    assert_true(plan(0));
}

static void ended_requests_that_are_not_taken_stop_the_adds(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.max_seqs = 1;
    c.max_waiting = 2;
    open_with(c);
    int added = 0;
    qn_sched_request r = {.id = 1, .n_prompt = 1, .max_tokens = 1};
    for (; added < 100 && add_request(r) == QN_OK; added++, r.id++) {
        assert_true(qn_sched_abort(sched, r.id));
        check_all();
    }
    assert_int_equal(added, 5);
    assert_int_equal(add_request(r), QN_ERR_BUSY);
    take();
    assert_int_equal(n_events, added);
    add(r.id, 1, 1);
}

// ---- memory ----

static void a_steady_step_allocates_nothing(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.n_blocks[0] = 20; // with preemptions
    open_with(c);
    for (uint64_t id = 1; id <= 4; id++) add(id, 5, 40);
    long before = n_allocations;
    int steps = 0;
    while (plan(0)) {
        commit(0, 5);
        steps++;
    }
    assert_true(steps > 40);
    assert_true(stats().preemptions > 0);
    assert_int_equal(n_allocations, before);
}

static void each_allocation_may_fail(void **state) {
    (void)state;
    qn_sched_config c = small_config();
    c.n_groups = 2;
    c.n_blocks[1] = 8;
    for (long n = 0;; n++) {
        n_allocations = 0;
        failing_allocation = n;
        qn_error err = {0};
        qn_status status = qn_sched_create(&c, &sched, &err);
        if (status == QN_OK) break;
        assert_int_equal(status, QN_ERR_NOMEM);
        assert_null(sched);
        assert_true(n < 100);
    }
    n_allocations = 0;
    failing_allocation = 0;
    qn_sched_request r = {.id = 1, .prompt = tokens, .n_prompt = 2, .max_tokens = 2};
    assert_int_equal(qn_sched_add(sched, &r, 0, NULL), QN_ERR_NOMEM);
    check_all();
    r.cache_salt = "salt"; // first the salt, then the tokens
    r.cache_salt_len = 4;
    for (failing_allocation = 0; failing_allocation < 2; failing_allocation++) {
        n_allocations = 0;
        assert_int_equal(qn_sched_add(sched, &r, 0, NULL), QN_ERR_NOMEM);
        check_all();
    }
    failing_allocation = -1;
    assert_int_equal(qn_sched_add(sched, &r, 0, NULL), QN_OK);
    check_all();
    n_allocations = failing_allocation = 0;
    assert_null(qn_sched_make_plan(sched));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(bad_configurations),
        TEST(bad_requests),
        TEST(what_can_never_fit_is_refused_with_numbers),
        TEST(the_most_that_is_taken),
        TEST(a_full_queue_is_busy),
        TEST(a_prompt_in_chunks_then_tokens),
        TEST(a_prompt_row_by_row),
        TEST(stop_ids_and_min_tokens),
        TEST(looking_ahead),
        TEST(the_last_token_is_known_ahead),
        TEST(aborts_in_every_state),
        TEST(failures),
        TEST(streams_first_then_the_prompt_takes_the_rest),
        TEST(more_slots_than_rows),
        TEST(the_step_time_bounds_prompts_only),
        TEST(prompts_do_not_slow_streams_down),
        TEST(short_prompts_pass_long_ones_that_wait_for_time),
        TEST(many_prompts_share_time_by_heads),
        TEST(rows_of_a_prompt_that_want_logits),
        TEST(keys_of_groups_are_averaged_by_layers),
        TEST(a_smaller_plan_is_filled_as_far_as_it_goes),
        TEST(streams_do_not_overflow_a_smaller_plan),
        TEST(events_that_are_not_taken_stop_the_steps),
        TEST(ended_requests_that_are_not_taken_stop_the_adds),
        TEST(a_steady_step_allocates_nothing),
        TEST(each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
