// SPDX-License-Identifier: Apache-2.0
#include "tools/scheduler_check.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    uint64_t seed = 1, seeds = 100;
    int64_t steps = 1000;
    for (int i = 1; i < argc; i += 2) {
        uint64_t value = i + 1 < argc ? strtoull(argv[i + 1], NULL, 10) : 0;
        if (strcmp(argv[i], "--seed") == 0) {
            seed = value;
        } else if (strcmp(argv[i], "--seeds") == 0) {
            seeds = value;
        } else if (strcmp(argv[i], "--steps") == 0 && value <= INT64_MAX) {
            steps = (int64_t)value;
        } else {
            fprintf(stderr, "usage: sim_scheduler [--seed N] [--seeds N] [--steps N]\n");
            return 2;
        }
    }
    qn_scheduler_check_totals t = {0};
    char message[512];
    for (uint64_t i = 0; i < seeds; i++) {
        if (qn_scheduler_check(seed + i, steps, -1, &t, message, sizeof message)) continue;
        fprintf(stderr, "sim_scheduler: seed %" PRIu64 ": %s\n", seed + i, message);
        fprintf(stderr, "again: sim_scheduler --seed %" PRIu64 " --seeds 1 --steps %" PRId64 "\n",
                seed + i, steps);
        return 1;
    }
    printf("%" PRIu64 " seeds, %" PRIu64 " steps (%" PRIu64 " looked ahead), %" PRIu64
           " requests, %" PRIu64 " tokens\n",
           seeds, t.steps, t.lookahead_steps, t.requests, t.tokens);
    printf("ended: stop %" PRIu64 ", length %" PRIu64 ", abort %" PRIu64 ", error %" PRIu64
           "; refused %" PRIu64 "\n",
           t.stops, t.lengths, t.aborts, t.errors, t.refused);
    printf("preemptions %" PRIu64 ", stalls %" PRIu64 ", overtakes %" PRIu64 "\n", t.preemptions,
           t.stalled, t.overtakes);
    printf("prefix cache: %" PRIu64 " of %" PRIu64 " prompt tokens found, %" PRIu64
           " blocks evicted, %" PRIu64 " found their own again; forks %" PRIu64 ", copies %" PRIu64
           ", recomputed rows %" PRIu64 "\n",
           t.prefix_hits, t.prefix_queries, t.evictions, t.returned_hits, t.forks, t.copies,
           t.recomputed);
    printf("steps with prompts held back for streams %" PRIu64 ", prompt rows with logits %" PRIu64
           "\n", t.shared_steps, t.prompt_logits);
    // A simulation that never comes into trouble tests nothing.
    bool full = seeds >= 100 && steps >= 500;
    if (full && (!t.stops || !t.lengths || !t.aborts || !t.errors || !t.refused ||
                 t.preemptions < seeds || t.stalled < seeds || !t.overtakes ||
                 t.lookahead_steps < t.steps / 8 || t.prefix_hits < t.prefix_queries / 20 ||
                 !t.evictions || !t.returned_hits || t.forks < seeds || t.copies < seeds ||
                 t.shared_steps < seeds || t.prompt_logits < seeds)) {
        fprintf(stderr, "sim_scheduler: the traffic did not reach every case\n");
        return 1;
    }
    return 0;
}
