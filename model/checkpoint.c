// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint.h"

// Shapes with more than two dimensions do not occur in the families we run: they show up as a row
// count that fits nothing.
static void set_shape(qn_checkpoint_tensor *t, uint32_t n_dims, uint64_t cols, uint64_t rows) {
    t->n_dims = n_dims;
    t->n_cols = cols <= INT64_MAX ? (int64_t)cols : 0;
    t->n_rows = n_dims <= 1 ? 1 : (n_dims == 2 && rows <= INT64_MAX ? (int64_t)rows : 0);
    const qn_dtype_info *info = t->known ? qn_dtype_get((uint32_t)t->type) : NULL;
    if (!info || !qn_dtype_row_bytes(info, cols, &t->row_bytes)) t->row_bytes = 0;
}

bool qn_checkpoint_find(const qn_checkpoint *c, const char *name, qn_checkpoint_tensor *t) {
    *t = (qn_checkpoint_tensor){0};
    if (c->gguf) {
        const qn_gguf_tensor *g = qn_gguf_find_tensor(c->gguf, name);
        if (!g) return false;
        const qn_dtype_info *info = qn_dtype_get(g->type);
        const char *type_name = qn_dtype_gguf_name(g->type);
        t->gguf = g;
        t->file = qn_gguf_path(c->gguf);
        t->type_name = type_name ? type_name : "unknown";
        t->known = info != NULL;
        if (info) t->type = info->type;
        set_shape(t, g->n_dims, g->dims[0], g->dims[1]);
        return true;
    }
    const qn_st_tensor *s = qn_safetensors_find(c->st, name);
    if (!s) return false;
    t->st = s;
    t->file = qn_safetensors_file(c->st, s->file);
    t->type_name = s->dtype;
    t->known = s->known;
    t->type = s->type;
    uint64_t cols = s->n_dims ? s->dims[s->n_dims - 1] : 1;
    set_shape(t, s->n_dims, cols, s->n_dims == 2 ? s->dims[0] : 1);
    return true;
}

size_t qn_checkpoint_count(const qn_checkpoint *c) {
    return c->gguf ? qn_gguf_tensor_count(c->gguf) : qn_safetensors_count(c->st);
}

const char *qn_checkpoint_name_at(const qn_checkpoint *c, size_t i) {
    return c->gguf ? qn_gguf_tensor_at(c->gguf, i)->name : qn_safetensors_at(c->st, i)->name;
}

qn_status qn_checkpoint_read(const qn_checkpoint *c, const qn_checkpoint_tensor *t, int64_t row,
                             int64_t n_rows, void *dst, qn_error *err) {
    uint64_t offset = (uint64_t)row * t->row_bytes;
    size_t size = (size_t)n_rows * (size_t)t->row_bytes;
    return c->gguf ? qn_gguf_read_tensor(c->gguf, t->gguf, offset, dst, size, err)
                   : qn_safetensors_read(c->st, t->st, offset, dst, size, err);
}

void qn_checkpoint_release(const qn_checkpoint *c, const qn_checkpoint_tensor *t) {
    if (c->gguf) {
        qn_gguf_release_tensor(c->gguf, t->gguf);
    } else {
        qn_safetensors_release(c->st, t->st);
    }
}

void qn_checkpoint_close(qn_checkpoint *c) {
    if (c->gguf) qn_gguf_close(c->gguf);
    if (c->st) qn_safetensors_close(c->st);
    *c = (qn_checkpoint){0};
}
