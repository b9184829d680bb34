// SPDX-License-Identifier: Apache-2.0
#include "tests/faults/faults.h"

#include "base/checked.h"
#include "base/os.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WARM_UP = 3, HANG_SECONDS = 60, DENSE = 6 };

typedef struct now { // what is being done; for whoever dies
    const char *scenario;
    int site;
    uint32_t n;
    bool rest;
} now;
static now current;
static bool verbose, go_on;

faults_result faults_wrong(qn_error *err, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    qn_error_clear(err);
    qn_vfail(err, QN_ERR_INTERNAL, fmt, args);
    va_end(args);
    return FAULTS_WRONG;
}

static struct {
    const faults_scenario *of;
    bool has[16];
    uint64_t want[16];
} results;

faults_result faults_same(const faults_scenario *s, size_t i, uint64_t result, qn_error *err) {
    if (results.of != s) {
        memset(&results, 0, sizeof results);
        results.of = s;
    }
    if (!results.has[i]) results.want[i] = result;
    results.has[i] = true;
    return result == results.want[i] ? FAULTS_DONE
                                     : faults_wrong(err, "result %zu is another one", i);
}

static void show_current(bool names) {
    if (!current.scenario) return;
    if (current.site < 0) {
        dprintf(2, "  in %s, undisturbed\n", current.scenario);
        return;
    }
    dprintf(2, "  in %s, with allocation %u of site %d%s failing:\n", current.scenario, current.n,
            current.site, current.rest ? " and all after it" : "");
    inject_show(2, current.site, names);
}

static void on_death(void) { show_current(false); }

static void on_signal(int number) {
    inject_close();
    dprintf(2, "%s\n", number == SIGALRM ? "hangs" : "crashes");
    on_death();
    signal(number, SIG_DFL);
    raise(number == SIGALRM ? SIGKILL : number);
}

// There under the address sanitizer.
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

// ---------------------------------------------------------------- one run

typedef struct job {
    const faults_scenario *scenario;
    qn_error *err;
} job;

static int run_job(void *arg) {
    const job *j = arg;
    return (int)j->scenario->run(j->scenario, j->err);
}

static faults_result run_once(const faults_scenario *s, int site, uint32_t n, bool rest,
                              qn_error *err) {
    current = (now){s->name, site, n, rest};
    alarm(HANG_SECONDS);
    inject_fail(site, n, rest);
    inject_open();
    inject_count_thread(!s->own_thread_exempt);
    faults_result r = (faults_result)inject_run(run_job, &(job){s, err});
    inject_count_thread(false);
    inject_close();
    if (s->settle && r != FAULTS_WRONG) {
        qn_error why = {0};
        if (!s->settle(s, &why)) r = faults_wrong(err, "%s", why.message);
    }
    alarm(0);
    return r;
}

static bool same(const inject_held *a, const inject_held *b) {
    for (int k = 0; k < INJECT_N_KINDS; k++) {
        // OpenSSL keeps error texts and the like for each thread.
        if (k != INJECT_TLS && a->blocks[k] != b->blocks[k]) return false;
    }
    return a->mapped == b->mapped && a->files == b->files && a->threads == b->threads;
}

// Threads that end, connections that close: what is held comes back to what it was, soon.
static bool came_back(const inject_held *before, inject_held *after) {
    for (int i = 0; i < 2000; i++) {
        inject_hold(after);
        if (same(before, after)) return true;
        usleep(i < 20 ? 100 : 1000);
    }
    return false;
}

// Waits until nothing changes any more.
static void quiet(inject_held *out) {
    inject_held last;
    inject_hold(&last);
    for (int calm = 0, i = 0; calm < 5 && i < 1000; i++) {
        usleep(4000);
        inject_hold(out);
        calm = same(&last, out) ? calm + 1 : 0;
        last = *out;
    }
}

static void show_held(const inject_held *a, const inject_held *b) {
    static const char *const names[] = {"heap", "pages", "system", "pcre2", "json", "event", "tls"};
    for (int k = 0; k < INJECT_N_KINDS; k++) {
        if (a->blocks[k] == b->blocks[k]) continue;
        dprintf(2, "    %s: %lld blocks before, %lld after\n", names[k], (long long)a->blocks[k],
                (long long)b->blocks[k]);
    }
    dprintf(2, "    mapped %lld -> %lld, files %lld -> %lld, threads %lld -> %lld\n",
            (long long)a->mapped, (long long)b->mapped, (long long)a->files, (long long)b->files,
            (long long)a->threads, (long long)b->threads);
}

static bool found(const char *what, const qn_error *err) {
    dprintf(2, "FOUND: %s%s%s\n", what, err && err->status ? ": " : "",
            err && err->status ? err->message : "");
    show_current(true);
    return false;
}

static bool undisturbed(const faults_scenario *s) {
    qn_error err = {0};
    const now was = current;
    faults_result r = run_once(s, -1, 0, false, &err);
    if (r == FAULTS_DONE) return true;
    if (was.site >= 0 && was.scenario == s->name) current = was;
    return found("an undisturbed run fails", &err);
}

// True: nothing is wrong. *hit: the site did allocate that often.
static bool disturbed(const faults_scenario *s, int site, uint32_t n, bool rest,
                      const inject_held *before, bool *hit) {
    qn_error err = {0};
    inject_held after;
    if (verbose) {
        dprintf(2, "%s: site %d, allocation %u%s\n", s->name, site, n, rest ? " and the rest" : "");
    }
    const uint64_t mark = inject_mark();
    faults_result r = run_once(s, site, n, rest, &err);
    *hit = inject_failed();
    if (r == FAULTS_WRONG) return found("wrong", &err);
    if (r == FAULTS_FAILED && !*hit) return found("fails though nothing was refused", &err);
    if (r == FAULTS_FAILED && err.message[0] == '\0') return found("an error without a word", &err);
    // What the system refuses may be called its error.
    // OpenSSL has other words for its own.
    const inject_kind kind = inject_kind_of(site);
    const bool by_system = (kind == INJECT_SYSTEM && err.status == QN_ERR_IO) || kind == INJECT_TLS;
    if (r == FAULTS_FAILED && err.status != QN_ERR_NOMEM && !by_system) {
        dprintf(2, "  status: %s\n", qn_status_name(err.status));
        return found("the error is not one of memory", &err);
    }
    const now was = current;
    if (s->lasting && !undisturbed(s)) return false;
    if (!came_back(before, &after)) {
        current = was;
        found("something is left behind", NULL);
        show_held(before, &after);
        inject_show_live(2, mark, 4);
        return false;
    }
    return true;
}

// ---------------------------------------------------------------- one scenario

typedef struct tally {
    int failures;  // allocations that were made to fail
    int sites, wrong;
    bool cut; // the sample was used up
} tally;

// Which allocations of a site, of so many: the first few, then powers of two, the last.
static uint32_t next_choice(uint32_t n, uint32_t hits) {
    if (n < DENSE) return n + 1;
    if (n >= hits) return n + 1;
    return QN_MIN(2 * n, hits);
}

static bool run_scenario(const faults_scenario *s, int sample, tally *t) {
    bool ok = true;
    inject_forget();
    for (int i = 0; i < WARM_UP && ok; i++) ok = undisturbed(s);
    inject_held before;
    quiet(&before);
    static uint32_t hits[1 << 14];
    memset(hits, 0, sizeof hits);
    // Breadth first: each site's first allocation, then what is left of the sample.
    for (uint32_t round = 0, n = 1, more = 1; ok && more; round++) {
        more = 0;
        for (int site = 0; ok && site < inject_sites(); site++) {
            if (round == 0) t->sites = QN_MAX(t->sites, site + 1);
            for (int rest = 0; ok && rest < 2; rest++) {
                bool hit = false;
                if (round > 0 && hits[site] < n) continue;
                if (round > 0 && rest && n > 2) continue;
                if (sample > 0 && t->failures >= sample) {
                    t->cut = true;
                    continue;
                }
                const bool good = disturbed(s, site, n, rest, &before, &hit);
                t->failures += hit;
                if (!good) {
                    t->wrong++;
                    ok = go_on && undisturbed(s);
                    quiet(&before);
                }
            }
        }
        // Hits of an undisturbed run say how often a site may be asked.
        if (!ok) break;
        ok = undisturbed(s);
        uint32_t most = 0;
        for (int site = 0; site < inject_sites(); site++) {
            hits[site] = QN_MAX(hits[site], inject_hits(site));
            most = QN_MAX(most, hits[site]);
        }
        const uint32_t next = next_choice(n, most);
        more = next <= most && !t->cut;
        n = next;
    }
    return ok && t->wrong == 0;
}

int faults_main(int argc, char **argv, const faults_scenario *scenarios, size_t n) {
    int sample = 0, first = argc;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--sample") == 0 && i + 1 < argc) {
            sample = atoi(argv[++i]);
        } else if (strcmp(argv[i], "--verbose") == 0) {
            verbose = true;
        } else if (strcmp(argv[i], "--all") == 0) {
            go_on = true;
        } else if (strcmp(argv[i], "--list") == 0) {
            for (size_t k = 0; k < n; k++) printf("%s\n", scenarios[k].name);
            return 0;
        } else if (argv[i][0] != '-') {
            first = QN_MIN(first, i);
        } else {
            fprintf(stderr, "usage: %s [--sample N] [--all] [--list] [--verbose] [SCENARIO...]\n",
                    argv[0]);
            return 2;
        }
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, on_signal);
    if (__sanitizer_set_death_callback) {
        __sanitizer_set_death_callback(on_death);
    } else {
        signal(SIGSEGV, on_signal);
        signal(SIGBUS, on_signal);
        signal(SIGABRT, on_signal);
    }
    int wrong = 0, failures = 0;
    const uint64_t begin = qn_os_now_ns();
    for (size_t k = 0; k < n; k++) {
        bool wanted = first == argc;
        for (int i = first; i < argc; i++) wanted = wanted || strcmp(argv[i], scenarios[k].name) == 0;
        if (!wanted) continue;
        tally t = {0};
        const uint64_t start = qn_os_now_ns();
        wrong += !run_scenario(&scenarios[k], sample, &t);
        failures += t.failures;
        printf("%-24s %5d sites, %6d failures%s, %d wrong, %.2f s\n", scenarios[k].name, t.sites,
               t.failures, t.cut ? " (a sample)" : "", t.wrong,
               (double)(qn_os_now_ns() - start) * 1e-9);
        fflush(stdout);
    }
    printf("%d failures, %d scenarios wrong, %.1f s\n", failures, wrong,
           (double)(qn_os_now_ns() - begin) * 1e-9);
    return wrong != 0;
}
