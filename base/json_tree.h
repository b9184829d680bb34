// SPDX-License-Identifier: Apache-2.0
// A JSON text as jansson values. jansson's own parser is not used: it goes on with a cut-off text when
// an allocation fails (it may then read past its end), it recurses, and it cannot say what failed.
#ifndef QN_BASE_JSON_TREE_H
#define QN_BASE_JSON_TREE_H

#include "base/status.h"

#include <jansson.h>
#include <stddef.h>

// Parses len bytes; *out is a new reference, to a value of any kind. Refuses duplicate members, text
// behind the document, strings that are not UTF-8 or hold a NUL, halves of surrogate pairs, whole
// numbers past 64 bits and others past a double's range (QN_ERR_FORMAT, with line and column), nesting
// deeper than QN_JSON_MAX_DEPTH (QN_ERR_LIMIT). QN_ERR_NOMEM.
qn_status qn_json_tree(const char *text, size_t len, json_t **out, qn_error *err);

// A copy of an object or array that shares the members' values. NULL: out of memory, or neither of the
// two. (json_copy leaves members out when an allocation fails.)
json_t *qn_json_copy(const json_t *value);

#endif
