// SPDX-License-Identifier: Apache-2.0
// What the control groups of this process allow, version 2 or 1. For os_linux.c and tests.
#ifndef QN_BASE_OS_CGROUP_H
#define QN_BASE_OS_CGROUP_H

#include <stdint.h>

typedef struct qn_cgroup_limits {
    double cpus;           // quota divided by period; 0: no limit
    uint64_t memory;       // bytes; 0: no limit
    char cpu_file[512];    // which file says so; "" without a limit
    char memory_file[512];
} qn_cgroup_limits;

// The tightest limits of this process's groups and all groups above them that can be seen. The files
// have the form of /proc/self/cgroup and /proc/self/mountinfo; what cannot be read sets no limit.
void qn_cgroup_read(const char *cgroup_file, const char *mountinfo_file, qn_cgroup_limits *out);

#endif
