// SPDX-License-Identifier: Apache-2.0
// Whole steps of a model in the shape of Qwen3-0.6B with random weights on the CPU backend: time to
// load, prefill of 256 tokens, decoding of 1, 8 and 32 sequences with 256 tokens in their KV.
// Arguments: weight type (q8_0), threads (all), instruction set (the best). The type "all": a line
// for each type with its bits per weight in the file and in memory, prefill, and decoding of 1
// sequence.
#include "base/checked.h"
#include "base/os.h"
#include "base/philox.h"
#include "cpu/cpu_backend.h"
#include "tools/synth_blocks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    HIDDEN = 1024, HEADS = 16, KV_HEADS = 8, DIM = 128, INNER = 3072, VOCAB = 151936, LAYERS = 28,
    MAX_LEN = 512, MAX_SEQS = 32, MAX_ROWS = 512, BLOCK = 32, CONTEXT = 256,
};

typedef struct bench {
    qn_program p;
    uint8_t *rows; // of HIDDEN or INNER inputs, repeated
    qn_dtype type;
    qn_executable *x;
    qn_step_plan *plan;
    int32_t len[MAX_SEQS];
    qn_sample_row samples[MAX_SEQS];
} bench;

static qn_op op_of(qn_op_kind kind, int32_t dst, int32_t src, int32_t src2, int32_t weight) {
    return (qn_op){.kind = kind, .dst = dst, .src = src, .src2 = src2, .weight = weight,
                   .bias = -1, .adapter_slot = -1};
}

static void add_norm(qn_program *p, int32_t dst, int32_t src, int32_t group) {
    const int32_t w = qn_program_add_weight(p, "norm", QN_F32, 1, group);
    qn_op op = op_of(QN_OP_RMS_NORM, dst, src, -1, w);
    op.norm.group = group;
    op.norm.eps = 1e-6f;
    qn_program_add_op(p, op);
}

static void add_linear(bench *b, int32_t dst, int32_t src) {
    const int32_t w = qn_program_add_weight(&b->p, "linear", b->type, b->p.buffers[dst].width,
                                            b->p.buffers[src].width);
    qn_program_add_op(&b->p, op_of(QN_OP_LINEAR, dst, src, -1, w));
}

static void build(bench *b) {
    qn_program *p = &b->p;
    static const struct {
        const char *name;
        int32_t width;
    } buffers[] = {{"x", HIDDEN}, {"xn", HIDDEN}, {"q", HEADS * DIM}, {"k", KV_HEADS * DIM},
                   {"v", KV_HEADS * DIM}, {"att", HEADS * DIM}, {"gate", INNER}, {"up", INNER}};
    enum { X, XN, Q, K, V, ATT, GATE, UP };
    for (size_t i = 0; i < QN_COUNT(buffers); i++) {
        qn_program_add_buffer(p, buffers[i].name, buffers[i].width, QN_ROWS_TOKENS);
    }
    const int32_t last = qn_program_add_buffer(p, "last", HIDDEN, QN_ROWS_LOGITS);
    p->logits = qn_program_add_buffer(p, "logits", VOCAB, QN_ROWS_LOGITS);
    float inv_freq[DIM / 2];
    for (int i = 0; i < DIM / 2; i++) inv_freq[i] = powf(1e6f, -2.0f * (float)i / DIM);
    qn_program_add_rope(p, QN_ROPE_HALVES, DIM, inv_freq, 1);
    p->n_groups = 1;
    p->groups[0] = (qn_kv_group){QN_KV_FULL, 0, LAYERS, KV_HEADS, DIM};
    p->vocab_size = VOCAB;
    p->hidden = HIDDEN;
    const int32_t embed = qn_program_add_weight(p, "embed", b->type, VOCAB, HIDDEN);
    p->weights[embed].also_embed = true;
    qn_program_add_op(p, op_of(QN_OP_EMBED, X, -1, -1, embed));
    for (int32_t layer = 0; layer < LAYERS; layer++) {
        add_norm(p, XN, X, HIDDEN);
        add_linear(b, Q, XN);
        add_linear(b, K, XN);
        add_linear(b, V, XN);
        add_norm(p, Q, Q, DIM);
        add_norm(p, K, K, DIM);
        qn_op op = op_of(QN_OP_ROPE, Q, -1, -1, -1);
        op.rope.n_heads = HEADS;
        op.rope.head_dim = DIM;
        qn_program_add_op(p, op);
        op.dst = K;
        op.rope.n_heads = KV_HEADS;
        qn_program_add_op(p, op);
        op = op_of(QN_OP_KV_WRITE, -1, K, V, -1);
        op.layer = layer;
        op.attn.n_heads = HEADS;
        op.attn.n_kv_heads = KV_HEADS;
        op.attn.head_dim = DIM;
        op.attn.scale = 1.0f / sqrtf(DIM);
        qn_program_add_op(p, op);
        op.kind = QN_OP_ATTENTION;
        op.dst = ATT;
        op.src = Q;
        op.src2 = -1;
        qn_program_add_op(p, op);
        add_linear(b, XN, ATT);
        qn_program_add_op(p, op_of(QN_OP_ADD, X, X, XN, -1));
        add_norm(p, XN, X, HIDDEN);
        add_linear(b, GATE, XN);
        add_linear(b, UP, XN);
        qn_program_add_op(p, op_of(QN_OP_GATED, GATE, GATE, UP, -1));
        add_linear(b, XN, GATE);
        qn_program_add_op(p, op_of(QN_OP_ADD, X, X, XN, -1));
    }
    qn_program_add_op(p, op_of(QN_OP_SELECT, last, X, -1, -1));
    add_norm(p, last, last, HIDDEN);
    qn_program_add_op(p, op_of(QN_OP_LINEAR, p->logits, last, -1, embed));
}

static qn_status read_weight(void *user, int32_t index, int64_t row, int64_t n_rows, void *dst,
                             qn_error *err) {
    (void)err;
    const bench *b = user;
    const qn_program_weight *w = &b->p.weights[index];
    uint64_t bytes = 0;
    qn_dtype_row_bytes(qn_dtype_get((uint32_t)w->type), (uint64_t)w->n_cols, &bytes);
    if (w->type == QN_F32 && w->n_rows == 1) {
        for (int64_t i = 0; i < w->n_cols; i++) ((float *)dst)[i] = 1;
        return QN_OK;
    }
    for (int64_t r = 0; r < n_rows; r++) {
        // 8 different rows of INNER inputs, of which the first may be taken.
        memcpy((char *)dst + (uint64_t)r * bytes, b->rows + (uint64_t)((row + r) % 8) * 4 * INNER,
               bytes);
    }
    return QN_OK;
}

static void add_rows(bench *b, int32_t slot, int32_t n, bool logits) {
    qn_step_plan *p = b->plan;
    qn_plan_seq *s = &qn_plan_seqs(p)[p->n_seqs++];
    *s = (qn_plan_seq){.slot = slot, .adapter = -1, .query_start = p->n_rows, .query_len = n,
                       .position = b->len[slot], .logit_start = p->n_logits, .n_logits = logits};
    s->block_start[0] = p->n_blocks;
    s->n_blocks[0] = (b->len[slot] + n - 1) / BLOCK + 1;
    for (int32_t i = 0; i < s->n_blocks[0]; i++) {
        qn_plan_blocks(p)[p->n_blocks++] = slot * (MAX_LEN / BLOCK) + i;
    }
    for (int32_t i = 0; i < n; i++) {
        qn_plan_tokens(p)[p->n_rows++] = (slot * 7919 + (b->len[slot] + i) * 104729) % VOCAB;
    }
    p->n_logits += logits;
    b->len[slot] += n;
}

static double run_step(bench *b) {
    qn_error err = {0};
    qn_step_result result;
    const uint64_t start = qn_os_now_ns();
    if (qn_cpu_backend.submit(b->x, b->plan, b->samples, &err) != QN_OK ||
        qn_cpu_backend.collect(b->x, &result, &err) != QN_OK) {
        fprintf(stderr, "%s\n", err.message);
        exit(1);
    }
    const double s = (double)(qn_os_now_ns() - start) * 1e-9;
    for (int32_t i = 0; i < result.n_logits; i++) {
        if (result.samples[i].status != QN_OK) fprintf(stderr, "logits are not finite\n");
    }
    qn_step_plan_reset(b->plan);
    return s;
}

// The model in b->type; its bits per weight in memory.
static bool load(bench *b, qn_backend *backend, double *seconds, double *bits) {
    const qn_dtype_info *info = qn_dtype_get((uint32_t)b->type);
    float *row = malloc(INNER * sizeof *row);
    b->rows = malloc(8 * 4 * INNER);
    b->plan = qn_step_plan_create(MAX_SEQS, MAX_ROWS, MAX_SEQS * MAX_LEN / BLOCK, 1, 1);
    if (!row || !b->rows || !b->plan) return false;
    qn_rng rng = {.key = 1};
    qn_synth_blocks synth;
    if (info->block_size > 1) qn_synth_blocks_init(&synth, b->type, 1, 0.03);
    for (int r = 0; r < 8; r++) {
        uint8_t *to = b->rows + (size_t)r * 4 * INNER;
        const size_t n = INNER / info->block_size;
        for (int i = 0; i < INNER; i++) row[i] = ((float)qn_rng_uniform(&rng) * 2 - 1) * 0.05f;
        if (info->block_size > 1) qn_synth_blocks_make(&synth, (uint64_t)r * n, n, to);
        else qn_quantize_row(b->type, row, to, INNER);
    }
    free(row);
    build(b);
    const qn_exec_limits limits = {.max_rows = MAX_ROWS, .max_seqs = MAX_SEQS,
                                   .max_logits = MAX_SEQS, .max_len = MAX_LEN, .block_size = BLOCK,
                                   .n_blocks = {MAX_SEQS * MAX_LEN / BLOCK}, .kv_dtype = QN_KV_F16};
    const qn_weight_source source = {.user = b, .read = read_weight};
    qn_error err = {0};
    qn_memory_need need;
    const uint64_t start = qn_os_now_ns();
    if (qn_cpu_backend.measure(backend, &b->p, &limits, &need, &err) != QN_OK ||
        qn_cpu_backend.compile(backend, &b->p, &source, &limits, &b->x, &err) != QN_OK) {
        fprintf(stderr, "%s\n", err.message);
        return false;
    }
    *seconds = (double)(qn_os_now_ns() - start) * 1e-9;
    double weights = 0;
    for (size_t i = 0; i < b->p.n_weights; i++) {
        weights += (double)b->p.weights[i].n_rows * (double)b->p.weights[i].n_cols;
    }
    *bits = (double)need.weights * 8 / weights;
    for (int i = 0; i < MAX_SEQS; i++) {
        b->samples[i] = (qn_sample_row){.seed = (uint64_t)i, .temperature = 0.8f, .top_p = 0.95f,
                                        .top_k = 20, .n_logprobs = -1};
    }
    return true;
}

static void unload(bench *b) {
    qn_cpu_backend.release(b->x);
    qn_program_free(&b->p);
    free(b->plan);
    free(b->rows);
}

static double prefill(bench *b, int32_t slot) {
    b->len[slot] = 0;
    add_rows(b, slot, CONTEXT, true);
    return run_step(b);
}

static double decode(bench *b, int32_t n) {
    double best = 1e30;
    for (int repeat = 0; repeat < 20; repeat++) {
        for (int32_t s = 0; s < n; s++) add_rows(b, s, 1, true);
        best = fmin(best, run_step(b));
    }
    return best;
}

static int one_type(qn_backend *backend, const qn_dtype_info *info, const char *machine) {
    bench b = {.type = info->type};
    double seconds, bits;
    if (!load(&b, backend, &seconds, &bits)) return 1;
    printf("%s, %s: loaded in %.2f s\n", machine, info->name, seconds);
    double best = 1e30;
    for (int i = 0; i < MAX_SEQS; i++) best = fmin(best, prefill(&b, i)); // fills the KV of all
    printf("prefill %d: %.1f ms, %.0f tokens/s\n", CONTEXT, best * 1e3, CONTEXT / best);
    static const int32_t batches[] = {1, 4, 8, 32};
    for (size_t i = 0; i < QN_COUNT(batches); i++) {
        best = decode(&b, batches[i]);
        printf("decode %d: %.2f ms, %.1f tokens/s\n", batches[i], best * 1e3, batches[i] / best);
    }
    unload(&b);
    return 0;
}

static int all_types(qn_backend *backend, const char *machine) {
    printf("%s\n%-8s %6s %7s %6s %9s %9s\n", machine, "type", "file", "memory", "load", "prefill",
           "decode");
    const qn_dtype_info *info;
    for (size_t i = 0; (info = qn_dtype_at(i)) != NULL; i++) {
        bench b = {.type = info->type};
        double seconds, bits, best = 1e30;
        if (!load(&b, backend, &seconds, &bits)) return 1;
        for (int k = 0; k < 5; k++) best = fmin(best, prefill(&b, 0));
        printf("%-8s %6.4g %7.4g %5.2fs %9.0f %9.1f\n", info->name,
               8.0 * info->block_bytes / info->block_size, bits, seconds, CONTEXT / best,
               1 / decode(&b, 1));
        fflush(stdout);
        unload(&b);
    }
    return 0;
}

int main(int argc, char **argv) {
    const char *type = argc > 1 ? argv[1] : "q8_0";
    const qn_dtype_info *info = qn_dtype_by_name(type);
    const bool all = strcmp(type, "all") == 0;
    qn_error err = {0};
    qn_backend *backend;
    const qn_backend_options options = {.threads = argc > 2 ? atoi(argv[2]) : 0,
                                        .isa = argc > 3 ? argv[3] : NULL};
    if ((!info && !all) || qn_cpu_backend.open(&options, &backend, &err) != QN_OK) {
        fprintf(stderr, "%s\n", info || all ? err.message : "unknown type");
        return 1;
    }
    char text[64];
    qn_cpu_backend.describe(backend, text, sizeof text);
    const int failed = all ? all_types(backend, text) : one_type(backend, info, text);
    qn_cpu_backend.close(backend);
    return failed;
}
