// SPDX-License-Identifier: Apache-2.0
// A rule is a line of the table `rules`: the first line that names the mix and the tensor's role,
// and whose condition holds, gives the type; where none does, the mix's base.
#include "quant/mix.h"

#include "base/checked.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

typedef enum mix_id {
    F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_K_S, Q5_1, Q5_0, Q4_K_M, Q4_K_S, Q4_1, Q4_0, IQ4_NL,
    IQ4_XS, MXFP4, Q3_K_L, Q3_K_M, Q3_K_S, IQ3_M, IQ3_S, IQ3_XS, IQ3_XXS, Q2_K, Q2_K_S, IQ2_M,
    IQ2_S, IQ2_XS, IQ2_XXS, TQ2_0, TQ1_0, IQ1_M, IQ1_S, MIXES,
} mix_id;

static const qn_mix mixes[MIXES] = {
    [F32] = {"F32", QN_F32, 0},          [F16] = {"F16", QN_F16, 1},
    [BF16] = {"BF16", QN_BF16, 32},      [Q8_0] = {"Q8_0", QN_Q8_0, 7},
    [Q6_K] = {"Q6_K", QN_Q6_K, 18},      [Q5_K_M] = {"Q5_K_M", QN_Q5_K, 17},
    [Q5_K_S] = {"Q5_K_S", QN_Q5_K, 16},  [Q5_1] = {"Q5_1", QN_Q5_1, 9},
    [Q5_0] = {"Q5_0", QN_Q5_0, 8},       [Q4_K_M] = {"Q4_K_M", QN_Q4_K, 15},
    [Q4_K_S] = {"Q4_K_S", QN_Q4_K, 14},  [Q4_1] = {"Q4_1", QN_Q4_1, 3},
    [Q4_0] = {"Q4_0", QN_Q4_0, 2},       [IQ4_NL] = {"IQ4_NL", QN_IQ4_NL, 25},
    [IQ4_XS] = {"IQ4_XS", QN_IQ4_XS, 30}, [MXFP4] = {"MXFP4", QN_MXFP4, 38},
    [Q3_K_L] = {"Q3_K_L", QN_Q3_K, 13},  [Q3_K_M] = {"Q3_K_M", QN_Q3_K, 12},
    [Q3_K_S] = {"Q3_K_S", QN_Q3_K, 11},  [IQ3_M] = {"IQ3_M", QN_IQ3_S, 27},
    [IQ3_S] = {"IQ3_S", QN_IQ3_S, 26},   [IQ3_XS] = {"IQ3_XS", QN_IQ3_S, 22},
    [IQ3_XXS] = {"IQ3_XXS", QN_IQ3_XXS, 23}, [Q2_K] = {"Q2_K", QN_Q2_K, 10},
    [Q2_K_S] = {"Q2_K_S", QN_Q2_K, 21},  [IQ2_M] = {"IQ2_M", QN_IQ2_S, 29},
    [IQ2_S] = {"IQ2_S", QN_IQ2_XS, 28},  [IQ2_XS] = {"IQ2_XS", QN_IQ2_XS, 20},
    [IQ2_XXS] = {"IQ2_XXS", QN_IQ2_XXS, 19}, [TQ2_0] = {"TQ2_0", QN_TQ2_0, 37},
    [TQ1_0] = {"TQ1_0", QN_TQ1_0, 36},   [IQ1_M] = {"IQ1_M", QN_IQ1_M, 31},
    [IQ1_S] = {"IQ1_S", QN_IQ1_S, 24},
};

const qn_mix *qn_mix_by_name(const char *name) {
    static const struct {
        const char *name;
        mix_id id;
    } also[] = {{"Q3_K", Q3_K_M}, {"Q4_K", Q4_K_M}, {"Q5_K", Q5_K_M}};
    for (size_t i = 0; name && i < MIXES; i++) {
        if (strcasecmp(mixes[i].name, name) == 0) return &mixes[i];
    }
    for (size_t i = 0; name && i < QN_COUNT(also); i++) {
        if (strcasecmp(also[i].name, name) == 0) return &mixes[also[i].id];
    }
    return NULL;
}

const qn_mix *qn_mix_at(size_t i) { return i < MIXES ? &mixes[i] : NULL; }

// What a tensor is, by its name.
typedef enum role { OUTPUT, EMBED, ATTN_Q, ATTN_K, ATTN_V, ATTN_QKV, ATTN_OUT, GATE, UP, DOWN,
                    OTHER } role;

// Where a rule holds.
typedef enum when {
    ALWAYS,
    MORE_BITS,  // i < n/8, or i >= 7n/8, or (i - n/8) mod 3 = 2
    EIGHTH,     // i < n/8
    EIGHTH_PLAIN, // the same, without an importance matrix
    NO_EIGHTH_PLAIN, // i >= n/8, without one
    SIXTEENTH,  // i < n/16
    MIDDLE,     // n/8 <= i < 7n/8
    FIRST_TWO, FIRST_FOUR,
    GQA4,       // at least 4 query heads to a KV head
    PLAIN,      // without an importance matrix
    GQA4_OR_EXPERTS4, EIGHT_EXPERTS,
    IS_80_LAYERS, // the 70B models: few KV heads, so attn_v is cheap
} when;

#define BIT(mix) (UINT64_C(1) << (mix))
#define TINY (BIT(IQ2_XXS) | BIT(IQ2_XS) | BIT(IQ1_S) | BIT(IQ1_M))
#define IQ2S (BIT(IQ2_S) | BIT(IQ2_M))
#define ALL_QUANTIZED (~(BIT(F32) | BIT(F16) | BIT(BF16)))

static const struct rule {
    uint64_t mixes;
    role role;
    when when;
    qn_dtype type;
} rules[] = {
    {BIT(MXFP4) | BIT(Q8_0), OUTPUT, ALWAYS, QN_Q8_0},
    {TINY | IQ2S | BIT(IQ3_XXS), OUTPUT, ALWAYS, QN_Q5_K},
    {ALL_QUANTIZED, OUTPUT, ALWAYS, QN_Q6_K},

    {BIT(MXFP4), EMBED, ALWAYS, QN_Q8_0},
    {TINY, EMBED, ALWAYS, QN_Q2_K},
    {IQ2S | BIT(IQ3_XXS), EMBED, ALWAYS, QN_IQ3_S},
    {BIT(TQ1_0) | BIT(TQ2_0), EMBED, ALWAYS, QN_Q4_K},

    {TINY | IQ2S, ATTN_V, GQA4_OR_EXPERTS4, QN_Q4_K},
    {IQ2S, ATTN_V, ALWAYS, QN_IQ3_S},
    {TINY, ATTN_V, ALWAYS, QN_Q2_K},
    {ALL_QUANTIZED, ATTN_V, EIGHT_EXPERTS, QN_Q8_0},
    {BIT(Q4_K_M) | BIT(Q5_K_M), ATTN_V, MORE_BITS, QN_Q6_K},
    {BIT(Q2_K) | BIT(Q2_K_S) | BIT(IQ3_XXS) | BIT(IQ3_XS) | BIT(IQ3_S) | BIT(IQ3_M) | BIT(Q3_K_S) |
         BIT(Q3_K_M) | BIT(Q4_K_S) | BIT(Q4_K_M),
     ATTN_V, IS_80_LAYERS, QN_Q5_K},
    {BIT(Q2_K) | BIT(Q2_K_S) | BIT(IQ3_XXS) | BIT(IQ3_XS) | BIT(IQ3_S), ATTN_V, GQA4, QN_Q4_K},
    {BIT(Q2_K), ATTN_V, ALWAYS, QN_Q3_K},
    {BIT(IQ3_XXS), ATTN_V, PLAIN, QN_IQ3_S},
    {BIT(IQ3_M), ATTN_V, ALWAYS, QN_Q4_K},
    {BIT(Q3_K_M), ATTN_V, FIRST_TWO, QN_Q5_K},
    {BIT(Q3_K_M), ATTN_V, ALWAYS, QN_Q4_K},
    {BIT(Q3_K_L), ATTN_V, ALWAYS, QN_Q5_K},
    {BIT(IQ4_NL) | BIT(IQ4_XS), ATTN_V, GQA4, QN_Q5_K},
    {BIT(Q4_K_S), ATTN_V, FIRST_FOUR, QN_Q5_K},

    {TINY | IQ2S, ATTN_K, EIGHT_EXPERTS, QN_Q4_K},
    {ALL_QUANTIZED, ATTN_K, EIGHT_EXPERTS, QN_Q8_0},
    {BIT(IQ3_XS), ATTN_K, ALWAYS, QN_IQ3_XXS},
    {BIT(IQ3_XXS), ATTN_K, ALWAYS, QN_IQ2_S},
    {BIT(IQ3_XS), ATTN_Q, ALWAYS, QN_IQ3_XXS},
    {BIT(IQ3_XXS), ATTN_Q, ALWAYS, QN_IQ2_S},

    {IQ2S, DOWN, EIGHTH, QN_IQ3_S},
    {TINY, DOWN, EIGHTH, QN_Q2_K},
    {BIT(Q2_K), DOWN, ALWAYS, QN_Q3_K},
    {BIT(Q2_K_S), DOWN, EIGHTH, QN_Q4_K},
    {BIT(IQ3_XXS), DOWN, EIGHTH_PLAIN, QN_Q4_K},
    {BIT(IQ3_XXS), DOWN, NO_EIGHTH_PLAIN, QN_Q3_K},
    {BIT(Q3_K_M), DOWN, SIXTEENTH, QN_Q5_K},
    {BIT(Q3_K_M), DOWN, ALWAYS, QN_Q4_K},
    {BIT(IQ3_M), DOWN, EIGHTH, QN_Q4_K},
    {BIT(Q3_K_L), DOWN, ALWAYS, QN_Q5_K},
    {BIT(Q4_K_M) | BIT(Q5_K_M), DOWN, MORE_BITS, QN_Q6_K},
    {BIT(IQ4_NL) | BIT(IQ4_XS), DOWN, EIGHTH_PLAIN, QN_Q5_K},
    {BIT(Q4_K_S), DOWN, EIGHTH, QN_Q5_K},

    {BIT(IQ1_S) | BIT(IQ1_M), ATTN_OUT, ALWAYS, QN_IQ2_XXS},
    {IQ2S, ATTN_OUT, ALWAYS, QN_IQ3_S},
    {BIT(Q2_K) | BIT(Q3_K_S) | BIT(Q3_K_M) | BIT(Q4_K_S) | BIT(Q4_K_M) | BIT(IQ4_NL) |
         BIT(IQ4_XS) | BIT(IQ3_XS) | BIT(IQ3_XXS) | BIT(IQ3_S) | BIT(IQ3_M),
     ATTN_OUT, EIGHT_EXPERTS, QN_Q5_K},
    {BIT(Q2_K), ATTN_OUT, ALWAYS, QN_Q3_K},
    {BIT(IQ3_XXS), ATTN_OUT, ALWAYS, QN_IQ3_S},
    {BIT(Q3_K_M) | BIT(IQ3_M), ATTN_OUT, ALWAYS, QN_Q4_K},
    {BIT(Q3_K_L), ATTN_OUT, ALWAYS, QN_Q5_K},

    {BIT(Q3_K_M) | BIT(Q3_K_L) | BIT(IQ3_M), ATTN_QKV, ALWAYS, QN_Q4_K},
    {BIT(Q4_K_M), ATTN_QKV, ALWAYS, QN_Q5_K},
    {BIT(Q5_K_M), ATTN_QKV, ALWAYS, QN_Q6_K},

    {BIT(IQ3_XS), GATE, MIDDLE, QN_IQ3_XXS},
    {BIT(IQ3_XS), UP, MIDDLE, QN_IQ3_XXS},
};

static bool holds(when w, const qn_mix_model *m, uint32_t i) {
    const uint32_t n = m->layers, eighth = n / 8;
    const bool gqa4 = m->kv_heads > 0 && m->heads / m->kv_heads >= 4;
    switch (w) {
    case ALWAYS: return true;
    case MORE_BITS: return i < eighth || i >= 7 * n / 8 || (i - eighth) % 3 == 2;
    case EIGHTH: return i < eighth;
    case EIGHTH_PLAIN: return i < eighth && !m->imatrix;
    case NO_EIGHTH_PLAIN: return i >= eighth && !m->imatrix;
    case SIXTEENTH: return i < n / 16;
    case MIDDLE: return i >= eighth && i < 7 * n / 8;
    case FIRST_TWO: return i < 2;
    case FIRST_FOUR: return i < 4;
    case GQA4: return gqa4;
    case PLAIN: return !m->imatrix;
    case GQA4_OR_EXPERTS4: return gqa4 || m->experts >= 4;
    case EIGHT_EXPERTS: return m->experts == 8;
    case IS_80_LAYERS: return n == 80 && gqa4;
    }
    return false;
}

static role role_of(const char *name, bool tied, uint32_t *layer) {
    static const struct {
        const char *prefix;
        role role;
    } roles[] = {{"attn_q.", ATTN_Q},     {"attn_k.", ATTN_K},        {"attn_v.", ATTN_V},
                 {"attn_qkv.", ATTN_QKV}, {"attn_output.", ATTN_OUT}, {"ffn_gate", GATE},
                 {"ffn_up", UP},          {"ffn_down", DOWN}};
    *layer = 0;
    if (strcmp(name, "output.weight") == 0) return OUTPUT;
    if (strcmp(name, "token_embd.weight") == 0) return tied ? OUTPUT : EMBED;
    int at = 0;
    if (sscanf(name, "blk.%u.%n", layer, &at) != 1 || at == 0) return OTHER;
    for (size_t i = 0; i < QN_COUNT(roles); i++) {
        if (strncmp(name + at, roles[i].prefix, strlen(roles[i].prefix)) == 0) return roles[i].role;
    }
    return OTHER;
}

qn_dtype qn_mix_fitting(qn_dtype type, uint64_t cols) {
    if (cols % qn_dtype_get((uint32_t)type)->block_size == 0) return type;
    switch (type) {
    case QN_TQ1_0:
    case QN_TQ2_0: type = QN_Q4_0; break;
    case QN_Q4_K: type = QN_Q5_0; break;
    case QN_Q5_K: type = QN_Q5_1; break;
    case QN_Q6_K: type = QN_Q8_0; break;
    default: type = QN_IQ4_NL; break;
    }
    return cols % 32 == 0 ? type : QN_F16;
}

qn_dtype qn_mix_type(const qn_mix *mix, const qn_mix_model *model, const char *name,
                     uint32_t n_dims, uint64_t cols) {
    if (n_dims < 2 || strstr(name, "norm") || strstr(name, "ffn_gate_inp")) return QN_F32;
    uint32_t layer;
    const role r = role_of(name, model->tied, &layer);
    for (size_t i = 0; i < QN_COUNT(rules); i++) {
        if (rules[i].role == r && (rules[i].mixes & BIT(mix - mixes)) &&
            holds(rules[i].when, model, layer)) {
            return qn_mix_fitting(rules[i].type, cols);
        }
    }
    return qn_mix_fitting(mix->base, cols);
}
