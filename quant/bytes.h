// SPDX-License-Identifier: Apache-2.0
// Unaligned little-endian loads and stores inside blocks.
#ifndef QN_QUANT_BYTES_H
#define QN_QUANT_BYTES_H

#include <stdint.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "block layouts are little-endian");

static inline uint16_t load16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline uint32_t load32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
static inline void store16(uint8_t *p, uint16_t v) { memcpy(p, &v, sizeof v); }
static inline void store64(uint8_t *p, uint64_t v) { memcpy(p, &v, sizeof v); }

#endif
