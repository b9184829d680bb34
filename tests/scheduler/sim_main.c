// SPDX-License-Identifier: Apache-2.0
// The scheduler simulated from seeds; every invariant is checked after every call.
//
//   sim_scheduler [--seed N] [--seeds N] [--steps N] [--jobs N] [--progress]
//
// Fails when something is wrong, when fewer steps were taken than asked for, and when the traffic
// of a long run did not reach every case. 100 million steps, a quarter of an hour on two CPUs:
//
//   sim_scheduler --seed 1000001 --seeds 100000 --steps 1000 --jobs 2 --progress
#include "base/os.h"
#include "base/thread.h"
#include "tools/scheduler_check.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_JOBS = 64 };

typedef struct run {
    uint64_t seed, seeds;
    int64_t steps;
    bool progress;
    pthread_mutex_t lock; // of all that follows
    uint64_t next, done;  // seeds
    uint64_t failed;      // the lowest seed that failed; UINT64_MAX: none
    char message[512];
    uint64_t begin, said; // ns
    qn_scheduler_check_totals totals;
} run;

static void add_up(qn_scheduler_check_totals *sum, const qn_scheduler_check_totals *t) {
    sum->steps += t->steps;
    sum->requests += t->requests;
    sum->tokens += t->tokens;
    sum->preemptions += t->preemptions;
    sum->aborts += t->aborts;
    sum->errors += t->errors;
    sum->stops += t->stops;
    sum->lengths += t->lengths;
    sum->refused += t->refused;
    sum->lookahead_steps += t->lookahead_steps;
    sum->stalled += t->stalled;
    sum->overtakes += t->overtakes;
    sum->cached_tokens += t->cached_tokens;
    sum->prefix_queries += t->prefix_queries;
    sum->prefix_hits += t->prefix_hits;
    sum->evictions += t->evictions;
    sum->forks += t->forks;
    sum->copies += t->copies;
    sum->returned_hits += t->returned_hits;
    sum->recomputed += t->recomputed;
    sum->shared_steps += t->shared_steps;
    sum->prompt_logits += t->prompt_logits;
}

static void say_progress(run *r) {
    uint64_t at = qn_os_now_ns();
    if (!r->progress || at - r->said < UINT64_C(10000000000)) return;
    r->said = at;
    double seconds = 1e-9 * (double)(at - r->begin);
    fprintf(stderr,
            "%" PRIu64 " of %" PRIu64 " seeds, %" PRIu64 " steps, %.0f s, about %.0f s to go\n",
            r->done, r->seeds, r->totals.steps, seconds,
            seconds * (double)(r->seeds - r->done) / (double)r->done);
}

static void work(void *arg) {
    run *r = arg;
    for (;;) {
        pthread_mutex_lock(&r->lock);
        uint64_t i = r->failed == UINT64_MAX ? r->next++ : r->seeds;
        pthread_mutex_unlock(&r->lock);
        if (i >= r->seeds) return;
        qn_scheduler_check_totals t = {0};
        char message[sizeof r->message];
        bool ok = qn_scheduler_check(r->seed + i, r->steps, -1, &t, message, sizeof message);
        pthread_mutex_lock(&r->lock);
        add_up(&r->totals, &t);
        r->done++;
        if (!ok && r->seed + i < r->failed) {
            r->failed = r->seed + i;
            memcpy(r->message, message, sizeof message);
        }
        say_progress(r);
        pthread_mutex_unlock(&r->lock);
    }
}

// A simulation that never comes into trouble tests nothing.
static bool reached_every_case(const qn_scheduler_check_totals *t, uint64_t seeds) {
    return t->stops && t->lengths && t->aborts && t->errors && t->refused &&
           t->preemptions >= seeds && t->stalled >= seeds && t->overtakes &&
           t->lookahead_steps >= t->steps / 8 && t->prefix_hits >= t->prefix_queries / 20 &&
           t->evictions && t->returned_hits && t->forks >= seeds && t->copies >= seeds &&
           t->shared_steps >= seeds && t->prompt_logits >= seeds;
}

int main(int argc, char **argv) {
    run r = {.seed = 1, .seeds = 100, .steps = 1000, .lock = PTHREAD_MUTEX_INITIALIZER};
    uint64_t jobs = 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--progress") == 0) {
            r.progress = true;
            continue;
        }
        const char *flag = argv[i++];
        uint64_t value = i < argc ? strtoull(argv[i], NULL, 10) : 0;
        if (strcmp(flag, "--seed") == 0) {
            r.seed = value;
        } else if (strcmp(flag, "--seeds") == 0) {
            r.seeds = value;
        } else if (strcmp(flag, "--steps") == 0 && value <= INT64_MAX) {
            r.steps = (int64_t)value;
        } else if (strcmp(flag, "--jobs") == 0 && value >= 1 && value <= MAX_JOBS) {
            jobs = value;
        } else {
            fprintf(stderr, "usage: sim_scheduler [--seed N] [--seeds N] [--steps N] [--jobs N] "
                            "[--progress]\n");
            return 2;
        }
    }
    r.failed = UINT64_MAX;
    r.begin = r.said = qn_os_now_ns();
    qn_thread threads[MAX_JOBS] = {0};
    qn_error err = {0};
    for (uint64_t i = 1; i < jobs; i++) {
        if (qn_thread_start(&threads[i], "sim", work, &r, &err) == QN_OK) continue;
        fprintf(stderr, "sim_scheduler: %s\n", err.message);
        break; // those that run do it all
    }
    work(&r);
    for (uint64_t i = 1; i < jobs; i++) qn_thread_join(&threads[i]);
    if (r.failed != UINT64_MAX) {
        fprintf(stderr, "sim_scheduler: seed %" PRIu64 ": %s\n", r.failed, r.message);
        fprintf(stderr, "again: sim_scheduler --seed %" PRIu64 " --seeds 1 --steps %" PRId64 "\n",
                r.failed, r.steps);
        return 1;
    }
    const qn_scheduler_check_totals *t = &r.totals;
    printf("%" PRIu64 " seeds, %" PRIu64 " steps (%" PRIu64 " looked ahead), %" PRIu64
           " requests, %" PRIu64 " tokens, %.1f s\n",
           r.done, t->steps, t->lookahead_steps, t->requests, t->tokens,
           1e-9 * (double)(qn_os_now_ns() - r.begin));
    printf("ended: stop %" PRIu64 ", length %" PRIu64 ", abort %" PRIu64 ", error %" PRIu64
           "; refused %" PRIu64 "\n",
           t->stops, t->lengths, t->aborts, t->errors, t->refused);
    printf("preemptions %" PRIu64 ", stalls %" PRIu64 ", overtakes %" PRIu64 "\n", t->preemptions,
           t->stalled, t->overtakes);
    printf("prefix cache: %" PRIu64 " of %" PRIu64 " prompt tokens found, %" PRIu64
           " blocks evicted, %" PRIu64 " found their own again; forks %" PRIu64 ", copies %" PRIu64
           ", recomputed rows %" PRIu64 "\n",
           t->prefix_hits, t->prefix_queries, t->evictions, t->returned_hits, t->forks, t->copies,
           t->recomputed);
    printf("steps in which long prompts shared time with streams %" PRIu64
           ", prompt rows with logits %" PRIu64 "\n", t->shared_steps, t->prompt_logits);
    if (r.done != r.seeds || t->steps / r.seeds < (uint64_t)r.steps) {
        fprintf(stderr, "sim_scheduler: %" PRIu64 " seeds of %" PRIu64 ", and fewer than %" PRId64
                        " steps each\n",
                r.done, r.seeds, r.steps);
        return 1;
    }
    if (r.seeds >= 100 && r.steps >= 500 && !reached_every_case(t, r.seeds)) {
        fprintf(stderr, "sim_scheduler: the traffic did not reach every case\n");
        return 1;
    }
    return 0;
}
