// SPDX-License-Identifier: Apache-2.0
// SHA256_Init and its like are called old by OpenSSL 3, but nothing else hashes without an allocation,
// whose failure would refuse a good key.
#define OPENSSL_API_COMPAT 0x10101000L

#include "server/keys.h"

#include "base/buf.h"
#include "base/checked.h"
#include "base/os.h"
#include "http/file_stamp.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE = 4 << 20, MAX_KEY = 512, MAX_KEYS = 10000, ALL_SCOPES = 7 };

struct qn_key {
    uint8_t hash[SHA256_DIGEST_LENGTH];
    atomic_int refs;
    pthread_mutex_t lock; // of what follows
    char name[QN_KEY_NAME];
    int32_t running;
    double allowance; // requests that may come now; < 0: no limit yet
    uint64_t counted_ns;
};

typedef struct entry {
    qn_key *key;
    size_t line; // of the file
    int scopes;
    int32_t max_concurrent, per_minute;
    char name[QN_KEY_NAME];
} entry;

typedef struct key_set { // sorted by hash once it is whole
    entry *entries;
    size_t n, cap;
} key_set;

struct qn_keys {
    key_set fixed;
    char *path;
    pthread_rwlock_t lock; // of what follows
    key_set from_file;
    qn_file_stamp stamp;
};

static bool hash_bytes(const void *data, size_t len, uint8_t out[SHA256_DIGEST_LENGTH]) {
    SHA256_CTX c;
    bool ok = SHA256_Init(&c) == 1 && SHA256_Update(&c, data, len) == 1 && SHA256_Final(out, &c) == 1;
    OPENSSL_cleanse(&c, sizeof c);
    return ok;
}

// ---------------------------------------------------------------- one key

static qn_key *key_create(const uint8_t *hash) {
    qn_key *key = calloc(1, sizeof *key);
    if (!key) return NULL;
    if (pthread_mutex_init(&key->lock, NULL) != 0) {
        free(key);
        return NULL;
    }
    memcpy(key->hash, hash, sizeof key->hash);
    atomic_init(&key->refs, 1);
    key->allowance = -1;
    return key;
}

void qn_key_release(qn_key *key) {
    if (!key || atomic_fetch_sub(&key->refs, 1) != 1) return;
    pthread_mutex_destroy(&key->lock);
    free(key);
}

uint64_t qn_key_id(const qn_key *key) {
    uint64_t id = 0;
    for (size_t i = 0; i < 8; i++) id = id << 8 | key->hash[i];
    return id ? id : 1;
}

void qn_key_name(qn_key *key, char out[QN_KEY_NAME]) {
    pthread_mutex_lock(&key->lock);
    memcpy(out, key->name, QN_KEY_NAME);
    pthread_mutex_unlock(&key->lock);
}

bool qn_key_salt(const qn_key *key, const char *salt, size_t len, uint8_t out[QN_KEY_SALT]) {
    // The hash has a fixed length, so no two pairs give the same text.
    uint8_t text[SHA256_DIGEST_LENGTH + 256];
    if (len > sizeof text - sizeof key->hash) return false;
    memcpy(text, key->hash, sizeof key->hash);
    if (len) memcpy(text + sizeof key->hash, salt, len);
    return hash_bytes(text, sizeof key->hash + len, out);
}

bool qn_key_begin(const qn_key_grant *g, uint64_t now_ns, const char **why, int *retry_after) {
    qn_key *key = g->key;
    bool ok = true;
    pthread_mutex_lock(&key->lock);
    if (g->max_concurrent > 0 && key->running >= g->max_concurrent) {
        ok = false;
        *why = "this API key has as many requests running as it may";
        *retry_after = 1;
    } else if (g->per_minute > 0) {
        // A bucket of a minute's requests, which fills as time passes.
        double most = g->per_minute, rate = most / 60;
        if (key->allowance < 0) {
            key->allowance = most;
        } else if (now_ns > key->counted_ns) {
            key->allowance += rate * (double)(now_ns - key->counted_ns) * 1e-9;
        }
        key->allowance = QN_MIN(key->allowance, most);
        key->counted_ns = QN_MAX(now_ns, key->counted_ns);
        if (key->allowance >= 1) {
            key->allowance -= 1;
        } else {
            ok = false;
            *why = "this API key has made as many requests in this minute as it may";
            *retry_after = (int)((1 - key->allowance) / rate) + 1;
        }
    }
    if (ok) key->running++;
    pthread_mutex_unlock(&key->lock);
    return ok;
}

void qn_key_end(qn_key *key) {
    pthread_mutex_lock(&key->lock);
    key->running--;
    pthread_mutex_unlock(&key->lock);
}

// ---------------------------------------------------------------- sets

static void set_free(key_set *set) {
    for (size_t i = 0; i < set->n; i++) qn_key_release(set->entries[i].key);
    free(set->entries);
    *set = (key_set){0};
}

static int compare(const void *a, const void *b) {
    const entry *x = a, *y = b;
    int c = memcmp(x->key->hash, y->key->hash, sizeof x->key->hash);
    return c ? c : x->line < y->line ? -1 : x->line > y->line;
}

static qn_status add(key_set *set, const uint8_t *hash, const entry *settings, qn_error *err) {
    if (set->n == MAX_KEYS) return qn_fail(err, QN_ERR_LIMIT, "more than %d API keys", MAX_KEYS);
    if (!qn_grow(&set->entries, &set->cap, set->n + 1, sizeof *set->entries)) {
        return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    entry *e = &set->entries[set->n];
    *e = *settings;
    e->key = key_create(hash);
    if (!e->key) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    set->n++;
    return QN_OK;
}

static qn_status hash_key(qn_str key, uint8_t *hash, qn_error *err) {
    if (key.len == 0) return qn_fail(err, QN_ERR_INVALID, "an empty API key");
    if (key.len > MAX_KEY) return qn_fail(err, QN_ERR_LIMIT, "an API key of over %d bytes", MAX_KEY);
    for (size_t i = 0; i < key.len; i++) {
        if (key.data[i] <= ' ' || key.data[i] > '~') {
            return qn_fail(err, QN_ERR_INVALID,
                           "an API key with a character that a header cannot carry");
        }
    }
    if (!hash_bytes(key.data, key.len, hash)) {
        return qn_fail(err, QN_ERR_INTERNAL, "cannot hash an API key");
    }
    return QN_OK;
}

// ---------------------------------------------------------------- the file

static int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static qn_status read_hash(qn_str hex, uint8_t *hash, qn_error *err) {
    bool ok = hex.len == 2 * SHA256_DIGEST_LENGTH;
    for (size_t i = 0; ok && i < SHA256_DIGEST_LENGTH; i++) {
        int high = digit(hex.data[2 * i]), low = digit(hex.data[2 * i + 1]);
        ok = high >= 0 && low >= 0;
        if (ok) hash[i] = (uint8_t)(high * 16 + low);
    }
    return ok ? QN_OK : qn_fail(err, QN_ERR_INVALID, "sha256: needs 64 hexadecimal digits");
}

// Takes `prefix` off the front of s.
static bool skip(qn_str *s, const char *prefix) {
    size_t n = strlen(prefix);
    if (s->len < n || memcmp(s->data, prefix, n) != 0) return false;
    s->data += n;
    s->len -= n;
    return true;
}

// The text up to a character of `ends`, which is skipped; s becomes what follows.
static qn_str next_part(qn_str *s, const char *ends) {
    qn_str part = {s->data, 0};
    while (part.len < s->len && !strchr(ends, s->data[part.len])) part.len++;
    size_t used = part.len + (part.len < s->len);
    s->data += used;
    s->len -= used;
    return part;
}

static bool read_count(qn_str text, int32_t *out) {
    int32_t v = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9' || i == 8) return false;
        v = v * 10 + (text.data[i] - '0');
    }
    *out = v;
    return v > 0;
}

static bool read_scopes(qn_str text, int *out) {
    *out = 0;
    while (text.len) {
        qn_str scope = next_part(&text, ",");
        if (qn_str_is(scope, "infer")) *out |= QN_SCOPE_INFER;
        else if (qn_str_is(scope, "metrics")) *out |= QN_SCOPE_METRICS;
        else if (qn_str_is(scope, "admin")) *out |= QN_SCOPE_ADMIN;
        else return false;
    }
    return *out != 0;
}

static bool read_name(qn_str text, char out[QN_KEY_NAME]) {
    if (text.len == 0 || text.len >= QN_KEY_NAME) return false;
    for (size_t i = 0; i < text.len; i++) {
        char c = text.data[i];
        bool ok = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                  c == '.' || c == '_' || c == '-';
        if (!ok) return false;
        out[i] = c;
    }
    out[text.len] = '\0';
    return true;
}

// Nothing of the line is repeated in an error: it may be a part of a key.
static qn_status add_line(key_set *set, size_t number, qn_str line, qn_error *err) {
    uint8_t hash[SHA256_DIGEST_LENGTH];
    entry e = {.line = number, .scopes = QN_SCOPE_INFER};
    qn_str key = next_part(&line, " \t");
    qn_status st = skip(&key, "sha256:") ? read_hash(key, hash, err) : hash_key(key, hash, err);
    if (st != QN_OK) return st;
    while (line.len) {
        qn_str word = next_part(&line, " \t");
        if (word.len == 0) continue;
        if (skip(&word, "name=")) {
            if (read_name(word, e.name)) continue;
            return qn_fail(err, QN_ERR_INVALID, "name= needs 1 to 64 of A-Z a-z 0-9 . _ -");
        }
        if (skip(&word, "scopes=")) {
            if (read_scopes(word, &e.scopes)) continue;
            return qn_fail(err, QN_ERR_INVALID, "scopes= needs some of infer,metrics,admin");
        }
        bool rate = skip(&word, "requests-per-minute=");
        if (rate || skip(&word, "max-concurrent=")) {
            if (read_count(word, rate ? &e.per_minute : &e.max_concurrent)) continue;
            return qn_fail(err, QN_ERR_INVALID, "a limit must be 1 to 99999999");
        }
        return qn_fail(err, QN_ERR_INVALID, "a word after the key is none of name=, scopes=, "
                       "max-concurrent=, requests-per-minute=");
    }
    return add(set, hash, &e, err);
}

static qn_status read_file(const char *path, key_set *set, qn_error *err) {
    char *text;
    size_t len;
    qn_status st = qn_os_read_file(path, MAX_FILE, &text, &len, err);
    if (st != QN_OK) return st;
    qn_str rest = {text, len};
    for (size_t number = 1; st == QN_OK && rest.len; number++) {
        qn_str line = {rest.data, 0};
        const char *newline = memchr(rest.data, '\n', rest.len);
        line.len = newline ? (size_t)(newline - rest.data) : rest.len;
        size_t used = line.len + (newline != NULL);
        rest = (qn_str){rest.data + used, rest.len - used};
        while (line.len && strchr("\r \t", line.data[line.len - 1]) && line.data[line.len - 1]) {
            line.len--;
        }
        qn_error why = {0};
        if (line.len && line.data[0] != '#') st = add_line(set, number, line, &why);
        if (st != QN_OK) qn_fail(err, st, "%s, line %zu: %s", path, number, why.message);
    }
    OPENSSL_cleanse(text, len);
    free(text);
    if (st != QN_OK) return st;
    if (set->n) qsort(set->entries, set->n, sizeof *set->entries, compare);
    for (size_t i = 1; i < set->n; i++) {
        const entry *a = &set->entries[i - 1], *b = &set->entries[i];
        if (memcmp(a->key->hash, b->key->hash, sizeof a->key->hash) == 0) {
            return qn_fail(err, QN_ERR_INVALID, "%s, line %zu: the key of line %zu again", path,
                           b->line, a->line);
        }
    }
    return QN_OK;
}

// Keys that were there before are the same ones, with all that was counted.
static void keep_known(key_set *fresh, const key_set *old) {
    for (size_t i = 0, j = 0; i < fresh->n; i++) {
        entry *e = &fresh->entries[i];
        int c = 1;
        while (j < old->n &&
               (c = memcmp(old->entries[j].key->hash, e->key->hash, sizeof e->key->hash)) < 0) {
            j++;
        }
        if (j < old->n && c == 0) {
            qn_key_release(e->key);
            e->key = old->entries[j].key;
            atomic_fetch_add(&e->key->refs, 1);
        }
        pthread_mutex_lock(&e->key->lock);
        memcpy(e->key->name, e->name, sizeof e->name);
        pthread_mutex_unlock(&e->key->lock);
    }
}

// ---------------------------------------------------------------- all of them

qn_status qn_keys_create(const char *const *keys, size_t n, const char *path, qn_keys **out,
                         qn_error *err) {
    *out = NULL;
    qn_keys *k = calloc(1, sizeof *k);
    if (!k) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    pthread_rwlock_init(&k->lock, NULL);
    qn_status st = QN_OK;
    for (size_t i = 0; st == QN_OK && i < n; i++) {
        uint8_t hash[SHA256_DIGEST_LENGTH];
        st = hash_key(qn_str_from(keys[i]), hash, err);
        if (st == QN_OK) st = add(&k->fixed, hash, &(entry){.scopes = ALL_SCOPES}, err);
    }
    if (st == QN_OK && path) {
        k->path = strdup(path);
        bool changed;
        st = k->path ? qn_keys_reload(k, true, &changed, err)
                     : qn_fail(err, QN_ERR_NOMEM, "out of memory");
        if (st == QN_OK && k->from_file.n == 0) {
            st = qn_fail(err, QN_ERR_INVALID, "%s has no API keys", path);
        }
    }
    if (st != QN_OK) {
        qn_keys_destroy(k);
        return st;
    }
    *out = k;
    return QN_OK;
}

void qn_keys_destroy(qn_keys *k) {
    if (!k) return;
    set_free(&k->fixed);
    set_free(&k->from_file);
    free(k->path);
    pthread_rwlock_destroy(&k->lock);
    free(k);
}

bool qn_keys_required(const qn_keys *k) { return k->fixed.n > 0 || k->path; }

// Only one thread reloads, so the stamp needs no lock.
qn_status qn_keys_reload(qn_keys *k, bool force, bool *changed, qn_error *err) {
    *changed = false;
    qn_file_stamp stamp;
    if (!k->path) return QN_OK;
    if (!qn_file_stamp_of(k->path, &stamp)) {
        return qn_fail(err, QN_ERR_IO, "%s: %s", k->path, strerror(errno));
    }
    if (!force && qn_file_stamp_equal(&stamp, &k->stamp)) return QN_OK;
    k->stamp = stamp; // also if it is bad: one complaint for each version
    key_set fresh = {0};
    qn_status st = read_file(k->path, &fresh, err);
    if (st != QN_OK) {
        set_free(&fresh);
        return st;
    }
    keep_known(&fresh, &k->from_file); // which nobody else changes
    pthread_rwlock_wrlock(&k->lock);
    key_set old = k->from_file;
    k->from_file = fresh;
    pthread_rwlock_unlock(&k->lock);
    set_free(&old);
    *changed = true;
    return QN_OK;
}

size_t qn_keys_count(qn_keys *k) {
    pthread_rwlock_rdlock(&k->lock);
    size_t n = k->fixed.n + k->from_file.n;
    pthread_rwlock_unlock(&k->lock);
    return n;
}

static const entry *find(const key_set *set, const uint8_t *hash) {
    const entry *found = NULL;
    for (size_t i = 0; i < set->n; i++) {
        const entry *e = &set->entries[i];
        if (CRYPTO_memcmp(hash, e->key->hash, SHA256_DIGEST_LENGTH) == 0) found = e;
    }
    return found;
}

bool qn_keys_accept(qn_keys *k, const char *key, size_t len, qn_key_grant *out) {
    uint8_t hash[SHA256_DIGEST_LENGTH];
    *out = (qn_key_grant){0};
    if (!hash_bytes(key, len, hash)) return false;
    pthread_rwlock_rdlock(&k->lock);
    const entry *in_file = find(&k->from_file, hash), *e = find(&k->fixed, hash);
    if (!e) e = in_file;
    if (e) {
        *out = (qn_key_grant){e->key, e->scopes, e->max_concurrent, e->per_minute};
        atomic_fetch_add(&e->key->refs, 1);
    }
    pthread_rwlock_unlock(&k->lock);
    return e != NULL;
}
