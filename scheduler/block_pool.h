// SPDX-License-Identifier: Apache-2.0
// The blocks of one KV group: ids 0..n-1, a reference count each, and a list of the free ones.
//
// Invariants (qn_block_pool_check):
// 1. An id is in the free list exactly once if its count is 0, and not at all otherwise.
// 2. Hence free + used = n: no block is lost and none is given out twice.
#ifndef QN_SCHEDULER_BLOCK_POOL_H
#define QN_SCHEDULER_BLOCK_POOL_H

#include <stdbool.h>
#include <stdint.h>

typedef struct qn_block_pool {
    int32_t n_blocks, n_free;
    int32_t *free_ids; // [n_blocks], a stack: the block freed last is warm in the caches
    int32_t *refs;     // [n_blocks]
} qn_block_pool;

// n_blocks >= 1. False when out of memory (the pool is then empty and may be freed).
bool qn_block_pool_init(qn_block_pool *p, int32_t n_blocks);
void qn_block_pool_free(qn_block_pool *p);

// A free block with one reference; -1: none is free.
int32_t qn_block_pool_take(qn_block_pool *p);
// One more owner of a block that is in use.
void qn_block_pool_retain(qn_block_pool *p, int32_t id);
// One owner less; true when it was the last one and the block is free again. A block without owners
// is left alone (false), so that a double release cannot give a block to two sequences.
bool qn_block_pool_release(qn_block_pool *p, int32_t id);

bool qn_block_pool_check(const qn_block_pool *p);

#endif
