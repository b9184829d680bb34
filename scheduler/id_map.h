// SPDX-License-Identifier: Apache-2.0
// Request ids to record numbers: open addressing with a fixed number of places, at most half full,
// so that nothing is allocated after init.
#ifndef QN_SCHEDULER_ID_MAP_H
#define QN_SCHEDULER_ID_MAP_H

#include <stdbool.h>
#include <stdint.h>

typedef struct qn_id_map {
    uint64_t *keys;  // 0: an empty place
    int32_t *values;
    uint32_t mask; // places - 1
    int32_t count;
} qn_id_map;

// capacity: the most ids at a time. False when out of memory; then, too, it is to be freed.
bool qn_id_map_init(qn_id_map *m, int32_t capacity);
void qn_id_map_free(qn_id_map *m);
// id: not 0, not in the map; there is room.
void qn_id_map_put(qn_id_map *m, uint64_t id, int32_t value);
int32_t qn_id_map_get(const qn_id_map *m, uint64_t id); // -1: not there
bool qn_id_map_remove(qn_id_map *m, uint64_t id);

#endif
