// SPDX-License-Identifier: Apache-2.0
// Invariants:
// 1. The events do not depend on how the bytes are split: every decision is taken at a byte, never at
//    the end of what happens to be there. Only BODY pieces follow the input's pieces.
// 2. Every byte is looked at a bounded number of times; the head buffer never passes QN_HTTP_MAX_HEAD.
// 3. Views of the head point into head.data, which does not move after HEAD was given.
// 4. A message has exactly one length: one Content-Length, or one "Transfer-Encoding: chunked", or
//    none (a request then has no body, a response lasts until the close).
#include "http/codec.h"

#include "base/checked.h"
#include "base/utf8.h"

#include <stdlib.h>

typedef enum parse_state {
    S_HEAD,
    S_BODY_LENGTH,
    S_BODY_CLOSE,
    S_CHUNK_SIZE,
    S_CHUNK_SIZE_LF,
    S_CHUNK_DATA,
    S_CHUNK_DATA_CR,
    S_CHUNK_DATA_LF,
    S_TRAILER,
    S_DONE,
    S_BAD,
} parse_state;

enum { MAX_TRAILER = 8 * 1024, MAX_TRAILER_LINES = 32, MAX_CHUNK_DIGITS = 16 };

struct qn_http_parser {
    bool request;
    bool no_body;  // the response answers HEAD
    bool blank;    // a blank line came before the message
    uint64_t max_body;
    parse_state state;
    qn_buf head; // the header block as received; then the decoded path behind it
    size_t line; // where the line being read begins
    size_t lines;
    uint64_t left;  // of the body or chunk
    uint64_t taken; // of the body so far
    char name[32];  // of the trailer field being read, as far as it fits
    size_t name_len;
    int digits;
    qn_http_head parsed;
    qn_http_field fields[QN_HTTP_MAX_LINES];
    qn_str body;
    int status;
    const char *reason;
};

qn_http_parser *qn_http_parser_create(bool request, uint64_t max_body) {
    qn_http_parser *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->request = request;
    p->max_body = max_body;
    qn_http_parser_reset(p);
    return p;
}

void qn_http_parser_destroy(qn_http_parser *p) {
    if (!p) return;
    qn_buf_free(&p->head);
    free(p);
}

void qn_http_parser_reset(qn_http_parser *p) {
    if (p->state == S_BAD) return;
    // A large head of one request is not kept for the life of an idle connection.
    if (p->head.cap > 4096) {
        qn_buf_free(&p->head);
    }
    qn_buf_clear(&p->head);
    p->no_body = false;
    p->blank = false;
    p->state = S_HEAD;
    p->line = 0;
    p->lines = 0;
    p->left = 0;
    p->taken = 0;
    p->digits = 0;
    p->body = (qn_str){0};
    p->parsed = (qn_http_head){.content_length = -1};
}

void qn_http_parser_expect_no_body(qn_http_parser *p) { p->no_body = true; }
const qn_http_head *qn_http_parser_head(const qn_http_parser *p) { return &p->parsed; }
qn_str qn_http_parser_body(const qn_http_parser *p) { return p->body; }
int qn_http_parser_status(const qn_http_parser *p) { return p->status; }
const char *qn_http_parser_reason(const qn_http_parser *p) { return p->reason; }
bool qn_http_parser_started(const qn_http_parser *p) {
    return p->state != S_HEAD || p->head.len > 0;
}

static qn_http_event bad(qn_http_parser *p, int status, const char *reason) {
    p->state = S_BAD;
    p->status = status;
    p->reason = reason;
    return QN_HTTP_BAD;
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static bool is_alpha(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

static int hex_value(char c) {
    if (is_digit(c)) return c - '0';
    c = lower(c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// tchar of RFC 9110, 5.6.2.
static bool is_token_char(char c) {
    return is_digit(c) || is_alpha(c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

bool qn_http_equal(qn_str a, const char *b) {
    size_t n = strlen(b);
    if (a.len != n) return false;
    for (size_t i = 0; i < n; i++) {
        if (lower(a.data[i]) != lower(b[i])) return false;
    }
    return true;
}

size_t qn_http_find(const qn_http_head *head, const char *name, qn_str *value) {
    size_t count = 0;
    for (size_t i = 0; i < head->n_fields; i++) {
        if (!qn_http_equal(head->fields[i].name, name)) continue;
        if (count++ == 0) *value = head->fields[i].value;
    }
    return count;
}

// Decodes the percent escapes of an absolute path into out, once, and checks that there is only one
// way to read it.
static const char *canonical_path(qn_str in, char *out, size_t *out_len) {
    size_t n = 0;
    if (in.len == 0 || in.data[0] != '/') return "the target is not an absolute path";
    for (size_t i = 0; i < in.len; i++) {
        char c = in.data[i];
        if (c == '%') {
            int hi = i + 2 < in.len ? hex_value(in.data[i + 1]) : -1;
            int lo = i + 2 < in.len ? hex_value(in.data[i + 2]) : -1;
            if (hi < 0 || lo < 0) return "malformed percent encoding in the target";
            c = (char)(hi << 4 | lo);
            i += 2;
            if (c == '/' || c == '\\') return "an encoded slash in the target";
            if ((unsigned char)c < 0x20 || c == 0x7f) return "an encoded control character";
        } else if (c == '\\') {
            return "a backslash in the target";
        }
        if (c == '/' && n > 0 && out[n - 1] == '/') return "an empty segment in the target";
        out[n++] = c;
    }
    for (size_t i = 0; i < n; i++) {
        if (out[i] != '/') continue;
        size_t end = i + 1;
        while (end < n && out[end] != '/') end++;
        size_t len = end - i - 1;
        if ((len == 1 || len == 2) && out[i + 1] == '.' && out[end - 1] == '.') {
            return "a dot segment in the target";
        }
    }
    if (!qn_utf8_valid(out, n)) return "the path is not UTF-8";
    *out_len = n;
    return NULL;
}

// uri-host [":" port] of RFC 9112, 3.2, as far as a name, IPv4 or bracketed IPv6 needs it.
static bool valid_host(qn_str h) {
    size_t i = 0;
    if (h.len && h.data[0] == '[') {
        for (i = 1; i < h.len && h.data[i] != ']'; i++) {
            char c = h.data[i];
            if (hex_value(c) < 0 && c != ':' && c != '.') return false;
        }
        if (i == h.len || i == 1) return false;
        i++;
    } else {
        for (; i < h.len && h.data[i] != ':'; i++) {
            char c = h.data[i];
            if (!is_digit(c) && !is_alpha(c) && c != '.' && c != '-' && c != '_') return false;
        }
    }
    if (i == h.len) return true;
    if (h.data[i++] != ':' || h.len - i > 5) return false;
    for (; i < h.len; i++) {
        if (!is_digit(h.data[i])) return false;
    }
    return true;
}

// The request line. The decoded path is written behind the head block (room was reserved).
static qn_http_event parse_request_line(qn_http_parser *p, qn_str line, char *path_room) {
    qn_http_head *h = &p->parsed;
    size_t a = 0;
    while (a < line.len && is_token_char(line.data[a])) a++;
    if (a == 0 || a > QN_HTTP_MAX_METHOD || a == line.len || line.data[a] != ' ') {
        return bad(p, 400, "malformed request line");
    }
    h->method = (qn_str){line.data, a};
    size_t b = a + 1;
    while (b < line.len && (unsigned char)line.data[b] > ' ' && (unsigned char)line.data[b] < 0x7f) {
        b++;
    }
    if (b == a + 1 || b == line.len || line.data[b] != ' ') {
        return bad(p, 400, "malformed request target");
    }
    h->target = (qn_str){line.data + a + 1, b - a - 1};
    qn_str version = {line.data + b + 1, line.len - b - 1};
    if (version.len != 8 || memcmp(version.data, "HTTP/", 5) != 0 || !is_digit(version.data[5]) ||
        version.data[6] != '.' || !is_digit(version.data[7])) {
        return bad(p, 400, "malformed HTTP version");
    }
    if (version.data[5] != '1' || version.data[7] > '1') {
        return bad(p, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    }
    h->minor = version.data[7] - '0';

    qn_str t = h->target;
    if (memchr(t.data, '#', t.len)) return bad(p, 400, "a fragment in the request target");
    if (qn_str_is(t, "*")) {
        if (!qn_str_is(h->method, "OPTIONS")) return bad(p, 400, "malformed request target");
        h->path = t;
        return QN_HTTP_NEED_MORE;
    }
    if (t.len > 7 && qn_http_equal((qn_str){t.data, 7}, "http://")) {
        size_t i = 7;
        while (i < t.len && t.data[i] != '/' && t.data[i] != '?') i++;
        h->host = (qn_str){t.data + 7, i - 7};
        if (h->host.len == 0 || !valid_host(h->host)) {
            return bad(p, 400, "malformed authority in the request target");
        }
        t = (qn_str){t.data + i, t.len - i};
    }
    const char *mark = memchr(t.data, '?', t.len);
    qn_str path = t;
    if (mark) {
        path.len = (size_t)(mark - t.data);
        h->query = (qn_str){mark + 1, t.len - path.len - 1};
        for (size_t i = 0; i + 2 < h->query.len; i++) {
            if (memcmp(h->query.data + i, "%00", 3) == 0) return bad(p, 400, "%00 in the target");
        }
    }
    size_t n = 0;
    const char *why = canonical_path(path, path_room, &n);
    if (why) return bad(p, 400, why);
    h->path = (qn_str){path_room, n};
    return QN_HTTP_NEED_MORE;
}

static qn_http_event parse_status_line(qn_http_parser *p, qn_str line) {
    qn_http_head *h = &p->parsed;
    if (line.len < 12 || memcmp(line.data, "HTTP/1.", 7) != 0 ||
        (line.data[7] != '0' && line.data[7] != '1') || line.data[8] != ' ') {
        return bad(p, 502, "malformed status line");
    }
    const char *d = line.data + 9;
    if (d[0] < '1' || d[0] > '9' || !is_digit(d[1]) || !is_digit(d[2]) ||
        (line.len > 12 && d[3] != ' ')) {
        return bad(p, 502, "malformed status line");
    }
    h->minor = line.data[7] - '0';
    h->status = (d[0] - '0') * 100 + (d[1] - '0') * 10 + (d[2] - '0');
    return QN_HTTP_NEED_MORE;
}

// One field line without its CRLF.
static qn_http_event parse_field(qn_http_parser *p, qn_str line, qn_http_field *f) {
    size_t i = 0;
    while (i < line.len && is_token_char(line.data[i])) i++;
    if (i == 0 || i == line.len || line.data[i] != ':') {
        return bad(p, 400, i == 0 && line.len && (line.data[0] == ' ' || line.data[0] == '\t')
                               ? "a folded header line"
                               : "malformed header field name");
    }
    f->name = (qn_str){line.data, i++};
    size_t end = line.len;
    while (i < end && (line.data[i] == ' ' || line.data[i] == '\t')) i++;
    while (end > i && (line.data[end - 1] == ' ' || line.data[end - 1] == '\t')) end--;
    f->value = (qn_str){line.data + i, end - i};
    return QN_HTTP_NEED_MORE;
}

// Tokens of a Connection field.
static void connection_tokens(qn_str v, bool *close, bool *keep) {
    for (size_t i = 0; i < v.len;) {
        size_t end = i;
        while (end < v.len && v.data[end] != ',') end++;
        size_t a = i, b = end;
        while (a < b && (v.data[a] == ' ' || v.data[a] == '\t')) a++;
        while (b > a && (v.data[b - 1] == ' ' || v.data[b - 1] == '\t')) b--;
        qn_str token = {v.data + a, b - a};
        if (qn_http_equal(token, "close")) *close = true;
        if (qn_http_equal(token, "keep-alive")) *keep = true;
        i = end + 1;
    }
}

static qn_http_event parse_lengths(qn_http_parser *p) {
    qn_http_head *h = &p->parsed;
    qn_str v = {0};
    size_t n_te = qn_http_find(h, "transfer-encoding", &v);
    if (n_te > 1 || (n_te == 1 && !qn_http_equal(v, "chunked"))) {
        return bad(p, 400, "Transfer-Encoding may only be chunked, once");
    }
    if (n_te && h->minor == 0) return bad(p, 400, "Transfer-Encoding in HTTP/1.0");
    h->chunked = n_te == 1;
    size_t n_cl = qn_http_find(h, "content-length", &v);
    if (n_cl > 1) return bad(p, 400, "more than one Content-Length");
    if (n_cl && n_te) return bad(p, 400, "both Content-Length and Transfer-Encoding");
    if (n_cl) {
        if (v.len == 0 || v.len > 32) return bad(p, 400, "malformed Content-Length");
        uint64_t n = 0;
        bool large = false;
        for (size_t i = 0; i < v.len; i++) {
            if (!is_digit(v.data[i])) return bad(p, 400, "malformed Content-Length");
            if (!qn_mul_u64(n, 10, &n) || !qn_add_u64(n, (uint64_t)(v.data[i] - '0'), &n)) large = true;
        }
        bool none = p->no_body || h->status == 204 || h->status == 304;
        if (large || n > INT64_MAX || (n > p->max_body && !none)) {
            return bad(p, 413, "the body is too large");
        }
        h->content_length = (int64_t)n;
    }
    return QN_HTTP_NEED_MORE;
}

static qn_http_event parse_request_fields(qn_http_parser *p) {
    qn_http_head *h = &p->parsed;
    qn_str v = {0};
    size_t n = qn_http_find(h, "host", &v);
    if (n > 1) return bad(p, 400, "more than one Host");
    if (n == 0 && h->minor == 1) return bad(p, 400, "no Host");
    if (n) {
        if (!valid_host(v)) return bad(p, 400, "malformed Host");
        // An absolute target has the say; a Host that differs is only good for confusion.
        if (h->host.len) {
            bool same = h->host.len == v.len;
            for (size_t i = 0; same && i < v.len; i++) {
                same = lower(h->host.data[i]) == lower(v.data[i]);
            }
            if (!same) return bad(p, 400, "Host differs from the request target");
        }
        h->host = v;
    }
    n = qn_http_find(h, "expect", &v);
    if (n) {
        if (n > 1 || !qn_http_equal(v, "100-continue")) {
            return bad(p, 417, "only Expect: 100-continue is understood");
        }
        h->expect_continue = h->minor == 1;
    }
    return QN_HTTP_NEED_MORE;
}

static qn_http_event finish_head(qn_http_parser *p) {
    qn_http_head *h = &p->parsed;
    // Room for the decoded path, before views are taken: the buffer must not move afterwards.
    size_t block = p->head.len;
    if (!qn_buf_reserve(&p->head, block + 1)) return bad(p, 503, "out of memory");
    char *data = p->head.data;
    h->fields = p->fields;
    h->n_fields = 0;
    bool first = true;
    for (size_t at = 0; at < block;) {
        const char *lf = memchr(data + at, '\n', block - at);
        size_t end = (size_t)(lf - data) - 1; // at the CR
        qn_str line = {data + at, end - at};
        at = end + 2;
        if (line.len == 0) break;
        qn_http_event e;
        if (first) {
            e = p->request ? parse_request_line(p, line, data + block) : parse_status_line(p, line);
            first = false;
        } else {
            e = parse_field(p, line, &p->fields[h->n_fields++]);
        }
        if (e == QN_HTTP_BAD) return e;
    }
    if (parse_lengths(p) == QN_HTTP_BAD) return QN_HTTP_BAD;
    if (p->request && parse_request_fields(p) == QN_HTTP_BAD) return QN_HTTP_BAD;
    bool close = false, keep = false;
    for (size_t i = 0; i < h->n_fields; i++) {
        if (qn_http_equal(h->fields[i].name, "connection")) {
            connection_tokens(h->fields[i].value, &close, &keep);
        }
    }
    h->keep_alive = !close && (h->minor == 1 || keep);

    if (!p->request && (p->no_body || h->status == 204 || h->status == 304)) {
        p->state = S_DONE;
    } else if (h->chunked) {
        p->state = S_CHUNK_SIZE;
    } else if (h->content_length > 0) {
        p->left = (uint64_t)h->content_length;
        p->state = S_BODY_LENGTH;
    } else if (h->content_length == 0 || p->request) {
        p->state = S_DONE;
    } else {
        p->state = S_BODY_CLOSE;
        h->keep_alive = false;
    }
    return QN_HTTP_HEAD;
}

// Takes bytes of the header block up to its empty line.
static qn_http_event take_head(qn_http_parser *p, const char *data, size_t len, size_t *used) {
    for (size_t i = 0; i < len;) {
        // To the end of the line, or of what there is.
        const char *lf = memchr(data + i, '\n', len - i);
        size_t n = lf ? (size_t)(lf - (data + i)) + 1 : len - i;
        // Each byte is checked here, one by one, so that the verdict comes at the byte that earns it.
        for (size_t j = 0; j < n; j++) {
            unsigned char c = (unsigned char)data[i + j];
            bool after_cr = p->head.len + j > 0 &&
                            (j ? data[i + j - 1] : p->head.data[p->head.len - 1]) == '\r';
            *used = i + j + 1;
            if (p->head.len + j + 1 > QN_HTTP_MAX_HEAD) {
                return bad(p, 431, "the header block is too large");
            }
            if (after_cr != (c == '\n')) {
                return bad(p, 400, c == '\n' ? "a line feed without carriage return"
                                             : "a carriage return without line feed");
            }
            if ((c < 0x20 && c != '\t' && c != '\r' && c != '\n') || c == 0x7f) {
                return bad(p, 400, "a control character in the header block");
            }
        }
        if (!qn_buf_append(&p->head, data + i, n)) return bad(p, 503, "out of memory");
        i += n;
        *used = i;
        if (!lf) break;
        if (p->head.len - p->line == 2) { // an empty line
            if (p->line > 0) {
                qn_http_event e = finish_head(p);
                // Interim responses are skipped; 101 would change the protocol.
                if (e == QN_HTTP_HEAD && !p->request && p->parsed.status < 200) {
                    if (p->parsed.status == 101) return bad(p, 502, "protocol switch not asked for");
                    bool no_body = p->no_body;
                    qn_http_parser_reset(p);
                    p->no_body = no_body;
                    continue;
                }
                return e;
            }
            // One blank line before a request is forgiven (RFC 9112, 2.2).
            if (p->blank || !p->request) return bad(p, 400, "blank lines instead of a message");
            p->blank = true;
            qn_buf_clear(&p->head);
            continue;
        }
        if (p->lines == 0 && p->line == 0 && (p->head.data[0] == ' ' || p->head.data[0] == '\t')) {
            return bad(p, 400, "white space before the message");
        }
        if (p->line > 0 && (p->head.data[p->line] == ' ' || p->head.data[p->line] == '\t')) {
            return bad(p, 400, "a folded header line");
        }
        p->line = p->head.len;
        if (++p->lines > QN_HTTP_MAX_LINES) return bad(p, 431, "too many header lines");
    }
    return QN_HTTP_NEED_MORE;
}

// The lines after the last chunk: checked like header fields, then dropped.
static qn_http_event take_trailer(qn_http_parser *p, const char *data, size_t len, size_t *used) {
    // Nothing of it is kept: `left` counts its bytes, `digits` its lines, `line` is where we are in one.
    for (size_t i = 0; i < len; i++) {
        char c = data[i];
        *used = i + 1;
        if (++p->left > MAX_TRAILER) return bad(p, 431, "the trailer is too large");
        // line: 0 at the start of a line, 1 in the name, 2 in the value, 3 after CR of an empty line,
        // 4 after CR of a field.
        switch (p->line) {
        case 0:
            if (c == '\r') {
                p->line = 3;
            } else if (is_token_char(c)) {
                if (++p->digits > MAX_TRAILER_LINES) return bad(p, 431, "too many trailer lines");
                p->line = 1;
                p->name[0] = c;
                p->name_len = 1;
            } else {
                return bad(p, 400, "malformed trailer");
            }
            break;
        case 1:
            if (c == ':') {
                // Fields that say how long a message is have no business behind it.
                qn_str name = {p->name, p->name_len};
                if (qn_http_equal(name, "transfer-encoding") ||
                    qn_http_equal(name, "content-length") || qn_http_equal(name, "host")) {
                    return bad(p, 400, "a field that may not be in a trailer");
                }
                p->line = 2;
            } else if (!is_token_char(c)) {
                return bad(p, 400, "malformed trailer");
            } else if (p->name_len < sizeof p->name) {
                p->name[p->name_len++] = c;
            }
            break;
        case 2:
            if (c == '\r') {
                p->line = 4;
            } else if (((unsigned char)c < 0x20 && c != '\t') || c == 0x7f) {
                return bad(p, 400, "malformed trailer");
            }
            break;
        default:
            if (c != '\n') return bad(p, 400, "a carriage return without line feed");
            if (p->line == 3) {
                p->state = S_DONE;
                return QN_HTTP_NEED_MORE;
            }
            p->line = 0;
            break;
        }
    }
    return QN_HTTP_NEED_MORE;
}

// One byte of a chunk-size line. Extensions are refused: nobody needs them, and parsers disagree.
static qn_http_event chunk_size_byte(qn_http_parser *p, char c) {
    int v = hex_value(c);
    if (v >= 0) {
        if (p->digits == MAX_CHUNK_DIGITS) return bad(p, 400, "the chunk-size line is too long");
        p->digits++;
        p->left = p->left << 4 | (uint64_t)v;
        return QN_HTTP_NEED_MORE;
    }
    if (c != '\r' || p->digits == 0) return bad(p, 400, "malformed chunk size");
    p->state = S_CHUNK_SIZE_LF;
    return QN_HTTP_NEED_MORE;
}

static qn_http_event take_body(qn_http_parser *p, const char *data, size_t len, size_t *used) {
    size_t n = len;
    if (p->state != S_BODY_CLOSE && p->left < n) n = (size_t)p->left;
    if (p->state == S_BODY_CLOSE && n > p->max_body - p->taken) {
        n = (size_t)(p->max_body - p->taken);
        if (n == 0) {
            *used = 0;
            return bad(p, 413, "the body is too large");
        }
    }
    p->body = (qn_str){data, n};
    p->taken += n;
    if (p->state != S_BODY_CLOSE) p->left -= n;
    *used = n;
    if (p->left == 0) {
        if (p->state == S_BODY_LENGTH) p->state = S_DONE;
        if (p->state == S_CHUNK_DATA) p->state = S_CHUNK_DATA_CR;
    }
    return QN_HTTP_BODY;
}

qn_http_event qn_http_parse(qn_http_parser *p, const char *data, size_t len, size_t *used) {
    size_t at = 0;
    *used = 0;
    p->body = (qn_str){0};
    for (;;) {
        if (p->state == S_DONE) return QN_HTTP_DONE;
        if (p->state == S_BAD) return QN_HTTP_BAD;
        if (at == len) return QN_HTTP_NEED_MORE;
        size_t n = 0;
        qn_http_event e = QN_HTTP_NEED_MORE;
        switch (p->state) {
        case S_HEAD:
            e = take_head(p, data + at, len - at, &n);
            break;
        case S_BODY_LENGTH:
        case S_BODY_CLOSE:
        case S_CHUNK_DATA:
            e = take_body(p, data + at, len - at, &n);
            break;
        case S_CHUNK_SIZE:
            n = 1;
            e = chunk_size_byte(p, data[at]);
            break;
        case S_CHUNK_SIZE_LF:
            n = 1;
            if (data[at] != '\n') {
                e = bad(p, 400, "a carriage return without line feed");
            } else if (p->left > p->max_body - p->taken) {
                e = bad(p, 413, "the body is too large");
            } else if (p->left == 0) {
                p->state = S_TRAILER;
                p->line = 0;
                p->digits = 0;
            } else {
                p->state = S_CHUNK_DATA;
            }
            break;
        case S_CHUNK_DATA_CR:
            n = 1;
            if (data[at] != '\r') e = bad(p, 400, "a chunk longer than its size");
            p->state = e == QN_HTTP_BAD ? S_BAD : S_CHUNK_DATA_LF;
            break;
        case S_CHUNK_DATA_LF:
            n = 1;
            if (data[at] != '\n') e = bad(p, 400, "a carriage return without line feed");
            p->state = e == QN_HTTP_BAD ? S_BAD : S_CHUNK_SIZE;
            p->digits = 0;
            p->left = 0;
            break;
        case S_TRAILER:
            e = take_trailer(p, data + at, len - at, &n);
            break;
        case S_DONE:
        case S_BAD:
            break;
        }
        at += n;
        *used = at;
        if (e != QN_HTTP_NEED_MORE) return e;
    }
}

qn_http_event qn_http_parse_eof(qn_http_parser *p) {
    if (p->state == S_DONE) return QN_HTTP_DONE;
    if (p->state == S_BAD) return QN_HTTP_BAD;
    if (p->state == S_BODY_CLOSE) {
        p->state = S_DONE;
        return QN_HTTP_DONE;
    }
    if (!qn_http_parser_started(p)) return QN_HTTP_NEED_MORE;
    return bad(p, p->request ? 400 : 502, "the connection closed inside a message");
}

const char *qn_http_status_text(int status) {
    static const struct {
        int status;
        const char *text;
    } names[] = {
        {100, "Continue"},
        {200, "OK"},
        {202, "Accepted"},
        {204, "No Content"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {408, "Request Timeout"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < QN_COUNT(names); i++) {
        if (names[i].status == status) return names[i].text;
    }
    return "Status";
}
