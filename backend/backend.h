// SPDX-License-Identifier: Apache-2.0
// The interface that a device implements. Coarse on purpose: compile a program with its weights,
// submit step plans, collect results. Registered by the composition root (cli/) only.
//
// One thread owns an executable and makes all calls on it.
#ifndef QN_BACKEND_BACKEND_H
#define QN_BACKEND_BACKEND_H

#include "attention/step_plan.h"
#include "backend/program.h"
#include "backend/sampling.h"
#include "base/log.h"
#include "base/status.h"

typedef struct qn_backend qn_backend;
typedef struct qn_executable qn_executable;

typedef struct qn_backend_options {
    int32_t threads;     // worker threads in all; 0: as many as the process may use
    const char *isa;     // CPU: "scalar", "avx2", "avx512vnni"; NULL: the best the machine has
    const qn_log *log;
} qn_backend_options;

// Where weights come from. read copies n_rows encoded rows of weight `index` (qn_program_weight),
// starting at `row`, into dst; called from several threads at once while compiling. done: the backend
// will not read this weight again (its file pages can go).
typedef struct qn_weight_source {
    void *user;
    qn_status (*read)(void *user, int32_t index, int64_t row, int64_t n_rows, void *dst,
                      qn_error *err);
    void (*done)(void *user, int32_t index);
    void (*progress)(void *progress_user, uint64_t bytes_done, uint64_t bytes_total); // may be NULL
    void *progress_user;
} qn_weight_source;

typedef struct qn_exec_limits {
    int32_t max_rows;   // rows of a step
    int32_t max_seqs;   // sequences of a step
    int32_t max_logits; // logit rows of a step
    int32_t max_len;    // tokens of a sequence
    int32_t block_size; // tokens of a KV page: 16, 32, 64, 128 or 256
    int32_t n_blocks[QN_MAX_KV_GROUPS];
    qn_kv_dtype kv_dtype;
} qn_exec_limits;

typedef struct qn_memory_need { // bytes
    uint64_t weights, workspace;
    uint64_t block[QN_MAX_KV_GROUPS]; // one page of the group, all its layers, K and V
} qn_memory_need;

typedef struct qn_step_result {
    int32_t n_logits;
    const qn_sample *samples; // [n_logits]; the backend's, valid until the next submit
    double seconds_forward, seconds_sample; // of the device's own work on this step
} qn_step_result;

typedef struct qn_backend_api {
    const char *name;
    qn_status (*open)(const qn_backend_options *options, qn_backend **out, qn_error *err);
    void (*close)(qn_backend *b);
    // "cpu: avx512vnni, 2 threads"
    void (*describe)(const qn_backend *b, char *text, size_t size);
    // What compile would allocate (the same code in counting mode). n_blocks is not looked at.
    qn_status (*measure)(qn_backend *b, const qn_program *program, const qn_exec_limits *limits,
                         qn_memory_need *need, qn_error *err);
    // Reads and lays out the weights, allocates KV and workspace: nothing is allocated afterwards.
    // The program must outlive the executable.
    qn_status (*compile)(qn_backend *b, const qn_program *program, const qn_weight_source *weights,
                         const qn_exec_limits *limits, qn_executable **out, qn_error *err);
    void (*release)(qn_executable *x);
    // Starts a step. rows: one per logit row of the plan, in order. The plan and rows must stay until
    // collect. At most one step is in flight where api->max_in_flight is 1.
    qn_status (*submit)(qn_executable *x, const qn_step_plan *plan, const qn_sample_row *rows,
                        qn_error *err);
    // Waits for the oldest step in flight.
    qn_status (*collect)(qn_executable *x, qn_step_result *result, qn_error *err);
    // Copies logit row `row` of the step last collected: vocab_size floats. For tests, perplexity.
    qn_status (*read_logits)(qn_executable *x, int32_t row, float *dst, qn_error *err);
    int32_t max_in_flight;
} qn_backend_api;

#endif
