// SPDX-License-Identifier: Apache-2.0
// The life cycle of sequences: records, slots, blocks, results, events. What a step holds is
// decided in plan.c; the invariants are checked in check.c.
//
//              add              plan: admit          commit, abort, plan: preempted or last token
//   FREE ----------> WAITING ----------------> RUNNING ------------------------------> DRAINING
//     ^               |   ^                                                              |   |
//     |               |   '----------------- last step retired, was preempted -----------'   |
//     |         abort |                                                                      |
//     '- taken - FINISHED <------------------ last step retired, has ended ------------------'
//
// Invariants (qn_sched_check; tests cite the numbers):
//  1. Each record is in one state, and in the structure of that state only: WAITING in the queue,
//     in its order; RUNNING in run[], by (priority, arrival); FREE in the free list.
//  2. The id map holds exactly the records that are not FREE and not dropped.
//  3. A record has a slot iff it is RUNNING or DRAINING; each slot belongs to one record or is
//     free.
//  4. A block's count is the number of table entries, from first_live on, of records with a slot
//     that name it, plus the copies that still need it; the entries before are -1. used + free =
//     all, in each group, cached ones being free. Who writes to a block is its only owner.
//  5. A table covers exactly the planned tokens: n_table = ceil(n_planned / block_size).
//  6. No block is given back while a step that uses it is uncommitted: first_live is at most the
//     first block visible from n_computed, and a DRAINING record keeps all that it has.
//  7. reserved is the sum of what the quotas still promise, and at most the free blocks: what was
//     promised is there.
//  8. draining is the sum of the blocks that DRAINING records had alone when they left; each of
//     them is in a step.
//  9. n_computed <= n_planned <= all its tokens, known and pending; equal when it is in no step. A
//     RUNNING record has at least one token more than planned, and outputs, pending ones included,
//     stay below max_output.
// 10. waiting_tokens is the sum of the prompts in the queue; at most two steps are uncommitted.
// 11. The ring holds at most one FINISHED for each record, exactly one for each that has ended and
//     not been taken, and no more TOKENs than have room with those of the steps under way.
// 12. No record has been preempted more than four times.
// 13. The prefix cache (its own invariants are in prefix_cache.h) names only blocks of steps that
//     have retired without failing, and only full ones. A sequence shares blocks of positions that
//     it does not write: at least its last known token is computed anew. A prompt that is cached to
//     its end has its last block computed again, into a block of its own: that is at most
//     block_size rows, while a copy would need a source that stays and a second way to begin.
// 14. A request that waits for another (fork_of) stands behind it in the queue, so there is always
//     somebody to go first.
#include "scheduler/state.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- create ----

static qn_status check_config(const qn_sched_config *c, qn_error *err) {
    const struct {
        const char *name;
        int64_t value, min, max;
    } ranges[] = {
        {"max_seqs", c->max_seqs, 1, 1 << 16},
        {"max_rows", c->max_rows, 1, 1 << 22},
        {"max_len", c->max_len, 2, 1 << 26},
        {"block_size", c->block_size, 1, QN_KV_SPAN},
        {"n_groups", c->n_groups, 1, QN_MAX_KV_GROUPS},
        {"max_waiting", c->max_waiting, 1, 1 << 22},
        {"max_waiting_tokens", c->max_waiting_tokens, 0, INT64_MAX},
        {"overcommit_percent", c->overcommit_percent, 0, 1000},
        {"long_prefill_threshold", c->long_prefill_threshold, 0, INT32_MAX},
        {"max_logits", c->max_logits, 0, 1 << 22},
    };
    for (size_t i = 0; i < QN_COUNT(ranges); i++) {
        if (ranges[i].value >= ranges[i].min && ranges[i].value <= ranges[i].max) continue;
        return qn_fail(err, QN_ERR_INVALID, "scheduler: %s is %lld, not %lld..%lld", ranges[i].name,
                       (long long)ranges[i].value, (long long)ranges[i].min,
                       (long long)ranges[i].max);
    }
    if (QN_KV_SPAN % c->block_size != 0) {
        return qn_fail(err, QN_ERR_INVALID, "scheduler: block_size %d does not divide %d",
                       c->block_size, QN_KV_SPAN);
    }
    for (int32_t g = 0; g < c->n_groups; g++) {
        if (c->n_blocks[g] < 1) {
            return qn_fail(err, QN_ERR_INVALID, "scheduler: KV group %d has %d blocks", g,
                           c->n_blocks[g]);
        }
        if (c->groups[g].kind == QN_KV_WINDOW &&
            (c->groups[g].window < 1 || c->groups[g].window > 1 << 26)) {
            return qn_fail(err, QN_ERR_INVALID, "scheduler: KV group %d has a window of %d tokens",
                           g, c->groups[g].window);
        }
    }
    if (!(c->max_step_seconds >= 0) || !isfinite(c->max_step_seconds)) {
        return qn_fail(err, QN_ERR_INVALID, "scheduler: max_step_seconds is not a time");
    }
    if (!(c->short_prompt_seconds >= 0) || !isfinite(c->short_prompt_seconds)) {
        return qn_fail(err, QN_ERR_INVALID, "scheduler: short_prompt_seconds is not a time");
    }
    if (!(c->max_decode_slowdown == 0 || c->max_decode_slowdown >= 1) ||
        !isfinite(c->max_decode_slowdown)) {
        return qn_fail(err, QN_ERR_INVALID, "scheduler: max_decode_slowdown is %g, not 0 or at "
                       "least 1", c->max_decode_slowdown);
    }
    if (c->max_logits > 0 && c->max_logits < QN_MIN(c->max_seqs, c->max_rows)) {
        return qn_fail(err, QN_ERR_INVALID, "scheduler: max_logits is %d, %d sequences may run",
                       c->max_logits, QN_MIN(c->max_seqs, c->max_rows));
    }
    return QN_OK;
}

static bool allocate(qn_sched *s) {
    const qn_sched_config *c = &s->config;
    size_t max_seqs = (size_t)c->max_seqs, n_tables = max_seqs * (size_t)c->n_groups, entries;
    s->seqs = calloc((size_t)s->n_seqs, sizeof *s->seqs);
    s->free_seqs = calloc((size_t)s->n_seqs, sizeof *s->free_seqs);
    s->taken = calloc((size_t)s->n_seqs, sizeof *s->taken);
    s->slots = calloc(max_seqs, sizeof *s->slots);
    s->free_slots = calloc(max_seqs, sizeof *s->free_slots);
    s->run = calloc(max_seqs, sizeof *s->run);
    if (!qn_mul_size(n_tables, (size_t)s->blocks_per_seq, &entries)) return false;
    s->tables = calloc(entries, sizeof *s->tables);
    s->events = calloc((size_t)s->event_cap, sizeof *s->events);
    s->found = calloc((size_t)s->blocks_per_seq, sizeof *s->found);
    if (!s->found) return false;
    for (int32_t g = 0; g < c->n_groups; g++) {
        s->seen[g] = calloc((size_t)c->n_blocks[g], sizeof *s->seen[g]);
        if (!s->seen[g] || !qn_block_pool_init(&s->pools[g], c->n_blocks[g])) return false;
    }
    if (!qn_prefix_cache_init(&s->cache, s->pools, c->groups, c->n_groups, c->block_size, s->n_seqs,
                              c->prefix_hash_seed, c->prefix_hash_mask,
                              c->enable_prefix_caching)) {
        return false;
    }
    // Those that were preempted come back to the queue on top of max_waiting.
    return s->seqs && s->free_seqs && s->taken && s->slots && s->free_slots && s->run &&
           s->tables && s->events && qn_id_map_init(&s->ids, s->n_seqs) &&
           qn_wait_queue_init(&s->waiting, c->max_waiting + c->max_seqs);
}

qn_status qn_sched_create(const qn_sched_config *config, qn_sched **out, qn_error *err) {
    *out = NULL;
    qn_status status = check_config(config, err);
    if (status != QN_OK) return status;
    qn_sched *s = calloc(1, sizeof *s);
    if (!s) return qn_fail(err, QN_ERR_NOMEM, "scheduler: out of memory");
    s->config = *config;
    s->blocks_per_seq = QN_CEIL_DIV(config->max_len, config->block_size);
    s->run_cap = QN_MIN(config->max_seqs, config->max_rows);
    s->logit_cap = QN_MAX(config->max_logits, s->run_cap);
    // In the queue, in slots, and ended but not taken.
    s->n_seqs = config->max_waiting + 3 * config->max_seqs;
    // A FINISHED for each record; TOKENs of one commit that were not taken, of two steps under way,
    // and of one commit more.
    s->event_cap = s->n_seqs + 4 * config->max_seqs;
    double layers = 0;
    for (int32_t g = 0; g < config->n_groups; g++) layers += QN_MAX(config->groups[g].n_layers, 0);
    for (int32_t g = 0; g < config->n_groups; g++) {
        s->layer_weight[g] = layers > 0 ? QN_MAX(config->groups[g].n_layers, 0) / layers
                                        : 1.0 / config->n_groups;
    }
    if (!allocate(s)) {
        qn_sched_destroy(s);
        return qn_fail(err, QN_ERR_NOMEM, "scheduler: out of memory for %d sequences of %d tokens",
                       config->max_seqs, config->max_len);
    }
    for (int32_t i = 0; i < s->n_seqs; i++) {
        s->seqs[i].slot = -1;
        s->free_seqs[i] = s->n_seqs - 1 - i;
    }
    s->n_free_seqs = s->n_seqs;
    for (int32_t i = 0; i < config->max_seqs; i++) {
        s->free_slots[i] = config->max_seqs - 1 - i;
        s->slots[i] = -1;
    }
    s->n_free_slots = config->max_seqs;
    s->mean_output = QN_SCHED_FIRST_MEAN_OUTPUT;
    *out = s;
    return QN_OK;
}

void qn_sched_destroy(qn_sched *s) {
    if (!s) return;
    for (int32_t i = 0; s->seqs && i < s->n_seqs; i++) free(s->seqs[i].tokens);
    qn_prefix_cache_free(&s->cache);
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        qn_block_pool_free(&s->pools[g]);
        free(s->seen[g]);
    }
    free(s->found);
    qn_id_map_free(&s->ids);
    qn_wait_queue_free(&s->waiting);
    free(s->seqs);
    free(s->free_seqs);
    free(s->taken);
    free(s->slots);
    free(s->free_slots);
    free(s->run);
    free(s->tables);
    free(s->events);
    free(s);
}

static double sane(double v) { return isfinite(v) && v > 0 ? v : 0; }

void qn_sched_set_step_time(qn_sched *s, const qn_step_time_model *model) {
    s->time_model =
        (qn_step_time_model){sane(model->base), sane(model->per_row), sane(model->per_key),
                             sane(model->per_context)};
}

qn_step_plan *qn_sched_make_plan(const qn_sched *s) {
    const qn_sched_config *c = &s->config;
    int64_t blocks = (int64_t)s->run_cap * s->blocks_per_seq * c->n_groups;
    // Beyond this the planner leaves sequences for the next step.
    blocks = QN_MIN(blocks, INT64_C(1) << 28);
    return qn_step_plan_create(s->run_cap, c->max_rows, (int32_t)blocks, s->run_cap * c->n_groups,
                               c->n_groups);
}

// ---- events ----

static void push_event(qn_sched *s, qn_seq *x, qn_sched_event e) {
    int32_t at = s->event_start + s->n_events++;
    if (at >= s->event_cap) at -= s->event_cap;
    e.id = x->id;
    s->events[at] = (qn_sched_slot_event){e, qn_seq_index(s, x)};
    s->n_token_events += e.kind == QN_SCHED_TOKEN;
}

static void free_record(qn_sched *s, qn_seq *x) {
    *x = (qn_seq){.state = QN_SEQ_FREE, .slot = -1};
    s->free_seqs[s->n_free_seqs++] = qn_seq_index(s, x);
}

// Forgets the requests whose FINISHED was taken before this call.
static void forget_taken(qn_sched *s) {
    for (int32_t i = 0; i < s->n_taken; i++) {
        qn_seq *x = &s->seqs[s->taken[i]];
        qn_id_map_remove(&s->ids, x->id);
        if (x->state == QN_SEQ_FINISHED) {
            free_record(s, x);
        } else {
            x->dropped = true; // freed when drained
        }
    }
    s->n_taken = 0;
}

size_t qn_sched_take_events(qn_sched *s, qn_sched_event *out, size_t max) {
    forget_taken(s);
    size_t n = 0;
    while (n < max && s->n_events > 0) {
        const qn_sched_slot_event *e = &s->events[s->event_start];
        out[n++] = e->event;
        if (e->event.kind == QN_SCHED_TOKEN) {
            s->n_token_events--;
        } else {
            s->taken[s->n_taken++] = e->seq;
        }
        if (++s->event_start == s->event_cap) s->event_start = 0;
        s->n_events--;
    }
    return n;
}

// ---- life cycle ----

void qn_seq_set_quota(qn_sched *s, qn_seq *x, int32_t g, int32_t quota) {
    int32_t owed = qn_seq_owed(x, g);
    x->quota[g] = quota;
    s->reserved[g] += qn_seq_owed(x, g) - owed;
}

static void enqueue(qn_sched *s, qn_seq *x) {
    x->state = QN_SEQ_WAITING;
    s->waiting_tokens += x->n_prompt;
    qn_wait_queue_insert(&s->waiting, qn_seq_wait_entry(s, x));
}

// The one terminal event.
static void end(qn_sched *s, qn_seq *x, qn_finish finish, int32_t stop_id) {
    x->ended = true;
    if (finish == QN_FINISH_STOP || finish == QN_FINISH_LENGTH) {
        s->mean_output += (x->n_output - s->mean_output) / QN_SCHED_MEAN_OF;
    }
    push_event(s, x, (qn_sched_event){.kind = QN_SCHED_FINISHED, .finish = finish,
                                      .stop_id = stop_id});
}

static void release_storage(qn_sched *s, qn_seq *x) {
    qn_prefix_salt_drop(&s->cache, x->salt);
    x->salt = NULL;
    free(x->tokens);
    x->tokens = x->stop_ids = NULL;
    x->n_stop_ids = 0;
}

// A draining sequence's last step has retired: its slot and blocks are free.
static void drained(qn_sched *s, qn_seq *x) {
    // A pending token that was discarded is not known, though its KV may have been written.
    qn_seq_publish(s, x, QN_MIN(x->n_computed, x->n_prompt + x->n_output));
    qn_seq_drop_copy(s, x);
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        const int32_t *table = qn_seq_table(s, x, g);
        s->draining[g] -= x->returning[g];
        x->returning[g] = 0;
        // The tail first: it is evicted first.
        for (int32_t i = x->n_table[g] - 1; i >= x->first_live[g]; i--) {
            qn_block_pool_release(&s->pools[g], table[i]);
        }
        x->first_live[g] = x->n_table[g] = 0;
    }
    x->n_published = 0;
    x->chain = -1;
    x->rewound = false;
    s->n_draining--;
    s->slots[x->slot] = -1;
    s->free_slots[s->n_free_slots++] = x->slot;
    x->slot = -1;
    x->n_planned = x->n_computed = 0;
    if (x->aborting && !x->ended) end(s, x, QN_FINISH_ABORT, -1);
    if (!x->ended) {
        enqueue(s, x);
        return;
    }
    release_storage(s, x);
    x->state = QN_SEQ_FINISHED;
    if (x->dropped) free_record(s, x);
}

void qn_seq_leave(qn_sched *s, qn_seq *x) {
    int32_t lo = 0, hi = s->n_run - 1; // its place in run[]
    while (lo < hi) {
        int32_t mid = lo + (hi - lo) / 2;
        if (qn_seq_before(&s->seqs[s->run[mid]], x)) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    s->n_run--;
    memmove(&s->run[lo], &s->run[lo + 1], (size_t)(s->n_run - lo) * sizeof *s->run);
    x->state = QN_SEQ_DRAINING;
    s->n_draining++;
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        qn_seq_set_quota(s, x, g, 0);
        const int32_t *table = qn_seq_table(s, x, g);
        for (int32_t i = x->first_live[g]; i < x->n_table[g]; i++) {
            x->returning[g] += s->pools[g].blocks[table[i]].refs == 1;
        }
        s->draining[g] += x->returning[g];
    }
    if (x->in_flight == 0) drained(s, x);
}

static int compare_ids(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

static bool is_stop_id(const qn_seq *x, int32_t id) {
    return x->n_stop_ids > 0 &&
           bsearch(&id, x->stop_ids, (size_t)x->n_stop_ids, sizeof id, compare_ids) != NULL;
}

// Tokens of one sequence that all the blocks of group g hold; INT32_MAX: any number, because the
// window gives blocks back.
static int32_t capacity(const qn_sched *s, int32_t g) {
    const qn_kv_group *group = &s->config.groups[g];
    int32_t n = s->config.n_blocks[g], size = s->config.block_size;
    if (group->kind == QN_KV_WINDOW && qn_sched_span(group->window, size) <= n) return INT32_MAX;
    return (int32_t)QN_MIN((int64_t)n * size, INT32_MAX);
}

static qn_status check_request(const qn_sched *s, const qn_sched_request *r, qn_error *err) {
    if (r->id == 0) return qn_fail(err, QN_ERR_INVALID, "request id 0");
    if (r->n_prompt < 1 || !r->prompt) return qn_fail(err, QN_ERR_INVALID, "the prompt is empty");
    if (r->max_tokens < 1) {
        return qn_fail(err, QN_ERR_INVALID, "max_tokens is %d, not at least 1", r->max_tokens);
    }
    if (r->min_tokens < 0 || r->min_tokens > r->max_tokens) {
        return qn_fail(err, QN_ERR_INVALID, "min_tokens is %d, not 0..%d (max_tokens)",
                       r->min_tokens, r->max_tokens);
    }
    if (r->n_stop_ids < 0 || (r->n_stop_ids > 0 && !r->stop_ids)) {
        return qn_fail(err, QN_ERR_INVALID, "malformed stop ids");
    }
    if (r->n_stop_ids > QN_SCHED_MAX_STOP_IDS) {
        return qn_fail(err, QN_ERR_LIMIT, "%d stop ids, at most %d", r->n_stop_ids,
                       QN_SCHED_MAX_STOP_IDS);
    }
    if (r->prompt_logits && r->fork_of) {
        return qn_fail(err, QN_ERR_INVALID,
                       "a fork computes no prompt, so it has no prompt logits");
    }
    if (r->adapter < -1) return qn_fail(err, QN_ERR_INVALID, "adapter %d", r->adapter);
    if (r->cache_salt_len > QN_SCHED_MAX_SALT) {
        return qn_fail(err, QN_ERR_LIMIT, "the cache salt has %zu bytes, at most %d",
                       r->cache_salt_len, QN_SCHED_MAX_SALT);
    }
    if (r->cache_salt_len > 0 && !r->cache_salt) {
        return qn_fail(err, QN_ERR_INVALID, "malformed cache salt");
    }
    if (r->n_prompt >= s->config.max_len) {
        return qn_fail(err, QN_ERR_LIMIT,
                       "the prompt has %d tokens; with at least one token of output at most %d fit "
                       "(the maximum length is %d)",
                       r->n_prompt, s->config.max_len - 1, s->config.max_len);
    }
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        if (r->n_prompt < capacity(s, g)) continue;
        return qn_fail(err, QN_ERR_LIMIT,
                       "the prompt has %d tokens; with at least one token of output the KV cache "
                       "can never hold more than %d (%d blocks of %d tokens)",
                       r->n_prompt, capacity(s, g) - 1, s->config.n_blocks[g],
                       s->config.block_size);
    }
    if (s->config.max_waiting_tokens > 0 && r->n_prompt > s->config.max_waiting_tokens) {
        return qn_fail(err, QN_ERR_LIMIT, "the prompt has %d tokens; the queue holds at most %lld",
                       r->n_prompt, (long long)s->config.max_waiting_tokens);
    }
    for (int32_t i = 0; i < r->n_prompt; i++) {
        if (r->prompt[i] < 0) {
            return qn_fail(err, QN_ERR_INVALID, "prompt token %d is %d", i, r->prompt[i]);
        }
    }
    if (qn_id_map_get(&s->ids, r->id) >= 0) {
        return qn_fail(err, QN_ERR_INVALID, "request id %llu is in use", (unsigned long long)r->id);
    }
    if (s->waiting.count >= s->config.max_waiting) {
        return qn_fail(err, QN_ERR_BUSY, "the queue is full: %d requests wait, at most %d",
                       s->waiting.count, s->config.max_waiting);
    }
    if (s->config.max_waiting_tokens > 0 &&
        s->waiting_tokens > s->config.max_waiting_tokens - r->n_prompt) {
        return qn_fail(err, QN_ERR_BUSY,
                       "the queue is full: %lld prompt tokens wait, and with this prompt's %d "
                       "there would be more than %lld",
                       (long long)s->waiting_tokens, r->n_prompt,
                       (long long)s->config.max_waiting_tokens);
    }
    if (s->n_free_seqs == 0) {
        return qn_fail(err, QN_ERR_BUSY, "too many ended requests have not been taken");
    }
    return QN_OK;
}

static qn_seq *find(const qn_sched *s, uint64_t id) {
    int32_t index = qn_id_map_get(&s->ids, id);
    return index < 0 ? NULL : &s->seqs[index];
}

qn_status qn_sched_add(qn_sched *s, const qn_sched_request *r, double now, qn_error *err) {
    forget_taken(s);
    qn_status status = check_request(s, r, err);
    if (status != QN_OK) return status;
    qn_prefix_salt *salt;
    if (!qn_prefix_salt_hold(&s->cache, r->cache_salt, r->cache_salt_len, &salt)) {
        return qn_fail(err, QN_ERR_NOMEM, "out of memory for a cache salt");
    }
    const qn_seq *parent = r->fork_of ? find(s, r->fork_of) : NULL;
    if (parent && (parent->ended || parent->aborting)) parent = NULL;
    const size_t prompt_bytes = (size_t)r->n_prompt * sizeof *r->prompt;
    if (parent && (parent->n_prompt != r->n_prompt || parent->adapter != r->adapter ||
                   parent->salt != salt || memcmp(parent->tokens, r->prompt, prompt_bytes) != 0)) {
        qn_prefix_salt_drop(&s->cache, salt);
        return qn_fail(err, QN_ERR_INVALID, "a fork's prompt, salt or adapter is not its parent's");
    }
    int32_t max_output = QN_MIN(r->max_tokens, s->config.max_len - r->n_prompt);
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        // Its last token needs no KV.
        int64_t room = (int64_t)capacity(s, g) - r->n_prompt + 1;
        max_output = (int32_t)QN_MIN(max_output, room);
    }
    size_t n_tokens = (size_t)r->n_prompt + (size_t)max_output;
    int32_t *tokens = malloc((n_tokens + (size_t)r->n_stop_ids) * sizeof *tokens);
    if (!tokens) {
        qn_prefix_salt_drop(&s->cache, salt);
        return qn_fail(err, QN_ERR_NOMEM, "out of memory for a request of %zu tokens", n_tokens);
    }
    qn_seq *x = &s->seqs[s->free_seqs[--s->n_free_seqs]];
    *x = (qn_seq){.slot = -1,
                  .n_prompt = r->n_prompt,
                  .max_output = max_output,
                  .adapter = r->adapter,
                  .tokens = tokens,
                  .id = r->id,
                  .arrival = s->next_arrival++,
                  .priority = parent ? parent->priority : r->priority,
                  .chain = -1,
                  .hint = INT32_MAX,
                  .skip_cache_read = r->skip_cache_read || r->prompt_logits,
                  .prompt_logits = r->prompt_logits,
                  .copy_src = {-1, -1, -1, -1},
                  .salt = salt,
                  .fork_of = parent ? qn_seq_index(s, parent) : -1,
                  .fork_arrival = parent ? parent->arrival : 0,
                  .min_output = r->min_tokens,
                  .n_stop_ids = r->n_stop_ids,
                  .stop_ids = tokens + n_tokens,
                  .arrived = now};
    memcpy(tokens, r->prompt, (size_t)r->n_prompt * sizeof *tokens);
    if (r->n_stop_ids > 0) {
        memcpy(x->stop_ids, r->stop_ids, (size_t)r->n_stop_ids * sizeof *tokens);
        qsort(x->stop_ids, (size_t)r->n_stop_ids, sizeof *tokens, compare_ids);
    }
    qn_id_map_put(&s->ids, x->id, qn_seq_index(s, x));
    enqueue(s, x);
    return QN_OK;
}

bool qn_sched_abort(qn_sched *s, uint64_t id) {
    qn_seq *x = find(s, id);
    if (!x || x->ended) return false;
    x->aborting = true;
    if (x->state == QN_SEQ_WAITING) {
        qn_wait_queue_remove(&s->waiting, qn_seq_wait_entry(s, x));
        s->waiting_tokens -= x->n_prompt;
        end(s, x, QN_FINISH_ABORT, -1);
        release_storage(s, x);
        x->state = QN_SEQ_FINISHED;
    } else if (x->state == QN_SEQ_RUNNING) {
        qn_seq_leave(s, x);
    }
    return true;
}

// ---- steps ----

bool qn_sched_plan(qn_sched *s, double now, qn_step_plan *plan) {
    forget_taken(s);
    qn_step_plan_reset(plan);
    plan->step = s->next_step;
    plan->n_groups = s->config.n_groups;
    if (s->n_in_flight == QN_SCHED_MAX_IN_FLIGHT) return false;
    int32_t tokens = s->n_token_events + s->run_cap; // those of this step included
    for (int32_t i = 0; i < s->n_in_flight; i++) tokens += s->in_flight[i].n_tokens;
    if (tokens > s->event_cap - s->n_seqs) return false;
    if (!qn_sched_plan_step(s, now, plan)) return false;
    s->in_flight[s->n_in_flight].step = s->next_step++;
    s->in_flight[s->n_in_flight++].n_tokens = QN_MIN(plan->n_seqs, plan->n_logits);
    return true;
}

static void add_token(qn_sched *s, qn_seq *x, int32_t id, int32_t logit_row, double now) {
    x->tokens[x->n_prompt + x->n_output++] = id;
    if (x->n_output == 1) x->first_token = now;
    s->generated_tokens++;
    push_event(s, x, (qn_sched_event){.kind = QN_SCHED_TOKEN, .token = id, .logit_row = logit_row,
                                      .stop_id = -1});
    if (x->n_output >= x->min_output && is_stop_id(x, id)) {
        end(s, x, QN_FINISH_STOP, id);
    } else if (x->n_output == x->max_output) {
        end(s, x, QN_FINISH_LENGTH, -1);
    }
}

// Blocks that no query to come, nor any in a step under way, can see.
static void give_back_passed(qn_sched *s, qn_seq *x) {
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        if (s->config.groups[g].kind != QN_KV_WINDOW) continue;
        int32_t *table = qn_seq_table(s, x, g), owed = qn_seq_owed(x, g);
        int32_t first = qn_kv_first_visible(&s->config.groups[g], x->n_computed);
        first = QN_MIN(first / s->config.block_size, x->n_table[g]);
        for (; x->first_live[g] < first; x->first_live[g]++) {
            // One that others share is not free: nothing can be promised for it.
            bool freed = qn_block_pool_release(&s->pools[g], table[x->first_live[g]]);
            if (!freed && x->quota[g] > 0) x->quota[g]--;
            table[x->first_live[g]] = -1;
        }
        s->reserved[g] += qn_seq_owed(x, g) - owed;
    }
}

static void commit(qn_sched *s, const qn_step_plan *plan, const qn_sched_row *rows, bool failed,
                   double now) {
    forget_taken(s);
    if (s->n_in_flight == 0 || plan->step != s->in_flight[0].step) return;
    s->in_flight[0] = s->in_flight[1];
    s->n_in_flight--;
    s->steps++;
    for (int32_t i = 0; i < plan->n_seqs; i++) {
        const qn_plan_seq *p = &qn_plan_seqs(plan)[i];
        qn_seq *x = &s->seqs[s->slots[p->slot]];
        x->in_flight--;
        x->n_computed += p->query_len;
        // Its last logit row, unless these are rows inside a prompt (prompt_logits).
        const bool sampled = p->n_logits > 0 && x->n_computed >= x->n_prompt;
        const int32_t last = p->logit_start + p->n_logits - 1;
        x->n_pending -= sampled;
        int32_t prompt = QN_MIN(x->n_computed, x->n_prompt) - x->n_counted;
        if (!failed && prompt > 0) {
            x->n_counted += prompt;
            s->prompt_tokens += (uint64_t)prompt;
        }
        int32_t again = QN_MIN(x->most_computed, x->n_computed) - (x->n_computed - p->query_len);
        if (again > 0) s->recomputed_tokens += (uint64_t)again;
        x->most_computed = QN_MAX(x->most_computed, x->n_computed);
        if (x->copying) qn_seq_drop_copy(s, x);
        bool bad = failed || (sampled && rows[last].id < 0);
        for (int32_t j = p->logit_start; !failed && j <= last; j++) bad |= !rows[j].ok;
        x->poisoned |= bad;
        if (!x->ended && !x->aborting) {
            if (bad) {
                end(s, x, QN_FINISH_ERROR, -1);
            } else if (sampled) {
                add_token(s, x, rows[last].id, last, now);
            }
        }
        if (x->state == QN_SEQ_RUNNING) {
            if (x->ended) {
                qn_seq_leave(s, x);
            } else {
                // Outputs are published when it leaves: until then nobody else can have them.
                if (p->position < x->n_prompt) {
                    qn_seq_publish(s, x, QN_MIN(x->n_computed, x->n_prompt));
                }
                give_back_passed(s, x);
            }
        } else if (x->in_flight == 0) {
            drained(s, x);
        }
    }
}

void qn_sched_commit(qn_sched *s, const qn_step_plan *plan, const qn_sched_row *rows, double now) {
    commit(s, plan, rows, plan->n_logits > 0 && !rows, now);
}

void qn_sched_commit_failed(qn_sched *s, const qn_step_plan *plan, double now) {
    commit(s, plan, NULL, true, now);
}

void qn_sched_clear_cache(qn_sched *s) {
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        int32_t *taken = s->seen[g], n = s->pools[g].n_free;
        for (int32_t i = 0; i < n; i++) taken[i] = qn_prefix_take_block(&s->cache, g);
        while (n > 0) qn_block_pool_release(&s->pools[g], taken[--n]);
    }
}

// ---- questions ----

bool qn_sched_seq(const qn_sched *s, uint64_t id, qn_sched_seq_info *info) {
    const qn_seq *x = find(s, id);
    if (!x) return false;
    *info = (qn_sched_seq_info){.slot = x->slot,
                                .n_prompt = x->n_prompt,
                                .n_output = x->n_output,
                                .arrived = x->arrived,
                                .first_scheduled = x->first_scheduled,
                                .first_token = x->first_token,
                                .preemptions = x->preemptions,
                                .n_cached = x->n_cached};
    return true;
}

uint64_t qn_sched_slot_id(const qn_sched *s, int32_t slot) {
    if (slot < 0 || slot >= s->config.max_seqs || s->slots[slot] < 0) return 0;
    const qn_seq *x = &s->seqs[s->slots[slot]];
    return x->ended ? 0 : x->id;
}

void qn_sched_stats_get(const qn_sched *s, qn_sched_stats *out) {
    *out = (qn_sched_stats){.running = s->n_run + s->n_draining,
                            .waiting = s->waiting.count,
                            .waiting_tokens = s->waiting_tokens,
                            .steps = s->steps,
                            .preemptions = s->preemptions,
                            .prompt_tokens = s->prompt_tokens,
                            .generated_tokens = s->generated_tokens,
                            .prefix_queries = s->prefix_queries,
                            .prefix_hits = s->prefix_hits,
                            .prefix_evictions = s->cache.evictions,
                            .forks = s->forks,
                            .recomputed_tokens = s->recomputed_tokens};
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        out->blocks_total[g] = s->config.n_blocks[g];
        out->blocks_used[g] = s->config.n_blocks[g] - s->pools[g].n_free;
        out->blocks_cached[g] = s->pools[g].n_free - s->pools[g].n_clean;
    }
}
