// SPDX-License-Identifier: Apache-2.0
#include "cli/engine_flags.h"

#include "base/checked.h"
#include "base/os.h"
#include "cli/hub_model.h"
#include "cpu/cpu_backend.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void qn_engine_flags_init(qn_engine_flags *f) {
    *f = (qn_engine_flags){
        .device = "auto",
        .kv_cache_dtype = "auto",
        .block_size = 16,
        .max_num_seqs = 64,
        .max_num_batched_tokens = 512,
        .max_num_queued_reqs = 1024,
        .max_num_queued_tokens = 4 << 20,
        .prefix_caching = true,
        .max_decode_slowdown = QN_DEFAULT_DECODE_SLOWDOWN,
    };
}

void qn_engine_flags_table(qn_engine_flags *f, qn_flag *rows) {
    const qn_flag table[QN_ENGINE_FLAG_COUNT] = {
        {"device", 0, QN_FLAG_TEXT, &f->device, "NAME", "auto or cpu", 0, 0},
        {"threads", 't', QN_FLAG_INT, &f->threads, "N",
         "worker threads (default: the CPUs this process may use)", 1, 1024},
        {"isa", 0, QN_FLAG_TEXT, &f->isa, "NAME",
         "CPU kernels: scalar, avx2, avx512vnni (default: the best here)", 0, 0},
        {"max-model-len", 0, QN_FLAG_INT, &f->max_model_len, "N",
         "context, prompt and answer (default: the model's)", 2, 1 << 28},
        {"kv-cache-dtype", 0, QN_FLAG_TEXT, &f->kv_cache_dtype, "TYPE",
         "KV cache: auto (f16), f16 or f32", 0, 0},
        {"block-size", 0, QN_FLAG_INT, &f->block_size, "N",
         "tokens of a KV block: 16, 32, 64, 128 or 256", 16, 256},
        {"kv-cache-memory-bytes", 0, QN_FLAG_INT, &f->kv_cache_memory_bytes, "SIZE",
         "memory for the KV cache (default: 4GiB or one context, as memory allows)", 1, 0x1p62},
        {"num-gpu-blocks-override", 0, QN_FLAG_INT, &f->num_gpu_blocks_override, "N",
         "KV blocks in all, on any device", 1, 1 << 26},
        {"max-num-seqs", 0, QN_FLAG_INT, &f->max_num_seqs, "N", "sequences in a batch", 1, 4096},
        {"max-num-batched-tokens", 0, QN_FLAG_INT, &f->max_num_batched_tokens, "N",
         "tokens of a step", 1, 1 << 16},
        {"max-num-queued-reqs", 0, QN_FLAG_INT, &f->max_num_queued_reqs, "N",
         "requests that may wait; more are refused with 503", 1, 1 << 16},
        {"max-num-queued-tokens", 0, QN_FLAG_INT, &f->max_num_queued_tokens, "N",
         "prompt tokens that may wait", 1, 0x1p40},
        {"long-prefill-token-threshold", 0, QN_FLAG_INT, &f->long_prefill_token_threshold, "N",
         "most prompt tokens of one sequence in a step", 0, 1 << 16},
        {"max-step-ms", 0, QN_FLAG_FLOAT, &f->max_step_ms, "MS",
         "most time of a step, by the fitted step-time model", 0, 1e6},
        {"max-decode-slowdown", 0, QN_FLAG_FLOAT, &f->max_decode_slowdown, "F",
         "most that a long prompt slows down running streams, by the same model (0: any)", 0, 1e6},
        {"enable-prefix-caching", 0, QN_FLAG_BOOL, &f->prefix_caching, NULL,
         "share the KV of equal prompt beginnings", 0, 0},
        {"chat-template", 0, QN_FLAG_TEXT, &f->chat_template, "FILE",
         "Jinja template instead of the model's own", 0, 0},
        {"revision", 0, QN_FLAG_TEXT, &f->revision, "NAME",
         "branch, tag or commit of a model from the hub (default: main)", 0, 0},
    };
    memcpy(rows, table, sizeof table);
}

typedef struct progress {
    const char *model;
    int percent;
} progress;

static void show_progress(void *user, uint64_t done, uint64_t total) {
    progress *p = user;
    int percent = total ? (int)((double)done / (double)total * 100) : 100;
    if (percent == p->percent) return;
    p->percent = percent;
    char bar[31] = "";
    for (int i = 0; i < 30; i++) bar[i] = i < percent * 30 / 100 ? '#' : '.';
    fprintf(stderr, "\rloading [%s] %3d%% of %.1f MiB%s", bar, percent, (double)total / 0x1p20,
            percent == 100 ? "\r\033[K" : "");
    fflush(stderr);
}

int qn_engine_flags_open(qn_engine_flags *f, const char *model, qn_engine **out) {
    qn_error err = {0};
    if (strcmp(f->device, "auto") != 0 && strcmp(f->device, "cpu") != 0) {
        qn_cli_error("--device: '%s' is not built in (auto, cpu)", f->device);
        return 2;
    }
    qn_kv_dtype kv = QN_KV_F16;
    if (strcmp(f->kv_cache_dtype, "f32") == 0 || strcmp(f->kv_cache_dtype, "float32") == 0) {
        kv = QN_KV_F32;
    } else if (strcmp(f->kv_cache_dtype, "auto") != 0 && strcmp(f->kv_cache_dtype, "f16") != 0 &&
               strcmp(f->kv_cache_dtype, "float16") != 0) {
        qn_cli_error("--kv-cache-dtype: '%s' is not supported (auto, f16, f32)", f->kv_cache_dtype);
        return 2;
    }
    if (f->max_decode_slowdown > 0 && f->max_decode_slowdown < 1) {
        qn_cli_error("--max-decode-slowdown: %g is neither 0 (no limit) nor at least 1",
                     f->max_decode_slowdown);
        return 2;
    }
    if (f->chat_template) {
        size_t size;
        if (qn_os_read_file(f->chat_template, 1 << 20, &f->template_text, &size, &err) != QN_OK) {
            qn_cli_error("--chat-template: %s", err.message);
            return 1;
        }
    }
    progress p = {.model = model, .percent = -1};
    f->log = qn_log_stderr(f->verbose ? QN_LOG_INFO : QN_LOG_WARN);
    qn_logf(&f->log, QN_LOG_INFO, "threads: %d (%s)",
            f->threads ? (int)f->threads : qn_os_cpu_count(),
            f->threads ? "as asked for" : "the CPUs that affinity and cgroup allow this process");
    const qn_engine_options options = {
        .backend = &qn_cpu_backend,
        .backend_options = {.threads = (int32_t)f->threads, .isa = f->isa, .log = &f->log},
        .max_model_len = (int32_t)f->max_model_len,
        .block_size = (int32_t)f->block_size,
        .max_num_seqs = (int32_t)f->max_num_seqs,
        .max_num_batched_tokens = (int32_t)f->max_num_batched_tokens,
        .max_num_queued_reqs = (int32_t)f->max_num_queued_reqs,
        .max_num_queued_tokens = f->max_num_queued_tokens,
        .long_prefill_threshold = (int32_t)f->long_prefill_token_threshold,
        .max_step_seconds = f->max_step_ms * 1e-3,
        .max_decode_slowdown = f->max_decode_slowdown > 0 ? f->max_decode_slowdown : -1,
        .no_prefix_caching = !f->prefix_caching,
        .kv_cache_memory_bytes = (uint64_t)f->kv_cache_memory_bytes,
        .num_blocks_override = (int32_t)f->num_gpu_blocks_override,
        .kv_dtype = kv,
        .chat_template = f->template_text,
        .log = &f->log,
        .progress = isatty(STDERR_FILENO) ? show_progress : NULL,
        .progress_user = &p,
    };
    char *path;
    if (qn_cli_model_path(model, f->revision, QN_HUB_MODEL, &f->log, &path, &err) != QN_OK ||
        qn_engine_open(path, &options, out, &err) != QN_OK) {
        qn_cli_error("%s", err.message);
        free(path);
        return 1;
    }
    free(path);
    const qn_engine_info *info = qn_engine_get_info(*out);
    qn_logf(&f->log, QN_LOG_INFO,
            "%s (%s), %.1f MiB of weights, loaded in %.2f s; %s; context %d; KV cache %.1f MiB in "
            "blocks of %d tokens",
            info->name, info->architecture, (double)info->weight_bytes / 0x1p20, info->load_seconds,
            info->backend, info->max_model_len, (double)info->kv_bytes / 0x1p20, info->block_size);
    return 0;
}

void qn_engine_flags_free(qn_engine_flags *f) {
    free(f->template_text);
    f->template_text = NULL;
}

void qn_sampling_flags_init(qn_sampling_flags *f) {
    *f = (qn_sampling_flags){.seed = -1, .top_k = -1, .temperature = -1, .min_p = -1};
}

void qn_sampling_flags_table(qn_sampling_flags *f, qn_flag *rows) {
    const qn_flag table[QN_SAMPLING_FLAG_COUNT] = {
        {"temperature", 0, QN_FLAG_FLOAT, &f->temperature, "T",
         "0: the likeliest token (default: the model's, else 1)", 0, 100},
        {"top-k", 0, QN_FLAG_INT, &f->top_k, "N", "only the N likeliest tokens; 0: all", 0, 1 << 22},
        {"top-p", 0, QN_FLAG_FLOAT, &f->top_p, "P", "only the likeliest with this sum", 1e-9, 1},
        {"min-p", 0, QN_FLAG_FLOAT, &f->min_p, "P",
         "only those with P times the likeliest's probability", 0, 1},
        {"seed", 0, QN_FLAG_INT, &f->seed, "N", "seed of the sampler (default: random)", 0, 0x1p62},
    };
    memcpy(rows, table, sizeof table);
}

void qn_sampling_flags_apply(const qn_sampling_flags *f, const qn_engine_info *info,
                             qn_request *request) {
    request->has_seed = f->seed >= 0;
    request->seed = (uint64_t)f->seed;
    request->temperature = f->temperature >= 0 ? (float)f->temperature : info->temperature;
    request->top_p = f->top_p > 0 ? (float)f->top_p : info->top_p;
    request->min_p = f->min_p >= 0 ? (float)f->min_p : info->min_p;
    request->repetition_penalty = info->repetition_penalty;
    request->top_k = f->top_k >= 0 ? (int32_t)f->top_k : info->top_k;
}
