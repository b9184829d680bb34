// SPDX-License-Identifier: Apache-2.0
#include "server/metrics.h"

#include "base/checked.h"
#include "base/os.h"

#include <dirent.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { MAX_BOUNDS = 32 };

typedef struct histogram {
    const double *bounds;
    size_t n;
    double own[MAX_BOUNDS]; // where the bounds depend on the model
    atomic_uint_fast64_t counts[MAX_BOUNDS + 1]; // not cumulative; the last: above all bounds
    atomic_uint_fast64_t sum;                    // the bits of a double
} histogram;

static const char *const methods[] = {"GET", "POST", "HEAD", "OPTIONS", "other"};
static const int statuses[] = {200, 202, 204, 400, 401, 403, 404, 405, 408, 413, 417, 429, 431,
                               500, 501, 503, 505, 0};

struct qn_metrics {
    char *prefix;
    char *labels; // model_name="...",engine="0"
    const char *const *handlers;
    size_t n_handlers;
    double started;
    histogram hist[QN_N_HIST];
    atomic_uint_fast64_t finished[QN_N_FINISHED];
    atomic_uint_fast64_t rejected[QN_N_REJECT];
    atomic_uint_fast64_t http[QN_METRICS_MAX_HANDLERS][QN_COUNT(methods)][QN_COUNT(statuses)];
};

static const double ttft_bounds[] = {.001, .005, .01, .02, .04, .06, .08, .1,  .25, .5,  .75,
                                     1,    2.5,  5,   7.5, 10,  20,  40,  80,  160, 640, 2560};
static const double itl_bounds[] = {.01, .025, .05, .075, .1,  .15, .2, .3, .4, .5,
                                    .75, 1,    2.5, 5,    7.5, 10,  20, 40, 80};
static const double request_bounds[] = {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,  15,  20,
                                        30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680};
static const double n_bounds[] = {1, 2, 5, 10, 20};
static const double http_bounds[] = {.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120};

static const struct {
    const char *name, *help;
    const double *bounds; // NULL: 1, 2, 5 series up to the model's context
    size_t n;
} hist_table[QN_N_HIST] = {
    {"time_to_first_token_seconds", "Time to the first token of a request.", ttft_bounds,
     QN_COUNT(ttft_bounds)},
    {"inter_token_latency_seconds", "Time between two tokens of a request.", itl_bounds,
     QN_COUNT(itl_bounds)},
    {"request_time_per_output_token_seconds", "Mean time of a request's tokens after the first.",
     itl_bounds, QN_COUNT(itl_bounds)},
    {"e2e_request_latency_seconds", "Time from arrival to the last token.", request_bounds,
     QN_COUNT(request_bounds)},
    {"request_queue_time_seconds", "Time spent waiting for the first step.", request_bounds,
     QN_COUNT(request_bounds)},
    {"request_inference_time_seconds", "Time from the first step to the last token.", request_bounds,
     QN_COUNT(request_bounds)},
    {"request_prefill_time_seconds", "Time from the first step to the first token.", request_bounds,
     QN_COUNT(request_bounds)},
    {"request_decode_time_seconds", "Time from the first to the last token.", request_bounds,
     QN_COUNT(request_bounds)},
    {"request_prompt_tokens", "Prompt tokens of a request.", NULL, 0},
    {"request_generation_tokens", "Tokens generated for a request.", NULL, 0},
    {"request_max_num_generation_tokens", "Tokens of the longest choice of a request.", NULL, 0},
    {"request_params_max_tokens", "The max_tokens that requests ask for.", NULL, 0},
    {"request_params_n", "The n that requests ask for.", n_bounds, QN_COUNT(n_bounds)},
    {"http_request_duration_seconds", "Time from a request's first byte to its response's end.",
     http_bounds, QN_COUNT(http_bounds)},
};

// A label value with its backslashes, quotes and newlines escaped.
static void label_value(qn_buf *out, const char *s) {
    for (; *s; s++) {
        if (*s == '\\' || *s == '"') qn_buf_putc(out, '\\');
        if (*s == '\n') qn_buf_puts(out, "\\n");
        else qn_buf_putc(out, *s);
    }
}

qn_metrics *qn_metrics_create(const char *prefix, const char *model_name, int32_t max_model_len,
                              const char *const *handlers, size_t n_handlers) {
    if (n_handlers > QN_METRICS_MAX_HANDLERS) return NULL;
    qn_metrics *m = calloc(1, sizeof *m);
    if (!m) return NULL;
    qn_buf labels = {0};
    qn_buf_puts(&labels, "model_name=\"");
    label_value(&labels, model_name);
    qn_buf_puts(&labels, "\",engine=\"0\"");
    m->prefix = strdup(prefix);
    m->labels = labels.failed ? NULL : strdup(labels.data);
    qn_buf_free(&labels);
    if (!m->prefix || !m->labels) {
        qn_metrics_destroy(m);
        return NULL;
    }
    m->handlers = handlers;
    m->n_handlers = n_handlers;
    m->started = qn_os_wall_time();
    for (size_t i = 0; i < QN_N_HIST; i++) {
        histogram *h = &m->hist[i];
        h->bounds = hist_table[i].bounds;
        h->n = hist_table[i].n;
        if (h->bounds) continue;
        static const double steps[] = {1, 2, 5};
        double scale = 1;
        for (size_t k = 0; h->n < MAX_BOUNDS; k++) {
            double bound = steps[k % 3] * scale;
            if (bound > max_model_len) break;
            h->own[h->n++] = bound;
            if (k % 3 == 2) scale *= 10;
        }
        h->bounds = h->own;
    }
    return m;
}

void qn_metrics_destroy(qn_metrics *m) {
    if (!m) return;
    free(m->prefix);
    free(m->labels);
    free(m);
}

static double bits_to_double(uint64_t bits) {
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}

static void add_double(atomic_uint_fast64_t *at, double x) {
    uint_fast64_t old = atomic_load_explicit(at, memory_order_relaxed), next;
    do {
        double sum = bits_to_double(old) + x;
        uint64_t bits;
        memcpy(&bits, &sum, sizeof bits);
        next = bits;
    } while (!atomic_compare_exchange_weak_explicit(at, &old, next, memory_order_relaxed,
                                                    memory_order_relaxed));
}

void qn_metrics_observe_many(qn_metrics *m, qn_hist which, double value, uint64_t count) {
    histogram *h = &m->hist[which];
    size_t i = 0;
    while (i < h->n && value > h->bounds[i]) i++;
    atomic_fetch_add_explicit(&h->counts[i], count, memory_order_relaxed);
    add_double(&h->sum, value * (double)count);
}

void qn_metrics_observe(qn_metrics *m, qn_hist h, double value) {
    qn_metrics_observe_many(m, h, value, 1);
}

void qn_metrics_finished(qn_metrics *m, qn_finish_label label) {
    atomic_fetch_add_explicit(&m->finished[label], 1, memory_order_relaxed);
}

void qn_metrics_rejected(qn_metrics *m, qn_reject_label label) {
    atomic_fetch_add_explicit(&m->rejected[label], 1, memory_order_relaxed);
}

void qn_metrics_http(qn_metrics *m, size_t handler, qn_str method, int status, double seconds) {
    size_t i = 0, k = 0;
    while (i < QN_COUNT(methods) - 1 && !qn_str_is(method, methods[i])) i++;
    while (k < QN_COUNT(statuses) - 1 && statuses[k] != status) k++;
    if (handler < m->n_handlers) {
        atomic_fetch_add_explicit(&m->http[handler][i][k], 1, memory_order_relaxed);
    }
    qn_metrics_observe(m, QN_HIST_HTTP, seconds);
}

// ---------------------------------------------------------------- text

static uint64_t load(atomic_uint_fast64_t *at) {
    return atomic_load_explicit(at, memory_order_relaxed);
}

static void head(qn_buf *out, const char *prefix, const char *name, const char *type,
                 const char *help) {
    qn_buf_printf(out, "# HELP %s%s %s\n# TYPE %s%s %s\n", prefix, name, help, prefix, name, type);
}

static void gauge(const qn_metrics *m, qn_buf *out, const char *name, const char *help, double v) {
    head(out, m->prefix, name, "gauge", help);
    qn_buf_printf(out, "%s%s{%s} %.17g\n", m->prefix, name, m->labels, v);
}

static void counter(const qn_metrics *m, qn_buf *out, const char *name, const char *help,
                    uint64_t v) {
    head(out, m->prefix, name, "counter", help);
    qn_buf_printf(out, "%s%s{%s} %llu\n", m->prefix, name, m->labels, (unsigned long long)v);
}

static void histogram_text(qn_metrics *m, qn_hist which, qn_buf *out) {
    histogram *h = &m->hist[which];
    const char *name = hist_table[which].name;
    // The duration of HTTP requests is not the model's.
    const char *prefix = which == QN_HIST_HTTP ? "" : m->prefix;
    const char *labels = which == QN_HIST_HTTP ? "" : m->labels;
    const char *comma = *labels ? "," : "";
    head(out, prefix, name, "histogram", hist_table[which].help);
    uint64_t sum = 0;
    for (size_t i = 0; i < h->n; i++) {
        sum += load(&h->counts[i]);
        qn_buf_printf(out, "%s%s_bucket{%s%sle=\"%g\"} %llu\n", prefix, name, labels, comma,
                      h->bounds[i], (unsigned long long)sum);
    }
    sum += load(&h->counts[h->n]);
    qn_buf_printf(out, "%s%s_bucket{%s%sle=\"+Inf\"} %llu\n", prefix, name, labels, comma,
                  (unsigned long long)sum);
    const char *open = *labels ? "{" : "", *close = *labels ? "}" : "";
    qn_buf_printf(out, "%s%s_sum%s%s%s %.17g\n", prefix, name, open, labels, close,
                  bits_to_double(load(&h->sum)));
    qn_buf_printf(out, "%s%s_count%s%s%s %llu\n", prefix, name, open, labels, close,
                  (unsigned long long)sum);
}

static void abort_text(const qn_metrics *m, const qn_engine_stats *stats, qn_buf *out) {
    static const char name[] = "request_abort_steps";
    head(out, m->prefix, name, "histogram",
         "Steps from a client's leaving until its KV blocks were free.");
    uint64_t sum = 0;
    for (int i = 0; i < QN_ABORT_STEPS; i++) {
        char bound[8] = "+Inf";
        if (i + 1 < QN_ABORT_STEPS) snprintf(bound, sizeof bound, "%d", i);
        sum += stats->abort_steps[i];
        qn_buf_printf(out, "%s%s_bucket{%s,le=\"%s\"} %llu\n", m->prefix, name, m->labels, bound,
                      (unsigned long long)sum);
    }
    qn_buf_printf(out, "%s%s_sum{%s} %llu\n%s%s_count{%s} %llu\n", m->prefix, name, m->labels,
                  (unsigned long long)stats->abort_steps_sum, m->prefix, name, m->labels,
                  (unsigned long long)sum);
}

static size_t open_descriptors(void) {
    size_t n = 0;
    DIR *dir = opendir("/proc/self/fd");
    if (!dir) return 0;
    for (const struct dirent *e; (e = readdir(dir));) n += e->d_name[0] != '.';
    closedir(dir);
    return n - 1; // the directory's own
}

static void process_text(const qn_metrics *m, qn_buf *out) {
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        double cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                     1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
        head(out, "", "process_cpu_seconds_total", "counter", "User and system CPU time.");
        qn_buf_printf(out, "process_cpu_seconds_total %.6f\n", cpu);
    }
    head(out, "", "process_resident_memory_bytes", "gauge", "Resident memory.");
    qn_buf_printf(out, "process_resident_memory_bytes %llu\n",
                  (unsigned long long)qn_os_resident_bytes());
    size_t fds = open_descriptors();
    if (fds) {
        head(out, "", "process_open_fds", "gauge", "Open file descriptors.");
        qn_buf_printf(out, "process_open_fds %zu\n", fds);
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        head(out, "", "process_max_fds", "gauge", "Most file descriptors.");
        qn_buf_printf(out, "process_max_fds %llu\n", (unsigned long long)limit.rlim_cur);
    }
    head(out, "", "process_start_time_seconds", "gauge", "Start time since 1970.");
    qn_buf_printf(out, "process_start_time_seconds %.3f\n", m->started);
}

static const struct {
    const char *name, *phase, *help; // phase NULL: no such label
} step_table[QN_N_STEP_HIST] = {
    [QN_STEP_TOKENS] = {"iteration_tokens_total", NULL, "Tokens that a step computes."},
    [QN_STEP_SEQS] = {"step_batch_size", NULL, "Sequences of a step."},
    [QN_STEP_SCHEDULE] = {"step_duration_seconds", "schedule", "Time of a step's parts."},
    [QN_STEP_FORWARD] = {"step_duration_seconds", "forward", NULL},
    [QN_STEP_SAMPLE] = {"step_duration_seconds", "sample", NULL},
};

static void steps_text(const qn_metrics *m, const qn_engine_stats *stats, qn_buf *out) {
    for (size_t i = 0; i < QN_N_STEP_HIST; i++) {
        const qn_step_counts *h = &stats->hist[i];
        const char *name = step_table[i].name;
        // vLLM calls a histogram a total, which linters complain of: our own names are clean.
        if (i == QN_STEP_TOKENS && strcmp(m->prefix, "quern_") == 0) name = "iteration_tokens";
        if (step_table[i].help) head(out, m->prefix, name, "histogram", step_table[i].help);
        char phase[32] = "";
        if (step_table[i].phase) snprintf(phase, sizeof phase, ",phase=\"%s\"", step_table[i].phase);
        size_t n;
        const double *bounds = qn_step_hist_bounds((qn_step_hist)i, &n);
        uint64_t sum = 0;
        for (size_t k = 0; k <= n; k++) {
            sum += h->counts[k];
            qn_buf_printf(out, "%s%s_bucket{%s%s,le=\"", m->prefix, name, m->labels, phase);
            if (k < n) qn_buf_printf(out, "%g", bounds[k]);
            else qn_buf_puts(out, "+Inf");
            qn_buf_printf(out, "\"} %llu\n", (unsigned long long)sum);
        }
        qn_buf_printf(out, "%s%s_sum{%s%s} %.17g\n%s%s_count{%s%s} %llu\n", m->prefix, name,
                      m->labels, phase, h->sum, m->prefix, name, m->labels, phase,
                      (unsigned long long)sum);
    }
}

// What there is no adapter and no speculation for yet: dashboards find the names, and nothing in them.
static void absent_text(const qn_metrics *m, qn_buf *out) {
    head(out, m->prefix, "lora_requests_info", "gauge", "Adapters in use; the value is the time.");
    qn_buf_printf(out, "%slora_requests_info{%s,max_lora=\"0\",running_lora_adapters=\"\","
                  "waiting_lora_adapters=\"\"} %.3f\n", m->prefix, m->labels, qn_os_wall_time());
    counter(m, out, "spec_decode_num_drafts_total", "Speculative drafts.", 0);
    counter(m, out, "spec_decode_num_draft_tokens_total", "Draft tokens.", 0);
    counter(m, out, "spec_decode_num_accepted_tokens_total", "Draft tokens that were accepted.", 0);
    const char *name = "spec_decode_num_accepted_tokens_per_pos_total";
    head(out, m->prefix, name, "counter", "Draft tokens that were accepted, by their place.");
    qn_buf_printf(out, "%s%s{%s,position=\"0\"} 0\n", m->prefix, name, m->labels);
}

static void info_text(const qn_metrics *m, const qn_metrics_state *state, qn_buf *out) {
    const qn_engine_info *info = state->info;
    head(out, m->prefix, "cache_config_info", "gauge", "The KV cache's configuration.");
    qn_buf_printf(out, "%scache_config_info{%s,block_size=\"%d\",cache_dtype=\"%s\","
                  "enable_prefix_caching=\"%s\",num_gpu_blocks=\"%d\"} 1\n", m->prefix, m->labels,
                  info->block_size, info->kv_dtype, info->prefix_caching ? "True" : "False",
                  info->n_blocks);
    head(out, m->prefix, "build_info", "gauge", "What this is.");
    qn_buf_printf(out, "%sbuild_info{version=\"", m->prefix);
    label_value(out, state->version);
    qn_buf_puts(out, "\",backend=\"");
    label_value(out, info->backend ? info->backend : "");
    qn_buf_puts(out, "\"} 1\n");
}

static void health_text(const qn_metrics *m, const qn_metrics_state *state, qn_buf *out) {
    static const char *const states[] = {"idle", "working", "stalled"};
    gauge(m, out, "healthy", "1 while work makes progress and new requests are taken.",
          state->healthy);
    head(out, m->prefix, "watchdog_state", "gauge",
         "1 for what the engine does: stalled is work and no step that ends.");
    for (size_t i = 0; i < QN_COUNT(states); i++) {
        qn_buf_printf(out, "%swatchdog_state{%s,state=\"%s\"} %d\n", m->prefix, m->labels, states[i],
                      (size_t)state->watchdog == i);
    }
    gauge(m, out, "watchdog_silence_seconds", "Time since a step ended, while there is work.",
          state->since_progress);
}

void qn_metrics_text(qn_metrics *m, const qn_metrics_state *state, qn_buf *out) {
    static const char *const finished[QN_N_FINISHED] = {"stop", "length", "abort", "error"};
    static const char *const rejected[QN_N_REJECT] = {"queue_full", "draining", "too_long",
                                                        "key_limit"};
    const qn_engine_stats *stats = &state->stats;
    gauge(m, out, "num_requests_running", "Requests in the batch.", stats->running);
    gauge(m, out, "num_requests_waiting", "Requests that wait for the batch.", stats->waiting);
    gauge(m, out, "kv_cache_usage_perc", "Part of the KV blocks in use, 0 to 1.", stats->kv_usage);
    info_text(m, state, out);
    health_text(m, state, out);
    counter(m, out, "num_preemptions_total", "Requests put back to the queue.", stats->preemptions);
    counter(m, out, "prompt_tokens_total", "Prompt tokens processed.", stats->prompt_tokens);
    counter(m, out, "generation_tokens_total", "Tokens generated.", stats->generated_tokens);
    counter(m, out, "prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
            stats->prefix_queries);
    counter(m, out, "prefix_cache_hits_total", "Prompt tokens found in the prefix cache.",
            stats->prefix_hits);
    counter(m, out, "prompt_tokens_cached_total", "Prompt tokens that were not computed again.",
            stats->cached_tokens);
    counter(m, out, "scheduler_steps_total", "Steps of the engine.", stats->steps);
    absent_text(m, out);
    head(out, m->prefix, "request_success_total", "counter", "Finished requests.");
    for (size_t i = 0; i < QN_N_FINISHED; i++) {
        qn_buf_printf(out, "%srequest_success_total{%s,finished_reason=\"%s\"} %llu\n", m->prefix,
                      m->labels, finished[i], (unsigned long long)load(&m->finished[i]));
    }
    head(out, m->prefix, "admission_rejections_total", "counter", "Requests that were not admitted.");
    for (size_t i = 0; i < QN_N_REJECT; i++) {
        qn_buf_printf(out, "%sadmission_rejections_total{%s,reason=\"%s\"} %llu\n", m->prefix,
                      m->labels, rejected[i], (unsigned long long)load(&m->rejected[i]));
    }
    steps_text(m, stats, out);
    abort_text(m, stats, out);
    for (size_t i = 0; i < QN_N_HIST; i++) histogram_text(m, (qn_hist)i, out);

    head(out, "", "http_requests_total", "counter", "HTTP requests by route.");
    for (size_t h = 0; h < m->n_handlers; h++) {
        for (size_t i = 0; i < QN_COUNT(methods); i++) {
            for (size_t k = 0; k < QN_COUNT(statuses); k++) {
                uint64_t n = load(&m->http[h][i][k]);
                if (n == 0) continue;
                char status[16] = "other";
                if (statuses[k]) snprintf(status, sizeof status, "%d", statuses[k]);
                qn_buf_printf(out,
                              "http_requests_total{handler=\"%s\",method=\"%s\",status=\"%s\"} %llu\n",
                              m->handlers[h], methods[i], status, (unsigned long long)n);
            }
        }
    }
    process_text(m, out);
}
