// SPDX-License-Identifier: Apache-2.0
// One file of the hub into the cache's blobs.
//
// 1. The bytes go to blobs/HASH.incomplete. Beside it HASH.incomplete.parts says how many bytes of each
//    chunk are there: the file may have holes, because chunks are fetched in parallel.
// 2. What the parts file says is a hint: the hash of the whole file is taken from the disk at the end,
//    and only then the file is renamed. A resumed file with a wrong hash is fetched once more from its
//    beginning; a fresh one is removed.
// 3. A chunk never grows past its size, whatever a server sends.
// 4. A chunk's tries that bring nothing are counted: MAX_FAILURES in a row end the download.
#include "base/checked.h"
#include "base/os.h"
#include "tools/hub_parts.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    CHUNK = 16 << 20,
    MAX_CONNECTIONS = 32,
    MAX_FAILURES = 5,
    MAX_HOPS = 5,
    ENOUGH = 64 << 10,   // bytes that make a try count as one that brought something
    SAVE_EVERY = 4 << 20, // bytes of a chunk between two notes in the parts file
    MAX_OTHER_BODY = 64 << 10, // bytes of an error's or redirect's body
};

static const char MAGIC[8] = "QNPARTS1";

typedef struct chunk {
    uint64_t start, size, done, saved;
    double not_before; // of the next try
    int failures;      // tries in a row that brought nothing
    bool running;
} chunk;

typedef struct slot {
    struct download *d;
    CURL *easy;
    struct curl_slist *fields;
    chunk *c; // NULL: idle
    char *url; // where redirects led; NULL: the hub's own
    qn_hub_head head;
    uint64_t offset, before, other; // of the request; the chunk's bytes before it; bytes of another body
    int hops;
    bool ranged, range_ignored, wrong_range, too_long;
} slot;

typedef struct download {
    const qn_hub_job *job;
    char *url, *final_url; // the hub's own, and where it last led to
    char *incomplete, *parts;
    int fd, parts_fd;
    chunk *chunks;
    size_t n_chunks;
    uint64_t done;
    bool whole;    // the server knows no ranges
    bool answered; // some answer came
    size_t first;  // chunks before it are whole
    CURLM *multi;
    slot slots[MAX_CONNECTIONS];
    int n_slots;
    qn_status st;
    qn_error *err;
} download;

static double now(void) { return (double)qn_os_now_ns() * 1e-9; }

static qn_status nomem(qn_error *err) { return qn_fail(err, QN_ERR_NOMEM, "out of memory"); }

static bool write_at(int fd, const void *data, size_t len, uint64_t at) {
    const char *p = data;
    while (len) {
        ssize_t n = pwrite(fd, p, len, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
    return true;
}

static bool read_at(int fd, void *data, size_t len, uint64_t at) {
    char *p = data;
    while (len) {
        ssize_t n = pread(fd, p, len, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        len -= (size_t)n;
        at += (uint64_t)n;
    }
    return true;
}

static void fail_write(download *d) {
    if (d->st == QN_OK) {
        d->st = qn_fail(d->err, QN_ERR_IO, "cannot write %s: %s", d->incomplete, strerror(errno));
    }
}

static void save(download *d, chunk *c) {
    uint64_t at = 16 + 8 * (uint64_t)(c - d->chunks);
    if (!write_at(d->parts_fd, &c->done, sizeof c->done, at)) fail_write(d);
    c->saved = c->done;
}

// Lays the file out in chunks, with nothing done.
static bool lay_out(download *d) {
    uint64_t size = d->job->file->size;
    d->n_chunks = d->whole || size <= 2 * (uint64_t)CHUNK ? 1 : (size_t)QN_CEIL_DIV(size, (uint64_t)CHUNK);
    free(d->chunks);
    d->chunks = calloc(d->n_chunks, sizeof *d->chunks);
    if (!d->chunks) return false;
    for (size_t i = 0; i < d->n_chunks; i++) {
        d->chunks[i].start = (uint64_t)i * CHUNK;
        d->chunks[i].size = d->n_chunks == 1 ? size : QN_MIN((uint64_t)CHUNK, size - d->chunks[i].start);
    }
    d->done = 0;
    d->first = 0;
    return true;
}

static void start_anew(download *d) {
    if (!lay_out(d)) {
        d->st = nomem(d->err);
        return;
    }
    uint64_t size = d->job->file->size;
    if (ftruncate(d->fd, 0) != 0 || ftruncate(d->parts_fd, 0) != 0 ||
        !write_at(d->parts_fd, MAGIC, sizeof MAGIC, 0) || !write_at(d->parts_fd, &size, sizeof size, 8)) {
        fail_write(d);
    }
    for (size_t i = 0; i < d->n_chunks && d->st == QN_OK; i++) save(d, &d->chunks[i]);
}

// What an earlier download left. Without a parts file, another program's beginning of the file.
static void resume(download *d) {
    if (!lay_out(d)) {
        d->st = nomem(d->err);
        return;
    }
    char magic[sizeof MAGIC];
    uint64_t size = d->job->file->size, stated = 0, have = 0;
    if (!qn_hub_file_size(d->incomplete, &have) || have == 0 || have > size) {
        start_anew(d);
        return;
    }
    bool ours = read_at(d->parts_fd, magic, sizeof magic, 0) && memcmp(magic, MAGIC, sizeof magic) == 0 &&
                read_at(d->parts_fd, &stated, sizeof stated, 8);
    if (ours && stated != size) {
        start_anew(d);
        return;
    }
    for (size_t i = 0; i < d->n_chunks && d->st == QN_OK; i++) {
        chunk *c = &d->chunks[i];
        uint64_t there = have > c->start ? QN_MIN(have - c->start, c->size) : 0, done = there;
        if (ours && !read_at(d->parts_fd, &done, sizeof done, 16 + 8 * (uint64_t)i)) done = 0;
        c->done = QN_MIN(done, there);
        d->done += c->done;
        save(d, c);
    }
    if (!ours && (!write_at(d->parts_fd, MAGIC, sizeof MAGIC, 0) ||
                  !write_at(d->parts_fd, &size, sizeof size, 8))) {
        fail_write(d);
    }
}

static size_t on_bytes(char *data, size_t unused, size_t len, void *user) {
    (void)unused;
    slot *s = user;
    download *d = s->d;
    chunk *c = s->c;
    long status = 0;
    curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200 && status != 206) {
        s->other += len;
        return s->other <= MAX_OTHER_BODY ? len : 0;
    }
    if (status == 200 && s->ranged) {
        s->range_ignored = true;
        return 0;
    }
    if (status == 206 && (!s->ranged || s->head.range_start != s->offset ||
                          (s->head.range_total != UINT64_MAX && s->head.range_total != d->job->file->size))) {
        s->wrong_range = true;
        return 0;
    }
    if (len > c->size - c->done) {
        s->too_long = true;
        return 0;
    }
    if (!write_at(d->fd, data, len, c->start + c->done)) {
        fail_write(d);
        return 0;
    }
    c->done += len;
    d->done += len;
    if (c->done - c->saved >= SAVE_EVERY) save(d, c);
    if (d->job->progress) d->job->progress(d->job->user, d->job->file->path, d->done);
    return d->st == QN_OK ? len : 0;
}

// Sends the request for what is missing of the slot's chunk.
static void ask_for(download *d, slot *s) {
    chunk *c = s->c;
    if (d->whole) {
        d->done -= c->done;
        c->done = 0;
    }
    s->offset = c->start + c->done;
    s->before = c->done;
    s->other = 0;
    s->ranged = d->n_chunks > 1 || c->done > 0;
    s->range_ignored = s->wrong_range = s->too_long = false;
    char range[64];
    snprintf(range, sizeof range, "%llu-%llu", (unsigned long long)s->offset,
             (unsigned long long)(c->start + c->size - 1));
    const char *url = s->url ? s->url : d->final_url ? d->final_url : d->url;
    qn_status st = qn_hub_prepare(d->job->client, s->easy, url, s->ranged ? range : NULL, &s->head,
                                  &s->fields, d->err);
    if (st == QN_OK && !s->url && d->final_url && !(s->url = strdup(url))) st = nomem(d->err);
    if (st == QN_OK &&
        (curl_easy_setopt(s->easy, CURLOPT_WRITEFUNCTION, on_bytes) != CURLE_OK ||
         curl_easy_setopt(s->easy, CURLOPT_WRITEDATA, s) != CURLE_OK ||
         curl_easy_setopt(s->easy, CURLOPT_PRIVATE, s) != CURLE_OK ||
         curl_multi_add_handle(d->multi, s->easy) != CURLM_OK)) {
        st = nomem(d->err);
    }
    if (st == QN_OK) {
        c->running = true;
    } else {
        d->st = st;
    }
}

// The chunk goes back to those that wait.
static void put_back(slot *s) {
    if (s->c) s->c->running = false;
    s->c = NULL;
    s->hops = 0;
}

static void failed_try(download *d, slot *s, const char *why, double retry_after) {
    chunk *c = s->c;
    uint64_t brought = c->done - QN_MIN(s->before, c->done);
    if (brought >= ENOUGH && !d->whole) c->failures = 0;
    c->failures++;
    double wait = qn_hub_backoff(c->failures, retry_after);
    c->not_before = now() + wait;
    if (c->failures >= MAX_FAILURES || wait < 0) {
        d->st = qn_fail(d->err, QN_ERR_IO, "%s: '%s' broke off at %.1f of %.1f MiB and %d tries brought nothing (%s); "
                        "the same command goes on from there",
                        d->job->repo, d->job->file->path, (double)d->done / 0x1p20,
                        (double)d->job->file->size / 0x1p20, c->failures, why);
    }
    put_back(s);
}

static void follow(download *d, slot *s, const char *url) {
    const qn_hub_file *f = d->job->file;
    char *next = NULL;
    if (++s->hops > MAX_HOPS) {
        d->st = qn_fail(d->err, QN_ERR_FORMAT, "the hub redirects more than %d times", MAX_HOPS);
    } else if ((strlen(s->head.linked_hash) == strlen(f->hash) && strcmp(s->head.linked_hash, f->hash) != 0) ||
               (s->head.linked_size != UINT64_MAX && s->head.linked_size != f->size)) {
        // It will not have the hash that is wanted: no use in fetching it.
        d->st = qn_fail(d->err, QN_ERR_FORMAT, "%s: the hub states two hashes or sizes for '%s'",
                        d->job->repo, f->path);
    } else {
        d->st = qn_hub_redirect(d->job->client, url, s->head.location, &next, d->err);
    }
    if (d->st != QN_OK) return;
    free(s->url);
    s->url = next;
    ask_for(d, s);
}

static void finish(download *d, slot *s, CURLcode code) {
    chunk *c = s->c;
    long status = 0;
    char *url = NULL;
    curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(s->easy, CURLINFO_EFFECTIVE_URL, &url);
    curl_multi_remove_handle(d->multi, s->easy);
    if (status) d->answered = true;
    save(d, c);
    if (d->st != QN_OK) return;
    const char *name = d->job->file->path;
    if (s->range_ignored) {
        // From the start, in one piece. The others' chunks are gone, and so are they.
        d->whole = true;
        for (int i = 0; i < d->n_slots; i++) {
            if (d->slots[i].c && &d->slots[i] != s) curl_multi_remove_handle(d->multi, d->slots[i].easy);
            put_back(&d->slots[i]);
        }
        start_anew(d);
    } else if (s->too_long || s->wrong_range) {
        d->st = qn_fail(d->err, QN_ERR_FORMAT, "%s: the hub sent %s for '%s'", d->job->repo,
                        s->too_long ? "more bytes than it stated" : "another range than was asked for", name);
    } else if (code != CURLE_OK) {
        if (qn_hub_curl_can_retry(code)) {
            failed_try(d, s, curl_easy_strerror(code), -1);
        } else {
            d->st = qn_fail(d->err, QN_ERR_IO, "%s: cannot fetch '%s': %s", d->job->repo, name,
                            curl_easy_strerror(code));
        }
    } else if (status == 200 || status == 206) {
        if (c->done < c->size) {
            failed_try(d, s, "the server ended too early", -1);
        } else {
            if (!d->final_url && s->url) d->final_url = strdup(s->url);
            put_back(s);
        }
    } else if (status >= 300 && status < 400) {
        follow(d, s, url);
    } else if (s->url || qn_hub_can_retry(status)) {
        // Where a redirect led to may have a time limit: the hub is asked for it again.
        bool elsewhere = s->url != NULL;
        char why[32];
        snprintf(why, sizeof why, "HTTP %ld", status);
        free(d->final_url);
        free(s->url);
        d->final_url = s->url = NULL;
        if (!elsewhere && (c->failures + 1 >= MAX_FAILURES || qn_hub_backoff(1, s->head.retry_after) < 0)) {
            d->st = qn_hub_status_error(d->job->client, d->job->repo, name, status, &s->head, d->err);
        } else {
            failed_try(d, s, why, s->head.retry_after);
        }
    } else {
        qn_buf what = {0};
        qn_buf_printf(&what, "file '%s'", name);
        d->st = qn_hub_status_error(d->job->client, d->job->repo, what.failed ? "such file" : what.data, status,
                                    &s->head, d->err);
        qn_buf_free(&what);
    }
}

// One that may be asked for at this time; NULL: none.
static chunk *next_chunk(download *d, double at) {
    while (d->first < d->n_chunks && d->chunks[d->first].done == d->chunks[d->first].size) d->first++;
    for (size_t i = d->first; i < d->n_chunks; i++) {
        chunk *c = &d->chunks[i];
        if (!c->running && c->done < c->size && c->not_before <= at) return c;
    }
    return NULL;
}

static void fetch_chunks(download *d) {
    while (d->st == QN_OK && d->done < d->job->file->size) {
        for (int i = 0; i < d->n_slots && d->st == QN_OK; i++) {
            slot *s = &d->slots[i];
            if (s->c || !(s->c = next_chunk(d, now()))) continue;
            ask_for(d, s);
        }
        int running = 0, left = 0;
        if (d->st == QN_OK && curl_multi_perform(d->multi, &running) != CURLM_OK) d->st = nomem(d->err);
        for (CURLMsg *m; d->st == QN_OK && (m = curl_multi_info_read(d->multi, &left)) != NULL;) {
            char *s = NULL;
            CURLcode code = m->data.result;
            curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &s);
            if (m->msg == CURLMSG_DONE) finish(d, (slot *)(void *)s, code);
        }
        if (d->st == QN_OK && d->done < d->job->file->size) curl_multi_poll(d->multi, NULL, 0, 100, NULL);
    }
    for (int i = 0; i < d->n_slots; i++) {
        if (d->slots[i].c) {
            curl_multi_remove_handle(d->multi, d->slots[i].easy);
            if (d->slots[i].c->saved != d->slots[i].c->done) save(d, d->slots[i].c);
        }
        put_back(&d->slots[i]);
    }
}

// The hash that the cache names this file by, from the disk.
static qn_status hash_file(download *d, char hex[QN_HUB_HASH_MAX + 1]) {
    const qn_hub_file *f = d->job->file;
    bool git = strlen(f->hash) == 40;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    char *block = malloc(1 << 20);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned len = 0;
    qn_status st = QN_OK;
    if (!ctx || !block || EVP_DigestInit_ex(ctx, git ? EVP_sha1() : EVP_sha256(), NULL) != 1) st = nomem(d->err);
    if (st == QN_OK && git) {
        // git names a blob by the SHA-1 of "blob SIZE", a zero byte and the bytes.
        char head[40];
        int n = snprintf(head, sizeof head, "blob %llu", (unsigned long long)f->size);
        if (EVP_DigestUpdate(ctx, head, (size_t)n + 1) != 1) st = nomem(d->err);
    }
    for (uint64_t at = 0; st == QN_OK && at < f->size;) {
        size_t n = (size_t)QN_MIN(f->size - at, (uint64_t)1 << 20);
        if (!read_at(d->fd, block, n, at)) {
            st = qn_fail(d->err, QN_ERR_IO, "cannot read %s: %s", d->incomplete, strerror(errno));
        } else if (EVP_DigestUpdate(ctx, block, n) != 1) {
            st = nomem(d->err);
        }
        at += n;
    }
    if (st == QN_OK && EVP_DigestFinal_ex(ctx, digest, &len) != 1) st = nomem(d->err);
    for (unsigned i = 0; i < len && 2 * i < QN_HUB_HASH_MAX; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    EVP_MD_CTX_free(ctx);
    free(block);
    return st;
}

static void fetch_and_check(download *d) {
    const qn_hub_file *f = d->job->file;
    resume(d);
    for (bool resumed = d->done > 0; d->st == QN_OK; resumed = false) {
        char hex[QN_HUB_HASH_MAX + 1] = "";
        fetch_chunks(d);
        if (d->st == QN_OK) d->st = hash_file(d, hex);
        if (d->st != QN_OK || strcmp(hex, f->hash) == 0) return;
        if (resumed) {
            qn_logf(d->job->client->log, QN_LOG_WARN, "'%s': what an earlier download left is damaged; starting anew",
                    f->path);
            start_anew(d);
            continue;
        }
        unlink(d->incomplete);
        unlink(d->parts);
        d->st = qn_fail(d->err, QN_ERR_FORMAT, "%s: '%s' came with the hash %s where the hub states %s; it was removed",
                        d->job->repo, f->path, hex, f->hash);
    }
}

qn_status qn_hub_download(const qn_hub_job *job, bool *unreachable, qn_error *err) {
    download d = {.job = job, .fd = -1, .parts_fd = -1, .err = err};
    const qn_hub_file *f = job->file;
    char *blob = qn_hub_cache_blob(job->cache, f->hash, "");
    d.incomplete = qn_hub_cache_blob(job->cache, f->hash, ".incomplete");
    d.parts = qn_hub_cache_blob(job->cache, f->hash, ".incomplete.parts");
    qn_buf url = {0};
    qn_buf_printf(&url, "%s/%s/resolve/%s/", job->client->endpoint, job->repo, job->commit);
    qn_hub_escape(&url, f->path, true);
    d.url = url.data;
    d.multi = curl_multi_init();
    d.n_slots = QN_MIN(QN_MAX(job->connections, 1), MAX_CONNECTIONS);
    if (f->size <= 2 * (uint64_t)CHUNK) d.n_slots = 1;
    bool ok = blob && d.incomplete && d.parts && !url.failed && d.multi;
    for (int i = 0; i < d.n_slots; i++) {
        d.slots[i].d = &d;
        d.slots[i].easy = curl_easy_init();
        ok = ok && d.slots[i].easy;
    }
    if (!ok) d.st = nomem(err);
    if (d.st == QN_OK) {
        d.fd = qn_hub_open_file(d.incomplete);
        d.parts_fd = d.fd < 0 ? -1 : qn_hub_open_file(d.parts);
        if (d.parts_fd < 0) {
            d.st = qn_fail(err, QN_ERR_IO, "cannot open %s: %s", d.fd < 0 ? d.incomplete : d.parts, strerror(errno));
        }
    }
    if (d.st == QN_OK) fetch_and_check(&d);
    if (d.st == QN_OK && (fdatasync(d.fd) != 0 || rename(d.incomplete, blob) != 0)) {
        d.st = qn_fail(err, QN_ERR_IO, "cannot put %s into place: %s", blob, strerror(errno));
    }
    if (d.st == QN_OK) unlink(d.parts);
    *unreachable = d.st == QN_ERR_IO && !d.answered;
    for (int i = 0; i < d.n_slots; i++) {
        curl_easy_cleanup(d.slots[i].easy);
        curl_slist_free_all(d.slots[i].fields);
        free(d.slots[i].url);
    }
    curl_multi_cleanup(d.multi);
    if (d.fd >= 0) close(d.fd);
    if (d.parts_fd >= 0) close(d.parts_fd);
    free(d.chunks);
    free(d.final_url);
    free(d.incomplete);
    free(d.parts);
    free(blob);
    qn_buf_free(&url);
    return d.st;
}
