// SPDX-License-Identifier: Apache-2.0
// The blocks of one KV group: ids 0..n-1, a reference count each. A block without references is
// either clean (its content is of no use) or cached: the prefix cache knows it by a name, and it
// stays findable until it is evicted. Both count as free.
//
// Invariants (qn_block_pool_check):
// 1. An id with count 0 is in the clean list exactly once if it has no name, in the list of cached
//    ones exactly once if it has one; an id with references is in neither.
// 2. Hence clean + cached + used = n, and n_free = clean + cached: no block is lost and none is
//    given out twice.
// 3. The cached ones are in the order in which their last owners left them, oldest first.
#ifndef QN_SCHEDULER_BLOCK_POOL_H
#define QN_SCHEDULER_BLOCK_POOL_H

#include <stdbool.h>
#include <stdint.h>

typedef struct qn_block_pool {
    int32_t n_blocks, n_free, n_clean;
    int32_t *free_ids; // [n_blocks], a stack of the clean: the one freed last is in the CPU caches
    int32_t *refs;     // [n_blocks]
    int32_t *name;     // [n_blocks]: the prefix cache's node; -1: none
    int32_t *older, *newer; // [n_blocks]: neighbours in the list of cached ones; -1: the end
    int32_t oldest, newest; // its ends; -1: empty
} qn_block_pool;

// n_blocks >= 1. False when out of memory (the pool is then empty and may be freed).
bool qn_block_pool_init(qn_block_pool *p, int32_t n_blocks);
void qn_block_pool_free(qn_block_pool *p);

// A clean block with one reference; -1: none is clean.
int32_t qn_block_pool_take(qn_block_pool *p);
// One more owner of a block that is in use or cached.
void qn_block_pool_retain(qn_block_pool *p, int32_t id);
// One owner less; true when it was the last one: the block is cached if it has a name, else clean.
// A block without owners is left alone (false), so that a double release cannot give a block to two
// sequences.
bool qn_block_pool_release(qn_block_pool *p, int32_t id);
// Gives a name (>= 0) to a block that is in use and has none.
void qn_block_pool_set_name(qn_block_pool *p, int32_t id, int32_t name);
// Takes the name away; a cached block is clean then.
void qn_block_pool_clear_name(qn_block_pool *p, int32_t id);

bool qn_block_pool_check(const qn_block_pool *p);

#endif
