// SPDX-License-Identifier: Apache-2.0
#include "backend/program.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

// embed -> norm -> linear (with bias) -> select -> head, and one attention.
static qn_program make_program(void) {
    qn_program p = {.vocab_size = 50, .hidden = 32, .n_groups = 1};
    p.groups[0] = (qn_kv_group){QN_KV_FULL, 0, 1, 1, 16};
    const int32_t x = qn_program_add_buffer(&p, "x", 32, QN_ROWS_TOKENS);
    const int32_t kv = qn_program_add_buffer(&p, "kv", 16, QN_ROWS_TOKENS);
    const int32_t last = qn_program_add_buffer(&p, "last", 32, QN_ROWS_LOGITS);
    p.logits = qn_program_add_buffer(&p, "logits", 50, QN_ROWS_LOGITS);
    const int32_t embed = qn_program_add_weight(&p, "embed", QN_Q8_0, 50, 32);
    const int32_t norm = qn_program_add_weight(&p, "norm", QN_F32, 1, 32);
    const int32_t proj = qn_program_add_weight(&p, "proj", QN_Q4_0, 16, 32);
    const int32_t bias = qn_program_add_weight(&p, "bias", QN_F32, 1, 16);
    const float inv_freq[8] = {1, 0.5f};
    qn_program_add_rope(&p, QN_ROPE_HALVES, 16, inv_freq, 1);
    qn_op base = {.src = -1, .src2 = -1, .weight = -1, .bias = -1, .adapter_slot = -1};
    qn_op op = base;
    op.kind = QN_OP_EMBED;
    op.dst = x;
    op.weight = embed;
    qn_program_add_op(&p, op);
    op = base;
    op.kind = QN_OP_RMS_NORM;
    op.dst = op.src = x;
    op.weight = norm;
    op.norm.group = 32;
    qn_program_add_op(&p, op);
    op = base;
    op.kind = QN_OP_LINEAR;
    op.dst = kv;
    op.src = x;
    op.weight = proj;
    op.bias = bias;
    qn_program_add_op(&p, op);
    op = base;
    op.kind = QN_OP_ROPE;
    op.dst = kv;
    op.rope.n_heads = 1;
    op.rope.head_dim = 16;
    qn_program_add_op(&p, op);
    op = base;
    op.kind = QN_OP_KV_WRITE;
    op.dst = -1;
    op.src = op.src2 = kv;
    op.attn.n_heads = 2;
    op.attn.n_kv_heads = 1;
    op.attn.head_dim = 16;
    qn_program_add_op(&p, op);
    op.kind = QN_OP_ATTENTION;
    op.dst = op.src = x;
    op.src2 = -1;
    qn_program_add_op(&p, op);
    op = base;
    op.kind = QN_OP_SELECT;
    op.dst = last;
    op.src = x;
    qn_program_add_op(&p, op);
    op = base;
    op.kind = QN_OP_LINEAR;
    op.dst = p.logits;
    op.src = last;
    op.weight = embed;
    qn_program_add_op(&p, op);
    return p;
}

static void test_check(void **state) {
    (void)state;
    qn_program p = make_program();
    qn_error err = {0};
    if (qn_program_check(&p, &err) != QN_OK) fail_msg("%s", err.message);
    qn_program_free(&p);
    // Each of these faults alone is found.
    for (int fault = 0; fault < 14; fault++) {
        p = make_program();
        switch (fault) {
        case 0: p.ops[0].weight = 99; break;
        case 1: p.ops[1].src = -1; break;
        case 2: p.ops[1].norm.group = 31; break;
        case 3: p.ops[2].bias = 1; break;
        case 4: p.ops[2].dst = 0; break;
        case 5: p.ops[3].rope.table = 1; break;
        case 6: p.ops[3].rope.n_heads = 3; break;
        case 7: p.ops[4].layer = 1; break;
        case 8: p.ops[4].attn.group = 1; break;
        case 9: p.ops[5].attn.n_heads = 3; break;
        case 10: p.ops[6].src = 2; break;
        case 11: p.logits = 0; break;
        case 12: p.weights[0].n_cols = 33; break;
        case 13: p.buffers[0].width = 0; break;
        default: break;
        }
        assert_int_not_equal(qn_program_check(&p, NULL), QN_OK);
        qn_program_free(&p);
    }
}

static void test_print(void **state) {
    (void)state;
    qn_program p = make_program();
    qn_buf out = {0};
    qn_program_print(&p, &out);
    assert_false(out.failed);
    assert_non_null(strstr(out.data, "embed [50 x 32 q8_0]"));
    assert_non_null(strstr(out.data, "rms_norm"));
    assert_non_null(strstr(out.data, "proj [16 x 32 q4_0] * x + bias"));
    int lines = 0;
    for (size_t i = 0; i < out.len; i++) lines += out.data[i] == '\n';
    assert_true(lines >= 8);
    qn_buf_free(&out);
    qn_program_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_check),
        cmocka_unit_test(test_print),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
