// SPDX-License-Identifier: Apache-2.0
// Special cases of the scheduler, one at a time; the simulator does the crowd.
#include "scheduler/scheduler.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

// ---- allocations are counted, and the nth fails ----

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void __real_free(void *p);
void __wrap_free(void *p);

static long n_allocations, n_live_allocations, failing_allocation = -1;

void *__wrap_malloc(size_t size) {
    if (n_allocations++ == failing_allocation) return NULL;
    n_live_allocations++;
    return __real_malloc(size);
}
void *__wrap_calloc(size_t n, size_t size) {
    if (n_allocations++ == failing_allocation) return NULL;
    n_live_allocations++;
    return __real_calloc(n, size);
}
void __wrap_free(void *p) {
    n_live_allocations -= p != NULL;
    __real_free(p);
}

// ---- a scheduler with two plans ----

static qn_sched *sched;
static qn_step_plan *plans[3];
static qn_sched_row rows[64];
static qn_sched_event events[64];
static size_t n_events;
static double now;

static qn_sched_config small(void) {
    return (qn_sched_config){.max_seqs = 4,
                             .max_rows = 16,
                             .max_len = 64,
                             .block_size = 4,
                             .n_groups = 1,
                             .n_blocks = {64},
                             .overcommit_percent = 1000, // no forecast: who fits now is let in
                             .max_waiting = 8};
}

static void open_with(qn_sched_config config) {
    qn_error err = {0};
    assert_int_equal(qn_sched_create(&config, &sched, &err), QN_OK);
    for (int i = 0; i < 3; i++) {
        plans[i] = qn_sched_make_plan(sched);
        assert_non_null(plans[i]);
    }
    now = 1;
    n_events = 0;
}

static int close_it(void **state) {
    (void)state;
    qn_sched_destroy(sched);
    sched = NULL;
    for (int i = 0; i < 3; i++) {
        free(plans[i]);
        plans[i] = NULL;
    }
    failing_allocation = -1;
    long leaked = n_live_allocations;
    n_live_allocations = 0;
    return leaked == 0 ? 0 : -1;
}

static void check_all(void) {
    const char *reason = "";
    if (!qn_sched_check(sched, &reason)) fail_msg("%s", reason);
}

static const int32_t tokens[100] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18};

static qn_status add_request(qn_sched_request r) {
    if (!r.prompt) r.prompt = tokens;
    if (r.adapter == 0) r.adapter = -1;
    return qn_sched_add(sched, &r, now, NULL);
}
static void add(uint64_t id, int32_t n_prompt, int32_t max_tokens) {
    assert_int_equal(
        add_request((qn_sched_request){.id = id, .n_prompt = n_prompt, .max_tokens = max_tokens}),
        QN_OK);
    check_all();
}
static bool plan(int i) {
    now += 1;
    static uint64_t last_step;
    bool planned = qn_sched_plan(sched, now, plans[i]);
    check_all();
    if (planned) {
        assert_true(plans[i]->step == last_step + 1 || plans[i]->step == 0);
        last_step = plans[i]->step;
        const char *reason = "";
        const int32_t n_blocks[QN_MAX_KV_GROUPS] = {1 << 20, 1 << 20, 1 << 20, 1 << 20};
        if (!qn_step_plan_valid(plans[i], 4, n_blocks, 1000, &reason)) fail_msg("%s", reason);
    }
    return planned;
}
static void take(void) {
    n_events = qn_sched_take_events(sched, events, 64);
    check_all();
}
// Each logit row gives `id`.
static void commit(int i, int32_t id) {
    now += 1;
    for (int32_t r = 0; r < plans[i]->n_logits; r++) rows[r] = (qn_sched_row){id, true};
    qn_sched_commit(sched, plans[i], rows, now);
    check_all();
    take();
}
static const qn_plan_seq *seq(int i, int32_t k) {
    assert_true(k < plans[i]->n_seqs);
    return &qn_plan_seqs(plans[i])[k];
}
static qn_sched_seq_info info(uint64_t id) {
    qn_sched_seq_info x;
    assert_true(qn_sched_seq(sched, id, &x));
    return x;
}
static qn_sched_stats stats(void) {
    qn_sched_stats x;
    qn_sched_stats_get(sched, &x);
    return x;
}
static void assert_rows(int i, int32_t k, uint64_t id, int32_t position, int32_t len, int32_t n_logits) {
    assert_int_equal(qn_sched_slot_id(sched, seq(i, k)->slot), id);
    assert_int_equal(seq(i, k)->position, position);
    assert_int_equal(seq(i, k)->query_len, len);
    assert_int_equal(seq(i, k)->n_logits, n_logits);
}
static void assert_token(size_t at, uint64_t id, int32_t token, int32_t row) {
    assert_true(at < n_events);
    assert_int_equal(events[at].kind, QN_SCHED_TOKEN);
    assert_int_equal(events[at].id, id);
    assert_int_equal(events[at].token, token);
    assert_int_equal(events[at].logit_row, row);
    assert_int_equal(events[at].stop_id, -1);
}
static void assert_finished(size_t at, uint64_t id, qn_finish finish, int32_t stop_id) {
    assert_true(at < n_events);
    assert_int_equal(events[at].kind, QN_SCHED_FINISHED);
    assert_int_equal(events[at].id, id);
    assert_int_equal(events[at].finish, finish);
    assert_int_equal(events[at].stop_id, stop_id);
}

// ---- configuration and requests ----

static void bad_configurations(void **state) {
    (void)state;
    qn_sched_config bad[20];
    int n = 0;
    for (; n < 20; n++) bad[n] = small();
    n = 0;
    bad[n++].max_seqs = 0;
    bad[n++].max_seqs = 1 << 20;
    bad[n++].max_rows = 0;
    bad[n++].max_len = 1;
    bad[n++].max_len = INT32_MAX;
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
}

static void bad_requests(void **state) {
    (void)state;
    open_with(small());
    const int32_t negative[] = {5, -1};
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
    qn_sched_config c = small();
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

static void a_full_queue_is_busy(void **state) {
    (void)state;
    qn_sched_config c = small();
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
}

// ---- a request's way ----

static void a_prompt_in_chunks_then_tokens(void **state) {
    (void)state;
    qn_sched_config c = small();
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

static void stop_ids_and_min_tokens(void **state) {
    (void)state;
    open_with(small());
    const int32_t stops[] = {40, 9, 30};
    qn_sched_request r = {.id = 1, .n_prompt = 2, .max_tokens = 9, .min_tokens = 2, .stop_ids = stops,
                          .n_stop_ids = 3};
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
    r = (qn_sched_request){.id = 2, .n_prompt = 2, .max_tokens = 1, .stop_ids = stops, .n_stop_ids = 3};
    assert_int_equal(add_request(r), QN_OK);
    assert_true(plan(0));
    commit(0, 9);
    assert_finished(1, 2, QN_FINISH_STOP, 9);
}

static void looking_ahead(void **state) {
    (void)state;
    open_with(small());
    const int32_t stops[] = {99};
    qn_sched_request r = {.id = 1, .n_prompt = 4, .max_tokens = 10, .stop_ids = stops, .n_stop_ids = 1};
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
    open_with(small());
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
    open_with(small());
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
    open_with(small());
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
    qn_sched_config c = small();
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
    qn_sched_config c = small();
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
    qn_sched_config c = small();
    c.max_step_seconds = 0.010;
    open_with(c);
    qn_sched_set_step_time(sched, &(qn_step_time_model){0.001, 0.001, 0.0001});
    add(1, 16, 30);
    // 1 ms + r rows of 1 ms + r (r + 1) / 2 keys of 0.1 ms: seven rows take 10.8 ms, six 9.1.
    assert_true(plan(0));
    assert_rows(0, 0, 1, 0, 6, 0);
    assert_true(fabs(qn_sched_plan_keys(sched, plans[0]) - 21) < 1e-9);
    commit(0, 5);
    // No time at all: a block's worth for the first prompt, nothing for the next.
    qn_sched_set_step_time(sched, &(qn_step_time_model){1, 0.001, 0});
    add(2, 16, 30);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 1);
    assert_rows(0, 0, 1, 6, 4, 0);
    commit(0, 5);
    // A model that makes no sense bounds nothing.
    qn_sched_set_step_time(sched, &(qn_step_time_model){(double)NAN, -1, (double)INFINITY});
    assert_true(plan(0));
    assert_rows(0, 0, 1, 10, 6, 1);
    assert_rows(0, 1, 2, 0, 10, 0);
    commit(0, 5);
    // Streams run whatever they cost.
    qn_sched_set_step_time(sched, &(qn_step_time_model){1, 1, 0});
    assert_true(plan(0));
    assert_rows(0, 0, 1, 16, 1, 1);
    assert_rows(0, 1, 2, 10, 4, 0);
}

static void keys_of_groups_are_averaged_by_layers(void **state) {
    (void)state;
    qn_sched_config c = small();
    c.n_groups = 2;
    c.groups[0].n_layers = 1;
    c.groups[1] = (qn_kv_group){.kind = QN_KV_WINDOW, .window = 3, .n_layers = 3};
    c.n_blocks[1] = 64;
    open_with(c);
    add(1, 5, 5);
    assert_true(plan(0));
    // full: 1+2+3+4+5 = 15; window: 1+2+3+3+3 = 12.
    assert_true(fabs(qn_sched_plan_keys(sched, plans[0]) - (15 + 3 * 12) / 4.0) < 1e-9);
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
    qn_sched_config c = small();
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

// ---- blocks ----

static void streams_do_not_overflow_a_smaller_plan(void **state) {
    (void)state;
    open_with(small());
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

static void the_last_to_come_is_preempted(void **state) {
    (void)state;
    qn_sched_config c = small();
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
    qn_sched_config c = small();
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
    qn_sched_config c = small();
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
    qn_sched_config c = small();
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
    qn_sched_config c = small();
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
    qn_sched_config c = small();
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
    qn_sched_config c = small();
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

static void the_window_gives_blocks_back(void **state) {
    (void)state;
    qn_sched_config c = small();
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
    qn_sched_config c = small();
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
    qn_sched_config c = small();
    c.groups[0] = (qn_kv_group){.kind = QN_KV_WINDOW, .window = 6};
    c.n_blocks[0] = 7; // 13 positions, the window and two chunks of four, touch four blocks
    c.long_prefill_threshold = 4;
    open_with(c);
    add(1, 40, 5);
    add(2, 3, 5);
    add(3, 3, 5);
    add(4, 3, 5);
    assert_true(plan(0));
    assert_int_equal(plans[0]->n_seqs, 4); // and not ten blocks for the first alone
}

static void waiting_for_a_window_ends(void **state) {
    (void)state;
    qn_sched_config c = small();
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

// ---- events ----

// ---- blocks that are shared ----

static qn_sched_config cached(void) {
    qn_sched_config c = small();
    c.enable_prefix_caching = true;
    return c;
}
static void run_to_the_end(void) {
    while (plan(0)) commit(0, 7);
    assert_int_equal(stats().blocks_used[0], 0);
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
    open_with(small());
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
    open_with(small());
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

static void who_would_be_thrown_out_again_waits(void **state) {
    (void)state;
    for (int32_t overcommit = 0; overcommit <= 1000; overcommit += 1000) {
        qn_sched_config c = small();
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

static void events_that_are_not_taken_stop_the_steps(void **state) {
    (void)state;
    qn_sched_config c = small();
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
    assert_true(steps >= 3 && steps <= 8);
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
    qn_sched_config c = small();
    c.max_seqs = 1;
    c.max_waiting = 2;
    open_with(c);
    int added = 0;
    qn_sched_request r = {.id = 1, .n_prompt = 1, .max_tokens = 1};
    for (; added < 100 && add_request(r) == QN_OK; added++, r.id++) {
        assert_true(qn_sched_abort(sched, r.id));
        check_all();
    }
    assert_true(added >= 3 && added < 10);
    assert_int_equal(add_request(r), QN_ERR_BUSY);
    take();
    assert_int_equal(n_events, added);
    add(r.id, 1, 1);
}

// ---- memory ----

static void a_steady_step_allocates_nothing(void **state) {
    (void)state;
    qn_sched_config c = small();
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
    qn_sched_config c = small();
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
    assert_int_equal(qn_sched_add(sched, &r, 0, NULL), QN_OK);
    n_allocations = 0;
    assert_null(qn_sched_make_plan(sched));
}

#define TEST(f) cmocka_unit_test_teardown(f, close_it)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(bad_configurations),
        TEST(bad_requests),
        TEST(what_can_never_fit_is_refused_with_numbers),
        TEST(a_full_queue_is_busy),
        TEST(a_prompt_in_chunks_then_tokens),
        TEST(stop_ids_and_min_tokens),
        TEST(looking_ahead),
        TEST(the_last_token_is_known_ahead),
        TEST(aborts_in_every_state),
        TEST(failures),
        TEST(streams_first_then_the_prompt_takes_the_rest),
        TEST(more_slots_than_rows),
        TEST(the_step_time_bounds_prompts_only),
        TEST(keys_of_groups_are_averaged_by_layers),
        TEST(a_smaller_plan_is_filled_as_far_as_it_goes),
        TEST(streams_do_not_overflow_a_smaller_plan),
        TEST(the_last_to_come_is_preempted),
        TEST(priority_decides_who_is_preempted),
        TEST(preempted_while_in_a_step),
        TEST(blocks_on_their_way_back_are_waited_for),
        TEST(no_more_are_preempted_than_needed),
        TEST(after_four_preemptions_never_again),
        TEST(a_big_waiter_is_overtaken_but_not_for_ever),
        TEST(the_window_gives_blocks_back),
        TEST(a_window_smaller_than_its_cache_takes_any_length),
        TEST(a_long_prompt_in_a_window_asks_only_for_the_window),
        TEST(waiting_for_a_window_ends),
        TEST(a_prompt_is_found_again),
        TEST(outputs_are_found_by_the_next_turn),
        TEST(tenants_and_adapters_do_not_share),
        TEST(who_does_not_want_cached_rows_computes_all),
        TEST(the_oldest_tail_is_evicted_first),
        TEST(a_step_that_failed_publishes_nothing),
        TEST(a_fork_shares_the_prompt),
        TEST(a_fork_whose_parent_is_gone_is_computed),
        TEST(who_would_be_thrown_out_again_waits),
        TEST(events_that_are_not_taken_stop_the_steps),
        TEST(ended_requests_that_are_not_taken_stop_the_adds),
        TEST(a_steady_step_allocates_nothing),
        TEST(each_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
