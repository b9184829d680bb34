// SPDX-License-Identifier: Apache-2.0
// The engine over a fake backend, with one step in flight and with two: the same tokens, whatever is
// preempted, cancelled or fails.
#include "engine/engine.h"
#include "tests/support/fake_backend.h"

#include "base/os.h"
#include "base/philox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DEMO QN_SOURCE_DIR "/models/quern-demo-q8_0.gguf"

enum { N = 60, MAX_PROMPT = 120, MAX_OUTPUT = 60 };

typedef struct item {
    int32_t tokens[MAX_PROMPT + MAX_OUTPUT]; // the prompt, then what came
    int32_t n_prompt, n;
    uint64_t handle, seed;
    bool cancel, scored;
    qn_request_state state;
} item;

static qn_engine *open_engine(const qn_backend_api *api, int32_t n_blocks) {
    const qn_engine_options options = {.backend = api, .max_num_seqs = 12, .max_model_len = 256,
                                       .max_num_batched_tokens = 40,
                                       .num_blocks_override = n_blocks};
    qn_engine *e = NULL;
    qn_error err = {0};
    if (qn_engine_open(DEMO, &options, &e, &err) != QN_OK) fail_msg("%s", err.message);
    return e;
}

static void submit(qn_engine *e, item *it, qn_mailbox *box, qn_rng *rng, int32_t vocab) {
    it->n_prompt = 1 + (int32_t)qn_rng_below(rng, MAX_PROMPT);
    it->seed = qn_rng_next(rng);
    it->cancel = qn_rng_below(rng, 6) == 0;
    it->scored = it->seed % 3 == 0;
    for (int32_t i = 0; i < it->n_prompt; i++) {
        it->tokens[i] = (int32_t)qn_rng_below(rng, (uint64_t)vocab);
    }
    const qn_request r = {.prompt = it->tokens, .n_prompt = it->n_prompt,
                          .max_tokens = 1 + (int32_t)qn_rng_below(rng, MAX_OUTPUT),
                          .ignore_eos = true, .has_seed = true, .seed = it->seed, .top_p = 1,
                          .temperature = 1, .n_logprobs = -1,
                          .prompt_logprobs = it->scored};
    qn_error err = {0};
    if (qn_engine_submit(e, &r, box, &it->handle, &err) != QN_OK) fail_msg("%s", err.message);
}

// Every token that came must be the one that follows from the tokens before it.
static void check_tokens(const item *it, int32_t vocab) {
    for (int32_t i = 0; i < it->n; i++) {
        int32_t at = it->n_prompt + i;
        assert_int_equal(it->tokens[at], qn_fake_next(it->tokens, at, it->seed, vocab));
    }
}

// The whole prompt has its scores, in place, as soon as there is a token.
static void check_scores(qn_engine *e, const item *it) {
    qn_prompt_logprobs p;
    const qn_status st = qn_engine_prompt_logprobs(e, it->handle, &p);
    if (!it->scored) {
        assert_int_equal(st, QN_ERR_NOT_FOUND);
        return;
    }
    if (it->n == 0) return;
    assert_int_equal(st, QN_OK);
    assert_int_equal(p.n_prompt, it->n_prompt);
    for (int32_t i = 1; i < p.n_prompt; i++) {
        assert_int_equal(p.scores[i].id, it->tokens[i]);
        assert_true(p.scores[i].logprob == qn_fake_logprob(it->tokens, i));
    }
}

// Returns the number of preemptions.
static uint64_t run_all(const qn_backend_api *api, int32_t n_blocks, int32_t fail_every,
                    uint64_t seed) {
    qn_fake_backend_set((qn_fake_options){.fail_every = fail_every});
    qn_engine *e = open_engine(api, n_blocks);
    int32_t vocab = qn_engine_get_info(e)->vocab_size;
    qn_rng rng = {.key = seed};
    qn_mailbox box;
    assert_int_equal(qn_mailbox_open(&box, N, NULL), QN_OK);
    item *items = calloc(N, sizeof *items);
    int over = 0, finished = 0, errors = 0;
    for (int i = 0; i < N; i++) submit(e, &items[i], &box, &rng, vocab);
    while (over < N) {
        for (int i = 0; i < N; i++) {
            item *it = &items[i];
            qn_token_event events[16];
            size_t n;
            if (!it->handle) continue;
            assert_int_equal(qn_engine_read(e, it->handle, events, 16, &n, &it->state), QN_OK);
            for (size_t k = 0; k < n; k++) it->tokens[it->n_prompt + it->n++] = events[k].id;
            if (it->cancel && it->n > 5) qn_engine_cancel(e, it->handle);
            if (it->state.outcome == QN_RUNNING) continue;
            finished += it->state.outcome == QN_DONE_LENGTH;
            errors += it->state.outcome == QN_DONE_ERROR;
            assert_true(it->state.outcome == QN_DONE_LENGTH || it->cancel || fail_every);
            check_tokens(it, vocab);
            check_scores(e, it);
            qn_engine_release(e, it->handle);
            it->handle = 0;
            over++;
        }
        usleep(100);
    }
    qn_engine_stats s;
    do {
        qn_engine_get_stats(e, &s);
    } while (s.has_work);
    assert_true(s.kv_usage == 0);
    if (!fail_every) assert_true(finished > N / 2);
    if (fail_every) assert_true(errors > 0);
    free(items);
    qn_engine_close(e);
    qn_mailbox_close(&box);
    return s.preemptions;
}

static void test_one_in_flight(void **state) {
    (void)state;
    uint64_t preemptions = 0;
    run_all(&qn_fake_backend, 400, 0, 1);
    for (uint64_t seed = 2; seed < 6; seed++) preemptions += run_all(&qn_fake_backend, 20, 0, seed);
    run_all(&qn_fake_backend, 400, 29, 3);
    assert_true(preemptions > 0);
}

static void test_two_in_flight(void **state) {
    (void)state;
    uint64_t preemptions = 0;
    for (uint64_t seed = 10; seed < 20; seed++) {
        run_all(&qn_fake_backend_lookahead, 400, 0, seed);
        preemptions += run_all(&qn_fake_backend_lookahead, 20, 0, seed);
        run_all(&qn_fake_backend_lookahead, 400, 29, seed);
    }
    assert_true(preemptions > 0);
}

// A watchdog compares now with the last progress wherever there is work: work that comes after a long
// idle time must not look like work that has waited all along.
static void test_work_after_idle(void **state) {
    (void)state;
    qn_fake_backend_set((qn_fake_options){0});
    qn_engine *e = open_engine(&qn_fake_backend, 400);
    qn_mailbox box;
    assert_int_equal(qn_mailbox_open(&box, 1, NULL), QN_OK);
    usleep(20000);
    const uint64_t before = qn_os_now_ns();
    const int32_t prompt[2] = {3, 4};
    const qn_request r = {.prompt = prompt, .n_prompt = 2, .max_tokens = 100, .ignore_eos = true,
                          .top_p = 1, .n_logprobs = -1};
    uint64_t handle;
    assert_int_equal(qn_engine_submit(e, &r, &box, &handle, NULL), QN_OK);
    qn_engine_stats s;
    qn_engine_get_stats(e, &s);
    assert_true(s.last_progress_ns >= before);
    qn_engine_release(e, handle);
    qn_engine_close(e);
    qn_mailbox_close(&box);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_work_after_idle),
        cmocka_unit_test(test_one_in_flight),
        cmocka_unit_test(test_two_in_flight),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
