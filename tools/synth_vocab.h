// SPDX-License-Identifier: Apache-2.0
// A synthetic byte-level BPE vocabulary of any size, with the special tokens of the model's family.
#ifndef QN_TOOLS_SYNTH_VOCAB_H
#define QN_TOOLS_SYNTH_VOCAB_H

#include "base/buf.h"
#include "formats/gguf.h"
#include "tools/synth.h"

// Puts the tokenizer.ggml.* keys and the chat template. 256 byte tokens, merged pairs of letters up
// to where the special tokens begin, special tokens at the family's own ids where the size is the
// family's own. QN_ERR_UNSUPPORTED where `vocab` is too small to hold them.
qn_status qn_synth_put_vocab(qn_gguf_writer *w, qn_synth_family family, uint32_t vocab,
                             qn_error *err);
// A ChatML chat template.
qn_str qn_synth_chat_template(void);

#endif
