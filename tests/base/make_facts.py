#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes tests/base/facts.h: what Python says about UTF-8 and SipHash-1-3.

usage: make_facts.py > facts.h

The SipHash here is checked against Python's own string hash (which is SipHash-1-3 since 3.11, keyed
from PYTHONHASHSEED) before its values are printed.
"""

import os
import subprocess
import sys

M = (1 << 64) - 1


def siphash13(k0, k1, data):
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D,
         k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotl(x, b):
        return ((x << b) | (x >> (64 - b))) & M

    def sip_round():
        v[0] = (v[0] + v[1]) & M
        v[2] = (v[2] + v[3]) & M
        v[1] = rotl(v[1], 13) ^ v[0]
        v[3] = rotl(v[3], 16) ^ v[2]
        v[0] = rotl(v[0], 32)
        v[2] = (v[2] + v[1]) & M
        v[0] = (v[0] + v[3]) & M
        v[1] = rotl(v[1], 17) ^ v[2]
        v[3] = rotl(v[3], 21) ^ v[0]
        v[2] = rotl(v[2], 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 255])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i:i + 8], "little")
        v[3] ^= word
        sip_round()
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(3):
        sip_round()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def check_against_python(seed, data):
    """Python derives its hash key from PYTHONHASHSEED with this generator."""
    x, key = seed, bytearray()
    for _ in range(16):
        x = (x * 214013 + 2531011) & 0xFFFFFFFF
        key.append((x >> 16) & 255)
    ours = siphash13(int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little"), data)
    env = dict(os.environ, PYTHONHASHSEED=str(seed))
    theirs = int(subprocess.check_output(
        [sys.executable, "-c", f"print(hash({data!r}))"], env=env)) & M
    assert ours == theirs, (seed, data, ours, theirs)


def derived_key(seed):
    """The second half of the key, as base/hash.h derives it (splitmix64's finalizer)."""
    x = (seed + 0x9E3779B97F4A7C15) & M
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & M
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & M
    return x ^ (x >> 31)


def fnv1a(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = ((h ^ byte) * 0x100000001B3) & M
    return h


def main():
    assert sys.hash_info.algorithm == "siphash13", "needs Python 3.11 or later"
    for seed in (1, 42, 12345):
        for n in (1, 7, 8, 9, 64, 300):
            check_against_python(seed, bytes(i & 255 for i in range(n)))
    print("// SPDX-License-Identifier: Apache-2.0")
    print("// Made by tests/base/make_facts.py; do not edit.")
    print("#ifndef QN_TESTS_BASE_FACTS_H\n#define QN_TESTS_BASE_FACTS_H\n\n#include <stdint.h>\n")
    print("// FNV-1a 64 of the UTF-8 of every code point, in order, surrogates left out.")
    every = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF).encode()
    print(f"static const uint64_t fact_utf8_fnv = 0x{fnv1a(every):016x}u;")
    print(f"static const uint64_t fact_utf8_bytes = {len(every)};\n")
    print("// SipHash-1-3 of the bytes 0, 1, 2, ... (len of them), keyed by seed as base/hash.h says.")
    print("static const struct {\n    uint64_t seed;\n    uint32_t len;\n    uint64_t hash;\n} fact_siphash[] = {")
    for seed in (0, 1, 0x0123456789ABCDEF, M):
        for n in (0, 1, 3, 7, 8, 9, 15, 16, 63, 64, 255, 256, 1000):
            value = siphash13(seed, derived_key(seed), bytes(i & 255 for i in range(n)))
            print(f"    {{0x{seed:016x}u, {n}, 0x{value:016x}u}},")
    print("};\n\n#endif")


main()
