// SPDX-License-Identifier: Apache-2.0
// The request parser alone: what it makes of good bodies, and the caps that keep a body from costing
// more than it should. (The refusals by field are tested over HTTP, in test_openai.py.)
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/checked.h"
#include "server/internal.h"
#include "server/request.h"

static const qn_request_limits limits = {
    .vocab_size = 100,
    .max_model_len = 512,
    .max_logprobs = 20,
    .temperature = 0.75f,
    .top_p = 0.5f,
    .min_p = 0.25f,
    .top_k = 7,
    .repetition_penalty = 1.5f,
    .max_new_tokens = 9,
};

static qn_gen_request *parse(bool chat, const char *body, qn_api_error *err) {
    *err = (qn_api_error){0};
    return qn_gen_request_parse(&limits, chat, body, strlen(body), err);
}

static void test_defaults(void **state) {
    qn_api_error err;
    (void)state;
    qn_gen_request *r = parse(true, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", &err);
    assert_non_null(r);
    assert_true(r->chat && r->n == 1 && r->n_prompts == 1 && r->n_logprobs == -1);
    assert_true(r->temperature > 0.7f && r->temperature < 0.8f && r->top_k == 7);
    assert_true(r->max_tokens == 0 && !r->has_seed && r->skip_special && !r->stream);
    assert_true(r->repetition_penalty > 1.4f && r->repetition_penalty < 1.6f);
    assert_true(r->likely_max_tokens == 9 && r->n_prompt_logprobs == -1 && !r->echo);
    assert_true(r->add_generation_prompt && r->model == NULL);
    qn_gen_request_free(r);
    r = parse(false, "{\"prompt\":\"x\"}", &err);
    assert_non_null(r);
    assert_int_equal(r->max_tokens, 16);
    assert_int_equal(r->likely_max_tokens, 0);
    qn_gen_request_free(r);
}

static void test_echo(void **state) {
    qn_api_error err;
    (void)state;
    qn_gen_request *r = parse(
        false, "{\"prompt\":\"x\",\"echo\":true,\"max_tokens\":0,\"prompt_logprobs\":3}", &err);
    assert_non_null(r);
    assert_true(r->echo && r->echo_only && r->max_tokens == 1 && r->n_prompt_logprobs == 3);
    qn_gen_request_free(r);
    r = parse(false, "{\"prompt\":\"x\",\"echo\":true}", &err);
    assert_non_null(r);
    assert_true(r->echo && !r->echo_only && r->max_tokens == 16 && r->n_prompt_logprobs == -1);
    qn_gen_request_free(r);
    r = parse(true,
              "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},"
              "{\"role\":\"assistant\",\"content\":\"It is\"}],\"echo\":true}",
              &err);
    assert_non_null(r);
    assert_true(r->echo && !r->echo_only && qn_str_is(r->last_message, "It is"));
    qn_gen_request_free(r);
    static const struct {
        bool chat;
        const char *body, *param;
    } bad[] = {
        {false, "{\"prompt\":\"x\",\"max_tokens\":0}", "max_tokens"},
        {true, "{\"messages\":[{\"role\":\"u\",\"content\":\"x\"}],\"max_tokens\":0,\"echo\":true}",
         "max_tokens"},
        {false, "{\"prompt\":\"x\",\"max_tokens\":0,\"echo\":true,\"min_tokens\":1}", "min_tokens"},
        {false, "{\"prompt\":\"x\",\"prompt_logprobs\":0,\"stream\":true}", "prompt_logprobs"},
        {false, "{\"prompt\":\"x\",\"prompt_logprobs\":true}", "prompt_logprobs"},
        {false, "{\"prompt\":\"x\",\"prompt_logprobs\":21}", "prompt_logprobs"},
    };
    for (size_t i = 0; i < QN_COUNT(bad); i++) {
        assert_null(parse(bad[i].chat, bad[i].body, &err));
        assert_int_equal(err.status, 400);
        assert_string_equal(err.param, bad[i].param);
    }
}

static void test_values(void **state) {
    qn_api_error err;
    (void)state;
    qn_gen_request *r =
        parse(false,
              "{\"model\":\"m\",\"prompt\":[[1,2,3],[99]],\"max_tokens\":5,\"min_tokens\":2,\"n\":3,"
              "\"seed\":-1,\"temperature\":0,\"top_k\":-1,\"stop\":[\"a\",\"bc\"],\"stop_token_ids\":[4],"
              "\"include_stop_str_in_output\":true,\"ignore_eos\":true,\"logprobs\":2,\"stream\":true,"
              "\"stream_options\":{\"include_usage\":true},\"skip_special_tokens\":false}",
              &err);
    assert_non_null(r);
    assert_string_equal(r->model, "m");
    assert_int_equal(r->n_prompts, 2);
    assert_int_equal(r->prompts[0].n_ids, 3);
    assert_int_equal(r->prompts[1].ids[0], 99);
    assert_true(r->has_seed && r->seed == UINT64_MAX);
    assert_true(r->max_tokens == 5 && r->min_tokens == 2 && r->n == 3 && r->top_k == 0);
    assert_true(r->n_stops == 2 && r->stops[1].len == 2 && r->n_stop_ids == 1);
    assert_true(r->include_stop && r->ignore_eos && r->stream && r->include_usage);
    assert_true(!r->skip_special && r->n_logprobs == 2);
    qn_gen_request_free(r);
}

static void test_messages(void **state) {
    qn_api_error err;
    (void)state;
    qn_gen_request *r = parse(
        true,
        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},"
        "{\"type\":\"text\",\"text\":\"b\"}],\"name\":\"n\",\"weird\":5},"
        "{\"role\":\"assistant\",\"tool_calls\":[{\"type\":\"function\",\"function\":"
        "{\"name\":\"f\",\"arguments\":\"{\\\"x\\\": 1}\"}}]}],\"max_tokens\":3,\"max_completion_tokens\":4}",
        &err);
    assert_non_null(r);
    assert_int_equal(r->max_tokens, 4);
    const json_t *m = json_array_get(r->messages, 0);
    assert_string_equal(json_string_value(json_object_get(m, "content")), "a\nb");
    assert_string_equal(json_string_value(json_object_get(m, "name")), "n");
    assert_null(json_object_get(m, "weird"));
    m = json_array_get(r->messages, 1);
    assert_string_equal(json_string_value(json_object_get(m, "content")), "");
    const json_t *call = json_array_get(json_object_get(m, "tool_calls"), 0);
    const json_t *args = json_object_get(json_object_get(call, "function"), "arguments");
    assert_int_equal(json_integer_value(json_object_get(args, "x")), 1);
    qn_gen_request_free(r);
}

static void test_sampling_fields(void **state) {
    qn_api_error err;
    (void)state;
    qn_gen_request *r = parse(false, "{\"prompt\":\"x\"}", &err);
    assert_true(r->presence_penalty == 0 && r->n_biases == 0);
    assert_true(!r->allowed_ids && r->n_bad_words == 0 && !r->request_id && !r->return_ids);
    qn_gen_request_free(r);
    r = parse(false,
              "{\"prompt\":\"x\",\"presence_penalty\":-2,\"frequency_penalty\":2,"
              "\"repetition_penalty\":1.5,\"logit_bias\":{\"0\":-100,\"99\":2.5},"
              "\"allowed_token_ids\":[3,1,3],\"bad_words\":[\" \\nab c\",\"d\"],"
              "\"request_id\":\"A.b_c-9\",\"return_token_ids\":true,\"priority\":-5}",
              &err);
    assert_non_null(r);
    assert_true(r->presence_penalty == -2 && r->frequency_penalty == 2);
    assert_true(r->repetition_penalty == 1.5f);
    assert_int_equal(r->n_biases, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_true(r->bias_ids[i] == 0 ? r->biases[i] == -100
                                        : r->bias_ids[i] == 99 && r->biases[i] == 2.5f);
    }
    assert_true(r->n_allowed_ids == 3 && r->allowed_ids[1] == 1);
    assert_true(r->n_bad_words == 2 && qn_str_is(r->bad_words[0], "ab c"));
    assert_string_equal(r->request_id, "A.b_c-9");
    assert_true(r->return_ids && r->priority == -5);
    qn_gen_request_free(r);
}

static void test_bad_sampling_fields(void **state) {
    static const struct {
        const char *body, *param;
    } cases[] = {
        {"\"presence_penalty\":2.01", "presence_penalty"},
        {"\"presence_penalty\":\"1\"", "presence_penalty"},
        {"\"frequency_penalty\":-3", "frequency_penalty"},
        {"\"frequency_penalty\":true", "frequency_penalty"},
        {"\"repetition_penalty\":0", "repetition_penalty"},
        {"\"repetition_penalty\":1e-60", "repetition_penalty"},
        {"\"repetition_penalty\":-1", "repetition_penalty"},
        {"\"repetition_penalty\":101", "repetition_penalty"},
        {"\"logit_bias\":[]", "logit_bias"},
        {"\"logit_bias\":{\"100\":1}", "logit_bias"},
        {"\"logit_bias\":{\"-1\":1}", "logit_bias"},
        {"\"logit_bias\":{\"01\":1}", "logit_bias"},
        {"\"logit_bias\":{\"\":1}", "logit_bias"},
        {"\"logit_bias\":{\"1x\":1}", "logit_bias"},
        {"\"logit_bias\":{\"99999999999999999999\":1}", "logit_bias"},
        {"\"logit_bias\":{\"1\":100.5}", "logit_bias"},
        {"\"logit_bias\":{\"1\":null}", "logit_bias"},
        {"\"allowed_token_ids\":[]", "allowed_token_ids"},
        {"\"allowed_token_ids\":{}", "allowed_token_ids"},
        {"\"allowed_token_ids\":[100]", "allowed_token_ids"},
        {"\"allowed_token_ids\":[-1]", "allowed_token_ids"},
        {"\"allowed_token_ids\":[1.0]", "allowed_token_ids"},
        {"\"bad_words\":\"x\"", "bad_words"},
        {"\"bad_words\":[1]", "bad_words"},
        {"\"bad_words\":[\"\"]", "bad_words"},
        {"\"bad_words\":[\" \\n\"]", "bad_words"},
        {"\"request_id\":\"\"", "request_id"},
        {"\"request_id\":\"a b\"", "request_id"},
        {"\"request_id\":\"a\\\"b\"", "request_id"},
        {"\"request_id\":7", "request_id"},
        {"\"return_token_ids\":1", "return_token_ids"},
        {"\"priority\":4294967296", "priority"},
        {"\"continue_final_message\":true", "continue_final_message"},
        {"\"continue_final_message\":\"yes\"", "continue_final_message"},
    };
    (void)state;
    for (size_t i = 0; i < QN_COUNT(cases); i++) {
        qn_api_error err;
        char body[400];
        snprintf(body, sizeof body, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],%s}",
                 cases[i].body);
        qn_gen_request *r = parse(true, body, &err);
        if (r) fail_msg("accepted: %s", cases[i].body);
        if (err.status != 400 || strcmp(err.param, cases[i].param) != 0) {
            fail_msg("%s: %d %s", cases[i].body, err.status, err.message);
        }
    }
    // Counts: as many as there may be, and one more.
    static const int most[] = {QN_REQUEST_MAX_BAD_WORDS, 1024};
    static const qn_request_limits wide = {.vocab_size = 4096, .max_model_len = 512,
                                           .max_logprobs = 20, .temperature = 1, .top_p = 1};
    for (int which = 0; which < 2; which++) {
        for (int extra = 0; extra < 2; extra++) {
            qn_buf b = {0};
            qn_buf_puts(&b, which ? "{\"prompt\":\"x\",\"logit_bias\":{"
                                  : "{\"prompt\":\"x\",\"bad_words\":[");
            for (int i = 0; i < most[which] + extra; i++) {
                qn_buf_printf(&b, which ? "%s\"%d\":1" : "%s\"w%d\"", i ? "," : "", i);
            }
            qn_buf_puts(&b, which ? "}}" : "]}");
            qn_api_error err = {0};
            qn_gen_request *r = qn_gen_request_parse(&wide, false, b.data, b.len, &err);
            if (extra) {
                assert_null(r);
                assert_string_equal(err.param, which ? "logit_bias" : "bad_words");
            } else {
                assert_non_null(r);
                assert_int_equal(which ? r->n_biases : r->n_bad_words, most[which]);
                qn_gen_request_free(r);
            }
            qn_buf_free(&b);
        }
    }
}

static void test_continue(void **state) {
    qn_api_error err;
    (void)state;
#define OPEN "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":\"assistant\"," \
             "\"content\":\"y\"}],\"continue_final_message\":true"
    qn_gen_request *r = parse(true, OPEN "}", &err);
    assert_non_null(r);
    assert_true(r->continue_final && !r->add_generation_prompt);
    qn_gen_request_free(r);
    r = parse(true, OPEN ",\"add_generation_prompt\":false}", &err);
    assert_non_null(r);
    qn_gen_request_free(r);
    assert_null(parse(true, OPEN ",\"add_generation_prompt\":true}", &err));
    assert_string_equal(err.param, "continue_final_message");
#undef OPEN
}

static void expect_refused(const qn_buf *b, const char *what) {
    qn_api_error err = {0};
    assert_false(b->failed);
    assert_null(qn_request_json(b->data, b->len, &err));
    assert_int_equal(err.status, 400);
    if (!strstr(err.message, what)) fail_msg("%s: not about %s", err.message, what);
}

static void test_caps(void **state) {
    (void)state;
    qn_buf b = {0};
    for (int depth = 64; depth <= 65; depth++) {
        qn_buf_clear(&b);
        for (int i = 0; i < depth; i++) qn_buf_puts(&b, "{\"a\":");
        qn_buf_puts(&b, "\"{[\\\"[[\"");
        for (int i = 0; i < depth; i++) qn_buf_putc(&b, '}');
        if (depth == 64) {
            qn_api_error err = {0};
            json_t *ok = qn_request_json(b.data, b.len, &err);
            assert_non_null(ok);
            json_decref(ok);
        } else {
            expect_refused(&b, "nested deeper");
        }
    }
    qn_buf_clear(&b);
    qn_buf_puts(&b, "{\"a\":[");
    for (int i = 0; i < 70000; i++) qn_buf_puts(&b, "[],");
    qn_buf_puts(&b, "1]}");
    expect_refused(&b, "objects and arrays");
    qn_buf_clear(&b);
    qn_buf_puts(&b, "{\"a\":[");
    for (int i = 0; i < QN_REQUEST_MAX_VALUES + 5; i++) qn_buf_puts(&b, "1,");
    qn_buf_puts(&b, "1]}");
    expect_refused(&b, "values");
    qn_buf_free(&b);
}

// Long text in an error must stay one error: names from the request are cut, JSON stays JSON.
static void test_error_shape(void **state) {
    (void)state;
    qn_api_error err = {0};
    char long_text[2000];
    memset(long_text, '"', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    qn_api_fail(&err, 404, "model", "no model %s", long_text);
    qn_api_fail(&err, 500, NULL, "a second error changes nothing");
    qn_buf b = {0};
    qn_api_error_json(&err, &b);
    json_t *j = json_loadb(b.data, b.len, 0, NULL);
    assert_non_null(j);
    json_t *e = json_object_get(j, "error");
    assert_int_equal(json_object_size(e), 4);
    assert_string_equal(json_string_value(json_object_get(e, "param")), "model");
    assert_true(json_is_null(json_object_get(e, "code")));
    json_decref(j);
    qn_buf_free(&b);
}

static void test_handle_map(void **state) {
    (void)state;
    qn_handle_map m = {0};
    assert_true(qn_handle_map_init(&m, 64));
    static char places[200];
    uint64_t live[64] = {0};
    uint64_t next = 1, random = 1;
    for (int round = 0; round < 20000; round++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        size_t i = (size_t)(random >> 33) % 64;
        if (live[i]) {
            assert_ptr_equal(qn_handle_map_get(&m, live[i]), &places[live[i] % 200]);
            qn_handle_map_remove(&m, live[i]);
            assert_null(qn_handle_map_get(&m, live[i]));
            live[i] = 0;
        } else {
            live[i] = next++ << 32 | (random & 63);
            assert_true(qn_handle_map_put(&m, live[i], (qn_choice *)(void *)&places[live[i] % 200]));
        }
        for (size_t k = 0; k < 64; k++) {
            if (live[k]) {
                assert_ptr_equal(qn_handle_map_get(&m, live[k]), &places[live[k] % 200]);
            }
        }
    }
    assert_false(qn_handle_map_put(&m, 0, NULL));
    qn_handle_map_free(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_echo), cmocka_unit_test(test_values),
        cmocka_unit_test(test_messages), cmocka_unit_test(test_sampling_fields),
        cmocka_unit_test(test_bad_sampling_fields), cmocka_unit_test(test_continue),
        cmocka_unit_test(test_caps),
        cmocka_unit_test(test_error_shape), cmocka_unit_test(test_handle_map),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
