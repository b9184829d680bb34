// SPDX-License-Identifier: Apache-2.0
#include "cli/local.h"

#include "base/os.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

// The one piece of state that a signal handler can reach.
static volatile sig_atomic_t interrupted;

static void on_interrupt(int signal_number) {
    (void)signal_number;
    interrupted = 1;
}

void qn_print_text(void *unused, const char *text, size_t len) {
    (void)unused;
    qn_buf shown = {0};
    if (qn_buf_visible(&shown, text, len, true) && shown.len) {
        fwrite(shown.data, 1, shown.len, stdout);
        fflush(stdout);
    }
    qn_buf_free(&shown);
}

void qn_local_result_free(qn_local_result *r) {
    qn_ids_free(&r->ids);
    qn_buf_free(&r->text);
    free(r->logprobs);
    *r = (qn_local_result){0};
}

typedef struct reader {
    qn_engine *engine;
    qn_local_result *out;
    qn_detok detok;
    void (*on_text)(void *user, const char *text, size_t len);
    void *user;
    double started;
    bool keep_logprobs;
    size_t cap_logprobs;
} reader;

static bool take(reader *r, const qn_token_event *ev, bool is_stop) {
    qn_local_result *out = r->out;
    if (out->ids.len == 0) {
        out->first_token_seconds = (double)qn_os_now_ns() * 1e-9 - r->started;
    }
    if (r->keep_logprobs) {
        if (!qn_grow(&out->logprobs, &r->cap_logprobs, out->ids.len + 1, sizeof(float))) return false;
        out->logprobs[out->ids.len] = ev->logprob;
    }
    if (!qn_ids_push(&out->ids, ev->id)) return false;
    size_t before = out->text.len;
    if (is_stop && !r->detok.special) return true;
    if (!qn_detok_push(&r->detok, ev->id, &out->text)) return false;
    if (r->on_text && out->text.len > before) {
        r->on_text(r->user, out->text.data + before, out->text.len - before);
    }
    return true;
}

// Reads all there is; true: over.
static bool drain(reader *r, uint64_t handle, qn_status *st, qn_error *err) {
    qn_token_event events[16];
    size_t n;
    do {
        *st = qn_engine_read(r->engine, handle, events, 16, &n, &r->out->state);
        bool over = *st == QN_OK && r->out->state.outcome != QN_RUNNING;
        for (size_t i = 0; i < n; i++) {
            bool is_stop = over && r->out->state.outcome == QN_DONE_STOP && i + 1 == n;
            if (!take(r, &events[i], is_stop)) {
                *st = qn_fail(err, QN_ERR_NOMEM, "out of memory");
                return true;
            }
        }
        if (over || *st != QN_OK) return true;
    } while (n == 16);
    return false;
}

qn_status qn_local_run(qn_engine *e, const qn_request *request, bool special, bool at_start,
                       void (*on_text)(void *user, const char *text, size_t len), void *user,
                       qn_local_result *out, qn_error *err) {
    *out = (qn_local_result){0};
    reader r = {.engine = e, .out = out, .on_text = on_text, .user = user,
                .keep_logprobs = request->n_logprobs >= 0};
    qn_detok_init(&r.detok, qn_engine_get_info(e)->tokenizer, special, at_start);
    qn_mailbox mailbox;
    qn_status st = qn_mailbox_open(&mailbox, 4, err);
    if (st != QN_OK) return st;
    struct sigaction action = {.sa_handler = on_interrupt}, old;
    interrupted = 0;
    sigaction(SIGINT, &action, &old);

    uint64_t handle = 0, ready;
    r.started = (double)qn_os_now_ns() * 1e-9;
    st = qn_engine_submit(e, request, &mailbox, &handle, err);
    for (bool over = st != QN_OK; !over;) {
        struct pollfd p = {.fd = mailbox.wakeup.fd, .events = POLLIN};
        poll(&p, 1, -1);
        if (interrupted && !out->interrupted) {
            out->interrupted = true;
            qn_engine_cancel(e, handle);
        }
        while (!over && qn_mailbox_take(&mailbox, &ready)) over = drain(&r, handle, &st, err);
    }
    if (handle) qn_engine_release(e, handle);
    qn_mailbox_close(&mailbox);
    sigaction(SIGINT, &old, NULL);
    out->total_seconds = (double)qn_os_now_ns() * 1e-9 - r.started;
    if (st == QN_OK) {
        size_t before = out->text.len;
        qn_detok_flush(&r.detok, &out->text);
        if (on_text && out->text.len > before) {
            on_text(user, out->text.data + before, out->text.len - before);
        }
        if (out->state.outcome == QN_DONE_ERROR) {
            st = qn_fail(err, out->state.error.status, "%s", out->state.error.message);
        }
    }
    return st;
}
