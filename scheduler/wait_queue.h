// SPDX-License-Identifier: Apache-2.0
// The waiting requests in the order in which they are looked at: by priority (lower first), then
// those that were preempted, then by arrival. A sorted array that moves its shorter side: arrivals
// go to the end and admissions leave at the front, both without moving anything.
#ifndef QN_SCHEDULER_WAIT_QUEUE_H
#define QN_SCHEDULER_WAIT_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct qn_wait_entry {
    int32_t priority;
    int32_t fresh; // 0: was preempted, 1: never was
    uint64_t arrival; // unique
    int32_t seq;
} qn_wait_entry;

typedef struct qn_wait_queue {
    qn_wait_entry *entries; // [2 * capacity]
    int32_t capacity, start, count;
} qn_wait_queue;

bool qn_wait_queue_init(qn_wait_queue *q, int32_t capacity); // false when out of memory
void qn_wait_queue_free(qn_wait_queue *q);
void qn_wait_queue_insert(qn_wait_queue *q, qn_wait_entry e); // there is room
// The entry with e's priority, freshness and arrival leaves; false: not there.
bool qn_wait_queue_remove(qn_wait_queue *q, qn_wait_entry e);
static inline const qn_wait_entry *qn_wait_queue_at(const qn_wait_queue *q, int32_t i) {
    return &q->entries[q->start + i];
}
// Negative: a goes before b; 0: the same entry.
int qn_wait_compare(const qn_wait_entry *a, const qn_wait_entry *b);

#endif
