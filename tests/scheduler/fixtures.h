// SPDX-License-Identifier: Apache-2.0
// What the scheduler's unit tests share: one scheduler with three plans, allocations that are
// counted and made to fail, and checks of what was planned and told. Every call is followed by
// qn_sched_check.
#ifndef QN_TESTS_SCHEDULER_FIXTURES_H
#define QN_TESTS_SCHEDULER_FIXTURES_H

#include "scheduler/scheduler.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

extern qn_sched *sched;
extern qn_step_plan *plans[3];
extern qn_sched_row rows[64];
extern qn_sched_event events[64]; // those of the last take
extern size_t n_events;
extern double now;
extern const int32_t tokens[100]; // what prompts hold

// malloc and calloc calls so far; the one of this number fails (-1: none).
extern long n_allocations, failing_allocation;

qn_sched_config small_config(void); // four slots, 16 rows, blocks of four tokens, no forecast
void open_with(qn_sched_config config);
int close_it(void **state); // teardown; -1: something leaked
#define TEST(f) cmocka_unit_test_teardown(f, close_it)

void check_all(void);
qn_status add_request(qn_sched_request r); // prompt NULL: tokens; adapter 0: none
void add(uint64_t id, int32_t n_prompt, int32_t max_tokens);
bool plan(int i);
void take(void);
void commit(int i, int32_t id);  // each logit row gives id; takes the events
void run_to_the_end(void);       // sevens; nothing is used then

const qn_plan_seq *seq(int i, int32_t k); // the k-th of plans[i]
qn_sched_seq_info info(uint64_t id);
qn_sched_stats stats(void);
void assert_rows(int i, int32_t k, uint64_t id, int32_t position, int32_t len, int32_t n_logits);
void assert_token(size_t at, uint64_t id, int32_t token, int32_t row);
void assert_finished(size_t at, uint64_t id, qn_finish finish, int32_t stop_id);

#endif
