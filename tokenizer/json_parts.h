// SPDX-License-Identifier: Apache-2.0
// The small components of a tokenizer.json (normalizer, pre_tokenizer, decoder, post_processor).
#ifndef QN_TOKENIZER_JSON_PARTS_H
#define QN_TOKENIZER_JSON_PARTS_H

#include "tokenizer/internal.h"

#include <jansson.h>

// Each takes the member's value (NULL: absent) and sets up t; an unknown component is
// QN_ERR_UNSUPPORTED with its name.
qn_status qn_json_normalizer(qn_tokenizer *t, const json_t *part, qn_error *err);
qn_status qn_json_pre_tokenizer(qn_tokenizer *t, const json_t *part, qn_error *err);
qn_status qn_json_decoder(qn_tokenizer *t, const json_t *part, qn_error *err);
// Needs the vocabulary and its index.
qn_status qn_json_post_processor(qn_tokenizer *t, const json_t *part, qn_error *err);

#endif
