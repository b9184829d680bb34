// SPDX-License-Identifier: Apache-2.0
// One generation: a request of n choices for each of its prompts, from admission to the last byte.
// generate.c has its life, output.c its JSON.
#ifndef QN_SERVER_GENERATION_H
#define QN_SERVER_GENERATION_H

#include "server/internal.h"

// A token whose text is not out yet.
typedef struct qn_pending_token {
    size_t start; // where its text begins in the choice's whole text, bytes
    qn_token_event event;
} qn_pending_token;

typedef struct qn_logprob_text { // JSON array elements, in the making
    qn_buf a;                    // chat: content entries; completions: tokens
    qn_buf probs, tops, offsets; // completions only
    size_t chars;                // completions: characters of all tokens so far
} qn_logprob_text;

// What a prompt's tokens add to the answer; made when the first of its choices has a token.
typedef struct qn_prompt_output {
    bool ready;
    qn_buf scores;          // elements of the array of prompt_logprobs
    qn_logprob_text tokens; // echo with logprobs: what the choices' logprobs begin with
} qn_prompt_output;

struct qn_choice {
    qn_generation *gen;
    int32_t index;
    bool begun;      // it had its first token
    uint64_t handle; // 0: released
    bool unread;     // the engine has something, but the connection is full
    bool first_sent; // its first chunk
    qn_detok detok;
    qn_stop_matcher *stops; // NULL: none
    bool held;              // held_event may be the stop token: not yet part of the text
    qn_token_event held_event;
    qn_pending_token *pending;
    size_t n_pending, cap_pending;
    size_t produced; // bytes of text so far, in `text`, held by the matcher or after a match
    size_t emitted;  // bytes of text that are certain
    qn_buf text;     // certain and not yet sent
    qn_logprob_text logprobs;
    int32_t n_tokens;
    int32_t *ids; // [n_tokens] where the request wants them
    size_t cap_ids, n_ids_sent;
    const char *finish; // finish_reason; NULL: running
    int stop_string;    // which one matched; -1
    int32_t stop_id;    // which token ended it; -1
    uint64_t first_ns, last_ns; // of its tokens
};

// What a connection's user pointer points to begins with this.
typedef struct qn_exchange {
    bool preparing; // it is a qn_preparing, else a qn_generation
} qn_exchange;

// A request that the pool has.
typedef struct qn_preparing {
    qn_exchange base;
    qn_loop *loop;
    qn_http_conn *conn;
    struct qn_preparing *prev, *next;
    uint64_t handle;
    uint64_t arrived_ns;
} qn_preparing;

struct qn_generation {
    qn_exchange base;
    qn_loop *loop;
    qn_http_conn *conn;
    qn_generation *prev, *next;
    qn_gen_request *request;
    const char *model; // served name
    char id[160];
    int64_t created;
    uint64_t arrived_ns;
    int64_t n_prompt; // of all prompts
    int64_t n_cached;
    qn_ids prompt_ids; // of all prompts, where the answer has something of them
    size_t *prompt_ends; // [n_prompts] where each ends in prompt_ids
    uint8_t salt[QN_KEY_SALT]; // of the prefix cache, made of key and cache_salt
    bool salted;               // else cache_salt as it is
    qn_prompt_output *prompts; // [n_prompts] where there are prompt logprobs
    qn_choice *choices;
    size_t n_choices, n_open;
};

// Output. Each appends a JSON text.
// first: the choice's first, which carries the role and what is said once.
void qn_output_chunk(const qn_choice *c, bool first, qn_buf *out);
void qn_output_usage_chunk(const qn_generation *g, qn_buf *out);
void qn_output_response(const qn_generation *g, qn_buf *out);
// The prompt's part of a choice that has its first token: echo, and the prompt's logprobs. False: out
// of memory, or the engine lost them.
bool qn_output_begin(qn_choice *c, qn_buf *scratch);
// How many logprobs of each prompt token the engine is asked for; -1: none.
int32_t qn_output_prompt_logprobs(const qn_gen_request *r);
void qn_output_free_prompts(qn_generation *g);
// Moves pending tokens that begin before byte `end` of the text to the choice's logprobs.
void qn_output_logprobs(qn_choice *c, size_t end, qn_buf *scratch);
void qn_output_clear_logprobs(qn_choice *c); // after they were sent
void qn_choice_free_output(qn_choice *c);

#endif
