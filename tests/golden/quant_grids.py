#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes quant/grids.c from the tables of the PyPI package `gguf` (0.19): they are data of the
file format. Elements are written as indices into the values of quant/grids.h.

  python tests/golden/quant_grids.py            # rewrites quant/grids.c
  python tests/golden/quant_grids.py --check
"""

import os
import sys

from gguf import quants

TABLES = [
    ("iq2_xxs", quants.IQ2_XXS, (0x08, 0x19, 0x2B), 2),
    ("iq2_xs", quants.IQ2_XS, (0x08, 0x19, 0x2B), 2),
    ("iq2_s", quants.IQ2_S, (0x08, 0x19, 0x2B), 2),
    ("iq1", quants.IQ1_S, (-1, 0, 1), 2),
    ("iq3_xxs", quants.IQ3_XXS, (4, 12, 20, 28, 36, 44, 52, 62), 4),
    ("iq3_s", quants.IQ3_S, (1, 3, 5, 7, 9, 11, 13, 15), 4),
]


def table(name, kind, values, bits):
    kind.init_grid()
    rows = kind.grid.reshape(kind.grid_shape)
    words = []
    for row in rows:
        word = 0
        for i, value in enumerate(row):
            word |= values.index(int(value)) << bits * i
        words.append(word)
    lines = [f"const uint16_t qn_grid_{name}[{len(words)}] = {{"]
    for at in range(0, len(words), 12):
        lines.append("    " + " ".join(f"0x{w:04x}," for w in words[at : at + 12]))
    return "\n".join(lines + ["};"])


def main():
    text = """// SPDX-License-Identifier: Apache-2.0
// Made by tests/golden/quant_grids.py from the tables of the PyPI package gguf.
#include "quant/grids.h"

"""
    text += "\n\n".join(table(*t) for t in TABLES) + "\n"
    here = os.path.dirname(os.path.abspath(__file__))
    path = os.path.join(here, "..", "..", "quant", "grids.c")
    if sys.argv[1:] == ["--check"]:
        with open(path, encoding="ascii") as file:
            same = file.read() == text
        print("the same" if same else "quant/grids.c differs")
        sys.exit(not same)
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


if __name__ == "__main__":
    main()
