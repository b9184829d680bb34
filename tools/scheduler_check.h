// SPDX-License-Identifier: Apache-2.0
// A simulated engine around the real scheduler: random traffic, a fake device with a shadow of its
// KV cache, a fake model, a fake clock, all from one seed. After each call it asks the scheduler to
// check itself, and checks from outside, knowing nothing of the scheduler's insides:
//  - plans are well formed and within the budgets;
//  - each KV cell that a row reads was written for that position after the row's own history: the
//    same salt and the same tokens, up to it; a block that is written to is in nobody else's table;
//  - each request gets the tokens that it gets alone (the model's next token is a hash of the
//    tokens that the row can see), each once, from the right row, and exactly one terminal event,
//    the right one;
//  - nobody starves, nobody is preempted more than four times, nothing is left over at the end.
#ifndef QN_TOOLS_SCHEDULER_CHECK_H
#define QN_TOOLS_SCHEDULER_CHECK_H

#include <stdbool.h>
#include <stdint.h>

typedef struct qn_scheduler_check_totals { // added up over runs
    uint64_t steps, requests, tokens, preemptions, aborts, errors, stops, lengths, refused;
    uint64_t lookahead_steps; // planned while another was uncommitted
    uint64_t stalled;         // running sequences that a step left out
    uint64_t overtakes;
    uint64_t cached_tokens, prefix_queries, prefix_hits, evictions, forks, copies;
    uint64_t returned_hits; // sequences that came back from a preemption and found KV of theirs
    uint64_t recomputed;
    uint64_t shared_steps;  // prompts beside streams, and a limit on how much they slow them down
    uint64_t prompt_logits; // rows inside prompts that had logits
} qn_scheduler_check_totals;

// One run: at least `steps` committed steps, and then until all is finished. lookahead: 0 or 1 steps
// planned before the results of the one before are in; -1: as the seed will have it. False: something
// is wrong; message says what and at which call. totals: added to.
bool qn_scheduler_check(uint64_t seed, int64_t steps, int lookahead,
                        qn_scheduler_check_totals *totals, char *message, int message_size);

#endif
