// SPDX-License-Identifier: Apache-2.0
// Prompt logprobs: every row of the prompt has logits, and the row at position p scores token p + 1.
// The store is made at submit. Rows come in ascending order, and again from the beginning after a
// preemption: the first scores stay (those that come again have the same bits).
#include "engine/internal.h"

#include "base/checked.h"

#include <stdlib.h>

qn_status scores_check(const qn_request *q, qn_error *err) {
    if (!q->prompt_logprobs) return QN_OK;
    if (q->n_prompt_logprobs < 0 || q->n_prompt_logprobs > QN_MAX_TOP_LOGPROBS) {
        return qn_fail(err, QN_ERR_INVALID, "prompt_logprobs must be 0 to %d", QN_MAX_TOP_LOGPROBS);
    }
    if (q->fork_of) {
        return qn_fail(err, QN_ERR_INVALID, "prompt_logprobs: a fork computes no prompt");
    }
    if (scores_size(q) > QN_MAX_PROMPT_LOGPROBS) {
        return qn_fail(err, QN_ERR_INVALID, "prompt_logprobs: %d prompt tokens with %d each are more "
                       "than %d", q->n_prompt, 1 + q->n_prompt_logprobs, QN_MAX_PROMPT_LOGPROBS);
    }
    return QN_OK;
}

int64_t scores_size(const qn_request *q) {
    return q->prompt_logprobs ? (int64_t)q->n_prompt * (1 + q->n_prompt_logprobs) : 0;
}

qn_status scores_reserve(request *r, qn_error *err) {
    const size_t n = (size_t)scores_size(&r->params);
    if (n == 0) return QN_OK;
    r->scores = calloc(n, sizeof *r->scores);
    r->n_scored = 1; // nothing comes before the first token
    return r->scores ? QN_OK : qn_fail(err, QN_ERR_NOMEM, "out of memory");
}

bool scores_row(const request *r, int32_t position, qn_sample_row *row) {
    const int32_t n_prompt = r->params.n_prompt;
    if (!r->scores || position >= n_prompt + r->n) return false;
    *row = (qn_sample_row){.top_p = 1, .score_only = true, .n_logprobs = -1};
    if (position >= n_prompt) {
        row->target = r->ids[position - n_prompt]; // computed again, in a chunk that began in the prompt
    } else {
        row->target = r->prompt[position];
        if (position >= r->n_scored) row->n_logprobs = r->params.n_prompt_logprobs;
    }
    return true;
}

static void store(request *r, const qn_sample *sample) {
    const int32_t n_top = r->params.n_prompt_logprobs;
    qn_token_score *at = r->scores + (size_t)r->n_scored++ * (size_t)(1 + n_top);
    at[0] = (qn_token_score){sample->id, sample->rank, sample->logprob};
    for (int32_t i = 0; i < n_top; i++) {
        const bool any = i < sample->n_top;
        at[1 + i] = (qn_token_score){any ? sample->top_ids[i] : -1, i + 1,
                                     any ? sample->top_logprobs[i] : 0};
    }
}

void scores_take(qn_engine *e, const engine_step *step, const qn_sample *samples) {
    const qn_step_plan *p = step->plan;
    for (int32_t i = 0; i < p->n_seqs && e->n_scoring > 0; i++) {
        const qn_plan_seq *s = &qn_plan_seqs(p)[i];
        if (s->n_logits == 0 || !step->rows[s->logit_start].score_only) continue;
        // Under the lock, for its reader asks how far it is.
        pthread_mutex_lock(&e->lock);
        request *r = request_find(e, qn_sched_slot_id(e->sched, s->slot));
        const int32_t first = s->position + s->query_len - s->n_logits + 1;
        for (int32_t j = 0; r && r->scores && j < s->n_logits; j++) {
            const qn_sample *sample = &samples[s->logit_start + j];
            if (first + j != r->n_scored || first + j >= r->params.n_prompt) continue;
            if (sample->status == QN_OK) store(r, sample);
        }
        pthread_mutex_unlock(&e->lock);
    }
}

qn_status qn_engine_prompt_logprobs(qn_engine *e, uint64_t handle, qn_prompt_logprobs *out) {
    *out = (qn_prompt_logprobs){0};
    qn_status st = QN_ERR_NOT_FOUND;
    pthread_mutex_lock(&e->lock);
    const request *r = request_find(e, handle);
    if (r && !r->released && r->scores) {
        st = r->n_scored == r->params.n_prompt ? QN_OK : QN_ERR_BUSY;
        if (st == QN_OK) {
            *out = (qn_prompt_logprobs){r->params.n_prompt, r->params.n_prompt_logprobs, r->scores};
        }
    }
    pthread_mutex_unlock(&e->lock);
    return st;
}
