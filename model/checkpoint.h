// SPDX-License-Identifier: Apache-2.0
// The tensors of a model file, GGUF or safetensors, behind one interface.
#ifndef QN_MODEL_CHECKPOINT_H
#define QN_MODEL_CHECKPOINT_H

#include "formats/gguf.h"
#include "formats/safetensors.h"

typedef struct qn_checkpoint { // exactly one of the two is set
    qn_gguf *gguf;
    qn_safetensors *st;
} qn_checkpoint;

typedef struct qn_checkpoint_tensor {
    const char *file;      // for errors
    const char *type_name; // for errors
    bool known;            // type is set
    qn_dtype type;
    uint32_t n_dims;
    int64_t n_rows, n_cols; // n_cols contiguous; a vector has n_rows 1
    uint64_t row_bytes;     // 0 where not known
    const qn_gguf_tensor *gguf;
    const qn_st_tensor *st;
} qn_checkpoint_tensor;

// False: there is no such tensor.
bool qn_checkpoint_find(const qn_checkpoint *c, const char *name, qn_checkpoint_tensor *t);
size_t qn_checkpoint_count(const qn_checkpoint *c);
const char *qn_checkpoint_name_at(const qn_checkpoint *c, size_t i);
qn_status qn_checkpoint_read(const qn_checkpoint *c, const qn_checkpoint_tensor *t, int64_t row,
                             int64_t n_rows, void *dst, qn_error *err);
void qn_checkpoint_release(const qn_checkpoint *c, const qn_checkpoint_tensor *t);
void qn_checkpoint_close(qn_checkpoint *c);

#endif
