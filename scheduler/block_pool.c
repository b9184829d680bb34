// SPDX-License-Identifier: Apache-2.0
#include "scheduler/block_pool.h"

#include <stdlib.h>

bool qn_block_pool_init(qn_block_pool *p, int32_t n_blocks) {
    *p = (qn_block_pool){.oldest = -1, .newest = -1};
    size_t n = (size_t)n_blocks;
    p->free_ids = calloc(n, sizeof *p->free_ids);
    p->refs = calloc(n, sizeof *p->refs);
    p->name = calloc(n, sizeof *p->name);
    p->older = calloc(n, sizeof *p->older);
    p->newer = calloc(n, sizeof *p->newer);
    if (!p->free_ids || !p->refs || !p->name || !p->older || !p->newer) {
        qn_block_pool_free(p);
        return false;
    }
    p->n_blocks = p->n_free = p->n_clean = n_blocks;
    for (int32_t i = 0; i < n_blocks; i++) {
        // Lowest ids on top: pages that are never needed are never touched.
        p->free_ids[i] = n_blocks - 1 - i;
        p->name[i] = p->older[i] = p->newer[i] = -1;
    }
    return true;
}

void qn_block_pool_free(qn_block_pool *p) {
    free(p->free_ids);
    free(p->refs);
    free(p->name);
    free(p->older);
    free(p->newer);
    *p = (qn_block_pool){.oldest = -1, .newest = -1};
}

static void push_newest(qn_block_pool *p, int32_t id) {
    p->older[id] = p->newest;
    p->newer[id] = -1;
    if (p->newest >= 0) {
        p->newer[p->newest] = id;
    } else {
        p->oldest = id;
    }
    p->newest = id;
}

static void unlink_cached(qn_block_pool *p, int32_t id) {
    int32_t older = p->older[id], newer = p->newer[id];
    if (older >= 0) {
        p->newer[older] = newer;
    } else {
        p->oldest = newer;
    }
    if (newer >= 0) {
        p->older[newer] = older;
    } else {
        p->newest = older;
    }
    p->older[id] = p->newer[id] = -1;
}

int32_t qn_block_pool_take(qn_block_pool *p) {
    if (p->n_clean == 0) return -1;
    int32_t id = p->free_ids[--p->n_clean];
    p->n_free--;
    p->refs[id] = 1;
    return id;
}

void qn_block_pool_retain(qn_block_pool *p, int32_t id) {
    if (p->refs[id] == 0) {
        if (p->name[id] < 0) return;
        unlink_cached(p, id);
        p->n_free--;
    }
    p->refs[id]++;
}

bool qn_block_pool_release(qn_block_pool *p, int32_t id) {
    if (p->refs[id] <= 0 || --p->refs[id] > 0) return false;
    p->n_free++;
    if (p->name[id] >= 0) {
        push_newest(p, id);
    } else {
        p->free_ids[p->n_clean++] = id;
    }
    return true;
}

void qn_block_pool_set_name(qn_block_pool *p, int32_t id, int32_t name) { p->name[id] = name; }

void qn_block_pool_clear_name(qn_block_pool *p, int32_t id) {
    if (p->refs[id] == 0 && p->name[id] >= 0) {
        unlink_cached(p, id);
        p->free_ids[p->n_clean++] = id;
    }
    p->name[id] = -1;
}

bool qn_block_pool_check(const qn_block_pool *p) {
    int32_t clean = 0, cached = 0;
    for (int32_t i = 0; i < p->n_blocks; i++) {
        if (p->refs[i] < 0) return false;
        clean += p->refs[i] == 0 && p->name[i] < 0;
        cached += p->refs[i] == 0 && p->name[i] >= 0;
    }
    if (clean != p->n_clean || clean + cached != p->n_free) return false;
    // The list of cached ones: each link both ways, so none can be in it twice.
    int32_t before = -1, id = p->oldest;
    for (int32_t i = 0; i < cached; i++) {
        if (id < 0 || id >= p->n_blocks || p->refs[id] != 0 || p->name[id] < 0 ||
            p->older[id] != before) {
            return false;
        }
        before = id;
        id = p->newer[id];
    }
    if (id != -1 || p->newest != before) return false;
    // Every listed id is clean, and no id is listed twice: marked with -1, then put back.
    bool ok = true;
    int32_t marked = 0;
    for (; ok && marked < p->n_clean; marked++) {
        id = p->free_ids[marked];
        if (id < 0 || id >= p->n_blocks || p->refs[id] != 0 || p->name[id] >= 0) {
            ok = false;
            break;
        }
        p->refs[id] = -1;
    }
    for (int32_t i = 0; i < marked; i++) p->refs[p->free_ids[i]] = 0;
    return ok;
}
