// SPDX-License-Identifier: Apache-2.0
// Tokens that are found in text before it is cut into words. The strings are kept sorted; a match
// narrows the range of candidates byte by byte, so no trie has to be built at load.
#include "tokenizer/internal.h"

#include <stdlib.h>

bool qn_added_push(qn_added_set *set, qn_added item) {
    if (!qn_grow(&set->items, &set->cap, set->n + 1, sizeof *set->items)) return false;
    set->items[set->n++] = item;
    return true;
}

static int compare(qn_str a, qn_str b) {
    size_t n = a.len < b.len ? a.len : b.len;
    int c = n ? memcmp(a.data, b.data, n) : 0;
    return c ? c : (a.len > b.len) - (a.len < b.len);
}

static qn_str text_of(const qn_vocab *v, const qn_added *a) {
    return qn_vocab_text(v, (size_t)a->id);
}

// Merge sort: the C library's qsort has no context argument in ISO C, and may be quadratic.
static void merge_sort(qn_added *a, qn_added *tmp, size_t n, const qn_vocab *v) {
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * width) {
            size_t mid = lo + width < n ? lo + width : n;
            size_t hi = mid + width < n ? mid + width : n;
            size_t i = lo, j = mid, k = lo;
            while (i < mid && j < hi) {
                bool left = compare(text_of(v, &a[i]), text_of(v, &a[j])) <= 0;
                tmp[k++] = left ? a[i++] : a[j++];
            }
            while (i < mid)
                tmp[k++] = a[i++];
            while (j < hi)
                tmp[k++] = a[j++];
        }
        memcpy(a, tmp, n * sizeof *a);
    }
}

qn_status qn_added_sort(qn_added_set *set, const qn_vocab *v, qn_error *err) {
    size_t kept = 0;
    for (size_t i = 0; i < set->n; i++) {
        uint32_t len = v->place[set->items[i].id].len;
        if (len > 0 && len <= QN_TOK_MAX_PIECE) set->items[kept++] = set->items[i];
    }
    set->n = kept;
    if (kept) {
        qn_added *tmp = malloc(kept * sizeof *tmp);
        if (!tmp) return qn_fail(err, QN_ERR_NOMEM, "out of memory for the added tokens");
        merge_sort(set->items, tmp, kept, v);
        free(tmp);
    }
    size_t i = 0;
    for (size_t b = 0; b < 256; b++) {
        set->root[b] = (uint32_t)i;
        while (i < kept && (uint8_t)text_of(v, &set->items[i]).data[0] == b)
            i++;
    }
    set->root[256] = (uint32_t)kept;
    return QN_OK;
}

const qn_added *qn_added_match(const qn_added_set *set, const qn_vocab *v, const char *text,
                               size_t len, size_t pos, size_t special_end, size_t *match_len) {
    uint8_t first = (uint8_t)text[pos];
    size_t lo = set->root[first], hi = set->root[first + 1];
    const qn_added *best = NULL;
    // All of [lo, hi) agree with the text in `depth` bytes; the shortest of them is at lo.
    for (size_t depth = 1; lo < hi; depth++) {
        for (; lo < hi && v->place[set->items[lo].id].len == depth; lo++) {
            const qn_added *a = &set->items[lo];
            if (a->control && pos + depth > special_end) continue;
            if (!best || *match_len < depth) {
                best = a;
                *match_len = depth;
            }
        }
        if (pos + depth >= len) break;
        uint8_t want = (uint8_t)text[pos + depth];
        size_t a = lo, b = hi;
        while (a < b) { // the first that is not below
            size_t mid = a + (b - a) / 2;
            if ((uint8_t)text_of(v, &set->items[mid]).data[depth] < want)
                a = mid + 1;
            else
                b = mid;
        }
        lo = a;
        b = hi;
        while (a < b) { // the first that is above
            size_t mid = a + (b - a) / 2;
            if ((uint8_t)text_of(v, &set->items[mid]).data[depth] <= want)
                a = mid + 1;
            else
                b = mid;
        }
        hi = a;
    }
    return best;
}
