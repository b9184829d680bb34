// SPDX-License-Identifier: Apache-2.0
// A pull reader over a JSON text in memory, for files too large or too hostile for a document tree
// (tokenizer.json, safetensors headers). No allocation but for strings with escapes and numbers of
// 64 characters or more, no recursion. For requests and small configurations: base/json_tree.h.
#ifndef QN_BASE_JSON_READER_H
#define QN_BASE_JSON_READER_H

#include "base/buf.h"
#include "base/status.h"

#include <stdint.h>

typedef enum qn_json_kind {
    QN_JSON_END, // end of the text
    QN_JSON_OBJECT_BEGIN,
    QN_JSON_OBJECT_END,
    QN_JSON_ARRAY_BEGIN,
    QN_JSON_ARRAY_END,
    QN_JSON_KEY,    // text: the member's name
    QN_JSON_STRING, // text: the value, escapes resolved
    QN_JSON_NUMBER, // text: as written; number: its value
    QN_JSON_TRUE,
    QN_JSON_FALSE,
    QN_JSON_NULL,
} qn_json_kind;

enum { QN_JSON_MAX_DEPTH = 64 };

typedef struct qn_json_reader {
    const char *start, *p, *end;
    qn_json_kind kind; // of the token last read
    qn_str text;       // valid until the next call
    double number;
    int depth;
    bool half_surrogate; // in the text: an escape of one became U+FFFD
    const char *problem; // after QN_ERR_FORMAT: what it is, without the place
    // Private: what is open at each depth, whether a value or a comma is due, unescaped text.
    char open[QN_JSON_MAX_DEPTH];
    int state;
    qn_buf scratch;
} qn_json_reader;

void qn_json_open(qn_json_reader *r, const char *data, size_t len);
void qn_json_close(qn_json_reader *r);
// Reads one token. Errors: QN_ERR_FORMAT with the byte offset, QN_ERR_LIMIT past the depth, NOMEM.
// A lone surrogate escape becomes U+FFFD. Raw bytes must be UTF-8 only as far as strings need it:
// the caller checks where it matters.
qn_status qn_json_next(qn_json_reader *r, qn_error *err);
// With the token just read being a KEY or the begin of a container or a scalar: skips the value
// (after a KEY, the value that follows; after a begin, up to its end; a scalar is already past).
qn_status qn_json_skip(qn_json_reader *r, qn_error *err);

#endif
