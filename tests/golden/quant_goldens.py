#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes tests/golden/quant/*.txt: what the PyPI package `gguf` makes of blocks, and blocks of values.

Both sides draw the same bytes from xorshift64* (seeded by the type's name), so that the files hold
hashes only: SHA-256 of the f32 values (every NaN as 7fc00000), or of the blocks.

dequantize.txt: TYPE N HASH, then lines "TYPE block HEX" and "TYPE values HEX" of one block.
quantize.txt:   TYPE N HASH: N blocks of values (see `values`).

  python tests/golden/quant_goldens.py            # rewrites them
  python tests/golden/quant_goldens.py --check
"""

import hashlib
import os
import sys

import gguf
import numpy as np

MASK = (1 << 64) - 1
READ = """Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ2_XXS IQ2_XS IQ3_XXS IQ1_S IQ4_NL IQ3_S
IQ2_S IQ4_XS IQ1_M TQ1_0 TQ2_0 MXFP4 F16 BF16""".split()
WRITTEN = "Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 TQ1_0 TQ2_0 MXFP4 F16 BF16".split()
FILLS = [0x00, 0xFF, 0x55, 0xAA, 0x0F, 0xF0, 0x80, 0x7F, 0x01, 0xFE, 0x3C, 0x7C]


def words(name, n):
    """n words of xorshift64* (Vigna, 2014)."""
    x = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    out = np.empty(n, dtype="<u8")
    for i in range(n):
        x ^= x >> 12
        x = (x ^ x << 25) & MASK
        x ^= x >> 27
        out[i] = x * 0x2545F4914F6CDD1D & MASK
    return out


def blocks(name, size, n):
    """Random bytes, among them every special scale; then blocks of one byte."""
    raw = words(name, -(-n * size // 8)).view(np.uint8)[: n * size]
    fills = np.repeat(np.array(FILLS, dtype=np.uint8), size)
    return np.concatenate([raw, fills])


def values(name, count):
    """Words cut in two: 24 bits of mantissa and sign, 3 bits of exponent; one in 16 is zero."""
    w = words(name + " values", count)
    mantissa = (w & 0xFFFFFF).astype(np.float64) / (1 << 24) * 2 - 1
    exponent = (w >> np.uint64(24) & np.uint64(7)).astype(np.int64) - 5
    x = np.ldexp(mantissa, exponent)
    x[(w >> np.uint64(32) & np.uint64(15)) == 0] = 0
    return x.astype(np.float32)


def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def dequantized(kind, raw):
    with np.errstate(all="ignore"):
        got = gguf.quants.dequantize(raw.reshape(1, -1), kind)
    bits = np.ascontiguousarray(got, dtype="<f4").reshape(-1).view("<u4").copy()
    bits[(bits & 0x7FFFFFFF) > 0x7F800000] = 0x7FC00000
    return bits


def make():
    lines, quantized = [], []
    for name in READ:
        kind = gguf.GGMLQuantizationType[name]
        per, size = gguf.GGML_QUANT_SIZES[kind]
        n = 1024 if per > 1 else 65536
        raw = blocks(name, size, n)
        bits = dequantized(kind, raw)
        assert bits.size == (n + len(FILLS)) * per
        lines.append(f"{name} {n + len(FILLS)} {digest(bits)}")
        if per > 1:
            lines.append(f"{name} block {raw[size : 2 * size].tobytes().hex()}")
            lines.append(f"{name} values {bits[per : 2 * per].astype('>u4').tobytes().hex()}")
    for name in WRITTEN:
        kind = gguf.GGMLQuantizationType[name]
        per, _ = gguf.GGML_QUANT_SIZES[kind]
        n = 65536 // per
        x = values(name, n * per)
        with np.errstate(all="ignore"):
            got = gguf.quants.quantize(x.reshape(1, -1), kind)
        quantized.append(f"{name} {n} {digest(got)}")
    return {"dequantize.txt": lines, "quantize.txt": quantized}


def main():
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "quant")
    os.makedirs(here, exist_ok=True)
    same = True
    for name, lines in make().items():
        path = os.path.join(here, name)
        text = "\n".join(lines) + "\n"
        if sys.argv[1:] == ["--check"]:
            with open(path, encoding="ascii") as file:
                same = same and file.read() == text
            continue
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    if not same:
        sys.exit("tests/golden/quant differs")


if __name__ == "__main__":
    main()
