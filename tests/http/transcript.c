// SPDX-License-Identifier: Apache-2.0
// Reads inputs from stdin, each a 4-byte little-endian length and so many bytes, and prints what the
// codec makes of each as one line: for every request "method target host body-in-hex;", then "bad
// STATUS", "open" (in the middle of a request) or "end". For test_h11.py.
#include <stdio.h>
#include <stdlib.h>

#include "http/codec.h"

static void put(qn_str s) {
    for (size_t i = 0; i < s.len; i++) printf("%02x", (unsigned char)s.data[i]);
}

static void run(const char *data, size_t len) {
    qn_http_parser *p = qn_http_parser_create(true, 1 << 20);
    qn_buf body = {0};
    if (!p) exit(1);
    for (size_t at = 0;;) {
        size_t used = 0;
        qn_http_event e = qn_http_parse(p, data + at, len - at, &used);
        at += used;
        if (e == QN_HTTP_NEED_MORE) {
            printf(qn_http_parser_started(p) ? "open\n" : "end\n");
            break;
        }
        if (e == QN_HTTP_BAD) {
            printf("bad %d\n", qn_http_parser_status(p));
            break;
        }
        if (e == QN_HTTP_BODY) {
            qn_str b = qn_http_parser_body(p);
            qn_buf_append(&body, b.data, b.len);
        }
        if (e == QN_HTTP_DONE) {
            const qn_http_head *h = qn_http_parser_head(p);
            put(h->method);
            putchar(' ');
            put(h->target);
            printf(" %d %zu ", h->minor, h->n_fields);
            put(qn_buf_str(&body));
            putchar(';');
            qn_buf_clear(&body);
            qn_http_parser_reset(p);
        }
    }
    qn_buf_free(&body);
    qn_http_parser_destroy(p);
}

int main(void) {
    unsigned char size[4];
    while (fread(size, 1, 4, stdin) == 4) {
        size_t len = size[0] | (size_t)size[1] << 8 | (size_t)size[2] << 16;
        char *data = malloc(len ? len : 1);
        if (!data || fread(data, 1, len, stdin) != len) return 1;
        run(data, len);
        free(data);
    }
    return 0;
}
