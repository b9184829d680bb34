// SPDX-License-Identifier: Apache-2.0
// What a command's MODEL means: a path, or a name on the Hugging Face hub. The hub's own environment
// variables are read here (docs/hub.md lists them).
#ifndef QN_CLI_HUB_MODEL_H
#define QN_CLI_HUB_MODEL_H

#include "tools/hub.h"

// True where arg is no path that exists and has the form owner/name or owner/name:choice.
bool qn_cli_is_hub_name(const char *arg);
// *path (malloc'ed) is arg itself where it exists or is no name, else what the hub has under the name,
// fetched with a progress bar on a terminal. On error it is NULL. revision may be NULL.
qn_status qn_cli_model_path(const char *arg, const char *revision, qn_hub_want want, const qn_log *log,
                            char **path, qn_error *err);

#endif
