// SPDX-License-Identifier: Apache-2.0
// The engine: one thread that owns a model, its KV cache and its scheduler. Other threads submit,
// cancel and read; they never see a sequence, a tensor or a block.
//
// A request's tokens wait in the engine, in room that was reserved at submit, until its reader takes
// them: a slow reader costs nobody else anything, and nothing grows. When there is something to read,
// the request's handle is put into the mailbox it was submitted with (once, until it is read).
#ifndef QN_ENGINE_ENGINE_H
#define QN_ENGINE_ENGINE_H

#include "backend/backend.h"
#include "base/log.h"
#include "base/status.h"
#include "base/thread.h"
#include "template/chat_template.h"
#include "tokenizer/tokenizer.h"

typedef struct qn_engine qn_engine;

#define QN_DEFAULT_DECODE_SLOWDOWN 2.0

typedef struct qn_engine_options { // zero: the default
    const qn_backend_api *backend; // required
    qn_backend_options backend_options;
    int32_t max_model_len;          // default: the model's own, cut to what the KV memory holds
    int32_t block_size;             // 16
    int32_t max_num_seqs;           // 64
    int32_t max_num_batched_tokens; // 512 on CPU
    int32_t max_num_queued_reqs;    // 1024
    int64_t max_num_queued_tokens;  // 4 Mi
    int32_t long_prefill_threshold; // 0
    double max_step_seconds;        // 0
    // Steps of streams take at most this many times longer for the sake of long prompts; below 1:
    // no limit; 0: QN_DEFAULT_DECODE_SLOWDOWN.
    double max_decode_slowdown;
    bool no_prefix_caching;
    uint64_t kv_cache_memory_bytes; // default: from the machine's memory
    int32_t num_blocks_override;    // KV blocks of each group
    qn_kv_dtype kv_dtype;           // F32 is 0: the command line sets F16
    const char *chat_template;      // text instead of the model's own; NULL
    const qn_log *log;
    void (*progress)(void *user, uint64_t done, uint64_t total); // loading; may be NULL
    void *progress_user;
} qn_engine_options;

// Opens a GGUF file or a Hugging Face directory and starts the thread. Errors: one line naming file,
// key or tensor and reason.
qn_status qn_engine_open(const char *path, const qn_engine_options *options, qn_engine **out,
                         qn_error *err);
// Aborts what runs (their readers get QN_FINISH_ABORT), stops the thread, frees everything.
void qn_engine_close(qn_engine *e);

typedef struct qn_engine_info {
    const char *name;         // general.name or the path's last part
    const char *architecture; // "qwen3"
    const char *path;
    const char *backend; // "cpu: avx512vnni, 2 threads"
    int32_t vocab_size, max_model_len, context_length;
    int32_t block_size, n_blocks; // of the first group
    const char *kv_dtype;         // "float16", "float32"
    bool prefix_caching;
    int32_t max_num_seqs, max_num_batched_tokens;
    uint64_t weight_bytes, kv_bytes;
    double load_seconds;
    const qn_tokenizer *tokenizer;
    // NULL: none (a model without one gets ChatML where its vocabulary has the tokens), or one that
    // does not compile: then chat_template_error says why, else it is "".
    const qn_chat_template *chat_template;
    const char *chat_template_error;
    // ChatML stands in for a missing template, and the tokenizer's BOS is put before it. (A model's own
    // template writes what it wants.)
    bool chat_template_is_fallback;
    const char *bos_text, *eos_text;       // for templates; "" where there is none
    // Sampling defaults of generation_config.json; else temperature 1, top_k 0, top_p 1, min_p 0,
    // repetition_penalty 1, max_new_tokens 0 (what the context leaves).
    float temperature, top_p, min_p, repetition_penalty;
    int32_t top_k, max_new_tokens;
} qn_engine_info;
const qn_engine_info *qn_engine_get_info(const qn_engine *e); // immutable, valid until close

// A consumer's mailbox: one for each event loop or thread that reads. wakeup.fd becomes readable when
// handles wait.
typedef struct qn_mailbox {
    qn_wakeup wakeup;
    qn_queue *ready;
} qn_mailbox;
// capacity: the most requests that are ever live with it.
qn_status qn_mailbox_open(qn_mailbox *m, size_t capacity, qn_error *err);
void qn_mailbox_close(qn_mailbox *m);
// Clears the wake-up and takes one handle; false: empty. Call until false.
bool qn_mailbox_take(qn_mailbox *m, uint64_t *handle);

typedef struct qn_request {
    const int32_t *prompt; // copied; ids are checked against the vocabulary
    int32_t n_prompt;
    int32_t max_tokens; // 0: as many as max_model_len leaves
    int32_t min_tokens;
    const int32_t *stop_ids; // besides the model's own
    int32_t n_stop_ids;      // at most 64
    bool ignore_eos;         // the model's own stop ids do not end it
    int32_t priority;
    int32_t choice;          // index among the n choices (the sampler's counter)
    // Prefix cache: KV is shared only among requests with the same salt (at most 128 bytes, copied).
    const void *cache_salt;
    size_t cache_salt_len;
    bool skip_cache_read; // every row of the prompt is computed
    // A live request with the same prompt and salt, submitted before; this one shares its prompt's KV.
    // 0, or one that has gone: none.
    uint64_t fork_of;
    bool has_seed;           // else a random one is drawn
    uint64_t seed;
    float temperature, top_p, min_p;
    int32_t top_k;
    int32_t n_logprobs; // -1: none
    // Of each prompt token, and of the n most likely in its place: see qn_engine_prompt_logprobs. The
    // whole prompt is computed, whatever the prefix cache has; not together with fork_of.
    bool prompt_logprobs;
    int32_t n_prompt_logprobs; // n: at most QN_MAX_TOP_LOGPROBS
    // What follows is applied before the temperature, in the order of backend/sampling.h; all copied.
    float repetition_penalty; // over prompt and output; 0 or 1: off
    float presence_penalty, frequency_penalty; // -2 to 2; over the output
    const int32_t *bias_ids;  // logit_bias
    const float *biases;      // -100 to 100
    int32_t n_biases;         // at most QN_MAX_BIASES
    const int32_t *allowed_ids; // only these can be sampled
    int32_t n_allowed_ids;      // 0: all can
    // A word's last id is not sampled where its ids before that are the end of the output.
    const int32_t *bad_word_ids;  // one word's after the other
    const int32_t *bad_word_lens; // 1 to QN_MAX_BAD_WORD_IDS
    int32_t n_bad_words;          // at most QN_MAX_BAD_WORDS
} qn_request;

enum {
    QN_MAX_REPETITION_PENALTY = 100,
    // What one request may ask for: n_prompt times (1 + n_prompt_logprobs). And all that live together.
    QN_MAX_PROMPT_LOGPROBS = 1 << 17,
    QN_MAX_LIVE_PROMPT_LOGPROBS = 1 << 20,
    QN_MAX_BIASES = 1024,
    QN_MAX_BAD_WORDS = 256,
    QN_MAX_BAD_WORD_IDS = 32,
};

// Checks and queues a request. Any thread. On success *handle names it until qn_engine_release; the
// mailbox must outlive that. Errors: QN_ERR_INVALID (values; err says which field), QN_ERR_LIMIT (too
// long ever to fit), QN_ERR_BUSY (queue full), QN_ERR_CANCELLED (engine is stopping).
qn_status qn_engine_submit(qn_engine *e, const qn_request *request, qn_mailbox *mailbox,
                           uint64_t *handle, qn_error *err);
// Ends a request early; its reader still gets the terminal state. A stale handle is ignored.
void qn_engine_cancel(qn_engine *e, uint64_t handle);
// The reader is done with the handle (cancels the request if it still runs). Must be called once.
void qn_engine_release(qn_engine *e, uint64_t handle);

typedef struct qn_token_event {
    int32_t id;
    float logprob; // 0 unless n_logprobs >= 0
    int32_t n_top;
    int32_t top_ids[QN_MAX_TOP_LOGPROBS];
    float top_logprobs[QN_MAX_TOP_LOGPROBS];
} qn_token_event;

typedef enum qn_outcome {
    QN_RUNNING,
    QN_DONE_STOP,   // a stop id (the last token read, not part of the text unless asked for)
    QN_DONE_LENGTH, // max_tokens or the context's end
    QN_DONE_ABORT,
    QN_DONE_ERROR, // see error
} qn_outcome;

typedef struct qn_request_state {
    qn_outcome outcome; // terminal only when every token has been read
    int32_t n_prompt, n_output, n_cached;
    int32_t stop_id;         // QN_DONE_STOP: which id
    qn_error error;          // QN_DONE_ERROR
    double queue_seconds, prefill_seconds, decode_seconds; // of a finished request
} qn_request_state;

// Takes up to max tokens (state may be asked with max 0). Call it until fewer than max come. Any one
// thread at a time for a handle. QN_ERR_NOT_FOUND: stale handle.
qn_status qn_engine_read(qn_engine *e, uint64_t handle, qn_token_event *events, size_t max,
                         size_t *n, qn_request_state *state);

typedef struct qn_token_score {
    int32_t id;   // -1: nothing here (fewer ids have a finite logit)
    int32_t rank; // 1 + how many ids have a larger logit; of the most likely ones their place
    float logprob;
} qn_token_score;

typedef struct qn_prompt_logprobs {
    int32_t n_prompt, n_top;
    // [n_prompt][1 + n_top]: a prompt token given those before it, then the most likely in its place,
    // descending. Nothing comes before the first token: its row says nothing.
    const qn_token_score *scores;
} qn_prompt_logprobs;

// For a request with prompt_logprobs: complete as soon as its first token can be read (QN_ERR_BUSY
// before). Valid until the handle is released. QN_ERR_NOT_FOUND: stale handle, or not asked for.
qn_status qn_engine_prompt_logprobs(qn_engine *e, uint64_t handle, qn_prompt_logprobs *out);

// Teacher-forced logits, for tests and measuring: runs ids alone through the engine's own path in
// chunks of at most `chunk` rows (0: the largest) and hands each row's logits to the callback, in
// order. Blocks; only while no request runs (QN_ERR_BUSY). Empties the prefix cache.
qn_status qn_engine_logits(qn_engine *e, const int32_t *ids, int32_t n, int32_t chunk,
                           void (*row)(void *user, int32_t index, const float *logits), void *user,
                           qn_error *err);

// What is counted for each step.
typedef enum qn_step_hist {
    QN_STEP_TOKENS,   // rows that were computed
    QN_STEP_SEQS,     // sequences they belonged to
    QN_STEP_SCHEDULE, // seconds: planning it and taking its results in
    QN_STEP_FORWARD,  // seconds: the model
    QN_STEP_SAMPLE,   // seconds
    QN_N_STEP_HIST,
} qn_step_hist;

enum { QN_ABORT_STEPS = 5, QN_STEP_MAX_BOUNDS = 16 };

typedef struct qn_step_counts {
    uint64_t counts[QN_STEP_MAX_BOUNDS + 1]; // not cumulative; the one behind the last bound: above all
    double sum;
} qn_step_counts;
// The upper bounds of the counts, ascending.
const double *qn_step_hist_bounds(qn_step_hist which, size_t *n);

typedef struct qn_engine_stats { // a consistent snapshot; counters since start
    int32_t running, waiting;
    double kv_usage; // 0..1, the fullest group
    uint64_t steps, preemptions, generated_tokens;
    uint64_t prompt_tokens;                // computed or found in the prefix cache
    uint64_t prefix_queries, prefix_hits;  // prompt tokens looked up in the prefix cache, and found
    uint64_t finished_stop, finished_length, finished_abort, finished_error;
    uint64_t rejected;             // at submit, queue full
    uint64_t last_progress_ns;     // qn_os_now_ns of the last step's end, or of the last idle moment
    bool has_work;
    uint64_t cached_tokens;  // prompt tokens whose KV was there: prefix cache, or another choice's
    qn_step_counts hist[QN_N_STEP_HIST]; // of steps that did not fail
    // Cancelled requests, by how many steps ended between the cancel and their blocks' being free; the
    // last count is of those that took as many or more.
    uint64_t abort_steps[QN_ABORT_STEPS];
    uint64_t abort_steps_sum;
} qn_engine_stats;
void qn_engine_get_stats(qn_engine *e, qn_engine_stats *out); // any thread, never blocks on a step

#endif
