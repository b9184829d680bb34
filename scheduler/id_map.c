// SPDX-License-Identifier: Apache-2.0
#include "scheduler/id_map.h"

#include "base/hash.h"

#include <stdlib.h>

bool qn_id_map_init(qn_id_map *m, int32_t capacity) {
    uint32_t places = 16;
    while (places < 2 * (uint32_t)capacity) places *= 2;
    *m = (qn_id_map){.mask = places - 1};
    m->keys = calloc(places, sizeof *m->keys);
    m->values = calloc(places, sizeof *m->values);
    return m->keys && m->values;
}

void qn_id_map_free(qn_id_map *m) {
    free(m->keys);
    free(m->values);
    *m = (qn_id_map){0};
}

// The id's place, or the empty place where it would go: always that for 0, which no place holds.
static uint32_t find(const qn_id_map *m, uint64_t id) {
    uint32_t i = (uint32_t)qn_hash_u64(id) & m->mask;
    while (m->keys[i] != 0 && m->keys[i] != id) i = (i + 1) & m->mask;
    return i;
}

void qn_id_map_put(qn_id_map *m, uint64_t id, int32_t value) {
    uint32_t i = find(m, id);
    m->keys[i] = id;
    m->values[i] = value;
    m->count++;
}

int32_t qn_id_map_get(const qn_id_map *m, uint64_t id) {
    uint32_t i = find(m, id);
    return m->keys[i] ? m->values[i] : -1;
}

bool qn_id_map_remove(qn_id_map *m, uint64_t id) {
    uint32_t hole = find(m, id);
    if (!m->keys[hole]) return false;
    m->count--;
    // Later keys of the chain move back, so that no chain is broken and no tombstone is needed.
    for (uint32_t i = (hole + 1) & m->mask; m->keys[i] != 0; i = (i + 1) & m->mask) {
        uint32_t home = (uint32_t)qn_hash_u64(m->keys[i]) & m->mask;
        if (((i - home) & m->mask) >= ((i - hole) & m->mask)) {
            m->keys[hole] = m->keys[i];
            m->values[hole] = m->values[i];
            hole = i;
        }
    }
    m->keys[hole] = 0;
    return true;
}
