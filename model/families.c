// SPDX-License-Identifier: Apache-2.0
// The families that quern runs. A new family is a row here (and, where its layers have another
// shape, a branch of the description in arch.h that compile.c reads), never another forward pass.
#include "model/arch.h"

#include "base/checked.h"

#include <stdio.h>

static const qn_family families[] = {
    {.name = "llama", .hf_model_type = "llama", .gguf_rope = QN_ROPE_ADJACENT},
    // In GGUF Mistral calls itself llama.
    {.name = "llama", .hf_model_type = "mistral", .gguf_rope = QN_ROPE_ADJACENT},
    {.name = "qwen2", .hf_model_type = "qwen2", .qkv_bias = true, .gguf_rope = QN_ROPE_HALVES},
    {.name = "qwen3", .hf_model_type = "qwen3", .qk_norm = true, .gguf_rope = QN_ROPE_HALVES},
};

const qn_family *qn_family_by_gguf(qn_str architecture) {
    for (size_t i = 0; i < QN_COUNT(families); i++) {
        if (qn_str_is(architecture, families[i].name)) return &families[i];
    }
    return NULL;
}

const qn_family *qn_family_by_hf(const char *model_type) {
    for (size_t i = 0; i < QN_COUNT(families); i++) {
        if (strcmp(model_type, families[i].hf_model_type) == 0) return &families[i];
    }
    return NULL;
}

void qn_family_list(char *text, size_t size) {
    size_t used = 0;
    for (size_t i = 0; i < QN_COUNT(families) && used < size; i++) {
        int n = snprintf(text + used, size - used, "%s%s", i ? ", " : "",
                         families[i].hf_model_type);
        used += n > 0 ? (size_t)n : 0;
    }
}
