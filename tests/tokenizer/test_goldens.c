// SPDX-License-Identifier: Apache-2.0
// tokenizer.json files with the ids that Hugging Face's tokenizers gives, and a GGUF vocabulary
// with SentencePiece's (make_goldens.py).
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/json_reader.h"
#include "base/os.h"
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

#define FOLDER QN_SOURCE_DIR "/tests/tokenizer/goldens/"

static char *read_all(const char *name, const char *ext, size_t *len) {
    char path[1024], *data = NULL;
    qn_error err = {0};
    snprintf(path, sizeof path, FOLDER "%s%s", name, ext);
    if (qn_os_read_file(path, 16 << 20, &data, len, &err) != QN_OK) fail_msg("%s", err.message);
    return data;
}

static void check_text(const qn_tokenizer *t, const char *name, int line, qn_str text,
                       bool parse_special, const char *want) {
    const qn_text_span span = {text.len, parse_special};
    qn_ids ids = {0};
    qn_error err = {0};
    qn_buf got = {0}, shown = {0};
    if (qn_tokenize(t, text.data, text.len, &span, 1, true, 0, &ids, &err) != QN_OK) {
        fail_msg("%s, text %d: %s", name, line, err.message);
    }
    for (size_t i = 0; i < ids.len; i++)
        qn_buf_printf(&got, "%s%d", i ? " " : "", ids.data[i]);
    if (strcmp(got.data ? got.data : "", want) != 0) {
        qn_buf_json_string(&shown, text.data, text.len);
        fail_msg("%s, text %d %s:\n got  %s\n want %s", name, line, shown.data,
                 got.data ? got.data : "", want);
    }
    qn_buf_free(&got);
    qn_ids_free(&ids);
}

static qn_tokenizer *open_json(const char *name) {
    size_t len;
    char *json = read_all(name, ".json", &len);
    qn_error err = {0};
    qn_tokenizer *t = NULL;
    if (qn_tokenizer_from_json_memory(json, len, NULL, &t, &err) != QN_OK) {
        fail_msg("%s: %s", name, err.message);
    }
    free(json);
    return t;
}

static qn_tokenizer *open_gguf(const char *name) {
    char path[1024];
    qn_error err = {0};
    qn_gguf *g = NULL;
    qn_tokenizer *t = NULL;
    snprintf(path, sizeof path, FOLDER "%s.gguf", name);
    if (qn_gguf_open(path, &g, &err) != QN_OK) fail_msg("%s", err.message);
    if (qn_tokenizer_from_gguf(g, NULL, &t, &err) != QN_OK) fail_msg("%s", err.message);
    qn_gguf_close(g);
    return t;
}

static void check(void **state) {
    const char *name = *state;
    size_t texts_len, ids_len;
    char *texts = read_all("texts", ".txt", &texts_len);
    char *ids = read_all(name, ".ids", &ids_len), *line = ids;
    bool gguf = strcmp(name, "spm") == 0;
    qn_tokenizer *t = gguf ? open_gguf(name) : open_json(name);
    qn_error err = {0};
    int n = 0;
    for (char *text = texts; text < texts + texts_len; n++) {
        char *end = strchr(text, '\n'), *line_end = strchr(line, '\n');
        assert_non_null(end);
        assert_non_null(line_end);
        *line_end = '\0';
        qn_json_reader r;
        qn_json_open(&r, text, (size_t)(end - text));
        assert_int_equal(qn_json_next(&r, &err), QN_OK);
        check_text(t, name, n + 1, r.text, !gguf, line);
        qn_json_close(&r);
        text = end + 1;
        line = line_end + 1;
    }
    assert_true(n > 100);
    free(texts);
    free(ids);
    qn_tokenizer_close(t);
}

int main(void) {
    static char *const names[] = {"gpt2",    "gpt2_prefix",   "llama3",    "qwen2",      "gpt4o",
                                  "digits",  "deepseek",      "behaviors", "whitespace", "llama2",
                                  "mistral", "metaspace_unk", "spm"};
    enum { N = sizeof names / sizeof names[0] };
    struct CMUnitTest tests[N];
    for (size_t i = 0; i < N; i++) {
        tests[i] = (struct CMUnitTest){names[i], check, NULL, NULL, names[i]};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
