// SPDX-License-Identifier: Apache-2.0
// A hash map from byte strings to 32-bit values, and the hash under it.
#ifndef QN_BASE_HASH_H
#define QN_BASE_HASH_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// SipHash-1-3 (Aumasson, Bernstein 2012): keyed, so chosen keys cannot make collisions.
uint64_t qn_hash_bytes(const void *data, size_t len, uint64_t seed);
// A fast mix of one 64-bit value (splitmix64's finalizer); for keys that nobody chooses.
static inline uint64_t qn_hash_u64(uint64_t x) {
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// Open addressing; keys are views that must outlive the map. Zero-initialize, or qn_map_init.
typedef struct qn_map {
    struct qn_map_slot *slots;
    size_t count;
    size_t mask; // slots - 1
    uint64_t seed;
} qn_map;

// expected: how many entries to make room for. False when out of memory.
bool qn_map_init(qn_map *map, size_t expected, uint64_t seed);
// Adds or replaces. False when out of memory.
bool qn_map_put(qn_map *map, qn_str key, uint32_t value);
bool qn_map_get(const qn_map *map, qn_str key, uint32_t *value);
void qn_map_free(qn_map *map);

#endif
