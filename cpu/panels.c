// SPDX-License-Identifier: Apache-2.0
// Packing weights into the panels that kernels.h describes, and one row back out of them.
#include "cpu/executable.h"

#include <string.h>

size_t qn_cpu_panel_bytes(qn_dtype type, int32_t k) {
    const size_t n = (size_t)k, blocks = n / QBLOCK;
    size_t bytes = 0;
    switch (type) {
    case QN_F32: bytes = n * PANEL_ROWS * 4; break;
    case QN_F16:
    case QN_BF16: bytes = n * PANEL_ROWS * 2; break;
    case QN_Q8_0: bytes = blocks * (Q8_BLOCK_BYTES + PANEL_ROWS * 2); break;
    case QN_Q4_0: bytes = blocks * (Q4_BLOCK_BYTES + PANEL_ROWS * 2); break;
    default: break;
    }
    return (bytes + 63) & ~(size_t)63;
}

static void pack_u32(int32_t k, const uint8_t *rows, size_t row_bytes, int32_t n, uint8_t *panel) {
    uint32_t *dst = (uint32_t *)(void *)panel;
    for (int32_t i = 0; i < k; i++, dst += PANEL_ROWS) {
        for (int32_t r = 0; r < n; r++) {
            memcpy(&dst[r], rows + (size_t)r * row_bytes + (size_t)i * 4, 4);
        }
        for (int32_t r = n; r < PANEL_ROWS; r++) dst[r] = 0;
    }
}

static void pack_u16(int32_t k, const uint8_t *rows, size_t row_bytes, int32_t n, uint8_t *panel) {
    uint16_t *dst = (uint16_t *)(void *)panel;
    for (int32_t i = 0; i < k; i++, dst += PANEL_ROWS) {
        for (int32_t r = 0; r < n; r++) {
            memcpy(&dst[r], rows + (size_t)r * row_bytes + (size_t)i * 2, 2);
        }
        for (int32_t r = n; r < PANEL_ROWS; r++) dst[r] = 0;
    }
}

// Blocks of a 16-bit scale and `words` groups of 4 bytes; flip is applied to the groups (+ 128).
static inline void pack_blocks(int32_t blocks, int words, uint32_t flip, const uint8_t *rows,
                               size_t row_bytes, int32_t n, uint8_t *panel) {
    const size_t block_bytes = 2 + (size_t)words * 4;
    uint32_t *quants = (uint32_t *)(void *)panel;
    uint16_t *scales = (uint16_t *)(void *)(panel + (size_t)blocks * (size_t)words * 64);
    for (int32_t b = 0; b < blocks; b++) {
        for (int32_t r = 0; r < PANEL_ROWS; r++) {
            if (r >= n) {
                // A zero row: scale 0, and quants that stand for 0 all the same.
                scales[r] = 0;
                for (int g = 0; g < words; g++) {
                    quants[g * PANEL_ROWS + r] = words == 8 ? 0x80808080u : 0x88888888u;
                }
                continue;
            }
            const uint8_t *src = rows + (size_t)r * row_bytes + (size_t)b * block_bytes;
            memcpy(&scales[r], src, 2);
            for (int g = 0; g < words; g++) {
                uint32_t four;
                memcpy(&four, src + 2 + g * 4, 4);
                quants[g * PANEL_ROWS + r] = four ^ flip;
            }
        }
        quants += words * PANEL_ROWS;
        scales += PANEL_ROWS;
    }
}

void qn_cpu_pack_panel(qn_dtype type, int32_t k, const uint8_t *rows, size_t row_bytes, int32_t n,
                       uint8_t *panel) {
    switch (type) {
    case QN_F32: pack_u32(k, rows, row_bytes, n, panel); break;
    case QN_F16:
    case QN_BF16: pack_u16(k, rows, row_bytes, n, panel); break;
    case QN_Q8_0: pack_blocks(k / QBLOCK, 8, 0x80808080u, rows, row_bytes, n, panel); break;
    case QN_Q4_0: pack_blocks(k / QBLOCK, 4, 0, rows, row_bytes, n, panel); break;
    default: break;
    }
}

void qn_cpu_panel_row(qn_dtype type, int32_t k, const uint8_t *panels, size_t stride, int64_t row,
                      float *dst) {
    const uint8_t *p = panels + (size_t)(row / PANEL_ROWS) * stride;
    const size_t r = (size_t)(row % PANEL_ROWS);
    const float *f32 = (const float *)(const void *)p;
    const uint16_t *u16 = (const uint16_t *)(const void *)p;
    const size_t n = (size_t)k, blocks = n / QBLOCK;
    switch (type) {
    case QN_F32:
        for (size_t i = 0; i < n; i++) dst[i] = f32[i * PANEL_ROWS + r];
        break;
    case QN_F16:
        for (size_t i = 0; i < n; i++) dst[i] = qn_f16_to_f32(u16[i * PANEL_ROWS + r]);
        break;
    case QN_BF16:
        for (size_t i = 0; i < n; i++) dst[i] = qn_bf16_to_f32(u16[i * PANEL_ROWS + r]);
        break;
    case QN_Q8_0:
    case QN_Q4_0: {
        const size_t block_bytes = type == QN_Q8_0 ? Q8_BLOCK_BYTES : Q4_BLOCK_BYTES;
        const uint16_t *scales = (const uint16_t *)(const void *)(p + blocks * block_bytes);
        for (size_t b = 0; b < blocks; b++, p += block_bytes, dst += QBLOCK) {
            const float d = qn_f16_to_f32(scales[b * PANEL_ROWS + r]);
            for (size_t i = 0; i < QBLOCK; i++) {
                if (type == QN_Q8_0) {
                    dst[i] = d * (float)(p[i / 4 * 64 + r * 4 + i % 4] - 128);
                } else {
                    const uint8_t both = p[i % 16 / 4 * 64 + r * 4 + i % 4];
                    dst[i] = d * (float)((i < 16 ? both & 15 : both >> 4) - 8);
                }
            }
        }
        break;
    }
    default: break;
    }
}
