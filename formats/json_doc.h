// SPDX-License-Identifier: Apache-2.0
// Small JSON texts as jansson documents. For large texts: base/json_reader.h.
#ifndef QN_FORMATS_JSON_DOC_H
#define QN_FORMATS_JSON_DOC_H

#include "base/status.h"

#include <jansson.h>
#include <stddef.h>

// Parses len bytes. Refuses nesting deeper than 64 (QN_ERR_LIMIT), duplicate members, text after
// the document, bytes that are not UTF-8 (QN_ERR_FORMAT). Errors begin with `file` and name line
// and column. *out is a new reference.
qn_status qn_json_doc_parse(const char *text, size_t len, const char *file, json_t **out,
                            qn_error *err);
// Reads and parses a file of at most `limit` bytes.
qn_status qn_json_doc_read(const char *path, size_t limit, json_t **out, qn_error *err);

#endif
