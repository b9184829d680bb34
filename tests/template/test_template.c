// SPDX-License-Identifier: Apache-2.0
// Templates against what Python's Jinja2 makes of them (goldens.json, by make_goldens.py), limits,
// origins of text, and threads.
#include "template/chat_template.h"

#include "base/thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include <openssl/sha.h>

static json_t *goldens;

static int load_goldens(void **state) {
    (void)state;
    json_error_t e;
    goldens = json_load_file(QN_SOURCE_DIR "/tests/template/goldens.json", 0, &e);
    if (!goldens) fprintf(stderr, "goldens.json: %s (line %d)\n", e.text, e.line);
    return goldens ? 0 : -1;
}

static int free_goldens(void **state) {
    (void)state;
    json_decref(goldens);
    return 0;
}

static double golden_now(void) {
    return (double)json_integer_value(json_object_get(goldens, "now"));
}

// Spans must cover the text exactly and alternate.
static void check_spans(const qn_rendered *r) {
    size_t sum = 0;
    for (size_t i = 0; i < r->n_spans; i++) {
        assert_true(r->spans[i].len > 0);
        if (i) assert_true(r->spans[i].trusted != r->spans[i - 1].trusted);
        sum += r->spans[i].len;
    }
    assert_int_equal(sum, r->text.len);
}

static qn_status render(const char *source, size_t len, const json_t *vars, const json_t *trusted,
                        const qn_template_limits *limits, qn_rendered *out, qn_error *err) {
    qn_chat_template *t = NULL;
    *out = (qn_rendered){0};
    qn_status st = qn_template_compile(source, len, &t, err);
    if (st == QN_OK) st = qn_template_render(t, vars, trusted, golden_now(), limits, out, err);
    qn_template_free(t);
    if (st == QN_OK) check_spans(out);
    return st;
}

static void test_cases(void **state) {
    (void)state;
    json_t *context = json_object_get(goldens, "context"), *c;
    size_t i, bad = 0;
    json_array_foreach(json_object_get(goldens, "cases"), i, c) {
        json_t *source = json_object_get(c, "t"), *want = json_object_get(c, "o");
        qn_rendered r;
        qn_error err = {0};
        qn_status st = render(json_string_value(source), json_string_length(source), context, NULL,
                              NULL, &r, &err);
        bool ok = json_is_null(want)
                      ? st != QN_OK && st != QN_ERR_LIMIT && st != QN_ERR_INTERNAL && err.message[0]
                      : st == QN_OK && r.text.len == json_string_length(want) &&
                            (r.text.len == 0 ||
                             memcmp(r.text.data, json_string_value(want), r.text.len) == 0);
        // A range above Jinja2's bound is a limit here.
        if (json_is_null(want) && st == QN_ERR_LIMIT) ok = strstr(err.message, "range") != NULL;
        if (!ok) {
            bad++;
            fprintf(stderr, "case %zu: %s\n  want: %s\n  got:  %s%s\n", i,
                    json_string_value(source),
                    json_is_null(want) ? "(an error)" : json_string_value(want),
                    st == QN_OK ? (r.text.data ? r.text.data : "") : "error: ", err.message);
        }
        qn_rendered_free(&r);
    }
    assert_int_equal(bad, 0);
}

static char *read_file(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    if (!f) return NULL;
    qn_buf buf = {0};
    char chunk[4096];
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0;) qn_buf_append(&buf, chunk, n);
    fclose(f);
    *len = buf.len;
    return buf.data;
}

// A real template's source by file name, NULL where the shared data is not there.
static char *shared_template(const char *name, size_t *len) {
    char path[1024];
    const char *dir = getenv("QN_SHARED");
    snprintf(path, sizeof path, "%s/chat_templates/%s", dir ? dir : QN_SOURCE_DIR "/../shared",
             name);
    return read_file(path, len);
}

static void hex_sha256(const char *data, size_t len, char out[65]) {
    unsigned char digest[SHA256_DIGEST_LENGTH];
    SHA256((const unsigned char *)(data ? data : ""), len, digest);
    for (size_t i = 0; i < sizeof digest; i++) snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

static void test_real_templates(void **state) {
    (void)state;
    const char *name;
    json_t *hashes, *tokens = json_object_get(goldens, "tokens");
    json_t *conversations = json_object_get(goldens, "conversations");
    size_t bad = 0, done = 0;
    json_object_foreach(json_object_get(goldens, "templates"), name, hashes) {
        size_t len;
        char *source = shared_template(name, &len);
        if (!source) {
            printf("skipped: shared data not found (%s)\n", name);
            continue;
        }
        assert_int_equal(json_array_size(hashes), json_array_size(conversations));
        for (size_t i = 0; i < json_array_size(conversations); i++) {
            const json_t *want = json_array_get(hashes, i);
            qn_rendered r;
            qn_error err = {0};
            qn_status st =
                render(source, len, json_array_get(conversations, i), tokens, NULL, &r, &err);
            char hex[65] = "";
            if (st == QN_OK) hex_sha256(r.text.data, r.text.len, hex);
            bool ok = json_is_null(want)    ? st == QN_ERR_INVALID
                      : json_is_false(want) ? st == QN_ERR_LIMIT
                                            : strcmp(hex, json_string_value(want)) == 0;
            if (!ok) {
                bad++;
                fprintf(stderr, "%s, conversation %zu: %s\n%s\n", name, i,
                        json_is_string(want) ? "differs" : "should fail",
                        st == QN_OK ? r.text.data : err.message);
            }
            qn_rendered_free(&r);
            done++;
        }
        free(source);
    }
    assert_int_equal(bad, 0);
    if (done == 0) skip();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_real_templates),
    };
    return cmocka_run_group_tests_name("template", tests, load_goldens, free_goldens);
}
