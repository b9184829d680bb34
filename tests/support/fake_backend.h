// SPDX-License-Identifier: Apache-2.0
// A backend without arithmetic, for tests and benchmarks of what stands above it. Its "KV" is, for
// each position, a hash of all tokens up to it, kept in the pages that the block tables name: a wrong
// table, a page freed too early or a chunk out of order gives other tokens. The sample of a row is a
// function of that hash and the row's seed.
#ifndef QN_TESTS_FAKE_BACKEND_H
#define QN_TESTS_FAKE_BACKEND_H

#include "backend/backend.h"

extern const qn_backend_api qn_fake_backend;           // one step in flight
extern const qn_backend_api qn_fake_backend_lookahead; // two

// What the next backend that this process opens does (a test sets it before qn_engine_open).
typedef struct qn_fake_options {
    double step_seconds, row_seconds; // how long a step takes; 0: nothing
    int32_t fail_every;               // each so many-th step fails in collect; 0: none
} qn_fake_options;
void qn_fake_backend_set(qn_fake_options options);

// The id that a request gets at `position`, given the tokens before it: for comparison.
int32_t qn_fake_next(const int32_t *tokens, int32_t position, uint64_t seed, int32_t vocab_size);
// The logprob that a row gives which only scores tokens[position].
float qn_fake_logprob(const int32_t *tokens, int32_t position);

#endif
