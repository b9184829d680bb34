// SPDX-License-Identifier: Apache-2.0
#include "base/utf8.h"

// Length by lead byte, and the allowed range of the second byte (RFC 3629 section 4). 0: not a lead.
static size_t lead(unsigned char c, unsigned char *lo, unsigned char *hi) {
    *lo = 0x80;
    *hi = 0xbf;
    if (c < 0x80) return 1;
    if (c < 0xc2) return 0;
    if (c < 0xe0) return 2;
    if (c < 0xf0) {
        if (c == 0xe0) *lo = 0xa0;
        if (c == 0xed) *hi = 0x9f;
        return 3;
    }
    if (c < 0xf5) {
        if (c == 0xf0) *lo = 0x90;
        if (c == 0xf4) *hi = 0x8f;
        return 4;
    }
    return 0;
}

// The number of bytes of the code point at s that are present and well formed, and in *want how many
// it needs (0: not a lead byte).
static size_t scan(const unsigned char *s, size_t len, size_t *want) {
    unsigned char lo, hi;
    *want = lead(s[0], &lo, &hi);
    if (*want <= 1) return *want;
    size_t n = 1;
    if (n < len && s[1] >= lo && s[1] <= hi) {
        n++;
        while (n < *want && n < len && (s[n] & 0xc0) == 0x80) n++;
    }
    return n;
}

size_t qn_utf8_decode(const char *s, size_t len, uint32_t *code_point) {
    static const unsigned char mask[5] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    const unsigned char *u = (const unsigned char *)s;
    size_t want;
    if (len == 0 || scan(u, len, &want) != want || want == 0) return 0;
    uint32_t cp = u[0] & mask[want];
    for (size_t i = 1; i < want; i++) cp = (cp << 6) | (u[i] & 0x3fu);
    *code_point = cp;
    return want;
}

size_t qn_utf8_encode(uint32_t cp, char out[4]) {
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | (cp >> 6));
        out[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        if (cp >= 0xd800 && cp <= 0xdfff) return 0;
        out[0] = (char)(0xe0 | (cp >> 12));
        out[1] = (char)(0x80 | ((cp >> 6) & 0x3f));
        out[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    if (cp > 0x10ffff) return 0;
    out[0] = (char)(0xf0 | (cp >> 18));
    out[1] = (char)(0x80 | ((cp >> 12) & 0x3f));
    out[2] = (char)(0x80 | ((cp >> 6) & 0x3f));
    out[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}

bool qn_utf8_valid(const char *s, size_t len) {
    uint32_t cp;
    for (size_t i = 0; i < len;) {
        size_t n = (unsigned char)s[i] < 0x80 ? 1 : qn_utf8_decode(s + i, len - i, &cp);
        if (n == 0) return false;
        i += n;
    }
    return true;
}

size_t qn_utf8_incomplete_tail(const char *s, size_t len) {
    const unsigned char *u = (const unsigned char *)s;
    for (size_t back = 1; back <= 3 && back <= len; back++) {
        unsigned char c = u[len - back];
        if ((c & 0xc0) == 0x80) continue;
        size_t want;
        size_t have = scan(u + len - back, back, &want);
        return want > back && have == back ? back : 0;
    }
    return 0;
}
