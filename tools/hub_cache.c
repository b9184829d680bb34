// SPDX-License-Identifier: Apache-2.0
// The cache folder of the hub's own tools:
//   models--OWNER--NAME/blobs/HASH             the bytes, named by SHA-256 or git's blob id
//   models--OWNER--NAME/snapshots/COMMIT/PATH  links to the blobs
//   models--OWNER--NAME/refs/REVISION          the commit of a branch or tag
//   .locks/models--OWNER--NAME/HASH.lock       held (flock) by who downloads that blob
#include "base/checked.h"
#include "base/os.h"
#include "tools/hub_parts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static qn_status nomem(qn_error *err) { return qn_fail(err, QN_ERR_NOMEM, "out of memory"); }

static char *text_of(qn_buf *b) {
    if (!b->failed && b->data) return b->data;
    qn_buf_free(b);
    return NULL;
}

qn_status qn_hub_cache_open(qn_hub_cache *c, const char *root, const char *repo, qn_error *err) {
    *c = (qn_hub_cache){0};
    qn_buf name = {0}, full = {0}, locks = {0};
    qn_buf_puts(&name, "models--");
    for (const char *p = repo; *p; p++) {
        if (*p == '/') {
            qn_buf_puts(&name, "--");
        } else {
            qn_buf_putc(&name, *p);
        }
    }
    if (!name.failed) {
        qn_buf_printf(&full, "%s/%s", root, name.data);
        qn_buf_printf(&locks, "%s/.locks/%s", root, name.data);
    }
    qn_buf_free(&name);
    c->root = strdup(root);
    c->repo = text_of(&full);
    c->locks = text_of(&locks);
    if (c->root && c->repo && c->locks) return QN_OK;
    qn_hub_cache_close(c);
    return nomem(err);
}

void qn_hub_cache_close(qn_hub_cache *c) {
    free(c->root);
    free(c->repo);
    free(c->locks);
    *c = (qn_hub_cache){0};
}

qn_status qn_hub_make_parents(const char *path, qn_error *err) {
    char *copy = strdup(path);
    if (!copy) return nomem(err);
    qn_status st = QN_OK;
    for (char *p = copy + 1; *p && st == QN_OK; p++) {
        if (*p != '/') continue;
        *p = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST) {
            st = qn_fail(err, QN_ERR_IO, "cannot make the folder %s: %s", copy, strerror(errno));
        }
        *p = '/';
    }
    free(copy);
    return st;
}

qn_status qn_hub_cache_make(const qn_hub_cache *c, qn_error *err) {
    qn_buf path = {0};
    qn_status st = QN_OK;
    const char *const folders[] = {"blobs", "refs", "snapshots"};
    for (size_t i = 0; i < QN_COUNT(folders) && st == QN_OK; i++) {
        qn_buf_clear(&path);
        if (!qn_buf_printf(&path, "%s/%s/", c->repo, folders[i])) st = nomem(err);
        if (st == QN_OK) st = qn_hub_make_parents(path.data, err);
    }
    qn_buf_clear(&path);
    if (st == QN_OK && !qn_buf_printf(&path, "%s/", c->locks)) st = nomem(err);
    if (st == QN_OK) st = qn_hub_make_parents(path.data, err);
    qn_buf_free(&path);
    return st;
}

qn_status qn_hub_cache_ref(const qn_hub_cache *c, const char *revision, char commit[41], qn_error *err) {
    if (qn_hub_is_hex(qn_str_from(revision), 40)) {
        memcpy(commit, revision, 41);
        return QN_OK;
    }
    qn_buf path = {0};
    if (!qn_buf_printf(&path, "%s/refs/%s", c->repo, revision)) return nomem(err);
    char *data = NULL;
    size_t size = 0;
    qn_error inner = {0};
    qn_status st = qn_os_read_file(path.data, 4096, &data, &size, &inner);
    while (st == QN_OK && size && strchr(" \r\n\t", data[size - 1])) size--;
    if (st != QN_OK || !qn_hub_is_hex((qn_str){data, size}, 40)) {
        st = qn_fail(err, QN_ERR_NOT_FOUND, "the cache has no revision '%s' of it (%s)", revision, c->repo);
    } else {
        memcpy(commit, data, 40);
        commit[40] = '\0';
    }
    free(data);
    qn_buf_free(&path);
    return st;
}

// Puts a name of its own beside path: "PATH.<random>.tmp".
static bool beside(const char *path, qn_buf *out) {
    uint64_t r;
    return qn_os_random(&r, sizeof r) &&
           qn_buf_printf(out, "%s.%016llx.tmp", path, (unsigned long long)r);
}

qn_status qn_hub_cache_set_ref(const qn_hub_cache *c, const char *revision, const char *commit,
                               qn_error *err) {
    char known[41];
    qn_error ignored = {0};
    if (qn_hub_cache_ref(c, revision, known, &ignored) == QN_OK && strcmp(known, commit) == 0) return QN_OK;
    qn_buf path = {0}, temporary = {0};
    qn_status st = QN_OK;
    if (!qn_buf_printf(&path, "%s/refs/%s", c->repo, revision) || !beside(path.data, &temporary)) {
        st = nomem(err);
    }
    if (st == QN_OK) st = qn_hub_make_parents(path.data, err);
    if (st == QN_OK) {
        // Written aside and renamed: a reader never sees half a commit.
        int fd = open(temporary.data, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        size_t n = strlen(commit);
        bool ok = fd >= 0 && write(fd, commit, n) == (ssize_t)n;
        if (fd >= 0 && close(fd) != 0) ok = false;
        if (!ok || rename(temporary.data, path.data) != 0) {
            st = qn_fail(err, QN_ERR_IO, "cannot write %s: %s", path.data, strerror(errno));
            unlink(temporary.data);
        }
    }
    qn_buf_free(&path);
    qn_buf_free(&temporary);
    return st;
}

static qn_status list_folder(const char *folder, const char *prefix, int depth, qn_hub_listing *out,
                             qn_error *err) {
    DIR *d = opendir(folder);
    if (!d) return qn_fail(err, QN_ERR_NOT_FOUND, "cannot read %s: %s", folder, strerror(errno));
    qn_status st = QN_OK;
    for (struct dirent *e; st == QN_OK && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.') continue;
        qn_buf full = {0}, path = {0};
        struct stat s;
        if (!qn_buf_printf(&full, "%s/%s", folder, e->d_name) ||
            !qn_buf_printf(&path, "%s%s", prefix, e->d_name)) {
            st = nomem(err);
        } else if (lstat(full.data, &s) == 0 && qn_hub_path_ok(qn_buf_str(&path))) {
            // A link whose blob is gone does not count, and links to folders are not of this layout.
            if (S_ISREG(s.st_mode) || (S_ISLNK(s.st_mode) && stat(full.data, &s) == 0 && S_ISREG(s.st_mode))) {
                if (out->n >= QN_HUB_MAX_FILES) {
                    st = qn_fail(err, QN_ERR_LIMIT, "%s has too many files", folder);
                } else if (!qn_hub_listing_add(out, qn_buf_str(&path), (uint64_t)s.st_size, "")) {
                    st = nomem(err);
                }
            } else if (S_ISDIR(s.st_mode) && depth < 4) {
                if (!qn_buf_putc(&path, '/')) st = nomem(err);
                if (st == QN_OK) st = list_folder(full.data, path.data, depth + 1, out, err);
            }
        }
        qn_buf_free(&full);
        qn_buf_free(&path);
    }
    closedir(d);
    return st;
}

qn_status qn_hub_cache_list(const qn_hub_cache *c, const char *commit, qn_hub_listing *out, qn_error *err) {
    char *folder = qn_hub_cache_snapshot(c, commit, NULL);
    if (!folder) return nomem(err);
    memcpy(out->commit, commit, 41);
    qn_status st = list_folder(folder, "", 0, out, err);
    free(folder);
    return st;
}

char *qn_hub_cache_blob(const qn_hub_cache *c, const char *hash, const char *suffix) {
    qn_buf b = {0};
    qn_buf_printf(&b, "%s/blobs/%s%s", c->repo, hash, suffix);
    return text_of(&b);
}

char *qn_hub_cache_snapshot(const qn_hub_cache *c, const char *commit, const char *path) {
    qn_buf b = {0};
    qn_buf_printf(&b, "%s/snapshots/%s%s%s", c->repo, commit, path ? "/" : "", path ? path : "");
    return text_of(&b);
}

qn_status qn_hub_cache_link(const qn_hub_cache *c, const char *commit, const qn_hub_file *file,
                            qn_error *err) {
    char *place = qn_hub_cache_snapshot(c, commit, file->path);
    char *blob = qn_hub_cache_blob(c, file->hash, "");
    qn_buf target = {0}, temporary = {0};
    qn_status st = place && blob ? QN_OK : nomem(err);
    qn_buf_puts(&target, "../../");
    for (const char *p = file->path; *p; p++) {
        if (*p == '/') qn_buf_puts(&target, "../");
    }
    if (!qn_buf_printf(&target, "blobs/%s", file->hash) && st == QN_OK) st = nomem(err);
    char known[QN_HUB_MAX_PATH];
    ssize_t n = st == QN_OK ? readlink(place, known, sizeof known) : -1;
    bool done = n > 0 && (size_t)n == target.len && memcmp(known, target.data, target.len) == 0;
    if (st == QN_OK && !done) st = qn_hub_make_parents(place, err);
    if (st == QN_OK && !done && !beside(place, &temporary)) st = nomem(err);
    if (st == QN_OK && !done) {
        // A file system without symbolic links may have hard ones.
        if ((symlink(target.data, temporary.data) != 0 && link(blob, temporary.data) != 0) ||
            rename(temporary.data, place) != 0) {
            st = qn_fail(err, QN_ERR_IO, "cannot link %s: %s", place, strerror(errno));
            unlink(temporary.data);
        }
    }
    free(place);
    free(blob);
    qn_buf_free(&target);
    qn_buf_free(&temporary);
    return st;
}

qn_status qn_hub_cache_lock(const qn_hub_cache *c, const char *hash, const qn_log *log, int *fd,
                            qn_error *err) {
    qn_buf path = {0};
    *fd = -1;
    if (!qn_buf_printf(&path, "%s/%s.lock", c->locks, hash)) return nomem(err);
    qn_status st = QN_OK;
    *fd = open(path.data, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (*fd < 0) {
        st = qn_fail(err, QN_ERR_IO, "cannot open %s: %s", path.data, strerror(errno));
    } else if (flock(*fd, LOCK_EX | LOCK_NB) != 0) {
        qn_logf(log, QN_LOG_WARN, "another process downloads this file; waiting for %s", path.data);
        while (flock(*fd, LOCK_EX) != 0) {
            if (errno == EINTR) continue;
            // A file system without locks: what is written is checked anyway.
            if (errno == ENOLCK || errno == ENOSYS || errno == ENOTSUP) break;
            st = qn_fail(err, QN_ERR_IO, "cannot lock %s: %s", path.data, strerror(errno));
            close(*fd);
            *fd = -1;
            break;
        }
    }
    qn_buf_free(&path);
    return st;
}

int qn_hub_open_file(const char *path) {
    return open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
}

bool qn_hub_file_size(const char *path, uint64_t *size) {
    struct stat s;
    if (stat(path, &s) != 0 || !S_ISREG(s.st_mode)) return false;
    *size = (uint64_t)s.st_size;
    return true;
}

uint64_t qn_hub_disk_bytes(const char *path) {
    struct stat s;
    return stat(path, &s) == 0 && S_ISREG(s.st_mode) ? (uint64_t)s.st_blocks * 512 : 0;
}

qn_status qn_hub_check_space(const char *path, uint64_t need, qn_error *err) {
    struct statvfs v;
    if (statvfs(path, &v) != 0) return QN_OK; // writing will tell
    uint64_t room;
    if (!qn_mul_u64(v.f_bavail, v.f_frsize, &room) || room >= need) return QN_OK;
    return qn_fail(err, QN_ERR_IO, "%s has %.1f MiB left, and the download needs %.1f MiB", path,
                   (double)room / 0x1p20, (double)need / 0x1p20);
}
