// SPDX-License-Identifier: Apache-2.0
// Counters and histograms of the server, and their text form for Prometheus. Any thread may count;
// label values come only from our own tables.
#ifndef QN_SERVER_METRICS_H
#define QN_SERVER_METRICS_H

#include "base/buf.h"
#include "engine/engine.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct qn_metrics qn_metrics;

typedef enum qn_hist {
    QN_HIST_TTFT,
    QN_HIST_ITL,
    QN_HIST_TPOT,
    QN_HIST_E2E,
    QN_HIST_QUEUE,
    QN_HIST_INFERENCE,
    QN_HIST_PREFILL,
    QN_HIST_DECODE,
    QN_HIST_PROMPT_TOKENS,
    QN_HIST_GENERATION_TOKENS,
    QN_HIST_MAX_GENERATION_TOKENS,
    QN_HIST_PARAMS_MAX_TOKENS,
    QN_HIST_PARAMS_N,
    QN_HIST_HTTP,
    QN_N_HIST,
} qn_hist;

typedef enum qn_finish_label {
    QN_FINISHED_STOP,
    QN_FINISHED_LENGTH,
    QN_FINISHED_ABORT,
    QN_FINISHED_ERROR,
    QN_N_FINISHED,
} qn_finish_label;

typedef enum qn_reject_label {
    QN_REJECT_QUEUE,    // "queue_full"
    QN_REJECT_DRAINING, // "draining"
    QN_REJECT_LENGTH,   // "too_long"
    QN_REJECT_KEY_LIMIT, // "key_limit"
    QN_N_REJECT,
} qn_reject_label;

enum { QN_METRICS_MAX_HANDLERS = 32 };

// model_name labels everything; handlers are the names that http_requests_total may carry (static
// strings; at most QN_METRICS_MAX_HANDLERS). max_model_len bounds the token buckets.
qn_metrics *qn_metrics_create(const char *prefix, const char *model_name, int32_t max_model_len,
                              const char *const *handlers, size_t n_handlers);
void qn_metrics_destroy(qn_metrics *m);

void qn_metrics_observe(qn_metrics *m, qn_hist h, double value);
void qn_metrics_observe_many(qn_metrics *m, qn_hist h, double value, uint64_t count);
void qn_metrics_finished(qn_metrics *m, qn_finish_label label);
void qn_metrics_rejected(qn_metrics *m, qn_reject_label label);
// handler: index into the table; method: of the request.
void qn_metrics_http(qn_metrics *m, size_t handler, qn_str method, int status, double seconds);

// What the watchdog sees: no work; steps that end; work, and no step that ended for too long.
typedef enum qn_watchdog { QN_WATCHDOG_IDLE, QN_WATCHDOG_WORKING, QN_WATCHDOG_STALLED } qn_watchdog;

typedef struct qn_metrics_state {
    const char *version;
    const qn_engine_info *info;
    qn_engine_stats stats;
    qn_watchdog watchdog;
    double since_progress; // seconds; 0 while there is no work
    bool healthy;
} qn_metrics_state;

// Appends the exposition text (version 0.0.4).
void qn_metrics_text(qn_metrics *m, const qn_metrics_state *state, qn_buf *out);

#endif
