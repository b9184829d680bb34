// SPDX-License-Identifier: Apache-2.0
// What an instruction set offers, as a table. Included last by each kernels_*.c, which has defined
// linear_q8 and linear_q4 (its integer tiles) by then.
#ifndef QN_CPU_KERNELS_TABLE_H
#define QN_CPU_KERNELS_TABLE_H

static void linear_rows(const linear_args *a) {
    switch (a->type) {
    case QN_F32: linear_f32(a); break;
    case QN_F16: linear_f16(a); break;
    case QN_BF16: linear_bf16(a); break;
    case QN_Q8_0: linear_q8(a); break;
    case QN_Q4_0: linear_q4(a); break;
    default: break;
    }
}

#define CPU_KERNELS(isa)                                                                          \
    {                                                                                             \
        .name = (isa), .act_elem_bytes = ACT_ELEM_BYTES, .quantize = row_quantize,                \
        .linear = linear_rows, .rms_norm = row_rms_norm, .add = row_add, .gated = row_gated,      \
        .scale = row_scale, .softcap = row_softcap, .rope = row_rope, .kv_write = row_kv_write,   \
        .attention = attention_rows,                                                              \
    }

#endif
