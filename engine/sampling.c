// SPDX-License-Identifier: Apache-2.0
// A request's sampling fields: checked at the door, copied into one block at submit, given to the
// sampler row by row. Nothing is allocated between submit and the request's end.
#include "engine/internal.h"

#include "base/checked.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static qn_status check_ids(const qn_engine *e, const char *name, const int32_t *ids, int64_t n,
                           qn_error *err) {
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= e->info.vocab_size) {
            return qn_fail(err, QN_ERR_INVALID, "%s: element %lld is %d, must be 0 to %d", name,
                           (long long)i, ids[i], e->info.vocab_size - 1);
        }
    }
    return QN_OK;
}

static bool within(float x, float min, float max) { return isfinite(x) && x >= min && x <= max; }

qn_status sampling_check(const qn_engine *e, const qn_request *q, qn_error *err) {
    if (!within(q->temperature, 0, 100)) {
        return qn_fail(err, QN_ERR_INVALID, "temperature must be 0 to 100");
    }
    if (!within(q->top_p, 0, 1) || q->top_p <= 0) {
        return qn_fail(err, QN_ERR_INVALID, "top_p must be in (0, 1]");
    }
    if (!within(q->min_p, 0, 1)) return qn_fail(err, QN_ERR_INVALID, "min_p must be in [0, 1]");
    if (q->top_k < 0) return qn_fail(err, QN_ERR_INVALID, "top_k must be 0 (off) or positive");
    if (q->n_logprobs < -1 || q->n_logprobs > QN_MAX_TOP_LOGPROBS) {
        return qn_fail(err, QN_ERR_INVALID, "logprobs must be at most %d", QN_MAX_TOP_LOGPROBS);
    }
    if (!within(q->presence_penalty, -2, 2)) {
        return qn_fail(err, QN_ERR_INVALID, "presence_penalty must be -2 to 2");
    }
    if (!within(q->frequency_penalty, -2, 2)) {
        return qn_fail(err, QN_ERR_INVALID, "frequency_penalty must be -2 to 2");
    }
    if (!within(q->repetition_penalty, 0, QN_MAX_REPETITION_PENALTY)) {
        return qn_fail(err, QN_ERR_INVALID, "repetition_penalty must be above 0 and at most %d",
                       QN_MAX_REPETITION_PENALTY);
    }
    if (q->n_biases < 0 || q->n_biases > QN_MAX_BIASES) {
        return qn_fail(err, QN_ERR_INVALID, "logit_bias: at most %d", QN_MAX_BIASES);
    }
    for (int32_t i = 0; i < q->n_biases; i++) {
        if (!within(q->biases[i], -100, 100)) {
            return qn_fail(err, QN_ERR_INVALID, "logit_bias must be -100 to 100");
        }
    }
    if (q->n_allowed_ids < 0) {
        return qn_fail(err, QN_ERR_INVALID, "allowed_token_ids must not be negative in number");
    }
    if (q->n_bad_words < 0 || q->n_bad_words > QN_MAX_BAD_WORDS) {
        return qn_fail(err, QN_ERR_INVALID, "bad_words: at most %d", QN_MAX_BAD_WORDS);
    }
    int64_t n_bad_ids = 0;
    for (int32_t i = 0; i < q->n_bad_words; i++) {
        if (q->bad_word_lens[i] < 1 || q->bad_word_lens[i] > QN_MAX_BAD_WORD_IDS) {
            return qn_fail(err, QN_ERR_INVALID, "bad_words: number %d has %d tokens, must be 1 to "
                           "%d", i, q->bad_word_lens[i], QN_MAX_BAD_WORD_IDS);
        }
        n_bad_ids += q->bad_word_lens[i];
    }
    qn_status st = check_ids(e, "logit_bias", q->bias_ids, q->n_biases, err);
    if (st == QN_OK) st = check_ids(e, "allowed_token_ids", q->allowed_ids, q->n_allowed_ids, err);
    if (st == QN_OK) st = check_ids(e, "bad_words", q->bad_word_ids, n_bad_ids, err);
    return st;
}

qn_status sampling_copy(const qn_engine *e, request *r, qn_error *err) {
    qn_request *q = &r->params;
    const size_t n_words = q->n_allowed_ids > 0 ? QN_CEIL_DIV((size_t)e->info.vocab_size, 32) : 0;
    const size_t n_biases = (size_t)q->n_biases, n_bad = (size_t)q->n_bad_words;
    size_t n_bad_ids = 0;
    for (size_t i = 0; i < n_bad; i++) n_bad_ids += (size_t)q->bad_word_lens[i];
    const size_t n_bans = n_bad > 0 ? (size_t)r->n_stop_ids + n_bad : 0;
    const size_t n = n_words + 2 * n_biases + n_bad + n_bad_ids + n_bans; // of four bytes each
    if (n > 0) {
        r->sampling = calloc(n, sizeof(int32_t));
        if (!r->sampling) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    int32_t *at = r->sampling;
    if (n_words > 0) {
        r->allowed = (uint32_t *)at;
        for (int32_t i = 0; i < q->n_allowed_ids; i++) {
            r->allowed[q->allowed_ids[i] / 32] |= (uint32_t)1 << (q->allowed_ids[i] % 32);
        }
        at += n_words;
    }
    if (n_biases > 0) {
        memcpy(at, q->bias_ids, n_biases * sizeof *at);
        memcpy(at + n_biases, q->biases, n_biases * sizeof *at);
        q->bias_ids = at;
        q->biases = (const float *)(const void *)(at + n_biases);
        at += 2 * n_biases;
    }
    if (n_bad > 0) {
        memcpy(at, q->bad_word_lens, n_bad * sizeof *at);
        memcpy(at + n_bad, q->bad_word_ids, n_bad_ids * sizeof *at);
        q->bad_word_lens = at;
        q->bad_word_ids = at + n_bad;
        r->bans = at + n_bad + n_bad_ids;
        memcpy(r->bans, r->stop_ids, (size_t)r->n_stop_ids * sizeof *r->bans);
        r->n_bans = r->n_stop_ids;
        const int32_t *word = q->bad_word_ids;
        for (size_t i = 0; i < n_bad; word += q->bad_word_lens[i++]) {
            if (q->bad_word_lens[i] == 1) r->bans[r->n_bans++] = *word;
            else r->needs_output = true;
        }
    }
    q->allowed_ids = NULL; // the caller's; the mask has them
    for (int32_t i = r->n_stop_ids; r->allowed && i < r->n_bans; i++) {
        r->allowed[r->bans[i] / 32] &= ~((uint32_t)1 << (r->bans[i] % 32));
    }
    uint32_t any = 0;
    for (size_t i = 0; i < n_words; i++) any |= r->allowed[i];
    if (r->allowed && !any) {
        return qn_fail(err, QN_ERR_INVALID, "allowed_token_ids: bad_words exclude all of them");
    }
    const qn_sample_row row = {.repetition_penalty = q->repetition_penalty,
                               .presence_penalty = q->presence_penalty,
                               .frequency_penalty = q->frequency_penalty};
    r->has_penalties = qn_sample_has_penalties(&row);
    r->needs_output = r->needs_output || r->has_penalties;
    return QN_OK;
}

// The last ids of the bad words whose other ids are the end of the output, behind the fixed ones.
static int32_t add_bad_words(request *r, int32_t n_output) {
    const qn_request *q = &r->params;
    const int32_t *word = q->bad_word_ids;
    int32_t n = r->n_bans;
    for (int32_t i = 0; i < q->n_bad_words; word += q->bad_word_lens[i++]) {
        const int32_t before = q->bad_word_lens[i] - 1;
        if (before == 0 || before > n_output) continue;
        if (memcmp(r->ids + n_output - before, word, (size_t)before * sizeof *word) == 0) {
            r->bans[n++] = word[before];
        }
    }
    return n;
}

void sampling_row(request *r, int32_t position, qn_sample_row *row) {
    const qn_request *q = &r->params;
    if (scores_row(r, position, row)) return;
    const int32_t n_output = QN_MIN(position - q->n_prompt, r->n);
    *row = (qn_sample_row){
        .seed = r->seed,
        .choice = q->choice,
        .position = position,
        .temperature = q->temperature,
        .top_p = q->top_p,
        .min_p = q->min_p,
        .top_k = q->top_k,
        .n_logprobs = q->n_logprobs,
        .allowed = r->allowed,
        .bias_ids = q->bias_ids,
        .biases = q->biases,
        .n_biases = q->n_biases,
    };
    const bool hold = position - q->n_prompt < q->min_tokens; // no stop id yet
    if (q->n_bad_words > 0) {
        const int32_t first = hold ? 0 : r->n_stop_ids;
        row->banned = r->bans + first;
        row->n_banned = (r->needs_output ? add_bad_words(r, n_output) : r->n_bans) - first;
    } else if (hold) {
        row->banned = r->stop_ids;
        row->n_banned = r->n_stop_ids;
    }
    if (r->has_penalties) {
        row->repetition_penalty = q->repetition_penalty;
        row->presence_penalty = q->presence_penalty;
        row->frequency_penalty = q->frequency_penalty;
        row->prompt = r->prompt;
        row->n_prompt = r->prompt ? q->n_prompt : 0;
        row->output = r->ids;
        row->n_output = n_output;
    }
}
