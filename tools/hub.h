// SPDX-License-Identifier: Apache-2.0
// Models from a Hugging Face hub, kept in the cache that the hub's own tools use: found there by them
// and taken from there when they put them. Over libcurl.
//
// 1. What a hub sends is hostile: names, sizes, JSON and redirects are checked before they are used,
//    and nothing is written outside the cache folder.
// 2. A blob gets its name only when its bytes have the hash that the hub stated for it.
// 3. The token goes to the endpoint's own scheme, host and port and nowhere else; no message holds it.
#ifndef QN_TOOLS_HUB_H
#define QN_TOOLS_HUB_H

#include "base/log.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

enum { QN_HUB_NAME_MAX = 96, QN_HUB_REVISION_MAX = 200, QN_HUB_TOKEN_MAX = 1024 };

// "owner/name" or "owner/name:choice".
typedef struct qn_hub_name {
    char repo[QN_HUB_NAME_MAX + 1];   // "owner/name"
    char choice[QN_HUB_NAME_MAX + 1]; // "Q4_K_M"; "" without one
} qn_hub_name;

// False: text is not such a name. One slash, and on both sides the hub's own characters (letters,
// digits, '-', '_', '.'; no '-' or '.' at an end, no "--" and ".."). A text that ends in .gguf,
// .safetensors or .json is a file's path and no name.
bool qn_hub_name_parse(const char *text, qn_hub_name *out);

typedef enum qn_hub_want {
    QN_HUB_MODEL,     // a GGUF file, or all that a safetensors directory needs to run
    QN_HUB_TOKENIZER, // of a safetensors directory only what its tokenizer needs
} qn_hub_want;

typedef struct qn_hub_options {
    const char *endpoint;  // NULL or "": https://huggingface.co
    const char *cache_dir; // the folder that holds models--owner--name; made where it is missing
    const char *token;     // NULL or "": none
    const char *ca_file;   // certificates to trust (PEM) instead of the system's; NULL or "": those
    const char *revision;  // branch, tag or commit; NULL or "": main
    bool offline;          // only what the cache holds
    qn_hub_want want;
    int connections;       // for one large file; 0: 8
    const qn_log *log;     // may be NULL
    // May be NULL. Called often, from the calling thread; file is the name in the repository, done and
    // total bytes of all files. A file of NULL: the download is over, in success or not.
    void (*progress)(void *user, const char *file, uint64_t done, uint64_t total);
    void *user;
} qn_hub_options;

// Brings what is missing of the model into the cache. *path (malloc'ed) is the GGUF file, or the
// directory of a safetensors model. Where the hub cannot be reached but the cache holds the model,
// that is taken, with a warning. Downloads that are cut off are resumed, here and by a later call; two
// processes may fetch the same model at once.
//   QN_ERR_INVALID    revision, token or endpoint is malformed; the choice fits several files or none
//   QN_ERR_NOT_FOUND  no such repository, revision or model in it, or (offline) in the cache; or it is
//                     gated and this token has no access
//   QN_ERR_FORMAT     the hub's answer, or a file's hash, is wrong (the file is removed)
//   QN_ERR_LIMIT      the answer passes a limit; QN_ERR_BUSY: the hub limits requests
//   QN_ERR_IO         the network or the disk failed
qn_status qn_hub_fetch(const qn_hub_name *name, const qn_hub_options *options, char **path,
                       qn_error *err);

#endif
