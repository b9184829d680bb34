// SPDX-License-Identifier: Apache-2.0
#include "cpu/cpu_backend.h"

#include "base/checked.h"
#include "base/os.h"
#include "cpu/executable.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_THREADS = 1024 };

static void cpu_close(qn_backend *b) {
    if (!b) return;
    pool_destroy(b->pool);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

static qn_status cpu_open(const qn_backend_options *options, qn_backend **out, qn_error *err) {
    *out = NULL;
    const cpu_kernels *kernels = qn_cpu_kernels_find(options->isa);
    if (!kernels) {
        return qn_fail(err, QN_ERR_UNSUPPORTED,
                       "instruction set \"%s\" is unknown or this machine lacks it", options->isa);
    }
    const int32_t threads = options->threads ? options->threads : qn_os_cpu_count();
    if (threads < 1 || threads > MAX_THREADS) {
        return qn_fail(err, QN_ERR_INVALID, "threads must be between 1 and %d", MAX_THREADS);
    }
    qn_backend *b = calloc(1, sizeof *b);
    if (!b) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    b->kernels = kernels;
    b->log = options->log;
    pthread_mutex_init(&b->lock, NULL);
    qn_status st = pool_create(threads, &b->pool, err);
    if (st != QN_OK) {
        cpu_close(b);
        return st;
    }
    *out = b;
    return QN_OK;
}

static void cpu_describe(const qn_backend *b, char *text, size_t size) {
    const int32_t n = pool_threads(b->pool);
    snprintf(text, size, "cpu: %s, %d thread%s", b->kernels->name, n, n == 1 ? "" : "s");
}

static qn_status cpu_measure(qn_backend *b, const qn_program *program, const qn_exec_limits *limits,
                             qn_memory_need *need, qn_error *err) {
    cpu_layout layout;
    memset(need, 0, sizeof *need);
    qn_status st = qn_cpu_layout_make(b, program, limits, &layout, err);
    if (st != QN_OK) return st;
    need->weights = layout.weights_bytes;
    need->workspace = layout.workspace_bytes;
    for (int32_t g = 0; g < program->n_groups; g++) need->block[g] = layout.kv[g].page_bytes;
    qn_cpu_layout_free(&layout);
    return QN_OK;
}

static void cpu_release(qn_executable *x) {
    if (!x) return;
    qn_os_pages_free(x->weights, x->layout.weights_bytes);
    qn_os_pages_free(x->workspace, x->layout.workspace_bytes);
    for (int32_t g = 0; g < QN_MAX_KV_GROUPS; g++) {
        qn_os_pages_free(x->pages[g], x->layout.kv[g].page_bytes * (size_t)x->limits.n_blocks[g]);
    }
    qn_cpu_layout_free(&x->layout);
    free(x);
}

static qn_status allocate(qn_executable *x, qn_error *err) {
    const cpu_layout *l = &x->layout;
    x->weights = qn_os_pages_alloc(l->weights_bytes);
    x->workspace = qn_os_pages_alloc(l->workspace_bytes);
    bool ok = x->weights && x->workspace;
    for (int32_t g = 0; ok && g < x->program->n_groups; g++) {
        size_t bytes;
        ok = x->limits.n_blocks[g] >= 0 &&
             qn_mul_size(l->kv[g].page_bytes, (size_t)x->limits.n_blocks[g], &bytes) &&
             (x->pages[g] = qn_os_pages_alloc(bytes)) != NULL;
    }
    if (!ok) return qn_fail(err, QN_ERR_NOMEM, "out of memory for weights, workspace or KV cache");
    uint8_t *w = x->workspace;
    x->row_seq = (int32_t *)(void *)(w + l->row_seq_offset);
    x->row_pos = (int32_t *)(void *)(w + l->row_pos_offset);
    x->logit_row = (int32_t *)(void *)(w + l->logit_row_offset);
    x->slot_last = (int32_t *)(void *)(w + l->slot_last_offset);
    x->tiles = (attention_tile *)(void *)(w + l->tiles_offset);
    x->samples = (qn_sample *)(void *)(w + l->samples_offset);
    for (int32_t i = 0; i < x->limits.max_seqs; i++) x->slot_last[i] = -1;
    return QN_OK;
}

static qn_status cpu_compile(qn_backend *b, const qn_program *program,
                             const qn_weight_source *weights, const qn_exec_limits *limits,
                             qn_executable **out, qn_error *err) {
    *out = NULL;
    qn_executable *x = calloc(1, sizeof *x);
    if (!x) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    x->b = b;
    x->program = program;
    x->limits = *limits;
    qn_status st = qn_cpu_layout_make(b, program, limits, &x->layout, err);
    if (st == QN_OK) st = allocate(x, err);
    if (st == QN_OK) {
        pthread_mutex_lock(&b->lock);
        st = qn_cpu_load_weights(x, weights, err);
        pthread_mutex_unlock(&b->lock);
    }
    if (st != QN_OK) {
        cpu_release(x);
        return st;
    }
    *out = x;
    return QN_OK;
}

static qn_status cpu_collect(qn_executable *x, qn_step_result *result, qn_error *err) {
    if (!x->in_flight) return qn_fail(err, QN_ERR_INVALID, "no step is in flight");
    x->in_flight = false;
    *result = (qn_step_result){.n_logits = x->n_logits,
                               .samples = x->samples,
                               .seconds_forward = x->seconds_forward,
                               .seconds_sample = x->seconds_sample};
    return QN_OK;
}

static qn_status cpu_read_logits(qn_executable *x, int32_t row, float *dst, qn_error *err) {
    if (x->in_flight || row < 0 || row >= x->n_logits) {
        return qn_fail(err, QN_ERR_INVALID, "no such logit row");
    }
    memcpy(dst, buffer_row(x, x->program->logits, row),
           (size_t)x->program->vocab_size * sizeof(float));
    return QN_OK;
}

const qn_backend_api qn_cpu_backend = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .describe = cpu_describe,
    .measure = cpu_measure,
    .compile = cpu_compile,
    .release = cpu_release,
    .submit = qn_cpu_submit,
    .collect = cpu_collect,
    .read_logits = cpu_read_logits,
    .max_in_flight = 1,
};
