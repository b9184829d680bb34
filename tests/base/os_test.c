// SPDX-License-Identifier: Apache-2.0
// Files that change under us, memory, CPU count, clocks, threads, queue and wake-up.
#include "base/checked.h"
#include "base/log.h"
#include "base/os.h"
#include "base/os_cgroup.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static void make_file(char path[64], const void *data, size_t size) {
    strcpy(path, "/tmp/qn_os_test_XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, (const char *)data + done, size - done);
        assert_true(n > 0);
        done += (size_t)n;
    }
    close(fd);
}

static void test_map_and_read(void **state) {
    (void)state;
    enum { SIZE = 300000 };
    unsigned char *data = malloc(SIZE), *copy = malloc(SIZE);
    assert_non_null(data);
    assert_non_null(copy);
    for (size_t i = 0; i < SIZE; i++) data[i] = (unsigned char)(i * 7 + i / 251);
    char path[64];
    make_file(path, data, SIZE);
    qn_os_map map;
    qn_error err = {0};
    assert_int_equal(qn_os_map_open(path, &map, &err), QN_OK);
    assert_int_equal(map.size, SIZE);
    assert_memory_equal(map.data, data, SIZE);
    assert_int_equal(qn_os_map_read(&map, 0, copy, SIZE, &err), QN_OK);
    assert_memory_equal(copy, data, SIZE);
    assert_int_equal(qn_os_map_read(&map, 12345, copy, 100, &err), QN_OK);
    assert_memory_equal(copy, data + 12345, 100);
    assert_int_equal(qn_os_map_read(&map, SIZE, copy, 0, &err), QN_OK);
    qn_os_map_release(&map, 5000, 100000);
    qn_os_map_release(&map, 0, SIZE_MAX);
    qn_os_map_release(&map, UINT64_MAX, 1);
    assert_memory_equal(map.data, data, SIZE); // released pages come back from the file
    // Past the end, and sums that would overflow.
    assert_int_equal(qn_os_map_read(&map, SIZE - 10, copy, 11, &err), QN_ERR_INVALID);
    assert_int_equal(qn_os_map_read(&map, SIZE + 1, copy, 0, NULL), QN_ERR_INVALID);
    assert_int_equal(qn_os_map_read(&map, UINT64_MAX, copy, 2, NULL), QN_ERR_INVALID);
    assert_int_equal(qn_os_map_read(&map, 1, copy, SIZE_MAX, NULL), QN_ERR_INVALID);
    qn_os_map_close(&map);
    qn_os_map_close(&map);
    unlink(path);
    free(data);
    free(copy);
}

static volatile sig_atomic_t faults;
static void on_fault(int signal) {
    (void)signal;
    faults = faults + 1;
    _exit(9);
}

// A file cut off after it was mapped: an error that says so, and no SIGBUS.
static void test_truncated_after_mapping(void **state) {
    (void)state;
    char data[20000], copy[20000], path[64];
    memset(data, 'x', sizeof data);
    make_file(path, data, sizeof data);
    qn_os_map map;
    assert_int_equal(qn_os_map_open(path, &map, NULL), QN_OK);
    void (*old)(int) = signal(SIGBUS, on_fault);
    assert_int_equal(truncate(path, 5000), 0);
    qn_error err = {0};
    assert_int_equal(qn_os_map_read(&map, 0, copy, 5000, &err), QN_OK);
    assert_int_equal(qn_os_map_read(&map, 0, copy, sizeof copy, &err), QN_ERR_IO);
    assert_non_null(strstr(err.message, "truncated"));
    assert_int_equal(qn_os_map_read(&map, 15000, copy, 100, NULL), QN_ERR_IO);
    assert_int_equal(faults, 0);
    signal(SIGBUS, old);
    qn_os_map_close(&map);
    unlink(path);
}

static void test_what_is_not_a_file(void **state) {
    (void)state;
    qn_os_map map;
    qn_error err = {0};
    assert_int_equal(qn_os_map_open("/tmp/no/such/file", &map, &err), QN_ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "/tmp/no/such/file"));
    qn_os_map_close(&map); // closing what did not open is harmless
    assert_int_equal(qn_os_map_open("/tmp", &map, NULL), QN_ERR_IO);
    assert_int_equal(qn_os_map_open("/dev/null", &map, NULL), QN_ERR_IO);
    // Opening a pipe that nobody writes must not wait for a writer.
    char path[64];
    make_file(path, "", 0);
    unlink(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    alarm(10);
    assert_int_equal(qn_os_map_open(path, &map, NULL), QN_ERR_IO);
    alarm(0);
    unlink(path);
}

static void test_empty_file(void **state) {
    (void)state;
    char path[64], *data = NULL, byte;
    size_t size = 1;
    make_file(path, "", 0);
    qn_os_map map;
    assert_int_equal(qn_os_map_open(path, &map, NULL), QN_OK);
    assert_null(map.data);
    assert_int_equal(map.size, 0);
    assert_int_equal(qn_os_map_read(&map, 0, &byte, 1, NULL), QN_ERR_INVALID);
    qn_os_map_close(&map);
    assert_int_equal(qn_os_read_file(path, 10, &data, &size, NULL), QN_OK);
    assert_int_equal(size, 0);
    assert_string_equal(data, "");
    free(data);
    unlink(path);
}

static void test_read_file(void **state) {
    (void)state;
    char path[64], *data = NULL;
    size_t size = 0;
    make_file(path, "hello", 5);
    assert_int_equal(qn_os_read_file(path, 5, &data, &size, NULL), QN_OK);
    assert_int_equal(size, 5);
    assert_string_equal(data, "hello");
    free(data);
    qn_error err = {0};
    assert_int_equal(qn_os_read_file(path, 4, &data, &size, &err), QN_ERR_LIMIT);
    assert_non_null(strstr(err.message, path));
    bool is_dir = true;
    assert_true(qn_os_exists(path, &is_dir));
    assert_false(is_dir);
    assert_true(qn_os_exists("/tmp", &is_dir));
    assert_true(is_dir);
    unlink(path);
    assert_false(qn_os_exists(path, NULL));
}

static void test_pages(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 4096, 100000, 2 << 20, (5 << 20) + 17};
    for (size_t i = 0; i < QN_COUNT(sizes); i++) {
        unsigned char *p = qn_os_pages_alloc(sizes[i]);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 4096, 0);
        for (size_t k = 0; k < sizes[i]; k += 1000) assert_int_equal(p[k], 0);
        if (sizes[i]) p[sizes[i] - 1] = 1;
        qn_os_pages_free(p, sizes[i]);
    }
    assert_null(qn_os_pages_alloc(SIZE_MAX));
    assert_null(qn_os_pages_alloc((size_t)1 << 50));
    qn_os_pages_free(NULL, 0);
}

// A tree of groups under a folder of its own: files by path, with their text.
typedef struct group_file {
    const char *path, *text;
} group_file;

static void put(const char *folder, const char *name, const char *text) {
    char path[600];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    for (char *p = path + strlen(folder) + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        if (mkdir(path, 0777) != 0) assert_int_equal(errno, EEXIST);
        *p = '/';
    }
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *walk) {
    (void)st;
    (void)kind;
    (void)walk;
    return remove(path);
}

// mounts: mountinfo, in which each % stands for the folder.
static void expect_limits(const char *cgroup, const char *mounts, const group_file *files, double cpus,
                          const char *cpu_file, uint64_t memory, const char *memory_file) {
    char folder[] = "/tmp/qn_cgroup_test_XXXXXX", a[100], b[100], want[200], text[4000];
    size_t n = 0;
    assert_non_null(mkdtemp(folder));
    for (const char *p = mounts; *p; p++) {
        const char one[2] = {*p, '\0'};
        n += (size_t)snprintf(text + n, sizeof text - n, "%s", *p == '%' ? folder : one);
    }
    put(folder, "mountinfo", text);
    put(folder, "cgroup", cgroup);
    for (; files->path; files++) put(folder, files->path, files->text);
    snprintf(a, sizeof a, "%s/cgroup", folder);
    snprintf(b, sizeof b, "%s/mountinfo", folder);
    qn_cgroup_limits l;
    qn_cgroup_read(a, b, &l);
    assert_true(l.cpus >= cpus - 1e-9 && l.cpus <= cpus + 1e-9);
    assert_int_equal(l.memory, memory);
    snprintf(want, sizeof want, "%s%s", *cpu_file ? folder : "", cpu_file);
    assert_string_equal(l.cpu_file, want);
    snprintf(want, sizeof want, "%s%s", *memory_file ? folder : "", memory_file);
    assert_string_equal(l.memory_file, want);
    assert_int_equal(nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static void test_cgroups(void **state) {
    (void)state;
    static const char v2[] = "31 23 0:28 / %/cg rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    static const char v1[] = "30 23 0:28 / %/cg rw - tmpfs tmpfs rw,mode=755\n"
                             "32 30 0:29 / %/cg/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
                             "33 30 0:30 / %/cg/memory rw - cgroup cgroup rw,memory\n"
                             "34 30 0:31 / %/cg/unified rw - cgroup2 cgroup2 rw\n";
    // The tightest of the group and those above it; one and a half CPUs.
    expect_limits("0::/a.slice/b\n", v2,
                  (const group_file[]){{"cg/a.slice/b/cpu.max", "max 100000\n"},
                                       {"cg/a.slice/b/memory.max", "3000000000\n"},
                                       {"cg/a.slice/cpu.max", "150000 100000\n"},
                                       {"cg/a.slice/memory.max", "2000000000\n"},
                                       {"cg/cpu.max", "400000 100000\n"}, {NULL, NULL}},
                  1.5, "/cg/a.slice/cpu.max", 2000000000, "/cg/a.slice/memory.max");
    // No limits, and memory.high, which slows down what is past it.
    expect_limits("0::/a\n", v2,
                  (const group_file[]){{"cg/a/cpu.max", "max 100000\n"}, {"cg/a/memory.max", "max\n"},
                                       {"cg/a/memory.high", "1000000\n"}, {NULL, NULL}},
                  0, "", 1000000, "/cg/a/memory.high");
    // In a container the group is the top of what is mounted: by a namespace, or by the mount's root.
    expect_limits("0::/\n", v2,
                  (const group_file[]){{"cg/cpu.max", "100000 100000\n"}, {"cg/memory.max", "5\n"},
                                       {NULL, NULL}}, 1, "/cg/cpu.max", 5, "/cg/memory.max");
    expect_limits("4:memory:/docker/abc\n3:cpuacct,cpu:/docker/abc/x\n0::/\n",
                  "32 30 0:29 /docker/abc %/cpu ro - cgroup cgroup rw,cpu,cpuacct\n"
                  "33 30 0:30 /docker/abc %/memory ro master:5 - cgroup cgroup rw,memory\n",
                  (const group_file[]){{"cpu/x/cpu.cfs_quota_us", "50000\n"},
                                       {"cpu/x/cpu.cfs_period_us", "100000\n"},
                                       {"cpu/cpu.cfs_quota_us", "-1\n"},
                                       {"cpu/cpu.cfs_period_us", "100000\n"},
                                       {"memory/memory.limit_in_bytes", "7\n"}, {NULL, NULL}},
                  0.5, "/cpu/x/cpu.cfs_quota_us", 7, "/memory/memory.limit_in_bytes");
    // Version 1, limits above the group, and what version 1 writes for none.
    expect_limits("9:cpuset:/q\n4:memory:/m/n\n2:cpu,cpuacct:/c/d\n0::/\n", v1,
                  (const group_file[]){{"cg/cpu,cpuacct/c/cpu.cfs_quota_us", "200000\n"},
                                       {"cg/cpu,cpuacct/c/cpu.cfs_period_us", "100000\n"},
                                       {"cg/cpu,cpuacct/c/d/cpu.cfs_quota_us", "-1\n"},
                                       {"cg/cpu,cpuacct/c/d/cpu.cfs_period_us", "100000\n"},
                                       {"cg/memory/m/n/memory.limit_in_bytes", "9223372036854771712\n"},
                                       {"cg/memory/m/memory.limit_in_bytes", "4096\n"},
                                       {"cg/unified/cgroup.procs", "1\n"}, {NULL, NULL}},
                  2, "/cg/cpu,cpuacct/c/cpu.cfs_quota_us", 4096, "/cg/memory/m/memory.limit_in_bytes");
    // Groups that cannot be seen, nonsense, nothing at all.
    expect_limits("0::/../other\n", v2,
                  (const group_file[]){{"cg/memory.max", "8\n"}, {NULL, NULL}}, 0, "", 8,
                  "/cg/memory.max");
    expect_limits("0::/a\nnonsense\n::\n", "1 2\n\n - cgroup2\n",
                  (const group_file[]){{"cg/a/memory.max", "x\n"}, {NULL, NULL}}, 0, "", 0, "");
    qn_cgroup_limits l;
    qn_cgroup_read("/nowhere/cgroup", "/nowhere/mountinfo", &l);
    assert_true(l.memory == 0 && !(l.cpus > 0));
    char limits[1600];
    qn_os_limits_text(limits, sizeof limits);
    assert_true(strstr(limits, "CPUs ") && strstr(limits, "; memory ") && strstr(limits, "GiB"));
}

static void test_machine(void **state) {
    (void)state;
    int cpus = qn_os_cpu_count();
    assert_in_range(cpus, 1, sysconf(_SC_NPROCESSORS_ONLN));
    uint64_t memory = qn_os_memory_limit(), resident = qn_os_resident_bytes();
    assert_true(resident > 100000);
    assert_true(memory > resident);
    // The affinity mask binds.
    cpu_set_t old, one;
    assert_int_equal(sched_getaffinity(0, sizeof old, &old), 0);
    CPU_ZERO(&one);
    for (size_t i = 0; i < CPU_SETSIZE; i++) {
        if (CPU_ISSET(i, &old)) {
            CPU_SET(i, &one);
            break;
        }
    }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(qn_os_cpu_count(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof old, &old), 0);
    assert_int_equal(qn_os_cpu_count(), cpus);
    uint64_t t = qn_os_now_ns();
    usleep(2000);
    assert_true(qn_os_now_ns() - t >= 2000000);
    assert_true(qn_os_wall_time() > 1.7e9);
    unsigned char a[32] = {0}, b[32] = {0};
    assert_true(qn_os_random(a, sizeof a) && qn_os_random(b, sizeof b));
    assert_memory_not_equal(a, b, sizeof a);
    assert_true(qn_os_random(NULL, 0));
}

static void test_queue(void **state) {
    (void)state;
    qn_queue *q = qn_queue_create(3);
    assert_non_null(q);
    uint64_t v = 0;
    assert_false(qn_queue_pop(q, &v));
    for (uint64_t lap = 0; lap < 5; lap++) {
        for (uint64_t i = 0; i < 3; i++) assert_true(qn_queue_push(q, lap * 10 + i));
        assert_false(qn_queue_push(q, 99));
        assert_int_equal(qn_queue_count(q), 3);
        for (uint64_t i = 0; i < 3; i++) {
            assert_true(qn_queue_pop(q, &v));
            assert_int_equal(v, lap * 10 + i);
        }
    }
    qn_queue_destroy(q);
    q = qn_queue_create(0);
    assert_non_null(q);
    assert_false(qn_queue_push(q, 1));
    assert_false(qn_queue_pop(q, &v));
    qn_queue_destroy(q);
    qn_queue_destroy(NULL);
    assert_null(qn_queue_create(SIZE_MAX / 8 + 1));
}

enum { PRODUCERS = 3, ITEMS = 20000 };

typedef struct producer {
    qn_queue *queue;
    const qn_wakeup *wakeup;
    uint64_t id;
    sigset_t blocked;
    char name[16];
} producer;

static void produce(void *arg) {
    producer *p = arg;
    pthread_sigmask(SIG_BLOCK, NULL, &p->blocked);
    pthread_getname_np(pthread_self(), p->name, sizeof p->name);
    for (uint64_t i = 0; i < ITEMS;) {
        if (qn_queue_push(p->queue, p->id << 32 | i)) {
            i++;
            qn_wakeup_signal(p->wakeup);
        } else {
            sched_yield();
        }
    }
}

// Several producers, one consumer that sleeps on the wake-up: nothing lost, nothing twice, each
// producer's items in its own order, and no wake-up missed (poll would run into its timeout).
static void test_queue_and_wakeup_across_threads(void **state) {
    (void)state;
    qn_queue *q = qn_queue_create(64);
    qn_wakeup w;
    assert_non_null(q);
    assert_int_equal(qn_wakeup_open(&w, NULL), QN_OK);
    qn_thread threads[PRODUCERS];
    producer producers[PRODUCERS];
    for (uint64_t i = 0; i < PRODUCERS; i++) {
        producers[i] = (producer){.queue = q, .wakeup = &w, .id = i};
        assert_int_equal(qn_thread_start(&threads[i], "a-name-of-fifteen-and-more", produce,
                                         &producers[i], NULL), QN_OK);
    }
    uint64_t next[PRODUCERS] = {0}, v = 0;
    for (int got = 0; got < PRODUCERS * ITEMS;) {
        struct pollfd p = {.fd = w.fd, .events = POLLIN};
        assert_int_equal(poll(&p, 1, 20000), 1);
        qn_wakeup_clear(&w);
        for (; qn_queue_pop(q, &v); got++) {
            assert_true(v >> 32 < PRODUCERS);
            assert_int_equal(v & UINT32_MAX, next[v >> 32]++);
        }
    }
    for (int i = 0; i < PRODUCERS; i++) {
        qn_thread_join(&threads[i]);
        qn_thread_join(&threads[i]);
        assert_string_equal(producers[i].name, "a-name-of-fifte");
        assert_true(sigismember(&producers[i].blocked, SIGTERM));
        assert_true(sigismember(&producers[i].blocked, SIGINT));
        assert_false(sigismember(&producers[i].blocked, SIGSEGV));
    }
    sigset_t mine;
    pthread_sigmask(SIG_BLOCK, NULL, &mine);
    assert_false(sigismember(&mine, SIGTERM)); // the caller's own mask is as before
    struct pollfd p = {.fd = w.fd, .events = POLLIN};
    qn_wakeup_clear(&w);
    assert_int_equal(poll(&p, 1, 0), 0); // clearing clears however many signals there were
    qn_wakeup_clear(&w);                 // and does not block when there are none
    qn_wakeup_close(&w);
    qn_wakeup_close(&w);
    qn_queue_destroy(q);
}

static void test_errors(void **state) {
    (void)state;
    qn_error err = {0};
    assert_int_equal(qn_error_prefix(&err, "x"), QN_OK);
    assert_string_equal(err.message, "");
    assert_int_equal(qn_fail(&err, QN_ERR_FORMAT, "bad %d", 7), QN_ERR_FORMAT);
    assert_int_equal(qn_fail(&err, QN_ERR_IO, "later"), QN_ERR_IO); // the first one stays
    assert_int_equal(err.status, QN_ERR_FORMAT);
    assert_int_equal(qn_error_prefix(&err, "%s", "file"), QN_ERR_FORMAT);
    assert_string_equal(err.message, "file: bad 7");
    char big[2000];
    memset(big, 'y', sizeof big);
    big[sizeof big - 1] = '\0';
    qn_error_prefix(&err, "%s", big);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    qn_error_clear(&err);
    assert_int_equal(err.status, QN_OK);
    qn_fail(&err, QN_ERR_IO, "%s", big);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_int_equal(qn_fail(NULL, QN_ERR_BUSY, "x"), QN_ERR_BUSY);
    for (int s = QN_OK; s <= QN_ERR_INTERNAL; s++) {
        assert_string_not_equal(qn_status_name((qn_status)s), "unknown");
    }
    assert_string_equal(qn_status_name((qn_status)1000), "unknown");
}

static void keep_line(void *user, qn_log_level level, const char *line) {
    snprintf(user, 1200, "%d %s", (int)level, line);
}

static void test_log(void **state) {
    (void)state;
    char line[1200] = "", big[3000];
    qn_log log = {keep_line, line, QN_LOG_WARN};
    qn_logf(&log, QN_LOG_INFO, "quiet");
    assert_string_equal(line, "");
    qn_logf(&log, QN_LOG_ERROR, "%s %d", "loud", 3);
    assert_string_equal(line, "3 loud 3");
    memset(big, 'z', sizeof big);
    big[sizeof big - 1] = '\0';
    qn_logf(&log, QN_LOG_ERROR, "%s", big);
    assert_in_range(strlen(line), 900, 1002);
    qn_logf(NULL, QN_LOG_ERROR, "nobody");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_map_and_read),
        cmocka_unit_test(test_truncated_after_mapping),
        cmocka_unit_test(test_what_is_not_a_file),
        cmocka_unit_test(test_empty_file),
        cmocka_unit_test(test_read_file),
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_cgroups), cmocka_unit_test(test_machine),
        cmocka_unit_test(test_queue),
        cmocka_unit_test(test_queue_and_wakeup_across_threads),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_log),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
