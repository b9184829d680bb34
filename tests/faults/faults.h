// SPDX-License-Identifier: Apache-2.0
// Scenarios, and the runner that lets every allocation of each fail.
//
// A scenario first runs undisturbed. Then, for every site that allocates in it (and every one that shows
// up in the paths taken after a failure), it runs with the first, second, ... allocation of that site
// failing: alone, and with everything that follows. Each time the operation either succeeds all the
// same, with the right result, or ends with an error that says so; nothing is left behind, and the next
// undisturbed run is as good as the first.
#ifndef QN_TESTS_FAULTS_FAULTS_H
#define QN_TESTS_FAULTS_FAULTS_H

#include "base/status.h"
#include "tests/faults/inject.h"

typedef enum faults_result {
    FAULTS_DONE,   // with the right result
    FAULTS_FAILED, // with an error: err says which
    FAULTS_WRONG,  // neither: err says what
} faults_result;

typedef struct faults_scenario {
    const char *name;
    const void *user; // for run
    // One operation. Allocations of this thread count unless it says otherwise (inject_count_thread);
    // the window is open while it runs.
    faults_result (*run)(const struct faults_scenario *s, qn_error *err);
    // After the window: waits until the operation's last traces are gone, and checks what must hold
    // then. NULL: nothing to do.
    bool (*settle)(const struct faults_scenario *s, qn_error *err);
    bool own_thread_exempt; // run's thread is a client, not the product
    bool lasting; // something lives on between runs: an undisturbed run follows each failure
} faults_scenario;

// Runs those that the command line names (all: none named). Options: --sample N (at most N failures
// for each scenario; sites first), --list, --verbose, --all (do not stop at a scenario's first
// finding). Returns the exit status.
int faults_main(int argc, char **argv, const faults_scenario *scenarios, size_t n);

// FAULTS_DONE if this is what the scenario's first run gave as its result number i (0 to 15).
faults_result faults_same(const faults_scenario *s, size_t i, uint64_t result, qn_error *err);

// Notes a wrong result.
faults_result faults_wrong(qn_error *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
