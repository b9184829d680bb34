// SPDX-License-Identifier: Apache-2.0
// API keys, kept as SHA-256 hashes: fixed ones and those of a file that may change. Any thread may ask.
//
// A line of the file is the key itself (printable ASCII, no space) or "sha256:" and the hash's 64
// hexadecimal digits, and after spaces any of
//   name=NAME                of A-Z a-z 0-9 . _ -, at most 64; for logs
//   scopes=infer,metrics,admin   what the key is for; infer alone unless said
//   max-concurrent=N         requests of the key at a time
//   requests-per-minute=N    N at once, and then as many in a minute as N; both: POSTs to the API
// Blank lines and lines that begin with '#' are skipped. Fixed keys are for everything, without limits.
#ifndef QN_SERVER_KEYS_H
#define QN_SERVER_KEYS_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef struct qn_keys qn_keys;
// One key and what is counted of it. It outlives reloads, with its counters, as long as the file has it
// or a request holds it.
typedef struct qn_key qn_key;

typedef enum qn_key_scope { QN_SCOPE_INFER = 1, QN_SCOPE_METRICS = 2, QN_SCOPE_ADMIN = 4 } qn_key_scope;

typedef struct qn_key_grant {
    qn_key *key; // held: qn_key_release
    int scopes;
    int32_t max_concurrent, per_minute; // 0: no limit
} qn_key_grant;

enum { QN_KEY_NAME = 65, QN_KEY_SALT = 32 };

// path NULL: no file. Errors name file and line, never a key. A file without keys is an error here,
// though not later.
qn_status qn_keys_create(const char *const *keys, size_t n, const char *path, qn_keys **out,
                         qn_error *err);
void qn_keys_destroy(qn_keys *k);
// True if requests need one: decided at creation. A file that was emptied since lets nobody in.
bool qn_keys_required(const qn_keys *k);
// Reads the file again if it has changed (or force). On errors the keys stay as they were. Keys that
// stay keep their counters.
qn_status qn_keys_reload(qn_keys *k, bool force, bool *changed, qn_error *err);
size_t qn_keys_count(qn_keys *k);
// False: there is no such key. All keys are compared, in constant time.
bool qn_keys_accept(qn_keys *k, const char *key, size_t len, qn_key_grant *out);

// Counts a request against the grant's limits. False: one of them is reached; *why (static) says which,
// *retry_after in how many seconds to come again.
bool qn_key_begin(const qn_key_grant *grant, uint64_t now_ns, const char **why, int *retry_after);
void qn_key_end(qn_key *key); // of a request that was counted
void qn_key_release(qn_key *key);

uint64_t qn_key_id(const qn_key *key); // the first eight bytes of the hash, never 0; for logs
void qn_key_name(qn_key *key, char out[QN_KEY_NAME]); // "": none
// The prefix cache's salt for a request of this key that asks for `salt` (len 0: for none): others for
// each key and each salt.
bool qn_key_salt(const qn_key *key, const char *salt, size_t len, uint8_t out[QN_KEY_SALT]);

#endif
