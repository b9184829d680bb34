// SPDX-License-Identifier: Apache-2.0
// What `tokenizer.ggml.pre` in a GGUF file stands for: the pre-tokenizers of the Hugging Face files
// that those models were converted from.
#include "tokenizer/internal.h"

#include "base/checked.h"

// Cased letters as deepseek's tokenizer.json lists them (an older Unicode than ours).
#define DEEPSEEK_LETTERS                                                                           \
    "\\s?[A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}"            \
    "\\x{1c4}-\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}"         \
    "\\x{37f}\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}"                  \
    "\\x{3f7}-\\x{481}\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}"    \
    "\\x{13f8}-\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}"                 \
    "\\x{1d6b}-\\x{1d77}\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}"                 \
    "\\x{1f20}-\\x{1f45}\\x{1f48}-\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}"         \
    "\\x{1f5f}-\\x{1f7d}\\x{1f80}-\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}"        \
    "\\x{1fc6}-\\x{1fcc}\\x{1fd0}-\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}"                 \
    "\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}"         \
    "\\x{2119}-\\x{211d}\\x{2124}\\x{2126}\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}"         \
    "\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-\\x{2149}\\x{214e}\\x{2183}\\x{2184}"                   \
    "\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-\\x{2cee}\\x{2cf2}\\x{2cf3}"                  \
    "\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}\\x{a771}-\\x{a787}"                 \
    "\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-\\x{fb17}"                 \
    "\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}"             \
    "\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}"         \
    "\\x{1e900}-\\x{1e943}]+"

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define UPPER        "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER        "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define TAIL_SLASH   " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define ASCII_PUNCT  "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]"
#define DEEPSEEK3                                                                                  \
    ASCII_PUNCT "[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+|"                           \
                " ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CJK      "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
#define CJK_KANA "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+"
#define BLOOM    " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+"

enum { MAX_PATTERNS = 6, MAX_NAMES = 12 };

typedef struct pre_type {
    const char *names[MAX_NAMES];
    const char *patterns[MAX_PATTERNS];
    bool like_llama3; // ignore_merges, and BOS unless the file says otherwise
} pre_type;

static const pre_type types[] = {
    {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"},
     {QN_PATTERN_LLAMA3},
     true},
    {{"smaug-bpe", "dbrx", "glm4", "chatglm-bpe"}, {QN_PATTERN_LLAMA3}, false},
    {{"qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan", "grok-2", "kormo"},
     {QN_PATTERN_QWEN2},
     false},
    {{"qwen35"},
     {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}|"
                   " ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
     false},
    {{"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "gigachat",
      "a.x-4.0", "mellum"},
     {QN_PATTERN_GPT2},
     false},
    {{"starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b"},
     {"\\p{N}", QN_PATTERN_GPT2},
     false},
    {{"falcon"}, {"[\\p{P}\\$\\+<=>\\^~\\|`]+", QN_PATTERN_GPT2, "[0-9][0-9][0-9]"}, false},
    {{"default"},
     {"[\\p{P}\\$\\+<=>\\^~\\|]+", QN_PATTERN_GPT2, "\\p{N}+", "[0-9][0-9][0-9]"},
     false},
    {{"deepseek-llm"},
     {"[\\r\\n]", DEEPSEEK_LETTERS,
      "\\s?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+",
      "\\s+$", CJK, "\\p{N}+"},
     false},
    {{"deepseek-coder"}, {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, "\\p{N}"}, false},
    {{"deepseek-v3", "hunyuan-dense"}, {"\\p{N}{1,3}", CJK_KANA, DEEPSEEK3}, false},
    {{"tekken"},
     {"[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER
      "*|\\p{N}|" TAIL_SLASH},
     true},
    {{"gpt-4o", "llama4", "minimax-m2"},
     {"[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" CONTRACTIONS "?|[^\\r\\n\\p{L}\\p{N}]?" UPPER
      "+" LOWER "*" CONTRACTIONS "?|\\p{N}{1,3}|" TAIL_SLASH},
     false},
    {{"bloom", "poro-chat", "gpt3-finnish"}, {BLOOM}, false},
    {{"viking"}, {BLOOM, "\\p{N}"}, false},
    {{"bailingmoe", "bailingmoe2", "llada-moe"},
     {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}|"
      " ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"},
     false},
    {{"seed-coder"},
     {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|"
                   "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
     false},
};

qn_status qn_pre_by_name(qn_pre *pre, qn_str name, bool *ignore_merges, bool *add_bos,
                         qn_error *err) {
    for (size_t i = 0; i < QN_COUNT(types); i++) {
        const pre_type *t = &types[i];
        for (size_t k = 0; k < MAX_NAMES && t->names[k]; k++) {
            if (!qn_str_is(name, t->names[k])) continue;
            *ignore_merges = t->like_llama3;
            *add_bos = t->like_llama3;
            qn_status st = QN_OK;
            for (size_t p = 0; p < MAX_PATTERNS && t->patterns[p] && st == QN_OK; p++) {
                st = qn_pre_add(pre, t->patterns[p], strlen(t->patterns[p]), false, QN_PRE_ISOLATED,
                                false, err);
            }
            return st;
        }
    }
    qn_buf buf = {0};
    qn_buf_puts(&buf, "unknown pre-tokenizer '");
    qn_buf_visible(&buf, name.data, QN_MIN(name.len, (size_t)40), false);
    qn_buf_puts(&buf, "' (tokenizer.ggml.pre); known:");
    for (size_t i = 0; i < QN_COUNT(types); i++)
        qn_buf_printf(&buf, " %s", types[i].names[0]);
    qn_buf_puts(&buf, " and their aliases");
    qn_status st =
        qn_fail(err, QN_ERR_UNSUPPORTED, "%s", buf.failed ? "unknown pre-tokenizer" : buf.data);
    qn_buf_free(&buf);
    return st;
}
