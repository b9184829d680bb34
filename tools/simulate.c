// SPDX-License-Identifier: Apache-2.0
#include "tools/simulate.h"

#include "base/checked.h"
#include "base/hash.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PROMPTS = 10 * 1000 * 1000, DEPTH = 2, MAX_EVENTS = 1024 };

typedef struct request {
    double arrival;
    int32_t n_prompt, n_output;
    double queue, first, last; // < 0: not yet
} request;

typedef struct flight {
    qn_step_plan *plan;
    double end;
} flight;

typedef struct simulation {
    const qn_simulate_options *o;
    uint64_t rng;
    qn_sched *s;
    qn_sched_config config;
    request *requests; // by arrival; request i has the id i + 1
    int64_t n, next, completed, refused;
    int32_t *prompt;
    qn_sched_row *rows;
    flight flights[DEPTH];
    int n_flights;
    double now, device_free, busy;
    double running_sum, kv_sum;
    int64_t computed_rows;
    qn_simulate_result *result;
    qn_error why; // the first was refused
} simulation;

static double uniform(simulation *m) { // (0, 1]
    m->rng += 0x9e3779b97f4a7c15u;
    return (double)((qn_hash_u64(m->rng) >> 11) + 1) * 0x1p-53;
}

static int32_t length(simulation *m, int32_t about) {
    double spread = m->o->length_spread * about;
    double v = about - spread + floor(uniform(m) * (2 * spread + 1));
    return (int32_t)QN_MAX(1, QN_MIN(v, 2.0 * about));
}

static qn_status check_options(const qn_simulate_options *o, qn_error *err) {
    const qn_step_time_model *t = &o->step_time;
    const double times[] = {t->base, t->per_row, t->per_key, t->per_context};
    double sum = 0;
    for (size_t i = 0; i < QN_COUNT(times); i++) {
        if (!isfinite(times[i]) || times[i] < 0) {
            return qn_fail(err, QN_ERR_INVALID, "a time of a step is negative or not a number");
        }
        sum += times[i];
    }
    if (sum <= 0) return qn_fail(err, QN_ERR_INVALID, "a step takes no time");
    if (o->num_prompts < 1 || o->num_prompts > MAX_PROMPTS) {
        return qn_fail(err, QN_ERR_INVALID, "%lld prompts, not 1..%d", (long long)o->num_prompts,
                       MAX_PROMPTS);
    }
    if (!isfinite(o->rate) || o->rate < 0) {
        return qn_fail(err, QN_ERR_INVALID, "rate is not a rate");
    }
    if (o->input_len < 1 || o->input_len > 1 << 24 || o->output_len < 1 ||
        o->output_len > 1 << 24) {
        return qn_fail(err, QN_ERR_INVALID, "lengths of input and output are not 1..%d", 1 << 24);
    }
    if (!(o->length_spread >= 0 && o->length_spread <= 1)) {
        return qn_fail(err, QN_ERR_INVALID, "the spread of lengths is not 0..1");
    }
    if (o->shared_prefix < 0 || o->shared_prefix > o->input_len) {
        return qn_fail(err, QN_ERR_INVALID, "the shared prefix is not 0..%d tokens", o->input_len);
    }
    return QN_OK;
}

static void make_requests(simulation *m) {
    double at = 0;
    for (int64_t i = 0; i < m->n; i++) {
        request *r = &m->requests[i];
        *r = (request){.arrival = at, .queue = -1, .first = -1, .last = -1};
        r->n_prompt = length(m, m->o->input_len);
        r->n_output = length(m, m->o->output_len);
        if (m->o->rate > 0) at -= log(uniform(m)) / m->o->rate;
    }
}

static qn_status set_up(simulation *m, qn_error *err) {
    const qn_simulate_options *o = m->o;
    m->n = o->num_prompts;
    m->requests = calloc((size_t)m->n, sizeof *m->requests);
    if (!m->requests) return qn_fail(err, QN_ERR_NOMEM, "out of memory for the requests");
    make_requests(m);
    int32_t longest = 0, longest_prompt = 0;
    for (int64_t i = 0; i < m->n; i++) {
        const request *r = &m->requests[i];
        longest = QN_MAX(longest, r->n_prompt + r->n_output);
        longest_prompt = QN_MAX(longest_prompt, r->n_prompt);
    }
    m->config = o->scheduler;
    qn_sched_config *c = &m->config;
    if (c->max_len == 0) c->max_len = longest + 1;
    if (c->max_waiting == 0) c->max_waiting = (int32_t)QN_MIN(m->n, 1 << 20);
    for (int32_t g = 0; g < c->n_groups && g < QN_MAX_KV_GROUPS && c->block_size > 0; g++) {
        if (c->n_blocks[g] != 0) continue;
        int64_t most = (int64_t)QN_CEIL_DIV(longest, c->block_size) * c->max_seqs;
        c->n_blocks[g] = (int32_t)QN_MIN(most + c->max_seqs, INT32_MAX / 4);
    }
    qn_status st = qn_sched_create(c, &m->s, err);
    if (st != QN_OK) return st;
    qn_sched_set_step_time(m->s, &o->step_time);
    m->prompt = calloc((size_t)longest_prompt, sizeof *m->prompt);
    m->rows = calloc((size_t)c->max_seqs, sizeof *m->rows);
    bool ok = m->prompt && m->rows;
    for (int i = 0; i < DEPTH; i++) {
        m->flights[i].plan = qn_sched_make_plan(m->s);
        ok = ok && m->flights[i].plan;
    }
    return ok ? QN_OK : qn_fail(err, QN_ERR_NOMEM, "out of memory for the simulation");
}

static void tear_down(simulation *m) {
    qn_sched_destroy(m->s);
    for (int i = 0; i < DEPTH; i++) free(m->flights[i].plan);
    free(m->rows);
    free(m->prompt);
    free(m->requests);
}

// All that have arrived by now.
static qn_status add_arrivals(simulation *m, qn_error *err) {
    for (; m->next < m->n && m->requests[m->next].arrival <= m->now; m->next++) {
        const request *r = &m->requests[m->next];
        for (int32_t i = 0; i < r->n_prompt; i++) {
            // Behind the shared prefix each prompt is its own.
            uint64_t own = i < m->o->shared_prefix ? 0 : (uint64_t)m->next + 1;
            m->prompt[i] = (int32_t)(qn_hash_u64(own * 0x9e3779b97f4a7c15u + (uint64_t)i) >> 40);
        }
        const qn_sched_request q = {.id = (uint64_t)m->next + 1,
                                    .prompt = m->prompt,
                                    .n_prompt = r->n_prompt,
                                    .max_tokens = r->n_output,
                                    .adapter = -1};
        qn_error why = {0};
        qn_status st = qn_sched_add(m->s, &q, m->now, &why);
        if (st == QN_ERR_NOMEM) return qn_fail(err, st, "%s", why.message);
        if (st == QN_OK) continue;
        if (m->refused++ == 0) m->why = why;
    }
    return QN_OK;
}

static bool plan_one(simulation *m) {
    flight *f = &m->flights[m->n_flights];
    if (!qn_sched_plan(m->s, m->now, f->plan)) return false;
    const qn_step_time_model *t = &m->o->step_time;
    double seconds =
        t->base + t->per_row * f->plan->n_rows + t->per_key * qn_sched_plan_keys(m->s, f->plan) +
        t->per_context * qn_sched_plan_context(m->s, f->plan);
    m->device_free = QN_MAX(m->device_free, m->now) + seconds;
    m->busy += seconds;
    f->end = m->device_free;
    m->n_flights++;
    m->computed_rows += f->plan->n_rows;
    qn_sched_stats st;
    qn_sched_stats_get(m->s, &st);
    double used = (double)st.blocks_used[0] / (double)st.blocks_total[0];
    m->running_sum += st.running;
    m->kv_sum += used;
    m->result->max_kv_used = QN_MAX(m->result->max_kv_used, used);
    m->result->max_waiting = QN_MAX(m->result->max_waiting, st.waiting);
    m->result->steps++;
    return true;
}

static void commit_one(simulation *m) {
    flight f = m->flights[0];
    m->now = QN_MAX(m->now, f.end);
    for (int32_t i = 0; i < f.plan->n_logits; i++) m->rows[i] = (qn_sched_row){1, true};
    qn_sched_commit(m->s, f.plan, m->rows, m->now);
    m->flights[0] = m->flights[1];
    m->flights[1] = f;
    m->n_flights--;
    qn_sched_event events[MAX_EVENTS];
    size_t n;
    while ((n = qn_sched_take_events(m->s, events, MAX_EVENTS)) > 0) {
        for (size_t i = 0; i < n; i++) {
            request *r = &m->requests[events[i].id - 1];
            if (events[i].kind == QN_SCHED_TOKEN) {
                if (r->first < 0) r->first = m->now;
                r->last = m->now;
                continue;
            }
            qn_sched_seq_info info = {0};
            if (qn_sched_seq(m->s, events[i].id, &info)) {
                r->queue = info.first_scheduled - r->arrival;
                r->n_output = info.n_output; // may have been cut to what fits
            }
            m->completed++;
        }
    }
}

static qn_status run(simulation *m, qn_error *err) {
    for (;;) {
        bool planned = true;
        while (planned && m->n_flights <= m->o->lookahead) {
            qn_status st = add_arrivals(m, err);
            if (st != QN_OK) return st;
            planned = plan_one(m);
        }
        if (m->n_flights > 0) {
            commit_one(m);
        } else if (m->next < m->n) {
            m->now = m->requests[m->next].arrival;
        } else {
            return QN_OK;
        }
    }
}

// ---- what came of it ----

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static qn_simulate_spread spread_of(double *v, int64_t n) {
    if (n == 0) return (qn_simulate_spread){0};
    qsort(v, (size_t)n, sizeof *v, compare);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += v[i];
    return (qn_simulate_spread){sum / (double)n, v[(n - 1) / 2], v[(n - 1) * 9 / 10],
                                v[(n - 1) * 99 / 100], v[n - 1]};
}

static qn_status summarize(simulation *m, qn_error *err) {
    qn_simulate_result *out = m->result;
    double *v = calloc((size_t)m->n, sizeof *v);
    if (!v) return qn_fail(err, QN_ERR_NOMEM, "out of memory for the percentiles");
    double input = 0, output = 0;
    enum { TTFT, TPOT, QUEUE, LATENCY, KINDS };
    qn_simulate_spread *spreads[KINDS] = {&out->ttft, &out->tpot, &out->queue, &out->latency};
    for (int kind = 0; kind < KINDS; kind++) {
        int64_t n = 0;
        for (int64_t i = 0; i < m->n; i++) {
            const request *r = &m->requests[i];
            if (r->first < 0 || (kind == TPOT && r->n_output < 2)) continue;
            v[n++] = kind == TTFT    ? r->first - r->arrival
                     : kind == TPOT  ? (r->last - r->first) / (r->n_output - 1)
                     : kind == QUEUE ? r->queue
                                     : r->last - r->arrival;
            if (kind == TTFT) {
                input += r->n_prompt;
                output += r->n_output;
            }
        }
        *spreads[kind] = spread_of(v, n);
    }
    free(v);
    qn_sched_stats st;
    qn_sched_stats_get(m->s, &st);
    out->completed = m->completed;
    out->refused = m->refused;
    out->seconds = m->device_free;
    double seconds = out->seconds > 0 ? out->seconds : 1, steps = (double)QN_MAX(out->steps, 1);
    out->requests_per_second = (double)m->completed / seconds;
    out->output_per_second = output / seconds;
    out->input_per_second = input / seconds;
    out->busy = m->busy / seconds;
    out->mean_running = m->running_sum / steps;
    out->mean_kv_used = m->kv_sum / steps;
    out->preemptions = (int64_t)st.preemptions;
    out->recomputed = (double)st.recomputed_tokens / (double)QN_MAX(m->computed_rows, 1);
    out->prefix_hit =
        st.prefix_queries > 0 ? (double)st.prefix_hits / (double)st.prefix_queries : 0;
    return QN_OK;
}

qn_status qn_simulate(const qn_simulate_options *options, qn_simulate_result *result,
                      qn_error *err) {
    *result = (qn_simulate_result){0};
    qn_status st = check_options(options, err);
    if (st != QN_OK) return st;
    simulation m = {.o = options, .rng = qn_hash_u64(options->seed), .result = result};
    st = set_up(&m, err);
    if (st == QN_OK) st = run(&m, err);
    if (st == QN_OK && m.completed == 0) {
        st = qn_fail(err, QN_ERR_LIMIT, "every request is refused: %s", m.why.message);
    }
    if (st == QN_OK) st = summarize(&m, err);
    tear_down(&m);
    return st;
}
