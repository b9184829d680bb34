// SPDX-License-Identifier: Apache-2.0
#include "attention/step_plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const int32_t n_blocks[QN_MAX_KV_GROUPS] = {8, 4};

// Two sequences: 3 rows of a prompt at position 30, and one decoding row at position 5.
static qn_step_plan *make_plan(void) {
    qn_step_plan *p = qn_step_plan_create(4, 8, 16, 2, 2);
    assert_non_null(p);
    p->n_seqs = 2;
    p->n_rows = 4;
    p->n_logits = 1;
    p->n_blocks = 8;
    p->n_copies = 1;
    qn_plan_seqs(p)[0] = (qn_plan_seq){.slot = 1, .adapter = -1, .query_len = 3, .position = 30,
                                       .block_start = {0, 3}, .n_blocks = {3, 3}};
    qn_plan_seqs(p)[1] = (qn_plan_seq){.slot = 0, .adapter = -1, .query_start = 3, .query_len = 1,
                                       .position = 5, .n_logits = 1, .block_start = {6, 7},
                                       .n_blocks = {1, 1}};
    const int32_t blocks[] = {7, 0, 3, -1, 2, 1, 5, 3};
    memcpy(qn_plan_blocks(p), blocks, sizeof blocks);
    const int32_t tokens[] = {10, 0, 99, QN_TOKEN_PENDING};
    memcpy(qn_plan_tokens(p), tokens, sizeof tokens);
    qn_plan_copies(p)[0] = (qn_plan_copy){1, 3, 0};
    return p;
}

static bool valid(const qn_step_plan *p) {
    const char *reason = NULL;
    const bool ok = qn_step_plan_valid(p, 16, n_blocks, 100, &reason);
    assert_true(ok || reason);
    return ok;
}

static void test_valid(void **state) {
    (void)state;
    qn_step_plan *p = make_plan();
    assert_true(valid(p));
    // It is one flat object: a copy of its bytes is the same plan.
    qn_step_plan *copy = malloc(p->bytes);
    assert_non_null(copy);
    memcpy(copy, p, p->bytes);
    memset(p, 0xff, p->bytes);
    assert_true(valid(copy));
    assert_int_equal(qn_plan_tokens(copy)[2], 99);
    qn_step_plan_reset(copy);
    assert_int_equal(copy->n_rows, 0);
    assert_true(valid(copy));
    free(p);
    free(copy);
}

// Each of these faults alone is found.
static void test_invalid(void **state) {
    (void)state;
    for (int fault = 0; fault < 15; fault++) {
        qn_step_plan *p = make_plan();
        qn_plan_seq *s = qn_plan_seqs(p);
        switch (fault) {
        case 0: p->n_seqs = 5; break;
        case 1: p->n_rows = 5; break;
        case 2: s[0].query_len = 0; break;
        case 3: s[1].query_start = 2; break;
        case 4: s[0].position = INT32_MAX - 1; break;
        case 5: s[1].n_logits = 2; break;
        case 6: s[1].logit_start = 1; break;
        case 7: s[0].n_blocks[0] = 2; break;
        case 8: s[1].block_start[1] = 8; break;
        case 9: qn_plan_blocks(p)[4] = 4; break;
        case 10: qn_plan_blocks(p)[0] = -2; break;
        case 11: qn_plan_tokens(p)[0] = 100; break;
        case 12: qn_plan_tokens(p)[0] = -2; break;
        case 13: qn_plan_copies(p)[0].dst = 4; break;
        case 14: qn_plan_copies(p)[0].group = 2; break;
        default: break;
        }
        assert_false(valid(p));
        free(p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_valid),
        cmocka_unit_test(test_invalid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
