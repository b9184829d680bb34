// SPDX-License-Identifier: Apache-2.0
// The scheduler: a pure state machine. No thread, clock, socket or device; the same calls give the
// same answers. It owns the sequences' life cycle, the block allocator and the policy.
//
//            add             plan: admitted            commit: a stop id or max_tokens
//   (none) ------> WAITING ----------------> RUNNING ---------------------------------> (finished)
//                     ^                        |
//                     '------------------------'  plan: preempted (blocks freed, tokens kept;
//                                                  its KV is computed again)
//   abort: from any state; blocks in a step that is under way are freed when that step has retired.
//
// The caller's part of the bargain: take the events after each commit. If it does not, nothing is
// lost and nothing grows: qn_sched_plan returns false while there is no room for the tokens of one
// more step, and qn_sched_add says QN_ERR_BUSY while too many ended requests have not been taken.
#ifndef QN_SCHEDULER_SCHEDULER_H
#define QN_SCHEDULER_SCHEDULER_H

#include "attention/step_plan.h"
#include "base/status.h"

typedef struct qn_sched qn_sched;

typedef struct qn_sched_config {
    int32_t max_seqs;     // in a batch (--max-num-seqs); at most max_rows of them run at a time, so
                          // that each gets a row in every step
    int32_t max_rows;     // tokens of a step (--max-num-batched-tokens)
    int32_t max_len;      // tokens of a sequence, prompt and output (--max-model-len)
    int32_t block_size;   // tokens of a KV block; divides QN_KV_SPAN
    int32_t n_groups;
    qn_kv_group groups[QN_MAX_KV_GROUPS];
    int32_t n_blocks[QN_MAX_KV_GROUPS];
    int32_t max_waiting;          // sequences in the queue; more: QN_ERR_BUSY
    int64_t max_waiting_tokens;   // their prompt tokens; 0: no limit
    int32_t long_prefill_threshold; // most prompt tokens of one sequence in a step; 0: no limit
    double max_step_seconds;        // with the step-time model; 0: no limit
    // A step that holds decode rows takes at most this many times as long as they would alone, by
    // the step-time model; 0: no limit. Where more prompts than streams wait, time is shared by
    // heads instead: n prompts get n times what a stream gets. A prompt that takes less than
    // short_prompt_seconds in all is not held back: others hardly notice it, and its users wait.
    double max_decode_slowdown;
    double short_prompt_seconds;
    // Logit rows of a step, at least min(max_seqs, max_rows); 0: just those.
    int32_t max_logits;
    // For some time after a preemption new requests are kept waiting when those that run would need
    // more blocks than there are by the time they reach their likely lengths (learned from those
    // that ended), plus this many percent. 0: next to nothing is computed twice; more: more run at
    // a time, and more are preempted.
    int32_t overcommit_percent;
    bool enable_prefix_caching;
    uint64_t prefix_hash_seed; // of the cache's index: random where prompts come from outside
    uint64_t prefix_hash_mask; // for tests: the hash bits that count; 0: all
} qn_sched_config;

// seconds(step) ~ base + per_row * rows + per_key * keys + per_context * context; fitted by the
// engine from steps seen. Keys: what qn_sched_plan_keys counts (arithmetic: each row sees its own).
// Context: what qn_sched_plan_context counts (reading: a sequence's rows share what they see). A
// value that is negative or not finite counts as 0.
typedef struct qn_step_time_model {
    double base, per_row, per_key, per_context;
} qn_step_time_model;

typedef struct qn_sched_request {
    uint64_t id; // the caller's; not 0; unique among those that qn_sched_seq knows
    const int32_t *prompt; // copied
    int32_t n_prompt;      // >= 1
    int32_t max_tokens;    // of output; >= 1; cut to what max_len and all the blocks leave
    int32_t min_tokens;    // outputs before which no stop id ends the sequence; 0..max_tokens
    const int32_t *stop_ids; // copied; a sampled one of these ends the sequence (reason stop)
    int32_t n_stop_ids;    // at most 1024
    int32_t adapter;       // -1: none
    int32_t priority;      // lower first, then arrival
    // Cached blocks are shared only among requests with the same salt (compared byte by byte) and
    // adapter. Copied; at most QN_SCHED_MAX_SALT bytes; length 0: the common cache.
    const void *cache_salt;
    size_t cache_salt_len;
    bool skip_cache_read; // every row of the prompt is computed
    // Every row of the prompt wants logits (prompt logprobs): row i's are about token i + 1. Its
    // chunks then have n_logits == query_len, and only the last row of the last chunk gives a
    // TOKEN. Implies skip_cache_read; not together with fork_of. After a preemption rows whose
    // logits were committed are asked for again only where a chunk holds others too.
    bool prompt_logits;
    // For n > 1: the id of an earlier request with the same prompt, salt and adapter; 0: none. This
    // one waits until that one's prompt is computed, then shares its blocks, the last, partial one
    // by copy, and computes the prompt's last row only. It takes that one's priority. If that one
    // has gone by then, or was gone already, this is a request like any other.
    uint64_t fork_of;
} qn_sched_request;

enum { QN_SCHED_MAX_SALT = 128 };

typedef enum qn_sched_event_kind {
    QN_SCHED_TOKEN,    // one more token of output
    QN_SCHED_FINISHED, // terminal: exactly one for each request that was added
} qn_sched_event_kind;

typedef enum qn_finish {
    QN_FINISH_STOP,
    QN_FINISH_LENGTH,
    QN_FINISH_ABORT,
    QN_FINISH_ERROR,
} qn_finish;

typedef struct qn_sched_event {
    qn_sched_event_kind kind;
    uint64_t id;
    int32_t token;     // TOKEN
    int32_t logit_row; // TOKEN: its row in the step that was committed
    qn_finish finish;  // FINISHED
    int32_t stop_id;   // FINISHED by stop: the id that ended it (given as a TOKEN before); else -1
} qn_sched_event;

// What came back for one logit row: the sampled id; ok false: this row failed (NaN), its sequence
// ends with QN_FINISH_ERROR.
typedef struct qn_sched_row {
    int32_t id;
    bool ok;
} qn_sched_row;

qn_status qn_sched_create(const qn_sched_config *config, qn_sched **out, qn_error *err);
void qn_sched_destroy(qn_sched *s);
// May be called at any time.
void qn_sched_set_step_time(qn_sched *s, const qn_step_time_model *model);

// QN_ERR_LIMIT: can never fit (prompt and one token too long for max_len, for all the blocks there
// are or for max_waiting_tokens); QN_ERR_BUSY: the queue is full; QN_ERR_INVALID: malformed. now:
// seconds, any origin, never falling.
qn_status qn_sched_add(qn_sched *s, const qn_sched_request *request, double now, qn_error *err);
// Ends a live request with QN_FINISH_ABORT: its event comes with qn_sched_take_events (after the
// step under way, if it is in one, has been committed); no TOKEN follows. false: no such live
// request.
bool qn_sched_abort(qn_sched *s, uint64_t id);

// Plans one step into plan (made by qn_sched_make_plan). false: nothing to do (now: while a step is
// uncommitted there may be more to do after its commit). At most two planned steps may be
// uncommitted (a third: false); sequences whose last token is still to come get QN_TOKEN_PENDING.
bool qn_sched_plan(qn_sched *s, double now, qn_step_plan *plan);
// A plan large enough for any step of this scheduler; free() it.
qn_step_plan *qn_sched_make_plan(const qn_sched *s);
// The keys that the plan's rows attend to, averaged over the layers of all groups: what per_key of
// the step-time model is about.
double qn_sched_plan_keys(const qn_sched *s, const qn_step_plan *plan);
// The keys that the plan's sequences look at, each once for a sequence, averaged likewise.
double qn_sched_plan_context(const qn_sched *s, const qn_step_plan *plan);
// The oldest uncommitted step's results, in the plan's logit-row order [plan->n_logits]. A plan
// that is not the oldest uncommitted one is ignored. A negative id counts as a row that failed,
// except for prompt rows that give no TOKEN: theirs is not looked at.
void qn_sched_commit(qn_sched *s, const qn_step_plan *plan, const qn_sched_row *rows, double now);
// The step failed as a whole: its sequences end with QN_FINISH_ERROR.
void qn_sched_commit_failed(qn_sched *s, const qn_step_plan *plan, double now);
// Forgets all that the prefix cache holds: every block that no sequence has is clean afterwards.
void qn_sched_clear_cache(qn_sched *s);
// Moves up to max events, in the order they happened.
size_t qn_sched_take_events(qn_sched *s, qn_sched_event *out, size_t max);

typedef struct qn_sched_seq_info {
    int32_t slot;       // -1: not in the batch
    int32_t n_prompt, n_output;
    double arrived, first_scheduled, first_token; // seconds; 0: not yet
    int32_t preemptions;
    int32_t n_cached; // prompt tokens whose KV was there when it was first admitted
} qn_sched_seq_info;
// Knows a request from its add until the first call of add, plan, commit, commit_failed or
// take_events after its FINISHED event was taken: so it can be asked about while that event is
// handled.
bool qn_sched_seq(const qn_sched *s, uint64_t id, qn_sched_seq_info *info);
// The request in a batch slot; 0: none, or one whose FINISHED event was given. A slot changes hands
// only when every step that it was in has been committed.
uint64_t qn_sched_slot_id(const qn_sched *s, int32_t slot);

typedef struct qn_sched_stats {
    int32_t running; // in a slot
    int32_t waiting; // in the queue, those preempted included
    // Used: by sequences. Blocks that are only cached are free: they are evicted when needed.
    int32_t blocks_total[QN_MAX_KV_GROUPS], blocks_used[QN_MAX_KV_GROUPS];
    int32_t blocks_cached[QN_MAX_KV_GROUPS]; // of the free ones
    int64_t waiting_tokens; // prompt tokens of those in the queue
    uint64_t steps;         // committed or failed
    uint64_t preemptions;
    uint64_t prompt_tokens; // computed; each once, however often its sequence was preempted, and
                            // not those whose KV was there
    uint64_t generated_tokens;
    // Prompt tokens that were looked up in the prefix cache and found there, of first admissions.
    uint64_t prefix_queries, prefix_hits;
    uint64_t prefix_evictions; // blocks
    uint64_t forks;            // requests that began with another's blocks (fork_of)
    uint64_t recomputed_tokens; // rows computed a second time after a preemption
} qn_sched_stats;
void qn_sched_stats_get(const qn_sched *s, qn_sched_stats *out);

// Checks every invariant (numbered at the top of scheduler.c). For tests, the simulator and debug
// builds. reason: a static string.
bool qn_sched_check(const qn_sched *s, const char **reason);

#endif
