// SPDX-License-Identifier: Apache-2.0
// Prompt logprobs against teacher-forced logits, bit for bit, however the prompt is cut into chunks,
// beside other traffic, after prefix hits that must not be taken, and through preemptions.
#include "cpu/cpu_backend.h"
#include "engine/engine.h"

#include "base/philox.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define DEMO QN_SOURCE_DIR "/models/quern-demo-q8_0.gguf"

enum { N_PROMPT = 150, TOP = 7, N_OTHERS = 6 };

typedef struct setup {
    int32_t batched_tokens, max_seqs, n_blocks;
    bool others, prefix;
} setup;

static qn_engine *open_engine(const setup *s) {
    const qn_engine_options options = {.backend = &qn_cpu_backend,
                                       .backend_options = {.threads = 2},
                                       .max_num_seqs = s->max_seqs ? s->max_seqs : 8,
                                       .max_num_batched_tokens = s->batched_tokens,
                                       .num_blocks_override = s->n_blocks,
                                       .no_prefix_caching = !s->prefix,
                                       .max_model_len = 256};
    qn_engine *e = NULL;
    qn_error err = {0};
    if (qn_engine_open(DEMO, &options, &e, &err) != QN_OK) fail_msg("%s", err.message);
    return e;
}

static void make_prompt(int32_t *ids, uint64_t key, int32_t vocab) {
    qn_rng rng = {.key = key};
    for (int32_t i = 0; i < N_PROMPT; i++) ids[i] = (int32_t)qn_rng_below(&rng, (uint64_t)vocab);
}

// What the logits say by themselves: one row for each prompt token but the first.
typedef struct expected {
    const int32_t *ids;
    int32_t vocab;
    void *scratch;
    qn_sample rows[N_PROMPT + 1];
} expected;

static void score(void *user, int32_t index, const float *logits) {
    expected *x = user;
    if (index + 1 >= N_PROMPT) return;
    const qn_sample_row row = {.score_only = true, .target = x->ids[index + 1], .n_logprobs = TOP,
                               .top_p = 1};
    qn_sample *out = &x->rows[index + 1];
    qn_sample_logits(logits, x->vocab, &row, x->scratch, out);
    double sum = 0;
    int32_t larger = 0;
    for (int32_t i = 0; i < x->vocab; i++) {
        sum += exp((double)logits[i]);
        larger += logits[i] > logits[row.target];
    }
    assert_true(fabs((double)logits[row.target] - log(sum) - (double)out->logprob) < 1e-5);
    assert_int_equal(out->rank, larger + 1);
}

static void expect(qn_engine *e, expected *x) {
    qn_error err = {0};
    if (qn_engine_logits(e, x->ids, N_PROMPT, 0, score, x, &err) != QN_OK) fail_msg("%s", err.message);
}

static void compare(qn_engine *e, uint64_t handle, const expected *x) {
    qn_prompt_logprobs p;
    assert_int_equal(qn_engine_prompt_logprobs(e, handle, &p), QN_OK);
    assert_int_equal(p.n_prompt, N_PROMPT);
    assert_int_equal(p.n_top, TOP);
    for (int32_t i = 1; i < N_PROMPT; i++) {
        const qn_token_score *got = p.scores + (size_t)i * (1 + TOP);
        const qn_sample *want = &x->rows[i];
        assert_int_equal(got->id, x->ids[i]);
        assert_int_equal(got->rank, want->rank);
        assert_memory_equal(&got->logprob, &want->logprob, sizeof got->logprob);
        for (int32_t k = 0; k < TOP; k++) {
            assert_int_equal(got[1 + k].id, want->top_ids[k]);
            assert_int_equal(got[1 + k].rank, k + 1);
            assert_memory_equal(&got[1 + k].logprob, &want->top_logprobs[k], sizeof(float));
        }
    }
}

static uint64_t submit(qn_engine *e, const qn_request *q, qn_mailbox *box) {
    uint64_t handle;
    qn_error err = {0};
    if (qn_engine_submit(e, q, box, &handle, &err) != QN_OK) fail_msg("%s", err.message);
    return handle;
}

// Reads to the end; the scores must be whole with the first token.
static qn_request_state finish(qn_engine *e, uint64_t handle, int32_t *ids) {
    qn_request_state s = {0};
    int32_t n_ids = 0;
    while (s.outcome == QN_RUNNING) {
        qn_token_event events[8];
        qn_prompt_logprobs p;
        size_t n;
        assert_int_equal(qn_engine_read(e, handle, events, 8, &n, &s), QN_OK);
        for (size_t i = 0; i < n; i++) ids[n_ids++] = events[i].id;
        if (n) assert_int_not_equal(qn_engine_prompt_logprobs(e, handle, &p), QN_ERR_BUSY);
        if (n == 0) usleep(100);
    }
    return s;
}

static qn_request scoring(const int32_t *prompt) {
    return (qn_request){.prompt = prompt, .n_prompt = N_PROMPT, .max_tokens = 30, .ignore_eos = true,
                        .top_p = 1, .n_logprobs = -1, .prompt_logprobs = true,
                        .n_prompt_logprobs = TOP};
}

// Returns the preemptions.
static uint64_t run(const setup *s, const int32_t *alone) {
    qn_engine *e = open_engine(s);
    expected *x = calloc(1, sizeof *x);
    int32_t ids[N_PROMPT], others[N_OTHERS][N_PROMPT], got[64];
    x->vocab = qn_engine_get_info(e)->vocab_size;
    x->scratch = malloc(qn_sample_scratch_bytes(x->vocab));
    x->ids = ids;
    make_prompt(ids, 5, x->vocab);
    qn_mailbox box;
    assert_int_equal(qn_mailbox_open(&box, 16, NULL), QN_OK);
    const qn_request q = scoring(ids);
    uint64_t handles[N_OTHERS] = {0};
    if (s->prefix) { // what must not be read
        qn_request plain = q;
        plain.prompt_logprobs = false;
        uint64_t handle = submit(e, &plain, &box);
        finish(e, handle, got);
        qn_engine_release(e, handle);
    }
    expect(e, x); // with KV in the prefix cache too
    for (int32_t i = 0; i < N_OTHERS && s->others; i++) {
        make_prompt(others[i], 100 + (uint64_t)i, x->vocab);
        qn_request o = scoring(others[i]);
        o.prompt_logprobs = i % 2;
        o.n_prompt_logprobs = i;
        o.n_prompt = 40 + i;
        o.max_tokens = 60;
        handles[i] = submit(e, &o, &box);
    }
    const uint64_t handle = submit(e, &q, &box);
    const qn_request_state state = finish(e, handle, got);
    assert_int_equal(state.outcome, QN_DONE_LENGTH);
    assert_int_equal(state.n_cached, 0);
    compare(e, handle, x);
    if (alone) assert_memory_equal(got, alone, 30 * sizeof *got); // scoring changes no answer
    for (int32_t i = 0; i < N_OTHERS && s->others; i++) {
        finish(e, handles[i], got);
        qn_engine_release(e, handles[i]);
    }
    qn_engine_release(e, handle);
    qn_prompt_logprobs p;
    assert_int_equal(qn_engine_prompt_logprobs(e, handle, &p), QN_ERR_NOT_FOUND);
    qn_engine_stats stats;
    qn_engine_get_stats(e, &stats);
    free(x->scratch);
    free(x);
    qn_engine_close(e);
    qn_mailbox_close(&box);
    return stats.preemptions;
}

static void test_bits(void **state) {
    (void)state;
    static const setup setups[] = {
        {.batched_tokens = 512},
        {.batched_tokens = 7, .max_seqs = 1},
        {.batched_tokens = 16, .prefix = true},
        {.batched_tokens = 512, .prefix = true, .others = true},
        {.batched_tokens = 33, .others = true},
        {.batched_tokens = 512, .max_seqs = 2, .others = true},
    };
    const setup plain = setups[0];
    qn_engine *e = open_engine(&plain);
    int32_t ids[N_PROMPT], alone[64];
    make_prompt(ids, 5, qn_engine_get_info(e)->vocab_size);
    qn_mailbox box;
    assert_int_equal(qn_mailbox_open(&box, 1, NULL), QN_OK);
    qn_request q = scoring(ids);
    q.prompt_logprobs = false;
    const uint64_t handle = submit(e, &q, &box);
    finish(e, handle, alone);
    qn_engine_close(e);
    qn_mailbox_close(&box);
    for (size_t i = 0; i < sizeof setups / sizeof *setups; i++) run(&setups[i], alone);
    uint64_t preemptions = 0;
    for (int32_t n = 16; n < 24; n++) {
        const setup s = {.batched_tokens = 48, .n_blocks = n, .others = true};
        preemptions += run(&s, alone);
    }
    assert_true(preemptions > 0);
}

static void expect_refused(qn_engine *e, const qn_request *q, qn_mailbox *box, qn_status want,
                           const char *word) {
    uint64_t handle;
    qn_error err = {0};
    assert_int_equal(qn_engine_submit(e, q, box, &handle, &err), want);
    if (!strstr(err.message, word)) fail_msg("%s", err.message);
}

static void test_limits(void **state) {
    (void)state;
    const qn_engine_options options = {.backend = &qn_cpu_backend, .max_num_seqs = 2,
                                       .max_num_queued_tokens = 1 << 24,
                                       .max_model_len = QN_MAX_PROMPT_LOGPROBS,
                                       .num_blocks_override = QN_MAX_PROMPT_LOGPROBS / 16};
    qn_engine *e = NULL;
    qn_error err = {0};
    if (qn_engine_open(DEMO, &options, &e, &err) != QN_OK) fail_msg("%s", err.message);
    qn_mailbox box;
    assert_int_equal(qn_mailbox_open(&box, 64, NULL), QN_OK);
    const int32_t n = QN_MAX_PROMPT_LOGPROBS / (1 + TOP);
    int32_t *ids = calloc((size_t)n + 1, sizeof *ids);
    qn_request q = scoring(ids);
    q.n_prompt = n + 1;
    expect_refused(e, &q, &box, QN_ERR_INVALID, "prompt_logprobs");
    q.n_prompt = n;
    q.n_prompt_logprobs = QN_MAX_TOP_LOGPROBS + 1;
    expect_refused(e, &q, &box, QN_ERR_INVALID, "prompt_logprobs");
    q.n_prompt_logprobs = TOP;
    q.fork_of = 77;
    expect_refused(e, &q, &box, QN_ERR_INVALID, "fork");
    q.fork_of = 0;
    // As many as may live at once; one more has to wait until one has gone.
    enum { MOST = QN_MAX_LIVE_PROMPT_LOGPROBS / QN_MAX_PROMPT_LOGPROBS };
    uint64_t handles[MOST];
    for (int32_t i = 0; i < MOST; i++) handles[i] = submit(e, &q, &box);
    expect_refused(e, &q, &box, QN_ERR_BUSY, "prompt_logprobs");
    qn_prompt_logprobs p;
    assert_int_equal(qn_engine_prompt_logprobs(e, handles[MOST - 1], &p), QN_ERR_BUSY);
    for (int32_t i = 0; i < MOST; i++) qn_engine_release(e, handles[i]);
    qn_engine_stats stats;
    do {
        qn_engine_get_stats(e, &stats);
        usleep(1000);
    } while (stats.has_work);
    // A prompt of one token has no scores, and is complete.
    q.n_prompt = 1;
    int32_t got[64];
    const uint64_t handle = submit(e, &q, &box);
    finish(e, handle, got);
    assert_int_equal(qn_engine_prompt_logprobs(e, handle, &p), QN_OK);
    assert_int_equal(p.n_prompt, 1);
    qn_engine_release(e, handle);
    free(ids);
    qn_engine_close(e);
    qn_mailbox_close(&box);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_bits), cmocka_unit_test(test_limits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
