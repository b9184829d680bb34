// SPDX-License-Identifier: Apache-2.0
// GGUF v2/v3: a bounded reader over a mapped file, and a writer.
//
// Reader invariants:
// 1. Metadata (everything before the tensor data) is read with read() into memory of ours at
//    open: no pointer that the reader hands out can fault if the file changes later.
// 2. After a successful open every count, length, type and extent has been checked: names are
//    unique and NUL-free, tensor extents lie inside the file and do not overlap, sizes do not
//    overflow.
// 3. Tensor data is reached only through qn_gguf_read_tensor, which turns a file cut off meanwhile
//    into an error.
#ifndef QN_FORMATS_GGUF_H
#define QN_FORMATS_GGUF_H

#include "base/buf.h"
#include "base/os.h"
#include "base/status.h"
#include "quant/dtype.h"

typedef enum qn_gguf_type {
    QN_GGUF_U8, QN_GGUF_I8, QN_GGUF_U16, QN_GGUF_I16, QN_GGUF_U32, QN_GGUF_I32, QN_GGUF_F32,
    QN_GGUF_BOOL, QN_GGUF_STRING, QN_GGUF_ARRAY, QN_GGUF_U64, QN_GGUF_I64, QN_GGUF_F64,
} qn_gguf_type;

enum { QN_TENSOR_MAX_DIMS = 4 };

typedef struct qn_gguf qn_gguf;

typedef struct qn_gguf_tensor {
    const char *name;
    uint32_t type; // as in the file: may be one that qn_dtype_get does not know
    uint32_t n_dims;
    uint64_t dims[QN_TENSOR_MAX_DIMS]; // dims[0] is contiguous (the row); missing ones are 1
    uint64_t offset;                   // absolute, in the file
    uint64_t size;                     // bytes; 0 where the type is unknown
} qn_gguf_tensor;

typedef struct qn_gguf_kv {
    qn_str key;
    qn_gguf_type type;
    qn_gguf_type item_type; // of an array
    uint64_t count;         // items of an array, else 1
    const uint8_t *data;    // the encoded value (an array: its first item)
} qn_gguf_kv;

// Errors name the file, the key or tensor and the reason, in one line.
qn_status qn_gguf_open(const char *path, qn_gguf **out, qn_error *err);
// The same over bytes in memory (not copied, must outlive it); name is used in errors.
qn_status qn_gguf_open_memory(const void *data, size_t size, const char *name, qn_gguf **out,
                              qn_error *err);
void qn_gguf_close(qn_gguf *g);

const char *qn_gguf_path(const qn_gguf *g);
uint32_t qn_gguf_version(const qn_gguf *g);
uint64_t qn_gguf_file_size(const qn_gguf *g);

size_t qn_gguf_kv_count(const qn_gguf *g);
const qn_gguf_kv *qn_gguf_kv_at(const qn_gguf *g, size_t i);
const qn_gguf_kv *qn_gguf_find(const qn_gguf *g, const char *key); // NULL: none

// Typed reads. QN_ERR_NOT_FOUND where the key is missing, QN_ERR_FORMAT where its type does not
// fit (any integer type is taken where the value fits; get_f64 takes integers too). err is filled
// in both cases with file and key.
qn_status qn_gguf_get_u64(const qn_gguf *g, const char *key, uint64_t *out, qn_error *err);
qn_status qn_gguf_get_i64(const qn_gguf *g, const char *key, int64_t *out, qn_error *err);
qn_status qn_gguf_get_f64(const qn_gguf *g, const char *key, double *out, qn_error *err);
qn_status qn_gguf_get_bool(const qn_gguf *g, const char *key, bool *out, qn_error *err);
qn_status qn_gguf_get_str(const qn_gguf *g, const char *key, qn_str *out, qn_error *err);
// An array's item as a number, widened (index < count, numeric or bool item type).
double qn_gguf_item_f64(const qn_gguf_kv *kv, uint64_t index);
int64_t qn_gguf_item_i64(const qn_gguf_kv *kv, uint64_t index);
// Walks a string array: *cursor starts as kv->data; each call returns one string and moves on. The
// caller counts (kv->count calls at most).
qn_str qn_gguf_next_string(const uint8_t **cursor);

// One past the last encoded byte of the value (nested arrays included).
const uint8_t *qn_gguf_kv_end(const qn_gguf_kv *kv);
const char *qn_gguf_type_name(qn_gguf_type type); // "u32", "string", ...

size_t qn_gguf_tensor_count(const qn_gguf *g);
const qn_gguf_tensor *qn_gguf_tensor_at(const qn_gguf *g, size_t i);
const qn_gguf_tensor *qn_gguf_find_tensor(const qn_gguf *g, const char *name);
// Copies bytes [offset, offset + size) of the tensor's data. Any thread.
qn_status qn_gguf_read_tensor(const qn_gguf *g, const qn_gguf_tensor *t, uint64_t offset, void *dst,
                              size_t size, qn_error *err);
// Tells the kernel that the tensor's pages are not needed any more.
void qn_gguf_release_tensor(const qn_gguf *g, const qn_gguf_tensor *t);

// Writer: metadata first, then all tensor headers, then the data in the same order.
// Keys and names are the caller's to keep unique; values are copied. A put or add that fails is
// remembered and reported by begin_data.
typedef struct qn_gguf_writer qn_gguf_writer;
qn_status qn_gguf_writer_open(const char *path, qn_gguf_writer **out, qn_error *err);
void qn_gguf_put_u32(qn_gguf_writer *w, const char *key, uint32_t v);
void qn_gguf_put_u64(qn_gguf_writer *w, const char *key, uint64_t v);
void qn_gguf_put_f32(qn_gguf_writer *w, const char *key, float v);
void qn_gguf_put_bool(qn_gguf_writer *w, const char *key, bool v);
void qn_gguf_put_str(qn_gguf_writer *w, const char *key, qn_str v);
void qn_gguf_put_i32_array(qn_gguf_writer *w, const char *key, const int32_t *v, size_t n);
void qn_gguf_put_f32_array(qn_gguf_writer *w, const char *key, const float *v, size_t n);
void qn_gguf_put_str_array(qn_gguf_writer *w, const char *key, const qn_str *v, size_t n);
// Copies a value as it is.
void qn_gguf_put_kv(qn_gguf_writer *w, const qn_gguf_kv *kv);
void qn_gguf_add_tensor(qn_gguf_writer *w, const char *name, qn_dtype type, uint32_t n_dims,
                        const uint64_t *dims);
// Writes the header; after it come the data of each tensor in order, in any number of pieces.
qn_status qn_gguf_writer_begin_data(qn_gguf_writer *w, qn_error *err);
qn_status qn_gguf_write_data(qn_gguf_writer *w, const void *data, size_t size, qn_error *err);
// Checks that all data came, flushes, and renames the temporary file to the path. Frees w always;
// on error the temporary file is removed.
qn_status qn_gguf_writer_finish(qn_gguf_writer *w, qn_error *err);
void qn_gguf_writer_abort(qn_gguf_writer *w); // frees w and removes the temporary file

#endif
