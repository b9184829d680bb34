// SPDX-License-Identifier: Apache-2.0
#include "scheduler/prefix_cache.h"

#include "base/checked.h"
#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

enum { LINE = 64 }; // bytes of a cache line

struct qn_prefix_salt {
    qn_prefix_salt *in_bucket;
    uint64_t hash;
    int32_t owners;
    uint32_t len;
    unsigned char bytes[];
};

static uint32_t places(int64_t n) {
    uint32_t p = 16;
    while ((int64_t)p < n && p < UINT32_C(1) << 30) p *= 2;
    return p;
}

bool qn_prefix_cache_init(qn_prefix_cache *c, qn_block_pool *pools, const qn_kv_group *groups,
                          int32_t n_groups, int32_t block_size, int32_t n_salts, uint64_t seed,
                          uint64_t hash_mask, bool enabled) {
    *c = (qn_prefix_cache){.n_groups = n_groups,
                           .block_size = block_size,
                           .pools = pools,
                           .hash_mask = hash_mask ? hash_mask : UINT64_MAX,
                           .seed = seed};
    // Each node has a block in each full group. Without one, nodes whose blocks the window passed
    // are needed on the way to those that have some: as many again.
    int64_t most = INT64_MAX, all = 0;
    for (int32_t g = 0; g < n_groups; g++) {
        c->full[g] = groups[g].kind == QN_KV_FULL;
        all += pools[g].n_blocks;
        if (c->full[g]) most = QN_MIN(most, pools[g].n_blocks);
    }
    c->n_nodes = enabled ? (int32_t)QN_MIN(QN_MIN(most, 2 * all), INT32_MAX / 4) : 1;
    size_t n = (size_t)c->n_nodes, n_tokens, n_buckets = places(2 * (int64_t)c->n_nodes);
    if (!qn_mul_size(n, (size_t)block_size, &n_tokens)) return false;
    c->nodes = calloc(n, sizeof *c->nodes);
    c->entries = calloc(n, sizeof *c->entries);
    c->token_memory = calloc(n_tokens + LINE / sizeof *c->tokens, sizeof *c->tokens);
    c->free_nodes = calloc(n, sizeof *c->free_nodes);
    c->buckets = calloc(n_buckets, sizeof *c->buckets);
    c->keys = calloc((size_t)block_size + 1, sizeof *c->keys);
    size_t n_salt_places = places(n_salts);
    c->salts = calloc(n_salt_places, sizeof(qn_prefix_salt *));
    if (!c->nodes || !c->entries || !c->token_memory || !c->free_nodes || !c->buckets || !c->keys ||
        !c->salts) {
        return false;
    }
    uintptr_t beyond = (uintptr_t)c->token_memory % LINE;
    c->tokens = c->token_memory + (beyond ? (LINE - beyond) / sizeof *c->tokens : 0);
    c->bucket_mask = (uint32_t)n_buckets - 1;
    c->salt_mask = (uint32_t)n_salt_places - 1;
    c->n_free_nodes = c->n_nodes;
    for (int32_t i = 0; i < c->n_nodes; i++) c->free_nodes[i] = c->n_nodes - 1 - i;
    for (size_t i = 0; i < n_buckets; i++) c->buckets[i] = -1;
    for (int32_t i = 0; i <= block_size; i++) {
        c->keys[i] = (uint32_t)qn_hash_u64(seed + (uint64_t)(i + 1) * 0x9e3779b97f4a7c15u);
    }
    return true;
}

void qn_prefix_cache_free(qn_prefix_cache *c) {
    for (uint32_t i = 0; c->salts && i <= c->salt_mask; i++) {
        for (qn_prefix_salt *s = c->salts[i], *next; s; s = next) {
            next = s->in_bucket;
            free(s);
        }
    }
    free(c->nodes);
    free(c->entries);
    free(c->token_memory);
    free(c->free_nodes);
    free(c->buckets);
    free(c->keys);
    free(c->salts);
    *c = (qn_prefix_cache){0};
}

// ---- salts ----

bool qn_prefix_salt_hold(qn_prefix_cache *c, const void *bytes, size_t len, qn_prefix_salt **out) {
    *out = NULL;
    if (len == 0) return true;
    uint64_t hash = qn_hash_bytes(bytes, len, c->seed) & c->hash_mask;
    qn_prefix_salt **bucket = &c->salts[hash & c->salt_mask];
    for (qn_prefix_salt *s = *bucket; s; s = s->in_bucket) {
        if (s->len != len || memcmp(s->bytes, bytes, len) != 0) continue;
        s->owners++;
        *out = s;
        return true;
    }
    qn_prefix_salt *s = malloc(sizeof *s + len);
    if (!s) return false;
    *s = (qn_prefix_salt){.in_bucket = *bucket, .hash = hash, .owners = 1, .len = (uint32_t)len};
    memcpy(s->bytes, bytes, len);
    *bucket = s;
    c->n_salts++;
    *out = s;
    return true;
}

void qn_prefix_salt_drop(qn_prefix_cache *c, qn_prefix_salt *salt) {
    if (!salt || --salt->owners > 0) return;
    qn_prefix_salt **at = &c->salts[salt->hash & c->salt_mask];
    while (*at != salt) at = &(*at)->in_bucket;
    *at = salt->in_bucket;
    c->n_salts--;
    free(salt);
}

// ---- nodes ----

static int32_t *node_tokens(const qn_prefix_cache *c, int32_t node) {
    return c->tokens + (size_t)node * (size_t)c->block_size;
}

// NH (Black et al., UMAC, 1999): sums of products of keyed pairs. For two different blocks whoever
// does not know the key finds equal sums with a chance of 2^-32.
static uint64_t hash_of(const qn_prefix_cache *c, int32_t parent, const qn_prefix_salt *salt,
                        int32_t adapter, const int32_t *tokens) {
    uint64_t sum = 0;
    int32_t i = 0;
    for (; i + 1 < c->block_size; i += 2) {
        sum += (uint64_t)((uint32_t)tokens[i] + c->keys[i]) *
               ((uint32_t)tokens[i + 1] + c->keys[i + 1]);
    }
    if (i < c->block_size) {
        sum += (uint64_t)((uint32_t)tokens[i] + c->keys[i]) * (c->keys[i + 1] | 1);
    }
    uint64_t before = (uint64_t)(uint32_t)parent;
    if (parent < 0) {
        before += (salt ? salt->hash << 1 | 1 : 0) + ((uint64_t)(uint32_t)adapter << 32);
    }
    return qn_hash_u64(sum + qn_hash_u64(before + c->seed)) & c->hash_mask;
}

static void copy_tokens(const qn_prefix_cache *c, int32_t node, const int32_t *tokens) {
    if (c->block_size == 16) { // the default: one store
        memcpy(node_tokens(c, node), tokens, 16 * sizeof *tokens);
    } else {
        memcpy(node_tokens(c, node), tokens, (size_t)c->block_size * sizeof *tokens);
    }
}

static bool has_tokens(const qn_prefix_cache *c, int32_t node, const int32_t *tokens) {
    return memcmp(node_tokens(c, node), tokens, (size_t)c->block_size * sizeof *tokens) == 0;
}

// In the hash table.
static int32_t find_hashed(const qn_prefix_cache *c, int32_t parent, const qn_prefix_salt *salt,
                           int32_t adapter, const int32_t *tokens) {
    const uint64_t hash = hash_of(c, parent, salt, adapter, tokens);
    for (int32_t i = c->buckets[hash & c->bucket_mask]; i >= 0; i = c->entries[i].in_bucket) {
        const qn_prefix_entry *e = &c->entries[i];
        if (e->hash == hash && c->nodes[i].parent == parent &&
            (parent >= 0 || (e->salt == salt && e->adapter == adapter)) &&
            has_tokens(c, i, tokens)) {
            return i;
        }
    }
    return -1;
}

int32_t qn_prefix_find(const qn_prefix_cache *c, int32_t parent, const qn_prefix_salt *salt,
                       int32_t adapter, const int32_t *tokens) {
    if (parent >= 0) {
        const qn_prefix_node *p = &c->nodes[parent];
        if (p->heir >= 0 && has_tokens(c, p->heir, tokens)) return p->heir;
        if (p->others < 0) return -1;
    }
    return find_hashed(c, parent, salt, adapter, tokens);
}

static bool is_heir(const qn_prefix_cache *c, int32_t node) {
    int32_t parent = c->nodes[node].parent;
    return parent >= 0 && c->nodes[parent].heir == node;
}

// A new node, which is not there yet; -1: no room.
static int32_t add_node(qn_prefix_cache *c, int32_t parent, qn_prefix_salt *salt, int32_t adapter,
                        const int32_t *tokens) {
    if (c->n_free_nodes == 0) return -1;
    int32_t node = c->free_nodes[c->n_free_nodes - 1];
    if (parent >= 0 && c->nodes[parent].heir < 0) {
        c->nodes[parent].heir = node;
    } else {
        uint64_t hash = hash_of(c, parent, salt, adapter, tokens);
        int32_t *bucket = &c->buckets[hash & c->bucket_mask], length = 0;
        for (int32_t i = *bucket; i >= 0; i = c->entries[i].in_bucket) length++;
        if (length >= QN_PREFIX_MAX_BUCKET) return -1;
        qn_prefix_entry *e = &c->entries[node];
        *e = (qn_prefix_entry){.hash = hash, .in_bucket = *bucket, .next = -1, .prev = -1};
        *bucket = node;
        if (parent >= 0) {
            e->next = c->nodes[parent].others;
            if (e->next >= 0) c->entries[e->next].prev = node;
            c->nodes[parent].others = node;
        } else {
            e->salt = salt;
            e->adapter = adapter;
            if (salt) salt->owners++;
        }
    }
    c->n_free_nodes--;
    if (c->n_free_nodes >= 4) { // one that will be needed soon
        int32_t later = c->free_nodes[c->n_free_nodes - 4];
        __builtin_prefetch(&c->nodes[later], 1);
        __builtin_prefetch(node_tokens(c, later), 1);
    }
    qn_prefix_node *n = &c->nodes[node];
    *n = (qn_prefix_node){.parent = parent,
                          .heir = -1,
                          .others = -1,
                          .generation = n->generation,
                          .blocks = {-1, -1, -1, -1}};
    copy_tokens(c, node, tokens);
    return node;
}

int32_t qn_prefix_publish(qn_prefix_cache *c, int32_t parent, qn_prefix_salt *salt, int32_t adapter,
                          const int32_t *tokens, const int32_t *blocks) {
    int32_t node = qn_prefix_find(c, parent, salt, adapter, tokens);
    if (node < 0) node = add_node(c, parent, salt, adapter, tokens);
    if (node < 0) return -1;
    qn_prefix_node *n = &c->nodes[node];
    for (int32_t g = 0; g < c->n_groups; g++) {
        if (n->blocks[g] >= 0 || blocks[g] < 0) continue;
        n->blocks[g] = blocks[g];
        qn_block_pool_set_name(&c->pools[g], blocks[g], node);
    }
    return node;
}

static bool has_block(const qn_prefix_cache *c, int32_t node) {
    for (int32_t g = 0; g < c->n_groups; g++) {
        if (c->nodes[node].blocks[g] >= 0) return true;
    }
    return false;
}

static int32_t any_child(const qn_prefix_cache *c, int32_t node) {
    return c->nodes[node].heir >= 0 ? c->nodes[node].heir : c->nodes[node].others;
}

// Of a node without children.
static void remove_leaf(qn_prefix_cache *c, int32_t node) {
    qn_prefix_node *n = &c->nodes[node];
    for (int32_t g = 0; g < c->n_groups; g++) {
        if (n->blocks[g] >= 0) qn_block_pool_clear_name(&c->pools[g], n->blocks[g]);
    }
    if (is_heir(c, node)) {
        c->nodes[n->parent].heir = -1;
    } else {
        qn_prefix_entry *e = &c->entries[node];
        int32_t *at = &c->buckets[e->hash & c->bucket_mask];
        while (*at != node) at = &c->entries[*at].in_bucket;
        *at = e->in_bucket;
        if (e->prev >= 0) {
            c->entries[e->prev].next = e->next;
        } else if (n->parent >= 0) {
            c->nodes[n->parent].others = e->next;
        }
        if (e->next >= 0) c->entries[e->next].prev = e->prev;
        qn_prefix_salt_drop(c, e->salt);
        e->salt = NULL;
    }
    n->generation++;
    c->free_nodes[c->n_free_nodes++] = node;
}

// All that follow the node.
static void remove_below(qn_prefix_cache *c, int32_t node) {
    for (int32_t i = node;;) {
        for (int32_t child; (child = any_child(c, i)) >= 0;) i = child;
        if (i == node) return;
        int32_t parent = c->nodes[i].parent;
        remove_leaf(c, i);
        i = parent;
    }
}

void qn_prefix_prune(qn_prefix_cache *c, int32_t node) {
    while (node >= 0 && !has_block(c, node) && any_child(c, node) < 0) {
        int32_t parent = c->nodes[node].parent;
        remove_leaf(c, node);
        node = parent;
    }
}

int32_t qn_prefix_take_block(qn_prefix_cache *c, int32_t g) {
    qn_block_pool *p = &c->pools[g];
    if (p->n_clean > 0 || p->oldest < 0) return qn_block_pool_take(p);
    int32_t node = p->blocks[p->oldest].name, parent = c->nodes[node].parent;
    c->evictions++;
    if (c->full[g]) remove_below(c, node);
    c->nodes[node].blocks[g] = -1;
    if (p->ahead >= 0) __builtin_prefetch(&c->nodes[p->blocks[p->ahead].name], 1);
    int32_t block = qn_block_pool_take_oldest(p);
    if (c->full[g]) {
        remove_leaf(c, node);
        qn_prefix_prune(c, parent);
    } else {
        qn_prefix_prune(c, node);
    }
    return block;
}

// ---- check ----

// One node that a walk over the tree has come to.
static bool check_node(const qn_prefix_cache *c, int32_t i) {
    const qn_prefix_node *n = &c->nodes[i];
    for (int32_t g = 0; g < c->n_groups; g++) {
        if (c->full[g] && n->blocks[g] < 0) return false;
        if (n->blocks[g] >= 0 && c->pools[g].blocks[n->blocks[g]].name != i) return false;
    }
    if (!has_block(c, i) && any_child(c, i) < 0) return false;
    // The first that has its tokens is itself.
    const qn_prefix_entry *e = &c->entries[i];
    bool first = n->parent < 0;
    return qn_prefix_find(c, n->parent, first ? e->salt : NULL, first ? e->adapter : -1,
                          node_tokens(c, i)) == i;
}

bool qn_prefix_cache_check(const qn_prefix_cache *c, int64_t n_held) {
    int64_t walked = 0, hashed = 0, listed = 0, named = 0, blocks = 0, salted = 0;
    for (uint32_t b = 0; b <= c->bucket_mask; b++) {
        int32_t length = 0;
        for (int32_t i = c->buckets[b]; i >= 0; i = c->entries[i].in_bucket) {
            const qn_prefix_entry *e = &c->entries[i];
            if (++length > QN_PREFIX_MAX_BUCKET || (e->hash & c->bucket_mask) != b) return false;
            if (is_heir(c, i)) return false;
            hashed += c->nodes[i].parent >= 0;
            salted += e->salt != NULL;
            // It, its heir, and so on: each node is in one such line.
            for (int32_t k = i, parent = c->nodes[i].parent; k >= 0; k = c->nodes[k].heir) {
                if (c->nodes[k].parent != parent || ++walked > c->n_nodes || !check_node(c, k)) {
                    return false;
                }
                parent = k;
                for (int32_t g = 0; g < c->n_groups; g++) blocks += c->nodes[k].blocks[g] >= 0;
                for (int32_t o = c->nodes[k].others, prev = -1; o >= 0; o = c->entries[o].next) {
                    if (c->nodes[o].parent != k || c->entries[o].prev != prev ||
                        c->entries[o].salt || ++listed > c->n_nodes) {
                        return false;
                    }
                    prev = o;
                }
            }
        }
    }
    for (int32_t g = 0; g < c->n_groups; g++) {
        for (int32_t i = 0; i < c->pools[g].n_blocks; i++) named += c->pools[g].blocks[i].name >= 0;
    }
    int64_t owners = 0, n_salts = 0;
    for (uint32_t i = 0; i <= c->salt_mask; i++) {
        for (const qn_prefix_salt *s = c->salts[i]; s; s = s->in_bucket) {
            if (s->owners < 1) return false;
            owners += s->owners;
            n_salts++;
        }
    }
    return walked + c->n_free_nodes == c->n_nodes && hashed == listed && named == blocks &&
           n_salts == c->n_salts && (n_held < 0 || owners == salted + n_held);
}
