// SPDX-License-Identifier: Apache-2.0
// Buffers, escapes and UTF-8: against Python's facts (facts.h), and exhaustively.
#include "base/buf.h"
#include "base/checked.h"
#include "base/philox.h"
#include "base/utf8.h"
#include "tests/base/facts.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
// cmocka last: it needs the headers above.
#include <cmocka.h>

static bool is_scalar(uint32_t cp) { return cp < 0xd800 || (cp > 0xdfff && cp < 0x110000); }

// The encoder gives what Python gives for every code point, and decode undoes it.
static void test_utf8_every_code_point(void **state) {
    (void)state;
    uint64_t fnv = 0xcbf29ce484222325u, bytes = 0;
    for (uint32_t cp = 0; cp < 0x110010; cp++) {
        char s[4];
        size_t n = qn_utf8_encode(cp, s);
        if (!is_scalar(cp)) {
            assert_int_equal(n, 0);
            continue;
        }
        assert_in_range(n, 1, 4);
        for (size_t i = 0; i < n; i++) fnv = (fnv ^ (unsigned char)s[i]) * 0x100000001b3u;
        bytes += n;
        uint32_t back = 0;
        assert_int_equal(qn_utf8_decode(s, n, &back), n);
        assert_int_equal(back, cp);
        assert_true(qn_utf8_valid(s, n));
        assert_int_equal(qn_utf8_incomplete_tail(s, n), 0);
        for (size_t cut = 1; cut < n; cut++) {
            assert_int_equal(qn_utf8_decode(s, cut, &back), 0);
            assert_int_equal(qn_utf8_incomplete_tail(s, cut), cut);
        }
    }
    assert_int_equal(qn_utf8_encode(UINT32_MAX, (char[4]){0}), 0);
    assert_true(fnv == fact_utf8_fnv);
    assert_true(bytes == fact_utf8_bytes);
}

// Whatever decodes is what the encoder writes for it: so nothing overlong, no surrogate, nothing past
// U+10FFFF gets through. All strings of up to three bytes; of four, all leads and second bytes with
// the others at the borders.
static void test_utf8_decodes_only_what_encodes(void **state) {
    (void)state;
    static const unsigned char edges[] = {0x00, 0x7f, 0x80, 0x81, 0xbe, 0xbf, 0xc0, 0xff};
    uint64_t accepted = 0;
    for (uint32_t x = 0; x < 1u << 24; x++) {
        const char s[3] = {(char)(x >> 16), (char)(x >> 8), (char)x};
        uint32_t cp = 0;
        size_t n = qn_utf8_decode(s, 3, &cp);
        if (n == 0) continue;
        char again[4];
        if (n > 3 || qn_utf8_encode(cp, again) != n || memcmp(again, s, n) != 0) {
            fail_msg("%06x decodes to %x", x, cp);
        }
        if (n == 3) accepted++;
    }
    assert_int_equal(accepted, 0x10000 - 0x800 - 0x800); // code points of three bytes
    for (uint32_t x = 0; x < 1u << 16; x++) {
        for (size_t k = 0; k < QN_COUNT(edges) * QN_COUNT(edges); k++) {
            const char s[4] = {(char)(x >> 8), (char)x, (char)edges[k / QN_COUNT(edges)],
                               (char)edges[k % QN_COUNT(edges)]};
            uint32_t cp = 0;
            char again[4];
            size_t n = qn_utf8_decode(s, 4, &cp);
            if (n && (qn_utf8_encode(cp, again) != n || memcmp(again, s, n) != 0)) {
                fail_msg("%04x %02x %02x decodes to %x", x, s[2] & 255, s[3] & 255, cp);
            }
        }
    }
}

// The tail that is held back is exactly one that some continuation completes: for every string of up
// to three bytes, against the set of all proper prefixes of all code points.
static void test_utf8_incomplete_tail(void **state) {
    (void)state;
    unsigned char *prefixes = calloc((1u << 24) / 8 * 2, 1); // indexed by a 1 bit and the bytes
    assert_non_null(prefixes);
    for (uint32_t cp = 0x80; cp < 0x110000; cp++) {
        char s[4];
        size_t n = qn_utf8_encode(cp, s);
        uint32_t x = 1;
        for (size_t i = 0; i + 1 < n; i++) {
            x = x << 8 | (unsigned char)s[i];
            prefixes[x / 8] |= (unsigned char)(1u << (x % 8));
        }
    }
    for (uint32_t x = 0; x < 1u << 24; x++) {
        const char s[3] = {(char)(x >> 16), (char)(x >> 8), (char)x};
        size_t want = 0;
        for (size_t k = 1; k <= 3; k++) {
            uint32_t index = 1u << (8 * k) | (x & ((1u << (8 * k)) - 1));
            if (prefixes[index / 8] >> (index % 8) & 1) want = k;
        }
        size_t got = qn_utf8_incomplete_tail(s, 3);
        if (got != want) fail_msg("%06x: %zu, expected %zu", x, got, want);
    }
    free(prefixes);
    assert_int_equal(qn_utf8_incomplete_tail("", 0), 0);
}

static void test_buf_grows_and_is_terminated(void **state) {
    (void)state;
    qn_buf b = {0};
    char want[3000];
    for (size_t i = 0; i < sizeof want; i++) {
        want[i] = (char)('a' + i % 26);
        assert_true(qn_buf_putc(&b, want[i]));
        assert_int_equal(b.data[b.len], '\0');
    }
    assert_int_equal(b.len, sizeof want);
    assert_memory_equal(b.data, want, sizeof want);
    qn_buf_consume(&b, 1000);
    assert_int_equal(b.len, 2000);
    assert_memory_equal(b.data, want + 1000, 2000);
    qn_buf_consume(&b, 5000);
    assert_int_equal(b.len, 0);
    assert_true(qn_buf_printf(&b, "%s-%d-%0300d", "x", 7, 1));
    assert_int_equal(b.len, 304);
    assert_int_equal(strlen(b.data), 304);
    assert_true(qn_buf_append(&b, NULL, 0));
    assert_true(qn_str_is((qn_str){b.data, 4}, "x-7-"));
    qn_buf_free(&b);
    assert_null(b.data);
}

static void test_buf_limit_sticks(void **state) {
    (void)state;
    qn_buf b = {.limit = 10};
    assert_true(qn_buf_puts(&b, "0123456789"));
    assert_false(qn_buf_putc(&b, 'x'));
    assert_true(b.failed);
    assert_false(qn_buf_puts(&b, ""));
    assert_int_equal(b.len, 10);
    qn_buf_clear(&b);
    assert_true(qn_buf_puts(&b, "again"));
    assert_false(qn_buf_reserve(&b, SIZE_MAX - 2)); // overflow, not a huge allocation
    qn_buf_free(&b);
}

// Every string that is written reads back, in an independent reader, as itself.
static void test_json_string_reads_back(void **state) {
    (void)state;
    qn_rng rng = {.key = 11};
    for (int round = 0; round < 3000; round++) {
        char text[64];
        size_t len = 0;
        while (len < sizeof text - 4 && qn_rng_below(&rng, 20) != 0) {
            static const uint32_t ranges[] = {0x20, 0x80, 0x800, 0x3000, 0x110000};
            uint32_t cp = (uint32_t)qn_rng_below(&rng, ranges[qn_rng_below(&rng, 5)]);
            len += qn_utf8_encode(cp, text + len);
        }
        qn_buf b = {0};
        assert_true(qn_buf_json_string(&b, text, len));
        json_error_t e;
        json_t *v = json_loadb(b.data, b.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
        if (!v) fail_msg("%s: %s", b.data, e.text);
        assert_int_equal(json_string_length(v), len);
        assert_memory_equal(json_string_value(v), text, len);
        json_decref(v);
        qn_buf_free(&b);
    }
}

static void expect_json(const char *in, size_t len, const char *want) {
    qn_buf b = {0};
    assert_true(qn_buf_json_string(&b, in, len));
    assert_string_equal(b.data, want);
    qn_buf_free(&b);
}

static void test_json_string_escapes(void **state) {
    (void)state;
    expect_json(NULL, 0, "\"\"");
    expect_json("a\"b\\c/\n\r\t\b\x1f\x7f", 12, "\"a\\\"b\\\\c/\\n\\r\\t\\u0008\\u001f\\u007f\"");
    expect_json("\0x", 2, "\"\\u0000x\"");
    expect_json("\xff", 1, "\"\xEF\xBF\xBD\"");
    expect_json("a\xe2\x82", 3, "\"a\xEF\xBF\xBD\xEF\xBF\xBD\"");
    expect_json("\xc3\xa9", 2, "\"\xc3\xa9\"");
}

static void expect_visible(const char *in, size_t len, bool keep, const char *want) {
    qn_buf b = {0};
    assert_true(qn_buf_visible(&b, in, len, keep));
    assert_string_equal(b.data ? b.data : "", want);
    qn_buf_free(&b);
}

static void test_visible(void **state) {
    (void)state;
    expect_visible("", 0, false, "");
    expect_visible("plain \xc3\xa9 \xf0\x9f\x99\x82", 13, false, "plain \xc3\xa9 \xf0\x9f\x99\x82");
    expect_visible("\x1b[31mred\a\r\n\t", 12, false, "\\x1b[31mred\\x07\\r\\n\\t");
    expect_visible("a\n\tb\r", 5, true, "a\n\tb\\r");
    expect_visible("\x7f\x80\xc2\x9b", 4, true, "\\x7f\\x80\\u009b");        // C1 CSI
    expect_visible("\xe2\x80\xae\xe2\x81\xa6", 6, true, "\\u202e\\u2066"); // bidi overrides
}

// Whatever goes in, no byte comes out that a terminal takes as a command.
static void test_visible_is_safe(void **state) {
    (void)state;
    qn_rng rng = {.key = 12};
    for (int round = 0; round < 3000; round++) {
        char in[48];
        size_t len = (size_t)qn_rng_below(&rng, sizeof in + 1);
        for (size_t i = 0; i < len; i++) in[i] = (char)qn_rng_next(&rng);
        qn_buf b = {0};
        assert_true(qn_buf_visible(&b, in, len, true));
        assert_true(qn_utf8_valid(b.data ? b.data : "", b.len));
        for (size_t i = 0; i < b.len;) {
            uint32_t cp = 0;
            i += qn_utf8_decode(b.data + i, b.len - i, &cp);
            assert_true(cp == '\n' || cp == '\t' || (cp >= 0x20 && (cp < 0x7f || cp > 0x9f)));
        }
        qn_buf_free(&b);
    }
}

static void test_grow(void **state) {
    (void)state;
    int *v = NULL;
    size_t cap = 0;
    for (size_t n = 0; n < 1000; n++) {
        assert_true(qn_grow(&v, &cap, n + 1, sizeof *v));
        assert_true(cap > n);
        v[n] = (int)n;
    }
    assert_true(cap <= 2048); // doubling, not more
    for (size_t n = 0; n < 1000; n++) assert_int_equal(v[n], n);
    size_t old = cap;
    assert_false(qn_grow(&v, &cap, SIZE_MAX / 2, sizeof *v));
    assert_int_equal(cap, old);
    free(v);
}

static void test_checked(void **state) {
    (void)state;
    size_t out;
    assert_true(qn_align_size(17, 16, &out) && out == 32);
    assert_true(qn_align_size(32, 16, &out) && out == 32);
    assert_true(qn_align_size(0, 16, &out) && out == 0);
    assert_false(qn_align_size(SIZE_MAX - 3, 16, &out));
    assert_false(qn_mul_size(SIZE_MAX / 2 + 1, 2, &out));
    int64_t i;
    assert_false(qn_mul_i64(INT64_MIN, -1, &i));
    assert_true(qn_mul_i64(-3, 4, &i) && i == -12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8_every_code_point),
        cmocka_unit_test(test_utf8_decodes_only_what_encodes),
        cmocka_unit_test(test_utf8_incomplete_tail),
        cmocka_unit_test(test_buf_grows_and_is_terminated),
        cmocka_unit_test(test_buf_limit_sticks),
        cmocka_unit_test(test_json_string_reads_back),
        cmocka_unit_test(test_json_string_escapes),
        cmocka_unit_test(test_visible),
        cmocka_unit_test(test_visible_is_safe),
        cmocka_unit_test(test_grow),
        cmocka_unit_test(test_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
