// SPDX-License-Identifier: Apache-2.0
#include "engine/step_time.h"

#include "base/checked.h"

#include <math.h>

enum { N = QN_STEP_TIME_TERMS, LEAST_STEPS = 4 };

static const double DRIFT = 0.01;      // of a logarithm in a step
static const double ERROR = 0.1;       // of a step's logarithm
static const double SURPRISE = 0.6931; // log 2: what one step may be off and still count whole
static const double IGNORANCE = 1;     // variance of a logarithm at most

void qn_step_fit_add(qn_step_fit *f, double rows, double keys, double context, double seconds) {
    const double x[N] = {1, rows, keys, context};
    if (!(rows > 0) || !(keys > 0) || !(context > 0) || !(seconds > 0)) return;
    if (!isfinite(rows + keys + context + seconds)) return;
    if (f->n++ == 0) { // an equal share each
        for (int i = 0; i < N; i++) {
            f->log[i] = log(seconds / (N * x[i]));
            f->p[i][i] = IGNORANCE;
        }
    }
    double share[N], predicted = 0; // the derivatives of the time's logarithm
    for (int i = 0; i < N; i++) predicted += share[i] = x[i] * exp(f->log[i]);
    double ph[N] = {0}, variance = ERROR * ERROR;
    for (int i = 0; i < N; i++) {
        share[i] /= predicted;
        f->p[i][i] = fmin(f->p[i][i] + DRIFT * DRIFT, IGNORANCE);
    }
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) ph[i] += f->p[i][j] * share[j];
        variance += ph[i] * share[i];
    }
    const double off = fmax(fmin(log(seconds / predicted), SURPRISE), -SURPRISE);
    for (int i = 0; i < N; i++) {
        f->log[i] += ph[i] / variance * off;
        for (int j = 0; j < N; j++) f->p[i][j] -= ph[i] * ph[j] / variance;
    }
}

bool qn_step_fit_model(const qn_step_fit *f, qn_step_time_model *out) {
    if (f->n < LEAST_STEPS) return false;
    *out = (qn_step_time_model){exp(f->log[0]), exp(f->log[1]), exp(f->log[2]), exp(f->log[3])};
    return isfinite(out->base + out->per_row + out->per_key + out->per_context);
}
