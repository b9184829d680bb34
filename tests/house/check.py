#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the tree against the rules of the house (see CONTRIBUTING.md).

usage: check.py [ROOT]

Fails, naming file, line and rule, on:
  include   an #include that include-matrix.txt does not allow, that names no file of the tree, that
            names no folder, or that includes a .c file
  spdx      a source file whose first line (second, after #!) is not the licence line
  folder    a folder of the tree that ARCHITECTURE.md does not mention
Warns on a C file of more than 1,000 lines.
"""

import os
import re
import sys

C_ENDINGS = (".c", ".h", ".inc", ".cu", ".cuh")
HASH_ENDINGS = (".py", ".sh", ".cmake", "CMakeLists.txt")
LICENCE = "SPDX-License-Identifier: Apache-2.0"
MAX_LINES = 1000
INCLUDE = re.compile(r'\s*#\s*include\s*(?:"([^"]*)"|<([^>]*)>)')


class Matrix:
    """include-matrix.txt: for each folder the folders it may include, for each library its users."""

    def __init__(self, path):
        self.allowed = {}  # folder -> set of folders, or None for all
        self.libraries = {}  # name -> set of folders
        self.problems = []
        with open(path, encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                line = line.split("#", 1)[0].strip()
                if line:
                    self.read_line(path, number, line)

    def read_line(self, path, number, line):
        def problem(text):
            self.problems.append(f"{path}:{number}: matrix: {text}")

        name, colon, rest = line.partition(":")
        names = rest.split()
        if not colon:
            problem("expected 'folder: folder ...'")
        elif name.startswith("<") and name.endswith(">"):
            self.libraries[name[1:-1]] = set(names)
            for n in names:
                if n not in self.allowed:
                    problem(f"{n}/ has no line")
        elif name in self.allowed:
            problem(f"{name}/ has two lines")
        else:
            self.allowed[name] = None if names == ["*"] else set(names)
            for n in names:
                if n != "*" and n not in self.allowed:
                    problem(f"{name}/ lists {n}/, which does not stand above it")
                if n in ("cpu", "cuda") and name != "cli":
                    problem(f"{name}/ lists {n}/: only cli/ names a device")


def files(root):
    """Paths under root, relative to it, without build folders and hidden ones other than .ci."""
    for folder, dirs, names in os.walk(root):
        if folder == root:
            dirs[:] = [d for d in dirs if not d.startswith("build") and (d[0] != "." or d == ".ci")]
        else:
            dirs[:] = [d for d in dirs if d[0] != "." and d != "__pycache__"]
        dirs.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if os.path.isfile(path):
                yield os.path.relpath(path, root)


def check_include(root, matrix, path, quoted, angled):
    """None, or what is wrong with one #include in the file at path."""
    folder = path.split(os.sep)[0]
    if angled is not None:
        library = re.split(r"[/.]", angled)[0]
        users = matrix.libraries.get(library)
        if users is not None and matrix.allowed.get(folder, set()) is not None and folder not in users:
            return f"{folder}/ may not use <{angled}>; allowed: {', '.join(sorted(users))}"
        return None
    if quoted.endswith((".c", ".cu")):
        return f'"{quoted}" is not a header'
    target, slash, _ = quoted.partition("/")
    if not slash:
        beside = os.path.join(root, os.path.dirname(path), quoted)
        if matrix.allowed.get(folder, set()) is None and os.path.isfile(beside):
            return None  # a test's own helper
        return f'"{quoted}" names no folder: write "folder/file.h"'
    if folder not in matrix.allowed:
        return f"{folder}/ has no line in tests/house/include-matrix.txt"
    if not os.path.isfile(os.path.join(root, quoted)):
        return f'"{quoted}" is no file of the tree'
    allowed = matrix.allowed[folder]
    if target == folder or allowed is None or target in allowed:
        return None
    return f"{folder}/ may not include {target}/; allowed: {' '.join(sorted(allowed)) or 'nothing'}"


def check_file(root, matrix, path, problems, warnings):
    is_c = path.endswith(C_ENDINGS)
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as f:
        head = f.readline()
        script = head.startswith("#!")
        if not is_c and not script and not path.endswith(HASH_ENDINGS):
            return
        rest = f.readlines()
    first = (rest[0] if rest else "") if script else head
    if first.rstrip("\n") != ("// " if is_c else "# ") + LICENCE:
        problems.append(f"{path}:{2 if script else 1}: spdx: expected '{LICENCE}'")
    if not is_c:
        return
    lines = [head] + rest
    if len(lines) > MAX_LINES:
        warnings.append(f"{path}: {len(lines)} lines, more than {MAX_LINES}: is there a seam?")
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        wrong = match and check_include(root, matrix, path, match[1], match[2])
        if wrong:
            problems.append(f"{path}:{number}: include: {wrong}")


def check(root):
    """The problems and the warnings of the tree at root, as two lists of lines."""
    matrix = Matrix(os.path.join(root, "tests", "house", "include-matrix.txt"))
    problems, warnings, folders = list(matrix.problems), [], {}
    for path in files(root):
        check_file(root, matrix, path, problems, warnings)
        if os.sep in path and path[0] != ".":
            folders.setdefault(path.split(os.sep)[0], path)
    try:
        with open(os.path.join(root, "ARCHITECTURE.md"), encoding="utf-8") as f:
            text = f.read()
    except FileNotFoundError:
        text = ""
    for folder, path in sorted(folders.items()):
        if f"`{folder}/`" not in text:
            problems.append(f"{path}: folder: ARCHITECTURE.md does not mention `{folder}/`")
    return problems, warnings


def main(argv):
    here = os.path.dirname(os.path.abspath(__file__))
    root = argv[1] if len(argv) > 1 else os.path.dirname(os.path.dirname(here))
    problems, warnings = check(root)
    for line in warnings:
        print("warning:", line)
    for line in problems:
        print(line)
    print(f"{len(problems)} problems, {len(warnings)} warnings")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
