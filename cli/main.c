// SPDX-License-Identifier: Apache-2.0
// quern: the composition root. Each subcommand is a thin file beside this one.
#include "cli/commands.h"
#include "cli/flags.h"

#include "base/checked.h"

#include <signal.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *about;
} commands[] = {
    {"serve", qn_cli_serve, "serve a model over HTTP (OpenAI API)"},
    {"generate", qn_cli_generate, "complete a prompt in the terminal"},
    {"chat", qn_cli_chat, "talk to a model, or to a server with --url"},
    {"tokenize", qn_cli_tokenize, "text to token ids and back"},
    {"inspect", qn_cli_inspect, "show a model file: metadata, tensors, op program"},
    {"download", qn_cli_download, "fetch a model from the Hugging Face hub"},
    {"synth", qn_cli_synth, "write a model of a real shape with random weights"},
    {"simulate", qn_cli_simulate, "the scheduler under made-up traffic: check it, plan capacity"},
};

static void help(FILE *out) {
    fprintf(out, "quern %s: a batched LLM inference server\n\nusage: quern COMMAND ...\n\ncommands:\n",
            QN_VERSION);
    for (size_t i = 0; i < QN_COUNT(commands); i++) {
        fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].about);
    }
    fprintf(out, "\n'quern COMMAND --help' lists a command's options; 'quern --version' the version.\n");
}

int main(int argc, char **argv) {
    // A reader that went away is an error of write(), not the end of the process.
    signal(SIGPIPE, SIG_IGN);
    const char *name = argc > 1 ? argv[1] : "--help";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        help(stdout);
        return argc > 1 ? 0 : 2;
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "version") == 0) {
        printf("quern %s\n", QN_VERSION);
        return 0;
    }
    for (size_t i = 0; i < QN_COUNT(commands); i++) {
        if (strcmp(name, commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    }
    qn_cli_error("unknown command '%s'; see 'quern --help'", name);
    return 2;
}
