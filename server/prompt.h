// SPDX-License-Identifier: Apache-2.0
// From a request to token ids: the chat template, then the tokenizer. Pure and free of any loop's
// state, so that any thread may do it.
#ifndef QN_SERVER_PROMPT_H
#define QN_SERVER_PROMPT_H

#include "engine/engine.h"
#include "server/request.h"

// Appends the ids of the request's prompt number `index`. What message content says is tokenized as
// plain text: only the template's own literals can give special tokens (a raw prompt is the caller's
// own template: there they are recognized). Afterwards there is room for at least one token of output
// and for max_tokens in the context. false: *err says why.
bool qn_prompt_build(const qn_engine_info *info, const qn_gen_request *r, size_t index, qn_ids *out,
                     qn_api_error *err);

// The ids of the request's bad words, each without and with a space before it where that makes
// other tokens: r->bad_ids and r->bad_lens.
bool qn_bad_words_build(const qn_engine_info *info, qn_gen_request *r, qn_api_error *err);

// What an echo shows of each prompt: its text, or its ids' text. ids, ends: of the prompts, one after
// the other. 400 where one answer would repeat too much.
bool qn_echo_build(const qn_engine_info *info, qn_gen_request *r, const qn_ids *ids,
                   const size_t *ends, qn_api_error *err);

#endif
