// SPDX-License-Identifier: Apache-2.0
// Names, and the choice of files; what goes over the network is in test_hub.py.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/checked.h"
#include "tools/hub_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void names(void **state) {
    (void)state;
    static const char *const good[] = {"Qwen/Qwen3-0.6B", "a/b", "ggml-org/x_y.z:Q4_K_M", "a/b.gguf:Q8_0"};
    static const char *const bad[] = {
        "", "gpt2", "/a", "a/", "a/b/c", "./a", "../a", "a/..", "a/.b", "-a/b", "a-/b", "a/b--c", "a/b..c", "a b/c",
        "a/b:", "a/b:../c", "a/b:c/d", "a:b/c", "a\\b/c", "a/b.gguf", "a/b.safetensors", "a/tokenizer.json",
        "a/b.git", "a/b\n", "a/\xc3\xa9", "C:/x", "a%2f/b", "a/b?c", "a/b#c", "a/b@c",
    };
    qn_hub_name n;
    for (size_t i = 0; i < QN_COUNT(good); i++) assert_true(qn_hub_name_parse(good[i], &n));
    for (size_t i = 0; i < QN_COUNT(bad); i++) {
        if (qn_hub_name_parse(bad[i], &n)) fail_msg("'%s' is a name", bad[i]);
    }
    assert_true(qn_hub_name_parse("ggml-org/x_y.z:Q4_K_M", &n));
    assert_string_equal(n.repo, "ggml-org/x_y.z");
    assert_string_equal(n.choice, "Q4_K_M");
    char text[300] = "o/";
    memset(text + 2, 'n', 94);
    assert_true(qn_hub_name_parse(text, &n));
    text[96] = 'n';
    assert_false(qn_hub_name_parse(text, &n));
}

static void paths(void **state) {
    (void)state;
    static const char *const good[] = {"config.json", "a/b.gguf", ".gitattributes", "a..b", "a b"};
    static const char *const bad[] = {"", "/a", "a/", "a//b", "..", "../a", "a/../b", "a/..", ".", "./a", "a\\b",
                                      "a\nb", "a\x7f", "a/b/c/d/e/f/g/h/i"};
    for (size_t i = 0; i < QN_COUNT(good); i++) assert_true(qn_hub_path_ok(qn_str_from(good[i])));
    for (size_t i = 0; i < QN_COUNT(bad); i++) assert_false(qn_hub_path_ok(qn_str_from(bad[i])));
    assert_false(qn_hub_path_ok((qn_str){"a\0b", 3}));
    assert_true(qn_hub_revision_ok("refs/pr/1"));
    assert_true(qn_hub_revision_ok("v1.0"));
    static const char *const revisions[] = {"", "../main", "a..b", "/x", "a b", "a?b", "a\nb", "x.lock", "%2e"};
    for (size_t i = 0; i < QN_COUNT(revisions); i++) assert_false(qn_hub_revision_ok(revisions[i]));
}

// files: separated by spaces. want_file: NULL, an error.
static void choice(const char *files, const char *name, const char *want_file, const char *in_error) {
    qn_hub_listing l = {0};
    char *copy = strdup(files), *rest = copy;
    for (char *f; (f = strtok_r(rest, " ", &rest)) != NULL;) {
        assert_true(qn_hub_listing_add(&l, qn_str_from(f), 1, ""));
    }
    qn_hub_name n;
    qn_hub_pick pick = {0};
    qn_error err = {0};
    assert_true(qn_hub_name_parse(name, &n));
    qn_status st = qn_hub_choose(&n, QN_HUB_MODEL, &l, &pick, &err);
    if (want_file) {
        if (st != QN_OK) fail_msg("%s: %s", name, err.message);
        assert_non_null(pick.gguf);
        assert_string_equal(pick.gguf->path, want_file);
    } else {
        assert_int_not_equal(st, QN_OK);
        if (!strstr(err.message, in_error)) fail_msg("'%s' not in '%s'", in_error, err.message);
    }
    qn_hub_pick_free(&pick);
    qn_hub_listing_free(&l);
    free(copy);
}

static void gguf(void **state) {
    (void)state;
    static const char many[] = "README.md M-0.6B-BF16.gguf M-0.6B-Q4_K_M.gguf M-0.6B-UD-Q4_K_M.gguf M-0.6B-Q8_0.gguf "
                               "mmproj-F16.gguf imatrix.gguf";
    choice(many, "o/m:Q4_K_M", "M-0.6B-Q4_K_M.gguf", NULL);
    choice(many, "o/m:q8_0", "M-0.6B-Q8_0.gguf", NULL);
    choice(many, "o/m:UD-Q4_K_M", "M-0.6B-UD-Q4_K_M.gguf", NULL);
    choice(many, "o/m:M-0.6B-BF16.gguf", "M-0.6B-BF16.gguf", NULL);
    choice(many, "o/m", NULL, "one of: BF16, Q4_K_M, Q8_0, UD-Q4_K_M");
    choice(many, "o/m:Q2_K", NULL, "no GGUF file 'Q2_K'; write o/m:CHOICE with one of: BF16, Q4_K_M");
    choice("m.gguf mmproj-m.gguf", "o/m", "m.gguf", NULL);
    choice("m.gguf", "o/m:Q8_0", NULL, "no GGUF file 'Q8_0'");
    choice("m.gguf m-f16.gguf", "o/m:f16", "m-f16.gguf", NULL);
    choice("m.Q4_0.gguf m.Q4_1.gguf", "o/m:Q4_1", "m.Q4_1.gguf", NULL);
    choice("Q4/m-Q4_0.gguf Q8/m-Q8_0.gguf", "o/m:Q8_0", "Q8/m-Q8_0.gguf", NULL);
    choice("a-X-Q8_0.gguf b-Y-Q8_0.gguf", "o/m:Q8_0", NULL, "several GGUF files 'Q8_0'");
    choice("m-Q4-00001-of-00002.gguf m-Q4-00002-of-00002.gguf m-Q8.gguf", "o/m:Q8", "m-Q8.gguf", NULL);
    choice("m-Q4-00001-of-00002.gguf m-Q4-00002-of-00002.gguf m-Q8.gguf", "o/m:Q4", NULL, "one of 2 parts");
    choice("pytorch_model.bin config.json", "o/m", NULL, "pickled weights");
    choice("config.json model.safetensors", "o/m:Q8_0", NULL, "no GGUF files to choose");
    choice("", "o/m", NULL, "neither model.safetensors");
}

static bool picked(const qn_hub_pick *p, const char *path) {
    for (size_t i = 0; i < p->n; i++) {
        if (strcmp(p->files[i]->path, path) == 0) return true;
    }
    return false;
}

static void directory(void **state) {
    (void)state;
    static const char *const files[] = {
        "README.md", "config.json", "tokenizer.json", "chat_template.jinja", "pytorch_model.bin", "x.py", "m-f16.gguf",
        "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "consolidated.safetensors",
        "model.safetensors.index.json", "sub/config.json"};
    qn_hub_listing l = {0};
    for (size_t i = 0; i < QN_COUNT(files); i++) assert_true(qn_hub_listing_add(&l, qn_str_from(files[i]), 1, ""));
    const qn_hub_name n = {.repo = "o/m"};
    qn_hub_pick p = {0};
    qn_error err = {0};
    assert_int_equal(qn_hub_choose(&n, QN_HUB_MODEL, &l, &p, &err), QN_OK);
    assert_null(p.gguf);
    assert_non_null(p.index);
    static const char index[] =
        "{\"metadata\": {\"x\": [1, {\"weight_map\": 1}]}, \"weight_map\": {\"a\": \"model-00001-of-00002.safetensors\", "
        "\"b\": \"model-00002-of-00002.safetensors\", \"c\": \"model-00001-of-00002.safetensors\"}}";
    assert_int_equal(qn_hub_add_shards(&l, index, strlen(index), &p, &err), QN_OK);
    assert_int_equal(p.n, 6);
    assert_string_equal(p.files[0]->path, "config.json");
    assert_true(picked(&p, "tokenizer.json") && picked(&p, "chat_template.jinja"));
    assert_true(picked(&p, "model-00002-of-00002.safetensors"));
    static const char *const bad[] = {
        "{\"weight_map\": {\"a\": \"../../x.safetensors\"}}", "{\"weight_map\": {\"a\": \"pytorch_model.bin\"}}",
        "{\"weight_map\": {\"a\": 1}}", "{\"weight_map\": []}", "[]", "", "{\"weight_map\": {\"a\":"};
    for (size_t i = 0; i < QN_COUNT(bad); i++) {
        qn_hub_pick q = {0};
        qn_error e = {0};
        assert_int_not_equal(qn_hub_add_shards(&l, bad[i], strlen(bad[i]), &q, &e), QN_OK);
        assert_true(strstr(e.message, "model.safetensors.index.json") == e.message);
        qn_hub_pick_free(&q);
    }
    qn_hub_pick_free(&p);
    // Only the tokenizer.
    assert_int_equal(qn_hub_choose(&n, QN_HUB_TOKENIZER, &l, &p, &err), QN_OK);
    assert_int_equal(p.n, 3);
    qn_hub_pick_free(&p);
    qn_hub_listing_free(&l);
}

static void redirects(void **state) {
    (void)state;
    const qn_hub_options o = {.endpoint = "https://Hub.example/", .token = "hf_x"};
    qn_hub_client c;
    qn_error err = {0};
    char *next;
    assert_int_equal(qn_hub_client_open(&c, &o, &err), QN_OK);
    assert_string_equal(c.authority, "https://hub.example:443");
    assert_int_equal(qn_hub_redirect(&c, "https://hub.example/a/b", "/c?d", &next, &err), QN_OK);
    assert_string_equal(next, "https://hub.example/c?d");
    free(next);
    static const char *const bad[] = {"", "http://hub.example/", "file:///etc/passwd", "ftp://x/", "https://u:p@x/",
                                      "gopher://x", "https://", "//"};
    for (size_t i = 0; i < QN_COUNT(bad); i++) {
        qn_error e = {0};
        if (qn_hub_redirect(&c, "https://hub.example/a", bad[i], &next, &e) == QN_OK) fail_msg("'%s' was taken", bad[i]);
        assert_null(next);
    }
    qn_hub_client_close(&c);
    static const char *const endpoints[] = {"hub.example", "ftp://x", "https://u:p@x", "https://x/?a", "file:///x"};
    for (size_t i = 0; i < QN_COUNT(endpoints); i++) {
        const qn_hub_options b = {.endpoint = endpoints[i]};
        qn_error e = {0};
        if (qn_hub_client_open(&c, &b, &e) == QN_OK) fail_msg("'%s' was taken", endpoints[i]);
    }
    const qn_hub_options t = {.token = "two\r\nHost: x"};
    assert_int_equal(qn_hub_client_open(&c, &t, &err), QN_ERR_INVALID);
    assert_null(strstr(err.message, "two"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names),     cmocka_unit_test(paths),     cmocka_unit_test(gguf),
        cmocka_unit_test(directory), cmocka_unit_test(redirects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
