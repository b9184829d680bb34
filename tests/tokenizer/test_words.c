// SPDX-License-Identifier: Apache-2.0
// Cutting and merging: the hand-written scanners against their patterns, the heap against the plain
// search, and sizes that a quadratic step would not survive.
#include "support.h"

#include "tokenizer/internal.h"

typedef struct cuts {
    size_t ends[4096];
    size_t n;
    const char *base;
} cuts;

static qn_status take_cut(void *user, const char *s, size_t len) {
    cuts *c = user;
    if (c->n < 4096) c->ends[c->n++] = (size_t)(s - c->base) + len;
    return QN_OK;
}

static void split(const qn_pre *pre, const char *s, size_t len, cuts *out) {
    pcre2_match_data *md = NULL;
    qn_error err = {0};
    out->n = 0;
    out->base = s;
    assert_int_equal(qn_pre_split(pre, s, len, &md, take_cut, out, &err), QN_OK);
    pcre2_match_data_free(md);
}

// utf8proc and PCRE2 may know different versions of Unicode: characters that only one has assigned
// are left out of the comparison, and there must be no other difference.
static bool *find_agreed(void) {
    qn_pre pre[3] = {{.n = 0}};
    static const char *const patterns[] = {"\\p{L}", "\\p{N}", "\\s"};
    static const int classes[] = {1, 2, 4};
    bool *agreed = calloc(0x110000, 1);
    qn_error err = {0};
    int odd = 0;
    assert_non_null(agreed);
    pcre2_match_data *md = pcre2_match_data_create(1, NULL);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(qn_pre_add_regex(&pre[i], patterns[i], strlen(patterns[i]), false,
                                          QN_PRE_ISOLATED, false, &err),
                         QN_OK);
    }
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        char utf8[4];
        size_t n = qn_utf8_encode(cp, utf8);
        if (n == 0) continue;
        int class = 0;
        for (size_t i = 0; i < 3; i++) {
            int rc = pcre2_match(pre[i].stages[0].code, (PCRE2_SPTR)utf8, n, 0, 0, md, NULL);
            if (rc > 0) class = classes[i];
        }
        agreed[cp] = class == qn_char_class(cp);
        if (!agreed[cp]) {
            odd++;
            if (cp < 0x800) fail_msg("U+%04X: class %d, pattern %d", cp, qn_char_class(cp), class);
        }
    }
    print_message("%d characters are in one Unicode version only\n", odd);
    assert_true(odd < 10000);
    for (size_t i = 0; i < 3; i++)
        qn_pre_free(&pre[i]);
    pcre2_match_data_free(md);
    return agreed;
}

static void scanners_are_their_patterns(void **state) {
    (void)state;
    static const char *const patterns[] = {QN_PATTERN_GPT2, QN_PATTERN_LLAMA3, QN_PATTERN_QWEN2};
    bool *agreed = find_agreed();
    qn_rng rng = {.key = 7};
    qn_buf text = {0};
    for (size_t p = 0; p < 3; p++) {
        qn_pre fast = {.n = 0}, slow = {.n = 0};
        qn_error err = {0};
        size_t len = strlen(patterns[p]);
        assert_int_equal(qn_pre_add(&fast, patterns[p], len, false, QN_PRE_ISOLATED, false, &err),
                         QN_OK);
        assert_int_not_equal(fast.stages[0].kind, QN_PRE_REGEX);
        assert_int_equal(
            qn_pre_add_regex(&slow, patterns[p], len, false, QN_PRE_ISOLATED, false, &err), QN_OK);
        for (int round = 0; round < 20000; round++) {
            char utf8[4];
            size_t n = 1 + (size_t)qn_rng_below(&rng, 24);
            qn_buf_clear(&text);
            while (n > 0) {
                uint32_t cp = random_code_point(&rng);
                if (!agreed[cp]) continue;
                qn_buf_append(&text, utf8, qn_utf8_encode(cp, utf8));
                n--;
            }
            static cuts a, b;
            split(&fast, text.data, text.len, &a);
            split(&slow, text.data, text.len, &b);
            if (a.n != b.n || memcmp(a.ends, b.ends, a.n * sizeof *a.ends) != 0) {
                qn_buf shown = {0};
                qn_buf_json_string(&shown, text.data, text.len);
                fail_msg("pattern %zu cuts %s differently", p, shown.data);
            }
            assert_int_equal(a.ends[a.n - 1], text.len);
        }
        qn_pre_free(&fast);
        qn_pre_free(&slow);
    }
    qn_buf_free(&text);
    free(agreed);
}

static void heap_is_plain_search(void **state) {
    (void)state;
    static const char *const names[] = {"gpt2", "llama3", "llama2", "mistral", "metaspace_unk"};
    qn_rng rng = {.key = 8};
    qn_buf text = {0};
    for (size_t k = 0; k < 5; k++) {
        qn_tokenizer *t = open_golden(names[k]);
        for (int round = 0; round < 4000; round++) {
            qn_ids a = {0}, b = {0};
            qn_error err = {0};
            qn_tok_work plain = {.t = t, .out = &a, .err = &err};
            qn_tok_work heap = {.t = t, .out = &b, .err = &err, .always_heap = true};
            random_text(&rng, 1 + (size_t)qn_rng_below(&rng, 20), &text);
            assert_int_equal(qn_bpe_word(&plain, text.data, text.len), QN_OK);
            assert_int_equal(qn_bpe_word(&heap, text.data, text.len), QN_OK);
            assert_int_equal(a.len, b.len);
            assert_memory_equal(a.data, b.data, a.len * sizeof *a.data);
            free(plain.symbols);
            free(heap.symbols);
            free(plain.heap);
            free(heap.heap);
            qn_ids_free(&a);
            qn_ids_free(&b);
        }
        qn_tokenizer_close(t);
    }
    qn_buf_free(&text);
}

static void fill(qn_buf *b, const char *unit, size_t size, const char *end) {
    qn_buf_clear(b);
    while (b->len < size)
        qn_buf_puts(b, unit);
    qn_buf_puts(b, end);
}

// Texts of half a megabyte that repeat one thing: at this size a step that looks back over the text
// for each character would take minutes.
static const struct {
    const char *unit, *end;
} repeats[] = {
    {"a", ""},
    {" ", ""},
    {" ", "x"},
    {"7", ""},
    {"\n", ""},
    {"\r\n", ""},
    {" \n", "x"},
    {"\t ", "x"},
    {"'", ""},
    {"'s", ""},
    {"A", ""},
    {"aA", ""},
    {" .", ""},
    {"<|", ""},
    {"<|im_", ""},
    {"\xC2\xA0", "x"},
    {"\xCC\x81", ""},
    {"\xCC\xA3\xCC\x81", "a"},
    {"\xE4\xB8\xAD", ""},
    {"\xF0\x9F\x99\x82", ""},
    {"\xFF", ""},
    {"\xE2\x96\x81", "a"},
    {"\x01", ""},
};

static void no_size_is_quadratic(void **state) {
    (void)state;
    static const char *const names[] = {"gpt2",   "llama3",   "qwen2",        "gpt4o",
                                        "digits", "deepseek", "behaviors",    "whitespace",
                                        "llama2", "mistral",  "metaspace_unk"};
    qn_buf text = {0};
    qn_ids ids = {0};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        qn_tokenizer *t = open_golden(names[k]);
        for (size_t i = 0; i < sizeof repeats / sizeof *repeats; i++) {
            fill(&text, repeats[i].unit, 512 << 10, repeats[i].end);
            tokenize_plain(t, text.data, text.len, &ids);
        }
        qn_tokenizer_close(t);
    }
    qn_ids_free(&ids);
    qn_buf_free(&text);
}

static qn_status count_bytes(void *user, const char *s, size_t len) {
    (void)s;
    *(size_t *)user += len;
    return QN_OK;
}

// Every name that a GGUF file may carry: the patterns compile, lose nothing, and stay linear.
static void named_pre_tokenizers(void **state) {
    (void)state;
    static const char *const names[] = {
        "default",        "llama-bpe",   "llama3",    "smaug-bpe",       "dbrx",
        "qwen2",          "qwen35",      "gpt-2",     "phi-2",           "mpt",
        "olmo",           "jais",        "starcoder", "refact",          "command-r",
        "smollm",         "codeshell",   "exaone",    "falcon",          "deepseek-llm",
        "deepseek-coder", "deepseek-v3", "tekken",    "gpt-4o",          "llama4",
        "glm4",           "stablelm2",   "bloom",     "viking",          "poro-chat",
        "bailingmoe",     "seed-coder",  "megrez",    "deepseek-r1-qwen"};
    qn_rng rng = {.key = 9};
    qn_buf text = {0};
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        qn_pre pre = {.n = 0};
        qn_error err = {0};
        bool ignore = false, bos = false;
        pcre2_match_data *md = NULL;
        if (qn_pre_by_name(&pre, qn_str_from(names[k]), &ignore, &bos, &err) != QN_OK) {
            fail_msg("%s: %s", names[k], err.message);
        }
        for (size_t i = 0; i < sizeof repeats / sizeof *repeats + 200; i++) {
            size_t sum = 0;
            if (i < sizeof repeats / sizeof *repeats) {
                fill(&text, repeats[i].unit, 256 << 10, repeats[i].end);
            } else {
                random_text(&rng, 40, &text);
            }
            if (qn_pre_split(&pre, text.data, text.len, &md, count_bytes, &sum, &err) != QN_OK) {
                fail_msg("%s: %s", names[k], err.message);
            }
            assert_int_equal(sum, text.len);
        }
        pcre2_match_data_free(md);
        qn_pre_free(&pre);
    }
    qn_buf_free(&text);
    qn_pre pre = {.n = 0};
    qn_error err = {0};
    bool ignore, bos;
    assert_int_equal(qn_pre_by_name(&pre, QN_STR("no\x1bsuch"), &ignore, &bos, &err),
                     QN_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "'no\\x1bsuch'"));
    assert_non_null(strstr(err.message, "qwen2"));
}

static void hostile_patterns(void **state) {
    (void)state;
    static const char *const refused[] = {"[\\p{L}&&[^a]]", "[a[bc]]", "(", "[\\W]", "\\C"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        qn_pre pre = {.n = 0};
        qn_error err = {0};
        assert_int_equal(
            qn_pre_add(&pre, refused[i], strlen(refused[i]), false, QN_PRE_ISOLATED, false, &err),
            QN_ERR_UNSUPPORTED);
        qn_pre_free(&pre);
    }
    // A pattern that would take exponential time ends at its limit.
    qn_pre pre = {.n = 0};
    qn_error err = {0};
    pcre2_match_data *md = NULL;
    size_t sum = 0;
    const char *slow = "(?:a|a|ab?)+[bc]";
    char text[64];
    memset(text, 'a', sizeof text);
    assert_int_equal(qn_pre_add(&pre, slow, strlen(slow), false, QN_PRE_ISOLATED, false, &err),
                     QN_OK);
    assert_int_equal(qn_pre_split(&pre, text, sizeof text, &md, count_bytes, &sum, &err),
                     QN_ERR_LIMIT);
    pcre2_match_data_free(md);
    qn_pre_free(&pre);
}

static void byte_alphabet(void **state) {
    (void)state;
    int known = 0;
    for (unsigned b = 0; b < 256; b++)
        assert_int_equal(qn_char_byte(qn_byte_char((uint8_t)b)), b);
    for (uint32_t cp = 0; cp < 0x3000; cp++)
        known += qn_char_byte(cp) >= 0;
    assert_int_equal(known, 256);
    assert_int_equal(qn_byte_char(' '), 0x120);
    assert_int_equal(qn_byte_char('\n'), 0x10a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(byte_alphabet),        cmocka_unit_test(scanners_are_their_patterns),
        cmocka_unit_test(heap_is_plain_search), cmocka_unit_test(named_pre_tokenizers),
        cmocka_unit_test(hostile_patterns),     cmocka_unit_test(no_size_is_quadratic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
