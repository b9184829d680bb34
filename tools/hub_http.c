// SPDX-License-Identifier: Apache-2.0
// Single requests to the hub: what is sent, what an answer's head says, redirects, retries, errors.
// Redirects are followed here and not by libcurl: each step is checked, and the token is decided anew.
#include "base/checked.h"
#include "base/os.h"
#include "tools/hub_parts.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { MAX_HOPS = 5, MAX_TRIES = 5, MAX_WAIT_SECONDS = 60 };

static qn_status nomem(qn_error *err) { return qn_fail(err, QN_ERR_NOMEM, "out of memory"); }

// "https://host:443" of a URL, in lower case; NULL when it is not one that may be asked.
static char *authority_of(const char *url, bool *insecure) {
    CURLU *u = curl_url();
    char *scheme = NULL, *host = NULL, *port = NULL, *user = NULL, *result = NULL;
    if (u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_USER, &user, 0) == CURLUE_NO_USER &&
        (strcasecmp(scheme, "https") == 0 || strcasecmp(scheme, "http") == 0)) {
        qn_buf b = {0};
        *insecure = strcasecmp(scheme, "http") == 0;
        qn_buf_printf(&b, "%s://%s:%s", *insecure ? "http" : "https", host, port);
        if (b.failed) {
            qn_buf_free(&b);
        } else {
            for (char *p = b.data; *p; p++) *p = *p >= 'A' && *p <= 'Z' ? (char)(*p + 32) : *p;
            result = b.data;
        }
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(port);
    curl_free(user);
    curl_url_cleanup(u);
    return result;
}

qn_status qn_hub_client_open(qn_hub_client *c, const qn_hub_options *o, qn_error *err) {
    *c = (qn_hub_client){.log = o->log, .ca_file = o->ca_file && o->ca_file[0] ? o->ca_file : NULL};
    const char *endpoint = o->endpoint && o->endpoint[0] ? o->endpoint : "https://huggingface.co";
    size_t n = strlen(endpoint);
    while (n && endpoint[n - 1] == '/') n--;
    if (n > 1000 || strpbrk(endpoint, "?#")) {
        return qn_fail(err, QN_ERR_INVALID, "HF_ENDPOINT is not a URL of the form https://host");
    }
    c->endpoint = strndup(endpoint, n);
    if (!c->endpoint) return nomem(err);
    c->authority = authority_of(c->endpoint, &c->insecure);
    if (!c->authority) {
        qn_hub_client_close(c);
        return qn_fail(err, QN_ERR_INVALID, "HF_ENDPOINT is not a URL of the form https://host");
    }
    if (o->token && o->token[0]) {
        size_t len = strlen(o->token);
        for (size_t i = 0; i < len; i++) {
            if (o->token[i] <= ' ' || o->token[i] > '~' || len > QN_HUB_TOKEN_MAX) {
                qn_hub_client_close(c);
                return qn_fail(err, QN_ERR_INVALID, "the hub's token (HF_TOKEN) is not one word of plain ASCII");
            }
        }
        c->token = o->token;
    }
    return QN_OK;
}

void qn_hub_client_close(qn_hub_client *c) {
    free(c->endpoint);
    free(c->authority);
    *c = (qn_hub_client){0};
}

bool qn_hub_escape(qn_buf *out, const char *text, bool keep_slash) {
    for (const char *p = text; *p; p++) {
        unsigned char ch = (unsigned char)*p;
        bool plain = (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') ||
                     strchr("-_.~", ch) || (ch == '/' && keep_slash);
        if (plain) {
            qn_buf_putc(out, *p);
        } else {
            qn_buf_printf(out, "%%%02X", ch);
        }
    }
    return !out->failed;
}

static bool number(qn_str s, uint64_t *out) {
    uint64_t v = 0;
    for (size_t i = 0; i < s.len; i++) {
        if (s.data[i] < '0' || s.data[i] > '9' || !qn_mul_u64(v, 10, &v) ||
            !qn_add_u64(v, (uint64_t)(s.data[i] - '0'), &v)) {
            return false;
        }
    }
    *out = v;
    return s.len > 0;
}

static void keep(char *out, size_t size, qn_str value) {
    // A value too long is as good as none; half of one would be worse.
    size_t n = value.len < size ? value.len : 0;
    memcpy(out, value.data, n);
    out[n] = '\0';
}

static bool is_field(qn_str name, const char *wanted) {
    return name.len == strlen(wanted) && strncasecmp(name.data, wanted, name.len) == 0;
}

void qn_hub_head_clear(qn_hub_head *h) {
    *h = (qn_hub_head){.linked_size = UINT64_MAX, .range_start = UINT64_MAX, .range_total = UINT64_MAX,
                       .retry_after = -1};
}

void qn_hub_head_line(qn_hub_head *h, qn_str line) {
    while (line.len && strchr("\r\n \t", line.data[line.len - 1])) line.len--;
    if (line.len >= 5 && memcmp(line.data, "HTTP/", 5) == 0) qn_hub_head_clear(h); // 1xx came before it
    const char *colon = line.len ? memchr(line.data, ':', line.len) : NULL;
    if (!colon) return;
    qn_str name = {line.data, (size_t)(colon - line.data)};
    qn_str value = {colon + 1, line.len - name.len - 1};
    while (value.len && (*value.data == ' ' || *value.data == '\t')) value.data++, value.len--;
    uint64_t v;
    if (is_field(name, "location")) {
        keep(h->location, sizeof h->location, value);
    } else if (is_field(name, "x-error-code")) {
        keep(h->error_code, sizeof h->error_code, value);
    } else if (is_field(name, "x-linked-size")) {
        if (number(value, &v)) h->linked_size = v;
    } else if (is_field(name, "x-linked-etag")) {
        if (value.len > 2 && memcmp(value.data, "W/", 2) == 0) value.data += 2, value.len -= 2;
        if (value.len >= 2 && value.data[0] == '"') value.data++, value.len -= 2;
        keep(h->linked_hash, sizeof h->linked_hash, value);
    } else if (is_field(name, "retry-after")) {
        if (number(value, &v)) h->retry_after = (double)v;
    } else if (is_field(name, "content-range") && value.len > 6 && memcmp(value.data, "bytes ", 6) == 0) {
        const char *dash = memchr(value.data, '-', value.len), *slash = memchr(value.data, '/', value.len);
        if (dash && number((qn_str){value.data + 6, (size_t)(dash - value.data - 6)}, &v)) h->range_start = v;
        if (slash && number((qn_str){slash + 1, value.len - (size_t)(slash - value.data) - 1}, &v)) {
            h->range_total = v;
        }
    }
}

static size_t on_field(char *data, size_t unused, size_t len, void *user) {
    (void)unused;
    qn_hub_head_line(user, (qn_str){data, len});
    return len;
}

qn_status qn_hub_prepare(const qn_hub_client *c, CURL *easy, const char *url, const char *range,
                         qn_hub_head *head, struct curl_slist **fields, qn_error *err) {
    qn_hub_head_clear(head);
    curl_easy_reset(easy);
    curl_slist_free_all(*fields);
    *fields = NULL;
    bool insecure, ok = true;
    char *authority = authority_of(url, &insecure);
    if (!authority) return qn_fail(err, QN_ERR_FORMAT, "the hub names an address that is no http(s) URL");
    if (c->token && strcmp(authority, c->authority) == 0) {
        qn_buf field = {0};
        if (qn_buf_printf(&field, "Authorization: Bearer %s", c->token)) {
            *fields = curl_slist_append(NULL, field.data);
        }
        ok = *fields != NULL;
        if (field.data) explicit_bzero(field.data, field.len);
        qn_buf_free(&field);
    }
    free(authority);
    ok = ok && curl_easy_setopt(easy, CURLOPT_URL, url) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, c->insecure ? "http,https" : "https") == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_HTTPHEADER, *fields) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_USERAGENT, "quern/" QN_VERSION) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) == CURLE_OK;
    ok = ok && (!c->ca_file || curl_easy_setopt(easy, CURLOPT_CAINFO, c->ca_file) == CURLE_OK);
    // Ranges in parallel are for several connections; HTTP/2 would put them on one.
    ok = ok && curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, 10L) == CURLE_OK;
    // Less than 1 KiB/s for 20 s is a connection that is gone.
    ok = ok && curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1024L) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, 20L) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_field) == CURLE_OK;
    ok = ok && curl_easy_setopt(easy, CURLOPT_HEADERDATA, head) == CURLE_OK;
    ok = ok && (!range || curl_easy_setopt(easy, CURLOPT_RANGE, range) == CURLE_OK);
    return ok ? QN_OK : nomem(err);
}

qn_status qn_hub_redirect(const qn_hub_client *c, const char *url, const char *location, char **next,
                          qn_error *err) {
    *next = NULL;
    CURLU *u = curl_url();
    char *full = NULL;
    bool insecure = false;
    if (u && location[0] && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
        curl_url_set(u, CURLUPART_URL, location, 0) == CURLUE_OK &&
        curl_url_get(u, CURLUPART_URL, &full, 0) == CURLUE_OK) {
        *next = strdup(full);
    }
    curl_free(full);
    curl_url_cleanup(u);
    char *authority = *next ? authority_of(*next, &insecure) : NULL;
    qn_status st = QN_OK;
    if (!authority) {
        st = qn_fail(err, QN_ERR_FORMAT, "the hub redirects to what is no http(s) URL");
    } else if (insecure && !c->insecure) {
        st = qn_fail(err, QN_ERR_FORMAT, "the hub redirects from https to http, which is refused");
    }
    free(authority);
    if (st != QN_OK) {
        free(*next);
        *next = NULL;
    }
    return st;
}

qn_status qn_hub_status_error(const qn_hub_client *c, const char *repo, const char *what, long status,
                              const qn_hub_head *head, qn_error *err) {
    const char *code = head->error_code;
    if (strcmp(code, "GatedRepo") == 0) {
        return qn_fail(err, QN_ERR_NOT_FOUND,
                       c->token ? "%s is gated and the token's account has no access: accept its terms at %s/%s"
                                : "%s is gated: accept its terms at %s/%s, then set HF_TOKEN to a token of "
                                  "that account",
                       repo, c->endpoint, repo);
    }
    if (strcmp(code, "RevisionNotFound") == 0 || strcmp(code, "EntryNotFound") == 0) {
        return qn_fail(err, QN_ERR_NOT_FOUND, "%s has no %s (HTTP %ld)", repo, what, status);
    }
    switch (status) {
    case 401:
    case 404:
        return qn_fail(err, QN_ERR_NOT_FOUND,
                       c->token ? "%s: the hub knows no such model, or does not show it to this token (HTTP "
                                  "%ld): check the name and HF_TOKEN"
                                : "%s: the hub knows no such model, or it is private or gated (HTTP %ld): "
                                  "check the name, or set HF_TOKEN",
                       repo, status);
    case 403:
        return qn_fail(err, QN_ERR_NOT_FOUND,
                       c->token ? "%s: the hub refuses this token (HTTP 403): it needs read access, and a "
                                  "gated model's terms accepted at %s/%s"
                                : "%s: the hub refuses access (HTTP 403): accept its terms at %s/%s and set "
                                  "HF_TOKEN",
                       repo, c->endpoint, repo);
    case 429:
        if (head->retry_after > 0) {
            return qn_fail(err, QN_ERR_BUSY, "%s: the hub limits requests (HTTP 429): try again in %.0f s%s",
                           repo, head->retry_after, c->token ? "" : ", or set HF_TOKEN");
        }
        return qn_fail(err, QN_ERR_BUSY, "%s: the hub limits requests (HTTP 429): try again later%s", repo,
                       c->token ? "" : ", or set HF_TOKEN");
    default: return qn_fail(err, QN_ERR_IO, "%s: the hub answered HTTP %ld for %s", repo, status, what);
    }
}

bool qn_hub_can_retry(long status) { return status == 408 || status == 429 || status >= 500; }

bool qn_hub_curl_can_retry(CURLcode code) {
    switch (code) {
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_COULDNT_CONNECT:
    case CURLE_PARTIAL_FILE:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_SSL_CONNECT_ERROR: return true;
    default: return false;
    }
}

double qn_hub_backoff(int tries, double retry_after) {
    double wait = 0.25 * (double)(1 << QN_MIN(QN_MAX(tries - 1, 0), 5));
    if (retry_after > MAX_WAIT_SECONDS) return -1;
    return QN_MAX(wait, retry_after);
}

void qn_hub_sleep(double seconds) {
    struct timespec left = {.tv_sec = (time_t)seconds,
                            .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

static size_t on_body(char *data, size_t unused, size_t len, void *user) {
    (void)unused;
    return qn_buf_append(user, data, len) ? len : 0;
}

// One answer, redirects followed. *status 0: none came, with a libcurl error in *code.
static qn_status ask(const qn_hub_client *c, CURL *easy, const char *url, qn_buf *body, qn_hub_head *head,
                     long *status, CURLcode *code, qn_error *err) {
    struct curl_slist *fields = NULL;
    char *next = NULL;
    qn_status st = QN_OK;
    for (int hop = 0; st == QN_OK; hop++) {
        qn_buf_clear(body);
        *status = 0;
        if ((st = qn_hub_prepare(c, easy, url, NULL, head, &fields, err)) != QN_OK) break;
        curl_easy_setopt(easy, CURLOPT_TIMEOUT, 120L);
        curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
        curl_easy_setopt(easy, CURLOPT_WRITEDATA, body);
        *code = curl_easy_perform(easy);
        if (body->failed) {
            st = qn_fail(err, QN_ERR_LIMIT, "the hub's answer has more than %d bytes", QN_HUB_MAX_JSON);
        }
        if (*code != CURLE_OK) break;
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, status);
        if (*status < 300 || *status >= 400) break;
        char *from = next;
        if (hop >= MAX_HOPS) {
            st = qn_fail(err, QN_ERR_FORMAT, "the hub redirects more than %d times", MAX_HOPS);
        } else {
            st = qn_hub_redirect(c, url, head->location, &next, err);
            url = next;
            free(from);
        }
    }
    curl_slist_free_all(fields);
    free(next);
    return st;
}

qn_status qn_hub_get(const qn_hub_client *c, const char *repo, const char *url, int patience, qn_buf *body,
                     bool *unreachable, qn_error *err) {
    CURL *easy = curl_easy_init();
    if (!easy) return nomem(err);
    body->limit = QN_HUB_MAX_JSON;
    *unreachable = false;
    qn_status st = QN_OK;
    for (int tries = 1; st == QN_OK; tries++) {
        qn_hub_head head;
        long status = 0;
        CURLcode code = CURLE_OK;
        st = ask(c, easy, url, body, &head, &status, &code, err);
        if (st != QN_OK || (code == CURLE_OK && status >= 200 && status < 300)) break;
        double wait = qn_hub_backoff(tries, head.retry_after);
        bool connected = code == CURLE_OK || code == CURLE_RECV_ERROR || code == CURLE_GOT_NOTHING ||
                         code == CURLE_PARTIAL_FILE;
        bool again = (code == CURLE_OK ? qn_hub_can_retry(status) : qn_hub_curl_can_retry(code)) &&
                     tries < (connected ? MAX_TRIES : patience) && wait >= 0;
        if (again) {
            qn_hub_sleep(wait);
        } else if (code == CURLE_OK) {
            *unreachable = status >= 500 || status == 429;
            st = qn_hub_status_error(c, repo, "such revision", status, &head, err);
        } else {
            *unreachable = true;
            st = qn_fail(err, QN_ERR_IO, "cannot reach %s: %s", c->endpoint, curl_easy_strerror(code));
        }
    }
    curl_easy_cleanup(easy);
    return st;
}
