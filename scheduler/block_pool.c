// SPDX-License-Identifier: Apache-2.0
#include "scheduler/block_pool.h"

#include <stdlib.h>

bool qn_block_pool_init(qn_block_pool *p, int32_t n_blocks) {
    *p = (qn_block_pool){.oldest = -1, .newest = -1, .ahead = -1};
    size_t n = (size_t)n_blocks;
    p->free_ids = calloc(n, sizeof *p->free_ids);
    p->blocks = calloc(n, sizeof *p->blocks);
    if (!p->free_ids || !p->blocks) return false;
    p->n_blocks = p->n_free = p->n_clean = n_blocks;
    for (int32_t i = 0; i < n_blocks; i++) {
        // Lowest ids on top: pages that are never needed are never touched.
        p->free_ids[i] = n_blocks - 1 - i;
        p->blocks[i].name = -1;
    }
    return true;
}

void qn_block_pool_free(qn_block_pool *p) {
    free(p->free_ids);
    free(p->blocks);
    *p = (qn_block_pool){0};
}

bool qn_block_pool_check(const qn_block_pool *p) {
    int32_t clean = 0, cached = 0;
    for (int32_t i = 0; i < p->n_blocks; i++) {
        if (p->blocks[i].refs < 0) return false;
        clean += p->blocks[i].refs == 0 && p->blocks[i].name < 0;
        cached += p->blocks[i].refs == 0 && p->blocks[i].name >= 0;
    }
    if (clean != p->n_clean || clean + cached != p->n_free) return false;
    // The list of cached ones: each link both ways, so none can be in it twice.
    int32_t before = -1, id = p->oldest;
    for (int32_t i = 0; i < cached; i++) {
        if (id < 0 || id >= p->n_blocks || p->blocks[id].refs != 0 || p->blocks[id].name < 0 ||
            p->blocks[id].older != before) {
            return false;
        }
        before = id;
        id = p->blocks[id].newer;
    }
    if (id != -1 || p->newest != before) return false;
    id = p->ahead;
    if (id != -1 && (id < 0 || id >= p->n_blocks || p->blocks[id].refs || p->blocks[id].name < 0)) {
        return false;
    }
    // Every listed id is clean, and no id is listed twice: marked with -1, then put back.
    bool ok = true;
    int32_t marked = 0;
    for (; ok && marked < p->n_clean; marked++) {
        id = p->free_ids[marked];
        if (id < 0 || id >= p->n_blocks || p->blocks[id].refs != 0 || p->blocks[id].name >= 0) {
            ok = false;
            break;
        }
        p->blocks[id].refs = -1;
    }
    for (int32_t i = 0; i < marked; i++) p->blocks[p->free_ids[i]].refs = 0;
    return ok;
}
