// SPDX-License-Identifier: Apache-2.0
#include "tests/formats/sample.h"

#include "formats/hf_dir.h"
#include "formats/json_doc.h"

static char dir[600];

static void put(const char *name, const char *text) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    write_file(path, text, strlen(text));
}

static void drop(const char *name) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(remove(path), 0);
}

static void fails(qn_status status, const char *part) {
    qn_hf_dir *d;
    qn_error err = {0};
    assert_int_equal(qn_hf_dir_open(dir, &d, &err), status);
    assert_null(d);
    if (!strstr(err.message, part) || strchr(err.message, '\n')) {
        fail_msg("expected '%s' in: %s", part, err.message);
    }
}

static void directories(void **state) {
    (void)state;
    qn_hf_dir *d;
    qn_error err = {0};
    temp_path(dir, sizeof dir, "hf");
    fails(QN_ERR_NOT_FOUND, "no such directory");
    assert_int_equal(mkdir(dir, 0777), 0);
    fails(QN_ERR_NOT_FOUND, "config.json");
    put("config.json", "[1]");
    fails(QN_ERR_FORMAT, "config.json: an object expected");
    put("config.json", "{\"a\":1,\n \"a\":2}");
    fails(QN_ERR_FORMAT, "config.json: JSON, line 2");
    put("config.json", "{\"model_type\":\"llama\"}");
    assert_int_equal(qn_hf_dir_open(dir, &d, &err), QN_OK);
    assert_string_equal(json_string_value(json_object_get(d->config, "model_type")), "llama");
    assert_null(d->generation_config);
    assert_null(d->chat_template);
    assert_string_equal(d->path, dir);
    qn_hf_dir_close(d);

    put("generation_config.json", "{\"eos_token_id\":[1,2]}");
    put("tokenizer_config.json", "{\"chat_template\":\"{{ messages }}\"}");
    assert_int_equal(qn_hf_dir_open(dir, &d, &err), QN_OK);
    assert_string_equal(d->chat_template, "{{ messages }}");
    assert_non_null(d->generation_config);
    qn_hf_dir_close(d);
    put("tokenizer_config.json",
        "{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"t\"},"
        "{\"name\":\"default\",\"template\":\"d\"}]}");
    assert_int_equal(qn_hf_dir_open(dir, &d, &err), QN_OK);
    assert_string_equal(d->chat_template, "d");
    qn_hf_dir_close(d);
    put("chat_template.jinja", "from the file");
    assert_int_equal(qn_hf_dir_open(dir, &d, &err), QN_OK);
    assert_string_equal(d->chat_template, "from the file");
    qn_hf_dir_close(d);
    char nul[700];
    snprintf(nul, sizeof nul, "%s/chat_template.jinja", dir);
    write_file(nul, "a\0b", 3);
    fails(QN_ERR_FORMAT, "chat_template.jinja: text with a NUL byte");
    drop("chat_template.jinja");
    put("tokenizer_config.json", "{\"chat_template\":[{\"name\":\"other\"},7,null]}");
    assert_int_equal(qn_hf_dir_open(dir, &d, &err), QN_OK);
    assert_null(d->chat_template);
    qn_hf_dir_close(d);
    put("tokenizer_config.json", "{\"chat_template\":7}");
    assert_int_equal(qn_hf_dir_open(dir, &d, &err), QN_OK);
    assert_null(d->chat_template);
    qn_hf_dir_close(d);

    put("generation_config.json", "nonsense \x1b[31m");
    fails(QN_ERR_FORMAT, "generation_config.json: JSON, line 1");
    drop("generation_config.json");
    char *big = malloc((1 << 20) + 2);
    assert_non_null(big);
    memset(big, ' ', (1 << 20) + 1);
    big[(1 << 20) + 1] = '\0';
    put("config.json", big);
    free(big);
    fails(QN_ERR_LIMIT, "more than the limit");
}

static void depth(void **state) {
    (void)state;
    json_t *doc;
    qn_error err = {0};
    char text[300];
    for (int deep = 60; deep <= 70; deep++) {
        memset(text, '[', (size_t)deep);
        memset(text + deep, ']', (size_t)deep);
        qn_error_clear(&err);
        qn_status st = qn_json_doc_parse(text, 2 * (size_t)deep, "d", &doc, &err);
        assert_int_equal(st, deep <= 64 ? QN_OK : QN_ERR_LIMIT);
        json_decref(doc);
    }
    // Brackets in strings do not count; a quote behind a backslash does not end a string.
    memset(text, '[', 250);
    memcpy(text, "[\"\\\"", 4);
    memcpy(text + 250, "\"]", 2);
    qn_error_clear(&err);
    assert_int_equal(qn_json_doc_parse(text, 252, "d", &doc, &err), QN_OK);
    json_decref(doc);
    // Deep enough to overflow the stack of a recursive parser without a limit.
    size_t n = 1 << 20;
    char *deep = malloc(n);
    assert_non_null(deep);
    memset(deep, '[', n);
    assert_int_equal(qn_json_doc_parse(deep, n, "d", &doc, &err), QN_ERR_LIMIT);
    free(deep);
    qn_error_clear(&err);
    assert_int_equal(qn_json_doc_parse("{} {}", 5, "d", &doc, &err), QN_ERR_FORMAT);
    qn_error_clear(&err);
    assert_int_equal(qn_json_doc_parse("\"\xff\"", 3, "d", &doc, &err), QN_ERR_FORMAT);
    qn_error_clear(&err);
    assert_int_equal(qn_json_doc_parse("", 0, "d", &doc, &err), QN_ERR_FORMAT);
}

static void members(void **state) {
    (void)state;
    json_t *o;
    qn_error err = {0};
    const char *text = "{\"i\":5,\"f\":2.5,\"b\":true,\"s\":\"x\",\"n\":null}";
    assert_int_equal(qn_json_doc_parse(text, strlen(text), "c", &o, &err), QN_OK);
    int64_t i = 9;
    double f = 9;
    bool b = false;
    assert_int_equal(qn_json_i64(o, "c", "i", true, 0, 10, &i, &err), QN_OK);
    assert_int_equal(i, 5);
    assert_int_equal(qn_json_i64(o, "c", "i", true, 6, 10, &i, &err), QN_ERR_FORMAT);
    assert_string_equal(err.message, "c: 'i': 5 is not between 6 and 10");
    qn_error_clear(&err);
    assert_int_equal(qn_json_i64(o, "c", "f", true, 0, 10, &i, &err), QN_ERR_FORMAT);
    qn_error_clear(&err);
    assert_int_equal(qn_json_i64(o, "c", "x", true, 0, 10, &i, &err), QN_ERR_NOT_FOUND);
    assert_string_equal(err.message, "c: 'x' is missing");
    qn_error_clear(&err);
    assert_int_equal(qn_json_i64(o, "c", "n", true, 0, 10, &i, &err), QN_ERR_NOT_FOUND);
    qn_error_clear(&err);
    assert_int_equal(qn_json_i64(o, "c", "n", false, 0, 10, &i, &err), QN_OK);
    assert_int_equal(i, 5);
    assert_int_equal(qn_json_f64(o, "c", "f", true, &f, &err), QN_OK);
    assert_true(f == 2.5);
    assert_int_equal(qn_json_f64(o, "c", "i", true, &f, &err), QN_OK);
    assert_true(f == 5.0);
    assert_int_equal(qn_json_f64(o, "c", "s", false, &f, &err), QN_ERR_FORMAT);
    qn_error_clear(&err);
    assert_int_equal(qn_json_bool(o, "c", "b", true, &b, &err), QN_OK);
    assert_true(b);
    assert_int_equal(qn_json_bool(o, "c", "i", true, &b, &err), QN_ERR_FORMAT);
    qn_error_clear(&err);
    assert_int_equal(qn_json_bool(o, "c", "none", false, &b, &err), QN_OK);
    assert_true(b);
    json_decref(o);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(directories), cmocka_unit_test(depth),
                                       cmocka_unit_test(members)};
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    temp_clean();
    return failed;
}
