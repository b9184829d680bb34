// SPDX-License-Identifier: Apache-2.0
#include "formats/json_doc.h"

#include "base/json_tree.h"
#include "base/os.h"

#include <stdlib.h>

qn_status qn_json_doc_parse(const char *text, size_t len, const char *file, json_t **out,
                            qn_error *err) {
    qn_error why = {0};
    qn_status st = qn_json_tree(text, len, out, &why);
    return st == QN_OK ? st : qn_fail(err, st, "%s: JSON, %s", file, why.message);
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
