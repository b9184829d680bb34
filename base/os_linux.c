// SPDX-License-Identifier: Apache-2.0
#include "base/os.h"

#include "base/checked.h"
#include "base/os_cgroup.h"

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

// Is less than half of a mapping in the page cache?
static bool is_cold(void *p, size_t size) {
    enum { PAGES = 4096 };
    unsigned char in_cache[PAGES];
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t looked = 0, cached = 0;
    for (size_t at = 0; at < size; at += 8 * PAGES * page) { // every eighth block is enough
        const size_t n = QN_MIN(size - at, PAGES * page);
        if (mincore((char *)p + at, n, in_cache) != 0) return false;
        for (size_t i = 0; i < QN_CEIL_DIV(n, page); i++) cached += in_cache[i] & 1;
        looked += QN_CEIL_DIV(n, page);
    }
    return cached < looked / 2;
}

static bool is_much(size_t size) {
    if (size < (size_t)64 << 20) return false;
    qn_cgroup_limits l;
    qn_cgroup_read("/proc/self/cgroup", "/proc/self/mountinfo", &l);
    return l.memory > 0 && size > l.memory / 4;
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
        map->drop = is_much(map->size) && is_cold(p, map->size);
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
    // The page cache has blocks of up to 2 MiB and drops only whole ones. Pieces are mostly released in
    // the file's order, so the block that the last one ended in goes with this one.
    if (map->drop) {
        const uint64_t start = offset & ~(((uint64_t)2 << 20) - 1);
        posix_fadvise(map->fd, (off_t)start, (off_t)(offset + size - start), POSIX_FADV_DONTNEED);
    }
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

// Reads the first line of a small file; false where there is none.
static bool read_line(const char *path, char *line, int size) {
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool ok = fgets(line, size, f) != NULL;
    fclose(f);
    return ok;
}

static void read_limits(qn_cgroup_limits *l) {
    qn_cgroup_read("/proc/self/cgroup", "/proc/self/mountinfo", l);
}

// The affinity mask's CPUs (a cpuset is in it).
static int mask_count(void) {
    // A machine with more CPUs than cpu_set_t holds refuses it: then all that are online count.
    cpu_set_t set;
    int cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set)
                                                           : (int)sysconf(_SC_NPROCESSORS_ONLN);
    return QN_MAX(cpus, 1);
}

static int count_cpus(const qn_cgroup_limits *l) {
    const int cpus = mask_count();
    if (!(l->cpus > 0) || l->cpus >= cpus) return cpus;
    const int whole = (int)l->cpus;
    return whole + (l->cpus > whole); // a part of one counts as one
}

int qn_os_cpu_count(void) {
    qn_cgroup_limits l;
    read_limits(&l);
    return count_cpus(&l);
}

static uint64_t physical_memory(void) {
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t qn_os_memory_limit(void) {
    qn_cgroup_limits l;
    read_limits(&l);
    const uint64_t physical = physical_memory();
    return l.memory > 0 && l.memory < physical ? l.memory : physical;
}

void qn_os_limits_text(char *text, size_t size) {
    qn_cgroup_limits l;
    char cpu[700] = "", memory[700] = "";
    read_limits(&l);
    const int mask = mask_count(), online = (int)sysconf(_SC_NPROCESSORS_ONLN);
    const uint64_t physical = physical_memory();
    if (l.cpus > 0 && l.cpus < mask) {
        snprintf(cpu, sizeof cpu, "%.3g of %d by %s", l.cpus, online, l.cpu_file);
    } else if (mask < online) {
        snprintf(cpu, sizeof cpu, "%d of %d by the affinity mask", mask, online);
    } else {
        snprintf(cpu, sizeof cpu, "%d, all of the machine's", mask);
    }
    if (l.memory > 0 && l.memory < physical) {
        snprintf(memory, sizeof memory, "%.2f GiB of %.2f GiB by %s", (double)l.memory / 0x1p30,
                 (double)physical / 0x1p30, l.memory_file);
    } else {
        snprintf(memory, sizeof memory, "%.2f GiB, all of the machine's", (double)physical / 0x1p30);
    }
    snprintf(text, size, "CPUs %s; memory %s", cpu, memory);
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
