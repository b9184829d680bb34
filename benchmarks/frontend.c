// SPDX-License-Identifier: Apache-2.0
// The front end alone: the real server and engine over a backend without arithmetic, in a process of
// its own on one CPU (all of its threads, the engine's too), and a client on the others.
//
//   frontend MODEL [ROUNDS [SECONDS]]
//
// Prints JSON: streamed tokens a second to 256 connections as fast as it goes (and the chunks they came
// in: what is ready together is sent together), the same with steps of 2 ms, which is 128,000 tokens a
// second at most, so that each token can have a chunk of its own; short requests a second on 64
// connections; and how long a refusal takes when ten times as many requests come as the server holds.
// Rounds of the four are interleaved; the first is not counted.
#include "base/checked.h"
#include "base/os.h"
#include "benchmarks/forked_server.h"
#include "http/client.h"
#include "tests/support/fake_backend.h"

#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STREAM_TOKENS = 256, STREAMS = 256, SHORTS = 64, OVERLOAD = 640, MAX_SAMPLES = 1 << 20 };

typedef struct load {
    struct event_base *base;
    uint16_t port;
    const char *body;
    uint64_t until_ns;
    size_t done, refused, failed, active, events;
    double *refusals; // seconds
} load;

typedef struct caller {
    load *load;
    qn_http_client *client;
    uint64_t begun_ns;
    int status;
} caller;

static pid_t start_server(const char *model, qn_fake_options fake, int32_t seqs, int32_t queued,
                          uint16_t *port) {
    qn_fake_backend_set(fake); // the child's: it is forked with it
    const qn_engine_options eo = {.backend = &qn_fake_backend_lookahead, .max_num_seqs = seqs,
                                  .max_num_batched_tokens = 4096, .max_model_len = 512,
                                  .num_blocks_override = seqs * 40};
    return qn_forked_server(model, &eo, queued, 0, port);
}

// ---------------------------------------------------------------- the client

static void on_head(void *user, const qn_http_head *head) { ((caller *)user)->status = head->status; }

static void on_event(void *user, qn_str name, qn_str data) {
    (void)name;
    (void)data;
    ((caller *)user)->load->events++;
}

static void call(caller *c);

static void on_done(void *user, const qn_error *error) {
    caller *c = user;
    load *l = c->load;
    uint64_t now = qn_os_now_ns();
    if (error) l->failed++;
    else if (c->status == 200) l->done++;
    else if (c->status == 503 && l->refused < MAX_SAMPLES) {
        l->refusals[l->refused++] = (double)(now - c->begun_ns) * 1e-9;
    } else l->failed++;
    if (now < l->until_ns) call(c);
    else if (--l->active == 0) event_base_loopbreak(l->base);
}

static void call(caller *c) {
    const qn_http_call k = {.method = "POST", .path = "/v1/completions",
                            .content_type = "application/json", .body = c->load->body,
                            .len = strlen(c->load->body), .user = c, .on_head = on_head, .on_event = on_event,
                            .on_done = on_done};
    c->status = 0;
    c->begun_ns = qn_os_now_ns();
    if (qn_http_client_send(c->client, &k, NULL) != QN_OK) c->load->failed++;
}

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Answers a second; for refusals see l.
static double run(load *l, size_t callers, double seconds) {
    caller *c = calloc(callers, sizeof *c);
    qn_url url = {.port = l->port, .host = "127.0.0.1", .path = "/"};
    l->base = event_base_new();
    l->done = l->refused = l->failed = l->events = 0;
    l->active = callers;
    if (!c || !l->base) exit(1);
    uint64_t begin = qn_os_now_ns();
    l->until_ns = begin + (uint64_t)(seconds * 1e9);
    for (size_t i = 0; i < callers; i++) {
        c[i].load = l;
        if (qn_http_client_create(l->base, &url, &c[i].client, NULL) != QN_OK) exit(1);
        call(&c[i]);
    }
    event_base_dispatch(l->base);
    double took = (double)(qn_os_now_ns() - begin) * 1e-9;
    for (size_t i = 0; i < callers; i++) qn_http_client_destroy(c[i].client);
    event_base_free(l->base);
    free(c);
    return (double)l->done / took;
}

static double median(double *v, size_t n) {
    qsort(v, n, sizeof *v, compare);
    return v[n / 2];
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: frontend MODEL [ROUNDS [SECONDS]]\n");
        return 2;
    }
    size_t rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : 5;
    double seconds = argc > 3 ? strtod(argv[3], NULL) : 3;
    rounds = QN_MAX((size_t)1, QN_MIN(rounds, (size_t)100));
    signal(SIGPIPE, SIG_IGN);
    uint16_t ports[3] = {0, 0, 0};
    pid_t fast = start_server(argv[1], (qn_fake_options){0}, 256, 1024, &ports[0]);
    // 32 run and 32 wait: 640 callers are ten times as many.
    pid_t slow = start_server(argv[1], (qn_fake_options){.step_seconds = 0.005}, 32, 32, &ports[1]);
    pid_t paced = start_server(argv[1], (qn_fake_options){.step_seconds = 0.002}, 256, 1024, &ports[2]);
    if (fast < 0 || slow < 0 || paced < 0) return 1;
    qn_pin(0, true);
    static double results[7][101];
    char stream[200], brief[200];
    snprintf(stream, sizeof stream,
             "{\"prompt\":\"one two three\",\"max_tokens\":%d,\"ignore_eos\":true,\"stream\":true}",
             STREAM_TOKENS);
    snprintf(brief, sizeof brief, "{\"prompt\":\"one two three\",\"max_tokens\":1,\"ignore_eos\":true}");
    load l = {.refusals = malloc(MAX_SAMPLES * sizeof(double))};
    if (!l.refusals) return 1;
    size_t failed = 0;
    for (size_t r = 0; r <= rounds; r++) {
        l.port = ports[0];
        l.body = stream;
        double streams = run(&l, STREAMS, seconds);
        results[0][r] = streams * STREAM_TOKENS;
        results[4][r] = l.done ? streams * (double)l.events / (double)l.done : 0;
        failed += l.failed;
        l.port = ports[2];
        streams = run(&l, STREAMS, seconds);
        results[5][r] = streams * STREAM_TOKENS;
        results[6][r] = l.done ? streams * (double)l.events / (double)l.done : 0;
        failed += l.failed;
        l.port = ports[0];
        l.body = brief;
        results[1][r] = run(&l, SHORTS, seconds);
        failed += l.failed;
        l.port = ports[1];
        l.body = "{\"prompt\":\"one two three\",\"max_tokens\":64,\"ignore_eos\":true}";
        run(&l, OVERLOAD, seconds);
        failed += l.failed;
        qsort(l.refusals, l.refused, sizeof(double), compare);
        results[2][r] = l.refused ? l.refusals[l.refused * 99 / 100] : 0;
        results[3][r] = (double)l.refused;
    }
    qn_forked_server_stop(fast);
    qn_forked_server_stop(slow);
    qn_forked_server_stop(paced);
    free(l.refusals);
    const char *const names[] = {"streamed_tokens_per_s", "short_requests_per_s", "refusal_p99_s",
                                 "refusals", "streamed_chunks_per_s", "paced_tokens_per_s",
                                 "paced_chunks_per_s"};
    printf("{\"rounds\": %zu, \"seconds\": %g, \"failed\": %zu", rounds, seconds, failed);
    for (size_t i = 0; i < QN_COUNT(names); i++) {
        printf(", \"%s\": %.6g", names[i], median(results[i] + 1, rounds));
    }
    printf("}\n");
    return failed != 0;
}
