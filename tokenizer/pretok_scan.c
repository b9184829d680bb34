// SPDX-License-Identifier: Apache-2.0
// Hand-written scanners for the commonest patterns. Each gives exactly what its regular expression
// (internal.h) gives; tests compare the two on random Unicode text.
#include "tokenizer/internal.h"

#include <utf8proc.h>

enum { LETTER = 1, NUMBER = 2, SPACE = 4 };

// clang-format off
static const uint8_t ascii_class[128] = {
    ['\t'] = SPACE, ['\n'] = SPACE, ['\v'] = SPACE, ['\f'] = SPACE, ['\r'] = SPACE, [' '] = SPACE,
    ['0'] = NUMBER, ['1'] = NUMBER, ['2'] = NUMBER, ['3'] = NUMBER, ['4'] = NUMBER,
    ['5'] = NUMBER, ['6'] = NUMBER, ['7'] = NUMBER, ['8'] = NUMBER, ['9'] = NUMBER,
    ['A'] = LETTER, ['B'] = LETTER, ['C'] = LETTER, ['D'] = LETTER, ['E'] = LETTER, ['F'] = LETTER,
    ['G'] = LETTER, ['H'] = LETTER, ['I'] = LETTER, ['J'] = LETTER, ['K'] = LETTER, ['L'] = LETTER,
    ['M'] = LETTER, ['N'] = LETTER, ['O'] = LETTER, ['P'] = LETTER, ['Q'] = LETTER, ['R'] = LETTER,
    ['S'] = LETTER, ['T'] = LETTER, ['U'] = LETTER, ['V'] = LETTER, ['W'] = LETTER, ['X'] = LETTER,
    ['Y'] = LETTER, ['Z'] = LETTER,
    ['a'] = LETTER, ['b'] = LETTER, ['c'] = LETTER, ['d'] = LETTER, ['e'] = LETTER, ['f'] = LETTER,
    ['g'] = LETTER, ['h'] = LETTER, ['i'] = LETTER, ['j'] = LETTER, ['k'] = LETTER, ['l'] = LETTER,
    ['m'] = LETTER, ['n'] = LETTER, ['o'] = LETTER, ['p'] = LETTER, ['q'] = LETTER, ['r'] = LETTER,
    ['s'] = LETTER, ['t'] = LETTER, ['u'] = LETTER, ['v'] = LETTER, ['w'] = LETTER, ['x'] = LETTER,
    ['y'] = LETTER, ['z'] = LETTER,
};
// clang-format on

int qn_char_class(uint32_t cp) {
    if (cp < 128) return ascii_class[cp];
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return NUMBER;
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return SPACE;
    default:
        return cp == 0x85 ? SPACE : 0; // U+0085 is white space of category Cc
    }
}

// Class and length of the character at pos; the text is known to be valid.
static inline int at(const char *s, size_t pos, size_t *n) {
    const uint8_t *u = (const uint8_t *)s + pos;
    if (u[0] < 0x80) {
        *n = 1;
        return ascii_class[u[0]];
    }
    if (u[0] < 0xe0) {
        *n = 2;
        return qn_char_class((u[0] & 0x1fu) << 6 | (u[1] & 0x3fu));
    }
    if (u[0] < 0xf0) {
        *n = 3;
        return qn_char_class((u[0] & 0x0fu) << 12 | (u[1] & 0x3fu) << 6 | (u[2] & 0x3fu));
    }
    *n = 4;
    return qn_char_class((u[0] & 0x07u) << 18 | (u[1] & 0x3fu) << 12 | (u[2] & 0x3fu) << 6 |
                         (u[3] & 0x3fu));
}

// Skips characters of a class (0: other).
static inline size_t run(const char *s, size_t len, size_t pos, int class) {
    while (pos < len) {
        size_t n;
        if (at(s, pos, &n) != class) break;
        pos += n;
    }
    return pos;
}

// 's 't 'm 'd 're 've 'll behind an apostrophe at pos; 0 if there is none.
static size_t contraction(const char *s, size_t len, size_t pos, bool any_case) {
    if (pos + 1 >= len) return 0;
    char a = s[pos + 1];
    // U+017F (long s) is an s to a caseless match.
    if (any_case && pos + 2 < len && a == '\xc5' && s[pos + 2] == '\xbf') return pos + 3;
    char fold = any_case ? 0x20 : 0;
    a = (char)(a | (a >= 'A' && a <= 'Z' ? fold : 0));
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return pos + 2;
    if (pos + 2 >= len) return 0;
    char b = s[pos + 2];
    b = (char)(b | (b >= 'A' && b <= 'Z' ? fold : 0));
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return pos + 3;
    return 0;
}

// A run of white space [pos, end) where neither end of text nor a line break decides: what
// \s+(?!\S)|\s+ takes.
static size_t spaces(const char *s, size_t len, size_t pos, size_t end) {
    if (end == len) return end;
    size_t last = end - 1;
    while (last > pos && ((uint8_t)s[last] & 0xc0) == 0x80)
        last--;
    return last > pos ? last : end;
}

size_t qn_scan_gpt2(const char *s, size_t len, size_t pos) {
    size_t n, n2;
    int c = at(s, pos, &n);
    if (s[pos] == '\'') {
        size_t end = contraction(s, len, pos, false);
        if (end) return end;
    }
    if (s[pos] == ' ' && pos + 1 < len) {
        int c2 = at(s, pos + 1, &n2);
        if (c2 != SPACE) return run(s, len, pos + 1 + n2, c2);
    }
    size_t end = run(s, len, pos + n, c);
    return c == SPACE ? spaces(s, len, pos, end) : end;
}

size_t qn_scan_cl100k(const char *s, size_t len, size_t pos, int max_digits) {
    size_t n, n2 = 0;
    int c = at(s, pos, &n);
    if (c == LETTER) return run(s, len, pos + n, LETTER);
    if (c == NUMBER) {
        size_t end = pos + n;
        for (int i = 1; i < max_digits && end < len && at(s, end, &n) == NUMBER; i++)
            end += n;
        return end;
    }
    if (s[pos] == '\'') {
        size_t end = contraction(s, len, pos, true);
        if (end) return end;
    }
    int c2 = pos + n < len ? at(s, pos + n, &n2) : SPACE;
    if (c2 == LETTER && s[pos] != '\r' && s[pos] != '\n') {
        return run(s, len, pos + n + n2, LETTER);
    }
    if (c == 0 || (s[pos] == ' ' && c2 == 0)) {
        size_t end = run(s, len, pos + n, 0);
        while (end < len && (s[end] == '\r' || s[end] == '\n'))
            end++;
        return end;
    }
    size_t end = pos, after_line = 0;
    while (end < len && at(s, end, &n) == SPACE) {
        end += n;
        if (s[end - 1] == '\r' || s[end - 1] == '\n') after_line = end;
    }
    return after_line ? after_line : spaces(s, len, pos, end);
}
