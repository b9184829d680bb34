// SPDX-License-Identifier: Apache-2.0
// quern synth: a model of a real shape with random weights.
#include "cli/commands.h"
#include "cli/flags.h"

#include "base/checked.h"
#include "base/os.h"
#include "tools/synth.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// The only thing a signal handler may touch.
static volatile sig_atomic_t interrupted;

static void on_signal(int sig) {
    (void)sig;
    interrupted = 1;
}

typedef struct bar {
    bool terminal;
    int percent; // last drawn
} bar;

static bool progress(void *user, uint64_t done, uint64_t total) {
    enum { WIDTH = 40 };
    bar *b = user;
    int percent = total ? (int)((double)done * 100.0 / (double)total) : 100;
    if (b->terminal && percent != b->percent) {
        b->percent = percent;
        char cells[WIDTH + 1] = {0};
        memset(cells, ' ', WIDTH);
        memset(cells, '#', (size_t)(percent * WIDTH / 100));
        fprintf(stderr, "\r[%s] %3d%%", cells, percent);
        fflush(stderr);
    }
    return !interrupted;
}

static void end_bar(const bar *b) {
    if (b->terminal && b->percent >= 0) fprintf(stderr, "\r%60s\r", "");
}

static int run(const qn_synth_options *base) {
    bar b = {.terminal = isatty(STDERR_FILENO) == 1, .percent = -1};
    qn_synth_options options = *base;
    options.progress = progress;
    options.user = &b;
    // Ctrl-C goes through the ordinary way out, which removes the unfinished file.
    struct sigaction action = {.sa_handler = on_signal}, old_int, old_term;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, &old_int);
    sigaction(SIGTERM, &action, &old_term);
    qn_error err = {0};
    qn_synth_result result = {0};
    uint64_t start = qn_os_now_ns();
    qn_status st = qn_synth(&options, &result, &err);
    double seconds = (double)(qn_os_now_ns() - start) * 1e-9;
    sigaction(SIGINT, &old_int, NULL);
    sigaction(SIGTERM, &old_term, NULL);
    end_bar(&b);
    if (st != QN_OK) {
        qn_cli_error("%s", err.message);
        return 1;
    }
    fprintf(stderr, "%s: %.1f M parameters, %.1f MiB in %.1f s\n", options.dst,
            (double)result.parameters / 1e6, (double)result.bytes / 0x1p20, seconds);
    return 0;
}

static int usage_error(void) {
    fprintf(stderr, "quern: see 'quern synth --help'\n");
    return 2;
}

int qn_cli_synth(int argc, char **argv) {
    const char *type = "q8_0", *tokenizer = NULL;
    int64_t seed = 1;
    bool force = false, pure = false;
    const qn_flag flags[] = {
        {"type", 0, QN_FLAG_TEXT, &type, "TYPE", "types of the matrices, by llama.cpp's name", 0, 0},
        {"pure", 0, QN_FLAG_BOOL, &pure, NULL, "one type for all, that which most have", 0, 0},
        {"tokenizer-from", 0, QN_FLAG_TEXT, &tokenizer, "FILE",
         "copy the tokenizer of this GGUF file", 0, 0},
        {"seed", 0, QN_FLAG_INT, &seed, "N", "the same seed gives the same file", 0, 0x1p62},
        {"force", 'f', QN_FLAG_BOOL, &force, NULL, "overwrite DST", 0, 0},
    };
    const qn_flag_set set = {
        .command = "synth",
        .usage = "quern synth SHAPE DST [options]",
        .about =
            "Writes a GGUF file in the shape of a real model with random weights: right sizes\n"
            "for benchmarks, no sense in its words. SHAPE is qwen3-0.6b, qwen3-4b, llama-3.2-1b,\n"
            "llama-3.1-8b, or the config.json of a llama, mistral, qwen2 or qwen3 model. TYPE is one\n"
            "of F32 F16 BF16 Q8_0 Q6_K Q5_K_M Q5_K_S Q5_1 Q5_0 Q4_K_M Q4_K_S Q4_1 Q4_0 IQ4_NL IQ4_XS\n"
            "MXFP4 Q3_K_L Q3_K_M Q3_K_S IQ3_M IQ3_S IQ3_XS IQ3_XXS Q2_K Q2_K_S IQ2_M IQ2_S IQ2_XS\n"
            "IQ2_XXS TQ2_0 TQ1_0 IQ1_M IQ1_S; most give some matrices more bits. The vocabulary is\n"
            "synthetic too, with real special tokens and a ChatML template, unless --tokenizer-from\n"
            "names another.",
        .examples = "  quern synth qwen3-0.6b model.gguf\n"
                    "  quern synth path/to/config.json model.gguf --type q4_k_m --force\n",
        .flags = flags,
        .n_flags = QN_COUNT(flags),
    };
    const char *positional[2] = {NULL, NULL};
    size_t n = 0;
    int rc = qn_flags_parse(&set, argc, argv, positional, 2, &n);
    if (rc >= 0) return rc;
    if (n != 2) {
        qn_cli_error("synth needs a shape and a destination");
        return usage_error();
    }
    const qn_mix *mix = qn_mix_by_name(type);
    if (!mix) {
        qn_cli_error("--type: '%s' is not a type or mix that synth knows", type);
        return usage_error();
    }
    // DST is renamed into place: a device or pipe there would be lost.
    bool is_file = qn_os_is_file(positional[1]);
    if (is_file ? !force : qn_os_exists(positional[1], NULL)) {
        qn_cli_error(is_file ? "%s: exists already (--force overwrites it)" : "%s: not a regular file",
                     positional[1]);
        return 1;
    }
    const qn_synth_options options = {.shape = positional[0],
                                      .dst = positional[1],
                                      .mix = mix,
                                      .pure = pure,
                                      .tokenizer_from = tokenizer,
                                      .seed = (uint64_t)seed};
    return run(&options);
}
