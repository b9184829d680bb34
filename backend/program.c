// SPDX-License-Identifier: Apache-2.0
#include "backend/program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int32_t qn_program_add_buffer(qn_program *p, const char *name, int32_t width, qn_row_kind rows) {
    if (!qn_grow(&p->buffers, &p->cap_buffers, p->n_buffers + 1, sizeof *p->buffers)) return -1;
    qn_program_buffer *b = &p->buffers[p->n_buffers];
    *b = (qn_program_buffer){.width = width, .rows = rows};
    snprintf(b->name, sizeof b->name, "%s", name);
    return (int32_t)p->n_buffers++;
}

int32_t qn_program_add_weight(qn_program *p, const char *name, qn_dtype type, int64_t n_rows,
                              int64_t n_cols) {
    if (!qn_grow(&p->weights, &p->cap_weights, p->n_weights + 1, sizeof *p->weights)) return -1;
    qn_program_weight *w = &p->weights[p->n_weights];
    *w = (qn_program_weight){.type = type, .n_rows = n_rows, .n_cols = n_cols};
    snprintf(w->name, sizeof w->name, "%s", name);
    return (int32_t)p->n_weights++;
}

int32_t qn_program_add_rope(qn_program *p, qn_rope_kind kind, int32_t rot_dims,
                            const float *inv_freq, float mscale) {
    size_t n = (size_t)rot_dims / 2;
    if (!qn_grow(&p->ropes, &p->cap_ropes, p->n_ropes + 1, sizeof *p->ropes)) return -1;
    float *copy = malloc(n ? n * sizeof *copy : 1);
    if (!copy) return -1;
    memcpy(copy, inv_freq, n * sizeof *copy);
    p->ropes[p->n_ropes] = (qn_program_rope){kind, rot_dims, copy, mscale};
    return (int32_t)p->n_ropes++;
}

int32_t qn_program_add_op(qn_program *p, qn_op op) {
    if (!qn_grow(&p->ops, &p->cap_ops, p->n_ops + 1, sizeof *p->ops)) return -1;
    p->ops[p->n_ops] = op;
    return (int32_t)p->n_ops++;
}

void qn_program_free(qn_program *p) {
    for (size_t i = 0; i < p->n_ropes; i++) free(p->ropes[i].inv_freq);
    free(p->buffers);
    free(p->weights);
    free(p->ropes);
    free(p->ops);
    memset(p, 0, sizeof *p);
}

const char *qn_op_name(qn_op_kind kind) {
    switch (kind) {
    case QN_OP_EMBED: return "embed";
    case QN_OP_RMS_NORM: return "rms_norm";
    case QN_OP_LINEAR: return "linear";
    case QN_OP_ROPE: return "rope";
    case QN_OP_KV_WRITE: return "kv_write";
    case QN_OP_ATTENTION: return "attention";
    case QN_OP_ADD: return "add";
    case QN_OP_GATED: return "gated";
    case QN_OP_SCALE: return "scale";
    case QN_OP_SOFTCAP: return "softcap";
    case QN_OP_SELECT: return "select";
    }
    return "unknown";
}

// What an op needs of its operands.
typedef struct op_shape {
    bool src, src2, weight;
} op_shape;

static op_shape shape_of(qn_op_kind kind) {
    switch (kind) {
    case QN_OP_EMBED: return (op_shape){false, false, true};
    case QN_OP_RMS_NORM:
    case QN_OP_LINEAR: return (op_shape){true, false, true};
    case QN_OP_ROPE: return (op_shape){false, false, false};
    case QN_OP_KV_WRITE:
    case QN_OP_ADD:
    case QN_OP_GATED: return (op_shape){true, true, false};
    case QN_OP_ATTENTION:
    case QN_OP_SCALE:
    case QN_OP_SOFTCAP:
    case QN_OP_SELECT: return (op_shape){true, false, false};
    }
    return (op_shape){false, false, false};
}

static bool index_ok(int32_t index, size_t count) { return index >= 0 && (size_t)index < count; }

static qn_status check_attn(const qn_program *p, const qn_op *op, size_t i, qn_error *err) {
    const qn_program_buffer *b = p->buffers;
    if (!index_ok(op->attn.group, (size_t)p->n_groups)) {
        return qn_fail(err, QN_ERR_INTERNAL, "op %zu: KV group out of range", i);
    }
    const qn_kv_group *g = &p->groups[op->attn.group];
    int64_t kv_width = (int64_t)op->attn.n_kv_heads * op->attn.head_dim;
    bool ok = op->layer >= 0 && op->layer < g->n_layers && op->attn.head_dim > 0 &&
              op->attn.head_dim == g->head_dim && op->attn.n_kv_heads > 0 &&
              op->attn.n_kv_heads <= g->n_kv_heads;
    if (ok && op->kind == QN_OP_KV_WRITE) {
        ok = b[op->src].width == kv_width && b[op->src2].width == kv_width;
    } else if (ok) {
        int64_t width = (int64_t)op->attn.n_heads * op->attn.head_dim;
        ok = op->attn.n_heads > 0 && op->attn.n_heads % op->attn.n_kv_heads == 0 &&
             b[op->src].width == width && b[op->dst].width == width;
    }
    return ok ? QN_OK : qn_fail(err, QN_ERR_INTERNAL, "op %zu (%s): shapes do not fit", i,
                                qn_op_name(op->kind));
}

static qn_status check_op(const qn_program *p, const qn_op *op, size_t i, qn_error *err) {
    const op_shape need = shape_of(op->kind);
    const bool has_dst = op->kind != QN_OP_KV_WRITE;
    if ((has_dst && !index_ok(op->dst, p->n_buffers)) ||
        (need.src && !index_ok(op->src, p->n_buffers)) ||
        (need.src2 && !index_ok(op->src2, p->n_buffers)) ||
        (need.weight && !index_ok(op->weight, p->n_weights)) ||
        (op->kind == QN_OP_LINEAR && op->bias != -1 && !index_ok(op->bias, p->n_weights))) {
        return qn_fail(err, QN_ERR_INTERNAL, "op %zu (%s): operand out of range", i,
                       qn_op_name(op->kind));
    }
    const qn_program_buffer *dst = has_dst ? &p->buffers[op->dst] : NULL;
    const qn_program_buffer *src = need.src ? &p->buffers[op->src] : NULL;
    const qn_program_buffer *src2 = need.src2 ? &p->buffers[op->src2] : NULL;
    const qn_program_weight *w = need.weight ? &p->weights[op->weight] : NULL;
    bool same_rows = !dst || ((!src || src->rows == dst->rows) && (!src2 || src2->rows == dst->rows));
    bool ok = true;
    switch (op->kind) {
    case QN_OP_EMBED:
        ok = w->n_cols == dst->width && w->n_rows == p->vocab_size && dst->rows == QN_ROWS_TOKENS;
        break;
    case QN_OP_RMS_NORM:
        ok = same_rows && src->width == dst->width && w->n_cols == op->norm.group &&
             op->norm.group > 0 && dst->width % op->norm.group == 0 && w->n_rows == 1;
        break;
    case QN_OP_LINEAR:
        ok = same_rows && w->n_cols == src->width && w->n_rows == dst->width && op->dst != op->src &&
             (op->bias == -1 || (p->weights[op->bias].n_rows == 1 &&
                                 p->weights[op->bias].n_cols == dst->width));
        break;
    case QN_OP_ROPE:
        ok = index_ok(op->rope.table, p->n_ropes) && op->rope.n_heads > 0 && op->rope.head_dim > 0 &&
             (int64_t)op->rope.n_heads * op->rope.head_dim == dst->width &&
             p->ropes[op->rope.table].rot_dims <= op->rope.head_dim &&
             p->ropes[op->rope.table].rot_dims % 2 == 0 && dst->rows == QN_ROWS_TOKENS;
        break;
    case QN_OP_KV_WRITE:
    case QN_OP_ATTENTION: return check_attn(p, op, i, err);
    case QN_OP_ADD:
    case QN_OP_GATED:
        ok = same_rows && src->width == dst->width && src2->width == dst->width;
        break;
    case QN_OP_SCALE:
    case QN_OP_SOFTCAP: ok = same_rows && src->width == dst->width; break;
    case QN_OP_SELECT:
        ok = src->rows == QN_ROWS_TOKENS && dst->rows == QN_ROWS_LOGITS && src->width == dst->width;
        break;
    }
    return ok ? QN_OK : qn_fail(err, QN_ERR_INTERNAL, "op %zu (%s): shapes do not fit", i,
                                qn_op_name(op->kind));
}

qn_status qn_program_check(const qn_program *p, qn_error *err) {
    if (!index_ok(p->logits, p->n_buffers) || p->buffers[p->logits].rows != QN_ROWS_LOGITS ||
        p->buffers[p->logits].width != p->vocab_size || p->vocab_size <= 0) {
        return qn_fail(err, QN_ERR_INTERNAL, "program: no logits buffer of the vocabulary's width");
    }
    if (p->n_groups < 0 || p->n_groups > QN_MAX_KV_GROUPS) {
        return qn_fail(err, QN_ERR_INTERNAL, "program: bad number of KV groups");
    }
    for (size_t i = 0; i < p->n_buffers; i++) {
        if (p->buffers[i].width <= 0) {
            return qn_fail(err, QN_ERR_INTERNAL, "buffer %s has no width", p->buffers[i].name);
        }
    }
    for (size_t i = 0; i < p->n_weights; i++) {
        const qn_program_weight *w = &p->weights[i];
        const qn_dtype_info *info = qn_dtype_get((uint32_t)w->type);
        if (!info || w->n_rows <= 0 || w->n_cols <= 0 || w->n_cols % info->block_size != 0) {
            return qn_fail(err, QN_ERR_INTERNAL, "weight %s: bad shape", w->name);
        }
    }
    for (size_t i = 0; i < p->n_ops; i++) {
        qn_status st = check_op(p, &p->ops[i], i, err);
        if (st != QN_OK) return st;
    }
    return QN_OK;
}

static void print_weight(const qn_program *p, int32_t index, qn_buf *out) {
    const qn_program_weight *w = &p->weights[index];
    const qn_dtype_info *info = qn_dtype_get((uint32_t)w->type);
    if (w->n_rows > 1) {
        qn_buf_printf(out, "%s [%lld x %lld %s]", w->name, (long long)w->n_rows,
                      (long long)w->n_cols, info ? info->name : "?");
    } else {
        qn_buf_printf(out, "%s [%lld %s]", w->name, (long long)w->n_cols, info ? info->name : "?");
    }
}

void qn_program_print(const qn_program *p, qn_buf *out) {
    static const char *const acts[] = {"silu", "gelu_tanh", "relu2"};
    for (int32_t g = 0; g < p->n_groups; g++) {
        const qn_kv_group *k = &p->groups[g];
        qn_buf_printf(out, "kv group %d: %s", g, k->kind == QN_KV_WINDOW ? "window" : "full");
        if (k->kind == QN_KV_WINDOW) qn_buf_printf(out, " of %d", k->window);
        qn_buf_printf(out, ", %d layers, %d kv heads x %d\n", k->n_layers, k->n_kv_heads,
                      k->head_dim);
    }
    for (size_t i = 0; i < p->n_ropes; i++) {
        const qn_program_rope *r = &p->ropes[i];
        qn_buf_printf(out, "rope %zu: %s pairs, %d dims, scale %g\n", i,
                      r->kind == QN_ROPE_HALVES ? "half" : "adjacent", r->rot_dims,
                      (double)r->mscale);
    }
    for (size_t i = 0; i < p->n_ops; i++) {
        const qn_op *op = &p->ops[i];
        const op_shape need = shape_of(op->kind);
        const char *dst = op->kind == QN_OP_KV_WRITE ? "kv" : p->buffers[op->dst].name;
        const char *src = need.src ? p->buffers[op->src].name : "";
        const char *src2 = need.src2 ? p->buffers[op->src2].name : "";
        qn_buf_printf(out, "%4zu  %-9s  %s = ", i, qn_op_name(op->kind), dst);
        switch (op->kind) {
        case QN_OP_EMBED:
            qn_buf_puts(out, "rows of ");
            print_weight(p, op->weight, out);
            break;
        case QN_OP_RMS_NORM:
            qn_buf_printf(out, "norm(%s) * ", src);
            print_weight(p, op->weight, out);
            qn_buf_printf(out, ", eps %g", (double)op->norm.eps);
            break;
        case QN_OP_LINEAR:
            print_weight(p, op->weight, out);
            qn_buf_printf(out, " * %s", src);
            if (op->bias >= 0) {
                qn_buf_puts(out, " + ");
                print_weight(p, op->bias, out);
            }
            break;
        case QN_OP_ROPE:
            qn_buf_printf(out, "rotate(%s), %d heads x %d, rope %d", dst, op->rope.n_heads,
                          op->rope.head_dim, op->rope.table);
            break;
        case QN_OP_KV_WRITE:
            qn_buf_printf(out, "(%s, %s), group %d layer %d", src, src2, op->attn.group, op->layer);
            break;
        case QN_OP_ATTENTION:
            qn_buf_printf(out, "attend(%s), group %d layer %d, %d heads / %d kv, scale %g", src,
                          op->attn.group, op->layer, op->attn.n_heads, op->attn.n_kv_heads,
                          (double)op->attn.scale);
            if (op->attn.softcap > 0) {
                qn_buf_printf(out, ", softcap %g", (double)op->attn.softcap);
            }
            break;
        case QN_OP_ADD: qn_buf_printf(out, "%s + %s", src, src2); break;
        case QN_OP_GATED: qn_buf_printf(out, "%s(%s) * %s", acts[op->act], src, src2); break;
        case QN_OP_SCALE: qn_buf_printf(out, "%g * %s", (double)op->value, src); break;
        case QN_OP_SOFTCAP: qn_buf_printf(out, "softcap(%s, %g)", src, (double)op->value); break;
        case QN_OP_SELECT: qn_buf_printf(out, "rows of %s that want logits", src); break;
        }
        qn_buf_putc(out, '\n');
    }
}
