// SPDX-License-Identifier: Apache-2.0
// Loading: GGUF files of our own making, Hugging Face directories, and what is wrong with bad ones.
#include "support.h"

#include <unistd.h>

static char folder[256];

static int make_folder(void **state) {
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(folder, sizeof folder, "%s/qn-tokenizer-XXXXXX", tmp ? tmp : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static const char *const files[] = {"t.gguf", "tokenizer.json", "tokenizer_config.json",
                                    "generation_config.json", "config.json"};

static int remove_folder(void **state) {
    (void)state;
    char path[512];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    return rmdir(folder);
}

static void write_file(const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(text, 1, strlen(text), f);
    fclose(f);
}

static void expect_ids(const qn_tokenizer *t, const char *text, bool special, bool add,
                       const int32_t *want, size_t n) {
    const qn_text_span span = {strlen(text), special};
    qn_ids ids = {0};
    qn_error err = {0};
    assert_int_equal(qn_tokenize(t, text, span.len, &span, 1, add, 0, &ids, &err), QN_OK);
    if (ids.len != n || (n && memcmp(ids.data, want, n * sizeof *want) != 0)) {
        qn_buf got = {0};
        for (size_t i = 0; i < ids.len; i++)
            qn_buf_printf(&got, " %d", ids.data[i]);
        fail_msg("'%s' gives%s", text, got.data ? got.data : " nothing");
    }
    qn_ids_free(&ids);
}
#define EXPECT(t, text, special, add, ...)                                                         \
    expect_ids(t, text, special, add, (const int32_t[]){__VA_ARGS__},                              \
               sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static qn_status open_written(qn_tokenizer **t, qn_error *err) {
    char path[512];
    qn_gguf *g = NULL;
    snprintf(path, sizeof path, "%s/t.gguf", folder);
    qn_status st = qn_gguf_open(path, &g, err);
    if (st != QN_OK) return st;
    st = qn_tokenizer_from_gguf(g, NULL, t, err);
    qn_gguf_close(g);
    return st;
}

static qn_gguf_writer *begin(const char *model) {
    char path[512];
    qn_gguf_writer *w = NULL;
    qn_error err = {0};
    snprintf(path, sizeof path, "%s/t.gguf", folder);
    if (qn_gguf_writer_open(path, &w, &err) != QN_OK) fail_msg("%s", err.message);
    qn_gguf_put_str(w, "general.architecture", QN_STR("llama"));
    if (model) qn_gguf_put_str(w, "tokenizer.ggml.model", qn_str_from(model));
    return w;
}

static void end(qn_gguf_writer *w) {
    qn_error err = {0};
    if (qn_gguf_writer_begin_data(w, &err) != QN_OK || qn_gguf_writer_finish(w, &err) != QN_OK) {
        fail_msg("%s", err.message);
    }
}

static const qn_str bpe_tokens[] = {
    QN_STR("a"),
    QN_STR("b"),
    QN_STR("\xC4\xA0"),
    QN_STR("\xC4\x8A"), // 0-3: a b space newline
    QN_STR("ab"),
    QN_STR("\xC4\xA0"
           "ab"),
    QN_STR("<|im_start|>"),
    QN_STR("<|im_end|>"), // 4-7
    QN_STR("<think>"),
    QN_STR("<|endoftext|>"),
    QN_STR("[PAD]"),
    QN_STR("<|eot_id|>"), // 8-11
};
static const int32_t bpe_types[] = {1, 1, 1, 1, 1, 1, 3, 3, 4, 3, 5, 4};
static const qn_str bpe_merges[] = {QN_STR("a b"), QN_STR("\xC4\xA0 ab"), QN_STR("b b"),
                                    QN_STR("< |im_end|>")};

static void bpe_from_gguf(void **state) {
    (void)state;
    qn_tokenizer *t = NULL;
    qn_error err = {0};
    qn_gguf_writer *w = begin("gpt2");
    qn_gguf_put_str(w, "tokenizer.ggml.pre", QN_STR("qwen2"));
    qn_gguf_put_str_array(w, "tokenizer.ggml.tokens", bpe_tokens, 12);
    qn_gguf_put_i32_array(w, "tokenizer.ggml.token_type", bpe_types, 12);
    qn_gguf_put_str_array(w, "tokenizer.ggml.merges", bpe_merges, 4);
    qn_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", 9);
    qn_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", 7);
    end(w);
    if (open_written(&t, &err) != QN_OK) fail_msg("%s", err.message);
    assert_string_equal(qn_tokenizer_kind(t), "bpe (qwen2)");
    assert_int_equal(qn_tokenizer_size(t), 12);
    assert_int_equal(qn_tokenizer_bos(t), 9);
    assert_int_equal(qn_tokenizer_eos(t), 7);
    assert_false(qn_tokenizer_add_bos(t));
    assert_int_equal(qn_tokenizer_attrs(t, 8), QN_TOKEN_USER_DEFINED);
    assert_int_equal(qn_tokenizer_attrs(t, 99), 0);
    assert_true(qn_str_is(qn_tokenizer_token(t, 7), "<|im_end|>"));
    assert_int_equal(qn_tokenizer_find(t, QN_STR("nothing")), -1);
    // eos, and the end-of-turn names that are control tokens: not <|eot_id|>, which is not here.
    const int32_t *stop;
    assert_int_equal(qn_tokenizer_stop_ids(t, &stop), 2);
    assert_int_equal(stop[0], 7);
    assert_int_equal(stop[1], 9);
    EXPECT(t, "ab ab\nba", true, true, 4, 5, 3, 1, 0);
    EXPECT(t, "<|im_start|>ab<think>ab<|im_end|>", true, false, 6, 4, 8, 4, 7);
    EXPECT(t, "ab<think>ab", false, false, 4, 8, 4);
    qn_tokenizer_close(t);
}

static const qn_str spm_tokens[] = {
    QN_STR("<unk>"),
    QN_STR("<s>"),
    QN_STR("</s>"),
    QN_STR("<0x0A>"),
    QN_STR("<0xC3>"),
    QN_STR("<0xA9>"),
    QN_STR("\xE2\x96\x81"),
    QN_STR("a"),
    QN_STR("b"),
    QN_STR("ab"),
    QN_STR("\xE2\x96\x81"
           "a"),
    QN_STR("\xE2\x96\x81"
           "ab"),
    QN_STR("<x>"),
    QN_STR("/"),
    QN_STR("s"),
    QN_STR("<"),
    QN_STR(">"),
    QN_STR("</s"),
    QN_STR("</"),
};
static const int32_t spm_types[] = {2, 3, 3, 6, 6, 6, 1, 1, 1, 1, 1, 1, 4, 1, 1, 1, 1, 1, 1};
static const float spm_scores[] = {0,  0,  0, 0,  0,  0,  -1, -2, -3, -4,
                                   -9, -5, 0, -6, -7, -8, -9, -3, -2};

static void write_spm(bool prefix, const char *name) {
    qn_gguf_writer *w = begin("llama");
    qn_gguf_put_str(w, "general.name", qn_str_from(name));
    qn_gguf_put_str_array(w, "tokenizer.ggml.tokens", spm_tokens, 19);
    qn_gguf_put_i32_array(w, "tokenizer.ggml.token_type", spm_types, 19);
    qn_gguf_put_f32_array(w, "tokenizer.ggml.scores", spm_scores, 19);
    if (!prefix) qn_gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", false);
    if (!prefix) qn_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", false);
    if (!prefix) qn_gguf_put_bool(w, "tokenizer.ggml.add_eos_token", true);
    end(w);
}

static void spm_from_gguf(void **state) {
    (void)state;
    qn_tokenizer *t = NULL;
    qn_error err = {0};
    write_spm(true, "Phi 2");
    if (open_written(&t, &err) != QN_OK) fail_msg("%s", err.message);
    assert_string_equal(qn_tokenizer_kind(t), "spm");
    EXPECT(t, "ab", true, true, 1, 11); // BOS, and the space before the text
    EXPECT(t, "ab ab", true, false, 11, 11);
    EXPECT(t, "a\nb", true, false, 10, 3, 8);       // <0x0A>
    EXPECT(t, "\xC3\xA9", true, false, 6, 4, 5);    // bytes of a character without a token
    EXPECT(t, "a\xE4\xB8\xAD", true, false, 10, 0); // and a byte without one
    EXPECT(t, "a<x>b", false, false, 10, 12, 6, 8); // after an added token the space comes again
    EXPECT(t, "<s>a</s>", true, false, 1, 10, 2);
    EXPECT(t, "</s>", false, false, 6, 17, 16); // a user's </s> is text, merged or not
    qn_detok d;
    qn_buf out = {0};
    qn_detok_init(&d, t, false, true);
    const int32_t ids[] = {1, 11, 11, 4, 5, 4};
    for (size_t i = 0; i < 6; i++)
        assert_true(qn_detok_push(&d, ids[i], &out));
    assert_string_equal(out.data, "ab ab\xC3\xA9");
    assert_true(qn_detok_flush(&d, &out));
    assert_string_equal(out.data, "ab ab\xC3\xA9\xEF\xBF\xBD");
    qn_buf_clear(&out);
    qn_detok_init(&d, t, true, false); // the continuation of a text, control tokens shown
    for (size_t i = 0; i < 3; i++)
        assert_true(qn_detok_push(&d, ids[i], &out));
    assert_string_equal(out.data, "<s> ab ab");
    qn_buf_free(&out);
    qn_tokenizer_close(t);
    write_spm(false, "Microsoft Phi-3 mini");
    if (open_written(&t, &err) != QN_OK) fail_msg("%s", err.message);
    EXPECT(t, "ab", true, true, 9, 2);
    EXPECT(t, " ab", true, false, 11);
    EXPECT(t, "</s> \n ab<s> ab", true, false, 2, 9, 1,
           11); // Phi-3's </s> takes the space behind it
    qn_tokenizer_close(t);
}

static void expect_gguf_error(qn_status want, const char *part) {
    qn_tokenizer *t = NULL;
    qn_error err = {0};
    assert_int_equal(open_written(&t, &err), want);
    assert_null(t);
    if (!strstr(err.message, part)) fail_msg("'%s' does not say '%s'", err.message, part);
    assert_non_null(strstr(err.message, "t.gguf"));
    assert_null(strchr(err.message, '\n'));
}

static void bad_gguf(void **state) {
    (void)state;
    qn_gguf_writer *w = begin(NULL);
    end(w);
    expect_gguf_error(QN_ERR_NOT_FOUND, "tokenizer.ggml.model");
    w = begin("bert");
    end(w);
    expect_gguf_error(QN_ERR_UNSUPPORTED, "'bert'");
    w = begin("gpt2");
    end(w);
    expect_gguf_error(QN_ERR_NOT_FOUND, "tokenizer.ggml.tokens");
    w = begin("gpt2");
    qn_gguf_put_i32_array(w, "tokenizer.ggml.tokens", bpe_types, 3);
    end(w);
    expect_gguf_error(QN_ERR_FORMAT, "not an array of strings");
    w = begin("gpt2");
    qn_gguf_put_str_array(w, "tokenizer.ggml.tokens", bpe_tokens, 12);
    qn_gguf_put_i32_array(w, "tokenizer.ggml.token_type", bpe_types, 11);
    end(w);
    expect_gguf_error(QN_ERR_FORMAT, "11 items for 12 tokens");
    w = begin("gpt2");
    qn_gguf_put_str_array(w, "tokenizer.ggml.tokens", bpe_tokens, 12);
    end(w);
    expect_gguf_error(QN_ERR_NOT_FOUND, "tokenizer.ggml.merges");
    w = begin("gpt2");
    qn_gguf_put_str_array(w, "tokenizer.ggml.tokens", bpe_tokens, 12);
    qn_gguf_put_str_array(w, "tokenizer.ggml.merges", bpe_tokens, 2);
    end(w);
    expect_gguf_error(QN_ERR_FORMAT, "merges[0]");
    w = begin("gpt2");
    qn_gguf_put_str(w, "tokenizer.ggml.pre", QN_STR("klingon"));
    qn_gguf_put_str_array(w, "tokenizer.ggml.tokens", bpe_tokens, 12);
    end(w);
    expect_gguf_error(QN_ERR_UNSUPPORTED, "'klingon'");
    w = begin("llama");
    qn_gguf_put_str_array(w, "tokenizer.ggml.tokens", spm_tokens, 19);
    end(w);
    expect_gguf_error(QN_ERR_NOT_FOUND, "tokenizer.ggml.scores");
}

// ---- tokenizer.json

#define MODEL(members) "{\"model\":{\"type\":\"BPE\"," members "}}"
#define WITH(part)     "{" part ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}"

static void bad_json(void **state) {
    (void)state;
    static const struct {
        const char *json;
        qn_status status;
        const char *part;
    } cases[] = {
        {"", QN_ERR_FORMAT, "JSON"},
        {"[]", QN_ERR_FORMAT, "not an object"},
        {"{}", QN_ERR_FORMAT, "no model"},
        {"{\"model\":3}", QN_ERR_FORMAT, "model is no object"},
        {"{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", QN_ERR_UNSUPPORTED, "'Unigram'"},
        {"{\"model\":{\"vocab\":[]}}", QN_ERR_UNSUPPORTED, "Unigram"},
        {"{\"model\":{\"type\":\"WordPiece\"}}", QN_ERR_UNSUPPORTED, "'WordPiece'"},
        {MODEL("\"merges\":[]"), QN_ERR_FORMAT, "no vocab"},
        {MODEL("\"vocab\":{}"), QN_ERR_FORMAT, "empty"},
        {MODEL("\"vocab\":{\"a\":0}"), QN_ERR_FORMAT, "no merges"},
        {MODEL("\"vocab\":{\"a\":-1},\"merges\":[]"), QN_ERR_FORMAT, "token id"},
        {MODEL("\"vocab\":{\"a\":1.5},\"merges\":[]"), QN_ERR_FORMAT, "token id"},
        {MODEL("\"vocab\":{\"a\":99999999},\"merges\":[]"), QN_ERR_LIMIT, "99999999"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[1]"), QN_ERR_FORMAT, "merge"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[\"ab\"]"), QN_ERR_FORMAT, "space"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]"), QN_ERR_FORMAT, "two strings"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.1"), QN_ERR_UNSUPPORTED, "dropout"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[],\"end_of_word_suffix\":\"</w>\""),
         QN_ERR_UNSUPPORTED, "end_of_word_suffix"},
        {MODEL("\"vocab\":{\"a\":0},\"merges\":[],\"unk_token\":\"?\""), QN_ERR_FORMAT,
         "unk_token"},
        {WITH("\"normalizer\":{\"type\":\"Lowercase\"}"), QN_ERR_UNSUPPORTED, "'Lowercase'"},
        {WITH("\"normalizer\":{\"type\":\"Sequence\"}"), QN_ERR_FORMAT, "normalizers"},
        {WITH("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"},\"content\":"
              "\"\"}"),
         QN_ERR_UNSUPPORTED, "Regex"},
        {WITH("\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}"), QN_ERR_UNSUPPORTED,
         "'BertPreTokenizer'"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(\"},"
              "\"behavior\":\"Isolated\",\"invert\":false}"),
         QN_ERR_UNSUPPORTED, "pattern"},
        {WITH("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},"
              "\"behavior\":\"Sideways\"}"),
         QN_ERR_UNSUPPORTED, "'Sideways'"},
        {WITH("\"decoder\":{\"type\":\"CTC\"}"), QN_ERR_UNSUPPORTED, "'CTC'"},
        {WITH("\"post_processor\":{\"type\":\"BertProcessing\"}"), QN_ERR_UNSUPPORTED,
         "'BertProcessing'"},
        {WITH("\"added_tokens\":[{\"id\":0,\"content\":\"b\"}]"), QN_ERR_FORMAT, "added token 0"},
        {WITH("\"added_tokens\":[{\"id\":1}]"), QN_ERR_FORMAT, "added token"},
        {WITH("\"added_tokens\":[7]"), QN_ERR_FORMAT, "added token"},
        {WITH("\"added_tokens\":[{\"id\":1,\"content\":\"b\",\"special\":\"yes\"}]"), QN_ERR_FORMAT,
         "flag"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        qn_tokenizer *t = NULL;
        qn_error err = {0};
        qn_status st =
            qn_tokenizer_from_json_memory(cases[i].json, strlen(cases[i].json), NULL, &t, &err);
        if (st != cases[i].status || !strstr(err.message, cases[i].part)) {
            fail_msg("%s: %s, '%s'", cases[i].json, qn_status_name(st), err.message);
        }
        assert_null(t);
    }
}

// Every way of cutting a good file off is an error, and none is a crash.
static void truncated_json(void **state) {
    (void)state;
    char path[1024], *data = NULL;
    size_t len;
    qn_error err = {0};
    snprintf(path, sizeof path, QN_SOURCE_DIR "/tests/tokenizer/goldens/llama2.json");
    assert_int_equal(qn_os_read_file(path, 1 << 20, &data, &len, &err), QN_OK);
    for (size_t n = 0; n + 2 < len; n += n < 3000 ? 7 : 101) {
        qn_tokenizer *t = NULL;
        char *exact = malloc(n ? n : 1);
        memcpy(exact, data, n);
        err = (qn_error){0};
        assert_int_not_equal(qn_tokenizer_from_json_memory(exact, n, NULL, &t, &err), QN_OK);
        assert_null(t);
        free(exact);
    }
    free(data);
}

static void members_in_any_order(void **state) {
    (void)state;
    static const char json[] =
        "{\"model\":{\"merges\":[[\"a\",\"b\"],\"ab c\",\"< "
        "e>\"],\"vocab\":{\"a\":0,\"b\":1,\"c\":2,"
        "\"ab\":3,\"abc\":4,\"<\":5,\"e>\":6,\"<e>\":7,\"?\":8},\"unk_token\":\"?\",\"type\":"
        "\"BPE\"},"
        "\"added_tokens\":[{\"special\":true,\"content\":\"<e>\",\"id\":7}]}";
    qn_tokenizer *t = NULL;
    qn_error err = {0};
    if (qn_tokenizer_from_json_memory(json, sizeof json - 1, NULL, &t, &err) != QN_OK) {
        fail_msg("%s", err.message);
    }
    EXPECT(t, "abcab", true, false, 4, 3);
    EXPECT(t, "<e>z", true, false, 7, 8);
    EXPECT(t, "<e>", false, false, 5, 8, 8); // neither parsed nor merged; "e" and ">" have no token
    qn_tokenizer_close(t);
}

static void hf_directory(void **state) {
    (void)state;
    qn_tokenizer *t = NULL;
    qn_error err = {0};
    assert_int_equal(qn_tokenizer_from_hf(folder, NULL, &t, &err), QN_ERR_NOT_FOUND);
    err = (qn_error){0};
    write_file(
        "tokenizer.json",
        "{\"added_tokens\":[{\"id\":3,\"content\":\"<s>\",\"special\":true},"
        "{\"id\":4,\"content\":\"<end>\",\"special\":false},"
        "{\"id\":5,\"content\":\"<|im_end|>\",\"special\":true}],"
        "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}");
    if (qn_tokenizer_from_hf(folder, NULL, &t, &err) != QN_OK) fail_msg("%s", err.message);
    EXPECT(t, "ab", true, true, 2);
    assert_int_equal(qn_tokenizer_bos(t), -1);
    qn_tokenizer_close(t);
    write_file("tokenizer_config.json",
               "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"<|im_end|>\","
               "\"add_bos_token\":true}");
    write_file("generation_config.json", "{\"eos_token_id\":[5,4,77],\"bos_token_id\":0}");
    if (qn_tokenizer_from_hf(folder, NULL, &t, &err) != QN_OK) fail_msg("%s", err.message);
    EXPECT(t, "ab", true, true, 3, 2);
    assert_int_equal(qn_tokenizer_bos(t), 3);
    assert_int_equal(qn_tokenizer_eos(t), 5);
    const int32_t *stop;
    assert_int_equal(qn_tokenizer_stop_ids(t, &stop), 2);
    assert_int_equal(stop[0], 5);
    assert_int_equal(stop[1], 4);
    // What ends a text is a control token, whatever tokenizer.json says.
    assert_int_equal(qn_tokenizer_attrs(t, 4), QN_TOKEN_CONTROL);
    qn_tokenizer_close(t);
    write_file("generation_config.json", "{\"eos_token_id\":");
    assert_int_equal(qn_tokenizer_from_hf(folder, NULL, &t, &err), QN_ERR_FORMAT);
    assert_non_null(strstr(err.message, "generation_config.json"));
    assert_null(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bpe_from_gguf),  cmocka_unit_test(spm_from_gguf),
        cmocka_unit_test(bad_gguf),       cmocka_unit_test(bad_json),
        cmocka_unit_test(truncated_json), cmocka_unit_test(members_in_any_order),
        cmocka_unit_test(hf_directory),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
