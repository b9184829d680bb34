// SPDX-License-Identifier: Apache-2.0
// One step: check the plan, then the sections one after another, then sampling.
#include "base/checked.h"
#include "base/os.h"
#include "cpu/executable.h"

#include <math.h>
#include <string.h>

// What the items of one section share.
typedef struct section_run {
    qn_executable *x;
    const section *s;
    int32_t m; // rows
    bool first;
    int32_t rows_per_item;   // ROWS
    int32_t panels_per_item; // LINEAR
    int32_t tokens_per_item, token_items;
    int32_t n_tiles;         // ATTENTION
} section_run;

static const uint8_t *weight_data(const qn_executable *x, int32_t index) {
    return x->weights + x->layout.weights[index].offset;
}

static const float *vector_data(const qn_executable *x, int32_t index) {
    return (const float *)(const void *)weight_data(x, index);
}

static float *rope_row(const qn_executable *x, int32_t table, int32_t row) {
    const buffer_place *place = &x->layout.ropes[table];
    return (float *)(void *)(x->workspace + place->offset) + (size_t)row * place->stride;
}

static void make_rope_row(const qn_executable *x, int32_t row) {
    const float position = (float)x->row_pos[row];
    for (size_t i = 0; i < x->program->n_ropes; i++) {
        const qn_program_rope *rope = &x->program->ropes[i];
        float *c = rope_row(x, (int32_t)i, row), *s = c + x->layout.ropes[i].stride / 2;
        for (int32_t d = 0; d < rope->rot_dims / 2; d++) {
            const float angle = position * rope->inv_freq[d];
            c[d] = cosf(angle) * rope->mscale;
            s[d] = sinf(angle) * rope->mscale;
        }
    }
}

static void embed_row(const qn_executable *x, const qn_op *op, int32_t row, float *y) {
    const qn_program_weight *w = &x->program->weights[op->weight];
    const cpu_weight *c = &x->layout.weights[op->weight];
    int32_t token = qn_plan_tokens(x->plan)[row];
    if (token == QN_TOKEN_PENDING) {
        token = x->slot_last[qn_plan_seqs(x->plan)[x->row_seq[row]].slot];
    }
    if (token < 0) {
        // The slot's last sample failed: what follows from it must not look like a result.
        for (int64_t i = 0; i < w->n_cols; i++) y[i] = NAN;
    } else if (c->layout == WEIGHT_PANELS) {
        qn_cpu_panel_row(w->type, (int32_t)w->n_cols, weight_data(x, op->weight), c->panel_stride,
                         token, y);
    } else {
        uint64_t row_bytes = 0;
        qn_dtype_row_bytes(qn_dtype_get((uint32_t)w->type), (uint64_t)w->n_cols, &row_bytes);
        qn_dequantize_row(w->type, weight_data(x, op->weight) + (uint64_t)token * row_bytes, y,
                          (size_t)w->n_cols);
    }
}

// K and V of a layer and head inside each page of a group.
static size_t slab_offset(const qn_executable *x, const qn_op *op, int32_t head) {
    const int32_t group = op->attn.group;
    const size_t heads = (size_t)x->program->groups[group].n_kv_heads;
    return ((size_t)op->layer * heads + (size_t)head) * 2 * x->layout.kv[group].slab_bytes;
}

static void kv_write_row(const qn_executable *x, const qn_op *op, int32_t row) {
    const int32_t group = op->attn.group, dim = op->attn.head_dim, pos = x->row_pos[row];
    const qn_plan_seq *seq = &qn_plan_seqs(x->plan)[x->row_seq[row]];
    const int32_t page = qn_plan_blocks(x->plan)[seq->block_start[group] +
                                                 pos / x->limits.block_size];
    const kv_place *kv = &x->layout.kv[group];
    uint8_t *base = x->pages[group] + (size_t)page * kv->page_bytes;
    const float *k = buffer_row(x, op->src, row), *v = buffer_row(x, op->src2, row);
    for (int32_t h = 0; h < op->attn.n_kv_heads; h++, k += dim, v += dim) {
        uint8_t *slab = base + slab_offset(x, op, h);
        x->b->kernels->kv_write(k, v, dim, pos % x->limits.block_size,
                                x->limits.kv_dtype == QN_KV_F16, slab, slab + kv->slab_bytes);
    }
}

static void run_row_op(const qn_executable *x, const qn_op *op, int32_t row) {
    const cpu_kernels *kernels = x->b->kernels;
    const qn_program *p = x->program;
    float *y = op->kind == QN_OP_KV_WRITE ? NULL : buffer_row(x, op->dst, row);
    const int32_t n = y ? p->buffers[op->dst].width : 0;
    switch (op->kind) {
    case QN_OP_EMBED: embed_row(x, op, row, y); break;
    case QN_OP_RMS_NORM:
        kernels->rms_norm(buffer_row(x, op->src, row), vector_data(x, op->weight), y, n,
                          op->norm.group, op->norm.eps);
        break;
    case QN_OP_ROPE: {
        const qn_program_rope *rope = &p->ropes[op->rope.table];
        const float *c = rope_row(x, op->rope.table, row);
        kernels->rope(y, op->rope.n_heads, op->rope.head_dim, rope->kind, rope->rot_dims, c,
                      c + x->layout.ropes[op->rope.table].stride / 2);
        break;
    }
    case QN_OP_KV_WRITE: kv_write_row(x, op, row); break;
    case QN_OP_ADD:
        kernels->add(buffer_row(x, op->src, row), buffer_row(x, op->src2, row), y, n);
        break;
    case QN_OP_GATED:
        kernels->gated(op->act, buffer_row(x, op->src, row), buffer_row(x, op->src2, row), y, n);
        break;
    case QN_OP_SCALE: kernels->scale(buffer_row(x, op->src, row), op->value, y, n); break;
    case QN_OP_SOFTCAP: kernels->softcap(buffer_row(x, op->src, row), op->value, y, n); break;
    case QN_OP_SELECT:
        memcpy(y, buffer_row(x, op->src, x->logit_row[row]), (size_t)n * sizeof(float));
        break;
    case QN_OP_LINEAR:
    case QN_OP_ATTENTION: break; // sections of their own
    }
}

static void rows_item(void *user, int32_t item, int32_t worker) {
    const section_run *run = user;
    const qn_executable *x = run->x;
    const section *s = run->s;
    (void)worker;
    const int32_t begin = item * run->rows_per_item;
    const int32_t end = QN_MIN(run->m, begin + run->rows_per_item);
    for (int32_t row = begin; row < end; row++) {
        if (run->first) make_rope_row(x, row);
        for (size_t i = s->first; i < s->first + s->count; i++) {
            run_row_op(x, &x->program->ops[i], row);
        }
        if (s->quantize >= 0) {
            x->b->kernels->quantize(buffer_row(x, s->quantize, row),
                                    x->program->buffers[s->quantize].width,
                                    x->workspace + x->layout.quants_offset +
                                        (size_t)row * x->layout.quants_bytes_per_row);
        }
    }
}

static int32_t panel_items(const section_run *run, const qn_op *op) {
    return QN_CEIL_DIV(run->x->layout.weights[op->weight].n_panels, run->panels_per_item);
}

static void linear_item(void *user, int32_t item, int32_t worker) {
    const section_run *run = user;
    const qn_executable *x = run->x;
    (void)worker;
    const int32_t token = item % run->token_items * run->tokens_per_item;
    item /= run->token_items;
    const qn_op *op = &x->program->ops[run->s->first];
    while (item >= panel_items(run, op)) item -= panel_items(run, op++);
    const qn_program_weight *w = &x->program->weights[op->weight];
    const cpu_weight *c = &x->layout.weights[op->weight];
    const int32_t begin = item * run->panels_per_item;
    const linear_args args = {
        .type = w->type,
        .k = (int32_t)w->n_cols,
        .panels = weight_data(x, op->weight),
        .panel_stride = c->panel_stride,
        .panel_begin = begin,
        .panel_end = QN_MIN(c->n_panels, begin + run->panels_per_item),
        .m = QN_MIN(run->m - token, run->tokens_per_item),
        .x = buffer_row(x, op->src, token),
        .x_stride = x->layout.buffers[op->src].stride,
        .q = x->workspace + x->layout.quants_offset +
             (size_t)token * x->layout.quants_bytes_per_row,
        .q_stride = x->layout.quants_bytes_per_row,
        .bias = op->bias >= 0 ? vector_data(x, op->bias) : NULL,
        .y = buffer_row(x, op->dst, token),
        .y_stride = x->layout.buffers[op->dst].stride,
    };
    x->b->kernels->linear(&args);
}

static void run_linear(section_run *run) {
    qn_executable *x = run->x;
    const qn_op *ops = &x->program->ops[run->s->first];
    const int32_t threads = pool_threads(x->b->pool);
    int64_t panels = 0;
    size_t panel_bytes = 64;
    for (size_t i = 0; i < run->s->count; i++) {
        const cpu_weight *w = &x->layout.weights[ops[i].weight];
        panels += w->n_panels;
        panel_bytes = QN_MAX(panel_bytes, w->panel_stride);
    }
    // About 128 KB of weights an item, several items a thread, whole tiles of the kernels.
    int64_t per = QN_MAX((int64_t)((128u << 10) / panel_bytes), (int64_t)4);
    per = QN_MIN(per, QN_CEIL_DIV(panels, (int64_t)threads * 4));
    run->panels_per_item = (int32_t)((per + 3) & ~(int64_t)3);
    int64_t items = 0;
    for (size_t i = 0; i < run->s->count; i++) items += panel_items(run, &ops[i]);
    // Too few for many threads: the tokens are shared out too.
    int64_t splits = items >= 2 * (int64_t)threads ? 1 : QN_CEIL_DIV(2 * (int64_t)threads, items);
    run->tokens_per_item = (int32_t)QN_CEIL_DIV((int64_t)run->m, splits);
    run->tokens_per_item = QN_MIN(run->m, QN_CEIL_DIV(run->tokens_per_item, 12) * 12);
    run->token_items = QN_CEIL_DIV(run->m, run->tokens_per_item);
    pool_run(x->b->pool, linear_item, run, (int32_t)(items * run->token_items));
}

static void attention_item(void *user, int32_t item, int32_t worker) {
    const section_run *run = user;
    const qn_executable *x = run->x;
    const qn_op *op = &x->program->ops[run->s->first];
    const attention_tile *tile = &x->tiles[item / op->attn.n_kv_heads];
    const int32_t head = item % op->attn.n_kv_heads, group = op->attn.group;
    const int32_t per_kv = op->attn.n_heads / op->attn.n_kv_heads;
    const qn_plan_seq *seq = &qn_plan_seqs(x->plan)[tile->seq];
    const qn_kv_group *kv = &x->program->groups[group];
    const size_t first = (size_t)head * (size_t)per_kv * (size_t)op->attn.head_dim;
    const size_t slab = slab_offset(x, op, head);
    const attention_args args = {
        .q = buffer_row(x, op->src, tile->row) + first,
        .q_stride = x->layout.buffers[op->src].stride,
        .out = buffer_row(x, op->dst, tile->row) + first,
        .out_stride = x->layout.buffers[op->dst].stride,
        .n_rows = tile->n_rows,
        .n_group = per_kv,
        .head_dim = op->attn.head_dim,
        .pos = x->row_pos[tile->row],
        .window = kv->kind == QN_KV_WINDOW ? kv->window : 0,
        .scale = op->attn.scale,
        .softcap = op->attn.softcap,
        .blocks = qn_plan_blocks(x->plan) + seq->block_start[group],
        .block_size = x->limits.block_size,
        .pages = x->pages[group],
        .page_bytes = x->layout.kv[group].page_bytes,
        .k_offset = slab,
        .v_offset = slab + x->layout.kv[group].slab_bytes,
        .f16 = x->limits.kv_dtype == QN_KV_F16,
        .scratch = (float *)(void *)(x->workspace + x->layout.scratch_offset +
                                     (size_t)worker * x->layout.scratch_bytes),
    };
    x->b->kernels->attention(&args);
}

static void run_attention(section_run *run) {
    qn_executable *x = run->x;
    const qn_op *op = &x->program->ops[run->s->first];
    const int32_t rows = QN_MAX(1, ATTENTION_QUERIES / (op->attn.n_heads / op->attn.n_kv_heads));
    int32_t n = 0;
    for (int32_t i = 0; i < x->plan->n_seqs; i++) {
        const qn_plan_seq *seq = &qn_plan_seqs(x->plan)[i];
        for (int32_t r = 0; r < seq->query_len; r += rows) {
            x->tiles[n++] = (attention_tile){i, seq->query_start + r,
                                             QN_MIN(rows, seq->query_len - r)};
        }
    }
    run->n_tiles = n;
    pool_run(x->b->pool, attention_item, run, n * op->attn.n_kv_heads);
}

static void run_section(qn_executable *x, size_t index) {
    const section *s = &x->layout.sections[index];
    section_run run = {.x = x, .s = s, .first = index == 0,
                       .m = s->rows == QN_ROWS_TOKENS ? x->plan->n_rows : x->plan->n_logits};
    if (run.m == 0) return;
    switch (s->kind) {
    case SECTION_ROWS:
        run.rows_per_item = QN_MAX(1, run.m / (8 * pool_threads(x->b->pool)));
        pool_run(x->b->pool, rows_item, &run, QN_CEIL_DIV(run.m, run.rows_per_item));
        break;
    case SECTION_LINEAR: run_linear(&run); break;
    case SECTION_ATTENTION: run_attention(&run); break;
    }
}

static void sample_item(void *user, int32_t item, int32_t worker) {
    qn_executable *x = user;
    qn_sample_logits(buffer_row(x, x->program->logits, item), x->program->vocab_size,
                     &x->sample_rows[item],
                     x->workspace + x->layout.scratch_offset +
                         (size_t)worker * x->layout.scratch_bytes,
                     &x->samples[item]);
}

static qn_status check_plan(const qn_executable *x, const qn_step_plan *plan, qn_error *err) {
    const qn_exec_limits *limits = &x->limits;
    const char *reason = "";
    if (plan->n_rows > limits->max_rows || plan->n_seqs > limits->max_seqs ||
        plan->n_logits > limits->max_logits) {
        return qn_fail(err, QN_ERR_LIMIT, "the step has %d rows of %d sequences and %d logit rows, "
                       "more than %d, %d, %d", plan->n_rows, plan->n_seqs, plan->n_logits,
                       limits->max_rows, limits->max_seqs, limits->max_logits);
    }
    if (plan->n_groups != x->program->n_groups ||
        !qn_step_plan_valid(plan, limits->block_size, limits->n_blocks, x->program->vocab_size,
                            &reason)) {
        return qn_fail(err, QN_ERR_INTERNAL, "bad step plan: %s", *reason ? reason : "groups");
    }
    for (int32_t i = 0; i < plan->n_seqs; i++) {
        const qn_plan_seq *seq = &qn_plan_seqs(plan)[i];
        if (seq->slot < 0 || seq->slot >= limits->max_seqs ||
            seq->position > limits->max_len - seq->query_len) {
            return qn_fail(err, QN_ERR_INTERNAL, "bad step plan: slot or length");
        }
        if (seq->adapter >= 0) {
            return qn_fail(err, QN_ERR_UNSUPPORTED, "the CPU backend has no adapters");
        }
        for (int32_t g = 0; g < plan->n_groups; g++) {
            const int32_t first = qn_kv_first_visible(&x->program->groups[g], seq->position);
            const int32_t last = seq->position + seq->query_len - 1;
            const int32_t *blocks = qn_plan_blocks(plan) + seq->block_start[g];
            for (int32_t b = first / limits->block_size; b <= last / limits->block_size; b++) {
                if (blocks[b] < 0) {
                    return qn_fail(err, QN_ERR_INTERNAL, "bad step plan: a visible page is gone");
                }
            }
        }
    }
    return QN_OK;
}

qn_status qn_cpu_submit(qn_executable *x, const qn_step_plan *plan, const qn_sample_row *rows,
                        qn_error *err) {
    if (x->in_flight) return qn_fail(err, QN_ERR_BUSY, "a step is in flight");
    qn_status st = check_plan(x, plan, err);
    if (st != QN_OK) return st;
    const uint64_t begin = qn_os_now_ns();
    x->plan = plan;
    x->sample_rows = rows;
    for (int32_t i = 0; i < plan->n_copies; i++) {
        const qn_plan_copy *c = &qn_plan_copies(plan)[i];
        const size_t bytes = x->layout.kv[c->group].page_bytes;
        if (c->src == c->dst) continue;
        memcpy(x->pages[c->group] + (size_t)c->dst * bytes,
               x->pages[c->group] + (size_t)c->src * bytes, bytes);
    }
    for (int32_t i = 0; i < plan->n_seqs; i++) {
        const qn_plan_seq *seq = &qn_plan_seqs(plan)[i];
        for (int32_t r = 0; r < seq->query_len; r++) {
            x->row_seq[seq->query_start + r] = i;
            x->row_pos[seq->query_start + r] = seq->position + r;
        }
        for (int32_t r = 0; r < seq->n_logits; r++) {
            x->logit_row[seq->logit_start + r] =
                seq->query_start + seq->query_len - seq->n_logits + r;
        }
    }
    pthread_mutex_lock(&x->b->lock);
    for (size_t i = 0; i < x->layout.n_sections; i++) run_section(x, i);
    const uint64_t logits_done = qn_os_now_ns();
    pool_run(x->b->pool, sample_item, x, plan->n_logits);
    pthread_mutex_unlock(&x->b->lock);
    x->seconds_forward = (double)(logits_done - begin) * 1e-9;
    x->seconds_sample = (double)(qn_os_now_ns() - logits_done) * 1e-9;
    for (int32_t i = 0; i < plan->n_seqs; i++) {
        const qn_plan_seq *seq = &qn_plan_seqs(plan)[i];
        if (seq->n_logits > 0) {
            x->slot_last[seq->slot] = x->samples[seq->logit_start + seq->n_logits - 1].id;
        }
    }
    x->n_logits = plan->n_logits;
    x->in_flight = true;
    return QN_OK;
}
