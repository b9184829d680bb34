// SPDX-License-Identifier: Apache-2.0
// Text to token ids and back. A qn_tokenizer is immutable after it was opened: any number of
// threads may use one.
#ifndef QN_TOKENIZER_TOKENIZER_H
#define QN_TOKENIZER_TOKENIZER_H

#include "base/buf.h"
#include "base/log.h"
#include "base/status.h"
#include "formats/gguf.h"

#include <stdint.h>

typedef struct qn_tokenizer qn_tokenizer;

// From GGUF metadata (a vocabulary-only file too). The strings are copied.
qn_status qn_tokenizer_from_gguf(const qn_gguf *g, const qn_log *log, qn_tokenizer **out,
                                 qn_error *err);
// From a Hugging Face directory: tokenizer.json (fast path over base/json_reader.h), with
// tokenizer_config.json and generation_config.json for the special tokens.
qn_status qn_tokenizer_from_hf(const char *dir, const qn_log *log, qn_tokenizer **out,
                               qn_error *err);
// From the bytes of a tokenizer.json alone (not kept). BOS and EOS are then known only as far as
// its post-processor and the names of its tokens tell.
qn_status qn_tokenizer_from_json_memory(const char *data, size_t len, const qn_log *log,
                                        qn_tokenizer **out, qn_error *err);
void qn_tokenizer_close(qn_tokenizer *t);

typedef enum qn_token_attr { // bits
    QN_TOKEN_CONTROL = 1,    // special: never in text that is shown (<|im_end|>)
    QN_TOKEN_BYTE = 2,       // SPM byte fallback <0x0A>
    QN_TOKEN_UNKNOWN = 4,
    QN_TOKEN_USER_DEFINED = 8, // added token that is ordinary text (matched before BPE)
    QN_TOKEN_UNUSED = 16,
} qn_token_attr;

int32_t qn_tokenizer_size(const qn_tokenizer *t);
// The raw token string as in the vocabulary (byte-level BPE: in its printable alphabet). id in
// range.
qn_str qn_tokenizer_token(const qn_tokenizer *t, int32_t id);
uint32_t qn_tokenizer_attrs(const qn_tokenizer *t, int32_t id);
int32_t qn_tokenizer_find(const qn_tokenizer *t, qn_str token); // -1: none
int32_t qn_tokenizer_bos(const qn_tokenizer *t);                // -1: none
int32_t qn_tokenizer_eos(const qn_tokenizer *t);                // -1: none
bool qn_tokenizer_add_bos(const qn_tokenizer *t);
// Ids that end a generation: eos, eot, and the end-of-turn tokens known by name.
size_t qn_tokenizer_stop_ids(const qn_tokenizer *t, const int32_t **ids);
const char *qn_tokenizer_kind(const qn_tokenizer *t); // "bpe (qwen2)", "spm"

// A text made of spans; in a span with parse_special, special tokens' strings become their ids; in
// others (user content) they are plain text. Spans are separate only for special tokens: merges and
// pre-tokenizer patterns see the joined text between special tokens.
typedef struct qn_text_span {
    size_t len; // bytes
    bool parse_special;
} qn_text_span;

// Growing array of ids, zero-initialize, freed by qn_ids_free.
typedef struct qn_ids {
    int32_t *data;
    size_t len, cap;
} qn_ids;
void qn_ids_free(qn_ids *ids);
bool qn_ids_push(qn_ids *ids, int32_t id);

// Appends the ids of text. spans NULL: the whole text is one span with parse_special. add_special:
// BOS/EOS as the model wants them. max_ids: QN_ERR_LIMIT as soon as there would be more (0: none).
// Text that is not UTF-8 is taken byte for byte. Cost is O(n log n) at worst.
qn_status qn_tokenize(const qn_tokenizer *t, const char *text, size_t len,
                      const qn_text_span *spans, size_t n_spans, bool add_special, size_t max_ids,
                      qn_ids *out, qn_error *err);

// Bytes of a token as text: byte-level decoded, SPM space restored, control tokens as nothing
// unless `special`. Appends to out. The first token of a text in SPM keeps its space; see qn_detok.
bool qn_token_bytes(const qn_tokenizer *t, int32_t id, bool special, qn_buf *out);

// Streaming detokenizer: one per sequence. It never gives out half a UTF-8 character; bytes that
// cannot become one are replaced by U+FFFD, at the latest at flush.
typedef struct qn_detok {
    const qn_tokenizer *tokenizer;
    bool special; // show control tokens (skip_special_tokens = false)
    bool started; // an SPM text drops the leading space of its first token
    char pending[8];
    uint8_t n_pending;
} qn_detok;
// at_start: the tokens begin a text (not the continuation of a prompt).
void qn_detok_init(qn_detok *d, const qn_tokenizer *t, bool special, bool at_start);
bool qn_detok_push(qn_detok *d, int32_t id,
                   qn_buf *out);               // appends whole characters; false: no memory
bool qn_detok_flush(qn_detok *d, qn_buf *out); // what is held back, as U+FFFD

// Incremental search for stop strings in streamed text: text that could be the beginning of a stop
// string is held back.
typedef struct qn_stop_matcher qn_stop_matcher;
// Copies the strings. n at most 64, each at most 1,024 bytes and not empty, else
// QN_ERR_LIMIT/INVALID.
qn_status qn_stop_matcher_create(const qn_str *strings, size_t n, qn_stop_matcher **out,
                                 qn_error *err);
void qn_stop_matcher_destroy(qn_stop_matcher *m);
// Feeds text; appends to out what is certainly not part of a stop string. Returns the index of the
// stop string that matched (text before it was appended; the match itself is appended only with
// include), or -1. After a match the matcher takes no more.
int qn_stop_matcher_push(qn_stop_matcher *m, const char *text, size_t len, bool include,
                         qn_buf *out);
void qn_stop_matcher_flush(qn_stop_matcher *m, qn_buf *out); // end of stream: gives out the rest

#endif
