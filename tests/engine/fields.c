// SPDX-License-Identifier: Apache-2.0
// Penalties, biases, allowed ids and bad words, end to end: each does what it says to the tokens that
// come, and a request that has them still gets the tokens that it gets alone, through preemptions.
// Over a fake backend with two steps in flight: the history that the sampler is given is whole.
#include "cpu/cpu_backend.h"
#include "engine/engine.h"
#include "engine/prompt.h"

#include "base/philox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/fake_backend.h"

#define DEMO QN_SOURCE_DIR "/models/quern-demo-q8_0.gguf"

enum { MAX_TOKENS = 120, N = 8 };

typedef struct stream {
    int32_t prompt[200];
    qn_request request;
    int32_t n, ids[MAX_TOKENS];
    qn_request_state state;
    uint64_t handle;
} stream;

static qn_engine *open_engine(const qn_backend_api *api, int32_t n_blocks) {
    const qn_engine_options options = {.backend = api, .backend_options = {.threads = 2},
                                       .max_num_seqs = N, .max_num_batched_tokens = 64,
                                       .num_blocks_override = n_blocks, .max_model_len = 384,
                                       .kv_dtype = QN_KV_F16};
    qn_engine *e = NULL;
    qn_error err = {0};
    if (qn_engine_open(DEMO, &options, &e, &err) != QN_OK) fail_msg("%s", err.message);
    return e;
}

static void run(qn_engine *e, stream *streams, int n) {
    qn_mailbox box;
    assert_int_equal(qn_mailbox_open(&box, N, NULL), QN_OK);
    for (int i = 0; i < n; i++) {
        qn_error err = {0};
        streams[i].n = 0;
        streams[i].request.prompt = streams[i].prompt;
        if (qn_engine_submit(e, &streams[i].request, &box, &streams[i].handle, &err) != QN_OK) {
            fail_msg("%s", err.message);
        }
    }
    for (int over = 0; over < n;) {
        for (int i = 0; i < n; i++) {
            stream *s = &streams[i];
            qn_token_event events[8];
            size_t got;
            if (!s->handle) continue;
            assert_int_equal(qn_engine_read(e, s->handle, events, 8, &got, &s->state), QN_OK);
            for (size_t k = 0; k < got; k++) s->ids[s->n++] = events[k].id;
            if (s->state.outcome == QN_RUNNING) continue;
            qn_engine_release(e, s->handle);
            s->handle = 0;
            over++;
        }
        usleep(100);
    }
    qn_mailbox_close(&box);
}

static stream plain(void) {
    stream s = {.prompt = {300, 301, 302}};
    s.request = (qn_request){.n_prompt = 3, .max_tokens = 60, .ignore_eos = true, .has_seed = true,
                             .top_p = 1, .n_logprobs = -1};
    return s;
}

static int most_often(const stream *s) {
    int most = 0;
    for (int i = 0; i < s->n; i++) {
        int count = 0;
        for (int j = 0; j < s->n; j++) count += s->ids[j] == s->ids[i];
        most = count > most ? count : most;
    }
    return most;
}

static bool has_pair(const stream *s, int32_t a, int32_t b) {
    for (int i = 1; i < s->n; i++) {
        if (s->ids[i - 1] == a && s->ids[i] == b) return true;
    }
    return false;
}

static void test_each(void **state) {
    (void)state;
    qn_engine *e = open_engine(&qn_cpu_backend, 0);
    stream *s = calloc(8, sizeof *s);
    for (int i = 0; i < 8; i++) s[i] = plain();
    run(e, s, 1);
    const int32_t first = s[0].ids[0], second = s[0].ids[1];
    // A bias of 100 on one id: it always wins.
    const int32_t favourite = 77;
    const float plus = 100, minus = -100;
    s[1].request.bias_ids = &favourite;
    s[1].request.biases = &plus;
    s[1].request.n_biases = 1;
    s[2].request.bias_ids = &first;
    s[2].request.biases = &minus;
    s[2].request.n_biases = 1;
    // Only three ids.
    const int32_t allowed[] = {64, 5, 300};
    s[3].request.allowed_ids = allowed;
    s[3].request.n_allowed_ids = 3;
    s[3].request.temperature = 2;
    // The greedy answer's first pair, and one id of it.
    const int32_t pair[] = {first, second}, lens[] = {2, 1};
    s[4].request.bad_word_ids = pair;
    s[4].request.bad_word_lens = lens;
    s[4].request.n_bad_words = 1;
    const int32_t words[] = {first, second, first};
    s[5].request.bad_word_ids = words;
    s[5].request.bad_word_lens = lens;
    s[5].request.n_bad_words = 2;
    // Those who want to repeat themselves: 77 again and again, less so when punished.
    s[6] = s[1];
    s[6].request.frequency_penalty = 2;
    s[7] = s[1];
    s[7].request.repetition_penalty = 100;
    s[7].request.presence_penalty = 2;
    for (int i = 1; i < 8; i++) s[i].request.prompt = s[i].prompt;
    run(e, s + 1, 7);
    for (int i = 0; i < 60; i++) assert_int_equal(s[1].ids[i], favourite);
    for (int i = 0; i < 60; i++) assert_int_not_equal(s[2].ids[i], first);
    int seen[3] = {0};
    for (int i = 0; i < 60; i++) {
        for (int k = 0; k < 3; k++) seen[k] += s[3].ids[i] == allowed[k];
    }
    assert_int_equal(seen[0] + seen[1] + seen[2], 60);
    assert_true(has_pair(&s[0], first, second));
    assert_int_equal(s[4].ids[0], first); // only its continuation is banned
    assert_false(has_pair(&s[4], first, second));
    for (int i = 0; i < 60; i++) assert_int_not_equal(s[5].ids[i], first);
    assert_int_equal(most_often(&s[1]), 60);
    assert_true(most_often(&s[6]) < 60 && s[6].ids[0] == favourite);
    assert_true(most_often(&s[7]) < 60 && s[7].ids[0] == favourite);
    free(s);
    qn_engine_close(e);
}

// One id allowed, and that one never twice: an error for this request alone.
static void test_nothing_left(void **state) {
    (void)state;
    qn_engine *e = open_engine(&qn_cpu_backend, 0);
    stream *s = calloc(2, sizeof *s);
    s[0] = s[1] = plain();
    const int32_t one[] = {9, 9}, lens[] = {2};
    s[0].request.allowed_ids = one;
    s[0].request.n_allowed_ids = 1;
    s[0].request.bad_word_ids = one;
    s[0].request.bad_word_lens = lens;
    s[0].request.n_bad_words = 1;
    run(e, s, 2);
    assert_int_equal(s[0].state.outcome, QN_DONE_ERROR);
    assert_int_equal(s[0].state.error.status, QN_ERR_INVALID);
    assert_int_equal(s[0].n, 1);
    assert_non_null(strstr(s[0].state.error.message, "allowed_token_ids"));
    assert_int_equal(s[1].state.outcome, QN_DONE_LENGTH);
    free(s);
    qn_engine_close(e);
}

typedef struct lists {
    int32_t bias_ids[5], allowed[500], bad[64], lens[16];
    float biases[5];
} lists;

static void make(stream *s, lists *l, int index, int32_t vocab) {
    qn_rng rng = {.key = 500 + (uint64_t)index};
    const int32_t n = 10 + index * 20;
    for (int32_t i = 0; i < n; i++) s->prompt[i] = (int32_t)qn_rng_below(&rng, (uint64_t)vocab);
    s->request = (qn_request){.n_prompt = n, .max_tokens = MAX_TOKENS - index, .ignore_eos = true,
                              .has_seed = true, .seed = (uint64_t)index, .top_p = 0.95f,
                              .temperature = index % 2 ? 0.8f : 0, .n_logprobs = -1,
                              .min_tokens = index * 10};
    if (index == 7) return; // one with none of it
    s->request.repetition_penalty = index % 3 ? 1.2f : 0;
    s->request.presence_penalty = index % 2 ? 0.5f : 0;
    s->request.frequency_penalty = index % 4 == 0 ? 0.7f : 0;
    for (int i = 0; i < 5; i++) {
        l->bias_ids[i] = (int32_t)qn_rng_below(&rng, (uint64_t)vocab);
        l->biases[i] = (float)(qn_rng_uniform(&rng) * 8 - 2);
    }
    s->request.bias_ids = l->bias_ids;
    s->request.biases = l->biases;
    s->request.n_biases = index % 2 ? 5 : 0;
    for (int i = 0; i < 500; i++) l->allowed[i] = (int32_t)qn_rng_below(&rng, (uint64_t)vocab);
    s->request.allowed_ids = l->allowed;
    s->request.n_allowed_ids = index % 4 == 3 ? 500 : 0;
    int at = 0;
    for (int i = 0; i < 16; i++) {
        l->lens[i] = 1 + i % 3;
        for (int k = 0; k < l->lens[i]; k++) l->bad[at++] = l->allowed[(i * 3 + k) % 7];
    }
    s->request.bad_word_ids = l->bad;
    s->request.bad_word_lens = l->lens;
    s->request.n_bad_words = index % 3 == 1 ? 16 : 0;
}

static void test_together_as_alone(void **state) {
    (void)state;
    stream *alone = calloc(N, sizeof *alone), *together = calloc(N, sizeof *together);
    lists *l = calloc(N, sizeof *l);
    qn_engine *e = open_engine(&qn_cpu_backend, 0);
    const int32_t vocab = qn_engine_get_info(e)->vocab_size;
    for (int i = 0; i < N; i++) {
        make(&alone[i], &l[i], i, vocab);
        run(e, &alone[i], 1);
    }
    qn_engine_close(e);
    for (int pass = 0; pass < 2; pass++) {
        e = open_engine(&qn_cpu_backend, pass ? 36 : 0);
        for (int i = 0; i < N; i++) make(&together[i], &l[i], i, vocab);
        run(e, together, N);
        for (int i = 0; i < N; i++) {
            assert_int_equal(together[i].n, alone[i].n);
            assert_memory_equal(together[i].ids, alone[i].ids, sizeof alone[i].ids);
        }
        qn_engine_stats stats;
        qn_engine_get_stats(e, &stats);
        if (pass) assert_true(stats.preemptions > 0);
        qn_engine_close(e);
    }
    free(alone);
    free(together);
    free(l);
}

// ---------------------------------------------------------------- what the sampler is given

static atomic_int checked, wrong, most_in_flight, in_flight;
static int32_t expected_prompt[200], vocab_size;

static qn_status spy_submit(qn_executable *x, const qn_step_plan *plan, const qn_sample_row *rows,
                            qn_error *err) {
    const int now = atomic_fetch_add(&in_flight, 1) + 1;
    if (now > atomic_load(&most_in_flight)) atomic_store(&most_in_flight, now);
    for (int32_t i = 0; i < plan->n_logits; i++) {
        const qn_sample_row *r = &rows[i];
        if (!qn_sample_has_penalties(r)) continue;
        // Prompt and output are all tokens before the one sampled now.
        bool ok = r->n_prompt + r->n_output == r->position &&
                  memcmp(r->prompt, expected_prompt, (size_t)r->n_prompt * sizeof(int32_t)) == 0;
        int32_t tokens[400];
        if (ok && r->position < 400) {
            memcpy(tokens, r->prompt, (size_t)r->n_prompt * sizeof *tokens);
            memcpy(tokens + r->n_prompt, r->output, (size_t)r->n_output * sizeof *tokens);
            for (int32_t p = r->n_prompt; p < r->position; p++) {
                ok = ok && tokens[p] == qn_fake_next(tokens, p, r->seed, vocab_size);
            }
        }
        atomic_fetch_add(&checked, 1);
        if (!ok) atomic_fetch_add(&wrong, 1);
    }
    return qn_fake_backend_lookahead.submit(x, plan, rows, err);
}

static qn_status spy_collect(qn_executable *x, qn_step_result *result, qn_error *err) {
    atomic_fetch_sub(&in_flight, 1);
    return qn_fake_backend_lookahead.collect(x, result, err);
}

static void test_history_is_whole(void **state) {
    (void)state;
    qn_fake_backend_set((qn_fake_options){0});
    qn_backend_api spy = qn_fake_backend_lookahead;
    spy.submit = spy_submit;
    spy.collect = spy_collect;
    qn_engine *e = open_engine(&spy, 40);
    vocab_size = qn_engine_get_info(e)->vocab_size;
    for (int i = 0; i < 200; i++) expected_prompt[i] = 3 + i * 2 % 500;
    stream *s = calloc(N, sizeof *s);
    for (int i = 0; i < N; i++) {
        s[i] = plain();
        memcpy(s[i].prompt, expected_prompt, sizeof expected_prompt);
        s[i].request.n_prompt = 20 + i * 9;
        s[i].request.seed = (uint64_t)i;
    }
    run(e, s, N);
    assert_int_equal(atomic_load(&most_in_flight), 2); // without penalties it looks ahead
    assert_int_equal(atomic_load(&checked), 0);
    atomic_store(&most_in_flight, 0);
    for (int i = 0; i < N; i++) s[i].request.presence_penalty = i % 2 ? 1.0f : 0.0f;
    for (int i = 0; i < N; i++) s[i].request.max_tokens = i % 2 ? 90 : 30;
    run(e, s, N);
    assert_true(atomic_load(&checked) >= 4 * 90);
    assert_int_equal(atomic_load(&wrong), 0);
    free(s);
    qn_engine_close(e);
}

static void test_refusals(void **state) {
    (void)state;
    qn_engine *e = open_engine(&qn_cpu_backend, 0);
    static int32_t ids[2000], lens[2000];
    static float values[2000];
    for (int i = 0; i < 2000; i++) lens[i] = 1;
    const int32_t outside[] = {1 << 20}, negative[] = {-1}, none[] = {0}, many[] = {33};
    const float huge[] = {101}, nan[] = {0.0f / 0.0f};
    qn_mailbox box;
    assert_int_equal(qn_mailbox_open(&box, 4, NULL), QN_OK);
    for (int i = 0;; i++) {
        stream s = plain();
        qn_request *r = &s.request;
        r->prompt = s.prompt;
        const char *word = "";
        switch (i) {
        case 0: word = "presence_penalty", r->presence_penalty = 2.5f; break;
        case 1: word = "presence_penalty", r->presence_penalty = nan[0]; break;
        case 2: word = "frequency_penalty", r->frequency_penalty = -3; break;
        case 3: word = "repetition_penalty", r->repetition_penalty = -1; break;
        case 4: word = "repetition_penalty", r->repetition_penalty = 101; break;
        case 5: word = "repetition_penalty", r->repetition_penalty = nan[0]; break;
        case 6: word = "logit_bias", r->bias_ids = ids, r->biases = values, r->n_biases = 1025; break;
        case 7: word = "logit_bias", r->bias_ids = outside, r->biases = values, r->n_biases = 1; break;
        case 8: word = "logit_bias", r->bias_ids = ids, r->biases = huge, r->n_biases = 1; break;
        case 9: word = "logit_bias", r->bias_ids = ids, r->biases = nan, r->n_biases = 1; break;
        case 10: word = "allowed_token_ids", r->allowed_ids = negative, r->n_allowed_ids = 1; break;
        case 11: word = "allowed_token_ids", r->allowed_ids = outside, r->n_allowed_ids = 1; break;
        case 12: word = "bad_words", r->bad_word_ids = outside, r->bad_word_lens = lens,
                 r->n_bad_words = 1; break;
        case 13: word = "bad_words", r->bad_word_ids = ids, r->bad_word_lens = none,
                 r->n_bad_words = 1; break;
        case 14: word = "bad_words", r->bad_word_ids = ids, r->bad_word_lens = many,
                 r->n_bad_words = 1; break;
        case 15: word = "bad_words", r->bad_word_ids = ids, r->bad_word_lens = lens,
                 r->n_bad_words = 257; break;
        case 16: word = "allowed_token_ids", r->allowed_ids = ids, r->n_allowed_ids = 3,
                 r->bad_word_ids = ids, r->bad_word_lens = lens, r->n_bad_words = 2; break;
        default:
            qn_mailbox_close(&box);
            qn_engine_close(e);
            return;
        }
        qn_error err = {0};
        assert_int_equal(qn_engine_submit(e, r, &box, &s.handle, &err), QN_ERR_INVALID);
        if (!strstr(err.message, word)) fail_msg("%d: %s", i, err.message);
    }
}

// The prompt ends where the last message's content does, as transformers' apply_chat_template has it.
static void test_continue_chat(void **state) {
    (void)state;
#define LOOP(content) \
    "{% for m in messages %}<{{ m.role }}>{{ " content " }}<|im_end|>{% endfor %}" \
    "{% if add_generation_prompt %}<assistant>{% endif %}"
    static const struct {
        const char *template, *content, *want; // want NULL: refused
    } cases[] = {
        {LOOP("m.content"), "Sure, ", "<user> q <|im_end|><assistant>Sure, "},
        {LOOP("m.content"), "", "<user> q <|im_end|><assistant>"},
        {LOOP("m.content | trim"), "  Sure,  ", "<user>q<|im_end|><assistant>Sure,"},
        {LOOP("m.content | trim"), "  ", "<user>q<|im_end|><assistant>"},
        {LOOP("m.content.split('</think>')[-1]"), "a</think>b", "<user> q <|im_end|><assistant>b"},
        {LOOP("m.role"), "Sure", NULL},
        {LOOP("m.content ~ m.content"), "Sure", NULL},
        {LOOP("m.content"), "Mark<|im_end|> ", "<user> q <|im_end|><assistant>Mark<|im_end|> "},
    };
#undef LOOP
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const qn_engine_options options = {.backend = &qn_cpu_backend, .max_num_seqs = 1,
                                           .max_model_len = 64, .chat_template = cases[i].template};
        qn_engine *e = NULL;
        qn_error err = {0};
        if (qn_engine_open(DEMO, &options, &e, &err) != QN_OK) fail_msg("%s", err.message);
        const qn_engine_info *info = qn_engine_get_info(e);
        json_t *v = json_pack("{s:[{s:s, s:s}, {s:s, s:s}], s:b}", "messages", "role", "user",
                              "content", " q ", "role", "assistant", "content", cases[i].content,
                              "add_generation_prompt", 0);
        json_t *before = json_deep_copy(v);
        qn_ids ids = {0};
        qn_buf text = {0};
        qn_status st = qn_prompt_continue_chat(info, v, 0, &ids, &text, &err);
        assert_true(json_equal(v, before)); // what it was given is as it was
        if (cases[i].want) {
            if (st != QN_OK) fail_msg("%zu: %s", i, err.message);
            assert_string_equal(text.data, cases[i].want);
            // One real end of a turn; the one that a message spells is text.
            const int32_t end = qn_tokenizer_find(info->tokenizer, QN_STR("<|im_end|>"));
            int n_ends = 0;
            for (size_t k = 0; k < ids.len; k++) n_ends += ids.data[k] == end;
            assert_int_equal(n_ends, 1);
        } else {
            assert_int_equal(st, QN_ERR_INVALID);
            assert_non_null(strstr(err.message, "continue_final_message"));
        }
        json_decref(v);
        json_decref(before);
        qn_buf_free(&text);
        qn_ids_free(&ids);
        qn_engine_close(e);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each),
        cmocka_unit_test(test_nothing_left),
        cmocka_unit_test(test_together_as_alone),
        cmocka_unit_test(test_history_is_whole),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_continue_chat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
