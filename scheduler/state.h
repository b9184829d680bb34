// SPDX-License-Identifier: Apache-2.0
// The scheduler's insides, shared by its own files only. The invariants are at the top of
// scheduler.c.
#ifndef QN_SCHEDULER_STATE_H
#define QN_SCHEDULER_STATE_H

#include "base/checked.h"
#include "scheduler/block_pool.h"
#include "scheduler/id_map.h"
#include "scheduler/prefix_cache.h"
#include "scheduler/scheduler.h"
#include "scheduler/wait_queue.h"

enum {
    QN_SCHED_MAX_IN_FLIGHT = 2,
    QN_SCHED_MAX_PREEMPTIONS = 4, // of one request; from then on its blocks are reserved
    // Waiters that one step looks at. Bounds the cost of a step when nothing fits.
    QN_SCHED_WAIT_WINDOW = 16,
    // Later waiters that may be admitted before one that does not fit; then all wait for it.
    QN_SCHED_MAX_OVERTAKEN = 32,
    // Steps that a sequence without a block waits for those that are on their way back, before it
    // takes them from somebody.
    QN_SCHED_MAX_STALLS = 2,
    QN_SCHED_MAX_STOP_IDS = 1024,
    // Waiters that one step passes because another request's prompt is not done (fork_of).
    QN_SCHED_FORK_WINDOW = 128,
    // Steps in which a waiter that did not fit is not looked up again in the prefix cache, as long
    // as it would not fit even if all that was found were in use by others.
    QN_SCHED_LOOKUP_PAUSE = 8,
    QN_SCHED_FIRST_MEAN_OUTPUT = 256, // tokens, before any request has ended
    QN_SCHED_MEAN_OF = 32,            // about how many requests the mean looks back
    QN_SCHED_FORECAST = 128,          // places of a forecast
    QN_SCHED_CAUTION = 4096,          // steps
};

typedef enum qn_seq_state {
    QN_SEQ_FREE,     // the record is in free_seqs
    QN_SEQ_WAITING,  // in the queue: no slot, no blocks, no step
    QN_SEQ_RUNNING,  // in run[]: a slot, blocks, perhaps steps
    QN_SEQ_DRAINING, // out of run[], slot and blocks kept until its last step has retired
    QN_SEQ_FINISHED, // only the record is left, until FINISHED has been taken
} qn_seq_state;

typedef struct qn_seq {
    // Used in each step.
    uint8_t state;     // qn_seq_state
    uint8_t in_flight; // uncommitted steps that it is in
    bool prefilling;   // rows of known tokens are left before the next sampled one
    bool aborting;     // abort was asked for; FINISHED(abort) when drained
    bool ended;        // FINISHED was given
    bool dropped;      // ended, taken, and out of the id map, but still draining
    bool poisoned;     // a step of it failed: its KV is not to be trusted
    bool skip_cache_read;
    bool prompt_logits;
    bool scheduled;    // was admitted once
    bool has_copy;     // copy_src is held, the copy is not planned
    bool copying;      // ... is in a step under way
    bool rewound;      // its blocks were published from the first on once more
    uint8_t lookup_pause;
    int32_t slot;      // -1: none
    int32_t n_prompt, n_output; // tokens known: the first n_prompt + n_output of tokens[]
    int32_t n_pending;          // tokens that uncommitted steps will bring
    int32_t max_output;
    int32_t n_planned;  // tokens whose KV planned steps write
    int32_t n_computed; // ... committed steps have written
    int32_t stalls;
    int32_t adapter;
    int32_t first_live[QN_MAX_KV_GROUPS]; // table entries before it were given back
    int32_t n_table[QN_MAX_KV_GROUPS];    // table entries; those from first_live on are held
    int32_t quota[QN_MAX_KV_GROUPS];      // blocks that it is sure to get, those held included
    int32_t *tokens;                      // [n_prompt + max_output]
    // Blocks that the prefix cache knows of it, and the node of the last of them (-1: none).
    int32_t n_published, chain;
    int32_t n_shared; // blocks that it began with and that were there
    uint32_t chain_generation;
    int32_t hint;                         // blocks that its last look-up found
    int32_t copy_src[QN_MAX_KV_GROUPS];   // held while has_copy or copying; -1: none
    int32_t returning[QN_MAX_KV_GROUPS];  // DRAINING: its blocks that nobody else had
    // Used at its begin and end.
    uint64_t id, arrival;
    int32_t priority;
    int32_t min_output, n_stop_ids;
    int32_t *stop_ids; // sorted; behind tokens, in its allocation
    int32_t preemptions, overtaken;
    int32_t n_counted; // prompt tokens already in stats.prompt_tokens
    int32_t n_cached, most_computed;
    qn_prefix_salt *salt; // held
    int32_t fork_of;      // a record; -1: none
    uint64_t fork_arrival; // tells whether that record is still the same request's
    double arrived, first_scheduled, first_token;
} qn_seq;

typedef struct qn_sched_slot_event {
    qn_sched_event event;
    int32_t seq;
} qn_sched_slot_event;

struct qn_sched {
    qn_sched_config config;
    qn_step_time_model time_model;
    double layer_weight[QN_MAX_KV_GROUPS]; // a group's share of the layers
    int32_t blocks_per_seq;                // entries of one table
    int32_t run_cap;                       // sequences that may run at a time
    int32_t logit_cap;                     // logit rows of a step

    int32_t n_seqs; // records
    qn_seq *seqs;
    int32_t *free_seqs, n_free_seqs;
    qn_id_map ids;

    int32_t *slots; // [max_seqs]: its record; -1: free
    int32_t *free_slots, n_free_slots;
    int32_t *tables; // [max_seqs][n_groups][blocks_per_seq]
    int32_t *run;    // [n_run], by (priority, arrival)
    int32_t n_run;
    qn_wait_queue waiting;
    int64_t waiting_tokens; // their prompts
    int32_t n_draining;
    double mean_output; // tokens; of those that ended lately
    int32_t caution;    // steps in which admissions look ahead, after a preemption

    qn_block_pool pools[QN_MAX_KV_GROUPS];
    int32_t reserved[QN_MAX_KV_GROUPS]; // free blocks that quotas promise
    int32_t draining[QN_MAX_KV_GROUPS]; // blocks that draining sequences will give back
    qn_prefix_cache cache;
    int32_t *found;                     // [blocks_per_seq]: nodes of the last look-up
    int32_t *seen[QN_MAX_KV_GROUPS];    // [n_blocks]: for qn_sched_check

    uint64_t next_step, next_arrival;
    int32_t n_in_flight;
    struct {
        uint64_t step;
        int32_t n_tokens; // at most so many TOKENs will come of it
    } in_flight[QN_SCHED_MAX_IN_FLIGHT]; // oldest first

    qn_sched_slot_event *events; // a ring
    int32_t event_cap, event_start, n_events, n_token_events;
    int32_t *taken, n_taken; // records whose FINISHED was taken by the last take

    uint64_t steps, preemptions, prompt_tokens, generated_tokens;
    uint64_t prefix_queries, prefix_hits, forks, recomputed_tokens;
};

static inline int32_t *qn_seq_table(const qn_sched *s, const qn_seq *x, int32_t g) {
    return s->tables +
           ((size_t)x->slot * (size_t)s->config.n_groups + (size_t)g) * (size_t)s->blocks_per_seq;
}
static inline int32_t qn_seq_index(const qn_sched *s, const qn_seq *x) {
    return (int32_t)(x - s->seqs);
}
static inline int32_t qn_seq_held(const qn_seq *x, int32_t g) {
    return x->n_table[g] - x->first_live[g];
}
// Blocks that its quota still promises.
static inline int32_t qn_seq_owed(const qn_seq *x, int32_t g) {
    return QN_MAX(0, x->quota[g] - qn_seq_held(x, g));
}
// Tokens known and to come: the next position to be planned is below it.
static inline int32_t qn_seq_total(const qn_seq *x) {
    return x->n_prompt + x->n_output + x->n_pending;
}
// KV positions that it can ever need: its last token is never computed.
static inline int32_t qn_seq_max_positions(const qn_seq *x) {
    return x->n_prompt + x->max_output - 1;
}
static inline bool qn_seq_protected(const qn_seq *x) {
    return x->preemptions >= QN_SCHED_MAX_PREEMPTIONS;
}
static inline qn_wait_entry qn_seq_wait_entry(const qn_sched *s, const qn_seq *x) {
    return (qn_wait_entry){x->priority, x->preemptions == 0, x->arrival, qn_seq_index(s, x)};
}
// Order of running sequences: who comes first gets rows and blocks first and is preempted last.
static inline bool qn_seq_before(const qn_seq *a, const qn_seq *b) {
    return a->priority != b->priority ? a->priority < b->priority : a->arrival < b->arrival;
}

// Blocks that `count` neighbouring positions can touch, wherever they begin.
static inline int32_t qn_sched_span(int32_t count, int32_t block_size) {
    return (count + block_size - 2) / block_size + 1;
}

// Keys that rows at positions pos .. pos + rows - 1 attend to, averaged over the layers.
double qn_sched_keys(const qn_sched *s, int32_t pos, int32_t rows);

// Fills a plan that is empty (plan.c). False: no row.
bool qn_sched_plan_step(qn_sched *s, double now, qn_step_plan *plan);

// Life cycle (scheduler.c), used by the planner.
void qn_seq_set_quota(qn_sched *s, qn_seq *x, int32_t g, int32_t quota);
// RUNNING -> DRAINING, and on at once if it is in no step.
void qn_seq_leave(qn_sched *s, qn_seq *x);

// What an admission can begin with (reuse.c).
typedef struct qn_reuse {
    int32_t n_tokens;                 // positions whose KV is there
    int32_t n_blocks;                 // table entries that are shared
    int32_t n_copies;                 // 1: the entry after them begins as a copy of the parent's
    const qn_seq *parent;             // whose; NULL: the prefix cache's, s->found
    int32_t first[QN_MAX_KV_GROUPS];  // the first entry needed; those before are -1
    int32_t idle[QN_MAX_KV_GROUPS];   // of the shared blocks: those that nobody has now
} qn_reuse;

typedef enum qn_fork_state { QN_FORK_NONE, QN_FORK_WAITS, QN_FORK_READY } qn_fork_state;

// A waiting x with fork_of: whether it is to wait for it. READY: *out says what there is.
qn_fork_state qn_seq_fork_state(const qn_sched *s, qn_seq *x, qn_reuse *out);
// The longest usable prefix of x in the cache; leaves its nodes in s->found.
void qn_seq_look_up(qn_sched *s, const qn_seq *x, qn_reuse *out);
// x, just admitted, begins with it.
void qn_seq_begin_with(qn_sched *s, qn_seq *x, const qn_reuse *r);
// Publishes x's full blocks of its first n_tokens positions, which committed steps have written.
void qn_seq_publish(qn_sched *s, qn_seq *x, int32_t n_tokens);
void qn_seq_drop_copy(qn_sched *s, qn_seq *x);

#endif
