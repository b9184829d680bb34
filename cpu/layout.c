// SPDX-License-Identifier: Apache-2.0
// From a program and limits to sections and the places of everything in memory. measure and compile
// both come through here.
#include "base/checked.h"
#include "cpu/executable.h"

#include <stdlib.h>
#include <string.h>

// Reserves count * size bytes at a multiple of 64; false on overflow.
static bool reserve(size_t *total, size_t count, size_t size, size_t *offset) {
    size_t bytes;
    *offset = *total;
    return qn_mul_size(count, size, &bytes) && qn_add_size(*total, bytes, total) &&
           qn_align_size(*total, 64, total);
}

static qn_status use_weight(const qn_program *p, cpu_layout *l, int32_t index, weight_layout as,
                            qn_error *err) {
    cpu_weight *w = &l->weights[index];
    const bool matrix = w->layout != WEIGHT_VECTOR && as != WEIGHT_VECTOR;
    if (w->layout == WEIGHT_UNUSED || (matrix && as == WEIGHT_PANELS)) {
        w->layout = as;
    } else if (w->layout != as && !matrix) {
        return qn_fail(err, QN_ERR_UNSUPPORTED, "%s: used as a vector and as a matrix",
                       p->weights[index].name);
    }
    return QN_OK;
}

static qn_status place_weights(const qn_program *p, cpu_layout *l, qn_error *err) {
    for (size_t i = 0; i < p->n_ops; i++) {
        const qn_op *op = &p->ops[i];
        qn_status st = QN_OK;
        if (op->kind == QN_OP_EMBED) st = use_weight(p, l, op->weight, WEIGHT_ROWS, err);
        if (op->kind == QN_OP_RMS_NORM) st = use_weight(p, l, op->weight, WEIGHT_VECTOR, err);
        if (op->kind == QN_OP_LINEAR) {
            st = use_weight(p, l, op->weight, WEIGHT_PANELS, err);
            if (st == QN_OK && op->bias >= 0) {
                st = use_weight(p, l, op->bias, WEIGHT_VECTOR, err);
            }
        }
        if (st != QN_OK) return st;
    }
    for (size_t i = 0; i < p->n_weights; i++) {
        const qn_program_weight *w = &p->weights[i];
        cpu_weight *c = &l->weights[i];
        const qn_dtype_info *info = qn_dtype_get((uint32_t)w->type);
        if (!info) {
            const char *type = qn_dtype_gguf_name((uint32_t)w->type);
            return qn_fail(err, QN_ERR_UNSUPPORTED, "%s: the CPU backend cannot use type %s (%d)",
                           w->name, type ? type : "?", (int)w->type);
        }
        uint64_t row_bytes;
        bool ok = w->n_cols <= INT32_MAX / 16 && w->n_rows <= INT32_MAX - 16 &&
                  qn_dtype_row_bytes(info, (uint64_t)w->n_cols, &row_bytes);
        const size_t rows = (size_t)w->n_rows;
        if (!ok) return qn_fail(err, QN_ERR_LIMIT, "%s: too large", w->name);
        switch (c->layout) {
        case WEIGHT_UNUSED: break;
        case WEIGHT_VECTOR:
            ok = w->n_rows == 1 &&
                 reserve(&l->weights_bytes, (size_t)w->n_cols + 15, sizeof(float), &c->offset);
            break;
        case WEIGHT_ROWS:
            ok = reserve(&l->weights_bytes, rows, (size_t)row_bytes, &c->offset);
            break;
        case WEIGHT_PANELS:
            c->n_panels = (int32_t)QN_CEIL_DIV(rows, PANEL_ROWS);
            c->panel_stride = qn_cpu_panel_bytes(w->type, (int32_t)w->n_cols);
            ok = reserve(&l->weights_bytes, (size_t)c->n_panels, c->panel_stride, &c->offset);
            break;
        }
        c->bytes = l->weights_bytes - c->offset;
        if (!ok) return qn_fail(err, QN_ERR_LIMIT, "%s: too large", w->name);
    }
    return QN_OK;
}

static section *add_section(cpu_layout *l, section_kind kind, qn_row_kind rows, size_t first) {
    if (!qn_grow(&l->sections, &l->cap_sections, l->n_sections + 1, sizeof *l->sections)) {
        return NULL;
    }
    section *s = &l->sections[l->n_sections++];
    *s = (section){.kind = kind, .rows = rows, .first = first, .count = 0, .quantize = -1};
    return s;
}

// Whether LINEAR op i may join the section: same source, a destination of its own.
static bool joins(const qn_program *p, const section *s, const qn_op *op) {
    if (s->kind != SECTION_LINEAR || p->ops[s->first].src != op->src) return false;
    for (size_t i = s->first; i < s->first + s->count; i++) {
        if (p->ops[i].dst == op->dst) return false;
    }
    return true;
}

static bool make_sections(const qn_program *p, cpu_layout *l) {
    // The first section also makes the rope tables: it is always over token rows.
    section *s = add_section(l, SECTION_ROWS, QN_ROWS_TOKENS, 0);
    for (size_t i = 0; s && i < p->n_ops; i++) {
        const qn_op *op = &p->ops[i];
        const qn_row_kind rows =
            op->kind == QN_OP_KV_WRITE ? QN_ROWS_TOKENS : p->buffers[op->dst].rows;
        if (op->kind == QN_OP_LINEAR) {
            if (!joins(p, s, op)) {
                if (s->kind != SECTION_ROWS || s->rows != rows) {
                    s = add_section(l, SECTION_ROWS, rows, i);
                }
                if (s) s = add_section(l, SECTION_LINEAR, rows, i);
            }
            if (s && is_int_type(p->weights[op->weight].type)) s[-1].quantize = op->src;
        } else if (op->kind == QN_OP_ATTENTION) {
            s = add_section(l, SECTION_ATTENTION, rows, i);
        } else if (s->kind != SECTION_ROWS || s->rows != rows) {
            s = add_section(l, SECTION_ROWS, rows, i);
        }
        if (s) s->count++;
    }
    return s != NULL;
}

static bool place_workspace(const qn_backend *b, const qn_program *p, const qn_exec_limits *limits,
                            cpu_layout *l) {
    const size_t rows = (size_t)limits->max_rows, logits = (size_t)limits->max_logits;
    size_t *total = &l->workspace_bytes;
    bool ok = true;
    for (size_t i = 0; i < p->n_buffers; i++) {
        const qn_program_buffer *buf = &p->buffers[i];
        l->buffers[i].stride = ((size_t)buf->width + 15) & ~(size_t)15;
        ok = ok && reserve(total, buf->rows == QN_ROWS_TOKENS ? rows : logits,
                           l->buffers[i].stride * sizeof(float), &l->buffers[i].offset);
    }
    for (size_t i = 0; i < p->n_ropes; i++) {
        l->ropes[i].stride = 2 * (size_t)round_up16(p->ropes[i].rot_dims / 2);
        ok = ok && reserve(total, rows, l->ropes[i].stride * sizeof(float), &l->ropes[i].offset);
    }
    for (size_t i = 0; i < l->n_sections; i++) {
        const int32_t q = l->sections[i].quantize;
        if (q < 0) continue;
        const size_t bytes = act_row_bytes(p->buffers[q].width, b->kernels->act_elem_bytes);
        l->quants_bytes_per_row = QN_MAX(l->quants_bytes_per_row, bytes);
    }
    ok = ok && reserve(total, QN_MAX(rows, logits), l->quants_bytes_per_row, &l->quants_offset) &&
         reserve(total, rows, sizeof(int32_t), &l->row_seq_offset) &&
         reserve(total, rows, sizeof(int32_t), &l->row_pos_offset) &&
         reserve(total, logits, sizeof(int32_t), &l->logit_row_offset) &&
         reserve(total, rows, sizeof(attention_tile), &l->tiles_offset) &&
         reserve(total, (size_t)limits->max_seqs, sizeof(int32_t), &l->slot_last_offset) &&
         reserve(total, logits, sizeof(qn_sample), &l->samples_offset);
    l->scratch_bytes = qn_sample_scratch_bytes(p->vocab_size);
    for (size_t i = 0; i < p->n_ops; i++) {
        const qn_op *op = &p->ops[i];
        if (op->kind != QN_OP_ATTENTION) continue;
        const int32_t group = op->attn.n_heads / op->attn.n_kv_heads;
        const size_t floats = attention_scratch_floats(QN_MAX(group, ATTENTION_QUERIES),
                                                       op->attn.head_dim);
        l->scratch_bytes = QN_MAX(l->scratch_bytes, floats * sizeof(float));
    }
    return ok && qn_align_size(l->scratch_bytes, 4096, &l->scratch_bytes) &&
           reserve(total, (size_t)pool_threads(b->pool), l->scratch_bytes, &l->scratch_offset);
}

static bool place_kv(const qn_program *p, const qn_exec_limits *limits, cpu_layout *l) {
    const size_t elem = limits->kv_dtype == QN_KV_F16 ? 2 : 4;
    for (int32_t g = 0; g < p->n_groups; g++) {
        const qn_kv_group *group = &p->groups[g];
        if (group->head_dim < 1 || group->head_dim > 65536 || group->n_layers < 0 ||
            group->n_kv_heads < 0) {
            return false;
        }
        const size_t heads = (size_t)group->n_layers * (size_t)group->n_kv_heads;
        l->kv[g].slab_bytes =
            (size_t)limits->block_size * (size_t)round_up16(group->head_dim) * elem;
        if (!qn_mul_size(heads * 2, l->kv[g].slab_bytes, &l->kv[g].page_bytes)) return false;
    }
    return true;
}

static qn_status check_limits(const qn_program *p, const qn_exec_limits *x, qn_error *err) {
    const int32_t b = x->block_size;
    if (x->max_rows < 1 || x->max_seqs < 1 || x->max_logits < 1 || x->max_len < 1) {
        return qn_fail(err, QN_ERR_INVALID, "limits must be positive");
    }
    if (b != 16 && b != 32 && b != 64 && b != 128 && b != 256) {
        return qn_fail(err, QN_ERR_INVALID, "block size %d is not 16, 32, 64, 128 or 256", b);
    }
    if (x->kv_dtype != QN_KV_F32 && x->kv_dtype != QN_KV_F16) {
        return qn_fail(err, QN_ERR_UNSUPPORTED, "KV cache type %d", (int)x->kv_dtype);
    }
    for (size_t i = 0; i < p->n_ops; i++) {
        const qn_op *op = &p->ops[i];
        const bool kv = op->kind == QN_OP_KV_WRITE || op->kind == QN_OP_ATTENTION;
        if (kv && p->buffers[op->src].rows != QN_ROWS_TOKENS) {
            return qn_fail(err, QN_ERR_UNSUPPORTED, "op %zu: attention over logit rows", i);
        }
    }
    return QN_OK;
}

qn_status qn_cpu_layout_make(const qn_backend *b, const qn_program *p, const qn_exec_limits *limits,
                             cpu_layout *out, qn_error *err) {
    memset(out, 0, sizeof *out);
    qn_status st = qn_program_check(p, err);
    if (st == QN_OK) st = check_limits(p, limits, err);
    if (st != QN_OK) return st;
    out->weights = calloc(p->n_weights + 1, sizeof *out->weights);
    out->buffers = calloc(p->n_buffers + 1, sizeof *out->buffers);
    out->ropes = calloc(p->n_ropes + 1, sizeof *out->ropes);
    if (!out->weights || !out->buffers || !out->ropes || !make_sections(p, out)) {
        st = qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    if (st == QN_OK) st = place_weights(p, out, err);
    if (st == QN_OK && (!place_workspace(b, p, limits, out) || !place_kv(p, limits, out))) {
        st = qn_fail(err, QN_ERR_LIMIT, "the workspace for these limits is too large");
    }
    if (st != QN_OK) qn_cpu_layout_free(out);
    return st;
}

void qn_cpu_layout_free(cpu_layout *l) {
    free(l->sections);
    free(l->weights);
    free(l->buffers);
    free(l->ropes);
    memset(l, 0, sizeof *l);
}
