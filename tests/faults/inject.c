// SPDX-License-Identifier: Apache-2.0
// Invariants:
// 1. Nothing here allocates while `lock` is held, and nothing here allocates at all while a window is
//    open: tables have a fixed size.
// 2. A block is in the table of live ones from the moment its allocator returned it until just before
//    it is given back, so that two threads never see one address twice.
#include "tests/faults/inject.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <event2/event.h>
#include <jansson.h>
#include <netdb.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include <unwind.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

enum {
    FRAMES = 14,      // kept of a chain of callers
    OWN_FRAMES = 4,   // so many in this program tell sites apart
    MAX_SITES = 1 << 14,
    SITE_SLOTS = 1 << 16,
    LIVE_SLOTS = 1 << 20,
};

typedef struct site {
    uint64_t hash;
    inject_kind kind;
    uint16_t n_frames;
    void *frames[FRAMES];
    bool stays; // until its loop ends: no leak
    bool spared; // never fails
    const char *file; // OpenSSL says where it is
    int line;
    uint32_t window, hits; // hits in that window
} site;

typedef struct live {
    void *p; // NULL: empty
    uint64_t when;
    uint32_t site; // + 1; 0: outside of windows
    inject_kind kind;
} live;

static struct {
    pthread_mutex_t lock;
    bool open;
    uint32_t window;
    int fail_site;
    uint32_t fail_n;
    bool fail_rest, failed;
    site sites[MAX_SITES];
    int n_sites;
    uint32_t slots[SITE_SLOTS]; // site + 1
    live *live;
    uint64_t clock;
    int64_t blocks[INJECT_N_KINDS];
    int64_t mapped;
} g = {.lock = PTHREAD_MUTEX_INITIALIZER, .fail_site = -1};

static _Thread_local bool counted = true;

extern const char __executable_start[], etext[];

static bool is_own(const void *p) {
    return (const char *)p >= __executable_start && (const char *)p < etext;
}

// ---------------------------------------------------------------- live blocks

static size_t live_slot(const void *p) {
    return (size_t)((((uint64_t)(uintptr_t)p >> 4) * UINT64_C(0x9E3779B97F4A7C15)) >> 40) %
           LIVE_SLOTS;
}

static void live_put(void *p, uint32_t site_number, inject_kind kind) {
    pthread_mutex_lock(&g.lock);
    size_t i = live_slot(p);
    while (g.live[i].p) i = (i + 1) % LIVE_SLOTS;
    g.live[i] = (live){p, ++g.clock, site_number, kind};
    g.blocks[kind]++;
    pthread_mutex_unlock(&g.lock);
}

static void live_drop(const void *p) {
    pthread_mutex_lock(&g.lock);
    size_t i = live_slot(p);
    while (g.live[i].p && g.live[i].p != p) i = (i + 1) % LIVE_SLOTS;
    if (g.live[i].p) { // else a library made it before inject_init, or itself
        g.blocks[g.live[i].kind]--;
        // Those behind it move up, so that no search stops at the hole.
        for (size_t k = i;;) {
            k = (k + 1) % LIVE_SLOTS;
            if (!g.live[k].p) break;
            const size_t home = live_slot(g.live[k].p);
            if (((k + LIVE_SLOTS - home) % LIVE_SLOTS) >= ((k + LIVE_SLOTS - i) % LIVE_SLOTS)) {
                g.live[i] = g.live[k];
                i = k;
            }
        }
        g.live[i].p = NULL;
    }
    pthread_mutex_unlock(&g.lock);
}

// ---------------------------------------------------------------- sites

typedef struct walk {
    void **frames;
    int n, own;
    bool started;
    const void *first; // the allocator's return address: frames before it are ours
} walk;

static _Unwind_Reason_Code on_frame(struct _Unwind_Context *c, void *arg) {
    walk *w = arg;
    void *ip = (void *)_Unwind_GetIP(c);
    if (_Unwind_GetRegionStart(c) == (uintptr_t)inject_run) return _URC_END_OF_STACK;
    if (!w->started && ip != w->first) return _URC_NO_REASON;
    w->started = true;
    w->frames[w->n++] = ip;
    w->own += is_own(ip);
    return w->n == FRAMES || !ip ? _URC_END_OF_STACK : _URC_NO_REASON;
}

// libevent 2.1 crashes when memory ends in the middle of making a TLS connection; the product sees to
// it that there is some before. Nothing fails there.
static bool is_fragile(inject_kind kind, void *const *frames, int n) {
    Dl_info info;
    for (int i = 0; kind == INJECT_EVENT && i + 1 < n; i++) {
        if (!is_own(frames[i]) && is_own(frames[i + 1]) && dladdr(frames[i], &info) && info.dli_fname &&
            strstr(info.dli_fname, "libevent_openssl")) {
            return true;
        }
    }
    return false;
}

// libevent keeps a little for each descriptor number that a loop has seen.
static bool is_kept(inject_kind kind, void *const *frames, int n) {
    Dl_info info;
    for (int i = 0; kind == INJECT_EVENT && i < n; i++) {
        if (!is_own(frames[i]) && dladdr(frames[i], &info) && info.dli_sname &&
            strcmp(info.dli_sname, "evmap_io_add_") == 0) {
            return true;
        }
    }
    return false;
}

static uint64_t mix(uint64_t h, uint64_t x) {
    h = (h ^ x) * UINT64_C(0xFF51AFD7ED558CCD);
    return h ^ (h >> 32);
}

// The number of the site, + 1. Under lock.
static uint32_t site_find(inject_kind kind, const void *caller, const char *file, int line) {
    void *frames[FRAMES];
    walk w = {.frames = frames, .first = caller};
    uint64_t h = mix(kind + 1, (uint64_t)line);
    if (file) {
        h = mix(h, (uint64_t)(uintptr_t)file);
    } else {
        _Unwind_Backtrace(on_frame, &w);
        if (w.n == 0) frames[w.n++] = (void *)(uintptr_t)caller;
        for (int i = 0, own = 0; i < w.n && own < OWN_FRAMES; i++) {
            own += is_own(frames[i]);
            h = mix(h, (uint64_t)(uintptr_t)frames[i]);
        }
    }
    size_t slot = h % SITE_SLOTS;
    for (; g.slots[slot]; slot = (slot + 1) % SITE_SLOTS) {
        if (g.sites[g.slots[slot] - 1].hash == h) return g.slots[slot];
    }
    if (g.n_sites == MAX_SITES) return 0;
    site *s = &g.sites[g.n_sites++];
    *s = (site){.hash = h, .kind = kind, .n_frames = (uint16_t)w.n, .file = file, .line = line,
                .stays = is_kept(kind, frames, w.n), .spared = is_fragile(kind, frames, w.n)};
    memcpy(s->frames, frames, (size_t)w.n * sizeof *frames);
    g.slots[slot] = (uint32_t)g.n_sites;
    return (uint32_t)g.n_sites;
}

// Every allocation passes here. True: it is to fail. *number: its site, + 1.
static bool pass(inject_kind kind, const void *caller, const char *file, int line,
                 uint32_t *number) {
    *number = 0;
    if (!g.open || !counted) return false;
    pthread_mutex_lock(&g.lock);
    bool fails = false, spared = false;
    // Until it has failed only the site that is waited for is of interest: walking up costs time.
    const site *want = g.fail_site >= 0 && !g.failed ? &g.sites[g.fail_site] : NULL;
    bool look = !want || kind == INJECT_EVENT || (want->kind == kind &&
                          (file ? want->file == file && want->line == line
                                : !want->n_frames || want->frames[0] == caller));
    if (g.open && look) {
        *number = site_find(kind, caller, file, line);
        if (*number) {
            site *s = &g.sites[*number - 1];
            if (s->window != g.window) s->hits = 0;
            s->window = g.window;
            s->hits++;
            spared = s->spared;
            if (want && (int)*number - 1 == g.fail_site && s->hits == g.fail_n && !spared) {
                g.failed = fails = true;
            }
        }
    }
    if (g.open && g.failed && g.fail_rest && *number && !spared) fails = true;
    pthread_mutex_unlock(&g.lock);
    return fails;
}

#define PASS(kind, number) pass(kind, __builtin_return_address(0), NULL, 0, number)

__attribute__((noinline)) int inject_run(int (*f)(void *), void *arg) {
    int result = f(arg);
    __asm__ volatile("" ::: "memory"); // no tail call: this frame is where a walk ends
    return result;
}

static void *note(void *p, uint32_t number, inject_kind kind) {
    if (p) live_put(p, number, kind);
    return p;
}

static void *no_memory(void) {
    errno = ENOMEM;
    return NULL;
}

// ---------------------------------------------------------------- the product's calls

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
char *__real_strdup(const char *s);
char *__real_strndup(const char *s, size_t n);
void __real_free(void *p);
void *__real_mmap(void *p, size_t n, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *p, size_t n);
int __real_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg);
int __real_eventfd(unsigned value, int flags);
FILE *__real_fopen(const char *path, const char *mode);
int __real_fclose(FILE *f);
DIR *__real_opendir(const char *path);
int __real_closedir(DIR *d);
int __real_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **out);
void __real_freeaddrinfo(struct addrinfo *a);
pcre2_code *__real_pcre2_compile_8(PCRE2_SPTR8 pattern, PCRE2_SIZE len, uint32_t options,
                                   int *number, PCRE2_SIZE *offset, pcre2_compile_context *c);
void __real_pcre2_code_free_8(pcre2_code *c);
pcre2_match_context *__real_pcre2_match_context_create_8(pcre2_general_context *c);
void __real_pcre2_match_context_free_8(pcre2_match_context *c);
pcre2_match_data *__real_pcre2_match_data_create_8(uint32_t n, pcre2_general_context *c);
void __real_pcre2_match_data_free_8(pcre2_match_data *m);
int __real_pcre2_match_8(const pcre2_code *code, PCRE2_SPTR8 s, PCRE2_SIZE len, PCRE2_SIZE start,
                         uint32_t options, pcre2_match_data *m, pcre2_match_context *c);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);
char *__wrap_strdup(const char *s);
char *__wrap_strndup(const char *s, size_t n);
void __wrap_free(void *p);
void *__wrap_mmap(void *p, size_t n, int prot, int flags, int fd, off_t offset);
int __wrap_munmap(void *p, size_t n);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg);
int __wrap_eventfd(unsigned value, int flags);
FILE *__wrap_fopen(const char *path, const char *mode);
int __wrap_fclose(FILE *f);
DIR *__wrap_opendir(const char *path);
int __wrap_closedir(DIR *d);
int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **out);
void __wrap_freeaddrinfo(struct addrinfo *a);
pcre2_code *__wrap_pcre2_compile_8(PCRE2_SPTR8 pattern, PCRE2_SIZE len, uint32_t options,
                                   int *number, PCRE2_SIZE *offset, pcre2_compile_context *c);
void __wrap_pcre2_code_free_8(pcre2_code *c);
pcre2_match_context *__wrap_pcre2_match_context_create_8(pcre2_general_context *c);
void __wrap_pcre2_match_context_free_8(pcre2_match_context *c);
pcre2_match_data *__wrap_pcre2_match_data_create_8(uint32_t n, pcre2_general_context *c);
void __wrap_pcre2_match_data_free_8(pcre2_match_data *m);
int __wrap_pcre2_match_8(const pcre2_code *code, PCRE2_SPTR8 s, PCRE2_SIZE len, PCRE2_SIZE start,
                         uint32_t options, pcre2_match_data *m, pcre2_match_context *c);

void *__wrap_malloc(size_t size) {
    uint32_t number;
    if (PASS(INJECT_HEAP, &number)) return no_memory();
    return note(__real_malloc(size), number, INJECT_HEAP);
}

void *__wrap_calloc(size_t n, size_t size) {
    uint32_t number;
    if (PASS(INJECT_HEAP, &number)) return no_memory();
    return note(__real_calloc(n, size), number, INJECT_HEAP);
}

static void *resize(void *p, size_t size, uint32_t number, inject_kind kind) {
    if (p) live_drop(p);
    void *q = __real_realloc(p, size);
    if (q) live_put(q, number, kind);
    else if (p && size) live_put(p, 0, kind);
    return q;
}

void *__wrap_realloc(void *p, size_t size) {
    uint32_t number;
    if (PASS(INJECT_HEAP, &number)) return no_memory();
    return resize(p, size, number, INJECT_HEAP);
}

void *__wrap_aligned_alloc(size_t align, size_t size) {
    uint32_t number;
    if (PASS(INJECT_HEAP, &number)) return no_memory();
    return note(__real_aligned_alloc(align, size), number, INJECT_HEAP);
}

char *__wrap_strdup(const char *s) {
    uint32_t number;
    if (PASS(INJECT_HEAP, &number)) return no_memory();
    return note(__real_strdup(s), number, INJECT_HEAP);
}

char *__wrap_strndup(const char *s, size_t n) {
    uint32_t number;
    if (PASS(INJECT_HEAP, &number)) return no_memory();
    return note(__real_strndup(s, n), number, INJECT_HEAP);
}

void __wrap_free(void *p) {
    if (p) live_drop(p);
    __real_free(p);
}

static void add_mapped(int64_t bytes) {
    const int64_t page = sysconf(_SC_PAGESIZE);
    const int64_t pages = (bytes < 0 ? -bytes + page - 1 : bytes + page - 1) / page * page;
    pthread_mutex_lock(&g.lock);
    g.mapped += bytes < 0 ? -pages : pages;
    pthread_mutex_unlock(&g.lock);
}

void *__wrap_mmap(void *p, size_t n, int prot, int flags, int fd, off_t offset) {
    uint32_t number;
    if (PASS(INJECT_PAGES, &number)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    void *q = __real_mmap(p, n, prot, flags, fd, offset);
    if (q != MAP_FAILED) add_mapped((int64_t)n);
    return q;
}

int __wrap_munmap(void *p, size_t n) {
    int rc = __real_munmap(p, n);
    if (rc == 0) add_mapped(-(int64_t)n);
    return rc;
}

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg) {
    uint32_t number;
    return PASS(INJECT_SYSTEM, &number) ? EAGAIN : __real_pthread_create(t, a, f, arg);
}

int __wrap_eventfd(unsigned value, int flags) {
    uint32_t number;
    if (PASS(INJECT_SYSTEM, &number)) {
        errno = ENOMEM;
        return -1;
    }
    return __real_eventfd(value, flags);
}

FILE *__wrap_fopen(const char *path, const char *mode) {
    uint32_t number;
    if (PASS(INJECT_SYSTEM, &number)) return no_memory();
    return note(__real_fopen(path, mode), number, INJECT_SYSTEM);
}

int __wrap_fclose(FILE *f) {
    live_drop(f);
    return __real_fclose(f);
}

DIR *__wrap_opendir(const char *path) {
    uint32_t number;
    if (PASS(INJECT_SYSTEM, &number)) return no_memory();
    return note(__real_opendir(path), number, INJECT_SYSTEM);
}

int __wrap_closedir(DIR *d) {
    live_drop(d);
    return __real_closedir(d);
}

int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **out) {
    uint32_t number;
    if (PASS(INJECT_SYSTEM, &number)) return EAI_MEMORY;
    int rc = __real_getaddrinfo(host, service, hints, out);
    if (rc == 0) note(*out, number, INJECT_SYSTEM);
    return rc;
}

void __wrap_freeaddrinfo(struct addrinfo *a) {
    if (a) live_drop(a);
    __real_freeaddrinfo(a);
}

pcre2_code *__wrap_pcre2_compile_8(PCRE2_SPTR8 pattern, PCRE2_SIZE len, uint32_t options,
                                   int *error, PCRE2_SIZE *offset, pcre2_compile_context *c) {
    uint32_t number;
    if (PASS(INJECT_PCRE2, &number)) {
        *error = PCRE2_ERROR_HEAP_FAILED;
        *offset = 0;
        return NULL;
    }
    return note(__real_pcre2_compile_8(pattern, len, options, error, offset, c), number,
                INJECT_PCRE2);
}

void __wrap_pcre2_code_free_8(pcre2_code *c) {
    if (c) live_drop(c);
    __real_pcre2_code_free_8(c);
}

pcre2_match_context *__wrap_pcre2_match_context_create_8(pcre2_general_context *c) {
    uint32_t number;
    if (PASS(INJECT_PCRE2, &number)) return NULL;
    return note(__real_pcre2_match_context_create_8(c), number, INJECT_PCRE2);
}

void __wrap_pcre2_match_context_free_8(pcre2_match_context *c) {
    if (c) live_drop(c);
    __real_pcre2_match_context_free_8(c);
}

pcre2_match_data *__wrap_pcre2_match_data_create_8(uint32_t n, pcre2_general_context *c) {
    uint32_t number;
    if (PASS(INJECT_PCRE2, &number)) return NULL;
    return note(__real_pcre2_match_data_create_8(n, c), number, INJECT_PCRE2);
}

void __wrap_pcre2_match_data_free_8(pcre2_match_data *m) {
    if (m) live_drop(m);
    __real_pcre2_match_data_free_8(m);
}

int __wrap_pcre2_match_8(const pcre2_code *code, PCRE2_SPTR8 s, PCRE2_SIZE len, PCRE2_SIZE start,
                         uint32_t options, pcre2_match_data *m, pcre2_match_context *c) {
    uint32_t number;
    if (PASS(INJECT_PCRE2, &number)) return PCRE2_ERROR_NOMEMORY;
    return __real_pcre2_match_8(code, s, len, start, options, m, c);
}

// ---------------------------------------------------------------- libraries

static void *json_alloc(size_t size) {
    uint32_t number;
    if (PASS(INJECT_JSON, &number)) return no_memory();
    return note(__real_malloc(size), number, INJECT_JSON);
}

static void *event_alloc(size_t size) {
    uint32_t number;
    if (PASS(INJECT_EVENT, &number)) return no_memory();
    if (number && g.sites[number - 1].stays) return __real_malloc(size);
    return note(__real_malloc(size), number, INJECT_EVENT);
}

static void *event_resize(void *p, size_t size) {
    uint32_t number;
    if (PASS(INJECT_EVENT, &number)) return no_memory();
    return resize(p, size, number, INJECT_EVENT);
}

static void *tls_alloc(size_t size, const char *file, int line) {
    uint32_t number;
    if (size == 0) return NULL;
    if (pass(INJECT_TLS, NULL, file, line, &number)) return no_memory();
    return note(__real_malloc(size), number, INJECT_TLS);
}

static void *tls_resize(void *p, size_t size, const char *file, int line) {
    uint32_t number;
    if (size == 0) {
        __wrap_free(p);
        return NULL;
    }
    if (pass(INJECT_TLS, NULL, file, line, &number)) return no_memory();
    return resize(p, size, number, INJECT_TLS);
}

static void tls_free(void *p, const char *file, int line) {
    (void)file;
    (void)line;
    __wrap_free(p);
}

static void say_nothing(int severity, const char *text) {
    (void)severity;
    (void)text;
}

void inject_init(void) {
    const size_t size = LIVE_SLOTS * sizeof *g.live;
    g.live = __real_mmap(NULL, size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (g.live == MAP_FAILED || !CRYPTO_set_mem_functions(tls_alloc, tls_resize, tls_free)) {
        fprintf(stderr, "cannot set up the failing allocator\n");
        exit(1);
    }
    json_object_seed(1); // else the first hash table reads a random one
    json_set_alloc_funcs(json_alloc, __wrap_free);
    event_set_mem_functions(event_alloc, event_resize, __wrap_free);
    event_set_log_callback(say_nothing); // it complains about what fails
    counted = false;
}

// ---------------------------------------------------------------- control

void inject_count_thread(bool yes) { counted = yes; }

void inject_open(void) {
    pthread_mutex_lock(&g.lock);
    g.window++;
    g.failed = false;
    g.open = true;
    pthread_mutex_unlock(&g.lock);
}

void inject_close(void) {
    pthread_mutex_lock(&g.lock);
    g.open = false;
    g.fail_site = -1;
    pthread_mutex_unlock(&g.lock);
}

void inject_fail(int number, uint32_t n, bool rest) {
    pthread_mutex_lock(&g.lock);
    g.fail_site = number;
    g.fail_n = n;
    g.fail_rest = rest;
    pthread_mutex_unlock(&g.lock);
}

bool inject_failed(void) { return g.failed; }

int inject_sites(void) { return g.n_sites; }

uint32_t inject_hits(int number) {
    const site *s = &g.sites[number];
    return s->window == g.window ? s->hits : 0;
}

inject_kind inject_kind_of(int number) { return g.sites[number].kind; }

void inject_forget(void) {
    pthread_mutex_lock(&g.lock);
    g.n_sites = 0;
    memset(g.slots, 0, sizeof g.slots);
    for (size_t i = 0; i < LIVE_SLOTS; i++) {
        if (g.live[i].p) g.live[i].site = 0;
    }
    pthread_mutex_unlock(&g.lock);
}

static void show_frame(int fd, const void *ip, bool names) {
    Dl_info info = {0};
    const void *call = (const char *)ip - 1; // the return address may be the next line's
    if (!dladdr(call, &info) || !info.dli_fname) {
        dprintf(fd, "      %p\n", ip);
        return;
    }
    const size_t offset = (size_t)((const char *)call - (const char *)info.dli_fbase);
    if (names && is_own(ip)) {
        char command[600], line[400];
        snprintf(command, sizeof command, "addr2line -fpsie '%s' %zx 2>&1", info.dli_fname, offset);
        FILE *f = popen(command, "r");
        bool any = false;
        while (f && fgets(line, sizeof line, f)) {
            dprintf(fd, "      %s", line);
            any = true;
        }
        if (f) pclose(f);
        if (any) return;
    }
    dprintf(fd, "      %s+0x%zx %s\n", info.dli_fname, offset, info.dli_sname ? info.dli_sname : "");
}

void inject_show(int fd, int number, bool names) {
    const site *s = &g.sites[number];
    if (s->file) dprintf(fd, "      %s:%d\n", s->file, s->line);
    for (int i = 0; i < s->n_frames; i++) {
        if (s->frames[i]) show_frame(fd, s->frames[i], names);
    }
}

static int64_t count_entries(const char *path) {
    int64_t n = 0;
    DIR *d = __real_opendir(path);
    if (!d) return 0;
    for (const struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    __real_closedir(d);
    return n;
}

void inject_hold(inject_held *out) {
    pthread_mutex_lock(&g.lock);
    memcpy(out->blocks, g.blocks, sizeof out->blocks);
    out->mapped = g.mapped;
    pthread_mutex_unlock(&g.lock);
    out->files = count_entries("/proc/self/fd");
    out->threads = count_entries("/proc/self/task");
}

uint64_t inject_mark(void) { return g.clock; }

void inject_show_live(int fd, uint64_t since, int most) {
    for (size_t i = 0; i < LIVE_SLOTS && most > 0; i++) {
        if (!g.live[i].p || g.live[i].when <= since) continue;
        dprintf(fd, "    live since: %p, kind %d\n", g.live[i].p, (int)g.live[i].kind);
        if (g.live[i].site) inject_show(fd, (int)g.live[i].site - 1, true);
        most--;
    }
}
