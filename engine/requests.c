// SPDX-License-Identifier: Apache-2.0
// The request table, and the calls that other threads make.
#include "engine/internal.h"

#include "base/checked.h"
#include "base/os.h"

#include <stdlib.h>
#include <string.h>

qn_status requests_init(qn_engine *e, uint32_t count, qn_error *err) {
    e->requests = calloc(count, sizeof *e->requests);
    e->free_list = calloc(count, sizeof *e->free_list);
    e->submits = qn_queue_create(count);
    e->cancels = qn_queue_create(count);
    if (!e->requests || !e->free_list || !e->submits || !e->cancels) {
        return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    e->n_requests = count;
    for (uint32_t i = 0; i < count; i++) {
        e->requests[i].generation = 1;
        e->free_list[e->n_free++] = count - 1 - i;
    }
    return QN_OK;
}

static void free_buffers(request *r) {
    free(r->prompt);
    free(r->sampling);
    free(r->ids);
    free(r->scores);
    free(r->logprobs);
    free(r->top_ids);
    free(r->top_logprobs);
    r->prompt = r->ids = r->top_ids = r->sampling = NULL;
    r->logprobs = r->top_logprobs = NULL;
    r->scores = NULL;
}

void requests_destroy(qn_engine *e) {
    for (uint32_t i = 0; e->requests && i < e->n_requests; i++) free_buffers(&e->requests[i]);
    free(e->requests);
    free(e->free_list);
    qn_queue_destroy(e->submits);
    qn_queue_destroy(e->cancels);
}

request *request_find(qn_engine *e, uint64_t handle) {
    uint32_t index = (uint32_t)handle;
    if (index >= e->n_requests) return NULL;
    request *r = &e->requests[index];
    return r->used && r->generation == (uint32_t)(handle >> 32) ? r : NULL;
}

// Under lock: both sides are through with it.
static void free_request(qn_engine *e, request *r) {
    e->live_scores -= scores_size(&r->params);
    free_buffers(r);
    uint32_t generation = r->generation + 1;
    *r = (request){.generation = generation ? generation : 1};
    e->free_list[e->n_free++] = (uint32_t)(r - e->requests);
}

static void notify(qn_engine *e, request *r) {
    if (r->in_mailbox || r->released) return;
    // The mailbox holds every live request of its reader, so a full one is a reader's mistake; the
    // handle is then seen with the next token.
    if (qn_queue_push(r->mailbox->ready, request_handle(e, r))) {
        r->in_mailbox = true;
        qn_wakeup_signal(&r->mailbox->wakeup);
    }
}

void request_append(qn_engine *e, request *r, int32_t id, const qn_sample *sample) {
    if (r->n >= r->cap || r->done) return;
    int32_t i = r->n++;
    r->ids[i] = id;
    if (r->logprobs) r->logprobs[i] = sample->logprob;
    if (r->top_ids) {
        size_t n = (size_t)r->params.n_logprobs;
        memcpy(r->top_ids + (size_t)i * n, sample->top_ids, n * sizeof *r->top_ids);
        memcpy(r->top_logprobs + (size_t)i * n, sample->top_logprobs, n * sizeof *r->top_logprobs);
    }
    notify(e, r);
}

void finish_request(qn_engine *e, request *r, qn_outcome outcome, int32_t stop_id,
                    const qn_error *error, double now) {
    if (r->done) return;
    r->done = true;
    r->outcome = outcome;
    r->stop_id = stop_id;
    r->finished = now;
    if (error) r->error = *error;
    free(r->prompt);
    r->prompt = NULL;
    if (r->counted) {
        e->n_needs_output -= r->needs_output;
        e->n_scoring -= r->scores != NULL;
    }
    r->counted = false;
    switch (outcome) {
    case QN_DONE_STOP: e->stats.finished_stop++; break;
    case QN_DONE_LENGTH: e->stats.finished_length++; break;
    case QN_DONE_ERROR: e->stats.finished_error++; break;
    default: e->stats.finished_abort++; break;
    }
    if (outcome == QN_DONE_ABORT && r->cancelled) {
        // The scheduler says that a request has ended once its blocks are free.
        uint64_t steps = e->stats.steps - r->cancel_step;
        e->stats.abort_steps[QN_MIN(steps, QN_ABORT_STEPS - 1)]++;
        e->stats.abort_steps_sum += steps;
    }
    if (r->released) {
        free_request(e, r);
    } else {
        notify(e, r);
    }
}

static qn_status check(const qn_engine *e, const qn_request *q, qn_error *err) {
    if (!q->prompt || q->n_prompt < 1) {
        return qn_fail(err, QN_ERR_INVALID, "prompt must have at least one token");
    }
    if (q->n_prompt >= e->info.max_model_len) {
        return qn_fail(err, QN_ERR_LIMIT,
                       "prompt has %d tokens, the model's context is %d tokens (and one is needed "
                       "for the answer)", q->n_prompt, e->info.max_model_len);
    }
    for (int32_t i = 0; i < q->n_prompt; i++) {
        if (q->prompt[i] < 0 || q->prompt[i] >= e->info.vocab_size) {
            return qn_fail(err, QN_ERR_INVALID, "prompt token %d is %d, must be 0 to %d", i,
                           q->prompt[i], e->info.vocab_size - 1);
        }
    }
    if (q->max_tokens < 0) return qn_fail(err, QN_ERR_INVALID, "max_tokens must be at least 1");
    if (q->min_tokens < 0 || (q->max_tokens > 0 && q->min_tokens > q->max_tokens)) {
        return qn_fail(err, QN_ERR_INVALID, "min_tokens must be 0 to max_tokens");
    }
    if (q->n_stop_ids < 0 || q->n_stop_ids > QN_MAX_STOP_IDS) {
        return qn_fail(err, QN_ERR_INVALID, "stop_token_ids: at most %d", QN_MAX_STOP_IDS);
    }
    if (q->cache_salt_len > QN_SCHED_MAX_SALT) {
        return qn_fail(err, QN_ERR_INVALID, "cache_salt must be at most %d bytes", QN_SCHED_MAX_SALT);
    }
    qn_status st = scores_check(q, err);
    return st == QN_OK ? sampling_check(e, q, err) : st;
}

// The room for the output is reserved now; untouched pages cost nothing.
static qn_status reserve(const qn_engine *e, request *r, qn_error *err) {
    const qn_request *q = &r->params;
    int32_t room = e->info.max_model_len - q->n_prompt;
    r->cap = q->max_tokens > 0 && q->max_tokens < room ? q->max_tokens : room;
    size_t n = (size_t)r->cap, top = q->n_logprobs > 0 ? (size_t)q->n_logprobs : 0;
    r->prompt = malloc((size_t)q->n_prompt * sizeof *r->prompt);
    r->ids = calloc(n, sizeof *r->ids);
    if (q->n_logprobs >= 0) r->logprobs = calloc(n, sizeof *r->logprobs);
    if (top) {
        r->top_ids = calloc(n * top, sizeof *r->top_ids);
        r->top_logprobs = calloc(n * top, sizeof *r->top_logprobs);
    }
    if (!r->prompt || !r->ids || (q->n_logprobs >= 0 && !r->logprobs) ||
        (top && (!r->top_ids || !r->top_logprobs))) {
        free_buffers(r);
        return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    memcpy(r->prompt, q->prompt, (size_t)q->n_prompt * sizeof *r->prompt);
    for (int32_t i = 0; i < q->n_stop_ids; i++) r->stop_ids[r->n_stop_ids++] = q->stop_ids[i];
    if (!q->ignore_eos) {
        const int32_t *own;
        size_t n_own = qn_tokenizer_stop_ids(e->tokenizer, &own);
        for (size_t i = 0; i < n_own && r->n_stop_ids < (int32_t)QN_COUNT(r->stop_ids); i++) {
            r->stop_ids[r->n_stop_ids++] = own[i];
        }
    }
    if (q->cache_salt_len) memcpy(r->salt, q->cache_salt, q->cache_salt_len);
    r->params.prompt = r->prompt;
    r->params.stop_ids = r->stop_ids;
    qn_status st = sampling_copy(e, r, err);
    if (st == QN_OK) st = scores_reserve(r, err);
    if (st != QN_OK) free_buffers(r);
    return st;
}

static const char too_many_scores[] = "too many prompt_logprobs are under way, try again later";

qn_status qn_engine_submit(qn_engine *e, const qn_request *q, qn_mailbox *mailbox, uint64_t *handle,
                           qn_error *err) {
    qn_status st = check(e, q, err);
    if (st != QN_OK) return st;
    // Refusal under load must cost little: looked at before anything is allocated, and again below.
    pthread_mutex_lock(&e->lock);
    bool full = e->queued >= e->max_queued || e->n_free == 0 ||
                e->queued_tokens + q->n_prompt > e->max_queued_tokens;
    bool many = scores_size(q) > QN_MAX_LIVE_PROMPT_LOGPROBS - e->live_scores;
    if (full || many) e->stats.rejected++;
    pthread_mutex_unlock(&e->lock);
    if (full) return qn_fail(err, QN_ERR_BUSY, "the queue is full, try again later");
    if (many) return qn_fail(err, QN_ERR_BUSY, "%s", too_many_scores);

    request fresh = {.used = true, .params = *q, .mailbox = mailbox, .stop_id = -1};
    st = reserve(e, &fresh, err);
    if (st != QN_OK) return st;
    fresh.seed = q->seed;
    if (!q->has_seed && !qn_os_random(&fresh.seed, sizeof fresh.seed)) {
        fresh.seed = qn_hash_u64(qn_os_now_ns());
    }
    fresh.submitted = engine_now();

    pthread_mutex_lock(&e->lock);
    if (e->stop) {
        st = qn_fail(err, QN_ERR_CANCELLED, "the engine is stopping");
    } else if (e->n_free == 0 || e->queued >= e->max_queued) {
        e->stats.rejected++;
        st = qn_fail(err, QN_ERR_BUSY, "the queue is full, try again later");
    } else if (scores_size(q) > QN_MAX_LIVE_PROMPT_LOGPROBS - e->live_scores) {
        e->stats.rejected++;
        st = qn_fail(err, QN_ERR_BUSY, "%s", too_many_scores);
    } else {
        request *r = &e->requests[e->free_list[--e->n_free]];
        fresh.generation = r->generation;
        *r = fresh;
        r->params.stop_ids = r->stop_ids;
        r->params.cache_salt = r->salt;
        *handle = request_handle(e, r);
        qn_queue_push(e->submits, *handle); // as long as the table: never full
        e->queued++;
        e->stats.waiting++; // counted at once: who admits by it must not wait for the step to end
        e->live_scores += scores_size(q);
        e->queued_tokens += q->n_prompt;
        e->pending_tokens += q->n_prompt;
        // Idle time is no lack of progress: the watchdog's clock starts with the work.
        if (!e->stats.has_work) e->stats.last_progress_ns = qn_os_now_ns();
        e->stats.has_work = true;
        pthread_cond_signal(&e->work);
    }
    pthread_mutex_unlock(&e->lock);
    if (st != QN_OK) free_buffers(&fresh);
    return st;
}

// Under lock.
static void cancel(qn_engine *e, request *r) {
    if (r->cancelled || r->done) return;
    r->cancelled = true;
    r->cancel_step = e->stats.steps;
    qn_queue_push(e->cancels, request_handle(e, r));
    pthread_cond_signal(&e->work);
}

void qn_engine_cancel(qn_engine *e, uint64_t handle) {
    pthread_mutex_lock(&e->lock);
    request *r = request_find(e, handle);
    if (r && !r->released) cancel(e, r);
    pthread_mutex_unlock(&e->lock);
}

void qn_engine_release(qn_engine *e, uint64_t handle) {
    pthread_mutex_lock(&e->lock);
    request *r = request_find(e, handle);
    if (r && !r->released) {
        r->released = true;
        cancel(e, r);
        if (r->done) free_request(e, r);
    }
    pthread_mutex_unlock(&e->lock);
}

qn_status qn_engine_read(qn_engine *e, uint64_t handle, qn_token_event *events, size_t max,
                         size_t *n, qn_request_state *state) {
    pthread_mutex_lock(&e->lock);
    request *r = request_find(e, handle);
    if (!r || r->released) {
        pthread_mutex_unlock(&e->lock);
        *n = 0;
        return QN_ERR_NOT_FOUND;
    }
    size_t count = QN_MIN((size_t)(r->n - r->n_read), max);
    size_t top = r->top_ids ? (size_t)r->params.n_logprobs : 0;
    for (size_t i = 0; i < count; i++) {
        size_t j = (size_t)r->n_read + i;
        qn_token_event *ev = &events[i];
        ev->id = r->ids[j];
        ev->logprob = r->logprobs ? r->logprobs[j] : 0;
        ev->n_top = (int32_t)top;
        if (top) {
            memcpy(ev->top_ids, r->top_ids + j * top, top * sizeof *ev->top_ids);
            memcpy(ev->top_logprobs, r->top_logprobs + j * top, top * sizeof *ev->top_logprobs);
        }
    }
    r->n_read += (int32_t)count;
    bool all_read = r->n_read == r->n;
    r->in_mailbox = false;
    if (!all_read) notify(e, r); // the reader took only a part
    if (state) {
        bool over = r->done && all_read;
        *state = (qn_request_state){
            .outcome = over ? r->outcome : QN_RUNNING,
            .n_prompt = r->params.n_prompt,
            .n_output = r->n,
            .n_cached = r->n_cached,
            .stop_id = r->stop_id,
        };
        if (over) {
            double started = r->first_scheduled > 0 ? r->first_scheduled : r->finished;
            double first = r->first_token > 0 ? r->first_token : r->finished;
            state->error = r->error;
            state->queue_seconds = started - r->submitted;
            state->prefill_seconds = first - started;
            state->decode_seconds = r->finished - first;
        }
    }
    pthread_mutex_unlock(&e->lock);
    *n = count;
    return QN_OK;
}

void qn_engine_get_stats(qn_engine *e, qn_engine_stats *out) {
    pthread_mutex_lock(&e->lock);
    *out = e->stats;
    pthread_mutex_unlock(&e->lock);
}

qn_status qn_engine_logits(qn_engine *e, const int32_t *ids, int32_t n, int32_t chunk,
                           void (*row)(void *user, int32_t index, const float *logits), void *user,
                           qn_error *err) {
    if (n < 1 || n > e->info.max_model_len) {
        return qn_fail(err, QN_ERR_LIMIT, "%d tokens do not fit the context of %d", n,
                       e->info.max_model_len);
    }
    for (int32_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= e->info.vocab_size) {
            return qn_fail(err, QN_ERR_INVALID, "token %d is %d, must be 0 to %d", i, ids[i],
                           e->info.vocab_size - 1);
        }
    }
    logits_job job = {.ids = ids, .n = n, .chunk = chunk, .row = row, .user = user, .err = err};
    pthread_mutex_lock(&e->lock);
    if (e->job || e->stats.has_work || e->stop) {
        pthread_mutex_unlock(&e->lock);
        return qn_fail(err, QN_ERR_BUSY, "the engine has other work");
    }
    e->job = &job;
    pthread_cond_signal(&e->work);
    while (!job.finished) pthread_cond_wait(&e->job_done, &e->lock);
    pthread_mutex_unlock(&e->lock);
    return job.status;
}

qn_status qn_mailbox_open(qn_mailbox *m, size_t capacity, qn_error *err) {
    m->ready = qn_queue_create(capacity);
    m->wakeup.fd = -1;
    if (!m->ready) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    qn_status st = qn_wakeup_open(&m->wakeup, err);
    if (st != QN_OK) {
        qn_queue_destroy(m->ready);
        m->ready = NULL;
    }
    return st;
}

void qn_mailbox_close(qn_mailbox *m) {
    qn_wakeup_close(&m->wakeup);
    qn_queue_destroy(m->ready);
    m->ready = NULL;
}

bool qn_mailbox_take(qn_mailbox *m, uint64_t *handle) {
    if (qn_queue_pop(m->ready, handle)) return true;
    // Cleared only when empty, and looked at once more: a signal between the two is not lost.
    qn_wakeup_clear(&m->wakeup);
    return qn_queue_pop(m->ready, handle);
}
