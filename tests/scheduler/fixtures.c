// SPDX-License-Identifier: Apache-2.0
#include "tests/scheduler/fixtures.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

// ---- allocations are counted, and the nth fails ----

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void __real_free(void *p);
void __wrap_free(void *p);

long n_allocations, failing_allocation = -1;
static long n_live_allocations;

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

qn_sched *sched;
qn_step_plan *plans[3];
qn_sched_row rows[64];
qn_sched_event events[64];
size_t n_events;
double now;
static int32_t block_size;

qn_sched_config small_config(void) {
    return (qn_sched_config){.max_seqs = 4,
                             .max_rows = 16,
                             .max_len = 64,
                             .block_size = 4,
                             .n_groups = 1,
                             .n_blocks = {64},
                             .overcommit_percent = 1000, // no forecast: who fits now is let in
                             .max_waiting = 8};
}

void open_with(qn_sched_config config) {
    qn_error err = {0};
    assert_int_equal(qn_sched_create(&config, &sched, &err), QN_OK);
    for (int i = 0; i < 3; i++) {
        plans[i] = qn_sched_make_plan(sched);
        assert_non_null(plans[i]);
    }
    now = 1;
    n_events = 0;
    block_size = config.block_size;
}

int close_it(void **state) {
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

void check_all(void) {
    const char *reason = "";
    if (!qn_sched_check(sched, &reason)) fail_msg("%s", reason);
}

const int32_t tokens[100] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18};

qn_status add_request(qn_sched_request r) {
    if (!r.prompt) r.prompt = tokens;
    if (r.adapter == 0) r.adapter = -1;
    return qn_sched_add(sched, &r, now, NULL);
}
void add(uint64_t id, int32_t n_prompt, int32_t max_tokens) {
    assert_int_equal(
        add_request((qn_sched_request){.id = id, .n_prompt = n_prompt, .max_tokens = max_tokens}),
        QN_OK);
    check_all();
}
bool plan(int i) {
    now += 1;
    static uint64_t last_step;
    bool planned = qn_sched_plan(sched, now, plans[i]);
    check_all();
    if (planned) {
        assert_true(plans[i]->step == last_step + 1 || plans[i]->step == 0);
        last_step = plans[i]->step;
        const char *reason = "";
        const int32_t n_blocks[QN_MAX_KV_GROUPS] = {1 << 20, 1 << 20, 1 << 20, 1 << 20};
        if (!qn_step_plan_valid(plans[i], block_size, n_blocks, 4000, &reason)) {
            fail_msg("%s", reason);
        }
    }
    return planned;
}
void take(void) {
    n_events = qn_sched_take_events(sched, events, 64);
    check_all();
}
// Each logit row gives `id`.
void commit(int i, int32_t id) {
    now += 1;
    for (int32_t r = 0; r < plans[i]->n_logits; r++) rows[r] = (qn_sched_row){id, true};
    qn_sched_commit(sched, plans[i], rows, now);
    check_all();
    take();
}
const qn_plan_seq *seq(int i, int32_t k) {
    assert_true(k < plans[i]->n_seqs);
    return &qn_plan_seqs(plans[i])[k];
}
qn_sched_seq_info info(uint64_t id) {
    qn_sched_seq_info x;
    assert_true(qn_sched_seq(sched, id, &x));
    return x;
}
qn_sched_stats stats(void) {
    qn_sched_stats x;
    qn_sched_stats_get(sched, &x);
    return x;
}
void assert_rows(int i, int32_t k, uint64_t id, int32_t position, int32_t len, int32_t n_logits) {
    assert_int_equal(qn_sched_slot_id(sched, seq(i, k)->slot), id);
    assert_int_equal(seq(i, k)->position, position);
    assert_int_equal(seq(i, k)->query_len, len);
    assert_int_equal(seq(i, k)->n_logits, n_logits);
}
void assert_token(size_t at, uint64_t id, int32_t token, int32_t row) {
    assert_true(at < n_events);
    assert_int_equal(events[at].kind, QN_SCHED_TOKEN);
    assert_int_equal(events[at].id, id);
    assert_int_equal(events[at].token, token);
    assert_int_equal(events[at].logit_row, row);
    assert_int_equal(events[at].stop_id, -1);
}
void assert_finished(size_t at, uint64_t id, qn_finish finish, int32_t stop_id) {
    assert_true(at < n_events);
    assert_int_equal(events[at].kind, QN_SCHED_FINISHED);
    assert_int_equal(events[at].id, id);
    assert_int_equal(events[at].finish, finish);
    assert_int_equal(events[at].stop_id, stop_id);
}
void run_to_the_end(void) {
    while (plan(0)) commit(0, 7);
    assert_int_equal(stats().blocks_used[0], 0);
}
