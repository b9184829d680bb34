// SPDX-License-Identifier: Apache-2.0
// API keys, kept as SHA-256 hashes: fixed ones and those of a file that may change. Any thread may ask.
#ifndef QN_SERVER_KEYS_H
#define QN_SERVER_KEYS_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct qn_keys qn_keys;

// path NULL: no file. The file has a line for each key: the key itself (printable ASCII, no space), or
// "sha256:" and the hash's 64 hexadecimal digits. Blank lines and lines that begin with '#' are skipped.
// Errors name file and line, never a key. A file without keys is an error here, though not later.
qn_status qn_keys_create(const char *const *keys, size_t n, const char *path, qn_keys **out,
                         qn_error *err);
void qn_keys_destroy(qn_keys *k);
// True if requests need one: decided at creation. A file that was emptied since lets nobody in.
bool qn_keys_required(const qn_keys *k);
// Reads the file again if it has changed (or force). On errors the keys stay as they were.
qn_status qn_keys_reload(qn_keys *k, bool force, bool *changed, qn_error *err);
size_t qn_keys_count(qn_keys *k);
// *id: the first eight bytes of the key's hash, never 0, for logs. All keys are compared, in constant
// time.
bool qn_keys_accept(qn_keys *k, const char *key, size_t len, uint64_t *id);

#endif
