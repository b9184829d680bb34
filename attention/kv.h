// SPDX-License-Identifier: Apache-2.0
// The contract of the paged KV cache.
//
// A group is a set of layers that keep the same tokens: `full` layers keep all, `window` layers the
// last W. Every group has its own pages (blocks) of block_size tokens and its own block tables. A
// block table maps a sequence's token position p to page table[p / block_size], row p % block_size;
// an entry of -1 is a page that was given back because the window passed it. The bytes inside a page
// belong to the backend.
//
// Numbered rules that tests cite:
// 1. A key at position j is visible to a query at position i iff j <= i, and in a window group
//    j > i - window.
// 2. K and V are rounded to the cache's type when written, and read back even within one step.
// 3. The bits of an attention output depend only on the query, its position, and the visible K and
//    V: never on the block ids, the rest of the batch, where a chunk began, or the thread count.
//    Keys are taken in spans of QN_KV_SPAN aligned to absolute positions; the partial results of the
//    spans are merged in ascending order.
#ifndef QN_ATTENTION_KV_H
#define QN_ATTENTION_KV_H

#include <stddef.h>
#include <stdint.h>

enum {
    QN_MAX_KV_GROUPS = 4,
    QN_KV_SPAN = 256, // keys; a multiple of every block size (16, 32, 64, 128, 256)
};

typedef enum qn_kv_kind { QN_KV_FULL, QN_KV_WINDOW } qn_kv_kind;

typedef struct qn_kv_group {
    qn_kv_kind kind;
    int32_t window; // tokens, of a window group; the query's own position counts
    int32_t n_layers;
    int32_t n_kv_heads; // the largest of its layers
    int32_t head_dim;
} qn_kv_group;

typedef enum qn_kv_dtype { QN_KV_F32, QN_KV_F16 } qn_kv_dtype;

// First position that a query at position pos can see.
static inline int32_t qn_kv_first_visible(const qn_kv_group *g, int32_t pos) {
    return g->kind == QN_KV_WINDOW && pos >= g->window ? pos - g->window + 1 : 0;
}

// Plain-C reference in double, for tests: one query head at position pos over K and V given densely,
// k and v [pos + 1][stride], head_dim wide. softcap 0: none. out [head_dim].
void qn_attention_reference(const float *q, const float *k, const float *v, size_t stride,
                            int32_t head_dim, int32_t first, int32_t pos, float scale,
                            float softcap, double *out);

#endif
