// SPDX-License-Identifier: Apache-2.0
// What the CPU backend makes of a program: sections, the layout of its memory, and the state of the
// step that runs.
#ifndef QN_CPU_EXECUTABLE_H
#define QN_CPU_EXECUTABLE_H

#include "backend/backend.h"
#include "cpu/kernels.h"
#include "cpu/pool.h"

#include <pthread.h>

struct qn_backend {
    const cpu_kernels *kernels;
    pool *pool;
    const qn_log *log;
    pthread_mutex_t lock; // around uses of the pool
};

typedef enum weight_layout {
    WEIGHT_UNUSED, WEIGHT_VECTOR, WEIGHT_ROWS, WEIGHT_PANELS,
} weight_layout;

typedef struct cpu_weight {
    weight_layout layout; // VECTOR: f32, padded to 16; ROWS: as stored, for EMBED alone
    size_t offset, bytes; // inside the weights' memory
    size_t panel_stride;
    int32_t n_panels;
} cpu_weight;

// A section runs in parallel and ends with a barrier.
typedef enum section_kind {
    SECTION_ROWS,      // row ops, one after another for each row
    SECTION_LINEAR,    // LINEARs with one source
    SECTION_ATTENTION, // one ATTENTION
} section_kind;

typedef struct section {
    section_kind kind;
    qn_row_kind rows;
    size_t first, count; // ops
    int32_t quantize;    // ROWS: at last, this buffer's row is quantized for the LINEARs; or -1
} section;

typedef struct buffer_place {
    size_t offset; // bytes in the workspace
    size_t stride; // floats
} buffer_place;

typedef struct kv_place {
    size_t slab_bytes; // K, or V, of one layer and head
    size_t page_bytes;
} kv_place;

// Sizes and places, made from program and limits alone: the counting mode of compile.
typedef struct cpu_layout {
    section *sections;
    size_t n_sections, cap_sections;
    cpu_weight *weights;
    buffer_place *buffers;
    buffer_place *ropes; // cos then sin, stride / 2 each
    kv_place kv[QN_MAX_KV_GROUPS];
    size_t weights_bytes, workspace_bytes;
    size_t quants_offset, quants_bytes_per_row;
    size_t row_seq_offset, row_pos_offset, logit_row_offset, tiles_offset;
    size_t slot_last_offset, samples_offset;
    size_t scratch_offset, scratch_bytes; // bytes of one worker
} cpu_layout;

typedef struct attention_tile { // rows of one sequence that are taken together
    int32_t seq, row, n_rows;
} attention_tile;

struct qn_executable {
    qn_backend *b;
    const qn_program *program;
    qn_exec_limits limits;
    cpu_layout layout;
    uint8_t *weights, *workspace;
    uint8_t *pages[QN_MAX_KV_GROUPS];
    int32_t *row_seq, *row_pos, *logit_row, *slot_last;
    attention_tile *tiles;
    qn_sample *samples;
    // the step
    const qn_step_plan *plan;
    const qn_sample_row *sample_rows;
    bool in_flight;
    int32_t n_logits; // of the step last collected, or in flight
    double seconds_forward, seconds_sample; // of the same
};

// layout.c
qn_status qn_cpu_layout_make(const qn_backend *b, const qn_program *p, const qn_exec_limits *limits,
                             cpu_layout *out, qn_error *err);
void qn_cpu_layout_free(cpu_layout *layout);
// load.c: reads and repacks all weights into x->weights.
qn_status qn_cpu_load_weights(qn_executable *x, const qn_weight_source *source, qn_error *err);
// One row of a panel weight as f32, exactly as dequantized from the file.
void qn_cpu_panel_row(qn_dtype type, int32_t k, const uint8_t *panels, size_t stride, int64_t row,
                      float *dst);
// step.c
qn_status qn_cpu_submit(qn_executable *x, const qn_step_plan *plan, const qn_sample_row *rows,
                        qn_error *err);

size_t qn_cpu_panel_bytes(qn_dtype type, int32_t k);
// rows: n encoded rows (1..16) of row_bytes each; the panel's other rows become zero rows.
void qn_cpu_pack_panel(qn_dtype type, int32_t k, const uint8_t *rows, size_t row_bytes, int32_t n,
                       uint8_t *panel);

// The code of input i of group g of row r.
int32_t qn_cpu_panel_code(const int_shape *s, int bits, const uint8_t *panel, int32_t g, int32_t i,
                          int32_t r);

static inline bool is_int_type(qn_dtype t) { return qn_form_get(t) != NULL; }

static inline float *buffer_row(const qn_executable *x, int32_t buffer, int32_t row) {
    const buffer_place *b = &x->layout.buffers[buffer];
    return (float *)(void *)(x->workspace + b->offset) + (size_t)row * b->stride;
}

#endif
