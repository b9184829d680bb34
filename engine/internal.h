// SPDX-License-Identifier: Apache-2.0
// The engine's insides, shared by its files.
//
// Invariants:
// 1. Only the engine thread touches the scheduler, the executable and the plan.
// 2. `lock` guards the request table, the command queues and the statistics. It is never held while a
//    step runs, and nothing under it waits.
// 3. A request's slot is free only when its reader has released it and the engine is done with it; its
//    generation then changes, so an old handle finds nothing.
// 4. A request is `done` exactly once, by finish_request.
// 5. Tokens are only appended by the engine thread, up to `cap`, which was reserved at submit.
// 6. While the scheduler knows a request whose sampling looks at its own output (penalties, bad words
//    of several tokens), no step is planned before the one under way is in: its last token would not
//    be known. Everyone waits with it: one step in flight costs little, a sampler that is told the
//    history a step late would cost the answer's sameness.
#ifndef QN_ENGINE_INTERNAL_H
#define QN_ENGINE_INTERNAL_H

#include "engine/engine.h"
#include "model/model.h"
#include "base/hash.h"
#include "engine/step_time.h"
#include "scheduler/scheduler.h"

enum {
    QN_MAX_STOP_IDS = 64,
    QN_ENGINE_MAX_STEPS = 2, // as the scheduler's: one under way, one planned before its results
};

typedef struct engine_step {
    qn_step_plan *plan;
    qn_sample_row *rows; // [max_logits]
    double started;
    double schedule_seconds; // planning it
    qn_error error; // submit failed: the step ends when its turn comes
} engine_step;

typedef struct request {
    uint32_t generation;
    bool used;      // taken by submit, until freed
    bool added;     // the scheduler knows it
    bool cancelled; // cancel or release was called
    uint64_t cancel_step; // the steps that had ended by then
    bool released;
    bool done;
    bool in_mailbox; // its handle waits in the mailbox
    qn_request params; // prompt and stop_ids point to the copies below
    int32_t *prompt;   // freed once the scheduler has copied it, unless penalties or scores need it
    int32_t stop_ids[2 * QN_MAX_STOP_IDS];
    int32_t n_stop_ids; // the effective ones
    char salt[QN_SCHED_MAX_SALT];
    uint64_t seed;
    // Prompt logprobs, [n_prompt][1 + n_top]; NULL unless wanted. The first n_scored rows are there.
    qn_token_score *scores;
    int32_t n_scored;
    // The sampling fields' memory; params, allowed and bans point into it.
    int32_t *sampling;
    uint32_t *allowed; // bit mask; NULL: all
    // Where there are bad words: the stop ids, the bad words of one id, room for the others' last ids.
    int32_t *bans;
    int32_t n_bans; // of the first two
    bool has_penalties, needs_output;
    bool counted; // in n_needs_output and n_scoring
    bool nothing_left; // the sampler said so
    qn_mailbox *mailbox;
    // Output, guarded by lock.
    int32_t *ids;
    float *logprobs;     // NULL unless wanted
    int32_t *top_ids;    // [cap][n_top], NULL unless wanted
    float *top_logprobs; // [cap][n_top]
    int32_t cap, n, n_read;
    qn_outcome outcome;
    int32_t stop_id;
    int32_t n_cached;
    qn_error error;
    double submitted, first_scheduled, first_token, finished; // seconds
} request;

typedef struct logits_job {
    const int32_t *ids;
    int32_t n, chunk;
    void (*row)(void *user, int32_t index, const float *logits);
    void *user;
    qn_error *err;
    qn_status status;
    bool finished;
} logits_job;

struct qn_engine {
    const qn_backend_api *api;
    qn_backend *backend;
    qn_model *model;
    qn_executable *exec;
    qn_tokenizer *tokenizer;
    qn_chat_template *chat_template;
    char template_error[512];
    char backend_text[128], bos_text[128], eos_text[128];
    char *path;
    qn_engine_info info;
    qn_exec_limits limits;
    const qn_log *log;
    double last_end; // of the step collected last, seconds

    qn_sched *sched;
    engine_step steps[QN_ENGINE_MAX_STEPS]; // a ring; those in flight begin at first_step
    int32_t first_step, n_in_flight, max_in_flight;
    qn_sched_row *results;  // [max_logits]
    qn_sched_event *events; // [cap_events]
    size_t cap_events;
    int32_t n_needs_output; // requests that the scheduler knows (invariant 6); the engine thread's
    int32_t n_scoring;      // those of them that want prompt logprobs; the same
    qn_step_fit fit;

    pthread_mutex_t lock;
    pthread_cond_t work; // the engine thread waits for commands
    pthread_cond_t job_done;
    qn_thread thread;
    bool stop;
    request *requests;
    uint32_t n_requests;
    uint32_t *free_list;
    uint32_t n_free;
    qn_queue *submits, *cancels; // handles
    logits_job *job;
    int32_t max_queued;
    int64_t max_queued_tokens;
    int32_t queued;         // submitted or waiting in the scheduler
    int64_t queued_tokens;  // their prompts'
    int64_t live_scores;    // scores_size of all requests
    int64_t pending_tokens; // of those that are still in `submits`
    qn_engine_stats stats;
};

static inline uint64_t request_handle(const qn_engine *e, const request *r) {
    return (uint64_t)r->generation << 32 | (uint64_t)(r - e->requests);
}

// requests.c
qn_status requests_init(qn_engine *e, uint32_t count, qn_error *err);
void requests_destroy(qn_engine *e);
// Under lock. NULL: stale.
request *request_find(qn_engine *e, uint64_t handle);
// Under lock: appends a token; `sample` for the logprobs.
void request_append(qn_engine *e, request *r, int32_t id, const qn_sample *sample);
// Under lock: the one terminal transition.
void finish_request(qn_engine *e, request *r, qn_outcome outcome, int32_t stop_id,
                    const qn_error *error, double now);

// sampling.c
qn_status sampling_check(const qn_engine *e, const qn_request *q, qn_error *err);
// At submit, after the stop ids: copies what r->params points to. free(r->sampling).
qn_status sampling_copy(const qn_engine *e, request *r, qn_error *err);
// What the sampler needs for the token at `position`. The engine thread's.
void sampling_row(request *r, int32_t position, qn_sample_row *row);

// scores.c
qn_status scores_check(const qn_request *q, qn_error *err);
int64_t scores_size(const qn_request *q); // elements
qn_status scores_reserve(request *r, qn_error *err);
// True where the row that predicts `position` is one that scores: *row is then filled. The engine
// thread's.
bool scores_row(const request *r, int32_t position, qn_sample_row *row);
// Takes the scores out of a step's samples, before the scheduler commits it.
void scores_take(qn_engine *e, const engine_step *step, const qn_sample *samples);

// stats.c
void step_stats_add(qn_engine_stats *stats, qn_step_hist which, double value);

// loop.c
void qn_engine_thread(void *arg);

// setup.c
double engine_now(void);

#endif
