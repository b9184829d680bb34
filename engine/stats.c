// SPDX-License-Identifier: Apache-2.0
// Histograms over steps: fixed arrays in the engine's statistics, filled by the engine thread.
#include "engine/internal.h"

#include "base/checked.h"

static const double token_bounds[] = {1,   8,   16,   32,   64,   128,  256,
                                      512, 1024, 2048, 4096, 8192, 16384};
static const double seq_bounds[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048};
static const double second_bounds[] = {.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05,
                                       .1,    .25,    .5,    1,    2.5,   5,    10};
_Static_assert(QN_COUNT(token_bounds) <= QN_STEP_MAX_BOUNDS &&
               QN_COUNT(seq_bounds) <= QN_STEP_MAX_BOUNDS &&
               QN_COUNT(second_bounds) <= QN_STEP_MAX_BOUNDS, "room for all bounds");

const double *qn_step_hist_bounds(qn_step_hist which, size_t *n) {
    switch (which) {
    case QN_STEP_TOKENS: *n = QN_COUNT(token_bounds); return token_bounds;
    case QN_STEP_SEQS: *n = QN_COUNT(seq_bounds); return seq_bounds;
    default: *n = QN_COUNT(second_bounds); return second_bounds;
    }
}

void step_stats_add(qn_engine_stats *stats, qn_step_hist which, double value) {
    size_t n, i = 0;
    const double *bounds = qn_step_hist_bounds(which, &n);
    while (i < n && value > bounds[i]) i++;
    stats->hist[which].counts[i]++;
    stats->hist[which].sum += value;
}
