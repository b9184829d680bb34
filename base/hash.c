// SPDX-License-Identifier: Apache-2.0
#include "base/hash.h"

#include "base/checked.h"

#include <stdlib.h>

#define ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))

typedef struct sip {
    uint64_t v0, v1, v2, v3;
} sip;

static inline void sip_round(sip *s) {
    s->v0 += s->v1;
    s->v1 = ROTL(s->v1, 13) ^ s->v0;
    s->v0 = ROTL(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = ROTL(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = ROTL(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = ROTL(s->v1, 17) ^ s->v2;
    s->v2 = ROTL(s->v2, 32);
}

uint64_t qn_hash_bytes(const void *data, size_t len, uint64_t seed) {
    const unsigned char *p = data;
    uint64_t k0 = seed, k1 = qn_hash_u64(seed + 0x9e3779b97f4a7c15u);
    sip s = {k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du, k0 ^ 0x6c7967656e657261u,
             k1 ^ 0x7465646279746573u};
    size_t whole = len / 8;
    for (size_t i = 0; i < whole; i++) {
        uint64_t m;
        memcpy(&m, p + 8 * i, 8);
        s.v3 ^= m;
        sip_round(&s);
        s.v0 ^= m;
    }
    uint64_t last = (uint64_t)(len & 0xff) << 56;
    for (size_t i = 0; i < len % 8; i++) last |= (uint64_t)p[8 * whole + i] << (8 * i);
    s.v3 ^= last;
    sip_round(&s);
    s.v0 ^= last;
    s.v2 ^= 0xff;
    for (int i = 0; i < 3; i++) sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

struct qn_map_slot {
    qn_str key; // data NULL: empty
    uint64_t hash;
    uint32_t value;
};

static const char empty_key[1] = "";

bool qn_map_init(qn_map *map, size_t expected, uint64_t seed) {
    size_t cap = 16;
    while (cap / 2 < expected) {
        if (!qn_mul_size(cap, 2, &cap)) return false;
    }
    struct qn_map_slot *slots = calloc(cap, sizeof *slots);
    if (!slots) return false;
    *map = (qn_map){slots, 0, cap - 1, seed};
    return true;
}

static struct qn_map_slot *find(const qn_map *map, qn_str key, uint64_t h) {
    for (size_t i = (size_t)h & map->mask;; i = (i + 1) & map->mask) {
        struct qn_map_slot *s = &map->slots[i];
        if (!s->key.data || (s->hash == h && qn_str_eq(s->key, key))) return s;
    }
}

bool qn_map_put(qn_map *map, qn_str key, uint32_t value) {
    if (!map->slots && !qn_map_init(map, 8, map->seed)) return false;
    if (map->count * 2 > map->mask) {
        qn_map bigger;
        if (!qn_map_init(&bigger, map->count * 2, map->seed)) return false;
        for (size_t i = 0; i <= map->mask; i++) {
            if (map->slots[i].key.data) {
                *find(&bigger, map->slots[i].key, map->slots[i].hash) = map->slots[i];
            }
        }
        bigger.count = map->count;
        free(map->slots);
        *map = bigger;
    }
    uint64_t h = qn_hash_bytes(key.data, key.len, map->seed);
    struct qn_map_slot *s = find(map, key, h);
    if (!s->key.data) {
        map->count++;
        s->key = key.data ? key : (qn_str){empty_key, 0};
        s->hash = h;
    }
    s->value = value;
    return true;
}

bool qn_map_get(const qn_map *map, qn_str key, uint32_t *value) {
    if (!map->slots) return false;
    const struct qn_map_slot *s = find(map, key, qn_hash_bytes(key.data, key.len, map->seed));
    if (!s->key.data) return false;
    *value = s->value;
    return true;
}

void qn_map_free(qn_map *map) {
    free(map->slots);
    *map = (qn_map){.seed = map->seed};
}
