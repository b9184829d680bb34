// SPDX-License-Identifier: Apache-2.0
// Allocations that fail on demand. The linker sends the product's calls of the allocator (and of the
// few system calls that need memory) to inject.c; jansson, libevent and OpenSSL are given its functions.
//
// A site is the chain of callers of an allocation. The n-th allocation of a site can be made to fail,
// alone or with all that follow it until the window is closed: sites are counted each for itself, so
// that which one fails does not depend on how threads interleave.
#ifndef QN_TESTS_FAULTS_INJECT_H
#define QN_TESTS_FAULTS_INJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum inject_kind {
    INJECT_HEAP,   // malloc and its like, called by the product
    INJECT_PAGES,  // mmap
    INJECT_SYSTEM, // threads, files, descriptors: what the system refuses for want of memory
    INJECT_PCRE2,
    INJECT_JSON,
    INJECT_EVENT,
    INJECT_TLS,
    INJECT_N_KINDS,
} inject_kind;

// First thing in main, before any library is used. Window and table are closed and empty.
void inject_init(void);

// Whether this thread's allocations count in a window; the thread that called inject_init does not.
void inject_count_thread(bool yes);

// Calls f(arg). Chains of callers end here.
int inject_run(int (*f)(void *), void *arg);

// Opens a window: every allocation of a counted thread is noted. What fails is set before.
void inject_open(void);
void inject_close(void);
// The n-th (from 1) allocation of a site fails in the next window; rest: and all after it, of any
// site. site < 0: none.
void inject_fail(int site, uint32_t n, bool rest);
bool inject_failed(void); // in the last window: did one?

// Sites, in the order in which they were first seen since inject_forget.
int inject_sites(void);
uint32_t inject_hits(int site); // in the last window
inject_kind inject_kind_of(int site);
void inject_forget(void);
// Writes where a site is, one caller a line, to a descriptor. Only what a signal handler may call,
// unless names is set: then addr2line is asked.
void inject_show(int fd, int site, bool names);

// What the process holds, counted at all times and on all threads.
typedef struct inject_held {
    int64_t blocks[INJECT_N_KINDS]; // live allocations
    int64_t mapped;                 // bytes of mmap
    int64_t files, threads;         // open descriptors, threads
} inject_held;
void inject_hold(inject_held *out);
uint64_t inject_mark(void); // a moment
// Shows live allocations made since a moment (at most `most`).
void inject_show_live(int fd, uint64_t since, int most);

#endif
