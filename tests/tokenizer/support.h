// SPDX-License-Identifier: Apache-2.0
// What the tokenizer tests share: tokenizers of the goldens, random text.
#ifndef QN_TESTS_TOKENIZER_SUPPORT_H
#define QN_TESTS_TOKENIZER_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/os.h"
#include "base/checked.h"
#include "base/philox.h"
#include "base/utf8.h"
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>

static inline qn_tokenizer *open_golden(const char *name) {
    char path[1024], *data = NULL;
    size_t len;
    qn_error err = {0};
    qn_tokenizer *t = NULL;
    snprintf(path, sizeof path, QN_SOURCE_DIR "/tests/tokenizer/goldens/%s.json", name);
    if (qn_os_read_file(path, 16 << 20, &data, &len, &err) != QN_OK) fail_msg("%s", err.message);
    if (qn_tokenizer_from_json_memory(data, len, NULL, &t, &err) != QN_OK) {
        fail_msg("%s: %s", name, err.message);
    }
    free(data);
    return t;
}

// A code point from the corners that matter: ASCII of the patterns, marks, spaces, digits, scripts.
static inline uint32_t random_code_point(qn_rng *rng) {
    static const char common[] = "aAsStTmMdDlLrReEvV''''0123456789   \t\r\n\n.,!?-/_<>|";
    static const uint32_t odd[] = {0x17f,  0xa0,   0x85,   0x2028, 0x2003, 0x3000,  0x180e,
                                   0x200b, 0x200d, 0x301,  0x323,  0xfe0f, 0xb2,    0xbd,
                                   0x661,  0x966,  0x2167, 0x4e2d, 0xac00, 0x1f642, 0x1f3fd,
                                   0x5d0,  0x627,  0xe01,  0xe9,   0x1c5};
    uint64_t kind = qn_rng_below(rng, 10);
    if (kind < 6) return (uint32_t)common[qn_rng_below(rng, sizeof common - 1)];
    if (kind < 8) return odd[qn_rng_below(rng, sizeof odd / sizeof *odd)];
    if (kind < 9) return (uint32_t)qn_rng_below(rng, 0x800);
    uint32_t cp = (uint32_t)qn_rng_below(rng, 0x110000);
    return cp >= 0xd800 && cp < 0xe000 ? 'x' : cp;
}

static inline void random_text(qn_rng *rng, size_t code_points, qn_buf *out) {
    char utf8[4];
    qn_buf_clear(out);
    for (size_t i = 0; i < code_points; i++) {
        qn_buf_append(out, utf8, qn_utf8_encode(random_code_point(rng), utf8));
    }
}

static inline void tokenize_plain(const qn_tokenizer *t, const char *text, size_t len,
                                  qn_ids *ids) {
    const qn_text_span plain = {len, false};
    qn_error err = {0};
    ids->len = 0;
    if (qn_tokenize(t, text, len, &plain, 1, false, 0, ids, &err) != QN_OK) {
        fail_msg("%s", err.message);
    }
}

#endif
