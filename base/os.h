// SPDX-License-Identifier: Apache-2.0
// Everything that differs by operating system: clocks, files, mappings, memory, CPU count.
// Implemented in os_linux.c.
#ifndef QN_BASE_OS_H
#define QN_BASE_OS_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

// Monotonic time in nanoseconds. Wall-clock time in seconds since 1970.
uint64_t qn_os_now_ns(void);
double qn_os_wall_time(void);

// A file mapped read-only. A file that shrinks after it was mapped raises SIGBUS on access: code
// that reads `data` of a file somebody else may change goes through qn_os_map_read.
typedef struct qn_os_map {
    const uint8_t *data;
    size_t size;
    int fd; // stays open: qn_os_map_read
    bool drop; // what is released leaves the page cache too
} qn_os_map;

// Errors name the path. An empty file maps to size 0 and data NULL.
qn_status qn_os_map_open(const char *path, qn_os_map *map, qn_error *err);
void qn_os_map_close(qn_os_map *map);
// Copies map[offset, offset + size) into dst by read(), so that a file that was cut off meanwhile is
// an error (QN_ERR_IO, "file was truncated"), never a signal. Safe from any thread.
qn_status qn_os_map_read(const qn_os_map *map, uint64_t offset, void *dst, size_t size,
                         qn_error *err);
// Tells the kernel that the pages are not needed by this process any more. Of a file that is larger than a
// quarter of the memory that a cgroup allows, and was not in the page cache when it was opened, they leave
// the page cache too: there they would count as the group's beside what they were copied to.
void qn_os_map_release(const qn_os_map *map, uint64_t offset, size_t size);

// Reads a whole file of at most `limit` bytes into malloc'ed memory with a NUL after it.
qn_status qn_os_read_file(const char *path, size_t limit, char **data, size_t *size, qn_error *err);
// True where path exists; *is_dir says what it is.
bool qn_os_exists(const char *path, bool *is_dir);
// True where path is a regular file (or a link to one).
bool qn_os_is_file(const char *path);

// Zeroed, page-aligned memory straight from the kernel, huge pages advised for large sizes; NULL
// when out of memory. Free with the same size.
void *qn_os_pages_alloc(size_t size);
void qn_os_pages_free(void *p, size_t size);

// CPUs that this process may use: affinity mask and cgroup quota (rounded up), at least 1.
int qn_os_cpu_count(void);
// Memory this process may use: the smaller of physical memory and the cgroup's limit. Bytes.
uint64_t qn_os_memory_limit(void);
// Both and what they come from, in words: "CPUs 1 of 8 by /sys/fs/cgroup/x/cpu.max; memory 2.00 GiB ...".
void qn_os_limits_text(char *text, size_t size);
// Resident memory of this process, bytes.
uint64_t qn_os_resident_bytes(void);

// Bytes of entropy; false if the system gives none.
bool qn_os_random(void *dst, size_t size);

#endif
