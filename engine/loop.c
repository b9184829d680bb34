// SPDX-License-Identifier: Apache-2.0
// The engine thread: commands in, steps, events out.
#include "engine/internal.h"

#include "base/checked.h"
#include "base/os.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static qn_outcome outcome_of(qn_finish f) {
    switch (f) {
    case QN_FINISH_STOP: return QN_DONE_STOP;
    case QN_FINISH_LENGTH: return QN_DONE_LENGTH;
    case QN_FINISH_ABORT: return QN_DONE_ABORT;
    case QN_FINISH_ERROR: return QN_DONE_ERROR;
    }
    return QN_DONE_ERROR;
}

static void sample_error(const request *r, qn_error *error) {
    if (r->nothing_left) {
        qn_fail(error, QN_ERR_INVALID, "no token is left to sample: allowed_token_ids, bad_words and "
                "min_tokens exclude all");
    } else {
        qn_fail(error, QN_ERR_NUMERIC,
                "the model's output for this request is not a number (NaN or infinite)");
    }
}

// Before the commit: whose lists, not whose numbers, left nothing to sample.
static void note_nothing_left(qn_engine *e, const qn_step_plan *p, const qn_sample *samples) {
    for (int32_t i = 0; i < p->n_seqs; i++) {
        const qn_plan_seq *s = &qn_plan_seqs(p)[i];
        for (int32_t j = 0; j < s->n_logits; j++) {
            if (samples[s->logit_start + j].status != QN_ERR_INVALID) continue;
            pthread_mutex_lock(&e->lock);
            request *r = request_find(e, qn_sched_slot_id(e->sched, s->slot));
            if (r) r->nothing_left = true;
            pthread_mutex_unlock(&e->lock);
        }
    }
}

// The scheduler's events to their requests. samples: of the step just committed, or NULL.
static void deliver(qn_engine *e, const qn_sample *samples, const qn_error *step_error) {
    size_t n;
    while ((n = qn_sched_take_events(e->sched, e->events, e->cap_events)) > 0) {
        double now = engine_now();
        pthread_mutex_lock(&e->lock);
        for (size_t i = 0; i < n; i++) {
            const qn_sched_event *ev = &e->events[i];
            request *r = request_find(e, ev->id);
            if (!r) continue;
            if (ev->kind == QN_SCHED_TOKEN) {
                if (r->first_token == 0) {
                    qn_sched_seq_info info;
                    r->first_token = now;
                    if (qn_sched_seq(e->sched, ev->id, &info)) r->n_cached = info.n_cached;
                    e->stats.cached_tokens += (uint64_t)r->n_cached;
                }
                if (samples) request_append(e, r, ev->token, &samples[ev->logit_row]);
                continue;
            }
            qn_error error = {0};
            if (ev->finish == QN_FINISH_ERROR) {
                if (step_error && step_error->status != QN_OK) {
                    error = *step_error;
                } else {
                    sample_error(r, &error);
                }
            }
            finish_request(e, r, outcome_of(ev->finish), ev->stop_id, &error, now);
        }
        pthread_mutex_unlock(&e->lock);
    }
}

static void add_request(qn_engine *e, uint64_t handle) {
    pthread_mutex_lock(&e->lock);
    request *r = request_find(e, handle);
    if (r) e->pending_tokens -= r->params.n_prompt;
    bool cancelled = r && r->cancelled;
    if (r) r->added = !cancelled;
    if (cancelled) finish_request(e, r, QN_DONE_ABORT, -1, NULL, engine_now());
    pthread_mutex_unlock(&e->lock);
    if (!r || cancelled) return;
    // Until it is done nobody else touches prompt and stop ids.
    const qn_sched_request q = {
        .id = handle,
        .prompt = r->prompt,
        .n_prompt = r->params.n_prompt,
        .max_tokens = r->cap,
        .min_tokens = r->params.min_tokens,
        .stop_ids = r->stop_ids,
        .n_stop_ids = r->n_stop_ids,
        .adapter = -1,
        .priority = r->params.priority,
        .cache_salt = r->salt,
        .cache_salt_len = r->params.cache_salt_len,
        .skip_cache_read = r->params.skip_cache_read,
        .prompt_logits = r->scores != NULL,
        .fork_of = r->params.fork_of,
    };
    qn_error err = {0};
    qn_status st = qn_sched_add(e->sched, &q, engine_now(), &err);
    pthread_mutex_lock(&e->lock);
    if (st != QN_OK) {
        r->added = false;
        finish_request(e, r, QN_DONE_ERROR, -1, &err, engine_now());
    } else {
        r->counted = true;
        e->n_needs_output += r->needs_output;
        e->n_scoring += r->scores != NULL;
        if (!r->has_penalties && !r->scores) {
            free(r->prompt);
            r->prompt = NULL;
        }
    }
    pthread_mutex_unlock(&e->lock);
}

// done: a step that has ended well, or NULL.
static void publish_stats(qn_engine *e, const engine_step *done, const qn_step_result *result) {
    qn_sched_stats s;
    qn_sched_stats_get(e->sched, &s);
    double usage = 0;
    for (int32_t g = 0; g < QN_MAX_KV_GROUPS; g++) {
        if (s.blocks_total[g] > 0) {
            usage = fmax(usage, (double)s.blocks_used[g] / s.blocks_total[g]);
        }
    }
    pthread_mutex_lock(&e->lock);
    qn_engine_stats *out = &e->stats;
    size_t pending = qn_queue_count(e->submits);
    out->running = s.running;
    out->waiting = s.waiting + (int32_t)pending;
    out->kv_usage = usage;
    out->steps = s.steps;
    out->preemptions = s.preemptions;
    out->prompt_tokens = s.prompt_tokens + s.prefix_hits;
    out->prefix_queries = s.prefix_queries;
    out->prefix_hits = s.prefix_hits;
    out->generated_tokens = s.generated_tokens;
    out->has_work = s.running + out->waiting > 0;
    out->last_progress_ns = qn_os_now_ns();
    if (done) {
        step_stats_add(out, QN_STEP_TOKENS, done->plan->n_rows);
        step_stats_add(out, QN_STEP_SEQS, done->plan->n_seqs);
        step_stats_add(out, QN_STEP_SCHEDULE, done->schedule_seconds);
        step_stats_add(out, QN_STEP_FORWARD, result->seconds_forward);
        step_stats_add(out, QN_STEP_SAMPLE, result->seconds_sample);
    }
    e->queued = out->waiting;
    e->queued_tokens = s.waiting_tokens + e->pending_tokens;
    pthread_mutex_unlock(&e->lock);
}

static void take_commands(qn_engine *e) {
    uint64_t handle;
    while (qn_queue_pop(e->submits, &handle)) add_request(e, handle);
    bool aborted = false;
    while (qn_queue_pop(e->cancels, &handle)) {
        pthread_mutex_lock(&e->lock);
        request *r = request_find(e, handle);
        bool live = r && r->added && !r->done;
        pthread_mutex_unlock(&e->lock);
        if (live) aborted = qn_sched_abort(e->sched, handle) || aborted;
    }
    if (aborted) {
        publish_stats(e, NULL, NULL); // what they freed is seen now, not after the next step
        deliver(e, NULL, NULL);
    }
}

// What the sampler needs for each logit row: the request's parameters and the token's position.
static void fill_rows(qn_engine *e, engine_step *step) {
    const qn_step_plan *p = step->plan;
    for (int32_t i = 0; i < p->n_seqs; i++) {
        const qn_plan_seq *s = &qn_plan_seqs(p)[i];
        uint64_t id = qn_sched_slot_id(e->sched, s->slot);
        pthread_mutex_lock(&e->lock);
        request *r = request_find(e, id);
        if (r && r->first_scheduled == 0) r->first_scheduled = step->started;
        pthread_mutex_unlock(&e->lock);
        for (int32_t j = 0; j < s->n_logits; j++) {
            qn_sample_row *row = &step->rows[s->logit_start + j];
            *row = (qn_sample_row){.top_p = 1, .n_logprobs = -1};
            // A request's parameters do not change while the scheduler knows it.
            if (r) sampling_row(r, s->position + s->query_len - s->n_logits + j + 1, row);
        }
    }
}

// Plans and submits the next step, if there is one.
static bool start_step(qn_engine *e) {
    engine_step *step = &e->steps[(e->first_step + e->n_in_flight) % QN_ENGINE_MAX_STEPS];
    step->started = engine_now();
    if (!qn_sched_plan(e->sched, step->started, step->plan)) return false;
    fill_rows(e, step);
    step->schedule_seconds = engine_now() - step->started;
    step->error = (qn_error){0};
    e->api->submit(e->exec, step->plan, step->rows, &step->error);
    e->n_in_flight++;
    return true;
}

// Waits for the oldest step in flight and hands out its results.
static void end_step(qn_engine *e) {
    engine_step *step = &e->steps[e->first_step];
    e->first_step = (e->first_step + 1) % QN_ENGINE_MAX_STEPS;
    e->n_in_flight--;
    qn_step_result result = {0};
    qn_error err = step->error;
    qn_status st = err.status;
    if (st == QN_OK) st = e->api->collect(e->exec, &result, &err);
    double now = engine_now();
    if (st == QN_OK) {
        for (int32_t i = 0; i < result.n_logits; i++) {
            e->results[i].id = result.samples[i].id;
            e->results[i].ok = result.samples[i].status == QN_OK;
        }
        note_nothing_left(e, step->plan, result.samples);
        scores_take(e, step, result.samples);
        qn_sched_commit(e->sched, step->plan, e->results, now);
        step->schedule_seconds += engine_now() - now;
    } else {
        qn_logf(e->log, QN_LOG_ERROR, "step %llu failed: %s", (unsigned long long)step->plan->step,
                err.message);
        qn_sched_commit_failed(e->sched, step->plan, now);
    }
    // The counters first: who has read the last token finds it counted.
    publish_stats(e, st == QN_OK ? step : NULL, &result);
    deliver(e, st == QN_OK ? result.samples : NULL, &err);
    if (st == QN_OK) {
        // With two in flight it began when the one before it had ended.
        qn_step_time_model model;
        qn_step_fit_add(&e->fit, step->plan->n_rows, qn_sched_plan_keys(e->sched, step->plan),
                        qn_sched_plan_context(e->sched, step->plan),
                        now - fmax(step->started, e->last_end));
        if (qn_step_fit_model(&e->fit, &model)) qn_sched_set_step_time(e->sched, &model);
    }
    e->last_end = now;
}

// One turn: with look-ahead the next step is planned before the one under way is in. False: idle.
static bool run_step(qn_engine *e) {
    const int32_t most = e->n_needs_output > 0 ? 1 : e->max_in_flight;
    bool started = e->n_in_flight < most && start_step(e);
    if (e->n_in_flight >= most || (!started && e->n_in_flight > 0)) {
        end_step(e);
        return true;
    }
    return started;
}

// Teacher-forced logits through blocks 0, 1, 2, ...: nobody else holds a block while no request lives.
static void run_job(qn_engine *e, logits_job *job) {
    qn_step_plan *p = e->steps[0].plan; // nothing is in flight
    qn_sample_row *rows = e->steps[0].rows;
    int32_t largest = QN_MIN(e->limits.max_rows, e->limits.max_logits);
    int32_t chunk = job->chunk > 0 ? QN_MIN(job->chunk, largest) : largest;
    int32_t n_blocks = QN_CEIL_DIV(job->n, e->limits.block_size);
    float *logits = malloc((size_t)e->info.vocab_size * sizeof *logits);
    job->status = logits ? QN_OK : qn_fail(job->err, QN_ERR_NOMEM, "out of memory");
    qn_sched_clear_cache(e->sched); // their blocks are written over
    for (int32_t g = 0; g < p->n_groups && job->status == QN_OK; g++) {
        if (n_blocks > e->limits.n_blocks[g]) {
            job->status = qn_fail(job->err, QN_ERR_LIMIT, "%d tokens need %d blocks, KV group %d has "
                                  "%d", job->n, n_blocks, g, e->limits.n_blocks[g]);
        }
    }
    for (int32_t i = 0; i < chunk && i < e->limits.max_logits; i++) {
        rows[i] = (qn_sample_row){.top_p = 1, .n_logprobs = -1};
    }
    for (int32_t at = 0; at < job->n && job->status == QN_OK;) {
        int32_t n = QN_MIN(chunk, job->n - at);
        qn_step_plan_reset(p);
        qn_plan_seq *s = qn_plan_seqs(p);
        *s = (qn_plan_seq){.adapter = -1, .query_len = n, .position = at, .n_logits = n};
        for (int32_t g = 0; g < p->n_groups; g++) {
            s->block_start[g] = g * n_blocks;
            s->n_blocks[g] = n_blocks;
            for (int32_t b = 0; b < n_blocks; b++) qn_plan_blocks(p)[g * n_blocks + b] = b;
        }
        memcpy(qn_plan_tokens(p), job->ids + at, (size_t)n * sizeof *job->ids);
        p->n_seqs = 1;
        p->n_rows = p->n_logits = n;
        p->n_blocks = p->n_groups * n_blocks;
        qn_step_result result;
        job->status = e->api->submit(e->exec, p, rows, job->err);
        if (job->status == QN_OK) job->status = e->api->collect(e->exec, &result, job->err);
        for (int32_t i = 0; i < n && job->status == QN_OK; i++) {
            job->status = e->api->read_logits(e->exec, i, logits, job->err);
            if (job->status == QN_OK) job->row(job->user, at + i, logits);
        }
        at += n;
    }
    free(logits);
}

void qn_engine_thread(void *arg) {
    qn_engine *e = arg;
    for (;;) {
        take_commands(e);
        if (run_step(e)) {
            pthread_mutex_lock(&e->lock);
            bool stop = e->stop;
            pthread_mutex_unlock(&e->lock);
            if (stop) break;
            continue;
        }
        publish_stats(e, NULL, NULL);
        pthread_mutex_lock(&e->lock);
        while (!e->stop && !e->job && qn_queue_count(e->submits) == 0 &&
               qn_queue_count(e->cancels) == 0) {
            pthread_cond_wait(&e->work, &e->lock);
        }
        logits_job *job = e->job;
        bool stop = e->stop;
        pthread_mutex_unlock(&e->lock);
        if (job) {
            run_job(e, job);
            pthread_mutex_lock(&e->lock);
            e->job = NULL;
            job->finished = true;
            pthread_cond_broadcast(&e->job_done);
            pthread_mutex_unlock(&e->lock);
        }
        if (stop) break;
    }
    // A backend may still read the rows of a step in flight, which point into requests.
    while (e->n_in_flight > 0) end_step(e);
    // Whoever still waits for an answer gets one.
    pthread_mutex_lock(&e->lock);
    for (uint32_t i = 0; i < e->n_requests; i++) {
        if (e->requests[i].used && !e->requests[i].done) {
            finish_request(e, &e->requests[i], QN_DONE_ABORT, -1, NULL, engine_now());
        }
    }
    pthread_mutex_unlock(&e->lock);
}
