// SPDX-License-Identifier: Apache-2.0
// The Nth allocation fails, for every N: loading and tokenizing end with an error or the right ids.
// Linked with --wrap, so that the allocations of our own code come here.
#include "support.h"

static long countdown = -1; // allocations until one fails; -1: none does

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);

static bool fails(void) {
    if (countdown < 0) return false;
    return countdown-- == 0;
}
void *__wrap_malloc(size_t size) {
    return fails() ? NULL : __real_malloc(size);
}
void *__wrap_calloc(size_t n, size_t size) {
    return fails() ? NULL : __real_calloc(n, size);
}
void *__wrap_realloc(void *p, size_t size) {
    return fails() ? NULL : __real_realloc(p, size);
}

static const char text[] =
    "<|im_start|>It's 1234 o\xCC\x81 caf\xC3\xA9  \xF0\x9F\x99\x82 aaaaaaaaaaaaaaaaaaaaaaaa"
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa<|im_end|> the end ";

static bool run(const char *json, size_t len, const qn_ids *want, qn_ids *got) {
    qn_tokenizer *t = NULL;
    qn_buf shown = {0};
    qn_stop_matcher *m = NULL;
    qn_str stop = QN_STR("end");
    got->len = 0;
    bool ok = qn_tokenizer_from_json_memory(json, len, NULL, &t, NULL) == QN_OK;
    for (int i = 0; i < 3 && ok; i++) { // three times: past the size from which words are cached
        ok = qn_tokenize(t, text, sizeof text - 1, NULL, 0, true, 0, got, NULL) == QN_OK;
    }
    if (ok && want) {
        assert_int_equal(got->len, want->len);
        assert_memory_equal(got->data, want->data, want->len * sizeof *want->data);
    }
    qn_detok d;
    if (ok) qn_detok_init(&d, t, true, true);
    for (size_t i = 0; i < got->len && ok; i++)
        ok = qn_detok_push(&d, got->data[i], &shown);
    ok = ok && qn_stop_matcher_create(&stop, 1, &m, NULL) == QN_OK;
    qn_stop_matcher_destroy(m);
    qn_buf_free(&shown);
    qn_tokenizer_close(t);
    return ok;
}

static void every_allocation_may_fail(void **state) {
    const char *name = *state;
    char path[1024], *json = NULL;
    size_t len;
    qn_ids want = {0}, got = {0};
    snprintf(path, sizeof path, QN_SOURCE_DIR "/tests/tokenizer/goldens/%s.json", name);
    assert_int_equal(qn_os_read_file(path, 1 << 20, &json, &len, NULL), QN_OK);
    assert_true(run(json, len, NULL, &want));
    long n = 0;
    for (bool done = false; !done; n++) {
        countdown = n;
        run(json, len, &want, &got);
        done = countdown >= 0; // none failed
        countdown = -1;
        qn_ids_free(&got);
    }
    print_message("%s: %ld allocations\n", name, n - 1);
    assert_true(n > 20);
    qn_ids_free(&want);
    free(json);
}

int main(void) {
    static char *const names[] = {"qwen2", "llama3", "llama2", "mistral"};
    struct CMUnitTest tests[4];
    for (size_t i = 0; i < 4; i++) {
        tests[i] = (struct CMUnitTest){names[i], every_allocation_may_fail, NULL, NULL, names[i]};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
