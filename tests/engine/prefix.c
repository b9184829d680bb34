// SPDX-License-Identifier: Apache-2.0
// The prefix cache and forks through the real engine: KV that was found gives, bit for bit, what KV
// that was computed gives, and no salt sees another's.
#include "cpu/cpu_backend.h"
#include "engine/engine.h"

#include "base/philox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DEMO QN_SOURCE_DIR "/models/quern-demo-q8_0.gguf"

enum { MAX_TOKENS = 40 };

typedef struct answer {
    int32_t ids[MAX_TOKENS];
    float logprobs[MAX_TOKENS];
    int32_t n;
    qn_request_state state;
} answer;

static qn_engine *open_engine(bool caching, int32_t n_blocks) {
    const qn_engine_options options = {.backend = &qn_cpu_backend, .backend_options = {.threads = 2},
                                       .max_num_seqs = 8, .max_num_batched_tokens = 64,
                                       .max_model_len = 512, .kv_dtype = QN_KV_F16,
                                       .num_blocks_override = n_blocks,
                                       .no_prefix_caching = !caching};
    qn_engine *e = NULL;
    qn_error err = {0};
    if (qn_engine_open(DEMO, &options, &e, &err) != QN_OK) fail_msg("%s", err.message);
    return e;
}

static qn_request make(const int32_t *prompt, int32_t n, uint64_t seed) {
    return (qn_request){.prompt = prompt, .n_prompt = n, .max_tokens = MAX_TOKENS,
                        .ignore_eos = true, .has_seed = true, .seed = seed, .temperature = 1,
                        .top_p = 1, .n_logprobs = 0};
}

static void read_all(qn_engine *e, uint64_t handle, answer *a) {
    memset(a, 0, sizeof *a);
    do {
        qn_token_event ev[8];
        size_t n;
        assert_int_equal(qn_engine_read(e, handle, ev, 8, &n, &a->state), QN_OK);
        for (size_t i = 0; i < n; i++) {
            a->ids[a->n] = ev[i].id;
            a->logprobs[a->n++] = ev[i].logprob;
        }
        if (n == 0) usleep(200);
    } while (a->state.outcome == QN_RUNNING);
    qn_engine_release(e, handle);
}

static void ask(qn_engine *e, const qn_request *r, qn_mailbox *box, answer *a) {
    uint64_t handle;
    qn_error err = {0};
    if (qn_engine_submit(e, r, box, &handle, &err) != QN_OK) fail_msg("%s", err.message);
    read_all(e, handle, a);
}

static void expect_same(const answer *a, const answer *b) {
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->ids, b->ids, (size_t)a->n * sizeof a->ids[0]);
    assert_memory_equal(a->logprobs, b->logprobs, (size_t)a->n * sizeof a->logprobs[0]);
}

static void fill(int32_t *prompt, int32_t n, uint64_t key) {
    qn_rng rng = {.key = key};
    for (int32_t i = 0; i < n; i++) prompt[i] = (int32_t)qn_rng_below(&rng, 2000);
}

static void test_hits_change_nothing(void **state) {
    (void)state;
    int32_t prompt[300];
    fill(prompt, 300, 1);
    qn_engine *plain = open_engine(false, 0), *cached = open_engine(true, 0);
    qn_mailbox box;
    assert_int_equal(qn_mailbox_open(&box, 64, NULL), QN_OK);
    static const int32_t lengths[] = {300, 300, 160, 161, 299, 40, 15, 300};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        qn_request r = make(prompt, lengths[i], 5 + i);
        answer a, b;
        ask(plain, &r, &box, &a);
        ask(cached, &r, &box, &b);
        expect_same(&a, &b);
        assert_int_equal(a.state.n_cached, 0);
        // All full blocks before the last token are there from the second request on.
        int32_t want = i == 0 ? 0 : (lengths[i] - 1) / 16 * 16;
        assert_int_equal(b.state.n_cached, want);
    }
    qn_engine_stats s;
    qn_engine_get_stats(cached, &s);
    assert_true(s.prefix_hits > 1000 && s.prefix_hits < s.prefix_queries);
    assert_true(s.kv_usage == 0);
    qn_engine_close(plain);
    qn_engine_close(cached);
    qn_mailbox_close(&box);
}

static void test_salts_are_apart(void **state) {
    (void)state;
    int32_t prompt[100];
    fill(prompt, 100, 2);
    qn_engine *e = open_engine(true, 0);
    qn_mailbox box;
    assert_int_equal(qn_mailbox_open(&box, 64, NULL), QN_OK);
    static const char *const salts[] = {"", "a", "b", "a", ""};
    static const int32_t want[] = {0, 0, 0, 96, 96};
    answer first, a;
    for (size_t i = 0; i < 5; i++) {
        qn_request r = make(prompt, 100, 9);
        r.cache_salt = salts[i];
        r.cache_salt_len = strlen(salts[i]);
        ask(e, &r, &box, &a);
        assert_int_equal(a.state.n_cached, want[i]);
        if (i == 0) first = a;
        expect_same(&first, &a);
    }
    qn_request r = make(prompt, 100, 9);
    r.skip_cache_read = true;
    ask(e, &r, &box, &a);
    assert_int_equal(a.state.n_cached, 0);
    char long_salt[129] = {0};
    uint64_t handle;
    qn_error err = {0};
    r.cache_salt = long_salt;
    r.cache_salt_len = sizeof long_salt;
    assert_int_equal(qn_engine_submit(e, &r, &box, &handle, &err), QN_ERR_INVALID);
    assert_non_null(strstr(err.message, "cache_salt"));
    qn_engine_close(e);
    qn_mailbox_close(&box);
}

static void test_forks(void **state) {
    (void)state;
    int32_t prompt[203];
    fill(prompt, 203, 3);
    qn_mailbox box;
    assert_int_equal(qn_mailbox_open(&box, 64, NULL), QN_OK);
    answer alone[4], forked[4];
    for (int caching = 0; caching < 2; caching++) {
        qn_engine *e = open_engine(caching, 0);
        for (int i = 0; i < 4; i++) {
            qn_request r = make(prompt, 203, 11);
            r.choice = i;
            r.skip_cache_read = true;
            ask(e, &r, &box, &alone[i]);
        }
        uint64_t handles[4];
        for (int i = 0; i < 4; i++) {
            qn_request r = make(prompt, 203, 11);
            r.choice = i;
            r.skip_cache_read = true;
            r.fork_of = i ? handles[0] : 0;
            assert_int_equal(qn_engine_submit(e, &r, &box, &handles[i], NULL), QN_OK);
        }
        for (int i = 0; i < 4; i++) {
            read_all(e, handles[i], &forked[i]);
            expect_same(&alone[i], &forked[i]);
        }
        assert_memory_not_equal(forked[0].ids, forked[1].ids, sizeof forked[0].ids);
        qn_engine_stats s;
        do {
            qn_engine_get_stats(e, &s);
        } while (s.has_work);
        assert_true(s.kv_usage == 0);
        qn_engine_close(e);
    }
    qn_mailbox_close(&box);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hits_change_nothing),
        cmocka_unit_test(test_salts_are_apart),
        cmocka_unit_test(test_forks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
