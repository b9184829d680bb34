// SPDX-License-Identifier: Apache-2.0
// Each line of mountinfo that mounts a group file system is a hierarchy. The process's group in it is
// named by the line of /proc/self/cgroup with the same controller (version 1) or with none (version 2);
// of that path the part that the mount shows as its root is taken off, because a container sees its own
// group as the top. From there the limits are read upwards to the mount point: any of them binds.
#include "base/os_cgroup.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { LINE = 4096, PATH = 512 };

// Reads the first line of a small file; false where there is none.
static bool read_line(const char *path, char *line, int size) {
    FILE *f = fopen(path, "re");
    if (!f) return false;
    bool ok = fgets(line, size, f) != NULL;
    fclose(f);
    return ok;
}

// Is `name` one of the items of a list with commas?
static bool has_item(const char *list, const char *name) {
    const size_t n = strlen(name);
    for (const char *p = list; p; p = strchr(p, ',')) {
        p += *p == ',';
        if (strncmp(p, name, n) == 0 && (p[n] == '\0' || p[n] == ',')) return true;
    }
    return false;
}

// The process's group in the hierarchy of a controller; NULL: version 2.
static bool find_group(const char *cgroup_file, const char *controller, char group[PATH]) {
    char line[LINE];
    bool found = false;
    FILE *f = fopen(cgroup_file, "re");
    while (f && !found && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *list = strchr(line, ':');
        char *path = list ? strchr(list + 1, ':') : NULL;
        if (!path || strlen(path + 1) >= PATH) continue;
        *path++ = '\0';
        list++;
        found = controller ? has_item(list, controller) : strncmp(line, "0:", 2) == 0 && !*list;
        if (found) strcpy(group, path);
    }
    if (f) fclose(f);
    return found;
}

static void take_cpus(qn_cgroup_limits *out, double quota, double period, const char *dir,
                      const char *file) {
    if (!(quota > 0) || !(period > 0)) return; // -1: none
    if (out->cpus > 0 && out->cpus <= quota / period) return;
    out->cpus = quota / period;
    snprintf(out->cpu_file, sizeof out->cpu_file, "%s/%s", dir, file);
}

static void take_memory(qn_cgroup_limits *out, const char *dir, const char *file) {
    char path[2 * PATH], line[64];
    unsigned long long n;
    snprintf(path, sizeof path, "%s/%s", dir, file);
    // "max" and, in version 1, a number near 2^63 are no limits.
    if (!read_line(path, line, sizeof line) || sscanf(line, "%llu", &n) != 1) return;
    if (n >= (unsigned long long)1 << 62 || (out->memory > 0 && out->memory <= n)) return;
    out->memory = n;
    snprintf(out->memory_file, sizeof out->memory_file, "%s", path);
}

static void read_v2(const char *dir, qn_cgroup_limits *out) {
    char path[2 * PATH], line[64];
    double quota, period;
    snprintf(path, sizeof path, "%s/cpu.max", dir);
    if (read_line(path, line, sizeof line) && sscanf(line, "%lf %lf", &quota, &period) == 2) {
        take_cpus(out, quota, period, dir, "cpu.max");
    }
    take_memory(out, dir, "memory.max");
    take_memory(out, dir, "memory.high"); // past it the process is slowed down
}

static void read_v1_cpu(const char *dir, qn_cgroup_limits *out) {
    char path[2 * PATH], line[64];
    double quota, period;
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", dir);
    if (!read_line(path, line, sizeof line) || sscanf(line, "%lf", &quota) != 1) return;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", dir);
    if (!read_line(path, line, sizeof line) || sscanf(line, "%lf", &period) != 1) return;
    take_cpus(out, quota, period, dir, "cpu.cfs_quota_us");
}

static void read_v1_memory(const char *dir, qn_cgroup_limits *out) {
    take_memory(out, dir, "memory.limit_in_bytes");
}

// From the group up to the mount point.
static void climb(const char *mount, const char *root, char *group,
                  void (*read)(const char *dir, qn_cgroup_limits *out), qn_cgroup_limits *out) {
    const size_t n = strcmp(root, "/") == 0 ? 0 : strlen(root);
    // A group outside of what is mounted cannot be seen; the mount's own top can.
    const bool inside = strncmp(group, root, n) == 0 && (group[n] == '\0' || group[n] == '/') &&
                        !strstr(group, "/..");
    char *path = group + n;
    if (!inside) path = group + strlen(group);
    for (;;) {
        char dir[2 * PATH];
        snprintf(dir, sizeof dir, "%s%s", mount, strcmp(path, "/") == 0 ? "" : path);
        read(dir, out);
        char *slash = strrchr(path, '/');
        if (!slash) break;
        *slash = '\0';
    }
}

void qn_cgroup_read(const char *cgroup_file, const char *mountinfo_file, qn_cgroup_limits *out) {
    char line[LINE], root[PATH], mount[PATH], type[32], options[LINE], group[PATH];
    memset(out, 0, sizeof *out);
    FILE *f = fopen(mountinfo_file, "re");
    while (f && fgets(line, sizeof line, f)) {
        const char *rest = strstr(line, " - ");
        if (!rest || sscanf(line, "%*d %*d %*s %511s %511s", root, mount) != 2 ||
            sscanf(rest, " - %31s %*s %4095s", type, options) != 2) {
            continue;
        }
        if (strcmp(type, "cgroup2") == 0) {
            if (find_group(cgroup_file, NULL, group)) climb(mount, root, group, read_v2, out);
        } else if (strcmp(type, "cgroup") == 0) {
            if (has_item(options, "cpu") && find_group(cgroup_file, "cpu", group)) {
                climb(mount, root, group, read_v1_cpu, out);
            }
            if (has_item(options, "memory") && find_group(cgroup_file, "memory", group)) {
                climb(mount, root, group, read_v1_memory, out);
            }
        }
    }
    if (f) fclose(f);
}
