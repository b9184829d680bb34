// SPDX-License-Identifier: Apache-2.0
// The whole server with its real engine, offered more than it can do: requests come in a Poisson stream,
// whether those before were answered or not.
//
//   overload MODEL [SECONDS [ROUNDS [TOKENS]]]                                            10 s, 3, 64
//
// First as fast as 64 callers get it (that is its capacity), then at half of that rate, at it, at twice,
// five and ten times. Rounds of all are interleaved. For each rate: tokens a second in complete answers,
// how long refusals took, the server's resident memory afterwards. The last line is JSON: medians, and
// the goodput at ten times the capacity against the best of all rates. Exits with 1 if a request was
// neither answered nor refused.
#include "base/checked.h"
#include "base/os.h"
#include "base/philox.h"
#include "benchmarks/forked_server.h"
#include "cpu/cpu_backend.h"
#include "http/client.h"

#include <event2/event.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CALLERS = 2048, AT_ONCE = 64, MAX_REFUSALS = 1 << 18, MAX_ROUNDS = 100, RATES = 6 };

typedef struct caller {
    struct load *load;
    qn_http_client *client;
    uint64_t begun_ns;
    int status;
    bool busy;
} caller;

typedef struct load {
    struct event_base *base;
    struct event *timer;
    caller *callers; // [CALLERS], kept over the rates
    int32_t n_callers, tokens;
    qn_rng rng;
    double rate, next; // requests a second (0: each caller at once again); when the next comes
    double begin, until;
    size_t active, sent, done, done_in_time, refused, failed, dropped, serial;
    double *refusals; // seconds
} load;

static double now(void) { return (double)qn_os_now_ns() * 1e-9; }

static void on_head(void *user, const qn_http_head *head) { ((caller *)user)->status = head->status; }

static void call(caller *c);

static void on_done(void *user, const qn_error *error) {
    caller *c = user;
    load *l = c->load;
    const double t = now();
    c->busy = false;
    l->active--;
    if (!error && c->status == 200) {
        l->done++;
        l->done_in_time += t < l->until;
    } else if (!error && c->status == 503 && l->refused < MAX_REFUSALS) {
        l->refusals[l->refused++] = t - (double)c->begun_ns * 1e-9;
    } else {
        l->failed++;
    }
    if (t < l->until) {
        if (l->rate == 0) call(c);
    } else if (l->active == 0) {
        event_base_loopbreak(l->base);
    }
}

static void call(caller *c) {
    load *l = c->load;
    char body[160];
    snprintf(body, sizeof body, "{\"prompt\":\"%zu one two three\",\"max_tokens\":%d,\"ignore_eos\":true}",
             l->serial++, l->tokens);
    const qn_http_call k = {.method = "POST", .path = "/v1/completions",
                            .content_type = "application/json", .body = body, .len = strlen(body),
                            .user = c, .on_head = on_head, .on_done = on_done};
    c->status = 0;
    c->busy = true;
    c->begun_ns = qn_os_now_ns();
    l->active++;
    l->sent++;
    if (qn_http_client_send(c->client, &k, NULL) == QN_OK) return;
    c->busy = false;
    l->active--;
    l->failed++;
}

// The requests that are due.
static void tick(int fd, short what, void *user) {
    (void)fd;
    (void)what;
    load *l = user;
    const double t = now();
    int32_t at = 0;
    for (; l->next < t && l->next < l->until; l->next -= log(1 - qn_rng_uniform(&l->rng)) / l->rate) {
        while (at < l->n_callers && l->callers[at].busy) at++;
        if (at < l->n_callers) call(&l->callers[at]);
        else l->dropped++;
    }
    if (t < l->until) event_add(l->timer, &(struct timeval){.tv_usec = 1000});
    else if (l->active == 0) event_base_loopbreak(l->base);
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Tokens a second of answers that were complete within the time.
static double run(load *l, double rate, double seconds) {
    l->rate = rate;
    l->active = l->sent = l->done = l->done_in_time = l->refused = l->failed = l->dropped = 0;
    l->begin = l->next = now();
    l->until = l->begin + seconds;
    if (rate > 0) {
        event_add(l->timer, &(struct timeval){.tv_usec = 1000});
    } else {
        for (int32_t i = 0; i < AT_ONCE; i++) call(&l->callers[i]);
    }
    event_base_dispatch(l->base);
    qsort(l->refusals, l->refused, sizeof *l->refusals, compare);
    return (double)l->done_in_time * l->tokens / seconds;
}

static double resident_mib(pid_t pid) {
    char path[64];
    long pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%*s %ld", &pages) != 1) pages = 0;
    if (f) fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 0x1p20;
}

static double median(double *v, int32_t n) {
    qsort(v, (size_t)n, sizeof *v, compare);
    return v[n / 2];
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: overload MODEL [SECONDS [ROUNDS [TOKENS]]]\n");
        return 2;
    }
    const double seconds = argc > 2 ? atof(argv[2]) : 10;
    const int32_t rounds = argc > 3 ? atoi(argv[3]) : 3;
    load l = {.tokens = argc > 4 ? atoi(argv[4]) : 64, .n_callers = CALLERS, .rng = {.key = 1}};
    if (seconds <= 0 || rounds < 1 || rounds > MAX_ROUNDS || l.tokens < 1) {
        fprintf(stderr, "overload: SECONDS above 0, ROUNDS 1 to %d, TOKENS at least 1\n", MAX_ROUNDS);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    qn_url url = {.host = "127.0.0.1", .path = "/"};
    const qn_engine_options eo = {.backend = &qn_cpu_backend, .kv_dtype = QN_KV_F16,
                                  .max_num_seqs = AT_ONCE, .max_model_len = l.tokens + 64,
                                  .max_num_queued_reqs = AT_ONCE};
    const pid_t server = qn_forked_server(argv[1], &eo, AT_ONCE, -1, &url.port);
    l.base = event_base_new();
    l.callers = calloc(CALLERS, sizeof *l.callers);
    l.refusals = malloc(MAX_REFUSALS * sizeof *l.refusals);
    l.timer = l.base ? event_new(l.base, -1, 0, tick, &l) : NULL;
    if (server < 0 || !l.callers || !l.refusals || !l.timer) return 1;
    for (int32_t i = 0; i < CALLERS; i++) {
        l.callers[i].load = &l;
        if (qn_http_client_create(l.base, &url, &l.callers[i].client, NULL) != QN_OK) return 1;
    }
    static const double factors[RATES] = {0, 0.5, 1, 2, 5, 10}; // 0: as fast as it goes
    static double goodput[RATES][MAX_ROUNDS], p99[RATES][MAX_ROUNDS], memory[RATES][MAX_ROUNDS];
    size_t failed = 0, dropped = 0;
    double capacity = 0;
    run(&l, 0, fmin(seconds, 3)); // not counted
    for (int32_t r = 0; r < rounds; r++) {
        for (int i = 0; i < RATES; i++) {
            goodput[i][r] = run(&l, factors[i] * capacity, seconds);
            if (i == 0) capacity = goodput[0][r] / l.tokens;
            p99[i][r] = l.refused ? l.refusals[l.refused * 99 / 100] : 0;
            memory[i][r] = resident_mib(server);
            failed += l.failed;
            dropped += l.dropped;
            fprintf(stderr, "round %d of %d, %4.1f x %.1f requests/s: %.0f tokens/s, %zu answered, %zu "
                    "refused (p99 %.1f ms), %zu failed, %.1f MiB\n", r + 1, rounds, factors[i],
                    capacity, goodput[i][r], l.done, l.refused, p99[i][r] * 1e3, l.failed, memory[i][r]);
        }
    }
    double best = 0, medians[RATES];
    for (int i = 0; i < RATES; i++) best = fmax(best, medians[i] = median(goodput[i], rounds));
    printf("{\"seconds\": %g, \"rounds\": %d, \"tokens\": %d, \"failed\": %zu, \"dropped\": %zu, "
           "\"rates\": [", seconds, rounds, l.tokens, failed, dropped);
    for (int i = 0; i < RATES; i++) {
        printf("%s{\"offered\": %g, \"tokens_per_s\": %.0f, \"refusal_p99_ms\": %.2f, \"rss_mib\": %.1f}",
               i ? ", " : "", factors[i], medians[i], median(p99[i], rounds) * 1e3,
               median(memory[i], rounds));
    }
    printf("], \"goodput_at_10x\": %.3f}\n", medians[RATES - 1] / best);
    qn_forked_server_stop(server);
    for (int32_t i = 0; i < CALLERS; i++) qn_http_client_destroy(l.callers[i].client);
    event_free(l.timer);
    event_base_free(l.base);
    free(l.callers);
    free(l.refusals);
    return failed + dropped > 0;
}
