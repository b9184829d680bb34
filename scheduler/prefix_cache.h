// SPDX-License-Identifier: Apache-2.0
// The prefix cache: which full blocks hold the KV of which tokens. A tree of nodes; a node stands
// for block_size tokens behind those of its parent, and names the block that holds them in each KV
// group. First nodes belong to a salt and an adapter, and with them all that follow.
//
// Most nodes have one child at most: what one sequence went on with. So a node keeps one child as
// its heir, which is found by comparing its tokens and is in no index; only first nodes and
// children beside an heir are in the hash table. What nobody asks for again costs little more than
// a copy of its tokens.
//
// Invariants (qn_prefix_cache_check):
// 1. A node is found by (parent, tokens), a first one by (salt, adapter, tokens), all compared
//    exactly; the hash only says where to look. No two nodes have the same.
// 2. A node is its parent's heir, or in the hash table and, if it has a parent, in the list of its
//    others; not both.
// 3. A node that has a block in group g and that block's name agree, both ways.
// 4. A node has a block in each full group. In a window group it may have none. A node without any
//    block has children (only where there is no full group).
// 5. Whoever has no free block left may evict any cached one: the node of a full group's block goes
//    with all that follow it (blocks in use only lose their names); a window group's block goes
//    alone. Sequences release from their tails, so the oldest is a tail unless somebody computed
//    the same tokens at the same time.
#ifndef QN_SCHEDULER_PREFIX_CACHE_H
#define QN_SCHEDULER_PREFIX_CACHE_H

#include "attention/kv.h"
#include "scheduler/block_pool.h"

#include <stddef.h>

// A tenant's salt, kept once: equal bytes are the same pointer. NULL: no salt.
typedef struct qn_prefix_salt qn_prefix_salt;

typedef struct qn_prefix_node { // 32 bytes
    int32_t parent;      // -1: a first node
    int32_t heir;        // a child; -1: none
    int32_t others;      // the first of the other children; -1: none
    uint32_t generation; // counts up when the node is freed
    int32_t blocks[QN_MAX_KV_GROUPS]; // -1: none
} qn_prefix_node;

typedef struct qn_prefix_entry { // of a node in the hash table
    uint64_t hash;
    qn_prefix_salt *salt; // of a first node, held
    int32_t adapter;      // of a first node
    int32_t in_bucket;    // the next one in the hash bucket; -1: none
    int32_t next, prev;   // in the list of its parent's others; -1: the end
} qn_prefix_entry;

typedef struct qn_prefix_cache {
    int32_t n_groups, block_size, n_nodes, n_free_nodes;
    bool full[QN_MAX_KV_GROUPS];
    qn_block_pool *pools; // [n_groups], the scheduler's
    qn_prefix_node *nodes;
    qn_prefix_entry *entries; // [n_nodes]
    int32_t *tokens;          // [n_nodes][block_size], from a cache line's begin
    int32_t *token_memory;    // ... within this
    int32_t *free_nodes, *buckets;
    uint32_t bucket_mask;
    uint32_t *keys; // [block_size + 1] of the hash
    uint64_t hash_mask, seed;
    qn_prefix_salt **salts; // buckets
    uint32_t salt_mask;
    int32_t n_salts;
    uint64_t evictions; // blocks
} qn_prefix_cache;

enum { QN_PREFIX_MAX_BUCKET = 64 }; // nodes; a fuller bucket takes no more, so a look-up is bounded

// pools: initialized, outlive the cache. n_salts: about how many there will be at a time.
// hash_mask: the bits of the hash that count; 0: all. enabled false: nothing will be published.
// False when out of memory; then, too, it is to be freed.
bool qn_prefix_cache_init(qn_prefix_cache *c, qn_block_pool *pools, const qn_kv_group *groups,
                          int32_t n_groups, int32_t block_size, int32_t n_salts, uint64_t seed,
                          uint64_t hash_mask, bool enabled);
void qn_prefix_cache_free(qn_prefix_cache *c);

// The salt of these bytes, with one more owner. False: out of memory. len 0: *out is NULL.
bool qn_prefix_salt_hold(qn_prefix_cache *c, const void *bytes, size_t len, qn_prefix_salt **out);
void qn_prefix_salt_drop(qn_prefix_cache *c, qn_prefix_salt *salt);

// The node of these block_size tokens behind parent (-1: first ones, of salt and adapter); -1:
// none.
int32_t qn_prefix_find(const qn_prefix_cache *c, int32_t parent, const qn_prefix_salt *salt,
                       int32_t adapter, const int32_t *tokens);
// The same node, made if there is none; blocks [n_groups], in use or -1 (in window groups), are
// named where the node has none. -1: no room.
int32_t qn_prefix_publish(qn_prefix_cache *c, int32_t parent, qn_prefix_salt *salt, int32_t adapter,
                          const int32_t *tokens, const int32_t *blocks);
// Removes the node and those before it as far as they are only on the way to others, and to none.
void qn_prefix_prune(qn_prefix_cache *c, int32_t node);
// A block of group g with one reference, by eviction if need be; -1: none is free.
int32_t qn_prefix_take_block(qn_prefix_cache *c, int32_t g);

// n_held: salts that others hold, each counted as often as it is held; -1: not known.
bool qn_prefix_cache_check(const qn_prefix_cache *c, int64_t n_held);

#endif
