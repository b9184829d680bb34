// SPDX-License-Identifier: Apache-2.0
// The step plan: what the scheduler asks of the backend for one step. A ragged batch: rows of several
// sequences one after another, each with its query start and length and one block table per KV
// group. Flat and pointer-free (offsets into one allocation), so that it can be copied, sent to
// another rank, logged and replayed as bytes.
#ifndef QN_ATTENTION_STEP_PLAN_H
#define QN_ATTENTION_STEP_PLAN_H

#include "attention/kv.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// A row's token that is not known yet: the backend takes the sequence's last sampled id (planning a
// step before the results of the one before it are in).
enum { QN_TOKEN_PENDING = -1 };

typedef struct qn_plan_seq {
    int32_t slot;        // 0..max_seqs-1, the same for the sequence's whole time in the batch
    int32_t adapter;     // -1: none
    int32_t query_start; // its first row
    int32_t query_len;   // rows, > 0
    int32_t position;    // absolute position of its first row = tokens already in its KV
    int32_t logit_start; // its first logit row
    int32_t n_logits;    // its last n_logits rows want logits; 0 in the middle of a prompt
    int32_t n_draft;     // the last n_draft rows are draft tokens (then n_logits = n_draft + 1)
    int32_t block_start[QN_MAX_KV_GROUPS]; // where its table begins in the block ids
    int32_t n_blocks[QN_MAX_KV_GROUPS];    // covers position + query_len tokens
} qn_plan_seq;

typedef struct qn_plan_copy { // before the step: page src to page dst, whole (copy on write)
    int32_t group, src, dst;
} qn_plan_copy;

typedef struct qn_step_plan {
    uint64_t step; // counts up
    int32_t n_seqs, n_rows, n_logits, n_blocks, n_copies, n_groups;
    int32_t cap_seqs, cap_rows, cap_blocks, cap_copies;
    uint32_t seqs_offset, tokens_offset, blocks_offset, copies_offset; // bytes from the start
    size_t bytes;                                                      // the whole allocation
} qn_step_plan;

// One allocation, freed with free(); NULL when out of memory. cap_blocks: all tables together.
qn_step_plan *qn_step_plan_create(int32_t cap_seqs, int32_t cap_rows, int32_t cap_blocks,
                                  int32_t cap_copies, int32_t n_groups);
void qn_step_plan_reset(qn_step_plan *p);

static inline qn_plan_seq *qn_plan_seqs(const qn_step_plan *p) {
    return (qn_plan_seq *)((uintptr_t)p + p->seqs_offset);
}
static inline int32_t *qn_plan_tokens(const qn_step_plan *p) { // [n_rows]
    return (int32_t *)((uintptr_t)p + p->tokens_offset);
}
static inline int32_t *qn_plan_blocks(const qn_step_plan *p) {
    return (int32_t *)((uintptr_t)p + p->blocks_offset);
}
static inline qn_plan_copy *qn_plan_copies(const qn_step_plan *p) {
    return (qn_plan_copy *)((uintptr_t)p + p->copies_offset);
}

// Checks a plan against itself and the sizes it will meet: ranges, order, tables long enough, ids in
// range. For debug builds, tests and plans from elsewhere. reason: a static string.
bool qn_step_plan_valid(const qn_step_plan *p, int32_t block_size, const int32_t *n_blocks_of_group,
                        int32_t vocab_size, const char **reason);

#endif
