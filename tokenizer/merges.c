// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/internal.h"

#include "base/checked.h"
#include "base/os.h"

#include <string.h>

static size_t slots_size(const qn_merges *m) {
    return (m->mask + 1) * sizeof *m->slots;
}

qn_status qn_merges_init(qn_merges *m, size_t expected, qn_error *err) {
    size_t cap = 16, bytes;
    while (cap / 2 < expected) {
        if (!qn_mul_size(cap, 2, &cap)) return qn_fail(err, QN_ERR_LIMIT, "too many merges");
    }
    if (!qn_mul_size(cap, sizeof *m->slots, &bytes)) {
        return qn_fail(err, QN_ERR_LIMIT, "too many merges");
    }
    qn_merge *slots = qn_os_pages_alloc(bytes); // zeroed
    if (!slots || (!m->seed && !qn_os_random(&m->seed, sizeof m->seed))) {
        qn_os_pages_free(slots, bytes);
        return qn_fail(err, QN_ERR_NOMEM, "out of memory for the merges");
    }
    m->slots = slots;
    m->mask = cap - 1;
    return QN_OK;
}

static void insert(qn_merges *m, qn_merge item) {
    qn_merge *slot = qn_merges_slot(m, item.left_1 - 1, item.right);
    if (slot->left_1) return;
    *slot = item;
    m->count++;
}

static qn_status make_room(qn_merges *m, qn_error *err) {
    if (m->slots && m->count * 2 <= m->mask) return QN_OK;
    qn_merges bigger = *m;
    qn_status st = qn_merges_init(&bigger, m->slots ? m->mask + 1 : 8, err);
    if (st != QN_OK) return st;
    bigger.count = 0;
    for (size_t i = 0; m->slots && i <= m->mask; i++) {
        if (m->slots[i].left_1) insert(&bigger, m->slots[i]);
    }
    qn_os_pages_free(m->slots, slots_size(m));
    *m = bigger;
    return QN_OK;
}

static bool is_concat(const qn_vocab *v, size_t id, qn_str a, qn_str b) {
    if (id >= v->n || v->place[id].len != a.len + b.len) return false;
    const char *s = v->bytes.data + v->place[id].at;
    return memcmp(s, a.data, a.len) == 0 && memcmp(s + a.len, b.data, b.len) == 0;
}

qn_status qn_merges_add(qn_merges *m, const qn_vocab *v, qn_str left, qn_str right, qn_error *err) {
    uint32_t rank = m->next_rank++;
    char joined[QN_TOK_MAX_PIECE];
    m->skipped++;
    if (left.len == 0 || right.len == 0 || left.len + right.len > sizeof joined) return QN_OK;
    int32_t a = qn_vocab_find(v, left.data, left.len);
    int32_t b = qn_vocab_find(v, right.data, right.len);
    int32_t id;
    // Vocabularies are mostly in the order of their merges: two cheap guesses before the hash.
    if (is_concat(v, (size_t)m->last_id + 1, left, right)) {
        id = (int32_t)m->last_id + 1;
    } else if (is_concat(v, m->last_id, left, right)) {
        id = (int32_t)m->last_id;
    } else {
        memcpy(joined, left.data, left.len);
        memcpy(joined + left.len, right.data, right.len);
        id = qn_vocab_find(v, joined, left.len + right.len);
    }
    if (a < 0 || b < 0 || id < 0) return QN_OK;
    m->last_id = (uint32_t)id;
    // Text must never merge into a control token.
    if (v->attrs[id] & (QN_TOKEN_CONTROL | QN_TOKEN_UNKNOWN)) return QN_OK;
    m->skipped--;
    qn_status st = make_room(m, err);
    if (st == QN_OK) insert(m, (qn_merge){(uint32_t)a + 1, (uint32_t)b, rank, (uint32_t)id});
    return st;
}

void qn_merges_free(qn_merges *m) {
    qn_os_pages_free(m->slots, slots_size(m));
    memset(m, 0, sizeof *m);
}
