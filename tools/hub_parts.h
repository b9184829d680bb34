// SPDX-License-Identifier: Apache-2.0
// What the files of the hub share; only they include it.
#ifndef QN_TOOLS_HUB_PARTS_H
#define QN_TOOLS_HUB_PARTS_H

#include "base/buf.h"
#include "tools/hub.h"

#include <curl/curl.h>

enum {
    QN_HUB_HASH_MAX = 64,      // hex digits of a SHA-256
    QN_HUB_MAX_FILES = 100000, // of a repository
    QN_HUB_MAX_PATH = 1024,
    QN_HUB_MAX_JSON = 32 << 20, // bytes of an answer or an index
};
#define QN_HUB_MAX_SIZE ((uint64_t)1 << 42) // bytes of a file

// A file of a repository, as the hub or the cache lists it.
typedef struct qn_hub_file {
    char *path;                     // checked by qn_hub_path_ok
    uint64_t size;
    char hash[QN_HUB_HASH_MAX + 1]; // 64 digits: SHA-256; 40: git's blob id; "" in a listing of the cache
} qn_hub_file;

typedef struct qn_hub_listing {
    char commit[41];
    qn_hub_file *files;
    size_t n, cap;
} qn_hub_listing;

// True for a relative path that stays below its folder and can be printed.
bool qn_hub_path_ok(qn_str path);
// True for n lower-case hex digits.
bool qn_hub_is_hex(qn_str text, size_t n);
bool qn_hub_revision_ok(const char *revision);
// Adds a file; false: out of memory.
bool qn_hub_listing_add(qn_hub_listing *l, qn_str path, uint64_t size, const char *hash);
const qn_hub_file *qn_hub_listing_find(const qn_hub_listing *l, const char *path);
void qn_hub_listing_free(qn_hub_listing *l);

// Reads the hub's answer about a revision:
// {"sha": commit, "siblings": [{"rfilename", "size", "blobId", "lfs": {"sha256", "size"}}]}
qn_status qn_hub_read_listing(const char *text, size_t len, qn_hub_listing *out, qn_error *err);

// What of a listing makes the model.
typedef struct qn_hub_pick {
    const qn_hub_file **files; // small ones first
    size_t n, cap;
    const qn_hub_file *gguf;  // the one GGUF file; NULL: a directory
    const qn_hub_file *index; // the index that names the shards, which are not in `files` yet
} qn_hub_pick;

qn_status qn_hub_choose(const qn_hub_name *name, qn_hub_want want, const qn_hub_listing *l,
                        qn_hub_pick *out, qn_error *err);
// Adds the shards that the text of the index names.
qn_status qn_hub_add_shards(const qn_hub_listing *l, const char *text, size_t len, qn_hub_pick *pick,
                            qn_error *err);
void qn_hub_pick_free(qn_hub_pick *pick);

// The endpoint and how to speak to it.
typedef struct qn_hub_client {
    char *endpoint;  // without a slash at its end
    char *authority; // "https://host:port", with the scheme's default port written out
    const char *token, *ca_file; // NULL: none
    bool insecure;   // the endpoint is http://
    const qn_log *log;
} qn_hub_client;

qn_status qn_hub_client_open(qn_hub_client *c, const qn_hub_options *o, qn_error *err);
void qn_hub_client_close(qn_hub_client *c);
// Appends text with all but unreserved characters percent-encoded; keep_slash: and '/'.
bool qn_hub_escape(qn_buf *out, const char *text, bool keep_slash);

// The fields of an answer's head that matter here.
typedef struct qn_hub_head {
    char error_code[40], location[4096], linked_hash[QN_HUB_HASH_MAX + 1];
    uint64_t linked_size, range_start, range_total; // UINT64_MAX: not there
    double retry_after;                             // seconds; negative: not there
} qn_hub_head;

void qn_hub_head_clear(qn_hub_head *h);
// Takes one line of an answer's head; a status line forgets those before it.
void qn_hub_head_line(qn_hub_head *h, qn_str line);

// Gets an easy handle ready for a GET of url: limits, time-outs, TLS, and the token where url is the
// endpoint's. *fields is to be freed with the handle's end. head is filled as the answer comes.
qn_status qn_hub_prepare(const qn_hub_client *c, CURL *easy, const char *url, const char *range,
                         qn_hub_head *head, struct curl_slist **fields, qn_error *err);
// Resolves an answer's redirect: *next (malloc'ed) is where to go. Refuses what leaves http(s), and
// https to http.
qn_status qn_hub_redirect(const qn_hub_client *c, const char *url, const char *location, char **next,
                          qn_error *err);
// What an HTTP status means, in words.
qn_status qn_hub_status_error(const qn_hub_client *c, const char *repo, const char *what, long status,
                              const qn_hub_head *head, qn_error *err);
// True for what another try may mend.
bool qn_hub_can_retry(long status);
bool qn_hub_curl_can_retry(CURLcode code);
// Seconds before try number `tries` (from 1), after an answer that asked for retry_after (negative:
// did not). Negative: longer than anyone waits.
double qn_hub_backoff(int tries, double retry_after);
void qn_hub_sleep(double seconds);
// A small answer, whole, with retries: `patience` tries where nothing answers at all. *unreachable says
// that no answer came, or that the server is out of order or has no time for us.
qn_status qn_hub_get(const qn_hub_client *c, const char *repo, const char *url, int patience, qn_buf *body,
                     bool *unreachable, qn_error *err);

// The cache of one repository.
typedef struct qn_hub_cache {
    char *root, *repo, *locks; // HF_HUB_CACHE, models--owner--name in it, and its folder in .locks
} qn_hub_cache;

qn_status qn_hub_cache_open(qn_hub_cache *c, const char *root, const char *repo, qn_error *err);
void qn_hub_cache_close(qn_hub_cache *c);
// Makes the folders that a download needs.
qn_status qn_hub_cache_make(const qn_hub_cache *c, qn_error *err);
// The commit that the cache knows for a revision. QN_ERR_NOT_FOUND.
qn_status qn_hub_cache_ref(const qn_hub_cache *c, const char *revision, char commit[41], qn_error *err);
qn_status qn_hub_cache_set_ref(const qn_hub_cache *c, const char *revision, const char *commit,
                               qn_error *err);
// Lists the files of a snapshot. QN_ERR_NOT_FOUND.
qn_status qn_hub_cache_list(const qn_hub_cache *c, const char *commit, qn_hub_listing *out, qn_error *err);
// "ROOT/models--o--n/blobs/HASH" + suffix, and "…/snapshots/COMMIT/PATH"; NULL: out of memory.
char *qn_hub_cache_blob(const qn_hub_cache *c, const char *hash, const char *suffix);
char *qn_hub_cache_snapshot(const qn_hub_cache *c, const char *commit, const char *path);
// Puts the blob into the snapshot under its path.
qn_status qn_hub_cache_link(const qn_hub_cache *c, const char *commit, const qn_hub_file *file,
                            qn_error *err);
// Waits for the lock of a blob; *fd is to be closed.
qn_status qn_hub_cache_lock(const qn_hub_cache *c, const char *hash, const qn_log *log, int *fd,
                            qn_error *err);
// Makes the folders above the file at path.
qn_status qn_hub_make_parents(const char *path, qn_error *err);
// Creates the file at path, or opens it; not through a link. -1: errno.
int qn_hub_open_file(const char *path);
// Size of a file, through links; false: there is none.
bool qn_hub_file_size(const char *path, uint64_t *size);
// Bytes that the file takes on the disk, less than its size where it has holes; 0: there is none.
uint64_t qn_hub_disk_bytes(const char *path);
// QN_ERR_IO where the file system of path has less than `need` bytes left.
qn_status qn_hub_check_space(const char *path, uint64_t need, qn_error *err);

// One file into the cache's blobs, its lock held.
typedef struct qn_hub_job {
    const qn_hub_client *client;
    const qn_hub_cache *cache;
    const char *repo, *commit;
    const qn_hub_file *file;
    int connections;
    void (*progress)(void *user, const char *file, uint64_t done);
    void *user;
} qn_hub_job;
// *unreachable says that no answer came.
qn_status qn_hub_download(const qn_hub_job *job, bool *unreachable, qn_error *err);

#endif
