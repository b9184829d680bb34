// SPDX-License-Identifier: Apache-2.0
// Arithmetic on sizes that come from outside. Each returns false on overflow, and *out is then
// unspecified.
#ifndef QN_BASE_CHECKED_H
#define QN_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool qn_add_size(size_t a, size_t b, size_t *out) {
    return !__builtin_add_overflow(a, b, out);
}
static inline bool qn_mul_size(size_t a, size_t b, size_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool qn_add_u64(uint64_t a, uint64_t b, uint64_t *out) {
    return !__builtin_add_overflow(a, b, out);
}
static inline bool qn_mul_u64(uint64_t a, uint64_t b, uint64_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}
static inline bool qn_mul_i64(int64_t a, int64_t b, int64_t *out) {
    return !__builtin_mul_overflow(a, b, out);
}
// Rounds up to a multiple of align (a power of two).
static inline bool qn_align_size(size_t n, size_t align, size_t *out) {
    if (!qn_add_size(n, align - 1, out)) return false;
    *out &= ~(align - 1);
    return true;
}

#define QN_MIN(a, b) ((a) < (b) ? (a) : (b))
#define QN_MAX(a, b) ((a) > (b) ? (a) : (b))
#define QN_COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define QN_CEIL_DIV(a, b) (((a) + (b) - 1) / (b))

#endif
