// SPDX-License-Identifier: Apache-2.0
// Real vocabularies with texts and the ids that their own tokenizers give: <shared>/tokenizers/
// NAME.{gguf,inp,out}. The folder is QN_SHARED, or shared/ beside the source.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/os.h"
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

static char shared[2048];

static bool find_shared(void) {
    const char *env = getenv("QN_SHARED");
    char path[2100];
    bool is_dir = false;
    snprintf(shared, sizeof shared, "%s", env ? env : QN_SOURCE_DIR "/../shared");
    snprintf(path, sizeof path, "%s/tokenizers", shared);
    return qn_os_exists(path, &is_dir) && is_dir;
}

static qn_tokenizer *open_gguf(const char *name) {
    char path[2200];
    qn_error err = {0};
    qn_gguf *g = NULL;
    qn_tokenizer *t = NULL;
    snprintf(path, sizeof path, "%s/tokenizers/%s.gguf", shared, name);
    if (qn_gguf_open(path, &g, &err) != QN_OK) fail_msg("%s", err.message);
    if (qn_tokenizer_from_gguf(g, NULL, &t, &err) != QN_OK) fail_msg("%s", err.message);
    qn_gguf_close(g);
    return t;
}

static char *read_text(const char *name, const char *ext, size_t *len) {
    char path[2200], *data = NULL;
    qn_error err = {0};
    snprintf(path, sizeof path, "%s/tokenizers/%s.%s", shared, name, ext);
    if (qn_os_read_file(path, 1 << 20, &data, len, &err) != QN_OK) fail_msg("%s", err.message);
    return data;
}

// One case: the ids, and that the ids give the text back.
static void check_case(const qn_tokenizer *t, const char *name, int number, qn_str text,
                       const char *expected) {
    const qn_text_span plain = {text.len, false};
    qn_ids ids = {0};
    qn_error err = {0};
    qn_buf got = {0}, shown = {0};
    assert_int_equal(qn_tokenize(t, text.data, text.len, &plain, 1, false, 0, &ids, &err), QN_OK);
    for (size_t i = 0; i < ids.len; i++)
        qn_buf_printf(&got, "%s%d", i ? " " : "", ids.data[i]);
    while (*expected == ' ')
        expected++;
    if (strcmp(got.data ? got.data : "", expected) != 0) {
        fail_msg("%s, case %d '%.*s':\n got  %s\n want %s", name, number, (int)text.len, text.data,
                 got.data ? got.data : "", expected);
    }
    qn_detok d;
    qn_detok_init(&d, t, false, true);
    for (size_t i = 0; i < ids.len; i++)
        assert_true(qn_detok_push(&d, ids.data[i], &shown));
    assert_true(qn_detok_flush(&d, &shown));
    if (!qn_str_eq(qn_buf_str(&shown), text)) {
        fail_msg("%s, case %d: '%.*s' came back as '%s'", name, number, (int)text.len, text.data,
                 shown.data ? shown.data : "");
    }
    qn_buf_free(&got);
    qn_buf_free(&shown);
    qn_ids_free(&ids);
}

static int check_vocabulary(const char *name) {
    static const char mark[] = "\n__ggml_vocab_test__\n";
    size_t in_len, out_len;
    qn_tokenizer *t = open_gguf(name);
    char *in = read_text(name, "inp", &in_len), *out = read_text(name, "out", &out_len);
    char *text = in, *line = out;
    int cases = 0;
    while (text) {
        char *end = strstr(text, mark);
        if (!end && (size_t)(text - in) == in_len) break; // nothing behind the last separator
        size_t len = end ? (size_t)(end - text) : in_len - (size_t)(text - in);
        char *line_end = strchr(line, '\n');
        if (line_end) *line_end = '\0';
        check_case(t, name, cases, (qn_str){text, len}, line);
        cases++;
        line = line_end ? line_end + 1 : line + strlen(line);
        text = end ? end + strlen(mark) : NULL;
    }
    assert_int_equal(*line, '\0'); // every expected line was used
    free(in);
    free(out);
    qn_tokenizer_close(t);
    return cases;
}

static void check(void **state) {
    const char *name = *state;
    int cases = check_vocabulary(name);
    print_message("%s: %d cases\n", name, cases);
    assert_true(cases >= 40);
}

int main(void) {
    static char *const names[] = {"deepseek-llm", "gpt-2", "llama-bpe", "llama-spm", "phi-3"};
    struct CMUnitTest tests[5];
    if (!find_shared()) {
        printf("skipped: shared data not found (%s/tokenizers)\n", shared);
        return 77;
    }
    for (size_t i = 0; i < 5; i++) {
        tests[i] = (struct CMUnitTest){names[i], check, NULL, NULL, names[i]};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
