// SPDX-License-Identifier: Apache-2.0
// A Hugging Face model directory: config.json and its companions, read and bounded.
#ifndef QN_FORMATS_HF_DIR_H
#define QN_FORMATS_HF_DIR_H

#include "base/buf.h"
#include "base/status.h"

#include <jansson.h>

typedef struct qn_hf_dir {
    char *path;
    json_t *config;                 // config.json, an object; always there
    json_t *generation_config;      // NULL where absent
    json_t *tokenizer_config;       // NULL where absent (at most 4 MB read)
    char *chat_template;            // chat_template.jinja, else tokenizer_config's; NULL if none
} qn_hf_dir;

// Opens a directory. config.json at most 1 MB; depth at most 64, duplicate members refused. Where
// tokenizer_config has a list of named templates, the one named "default" is taken.
qn_status qn_hf_dir_open(const char *path, qn_hf_dir **out, qn_error *err);
void qn_hf_dir_close(qn_hf_dir *dir);

// Members of an object with checks; errors name file and member. Absent or null: *out keeps its
// value and QN_OK returns, unless required.
qn_status qn_json_i64(const json_t *obj, const char *file, const char *key, bool required,
                      int64_t min, int64_t max, int64_t *out, qn_error *err);
qn_status qn_json_f64(const json_t *obj, const char *file, const char *key, bool required,
                      double *out, qn_error *err);
qn_status qn_json_bool(const json_t *obj, const char *file, const char *key, bool required,
                       bool *out, qn_error *err);

#endif
