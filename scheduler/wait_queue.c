// SPDX-License-Identifier: Apache-2.0
#include "scheduler/wait_queue.h"

#include <stdlib.h>
#include <string.h>

bool qn_wait_queue_init(qn_wait_queue *q, int32_t capacity) {
    *q = (qn_wait_queue){.capacity = capacity};
    q->entries = calloc(2 * (size_t)capacity, sizeof *q->entries);
    return q->entries != NULL;
}

void qn_wait_queue_free(qn_wait_queue *q) {
    free(q->entries);
    *q = (qn_wait_queue){0};
}

int qn_wait_compare(const qn_wait_entry *a, const qn_wait_entry *b) {
    if (a->priority != b->priority) return a->priority < b->priority ? -1 : 1;
    if (a->fresh != b->fresh) return a->fresh < b->fresh ? -1 : 1;
    if (a->arrival != b->arrival) return a->arrival < b->arrival ? -1 : 1;
    return 0;
}

// The first index whose entry is not before e.
static int32_t lower_bound(const qn_wait_queue *q, const qn_wait_entry *e) {
    int32_t lo = 0, hi = q->count;
    if (hi > 0 && qn_wait_compare(qn_wait_queue_at(q, hi - 1), e) < 0) return hi; // an arrival
    while (lo < hi) {
        int32_t mid = lo + (hi - lo) / 2;
        if (qn_wait_compare(qn_wait_queue_at(q, mid), e) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static void move(qn_wait_queue *q, int32_t to, int32_t from, int32_t n) {
    memmove(&q->entries[to], &q->entries[from], (size_t)n * sizeof *q->entries);
}

void qn_wait_queue_insert(qn_wait_queue *q, qn_wait_entry e) {
    int32_t i = lower_bound(q, &e);
    bool front = q->start > 0 && i < q->count / 2;
    if (!front && q->start + q->count == 2 * q->capacity) {
        // Happens once in at least `capacity` insertions.
        move(q, 0, q->start, q->count);
        q->start = 0;
    }
    if (front) {
        move(q, q->start - 1, q->start, i);
        q->start--;
    } else {
        move(q, q->start + i + 1, q->start + i, q->count - i);
    }
    q->entries[q->start + i] = e;
    q->count++;
}

bool qn_wait_queue_remove(qn_wait_queue *q, qn_wait_entry e) {
    int32_t i = lower_bound(q, &e);
    if (i == q->count || qn_wait_compare(qn_wait_queue_at(q, i), &e) != 0) return false;
    if (i < q->count / 2) {
        move(q, q->start + 1, q->start, i);
        q->start++;
    } else {
        move(q, q->start + i, q->start + i + 1, q->count - i - 1);
    }
    q->count--;
    if (q->count == 0) q->start = 0;
    return true;
}
