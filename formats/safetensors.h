// SPDX-License-Identifier: Apache-2.0
// safetensors files: one, or the shards that model.safetensors.index.json names. Bounded as gguf.h:
// header at most 100 MB, offsets inside the file, no overlap, shape product equal to the extent,
// shard names confined to the directory (no '/', no "..").
#ifndef QN_FORMATS_SAFETENSORS_H
#define QN_FORMATS_SAFETENSORS_H

#include "base/status.h"
#include "formats/gguf.h" // QN_TENSOR_MAX_DIMS
#include "quant/dtype.h"

typedef struct qn_safetensors qn_safetensors;

typedef struct qn_st_tensor {
    const char *name;
    const char *dtype; // as written: "F32", "BF16", "I32", ...
    bool known;        // type below is one of qn_dtype (F32, F16, BF16)
    qn_dtype type;
    uint32_t n_dims;
    uint64_t dims[QN_TENSOR_MAX_DIMS]; // as written: row-major, the LAST is contiguous
    uint32_t file;                     // which shard
    uint64_t offset;                   // absolute, in that file
    uint64_t size;                     // bytes
} qn_st_tensor;

// dir holds model.safetensors, or model.safetensors.index.json and its shards; or it is one file.
qn_status qn_safetensors_open(const char *dir, qn_safetensors **out, qn_error *err);
// One file (for tests and fuzzing: bytes in memory, not copied).
qn_status qn_safetensors_open_memory(const void *data, size_t size, const char *name,
                                     qn_safetensors **out, qn_error *err);
void qn_safetensors_close(qn_safetensors *s);
size_t qn_safetensors_count(const qn_safetensors *s);
const qn_st_tensor *qn_safetensors_at(const qn_safetensors *s, size_t i);
const qn_st_tensor *qn_safetensors_find(const qn_safetensors *s, const char *name);
const char *qn_safetensors_file(const qn_safetensors *s, uint32_t file); // path of a shard
qn_status qn_safetensors_read(const qn_safetensors *s, const qn_st_tensor *t, uint64_t offset,
                              void *dst, size_t size, qn_error *err);
void qn_safetensors_release(const qn_safetensors *s, const qn_st_tensor *t);

#endif
