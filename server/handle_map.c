// SPDX-License-Identifier: Apache-2.0
#include "server/internal.h"

#include "base/hash.h"

#include <stdlib.h>

bool qn_handle_map_init(qn_handle_map *m, size_t capacity) {
    size_t n = 16;
    while (n < capacity * 2) n *= 2;
    m->slots = calloc(n, sizeof *m->slots);
    m->mask = n - 1;
    m->count = 0;
    return m->slots != NULL;
}

void qn_handle_map_free(qn_handle_map *m) {
    free(m->slots);
    *m = (qn_handle_map){0};
}

static size_t home(const qn_handle_map *m, uint64_t handle) {
    return (size_t)qn_hash_u64(handle) & m->mask;
}

bool qn_handle_map_put(qn_handle_map *m, uint64_t handle, qn_choice *choice) {
    if (handle == 0 || m->count * 2 > m->mask) return false;
    size_t i = home(m, handle);
    while (m->slots[i].handle) i = (i + 1) & m->mask;
    m->slots[i].handle = handle;
    m->slots[i].choice = choice;
    m->count++;
    return true;
}

qn_choice *qn_handle_map_get(const qn_handle_map *m, uint64_t handle) {
    for (size_t i = home(m, handle); m->slots[i].handle; i = (i + 1) & m->mask) {
        if (m->slots[i].handle == handle) return m->slots[i].choice;
    }
    return NULL;
}

void qn_handle_map_remove(qn_handle_map *m, uint64_t handle) {
    size_t i = home(m, handle);
    while (m->slots[i].handle != handle) {
        if (!m->slots[i].handle) return;
        i = (i + 1) & m->mask;
    }
    m->count--;
    // What follows in the run moves up, unless that would put it before its home.
    for (size_t k = (i + 1) & m->mask; m->slots[k].handle; k = (k + 1) & m->mask) {
        size_t want = home(m, m->slots[k].handle);
        if (((k - want) & m->mask) >= ((k - i) & m->mask)) {
            m->slots[i] = m->slots[k];
            i = k;
        }
    }
    m->slots[i].handle = 0;
    m->slots[i].choice = NULL;
}
