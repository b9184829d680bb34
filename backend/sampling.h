// SPDX-License-Identifier: Apache-2.0
// Sampling: a row function without state (the noise is a function of seed, choice, position and
// token id). The reference implementation here defines the bits; a backend may do it faster.
//
// 1. Logits that are NaN, or none that is finite, or +inf: status QN_ERR_NUMERIC, id -1.
// 2. logprobs are of the raw logits: logit - max - log(sum exp(logit - max)), before any filter.
// 3. Banned ids get -inf. Where that leaves no finite logit: status QN_ERR_INVALID, id -1.
// 4. temperature 0 (or top_k 1): the id of the largest logit; the smallest id among equals.
// 5. Else z = logit / temperature, in double, as are all sums. Filters in this order, each on what the one before left:
//    top_k: the k largest (ties with the k-th stay in by smallest id first);
//    top_p: the smallest set of most probable ids (softmax of z over what is left, descending, ties
//           by smallest id first) whose sum >= top_p; min_p: those with prob >= min_p * max prob.
// 6. The sample is argmax over the set of z + g, g = -log(-log(u)), with u in (0, 1) from
//    Philox4x32(key = seed, counter = {token id, position, choice, 0}), word 0:
//    u = (word + 0.5) / 2^32 in double. Ties: smallest id.
#ifndef QN_BACKEND_SAMPLING_H
#define QN_BACKEND_SAMPLING_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

enum { QN_MAX_TOP_LOGPROBS = 20 };

typedef struct qn_sample_row {
    uint64_t seed;
    int32_t position;   // absolute position of the token that is being sampled
    int32_t choice;     // index among the n choices of a request
    float temperature;  // >= 0, finite
    float top_p;        // (0, 1]
    float min_p;        // [0, 1]
    int32_t top_k;      // 0: all
    int32_t n_logprobs; // -1: none wanted; 0: of the sampled token; n: and the n most likely
    const int32_t *banned;
    int32_t n_banned;
} qn_sample_row;

typedef struct qn_sample {
    qn_status status;
    int32_t id;
    float logprob; // of id; 0 where not wanted
    int32_t n_top;
    int32_t top_ids[QN_MAX_TOP_LOGPROBS]; // descending by logprob, ties by smallest id
    float top_logprobs[QN_MAX_TOP_LOGPROBS];
} qn_sample;

// Bytes of scratch that qn_sample_logits needs for a vocabulary.
size_t qn_sample_scratch_bytes(int32_t vocab_size);
// logits [vocab_size] are not changed.
void qn_sample_logits(const float *logits, int32_t vocab_size, const qn_sample_row *row,
                      void *scratch, qn_sample *out);

#endif
