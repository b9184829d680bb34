// SPDX-License-Identifier: Apache-2.0
// How long steps take, learned from those that were run: seconds ~ base + per_row * rows +
// per_key * keys + per_context * context. The scheduler plans by it.
//
// A Kalman filter over the logarithms of the four, which a drift in each step makes uncertain again:
// so none is ever negative, and what the steps of late say nothing about (when only streams run, rows
// and keys hardly change) stays as it was learned, where a least-squares fit that forgets would let it
// run away. A step's time counts with an error of a tenth, and with a factor of two at most.
#ifndef QN_ENGINE_STEP_TIME_H
#define QN_ENGINE_STEP_TIME_H

#include "scheduler/scheduler.h"

enum { QN_STEP_TIME_TERMS = 4 };

typedef struct qn_step_fit { // zero: nothing seen
    double log[QN_STEP_TIME_TERMS];
    double p[QN_STEP_TIME_TERMS][QN_STEP_TIME_TERMS]; // their covariance
    int64_t n;
} qn_step_fit;

// A step of `rows` rows with these keys and this context (qn_sched_plan_keys, qn_sched_plan_context)
// took so long. Figures that are not above 0 are ignored.
void qn_step_fit_add(qn_step_fit *f, double rows, double keys, double context, double seconds);
// What it has learned; false: too few steps yet.
bool qn_step_fit_model(const qn_step_fit *f, qn_step_time_model *out);

#endif
