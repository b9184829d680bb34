// SPDX-License-Identifier: Apache-2.0
// Time of one scheduler step (plan, commit, take the events) with many running sequences. No model:
// each row's result is an id that was made up.
//
//   scheduler_step [running [steps [traffic]]]      default: 1024 8000, and all of these:
//
//   decode            all run, nobody comes or goes; 512 tokens of prompt
//   turnover          prompts of about 200 tokens, outputs of about 200, a new one for each that
//                     ends: a full batch of chats
//   prompts only      prompts of 512 tokens, outputs of 64, 8 rows for each that runs: most blocks
//                     that a step can turn over
//   short of blocks   prompts of 64 tokens, outputs of 512, and blocks for half of that
//
// Each with look-ahead 0 and 1, without and with the prefix cache. No prompt is like another, so
// the cache finds nothing and only costs. The two take turns of some hundred steps, so that what
// else the machine does meets both. mean: without the slowest percent of the steps. best: the
// median of the fastest turn; the percentage at the end compares these.
#include "base/os.h"
#include "scheduler/scheduler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TURNS = 40 };

typedef struct traffic {
    const char *name;
    int32_t n_prompt, max_tokens, rows_per_seq;
    double block_share; // of what all that run need in the end
    bool refill;
} traffic;

typedef struct bench {
    qn_sched *s;
    qn_step_plan *plans[2];
    qn_sched_row *rows;
    qn_sched_event *events;
    size_t max_events;
    int32_t *prompt;
    const traffic *traffic;
    uint64_t next_id;
    double now;
    int lookahead, in_flight, first;
    // Of the steps that are measured.
    double *times;
    int32_t n_times;
    double best; // median of the fastest turn; 0: none yet
    int64_t n_rows, n_logits, all_rows;
    uint64_t evictions; // before them
} bench;

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool add(bench *b) {
    b->prompt[0] = (int32_t)(b->next_id & INT32_MAX); // no prompt begins like another
    // Lengths within a quarter, so that not all need a block, or end, in the same step.
    uint64_t id = ++b->next_id, spread = id * 0x9e3779b97f4a7c15u >> 33;
    const traffic *t = b->traffic;
    qn_sched_request r = {.id = id,
                          .prompt = b->prompt,
                          .n_prompt = t->n_prompt - (int32_t)(spread % (uint64_t)(t->n_prompt / 4)),
                          .max_tokens = t->max_tokens -
                                        (int32_t)(spread / 1024 % (uint64_t)(t->max_tokens / 4)),
                          .adapter = -1};
    return qn_sched_add(b->s, &r, b->now, NULL) == QN_OK;
}

// Plans as far as it may, commits one step, takes its events; then adds a request for each that
// ended, which a server does at another time. Returns seconds without that; negative: nothing to
// do.
static double step(bench *b) {
    uint64_t begin = qn_os_now_ns();
    while (b->in_flight <= b->lookahead) {
        b->now += 1e-3;
        if (!qn_sched_plan(b->s, b->now, b->plans[(b->first + b->in_flight) & 1])) break;
        b->in_flight++;
    }
    if (b->in_flight == 0) return -1;
    const qn_step_plan *plan = b->plans[b->first];
    for (int32_t i = 0; i < plan->n_logits; i++) b->rows[i] = (qn_sched_row){1 + i % 1000, true};
    qn_sched_commit(b->s, plan, b->rows, b->now);
    size_t n = qn_sched_take_events(b->s, b->events, b->max_events);
    uint64_t end = qn_os_now_ns();
    b->all_rows += plan->n_rows;
    b->n_rows += plan->n_rows;
    b->n_logits += plan->n_logits;
    b->first ^= 1;
    b->in_flight--;
    for (size_t i = 0; i < n && b->traffic->refill; i++) {
        if (b->events[i].kind == QN_SCHED_FINISHED) add(b);
    }
    return 1e-9 * (double)(end - begin);
}

static void destroy(bench *b) {
    free(b->times);
    free(b->prompt);
    free(b->events);
    free(b->rows);
    free(b->plans[0]);
    free(b->plans[1]);
    qn_sched_destroy(b->s);
}

static bool create(bench *b, const traffic *t, int32_t running, int32_t steps, int lookahead,
                   bool caching) {
    int64_t per_seq = (t->n_prompt + t->max_tokens) / 16 + 1;
    qn_sched_config c = {.max_seqs = running,
                         .max_rows = running * t->rows_per_seq,
                         .max_len = t->n_prompt + t->max_tokens + 1,
                         .block_size = 16,
                         .enable_prefix_caching = caching,
                         .prefix_hash_seed = 1,
                         .n_groups = 1,
                         .n_blocks = {(int32_t)((double)(per_seq * running) * t->block_share)},
                         .max_waiting = running + 2000};
    *b = (bench){.traffic = t, .lookahead = lookahead, .max_events = (size_t)running * 8};
    qn_error err = {0};
    if (qn_sched_create(&c, &b->s, &err) != QN_OK) {
        fprintf(stderr, "scheduler_step: %s\n", err.message);
        return false;
    }
    b->plans[0] = qn_sched_make_plan(b->s);
    b->plans[1] = qn_sched_make_plan(b->s);
    b->rows = calloc((size_t)running, sizeof *b->rows);
    b->events = calloc(b->max_events, sizeof *b->events);
    b->prompt = calloc((size_t)t->n_prompt, sizeof *b->prompt);
    b->times = calloc((size_t)steps, sizeof *b->times);
    if (!b->plans[0] || !b->plans[1] || !b->rows || !b->events || !b->prompt || !b->times) {
        fprintf(stderr, "scheduler_step: out of memory\n");
        return false;
    }
    for (int32_t i = 0; i < running + (t->refill ? 1000 : 0); i++) add(b);
    // Until lengths are mixed and every block has been used.
    int32_t warm_up = 64 + running * t->n_prompt / c.max_rows + (t->refill ? 3 * t->max_tokens : 0);
    for (int32_t i = 0; i < warm_up; i++) step(b);
    qn_sched_stats st;
    qn_sched_stats_get(b->s, &st);
    b->evictions = st.prefix_evictions;
    b->n_rows = b->n_logits = 0;
    return true;
}

static double mean(const double *sorted, int32_t n) {
    double sum = 0;
    for (int32_t i = 0; i < n - n / 100; i++) sum += sorted[i];
    return sum / (n - n / 100);
}

static bool run(const traffic *t, int32_t running, int32_t steps, int lookahead) {
    bench b[2] = {{0}};
    bool ok = true;
    for (int k = 0; k < 2 && ok; k++) ok = create(&b[k], t, running, steps, lookahead, k);
    for (int turn = 0; turn < TURNS && ok; turn++) {
        for (int i = 0; i < 2; i++) {
            bench *x = &b[i ^ (turn & 1)];
            double *own = x->times + x->n_times;
            int32_t n = 0;
            for (double seconds; n < steps / TURNS && (seconds = step(x)) >= 0; n++) {
                own[n] = seconds;
            }
            if (n == 0) continue;
            qsort(own, (size_t)n, sizeof *own, compare);
            if (x->best <= 0 || own[n / 2] < x->best) x->best = own[n / 2];
            x->n_times += n;
        }
    }
    for (int k = 0; k < 2 && ok; k++) {
        bench *x = &b[k];
        if (x->n_times == 0) break;
        int32_t n = x->n_times;
        qn_sched_stats st;
        qn_sched_stats_get(x->s, &st);
        qsort(x->times, (size_t)n, sizeof *x->times, compare);
        printf("%-16s %d %-5s %7.1f %7.1f %7.1f %7.1f %8.1f %7.0f %7.0f %7d %8.1f %8.1f%%",
               t->name, lookahead, k ? "cache" : "-", 1e6 * x->best, 1e6 * mean(x->times, n),
               1e6 * x->times[n / 2], 1e6 * x->times[n - 1 - n / 100], 1e6 * x->times[n - 1],
               (double)x->n_rows / n, (double)x->n_logits / n, st.running,
               (double)(st.prefix_evictions - x->evictions) / n,
               100.0 * (double)st.recomputed_tokens / (double)x->all_rows);
        if (k) {
            printf("  %+.1f%%", 100 * (x->best / b[0].best - 1));
        }
        printf("\n");
    }
    destroy(&b[0]);
    destroy(&b[1]);
    return ok;
}

int main(int argc, char **argv) {
    int32_t v[2] = {1024, 8000};
    for (int i = 1; i < argc && i < 3; i++) {
        long value = strtol(argv[i], NULL, 10);
        if (value < TURNS || value > 1 << 20 || (i == 1 && value > 1 << 16)) {
            fprintf(stderr, "usage: scheduler_step [running [steps [traffic]]]\n");
            return 2;
        }
        v[i - 1] = (int32_t)value;
    }
    const traffic all[] = {
        {"decode", 512, 2 * v[1] + 1000, 8, 1.1, false},
        {"turnover", 232, 232, 8, 1.1, true},
        {"prompts only", 512, 64, 8, 1.1, true},
        {"short of blocks", 64, 512, 8, 0.5, true},
    };
    printf("us of a step, %d running           best    mean  median     p99    worst    rows "
           "outputs running  evicted   again\n",
           v[0]);
    for (int lookahead = 0; lookahead < 2; lookahead++) {
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
            if (argc > 3 && strcmp(argv[3], all[i].name) != 0) continue;
            if (!run(&all[i], v[0], v[1], lookahead)) return 1;
        }
    }
    return 0;
}
