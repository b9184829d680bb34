// SPDX-License-Identifier: Apache-2.0
// Strict UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF.
#ifndef QN_BASE_UTF8_H
#define QN_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Decodes the code point at s[0..len). Returns its length in bytes (1..4), 0 if malformed or cut off.
size_t qn_utf8_decode(const char *s, size_t len, uint32_t *code_point);
// Writes cp; returns the bytes written (1..4), 0 for a surrogate or a value above U+10FFFF.
size_t qn_utf8_encode(uint32_t code_point, char out[4]);
bool qn_utf8_valid(const char *s, size_t len);
// The number of bytes at the end of s that begin a code point that is cut off, and could still be
// completed (0..3). A streaming writer holds these back.
size_t qn_utf8_incomplete_tail(const char *s, size_t len);

#endif
