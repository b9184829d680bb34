// SPDX-License-Identifier: Apache-2.0
// Opens a model file from memory and touches everything that a reader hands out: what the mutation
// tests and the fuzz targets run.
#ifndef QN_TESTS_FORMATS_WALK_H
#define QN_TESTS_FORMATS_WALK_H

#include "formats/gguf.h"
#include "formats/safetensors.h"

static uint64_t walk_sum; // keeps the reads alive

static inline void walk_bytes(const void *p, size_t n) {
    for (size_t i = 0; i < n; i++) walk_sum += ((const uint8_t *)p)[i];
}

static inline void walk_gguf_kv(const qn_gguf *g, const qn_gguf_kv *kv) {
    walk_bytes(kv->key.data, kv->key.len);
    walk_bytes(kv->data, (size_t)(qn_gguf_kv_end(kv) - kv->data));
    if (kv->item_type == QN_GGUF_STRING) {
        const uint8_t *cursor = kv->data;
        for (uint64_t i = 0; i < kv->count; i++) {
            qn_str s = qn_gguf_next_string(&cursor);
            walk_bytes(s.data, s.len);
        }
    } else if (kv->item_type != QN_GGUF_ARRAY) {
        for (uint64_t i = 0; i < kv->count; i++) {
            walk_sum += (uint64_t)qn_gguf_item_i64(kv, i);
            walk_sum += qn_gguf_item_f64(kv, i) > 0;
        }
    }
    char key[1100];
    snprintf(key, sizeof key, "%.*s", (int)kv->key.len, kv->key.data);
    if (qn_gguf_find(g, key) != kv) abort();
    uint64_t u;
    int64_t s;
    double d;
    bool b;
    qn_str text;
    qn_error err = {0};
    (void)qn_gguf_get_u64(g, key, &u, &err);
    (void)qn_gguf_get_i64(g, key, &s, &err);
    (void)qn_gguf_get_f64(g, key, &d, &err);
    (void)qn_gguf_get_bool(g, key, &b, &err);
    (void)qn_gguf_get_str(g, key, &text, &err);
}

// The first and the last 64 bytes of size bytes that `read` gives. True if they could be read.
static inline bool walk_gguf_tensor(const qn_gguf *g, const qn_gguf_tensor *t) {
    uint8_t bytes[64];
    qn_error err = {0};
    size_t n = t->size < sizeof bytes ? (size_t)t->size : sizeof bytes;
    if (qn_gguf_read_tensor(g, t, 0, bytes, n, &err) != QN_OK) return false;
    walk_bytes(bytes, n);
    if (qn_gguf_read_tensor(g, t, t->size - n, bytes, n, &err) != QN_OK) return false;
    walk_bytes(bytes, n);
    if (qn_gguf_read_tensor(g, t, t->size, bytes, 1, &err) != QN_ERR_INVALID) abort();
    qn_gguf_release_tensor(g, t);
    return true;
}

// QN_OK where the whole file could be walked.
static inline qn_status walk_gguf(const void *data, size_t size, qn_error *err) {
    qn_gguf *g;
    qn_status st = qn_gguf_open_memory(data, size, "walked.gguf", &g, err);
    if (st != QN_OK) return st;
    for (size_t i = 0; i < qn_gguf_kv_count(g); i++) walk_gguf_kv(g, qn_gguf_kv_at(g, i));
    for (size_t i = 0; i < qn_gguf_tensor_count(g); i++) {
        const qn_gguf_tensor *t = qn_gguf_tensor_at(g, i);
        if (qn_gguf_find_tensor(g, t->name) != t || !walk_gguf_tensor(g, t)) abort();
    }
    qn_gguf_close(g);
    return QN_OK;
}

static inline qn_status walk_safetensors(const void *data, size_t size, qn_error *err) {
    qn_safetensors *s;
    qn_status st = qn_safetensors_open_memory(data, size, "walked.safetensors", &s, err);
    if (st != QN_OK) return st;
    for (size_t i = 0; i < qn_safetensors_count(s); i++) {
        const qn_st_tensor *t = qn_safetensors_at(s, i);
        uint8_t bytes[64];
        size_t n = t->size < sizeof bytes ? (size_t)t->size : sizeof bytes;
        if (qn_safetensors_find(s, t->name) != t) abort();
        if (qn_safetensors_read(s, t, 0, bytes, n, err) != QN_OK) abort();
        walk_bytes(bytes, n);
        if (qn_safetensors_read(s, t, t->size - n, bytes, n, err) != QN_OK) abort();
        walk_bytes(bytes, n);
        walk_bytes(t->dtype, strlen(t->dtype));
        qn_error past = {0};
        if (qn_safetensors_read(s, t, t->size, bytes, 1, &past) != QN_ERR_INVALID) abort();
        qn_safetensors_release(s, t);
    }
    qn_safetensors_close(s);
    return QN_OK;
}

#endif
