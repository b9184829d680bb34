// SPDX-License-Identifier: Apache-2.0
#include "tools/synth_vocab.h"

#include "base/arena.h"
#include "base/checked.h"
#include "base/hash.h"
#include "base/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_UNUSED = 5 };
enum { BYTES = 256, LONGEST = 12 };

typedef struct special {
    const char *name;
    int32_t type;
} special;

// At the ids that the family's tokenizers have them, counted from the first special token.
static const special qwen_specials[] = {
    {"<|endoftext|>", TYPE_CONTROL},      {"<|im_start|>", TYPE_CONTROL},
    {"<|im_end|>", TYPE_CONTROL},         {"<|object_ref_start|>", TYPE_CONTROL},
    {"<|object_ref_end|>", TYPE_CONTROL}, {"<|box_start|>", TYPE_CONTROL},
    {"<|box_end|>", TYPE_CONTROL},        {"<|quad_start|>", TYPE_CONTROL},
    {"<|quad_end|>", TYPE_CONTROL},       {"<|vision_start|>", TYPE_CONTROL},
    {"<|vision_end|>", TYPE_CONTROL},     {"<|vision_pad|>", TYPE_CONTROL},
    {"<|image_pad|>", TYPE_CONTROL},      {"<|video_pad|>", TYPE_CONTROL},
    {"<tool_call>", TYPE_USER_DEFINED},   {"</tool_call>", TYPE_USER_DEFINED},
    {"<|fim_prefix|>", TYPE_CONTROL},     {"<|fim_middle|>", TYPE_CONTROL},
    {"<|fim_suffix|>", TYPE_CONTROL},     {"<|fim_pad|>", TYPE_CONTROL},
    {"<|repo_name|>", TYPE_CONTROL},      {"<|file_sep|>", TYPE_CONTROL},
    {"<tool_response>", TYPE_USER_DEFINED}, {"</tool_response>", TYPE_USER_DEFINED},
    {"<think>", TYPE_USER_DEFINED},       {"</think>", TYPE_USER_DEFINED},
};
// The ChatML pair stands in two slots that Llama reserves.
static const special llama_specials[] = {
    {"<|begin_of_text|>", TYPE_CONTROL},          {"<|end_of_text|>", TYPE_CONTROL},
    {"<|reserved_special_token_0|>", TYPE_CONTROL}, {"<|reserved_special_token_1|>", TYPE_CONTROL},
    {"<|finetune_right_pad_id|>", TYPE_CONTROL},  {"<|reserved_special_token_2|>", TYPE_CONTROL},
    {"<|start_header_id|>", TYPE_CONTROL},        {"<|end_header_id|>", TYPE_CONTROL},
    {"<|eom_id|>", TYPE_CONTROL},                 {"<|eot_id|>", TYPE_CONTROL},
    {"<|python_tag|>", TYPE_CONTROL},             {"<|im_start|>", TYPE_CONTROL},
    {"<|im_end|>", TYPE_CONTROL},
};

typedef struct vocab {
    qn_arena arena;
    qn_str *tokens;
    qn_str *merges;
    int32_t *types;
    uint32_t size, count;
    uint32_t merge_count;
    qn_map known;
} vocab;

static bool add(vocab *v, qn_str text, int32_t type) {
    char *copy = qn_arena_strndup(&v->arena, text.data, text.len);
    if (!copy) return false;
    v->tokens[v->count] = (qn_str){copy, text.len};
    v->types[v->count] = type;
    if (!qn_map_put(&v->known, v->tokens[v->count], v->count)) return false;
    v->count++;
    return true;
}

// GPT-2's printable stand-ins: bytes that print stand for themselves, the others are U+0100 on.
static bool add_bytes(vocab *v) {
    for (int pass = 0; pass < 2; pass++) {
        uint32_t next = 256;
        for (uint32_t b = 0; b < BYTES; b++) {
            bool prints = (b >= '!' && b <= '~') || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
            uint32_t cp = prints ? b : next++;
            char text[4];
            size_t n = qn_utf8_encode(cp, text);
            // The family's order: printing bytes first.
            if (prints == (pass == 0) && !add(v, (qn_str){text, n}, TYPE_NORMAL)) return false;
        }
    }
    return true;
}

// 1: added, 0: not a new token, -1: out of memory.
static int add_merge(vocab *v, qn_str a, qn_str b) {
    char text[2 * LONGEST + 2];
    uint32_t other;
    size_t n = a.len + b.len;
    if (n > LONGEST) return 0;
    memcpy(text, a.data, a.len);
    memcpy(text + a.len, b.data, b.len);
    if (qn_map_get(&v->known, (qn_str){text, n}, &other)) return 0;
    if (!add(v, (qn_str){text, n}, TYPE_NORMAL)) return -1;
    char pair[2 * LONGEST + 2];
    memcpy(pair, a.data, a.len);
    pair[a.len] = ' ';
    memcpy(pair + a.len + 1, b.data, b.len);
    char *copy = qn_arena_strndup(&v->arena, pair, n + 1);
    if (!copy) return -1;
    v->merges[v->merge_count++] = (qn_str){copy, n + 1};
    return 1;
}

// Merges until `until` tokens exist: pairs of (leading space, letters) and (lower-case letters),
// walked along diagonals, so that combinations of common letters come first.
static bool add_merges(vocab *v, uint32_t until) {
    static const char letters[] = "etaoinsrhldcumwfgypbvkjxqzTIAHSWBCMPDLFNERGOYJKVUQXZ";
    uint32_t parts = 1 + sizeof letters - 1, first = v->count;
    qn_str base[1 + sizeof letters];
    base[0] = QN_STR("\xc4\xa0"); // the stand-in of the space
    for (uint32_t i = 1; i < parts; i++) base[i] = (qn_str){&letters[i - 1], 1};
    for (uint32_t sum = 0; v->count < until; sum++) {
        uint32_t before = v->count;
        for (uint32_t i = 0; i <= sum && v->count < until; i++) {
            uint32_t j = sum - i, have = parts + (v->count - first);
            if (i >= have || j >= have) continue;
            qn_str a = i < parts ? base[i] : v->tokens[first + i - parts];
            qn_str b = j < parts ? base[j] : v->tokens[first + j - parts];
            if (b.data[0] < 'a' || b.data[0] > 'z') continue;
            if (add_merge(v, a, b) < 0) return false;
        }
        if (v->count == before && sum > 2 * (parts + (v->count - first))) break; // all are made
    }
    return true;
}

static bool add_specials(vocab *v, const special *list, size_t n, bool qwen) {
    for (size_t i = 0; i < n && v->count < v->size; i++) {
        if (!add(v, qn_str_from(list[i].name), list[i].type)) return false;
    }
    for (uint32_t i = 0; v->count < v->size; i++) {
        char name[48];
        if (qwen) {
            snprintf(name, sizeof name, "[PAD%u]", v->count);
        } else {
            snprintf(name, sizeof name, "<|reserved_special_token_%u|>", i + 3);
        }
        if (!add(v, qn_str_from(name), qwen ? TYPE_UNUSED : TYPE_CONTROL)) return false;
    }
    return true;
}

static uint32_t id_of(const vocab *v, const char *name) {
    uint32_t id = 0;
    (void)qn_map_get(&v->known, qn_str_from(name), &id);
    return id;
}

static void put_keys(qn_gguf_writer *w, const vocab *v, bool qwen) {
    qn_gguf_put_str(w, "tokenizer.ggml.model", QN_STR("gpt2"));
    qn_gguf_put_str(w, "tokenizer.ggml.pre", qwen ? QN_STR("qwen2") : QN_STR("llama-bpe"));
    qn_gguf_put_str_array(w, "tokenizer.ggml.tokens", v->tokens, v->count);
    qn_gguf_put_i32_array(w, "tokenizer.ggml.token_type", v->types, v->count);
    qn_gguf_put_str_array(w, "tokenizer.ggml.merges", v->merges, v->merge_count);
    const char *bos = qwen ? "<|endoftext|>" : "<|begin_of_text|>";
    const char *pad = qwen ? "<|endoftext|>" : "<|finetune_right_pad_id|>";
    qn_gguf_put_u32(w, "tokenizer.ggml.bos_token_id", id_of(v, bos));
    qn_gguf_put_u32(w, "tokenizer.ggml.eos_token_id", id_of(v, "<|im_end|>"));
    qn_gguf_put_u32(w, "tokenizer.ggml.padding_token_id", id_of(v, pad));
    qn_gguf_put_bool(w, "tokenizer.ggml.add_bos_token", !qwen);
    qn_gguf_put_str(w, "tokenizer.chat_template", qn_synth_chat_template());
}

qn_str qn_synth_chat_template(void) {
    return QN_STR("{%- for message in messages %}\n"
                  "{{- '<|im_start|>' + message.role + '\\n' }}\n"
                  "{{- message.content }}\n"
                  "{{- '<|im_end|>\\n' }}\n"
                  "{%- endfor %}\n"
                  "{%- if add_generation_prompt %}\n"
                  "{{- '<|im_start|>assistant\\n' }}\n"
                  "{%- endif %}\n");
}

qn_status qn_synth_put_vocab(qn_gguf_writer *w, qn_synth_family family, uint32_t size,
                             qn_error *err) {
    bool qwen = family == QN_SYNTH_QWEN2 || family == QN_SYNTH_QWEN3;
    const special *specials = qwen ? qwen_specials : llama_specials;
    uint32_t named = (uint32_t)(qwen ? QN_COUNT(qwen_specials) : QN_COUNT(llama_specials));
    if (size < BYTES + named) {
        return qn_fail(err, QN_ERR_UNSUPPORTED,
                       "a vocabulary of %u tokens is too small for a synthetic tokenizer (%u)",
                       size, BYTES + named);
    }
    // The real ones: 151,936 tokens with specials from 151,643; 128,256 with specials from 128,000.
    uint32_t tail = qwen ? 293 : 256;
    uint32_t begin = size - QN_MIN(size - BYTES, QN_MAX(QN_MIN(tail, size / 8), named));
    vocab v = {.size = size};
    qn_arena_init(&v.arena, 0);
    v.tokens = calloc(size, sizeof *v.tokens);
    v.merges = calloc(size, sizeof *v.merges);
    v.types = calloc(size, sizeof *v.types);
    bool ok = v.tokens && v.merges && v.types && qn_map_init(&v.known, size, 1) && add_bytes(&v) &&
              add_merges(&v, begin) && add_specials(&v, specials, named, qwen);
    if (ok) put_keys(w, &v, qwen);
    qn_map_free(&v.known);
    qn_arena_free(&v.arena);
    free(v.tokens);
    free(v.merges);
    free(v.types);
    return ok ? QN_OK : qn_fail(err, QN_ERR_NOMEM, "out of memory for the vocabulary");
}
