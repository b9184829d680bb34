// SPDX-License-Identifier: Apache-2.0
// Request bodies: bytes in, a checked request or an error that names the field out. No sockets, no
// running engine: what depends on the model comes in as limits.
#ifndef QN_SERVER_REQUEST_H
#define QN_SERVER_REQUEST_H

#include "server/api_error.h"
#include "tokenizer/tokenizer.h"

#include <jansson.h>
#include <stdint.h>

enum { // caps on what one request may hold
    QN_REQUEST_MAX_DEPTH = 64,
    QN_REQUEST_MAX_CONTAINERS = 65536, // objects and arrays
    QN_REQUEST_MAX_VALUES = 2 << 20,
    QN_REQUEST_MAX_CHOICES = 128, // n times prompts
    QN_REQUEST_MAX_MESSAGES = 4096,
    QN_REQUEST_MAX_PARTS = 1024, // of a message's content
    QN_REQUEST_MAX_TOOLS = 256,
    QN_REQUEST_MAX_STOPS = 64,
    QN_REQUEST_MAX_STOP_BYTES = 1024,
    QN_REQUEST_MAX_STOP_IDS = 64,
    QN_REQUEST_MAX_BAD_WORDS = 128,
    QN_REQUEST_MAX_BAD_WORD_BYTES = 1024,
    QN_REQUEST_MAX_ECHOED_IDS = 1 << 20, // prompt ids in one answer (return_token_ids, echo)
    QN_REQUEST_MAX_ECHOED_BYTES = 16 << 20, // of prompts in one answer (echo)
};

typedef struct qn_request_limits {
    int32_t vocab_size, max_model_len;
    int32_t max_logprobs;
    float temperature, top_p, min_p; // defaults
    int32_t top_k;
    float repetition_penalty; // 0: 1
    int32_t max_new_tokens;   // of a chat; 0: what the context leaves
} qn_request_limits;

typedef struct qn_prompt_input { // text or ids
    const char *text;            // NULL: ids
    size_t len;
    int32_t *ids;
    size_t n_ids;
    qn_buf echo; // made by qn_echo_build: what the answer begins with
} qn_prompt_input;

typedef struct qn_gen_request {
    bool chat;
    json_t *root;      // owns the strings below
    const char *model; // NULL: not given
    // Chat: what the template sees.
    json_t *messages, *tools, *template_kwargs; // owned; tools and kwargs may be NULL
    bool add_generation_prompt, continue_final;
    // Else: prompts.
    qn_prompt_input *prompts;
    size_t n_prompts;         // 1 for chat
    int add_special_tokens;   // -1: not given
    int32_t max_tokens;       // 0: not given
    int32_t likely_max_tokens; // then: the model's default, as far as the context has room; 0: none
    int32_t min_tokens;
    int32_t n;
    bool has_seed;
    uint64_t seed;
    float temperature, top_p, min_p;
    int32_t top_k;
    float presence_penalty, frequency_penalty, repetition_penalty;
    int32_t *bias_ids; // [n_biases]
    float *biases;
    size_t n_biases;
    int32_t *allowed_ids; // NULL: all
    size_t n_allowed_ids;
    qn_str bad_words[QN_REQUEST_MAX_BAD_WORDS];
    size_t n_bad_words;
    // Made of them by qn_bad_words_build: ids of one after the other, and how many each has.
    qn_ids bad_ids;
    int32_t bad_lens[2 * QN_REQUEST_MAX_BAD_WORDS];
    size_t n_bad_lens;
    const char *request_id; // NULL: not given
    const char *cache_salt; // NULL: not given
    qn_str stops[QN_REQUEST_MAX_STOPS];
    size_t n_stops;
    int32_t stop_ids[QN_REQUEST_MAX_STOP_IDS];
    size_t n_stop_ids;
    int32_t n_logprobs; // -1: none
    int32_t n_prompt_logprobs; // -1: none
    bool echo;      // the answer begins with the prompt; of a chat: with its last message
    bool echo_only; // and ends there: max_tokens, 0 in the request, is then 1
    qn_str last_message; // the assistant's that a chat's echo shows
    int32_t priority;
    bool include_stop, ignore_eos, skip_special, return_ids;
    bool stream, include_usage, continuous_usage;
} qn_gen_request;

// A name that a request may have: 1 to 128 of A-Z a-z 0-9 . _ -
bool qn_request_id_valid(qn_str id);

// Parses a JSON object under the caps above; NULL with *err otherwise. The caller owns it.
json_t *qn_request_json(const char *body, size_t len, qn_api_error *err);

// Body of /v1/chat/completions (chat) or /v1/completions. NULL with *err otherwise.
qn_gen_request *qn_gen_request_parse(const qn_request_limits *limits, bool chat, const char *body,
                                     size_t len, qn_api_error *err);
void qn_gen_request_free(qn_gen_request *r);

typedef struct qn_tokenize_request {
    json_t *root;
    const char *model;
    qn_gen_request *chat; // of a request with messages; else NULL
    const char *prompt;
    size_t len;
    bool add_special_tokens, return_token_strs;
} qn_tokenize_request;
bool qn_tokenize_request_parse(const qn_request_limits *limits, const char *body, size_t len,
                               qn_tokenize_request *out, qn_api_error *err);
void qn_tokenize_request_free(qn_tokenize_request *r);

typedef struct qn_detokenize_request {
    json_t *root;
    const char *model;
    int32_t *ids;
    size_t n_ids;
} qn_detokenize_request;
bool qn_detokenize_request_parse(const qn_request_limits *limits, const char *body, size_t len,
                                 qn_detokenize_request *out, qn_api_error *err);
void qn_detokenize_request_free(qn_detokenize_request *r);

#endif
