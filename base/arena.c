// SPDX-License-Identifier: Apache-2.0
#include "base/arena.h"

#include "base/checked.h"

#include <stdalign.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_SIZE = 16 * 1024, ALIGN = 16 };

struct qn_arena_chunk {
    struct qn_arena_chunk *next;
    size_t used;
    size_t size;
    alignas(ALIGN) char data[];
};

void qn_arena_init(qn_arena *arena, size_t limit) {
    *arena = (qn_arena){.limit = limit};
}

void *qn_arena_alloc(qn_arena *arena, size_t size) {
    size_t need;
    if (!qn_align_size(size ? size : 1, ALIGN, &need)) return NULL;
    struct qn_arena_chunk *c = arena->head;
    if (!c || c->size - c->used < need) {
        size_t data = QN_MAX(need, (size_t)CHUNK_SIZE);
        size_t bytes;
        if (!qn_add_size(data, sizeof *c, &bytes)) return NULL;
        if (arena->limit && (arena->total > arena->limit || bytes > arena->limit - arena->total)) {
            return NULL;
        }
        c = calloc(1, bytes);
        if (!c) return NULL;
        c->size = data;
        arena->total += bytes;
        if (need > CHUNK_SIZE / 2 && arena->head) {
            // A large piece gets a chunk of its own; the half-empty head stays in use.
            c->next = arena->head->next;
            arena->head->next = c;
        } else {
            c->next = arena->head;
            arena->head = c;
        }
    }
    void *p = c->data + c->used;
    c->used += need;
    return p;
}

void *qn_arena_array(qn_arena *arena, size_t count, size_t size) {
    size_t bytes;
    return qn_mul_size(count, size, &bytes) ? qn_arena_alloc(arena, bytes) : NULL;
}

char *qn_arena_strndup(qn_arena *arena, const char *s, size_t n) {
    size_t bytes;
    char *copy = qn_add_size(n, 1, &bytes) ? qn_arena_alloc(arena, bytes) : NULL;
    if (copy && n) memcpy(copy, s, n);
    return copy;
}

void qn_arena_free(qn_arena *arena) {
    for (struct qn_arena_chunk *c = arena->head; c;) {
        struct qn_arena_chunk *next = c->next;
        free(c);
        c = next;
    }
    arena->head = NULL;
    arena->total = 0;
}
