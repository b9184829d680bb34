// SPDX-License-Identifier: Apache-2.0
#include "server/prepare.h"

#include <stdlib.h>

qn_job *qn_job_create(qn_job_kind kind, qn_buf *body) {
    qn_job *job = calloc(1, sizeof *job);
    if (!job) {
        qn_buf_free(body);
        return NULL;
    }
    job->kind = kind;
    job->body = *body;
    *body = (qn_buf){0};
    return job;
}

void qn_job_destroy(qn_job *job) {
    if (!job) return;
    qn_buf_free(&job->body);
    qn_gen_request_free(job->request);
    qn_ids_free(&job->ids);
    free(job->ends);
    qn_buf_free(&job->answer);
    free(job);
}

static bool out_of_memory(qn_api_error *err) { return qn_api_fail(err, 503, NULL, "out of memory"); }

static bool generate(struct qn_server *s, qn_job *job, const char *body, size_t len) {
    job->request =
        qn_gen_request_parse(&s->limits, job->kind == QN_JOB_CHAT, body, len, &job->err);
    if (!job->request) return false;
    qn_gen_request *r = job->request;
    job->model = qn_server_model(s, r->model, &job->err);
    if (!job->model) return false;
    if (!qn_bad_words_build(s->info, r, &job->err)) return false;
    job->ends = calloc(r->n_prompts, sizeof *job->ends);
    if (!job->ends) return out_of_memory(&job->err);
    for (size_t i = 0; i < r->n_prompts; i++) {
        if (!qn_prompt_build(s->info, r, i, &job->ids, &job->err)) return false;
        job->ends[i] = job->ids.len;
    }
    return qn_echo_build(s->info, r, &job->ids, job->ends, &job->err);
}

static bool tokenize(struct qn_server *s, qn_job *job, const char *body, size_t len) {
    qn_tokenize_request r = {0};
    qn_error e = {0};
    // More text than the context holds may be counted, but not without end.
    enum { MOST = 4 << 20 };
    bool ok = qn_tokenize_request_parse(&s->limits, body, len, &r, &job->err) &&
              qn_server_model(s, r.model, &job->err);
    if (ok && r.chat) {
        ok = qn_prompt_build(s->info, r.chat, 0, &job->ids, &job->err);
    } else if (ok && qn_tokenize(s->info->tokenizer, r.prompt, r.len, NULL, 0,
                                 r.add_special_tokens, MOST, &job->ids, &e) != QN_OK) {
        ok = qn_api_fail_status(&job->err, &e, "prompt");
    }
    if (ok) {
        qn_buf *b = &job->answer, piece = {0};
        const qn_ids *ids = &job->ids;
        qn_buf_printf(b, "{\"count\":%zu,\"max_model_len\":%d,\"tokens\":[", ids->len,
                      s->info->max_model_len);
        for (size_t i = 0; i < ids->len; i++) qn_buf_printf(b, i ? ",%d" : "%d", ids->data[i]);
        qn_buf_puts(b, "],\"token_strs\":");
        for (size_t i = 0; r.return_token_strs && i < ids->len; i++) {
            qn_buf_putc(b, i ? ',' : '[');
            qn_buf_clear(&piece);
            if (!qn_token_bytes(s->info->tokenizer, ids->data[i], true, &piece)) b->failed = true;
            qn_buf_json_string(b, piece.data ? piece.data : "", piece.len);
        }
        qn_buf_puts(b, !r.return_token_strs ? "null}" : ids->len ? "]}" : "[]}");
        if (b->failed || piece.failed) ok = out_of_memory(&job->err);
        qn_buf_free(&piece);
    }
    qn_tokenize_request_free(&r);
    return ok;
}

static bool detokenize(struct qn_server *s, qn_job *job, const char *body, size_t len) {
    qn_detokenize_request r = {0};
    bool ok = qn_detokenize_request_parse(&s->limits, body, len, &r, &job->err) &&
              qn_server_model(s, r.model, &job->err);
    if (ok) {
        qn_detok d;
        qn_buf text = {0}, *b = &job->answer;
        qn_detok_init(&d, s->info->tokenizer, true, true);
        for (size_t i = 0; ok && i < r.n_ids; i++) ok = qn_detok_push(&d, r.ids[i], &text);
        ok = ok && qn_detok_flush(&d, &text);
        qn_buf_puts(b, "{\"prompt\":");
        qn_buf_json_string(b, text.data ? text.data : "", text.len);
        qn_buf_putc(b, '}');
        if (!ok || text.failed || b->failed) ok = out_of_memory(&job->err);
        qn_buf_free(&text);
    }
    qn_detokenize_request_free(&r);
    return ok;
}

void qn_job_run(void *server, qn_job *job) {
    struct qn_server *s = server;
    const char *body = job->body.data ? job->body.data : "";
    switch (job->kind) {
    case QN_JOB_CHAT:
    case QN_JOB_COMPLETION:
        generate(s, job, body, job->body.len);
        break;
    case QN_JOB_TOKENIZE:
        tokenize(s, job, body, job->body.len);
        break;
    case QN_JOB_DETOKENIZE:
        detokenize(s, job, body, job->body.len);
        break;
    }
    qn_buf_free(&job->body);
}
