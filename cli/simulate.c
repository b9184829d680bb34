// SPDX-License-Identifier: Apache-2.0
// quern simulate: the scheduler under made-up traffic, to check it and to plan capacity.
#include "cli/commands.h"
#include "cli/flags.h"

#include "base/checked.h"
#include "base/os.h"
#include "tools/scheduler_check.h"
#include "tools/simulate.h"

#include <inttypes.h>
#include <stdio.h>

static int check(uint64_t seed, int64_t seeds, int64_t steps, int lookahead) {
    qn_scheduler_check_totals t = {0};
    char message[512];
    uint64_t start = qn_os_now_ns();
    for (int64_t i = 0; i < seeds; i++) {
        uint64_t at = seed + (uint64_t)i;
        if (qn_scheduler_check(at, steps, lookahead, &t, message, sizeof message)) continue;
        qn_cli_error("seed %" PRIu64 ": %s", at, message);
        fprintf(stderr, "again: quern simulate --check --seed %" PRIu64 " --seeds 1 --steps %" PRId64,
                at, steps);
        if (lookahead >= 0) fprintf(stderr, " --lookahead %d", lookahead);
        fprintf(stderr, "\n");
        return 1;
    }
    double seconds = (double)(qn_os_now_ns() - start) * 1e-9;
    printf("%" PRId64 " seeds, %" PRIu64 " steps, no invariant broken (%.1f s)\n", seeds, t.steps,
           seconds);
    printf("%" PRIu64 " requests, %" PRIu64 " refused; ended: stop %" PRIu64 ", length %" PRIu64
           ", abort %" PRIu64 ", error %" PRIu64 "\n",
           t.requests, t.refused, t.stops, t.lengths, t.aborts, t.errors);
    printf("%" PRIu64 " tokens, %" PRIu64 " preemptions, %" PRIu64 " prompt tokens of %" PRIu64
           " from the prefix cache, %" PRIu64 " blocks evicted, %" PRIu64 " forks\n",
           t.tokens, t.preemptions, t.prefix_hits, t.prefix_queries, t.evictions, t.forks);
    return 0;
}

typedef struct row {
    const char *name;
    const qn_simulate_spread *spread;
} row;

static void print_text(const qn_simulate_result *r) {
    printf("requests   %" PRId64 " completed, %" PRId64 " refused, %.2f/s\n", r->completed, r->refused,
           r->requests_per_second);
    printf("tokens     %.1f/s of output, %.1f/s of input\n", r->output_per_second,
           r->input_per_second);
    printf("time       %.3f s, %" PRId64 " steps, busy %.1f%%\n", r->seconds, r->steps,
           100 * r->busy);
    printf("batch      %.1f running in the mean, at most %d waiting\n", r->mean_running,
           r->max_waiting);
    printf("KV cache   %.1f%% used in the mean, %.1f%% at most; prefix hits %.1f%%\n",
           100 * r->mean_kv_used, 100 * r->max_kv_used, 100 * r->prefix_hit);
    printf("preempted  %" PRId64 " times, %.2f%% of the rows computed again\n\n", r->preemptions,
           100 * r->recomputed);
    printf("%-10s %10s %10s %10s %10s %10s\n", "ms", "mean", "p50", "p90", "p99", "max");
    const row rows[] = {
        {"TTFT", &r->ttft}, {"TPOT", &r->tpot}, {"queue", &r->queue}, {"latency", &r->latency}};
    for (size_t i = 0; i < QN_COUNT(rows); i++) {
        const qn_simulate_spread *s = rows[i].spread;
        printf("%-10s %10.2f %10.2f %10.2f %10.2f %10.2f\n", rows[i].name, 1e3 * s->mean,
               1e3 * s->p50, 1e3 * s->p90, 1e3 * s->p99, 1e3 * s->max);
    }
}

static void print_json(const qn_simulate_result *r) {
    printf("{\"completed\": %" PRId64 ", \"refused\": %" PRId64 ", \"steps\": %" PRId64
           ", \"duration\": %.9g, \"request_throughput\": %.9g, \"output_throughput\": %.9g, "
           "\"input_throughput\": %.9g, \"busy\": %.9g, \"mean_running\": %.9g, "
           "\"max_waiting\": %d, \"mean_kv_used\": %.9g, \"max_kv_used\": %.9g, "
           "\"preemptions\": %" PRId64 ", \"recomputed\": %.9g, \"prefix_hit_rate\": %.9g",
           r->completed, r->refused, r->steps, r->seconds, r->requests_per_second,
           r->output_per_second, r->input_per_second, r->busy, r->mean_running, r->max_waiting,
           r->mean_kv_used, r->max_kv_used, r->preemptions, r->recomputed, r->prefix_hit);
    const row rows[] = {
        {"ttft", &r->ttft}, {"tpot", &r->tpot}, {"queue", &r->queue}, {"e2el", &r->latency}};
    for (size_t i = 0; i < QN_COUNT(rows); i++) {
        const qn_simulate_spread *s = rows[i].spread;
        printf(", \"mean_%s_ms\": %.9g, \"p50_%s_ms\": %.9g, \"p90_%s_ms\": %.9g, "
               "\"p99_%s_ms\": %.9g, \"max_%s_ms\": %.9g",
               rows[i].name, 1e3 * s->mean, rows[i].name, 1e3 * s->p50, rows[i].name, 1e3 * s->p90,
               rows[i].name, 1e3 * s->p99, rows[i].name, 1e3 * s->max);
    }
    printf("}\n");
}

static int usage_error(void) {
    fprintf(stderr, "quern: see 'quern simulate --help'\n");
    return 2;
}

int qn_cli_simulate(int argc, char **argv) {
    bool checking = false, json = false, prefix_caching = true;
    int64_t seed = 1, seeds = 100, steps = 1000, lookahead = -1;
    int64_t input_len = 512, output_len = 128, num_prompts = 1000, shared_prefix = 0;
    int64_t num_blocks = 0, block_size = 16, max_num_seqs = 256, max_rows = 2048, max_len = 0;
    int64_t max_waiting = 0, max_waiting_tokens = 0, long_prefill = 0, overcommit = 0;
    double rate = 0, spread = 0, step_base = 10, per_row = 50, per_key = 0, per_context = 0, max_step = 0;
    double slowdown = 0, short_prompt = 100;
    const qn_flag flags[] = {
        {"check", 0, QN_FLAG_BOOL, &checking, NULL, "check every invariant at each step", 0, 0},
        {"seed", 0, QN_FLAG_INT, &seed, "N", "the first seed; the same gives the same run", 0,
         0x1p62},
        {"seeds", 0, QN_FLAG_INT, &seeds, "N", "--check: runs, each with a seed of its own", 1,
         1e9},
        {"steps", 0, QN_FLAG_INT, &steps, "N", "--check: steps of each run", 1, 1e9},
        {"lookahead", 0, QN_FLAG_INT, &lookahead, "N",
         "steps planned before results are in: 0, 1, -1 (default; --check: both, else 0)", -1, 1},
        {"rate", 0, QN_FLAG_FLOAT, &rate, "R", "requests per second (0: all at once)", 0, 1e9},
        {"num-prompts", 0, QN_FLAG_INT, &num_prompts, "N", "requests", 1, 1e7},
        {"input-len", 0, QN_FLAG_INT, &input_len, "N", "tokens of a prompt", 1, 1 << 24},
        {"output-len", 0, QN_FLAG_INT, &output_len, "N", "tokens of output", 1, 1 << 24},
        {"range-ratio", 0, QN_FLAG_FLOAT, &spread, "R", "lengths vary by this share, both ways", 0,
         1},
        {"shared-prefix", 0, QN_FLAG_INT, &shared_prefix, "N",
         "tokens that all prompts begin with", 0, 1 << 24},
        {"step-base-ms", 0, QN_FLAG_FLOAT, &step_base, "MS", "time of a step, whatever it holds", 0,
         1e6},
        {"step-per-row-us", 0, QN_FLAG_FLOAT, &per_row, "US", "and for each token", 0, 1e9},
        {"step-per-key-ns", 0, QN_FLAG_FLOAT, &per_key, "NS", "and for each key attended", 0, 1e9},
        {"step-per-context-ns", 0, QN_FLAG_FLOAT, &per_context, "NS",
         "and for each key that a sequence's tokens see, once", 0, 1e9},
        {"num-blocks", 0, QN_FLAG_INT, &num_blocks, "N", "KV blocks (0: enough for all)", 0,
         1 << 28},
        {"block-size", 0, QN_FLAG_INT, &block_size, "N", "tokens of a KV block", 1, 256},
        {"max-num-seqs", 0, QN_FLAG_INT, &max_num_seqs, "N", "sequences in a batch", 1, 1 << 16},
        {"max-num-batched-tokens", 0, QN_FLAG_INT, &max_rows, "N", "tokens of a step", 1, 1 << 22},
        {"max-model-len", 0, QN_FLAG_INT, &max_len, "N", "tokens of a sequence (0: as needed)", 0,
         1 << 26},
        {"max-step-ms", 0, QN_FLAG_FLOAT, &max_step, "MS", "time that prompts may fill (0: any)", 0,
         1e6},
        {"max-decode-slowdown", 0, QN_FLAG_FLOAT, &slowdown, "F",
         "most that long prompts slow down running streams (0: any)", 0, 1e6},
        {"short-prompt-ms", 0, QN_FLAG_FLOAT, &short_prompt, "MS",
         "prompts that take less in all are not held back for streams", 0, 1e6},
        {"long-prefill-token-threshold", 0, QN_FLAG_INT, &long_prefill, "N",
         "most tokens of one prompt in a step (0: any)", 0, 1 << 30},
        {"max-num-queued-reqs", 0, QN_FLAG_INT, &max_waiting, "N",
         "requests that may wait; more are refused (0: all)", 0, 1 << 22},
        {"max-num-queued-tokens", 0, QN_FLAG_INT, &max_waiting_tokens, "N",
         "their prompt tokens (0: any)", 0, 0x1p62},
        {"enable-prefix-caching", 0, QN_FLAG_BOOL, &prefix_caching, NULL,
         "share blocks of equal prompts", 0, 0},
        {"overcommit", 0, QN_FLAG_INT, &overcommit, "PERCENT",
         "admit this much more than the KV cache will likely hold", 0, 1000},
        {"json", 0, QN_FLAG_BOOL, &json, NULL, "one JSON object", 0, 0},
    };
    const qn_flag_set set = {
        .command = "simulate",
        .usage = "quern simulate [options]",
        .about = "Drives the scheduler with made-up traffic and a model of how long a step takes\n"
                 "(base + tokens + keys attended); no model is loaded and nothing is computed.\n"
                 "With --check it looks for broken invariants instead, and prints the seed.",
        .examples = "  quern simulate --rate 20 --input-len 1000 --output-len 200 --num-blocks 8000\n"
                    "  quern simulate --check --seeds 1000 --steps 1000\n",
        .flags = flags,
        .n_flags = QN_COUNT(flags),
    };
    size_t n = 0;
    int rc = qn_flags_parse(&set, argc, argv, NULL, 0, &n);
    if (rc >= 0) return rc;
    if (checking) return check((uint64_t)seed, seeds, steps, (int)lookahead);
    qn_simulate_options o = {
        .scheduler = {.max_seqs = (int32_t)max_num_seqs,
                      .max_rows = (int32_t)max_rows,
                      .max_len = (int32_t)max_len,
                      .block_size = (int32_t)block_size,
                      .n_groups = 1,
                      .groups = {{.kind = QN_KV_FULL, .n_layers = 1}},
                      .n_blocks = {(int32_t)num_blocks},
                      .max_waiting = (int32_t)max_waiting,
                      .max_waiting_tokens = max_waiting_tokens,
                      .long_prefill_threshold = (int32_t)long_prefill,
                      .max_step_seconds = 1e-3 * max_step,
                      .max_decode_slowdown = slowdown,
                      .short_prompt_seconds = 1e-3 * short_prompt,
                      .overcommit_percent = (int32_t)overcommit,
                      .enable_prefix_caching = prefix_caching},
        .step_time = {1e-3 * step_base, 1e-6 * per_row, 1e-9 * per_key, 1e-9 * per_context},
        .lookahead = lookahead > 0,
        .seed = (uint64_t)seed,
        .num_prompts = num_prompts,
        .rate = rate,
        .input_len = (int32_t)input_len,
        .output_len = (int32_t)output_len,
        .length_spread = spread,
        .shared_prefix = (int32_t)shared_prefix,
    };
    qn_simulate_result result;
    qn_error err = {0};
    qn_status st = qn_simulate(&o, &result, &err);
    if (st != QN_OK) {
        qn_cli_error("%s", err.message);
        return st == QN_ERR_INVALID ? usage_error() : 1;
    }
    if (json) {
        print_json(&result);
    } else {
        print_text(&result);
    }
    return 0;
}
