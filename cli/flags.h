// SPDX-License-Identifier: Apache-2.0
// Command-line flags from a table, and the same flags from a configuration file and the environment.
// Precedence: command line, then QUERN_<NAME> in the environment, then --config FILE.
#ifndef QN_CLI_FLAGS_H
#define QN_CLI_FLAGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum qn_flag_kind {
    QN_FLAG_BOOL,  // bool: --name sets it, --no-name clears it
    QN_FLAG_INT,   // int64_t; sizes allowed: 8k, 4Ki, 2M, 4GiB
    QN_FLAG_FLOAT, // double
    QN_FLAG_TEXT,  // const char *
    QN_FLAG_LIST,  // qn_flag_list: may be given several times, or followed by several values
} qn_flag_kind;

enum { QN_FLAG_LIST_MAX = 16 };
typedef struct qn_flag_list {
    const char *items[QN_FLAG_LIST_MAX];
    size_t n;
} qn_flag_list;

typedef struct qn_flag {
    const char *name;  // "max-model-len"
    char letter;       // 0: none
    qn_flag_kind kind;
    void *value;       // holds the default before parsing
    const char *arg;   // "N", "FILE"; NULL for a bool
    const char *help;
    double min, max;   // of numbers; both 0: no bounds
} qn_flag;

typedef struct qn_flag_set {
    const char *command;  // "serve"
    const char *usage;    // "quern serve MODEL [options]"
    const char *about;    // a sentence or two
    const char *examples; // may be NULL
    const qn_flag *flags;
    size_t n_flags;
    bool environment;     // QUERN_... and --config are honoured
    char **config_text;   // with environment: gets the file's text, which flags point into; free() it
} qn_flag_set;

// Parses argv[1..]. Positional arguments go to positional[0..*n_positional). Returns -1 to go on, else
// the exit code: 0 after --help, 2 after wrong usage (one line on stderr was printed).
int qn_flags_parse(const qn_flag_set *set, int argc, char **argv, const char **positional,
                   size_t max_positional, size_t *n_positional);
void qn_flags_help(const qn_flag_set *set, FILE *out);
// "8k" -> 8192 (k, m, g and Ki, Mi, Gi, KiB, ... are powers of 1024). False: not a size.
bool qn_parse_size(const char *text, int64_t *out);

// "quern: error: ..." as one line with control characters escaped.
void qn_cli_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
