// SPDX-License-Identifier: Apache-2.0
// quern download: a model from the hub into the hub's own cache.
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/hub_model.h"

#include "base/checked.h"

#include <stdio.h>
#include <stdlib.h>

int qn_cli_download(int argc, char **argv) {
    const char *revision = NULL, *model = NULL;
    bool quiet = false;
    const qn_flag flags[] = {
        {"revision", 0, QN_FLAG_TEXT, &revision, "NAME", "branch, tag or commit (default: main)", 0, 0},
        {"quiet", 'q', QN_FLAG_BOOL, &quiet, NULL, "log warnings and errors only", 0, 0},
    };
    const qn_flag_set set = {
        .command = "download",
        .usage = "quern download OWNER/NAME[:CHOICE] [options]",
        .about = "Fetches a model from the Hugging Face hub into the hub's own cache, and prints where it is:\n"
                 "a GGUF file, or a directory. Of a repository with several GGUF files CHOICE names one. What\n"
                 "was cut off is resumed; every file's hash is checked. HF_TOKEN, HF_TOKEN_PATH, HF_HOME,\n"
                 "HF_HUB_CACHE, HF_ENDPOINT and HF_HUB_OFFLINE mean what they mean to the hub's own tools.",
        .examples = "  quern download Qwen/Qwen3-0.6B\n  quern download Qwen/Qwen3-0.6B-GGUF:Q8_0\n",
        .flags = flags,
        .n_flags = QN_COUNT(flags),
    };
    size_t n = 0;
    int rc = qn_flags_parse(&set, argc, argv, &model, 1, &n);
    if (rc >= 0) return rc;
    qn_hub_name name;
    if (n != 1 || !qn_hub_name_parse(model, &name)) {
        qn_cli_error(n != 1 ? "download needs a model's name" : "'%s' is not of the form owner/name", model);
        fprintf(stderr, "quern: see 'quern download --help'\n");
        return 2;
    }
    const qn_log log = qn_log_stderr(quiet ? QN_LOG_WARN : QN_LOG_INFO);
    char *path;
    qn_error err = {0};
    if (qn_cli_model_path(model, revision, QN_HUB_MODEL, &log, &path, &err) != QN_OK) {
        qn_cli_error("%s", err.message);
        return 1;
    }
    puts(path);
    free(path);
    return fflush(stdout) == 0 ? 0 : 1;
}
