// SPDX-License-Identifier: Apache-2.0
#include "tools/hub.h"

#include "base/checked.h"
#include "base/json_tree.h"
#include "base/os.h"
#include "tools/hub_parts.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct fetch {
    const qn_hub_name *name;
    const qn_hub_options *o;
    const char *revision;
    qn_hub_client client;
    qn_hub_cache cache;
    qn_hub_listing listing;
    qn_hub_pick pick;
    uint64_t before, total; // bytes of the files already there, and of all
} fetch;

static qn_status nomem(qn_error *err) { return qn_fail(err, QN_ERR_NOMEM, "out of memory"); }

qn_status qn_hub_read_listing(const char *text, size_t len, qn_hub_listing *out, qn_error *err) {
    json_t *root = NULL;
    qn_status st = qn_json_tree(text, len, &root, err);
    if (st != QN_OK) {
        qn_error_prefix(err, "the hub's answer");
        return st;
    }
    const char *sha = json_string_value(json_object_get(root, "sha"));
    const json_t *files = json_object_get(root, "siblings"), *f;
    if (!sha || !qn_hub_is_hex(qn_str_from(sha), 40)) {
        st = qn_fail(err, QN_ERR_FORMAT, "the hub's answer names no commit");
    } else if (!json_is_array(files)) {
        st = qn_fail(err, QN_ERR_FORMAT, "the hub's answer lists no files");
    } else if (json_array_size(files) > QN_HUB_MAX_FILES) {
        st = qn_fail(err, QN_ERR_LIMIT, "the repository has more than %d files", QN_HUB_MAX_FILES);
    } else {
        memcpy(out->commit, sha, 41);
    }
    size_t i;
    if (st != QN_OK) files = NULL;
    json_array_foreach(files, i, f) {
        const json_t *path = json_object_get(f, "rfilename"), *lfs = json_object_get(f, "lfs");
        const json_t *size = json_object_get(json_is_object(lfs) ? lfs : f, "size");
        const char *hash = json_string_value(json_is_object(lfs) ? json_object_get(lfs, "sha256")
                                                                 : json_object_get(f, "blobId"));
        qn_str name = {json_string_value(path), json_string_length(path)};
        // A name that could lead elsewhere is not a file of the model's: it is as if it were not there.
        if (!name.data || !qn_hub_path_ok(name)) continue;
        bool known = hash && qn_hub_is_hex(qn_str_from(hash), json_is_object(lfs) ? 64 : 40) &&
                     json_is_integer(size) && json_integer_value(size) >= 0;
        if (!qn_hub_listing_add(out, name, known ? (uint64_t)json_integer_value(size) : 0, known ? hash : "")) {
            st = nomem(err);
            break;
        }
    }
    json_decref(root);
    return st;
}

static qn_status ask_listing(fetch *x, bool *unreachable, qn_error *err) {
    qn_buf url = {0}, body = {0};
    qn_buf_printf(&url, "%s/api/models/%s/revision/", x->client.endpoint, x->name->repo);
    qn_hub_escape(&url, x->revision, false);
    // Where the cache knows the revision it may do, and nobody should wait long for the network.
    char commit[41];
    qn_error ignored = {0};
    int patience = qn_hub_cache_ref(&x->cache, x->revision, commit, &ignored) == QN_OK ? 1 : 3;
    qn_status st = qn_buf_puts(&url, "?blobs=true")
                       ? qn_hub_get(&x->client, x->name->repo, url.data, patience, &body, unreachable, err)
                       : nomem(err);
    if (st == QN_OK) st = qn_hub_read_listing(body.data ? body.data : "", body.len, &x->listing, err);
    qn_buf_free(&url);
    qn_buf_free(&body);
    return st;
}

static qn_status add_shards(fetch *x, qn_error *err) {
    char *path = qn_hub_cache_snapshot(&x->cache, x->listing.commit, x->pick.index->path), *data = NULL;
    size_t size = 0;
    qn_status st = path ? qn_os_read_file(path, QN_HUB_MAX_JSON, &data, &size, err) : nomem(err);
    if (st == QN_OK) st = qn_hub_add_shards(&x->listing, data, size, &x->pick, err);
    free(data);
    free(path);
    return st;
}

static qn_status result(const fetch *x, char **path, qn_error *err) {
    *path = qn_hub_cache_snapshot(&x->cache, x->listing.commit, x->pick.gguf ? x->pick.gguf->path : NULL);
    return *path ? QN_OK : nomem(err);
}

// What the cache holds, and all of it.
static qn_status from_cache(fetch *x, char **path, qn_error *err) {
    char commit[41];
    qn_status st = qn_hub_cache_ref(&x->cache, x->revision, commit, err);
    if (st == QN_OK) st = qn_hub_cache_list(&x->cache, commit, &x->listing, err);
    if (st == QN_OK) st = qn_hub_choose(x->name, x->o->want, &x->listing, &x->pick, err);
    if (st == QN_OK && x->pick.index) st = add_shards(x, err);
    return st == QN_OK ? result(x, path, err) : st;
}

static void on_progress(void *user, const char *file, uint64_t done) {
    const fetch *x = user;
    x->o->progress(x->o->user, file, x->before + done, x->total);
}

static qn_status bring(fetch *x, const qn_hub_file *f, bool *unreachable, qn_error *err) {
    if (!f->hash[0] || f->size > QN_HUB_MAX_SIZE) {
        return qn_fail(err, QN_ERR_FORMAT, "%s: the hub states no hash for '%s', or no size that can be",
                       x->name->repo, f->path);
    }
    char *blob = qn_hub_cache_blob(&x->cache, f->hash, "");
    uint64_t size;
    int lock = -1;
    qn_status st = blob ? QN_OK : nomem(err);
    if (st == QN_OK && !(qn_hub_file_size(blob, &size) && size == f->size)) {
        st = qn_hub_cache_lock(&x->cache, f->hash, x->o->log, &lock, err);
        // Who held the lock may have brought it.
        if (st == QN_OK && !(qn_hub_file_size(blob, &size) && size == f->size)) {
            const qn_hub_job job = {
                .client = &x->client,
                .cache = &x->cache,
                .repo = x->name->repo,
                .commit = x->listing.commit,
                .file = f,
                .connections = x->o->connections > 0 ? x->o->connections : 8,
                .progress = x->o->progress ? on_progress : NULL,
                .user = x,
            };
            st = qn_hub_download(&job, unreachable, err);
        }
    }
    if (st == QN_OK) st = qn_hub_cache_link(&x->cache, x->listing.commit, f, err);
    if (lock >= 0) close(lock);
    free(blob);
    x->before += f->size;
    return st;
}

// Adds up what is picked from number `from` on, and refuses early what the disk has no room for.
static qn_status count(fetch *x, size_t from, qn_error *err) {
    uint64_t need = 0, size;
    for (size_t i = from; i < x->pick.n; i++) {
        const qn_hub_file *f = x->pick.files[i];
        char *blob = qn_hub_cache_blob(&x->cache, f->hash, "");
        char *part = qn_hub_cache_blob(&x->cache, f->hash, ".incomplete");
        bool known = f->size <= QN_HUB_MAX_SIZE && qn_add_u64(x->total, f->size, &x->total);
        if (known && blob && part && !qn_hub_file_size(blob, &size)) {
            known = qn_add_u64(need, f->size - QN_MIN(f->size, qn_hub_disk_bytes(part)), &need);
        }
        free(blob);
        free(part);
        if (!known) return qn_fail(err, QN_ERR_LIMIT, "%s: '%s' has a size that cannot be", x->name->repo, f->path);
    }
    return qn_hub_check_space(x->cache.repo, need, err);
}

static qn_status from_hub(fetch *x, char **path, bool *unreachable, qn_error *err) {
    qn_status st = ask_listing(x, unreachable, err);
    if (st == QN_OK) st = qn_hub_choose(x->name, x->o->want, &x->listing, &x->pick, err);
    if (st == QN_OK) st = qn_hub_cache_make(&x->cache, err);
    if (st == QN_OK) st = count(x, 0, err);
    if (st == QN_OK) {
        qn_logf(x->o->log, QN_LOG_INFO, "%s at %s: into %s", x->name->repo, x->listing.commit, x->cache.repo);
    }
    for (size_t i = 0; i < x->pick.n && st == QN_OK; i++) {
        const qn_hub_file *f = x->pick.files[i];
        st = bring(x, f, unreachable, err);
        if (st != QN_OK || f != x->pick.index) continue;
        size_t before = x->pick.n;
        st = add_shards(x, err);
        if (st == QN_OK) st = count(x, before, err);
    }
    // Last: until then an older commit of the revision, whole in the cache, stays the one found there.
    if (st == QN_OK && strcmp(x->revision, x->listing.commit) != 0) {
        st = qn_hub_cache_set_ref(&x->cache, x->revision, x->listing.commit, err);
    }
    if (x->o->progress) x->o->progress(x->o->user, NULL, x->before, x->total);
    return st == QN_OK ? result(x, path, err) : st;
}

static void forget(fetch *x) {
    qn_hub_pick_free(&x->pick);
    qn_hub_listing_free(&x->listing);
}

qn_status qn_hub_fetch(const qn_hub_name *name, const qn_hub_options *options, char **path,
                       qn_error *err) {
    *path = NULL;
    fetch x = {.name = name, .o = options};
    x.revision = options->revision && options->revision[0] ? options->revision : "main";
    if (!qn_hub_revision_ok(x.revision)) {
        return qn_fail(err, QN_ERR_INVALID, "--revision: not a branch, tag or commit");
    }
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) return nomem(err);
    qn_status st = qn_hub_client_open(&x.client, options, err);
    if (st == QN_OK) st = qn_hub_cache_open(&x.cache, options->cache_dir, name->repo, err);
    if (st == QN_OK && options->offline) {
        st = from_cache(&x, path, err);
        if (st != QN_OK) qn_error_prefix(err, "%s: offline", name->repo);
    } else if (st == QN_OK) {
        bool unreachable = false;
        qn_error first = {0}, second = {0};
        st = from_hub(&x, path, &unreachable, &first);
        if (st != QN_OK && unreachable) {
            forget(&x);
            if (from_cache(&x, path, &second) == QN_OK) {
                qn_logf(options->log, QN_LOG_WARN, "%s; taking %s from the cache", first.message, name->repo);
                st = QN_OK;
            }
        }
        if (st != QN_OK) qn_fail(err, st, "%s", first.message);
    }
    forget(&x);
    qn_hub_client_close(&x.client);
    qn_hub_cache_close(&x.cache);
    curl_global_cleanup();
    return st;
}
