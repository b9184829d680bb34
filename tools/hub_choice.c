// SPDX-License-Identifier: Apache-2.0
// Names of repositories and of their files, and which of the files make the model.
#include "base/checked.h"
#include "base/hash.h"
#include "base/json_reader.h"
#include "base/os.h"
#include "tools/hub_parts.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

static bool name_char(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
}

static bool ends_with(qn_str s, const char *suffix) {
    size_t n = strlen(suffix);
    return s.len >= n && strncasecmp(s.data + s.len - n, suffix, n) == 0;
}

static bool part_ok(qn_str s) {
    if (s.len == 0 || s.data[0] == '-' || s.data[0] == '.' || s.data[s.len - 1] == '-' ||
        s.data[s.len - 1] == '.') {
        return false;
    }
    for (size_t i = 0; i < s.len; i++) {
        if (!name_char(s.data[i])) return false;
        if (i && s.data[i] == s.data[i - 1] && (s.data[i] == '-' || s.data[i] == '.')) return false;
    }
    return true;
}

bool qn_hub_name_parse(const char *text, qn_hub_name *out) {
    *out = (qn_hub_name){0};
    const char *slash = strchr(text, '/'), *colon = strchr(text, ':');
    if (!slash || (colon && colon < slash) || strchr(slash + 1, '/')) return false;
    qn_str repo = {text, colon ? (size_t)(colon - text) : strlen(text)};
    qn_str owner = {text, (size_t)(slash - text)};
    qn_str name = {slash + 1, repo.len - owner.len - 1};
    if (repo.len > QN_HUB_NAME_MAX || !part_ok(owner) || !part_ok(name) || ends_with(name, ".git")) {
        return false;
    }
    if (!colon && (ends_with(name, ".gguf") || ends_with(name, ".safetensors") || ends_with(name, ".json"))) {
        return false;
    }
    if (colon) {
        qn_str choice = qn_str_from(colon + 1);
        if (choice.len == 0 || choice.len > QN_HUB_NAME_MAX) return false;
        for (size_t i = 0; i < choice.len; i++) {
            if (!name_char(choice.data[i])) return false;
        }
        memcpy(out->choice, choice.data, choice.len);
    }
    memcpy(out->repo, repo.data, repo.len);
    return true;
}

bool qn_hub_path_ok(qn_str path) {
    if (path.len == 0 || path.len > QN_HUB_MAX_PATH) return false;
    size_t start = 0, depth = 0;
    for (size_t i = 0; i <= path.len; i++) {
        if (i < path.len && path.data[i] != '/') {
            unsigned char c = (unsigned char)path.data[i];
            if (c < 0x20 || c == 0x7f || c == '\\') return false;
            continue;
        }
        // Not empty (which also is a slash at an end, or two), not "." or "..".
        size_t n = i - start;
        if (n == 0 || n > 200 || ++depth > 8 || (n == 1 && path.data[start] == '.') ||
            (n == 2 && memcmp(path.data + start, "..", 2) == 0)) {
            return false;
        }
        start = i + 1;
    }
    return true;
}

bool qn_hub_is_hex(qn_str text, size_t n) {
    if (text.len != n) return false;
    for (size_t i = 0; i < n; i++) {
        char c = text.data[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
    }
    return true;
}

bool qn_hub_revision_ok(const char *revision) {
    qn_str r = qn_str_from(revision);
    if (r.len > QN_HUB_REVISION_MAX || !qn_hub_path_ok(r) || strstr(revision, "..")) return false;
    for (size_t i = 0; i < r.len; i++) {
        if (!name_char(r.data[i]) && !strchr("/+=@", r.data[i])) return false;
    }
    return !ends_with(r, ".lock") && !ends_with(r, ".tmp");
}

bool qn_hub_listing_add(qn_hub_listing *l, qn_str path, uint64_t size, const char *hash) {
    if (!qn_grow(&l->files, &l->cap, l->n + 1, sizeof *l->files)) return false;
    qn_hub_file *f = &l->files[l->n];
    *f = (qn_hub_file){.path = strndup(path.data, path.len), .size = size};
    if (!f->path) return false;
    size_t n = QN_MIN(strlen(hash), (size_t)QN_HUB_HASH_MAX);
    memcpy(f->hash, hash, n);
    l->n++;
    return true;
}

const qn_hub_file *qn_hub_listing_find(const qn_hub_listing *l, const char *path) {
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->files[i].path, path) == 0) return &l->files[i];
    }
    return NULL;
}

void qn_hub_listing_free(qn_hub_listing *l) {
    for (size_t i = 0; i < l->n; i++) free(l->files[i].path);
    free(l->files);
    *l = (qn_hub_listing){0};
}

void qn_hub_pick_free(qn_hub_pick *pick) {
    free(pick->files);
    *pick = (qn_hub_pick){0};
}

static bool pick_add(qn_hub_pick *pick, const qn_hub_file *f) {
    if (!qn_grow(&pick->files, &pick->cap, pick->n + 1, sizeof *pick->files)) return false;
    pick->files[pick->n++] = f;
    return true;
}

// A GGUF file that may be the model: not a projector, and not an importance matrix.
static bool is_model_gguf(const qn_hub_file *f) {
    const char *base = strrchr(f->path, '/');
    base = base ? base + 1 : f->path;
    return ends_with(qn_str_from(f->path), ".gguf") && !strcasestr(base, "mmproj") &&
           !strcasestr(base, "imatrix");
}

// The path without .gguf and without -00001-of-00003; *parts is 3 then, else 1.
static qn_str gguf_stem(const qn_hub_file *f, unsigned *part, unsigned *parts) {
    qn_str s = {f->path, strlen(f->path) - 5};
    *part = *parts = 1;
    static const char shape[] = "-#####-of-#####";
    size_t n = sizeof shape - 1;
    if (s.len <= n) return s;
    const char *p = s.data + s.len - n;
    unsigned v[2] = {0, 0};
    for (size_t i = 0; i < n; i++) {
        if (shape[i] != '#' ? p[i] != shape[i] : p[i] < '0' || p[i] > '9') return s;
        if (shape[i] == '#') v[i > 6] = v[i > 6] * 10 + (unsigned)(p[i] - '0');
    }
    *part = v[0];
    *parts = v[1];
    return (qn_str){s.data, s.len - n};
}

// The bytes of the stems' common beginning, up to the last '/', '-' or '.' in it: what follows in each
// is the label that tells it from the others.
static size_t common_prefix(const qn_hub_file **files, size_t n) {
    unsigned part, parts;
    qn_str first = gguf_stem(files[0], &part, &parts);
    size_t common = first.len;
    for (size_t i = 1; i < n; i++) {
        qn_str s = gguf_stem(files[i], &part, &parts);
        size_t k = 0;
        while (k < common && k < s.len && s.data[k] == first.data[k]) k++;
        common = k;
    }
    while (common && !strchr("/-.", first.data[common - 1])) common--;
    return common;
}

static bool same(qn_str a, qn_str b) { return a.len == b.len && strncasecmp(a.data, b.data, a.len) == 0; }

static qn_str base_of(qn_str s) {
    for (size_t i = s.len; i > 0; i--) {
        if (s.data[i - 1] == '/') return (qn_str){s.data + i, s.len - i};
    }
    return s;
}

// How well choice names a file: 3 by its label or whole name, 2 by the name without its folder, 1 by its
// end, 0 not at all.
static int fits(const qn_hub_file *f, size_t common, const char *choice) {
    unsigned part, parts;
    qn_str want = qn_str_from(choice), stem = gguf_stem(f, &part, &parts);
    qn_str label = {stem.data + common, stem.len - common}, base = base_of(stem);
    if (same(want, label) || same(want, stem) || same(want, qn_str_from(f->path))) return 3;
    if (same(want, base_of(label)) || same(want, base) || same(want, base_of(qn_str_from(f->path)))) {
        return 2;
    }
    return base.len > want.len && strchr("-._", base.data[base.len - want.len - 1]) &&
                   strncasecmp(base.data + base.len - want.len, want.data, want.len) == 0
               ? 1
               : 0;
}

// "Q4_0, Q8_0 (2 files)", as far as an error has room.
static void list_choices(const qn_hub_file **files, size_t n, size_t common, qn_buf *out) {
    qn_str last = {0};
    for (size_t i = 0; i < n; i++) {
        unsigned part, parts;
        qn_str stem = gguf_stem(files[i], &part, &parts);
        if (last.data && same(stem, last)) continue;
        last = stem;
        if (out->len > 300) {
            qn_buf_puts(out, ", ...");
            return;
        }
        // The one whose name is all common is chosen by its file's name.
        qn_str label = stem.len > common ? (qn_str){stem.data + common, stem.len - common} : base_of(stem);
        qn_buf_puts(out, out->len ? ", " : "");
        qn_buf_append(out, label.data, label.len);
    }
}

static int by_path(const void *a, const void *b) {
    return strcmp((*(const qn_hub_file *const *)a)->path, (*(const qn_hub_file *const *)b)->path);
}

static qn_status choose_gguf(const qn_hub_name *name, const qn_hub_file **files, size_t n,
                             qn_hub_pick *out, qn_error *err) {
    qsort(files, n, sizeof *files, by_path);
    size_t common = common_prefix(files, n), found = 0;
    const qn_hub_file *chosen = NULL;
    qn_str chosen_stem = {0};
    unsigned part = 1, parts = 1, chosen_parts = 1;
    int best = 1;
    for (size_t i = 0; i < n; i++) {
        int fit = name->choice[0] ? fits(files[i], common, name->choice) : 1;
        if (fit < best) continue;
        qn_str stem = gguf_stem(files[i], &part, &parts);
        if (fit > best) {
            best = fit;
            found = 0;
        }
        if (found && same(stem, chosen_stem)) continue; // another part of it
        if (++found == 1) {
            chosen = files[i];
            chosen_stem = stem;
            chosen_parts = parts;
        }
    }
    if (found != 1) {
        qn_buf choices = {0};
        list_choices(files, n, common, &choices);
        const char *text = choices.data ? choices.data : "";
        qn_status st = qn_fail(err, QN_ERR_INVALID,
                               found == 0 ? "%s has no GGUF file '%s%s'; write %s:CHOICE with one of: %s"
                               : name->choice[0]
                                   ? "%s has several GGUF files '%s%s'; write %s:CHOICE with one of: %s"
                                   : "%s has several GGUF files%s%s; write %s:CHOICE with one of: %s",
                               name->repo, name->choice, "", name->repo, text);
        qn_buf_free(&choices);
        return st;
    }
    if (chosen_parts != 1) {
        return qn_fail(err, QN_ERR_UNSUPPORTED,
                       "%s: '%s' is one of %u parts, which quern does not read; choose another file",
                       name->repo, chosen->path, chosen_parts);
    }
    out->gguf = chosen;
    return pick_add(out, chosen) ? QN_OK : qn_fail(err, QN_ERR_NOMEM, "out of memory");
}

// In the order in which they are fetched.
static const char *const config_files[] = {"config.json", "generation_config.json", "quantize_config.json",
                                           "quant_config.json"};
static const char *const tokenizer_files[] = {
    "tokenizer_config.json", "tokenizer.json",          "tokenizer.model",     "vocab.json",   "merges.txt",
    "added_tokens.json",     "special_tokens_map.json", "chat_template.jinja", "chat_template.json",
};

static qn_status choose_directory(const qn_hub_name *name, qn_hub_want want, const qn_hub_listing *l,
                                  qn_hub_pick *out, qn_error *err) {
    bool ok = true;
    for (size_t i = 0; i < QN_COUNT(config_files) && ok; i++) {
        const qn_hub_file *f = qn_hub_listing_find(l, config_files[i]);
        ok = !f || pick_add(out, f);
    }
    for (size_t i = 0; i < QN_COUNT(tokenizer_files) && ok; i++) {
        const qn_hub_file *f = qn_hub_listing_find(l, tokenizer_files[i]);
        ok = !f || pick_add(out, f);
    }
    if (!ok) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    if (want == QN_HUB_TOKENIZER) return QN_OK;
    const qn_hub_file *single = qn_hub_listing_find(l, "model.safetensors");
    out->index = single ? NULL : qn_hub_listing_find(l, "model.safetensors.index.json");
    if (!single && !out->index) {
        return qn_fail(err, QN_ERR_NOT_FOUND,
                       "%s has neither model.safetensors, nor its index, nor a GGUF file (pickled weights "
                       "such as .bin and .pt are not read)",
                       name->repo);
    }
    return pick_add(out, single ? single : out->index) ? QN_OK
                                                       : qn_fail(err, QN_ERR_NOMEM, "out of memory");
}

qn_status qn_hub_choose(const qn_hub_name *name, qn_hub_want want, const qn_hub_listing *l,
                        qn_hub_pick *out, qn_error *err) {
    const qn_hub_file **gguf = calloc(l->n + 1, sizeof *gguf);
    if (!gguf) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++) {
        if (is_model_gguf(&l->files[i])) gguf[n++] = &l->files[i];
    }
    bool directory = qn_hub_listing_find(l, "model.safetensors") ||
                     qn_hub_listing_find(l, "model.safetensors.index.json") ||
                     (want == QN_HUB_TOKENIZER && (qn_hub_listing_find(l, "tokenizer.json") ||
                                                   qn_hub_listing_find(l, "tokenizer.model")));
    qn_status st;
    if (name->choice[0] && n == 0) {
        st = qn_fail(err, QN_ERR_INVALID, "%s has no GGUF files to choose '%s' from", name->repo, name->choice);
    } else if (n && (name->choice[0] || !directory)) {
        st = choose_gguf(name, gguf, n, out, err);
    } else {
        st = choose_directory(name, want, l, out, err);
    }
    free(gguf);
    return st;
}

qn_status qn_hub_add_shards(const qn_hub_listing *l, const char *text, size_t len, qn_hub_pick *pick,
                            qn_error *err) {
    qn_json_reader r;
    qn_json_open(&r, text, len);
    qn_status st = qn_json_next(&r, err);
    if (st == QN_OK && r.kind != QN_JSON_OBJECT_BEGIN) {
        st = qn_fail(err, QN_ERR_FORMAT, "not a JSON object");
    }
    // Only names of files in the listing get in, and each once: `taken` has a mark for each.
    char *taken = calloc(l->n + 1, 1);
    qn_map places = {0};
    uint64_t seed = 0;
    qn_os_random(&seed, sizeof seed);
    bool ok = taken && qn_map_init(&places, l->n, seed);
    for (size_t i = 0; ok && i < l->n; i++) {
        ok = qn_map_put(&places, qn_str_from(l->files[i].path), (uint32_t)i);
    }
    if (st == QN_OK && !ok) st = qn_fail(err, QN_ERR_NOMEM, "out of memory");
    while (st == QN_OK && (st = qn_json_next(&r, err)) == QN_OK && r.kind == QN_JSON_KEY) {
        bool map = qn_str_is(r.text, "weight_map");
        if (!map) {
            st = qn_json_skip(&r, err);
            continue;
        }
        st = qn_json_next(&r, err);
        if (st == QN_OK && r.kind != QN_JSON_OBJECT_BEGIN) {
            st = qn_fail(err, QN_ERR_FORMAT, "'weight_map' is not an object");
        }
        while (st == QN_OK && (st = qn_json_next(&r, err)) == QN_OK && r.kind == QN_JSON_KEY) {
            if ((st = qn_json_next(&r, err)) != QN_OK) break;
            if (r.kind != QN_JSON_STRING) {
                st = qn_fail(err, QN_ERR_FORMAT, "'weight_map' holds a value that is not a string");
                break;
            }
            uint32_t place;
            if (!ends_with(r.text, ".safetensors") || !qn_map_get(&places, r.text, &place)) {
                st = qn_fail(err, QN_ERR_NOT_FOUND, "the shard '%.*s' is not there",
                             (int)QN_MIN(r.text.len, 100), r.text.data);
            } else if (!taken[place]) {
                taken[place] = 1;
                if (!pick_add(pick, &l->files[place])) st = qn_fail(err, QN_ERR_NOMEM, "out of memory");
            }
        }
    }
    free(taken);
    qn_map_free(&places);
    qn_json_close(&r);
    if (st != QN_OK) qn_error_prefix(err, "model.safetensors.index.json");
    return st;
}
