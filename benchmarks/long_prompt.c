// SPDX-License-Identifier: Apache-2.0
// What a long prompt does to streams that run, and they to it: the engine alone, without HTTP.
//
//   long_prompt MODEL [STREAMS [PROMPT [ROUNDS [SLOWDOWN]]]]      8 streams, 8000 tokens, 5 rounds
//
// Each round: the prompt alone (time to its first token); the prompt among the streams (that, and the
// time between the streams' tokens); the same streams from their beginning for as many tokens without
// the prompt, because they take longer the longer they are. The prefix cache is off. Prints JSON:
// medians over the rounds of each figure and of the two ratios. SLOWDOWN: --max-decode-slowdown.
#include "base/checked.h"
#include "base/os.h"
#include "cpu/cpu_backend.h"
#include "engine/engine.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_STREAMS = 64, STREAM_PROMPT = 512, MAX_GAPS = 1 << 20, MAX_ROUNDS = 99 };

typedef struct bench {
    qn_engine *engine;
    qn_mailbox box;
    int32_t n_streams, n_prompt;
    int32_t *tokens; // [n_prompt]
    uint64_t rng;
    uint64_t streams[MAX_STREAMS];
    double last[MAX_STREAMS];
    double *gaps;
    size_t n_gaps;
} bench;

static double now(void) { return (double)qn_os_now_ns() * 1e-9; }

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double percentile(double *v, size_t n, double p) {
    if (n == 0) return 0;
    qsort(v, n, sizeof *v, by_size);
    return v[QN_MIN(n - 1, (size_t)(p * (double)n))];
}

static uint64_t submit(bench *b, int32_t n_prompt, int32_t max_tokens) {
    const int32_t vocab = qn_engine_get_info(b->engine)->vocab_size;
    for (int32_t i = 0; i < n_prompt; i++) { // a new prompt each time
        b->rng = b->rng * 6364136223846793005u + 1442695040888963407u;
        b->tokens[i] = (int32_t)((b->rng >> 33) % (uint64_t)vocab);
    }
    const qn_request q = {.prompt = b->tokens, .n_prompt = n_prompt, .max_tokens = max_tokens,
                          .ignore_eos = true, .top_p = 1, .n_logprobs = -1};
    uint64_t handle = 0;
    qn_error err = {0};
    if (qn_engine_submit(b->engine, &q, &b->box, &handle, &err) != QN_OK) {
        fprintf(stderr, "long_prompt: %s\n", err.message);
        exit(1);
    }
    return handle;
}

// Reads what is there; notes the streams' times. True: the handle `until` has a token.
static bool take(bench *b, uint64_t until, bool count) {
    struct pollfd p = {.fd = b->box.wakeup.fd, .events = POLLIN};
    poll(&p, 1, 100);
    uint64_t handle;
    bool reached = false;
    while (qn_mailbox_take(&b->box, &handle)) {
        qn_token_event events[64];
        qn_request_state state;
        size_t n = 0;
        if (qn_engine_read(b->engine, handle, events, 64, &n, &state) != QN_OK) continue;
        const double t = now();
        if (state.outcome == QN_DONE_ERROR || state.outcome == QN_DONE_ABORT) {
            fprintf(stderr, "long_prompt: %s\n", state.error.message);
            exit(1);
        }
        for (int32_t i = 0; i < b->n_streams; i++) {
            if (b->streams[i] != handle) continue;
            for (size_t k = 0; k < n; k++) {
                if (count && b->last[i] > 0 && b->n_gaps < MAX_GAPS) {
                    b->gaps[b->n_gaps++] = t - b->last[i];
                }
                b->last[i] = t;
            }
        }
        reached |= handle == until && n > 0;
    }
    return reached;
}

static double first_token(bench *b) {
    const double begun = now();
    const uint64_t handle = submit(b, b->n_prompt, 1);
    while (!take(b, handle, true)) continue;
    const double seconds = now() - begun;
    qn_engine_release(b->engine, handle);
    return seconds;
}

// All run, and the step-time model has seen them.
static void start_streams(bench *b, int32_t tokens) {
    for (int32_t i = 0; i < b->n_streams; i++) {
        b->last[i] = 0;
        b->streams[i] = submit(b, STREAM_PROMPT, tokens);
    }
    for (bool all = false; !all;) {
        take(b, 0, false);
        all = true;
        for (int32_t i = 0; i < b->n_streams; i++) all = all && b->last[i] > 0;
    }
    for (double until = now() + 1; now() < until;) take(b, 0, false);
    b->n_gaps = 0;
}

static void stop_streams(bench *b) {
    for (int32_t i = 0; i < b->n_streams; i++) {
        qn_engine_release(b->engine, b->streams[i]);
        b->streams[i] = 0;
    }
}

static double median(double *v, int32_t n) { return percentile(v, (size_t)n, 0.5); }

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "usage: long_prompt MODEL [STREAMS [PROMPT [ROUNDS [SLOWDOWN]]]]\n");
        return 2;
    }
    bench b = {.n_streams = argc > 2 ? atoi(argv[2]) : 8, .n_prompt = argc > 3 ? atoi(argv[3]) : 8000,
               .rng = 1};
    const int32_t rounds = argc > 4 ? atoi(argv[4]) : 5;
    const double slowdown = argc > 5 ? atof(argv[5]) : QN_DEFAULT_DECODE_SLOWDOWN;
    if (b.n_streams < 1 || b.n_streams > MAX_STREAMS || b.n_prompt < 2 || rounds < 1 ||
        rounds > MAX_ROUNDS) {
        fprintf(stderr, "long_prompt: at most %d streams and %d rounds\n", MAX_STREAMS, MAX_ROUNDS);
        return 2;
    }
    const int32_t room = 4096; // tokens of a stream
    const qn_engine_options options = {
        .backend = &qn_cpu_backend,
        .no_prefix_caching = true,
        .kv_dtype = QN_KV_F16,
        .max_model_len = QN_MAX(b.n_prompt, STREAM_PROMPT + room) + 16,
        .num_blocks_override = (b.n_prompt + b.n_streams * (STREAM_PROMPT + room)) / 16 + 64,
        .max_decode_slowdown = slowdown > 0 ? slowdown : -1,
    };
    qn_error err = {0};
    if (qn_engine_open(argv[1], &options, &b.engine, &err) != QN_OK ||
        qn_mailbox_open(&b.box, MAX_STREAMS + 1, &err) != QN_OK) {
        fprintf(stderr, "long_prompt: %s\n", err.message);
        return 1;
    }
    b.tokens = calloc((size_t)QN_MAX(b.n_prompt, STREAM_PROMPT), sizeof *b.tokens);
    b.gaps = calloc(MAX_GAPS, sizeof *b.gaps);
    if (!b.tokens || !b.gaps) return 1;
    double alone[MAX_ROUNDS], among[MAX_ROUNDS], before[2][MAX_ROUNDS], during[2][MAX_ROUNDS];
    double slower[MAX_ROUNDS], later[MAX_ROUNDS], most = 0;
    for (int32_t r = 0; r < rounds; r++) {
        alone[r] = first_token(&b);
        start_streams(&b, room);
        among[r] = first_token(&b);
        const size_t n = b.n_gaps;
        during[0][r] = percentile(b.gaps, n, 0.5);
        during[1][r] = percentile(b.gaps, n, 0.99);
        if (n > 0) most = QN_MAX(most, b.gaps[n - 1]);
        stop_streams(&b);
        start_streams(&b, room);
        while (b.n_gaps < n) take(&b, 0, true);
        before[0][r] = percentile(b.gaps, b.n_gaps, 0.5);
        before[1][r] = percentile(b.gaps, b.n_gaps, 0.99);
        stop_streams(&b);
        slower[r] = during[1][r] / before[1][r];
        later[r] = among[r] / alone[r];
        fprintf(stderr, "round %d of %d: p99 %.1f -> %.1f ms, x%.2f (goal 2); first token %.2f -> "
                "%.2f s, x%.2f (goal 2.5)\n", r + 1, rounds, before[1][r] * 1e3, during[1][r] * 1e3,
                slower[r], alone[r], among[r], later[r]);
    }
    printf("{\"streams\": %d, \"prompt\": %d, \"rounds\": %d, \"max_decode_slowdown\": %g,\n"
           " \"inter_token_ms\": {\"alone\": {\"p50\": %.2f, \"p99\": %.2f}, \"beside\": {\"p50\": "
           "%.2f, \"p99\": %.2f, \"max\": %.2f}, \"p99_ratio\": %.3f},\n"
           " \"first_token_s\": {\"alone\": %.3f, \"beside\": %.3f, \"ratio\": %.3f}}\n",
           b.n_streams, b.n_prompt, rounds, slowdown, median(before[0], rounds) * 1e3,
           median(before[1], rounds) * 1e3, median(during[0], rounds) * 1e3,
           median(during[1], rounds) * 1e3, most * 1e3, median(slower, rounds),
           median(alone, rounds), median(among, rounds), median(later, rounds));
    qn_engine_close(b.engine);
    qn_mailbox_close(&b.box);
    free(b.tokens);
    free(b.gaps);
    return 0;
}
