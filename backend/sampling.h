// SPDX-License-Identifier: Apache-2.0
// Sampling: a row function without state (the noise is a function of seed, choice, position and
// token id). The reference implementation here defines the bits; a backend may do it faster.
//
// 1. Logits that are NaN, or none that is finite, or +inf: status QN_ERR_NUMERIC, id -1.
// 2. logprobs are of the raw logits: logit - max - log(sum exp(logit - max)), before any filter. So is
//    the rank: 1 + how many ids have a larger logit. A row that only scores stops here: id is its target.
// 3. The logits are changed in this order (vLLM's), each finite one in double and rounded once to
//    float, within +-FLT_MAX; -inf stays -inf:
//    a. ids outside the bit mask `allowed`, then those of `banned`, get -inf;
//    b. bias: added, in the order of the list (an id may come twice);
//    c. repetition_penalty r, once for each id that is in the prompt or the output:
//       x > 0 ? x / r : x * r;
//    d. frequency_penalty times how often the id is in the output, then presence_penalty once if it
//       is there at all, subtracted.
//    Where that leaves no finite logit: status QN_ERR_INVALID, id -1.
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

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { QN_MAX_TOP_LOGPROBS = 20 };

typedef struct qn_sample_row {
    uint64_t seed;
    int32_t position;   // absolute position of the token that is being sampled
    int32_t choice;     // index among the n choices of a request
    bool score_only;    // nothing is sampled: the row is about `target`, an id in range
    int32_t target;
    float temperature;  // >= 0, finite
    float top_p;        // (0, 1]
    float min_p;        // [0, 1]
    int32_t top_k;      // 0: all
    int32_t n_logprobs; // -1: none wanted; 0: of the sampled token; n: and the n most likely
    const int32_t *banned; // ids outside the vocabulary are ignored, here and below
    int32_t n_banned;
    const uint32_t *allowed; // [QN_CEIL_DIV(vocab_size, 32)], bit id % 32 of word id / 32; NULL: all
    const int32_t *bias_ids;
    const float *biases; // [n_biases], finite
    int32_t n_biases;
    float repetition_penalty; // > 0; 0 counts as 1 (off)
    float presence_penalty, frequency_penalty;
    // What the penalties look at; read only where they are on. All output tokens before `position`.
    const int32_t *prompt, *output;
    int32_t n_prompt, n_output;
} qn_sample_row;

// Does the row need prompt and output?
static inline bool qn_sample_has_penalties(const qn_sample_row *row) {
    return (row->repetition_penalty > 0 && row->repetition_penalty != 1.0f) ||
           row->presence_penalty != 0 || row->frequency_penalty != 0;
}

typedef struct qn_sample {
    qn_status status;
    int32_t id;
    float logprob; // of id; 0 where not wanted
    int32_t rank;  // of id; 0 where not wanted
    int32_t n_top;
    int32_t top_ids[QN_MAX_TOP_LOGPROBS]; // descending by logprob, ties by smallest id
    float top_logprobs[QN_MAX_TOP_LOGPROBS];
} qn_sample;

// Bytes of scratch that qn_sample_logits needs for a vocabulary.
size_t qn_sample_scratch_bytes(int32_t vocab_size);
// logits [vocab_size] are not changed. Linear in the vocabulary and the history; allocates nothing.
void qn_sample_logits(const float *logits, int32_t vocab_size, const qn_sample_row *row,
                      void *scratch, qn_sample *out);

#endif
