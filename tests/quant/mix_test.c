// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/checked.h"
#include "quant/mix.h"

static const qn_mix_model llama = {.layers = 32, .heads = 32, .kv_heads = 8};

static qn_dtype type_in(const char *mix, const qn_mix_model *model, const char *name,
                        uint64_t cols) {
    const qn_mix *m = qn_mix_by_name(mix);
    if (!m) fail_msg("%s is not known", mix);
    return qn_mix_type(m, model, name, 2, cols);
}

static void names(void **state) {
    (void)state;
    size_t n = 0;
    const qn_mix *m;
    for (; (m = qn_mix_at(n)) != NULL; n++) {
        assert_ptr_equal(qn_mix_by_name(m->name), m);
        for (size_t i = 0; i < n; i++) assert_int_not_equal(qn_mix_at(i)->file_type, m->file_type);
    }
    assert_int_equal(n, 33);
    assert_string_equal(qn_mix_by_name("q4_k")->name, "Q4_K_M");
    assert_null(qn_mix_by_name("q8_k"));
    assert_null(qn_mix_by_name(NULL));
}

// Tensors by llama-quantize's rules, worked out by hand for 32 layers and 4 query heads a KV head.
static void recipes(void **state) {
    (void)state;
    static const struct {
        const char *mix, *name;
        qn_dtype type;
    } want[] = {
        {"Q4_K_M", "output.weight", QN_Q6_K},
        {"Q4_K_M", "token_embd.weight", QN_Q4_K},
        {"Q4_K_M", "blk.0.attn_q.weight", QN_Q4_K},
        {"Q4_K_M", "blk.3.attn_v.weight", QN_Q6_K},     // i < n/8
        {"Q4_K_M", "blk.4.attn_v.weight", QN_Q4_K},
        {"Q4_K_M", "blk.6.attn_v.weight", QN_Q6_K},     // (i - n/8) mod 3 = 2
        {"Q4_K_M", "blk.6.ffn_down.weight", QN_Q6_K},
        {"Q4_K_M", "blk.7.ffn_down.weight", QN_Q4_K},
        {"Q4_K_M", "blk.28.ffn_down.weight", QN_Q6_K},  // i >= 7n/8
        {"Q4_K_M", "blk.9.attn_qkv.weight", QN_Q5_K},
        {"Q4_K_S", "blk.3.attn_v.weight", QN_Q5_K},
        {"Q4_K_S", "blk.4.attn_v.weight", QN_Q4_K},
        {"Q4_K_S", "blk.3.ffn_down.weight", QN_Q5_K},
        {"Q5_K_M", "blk.5.attn_v.weight", QN_Q5_K},
        {"Q5_K_M", "blk.0.attn_v.weight", QN_Q6_K},
        {"Q5_K_M", "blk.0.attn_qkv.weight", QN_Q6_K},
        {"Q5_K_S", "blk.0.ffn_down.weight", QN_Q5_K},
        {"Q6_K", "output.weight", QN_Q6_K},
        {"Q8_0", "output.weight", QN_Q8_0},
        {"Q4_0", "output.weight", QN_Q6_K},
        {"Q4_0", "blk.1.ffn_up.weight", QN_Q4_0},
        {"F16", "output.weight", QN_F16},
        {"Q2_K", "blk.9.attn_v.weight", QN_Q4_K},
        {"Q2_K", "blk.9.ffn_down.weight", QN_Q3_K},
        {"Q2_K", "blk.9.attn_output.weight", QN_Q3_K},
        {"Q2_K", "blk.9.ffn_gate.weight", QN_Q2_K},
        {"Q3_K_M", "blk.1.attn_v.weight", QN_Q5_K},
        {"Q3_K_M", "blk.2.attn_v.weight", QN_Q4_K},
        {"Q3_K_M", "blk.1.ffn_down.weight", QN_Q5_K},
        {"Q3_K_M", "blk.2.ffn_down.weight", QN_Q4_K},
        {"Q3_K_M", "blk.2.attn_output.weight", QN_Q4_K},
        {"Q3_K_M", "blk.2.attn_k.weight", QN_Q3_K},
        {"IQ4_XS", "blk.9.attn_v.weight", QN_Q5_K},
        {"IQ4_XS", "blk.3.ffn_down.weight", QN_Q5_K},
        {"IQ4_XS", "blk.4.ffn_down.weight", QN_IQ4_XS},
        {"IQ2_XXS", "output.weight", QN_Q5_K},
        {"IQ2_XXS", "token_embd.weight", QN_Q2_K},
        {"IQ2_XXS", "blk.3.ffn_down.weight", QN_Q2_K},
        {"IQ1_S", "blk.9.attn_output.weight", QN_IQ2_XXS},
        {"IQ3_XS", "blk.3.ffn_up.weight", QN_IQ3_S},
        {"IQ3_XS", "blk.4.ffn_up.weight", QN_IQ3_XXS},
        {"TQ2_0", "token_embd.weight", QN_Q4_K},
        {"TQ2_0", "blk.4.ffn_up.weight", QN_TQ2_0},
        {"MXFP4", "output.weight", QN_Q8_0},
        {"Q4_K_M", "blk.0.ffn_gate_inp.weight", QN_F32}, // the router
        {"Q4_K_M", "blk.0.attn_norm.weight", QN_F32},
    };
    for (size_t i = 0; i < QN_COUNT(want); i++) {
        const qn_dtype got = type_in(want[i].mix, &llama, want[i].name, 4096);
        if (got != want[i].type) {
            fail_msg("%s: %s is %s, not %s", want[i].mix, want[i].name,
                     qn_dtype_get((uint32_t)got)->name,
                     qn_dtype_get((uint32_t)want[i].type)->name);
        }
    }
    assert_int_equal(qn_mix_type(qn_mix_by_name("Q4_K_M"), &llama, "output_norm.weight", 1, 4096),
                     QN_F32);
}

static void other_models(void **state) {
    (void)state;
    const qn_mix_model tied = {.layers = 28, .heads = 16, .kv_heads = 8, .tied = true};
    const qn_mix_model experts = {.layers = 32, .heads = 32, .kv_heads = 8, .experts = 8};
    const qn_mix_model seventy = {.layers = 80, .heads = 64, .kv_heads = 8};
    assert_int_equal(type_in("Q4_K_M", &tied, "token_embd.weight", 1024), QN_Q6_K);
    assert_int_equal(type_in("Q2_K", &tied, "blk.0.attn_v.weight", 1024), QN_Q3_K); // GQA 2
    assert_int_equal(type_in("Q4_K_M", &experts, "blk.9.attn_v.weight", 4096), QN_Q8_0);
    assert_int_equal(type_in("Q4_K_M", &experts, "blk.9.attn_k.weight", 4096), QN_Q8_0);
    assert_int_equal(type_in("Q4_K_M", &seventy, "blk.10.attn_v.weight", 8192), QN_Q5_K);
    assert_int_equal(type_in("Q4_K_M", &seventy, "blk.12.attn_v.weight", 8192), QN_Q6_K);
}

// Rows that the blocks do not divide.
static void rows_that_do_not_divide(void **state) {
    (void)state;
    assert_int_equal(type_in("Q4_K_M", &llama, "blk.4.ffn_up.weight", 96), QN_Q5_0);
    assert_int_equal(type_in("Q5_K_S", &llama, "blk.4.ffn_up.weight", 96), QN_Q5_1);
    assert_int_equal(type_in("Q6_K", &llama, "blk.4.ffn_up.weight", 96), QN_Q8_0);
    assert_int_equal(type_in("Q4_K_M", &llama, "output.weight", 96), QN_Q8_0);
    assert_int_equal(type_in("Q2_K", &llama, "blk.4.ffn_up.weight", 96), QN_IQ4_NL);
    assert_int_equal(type_in("TQ1_0", &llama, "blk.4.ffn_up.weight", 96), QN_Q4_0);
    assert_int_equal(type_in("Q4_K_M", &llama, "blk.4.ffn_up.weight", 80), QN_F16);
    assert_int_equal(type_in("Q8_0", &llama, "blk.4.ffn_up.weight", 80), QN_F16);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),
        cmocka_unit_test(recipes),
        cmocka_unit_test(other_models),
        cmocka_unit_test(rows_that_do_not_divide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
