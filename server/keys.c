// SPDX-License-Identifier: Apache-2.0
#include "server/keys.h"

#include "base/buf.h"
#include "base/os.h"
#include "http/file_stamp.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdlib.h>

enum { MAX_FILE = 1 << 20, MAX_KEY = 512, MAX_KEYS = 10000 };

typedef struct key_set {
    uint8_t (*hashes)[SHA256_DIGEST_LENGTH];
    size_t n, cap;
} key_set;

struct qn_keys {
    key_set fixed;
    char *path;
    pthread_rwlock_t lock; // of what follows
    key_set from_file;
    qn_file_stamp stamp;
};

static qn_status add_hash(key_set *set, const uint8_t *hash, qn_error *err) {
    if (set->n == MAX_KEYS) return qn_fail(err, QN_ERR_LIMIT, "more than %d API keys", MAX_KEYS);
    if (!qn_grow(&set->hashes, &set->cap, set->n + 1, sizeof *set->hashes)) {
        return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    }
    memcpy(set->hashes[set->n++], hash, SHA256_DIGEST_LENGTH);
    return QN_OK;
}

static qn_status add_key(key_set *set, qn_str key, qn_error *err) {
    uint8_t hash[SHA256_DIGEST_LENGTH];
    if (key.len == 0) return qn_fail(err, QN_ERR_INVALID, "an empty API key");
    if (key.len > MAX_KEY) return qn_fail(err, QN_ERR_LIMIT, "an API key of over %d bytes", MAX_KEY);
    for (size_t i = 0; i < key.len; i++) {
        if (key.data[i] <= ' ' || key.data[i] > '~') {
            return qn_fail(err, QN_ERR_INVALID,
                           "an API key with a character that a header cannot carry");
        }
    }
    if (!SHA256((const unsigned char *)key.data, key.len, hash)) {
        return qn_fail(err, QN_ERR_INTERNAL, "cannot hash an API key");
    }
    return add_hash(set, hash, err);
}

static int digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static qn_status add_line(key_set *set, qn_str line, qn_error *err) {
    enum { PREFIX = 7 };
    if (line.len < PREFIX || memcmp(line.data, "sha256:", PREFIX) != 0) {
        return add_key(set, line, err);
    }
    uint8_t hash[SHA256_DIGEST_LENGTH];
    if (line.len != PREFIX + 2 * sizeof hash) {
        return qn_fail(err, QN_ERR_INVALID, "sha256: needs 64 hexadecimal digits");
    }
    for (size_t i = 0; i < sizeof hash; i++) {
        int high = digit(line.data[PREFIX + 2 * i]), low = digit(line.data[PREFIX + 2 * i + 1]);
        if (high < 0 || low < 0) {
            return qn_fail(err, QN_ERR_INVALID, "sha256: needs 64 hexadecimal digits");
        }
        hash[i] = (uint8_t)(high * 16 + low);
    }
    return add_hash(set, hash, err);
}

static qn_status read_file(const char *path, key_set *set, qn_error *err) {
    char *text;
    size_t len;
    qn_status st = qn_os_read_file(path, MAX_FILE, &text, &len, err);
    if (st != QN_OK) return st;
    size_t number = 0;
    for (size_t at = 0; st == QN_OK && at < len;) {
        const char *newline = memchr(text + at, '\n', len - at);
        size_t end = newline ? (size_t)(newline - text) : len, next = end + 1;
        while (end > at && (text[end - 1] == '\r' || text[end - 1] == ' ' || text[end - 1] == '\t')) {
            end--;
        }
        number++;
        qn_error why = {0};
        if (end > at && text[at] != '#') st = add_line(set, (qn_str){text + at, end - at}, &why);
        if (st != QN_OK) qn_fail(err, st, "%s, line %zu: %s", path, number, why.message);
        at = next;
    }
    OPENSSL_cleanse(text, len);
    free(text);
    return st;
}

qn_status qn_keys_create(const char *const *keys, size_t n, const char *path, qn_keys **out,
                         qn_error *err) {
    *out = NULL;
    qn_keys *k = calloc(1, sizeof *k);
    if (!k) return qn_fail(err, QN_ERR_NOMEM, "out of memory");
    pthread_rwlock_init(&k->lock, NULL);
    qn_status st = QN_OK;
    for (size_t i = 0; st == QN_OK && i < n; i++) st = add_key(&k->fixed, qn_str_from(keys[i]), err);
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
    free(k->fixed.hashes);
    free(k->from_file.hashes);
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
        free(fresh.hashes);
        return st;
    }
    pthread_rwlock_wrlock(&k->lock);
    key_set old = k->from_file;
    k->from_file = fresh;
    pthread_rwlock_unlock(&k->lock);
    free(old.hashes);
    *changed = true;
    return QN_OK;
}

size_t qn_keys_count(qn_keys *k) {
    pthread_rwlock_rdlock(&k->lock);
    size_t n = k->fixed.n + k->from_file.n;
    pthread_rwlock_unlock(&k->lock);
    return n;
}

static int find(const key_set *set, const uint8_t *hash) {
    int found = 0;
    for (size_t i = 0; i < set->n; i++) {
        found |= CRYPTO_memcmp(hash, set->hashes[i], SHA256_DIGEST_LENGTH) == 0;
    }
    return found;
}

bool qn_keys_accept(qn_keys *k, const char *key, size_t len, uint64_t *id) {
    uint8_t hash[SHA256_DIGEST_LENGTH];
    if (!SHA256((const unsigned char *)key, len, hash)) return false;
    pthread_rwlock_rdlock(&k->lock);
    int found = find(&k->fixed, hash) | find(&k->from_file, hash);
    pthread_rwlock_unlock(&k->lock);
    *id = 0;
    for (size_t i = 0; i < 8; i++) *id = *id << 8 | hash[i];
    if (*id == 0) *id = 1;
    return found != 0;
}
