// SPDX-License-Identifier: Apache-2.0
// The policy: what one step holds.
//
//   1. Decode. Each running sequence whose prompt is done gets one row, in (priority, arrival)
//      order. One that needs a block when none is free waits for blocks that come back with the
//      steps under way, or takes them from the last running sequence behind it (preemption by
//      recompute). Never from one before it, so the first always moves on; never from one that has
//      been preempted four times: those have quotas. One that finds nobody behind it waits: its
//      blocks are of no use to those before it unless they ask for them, and then it is preempted.
//   2. Prompts that run already, then 3. new ones, share the rows and the time that are left. The
//      first of them gets at least a block's worth of rows (or what is left of max_rows, which is
//      at least one, because at most max_rows sequences run; one row where streams are not to be
//      slowed down): a step full of streams never stops a prompt.
//
// Quotas: a sequence is admitted only when all the blocks of its known tokens are free and
// unpromised; its quota then promises them. So a prompt that was begun never runs out of blocks,
// two half-done prompts cannot block each other, and preemption comes only from the growth of
// outputs, for which a watermark is kept free.
#include "scheduler/state.h"

#include <math.h>
#include <string.h>

// The sum of min(i + 1, window) for i < n: keys seen by the first n positions.
static double keys_before(const qn_kv_group *g, int32_t n) {
    double count = n;
    if (g->kind != QN_KV_WINDOW || n <= g->window) return count * (count + 1) / 2;
    double w = g->window;
    return w * (w + 1) / 2 + (count - w) * w;
}

double qn_sched_keys(const qn_sched *s, int32_t pos, int32_t rows) {
    double keys = 0;
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        const qn_kv_group *group = &s->config.groups[g];
        keys += s->layer_weight[g] * (keys_before(group, pos + rows) - keys_before(group, pos));
    }
    return keys;
}

double qn_sched_plan_keys(const qn_sched *s, const qn_step_plan *plan) {
    double keys = 0;
    for (int32_t i = 0; i < plan->n_seqs; i++) {
        const qn_plan_seq *p = &qn_plan_seqs(plan)[i];
        keys += qn_sched_keys(s, p->position, p->query_len);
    }
    return keys;
}

// The keys that `rows` rows from position pos on see together, averaged over the layers.
static double context(const qn_sched *s, int32_t pos, int32_t rows) {
    double keys = 0;
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        const qn_kv_group *group = &s->config.groups[g];
        const int32_t first = qn_kv_first_visible(group, pos);
        keys += s->layer_weight[g] * (double)(pos + rows - first);
    }
    return keys;
}

double qn_sched_plan_context(const qn_sched *s, const qn_step_plan *plan) {
    double keys = 0;
    for (int32_t i = 0; i < plan->n_seqs; i++) {
        const qn_plan_seq *p = &qn_plan_seqs(plan)[i];
        keys += context(s, p->position, p->query_len);
    }
    return keys;
}

// What is left of the step while it is filled.
typedef struct budget {
    int32_t rows;
    bool timed;
    double seconds;
    bool shared;           // decode rows are there, and prompts must not slow them down too much:
    double prompt_seconds; // what is left of the time for prompts that are not short
    bool prefilled; // some prompt has got rows
} budget;

static double row_seconds(const qn_sched *s, int32_t pos, int32_t rows) {
    const qn_step_time_model *t = &s->time_model;
    return t->per_row * rows + t->per_key * qn_sched_keys(s, pos, rows) +
           t->per_context * context(s, pos, rows);
}

// Rows that rows and time allow x, a prompt of which all rows from position `begin` on are its own,
// at position pos.
static int32_t affordable_rows(const qn_sched *s, const budget *b, const qn_seq *x, int32_t begin,
                               int32_t pos) {
    const int32_t total = qn_seq_total(x);
    int32_t most = QN_MIN(total - pos, b->rows);
    if (s->config.long_prefill_threshold > 0) {
        most = QN_MIN(most, s->config.long_prefill_threshold);
    }
    bool shared =
        b->shared && row_seconds(s, begin, total - begin) >= s->config.short_prompt_seconds;
    if ((!b->timed && !shared) || most <= 0) return most;
    double seconds = b->timed ? b->seconds : INFINITY;
    if (shared) seconds = QN_MIN(seconds, b->prompt_seconds);
    int32_t lo = 0, hi = most; // the most rows whose time fits
    while (lo < hi) {
        int32_t mid = lo + (hi - lo + 1) / 2;
        if (row_seconds(s, pos, mid) <= seconds) {
            lo = mid;
        } else {
            hi = mid - 1;
        }
    }
    // Deep in a long prompt a block's worth of rows can take longer than all the streams.
    int32_t least = shared ? 1 : QN_MIN(s->config.block_size, most);
    return QN_MAX(lo, b->prefilled ? 0 : least);
}

static int32_t watermark(const qn_sched *s, int32_t g) {
    // A block for each that runs: at the worst they all need one at once, and then not again for
    // block_size tokens. An eighth of the cache at most.
    return QN_MIN(s->n_run, s->config.n_blocks[g] / 8);
}

// Blocks of group g that x may take now.
static int32_t available(const qn_sched *s, const qn_seq *x, int32_t g) {
    return s->pools[g].n_free - s->reserved[g] + qn_seq_owed(x, g);
}

static int32_t blocks_wanted(const qn_sched *s, const qn_seq *x, int32_t g, int32_t rows) {
    return QN_MAX(0, QN_CEIL_DIV(x->n_planned + rows, s->config.block_size) - x->n_table[g]);
}

static void take_blocks(qn_sched *s, qn_seq *x, int32_t rows) {
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        int32_t *table = qn_seq_table(s, x, g), owed = qn_seq_owed(x, g);
        for (int32_t n = blocks_wanted(s, x, g, rows); n > 0; n--) {
            table[x->n_table[g]++] = qn_prefix_take_block(&s->cache, g);
        }
        s->reserved[g] += qn_seq_owed(x, g) - owed;
    }
}

// Whether x's next rows, the prompt's, are to have logits. What was computed before a preemption
// has given its logits then.
static bool wants_prompt_logits(const qn_seq *x, int32_t rows) {
    return x->prompt_logits && x->n_planned < x->n_prompt &&
           x->n_planned + rows > x->most_computed;
}

// Logit rows of x's next rows.
static int32_t logit_rows(const qn_seq *x, int32_t rows) {
    return wants_prompt_logits(x, rows) ? rows : x->n_planned + rows == qn_seq_total(x);
}

// Puts rows of x into the plan; the blocks are there.
static void add_rows(qn_sched *s, qn_step_plan *plan, budget *b, qn_seq *x, int32_t rows) {
    int32_t known = x->n_prompt + x->n_output, total = known + x->n_pending;
    const bool samples = x->n_planned + rows == total;
    qn_plan_seq *p = &qn_plan_seqs(plan)[plan->n_seqs++];
    *p = (qn_plan_seq){.slot = x->slot,
                       .adapter = x->adapter,
                       .query_start = plan->n_rows,
                       .query_len = rows,
                       .position = x->n_planned,
                       .logit_start = plan->n_logits,
                       .n_logits = logit_rows(x, rows)};
    int32_t *tokens = qn_plan_tokens(plan) + plan->n_rows;
    if (x->n_planned + rows <= known) {
        memcpy(tokens, x->tokens + x->n_planned, (size_t)rows * sizeof *tokens);
    } else {
        tokens[0] = QN_TOKEN_PENDING; // one row: only the last token can be unknown
    }
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        p->block_start[g] = plan->n_blocks;
        p->n_blocks[g] = x->n_table[g];
        memcpy(qn_plan_blocks(plan) + plan->n_blocks, qn_seq_table(s, x, g),
               (size_t)x->n_table[g] * sizeof(int32_t));
        // Held only for steps under way, whose results may free it before this step has run.
        int32_t first = qn_kv_first_visible(&s->config.groups[g], x->n_planned);
        for (int32_t i = x->first_live[g]; i < first / s->config.block_size; i++) {
            qn_plan_blocks(plan)[plan->n_blocks + i] = -1;
        }
        plan->n_blocks += x->n_table[g];
    }
    if (x->has_copy) {
        for (int32_t g = 0; g < s->config.n_groups; g++) {
            int32_t last = x->n_planned / s->config.block_size;
            int32_t dst = qn_seq_table(s, x, g)[last];
            qn_plan_copies(plan)[plan->n_copies++] =
                (qn_plan_copy){.group = g, .src = x->copy_src[g], .dst = dst};
        }
        x->has_copy = false;
        x->copying = true;
    }
    plan->n_rows += rows;
    plan->n_logits += p->n_logits;
    b->rows -= rows;
    const double seconds = row_seconds(s, x->n_planned, rows);
    b->seconds -= seconds;
    b->prompt_seconds -= seconds;
    x->n_planned += rows;
    x->n_pending += samples;
    x->in_flight++;
    if (samples && x->prefilling) {
        x->prefilling = false;
        for (int32_t g = 0; g < s->config.n_groups && !qn_seq_protected(x); g++) {
            qn_seq_set_quota(s, x, g, 0);
        }
    }
    // Its last token is on its way: nothing is left to plan, and its blocks are as good as free.
    if (x->n_output + x->n_pending == x->max_output) qn_seq_leave(s, x);
}

static bool plan_has_room(const qn_sched *s, const qn_step_plan *plan, const qn_seq *x,
                          int32_t rows) {
    int64_t blocks = 0;
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        blocks += x->n_table[g] + blocks_wanted(s, x, g, rows);
    }
    if (x->has_copy && plan->n_copies > plan->cap_copies - s->config.n_groups) return false;
    if (logit_rows(x, rows) > s->logit_cap - plan->n_logits) return false;
    return plan->n_seqs < plan->cap_seqs && rows <= plan->cap_rows - plan->n_rows &&
           blocks <= plan->cap_blocks - plan->n_blocks;
}

// ---- decode ----

// Whether group by group there are blocks for one more row, now or (with drained) when those that
// end have given theirs back. *window: a group that is short is a window group.
static bool has_blocks(const qn_sched *s, const qn_seq *x, bool drained, bool *window) {
    bool enough = true;
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        int32_t coming = drained ? s->draining[g] : 0;
        if (blocks_wanted(s, x, g, 1) <= available(s, x, g) + coming) continue;
        enough = false;
        *window |= s->config.groups[g].kind == QN_KV_WINDOW;
    }
    return enough;
}

static qn_seq *pick_victim(const qn_sched *s, int32_t index) {
    for (int32_t i = s->n_run - 1; i > index; i--) {
        qn_seq *v = &s->seqs[s->run[i]];
        if (!qn_seq_protected(v)) return v;
    }
    return NULL;
}

static void preempt(qn_sched *s, qn_seq *victim) {
    s->caution = QN_SCHED_CAUTION;
    victim->preemptions++;
    s->preemptions++;
    qn_seq_leave(s, victim);
}

// Blocks for one more row of the sequence at run[index], by preemption where needed. False: not
// now.
static bool make_room(qn_sched *s, int32_t index) {
    qn_seq *x = &s->seqs[s->run[index]];
    bool preempted = false;
    for (;;) {
        bool window = false;
        if (has_blocks(s, x, false, &window)) break;
        // Blocks may be coming back with the steps under way: from sequences that end, and in a
        // window group from positions that the window passes. Worth a short wait.
        bool patient = preempted || x->stalls < QN_SCHED_MAX_STALLS;
        bool drained = has_blocks(s, x, true, &window);
        if (s->n_in_flight > 0 && patient && (drained || (window && !preempted))) {
            x->stalls++;
            return false;
        }
        qn_seq *victim = pick_victim(s, index);
        if (!victim) return false;
        preempt(s, victim);
        preempted = true;
    }
    x->stalls = 0;
    return true;
}

static void plan_decodes(qn_sched *s, qn_step_plan *plan, budget *b) {
    for (int32_t i = 0; i < s->n_run;) {
        int32_t index = s->run[i];
        qn_seq *x = &s->seqs[index];
        if (!x->prefilling && make_room(s, i) && plan_has_room(s, plan, x, 1)) {
            take_blocks(s, x, 1);
            add_rows(s, plan, b, x, 1);
        }
        if (i < s->n_run && s->run[i] == index) i++; // else it left
    }
}

// ---- prompts ----

// Rows of x in this step: what the budget and the blocks allow. Only a window group, whose quota
// may be smaller than the chunk, ever has too few blocks.
static int32_t chunk_rows(const qn_sched *s, const budget *b, const qn_step_plan *plan,
                          const qn_seq *x) {
    const int32_t begin = x->n_shared * s->config.block_size;
    int32_t rows = affordable_rows(s, b, x, begin, x->n_planned);
    if (rows > 0 && wants_prompt_logits(x, rows)) {
        const int32_t room = s->logit_cap - plan->n_logits;
        rows = QN_MIN(rows, QN_MAX(room, x->most_computed - x->n_planned));
    }
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        int32_t spare = s->pools[g].n_free - s->reserved[g];
        int32_t more = QN_MAX(0, spare - watermark(s, g));
        int64_t blocks = (int64_t)x->n_table[g] + qn_seq_owed(x, g) + more;
        int64_t covered = blocks * s->config.block_size - x->n_planned;
        // The watermark is for outputs to come; this one is here.
        if (covered <= 0 && more == 0 && spare > 0) covered += s->config.block_size;
        if (covered < rows) rows = (int32_t)covered;
    }
    return rows;
}

static bool plan_chunk(qn_sched *s, qn_step_plan *plan, budget *b, qn_seq *x) {
    int32_t rows = chunk_rows(s, b, plan, x);
    if (rows <= 0 || !plan_has_room(s, plan, x, rows)) return false;
    take_blocks(s, x, rows);
    add_rows(s, plan, b, x, rows);
    b->prefilled = true;
    x->stalls = 0;
    return true;
}

// Blocks that were promised to a prompt may be held by those who share them with it, behind its
// window. When they do not come back for some time, whoever came last gives way to the first prompt.
static void unstick_prompt(qn_sched *s, const qn_step_plan *plan) {
    int32_t i = 0;
    while (i < s->n_run && !s->seqs[s->run[i]].prefilling) i++;
    if (i == s->n_run) return;
    qn_seq *x = &s->seqs[s->run[i]], *victim;
    while (chunk_rows(s, &(budget){.rows = 1}, plan, x) <= 0 && (victim = pick_victim(s, i))) {
        for (int32_t g = 0; g < s->config.n_groups; g++) {
            if (s->draining[g] > 0) return;
        }
        if (s->n_in_flight > 0 && x->stalls < QN_SCHED_MAX_STALLS) {
            x->stalls++;
            return;
        }
        preempt(s, victim);
    }
}

static void plan_running_prompts(qn_sched *s, qn_step_plan *plan, budget *b) {
    for (int32_t i = 0; i < s->n_run && b->rows > 0;) {
        int32_t index = s->run[i];
        if (s->seqs[index].prefilling) plan_chunk(s, plan, b, &s->seqs[index]);
        if (i < s->n_run && s->run[i] == index) i++;
    }
}

// The blocks that an admission promises. A prompt: those of its known tokens and of one more. After
// four preemptions: all that it can ever need. In a window group no more than are live at a time,
// with a chunk in each of two steps under way; chunks are cut to fit.
static int32_t quota_for(const qn_sched *s, const qn_seq *x, int32_t g) {
    const qn_kv_group *group = &s->config.groups[g];
    int32_t most = qn_seq_max_positions(x);
    int32_t positions = qn_seq_protected(x) ? most : QN_MIN(qn_seq_total(x) + 1, most);
    int32_t blocks = QN_CEIL_DIV(positions, s->config.block_size);
    if (group->kind == QN_KV_WINDOW) {
        int64_t chunk = QN_MAX(s->config.block_size, group->window / 2);
        int64_t live = QN_MIN((int64_t)group->window - 1 + 2 * chunk, (int64_t)positions);
        blocks = QN_MIN(blocks, qn_sched_span((int32_t)live, s->config.block_size));
        blocks = QN_MIN(blocks, s->config.n_blocks[g]);
    }
    return blocks;
}

// Whether x fits when it begins with r.
static bool fits_with(const qn_sched *s, const qn_seq *x, const qn_reuse *r) {
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        int32_t shared = QN_MAX(0, r->n_blocks - r->first[g]);
        int32_t need = QN_MAX(r->n_copies, quota_for(s, x, g) - shared) + r->idle[g];
        int32_t unpromised = s->pools[g].n_free - s->reserved[g];
        if (unpromised < need + watermark(s, g)) return false;
    }
    return true;
}

// Whether x fits now, and what it begins with then.
static bool fits(qn_sched *s, qn_seq *x, qn_reuse *r) {
    *r = (qn_reuse){0};
    bool look = s->config.enable_prefix_caching && !x->skip_cache_read;
    // A window gives shared blocks back to those who share them, not to itself. Who must not be
    // preempted again has its own.
    for (int32_t g = 0; g < s->config.n_groups && qn_seq_protected(x); g++) {
        look = look && s->config.groups[g].kind == QN_KV_FULL;
    }
    if (!look) return fits_with(s, x, r);
    if (x->lookup_pause > 0) {
        // At the best, all that was found the last time is still there and in use.
        x->lookup_pause--;
        r->n_blocks = x->hint;
        if (!fits_with(s, x, r)) return false;
    }
    qn_seq_look_up(s, x, r);
    if (fits_with(s, x, r)) return true;
    x->hint = r->n_blocks;
    x->lookup_pause = QN_SCHED_LOOKUP_PAUSE;
    return false;
}

// How far the blocks of a full group will be used when those that run grow to their likely lengths:
// sequences by the blocks that they still want. When those that want up to k more have ended, what
// is left is the others' blocks and k more of each; the most that this comes to, over all k, is
// what the cache must hold. So a crowd that was admitted at once is not let in to be thrown out
// again.
typedef struct forecast {
    bool made;
    int32_t group; // the full group with the fewest blocks; -1: there is none
    int32_t unit;  // blocks of a place
    int64_t common; // blocks that are used, but by none alone
    int32_t count[QN_SCHED_FORECAST];
    int64_t held[QN_SCHED_FORECAST];
} forecast;

static void forecast_add(const qn_sched *s, forecast *f, const qn_seq *x, int32_t held) {
    // Whoever has passed the mean goes on for a while.
    double likely = QN_MAX(s->mean_output - x->n_output, s->mean_output / 4);
    int32_t outputs = (int32_t)QN_MIN(likely, (double)(x->max_output - x->n_output));
    int32_t tokens = QN_MIN(qn_seq_total(x) + outputs, qn_seq_max_positions(x));
    int32_t more = QN_CEIL_DIV(tokens, s->config.block_size) - x->n_shared - held;
    int32_t k = QN_MIN(QN_CEIL_DIV(QN_MAX(more, 0), f->unit), QN_SCHED_FORECAST - 1);
    f->count[k]++;
    f->held[k] += held;
}

static void forecast_make(const qn_sched *s, forecast *f) {
    *f = (forecast){.made = true, .group = -1, .unit = s->blocks_per_seq / QN_SCHED_FORECAST + 1};
    for (int32_t g = 0; g < s->config.n_groups; g++) {
        if (s->config.groups[g].kind == QN_KV_FULL &&
            (f->group < 0 || s->config.n_blocks[g] < s->config.n_blocks[f->group])) {
            f->group = g;
        }
    }
    if (f->group < 0) return;
    f->common = s->config.n_blocks[f->group] - s->pools[f->group].n_free - s->draining[f->group];
    for (int32_t i = 0; i < s->n_run; i++) {
        const qn_seq *x = &s->seqs[s->run[i]];
        int32_t alone = QN_MAX(0, x->n_table[f->group] - x->n_shared);
        f->common -= alone;
        forecast_add(s, f, x, alone + qn_seq_owed(x, f->group));
    }
    f->common = QN_MAX(f->common, 0);
}

// Whether there will be blocks for all, x included, which begins with r.
static bool foreseen(const qn_sched *s, forecast *f, qn_seq *x, const qn_reuse *r) {
    // While nobody is thrown out, nobody is kept out either.
    if (s->n_run == 0 || s->caution == 0) return true;
    if (!f->made) forecast_make(s, f);
    if (f->group < 0) return true;
    forecast g = *f;
    int32_t shared = x->n_shared;
    x->n_shared = r->n_blocks;
    forecast_add(s, &g, x, QN_MAX(r->n_copies, quota_for(s, x, g.group) - r->n_blocks));
    x->n_shared = shared;
    int64_t held = g.common + r->idle[g.group], count = 0, most = 0;
    g.common = held;
    for (int32_t k = QN_SCHED_FORECAST - 1; k >= 0; k--) {
        held += g.held[k];
        count += g.count[k];
        most = QN_MAX(most, held + count * k * g.unit);
    }
    int64_t percent = 100 + s->config.overcommit_percent;
    int64_t limit = s->config.n_blocks[g.group] * percent / 100;
    if (most > limit) return false;
    *f = g;
    return true;
}

static void admit(qn_sched *s, qn_seq *x, const qn_reuse *r, double now) {
    qn_wait_queue_remove(&s->waiting, qn_seq_wait_entry(s, x));
    s->waiting_tokens -= x->n_prompt;
    x->state = QN_SEQ_RUNNING;
    x->prefilling = true;
    x->stalls = 0;
    x->slot = s->free_slots[--s->n_free_slots];
    s->slots[x->slot] = qn_seq_index(s, x);
    if (!x->scheduled) {
        bool looked = s->config.enable_prefix_caching && !x->skip_cache_read && !r->parent;
        s->prefix_queries += looked ? (uint64_t)x->n_prompt : 0;
        s->prefix_hits += looked ? (uint64_t)r->n_tokens : 0;
        x->n_cached = r->n_tokens;
        x->scheduled = true;
        x->first_scheduled = now;
    }
    s->forks += r->parent != NULL;
    x->fork_of = -1;
    x->lookup_pause = 0;
    qn_seq_begin_with(s, x, r);
    for (int32_t g = 0; g < s->config.n_groups; g++) qn_seq_set_quota(s, x, g, quota_for(s, x, g));
    int32_t i = s->n_run++;
    for (; i > 0 && qn_seq_before(x, &s->seqs[s->run[i - 1]]); i--) s->run[i] = s->run[i - 1];
    s->run[i] = qn_seq_index(s, x);
}

static void plan_new_prompts(qn_sched *s, qn_step_plan *plan, budget *b, double now) {
    int32_t passed = 0; // waiters that are not admitted, now at the front of the queue
    forecast ahead = {.made = false};
    int32_t misfits[QN_SCHED_WAIT_WINDOW], n_misfits = 0; // those of them that do not fit
    // Where only long prompts must wait for time they are admitted without rows, so that short ones
    // behind them get theirs.
    const bool all_wait = !b->shared || (b->timed && b->seconds <= 0);
    while (passed < s->waiting.count && n_misfits < QN_SCHED_WAIT_WINDOW &&
           passed < QN_SCHED_FORK_WINDOW && b->rows > 0 && s->n_run < s->run_cap &&
           s->n_free_slots > 0) {
        int32_t index = qn_wait_queue_at(&s->waiting, passed)->seq;
        qn_seq *x = &s->seqs[index];
        qn_reuse reuse;
        qn_fork_state fork = qn_seq_fork_state(s, x, &reuse);
        if (fork == QN_FORK_WAITS) {
            passed++;
            continue;
        }
        if (all_wait && affordable_rows(s, b, x, 0, 0) <= 0) return; // no time left
        bool fit = fork == QN_FORK_READY ? fits_with(s, x, &reuse) : fits(s, x, &reuse);
        if (!fit || !foreseen(s, &ahead, x, &reuse)) {
            if (x->overtaken >= QN_SCHED_MAX_OVERTAKEN) return;
            misfits[n_misfits++] = index;
            passed++;
            continue;
        }
        if (all_wait && affordable_rows(s, b, x, reuse.n_tokens, reuse.n_tokens) <= 0) return;
        bool more = true;
        for (int32_t i = 0; i < n_misfits; i++) {
            if (++s->seqs[misfits[i]].overtaken >= QN_SCHED_MAX_OVERTAKEN) more = false;
        }
        admit(s, x, &reuse, now);
        if ((!plan_chunk(s, plan, b, x) && all_wait) || !more) return;
    }
}

// Time for prompts beside the decode rows that the plan holds.
static void share_time(const qn_sched *s, budget *b, const qn_step_plan *plan) {
    const double spent = s->time_model.base - b->prompt_seconds; // which began at 0
    b->shared = s->config.max_decode_slowdown > 0 && plan->n_seqs > 0;
    if (!b->shared) return;
    // The scheduler may know nothing yet of how long a step takes: then there is no limit.
    if (!(spent > 0)) {
        b->shared = false;
        return;
    }
    int32_t prompts = QN_MIN(s->waiting.count, QN_MIN(s->n_free_slots, s->run_cap - s->n_run));
    for (int32_t i = 0; i < s->n_run; i++) prompts += s->seqs[s->run[i]].prefilling;
    double factor = QN_MAX(s->config.max_decode_slowdown - 1, (double)prompts / plan->n_seqs);
    b->prompt_seconds = spent * factor;
}

bool qn_sched_plan_step(qn_sched *s, double now, qn_step_plan *plan) {
    budget b = {.rows = QN_MIN(s->config.max_rows, plan->cap_rows)};
    b.timed = s->config.max_step_seconds > 0;
    b.seconds = s->config.max_step_seconds - s->time_model.base;
    if (s->caution > 0) s->caution--;
    unstick_prompt(s, plan);
    plan_decodes(s, plan, &b);
    share_time(s, &b, plan);
    plan_running_prompts(s, plan, &b);
    plan_new_prompts(s, plan, &b, now);
    return plan->n_rows > 0;
}
