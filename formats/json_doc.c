// SPDX-License-Identifier: Apache-2.0
#include "formats/json_doc.h"

#include "base/buf.h"
#include "base/json_reader.h"
#include "base/os.h"

#include <stdlib.h>

// The deepest nesting of brackets outside of strings, counted no further than `limit` + 1.
static int nesting(const char *text, size_t len, int limit) {
    int depth = 0, deepest = 0;
    bool in_string = false;
    for (size_t i = 0; i < len && deepest <= limit; i++) {
        char c = text[i];
        if (in_string) {
            if (c == '\\') {
                i++;
            } else if (c == '"') {
                in_string = false;
            }
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > deepest) deepest = depth;
        } else if (c == '}' || c == ']') {
            depth--;
        }
    }
    return deepest;
}

qn_status qn_json_doc_parse(const char *text, size_t len, const char *file, json_t **out,
                            qn_error *err) {
    *out = NULL;
    if (nesting(text, len, QN_JSON_MAX_DEPTH) > QN_JSON_MAX_DEPTH) {
        return qn_fail(err, QN_ERR_LIMIT, "%s: JSON nested deeper than %d", file,
                       QN_JSON_MAX_DEPTH);
    }
    json_error_t problem;
    json_t *doc = json_loadb(text, len, JSON_REJECT_DUPLICATES, &problem);
    if (!doc) {
        // The text may quote bytes of the document.
        qn_buf reason = {0};
        qn_buf_visible(&reason, problem.text, strlen(problem.text), false);
        qn_status st = json_error_code(&problem) == json_error_out_of_memory ? QN_ERR_NOMEM
                                                                             : QN_ERR_FORMAT;
        qn_fail(err, st, "%s: JSON, line %d, column %d: %s", file, problem.line, problem.column,
                reason.data ? reason.data : "malformed");
        qn_buf_free(&reason);
        return st;
    }
    *out = doc;
    return QN_OK;
}

qn_status qn_json_doc_read(const char *path, size_t limit, json_t **out, qn_error *err) {
    *out = NULL;
    char *text;
    size_t len;
    qn_status st = qn_os_read_file(path, limit, &text, &len, err);
    if (st != QN_OK) return st;
    st = qn_json_doc_parse(text, len, path, out, err);
    free(text);
    return st;
}
