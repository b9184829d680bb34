// SPDX-License-Identifier: Apache-2.0
#include "tools/scheduler_check.h"

#include "base/checked.h"
#include "base/hash.h"
#include "scheduler/scheduler.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    VOCAB = 48,
    MAX_LIVE = 256,
    MAX_STEP_SEQS = 64,
    DOCUMENTS = 6,
    DOCUMENT_TOKENS = 160,
    DEPTH = 2,
    // What the scheduler promises (scheduler/state.h), said again here.
    MAX_PREEMPTIONS = 4,
    MAX_OVERTAKEN = 32,
};

typedef struct request {
    uint64_t id, uid; // uid: unique in the run; ids are used again
    int32_t n_prompt, max_output, min_tokens;
    int32_t stops[3], n_stops;
    int32_t priority;
    int32_t salt;         // 0: none
    bool skip_cache, prompt_logits;
    int32_t most; // rows that were committed, at the most
    int32_t begin; // the blocks before it were there when it was admitted
    uint64_t parent;      // the uid of the request that it is a fork of; 0: none
    uint64_t *history;    // [as ref]: the hash of salt and tokens up to there
    int32_t n_history;
    int32_t n_ref;   // tokens in ref
    int32_t *ref;    // prompt and what the model says after it, alone; grows as needed
    int32_t *rows;   // [outputs]: the logit row that gave it
    int32_t n_done;  // outputs committed
    int32_t n_got;   // TOKEN events taken
    bool over;       // its outcome is decided
    bool aborted, poisoned; // poisoned: a step of it did not run
    qn_finish finish;
    int32_t stop_id;
    bool started;        // was in a plan
    bool admitted;       // had a slot after an earlier plan
    int32_t goal;        // rows before it are of the prompt, or of outputs computed again
    int32_t next_pos;    // where its next row must be, unless preempted
    int32_t preemptions; // as of its last row
    int32_t seen_preemptions;
    int32_t overtaken;
    int32_t n_idle; // plans since its last row, while in a slot
    double arrived;
} request;

typedef struct cell {
    uint64_t history; // of its position
    int32_t pos, token;
} cell;

typedef struct flight {
    qn_step_plan *plan;
    uint64_t uids[MAX_STEP_SEQS];
    bool executed;
    qn_sched_row *rows;
} flight;

typedef struct sim {
    uint64_t rng, n_calls;
    qn_sched *s;
    qn_sched_config config;
    qn_step_time_model model;
    double now;
    int32_t lookahead;
    bool ample; // blocks for all: then nobody may be left out or preempted
    bool faults, aborts, one_priority, lazy_events;
    double arrival_rate, forks;
    request *live[MAX_LIVE];
    int32_t n_live;
    request *gone[MAX_LIVE]; // their ends were handled, but a step under way has rows of them
    int32_t n_gone;
    int32_t documents[DOCUMENTS][DOCUMENT_TOKENS]; // what prompts begin with
    double repeats;                                // how often
    uint64_t next_uid, next_id, forgotten_id;
    flight flights[DEPTH + 1]; // [0..n_flights): uncommitted, oldest first; the last is scratch
    int32_t n_flights;
    cell *kv[QN_MAX_KV_GROUPS];
    uint64_t *users[QN_MAX_KV_GROUPS];   // whose table it is in; SEVERAL
    uint64_t *writers[QN_MAX_KV_GROUPS]; // who writes to it
    int32_t *last; // [max_seqs]: the device's last sampled id of a slot
    uint64_t prompt_tokens, tokens;
    int64_t steps; // committed
    qn_sched_stats before;
    qn_scheduler_check_totals *totals;
    char *message;
    int message_size;
} sim;

#define SEVERAL UINT64_MAX
static const char *const salts[] = {"", "a", "b", "a longer salt"};

// ---- chance ----

static uint64_t next(sim *m) {
    m->rng += 0x9e3779b97f4a7c15u;
    return qn_hash_u64(m->rng);
}
static int32_t between(sim *m, int32_t lo, int32_t hi) {
    return lo + (int32_t)(next(m) % (uint64_t)(hi - lo + 1));
}
static bool chance(sim *m, double p) { return (double)(next(m) >> 11) * 0x1p-53 < p; }

static bool fail(sim *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool fail(sim *m, const char *fmt, ...) {
    int n = snprintf(m->message, (size_t)m->message_size, "call %llu: ",
                     (unsigned long long)m->n_calls);
    va_list args;
    va_start(args, fmt);
    vsnprintf(m->message + n, (size_t)(m->message_size - n), fmt, args);
    va_end(args);
    return false;
}
#define EXPECT(condition, ...)                        \
    do {                                              \
        if (!(condition)) return fail(m, __VA_ARGS__); \
    } while (0)

static bool check(sim *m, const char *after) {
    const char *reason = "?";
    EXPECT(qn_sched_check(m->s, &reason), "invariant after %s: %s", after, reason);
    qn_sched_stats now;
    qn_sched_stats_get(m->s, &now);
    EXPECT(now.steps >= m->before.steps && now.preemptions >= m->before.preemptions &&
               now.prompt_tokens >= m->before.prompt_tokens &&
               now.generated_tokens >= m->before.generated_tokens, "a counter falls after %s", after);
    m->before = now;
    return true;
}

// ---- the model ----

// The hash of what a query at pos sees, token by token.
static uint64_t mix(uint64_t h, int32_t pos, int32_t token) {
    return qn_hash_u64(h * 31 + (uint64_t)(uint32_t)token * 0x10001 + (uint64_t)(uint32_t)pos);
}
static int32_t sample(uint64_t h) { return (int32_t)(qn_hash_u64(h + 7) % VOCAB); }

// The token that belongs at a position.
static int32_t ref_token(const sim *m, request *r, int32_t pos) {
    while (r->n_ref <= pos) {
        int32_t p = r->n_ref - 1;
        uint64_t h = 1;
        for (int32_t g = 0; g < m->config.n_groups; g++) {
            for (int32_t j = qn_kv_first_visible(&m->config.groups[g], p); j <= p; j++) {
                h = mix(h, j, r->ref[j]);
            }
        }
        r->ref[r->n_ref++] = sample(h);
    }
    return r->ref[pos];
}

// Two requests with the same history up to a position have the same KV there.
static uint64_t history(const sim *m, request *r, int32_t pos) {
    for (; r->n_history <= pos; r->n_history++) {
        uint64_t before = r->n_history > 0 ? r->history[r->n_history - 1] : (uint64_t)r->salt + 99;
        r->history[r->n_history] = mix(before, r->n_history, ref_token(m, r, r->n_history));
    }
    return r->history[pos];
}

static request *find_id(sim *m, uint64_t id) {
    for (int32_t i = 0; i < m->n_live; i++) {
        if (m->live[i]->id == id) return m->live[i];
    }
    return NULL;
}
static request *find_uid(sim *m, uint64_t uid) {
    for (int32_t i = 0; i < m->n_live; i++) {
        if (m->live[i]->uid == uid) return m->live[i];
    }
    for (int32_t i = 0; i < m->n_gone; i++) {
        if (m->gone[i]->uid == uid) return m->gone[i];
    }
    return NULL;
}

// ---- requests ----

static int64_t capacity(const sim *m, int32_t g) {
    const qn_kv_group *group = &m->config.groups[g];
    int32_t size = m->config.block_size;
    // The most blocks that window neighbouring positions can touch.
    int32_t touched = 1 + (group->window - 1 + size - 1) / size;
    if (group->kind == QN_KV_WINDOW && touched <= m->config.n_blocks[g]) return INT64_MAX / 2;
    return (int64_t)m->config.n_blocks[g] * size;
}

static void free_request(request *r) {
    if (!r) return;
    free(r->ref);
    free(r->rows);
    free(r->history);
    free(r);
}

static bool in_flight(const sim *m, uint64_t uid) {
    for (int32_t f = 0; f < m->n_flights; f++) {
        for (int32_t i = 0; i < m->flights[f].plan->n_seqs; i++) {
            if (m->flights[f].uids[i] == uid) return true;
        }
    }
    return false;
}

static void free_gone(sim *m) {
    for (int32_t i = 0; i < m->n_gone;) {
        if (in_flight(m, m->gone[i]->uid)) {
            i++;
            continue;
        }
        free_request(m->gone[i]);
        m->gone[i] = m->gone[--m->n_gone];
    }
}

// A fork that may have to wait for another request's prompt.
static bool waits_for_parent(sim *m, const request *r) {
    const request *p = r->parent ? find_uid(m, r->parent) : NULL;
    return p && !p->over;
}

// The prompt: new, a document's beginning, or what another request holds, prompt and outputs.
static void write_prompt(sim *m, request *r) {
    for (int32_t i = 0; i < r->n_prompt; i++) r->ref[i] = between(m, 0, VOCAB - 1);
    if (!chance(m, m->repeats)) return;
    const int32_t *from = m->documents[between(m, 0, DOCUMENTS - 1)];
    int32_t n = DOCUMENT_TOKENS;
    if (m->n_live > 0 && chance(m, 0.3)) {
        const request *o = m->live[between(m, 0, m->n_live - 1)];
        from = o->ref;
        n = o->n_prompt + o->n_done;
        r->salt = o->salt;
    }
    n = QN_MIN(n, r->n_prompt);
    if (chance(m, 0.5)) n = between(m, 0, n);
    memcpy(r->ref, from, (size_t)n * sizeof *from);
}

// fork_of: NULL, or a live request whose prompt this one gets.
static bool add_request(sim *m, const request *fork_of) {
    const qn_sched_config *c = &m->config;
    request *r = calloc(1, sizeof *r);
    EXPECT(r, "out of memory");
    r->uid = ++m->next_uid;
    r->id = m->forgotten_id && chance(m, 0.2) ? m->forgotten_id : ++m->next_id;
    m->forgotten_id = 0;
    int32_t longest = chance(m, 0.1) ? c->max_len + 2 : chance(m, 0.3) ? c->max_len - 1
                                                                       : c->max_len / 4 + 1;
    for (int32_t g = 0; g < c->n_groups && chance(m, 0.8); g++) {
        longest = (int32_t)QN_MIN((int64_t)longest, capacity(m, g) - 1);
    }
    r->n_prompt = fork_of ? fork_of->n_prompt : between(m, 1, QN_MAX(longest, 1));
    int32_t max_tokens = chance(m, 0.1) ? INT32_MAX : between(m, 1, c->max_len);
    if (chance(m, 0.2)) max_tokens = between(m, 1, 2);
    r->min_tokens = chance(m, 0.3) ? between(m, 0, QN_MIN(max_tokens, 8)) : 0;
    r->n_stops = between(m, 0, 3);
    for (int32_t i = 0; i < r->n_stops; i++) r->stops[i] = between(m, 0, VOCAB - 1);
    r->priority = m->one_priority ? 0 : between(m, -1, 1);
    r->arrived = m->now;
    r->max_output = (int32_t)QN_MIN((int64_t)max_tokens, QN_MAX(1, (int64_t)c->max_len - r->n_prompt));
    bool too_long = r->n_prompt + 1 > c->max_len;
    for (int32_t g = 0; g < c->n_groups; g++) {
        too_long |= r->n_prompt + 1 > capacity(m, g);
        int64_t room = capacity(m, g) - r->n_prompt + 1;
        if (room >= 1) r->max_output = (int32_t)QN_MIN((int64_t)r->max_output, room);
    }
    too_long |= c->max_waiting_tokens > 0 && r->n_prompt > c->max_waiting_tokens;
    size_t n = (size_t)r->n_prompt + (size_t)r->max_output + 4;
    r->ref = calloc(n, sizeof *r->ref);
    r->rows = calloc(n, sizeof *r->rows);
    r->history = calloc(n, sizeof *r->history);
    if (!r->ref || !r->rows || !r->history) {
        free_request(r);
        return fail(m, "out of memory");
    }
    r->salt = chance(m, 0.7) ? 0 : between(m, 0, 3);
    r->prompt_logits = !fork_of && chance(m, 0.1);
    r->skip_cache = r->prompt_logits || chance(m, 0.1);
    write_prompt(m, r);
    if (fork_of) {
        r->salt = fork_of->salt;
        memcpy(r->ref, fork_of->ref, (size_t)r->n_prompt * sizeof *r->ref);
        r->parent = fork_of->uid;
        if (!fork_of->over) r->priority = fork_of->priority;
    }
    r->n_ref = r->n_prompt;

    qn_sched_stats stats;
    qn_sched_stats_get(m->s, &stats);
    bool busy = stats.waiting >= c->max_waiting ||
                (c->max_waiting_tokens > 0 &&
                 stats.waiting_tokens + r->n_prompt > c->max_waiting_tokens);
    qn_sched_request q = {.id = r->id,
                          .prompt = r->ref,
                          .n_prompt = r->n_prompt,
                          .max_tokens = max_tokens,
                          .min_tokens = r->min_tokens,
                          .stop_ids = r->stops,
                          .n_stop_ids = r->n_stops,
                          .adapter = -1,
                          .priority = fork_of ? between(m, -9, 9) : r->priority,
                          .cache_salt = salts[r->salt],
                          .cache_salt_len = strlen(salts[r->salt]),
                          .skip_cache_read = r->skip_cache && (!r->prompt_logits || chance(m, 0.5)),
                          .prompt_logits = r->prompt_logits};
    q.fork_of = fork_of ? fork_of->id : !r->prompt_logits && chance(m, 0.1) ? 999999999 : 0;
    if (fork_of && fork_of->over) q.priority = r->priority;
    qn_error err = {0};
    qn_status status = qn_sched_add(m->s, &q, m->now, &err);
    qn_status expected = too_long ? QN_ERR_LIMIT : busy ? QN_ERR_BUSY : QN_OK;
    // Ended requests that were not taken may take the records' place.
    bool lazy_busy = m->lazy_events && status == QN_ERR_BUSY && expected == QN_OK;
    if (status != QN_OK) {
        int32_t n_prompt = r->n_prompt;
        free_request(r);
        m->totals->refused++;
        EXPECT(status == expected || lazy_busy, "add of %d tokens: %s (%s), expected %s", n_prompt,
               qn_status_name(status), err.message, qn_status_name(expected));
        return !chance(m, 0.1) || check(m, "refused add");
    }
    m->live[m->n_live++] = r;
    m->totals->requests++;
    EXPECT(expected == QN_OK, "add of %d tokens was taken", r->n_prompt);
    if (chance(m, 0.1)) {
        EXPECT(qn_sched_add(m->s, &q, m->now, NULL) != QN_OK, "an id in use was taken");
    }
    return check(m, "add");
}

static bool abort_one(sim *m) {
    if (m->n_live == 0) return true;
    request *r = m->live[between(m, 0, m->n_live - 1)];
    bool known = qn_sched_abort(m->s, r->id);
    EXPECT(known || r->over, "abort of a live request was refused");
    EXPECT(!known || !r->over || r->aborted, "abort of an ended request was taken");
    if (!r->over) {
        r->over = r->aborted = true;
        r->finish = QN_FINISH_ABORT;
        r->stop_id = -1;
    }
    return check(m, "abort");
}

// ---- planning ----

static double keys_of(const sim *m, int32_t pos, int32_t rows) {
    double keys = 0;
    for (int32_t g = 0; g < m->config.n_groups; g++) {
        for (int32_t p = pos; p < pos + rows; p++) {
            keys += p + 1 - qn_kv_first_visible(&m->config.groups[g], p);
        }
    }
    return keys / m->config.n_groups; // all groups of a simulation have the same number of layers
}

static double context_of(const sim *m, int32_t pos, int32_t rows) {
    double keys = 0;
    for (int32_t g = 0; g < m->config.n_groups; g++) {
        keys += pos + rows - qn_kv_first_visible(&m->config.groups[g], pos);
    }
    return keys / m->config.n_groups;
}

static void mark(sim *m, int32_t g, int32_t block, uint64_t uid, bool written) {
    uint64_t *user = &m->users[g][block];
    *user = *user == 0 || *user == uid ? uid : SEVERAL;
    if (written) m->writers[g][block] = uid;
}

static bool check_table(sim *m, const qn_step_plan *plan, const qn_plan_seq *p, uint64_t uid) {
    for (int32_t g = 0; g < m->config.n_groups; g++) {
        const int32_t *table = qn_plan_blocks(plan) + p->block_start[g];
        EXPECT(p->n_blocks[g] == QN_CEIL_DIV(p->position + p->query_len, m->config.block_size),
               "a table of %d blocks for %d tokens", p->n_blocks[g], p->position + p->query_len);
        int32_t first = qn_kv_first_visible(&m->config.groups[g], p->position);
        for (int32_t b = first / m->config.block_size; b < p->n_blocks[g]; b++) {
            EXPECT(table[b] >= 0, "a visible block is missing");
        }
        for (int32_t b = 0; b < p->n_blocks[g]; b++) {
            if (table[b] >= 0) mark(m, g, table[b], uid, b >= p->position / m->config.block_size);
        }
    }
    return true;
}

// Who uses which block in the steps under way.
static void mark_users(sim *m) {
    for (int32_t g = 0; g < m->config.n_groups; g++) {
        memset(m->users[g], 0, (size_t)m->config.n_blocks[g] * sizeof *m->users[g]);
        memset(m->writers[g], 0, (size_t)m->config.n_blocks[g] * sizeof *m->writers[g]);
        for (int32_t f = 0; f < m->n_flights; f++) {
            const qn_step_plan *plan = m->flights[f].plan;
            for (int32_t i = 0; i < plan->n_seqs; i++) {
                const qn_plan_seq *p = &qn_plan_seqs(plan)[i];
                for (int32_t b = 0; b < p->n_blocks[g]; b++) {
                    int32_t id = qn_plan_blocks(plan)[p->block_start[g] + b];
                    if (id < 0) continue;
                    mark(m, g, id, m->flights[f].uids[i], b >= p->position / m->config.block_size);
                }
            }
        }
    }
}

static bool check_users(sim *m, const flight *f) {
    for (int32_t g = 0; g < m->config.n_groups; g++) {
        for (int32_t b = 0; b < m->config.n_blocks[g]; b++) {
            EXPECT(m->writers[g][b] == 0 || m->users[g][b] == m->writers[g][b],
                   "block %d of group %d is written to and in two sequences", b, g);
        }
    }
    for (int32_t i = 0; i < f->plan->n_copies; i++) {
        const qn_plan_copy *c = &qn_plan_copies(f->plan)[i];
        EXPECT(m->writers[c->group][c->dst] != 0, "a copy to a block that nobody writes to");
        for (int32_t k = 0; k < f->plan->n_copies; k++) {
            const qn_plan_copy *o = &qn_plan_copies(f->plan)[k];
            EXPECT(o->group != c->group || (o->src != c->dst && (k == i || o->dst != c->dst)),
                   "a copy of a copy, or two to one block");
        }
    }
    m->totals->copies += (uint64_t)f->plan->n_copies;
    return true;
}

// Admitted, though without rows yet: a step's logit rows may all be taken.
static bool has_slot(const sim *m, const request *r) {
    qn_sched_seq_info info;
    return qn_sched_seq(m->s, r->id, &info) && info.slot >= 0;
}

static bool check_admission(sim *m, request *r) {
    r->started = true;
    if (r->admitted) return true;
    for (int32_t i = 0; i < m->n_live && m->ample; i++) {
        const request *o = m->live[i];
        if (o->started || o->over || waits_for_parent(m, o) || has_slot(m, o)) continue;
        EXPECT(o->priority > r->priority || (o->priority == r->priority && o->uid > r->uid),
               "admitted out of order though all fits");
    }
    if (!m->one_priority) return true;
    for (int32_t i = 0; i < m->n_live; i++) {
        request *o = m->live[i];
        if (o->started || o->over || o->uid >= r->uid || waits_for_parent(m, o)) continue;
        if (has_slot(m, o)) continue;
        m->totals->overtakes++;
        EXPECT(++o->overtaken <= MAX_OVERTAKEN, "a waiter was overtaken too often");
    }
    return true;
}

static bool comes_before(const request *a, const request *b) {
    return a->priority < b->priority || (a->priority == b->priority && a->uid < b->uid);
}

// Whoever was preempted by the last plan, somebody before it runs on.
static bool check_victims(sim *m) {
    for (int32_t i = 0; i < m->n_live; i++) {
        request *r = m->live[i];
        qn_sched_seq_info info;
        EXPECT(qn_sched_seq(m->s, r->id, &info), "a live request is unknown");
        EXPECT(info.preemptions <= MAX_PREEMPTIONS, "%d preemptions", info.preemptions);
        if (r->over || info.preemptions == r->seen_preemptions) continue;
        EXPECT(info.preemptions == r->seen_preemptions + 1, "preempted twice in a step");
        r->seen_preemptions = info.preemptions;
        bool better = false;
        for (int32_t k = 0; k < m->n_live && !better; k++) {
            const request *o = m->live[k];
            qn_sched_seq_info its;
            better = o != r && !o->over && qn_sched_seq(m->s, o->id, &its) && its.slot >= 0 &&
                     comes_before(o, r);
        }
        EXPECT(better && !m->ample, "the first was preempted");
    }
    return true;
}

static int32_t logit_cap(const qn_sched_config *c) {
    return QN_MAX(c->max_logits, QN_MIN(c->max_seqs, c->max_rows));
}

// Prompts may be short of time or of logit rows, not only of rows.
static bool may_hold_back(const sim *m, const qn_step_plan *plan) {
    return m->config.max_step_seconds > 0 || m->config.max_decode_slowdown > 0 ||
           plan->n_logits == logit_cap(&m->config);
}

// Prompts that are not short get as much time as the streams allow, or as many heads of them there
// are; the first gets a block's worth in any case.
static bool check_shared_time(sim *m, const flight *f) {
    const qn_step_plan *plan = f->plan;
    const qn_sched_config *c = &m->config;
    double streams = m->model.base, prompts = 0;
    int32_t n_streams = 0, n_prompts = 0, rows = 0, wanting = 0;
    for (int32_t i = 0; i < plan->n_seqs; i++) {
        const qn_plan_seq *p = &qn_plan_seqs(plan)[i];
        const request *r = find_uid(m, f->uids[i]);
        double seconds = m->model.per_row * p->query_len +
                         m->model.per_key * keys_of(m, p->position, p->query_len) +
                         m->model.per_context * context_of(m, p->position, p->query_len);
        if (p->position >= r->goal) {
            n_streams++;
            streams += seconds;
            continue;
        }
        double whole = m->model.per_row * (r->goal - r->begin) +
                       m->model.per_key * keys_of(m, r->begin, r->goal - r->begin) +
                       m->model.per_context * context_of(m, r->begin, r->goal - r->begin);
        if (whole < c->short_prompt_seconds * 1.000001) continue;
        n_prompts++;
        rows += p->query_len;
        prompts += seconds;
    }
    if (c->max_decode_slowdown == 0 || n_streams == 0 || streams <= 0) return true;
    for (int32_t i = 0; i < m->n_live; i++) {
        const request *r = m->live[i];
        wanting += !r->started || r->next_pos <= r->goal || r->seen_preemptions > 0;
    }
    double factor = fmax(c->max_decode_slowdown - 1, (double)wanting / n_streams);
    EXPECT(prompts <= streams * factor * 1.000001 || (n_prompts == 1 && rows <= c->block_size),
           "%d prompts take %g s beside %d streams of %g s", n_prompts, prompts, n_streams, streams);
    m->totals->shared_steps += n_prompts > 0;
    return true;
}

// Rows and slots are used while somebody can use them.
static bool check_conserving(sim *m, const flight *f, bool has_window) {
    const qn_step_plan *plan = f->plan;
    const qn_sched_config *c = &m->config;
    int32_t streams = 0, remaining = 0, got = 0;
    bool cut = false; // the first prompt stops where its rows need logits again
    for (int32_t i = 0; i < plan->n_seqs; i++) {
        const qn_plan_seq *p = &qn_plan_seqs(plan)[i];
        request *r = find_uid(m, f->uids[i]);
        if (p->position >= r->goal) {
            streams++;
            continue;
        }
        if (remaining == 0) {
            remaining = r->goal - p->position;
            got = p->query_len;
            cut = r->prompt_logits && r->next_pos == r->most;
        }
        EXPECT(may_hold_back(m, plan) || has_window || plan->n_rows == c->max_rows ||
                   r->next_pos == r->goal || p->query_len == c->long_prefill_threshold ||
                   (r->prompt_logits && r->next_pos == r->most),
               "%d rows of %d, and a prompt has more", plan->n_rows, c->max_rows);
    }
    int32_t least = QN_MIN(QN_MIN(c->block_size, remaining), c->max_rows - streams);
    if (c->long_prefill_threshold > 0) least = QN_MIN(least, c->long_prefill_threshold);
    if (plan->n_logits == logit_cap(c) || c->max_decode_slowdown > 0) least = QN_MIN(least, 1);
    EXPECT(has_window || cut || got >= least, "the first prompt got %d rows, not %d", got, least);
    qn_sched_stats stats;
    qn_sched_stats_get(m->s, &stats);
    for (int32_t i = 0; i < m->n_live; i++) {
        stats.waiting -= !m->live[i]->started && waits_for_parent(m, m->live[i]);
    }
    if (m->ample && !may_hold_back(m, plan) && stats.waiting > 0) {
        EXPECT(plan->n_rows == c->max_rows || stats.running >= QN_MIN(c->max_seqs, c->max_rows),
               "%d wait, %d run, %d rows", stats.waiting, stats.running, plan->n_rows);
    }
    return true;
}

static bool check_plan(sim *m, flight *f) {
    const qn_step_plan *plan = f->plan;
    const qn_sched_config *c = &m->config;
    const char *reason = "?";
    EXPECT(qn_step_plan_valid(plan, c->block_size, c->n_blocks, VOCAB, &reason), "plan: %s", reason);
    EXPECT(plan->n_rows > 0 && plan->n_rows <= c->max_rows, "%d rows", plan->n_rows);
    EXPECT(plan->n_seqs <= c->max_seqs, "%d sequences", plan->n_seqs);
    EXPECT(plan->n_logits <= logit_cap(c), "%d logit rows", plan->n_logits);
    mark_users(m);
    double seconds = m->model.base, keys = 0, context = 0;
    int32_t prompts = 0, prompt_rows = 0;
    bool in_slot[MAX_STEP_SEQS] = {false};
    for (int32_t i = 0; i < plan->n_seqs; i++) {
        const qn_plan_seq *p = &qn_plan_seqs(plan)[i];
        EXPECT(p->slot >= 0 && p->slot < c->max_seqs && !in_slot[p->slot], "slot %d twice", p->slot);
        in_slot[p->slot] = true;
        request *r = find_id(m, qn_sched_slot_id(m->s, p->slot));
        EXPECT(r, "slot %d of nobody is in a plan", p->slot);
        EXPECT(!r->over, "a request that is over is planned");
        f->uids[i] = r->uid;
        qn_sched_seq_info info;
        EXPECT(qn_sched_seq(m->s, r->id, &info), "a planned request is unknown");
        EXPECT(info.n_prompt == r->n_prompt && info.n_output == r->n_done && info.arrived == r->arrived,
               "info of a planned request");
        EXPECT(info.preemptions <= MAX_PREEMPTIONS, "%d preemptions", info.preemptions);
        bool begins = !r->started;
        if (begins && !check_admission(m, r)) return false;
        if (info.preemptions > r->preemptions) {
            EXPECT(!m->ample, "preempted though there are blocks for all");
            r->preemptions = info.preemptions;
            begins = true;
            m->totals->returned_hits += p->position > 0;
        } else {
            EXPECT(begins || p->position == r->next_pos, "row at %d, not %d", p->position,
                   r->next_pos);
        }
        int32_t known = r->n_prompt + r->n_done;
        if (begins) {
            r->goal = known;
            r->begin = p->position / c->block_size * c->block_size;
            bool forked = r->parent && p->position == r->n_prompt - 1 && r->preemptions == 0;
            EXPECT(p->position >= 0 && p->position < known, "begins at %d of %d", p->position, known);
            EXPECT(p->position == 0 || forked ||
                       (c->enable_prefix_caching && !r->skip_cache &&
                        p->position % c->block_size == 0), "begins at %d", p->position);
            EXPECT(r->preemptions > 0 || info.n_cached == p->position, "%d cached, begins at %d",
                   info.n_cached, p->position);
            m->totals->cached_tokens += (uint64_t)p->position;
        }
        r->next_pos = p->position + p->query_len;
        r->n_idle = 0;
        int32_t pending = r->next_pos > known;
        EXPECT(!pending || p->query_len == 1, "unknown tokens in a chunk");
        EXPECT(r->next_pos <= r->n_prompt + r->max_output - 1, "rows after the last token");
        bool all = r->prompt_logits && p->position < r->n_prompt && r->next_pos > r->most;
        EXPECT(p->n_logits == (all ? p->query_len : r->next_pos >= known),
               "%d logit rows at %d of %d", p->n_logits, r->next_pos, known);
        m->totals->prompt_logits += all ? (uint64_t)p->query_len : 0;
        EXPECT(p->position < r->goal || p->query_len == 1, "a stream with %d rows", p->query_len);
        if (p->position < r->goal) {
            prompts++;
            prompt_rows += p->query_len;
            EXPECT(c->long_prefill_threshold == 0 || p->query_len <= c->long_prefill_threshold,
                   "a chunk of %d rows", p->query_len);
        }
        if (!check_table(m, plan, p, r->uid)) return false;
        keys += keys_of(m, p->position, p->query_len);
        context += context_of(m, p->position, p->query_len);
    }
    if (!check_users(m, f)) return false;
    double planned_keys = qn_sched_plan_keys(m->s, plan);
    EXPECT(planned_keys > keys * 0.999999 && planned_keys < keys * 1.000001, "%g keys, not %g",
           planned_keys, keys);
    double planned_context = qn_sched_plan_context(m->s, plan);
    EXPECT(planned_context > context * 0.999999 && planned_context < context * 1.000001,
           "a context of %g, not %g", planned_context, context);
    seconds += m->model.per_row * plan->n_rows + m->model.per_key * keys +
               m->model.per_context * context;
    if (c->max_step_seconds > 0 && seconds > c->max_step_seconds * 1.000001) {
        EXPECT(prompts <= 1 && prompt_rows <= c->block_size,
               "%d prompts with %d rows in a step of %g s, at most %g", prompts, prompt_rows, seconds,
               c->max_step_seconds);
    }
    // Who was left out? A prompt under way gets something in every step, and with blocks for all a
    // stream gets its row.
    int32_t stopped_prompts = 0;
    const request *stuck = NULL; // the first of them
    bool has_window = false;
    for (int32_t g = 0; g < c->n_groups; g++) has_window |= c->groups[g].kind == QN_KV_WINDOW;
    for (int32_t slot = 0; slot < c->max_seqs; slot++) {
        request *r = find_id(m, qn_sched_slot_id(m->s, slot));
        if (!r || in_slot[slot] || r->over) continue;
        qn_sched_seq_info info;
        EXPECT(qn_sched_seq(m->s, r->id, &info), "a request in a slot is unknown");
        if (info.preemptions > r->preemptions) continue; // on its way out
        if (r->next_pos == r->n_prompt + r->max_output - 1) continue; // its last token is to come
        m->totals->stalled++;
        if (!r->started || r->next_pos < r->goal) {
            stopped_prompts++;
            if (!stuck || comes_before(r, stuck)) stuck = r;
        } else {
            EXPECT(!m->ample, "a stream was left out");
        }
        EXPECT(++r->n_idle < c->max_seqs * c->max_len * 4 + 100, "a running sequence starves");
    }
    // In a window group the blocks for the next chunk may be those of the chunk under way, or shared
    // with streams that may not be preempted, or that come first. Others are, but not at once.
    bool must_give_way = false;
    for (int32_t i = 0; stuck && i < m->n_live; i++) {
        const request *r = m->live[i];
        must_give_way |= !r->over && r->seen_preemptions < MAX_PREEMPTIONS && has_slot(m, r) &&
                         comes_before(stuck, r);
    }
    EXPECT(stopped_prompts == 0 || prompts > 0 ||
               (has_window && (m->n_flights > 0 || !must_give_way || stuck->n_idle <= 8)),
           "a prompt got nothing");
    EXPECT(stopped_prompts == 0 || may_hold_back(m, plan) || has_window || plan->n_rows == c->max_rows,
           "a prompt got nothing, though rows were left");
    for (int32_t i = 0; i < m->n_live; i++) m->live[i]->admitted |= has_slot(m, m->live[i]);
    return check_shared_time(m, f) && check_conserving(m, f, has_window);
}

static bool plan_step(sim *m, bool *planned) {
    flight *f = &m->flights[m->n_flights];
    m->n_calls++;
    *planned = qn_sched_plan(m->s, m->now, f->plan);
    if (!check(m, "plan") || !check_victims(m)) return false;
    if (!*planned) {
        EXPECT(f->plan->n_rows == 0, "rows in a plan that is none");
        return true;
    }
    f->executed = false;
    if (!check_plan(m, f)) return false;
    m->totals->lookahead_steps += m->n_flights > 0;
    m->n_flights++;
    return true;
}

// ---- the device ----

static bool execute(sim *m, flight *f) {
    const qn_step_plan *plan = f->plan;
    int32_t size = m->config.block_size;
    f->executed = true;
    for (int32_t i = 0; i < plan->n_copies; i++) {
        const qn_plan_copy *c = &qn_plan_copies(plan)[i];
        memcpy(&m->kv[c->group][c->dst * size], &m->kv[c->group][c->src * size],
               (size_t)size * sizeof(cell));
    }
    for (int32_t i = 0; i < plan->n_seqs; i++) { // all rows write before any reads
        const qn_plan_seq *p = &qn_plan_seqs(plan)[i];
        request *r = find_uid(m, f->uids[i]);
        for (int32_t row = 0; row < p->query_len; row++) {
            int32_t pos = p->position + row, token = qn_plan_tokens(plan)[p->query_start + row];
            if (token == QN_TOKEN_PENDING) token = m->last[p->slot];
            EXPECT(r, "rows of nobody");
            if (!r->poisoned) {
                EXPECT(token == ref_token(m, r, pos), "token %d at position %d, not %d", token, pos,
                       ref_token(m, r, pos));
            }
            for (int32_t g = 0; g < m->config.n_groups; g++) {
                int32_t block = qn_plan_blocks(plan)[p->block_start[g] + pos / size];
                EXPECT(block >= 0, "a row writes to a block that was given back");
                // Whoever lost a step writes what nobody may read.
                m->kv[g][block * size + pos % size] =
                    (cell){r->poisoned ? 0 : history(m, r, pos), pos, token};
            }
        }
    }
    for (int32_t i = 0; i < plan->n_seqs; i++) {
        const qn_plan_seq *p = &qn_plan_seqs(plan)[i];
        request *r = find_uid(m, f->uids[i]);
        for (int32_t row = 0; row < p->query_len; row++) {
            int32_t pos = p->position + row;
            // Every row reads; to save time, all keys for the rows that matter, else first and
            // last.
            bool wants_logits = row >= p->query_len - p->n_logits;
            uint64_t h = 1;
            for (int32_t g = 0; g < m->config.n_groups; g++) {
                const int32_t *table = qn_plan_blocks(plan) + p->block_start[g];
                int32_t first = qn_kv_first_visible(&m->config.groups[g], pos);
                for (int32_t j = first; j <= pos; j += wants_logits || j == pos ? 1 : pos - j) {
                    EXPECT(table[j / size] >= 0, "a row reads a block that was given back");
                    const cell *k = &m->kv[g][table[j / size] * size + j % size];
                    EXPECT((k->pos == j && k->history == history(m, r, j)) || r->poisoned,
                           "a row at %d of %llu reads at %d what was written for %d after %s", pos,
                           (unsigned long long)f->uids[i], j, k->pos,
                           k->history == history(m, r, j) ? "its own history" : "another history");
                    h = mix(h, j, k->token);
                }
            }
            if (!wants_logits) continue;
            m->last[p->slot] = sample(h);
            f->rows[p->logit_start + row - (p->query_len - p->n_logits)] =
                (qn_sched_row){pos + 1 < r->n_prompt && chance(m, 0.5) ? -1 : sample(h), true};
        }
    }
    return true;
}

static void finish(request *r, qn_finish finish, int32_t stop_id) {
    r->over = true;
    r->finish = finish;
    r->stop_id = stop_id;
}

// What the results mean for one request, by the rules alone.
static void settle(sim *m, request *r, const qn_plan_seq *p, const flight *f, bool failed) {
    if (r->over) return;
    if (failed) {
        finish(r, QN_FINISH_ERROR, -1);
        return;
    }
    if (p->n_logits == 0) return;
    const int32_t last = p->logit_start + p->n_logits - 1;
    bool inside = p->position + p->query_len < r->n_prompt, bad = !inside && f->rows[last].id < 0;
    for (int32_t i = p->logit_start; i <= last; i++) bad |= !f->rows[i].ok;
    if (bad) {
        finish(r, QN_FINISH_ERROR, -1);
        return;
    }
    if (inside) return;
    r->rows[r->n_done] = last;
    int32_t token = ref_token(m, r, r->n_prompt + r->n_done++);
    m->tokens++;
    for (int32_t i = 0; i < r->n_stops; i++) {
        if (r->stops[i] != token || r->n_done < r->min_tokens) continue;
        finish(r, QN_FINISH_STOP, token);
        return;
    }
    if (r->n_done == r->max_output) finish(r, QN_FINISH_LENGTH, -1);
}

static bool commit_step(sim *m) {
    flight f = m->flights[0];
    bool failed = m->faults && chance(m, 0.01);
    bool ran = f.executed || !failed || chance(m, 0.5);
    if (ran && !f.executed && !execute(m, &f)) return false;
    for (int32_t i = 0; i < f.plan->n_seqs; i++) {
        const qn_plan_seq *p = &qn_plan_seqs(f.plan)[i];
        if (m->faults && p->n_logits && chance(m, 0.01)) {
            int32_t at = p->logit_start + between(m, 0, p->n_logits - 1);
            f.rows[at] = chance(m, 0.5) ? (qn_sched_row){0, false} : (qn_sched_row){-1, true};
        }
        request *r = find_uid(m, f.uids[i]);
        if (!r) continue;
        r->poisoned |= !ran;
        r->most = QN_MAX(r->most, p->position + p->query_len);
        settle(m, r, p, &f, failed);
    }
    m->n_calls++;
    m->now += chance(m, 0.5) ? 0.01 : 0;
    if (failed) {
        qn_sched_commit_failed(m->s, f.plan, m->now);
    } else {
        qn_sched_commit(m->s, f.plan, f.rows, m->now);
    }
    m->totals->steps++;
    m->steps++;
    memmove(&m->flights[0], &m->flights[1], DEPTH * sizeof f);
    m->flights[DEPTH] = f;
    m->n_flights--;
    free_gone(m);
    return check(m, failed ? "commit_failed" : "commit");
}

// ---- events ----

static bool take_events(sim *m) {
    qn_sched_event events[16];
    size_t n, max = (size_t)between(m, 1, 16);
    while ((n = qn_sched_take_events(m->s, events, max)) > 0) {
        if (!check(m, "take_events")) return false;
        for (size_t i = 0; i < n; i++) {
            const qn_sched_event *e = &events[i];
            request *r = find_id(m, e->id);
            EXPECT(r, "an event of nobody");
            if (e->kind == QN_SCHED_TOKEN) {
                EXPECT(r->n_got < r->n_done, "a token too many");
                EXPECT(e->token == r->ref[r->n_prompt + r->n_got], "token %d is %d, alone it is %d",
                       r->n_got, e->token, r->ref[r->n_prompt + r->n_got]);
                EXPECT(e->stop_id == -1, "a TOKEN with a stop id");
                EXPECT(e->logit_row == r->rows[r->n_got], "token of row %d, not %d", e->logit_row,
                       r->rows[r->n_got]);
                r->n_got++;
                continue;
            }
            EXPECT(r->over, "FINISHED(%d) of a request that is not over", e->finish);
            EXPECT(e->finish == r->finish && e->stop_id == r->stop_id,
                   "finish %d with stop id %d, not %d with %d", e->finish, e->stop_id, r->finish,
                   r->stop_id);
            EXPECT(r->n_got == r->n_done, "FINISHED after %d of %d tokens", r->n_got, r->n_done);
            qn_sched_seq_info info;
            EXPECT(qn_sched_seq(m->s, r->id, &info), "unknown while its end is handled");
            EXPECT(info.n_output == r->n_done && info.preemptions <= MAX_PREEMPTIONS, "last info");
            EXPECT(r->n_done == 0 || info.first_token >= info.first_scheduled, "times");
            EXPECT(!r->started || info.first_scheduled >= r->arrived, "times");
            m->totals->preemptions += (uint64_t)info.preemptions;
            m->totals->tokens += (uint64_t)r->n_done;
            m->totals->stops += r->finish == QN_FINISH_STOP;
            m->totals->lengths += r->finish == QN_FINISH_LENGTH;
            m->totals->aborts += r->finish == QN_FINISH_ABORT;
            m->totals->errors += r->finish == QN_FINISH_ERROR;
            if (r->finish == QN_FINISH_STOP || r->finish == QN_FINISH_LENGTH) {
                m->prompt_tokens += (uint64_t)r->n_prompt;
            }
            m->forgotten_id = r->id;
            for (int32_t k = 0; k < m->n_live; k++) {
                if (m->live[k] == r) m->live[k] = m->live[--m->n_live];
            }
            // What it wrote may still be published when it has drained.
            EXPECT(m->n_gone < MAX_LIVE, "too many are gone");
            m->gone[m->n_gone++] = r;
            free_gone(m);
        }
    }
    qn_sched_seq_info info;
    EXPECT(!m->forgotten_id || !qn_sched_seq(m->s, m->forgotten_id, &info) ||
               find_id(m, m->forgotten_id), "known after its end was handled");
    return check(m, "take_events");
}

// ---- the run ----

static void choose(sim *m) {
    qn_sched_config *c = &m->config;
    static const int32_t sizes[] = {1, 2, 4, 8, 16};
    c->block_size = sizes[between(m, 0, 4)];
    c->max_seqs = chance(m, 0.2) ? between(m, 1, 2) : between(m, 2, 16);
    c->max_rows = chance(m, 0.2) ? between(m, 1, 8) : between(m, 4, 96);
    c->max_len = chance(m, 0.2) ? between(m, 2, 12) : between(m, 12, 160);
    c->n_groups = chance(m, 0.5) ? 1 : between(m, 1, QN_MAX_KV_GROUPS);
    c->long_prefill_threshold = chance(m, 0.5) ? 0 : between(m, 1, 40);
    c->max_waiting = between(m, 1, 60);
    c->max_waiting_tokens = chance(m, 0.7) ? 0 : between(m, 10, 1000);
    m->ample = chance(m, 0.2);
    int32_t per_seq = QN_CEIL_DIV(c->max_len, c->block_size);
    for (int32_t g = 0; g < c->n_groups; g++) {
        c->groups[g] = (qn_kv_group){.kind = chance(m, 0.4) ? QN_KV_WINDOW : QN_KV_FULL,
                                     .window = between(m, 1, chance(m, 0.5) ? 8 : 64),
                                     .n_layers = 2};
        c->n_blocks[g] = m->ample ? per_seq * c->max_seqs * 2
                                  : between(m, 1, per_seq * (chance(m, 0.5) ? 2 : c->max_seqs));
        // One token of prompt and one of output, or nothing ever runs.
        c->n_blocks[g] = QN_MAX(c->n_blocks[g], QN_CEIL_DIV(2, c->block_size));
    }
    if (chance(m, 0.5)) {
        c->max_step_seconds = chance(m, 0.7) ? 0.001 * between(m, 1, 100) : 0;
        m->model = (qn_step_time_model){0.0005 * between(m, 0, 20), 0.0001 * between(m, 0, 20),
                                        0.00001 * between(m, 0, 20),
                                        chance(m, 0.5) ? 0 : 0.00002 * between(m, 0, 20)};
    }
    if (chance(m, 0.3)) {
        c->max_decode_slowdown = 1 + 0.1 * between(m, 0, 30);
        c->short_prompt_seconds = chance(m, 0.5) ? 0 : 0.01 * between(m, 0, 20);
    }
    c->max_logits = chance(m, 0.5) ? 0 : QN_MIN(c->max_seqs, c->max_rows) + between(m, 0, 20);
    m->lookahead = between(m, 0, 1);
    m->faults = chance(m, 0.3);
    m->aborts = chance(m, 0.5);
    m->one_priority = chance(m, 0.7);
    m->lazy_events = chance(m, 0.1);
    c->overcommit_percent = chance(m, 0.5) ? 0 : between(m, 0, 1000);
    c->enable_prefix_caching = chance(m, 0.75);
    c->prefix_hash_seed = next(m);
    c->prefix_hash_mask = chance(m, 0.5) ? 0 : chance(m, 0.5) ? 1 : 0xf0;
    m->repeats = chance(m, 0.2) ? 0 : 0.7;
    m->forks = chance(m, 0.5) ? 0 : 0.3;
    for (int32_t d = 0; d < DOCUMENTS; d++) {
        for (int32_t i = 0; i < DOCUMENT_TOKENS; i++) m->documents[d][i] = between(m, 0, VOCAB - 1);
        // Some begin alike.
        if (d > 0 && chance(m, 0.5)) {
            memcpy(m->documents[d], m->documents[d - 1],
                   (size_t)between(m, 1, DOCUMENT_TOKENS - 1) * sizeof(int32_t));
        }
    }
    m->arrival_rate = chance(m, 0.3) ? 0.9 : chance(m, 0.5) ? 0.3 : 0.08;
}

static bool set_up(sim *m) {
    qn_error err = {0};
    EXPECT(qn_sched_create(&m->config, &m->s, &err) == QN_OK, "create: %s", err.message);
    qn_sched_set_step_time(m->s, &m->model);
    for (int32_t g = 0; g < m->config.n_groups; g++) {
        size_t n = (size_t)m->config.n_blocks[g];
        m->kv[g] = calloc(n * (size_t)m->config.block_size, sizeof *m->kv[g]);
        m->users[g] = calloc(n, sizeof *m->users[g]);
        m->writers[g] = calloc(n, sizeof *m->writers[g]);
        EXPECT(m->kv[g] && m->users[g] && m->writers[g], "out of memory");
    }
    m->last = calloc((size_t)m->config.max_seqs, sizeof *m->last);
    EXPECT(m->last, "out of memory");
    for (int32_t i = 0; i <= DEPTH; i++) {
        m->flights[i].plan = qn_sched_make_plan(m->s);
        m->flights[i].rows = calloc((size_t)logit_cap(&m->config), sizeof *m->flights[i].rows);
        EXPECT(m->flights[i].plan && m->flights[i].rows, "out of memory");
    }
    return check(m, "create");
}

static void tear_down(sim *m) {
    for (int32_t i = 0; i < m->n_live; i++) free_request(m->live[i]);
    for (int32_t i = 0; i < m->n_gone; i++) free_request(m->gone[i]);
    for (int32_t g = 0; g < QN_MAX_KV_GROUPS; g++) {
        free(m->kv[g]);
        free(m->users[g]);
        free(m->writers[g]);
    }
    for (int32_t i = 0; i <= DEPTH; i++) {
        free(m->flights[i].plan);
        free(m->flights[i].rows);
    }
    free(m->last);
    qn_sched_destroy(m->s);
}

// Plans up to the depth, then commits one. *idle: there was nothing to do.
static bool one_round(sim *m, bool *idle) {
    bool planned = true, skipped = false;
    while (planned && m->n_flights < 1 + m->lookahead) {
        if (m->n_flights > 0 && (skipped = chance(m, 0.1))) break;
        if (!plan_step(m, &planned)) return false;
        if (planned && chance(m, 0.5)) {
            // A device that is fast runs the step now; a slow one when its results are asked for.
            // Steps run in order.
            for (int32_t i = 0; i < m->n_flights; i++) {
                flight *f = &m->flights[i];
                if (!f->executed && !execute(m, f)) return false;
            }
        }
        if (m->aborts && chance(m, 0.03) && !abort_one(m)) return false;
    }
    *idle = m->n_flights == 0;
    bool full = m->n_flights == 1 + m->lookahead;
    if (m->n_flights > 0 && (full || !planned || skipped || chance(m, 0.9)) && !commit_step(m)) {
        return false;
    }
    return true;
}

static bool drive(sim *m, int64_t steps) {
    int64_t bound = 0;
    for (int64_t round = 0;; round++) {
        // Some rounds find nothing to do.
        bool arriving = m->steps < steps && round / 100 <= steps;
        m->now += (double)between(m, 0, 3) * 0.01;
        if (arriving && chance(m, m->arrival_rate)) {
            int32_t n = chance(m, 0.05) ? between(m, 1, 30) : 1;
            for (; n > 0 && m->n_live < MAX_LIVE; n--) {
                if (!add_request(m, NULL)) return false;
            }
            int32_t copies = m->n_live > 0 && chance(m, m->forks) ? between(m, 1, 5) : 0;
            const request *of = copies ? m->live[chance(m, 0.5) ? m->n_live - 1
                                                                : between(m, 0, m->n_live - 1)]
                                       : NULL;
            for (; copies > 0 && m->n_live < MAX_LIVE; copies--) {
                if (!add_request(m, of)) return false;
            }
        }
        if (m->aborts && chance(m, 0.03) && !abort_one(m)) return false;
        if (chance(m, 0.002)) {
            qn_sched_stats cleared;
            qn_sched_clear_cache(m->s);
            if (!check(m, "clear_cache")) return false;
            qn_sched_stats_get(m->s, &cleared);
            for (int32_t g = 0; g < m->config.n_groups; g++) {
                EXPECT(cleared.blocks_cached[g] == 0, "cached blocks after clear_cache");
            }
        }
        bool idle;
        if (!one_round(m, &idle)) return false;
        if ((!m->lazy_events || idle || chance(m, 0.2)) && !take_events(m)) return false;
        if (idle && !m->lazy_events) {
            EXPECT(m->n_live == 0, "%d requests are left and nothing is planned", m->n_live);
        }
        if (arriving) continue;
        if (bound == 0) {
            // Each step moves somebody by a row, and a row is computed at most five times.
            bound = round + 100;
            for (int32_t i = 0; i < m->n_live; i++) {
                request *r = m->live[i];
                bound += (MAX_PREEMPTIONS + 1) * 3 * ((int64_t)r->n_prompt + r->max_output + 3);
            }
        }
        if (m->n_live == 0 && m->n_flights == 0) break;
        EXPECT(round < bound, "%d requests do not come to an end", m->n_live);
    }
    if (!take_events(m)) return false;
    qn_sched_stats stats;
    qn_sched_stats_get(m->s, &stats);
    for (int32_t g = 0; g < m->config.n_groups; g++) {
        EXPECT(stats.blocks_used[g] == 0 && stats.blocks_total[g] == m->config.n_blocks[g],
               "%d blocks of group %d are left over", stats.blocks_used[g], g);
    }
    EXPECT(stats.running == 0 && stats.waiting == 0 && stats.waiting_tokens == 0, "idle counts");
    EXPECT(stats.generated_tokens == m->tokens, "generated tokens");
    bool reuse = m->config.enable_prefix_caching || m->forks > 0;
    EXPECT(m->faults || m->aborts || reuse || stats.prompt_tokens == m->prompt_tokens,
           "prompt tokens");
    EXPECT(reuse || stats.prompt_tokens >= m->prompt_tokens, "prompt tokens");
    EXPECT(stats.prefix_hits <= stats.prefix_queries, "hits");
    EXPECT(m->config.enable_prefix_caching || (stats.prefix_queries == 0 && stats.blocks_cached[0] == 0),
           "cached though caching is off");
    m->totals->prefix_queries += stats.prefix_queries;
    m->totals->prefix_hits += stats.prefix_hits;
    m->totals->evictions += stats.prefix_evictions;
    m->totals->forks += stats.forks;
    m->totals->recomputed += stats.recomputed_tokens;
    return true;
}

bool qn_scheduler_check(uint64_t seed, int64_t steps, int lookahead,
                        qn_scheduler_check_totals *totals, char *message, int message_size) {
    sim *m = calloc(1, sizeof *m);
    if (!m) {
        snprintf(message, (size_t)message_size, "out of memory");
        return false;
    }
    m->rng = qn_hash_u64(seed);
    m->totals = totals;
    m->message = message;
    m->message_size = message_size;
    choose(m);
    if (lookahead >= 0) m->lookahead = lookahead > 0;
    bool ok = set_up(m) && drive(m, steps);
    tear_down(m);
    free(m);
    return ok;
}
