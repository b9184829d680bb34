// SPDX-License-Identifier: Apache-2.0
// The GGUF writer. Keys and tensor headers are collected in memory and written by begin_data; a put
// that fails is remembered and reported there, so that a sequence of puts needs no checks.
#include "formats/gguf.h"

#include "base/checked.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 32, VERSION = 3 };

typedef struct planned {
    uint64_t size, padded;
} planned;

struct qn_gguf_writer {
    char *path, *temporary;
    FILE *file;
    qn_buf kvs, infos;
    uint64_t kv_count;
    planned *tensors;
    size_t tensor_count, tensor_cap;
    uint64_t next_offset; // of the next tensor, from the data's start
    size_t current;       // tensor whose data comes next
    uint64_t written;     // bytes of it that came
    bool data_begun;
    qn_error failed; // the first put that failed
};

static void free_writer(qn_gguf_writer *w) {
    if (w->file) fclose(w->file);
    qn_buf_free(&w->kvs);
    qn_buf_free(&w->infos);
    free(w->tensors);
    free(w->path);
    free(w->temporary);
    free(w);
}

qn_status qn_gguf_writer_open(const char *path, qn_gguf_writer **out, qn_error *err) {
    *out = NULL;
    qn_gguf_writer *w = calloc(1, sizeof *w);
    size_t room = strlen(path) + 32;
    if (w) {
        w->path = strdup(path);
        w->temporary = malloc(room);
    }
    if (!w || !w->path || !w->temporary) {
        if (w) free_writer(w);
        return qn_fail(err, QN_ERR_NOMEM, "%s: out of memory", path);
    }
    // Exclusive creation: two writers of one path each get a file of their own, the last one wins.
    for (int i = 0; i < 100 && !w->file; i++) {
        snprintf(w->temporary, room, "%s.part%d", path, i);
        w->file = fopen(w->temporary, "wbxe");
        if (!w->file && errno != EEXIST) break;
    }
    if (!w->file) {
        qn_status st =
            qn_fail(err, QN_ERR_IO, "%s: cannot create: %s", w->temporary, strerror(errno));
        free_writer(w);
        return st;
    }
    *out = w;
    return QN_OK;
}

static void put_u32(qn_buf *b, uint32_t v) { qn_buf_append(b, &v, sizeof v); }
static void put_u64(qn_buf *b, uint64_t v) { qn_buf_append(b, &v, sizeof v); }
static void put_string(qn_buf *b, qn_str s) {
    put_u64(b, s.len);
    qn_buf_append(b, s.data, s.len);
}

static void put_head(qn_gguf_writer *w, qn_str key, qn_gguf_type type) {
    put_string(&w->kvs, key);
    put_u32(&w->kvs, (uint32_t)type);
    w->kv_count++;
}

static void put_scalar(qn_gguf_writer *w, const char *key, qn_gguf_type type, const void *v,
                       size_t size) {
    put_head(w, qn_str_from(key), type);
    qn_buf_append(&w->kvs, v, size);
}

void qn_gguf_put_u32(qn_gguf_writer *w, const char *key, uint32_t v) {
    put_scalar(w, key, QN_GGUF_U32, &v, sizeof v);
}

void qn_gguf_put_u64(qn_gguf_writer *w, const char *key, uint64_t v) {
    put_scalar(w, key, QN_GGUF_U64, &v, sizeof v);
}

void qn_gguf_put_f32(qn_gguf_writer *w, const char *key, float v) {
    put_scalar(w, key, QN_GGUF_F32, &v, sizeof v);
}

void qn_gguf_put_bool(qn_gguf_writer *w, const char *key, bool v) {
    uint8_t byte = v ? 1 : 0;
    put_scalar(w, key, QN_GGUF_BOOL, &byte, 1);
}

void qn_gguf_put_str(qn_gguf_writer *w, const char *key, qn_str v) {
    put_head(w, qn_str_from(key), QN_GGUF_STRING);
    put_string(&w->kvs, v);
}

static void put_array_head(qn_gguf_writer *w, const char *key, qn_gguf_type item, size_t n) {
    put_head(w, qn_str_from(key), QN_GGUF_ARRAY);
    put_u32(&w->kvs, (uint32_t)item);
    put_u64(&w->kvs, n);
}

void qn_gguf_put_i32_array(qn_gguf_writer *w, const char *key, const int32_t *v, size_t n) {
    put_array_head(w, key, QN_GGUF_I32, n);
    qn_buf_append(&w->kvs, v, n * sizeof *v);
}

void qn_gguf_put_f32_array(qn_gguf_writer *w, const char *key, const float *v, size_t n) {
    put_array_head(w, key, QN_GGUF_F32, n);
    qn_buf_append(&w->kvs, v, n * sizeof *v);
}

void qn_gguf_put_str_array(qn_gguf_writer *w, const char *key, const qn_str *v, size_t n) {
    put_array_head(w, key, QN_GGUF_STRING, n);
    for (size_t i = 0; i < n; i++) put_string(&w->kvs, v[i]);
}

void qn_gguf_put_kv(qn_gguf_writer *w, const qn_gguf_kv *kv) {
    put_head(w, kv->key, kv->type);
    if (kv->type == QN_GGUF_ARRAY) {
        put_u32(&w->kvs, (uint32_t)kv->item_type);
        put_u64(&w->kvs, kv->count);
    }
    qn_buf_append(&w->kvs, kv->data, (size_t)(qn_gguf_kv_end(kv) - kv->data));
}

void qn_gguf_add_tensor(qn_gguf_writer *w, const char *name, qn_dtype type, uint32_t n_dims,
                        const uint64_t *dims) {
    const qn_dtype_info *info = qn_dtype_get((uint32_t)type);
    uint64_t elements = 1, padded;
    planned t;
    bool ok = info && n_dims >= 1 && n_dims <= QN_TENSOR_MAX_DIMS &&
              dims[0] % info->block_size == 0;
    for (uint32_t i = 0; ok && i < n_dims; i++) {
        ok = dims[i] > 0 && qn_mul_u64(elements, dims[i], &elements);
    }
    ok = ok && qn_dtype_row_bytes(info, elements, &t.size) &&
         qn_add_u64(t.size, ALIGNMENT - 1, &padded);
    if (!ok || w->data_begun) {
        qn_fail(&w->failed, QN_ERR_INVALID, "%s: tensor '%s': bad shape or type, or too late",
                w->path, name);
        return;
    }
    t.padded = padded & ~(uint64_t)(ALIGNMENT - 1);
    put_string(&w->infos, qn_str_from(name));
    put_u32(&w->infos, n_dims);
    for (uint32_t i = 0; i < n_dims; i++) put_u64(&w->infos, dims[i]);
    put_u32(&w->infos, (uint32_t)type);
    put_u64(&w->infos, w->next_offset);
    if (!qn_grow(&w->tensors, &w->tensor_cap, w->tensor_count + 1, sizeof *w->tensors)) {
        w->infos.failed = true;
        return;
    }
    w->tensors[w->tensor_count++] = t;
    if (!qn_add_u64(w->next_offset, t.padded, &w->next_offset)) {
        qn_fail(&w->failed, QN_ERR_INVALID, "%s: tensor '%s': the file's size overflows", w->path,
                name);
    }
}

static qn_status put_bytes(qn_gguf_writer *w, const void *data, size_t size, qn_error *err) {
    if (size && fwrite(data, 1, size, w->file) != size) {
        return qn_fail(err, QN_ERR_IO, "%s: write failed: %s", w->temporary, strerror(errno));
    }
    return QN_OK;
}

static qn_status put_padding(qn_gguf_writer *w, size_t n, qn_error *err) {
    static const uint8_t zeros[ALIGNMENT];
    return put_bytes(w, zeros, n, err);
}

qn_status qn_gguf_writer_begin_data(qn_gguf_writer *w, qn_error *err) {
    if (w->data_begun) return qn_fail(err, QN_ERR_INTERNAL, "%s: data begun twice", w->path);
    if (w->failed.status != QN_OK) return qn_fail(err, w->failed.status, "%s", w->failed.message);
    if (w->kvs.failed || w->infos.failed) {
        return qn_fail(err, QN_ERR_NOMEM, "%s: out of memory", w->path);
    }
    w->data_begun = true;
    qn_buf head = {0};
    qn_buf_append(&head, "GGUF", 4);
    put_u32(&head, VERSION);
    put_u64(&head, w->tensor_count);
    put_u64(&head, w->kv_count);
    if (head.failed) return qn_fail(err, QN_ERR_NOMEM, "%s: out of memory", w->path);
    size_t total = head.len + w->kvs.len + w->infos.len;
    qn_status st = put_bytes(w, head.data, head.len, err);
    if (st == QN_OK) st = put_bytes(w, w->kvs.data, w->kvs.len, err);
    if (st == QN_OK) st = put_bytes(w, w->infos.data, w->infos.len, err);
    if (st == QN_OK) st = put_padding(w, (ALIGNMENT - total % ALIGNMENT) % ALIGNMENT, err);
    qn_buf_free(&head);
    return st;
}

qn_status qn_gguf_write_data(qn_gguf_writer *w, const void *data, size_t size, qn_error *err) {
    const uint8_t *p = data;
    if (!w->data_begun) return qn_fail(err, QN_ERR_INTERNAL, "%s: data before its header", w->path);
    while (size) {
        if (w->current == w->tensor_count) {
            return qn_fail(err, QN_ERR_INTERNAL, "%s: more data than tensors", w->path);
        }
        const planned *t = &w->tensors[w->current];
        size_t n = (size_t)QN_MIN((uint64_t)size, t->size - w->written);
        qn_status st = put_bytes(w, p, n, err);
        if (st != QN_OK) return st;
        p += n;
        size -= n;
        w->written += n;
        if (w->written == t->size) {
            st = put_padding(w, (size_t)(t->padded - t->size), err);
            if (st != QN_OK) return st;
            w->current++;
            w->written = 0;
        }
    }
    return QN_OK;
}

qn_status qn_gguf_writer_finish(qn_gguf_writer *w, qn_error *err) {
    qn_status st = QN_OK;
    if (!w->data_begun) st = qn_gguf_writer_begin_data(w, err);
    if (st == QN_OK && w->current != w->tensor_count) {
        st = qn_fail(err, QN_ERR_INTERNAL, "%s: data of %zu tensors is missing", w->path,
                     w->tensor_count - w->current);
    }
    FILE *file = w->file;
    w->file = NULL;
    if (fclose(file) != 0 && st == QN_OK) {
        st = qn_fail(err, QN_ERR_IO, "%s: write failed: %s", w->temporary, strerror(errno));
    }
    if (st == QN_OK && rename(w->temporary, w->path) != 0) {
        st = qn_fail(err, QN_ERR_IO, "%s: cannot rename to it: %s", w->path, strerror(errno));
    }
    if (st != QN_OK) remove(w->temporary);
    free_writer(w);
    return st;
}

void qn_gguf_writer_abort(qn_gguf_writer *w) {
    if (!w) return;
    fclose(w->file);
    w->file = NULL;
    remove(w->temporary);
    free_writer(w);
}
