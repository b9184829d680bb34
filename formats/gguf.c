// SPDX-License-Identifier: Apache-2.0
// The GGUF reader. Invariants while it parses:
// 1. Nothing is read from `meta` at or past `have`; take() makes bytes present or fails.
// 2. `meta` may move whenever bytes are fetched, so positions are offsets until parsing is over;
//    resolve() turns them into pointers once.
// 3. No count from the file sizes an allocation before the bytes that it promises are known to
//    exist; key and tensor counts, and the metadata as a whole, have hard caps besides.
// 4. Work is linear in the bytes parsed; nested arrays recurse at most MAX_ARRAY_DEPTH deep.
#include "formats/gguf.h"

#include "base/arena.h"
#include "base/checked.h"
#include "base/hash.h"
#include "formats/shown.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF values are read as stored");

enum {
    MAX_ARRAY_DEPTH = 3,
    MAX_KEY_LENGTH = 1024,
    MAX_NAME_LENGTH = 255,
    MAX_KEYS = 1 << 16,
    MAX_TENSORS = 1 << 20,
    MAX_ALIGNMENT = 1 << 20,
    DEFAULT_ALIGNMENT = 32,
    FETCH_BYTES = 1 << 20,
    MIN_KEY_BYTES = 8 + 1 + 4 + 1,             // length, name, type, value
    MIN_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8, // length, name, n_dims, one dim, type, offset
};
static const uint64_t max_metadata = (uint64_t)1 << 30;

typedef struct kv_entry {
    qn_gguf_kv kv;
    uint64_t key_at, data_at; // offsets in meta
} kv_entry;

struct qn_gguf {
    char *path;
    qn_os_map map;         // fd < 0 for bytes in memory
    const uint8_t *memory; // whole file, open_memory only
    uint64_t file_size;
    uint8_t *meta_owned;
    const uint8_t *meta;
    uint64_t have, cap;
    uint64_t pos;
    uint32_t version;
    kv_entry *kvs;
    size_t kv_count, kv_cap;
    qn_gguf_tensor *tensors;
    size_t tensor_count, tensor_cap;
    qn_arena names;
    qn_map kv_map, tensor_map;
};

static qn_status bad(const qn_gguf *g, qn_error *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static qn_status bad(const qn_gguf *g, qn_error *err, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    qn_error local = {0};
    qn_vfail(&local, QN_ERR_FORMAT, fmt, args);
    va_end(args);
    return qn_fail(err, QN_ERR_FORMAT, "%s: %s", g->path, local.message);
}

static qn_status no_memory(const qn_gguf *g, qn_error *err) {
    return qn_fail(err, QN_ERR_NOMEM, "%s: out of memory", g->path);
}

static qn_status fetch(qn_gguf *g, uint64_t need, qn_error *err) {
    if (need > g->file_size) {
        return bad(g, err, "file ends at byte %" PRIu64 ", inside the metadata", g->file_size);
    }
    if (need > max_metadata) {
        return qn_fail(err, QN_ERR_LIMIT, "%s: metadata larger than %" PRIu64 " bytes", g->path,
                       max_metadata);
    }
    uint64_t want = QN_MAX(need, g->have + QN_MAX((uint64_t)FETCH_BYTES, g->have / 4));
    want = QN_MIN(want, g->file_size);
    if (want > g->cap) {
        uint8_t *grown = realloc(g->meta_owned, want);
        if (!grown) return no_memory(g, err);
        g->meta_owned = grown;
        g->meta = grown;
        g->cap = want;
    }
    qn_status st = qn_os_map_read(&g->map, g->have, g->meta_owned + g->have, want - g->have, err);
    if (st != QN_OK) {
        qn_error_prefix(err, "%s", g->path);
        return st;
    }
    g->have = want;
    return QN_OK;
}

// Makes n bytes at g->pos present, puts their offset into *at and moves past them.
static inline qn_status take(qn_gguf *g, uint64_t n, uint64_t *at, qn_error *err) {
    uint64_t end;
    if (!qn_add_u64(g->pos, n, &end)) return fetch(g, UINT64_MAX, err);
    if (end > g->have) {
        qn_status st = fetch(g, end, err);
        if (st != QN_OK) return st;
    }
    *at = g->pos;
    g->pos = end;
    return QN_OK;
}

static qn_status take_u32(qn_gguf *g, uint32_t *v, qn_error *err) {
    uint64_t at = 0;
    qn_status st = take(g, sizeof *v, &at, err);
    if (st == QN_OK) memcpy(v, g->meta + at, sizeof *v);
    return st;
}

static inline qn_status take_u64(qn_gguf *g, uint64_t *v, qn_error *err) {
    uint64_t at = 0;
    qn_status st = take(g, sizeof *v, &at, err);
    if (st == QN_OK) memcpy(v, g->meta + at, sizeof *v);
    return st;
}

static uint64_t remaining(const qn_gguf *g) { return g->file_size - g->pos; }

// Bytes of a value of fixed size; 0 for strings, arrays and unknown types.
static uint32_t fixed_size(uint32_t type) {
    switch (type) {
    case QN_GGUF_U8:
    case QN_GGUF_I8:
    case QN_GGUF_BOOL: return 1;
    case QN_GGUF_U16:
    case QN_GGUF_I16: return 2;
    case QN_GGUF_U32:
    case QN_GGUF_I32:
    case QN_GGUF_F32: return 4;
    case QN_GGUF_U64:
    case QN_GGUF_I64:
    case QN_GGUF_F64: return 8;
    default: return 0;
    }
}

static qn_status skip_items(qn_gguf *g, uint32_t type, uint64_t count, int depth,
                            const qn_shown *key, qn_error *err);

static qn_status array_head(qn_gguf *g, uint32_t *type, uint64_t *count, const qn_shown *key,
                            qn_error *err) {
    qn_status st = take_u32(g, type, err);
    if (st == QN_OK) st = take_u64(g, count, err);
    if (st != QN_OK) return st;
    if (*type > QN_GGUF_F64) {
        return bad(g, err, "key '%s': unknown array item type %" PRIu32, key->text, *type);
    }
    uint32_t size = fixed_size(*type);
    uint64_t least = size ? size : *type == QN_GGUF_STRING ? 8 : 12;
    if (*count > remaining(g) / least) {
        return bad(g, err,
                   "key '%s': array of %" PRIu64 " items cannot fit in the %" PRIu64
                   " bytes that follow",
                   key->text, *count, remaining(g));
    }
    return QN_OK;
}

static qn_status skip_string(qn_gguf *g, const qn_shown *key, qn_error *err) {
    uint64_t n = 0, at = 0;
    qn_status st = take_u64(g, &n, err);
    if (st != QN_OK) return st;
    if (n > remaining(g)) {
        return bad(g, err,
                   "key '%s': string of %" PRIu64 " bytes, but the file has %" PRIu64 " left",
                   key->text, n, remaining(g));
    }
    return take(g, n, &at, err);
}

static qn_status skip_array(qn_gguf *g, int depth, const qn_shown *key, qn_error *err) {
    uint32_t type = 0;
    uint64_t count = 0;
    if (depth > MAX_ARRAY_DEPTH) {
        return bad(g, err, "key '%s': arrays nested deeper than %d", key->text, MAX_ARRAY_DEPTH);
    }
    qn_status st = array_head(g, &type, &count, key, err);
    if (st != QN_OK) return st;
    return skip_items(g, type, count, depth, key, err);
}

static qn_status skip_items(qn_gguf *g, uint32_t type, uint64_t count, int depth,
                            const qn_shown *key, qn_error *err) {
    uint32_t size = fixed_size(type);
    uint64_t at = 0;
    if (size) return take(g, count * size, &at, err); // count was checked by array_head
    qn_status st = QN_OK;
    for (uint64_t i = 0; i < count && st == QN_OK; i++) {
        st = type == QN_GGUF_STRING ? skip_string(g, key, err)
                                    : skip_array(g, depth + 1, key, err);
    }
    return st;
}

static qn_status parse_kv(qn_gguf *g, size_t index, qn_error *err) {
    kv_entry e = {0};
    uint64_t n = 0;
    uint32_t type = 0;
    qn_status st = take_u64(g, &n, err);
    if (st != QN_OK) return st;
    if (n == 0 || n > MAX_KEY_LENGTH) {
        return bad(g, err, "key %zu: name of %" PRIu64 " bytes (1 to %d expected)", index, n,
                   MAX_KEY_LENGTH);
    }
    st = take(g, n, &e.key_at, err);
    if (st != QN_OK) return st;
    e.kv.key.len = n;
    qn_shown key = qn_show((const char *)g->meta + e.key_at, n);
    if (memchr(g->meta + e.key_at, 0, n)) {
        return bad(g, err, "key '%s': name with a NUL byte", key.text);
    }
    st = take_u32(g, &type, err);
    if (st != QN_OK) return st;
    if (type > QN_GGUF_F64) {
        return bad(g, err, "key '%s': unknown value type %" PRIu32, key.text, type);
    }
    e.kv.type = (qn_gguf_type)type;
    e.kv.item_type = e.kv.type;
    e.kv.count = 1;
    if (type == QN_GGUF_ARRAY) {
        uint32_t item = 0;
        st = array_head(g, &item, &e.kv.count, &key, err);
        if (st != QN_OK) return st;
        e.kv.item_type = (qn_gguf_type)item;
        e.data_at = g->pos;
        st = skip_items(g, item, e.kv.count, 1, &key, err);
    } else {
        e.data_at = g->pos;
        st = skip_items(g, type, 1, 0, &key, err);
    }
    if (st != QN_OK) return st;
    if (!qn_grow(&g->kvs, &g->kv_cap, g->kv_count + 1, sizeof *g->kvs)) return no_memory(g, err);
    g->kvs[g->kv_count++] = e;
    return QN_OK;
}

static qn_status parse_tensor(qn_gguf *g, size_t index, qn_error *err) {
    qn_gguf_tensor t = {0};
    uint64_t n = 0, at = 0, elements = 1;
    qn_status st = take_u64(g, &n, err);
    if (st != QN_OK) return st;
    if (n == 0 || n > MAX_NAME_LENGTH) {
        return bad(g, err, "tensor %zu: name of %" PRIu64 " bytes (1 to %d expected)", index, n,
                   MAX_NAME_LENGTH);
    }
    st = take(g, n, &at, err);
    if (st != QN_OK) return st;
    qn_shown name = qn_show((const char *)g->meta + at, n);
    if (memchr(g->meta + at, 0, n)) {
        return bad(g, err, "tensor '%s': name with a NUL byte", name.text);
    }
    t.name = qn_arena_strndup(&g->names, (const char *)g->meta + at, n);
    if (!t.name) return no_memory(g, err);
    st = take_u32(g, &t.n_dims, err);
    if (st != QN_OK) return st;
    if (t.n_dims == 0 || t.n_dims > QN_TENSOR_MAX_DIMS) {
        return bad(g, err, "tensor '%s': %" PRIu32 " dimensions (1 to %d expected)", name.text,
                   t.n_dims, QN_TENSOR_MAX_DIMS);
    }
    for (uint32_t i = 0; i < QN_TENSOR_MAX_DIMS; i++) {
        t.dims[i] = 1;
        if (i >= t.n_dims) continue;
        st = take_u64(g, &t.dims[i], err);
        if (st != QN_OK) return st;
        if (t.dims[i] == 0) {
            return bad(g, err, "tensor '%s': dimension %" PRIu32 " is zero", name.text, i);
        }
        if (!qn_mul_u64(elements, t.dims[i], &elements) || elements > INT64_MAX) {
            return bad(g, err, "tensor '%s': the product of its dimensions overflows", name.text);
        }
    }
    st = take_u32(g, &t.type, err);
    if (st == QN_OK) st = take_u64(g, &t.offset, err);
    if (st != QN_OK) return st;
    const qn_dtype_info *info = qn_dtype_get(t.type);
    if (info && t.dims[0] % info->block_size != 0) {
        return bad(g, err,
                   "tensor '%s': rows of %" PRIu64 " elements do not divide into %s blocks of %"
                   PRIu32,
                   name.text, t.dims[0], info->name, info->block_size);
    }
    if (info && !qn_dtype_row_bytes(info, elements, &t.size)) {
        return bad(g, err, "tensor '%s': its size overflows", name.text);
    }
    if (!qn_grow(&g->tensors, &g->tensor_cap, g->tensor_count + 1, sizeof *g->tensors)) {
        return no_memory(g, err);
    }
    g->tensors[g->tensor_count++] = t;
    return QN_OK;
}

static qn_status parse_head(qn_gguf *g, uint64_t *tensors, uint64_t *kvs, qn_error *err) {
    uint64_t at = 0;
    if (g->file_size < 24) {
        return bad(g, err, "%" PRIu64 " bytes are too few for a GGUF file", g->file_size);
    }
    qn_status st = take(g, 4, &at, err);
    if (st != QN_OK) return st;
    if (memcmp(g->meta + at, "GGUF", 4) != 0) {
        return bad(g, err, "not a GGUF file (it does not begin with 'GGUF')");
    }
    st = take_u32(g, &g->version, err);
    if (st != QN_OK) return st;
    if (g->version == 1) {
        return qn_fail(err, QN_ERR_UNSUPPORTED, "%s: GGUF version 1 is not supported (2 and 3 are)",
                       g->path);
    }
    if (g->version != 0 && (g->version & 0xffffu) == 0) {
        return qn_fail(err, QN_ERR_UNSUPPORTED, "%s: big-endian GGUF files are not supported",
                       g->path);
    }
    if (g->version != 2 && g->version != 3) {
        return qn_fail(err, QN_ERR_UNSUPPORTED,
                       "%s: GGUF version %" PRIu32 " is not supported (2 and 3 are)", g->path,
                       g->version);
    }
    st = take_u64(g, tensors, err);
    if (st == QN_OK) st = take_u64(g, kvs, err);
    if (st != QN_OK) return st;
    if (*kvs > remaining(g) / MIN_KEY_BYTES || *kvs > MAX_KEYS) {
        return bad(g, err, "%" PRIu64 " keys are more than the file can hold", *kvs);
    }
    if (*tensors > remaining(g) / MIN_TENSOR_BYTES || *tensors > MAX_TENSORS) {
        return bad(g, err, "%" PRIu64 " tensors are more than the file can hold", *tensors);
    }
    return QN_OK;
}

static qn_status check_overlap(const qn_gguf *g, qn_error *err);

// Pointers, maps, duplicates, and the tensors' extents in the file.
static qn_status resolve(qn_gguf *g, qn_error *err) {
    uint64_t seed = 0x9e3779b97f4a7c15u;
    (void)qn_os_random(&seed, sizeof seed);
    if (!qn_map_init(&g->kv_map, g->kv_count, seed) ||
        !qn_map_init(&g->tensor_map, g->tensor_count, seed)) {
        return no_memory(g, err);
    }
    for (size_t i = 0; i < g->kv_count; i++) {
        kv_entry *e = &g->kvs[i];
        e->kv.key.data = (const char *)g->meta + e->key_at;
        e->kv.data = g->meta + e->data_at;
        uint32_t other;
        if (qn_map_get(&g->kv_map, e->kv.key, &other)) {
            return bad(g, err, "key '%s': appears twice",
                       qn_show(e->kv.key.data, e->kv.key.len).text);
        }
        if (!qn_map_put(&g->kv_map, e->kv.key, (uint32_t)i)) return no_memory(g, err);
    }

    uint64_t alignment = DEFAULT_ALIGNMENT;
    qn_error ignored = {0};
    qn_status st = qn_gguf_get_u64(g, "general.alignment", &alignment, &ignored);
    if (st != QN_OK && st != QN_ERR_NOT_FOUND) {
        return qn_fail(err, ignored.status, "%s", ignored.message);
    }
    if (alignment == 0 || alignment > MAX_ALIGNMENT || (alignment & (alignment - 1)) != 0) {
        return bad(g, err, "key 'general.alignment': %" PRIu64 " is not a power of two up to %d",
                   alignment, MAX_ALIGNMENT);
    }
    uint64_t data = (g->pos + alignment - 1) & ~(alignment - 1); // pos <= 1 GiB
    for (size_t i = 0; i < g->tensor_count; i++) {
        qn_gguf_tensor *t = &g->tensors[i];
        qn_str name = qn_str_from(t->name);
        qn_shown text = qn_show(name.data, name.len);
        uint32_t other;
        uint64_t end;
        if (qn_map_get(&g->tensor_map, name, &other)) {
            return bad(g, err, "tensor '%s': appears twice", text.text);
        }
        if (!qn_map_put(&g->tensor_map, name, (uint32_t)i)) return no_memory(g, err);
        if (t->offset % alignment != 0) {
            return bad(g, err, "tensor '%s': offset %" PRIu64 " is not aligned to %" PRIu64,
                       text.text, t->offset, alignment);
        }
        if (!qn_add_u64(t->offset, data, &t->offset) || !qn_add_u64(t->offset, t->size, &end)) {
            return bad(g, err, "tensor '%s': its offset overflows", text.text);
        }
        if (end > g->file_size) {
            return bad(g, err, "tensor '%s': data ends at %" PRIu64 ", file has %" PRIu64 " bytes",
                       text.text, end, g->file_size);
        }
    }
    return check_overlap(g, err);
}

static int by_offset(const void *a, const void *b) {
    const qn_gguf_tensor *x = *(const qn_gguf_tensor *const *)a;
    const qn_gguf_tensor *y = *(const qn_gguf_tensor *const *)b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return x->size < y->size ? -1 : x->size > y->size;
}

static qn_status check_overlap(const qn_gguf *g, qn_error *err) {
    bool sorted = true;
    for (size_t i = 1; i < g->tensor_count && sorted; i++) {
        sorted = g->tensors[i].offset >= g->tensors[i - 1].offset + g->tensors[i - 1].size;
    }
    if (sorted) return QN_OK;
    const qn_gguf_tensor **order = calloc(g->tensor_count, sizeof *order);
    if (!order) return no_memory(g, err);
    for (size_t i = 0; i < g->tensor_count; i++) order[i] = &g->tensors[i];
    qsort(order, g->tensor_count, sizeof *order, by_offset);
    qn_status st = QN_OK;
    for (size_t i = 1; i < g->tensor_count && st == QN_OK; i++) {
        if (order[i]->offset < order[i - 1]->offset + order[i - 1]->size) {
            st = bad(g, err, "tensor '%s': its data overlaps that of '%s'",
                     qn_show_cstr(order[i]->name).text,
                     qn_show_cstr(order[i - 1]->name).text);
        }
    }
    free(order);
    return st;
}

static qn_status parse(qn_gguf *g, qn_error *err) {
    uint64_t tensors = 0, kvs = 0;
    qn_status st = parse_head(g, &tensors, &kvs, err);
    for (uint64_t i = 0; st == QN_OK && i < kvs; i++) st = parse_kv(g, (size_t)i, err);
    for (uint64_t i = 0; st == QN_OK && i < tensors; i++) st = parse_tensor(g, (size_t)i, err);
    return st == QN_OK ? resolve(g, err) : st;
}

static qn_gguf *gguf_new(const char *path) {
    qn_gguf *g = calloc(1, sizeof *g);
    if (!g) return NULL;
    g->map.fd = -1;
    qn_arena_init(&g->names, 0);
    g->path = strdup(path);
    if (!g->path) {
        free(g);
        return NULL;
    }
    return g;
}

qn_status qn_gguf_open(const char *path, qn_gguf **out, qn_error *err) {
    *out = NULL;
    qn_gguf *g = gguf_new(path);
    if (!g) return qn_fail(err, QN_ERR_NOMEM, "%s: out of memory", path);
    qn_status st = qn_os_map_open(path, &g->map, err);
    g->file_size = g->map.size;
    if (st == QN_OK) st = parse(g, err);
    if (st != QN_OK) {
        qn_gguf_close(g);
        return st;
    }
    *out = g;
    return QN_OK;
}

qn_status qn_gguf_open_memory(const void *data, size_t size, const char *name, qn_gguf **out,
                              qn_error *err) {
    *out = NULL;
    qn_gguf *g = gguf_new(name);
    if (!g) return qn_fail(err, QN_ERR_NOMEM, "%s: out of memory", name);
    g->memory = data;
    g->meta = data;
    g->have = size;
    g->file_size = size;
    qn_status st = parse(g, err);
    if (st != QN_OK) {
        qn_gguf_close(g);
        return st;
    }
    *out = g;
    return QN_OK;
}

void qn_gguf_close(qn_gguf *g) {
    if (!g) return;
    qn_os_map_close(&g->map);
    qn_map_free(&g->kv_map);
    qn_map_free(&g->tensor_map);
    qn_arena_free(&g->names);
    free(g->meta_owned);
    free(g->kvs);
    free(g->tensors);
    free(g->path);
    free(g);
}

const char *qn_gguf_path(const qn_gguf *g) { return g->path; }
uint32_t qn_gguf_version(const qn_gguf *g) { return g->version; }
uint64_t qn_gguf_file_size(const qn_gguf *g) { return g->file_size; }

size_t qn_gguf_kv_count(const qn_gguf *g) { return g->kv_count; }

const qn_gguf_kv *qn_gguf_kv_at(const qn_gguf *g, size_t i) {
    return i < g->kv_count ? &g->kvs[i].kv : NULL;
}

const qn_gguf_kv *qn_gguf_find(const qn_gguf *g, const char *key) {
    uint32_t i;
    return qn_map_get(&g->kv_map, qn_str_from(key), &i) ? &g->kvs[i].kv : NULL;
}

static qn_status find_scalar(const qn_gguf *g, const char *key, const qn_gguf_kv **kv,
                             qn_error *err) {
    *kv = qn_gguf_find(g, key);
    if (*kv) return QN_OK;
    return qn_fail(err, QN_ERR_NOT_FOUND, "%s: key '%s' is missing", g->path, key);
}

static const char *type_name(qn_gguf_type type) {
    static const char *const names[] = {"u8",     "i8",    "u16", "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64"};
    return (unsigned)type < QN_COUNT(names) ? names[type] : "unknown";
}

const char *qn_gguf_type_name(qn_gguf_type type) { return type_name(type); }

static qn_status wrong_type(const qn_gguf *g, const char *key, const qn_gguf_kv *kv,
                            const char *expected, qn_error *err) {
    return bad(g, err, "key '%s': %s expected, not %s", key, expected, type_name(kv->type));
}

static bool is_unsigned(qn_gguf_type t) {
    return t == QN_GGUF_U8 || t == QN_GGUF_U16 || t == QN_GGUF_U32 || t == QN_GGUF_U64;
}

static bool is_signed(qn_gguf_type t) {
    return t == QN_GGUF_I8 || t == QN_GGUF_I16 || t == QN_GGUF_I32 || t == QN_GGUF_I64;
}

static uint64_t load_unsigned(const uint8_t *p, uint32_t size) {
    uint64_t v = 0;
    memcpy(&v, p, size);
    return v;
}

static int64_t load_signed(const uint8_t *p, uint32_t size) {
    uint64_t v = load_unsigned(p, size);
    unsigned unused = 64 - 8 * size;
    return (int64_t)(v << unused) >> unused;
}

qn_status qn_gguf_get_u64(const qn_gguf *g, const char *key, uint64_t *out, qn_error *err) {
    const qn_gguf_kv *kv;
    qn_status st = find_scalar(g, key, &kv, err);
    if (st != QN_OK) return st;
    uint32_t size = fixed_size(kv->type);
    if (is_unsigned(kv->type)) {
        *out = load_unsigned(kv->data, size);
        return QN_OK;
    }
    if (!is_signed(kv->type)) return wrong_type(g, key, kv, "an integer", err);
    int64_t v = load_signed(kv->data, size);
    if (v < 0) return bad(g, err, "key '%s': %" PRId64 " is negative", key, v);
    *out = (uint64_t)v;
    return QN_OK;
}

qn_status qn_gguf_get_i64(const qn_gguf *g, const char *key, int64_t *out, qn_error *err) {
    const qn_gguf_kv *kv;
    qn_status st = find_scalar(g, key, &kv, err);
    if (st != QN_OK) return st;
    uint32_t size = fixed_size(kv->type);
    if (is_signed(kv->type)) {
        *out = load_signed(kv->data, size);
        return QN_OK;
    }
    if (!is_unsigned(kv->type)) return wrong_type(g, key, kv, "an integer", err);
    uint64_t v = load_unsigned(kv->data, size);
    if (v > INT64_MAX) return bad(g, err, "key '%s': %" PRIu64 " is too large", key, v);
    *out = (int64_t)v;
    return QN_OK;
}

static double load_f64(qn_gguf_type type, const uint8_t *p) {
    if (type == QN_GGUF_F32) {
        float f;
        memcpy(&f, p, sizeof f);
        return (double)f;
    }
    if (type == QN_GGUF_F64) {
        double d;
        memcpy(&d, p, sizeof d);
        return d;
    }
    if (is_signed(type)) return (double)load_signed(p, fixed_size(type));
    return (double)load_unsigned(p, fixed_size(type));
}

qn_status qn_gguf_get_f64(const qn_gguf *g, const char *key, double *out, qn_error *err) {
    const qn_gguf_kv *kv;
    qn_status st = find_scalar(g, key, &kv, err);
    if (st != QN_OK) return st;
    if (fixed_size(kv->type) == 0 || kv->type == QN_GGUF_BOOL) {
        return wrong_type(g, key, kv, "a number", err);
    }
    *out = load_f64(kv->type, kv->data);
    return QN_OK;
}

qn_status qn_gguf_get_bool(const qn_gguf *g, const char *key, bool *out, qn_error *err) {
    const qn_gguf_kv *kv;
    qn_status st = find_scalar(g, key, &kv, err);
    if (st != QN_OK) return st;
    if (kv->type != QN_GGUF_BOOL) return wrong_type(g, key, kv, "a bool", err);
    *out = kv->data[0] != 0;
    return QN_OK;
}

qn_status qn_gguf_get_str(const qn_gguf *g, const char *key, qn_str *out, qn_error *err) {
    const qn_gguf_kv *kv;
    qn_status st = find_scalar(g, key, &kv, err);
    if (st != QN_OK) return st;
    if (kv->type != QN_GGUF_STRING) return wrong_type(g, key, kv, "a string", err);
    const uint8_t *cursor = kv->data;
    *out = qn_gguf_next_string(&cursor);
    return QN_OK;
}

double qn_gguf_item_f64(const qn_gguf_kv *kv, uint64_t index) {
    uint32_t size = fixed_size(kv->item_type);
    if (index >= kv->count || size == 0) return 0.0;
    return load_f64(kv->item_type, kv->data + index * size);
}

int64_t qn_gguf_item_i64(const qn_gguf_kv *kv, uint64_t index) {
    uint32_t size = fixed_size(kv->item_type);
    if (index >= kv->count || size == 0) return 0;
    const uint8_t *p = kv->data + index * size;
    if (is_signed(kv->item_type)) return load_signed(p, size);
    if (kv->item_type == QN_GGUF_F32 || kv->item_type == QN_GGUF_F64) {
        double d = load_f64(kv->item_type, p);
        if (isnan(d)) return 0;
        return d >= 0x1p63 ? INT64_MAX : d < -0x1p63 ? INT64_MIN : (int64_t)d;
    }
    uint64_t v = load_unsigned(p, size);
    return v > INT64_MAX ? INT64_MAX : (int64_t)v;
}

qn_str qn_gguf_next_string(const uint8_t **cursor) {
    uint64_t n;
    memcpy(&n, *cursor, sizeof n);
    qn_str s = {(const char *)*cursor + sizeof n, (size_t)n};
    *cursor += sizeof n + n;
    return s;
}

static const uint8_t *items_end(const uint8_t *p, uint32_t type, uint64_t count) {
    uint32_t size = fixed_size(type);
    if (size) return p + count * size;
    for (uint64_t i = 0; i < count; i++) {
        if (type == QN_GGUF_STRING) {
            (void)qn_gguf_next_string(&p);
            continue;
        }
        uint32_t item; // an array in an array; its depth was bounded at open
        uint64_t n;
        memcpy(&item, p, sizeof item);
        memcpy(&n, p + sizeof item, sizeof n);
        p = items_end(p + sizeof item + sizeof n, item, n);
    }
    return p;
}

const uint8_t *qn_gguf_kv_end(const qn_gguf_kv *kv) {
    return items_end(kv->data, kv->item_type, kv->count);
}

size_t qn_gguf_tensor_count(const qn_gguf *g) { return g->tensor_count; }

const qn_gguf_tensor *qn_gguf_tensor_at(const qn_gguf *g, size_t i) {
    return i < g->tensor_count ? &g->tensors[i] : NULL;
}

const qn_gguf_tensor *qn_gguf_find_tensor(const qn_gguf *g, const char *name) {
    uint32_t i;
    return qn_map_get(&g->tensor_map, qn_str_from(name), &i) ? &g->tensors[i] : NULL;
}

qn_status qn_gguf_read_tensor(const qn_gguf *g, const qn_gguf_tensor *t, uint64_t offset, void *dst,
                              size_t size, qn_error *err) {
    if (offset > t->size || size > t->size - offset) {
        return qn_fail(err, QN_ERR_INVALID,
                       "%s: tensor '%s': %zu bytes at %" PRIu64 " are outside its %" PRIu64,
                       g->path, qn_show_cstr(t->name).text, size, offset, t->size);
    }
    if (g->memory) {
        if (size) memcpy(dst, g->memory + t->offset + offset, size);
        return QN_OK;
    }
    qn_error local = {0};
    qn_status st = qn_os_map_read(&g->map, t->offset + offset, dst, size, &local);
    if (st != QN_OK) {
        qn_fail(err, st, "%s: tensor '%s': %s", g->path, qn_show_cstr(t->name).text,
                local.message);
    }
    return st;
}

void qn_gguf_release_tensor(const qn_gguf *g, const qn_gguf_tensor *t) {
    if (!g->memory) qn_os_map_release(&g->map, t->offset, (size_t)t->size);
}
