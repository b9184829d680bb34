// SPDX-License-Identifier: Apache-2.0
// Packing weights into the panels that kernels.h describes, and one row back out of them. Nothing
// is requantized: qn_cpu_panel_row gives the bits that the file's row dequantizes to.
#include "base/checked.h"
#include "cpu/executable.h"

#include <string.h>

// The eighths of IQ1_S have one sign in a whole group: as (8 d s u - (7 or 9) d s) / 8 its codes u
// need 2 bits. Both forms give the same values exactly.
static const qn_form iq1_s = {QN_IQ1_S, 2, 32, QN_SCALE_SUPER, true, 0, NULL, 0.125f};

const qn_form *qn_cpu_form(qn_dtype type) {
    return type == QN_IQ1_S ? &iq1_s : qn_form_get(type);
}

static void iq1_s_codes(qn_codes *c) {
    c->m = c->d;
    for (int g = 0; g < 8; g++) {
        const int minus = c->code[g * 32] >> 2; // the eighth is taken away
        c->min[g] = (uint8_t)(c->scale[g] * (7 + 2 * minus));
        c->scale[g] = (int8_t)(8 * c->scale[g]);
    }
    for (int i = 0; i < SUPERBLOCK; i++) c->code[i] &= 3;
}

size_t qn_cpu_panel_bytes(qn_dtype type, int32_t k) {
    const size_t n = (size_t)k;
    const qn_form *form = qn_cpu_form(type);
    size_t bytes = n * PANEL_ROWS * (type == QN_F32 ? 4 : 2);
    if (form) {
        const int_shape s = int_shape_get(form);
        const size_t groups = n / (size_t)s.group;
        bytes = groups * s.group_bytes + groups / (size_t)s.groups * s.record_bytes;
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

// Q8_0 and Q4_0, whose words are in the file as the panel has them: blocks of a 16-bit scale and
// `words` groups of 4 bytes; flip is applied to the groups (+ 128).
static inline void pack_blocks(int32_t blocks, int words, uint32_t flip, const uint8_t *rows,
                               size_t row_bytes, int32_t n, uint8_t *panel) {
    const size_t block_bytes = 2 + (size_t)words * 4;
    uint32_t *quants = (uint32_t *)(void *)panel;
    uint16_t *scales = (uint16_t *)(void *)(panel + (size_t)blocks * (size_t)words * 64);
    for (int32_t b = 0; b < blocks; b++) {
        for (int32_t r = 0; r < n; r++) {
            const uint8_t *src = rows + (size_t)r * row_bytes + (size_t)b * block_bytes;
            memcpy(&scales[r], src, 2);
            for (int g = 0; g < words; g++) {
                uint32_t four;
                memcpy(&four, src + 2 + g * 4, 4);
                quants[g * PANEL_ROWS + r] = four ^ flip;
            }
        }
        for (int32_t r = n; r < PANEL_ROWS; r++) {
            scales[r] = 0; // a zero row, whatever its quants
            for (int g = 0; g < words; g++) quants[g * PANEL_ROWS + r] = 0;
        }
        quants += words * PANEL_ROWS;
        scales += PANEL_ROWS;
    }
}

// Four bytes, of which bit `to` is bit 2 of each of the code's.
static inline uint32_t third_bits(uint32_t code, int to) { return (code >> 2 & 0x01010101) << to; }

// The codes of group g of one row; dst: the row's first word.
static inline void pack_codes(int bits, const int_shape *s, int32_t g, const uint8_t *code,
                              uint32_t *dst) {
    const int words = s->group / 4, pairs = s->group / 8, fours = s->group / 16;
    const bool odd = bits == 3 && s->group == 16 && g % 2 == 1;
    uint32_t w[8];
    memcpy(w, code, (size_t)s->group);
    dst += (size_t)g * s->group_bytes / 4;
    if (odd) dst -= 8; // the second of a pair of low parts
    if (bits == 8) {
        for (int i = 0; i < words; i++) dst[i * PANEL_ROWS] = w[i];
        return;
    }
    if (bits >= 4) {
        for (int i = 0; i < pairs; i++, dst += PANEL_ROWS) {
            *dst = (w[i] & 0x0f0f0f0f) | (w[i + pairs] & 0x0f0f0f0f) << 4;
        }
    }
    if (bits == 4) return;
    const int shift = bits == 6 ? 4 : 0; // where the two bits are
    uint32_t two[8];
    for (int i = 0; i < words; i++) two[i] = w[i] >> shift & 0x03030303;
    for (int i = 0; i < fours; i++, dst += PANEL_ROWS) {
        *dst = two[i] | two[i + fours] << 2 | two[i + 2 * fours] << 4 | two[i + 3 * fours] << 6;
    }
    if (bits != 3) return;
    if (s->group == 16 && !odd) dst += PANEL_ROWS; // the other low part
    uint32_t third = odd ? *dst : 0;
    for (int i = 0; i < words; i++) third |= third_bits(w[i], odd ? 4 + i : i);
    *dst = third;
}

// One row's column of a scale record.
static void pack_scales(const qn_form *form, const int_shape *s, const qn_codes *c, int32_t r,
                        uint8_t *record) {
    uint16_t *d = (uint16_t *)(void *)record;
    const bool super = form->scale == QN_SCALE_SUPER;
    d[r] = c->d;
    if (form->has_min) d[PANEL_ROWS + r] = super ? c->m ^ 0x8000 : c->m;
    if (!super) return;
    for (int32_t g = 0; g < s->groups; g++) {
        record[s->scales + (size_t)(g * PANEL_ROWS + r)] = (uint8_t)c->scale[g];
        if (form->has_min) record[s->mins + (size_t)(g * PANEL_ROWS + r)] = c->min[g];
    }
}

static void pack_int(const qn_form *form, int32_t k, const uint8_t *rows, size_t row_bytes,
                     int32_t n, uint8_t *panel) {
    const qn_dtype_info *info = qn_dtype_get((uint32_t)form->type);
    const int_shape s = int_shape_get(form);
    const int32_t blocks = k / (int32_t)info->block_size;
    const int32_t groups = (int32_t)info->block_size / s.group; // of a block
    const size_t quants_bytes = (size_t)(k / s.group) * s.group_bytes;
    if (n < PANEL_ROWS) memset(panel, 0, qn_cpu_panel_bytes(form->type, k)); // zero rows
    uint8_t *record = panel + quants_bytes;
    for (int32_t b = 0; b < blocks; b++, record += s.record_bytes) {
        for (int32_t r = 0; r < n; r++) {
            qn_codes c;
            qn_unpack_block(form->type,
                            rows + (size_t)r * row_bytes + (size_t)b * info->block_bytes, &c);
            if (form->type == QN_IQ1_S) iq1_s_codes(&c);
            for (int32_t g = 0; g < groups; g++) {
                pack_codes(form->bits, &s, b * groups + g, c.code + g * s.group,
                           (uint32_t *)(void *)panel + r);
            }
            pack_scales(form, &s, &c, r, record);
        }
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
    default: pack_int(qn_cpu_form(type), k, rows, row_bytes, n, panel); break;
    }
}

int32_t qn_cpu_panel_code(const int_shape *s, int bits, const uint8_t *panel, int32_t g, int32_t i,
                          int32_t r) {
    const int32_t word = i / 4, pairs = s->group / 8, fours = s->group / 16;
    const uint8_t *row = panel + (size_t)g * s->group_bytes + (size_t)(r * 4 + i % 4);
    if (bits == 8) return row[word * 64];
    if (bits == 3) {
        const int32_t odd = s->group == 16 ? g % 2 : 0;
        const int32_t two = row[word % fours * 64 - odd * 32] >> word / fours * 2 & 3;
        const int32_t third = row[128 - odd * 96] >> (4 * odd + word) & 1;
        return two | third << 2;
    }
    int32_t code = 0;
    if (bits >= 4) {
        code = row[word % pairs * 64] >> word / pairs * 4 & 15;
        row += pairs * 64;
    }
    if (bits != 4) {
        const int32_t two = row[word % fours * 64] >> word / fours * 2 & 3;
        code |= bits == 6 ? two << 4 : two;
    }
    return code;
}

static void int_row(const qn_form *form, int32_t k, const uint8_t *p, size_t r, float *dst) {
    const int_shape s = int_shape_get(form);
    const uint8_t *record = p + (size_t)(k / s.group) * s.group_bytes;
    const bool super = form->scale == QN_SCALE_SUPER;
    float levels[256];
    for (int i = 0; i < 1 << form->bits; i++) {
        levels[i] = (float)(form->levels ? form->levels[i] : i - form->excess);
    }
    for (int32_t g = 0; g < k / s.group; g++) {
        const int32_t in = g % s.groups;
        if (g && in == 0) record += s.record_bytes;
        const uint16_t *d = (const uint16_t *)(const void *)record;
        float scale = form->scale == QN_SCALE_BF16 ? qn_bf16_to_f32(d[r]) : qn_f16_to_f32(d[r]);
        float min = form->has_min ? qn_f16_to_f32(d[PANEL_ROWS + r]) : 0;
        if (super) {
            const size_t at = (size_t)in * PANEL_ROWS + r;
            scale = scale * form->unit * (float)(int8_t)record[s.scales + at];
            if (form->has_min) min *= form->unit * (float)record[s.mins + at];
        }
        for (int32_t i = 0; i < s.group; i++) {
            const float v = scale * levels[qn_cpu_panel_code(&s, form->bits, p, g, i, (int32_t)r)];
            *dst++ = form->has_min ? v + min : v;
        }
    }
}

void qn_cpu_panel_row(qn_dtype type, int32_t k, const uint8_t *panels, size_t stride, int64_t row,
                      float *dst) {
    const uint8_t *p = panels + (size_t)(row / PANEL_ROWS) * stride;
    const size_t r = (size_t)(row % PANEL_ROWS);
    const float *f32 = (const float *)(const void *)p;
    const uint16_t *u16 = (const uint16_t *)(const void *)p;
    const size_t n = (size_t)k;
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
    default: int_row(qn_cpu_form(type), k, p, r, dst); break;
    }
}
