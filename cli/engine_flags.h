// SPDX-License-Identifier: Apache-2.0
// The flags that every command with an engine takes (serve, generate, chat), and how they become
// engine options.
#ifndef QN_CLI_ENGINE_FLAGS_H
#define QN_CLI_ENGINE_FLAGS_H

#include "cli/flags.h"
#include "engine/engine.h"

typedef struct qn_engine_flags {
    const char *device, *isa, *kv_cache_dtype, *chat_template;
    int64_t threads, max_model_len, block_size, max_num_seqs, max_num_batched_tokens;
    int64_t max_num_queued_reqs, max_num_queued_tokens, long_prefill_token_threshold;
    int64_t kv_cache_memory_bytes, num_gpu_blocks_override;
    double max_step_ms;
    bool verbose;
    // Made by qn_engine_flags_open:
    qn_log log;
    char *template_text;
} qn_engine_flags;

enum { QN_ENGINE_FLAG_COUNT = 15 };
void qn_engine_flags_init(qn_engine_flags *f);
// Writes QN_ENGINE_FLAG_COUNT rows.
void qn_engine_flags_table(qn_engine_flags *f, qn_flag *rows);
// Opens the engine, with a progress bar on a terminal; prints the error. Returns the exit code, 0 fine.
int qn_engine_flags_open(qn_engine_flags *f, const char *model, qn_engine **out);
void qn_engine_flags_free(qn_engine_flags *f);

#endif
