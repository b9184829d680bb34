// SPDX-License-Identifier: Apache-2.0
// The HTTP codec: a table of good and bad inputs, each in one piece, in every split into two pieces
// and byte by byte; and mutated requests, of which only the absence of a crash is asked and that the
// split does not matter.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/checked.h"
#include "base/philox.h"
#include "http/codec.h"
#include "http/sse.h"

// Runs the parser over data in pieces and writes down what it says: heads, bodies joined, ends.
static void transcript(bool request, uint64_t max_body, const char *data, size_t len,
                       const size_t *cuts, size_t n_cuts, qn_buf *out) {
    qn_http_parser *p = qn_http_parser_create(request, max_body);
    assert_non_null(p);
    size_t begin = 0;
    bool in_body = false;
    for (size_t i = 0; i <= n_cuts; i++) {
        size_t end = i < n_cuts ? cuts[i] : len;
        // A copy of exact size, so that a read past the piece is seen by the address sanitizer.
        char *piece = malloc(end - begin ? end - begin : 1);
        assert_non_null(piece);
        memcpy(piece, data + begin, end - begin);
        size_t at = 0;
        for (;;) {
            size_t used = 0;
            qn_http_event e = qn_http_parse(p, piece + at, end - begin - at, &used);
            at += used;
            if (e == QN_HTTP_NEED_MORE) {
                assert_int_equal(at, end - begin);
                break;
            }
            const qn_http_head *h = qn_http_parser_head(p);
            if (e != QN_HTTP_BODY && in_body) qn_buf_puts(out, "\n");
            if (e == QN_HTTP_HEAD) {
                qn_buf_printf(out, "HEAD %.*s %.*s %d %d %lld %d\n", (int)h->method.len,
                              h->method.data, (int)h->path.len, h->path.data, h->minor, h->status,
                              (long long)h->content_length, h->keep_alive);
                for (size_t f = 0; f < h->n_fields; f++) {
                    qn_buf_append(out, h->fields[f].name.data, h->fields[f].name.len);
                    qn_buf_puts(out, "=");
                    qn_buf_append(out, h->fields[f].value.data, h->fields[f].value.len);
                    qn_buf_puts(out, "\n");
                }
            } else if (e == QN_HTTP_BODY) {
                if (!in_body) qn_buf_puts(out, "BODY ");
                qn_str b = qn_http_parser_body(p);
                assert_true(b.len > 0);
                qn_buf_append(out, b.data, b.len);
                in_body = true;
                continue;
            } else if (e == QN_HTTP_DONE) {
                qn_buf_puts(out, "DONE\n");
                qn_http_parser_reset(p);
            } else {
                qn_buf_printf(out, "BAD %d %s\n", qn_http_parser_status(p),
                              qn_http_parser_reason(p));
                free(piece);
                goto end;
            }
            in_body = false;
        }
        free(piece);
        begin = end;
    }
    if (in_body) qn_buf_puts(out, "\n");
    qn_http_event e = qn_http_parse_eof(p);
    qn_buf_printf(out, "EOF %d\n", (int)e);
end:
    qn_http_parser_destroy(p);
    assert_false(out->failed);
}

static void check_splits(bool request, uint64_t max_body, const char *data, size_t len,
                         const qn_buf *want) {
    qn_buf got = {0};
    for (size_t cut = 0; cut <= len && len <= 2000; cut++) {
        qn_buf_clear(&got);
        transcript(request, max_body, data, len, &cut, 1, &got);
        assert_string_equal(got.data, want->data);
    }
    size_t *cuts = calloc(len + 1, sizeof *cuts);
    assert_non_null(cuts);
    for (size_t i = 0; i < len; i++) cuts[i] = i + 1;
    qn_buf_clear(&got);
    transcript(request, max_body, data, len, cuts, len, &got);
    assert_string_equal(got.data, want->data);
    free(cuts);
    qn_buf_free(&got);
}

#define HOST "Host: a\r\n"

static const struct {
    const char *in;
    const char *want; // a prefix of the transcript
} requests[] = {
    {"GET / HTTP/1.1\r\n" HOST "\r\n", "HEAD GET / 1 0 -1 1\nHost=a\nDONE\nEOF 0\n"},
    {"\r\nGET / HTTP/1.1\r\n" HOST "\r\n", "HEAD GET / 1 0 -1 1\nHost=a\nDONE\n"},
    {"GET /a%20b?x=%31 HTTP/1.0\r\n\r\n", "HEAD GET /a b 0 0 -1 0\nDONE\n"},
    {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "HEAD GET / 0 0 -1 1\n"},
    {"GET / HTTP/1.1\r\n" HOST "Connection: foo , close\r\n\r\n", "HEAD GET / 1 0 -1 0\n"},
    {"POST /x HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n" HOST "\r\n",
     "HEAD POST /x 1 0 5 1\nHost=a\nContent-Length=5\nBODY hello\nDONE\nHEAD GET / 1 0 -1 1\n"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n", "HEAD POST / 1 0 0 1\nHost=a\n"
     "Content-Length=0\nDONE\n"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0A\r\n0123456789\r\n"
     "0\r\n\r\n",
     "HEAD POST / 1 0 -1 1\nHost=a\nTransfer-Encoding=Chunked\nBODY hello0123456789\nDONE\nEOF 0\n"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\nZ:\r\n\r\n",
     "HEAD POST / 1 0 -1 1\nHost=a\nTransfer-Encoding=chunked\nBODY a\nDONE\nEOF 0\n"},
    {"GET http://a/b HTTP/1.1\r\n" HOST "\r\n", "HEAD GET /b 1 0 -1 1\n"},
    {"OPTIONS * HTTP/1.1\r\n" HOST "\r\n", "HEAD OPTIONS * 1 0 -1 1\n"},
    {"GET / HTTP/1.1\r\nhOsT:\t [::1]:8000 \t\r\nX: \x80 y\r\n\r\n",
     "HEAD GET / 1 0 -1 1\nhOsT=[::1]:8000\nX=\x80 y\nDONE\n"},
    {"GET / HTTP/1.1\r\n" HOST "Expect: 100-Continue\r\n\r\n", "HEAD GET"},
    // Cut off.
    {"", "EOF 0\n"},
    {"GET / HT", "EOF 4\n"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhell",
     "HEAD POST / 1 0 5 1\nHost=a\nContent-Length=5\nBODY hell\nEOF 4\n"},
    // Request lines.
    {"GET /\r\n\r\n", "BAD 400 malformed request target"},
    {"GET  / HTTP/1.1\r\n" HOST "\r\n", "BAD 400"},
    {"GET / HTTP/1.1 \r\n" HOST "\r\n", "BAD 400"},
    {"GET / http/1.1\r\n" HOST "\r\n", "BAD 400"},
    {"GET / HTTP/2.0\r\n" HOST "\r\n", "BAD 505"},
    {"GET / HTTP/1.2\r\n" HOST "\r\n", "BAD 505"},
    {"G(T / HTTP/1.1\r\n" HOST "\r\n", "BAD 400"},
    {"ABCDEFGHIJKLMNOPQRSTUVWXYZ / HTTP/1.1\r\n" HOST "\r\n", "BAD 400"},
    {" GET / HTTP/1.1\r\n" HOST "\r\n", "BAD 400"},
    {"\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n", "BAD 400 blank lines"},
    {"GET a HTTP/1.1\r\n" HOST "\r\n", "BAD 400"},
    {"GET * HTTP/1.1\r\n" HOST "\r\n", "BAD 400"},
    {"CONNECT a:80 HTTP/1.1\r\n" HOST "\r\n", "BAD 400"},
    {"GET https://a/ HTTP/1.1\r\n" HOST "\r\n", "BAD 400"},
    {"GET http://b/ HTTP/1.1\r\n" HOST "\r\n", "BAD 400 Host differs"},
    {"GET http://a HTTP/1.1\r\n" HOST "\r\n", "BAD 400"},
    // Paths: one way to write each.
    {"GET //v1 HTTP/1.1\r\n" HOST "\r\n", "BAD 400 an empty segment"},
    {"GET /v1//x HTTP/1.1\r\n" HOST "\r\n", "BAD 400 an empty segment"},
    {"GET /v1/../x HTTP/1.1\r\n" HOST "\r\n", "BAD 400 a dot segment"},
    {"GET /v1/%2e%2E/x HTTP/1.1\r\n" HOST "\r\n", "BAD 400 a dot segment"},
    {"GET /. HTTP/1.1\r\n" HOST "\r\n", "BAD 400 a dot segment"},
    {"GET /v1%2fmodels HTTP/1.1\r\n" HOST "\r\n", "BAD 400 an encoded slash"},
    {"GET /v1%5cmodels HTTP/1.1\r\n" HOST "\r\n", "BAD 400 an encoded slash"},
    {"GET /v1\\models HTTP/1.1\r\n" HOST "\r\n", "BAD 400 a backslash"},
    {"GET /%00 HTTP/1.1\r\n" HOST "\r\n", "BAD 400 an encoded control"},
    {"GET /?a=%00 HTTP/1.1\r\n" HOST "\r\n", "BAD 400 %00"},
    {"GET /%zz HTTP/1.1\r\n" HOST "\r\n", "BAD 400 malformed percent"},
    {"GET /%4 HTTP/1.1\r\n" HOST "\r\n", "BAD 400 malformed percent"},
    {"GET /%ff HTTP/1.1\r\n" HOST "\r\n", "BAD 400 the path is not UTF-8"},
    {"GET /\x80 HTTP/1.1\r\n" HOST "\r\n", "BAD 400"},
    {"GET /#x HTTP/1.1\r\n" HOST "\r\n", "BAD 400 a fragment"},
    // Header lines.
    {"GET / HTTP/1.1\n" HOST "\r\n", "BAD 400 a line feed"},
    {"GET / HTTP/1.1\r\nHost: a\n\r\n", "BAD 400 a line feed"},
    {"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", "BAD 400 a carriage return"},
    {"GET / HTTP/1.1\r\n" HOST "X: a\r\n b\r\n\r\n", "BAD 400 a folded"},
    {"GET / HTTP/1.1\r\n " HOST "\r\n", "BAD 400 a folded"},
    {"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "BAD 400 malformed header"},
    {"GET / HTTP/1.1\r\n" HOST ": a\r\n\r\n", "BAD 400 malformed header"},
    {"GET / HTTP/1.1\r\n" HOST "X\r\n\r\n", "BAD 400 malformed header"},
    {"GET / HTTP/1.1\r\n" HOST "X(: a\r\n\r\n", "BAD 400 malformed header"},
    {"GET / HTTP/1.1\r\n" HOST "X: a\x01\r\n\r\n", "BAD 400 a control"},
    {"GET / HTTP/1.1\r\n" HOST "X: a\x7f\r\n\r\n", "BAD 400 a control"},
    {"GET / HTTP/1.1\r\n\r\n", "BAD 400 no Host"},
    {"GET / HTTP/1.1\r\n" HOST HOST "\r\n", "BAD 400 more than one Host"},
    {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "BAD 400 malformed Host"},
    {"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", "BAD 400 malformed Host"},
    {"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", "BAD 400 malformed Host"},
    {"GET / HTTP/1.1\r\nHost: [x]\r\n\r\n", "BAD 400 malformed Host"},
    {"GET / HTTP/1.1\r\n" HOST "Expect: 200-ok\r\n\r\n", "BAD 417"},
    // Lengths.
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "BAD 400"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 5, 5\r\n\r\nhello", "BAD 400"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: +5\r\n\r\nhello", "BAD 400"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: -5\r\n\r\nhello", "BAD 400"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 0x5\r\n\r\nhello", "BAD 400"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\n", "BAD 400"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 1001\r\n\r\n", "BAD 413"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551617\r\n\r\n", "BAD 413"},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "BAD 400"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
     "BAD 400"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n", "BAD 400"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: identity\r\n\r\n", "BAD 400"},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: \r\n\r\n", "BAD 400"},
    {"POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n", "BAD 400"},
};

#define CHUNKED "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"
static const struct {
    const char *in, *want; // want: the end of the transcript
} chunks[] = {
    {"x\r\n", "BAD 400 malformed chunk size\n"},
    {"\r\n", "BAD 400 malformed chunk size\n"},
    {" 5\r\nhello\r\n", "BAD 400 malformed chunk size\n"},
    {"5 \r\nhello\r\n", "BAD 400 malformed chunk size\n"},
    {"5;a=b\r\nhello\r\n", "BAD 400 malformed chunk size\n"},
    {"5\nhello\r\n", "BAD 400 malformed chunk size\n"},
    {"5\rhello\r\n", "BAD 400 a carriage return without line feed\n"},
    {"5\r\nhelloX", "BAD 400 a chunk longer than its size\n"},
    {"5\r\nhello\n", "BAD 400 a chunk longer than its size\n"},
    {"5\r\nhello\rX", "BAD 400 a carriage return without line feed\n"},
    {"00000000000000005\r\n", "BAD 400 the chunk-size line is too long\n"},
    {"0000000000000001\r\na\r\n0\r\n\r\n", "DONE\nEOF 0\n"},
    {"ffffffffffffffff\r\n", "BAD 413 the body is too large\n"},
    {"3e9\r\n", "BAD 413 the body is too large\n"},
    {"0\r\n a: b\r\n\r\n", "BAD 400 malformed trailer\n"},
    {"0\r\na : b\r\n\r\n", "BAD 400 malformed trailer\n"},
    {"0\r\na: b\n\r\n", "BAD 400 malformed trailer\n"},
    {"0\r\nContent-length: 5\r\n\r\n", "BAD 400 a field that may not be in a trailer\n"},
    {"0\r\n\rX", "BAD 400 a carriage return without line feed\n"},
    {"0\r\n", "EOF 4\n"},
};

static const struct {
    const char *in, *want;
} responses[] = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "HEAD   1 200 2 1\nContent-Length=2\nBODY hi\n"
     "DONE\nEOF 0\n"},
    {"HTTP/1.1 200\r\n\r\nhi", "HEAD   1 200 -1 0\nBODY hi\nEOF 3\n"},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", "HEAD   1 204 -1 1\nDONE\nEOF 0\n"},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
     "HEAD   1 200 -1 1\nTransfer-Encoding=chunked\nBODY hi\nDONE\nEOF 0\n"},
    {"HTTP/1.1 101 Switching\r\n\r\n", "BAD 502"},
    {"HTTP/3 200 OK\r\n\r\n", "BAD 502"},
    {"HTTP/1.1 20 OK\r\n\r\n", "BAD 502"},
    {"ICY 200 OK okay\r\n\r\n", "BAD 502"},
};

static void test_requests(void **state) {
    (void)state;
    for (size_t i = 0; i < QN_COUNT(requests); i++) {
        qn_buf got = {0};
        transcript(true, 1000, requests[i].in, strlen(requests[i].in), NULL, 0, &got);
        if (strncmp(got.data, requests[i].want, strlen(requests[i].want)) != 0) {
            fail_msg("case %zu: %s\ngot:\n%swant:\n%s", i, requests[i].in, got.data,
                     requests[i].want);
        }
        check_splits(true, 1000, requests[i].in, strlen(requests[i].in), &got);
        qn_buf_free(&got);
    }
}

static void test_nul(void **state) {
    (void)state;
    static const char in[] = "GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n";
    qn_buf got = {0};
    transcript(true, 1000, in, sizeof in - 1, NULL, 0, &got);
    assert_string_equal(got.data, "BAD 400 a control character in the header block\n");
    qn_buf_free(&got);
}

static void test_chunks(void **state) {
    (void)state;
    for (size_t i = 0; i < QN_COUNT(chunks); i++) {
        qn_buf in = {0}, got = {0};
        qn_buf_puts(&in, CHUNKED);
        qn_buf_puts(&in, chunks[i].in);
        transcript(true, 1000, in.data, in.len, NULL, 0, &got);
        size_t n = strlen(chunks[i].want);
        if (got.len < n || strcmp(got.data + got.len - n, chunks[i].want) != 0) {
            fail_msg("case %zu: %s\ngot:\n%swant:\n%s", i, chunks[i].in, got.data, chunks[i].want);
        }
        check_splits(true, 1000, in.data, in.len, &got);
        qn_buf_free(&in);
        qn_buf_free(&got);
    }
}

static void test_responses(void **state) {
    (void)state;
    for (size_t i = 0; i < QN_COUNT(responses); i++) {
        qn_buf got = {0};
        transcript(false, 1000, responses[i].in, strlen(responses[i].in), NULL, 0, &got);
        if (strncmp(got.data, responses[i].want, strlen(responses[i].want)) != 0) {
            fail_msg("case %zu: %s\ngot:\n%swant:\n%s", i, responses[i].in, got.data,
                     responses[i].want);
        }
        check_splits(false, 1000, responses[i].in, strlen(responses[i].in), &got);
        qn_buf_free(&got);
    }
}

static void test_limits(void **state) {
    (void)state;
    qn_buf in = {0}, got = {0};
    // 100 lines are the most.
    for (int lines = 99; lines <= 100; lines++) {
        qn_buf_clear(&in);
        qn_buf_clear(&got);
        qn_buf_puts(&in, "GET / HTTP/1.1\r\nHost: a\r\n");
        for (int i = 2; i < lines; i++) qn_buf_printf(&in, "X-%d: y\r\n", i);
        qn_buf_puts(&in, "\r\n");
        transcript(true, 10, in.data, in.len, NULL, 0, &got);
        assert_int_equal(strncmp(got.data, "HEAD", 4), 0);
    }
    qn_buf_clear(&in);
    qn_buf_clear(&got);
    qn_buf_puts(&in, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (int i = 2; i < 101; i++) qn_buf_puts(&in, "X: y\r\n");
    transcript(true, 10, in.data, in.len, NULL, 0, &got);
    assert_string_equal(got.data, "BAD 431 too many header lines\n");
    check_splits(true, 10, in.data, in.len, &got);

    // 32 KiB are the most: exactly fits, and one more.
    for (int extra = 0; extra <= 1; extra++) {
        qn_buf_clear(&in);
        qn_buf_clear(&got);
        qn_buf_puts(&in, "GET / HTTP/1.1\r\nHost: a\r\nX: ");
        while (in.len < (size_t)QN_HTTP_MAX_HEAD - 4 + (size_t)extra) qn_buf_putc(&in, 'a');
        qn_buf_puts(&in, "\r\n\r\n");
        transcript(true, 10, in.data, in.len, NULL, 0, &got);
        assert_int_equal(strncmp(got.data, extra ? "BAD 431" : "HEAD", extra ? 7 : 4), 0);
        check_splits(true, 10, in.data, in.len, &got);
    }

    // A trailer without end.
    qn_buf_clear(&in);
    qn_buf_clear(&got);
    qn_buf_puts(&in, CHUNKED "0\r\nA: ");
    for (int i = 0; i < 10000; i++) qn_buf_putc(&in, 'a');
    transcript(true, 10, in.data, in.len, NULL, 0, &got);
    assert_non_null(strstr(got.data, "BAD 431 the trailer is too large"));
    qn_buf_free(&in);
    qn_buf_free(&got);
}

static void test_mutated(void **state) {
    (void)state;
    static const char alphabet[] = "\r\n :;,/%.\t\0a0fF+-x\x7f\x80";
    qn_rng rng = {.key = 7};
    size_t bad = 0, good = 0;
    for (int round = 0; round < 6000; round++) {
        const char *base = round % 3 == 2 ? CHUNKED "5\r\nhello\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"
                                          : requests[qn_rng_below(&rng, 13)].in;
        size_t len = strlen(base);
        char data[512];
        memcpy(data, base, len);
        for (uint64_t n = 1 + qn_rng_below(&rng, 3); n-- && len;) {
            size_t at = (size_t)qn_rng_below(&rng, len);
            char c = alphabet[qn_rng_below(&rng, sizeof alphabet - 1)];
            switch (qn_rng_below(&rng, 4)) {
            case 0:
                data[at] = c;
                break;
            case 1:
                memmove(data + at, data + at + 1, --len - at);
                break;
            case 2:
                memmove(data + at + 1, data + at, len++ - at);
                data[at] = c;
                break;
            default: { // a piece again
                size_t piece = (size_t)qn_rng_below(&rng, QN_MIN(len - at, (size_t)20)) + 1;
                piece = QN_MIN(piece, len - at);
                if (len + piece > sizeof data) break;
                memmove(data + at + piece, data + at, len - at);
                len += piece;
                break;
            }
            }
        }
        qn_buf want = {0}, got = {0};
        transcript(true, 1000, data, len, NULL, 0, &want);
        size_t cuts[3];
        for (size_t i = 0; i < 3; i++) cuts[i] = (size_t)qn_rng_below(&rng, len + 1);
        for (size_t i = 0; i < 2; i++) {
            for (size_t j = 0; j < 2; j++) {
                if (cuts[j] > cuts[j + 1]) {
                    size_t t = cuts[j];
                    cuts[j] = cuts[j + 1];
                    cuts[j + 1] = t;
                }
            }
        }
        transcript(true, 1000, data, len, cuts, 3, &got);
        assert_int_equal(got.len, want.len);
        assert_memory_equal(got.data, want.data, want.len);
        if (strstr(want.data, "BAD")) bad++;
        else good++;
        qn_buf_free(&want);
        qn_buf_free(&got);
    }
    // Both kinds must be there, or the mutations test nothing.
    assert_true(bad > 1000 && good > 100);
}

static void collect(void *user, qn_str name, qn_str data) {
    qn_buf *out = user;
    qn_buf_printf(out, "[%.*s|%.*s]", (int)name.len, name.data ? name.data : "", (int)data.len,
                  data.data ? data.data : "");
}

static void test_sse(void **state) {
    (void)state;
    static const char in[] = ": comment\n\ndata: one\n\nevent: e\r\ndata:two\r\ndata: three\r\n\r\n"
                             "id: 5\rdata\r\rretry: 1\n\ndata: [DONE]\n\ndata: cut";
    static const char want[] = "[|one][e|two\nthree][|][|[DONE]]";
    for (size_t cut = 0; cut < sizeof in; cut++) {
        qn_sse s = {0};
        qn_buf out = {0};
        assert_int_equal(qn_sse_feed(&s, in, cut, collect, &out, NULL), QN_OK);
        assert_int_equal(qn_sse_feed(&s, in + cut, sizeof in - 1 - cut, collect, &out, NULL), QN_OK);
        assert_string_equal(out.data, want);
        qn_buf_free(&out);
        qn_sse_free(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests), cmocka_unit_test(test_nul),
        cmocka_unit_test(test_chunks),   cmocka_unit_test(test_responses),
        cmocka_unit_test(test_limits),   cmocka_unit_test(test_mutated),
        cmocka_unit_test(test_sse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
