// SPDX-License-Identifier: Apache-2.0
// What a load would see: the real scheduler under made-up traffic, with a model of how long a step
// takes instead of an engine. Nothing is computed, so a day is simulated in seconds, and for machines
// that are not there.
#ifndef QN_TOOLS_SIMULATE_H
#define QN_TOOLS_SIMULATE_H

#include "base/status.h"
#include "scheduler/scheduler.h"

typedef struct qn_simulate_options {
    // max_seqs, max_rows, max_len, block_size, groups, n_blocks and the rest; n_blocks[0] 0: enough
    // for max_seqs of the longest requests. max_waiting is taken from num_prompts if it is 0.
    qn_sched_config scheduler;
    qn_step_time_model step_time; // seconds; at least one is above 0
    int lookahead;                // 0 or 1
    uint64_t seed;
    int64_t num_prompts;          // 1..10,000,000
    double rate;                  // requests per second, arrivals at random (Poisson); 0: all at once
    int32_t input_len, output_len;
    double length_spread; // 0..1: lengths are even between (1 - it) and (1 + it) times the above
    int32_t shared_prefix; // tokens that all prompts begin with, within input_len
} qn_simulate_options;

typedef struct qn_simulate_spread { // seconds
    double mean, p50, p90, p99, max;
} qn_simulate_spread;

typedef struct qn_simulate_result {
    int64_t completed, refused, steps;
    double seconds; // from the first arrival to the last token
    qn_simulate_spread ttft, tpot, queue, latency; // queue: until first admitted
    double requests_per_second, output_per_second, input_per_second;
    double busy;         // share of the time in which a step ran
    double mean_running, mean_kv_used; // per step; KV: share of the blocks of group 0
    double max_kv_used;
    int32_t max_waiting;
    int64_t preemptions;
    double recomputed; // share of all rows
    double prefix_hit; // share of prompt tokens looked up
} qn_simulate_result;

// QN_ERR_INVALID: malformed options; QN_ERR_LIMIT: every request is refused; QN_ERR_NOMEM; else
// the scheduler's own.
qn_status qn_simulate(const qn_simulate_options *options, qn_simulate_result *result,
                      qn_error *err);

#endif
