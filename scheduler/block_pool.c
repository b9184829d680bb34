// SPDX-License-Identifier: Apache-2.0
#include "scheduler/block_pool.h"

#include <stdlib.h>

bool qn_block_pool_init(qn_block_pool *p, int32_t n_blocks) {
    *p = (qn_block_pool){.n_blocks = n_blocks, .n_free = n_blocks};
    p->free_ids = calloc((size_t)n_blocks, sizeof *p->free_ids);
    p->refs = calloc((size_t)n_blocks, sizeof *p->refs);
    if (!p->free_ids || !p->refs) {
        qn_block_pool_free(p);
        return false;
    }
    // Lowest ids on top: pages that are never needed are never touched.
    for (int32_t i = 0; i < n_blocks; i++) p->free_ids[i] = n_blocks - 1 - i;
    return true;
}

void qn_block_pool_free(qn_block_pool *p) {
    free(p->free_ids);
    free(p->refs);
    *p = (qn_block_pool){0};
}

int32_t qn_block_pool_take(qn_block_pool *p) {
    if (p->n_free == 0) return -1;
    int32_t id = p->free_ids[--p->n_free];
    p->refs[id] = 1;
    return id;
}

void qn_block_pool_retain(qn_block_pool *p, int32_t id) {
    if (p->refs[id] > 0) p->refs[id]++;
}

bool qn_block_pool_release(qn_block_pool *p, int32_t id) {
    if (p->refs[id] <= 0 || --p->refs[id] > 0) return false;
    p->free_ids[p->n_free++] = id;
    return true;
}

bool qn_block_pool_check(const qn_block_pool *p) {
    int32_t unused = 0;
    for (int32_t i = 0; i < p->n_blocks; i++) {
        if (p->refs[i] < 0) return false;
        unused += p->refs[i] == 0;
    }
    if (unused != p->n_free) return false;
    // Every listed id is unused, and no id is listed twice: marked with -1, then put back.
    bool ok = true;
    int32_t marked = 0;
    for (; ok && marked < p->n_free; marked++) {
        int32_t id = p->free_ids[marked];
        if (id < 0 || id >= p->n_blocks || p->refs[id] != 0) {
            ok = false;
            break;
        }
        p->refs[id] = -1;
    }
    for (int32_t i = 0; i < marked; i++) p->refs[p->free_ids[i]] = 0;
    return ok;
}
