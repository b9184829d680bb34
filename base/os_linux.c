// SPDX-License-Identifier: Apache-2.0
#include "base/os.h"

#include "base/checked.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

uint64_t qn_os_now_ns(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

double qn_os_wall_time(void) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

qn_status qn_os_map_open(const char *path, qn_os_map *map, qn_error *err) {
    *map = (qn_os_map){.fd = -1};
    // O_NONBLOCK: opening a named pipe does not wait for its writer (it changes nothing for a file).
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return qn_fail(err, errno == ENOENT ? QN_ERR_NOT_FOUND : QN_ERR_IO, "%s: cannot open: %s",
                       path, strerror(errno));
    }
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return qn_fail(err, QN_ERR_IO, "%s: not a regular file", path);
    }
    if (st.st_size > 0) {
        void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) {
            int e = errno;
            close(fd);
            return qn_fail(err, e == ENOMEM ? QN_ERR_NOMEM : QN_ERR_IO, "%s: cannot map: %s", path,
                           strerror(e));
        }
        map->data = p;
        map->size = (size_t)st.st_size;
    }
    map->fd = fd;
    return QN_OK;
}

void qn_os_map_close(qn_os_map *map) {
    if (map->data) munmap((void *)(uintptr_t)map->data, map->size);
    if (map->fd >= 0) close(map->fd);
    *map = (qn_os_map){.fd = -1};
}

qn_status qn_os_map_read(const qn_os_map *map, uint64_t offset, void *dst, size_t size,
                         qn_error *err) {
    if (offset > map->size || size > map->size - offset) {
        return qn_fail(err, QN_ERR_INVALID, "read past the end of the file");
    }
    for (size_t done = 0; done < size;) {
        ssize_t n = pread(map->fd, (char *)dst + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return qn_fail(err, QN_ERR_IO, "read failed: %s", strerror(errno));
        if (n == 0) return qn_fail(err, QN_ERR_IO, "file was truncated while it was being read");
        done += (size_t)n;
    }
    return QN_OK;
}

void qn_os_map_release(const qn_os_map *map, uint64_t offset, size_t size) {
    if (!map->data || offset >= map->size) return;
    size = QN_MIN(size, map->size - (size_t)offset);
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t lo = ((uintptr_t)map->data + offset + page - 1) & ~(page - 1);
    uintptr_t hi = ((uintptr_t)map->data + offset + size) & ~(page - 1);
    if (hi > lo) madvise((void *)lo, hi - lo, MADV_DONTNEED);
}

qn_status qn_os_read_file(const char *path, size_t limit, char **data, size_t *size,
                          qn_error *err) {
    qn_os_map map;
    qn_status st = qn_os_map_open(path, &map, err);
    if (st != QN_OK) return st;
    if (map.size > limit) {
        st = qn_fail(err, QN_ERR_LIMIT, "%s: %zu bytes, more than the limit of %zu", path, map.size,
                     limit);
    }
    char *p = st == QN_OK ? malloc(map.size + 1) : NULL;
    if (st == QN_OK && !p) st = qn_fail(err, QN_ERR_NOMEM, "%s: out of memory", path);
    if (st == QN_OK) {
        st = qn_os_map_read(&map, 0, p, map.size, err);
        if (st != QN_OK) qn_error_prefix(err, "%s", path);
    }
    if (st == QN_OK) {
        p[map.size] = '\0';
        *data = p;
        *size = map.size;
    } else {
        free(p);
    }
    qn_os_map_close(&map);
    return st;
}

bool qn_os_exists(const char *path, bool *is_dir) {
    struct stat st;
    if (stat(path, &st) != 0) return false;
    if (is_dir) *is_dir = S_ISDIR(st.st_mode);
    return true;
}

bool qn_os_is_file(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

void *qn_os_pages_alloc(size_t size) {
    if (size == 0) size = 1;
    const size_t huge = (size_t)2 << 20;
    // Over-mapped and trimmed, so that a large block starts on a huge page.
    if (size >= huge) {
        size_t total;
        if (!qn_add_size(size, huge, &total)) return NULL;
        char *p = mmap(NULL, total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return NULL;
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        char *start = (char *)(((uintptr_t)p + huge - 1) & ~(uintptr_t)(huge - 1));
        char *end = start + ((size + page - 1) & ~(page - 1));
        if (start > p) munmap(p, (size_t)(start - p));
        if (p + total > end) munmap(end, (size_t)(p + total - end));
        madvise(start, size, MADV_HUGEPAGE);
        return start;
    }
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void qn_os_pages_free(void *p, size_t size) {
    if (p) munmap(p, size ? size : 1);
}

// Reads the first line of a small file under the cgroup's folder; false where there is none.
static bool read_line(const char *path, char *line, int size) {
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool ok = fgets(line, size, f) != NULL;
    fclose(f);
    return ok;
}

// Calls visit for the given cgroup v2 file of this process's group and each of its parents: a limit
// anywhere on the path binds.
static void visit_cgroup(const char *file, void (*visit)(const char *line, void *user),
                         void *user) {
    char group[512] = "/", line[512];
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, "0::", 3) == 0) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(group, sizeof group, "%s", line + 3);
        }
    }
    if (f) fclose(f);
    for (;;) {
        char path[1200];
        snprintf(path, sizeof path, "/sys/fs/cgroup%s/%s", strcmp(group, "/") ? group : "", file);
        if (read_line(path, line, sizeof line)) visit(line, user);
        char *slash = strrchr(group, '/');
        if (!slash || strcmp(group, "/") == 0) break;
        if (slash == group) slash++;
        *slash = '\0';
    }
}

static void visit_cpu_max(const char *line, void *user) {
    int *cpus = user;
    long long quota, period;
    if (sscanf(line, "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0) {
        long long n = (quota + period - 1) / period;
        if (n < *cpus) *cpus = (int)QN_MAX(n, 1);
    }
}

int qn_os_cpu_count(void) {
    // A machine with more CPUs than cpu_set_t holds refuses it: then all that are online count.
    cpu_set_t set;
    int cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                           : (int)sysconf(_SC_NPROCESSORS_ONLN);
    visit_cgroup("cpu.max", visit_cpu_max, &cpus);
    return QN_MAX(cpus, 1);
}

static void visit_memory_max(const char *line, void *user) {
    uint64_t *limit = user;
    unsigned long long n;
    if (sscanf(line, "%llu", &n) == 1 && n < *limit) *limit = n;
}

uint64_t qn_os_memory_limit(void) {
    uint64_t limit = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    visit_cgroup("memory.max", visit_memory_max, &limit);
    return limit;
}

uint64_t qn_os_resident_bytes(void) {
    char line[128];
    unsigned long long total, resident;
    if (!read_line("/proc/self/statm", line, sizeof line) ||
        sscanf(line, "%llu %llu", &total, &resident) != 2) {
        return 0;
    }
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

bool qn_os_random(void *dst, size_t size) {
    char *p = dst;
    while (size) {
        ssize_t n = getrandom(p, size, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        size -= (size_t)n;
    }
    return true;
}
