// SPDX-License-Identifier: Apache-2.0
// No allocation in a steady step: while eight sequences decode, no thread of the process may ask for
// memory. The allocator's entry points are replaced by counting ones; asking the kernel for pages
// counts too.
#include "cpu/cpu_backend.h"
#include "engine/engine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define DEMO QN_SOURCE_DIR "/models/quern-demo-q8_0.gguf"

static atomic_bool counting;
static atomic_int allocations;

// The linker sends every call of these here (--wrap), and __real_ ones to the library.
void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__real_mmap(void *p, size_t n, int prot, int flags, int fd, off_t offset);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
void *__wrap_mmap(void *p, size_t n, int prot, int flags, int fd, off_t offset);

static void count(void) {
    if (atomic_load(&counting)) atomic_fetch_add(&allocations, 1);
}
void *__wrap_malloc(size_t size) {
    count();
    return __real_malloc(size);
}
void *__wrap_calloc(size_t n, size_t size) {
    count();
    return __real_calloc(n, size);
}
void *__wrap_realloc(void *p, size_t size) {
    count();
    return __real_realloc(p, size);
}
void *__wrap_mmap(void *p, size_t n, int prot, int flags, int fd, off_t offset) {
    count();
    return __real_mmap(p, n, prot, flags, fd, offset);
}

// Scores a prompt, a few rows in each step, beside a request that decodes. Returns how many steps were
// seen to end while allocations were counted.
static uint64_t score_prompt(qn_engine *e, qn_mailbox *box) {
    enum { PROMPT = 400, TOKENS = 60 };
    static int32_t prompt[PROMPT];
    qn_error err = {0};
    for (int32_t i = 0; i < PROMPT; i++) prompt[i] = 300 + i % 50;
    qn_request r = {.prompt = prompt, .n_prompt = 2, .max_tokens = TOKENS, .ignore_eos = true,
                    .top_p = 1, .n_logprobs = 3};
    uint64_t handles[2];
    qn_engine_stats stats;
    qn_engine_get_stats(e, &stats);
    const uint64_t first = stats.steps;
    assert_int_equal(qn_engine_submit(e, &r, box, &handles[0], &err), QN_OK);
    r.n_prompt = PROMPT;
    r.prompt_logprobs = true;
    r.n_prompt_logprobs = 5;
    assert_int_equal(qn_engine_submit(e, &r, box, &handles[1], &err), QN_OK);
    // Steps of 8 rows: the prompt takes more than 50 of them.
    uint64_t begin = 0, end = 0;
    static qn_token_event events[16];
    qn_request_state s = {0};
    size_t n = 0;
    while (s.outcome == QN_RUNNING && n == 0) {
        qn_engine_get_stats(e, &stats);
        const uint64_t steps = stats.steps - first;
        if (!begin && steps >= 5 && stats.running == 2) begin = steps;
        if (begin && steps < 45 && stats.running == 2) end = steps;
        atomic_store(&counting, begin && end == steps);
        qn_engine_read(e, handles[1], events, 16, &n, &s);
        usleep(50);
    }
    atomic_store(&counting, false);
    qn_prompt_logprobs p;
    assert_int_equal(qn_engine_prompt_logprobs(e, handles[1], &p), QN_OK);
    for (int i = 0; i < 2; i++) qn_engine_release(e, handles[i]);
    return end > begin ? end - begin : 0;
}

static void test_scoring_steps(void **state) {
    (void)state;
    const qn_engine_options options = {.backend = &qn_cpu_backend, .max_num_seqs = 2,
                                       .max_num_batched_tokens = 8,
                                       .backend_options = {.threads = 2}, .kv_dtype = QN_KV_F16};
    qn_engine *e = NULL;
    qn_error err = {0};
    if (qn_engine_open(DEMO, &options, &e, &err) != QN_OK) fail_msg("%s", err.message);
    qn_mailbox box;
    assert_int_equal(qn_mailbox_open(&box, 4, &err), QN_OK);
    const int before = atomic_load(&allocations);
    uint64_t seen = 0;
    for (int turn = 0; turn < 50 && seen < 30; turn++) seen += score_prompt(e, &box);
    assert_true(seen >= 30);
    assert_int_equal(atomic_load(&allocations), before);
    qn_engine_close(e);
    qn_mailbox_close(&box);
}

static void test_steady_step(void **state) {
    (void)state;
    enum { N = 8, TOKENS = 200 };
    const qn_engine_options options = {.backend = &qn_cpu_backend, .max_num_seqs = N,
                                       .backend_options = {.threads = 2}, .kv_dtype = QN_KV_F16};
    qn_engine *e = NULL;
    qn_error err = {0};
    if (qn_engine_open(DEMO, &options, &e, &err) != QN_OK) fail_msg("%s", err.message);
    qn_mailbox box;
    assert_int_equal(qn_mailbox_open(&box, N, &err), QN_OK);
    uint64_t handles[N];
    int32_t got[N] = {0}, finished = 0;
    for (int32_t i = 0; i < N; i++) {
        static const int32_t ids[] = {40, 41, 42}, lens[] = {2, 1};
        static const float biases[] = {-1, 2, 3};
        const int32_t prompt[] = {300 + i, 301, 302};
        const qn_request r = {.prompt = prompt, .n_prompt = 3, .max_tokens = TOKENS,
                              .prompt_logprobs = i % 4 == 1, .n_prompt_logprobs = i,
                              .ignore_eos = true, .temperature = i % 2 ? 1.0f : 0.0f, .top_p = 0.95f,
                              .top_k = i % 3 ? 0 : 20, .min_p = 0.01f, .n_logprobs = i % 4,
                              .repetition_penalty = 1.1f, .presence_penalty = i % 2 ? 0.5f : 0,
                              .bias_ids = ids, .biases = biases, .n_biases = 3,
                              .bad_word_ids = ids, .bad_word_lens = lens,
                              .n_bad_words = i % 5 ? 0 : 2};
        assert_int_equal(qn_engine_submit(e, &r, &box, &handles[i], &err), QN_OK);
    }
    static qn_token_event events[16];
    while (finished < N) {
        // Steady: everyone decodes, from the tenth token to the twentieth before the last.
        int32_t least = TOKENS, most = 0;
        for (int32_t i = 0; i < N; i++) {
            least = got[i] < least ? got[i] : least;
            most = got[i] > most ? got[i] : most;
        }
        atomic_store(&counting, least >= 10 && most < TOKENS - 20);
        uint64_t handle;
        if (!qn_mailbox_take(&box, &handle)) usleep(100);
        for (int32_t i = 0; i < N; i++) {
            qn_request_state s;
            size_t n;
            if (!handles[i]) continue;
            qn_engine_read(e, handles[i], events, 16, &n, &s);
            got[i] += (int32_t)n;
            if (s.outcome != QN_RUNNING) {
                assert_int_equal(s.outcome, QN_DONE_LENGTH);
                atomic_store(&counting, false);
                qn_engine_release(e, handles[i]);
                handles[i] = 0;
                finished++;
            }
        }
    }
    assert_int_equal(atomic_load(&allocations), 0);
    // The counter itself works.
    atomic_store(&counting, true);
    free(malloc(1));
    atomic_store(&counting, false);
    assert_true(atomic_load(&allocations) > 0);
    qn_engine_close(e);
    qn_mailbox_close(&box);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_scoring_steps),
                                       cmocka_unit_test(test_steady_step)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
