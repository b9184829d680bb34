// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/internal.h"

#include "base/checked.h"
#include "base/hash.h"
#include "base/os.h"

#include <stdlib.h>

static bool grow(qn_vocab *v, size_t need) {
    size_t cap = QN_MAX(need, QN_MIN(v->cap * 2, (size_t)QN_VOCAB_MAX));
    if (need <= v->cap) return true;
    cap = QN_MAX(cap, (size_t)1024);
    qn_vocab_place *place = realloc(v->place, cap * sizeof *place);
    if (place) v->place = place;
    uint8_t *attrs = realloc(v->attrs, cap);
    if (attrs) v->attrs = attrs;
    if (!place || !attrs) return false;
    v->cap = cap;
    return true;
}

qn_status qn_vocab_put(qn_vocab *v, size_t id, size_t at, size_t len, uint8_t attrs,
                       qn_error *err) {
    if (id >= QN_VOCAB_MAX) {
        return qn_fail(err, QN_ERR_LIMIT, "token id %zu is above the limit of %d", id,
                       QN_VOCAB_MAX);
    }
    if (!grow(v, id + 1)) return qn_fail(err, QN_ERR_NOMEM, "out of memory for the vocabulary");
    for (; v->n <= id; v->n++) {
        v->place[v->n] = (qn_vocab_place){0, 0};
        v->attrs[v->n] = QN_TOKEN_UNUSED;
    }
    v->place[id] = (qn_vocab_place){(uint32_t)at, (uint32_t)len};
    v->attrs[id] = attrs;
    if (len > v->max_len) v->max_len = (uint32_t)len;
    return QN_OK;
}

qn_status qn_vocab_set(qn_vocab *v, size_t id, qn_str text, uint8_t attrs, qn_error *err) {
    size_t at = v->bytes.len;
    if (at > UINT32_MAX || text.len > UINT32_MAX - at) {
        return qn_fail(err, QN_ERR_LIMIT, "the vocabulary's strings are larger than 4 GiB");
    }
    if (!qn_buf_append(&v->bytes, text.data, text.len)) {
        return qn_fail(err, QN_ERR_NOMEM, "out of memory for the vocabulary");
    }
    return qn_vocab_put(v, id, at, text.len, attrs, err);
}

qn_status qn_vocab_index(qn_vocab *v, qn_error *err) {
    size_t cap = 16;
    while (cap < v->n * 2)
        cap *= 2;
    if (v->slots) qn_os_pages_free(v->slots, (v->mask + 1) * sizeof *v->slots);
    v->slots = qn_os_pages_alloc(cap * sizeof *v->slots); // zeroed
    if (!v->slots || (!v->seed && !qn_os_random(&v->seed, sizeof v->seed))) {
        return qn_fail(err, QN_ERR_NOMEM, "out of memory for the vocabulary");
    }
    v->mask = cap - 1;
    for (size_t id = 0; id < v->n; id++) {
        if (v->place[id].len == 0) continue;
        qn_str s = qn_vocab_text(v, id);
        uint64_t h = qn_hash_bytes(s.data, s.len, v->seed);
        size_t i = (size_t)h & v->mask;
        for (; v->slots[i]; i = (i + 1) & v->mask) {
            if (v->slots[i] >> 32 != h >> 32) continue;
            if (qn_str_eq(qn_vocab_text(v, (uint32_t)v->slots[i] - 1), s)) break;
        }
        if (!v->slots[i]) v->slots[i] = (h >> 32 << 32) | (uint64_t)(id + 1);
    }
    return QN_OK;
}

int32_t qn_vocab_find(const qn_vocab *v, const char *s, size_t len) {
    if (!v->slots || len == 0 || len > v->max_len) return -1;
    uint64_t h = qn_hash_bytes(s, len, v->seed);
    for (size_t i = (size_t)h & v->mask; v->slots[i]; i = (i + 1) & v->mask) {
        if (v->slots[i] >> 32 != h >> 32) continue;
        uint32_t id = (uint32_t)v->slots[i] - 1;
        qn_vocab_place p = v->place[id];
        if (p.len == len && memcmp(v->bytes.data + p.at, s, len) == 0) {
            return (int32_t)id;
        }
    }
    return -1;
}

void qn_vocab_free(qn_vocab *v) {
    qn_buf_free(&v->bytes);
    free(v->place);
    free(v->attrs);
    free(v->scores);
    if (v->slots) qn_os_pages_free(v->slots, (v->mask + 1) * sizeof *v->slots);
    memset(v, 0, sizeof *v);
}
