// SPDX-License-Identifier: Apache-2.0
// Reading weights through the weight source and repacking them, on all threads.
#include "base/checked.h"
#include "cpu/executable.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_BYTES = 256 << 10 };

typedef struct weight_pieces {
    int32_t first;     // of all pieces
    int32_t n;
    int64_t rows;      // of a piece, a multiple of PANEL_ROWS
    size_t row_bytes;
    atomic_int left;
} weight_pieces;

typedef struct load_job {
    qn_executable *x;
    const qn_weight_source *source;
    weight_pieces *pieces; // [n_weights]
    size_t n_weights;
    uint8_t *staging; // [threads][staging_bytes]
    size_t staging_bytes;
    atomic_bool failed;
    pthread_mutex_t lock; // error and progress
    qn_error error;
    uint64_t done, total;
} load_job;

static void fail(load_job *job, qn_status st, const qn_error *err) {
    pthread_mutex_lock(&job->lock);
    if (job->error.status == QN_OK) {
        job->error = *err;
        if (job->error.status == QN_OK) qn_fail(&job->error, st, "cannot read weights");
    }
    pthread_mutex_unlock(&job->lock);
    atomic_store(&job->failed, true);
}

// The weight that piece `item` belongs to: the last whose first piece is not after it.
static size_t weight_of(const load_job *job, int32_t item) {
    size_t lo = 0, hi = job->n_weights;
    while (hi - lo > 1) {
        const size_t mid = lo + (hi - lo) / 2;
        if (job->pieces[mid].first <= item) lo = mid;
        else hi = mid;
    }
    return lo;
}

static void load_piece(void *user, int32_t item, int32_t worker) {
    load_job *job = user;
    if (atomic_load_explicit(&job->failed, memory_order_relaxed)) return;
    const size_t index = weight_of(job, item);
    weight_pieces *pieces = &job->pieces[index];
    const qn_program_weight *w = &job->x->program->weights[index];
    const cpu_weight *c = &job->x->layout.weights[index];
    const int64_t row = (item - pieces->first) * pieces->rows;
    const int64_t n = QN_MIN(pieces->rows, w->n_rows - row);
    uint8_t *staging = job->staging + (size_t)worker * job->staging_bytes;
    uint8_t *dst = job->x->weights + c->offset;
    if (c->layout == WEIGHT_ROWS) staging = dst + (size_t)row * pieces->row_bytes;
    qn_error err = {0};
    qn_status st = job->source->read(job->source->user, (int32_t)index, row, n, staging, &err);
    if (st != QN_OK) {
        fail(job, st, &err);
        return;
    }
    const int32_t k = (int32_t)w->n_cols;
    if (c->layout == WEIGHT_VECTOR) {
        qn_dequantize_row(w->type, staging, (float *)(void *)dst, (size_t)k);
    } else if (c->layout == WEIGHT_PANELS) {
        for (int64_t r = 0; r < n; r += PANEL_ROWS) {
            qn_cpu_pack_panel(w->type, k, staging + (size_t)r * pieces->row_bytes,
                              pieces->row_bytes, (int32_t)QN_MIN(n - r, (int64_t)PANEL_ROWS),
                              dst + (size_t)((row + r) / PANEL_ROWS) * c->panel_stride);
        }
    }
    const bool last = atomic_fetch_sub(&pieces->left, 1) == 1;
    if (last && job->source->done) job->source->done(job->source->user, (int32_t)index);
    if (!job->source->progress) return;
    pthread_mutex_lock(&job->lock);
    job->done += (uint64_t)n * pieces->row_bytes;
    job->source->progress(job->source->user, job->done, job->total);
    pthread_mutex_unlock(&job->lock);
}

qn_status qn_cpu_load_weights(qn_executable *x, const qn_weight_source *source, qn_error *err) {
    const qn_program *p = x->program;
    load_job job = {.x = x, .source = source, .n_weights = p->n_weights,
                    .staging_bytes = PIECE_BYTES};
    job.pieces = calloc(p->n_weights + 1, sizeof *job.pieces);
    if (!job.pieces) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    int64_t n_pieces = 0;
    for (size_t i = 0; i < p->n_weights; i++) {
        const qn_program_weight *w = &p->weights[i];
        weight_pieces *c = &job.pieces[i];
        uint64_t row_bytes = 0;
        c->first = (int32_t)n_pieces;
        if (x->layout.weights[i].layout == WEIGHT_UNUSED ||
            !qn_dtype_row_bytes(qn_dtype_get((uint32_t)w->type), (uint64_t)w->n_cols,
                                &row_bytes)) {
            continue;
        }
        c->row_bytes = (size_t)row_bytes;
        const size_t panel = c->row_bytes * PANEL_ROWS;
        c->rows = (int64_t)(QN_MAX((size_t)PIECE_BYTES / panel, (size_t)1) * PANEL_ROWS);
        job.staging_bytes = QN_MAX(job.staging_bytes, panel);
        const int64_t n = QN_CEIL_DIV(w->n_rows, c->rows);
        c->n = (int32_t)n;
        atomic_init(&c->left, c->n);
        job.total += (uint64_t)w->n_rows * row_bytes;
        n_pieces += n;
        if (n_pieces > INT32_MAX / 2) break;
    }
    size_t bytes;
    qn_status st = QN_OK;
    if (n_pieces > INT32_MAX / 2) st = qn_fail(err, QN_ERR_LIMIT, "the weights are too large");
    if (st == QN_OK && (!qn_mul_size(job.staging_bytes, (size_t)pool_threads(x->b->pool), &bytes) ||
                        !(job.staging = malloc(bytes)))) {
        st = qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    if (st == QN_OK) {
        atomic_init(&job.failed, false);
        pthread_mutex_init(&job.lock, NULL);
        pool_run(x->b->pool, load_piece, &job, (int32_t)n_pieces);
        pthread_mutex_destroy(&job.lock);
        st = job.error.status;
        if (st != QN_OK && err && err->status == QN_OK) *err = job.error;
    }
    free(job.staging);
    free(job.pieces);
    return st;
}
