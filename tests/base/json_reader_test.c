// SPDX-License-Identifier: Apache-2.0
// The pull reader against a table, and against jansson on mutated documents.
#include "base/checked.h"
#include "base/json_reader.h"
#include "base/json_tree.h"
#include "base/philox.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <cmocka.h>

// One letter a token: { } [ ] k s n t f z, then "." at the end, or "!" at an error.
static void shape(const char *text, size_t len, char *out, size_t size) {
    // An exact copy without a NUL lets a sanitizer see a read past the end.
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);
    qn_json_reader r;
    qn_json_open(&r, copy, len);
    size_t n = 0;
    for (;;) {
        qn_error err = {0};
        qn_status st = qn_json_next(&r, &err);
        assert_true(n + 2 < size);
        if (st != QN_OK) {
            assert_int_equal(err.status, st);
            assert_true(err.message[0] != '\0');
            out[n++] = '!';
            break;
        }
        out[n++] = ".{}[]ksntfz"[r.kind];
        if (r.kind == QN_JSON_END) break;
    }
    out[n] = '\0';
    qn_json_close(&r);
    free(copy);
}

static void test_table(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", "!"}, {" ", "!"}, {"null", "z."}, {" true ", "t."}, {"false", "f."}, {"nul", "!"},
        {"nullx", "z!"}, {"truefalse", "t!"}, {"0", "n."}, {"-0", "n."}, {"-", "!"}, {"01", "n!"},
        {"1.", "!"}, {"1.5", "n."}, {".5", "!"}, {"1e5", "n."}, {"1E+5", "n."}, {"1e", "!"},
        {"1e-", "!"}, {"+1", "!"}, {"0x10", "n!"}, {"NaN", "!"}, {"Infinity", "!"}, {"--1", "!"},
        {"\"\"", "s."}, {"\"a", "!"}, {"\"\\", "!"}, {"\"\\x\"", "!"}, {"\"\\u12\"", "!"},
        {"\"\\u12g4\"", "!"}, {"\"\\uD83D\\uDE42\"", "s."}, {"\"a\nb\"", "!"}, {"'a'", "!"},
        {"[]", "[]."}, {"[1]", "[n]."}, {"[1,2]", "[nn]."}, {"[1,]", "[n!"}, {"[,1]", "[!"},
        {"[1 2]", "[n!"}, {"[", "[!"}, {"]", "!"}, {"[}", "[!"}, {"{]", "{!"}, {"[1,", "[n!"},
        {"{}", "{}."}, {"{\"a\":1}", "{kn}."}, {"{\"a\":1,}", "{kn!"}, {"{,}", "{!"},
        {"{\"a\"}", "{!"}, {"{\"a\":}", "{k!"}, {"{a:1}", "{!"}, {"{\"a\" : [ ] , \"b\":{}}", "{k[]k{}}."},
        {"{\"a\":1 \"b\":2}", "{kn!"}, {"{1:2}", "{!"}, {"{\"a\":1:2}", "{kn!"}, {"[[[]]]", "[[[]]]."},
        {"[] []", "[]!"}, {"1 2", "n!"}, {"\xef\xbb\xbf[]", "!"}, {"[/**/]", "[!"}, {"\f1", "!"},
    };
    for (size_t i = 0; i < QN_COUNT(cases); i++) {
        char got[64];
        shape(cases[i][0], strlen(cases[i][0]), got, sizeof got);
        if (strcmp(got, cases[i][1]) != 0) {
            fail_msg("%s: %s, expected %s", cases[i][0], got, cases[i][1]);
        }
    }
    char got[8];
    shape("\"a\0b\"", 5, got, sizeof got);
    assert_string_equal(got, "!");
}

static void test_strings(void **state) {
    (void)state;
    static const struct {
        const char *json, *want;
        size_t len;
    } cases[] = {
        {"\"plain\"", "plain", 5},
        {"\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "\"\\/\b\f\n\r\t", 8},
        {"\"x\\u0041\\u00e9\\u20AC\\ud83d\\ude42y\"", "xA\xc3\xa9\xe2\x82\xac\xf0\x9f\x99\x82y", 12},
        {"\"\\u0000\"", "\0", 1},
        {"\"\\ud800\"", "\xef\xbf\xbd", 3},
        {"\"\\udc00z\"", "\xef\xbf\xbdz", 4},
        {"\"\\ud800\\ud83d\\ude42\"", "\xef\xbf\xbd\xf0\x9f\x99\x82", 7},
        {"\"\\ud800\\u0041\"", "\xef\xbf\xbd" "A", 4},
    };
    for (size_t i = 0; i < QN_COUNT(cases); i++) {
        qn_json_reader r;
        qn_json_open(&r, cases[i].json, strlen(cases[i].json));
        assert_int_equal(qn_json_next(&r, NULL), QN_OK);
        assert_int_equal(r.kind, QN_JSON_STRING);
        assert_int_equal(r.text.len, cases[i].len);
        assert_memory_equal(r.text.data, cases[i].want, cases[i].len);
        qn_json_close(&r);
    }
}

static void test_numbers(void **state) {
    (void)state;
    // Long ones too: more digits than a double holds still have their magnitude.
    static const char *const cases[] = {
        "0", "-0", "1", "-17", "3.25", "1e-7", "6.02214076e23", "1.7976931348623157e308", "5e-324",
        "9007199254740993", "123456789012345678901234567890",
        "1000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
        "0.00000000000000000000000000000000000000000000000000000000000000000000000000000000000125",
        "0.10000000000000000000000000000000000000000000000000000000000000000000000000000e-5",
        "-1234567890123456789012345678901234567890123456789012345678901234567890.5E-69",
    };
    for (size_t i = 0; i < QN_COUNT(cases); i++) {
        qn_json_reader r;
        qn_json_open(&r, cases[i], strlen(cases[i]));
        assert_int_equal(qn_json_next(&r, NULL), QN_OK);
        assert_int_equal(r.kind, QN_JSON_NUMBER);
        assert_true(qn_str_is(r.text, cases[i]));
        if (r.number != strtod(cases[i], NULL)) fail_msg("%s: %g", cases[i], r.number);
        qn_json_close(&r);
    }
}

static void test_depth(void **state) {
    (void)state;
    char text[QN_JSON_MAX_DEPTH + 1];
    memset(text, '[', sizeof text);
    for (size_t n = 1; n <= sizeof text; n++) {
        qn_json_reader r;
        qn_json_open(&r, text, n);
        qn_status st = QN_OK;
        size_t tokens = 0;
        while ((st = qn_json_next(&r, NULL)) == QN_OK) tokens++;
        assert_int_equal(st, n > QN_JSON_MAX_DEPTH ? QN_ERR_LIMIT : QN_ERR_FORMAT);
        assert_int_equal(tokens, QN_MIN(n, (size_t)QN_JSON_MAX_DEPTH));
        qn_json_close(&r);
    }
}

static void test_skip(void **state) {
    (void)state;
    const char *text = "{\"a\":{\"x\":[1,{\"y\":\"]}\"}]},\"b\":7,\"c\":[[],{}],\"d\":\"e\"}";
    qn_json_reader r;
    qn_json_open(&r, text, strlen(text));
    assert_int_equal(qn_json_next(&r, NULL), QN_OK);
    char keys[8] = "";
    for (size_t n = 0; qn_json_next(&r, NULL) == QN_OK && r.kind == QN_JSON_KEY; n++) {
        keys[n] = r.text.data[0];
        if (n == 2) qn_json_next(&r, NULL); // from the begin of a container
        assert_int_equal(qn_json_skip(&r, NULL), QN_OK);
    }
    assert_string_equal(keys, "abcd");
    assert_int_equal(r.kind, QN_JSON_OBJECT_END);
    assert_int_equal(qn_json_next(&r, NULL), QN_OK);
    assert_int_equal(r.kind, QN_JSON_END);
    qn_json_close(&r);
    qn_json_open(&r, "[1,{\"a\":", 8);
    assert_int_equal(qn_json_next(&r, NULL), QN_OK);
    assert_int_equal(qn_json_skip(&r, NULL), QN_ERR_FORMAT);
    qn_json_close(&r);
}

// The document as a jansson tree, made from the reader's tokens; NULL at an error.
static json_t *build(const char *text, size_t len, qn_status *status) {
    json_t *stack[QN_JSON_MAX_DEPTH + 1], *root = NULL;
    char *key[QN_JSON_MAX_DEPTH + 1] = {0};
    size_t key_len[QN_JSON_MAX_DEPTH + 1] = {0};
    int depth = 0;
    qn_json_reader r;
    qn_json_open(&r, text, len);
    while ((*status = qn_json_next(&r, NULL)) == QN_OK && r.kind != QN_JSON_END) {
        json_t *v = NULL;
        switch (r.kind) {
        case QN_JSON_KEY:
            free(key[depth]);
            key[depth] = malloc(r.text.len + 1);
            assert_non_null(key[depth]);
            memcpy(key[depth], r.text.data, r.text.len);
            key_len[depth] = r.text.len;
            continue;
        case QN_JSON_OBJECT_END:
        case QN_JSON_ARRAY_END: depth--; continue;
        case QN_JSON_OBJECT_BEGIN: v = json_object(); break;
        case QN_JSON_ARRAY_BEGIN: v = json_array(); break;
        case QN_JSON_STRING: v = json_stringn_nocheck(r.text.data, r.text.len); break;
        case QN_JSON_NUMBER: v = json_real(r.number); break;
        case QN_JSON_TRUE: v = json_true(); break;
        case QN_JSON_FALSE: v = json_false(); break;
        default: v = json_null(); break;
        }
        if (!v) v = json_null(); // a number out of range: jansson gives an error of its own
        if (depth == 0) {
            root = v;
        } else if (json_is_array(stack[depth])) {
            json_array_append_new(stack[depth], v);
        } else {
            json_object_setn_new_nocheck(stack[depth], key[depth], key_len[depth], v);
        }
        if (r.kind == QN_JSON_OBJECT_BEGIN || r.kind == QN_JSON_ARRAY_BEGIN) stack[++depth] = v;
    }
    for (int i = 0; i <= QN_JSON_MAX_DEPTH; i++) free(key[i]);
    qn_json_close(&r);
    if (*status != QN_OK) {
        json_decref(root);
        return NULL;
    }
    return root;
}

static const char *const seeds[] = {
    "{\"messages\":[{\"role\":\"user\",\"content\":\"What is 2 + 3?\"}],\"stream\":true,\"n\":1}",
    "{\"a\":[1,-2.5,3e4,0.001,-0,1E-3],\"b\":{\"c\":null,\"d\":[true,false,[[],{}]]},\"\":\"\"}",
    "[\"\\u00e9\\ud83d\\ude42\\n\\t\\\\\\\"\\/\",\"\xc3\xa9\xe2\x82\xac\",{\"k\":{\"k\":{\"k\":[1]}}}]",
    "{\"__metadata__\":{\"format\":\"pt\"},\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}}",
};

static size_t mutate(qn_rng *rng, char *text, size_t len, size_t cap) {
    static const char tokens[] = "{}[]:,\"\\0123456789-+.eEtrufalsn \n\t\x80\xff\x01/b";
    uint64_t edits = 1 + qn_rng_below(rng, 3);
    for (uint64_t i = 0; i < edits && len > 0; i++) {
        size_t at = (size_t)qn_rng_below(rng, len);
        char c = tokens[qn_rng_below(rng, sizeof tokens - 1)];
        switch (qn_rng_below(rng, 5)) {
        case 0: text[at] = c; break;
        case 1:
            memmove(text + at, text + at + 1, len - at - 1);
            len--;
            break;
        case 2:
            if (len == cap) break;
            memmove(text + at + 1, text + at, len - at);
            text[at] = c;
            len++;
            break;
        case 3: { // doubles a piece
            size_t n = QN_MIN((size_t)qn_rng_below(rng, 12), QN_MIN(len - at, cap - len));
            memmove(text + at + n, text + at, len - at);
            len += n;
            break;
        }
        default: len = qn_rng_below(rng, 8) ? len : at; break; // cuts it off
        }
    }
    return len;
}

// Both accept or both refuse; and where both accept they read the same values. Left out is what
// jansson refuses for reasons of its own: text that is not UTF-8, lone surrogates, NUL in a name,
// numbers out of a double's range; and what is nested deeper than the reader goes.
static void test_against_jansson(void **state) {
    (void)state;
    const char *env = getenv("QN_SEED");
    uint64_t seed = env ? strtoull(env, NULL, 0) : (uint64_t)time(NULL);
    print_message("QN_SEED=%llu\n", (unsigned long long)seed);
    qn_rng rng = {.key = seed};
    int accepted = 0, refused = 0;
    for (int round = 0; round < 100000; round++) {
        char text[512];
        const char *from = seeds[qn_rng_below(&rng, QN_COUNT(seeds))];
        size_t len = strlen(from);
        memcpy(text, from, len);
        len = mutate(&rng, text, len, sizeof text);
        char *exact = malloc(len ? len : 1);
        assert_non_null(exact);
        memcpy(exact, text, len);
        json_error_t e;
        json_t *theirs = json_loadb(
            exact, len, JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &e);
        enum json_error_code code = theirs ? json_error_unknown : json_error_code(&e);
        qn_status st;
        json_t *ours = build(exact, len, &st);
        bool own_reason = code == json_error_invalid_utf8 || code == json_error_numeric_overflow ||
                          code == json_error_null_byte_in_key || strstr(e.text, "Unicode") ||
                          st == QN_ERR_LIMIT;
        if (!own_reason) {
            if (!theirs != !ours) {
                fail_msg("%.*s: jansson %s, reader %s", (int)len, text,
                         theirs ? "accepts" : e.text, ours ? "accepts" : qn_status_name(st));
            }
            if (theirs && !json_equal(theirs, ours)) fail_msg("%.*s: values differ", (int)len, text);
            accepted += theirs != NULL;
            refused += theirs == NULL;
        }
        json_decref(theirs);
        json_decref(ours);
        free(exact);
    }
    // The comparison has to have had something to compare.
    assert_true(accepted > 5000);
    assert_true(refused > 20000);
}

// The tree refuses what jansson refuses with the same flags, and else reads the same.
static void test_tree_against_jansson(void **state) {
    (void)state;
    const char *env = getenv("QN_SEED");
    qn_rng rng = {.key = env ? strtoull(env, NULL, 0) : (uint64_t)time(NULL)};
    print_message("QN_SEED=%llu\n", (unsigned long long)rng.key);
    int accepted = 0, refused = 0;
    for (int round = 0; round < 50000; round++) {
        char text[512];
        const char *from = seeds[qn_rng_below(&rng, QN_COUNT(seeds))];
        size_t len = strlen(from);
        memcpy(text, from, len);
        len = mutate(&rng, text, len, sizeof text);
        char *exact = malloc(len ? len : 1);
        assert_non_null(exact);
        memcpy(exact, text, len);
        json_error_t e;
        json_t *theirs = json_loadb(exact, len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &e), *ours;
        qn_error err = {0};
        qn_status st = qn_json_tree(exact, len, &ours, &err);
        assert_int_equal(err.status, st);
        if (st != QN_ERR_LIMIT) {
            if ((st == QN_OK) != (theirs != NULL)) {
                fail_msg("%.*s: jansson %s, tree %s", (int)len, text, theirs ? "accepts" : e.text,
                         st == QN_OK ? "accepts" : err.message);
            }
            if (theirs && !json_equal(theirs, ours)) fail_msg("%.*s: values differ", (int)len, text);
            accepted += theirs != NULL;
            refused += theirs == NULL;
        }
        json_decref(theirs);
        json_decref(ours);
        free(exact);
    }
    assert_true(accepted > 2000);
    assert_true(refused > 10000);
}

static void test_tree_errors(void **state) {
    (void)state;
    static const struct {
        const char *text, *what;
    } cases[] = {
        {"", "line 1, column 1: unexpected end"},
        {"{\"a\":1,\n \"a\":2}", "line 2, column 6: a member comes twice"},
        {"[1,\n\n9223372036854775808]", "line 3, column 20: an integer is too big"},
        {"[1e999]", "line 1, column 7: a number is too big"},
        {"[\"\\u0000\"]", "line 1, column 10: a string holds a NUL"},
        {"[\"\\ud800\"]", "line 1, column 10: half of a surrogate pair"},
        {"[\"\xff\"]", "line 1, column 5: a string is not UTF-8"},
        {"{\"\xff\":1}", "line 1, column 6: a string is not UTF-8"},
        {"[] x", "line 1, column 4: text after the document"},
    };
    for (size_t i = 0; i < QN_COUNT(cases); i++) {
        json_t *v;
        qn_error err = {0};
        assert_int_equal(qn_json_tree(cases[i].text, strlen(cases[i].text), &v, &err), QN_ERR_FORMAT);
        assert_null(v);
        assert_string_equal(err.message, cases[i].what);
    }
    static const char least[] = "-9223372036854775808";
    json_t *v;
    assert_int_equal(qn_json_tree(least, sizeof least - 1, &v, NULL), QN_OK);
    assert_true(json_integer_value(v) == INT64_MIN);
    json_decref(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),   cmocka_unit_test(test_strings),
        cmocka_unit_test(test_numbers), cmocka_unit_test(test_depth),
        cmocka_unit_test(test_skip),    cmocka_unit_test(test_against_jansson),
        cmocka_unit_test(test_tree_against_jansson),
        cmocka_unit_test(test_tree_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
