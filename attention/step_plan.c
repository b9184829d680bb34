// SPDX-License-Identifier: Apache-2.0
#include "attention/step_plan.h"

#include "base/checked.h"

#include <stdlib.h>
#include <string.h>

qn_step_plan *qn_step_plan_create(int32_t cap_seqs, int32_t cap_rows, int32_t cap_blocks,
                                  int32_t cap_copies, int32_t n_groups) {
    qn_step_plan p = {.cap_seqs = cap_seqs,
                      .cap_rows = cap_rows,
                      .cap_blocks = cap_blocks,
                      .cap_copies = cap_copies,
                      .n_groups = n_groups};
    const struct {
        uint32_t *offset;
        size_t count, size;
    } parts[] = {
        {&p.seqs_offset, (size_t)cap_seqs, sizeof(qn_plan_seq)},
        {&p.tokens_offset, (size_t)cap_rows, sizeof(int32_t)},
        {&p.blocks_offset, (size_t)cap_blocks, sizeof(int32_t)},
        {&p.copies_offset, (size_t)cap_copies, sizeof(qn_plan_copy)},
    };
    size_t bytes = sizeof p;
    for (size_t i = 0; i < QN_COUNT(parts); i++) {
        size_t part;
        if (!qn_align_size(bytes, 64, &bytes) || bytes > UINT32_MAX ||
            !qn_mul_size(parts[i].count, parts[i].size, &part)) {
            return NULL;
        }
        *parts[i].offset = (uint32_t)bytes;
        if (!qn_add_size(bytes, part, &bytes)) return NULL;
    }
    p.bytes = bytes;
    qn_step_plan *out = calloc(1, bytes);
    if (out) *out = p;
    return out;
}

void qn_step_plan_reset(qn_step_plan *p) {
    p->n_seqs = p->n_rows = p->n_logits = p->n_blocks = p->n_copies = 0;
}

bool qn_step_plan_valid(const qn_step_plan *p, int32_t block_size, const int32_t *n_blocks_of_group,
                        int32_t vocab_size, const char **reason) {
    const qn_plan_seq *seqs = qn_plan_seqs(p);
    const int32_t *tokens = qn_plan_tokens(p), *blocks = qn_plan_blocks(p);
    int32_t rows = 0, logits = 0;
#define REQUIRE(condition, text) \
    do {                         \
        if (!(condition)) {      \
            *reason = (text);    \
            return false;        \
        }                        \
    } while (0)
    REQUIRE(p->n_seqs >= 0 && p->n_seqs <= p->cap_seqs, "sequence count");
    REQUIRE(p->n_rows >= 0 && p->n_rows <= p->cap_rows, "row count");
    REQUIRE(p->n_blocks >= 0 && p->n_blocks <= p->cap_blocks, "block count");
    REQUIRE(p->n_copies >= 0 && p->n_copies <= p->cap_copies, "copy count");
    REQUIRE(p->n_groups >= 0 && p->n_groups <= QN_MAX_KV_GROUPS, "group count");
    for (int32_t i = 0; i < p->n_seqs; i++) {
        const qn_plan_seq *s = &seqs[i];
        REQUIRE(s->query_start == rows && s->query_len > 0 &&
                    s->query_len <= p->n_rows - rows, "rows of a sequence");
        REQUIRE(s->position >= 0 && s->position <= INT32_MAX - s->query_len, "position");
        REQUIRE(s->logit_start == logits && s->n_logits >= 0 && s->n_logits <= s->query_len,
                "logit rows of a sequence");
        rows += s->query_len;
        logits += s->n_logits;
        int32_t need = (s->position + s->query_len - 1) / block_size + 1;
        for (int32_t g = 0; g < p->n_groups; g++) {
            REQUIRE(s->block_start[g] >= 0 && s->n_blocks[g] >= need &&
                        s->n_blocks[g] <= p->n_blocks - s->block_start[g], "block table");
            for (int32_t b = 0; b < s->n_blocks[g]; b++) {
                int32_t id = blocks[s->block_start[g] + b];
                REQUIRE(id >= -1 && id < n_blocks_of_group[g], "block id");
            }
        }
    }
    REQUIRE(rows == p->n_rows && logits == p->n_logits, "totals");
    for (int32_t i = 0; i < rows; i++) {
        REQUIRE(tokens[i] >= QN_TOKEN_PENDING && tokens[i] < vocab_size, "token id");
    }
    for (int32_t i = 0; i < p->n_copies; i++) {
        const qn_plan_copy *c = &qn_plan_copies(p)[i];
        REQUIRE(c->group >= 0 && c->group < p->n_groups, "group of a copy");
        REQUIRE(c->src >= 0 && c->src < n_blocks_of_group[c->group] && c->dst >= 0 &&
                    c->dst < n_blocks_of_group[c->group], "pages of a copy");
    }
#undef REQUIRE
    return true;
}
