// SPDX-License-Identifier: Apache-2.0
// From a chat to token ids: template, spans of origin, tokenizer. Pure and thread-safe; the long work
// of a request.
#ifndef QN_ENGINE_PROMPT_H
#define QN_ENGINE_PROMPT_H

#include "engine/engine.h"

// variables: an object with messages, tools, add_generation_prompt, ... as template variables. Special
// tokens are recognized only in what the template itself wrote. text: the rendered text as well, or NULL. Errors:
// QN_ERR_INVALID (the template refuses; its message), QN_ERR_LIMIT (more than max_ids, 0: no bound),
// QN_ERR_UNSUPPORTED (no chat template).
qn_status qn_prompt_from_chat(const qn_engine_info *info, const json_t *variables, size_t max_ids,
                              qn_ids *ids, qn_buf *text, qn_error *err);

// The same, but the last message, whose content must be a string, is left open: the prompt ends where
// its content does, without what the template writes behind it (and without the white space at its end
// where the template trims it). QN_ERR_INVALID: the template does not show it, or
// shows it twice.
qn_status qn_prompt_continue_chat(const qn_engine_info *info, const json_t *variables,
                                  size_t max_ids, qn_ids *ids, qn_buf *text, qn_error *err);

#endif
