// SPDX-License-Identifier: Apache-2.0
// What an instruction set offers, as a table. Included last by each kernels_*.c, which has defined
// int_walk (its integer tiles) by then.
#ifndef QN_CPU_KERNELS_TABLE_H
#define QN_CPU_KERNELS_TABLE_H

// Every kind of integer panel: bits of a code, inputs of a group, levels from a table, mins,
// scales.
#define INT_LINEAR(name, bits, group, table, min, scales)                                          \
    static void linear_##name(const linear_args *a, const qn_form *form) {                         \
        int_walk(a, form, bits, group, table, min, scales);                                        \
    }
INT_LINEAR(q8, 8, 32, false, false, SCALES_F16)
INT_LINEAR(q6, 6, 32, false, false, SCALES_F16)
INT_LINEAR(q6_min, 6, 32, false, true, SCALES_F16)
INT_LINEAR(k6_min, 6, 32, false, true, SCALES_SUPER)
INT_LINEAR(k6, 6, 16, false, false, SCALES_SUPER)
INT_LINEAR(q4, 4, 32, false, false, SCALES_F16)
INT_LINEAR(q4_min, 4, 32, false, true, SCALES_F16)
INT_LINEAR(k4_min, 4, 32, false, true, SCALES_SUPER)
INT_LINEAR(table, 4, 32, true, false, SCALES_F16)
INT_LINEAR(table_bf16, 4, 32, true, false, SCALES_BF16)
INT_LINEAR(table_super, 4, 32, true, false, SCALES_SUPER)
INT_LINEAR(table3_super, 3, 32, true, false, SCALES_SUPER)
INT_LINEAR(table3_super16, 3, 16, true, false, SCALES_SUPER)
INT_LINEAR(k2_min, 2, 16, false, true, SCALES_SUPER)
INT_LINEAR(k2_min32, 2, 32, false, true, SCALES_SUPER)
INT_LINEAR(ternary, 2, 32, false, false, SCALES_SHARED)

static void linear_rows(const linear_args *a) {
    const qn_form *form = qn_cpu_form(a->type);
    switch (a->type) {
    case QN_F32: linear_f32(a); break;
    case QN_F16: linear_f16(a); break;
    case QN_BF16: linear_bf16(a); break;
    case QN_Q8_0: linear_q8(a, form); break;
    case QN_Q5_0: linear_q6(a, form); break;
    case QN_Q5_1: linear_q6_min(a, form); break;
    case QN_Q5_K: linear_k6_min(a, form); break;
    case QN_Q6_K: linear_k6(a, form); break;
    case QN_Q4_0: linear_q4(a, form); break;
    case QN_Q4_1: linear_q4_min(a, form); break;
    case QN_Q4_K: linear_k4_min(a, form); break;
    case QN_IQ4_NL: linear_table(a, form); break;
    case QN_MXFP4: linear_table_bf16(a, form); break;
    case QN_IQ4_XS:
    case QN_IQ3_XXS:
    case QN_IQ3_S: linear_table_super(a, form); break;
    case QN_IQ2_XXS: linear_table3_super(a, form); break;
    case QN_IQ1_S: linear_k2_min32(a, form); break;
    case QN_Q3_K:
    case QN_IQ2_XS:
    case QN_IQ2_S:
    case QN_IQ1_M: linear_table3_super16(a, form); break;
    case QN_Q2_K: linear_k2_min(a, form); break;
    case QN_TQ1_0:
    case QN_TQ2_0: linear_ternary(a, form); break;
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
