// SPDX-License-Identifier: Apache-2.0
// The flags that every command with an engine takes (serve, generate, chat), and how they become
// engine options.
#ifndef QN_CLI_ENGINE_FLAGS_H
#define QN_CLI_ENGINE_FLAGS_H

#include "cli/flags.h"
#include "engine/engine.h"

typedef struct qn_engine_flags {
    const char *device, *isa, *kv_cache_dtype, *chat_template, *revision;
    int64_t threads, max_model_len, block_size, max_num_seqs, max_num_batched_tokens;
    int64_t max_num_queued_reqs, max_num_queued_tokens, long_prefill_token_threshold;
    int64_t kv_cache_memory_bytes, num_gpu_blocks_override;
    double max_step_ms, max_decode_slowdown;
    bool verbose, prefix_caching;
    // Made by qn_engine_flags_open:
    qn_log log;
    char *template_text;
} qn_engine_flags;

enum { QN_ENGINE_FLAG_COUNT = 18 };
void qn_engine_flags_init(qn_engine_flags *f);
// Writes QN_ENGINE_FLAG_COUNT rows.
void qn_engine_flags_table(qn_engine_flags *f, qn_flag *rows);
// Opens the engine of a path or of a model on the hub, with a progress bar on a terminal; prints the error. Returns the exit code, 0 fine.
int qn_engine_flags_open(qn_engine_flags *f, const char *model, qn_engine **out);
void qn_engine_flags_free(qn_engine_flags *f);

// The sampling flags of generate and chat. Unset ones (negative; top_p 0) mean the model's defaults.
typedef struct qn_sampling_flags {
    int64_t seed, top_k;
    double temperature, top_p, min_p;
} qn_sampling_flags;

enum { QN_SAMPLING_FLAG_COUNT = 5 };
void qn_sampling_flags_init(qn_sampling_flags *f);
void qn_sampling_flags_table(qn_sampling_flags *f, qn_flag *rows);
// Sets the request's sampling fields.
void qn_sampling_flags_apply(const qn_sampling_flags *f, const qn_engine_info *info,
                             qn_request *request);

#endif
