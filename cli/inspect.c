// SPDX-License-Identifier: Apache-2.0
// quern inspect: what is in a model file. Nothing from the file reaches the terminal raw: text goes
// through qn_buf_visible, JSON through escapes.
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/hub_model.h"

#include "base/buf.h"
#include "base/checked.h"
#include "base/os.h"
#include "base/utf8.h"
#include "formats/gguf.h"
#include "formats/hf_dir.h"
#include "formats/safetensors.h"
#include "model/model.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SHORT_ITEMS = 6, // items of an array that are shown
    SHORT_TEXT = 100, // bytes of a string that are shown
    KINDS = 64,      // element types that totals are kept for
};

typedef struct options {
    bool json, full, metadata, tensors, program;
    const char *revision;
} options;

// A tensor of either format.
typedef struct row {
    const char *name, *type, *file;
    uint32_t n_dims;
    const uint64_t *dims;
    uint64_t elements, bytes;
    bool sized; // bytes is known
} row;

typedef struct total {
    char type[24];
    uint64_t tensors, elements, bytes;
    bool sized;
} total;

typedef struct report {
    const options *o;
    const char *path;
    qn_gguf *gguf;     // one of these three, hf with st
    qn_safetensors *st;
    qn_hf_dir *hf;
    total totals[KINDS];
    size_t n_totals;
    char scratch[24]; // name of a type that has none
    qn_buf out;
} report;

static void text(report *r, const char *s, size_t len) { qn_buf_visible(&r->out, s, len, false); }
static void cstr(report *r, const char *s) { text(r, s, strlen(s)); }

static void put_bytes(qn_buf *out, uint64_t n) {
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
    double v = (double)n;
    size_t i = 0;
    if (n < 1024) {
        qn_buf_printf(out, "%" PRIu64 " B", n);
        return;
    }
    for (v /= 1024; v >= 1024 && i + 1 < QN_COUNT(units); i++) v /= 1024;
    qn_buf_printf(out, "%.1f %s", v, units[i]);
}

static void put_count(qn_buf *out, uint64_t n) {
    if (n >= 1000000000) {
        qn_buf_printf(out, "%.3f G", (double)n / 1e9);
    } else if (n >= 1000000) {
        qn_buf_printf(out, "%.1f M", (double)n / 1e6);
    } else {
        qn_buf_printf(out, "%" PRIu64, n);
    }
}

// ---- Metadata values

static void put_number(qn_buf *out, const qn_gguf_kv *kv, uint64_t i, bool json) {
    if (kv->item_type == QN_GGUF_BOOL) {
        qn_buf_puts(out, qn_gguf_item_i64(kv, i) ? "true" : "false");
    } else if (kv->item_type == QN_GGUF_F32 || kv->item_type == QN_GGUF_F64) {
        double v = qn_gguf_item_f64(kv, i);
        if (json && !isfinite(v)) {
            qn_buf_puts(out, isnan(v) ? "\"nan\"" : v > 0 ? "\"inf\"" : "\"-inf\"");
        } else {
            qn_buf_printf(out, kv->item_type == QN_GGUF_F32 ? "%.9g" : "%.17g", v);
        }
    } else if (kv->item_type == QN_GGUF_U64) {
        uint64_t v;
        memcpy(&v, kv->data + 8 * i, sizeof v);
        qn_buf_printf(out, "%" PRIu64, v);
    } else {
        qn_buf_printf(out, "%" PRId64, qn_gguf_item_i64(kv, i));
    }
}

// A string in quotes, cut unless everything is asked for.
static void put_text(report *r, qn_str s) {
    size_t n = r->o->full ? s.len : QN_MIN(s.len, (size_t)SHORT_TEXT);
    n -= n < s.len ? qn_utf8_incomplete_tail(s.data, n) : 0;
    if (r->o->json) {
        // Where it is cut, the JSON says so beside the value.
        qn_buf_json_string(&r->out, s.data, n);
        return;
    }
    qn_buf_putc(&r->out, '"');
    text(r, s.data, n);
    qn_buf_putc(&r->out, '"');
    if (n < s.len) qn_buf_printf(&r->out, "... (%zu bytes)", s.len);
}

static void put_items(report *r, const qn_gguf_kv *kv, uint64_t n) {
    const uint8_t *cursor = kv->data;
    qn_buf_putc(&r->out, '[');
    for (uint64_t i = 0; i < n; i++) {
        if (i) qn_buf_puts(&r->out, ", ");
        if (kv->item_type == QN_GGUF_STRING) {
            put_text(r, qn_gguf_next_string(&cursor));
        } else {
            put_number(&r->out, kv, i, r->o->json);
        }
    }
    if (n < kv->count && !r->o->json) qn_buf_puts(&r->out, n ? ", ..." : "...");
    qn_buf_putc(&r->out, ']');
}

static uint64_t items_shown(const report *r, const qn_gguf_kv *kv) {
    if (kv->item_type == QN_GGUF_ARRAY) return 0;
    return r->o->full ? kv->count : QN_MIN(kv->count, (uint64_t)SHORT_ITEMS);
}

static void put_value(report *r, const qn_gguf_kv *kv) {
    if (kv->type == QN_GGUF_ARRAY) {
        put_items(r, kv, items_shown(r, kv));
    } else if (kv->type == QN_GGUF_STRING) {
        const uint8_t *cursor = kv->data;
        put_text(r, qn_gguf_next_string(&cursor));
    } else {
        put_number(&r->out, kv, 0, r->o->json);
    }
}

static void text_metadata(report *r) {
    qn_buf_puts(&r->out, "\nmetadata:\n");
    for (size_t i = 0; r->gguf && i < qn_gguf_kv_count(r->gguf); i++) {
        const qn_gguf_kv *kv = qn_gguf_kv_at(r->gguf, i);
        char type[48];
        snprintf(type, sizeof type, "%s", qn_gguf_type_name(kv->type));
        if (kv->type == QN_GGUF_ARRAY) {
            snprintf(type, sizeof type, "%s[%" PRIu64 "]", qn_gguf_type_name(kv->item_type),
                     kv->count);
        }
        qn_buf key = {0};
        qn_buf_visible(&key, kv->key.data, kv->key.len, false);
        qn_buf_printf(&r->out, "  %-42s %-14s ", key.data ? key.data : "", type);
        put_value(r, kv);
        qn_buf_putc(&r->out, '\n');
        qn_buf_free(&key);
    }
    const char *key;
    json_t *value;
    json_t *config = r->hf ? r->hf->config : NULL;
    json_object_foreach(config, key, value) {
        char *dump =
            json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(15));
        qn_buf name = {0};
        qn_buf_visible(&name, key, strlen(key), false);
        qn_buf_printf(&r->out, "  %-42s ", name.data ? name.data : "");
        size_t len = dump ? strlen(dump) : 0, n = r->o->full ? len : QN_MIN(len, 2 * SHORT_TEXT);
        if (dump) text(r, dump, n);
        if (n < len) qn_buf_printf(&r->out, "... (%zu bytes)", len);
        qn_buf_putc(&r->out, '\n');
        qn_buf_free(&name);
        free(dump);
    }
    if (r->hf) {
        qn_buf_printf(&r->out, "  (chat template: %s)\n", r->hf->chat_template ? "yes" : "none");
    }
}

static void json_gguf_metadata(report *r) {
    for (size_t i = 0; i < qn_gguf_kv_count(r->gguf); i++) {
        const qn_gguf_kv *kv = qn_gguf_kv_at(r->gguf, i);
        qn_buf_puts(&r->out, i ? ",\n    " : "\n    ");
        qn_buf_json_string(&r->out, kv->key.data, kv->key.len);
        qn_buf_printf(&r->out, ": {\"type\": \"%s\"", qn_gguf_type_name(kv->type));
        if (kv->type == QN_GGUF_ARRAY) {
            qn_buf_printf(&r->out, ", \"items\": \"%s\", \"count\": %" PRIu64,
                          qn_gguf_type_name(kv->item_type), kv->count);
        }
        if (kv->type == QN_GGUF_STRING) {
            const uint8_t *cursor = kv->data;
            qn_buf_printf(&r->out, ", \"bytes\": %zu", qn_gguf_next_string(&cursor).len);
        }
        qn_buf_puts(&r->out, ", \"value\": ");
        put_value(r, kv);
        qn_buf_putc(&r->out, '}');
    }
}

static void json_metadata(report *r) {
    qn_buf_puts(&r->out, ",\n  \"metadata\": ");
    if (r->hf) {
        char *dump = json_dumps(r->hf->config, JSON_ENSURE_ASCII | JSON_INDENT(2));
        qn_buf_puts(&r->out, dump ? dump : "{}");
        free(dump);
        qn_buf_printf(&r->out, ",\n  \"chat_template\": %s",
                      r->hf->chat_template ? "true" : "false");
        return;
    }
    qn_buf_putc(&r->out, '{');
    if (r->gguf) json_gguf_metadata(r);
    qn_buf_puts(&r->out, "\n  }");
}

// ---- Tensors

static size_t n_tensors(const report *r) {
    return r->gguf ? qn_gguf_tensor_count(r->gguf) : qn_safetensors_count(r->st);
}

static row tensor_at(report *r, size_t i) {
    row t = {.elements = 1, .sized = true};
    if (r->gguf) {
        const qn_gguf_tensor *g = qn_gguf_tensor_at(r->gguf, i);
        t.name = g->name;
        t.type = qn_dtype_gguf_name(g->type);
        if (!t.type) {
            snprintf(r->scratch, sizeof r->scratch, "type %" PRIu32, g->type);
            t.type = r->scratch;
        }
        t.n_dims = g->n_dims;
        t.dims = g->dims;
        t.bytes = g->size;
        t.sized = qn_dtype_get(g->type) != NULL;
    } else {
        const qn_st_tensor *s = qn_safetensors_at(r->st, i);
        t.name = s->name;
        t.type = s->dtype;
        t.n_dims = s->n_dims;
        t.dims = s->dims;
        t.bytes = s->size;
        t.file = qn_safetensors_file(r->st, s->file);
    }
    // The readers have checked the product, but for a safetensors dtype that they do not know.
    for (uint32_t k = 0; k < t.n_dims; k++) {
        if (!qn_mul_u64(t.elements, t.dims[k], &t.elements)) t.elements = 0;
    }
    return t;
}

static void add_total(report *r, const row *t) {
    size_t i = 0;
    while (i < r->n_totals && strncmp(r->totals[i].type, t->type, sizeof r->totals->type - 1)) i++;
    if (i == QN_COUNT(r->totals)) return; // more element types than any format has
    total *sum = &r->totals[i];
    if (i == r->n_totals) {
        r->n_totals++;
        sum->sized = t->sized;
        snprintf(sum->type, sizeof sum->type, "%s", t->type);
    }
    sum->tensors++;
    sum->elements += t->elements;
    sum->bytes += t->bytes;
}

static void text_tensors(report *r) {
    int width = 20;
    for (size_t i = 0; i < n_tensors(r); i++) {
        width = QN_MAX(width, (int)QN_MIN(strlen(tensor_at(r, i).name), (size_t)60));
    }
    qn_buf_printf(&r->out, "\ntensors (the %s dimension is contiguous):\n",
                  r->gguf ? "first" : "last");
    for (size_t i = 0; i < n_tensors(r); i++) {
        row t = tensor_at(r, i);
        qn_buf name = {0}, shape = {0};
        qn_buf_visible(&name, t.name, strlen(t.name), false);
        for (uint32_t k = 0; k < t.n_dims; k++) {
            qn_buf_printf(&shape, "%s%" PRIu64, k ? " x " : "", t.dims[k]);
        }
        qn_buf_printf(&r->out, "  %-*s ", width, name.data ? name.data : "");
        qn_buf type = {0};
        qn_buf_visible(&type, t.type, strlen(t.type), false);
        qn_buf_printf(&r->out, "%-8s %-24s ", type.data ? type.data : "",
                      shape.data ? shape.data : "scalar");
        if (t.sized) {
            put_bytes(&r->out, t.bytes);
        } else {
            qn_buf_puts(&r->out, "? (a type that quern does not read)");
        }
        qn_buf_putc(&r->out, '\n');
        qn_buf_free(&name);
        qn_buf_free(&shape);
        qn_buf_free(&type);
    }
}

static void text_totals(report *r) {
    qn_buf_puts(&r->out, "\ntotals:\n");
    uint64_t elements = 0, bytes = 0;
    bool sized = true;
    for (size_t i = 0; i < r->n_totals; i++) {
        const total *t = &r->totals[i];
        qn_buf_puts(&r->out, "  ");
        size_t before = r->out.len;
        cstr(r, t->type);
        for (size_t n = r->out.len - before; n < 8; n++) qn_buf_putc(&r->out, ' ');
        qn_buf_printf(&r->out, " %6" PRIu64 " tensors  ", t->tensors);
        put_count(&r->out, t->elements);
        qn_buf_puts(&r->out, " parameters");
        if (t->sized) {
            qn_buf_puts(&r->out, "  ");
            put_bytes(&r->out, t->bytes);
        }
        qn_buf_putc(&r->out, '\n');
        elements += t->elements;
        bytes += t->bytes;
        sized = sized && t->sized;
    }
    qn_buf_printf(&r->out, "  all      %6zu tensors  ", n_tensors(r));
    put_count(&r->out, elements);
    qn_buf_puts(&r->out, " parameters");
    if (sized) {
        qn_buf_puts(&r->out, "  ");
        put_bytes(&r->out, bytes);
    }
    qn_buf_putc(&r->out, '\n');
}

static void json_tensors(report *r) {
    qn_buf_puts(&r->out, ",\n  \"tensors\": [");
    for (size_t i = 0; i < n_tensors(r); i++) {
        row t = tensor_at(r, i);
        qn_buf_puts(&r->out, i ? ",\n    {\"name\": " : "\n    {\"name\": ");
        qn_buf_json_string(&r->out, t.name, strlen(t.name));
        qn_buf_puts(&r->out, ", \"type\": ");
        qn_buf_json_string(&r->out, t.type, strlen(t.type));
        qn_buf_puts(&r->out, ", \"shape\": [");
        for (uint32_t k = 0; k < t.n_dims; k++) {
            qn_buf_printf(&r->out, "%s%" PRIu64, k ? ", " : "", t.dims[k]);
        }
        if (t.sized) {
            qn_buf_printf(&r->out, "], \"bytes\": %" PRIu64, t.bytes);
        } else {
            qn_buf_puts(&r->out, "], \"bytes\": null");
        }
        if (t.file) {
            const char *slash = strrchr(t.file, '/');
            const char *base = slash ? slash + 1 : t.file;
            qn_buf_puts(&r->out, ", \"file\": ");
            qn_buf_json_string(&r->out, base, strlen(base));
        }
        qn_buf_putc(&r->out, '}');
    }
    qn_buf_puts(&r->out, "\n  ]");
}

static void json_totals(report *r) {
    qn_buf_puts(&r->out, ",\n  \"totals\": {");
    for (size_t i = 0; i < r->n_totals; i++) {
        const total *t = &r->totals[i];
        qn_buf_puts(&r->out, i ? ",\n    " : "\n    ");
        qn_buf_json_string(&r->out, t->type, strlen(t->type));
        qn_buf_printf(&r->out, ": {\"tensors\": %" PRIu64 ", \"parameters\": %" PRIu64, t->tensors,
                      t->elements);
        if (t->sized) qn_buf_printf(&r->out, ", \"bytes\": %" PRIu64, t->bytes);
        qn_buf_putc(&r->out, '}');
    }
    qn_buf_puts(&r->out, "\n  }");
}

// ---- The op program

static void put_program(report *r) {
    qn_model *m;
    qn_error err = {0};
    qn_buf lines = {0};
    bool json = r->o->json;
    qn_status st = qn_model_open(r->path, NULL, &m, &err);
    if (st == QN_OK) qn_program_print(qn_model_program(m), &lines);
    qn_buf_puts(&r->out, json ? ",\n  \"program\": " : "\nprogram:\n");
    if (st != QN_OK) {
        // A vocabulary without weights, say, or a family that is not known: the rest still shows.
        if (json) {
            qn_buf_puts(&r->out, "null,\n  \"program_error\": ");
            qn_buf_json_string(&r->out, err.message, strlen(err.message));
        } else {
            qn_buf_puts(&r->out, "  none: ");
            cstr(r, err.message);
            qn_buf_putc(&r->out, '\n');
        }
        return;
    }
    if (json) qn_buf_putc(&r->out, '[');
    bool first = true;
    for (const char *line = lines.data; line && *line;) {
        size_t n = strcspn(line, "\n");
        if (json) {
            qn_buf_puts(&r->out, first ? "\n    " : ",\n    ");
            qn_buf_json_string(&r->out, line, n);
        } else {
            qn_buf_puts(&r->out, "  ");
            text(r, line, n);
            qn_buf_putc(&r->out, '\n');
        }
        first = false;
        line += n + (line[n] == '\n');
    }
    if (json) qn_buf_puts(&r->out, "\n  ]");
    qn_buf_free(&lines);
    qn_model_close(m);
}

// ---- The whole

static const char *format_name(const report *r) {
    return r->gguf ? "gguf" : r->hf ? "huggingface" : "safetensors";
}

static void put_text_report(report *r) {
    cstr(r, r->path);
    if (r->gguf) {
        qn_buf_printf(&r->out, ": GGUF version %" PRIu32 ", ", qn_gguf_version(r->gguf));
        put_bytes(&r->out, qn_gguf_file_size(r->gguf));
        qn_buf_printf(&r->out, ", %zu keys", qn_gguf_kv_count(r->gguf));
    } else {
        qn_buf_puts(&r->out, r->hf ? ": Hugging Face directory" : ": safetensors");
    }
    qn_buf_printf(&r->out, ", %zu tensors\n", n_tensors(r));
    if (r->o->metadata && (r->gguf || r->hf)) text_metadata(r);
    if (r->o->tensors) text_tensors(r);
    text_totals(r);
    if (r->o->program && (r->gguf || r->hf)) put_program(r);
}

// C1 controls and bidirectional overrides may stand in JSON, but not on a terminal. They can only
// be inside strings, where an escape means the same.
static void escape_controls(qn_buf *json) {
    qn_buf out = {0};
    for (size_t i = 0; i < json->len && !out.failed;) {
        uint32_t cp = 0;
        size_t n = qn_utf8_decode(json->data + i, json->len - i, &cp);
        bool bidi = (cp >= 0x202a && cp <= 0x202e) || (cp >= 0x2066 && cp <= 0x2069);
        if (n > 1 && ((cp >= 0x80 && cp < 0xa0) || bidi)) {
            qn_buf_printf(&out, "\\u%04x", (unsigned)cp);
        } else {
            qn_buf_append(&out, json->data + i, n ? n : 1);
        }
        i += n ? n : 1;
    }
    qn_buf_free(json);
    *json = out;
}

static void put_json_report(report *r) {
    qn_buf_puts(&r->out, "{\n  \"path\": ");
    qn_buf_json_string(&r->out, r->path, strlen(r->path));
    qn_buf_printf(&r->out, ",\n  \"format\": \"%s\"", format_name(r));
    if (r->gguf) {
        qn_buf_printf(&r->out, ",\n  \"version\": %" PRIu32 ",\n  \"bytes\": %" PRIu64,
                      qn_gguf_version(r->gguf), qn_gguf_file_size(r->gguf));
    }
    if (r->o->metadata) json_metadata(r);
    if (r->o->tensors) json_tensors(r);
    json_totals(r);
    if (r->o->program && (r->gguf || r->hf)) put_program(r);
    qn_buf_puts(&r->out, "\n}\n");
    escape_controls(&r->out);
}

static qn_status open_files(report *r, qn_error *err) {
    bool is_dir = false;
    size_t n = strlen(r->path);
    static const char suffix[] = ".safetensors";
    size_t suffix_len = sizeof suffix - 1;
    if (!qn_os_exists(r->path, &is_dir)) {
        return qn_fail(err, QN_ERR_NOT_FOUND, "%s: no such file or directory", r->path);
    }
    if (is_dir) {
        qn_status st = qn_hf_dir_open(r->path, &r->hf, err);
        if (st != QN_OK) return st;
        return qn_safetensors_open(r->path, &r->st, err);
    }
    if (n > suffix_len && strcmp(r->path + n - suffix_len, suffix) == 0) {
        return qn_safetensors_open(r->path, &r->st, err);
    }
    return qn_gguf_open(r->path, &r->gguf, err);
}

static int run(const options *o, const char *path) {
    report *r = calloc(1, sizeof *r);
    if (!r) {
        qn_cli_error("out of memory");
        return 1;
    }
    r->o = o;
    r->path = path;
    qn_error err = {0};
    int rc = 0;
    if (open_files(r, &err) != QN_OK) {
        qn_cli_error("%s", err.message);
        rc = 1;
    } else {
        for (size_t i = 0; i < n_tensors(r); i++) {
            row t = tensor_at(r, i);
            add_total(r, &t);
        }
        if (o->json) {
            put_json_report(r);
        } else {
            put_text_report(r);
        }
        if (r->out.failed) {
            qn_cli_error("out of memory");
            rc = 1;
        } else if (fwrite(r->out.data, 1, r->out.len, stdout) != r->out.len ||
                   fflush(stdout) != 0) {
            // A reader that has seen enough (head, less) is no error worth a word.
            if (errno != EPIPE) qn_cli_error("cannot write: %s", strerror(errno));
            rc = 1;
        }
    }
    qn_buf_free(&r->out);
    qn_gguf_close(r->gguf);
    qn_safetensors_close(r->st);
    qn_hf_dir_close(r->hf);
    free(r);
    return rc;
}

int qn_cli_inspect(int argc, char **argv) {
    options o = {.metadata = true, .tensors = true, .program = true};
    const qn_flag flags[] = {
        {"json", 0, QN_FLAG_BOOL, &o.json, NULL, "one JSON object", 0, 0},
        {"full", 0, QN_FLAG_BOOL, &o.full, NULL, "long arrays and strings whole", 0, 0},
        {"metadata", 0, QN_FLAG_BOOL, &o.metadata, NULL, "keys and values", 0, 0},
        {"tensors", 0, QN_FLAG_BOOL, &o.tensors, NULL, "name, type, shape and bytes of each", 0, 0},
        {"program", 0, QN_FLAG_BOOL, &o.program, NULL, "the ops that a step runs", 0, 0},
        {"revision", 0, QN_FLAG_TEXT, &o.revision, "NAME",
         "branch, tag or commit of a model from the hub (default: main)", 0, 0},
    };
    const qn_flag_set set = {
        .command = "inspect",
        .usage = "quern inspect MODEL [options]",
        .about = "Shows what is in a GGUF file, a Hugging Face directory, a safetensors file or a\n"
                 "model on the hub: metadata, tensors, totals by type, and the op program compiled from them.",
        .examples = "  quern inspect model.gguf\n"
                    "  quern inspect model.gguf --no-tensors --no-program --full\n"
                    "  quern inspect hf-directory --json | jq .totals\n",
        .flags = flags,
        .n_flags = QN_COUNT(flags),
    };
    const char *path = NULL;
    size_t n = 0;
    int rc = qn_flags_parse(&set, argc, argv, &path, 1, &n);
    if (rc >= 0) return rc;
    if (n != 1) {
        qn_cli_error("inspect needs a model");
        fprintf(stderr, "quern: see 'quern inspect --help'\n");
        return 2;
    }
    char *model;
    qn_error err = {0};
    const qn_log log = qn_log_stderr(QN_LOG_WARN);
    if (qn_cli_model_path(path, o.revision, QN_HUB_MODEL, &log, &model, &err) != QN_OK) {
        qn_cli_error("%s", err.message);
        return 1;
    }
    rc = run(&o, model);
    free(model);
    return rc;
}
