// SPDX-License-Identifier: Apache-2.0
#include "quant/bytes.h"
#include "quant/dtype.h"
#include "quant/levels.h"

static void dequantize_block(const qn_form *form, const qn_codes *c, float *dst, int n) {
    const int group = form->group < n ? form->group : n;
    const bool bf16 = form->scale == QN_SCALE_BF16;
    const float d = bf16 ? qn_bf16_to_f32(c->d) : qn_f16_to_f32(c->d);
    const float m = form->has_min ? qn_f16_to_f32(c->m) : 0;
    float levels[256];
    for (int i = 0; i < 1 << form->bits; i++) {
        levels[i] = (float)(form->levels ? form->levels[i] : i - form->excess);
    }
    for (int g = 0; g < n / group; g++) {
        const bool super = form->scale == QN_SCALE_SUPER;
        const float s = super ? d * form->unit * (float)c->scale[g] : d;
        const uint8_t *code = c->code + g * group;
        if (!form->has_min) {
            for (int i = 0; i < group; i++) *dst++ = s * levels[code[i]];
        } else {
            const float min = super ? -(m * (float)c->min[g]) : m;
            for (int i = 0; i < group; i++) *dst++ = s * levels[code[i]] + min;
        }
    }
}

void qn_dequantize_row(qn_dtype type, const void *src, float *dst, size_t n) {
    const uint8_t *p = src;
    const qn_form *form = qn_form_get(type);
    if (form) {
        const qn_dtype_info *info = qn_dtype_get((uint32_t)type);
        qn_codes codes;
        for (size_t i = 0; i < n; i += info->block_size, p += info->block_bytes) {
            qn_unpack_block(type, p, &codes);
            dequantize_block(form, &codes, dst + i, (int)info->block_size);
        }
    } else if (type == QN_F32) {
        memcpy(dst, src, n * sizeof *dst);
    } else if (type == QN_F16) {
        for (size_t i = 0; i < n; i++) dst[i] = qn_f16_to_f32(load16(p + 2 * i));
    } else {
        for (size_t i = 0; i < n; i++) dst[i] = qn_bf16_to_f32(load16(p + 2 * i));
    }
}
