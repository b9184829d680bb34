// SPDX-License-Identifier: Apache-2.0
// How sequences share KV that has been computed: through the prefix cache, and with the request
// they are forks of.
#include "scheduler/state.h"

// ---- what there is ----

qn_fork_state qn_seq_fork_state(const qn_sched *s, qn_seq *x, qn_reuse *out) {
    *out = (qn_reuse){0};
    if (x->fork_of < 0) return QN_FORK_NONE;
    const qn_seq *p = &s->seqs[x->fork_of];
    int32_t n = x->n_prompt - 1; // the row of the prompt's last token gives its first output
    bool usable = n > 0 && p->state != QN_SEQ_FREE && p->arrival == x->fork_arrival && !p->ended &&
                  !p->aborting && !p->poisoned;
    for (int32_t g = 0; usable && g < s->config.n_groups; g++) {
        out->first[g] = qn_kv_first_visible(&s->config.groups[g], n) / s->config.block_size;
        // The parent's window went on before this one was admitted.
        usable = p->first_live[g] <= out->first[g];
    }
    if (!usable) {
        x->fork_of = -1;
        *out = (qn_reuse){0};
        return QN_FORK_NONE;
    }
    if (p->slot < 0 || p->n_computed < p->n_prompt) return QN_FORK_WAITS;
    out->n_tokens = n;
    out->n_blocks = n / s->config.block_size;
    out->n_copies = n % s->config.block_size > 0;
    out->parent = p;
    return QN_FORK_READY;
}

void qn_seq_look_up(qn_sched *s, const qn_seq *x, qn_reuse *out) {
    const int32_t size = s->config.block_size, n_groups = s->config.n_groups;
    const int32_t most = (x->n_prompt + x->n_output - 1) / size;
    int32_t unbroken[QN_MAX_KV_GROUPS] = {0}; // from here on each node has a block of the group
    *out = (qn_reuse){0};
    int32_t node = -1;
    for (int32_t i = 0; i < most; i++) {
        node = qn_prefix_find(&s->cache, node, x->salt, x->adapter,
                              x->tokens + (size_t)i * (size_t)size);
        if (node < 0) break;
        s->found[i] = node;
        bool visible = true;
        for (int32_t g = 0; g < n_groups; g++) {
            if (s->cache.nodes[node].blocks[g] < 0) unbroken[g] = i + 1;
            int32_t first = qn_kv_first_visible(&s->config.groups[g], (i + 1) * size);
            visible = visible && first / size >= unbroken[g];
        }
        if (visible) out->n_blocks = i + 1;
    }
    out->n_tokens = out->n_blocks * size;
    for (int32_t g = 0; g < n_groups; g++) {
        out->first[g] = qn_kv_first_visible(&s->config.groups[g], out->n_tokens) / size;
        for (int32_t i = out->first[g]; i < out->n_blocks; i++) {
            out->idle[g] += s->pools[g].blocks[s->cache.nodes[s->found[i]].blocks[g]].refs == 0;
        }
    }
}

// ---- to begin with it ----

void qn_seq_begin_with(qn_sched *s, qn_seq *x, const qn_reuse *r) {
    x->n_planned = x->n_computed = r->n_tokens;
    x->n_shared = r->n_blocks;
    x->n_counted = QN_MAX(x->n_counted, QN_MIN(r->n_tokens, x->n_prompt));
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        int32_t *table = qn_seq_table(s, x, g);
        const int32_t *theirs = r->parent ? qn_seq_table(s, r->parent, g) : NULL;
        for (int32_t i = 0; i < r->n_blocks; i++) {
            if (i < r->first[g]) {
                table[i] = -1;
                continue;
            }
            table[i] = theirs ? theirs[i] : s->cache.nodes[s->found[i]].blocks[g];
            qn_block_pool_retain(&s->pools[g], table[i]);
        }
        x->first_live[g] = QN_MIN(r->first[g], r->n_blocks);
        x->n_table[g] = r->n_blocks;
        if (theirs && r->n_copies > 0) {
            // Held until the copy's step has retired, whatever becomes of the parent. What the
            // parent writes behind the prompt meanwhile does no harm: those rows are written anew.
            x->copy_src[g] = theirs[r->n_blocks];
            qn_block_pool_retain(&s->pools[g], x->copy_src[g]);
            table[x->n_table[g]++] = qn_prefix_take_block(&s->cache, g);
            x->has_copy = true;
        }
    }
    if (!r->parent && r->n_blocks > 0) {
        x->n_published = r->n_blocks;
        x->chain = s->found[r->n_blocks - 1];
        x->chain_generation = s->cache.nodes[x->chain].generation;
    }
}

void qn_seq_drop_copy(qn_sched *s, qn_seq *x) {
    x->has_copy = x->copying = false;
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        if (x->copy_src[g] >= 0) qn_block_pool_release(&s->pools[g], x->copy_src[g]);
        x->copy_src[g] = -1;
    }
}

// ---- to give it to others ----

void qn_seq_publish(qn_sched *s, qn_seq *x, int32_t n_tokens) {
    const int32_t size = s->config.block_size;
    if (!s->config.enable_prefix_caching || x->poisoned ||
        n_tokens < ((int64_t)x->n_published + 1) * size) {
        return;
    }
    const int32_t n = n_tokens / size;
    if (x->chain >= 0 && s->cache.nodes[x->chain].generation != x->chain_generation) {
        // Another sequence had computed the same, its blocks were the ones that had the names, and
        // they were evicted. Now its own may have them; once, so that the work stays bounded.
        x->chain = -1;
        x->n_published = x->rewound ? INT32_MAX : 0;
        if (x->rewound) return;
        x->rewound = true;
    }
    // A node without a block is only of use on the way to others.
    int32_t first = INT32_MAX;
    for (int32_t g = 0; g < s->config.n_groups; g++) first = QN_MIN(first, x->first_live[g]);
    if (first >= n) return;
    while (x->n_published < n) {
        int32_t i = x->n_published, blocks[QN_MAX_KV_GROUPS];
        for (int32_t g = 0; g < s->config.n_groups; g++) {
            const int32_t *table = qn_seq_table(s, x, g);
            blocks[g] = i < x->first_live[g] ? -1 : table[i];
            // Taken long ago, perhaps.
            if (i + 4 < n && table[i + 4] >= 0) {
                __builtin_prefetch(&s->pools[g].blocks[table[i + 4]], 1);
            }
        }
        int32_t node = qn_prefix_publish(&s->cache, x->chain, x->salt, x->adapter,
                                         x->tokens + (size_t)i * (size_t)size, blocks);
        if (node < 0) {
            qn_prefix_prune(&s->cache, x->chain);
            x->n_published = INT32_MAX; // no room for more of it
            return;
        }
        x->chain = node;
        x->n_published++;
    }
    x->chain_generation = s->cache.nodes[x->chain].generation;
}
