// SPDX-License-Identifier: Apache-2.0
// The safetensors reader. Invariants:
// 1. A header is copied out of its file with read() and parsed with the pull reader: no recursion,
//    no pointer into the mapping; every name that is handed out lives in the arena.
// 2. After a successful open each tensor's extent lies inside its file, equals the product of its
//    shape where the dtype is known, and overlaps no other; names are unique over all shards.
// 3. A shard's name is one path component; nothing outside the directory is opened by the index.
#include "formats/safetensors.h"

#include "base/arena.h"
#include "base/checked.h"
#include "base/hash.h"
#include "base/json_reader.h"
#include "formats/shown.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_HEADER = 100 * 1000 * 1000,
    MAX_INDEX = 64 << 20,
    MAX_NAME = 1024,
    MAX_DTYPE = 15,
    MAX_SHARDS = 4096,
};

typedef struct shard {
    char *path; // in the arena
    qn_os_map map;
    const uint8_t *memory; // open_memory only
    uint64_t size;
} shard;

struct qn_safetensors {
    shard *shards;
    size_t shard_count, shard_cap;
    qn_st_tensor *tensors;
    size_t count, cap;
    qn_map by_name;
    uint64_t seed;
    qn_arena arena;
};

static qn_status no_memory(const char *file, qn_error *err) {
    return qn_fail(err, QN_ERR_NOMEM, "%s: out of memory", file);
}

// Bits of an element; 0 for a dtype that is not known here.
static uint32_t dtype_bits(const char *name) {
    static const struct {
        const char *name;
        uint32_t bits;
    } table[] = {
        {"F64", 64},     {"F32", 32},     {"F16", 16},     {"BF16", 16}, {"I64", 64},
        {"I32", 32},     {"I16", 16},     {"I8", 8},       {"U64", 64},  {"U32", 32},
        {"U16", 16},     {"U8", 8},       {"BOOL", 8},     {"F8_E4M3", 8}, {"F8_E5M2", 8},
        {"F8_E8M0", 8},  {"C64", 64},     {"F4", 4},
    };
    for (size_t i = 0; i < QN_COUNT(table); i++) {
        if (strcmp(table[i].name, name) == 0) return table[i].bits;
    }
    return 0;
}

// The number just read, as an exact unsigned integer.
static bool number_u64(const qn_json_reader *r, uint64_t *out) {
    uint64_t v = 0;
    if (r->kind != QN_JSON_NUMBER) return false;
    for (size_t i = 0; i < r->text.len; i++) {
        char c = r->text.data[i];
        if (c < '0' || c > '9') return false;
        if (!qn_mul_u64(v, 10, &v) || !qn_add_u64(v, (uint64_t)(c - '0'), &v)) return false;
    }
    *out = v;
    return true;
}

typedef struct header {
    qn_safetensors *s;
    qn_json_reader json;
    const char *path;
    uint64_t data_at; // where tensor data starts in the file
    uint64_t data_size;
    uint32_t file;
    qn_error *err;
} header;

static qn_status bad_tensor(header *h, const char *name, const char *what) {
    return qn_fail(h->err, QN_ERR_FORMAT, "%s: tensor '%s': %s", h->path,
                   qn_show_cstr(name).text, what);
}

static qn_status next(header *h) {
    qn_error local = {0};
    qn_status st = qn_json_next(&h->json, &local);
    if (st != QN_OK) qn_fail(h->err, st, "%s: header: %s", h->path, local.message);
    return st;
}

static qn_status skip(header *h) {
    qn_error local = {0};
    qn_status st = qn_json_skip(&h->json, &local);
    if (st != QN_OK) qn_fail(h->err, st, "%s: header: %s", h->path, local.message);
    return st;
}

static qn_status read_shape(header *h, qn_st_tensor *t) {
    qn_status st = next(h);
    if (st != QN_OK) return st;
    if (h->json.kind != QN_JSON_ARRAY_BEGIN) return bad_tensor(h, t->name, "shape is not a list");
    for (;;) {
        st = next(h);
        if (st != QN_OK) return st;
        if (h->json.kind == QN_JSON_ARRAY_END) return QN_OK;
        if (t->n_dims == QN_TENSOR_MAX_DIMS) {
            return bad_tensor(h, t->name, "more than 4 dimensions");
        }
        if (!number_u64(&h->json, &t->dims[t->n_dims++])) {
            return bad_tensor(h, t->name, "a dimension is not a whole number");
        }
    }
}

static qn_status read_offsets(header *h, const char *name, uint64_t at[2]) {
    qn_status st = next(h);
    if (st != QN_OK) return st;
    if (h->json.kind != QN_JSON_ARRAY_BEGIN) {
        return bad_tensor(h, name, "data_offsets is not a list");
    }
    for (int i = 0; i < 2; i++) {
        st = next(h);
        if (st != QN_OK) return st;
        if (!number_u64(&h->json, &at[i])) {
            return bad_tensor(h, name, "data_offsets are not two whole numbers");
        }
    }
    st = next(h);
    if (st != QN_OK) return st;
    if (h->json.kind != QN_JSON_ARRAY_END) {
        return bad_tensor(h, name, "data_offsets are not two whole numbers");
    }
    return QN_OK;
}

static qn_status read_dtype(header *h, qn_st_tensor *t) {
    qn_status st = next(h);
    if (st != QN_OK) return st;
    qn_str text = h->json.text;
    if (h->json.kind != QN_JSON_STRING || text.len == 0 || text.len > MAX_DTYPE ||
        memchr(text.data, 0, text.len)) {
        return bad_tensor(h, t->name, "dtype is not a short string");
    }
    t->dtype = qn_arena_strndup(&h->s->arena, text.data, text.len);
    return t->dtype ? QN_OK : no_memory(h->path, h->err);
}

// The sizes agree: extent inside the file, and equal to what shape and dtype say.
static qn_status check_extent(header *h, qn_st_tensor *t, const uint64_t at[2]) {
    if (at[1] < at[0]) return bad_tensor(h, t->name, "data ends before it begins");
    if (at[1] > h->data_size) {
        return qn_fail(h->err, QN_ERR_FORMAT,
                       "%s: tensor '%s': data ends at %" PRIu64 ", file has %" PRIu64 " bytes",
                       h->path, qn_show_cstr(t->name).text,
                       at[1] <= UINT64_MAX - h->data_at ? h->data_at + at[1] : UINT64_MAX,
                       h->data_at + h->data_size);
    }
    t->offset = h->data_at + at[0];
    t->size = at[1] - at[0];
    uint64_t elements = 1, bits;
    for (uint32_t i = 0; i < t->n_dims; i++) {
        if (!qn_mul_u64(elements, t->dims[i], &elements)) {
            return bad_tensor(h, t->name, "the product of its dimensions overflows");
        }
    }
    for (uint32_t i = t->n_dims; i < QN_TENSOR_MAX_DIMS; i++) t->dims[i] = 1;
    t->known = true;
    if (strcmp(t->dtype, "F32") == 0) {
        t->type = QN_F32;
    } else if (strcmp(t->dtype, "F16") == 0) {
        t->type = QN_F16;
    } else if (strcmp(t->dtype, "BF16") == 0) {
        t->type = QN_BF16;
    } else {
        t->known = false;
    }
    uint32_t width = dtype_bits(t->dtype);
    if (width == 0) return QN_OK;
    if (!qn_mul_u64(elements, width, &bits)) {
        return bad_tensor(h, t->name, "the product of its dimensions overflows");
    }
    if (bits % 8 != 0 || bits / 8 != t->size) {
        return qn_fail(h->err, QN_ERR_FORMAT,
                       "%s: tensor '%s': its shape needs %" PRIu64 " bytes of %s, it has %" PRIu64,
                       h->path, qn_show_cstr(t->name).text, bits / 8, t->dtype, t->size);
    }
    return QN_OK;
}

// The json reader stands on the tensor's KEY.
static qn_status read_tensor(header *h) {
    qn_st_tensor t = {.file = h->file};
    qn_str name = h->json.text;
    if (name.len == 0 || name.len > MAX_NAME || memchr(name.data, 0, name.len)) {
        return qn_fail(h->err, QN_ERR_FORMAT,
                       "%s: tensor '%s': a name of 1 to %d bytes without NUL expected", h->path,
                       qn_show(name.data, name.len).text, MAX_NAME);
    }
    t.name = qn_arena_strndup(&h->s->arena, name.data, name.len);
    if (!t.name) return no_memory(h->path, h->err);
    qn_status st = next(h);
    if (st != QN_OK) return st;
    if (h->json.kind != QN_JSON_OBJECT_BEGIN) return bad_tensor(h, t.name, "an object expected");
    uint64_t at[2] = {0, 0};
    bool shape = false, offsets = false;
    for (;;) {
        st = next(h);
        if (st != QN_OK) return st;
        if (h->json.kind == QN_JSON_OBJECT_END) break;
        qn_str key = h->json.text;
        if (qn_str_is(key, "dtype")) {
            if (t.dtype) return bad_tensor(h, t.name, "dtype appears twice");
            st = read_dtype(h, &t);
        } else if (qn_str_is(key, "shape")) {
            if (shape) return bad_tensor(h, t.name, "shape appears twice");
            shape = true;
            st = read_shape(h, &t);
        } else if (qn_str_is(key, "data_offsets")) {
            if (offsets) return bad_tensor(h, t.name, "data_offsets appears twice");
            offsets = true;
            st = read_offsets(h, t.name, at);
        } else {
            st = bad_tensor(h, t.name, "a member other than dtype, shape and data_offsets");
        }
        if (st != QN_OK) return st;
    }
    if (!t.dtype || !shape || !offsets) {
        return bad_tensor(h, t.name, "dtype, shape or data_offsets is missing");
    }
    st = check_extent(h, &t, at);
    if (st != QN_OK) return st;
    qn_safetensors *s = h->s;
    uint32_t other;
    if (qn_map_get(&s->by_name, qn_str_from(t.name), &other)) {
        return bad_tensor(h, t.name, "appears twice");
    }
    if (s->count >= UINT32_MAX || !qn_grow(&s->tensors, &s->cap, s->count + 1, sizeof t) ||
        !qn_map_put(&s->by_name, qn_str_from(t.name), (uint32_t)s->count)) {
        return no_memory(h->path, h->err);
    }
    s->tensors[s->count++] = t;
    return QN_OK;
}

static qn_status read_members(header *h) {
    qn_status st = next(h);
    if (st != QN_OK) return st;
    if (h->json.kind != QN_JSON_OBJECT_BEGIN) {
        return qn_fail(h->err, QN_ERR_FORMAT, "%s: header: an object expected", h->path);
    }
    for (;;) {
        st = next(h);
        if (st != QN_OK) return st;
        if (h->json.kind == QN_JSON_OBJECT_END) break;
        st = qn_str_is(h->json.text, "__metadata__") ? skip(h) : read_tensor(h);
        if (st != QN_OK) return st;
    }
    return next(h); // END, or an error for what follows the object
}

static int by_offset(const void *a, const void *b) {
    const qn_st_tensor *x = *(const qn_st_tensor *const *)a;
    const qn_st_tensor *y = *(const qn_st_tensor *const *)b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return x->size < y->size ? -1 : x->size > y->size;
}

// Tensors [first, count) are those of one file.
static qn_status check_overlap(const qn_safetensors *s, size_t first, const char *path,
                               qn_error *err) {
    size_t n = s->count - first;
    if (n < 2) return QN_OK;
    const qn_st_tensor **order = calloc(n, sizeof *order);
    if (!order) return no_memory(path, err);
    for (size_t i = 0; i < n; i++) order[i] = &s->tensors[first + i];
    qsort(order, n, sizeof *order, by_offset);
    qn_status st = QN_OK;
    for (size_t i = 1; i < n && st == QN_OK; i++) {
        if (order[i]->offset < order[i - 1]->offset + order[i - 1]->size) {
            st = qn_fail(err, QN_ERR_FORMAT, "%s: tensor '%s': its data overlaps that of '%s'",
                         path, qn_show_cstr(order[i]->name).text,
                         qn_show_cstr(order[i - 1]->name).text);
        }
    }
    free(order);
    return st;
}

static qn_status shard_bytes(const shard *sh, uint64_t offset, void *dst, size_t size,
                             qn_error *err) {
    if (!sh->memory) return qn_os_map_read(&sh->map, offset, dst, size, err);
    if (offset > sh->size || size > sh->size - offset) {
        return qn_fail(err, QN_ERR_INVALID, "read past the end of the file");
    }
    if (size) memcpy(dst, sh->memory + offset, size);
    return QN_OK;
}

static qn_status read_header(qn_safetensors *s, uint32_t file, qn_error *err) {
    const shard *sh = &s->shards[file];
    uint64_t length = 0;
    if (sh->size < sizeof length) {
        return qn_fail(err, QN_ERR_FORMAT, "%s: %" PRIu64
                       " bytes are too few for a safetensors file", sh->path, sh->size);
    }
    qn_error local = {0};
    qn_status st = shard_bytes(sh, 0, &length, sizeof length, &local);
    if (st != QN_OK) return qn_fail(err, st, "%s: %s", sh->path, local.message);
    if (length > MAX_HEADER) {
        return qn_fail(err, QN_ERR_LIMIT, "%s: header of %" PRIu64 " bytes, more than %d", sh->path,
                       length, MAX_HEADER);
    }
    if (length > sh->size - sizeof length) {
        return qn_fail(err, QN_ERR_FORMAT,
                       "%s: header of %" PRIu64 " bytes, but the file has %" PRIu64 " bytes",
                       sh->path, length, sh->size);
    }
    char *text = malloc(length ? (size_t)length : 1);
    if (!text) return no_memory(sh->path, err);
    st = shard_bytes(sh, sizeof length, text, (size_t)length, &local);
    if (st != QN_OK) qn_fail(err, st, "%s: %s", sh->path, local.message);
    size_t first = s->count;
    if (st == QN_OK) {
        header h = {.s = s,
                    .path = sh->path,
                    .data_at = sizeof length + length,
                    .data_size = sh->size - sizeof length - length,
                    .file = file,
                    .err = err};
        qn_json_open(&h.json, text, (size_t)length);
        st = read_members(&h);
        qn_json_close(&h.json);
    }
    free(text);
    return st == QN_OK ? check_overlap(s, first, sh->path, err) : st;
}

static qn_safetensors *create(void) {
    qn_safetensors *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    qn_arena_init(&s->arena, 0);
    s->seed = 0x9e3779b97f4a7c15u;
    (void)qn_os_random(&s->seed, sizeof s->seed);
    if (!qn_map_init(&s->by_name, 64, s->seed)) {
        qn_safetensors_close(s);
        return NULL;
    }
    return s;
}

static qn_status add_file(qn_safetensors *s, const char *path, qn_error *err) {
    shard sh = {.map = {.fd = -1}};
    sh.path = qn_arena_strndup(&s->arena, path, strlen(path));
    if (!sh.path ||
        !qn_grow(&s->shards, &s->shard_cap, s->shard_count + 1, sizeof *s->shards)) {
        return no_memory(path, err);
    }
    qn_status st = qn_os_map_open(path, &sh.map, err);
    if (st != QN_OK) return st;
    sh.size = sh.map.size;
    s->shards[s->shard_count++] = sh;
    return read_header(s, (uint32_t)(s->shard_count - 1), err);
}

static bool is_shard_name(qn_str name) {
    static const char suffix[] = ".safetensors";
    size_t n = sizeof suffix - 1;
    if (name.len <= n || name.len > 255 || name.data[0] == '.') return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.data[i];
        if (c == '/' || c == '\\' || (unsigned char)c < 0x20) return false;
    }
    return memcmp(name.data + name.len - n, suffix, n) == 0;
}

// What the index promises: the tensor `name` is in shard number `file`.
typedef struct promise {
    const char *name;
    uint32_t file;
} promise;

typedef struct index_reader {
    qn_safetensors *s;
    const char *dir, *path;
    qn_json_reader json;
    qn_map files; // shard name -> number
    qn_map seen;  // tensor names
    promise *promises;
    size_t count, cap;
    qn_error *err;
} index_reader;

static qn_status index_next(index_reader *x) {
    qn_error local = {0};
    qn_status st = qn_json_next(&x->json, &local);
    if (st != QN_OK) qn_fail(x->err, st, "%s: %s", x->path, local.message);
    return st;
}

static qn_status add_shard(index_reader *x, qn_str file, uint32_t *number) {
    if (!is_shard_name(file)) {
        return qn_fail(x->err, QN_ERR_FORMAT,
                       "%s: shard '%s': not a plain file name ending in .safetensors", x->path,
                       qn_show(file.data, file.len).text);
    }
    if (qn_map_get(&x->files, file, number)) return QN_OK;
    if (x->s->shard_count >= MAX_SHARDS) {
        return qn_fail(x->err, QN_ERR_LIMIT, "%s: more than %d shards", x->path, MAX_SHARDS);
    }
    char *name = qn_arena_strndup(&x->s->arena, file.data, file.len);
    qn_buf path = {0};
    if (!name || !qn_buf_printf(&path, "%s/%s", x->dir, name)) {
        qn_buf_free(&path);
        return no_memory(x->path, x->err);
    }
    *number = (uint32_t)x->s->shard_count;
    qn_status st = add_file(x->s, path.data, x->err);
    qn_buf_free(&path);
    if (st == QN_OK && !qn_map_put(&x->files, (qn_str){name, file.len}, *number)) {
        st = no_memory(x->path, x->err);
    }
    return st;
}

static qn_status read_weight_map(index_reader *x) {
    qn_status st = index_next(x);
    if (st != QN_OK) return st;
    if (x->json.kind != QN_JSON_OBJECT_BEGIN) {
        return qn_fail(x->err, QN_ERR_FORMAT, "%s: weight_map is not an object", x->path);
    }
    for (;;) {
        st = index_next(x);
        if (st != QN_OK) return st;
        if (x->json.kind == QN_JSON_OBJECT_END) return QN_OK;
        qn_str key = x->json.text;
        if (key.len == 0 || key.len > MAX_NAME || memchr(key.data, 0, key.len)) {
            return qn_fail(x->err, QN_ERR_FORMAT, "%s: tensor '%s': bad name", x->path,
                           qn_show(key.data, key.len).text);
        }
        promise p = {.name = qn_arena_strndup(&x->s->arena, key.data, key.len)};
        if (!p.name) return no_memory(x->path, x->err);
        st = index_next(x);
        if (st != QN_OK) return st;
        if (x->json.kind != QN_JSON_STRING) {
            return qn_fail(x->err, QN_ERR_FORMAT, "%s: tensor '%s': its shard is not a string",
                           x->path, qn_show_cstr(p.name).text);
        }
        uint32_t other;
        if (qn_map_get(&x->seen, qn_str_from(p.name), &other)) {
            return qn_fail(x->err, QN_ERR_FORMAT, "%s: tensor '%s': appears twice", x->path,
                           qn_show_cstr(p.name).text);
        }
        st = add_shard(x, x->json.text, &p.file);
        if (st != QN_OK) return st;
        if (!qn_map_put(&x->seen, qn_str_from(p.name), 0) ||
            !qn_grow(&x->promises, &x->cap, x->count + 1, sizeof p)) {
            return no_memory(x->path, x->err);
        }
        x->promises[x->count++] = p;
    }
}

static qn_status read_index(index_reader *x) {
    qn_status st = index_next(x);
    if (st != QN_OK) return st;
    if (x->json.kind != QN_JSON_OBJECT_BEGIN) {
        return qn_fail(x->err, QN_ERR_FORMAT, "%s: an object expected", x->path);
    }
    bool found = false;
    for (;;) {
        st = index_next(x);
        if (st != QN_OK) return st;
        if (x->json.kind == QN_JSON_OBJECT_END) break;
        if (!qn_str_is(x->json.text, "weight_map")) {
            qn_error local = {0};
            st = qn_json_skip(&x->json, &local);
            if (st != QN_OK) return qn_fail(x->err, st, "%s: %s", x->path, local.message);
            continue;
        }
        if (found) {
            return qn_fail(x->err, QN_ERR_FORMAT, "%s: weight_map appears twice", x->path);
        }
        found = true;
        st = read_weight_map(x);
        if (st != QN_OK) return st;
    }
    st = index_next(x);
    if (st != QN_OK) return st;
    if (!found || x->count == 0) {
        return qn_fail(x->err, QN_ERR_FORMAT, "%s: weight_map is missing or empty", x->path);
    }
    for (size_t i = 0; i < x->count; i++) {
        const qn_st_tensor *t = qn_safetensors_find(x->s, x->promises[i].name);
        if (!t || t->file != x->promises[i].file) {
            return qn_fail(x->err, QN_ERR_FORMAT,
                           "%s: tensor '%s' is not in the shard named for it", x->path,
                           qn_show_cstr(x->promises[i].name).text);
        }
    }
    return QN_OK;
}

static qn_status open_index(qn_safetensors *s, const char *dir, const char *path, qn_error *err) {
    char *text;
    size_t size;
    qn_status st = qn_os_read_file(path, MAX_INDEX, &text, &size, err);
    if (st != QN_OK) return st;
    index_reader x = {.s = s, .dir = dir, .path = path, .err = err};
    qn_json_open(&x.json, text, size);
    if (!qn_map_init(&x.files, 64, s->seed) || !qn_map_init(&x.seen, 1024, s->seed)) {
        st = no_memory(path, err);
    }
    if (st == QN_OK) st = read_index(&x);
    qn_json_close(&x.json);
    qn_map_free(&x.files);
    qn_map_free(&x.seen);
    free(x.promises);
    free(text);
    return st;
}

qn_status qn_safetensors_open(const char *dir, qn_safetensors **out, qn_error *err) {
    *out = NULL;
    bool is_dir = false;
    if (!qn_os_exists(dir, &is_dir)) {
        return qn_fail(err, QN_ERR_NOT_FOUND, "%s: no such file or directory", dir);
    }
    qn_safetensors *s = create();
    if (!s) return no_memory(dir, err);
    qn_buf single = {0}, index = {0};
    qn_status st;
    if (!qn_buf_printf(&single, "%s/model.safetensors", dir) ||
        !qn_buf_printf(&index, "%s/model.safetensors.index.json", dir)) {
        st = no_memory(dir, err);
    } else if (!is_dir) {
        st = add_file(s, dir, err);
    } else if (qn_os_exists(single.data, NULL)) {
        st = add_file(s, single.data, err);
    } else if (qn_os_exists(index.data, NULL)) {
        st = open_index(s, dir, index.data, err);
    } else {
        st = qn_fail(err, QN_ERR_NOT_FOUND,
                     "%s: neither model.safetensors nor model.safetensors.index.json is there",
                     dir);
    }
    qn_buf_free(&single);
    qn_buf_free(&index);
    if (st != QN_OK) {
        qn_safetensors_close(s);
        return st;
    }
    *out = s;
    return QN_OK;
}

qn_status qn_safetensors_open_memory(const void *data, size_t size, const char *name,
                                     qn_safetensors **out, qn_error *err) {
    static const uint8_t nothing = 0;
    *out = NULL;
    qn_safetensors *s = create();
    if (!s) return no_memory(name, err);
    shard sh = {.map = {.fd = -1}, .memory = data ? data : &nothing, .size = size};
    sh.path = qn_arena_strndup(&s->arena, name, strlen(name));
    qn_status st = QN_OK;
    if (!sh.path || !qn_grow(&s->shards, &s->shard_cap, 1, sizeof *s->shards)) {
        st = no_memory(name, err);
    } else {
        s->shards[s->shard_count++] = sh;
        st = read_header(s, 0, err);
    }
    if (st != QN_OK) {
        qn_safetensors_close(s);
        return st;
    }
    *out = s;
    return QN_OK;
}

void qn_safetensors_close(qn_safetensors *s) {
    if (!s) return;
    for (size_t i = 0; i < s->shard_count; i++) qn_os_map_close(&s->shards[i].map);
    qn_map_free(&s->by_name);
    qn_arena_free(&s->arena);
    free(s->shards);
    free(s->tensors);
    free(s);
}

size_t qn_safetensors_count(const qn_safetensors *s) { return s->count; }

const qn_st_tensor *qn_safetensors_at(const qn_safetensors *s, size_t i) {
    return i < s->count ? &s->tensors[i] : NULL;
}

const qn_st_tensor *qn_safetensors_find(const qn_safetensors *s, const char *name) {
    uint32_t i;
    return qn_map_get(&s->by_name, qn_str_from(name), &i) ? &s->tensors[i] : NULL;
}

const char *qn_safetensors_file(const qn_safetensors *s, uint32_t file) {
    return file < s->shard_count ? s->shards[file].path : NULL;
}

qn_status qn_safetensors_read(const qn_safetensors *s, const qn_st_tensor *t, uint64_t offset,
                              void *dst, size_t size, qn_error *err) {
    const shard *sh = &s->shards[t->file];
    if (offset > t->size || size > t->size - offset) {
        return qn_fail(err, QN_ERR_INVALID,
                       "%s: tensor '%s': %zu bytes at %" PRIu64 " are outside its %" PRIu64,
                       sh->path, qn_show_cstr(t->name).text, size, offset, t->size);
    }
    qn_error local = {0};
    qn_status st = shard_bytes(sh, t->offset + offset, dst, size, &local);
    if (st != QN_OK) {
        qn_fail(err, st, "%s: tensor '%s': %s", sh->path, qn_show_cstr(t->name).text,
                local.message);
    }
    return st;
}

void qn_safetensors_release(const qn_safetensors *s, const qn_st_tensor *t) {
    const shard *sh = &s->shards[t->file];
    if (!sh->memory) qn_os_map_release(&sh->map, t->offset, (size_t)t->size);
}
