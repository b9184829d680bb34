// SPDX-License-Identifier: Apache-2.0
// A growing arena: many small allocations, one free. Not thread-safe.
#ifndef QN_BASE_ARENA_H
#define QN_BASE_ARENA_H

#include <stddef.h>

typedef struct qn_arena {
    struct qn_arena_chunk *head;
    size_t total; // bytes asked of malloc
    size_t limit; // 0: none; an allocation that would pass it fails
} qn_arena;

// limit: most bytes the arena may ask of malloc, 0 for no limit. Never fails.
void qn_arena_init(qn_arena *arena, size_t limit);
// Memory aligned to 16 bytes and zeroed, or NULL (out of memory or past the limit). size 0 gives a
// unique pointer.
void *qn_arena_alloc(qn_arena *arena, size_t size);
// count * size with overflow check.
void *qn_arena_array(qn_arena *arena, size_t count, size_t size);
// A NUL-terminated copy of n bytes.
char *qn_arena_strndup(qn_arena *arena, const char *s, size_t n);
// Frees everything; the arena can be used again.
void qn_arena_free(qn_arena *arena);

#endif
