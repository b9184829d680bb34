// SPDX-License-Identifier: Apache-2.0
#include "scheduler/prefix_cache.h"

#include "base/checked.h"
#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

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
    c->tokens = calloc(n_tokens, sizeof *c->tokens);
    c->free_nodes = calloc(n, sizeof *c->free_nodes);
    c->buckets = calloc(n_buckets, sizeof *c->buckets);
    c->keys = calloc((size_t)block_size + 1, sizeof *c->keys);
    size_t n_salt_places = places(n_salts);
    c->salts = calloc(n_salt_places, sizeof(qn_prefix_salt *));
    if (!c->nodes || !c->tokens || !c->free_nodes || !c->buckets || !c->keys || !c->salts) {
        qn_prefix_cache_free(c);
        return false;
    }
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
    free(c->tokens);
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

// *length: nodes that were looked at.
static int32_t find(const qn_prefix_cache *c, uint64_t hash, int32_t parent,
                    const qn_prefix_salt *salt, int32_t adapter, const int32_t *tokens,
                    int32_t *length) {
    *length = 0;
    for (int32_t i = c->buckets[hash & c->bucket_mask]; i >= 0; i = c->nodes[i].in_bucket) {
        const qn_prefix_node *n = &c->nodes[i];
        ++*length;
        if (n->hash == hash && n->parent == parent &&
            (parent >= 0 || (n->salt == salt && n->adapter == adapter)) &&
            memcmp(node_tokens(c, i), tokens, (size_t)c->block_size * sizeof *tokens) == 0) {
            return i;
        }
    }
    return -1;
}

int32_t qn_prefix_find(const qn_prefix_cache *c, int32_t parent, const qn_prefix_salt *salt,
                       int32_t adapter, const int32_t *tokens) {
    int32_t length;
    return find(c, hash_of(c, parent, salt, adapter, tokens), parent, salt, adapter, tokens,
                &length);
}

int32_t qn_prefix_publish(qn_prefix_cache *c, int32_t parent, qn_prefix_salt *salt, int32_t adapter,
                          const int32_t *tokens, const int32_t *blocks) {
    uint64_t hash = hash_of(c, parent, salt, adapter, tokens);
    int32_t length, node = find(c, hash, parent, salt, adapter, tokens, &length);
    qn_prefix_node *n;
    if (node >= 0) {
        n = &c->nodes[node];
    } else {
        if (c->n_free_nodes == 0 || length >= QN_PREFIX_MAX_BUCKET) return -1;
        node = c->free_nodes[--c->n_free_nodes];
        n = &c->nodes[node];
        int32_t *bucket = &c->buckets[hash & c->bucket_mask];
        *n = (qn_prefix_node){.parent = parent,
                              .first_child = -1,
                              .next = -1,
                              .prev = -1,
                              .in_bucket = *bucket,
                              .generation = n->generation,
                              .hash = hash,
                              .salt = parent < 0 ? salt : NULL,
                              .adapter = parent < 0 ? adapter : -1,
                              .blocks = {-1, -1, -1, -1}};
        *bucket = node;
        if (n->salt) n->salt->owners++;
        if (parent >= 0) {
            n->next = c->nodes[parent].first_child;
            if (n->next >= 0) c->nodes[n->next].prev = node;
            c->nodes[parent].first_child = node;
        }
        memcpy(node_tokens(c, node), tokens, (size_t)c->block_size * sizeof *tokens);
    }
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

// Of a node without children.
static void remove_leaf(qn_prefix_cache *c, int32_t node) {
    qn_prefix_node *n = &c->nodes[node];
    for (int32_t g = 0; g < c->n_groups; g++) {
        if (n->blocks[g] >= 0) qn_block_pool_clear_name(&c->pools[g], n->blocks[g]);
        n->blocks[g] = -1;
    }
    int32_t *at = &c->buckets[n->hash & c->bucket_mask];
    while (*at != node) at = &c->nodes[*at].in_bucket;
    *at = n->in_bucket;
    if (n->prev >= 0) {
        c->nodes[n->prev].next = n->next;
    } else if (n->parent >= 0) {
        c->nodes[n->parent].first_child = n->next;
    }
    if (n->next >= 0) c->nodes[n->next].prev = n->prev;
    qn_prefix_salt_drop(c, n->salt);
    n->salt = NULL;
    n->generation++;
    c->free_nodes[c->n_free_nodes++] = node;
}

// The node and all that follow it.
static void remove_tree(qn_prefix_cache *c, int32_t node) {
    for (int32_t i = node;;) {
        while (c->nodes[i].first_child >= 0) i = c->nodes[i].first_child;
        int32_t parent = c->nodes[i].parent;
        remove_leaf(c, i);
        if (i == node) return;
        i = parent;
    }
}

void qn_prefix_prune(qn_prefix_cache *c, int32_t node) {
    while (node >= 0 && c->nodes[node].first_child < 0 && !has_block(c, node)) {
        int32_t parent = c->nodes[node].parent;
        remove_leaf(c, node);
        node = parent;
    }
}

static void evict_oldest(qn_prefix_cache *c, int32_t g) {
    int32_t block = c->pools[g].oldest, node = c->pools[g].name[block];
    int32_t parent = c->nodes[node].parent;
    c->evictions++;
    if (c->full[g]) {
        remove_tree(c, node);
    } else {
        c->nodes[node].blocks[g] = -1;
        qn_block_pool_clear_name(&c->pools[g], block);
        if (has_block(c, node) || c->nodes[node].first_child >= 0) return;
        remove_leaf(c, node);
    }
    qn_prefix_prune(c, parent);
}

int32_t qn_prefix_take_block(qn_prefix_cache *c, int32_t g) {
    if (c->pools[g].n_clean == 0 && c->pools[g].oldest >= 0) evict_oldest(c, g);
    return qn_block_pool_take(&c->pools[g]);
}

// ---- check ----

bool qn_prefix_cache_check(const qn_prefix_cache *c) {
    int64_t linked = 0, named = 0, blocks = 0, salted = 0;
    for (uint32_t b = 0; b <= c->bucket_mask; b++) {
        int32_t length = 0;
        for (int32_t i = c->buckets[b]; i >= 0; i = c->nodes[i].in_bucket) {
            const qn_prefix_node *n = &c->nodes[i];
            if (++length > QN_PREFIX_MAX_BUCKET || (n->hash & c->bucket_mask) != b) return false;
            // The first that has its tokens is itself.
            uint64_t hash = hash_of(c, n->parent, n->salt, n->adapter, node_tokens(c, i));
            int32_t steps;
            if (hash != n->hash ||
                find(c, hash, n->parent, n->salt, n->adapter, node_tokens(c, i), &steps) != i) {
                return false;
            }
            for (int32_t g = 0; g < c->n_groups; g++) {
                if (c->full[g] && n->blocks[g] < 0) return false;
                if (n->blocks[g] >= 0 && c->pools[g].name[n->blocks[g]] != i) return false;
                blocks += n->blocks[g] >= 0;
            }
            if (!has_block(c, i) && n->first_child < 0) return false;
            if (n->parent >= 0) {
                const qn_prefix_node *parent = &c->nodes[n->parent];
                bool listed = n->prev >= 0 ? c->nodes[n->prev].next == i : parent->first_child == i;
                if (!listed || n->salt) return false;
            }
            salted += n->salt != NULL;
            linked++;
        }
    }
    for (int32_t g = 0; g < c->n_groups; g++) {
        for (int32_t i = 0; i < c->pools[g].n_blocks; i++) named += c->pools[g].name[i] >= 0;
    }
    int64_t owners = 0;
    for (uint32_t i = 0; i <= c->salt_mask; i++) {
        for (const qn_prefix_salt *s = c->salts[i]; s; s = s->in_bucket) {
            if (s->owners < 1) return false;
            owners += s->owners;
        }
    }
    return linked + c->n_free_nodes == c->n_nodes && named == blocks && salted <= owners;
}
