// SPDX-License-Identifier: Apache-2.0
// What the files of tokenizer/ share. Not for other folders (tests may look inside).
//
// Invariants of an opened tokenizer:
// 1. It is never written to again; everything a call needs beside it is in that call's qn_tok_work.
// 2. A CONTROL or UNKNOWN token is reached only through qn_added_match with parse_special (or as
//    BOS/EOS, or UNKNOWN as the stand-in for text that has no token): merges that would make one
//    are not in the table, whole words that spell one are not looked up.
// 3. Every place lies inside bytes; ids in tables are in [0, n).
#ifndef QN_TOKENIZER_INTERNAL_H
#define QN_TOKENIZER_INTERNAL_H

#include "tokenizer/tokenizer.h"

#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>

enum {
    QN_VOCAB_MAX = 1 << 22,    // ids; the largest vocabularies have about 2^18
    QN_TOK_MAX_PIECE = 1024,   // bytes: longer tokens are never looked up in text
    QN_TOK_MAX_TEXT = 1 << 30, // bytes of one qn_tokenize call
    QN_PRE_MAX_STAGES = 24,
    QN_NORM_MAX_STEPS = 16,
    QN_TOK_MAX_AFFIX = 16,
    QN_TOK_MAX_STOP = 64,
};

#define QN_SPACE_MARK "\xE2\x96\x81" // U+2581, how SPM vocabularies write a space

// ---- vocab.c: token strings, attributes, and the way from a string to its id

typedef struct qn_vocab_place {
    uint32_t at, len; // in qn_vocab.bytes
} qn_vocab_place;

typedef struct qn_vocab {
    qn_buf bytes; // all token strings, one after another
    qn_vocab_place *place;
    uint8_t *attrs; // qn_token_attr bits
    float *scores;  // SPM only, else NULL
    size_t n, cap;
    uint64_t *slots; // open addressing: high half hash, low half id + 1; 0 is empty
    size_t mask;
    uint64_t seed;
    uint32_t max_len; // of all tokens
} qn_vocab;

// Stores a token; ids may come in any order, holes are UNUSED and empty. Replaces what was there.
qn_status qn_vocab_set(qn_vocab *v, size_t id, qn_str text, uint8_t attrs, qn_error *err);
// The same for a string that is already in v->bytes.
qn_status qn_vocab_put(qn_vocab *v, size_t id, size_t at, size_t len, uint8_t attrs, qn_error *err);
// Builds the index; where two ids have one string the lower id is found.
qn_status qn_vocab_index(qn_vocab *v, qn_error *err);
int32_t qn_vocab_find(const qn_vocab *v, const char *s, size_t len); // -1: none
void qn_vocab_free(qn_vocab *v);
static inline qn_str qn_vocab_text(const qn_vocab *v, size_t id) {
    return (qn_str){v->bytes.data + v->place[id].at, v->place[id].len};
}

// ---- merges.c: (left id, right id) -> rank and the merged id

typedef struct qn_merge {
    uint32_t left_1, right; // the left id + 1; 0: empty slot
    uint32_t rank, id;
} qn_merge;

typedef struct qn_merges {
    qn_merge *slots;
    size_t mask, count;
    uint64_t seed;
    uint32_t last_id; // of the merge added last: the next one's is often this or the one after
    uint32_t next_rank;
    size_t skipped; // merges with a part or result that is no token
} qn_merges;

qn_status qn_merges_init(qn_merges *m, size_t expected, qn_error *err);
// Adds the next merge, ranked by its place. A part that is not in the vocabulary: counted, skipped.
qn_status qn_merges_add(qn_merges *m, const qn_vocab *v, qn_str left, qn_str right, qn_error *err);
void qn_merges_free(qn_merges *m);
// The slot where a pair is or would be; slots is not NULL.
static inline qn_merge *qn_merges_slot(const qn_merges *m, uint32_t left, uint32_t right) {
    // Keys are chosen by whoever made the file, so the seed goes into the mix twice.
    uint64_t x = ((uint64_t)left << 32 | right) ^ m->seed;
    x *= 0x9e3779b97f4a7c15u;
    x ^= x >> 32;
    x = (x + m->seed) * 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    for (size_t i = (size_t)x & m->mask;; i = (i + 1) & m->mask) {
        qn_merge *s = &m->slots[i];
        if ((s->left_1 == left + 1 && s->right == right) || s->left_1 == 0) return s;
    }
}
static inline const qn_merge *qn_merges_get(const qn_merges *m, uint32_t left, uint32_t right) {
    const qn_merge *s = m->slots ? qn_merges_slot(m, left, right) : NULL;
    return s && s->left_1 ? s : NULL;
}

// ---- pretok.c, pretok_scan.c, pretok_names.c: cutting text into words

typedef enum qn_pre_kind {
    QN_PRE_REGEX,
    QN_PRE_GPT2,      // hand-written scanner for the pattern of that name
    QN_PRE_CL100K,    // the same for llama-bpe (max_digits 3) and qwen2 (1)
    QN_PRE_WORDSTART, // before U+2581 that follows something else; legal where no token crosses it
} qn_pre_kind;

typedef enum qn_pre_behavior { // what becomes of a match
    QN_PRE_ISOLATED,
    QN_PRE_REMOVED,
    QN_PRE_WITH_PREVIOUS,
    QN_PRE_WITH_NEXT,
    QN_PRE_CONTIGUOUS,
} qn_pre_behavior;

typedef struct qn_pre_stage {
    qn_pre_kind kind;
    qn_pre_behavior behavior;
    bool invert; // what does not match counts as the match
    int max_digits;
    pcre2_code *code;
} qn_pre_stage;

typedef struct qn_pre {
    qn_pre_stage stages[QN_PRE_MAX_STAGES];
    size_t n;
    pcre2_match_context *limits;
} qn_pre;

#define QN_PATTERN_GPT2                                                                            \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define QN_PATTERN_LLAMA3                                                                          \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"                      \
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define QN_PATTERN_QWEN2                                                                           \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"                           \
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

// Adds a stage for an Oniguruma-style pattern: the known ones by their scanner, others by PCRE2.
// literal: the pattern is a plain string.
qn_status qn_pre_add(qn_pre *pre, const char *pattern, size_t len, bool literal,
                     qn_pre_behavior behavior, bool invert, qn_error *err);
// The same without the scanners (tests compare the two).
qn_status qn_pre_add_regex(qn_pre *pre, const char *pattern, size_t len, bool literal,
                           qn_pre_behavior behavior, bool invert, qn_error *err);
qn_status qn_pre_add_wordstart(qn_pre *pre, qn_error *err);
// The stages that GGUF files mean by a name; *ignore_merges and *add_bos get its defaults.
qn_status qn_pre_by_name(qn_pre *pre, qn_str name, bool *ignore_merges, bool *add_bos,
                         qn_error *err);
void qn_pre_free(qn_pre *pre);

typedef qn_status (*qn_piece_fn)(void *user, const char *s, size_t len);
// Calls fn for each piece, in order. Bytes that are not UTF-8 are pieces of their own (whole runs).
// *match_data: NULL at first, kept between calls, freed by the caller.
qn_status qn_pre_split(const qn_pre *pre, const char *s, size_t len, pcre2_match_data **match_data,
                       qn_piece_fn fn, void *user, qn_error *err);

// End of the match that starts at pos < len of valid UTF-8; always > pos.
size_t qn_scan_gpt2(const char *s, size_t len, size_t pos);
size_t qn_scan_cl100k(const char *s, size_t len, size_t pos, int max_digits);
// 1 letter, 2 number, 4 white space, 0 other.
int qn_char_class(uint32_t cp);

// ---- normalize.c: what happens to a text before it is cut

typedef enum qn_norm_kind {
    QN_NORM_NFC,
    QN_NORM_NFD,
    QN_NORM_NFKC,
    QN_NORM_NFKD,
    QN_NORM_PREPEND, // a, unless the text is empty
    QN_NORM_PREFIX,  // a, unless the text starts with it
    QN_NORM_REPLACE, // every a by b
} qn_norm_kind;

typedef struct qn_norm_step {
    qn_norm_kind kind;
    bool first_only; // PREPEND, PREFIX: only where the text begins
    char a[32], b[32];
    size_t a_len, b_len;
} qn_norm_step;

typedef struct qn_norm {
    qn_norm_step steps[QN_NORM_MAX_STEPS];
    size_t n;
} qn_norm;

qn_status qn_norm_add(qn_norm *norm, qn_norm_kind kind, bool first_only, qn_str a, qn_str b,
                      qn_error *err);
// *result views text, one or two: nothing is copied where nothing changes. Linear in the text but
// for the sort of long runs of combining marks (n log n).
qn_status qn_norm_run(const qn_norm *norm, bool first, qn_str text, qn_buf *one, qn_buf *two,
                      qn_str *result, qn_error *err);

// ---- added.c: special and user-defined tokens in text

typedef struct qn_added {
    int32_t id;
    bool control;
    bool lstrip, rstrip, single_word;
} qn_added;

typedef struct qn_added_set {
    qn_added *items; // sorted by string
    size_t n, cap;
    uint32_t root[257]; // items whose string begins with byte b: [root[b], root[b + 1])
} qn_added_set;

bool qn_added_push(qn_added_set *set, qn_added item);
qn_status qn_added_sort(qn_added_set *set, const qn_vocab *v, qn_error *err);
// The longest token at text[pos]; control tokens only where they end by special_end. NULL: none.
const qn_added *qn_added_match(const qn_added_set *set, const qn_vocab *v, const char *text,
                               size_t len, size_t pos, size_t special_end, size_t *match_len);

// ---- the tokenizer

typedef enum qn_tok_kind { QN_TOK_BPE, QN_TOK_SPM } qn_tok_kind;

struct qn_tokenizer {
    qn_tok_kind kind;
    char kind_name[64];
    qn_vocab vocab;
    qn_merges merges;
    qn_pre pre;
    qn_norm norm;
    qn_added_set added;
    bool byte_level;    // tokens are in the printable alphabet of bytes
    bool byte_fallback; // characters without a token become <0xXX>
    bool ignore_merges; // a word that is a token is taken whole
    bool fuse_unk;
    bool strip_first; // a shown text drops its first space
    int32_t bos, eos, unk;
    int32_t byte_id[256]; // byte level: the token of a byte; byte fallback: <0xXX>; -1: none
    int32_t prefix[QN_TOK_MAX_AFFIX], suffix[QN_TOK_MAX_AFFIX]; // added with add_special
    size_t n_prefix, n_suffix;
    int32_t stop[QN_TOK_MAX_STOP];
    size_t n_stop;
};

// Allocates with everything "none".
qn_tokenizer *qn_tokenizer_new(qn_error *err);
// load_json.c: all but qn_tokenizer_finish, for load_hf.c to add what other files say first.
qn_status qn_tokenizer_read_json(const char *data, size_t len, const qn_log *log,
                                 qn_tokenizer **out, qn_error *err);
// Adds an end id once; a token that is not CONTROL yet becomes it.
void qn_tokenizer_add_stop(qn_tokenizer *t, int64_t id);
// After vocab, attributes, bos and eos are set: byte table, added tokens from the attributes (those
// already in t->added keep their flags), end-of-turn tokens by name.
qn_status qn_tokenizer_finish(qn_tokenizer *t, qn_error *err);
// True where no token has U+2581 behind another character: words can be cut there.
bool qn_tokenizer_words_end_at_space(const qn_tokenizer *t);

// The printable alphabet of byte-level BPE (GPT-2): byte to code point and back (-1: not in it).
uint32_t qn_byte_char(uint8_t byte);
int qn_char_byte(uint32_t cp);

// ---- bpe.c: one word to ids

typedef struct qn_symbol {
    uint32_t start, len; // bytes of the word; len 0: merged away
    int32_t id;          // -1: no token
    uint32_t prev, next; // UINT32_MAX: none
} qn_symbol;

typedef struct qn_pair { // a possible merge, in the heap
    uint32_t key, pos;   // smaller key first, then smaller position
    uint32_t right, len; // the right symbol, and the bytes of both: stale when they changed
    uint32_t id;
} qn_pair;

typedef struct qn_word_slot {
    const char *s;
    uint32_t len, generation, n;
    size_t out;
} qn_word_slot;

// Everything one qn_tokenize call changes.
typedef struct qn_tok_work {
    const qn_tokenizer *t;
    qn_ids *out;
    size_t base, max_ids;
    qn_error *err;
    qn_symbol *symbols;
    size_t n_symbols, cap_symbols;
    qn_pair *heap;
    size_t n_heap, cap_heap;
    qn_word_slot *words; // the same word earlier in this text: its ids are copied
    size_t word_mask;
    uint32_t generation; // of the text buffer that slots point into; slots of others do not count
    uint32_t segments;   // the next generation
    qn_buf norm_one, norm_two;
    pcre2_match_data *match_data;
    bool always_heap; // tests: also for short words
} qn_tok_work;

// Appends the ids of one word to w->out.
qn_status qn_bpe_word(qn_tok_work *w, const char *s, size_t len);

#endif
