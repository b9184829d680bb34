// SPDX-License-Identifier: Apache-2.0
// The subcommands: argv[0] is the subcommand's name; the result is the exit code (0 fine, 1 an error
// that was printed as one line "quern: error: ...", 2 wrong usage).
#ifndef QN_CLI_COMMANDS_H
#define QN_CLI_COMMANDS_H

int qn_cli_serve(int argc, char **argv);
int qn_cli_generate(int argc, char **argv);
int qn_cli_chat(int argc, char **argv);
int qn_cli_tokenize(int argc, char **argv);
int qn_cli_inspect(int argc, char **argv);
int qn_cli_download(int argc, char **argv);
int qn_cli_synth(int argc, char **argv);
int qn_cli_simulate(int argc, char **argv);

#endif
