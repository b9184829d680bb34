// SPDX-License-Identifier: Apache-2.0
// A model: its files, its architecture, its op program, and where the weights come from.
#ifndef QN_MODEL_MODEL_H
#define QN_MODEL_MODEL_H

#include "backend/backend.h"
#include "backend/program.h"
#include "base/log.h"
#include "base/status.h"
#include "tokenizer/tokenizer.h"

typedef struct qn_model qn_model;

typedef struct qn_model_info {
    char name[128];         // general.name, else the path's last part; printable
    char architecture[32];  // "qwen3"
    int32_t context_length; // what the model was made for
    int32_t vocab_size;
    uint64_t n_params, weight_bytes; // of the program's weights, as stored
    bool has_temperature, has_top_k, has_top_p, has_min_p; // generation_config.json
    float temperature, top_p, min_p;
    int32_t top_k;
    float repetition_penalty; // of the same file; 0: not there
    int32_t max_new_tokens;   // of the same; 0: not there
} qn_model_info;

// Opens a GGUF file or a Hugging Face directory, reads the metadata, checks every tensor the program
// needs (missing or wrongly shaped ones are named with both shapes; extra ones are warned of), and
// builds the program. No weight is read yet.
qn_status qn_model_open(const char *path, const qn_log *log, qn_model **out, qn_error *err);
void qn_model_close(qn_model *m);
const qn_model_info *qn_model_get_info(const qn_model *m);
const qn_program *qn_model_program(const qn_model *m); // lives as long as the model
qn_weight_source qn_model_weights(qn_model *m);        // likewise
const char *qn_model_chat_template(const qn_model *m); // NULL: none
qn_status qn_model_tokenizer(const qn_model *m, const qn_log *log, qn_tokenizer **out,
                             qn_error *err);
// Closes the files once weights, tokenizer and template have been taken.
void qn_model_drop_files(qn_model *m);

#endif
