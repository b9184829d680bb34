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
// 3. The cached ones are in the order in which their last owners left them, oldest first; ahead is
//    one of them or -1.
#ifndef QN_SCHEDULER_BLOCK_POOL_H
#define QN_SCHEDULER_BLOCK_POOL_H

#include <stdbool.h>
#include <stdint.h>

enum { QN_BLOCK_POOL_AHEAD = 8 };

typedef struct qn_block { // 16 bytes: whoever looks at one of them soon looks at the others
    int32_t refs;
    int32_t name;         // the prefix cache's node; -1: none
    int32_t older, newer; // of a cached one: neighbours in the list of them; -1: the end
} qn_block;

typedef struct qn_block_pool {
    int32_t n_blocks, n_free, n_clean;
    int32_t *free_ids; // [n_blocks], a stack of the clean: the one freed last is in the CPU caches
    qn_block *blocks;  // [n_blocks]
    int32_t oldest, newest; // ends of the list of cached ones; -1: empty
    // A cached one about n_ahead after the oldest; -1: none. Blocks up to there are on their way to
    // the CPU caches: each was used long ago, and evictions would wait for memory one by one.
    int32_t ahead, n_ahead;
} qn_block_pool;

// n_blocks >= 1. False when out of memory; then, too, it is to be freed.
bool qn_block_pool_init(qn_block_pool *p, int32_t n_blocks);
void qn_block_pool_free(qn_block_pool *p);

bool qn_block_pool_check(const qn_block_pool *p);

// ---- inline: some hundred of each in a step ----

static inline void qn_block_pool_link(qn_block_pool *p, int32_t id) {
    p->blocks[id].older = p->newest;
    p->blocks[id].newer = -1;
    if (p->newest >= 0) {
        p->blocks[p->newest].newer = id;
    } else {
        p->oldest = id;
    }
    p->newest = id;
}

static inline void qn_block_pool_unlink(qn_block_pool *p, int32_t id) {
    qn_block *b = &p->blocks[id];
    if (id == p->ahead) p->ahead = -1;
    if (b->older >= 0) {
        p->blocks[b->older].newer = b->newer;
    } else {
        p->oldest = b->newer;
    }
    if (b->newer >= 0) {
        p->blocks[b->newer].older = b->older;
    } else {
        p->newest = b->older;
    }
}

// A clean block with one reference; -1: none is clean.
static inline int32_t qn_block_pool_take(qn_block_pool *p) {
    if (p->n_clean == 0) return -1;
    int32_t id = p->free_ids[--p->n_clean];
    p->n_free--;
    p->blocks[id].refs = 1;
    return id;
}

// The oldest cached block, with one reference and without a name. There is one.
static inline int32_t qn_block_pool_take_oldest(qn_block_pool *p) {
    int32_t id = p->oldest;
    // Two places at a time, until it is far enough.
    if (p->ahead < 0) {
        p->ahead = id;
        p->n_ahead = 0;
    }
    p->n_ahead--;
    for (int i = 0; i < 2 && p->n_ahead < QN_BLOCK_POOL_AHEAD; i++) {
        int32_t next = p->blocks[p->ahead].newer;
        if (next < 0) break;
        __builtin_prefetch(&p->blocks[next], 1);
        p->ahead = next;
        p->n_ahead++;
    }
    qn_block_pool_unlink(p, id);
    p->n_free--;
    p->blocks[id].refs = 1;
    p->blocks[id].name = -1;
    return id;
}

// One more owner of a block that is in use or cached.
static inline void qn_block_pool_retain(qn_block_pool *p, int32_t id) {
    if (p->blocks[id].refs == 0) {
        if (p->blocks[id].name < 0) return;
        qn_block_pool_unlink(p, id);
        p->n_free--;
    }
    p->blocks[id].refs++;
}

// One owner less; true when it was the last one: the block is cached if it has a name, else clean.
// A block without owners is left alone (false), so that a double release cannot give a block to two
// sequences.
static inline bool qn_block_pool_release(qn_block_pool *p, int32_t id) {
    qn_block *b = &p->blocks[id];
    if (b->refs <= 0 || --b->refs > 0) return false;
    p->n_free++;
    if (b->name >= 0) {
        qn_block_pool_link(p, id);
    } else {
        p->free_ids[p->n_clean++] = id;
    }
    return true;
}

// Gives a name (>= 0) to a block that is in use and has none.
static inline void qn_block_pool_set_name(qn_block_pool *p, int32_t id, int32_t name) {
    p->blocks[id].name = name;
}

// Takes the name away; a cached block is clean then.
static inline void qn_block_pool_clear_name(qn_block_pool *p, int32_t id) {
    if (p->blocks[id].refs == 0 && p->blocks[id].name >= 0) {
        qn_block_pool_unlink(p, id);
        p->free_ids[p->n_clean++] = id;
    }
    p->blocks[id].name = -1;
}

#endif
