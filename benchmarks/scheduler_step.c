// SPDX-License-Identifier: Apache-2.0
// Time of one scheduler step (plan, commit, take the events) with many running sequences. No model:
// each row's result is an id that was made up.
//
//   scheduler_step [running [tokens of a prompt [steps]]]      default: 1024 512 2000
//
// "decode": all run, nobody comes or goes. "turnover": each ends after 64 tokens, a new one comes
// for it, and 1,000 more wait. "short of blocks": short prompts and 512 tokens each, with blocks
// for half of that. Each without and with the prefix cache, in which nothing is ever found.
#include "base/os.h"
#include "scheduler/scheduler.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct bench {
    qn_sched *s;
    qn_step_plan *plans[2];
    qn_sched_row *rows;
    qn_sched_event *events;
    size_t max_events;
    int32_t *prompt;
    int32_t n_prompt, max_tokens;
    uint64_t next_id;
    double now;
} bench;

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool add(bench *b) {
    b->prompt[0] = (int32_t)(b->next_id & INT32_MAX); // no prompt begins like another
    qn_sched_request r = {.id = ++b->next_id,
                          .prompt = b->prompt,
                          // Different lengths, so that not all need a block in the same step.
                          .n_prompt = b->n_prompt - (int32_t)(b->next_id % 16),
                          .max_tokens = b->max_tokens - (int32_t)(b->next_id % 16),
                          .adapter = -1};
    return qn_sched_add(b->s, &r, b->now, NULL) == QN_OK;
}

// Commits one step, takes its events, adds a request for each that ended. Returns seconds without
// the adds, which a server does at another time.
static double finish_step(bench *b, const qn_step_plan *plan, bool refill) {
    uint64_t begin = qn_os_now_ns();
    for (int32_t i = 0; i < plan->n_logits; i++) b->rows[i] = (qn_sched_row){1 + i % 1000, true};
    qn_sched_commit(b->s, plan, b->rows, b->now);
    size_t n = qn_sched_take_events(b->s, b->events, b->max_events);
    uint64_t end = qn_os_now_ns();
    for (size_t i = 0; i < n && refill; i++) {
        if (b->events[i].kind == QN_SCHED_FINISHED) add(b);
    }
    return 1e-9 * (double)(end - begin);
}

static int run(const char *name, int32_t running, int32_t n_prompt, int32_t steps, int32_t max_tokens,
               double block_share, int lookahead, bool caching) {
    int32_t waiting = max_tokens < steps ? 1000 : 0;
    int64_t per_seq = (n_prompt + max_tokens) / 16 + 1;
    qn_sched_config c = {.max_seqs = running,
                         .max_rows = running * 8,
                         .max_len = n_prompt + max_tokens + 1,
                         .block_size = 16,
                         .enable_prefix_caching = caching,
                         .n_groups = 1,
                         .n_blocks = {(int32_t)((double)(per_seq * running) * block_share)},
                         .max_waiting = running + 2000};
    bench b = {.n_prompt = n_prompt, .max_tokens = max_tokens};
    qn_error err = {0};
    if (qn_sched_create(&c, &b.s, &err) != QN_OK) {
        fprintf(stderr, "scheduler_step: %s\n", err.message);
        return 1;
    }
    b.max_events = (size_t)running * 8;
    b.plans[0] = qn_sched_make_plan(b.s);
    b.plans[1] = qn_sched_make_plan(b.s);
    b.rows = calloc((size_t)running, sizeof *b.rows);
    b.events = calloc(b.max_events, sizeof *b.events);
    b.prompt = calloc((size_t)n_prompt, sizeof *b.prompt);
    double *times = calloc((size_t)steps, sizeof *times);
    if (!b.plans[0] || !b.plans[1] || !b.rows || !b.events || !b.prompt || !times) return 1;
    for (int32_t i = 0; i < running + waiting; i++) add(&b);

    int in_flight = 0, first = 0;
    int64_t rows = 0, outputs = 0, computed = 1;
    int32_t warm_up = 16 + running * n_prompt / c.max_rows, measured = 0;
    for (int32_t step = 0; measured < steps; step++) {
        double seconds = 0;
        bool planned = true;
        while (planned && in_flight <= lookahead) {
            uint64_t begin = qn_os_now_ns();
            b.now += 1e-3;
            qn_step_plan *plan = b.plans[(first + in_flight) & 1];
            planned = qn_sched_plan(b.s, b.now, plan);
            seconds += 1e-9 * (double)(qn_os_now_ns() - begin);
            if (planned) in_flight++;
        }
        if (in_flight == 0) break;
        computed += b.plans[first]->n_rows;
        if (step >= warm_up) {
            rows += b.plans[first]->n_rows;
            outputs += b.plans[first]->n_logits;
        }
        seconds += finish_step(&b, b.plans[first], waiting > 0);
        first ^= 1;
        in_flight--;
        if (step >= warm_up) times[measured++] = seconds;
    }
    qn_sched_stats st;
    qn_sched_stats_get(b.s, &st);
    qsort(times, (size_t)measured, sizeof *times, compare);
    double sum = 0;
    for (int32_t i = 0; i < measured; i++) sum += times[i];
    if (measured > 0) {
        printf("%-16s look-ahead %d%s: mean %5.1f us, median %5.1f, p99 %5.1f, worst %5.1f; rows %.0f, "
               "outputs %.0f, running %d, waiting %d, preemptions %llu, computed again %.1f%%\n",
               name, lookahead, caching ? ", prefix cache" : "", 1e6 * sum / measured, 1e6 * times[measured / 2],
               1e6 * times[measured - 1 - measured / 100], 1e6 * times[measured - 1],
               (double)rows / measured, (double)outputs / measured, st.running, st.waiting, (unsigned long long)st.preemptions,
               100.0 * (double)st.recomputed_tokens / (double)computed);
    }
    free(times);
    free(b.prompt);
    free(b.events);
    free(b.rows);
    free(b.plans[0]);
    free(b.plans[1]);
    qn_sched_destroy(b.s);
    return 0;
}

int main(int argc, char **argv) {
    int32_t v[3] = {1024, 512, 2000};
    for (int i = 1; i < argc && i < 4; i++) {
        long value = strtol(argv[i], NULL, 10);
        if (value < 1 || value > 1 << 20 || (i == 1 && value > 1 << 16)) {
            fprintf(stderr, "usage: scheduler_step [running [tokens of a prompt [steps]]]\n");
            return 2;
        }
        v[i - 1] = (int32_t)value;
    }
    int32_t prompt = v[1] < 17 ? 17 : v[1];
    for (int i = 0; i < 4; i++) {
        int lookahead = i / 2;
        bool caching = i % 2;
        if (run("decode", v[0], prompt, v[2], v[2] * 2 + 100, 1.1, lookahead, caching) ||
            run("turnover", v[0], prompt, v[2], 64, 1.1, lookahead, caching) ||
            run("short of blocks", v[0], 64, v[2], 512, 0.5, lookahead, caching)) {
            return 1;
        }
    }
    return 0;
}
