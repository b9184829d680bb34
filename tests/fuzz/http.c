// SPDX-License-Identifier: Apache-2.0
// The HTTP codec, requests and responses: the first byte chooses the side and how the rest is cut
// into pieces; the events must be the same as in one piece.
#include "http/codec.h"

#include <stdint.h>
#include <stdlib.h>

static uint64_t mix(uint64_t h, const void *data, size_t len) {
    const unsigned char *p = data;
    for (size_t i = 0; i < len; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static uint64_t run(bool request, const char *data, size_t len, size_t step) {
    uint64_t h = 0xcbf29ce484222325u, body = h;
    qn_http_parser *p = qn_http_parser_create(request, 4096);
    if (!p) abort();
    for (size_t at = 0; at < len;) {
        size_t n = len - at < step ? len - at : step, done = 0;
        char *piece = malloc(n);
        if (!piece) abort();
        memcpy(piece, data + at, n);
        for (;;) {
            size_t used = 0;
            qn_http_event e = qn_http_parse(p, piece + done, n - done, &used);
            done += used;
            if (done > n) abort();
            if (e == QN_HTTP_NEED_MORE) {
                if (done != n) abort();
                break;
            }
            if (e == QN_HTTP_BODY) {
                qn_str b = qn_http_parser_body(p);
                body = mix(body, b.data, b.len);
                continue;
            }
            h = mix(h, &e, sizeof e);
            if (e == QN_HTTP_HEAD) {
                const qn_http_head *head = qn_http_parser_head(p);
                h = mix(h, head->path.data, head->path.len);
                h = mix(h, &head->status, sizeof head->status);
                for (size_t i = 0; i < head->n_fields; i++) {
                    h = mix(h, head->fields[i].name.data, head->fields[i].name.len);
                    h = mix(h, head->fields[i].value.data, head->fields[i].value.len);
                }
            }
            if (e == QN_HTTP_DONE) qn_http_parser_reset(p);
            if (e == QN_HTTP_BAD) {
                int status = qn_http_parser_status(p);
                h = mix(h, &status, sizeof status);
                free(piece);
                qn_http_parser_destroy(p);
                return h ^ body;
            }
        }
        free(piece);
        at += n;
    }
    qn_http_event e = qn_http_parse_eof(p);
    h = mix(h, &e, sizeof e);
    qn_http_parser_destroy(p);
    return h ^ body;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1 || size > 64 * 1024) return 0;
    bool request = data[0] & 1;
    size_t step = (size_t)(data[0] >> 1) % 64 + 1;
    const char *text = (const char *)data + 1;
    uint64_t whole = run(request, text, size - 1, size);
    if (run(request, text, size - 1, step) != whole) abort();
    return 0;
}
