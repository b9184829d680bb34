// SPDX-License-Identifier: Apache-2.0
// Requests to a running engine: each kind of request, several at a time, preempted, forked, cancelled.
#include "base/checked.h"
#include "base/os.h"
#include "cpu/cpu_backend.h"
#include "engine/engine.h"
#include "engine/prompt.h"
#include "tests/faults/faults.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEMO QN_SOURCE_DIR "/models/quern-demo-q8_0.gguf"

enum { MAX_REQUESTS = 8, PROMPT = 20 };

static qn_engine *caching, *plain; // with a prefix cache, and without
static qn_mailbox mailbox;

typedef struct load {
    qn_engine **engine;
    int32_t n;
    qn_request request; // the prompt and what differs from one to the next are filled in
    bool fork;          // all have the first one's prompt, and share its KV
    int32_t cancel_after; // tokens; 0: not
} load;

static uint64_t hash_events(uint64_t h, const qn_token_event *e, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &e[i].logprob, sizeof bits);
        h = (h ^ (uint64_t)(uint32_t)e[i].id) * UINT64_C(0x100000001B3);
        h = (h ^ bits) * UINT64_C(0x100000001B3);
        for (int32_t k = 0; k < e[i].n_top; k++) {
            h = (h ^ (uint64_t)(uint32_t)e[i].top_ids[k]) * UINT64_C(0x100000001B3);
        }
    }
    return h;
}

// Reads one request to its end.
static faults_result finish(const faults_scenario *s, qn_engine *e, uint64_t handle, size_t i,
                            qn_error *err) {
    const load *l = s->user;
    static qn_token_event events[16];
    uint64_t h = 0xcbf29ce484222325;
    int32_t got = 0;
    for (;;) {
        qn_request_state state;
        size_t n;
        if (qn_engine_read(e, handle, events, 16, &n, &state) != QN_OK) {
            return faults_wrong(err, "the engine lost the request");
        }
        h = hash_events(h, events, n);
        got += (int32_t)n;
        if (l->cancel_after && got >= l->cancel_after) qn_engine_cancel(e, handle);
        if (state.outcome == QN_DONE_ERROR) {
            qn_fail(err, state.error.status, "%s", state.error.message);
            return FAULTS_FAILED;
        }
        if (l->cancel_after && state.outcome != QN_RUNNING) return FAULTS_DONE;
        if (state.outcome == QN_DONE_ABORT) return faults_wrong(err, "aborted by nobody");
        if (state.outcome != QN_RUNNING) return faults_same(s, i, h, err);
        if (n < 16) {
            struct pollfd fd = {mailbox.wakeup.fd, POLLIN, 0};
            uint64_t ready;
            poll(&fd, 1, 10);
            while (qn_mailbox_take(&mailbox, &ready)) {
            }
        }
    }
}

static faults_result run_load(const faults_scenario *s, qn_error *err) {
    const load *l = s->user;
    qn_engine *e = *l->engine;
    uint64_t handles[MAX_REQUESTS] = {0};
    faults_result result = FAULTS_DONE;
    for (int32_t i = 0; i < l->n; i++) {
        int32_t prompt[PROMPT];
        for (int32_t k = 0; k < PROMPT; k++) prompt[k] = 300 + k + (l->fork ? 0 : 7 * i);
        qn_request r = l->request;
        r.prompt = prompt;
        r.n_prompt = PROMPT;
        r.choice = i;
        r.has_seed = true;
        r.seed = (uint64_t)i;
        if (l->fork && i > 0) r.fork_of = handles[0];
        qn_error why = {0};
        qn_status st = qn_engine_submit(e, &r, &mailbox, &handles[i], &why);
        if (st == QN_OK) continue;
        qn_fail(err, st, "%s", why.message);
        result = FAULTS_FAILED;
        handles[i] = 0;
    }
    // Who could be submitted is answered, whatever became of the others.
    for (int32_t i = 0; i < l->n; i++) {
        if (!handles[i]) continue;
        qn_error why = {0};
        faults_result r = finish(s, e, handles[i], (size_t)i, &why);
        if (r == FAULTS_FAILED && result == FAULTS_DONE) qn_fail(err, why.status, "%s", why.message);
        if (r == FAULTS_WRONG) return faults_wrong(err, "%s", why.message);
        if (r == FAULTS_FAILED) result = r;
        qn_engine_release(e, handles[i]);
    }
    return result;
}

// Nothing runs, nothing waits, no block is in use.
static bool settle(const faults_scenario *s, qn_error *err) {
    const load *l = s->user;
    qn_engine *e = l ? *l->engine : plain;
    qn_engine_stats stats;
    for (int i = 0; i < 5000; i++) {
        qn_engine_get_stats(e, &stats);
        if (!stats.has_work && stats.running == 0 && stats.waiting == 0 && !(stats.kv_usage > 0)) {
            return true;
        }
        usleep(i < 100 ? 50 : 1000);
    }
    qn_fail(err, QN_ERR_INTERNAL, "%d run, %d wait, KV use %g", stats.running, stats.waiting,
            stats.kv_usage);
    return false;
}

static void on_row(void *user, int32_t index, const float *logits) {
    uint64_t *h = user;
    uint32_t bits;
    (void)index;
    memcpy(&bits, &logits[5], sizeof bits);
    *h = (*h ^ bits) * UINT64_C(0x100000001B3);
}

static faults_result run_logits(const faults_scenario *s, qn_error *err) {
    const int32_t ids[] = {300, 301, 302, 303, 304};
    uint64_t h = 1;
    qn_status st = qn_engine_logits(plain, ids, 5, 2, on_row, &h, err);
    return st == QN_OK ? faults_same(s, 0, h, err) : FAULTS_FAILED;
}

static faults_result run_mailbox(const faults_scenario *s, qn_error *err) {
    qn_mailbox m;
    (void)s;
    if (qn_mailbox_open(&m, 64, err) != QN_OK) {
        return m.ready ? faults_wrong(err, "a mailbox that failed to open has a queue")
                       : FAULTS_FAILED;
    }
    qn_mailbox_close(&m);
    return FAULTS_DONE;
}

// A conversation to token ids; "continue": the last message goes on.
static faults_result run_prompt(const faults_scenario *s, qn_error *err) {
    const bool goes_on = s->user != NULL;
    const qn_engine_info *info = qn_engine_get_info(caching);
    inject_count_thread(false); // the conversation is the caller's
    json_t *v = json_pack("{s:[{s:s,s:s},{s:s,s:s}],s:b}", "messages", "role", "user", "content",
                          "what is a quern?", "role", "assistant", "content", "A hand mill",
                          "add_generation_prompt", !goes_on);
    inject_count_thread(true);
    qn_ids ids = {0};
    qn_buf text = {0};
    qn_status st = goes_on ? qn_prompt_continue_chat(info, v, 1000, &ids, &text, err)
                           : qn_prompt_from_chat(info, v, 1000, &ids, &text, err);
    uint64_t h = ids.len;
    for (size_t i = 0; i < ids.len; i++) h = (h ^ (uint64_t)ids.data[i]) * UINT64_C(0x100000001B3);
    qn_ids_free(&ids);
    qn_buf_free(&text);
    json_decref(v);
    return st == QN_OK ? faults_same(s, 0, h, err) : FAULTS_FAILED;
}

static bool prompt_settled(const faults_scenario *s, qn_error *err) {
    (void)s;
    (void)err;
    return true;
}

static qn_engine *open_engine(bool prefix_caching) {
    const qn_engine_options o = {.backend = &qn_cpu_backend, .backend_options = {.threads = 1},
                                 .max_num_seqs = 4, .max_num_queued_reqs = 16,
                                 .max_model_len = 128, .num_blocks_override = 12,
                                 .no_prefix_caching = !prefix_caching, .kv_dtype = QN_KV_F16};
    qn_engine *e;
    qn_error err = {0};
    if (qn_engine_open(DEMO, &o, &e, &err) == QN_OK) return e;
    fprintf(stderr, "%s\n", err.message);
    exit(1);
}

int main(int argc, char **argv) {
    inject_init();
    caching = open_engine(true);
    plain = open_engine(false);
    if (qn_mailbox_open(&mailbox, 64, NULL) != QN_OK) return 1;
    static const int32_t ids[] = {40, 41, 42, 43}, lens[] = {2, 1};
    static const float biases[] = {-1, 2, 3};
#define BASE .top_p = 1, .n_logprobs = -1, .ignore_eos = true
    static const load greedy = {&caching, 1, {BASE, .max_tokens = 3}, false, 0};
    static const load sampled = {
        &caching, 2, {.temperature = 1, .top_p = 0.9f, .top_k = 40, .min_p = 0.01f, .n_logprobs = 5,
                      .max_tokens = 5, .min_tokens = 3, .stop_ids = ids, .n_stop_ids = 3,
                      .cache_salt = "salt", .cache_salt_len = 4, .priority = 2},
        false, 0};
    static const load fields = {
        &caching, 2, {BASE, .temperature = 0.7f, .repetition_penalty = 1.2f, .presence_penalty = 0.5f,
                      .frequency_penalty = 0.1f, .bias_ids = ids, .biases = biases, .n_biases = 3,
                      .bad_word_ids = ids, .bad_word_lens = lens, .n_bad_words = 2, .max_tokens = 5},
        false, 0};
    static const load allowed = {
        &plain, 1, {BASE, .allowed_ids = ids, .n_allowed_ids = 4, .max_tokens = 3, .min_tokens = 2,
                    .skip_cache_read = true}, false, 0};
    static const load scored = {
        &caching, 2, {BASE, .max_tokens = 3, .prompt_logprobs = true, .n_prompt_logprobs = 3}, false, 0};
    static const load forks = {&caching, 3, {BASE, .temperature = 1, .max_tokens = 8}, true, 0};
    static const load waiting = {&plain, 6, {BASE, .max_tokens = 4}, false, 0};
    static const load preempted = {&plain, 4, {BASE, .max_tokens = 44}, false, 0};
    static const load preempted_cached = {&caching, 4, {BASE, .max_tokens = 44}, false, 0};
    static const load preempted_penalties = {
        &plain, 4, {BASE, .max_tokens = 44, .repetition_penalty = 1.1f}, false, 0};
    static const load cancelled = {&caching, 2, {BASE, .max_tokens = 100}, false, 4};
    static const faults_scenario scenarios[] = {
        {.name = "request_greedy", .user = &greedy, .run = run_load, .settle = settle, .lasting = true},
        {.name = "request_sampled", .user = &sampled, .run = run_load, .settle = settle, .lasting = true},
        {.name = "request_fields", .user = &fields, .run = run_load, .settle = settle, .lasting = true},
        {.name = "request_allowed", .user = &allowed, .run = run_load, .settle = settle, .lasting = true},
        {.name = "request_scored", .user = &scored, .run = run_load, .settle = settle, .lasting = true},
        {.name = "request_forks", .user = &forks, .run = run_load, .settle = settle, .lasting = true},
        {.name = "request_waiting", .user = &waiting, .run = run_load, .settle = settle, .lasting = true},
        {.name = "preempted", .user = &preempted, .run = run_load, .settle = settle, .lasting = true},
        {.name = "preempted_cached", .user = &preempted_cached, .run = run_load, .settle = settle,
         .lasting = true},
        {.name = "preempted_penalties", .user = &preempted_penalties, .run = run_load,
         .settle = settle, .lasting = true},
        {.name = "cancelled", .user = &cancelled, .run = run_load, .settle = settle, .lasting = true},
        {.name = "logits", .run = run_logits, .settle = settle, .lasting = true},
        {.name = "mailbox", .run = run_mailbox},
        {.name = "prompt_chat", .run = run_prompt, .settle = prompt_settled, .lasting = true},
        {.name = "prompt_continue", .user = "", .run = run_prompt, .settle = prompt_settled,
         .lasting = true},
    };
    int rc = faults_main(argc, argv, scenarios, QN_COUNT(scenarios));
    qn_engine_stats stats[2];
    qn_engine_get_stats(caching, &stats[0]);
    qn_engine_get_stats(plain, &stats[1]);
    printf("%llu and %llu preemptions\n", (unsigned long long)stats[0].preemptions,
           (unsigned long long)stats[1].preemptions);
    if (argc == 1 && (stats[0].preemptions == 0 || stats[1].preemptions == 0)) rc = 1;
    qn_engine_close(caching);
    qn_engine_close(plain);
    qn_mailbox_close(&mailbox);
    return rc;
}
