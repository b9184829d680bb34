#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Do the scheduler's tests notice faults? Changes one place of its source at a time (a comparison
flipped, a constant or an operator changed, a statement or a condition dropped), builds it with the unit
tests and the simulator, and runs them. Prints the mutants that live, with file and line.

    tests/scheduler/mutate.py [--sample N] [--seed N] [--jobs N] [--only FILE:LINE]

Needs cmake's build of qn_base and qn_attention in --build (default build/asan). Works in a temporary
directory.
"""
import argparse
import concurrent.futures
import os
import random
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SOURCES = ["block_pool.c", "id_map.c", "plan.c", "prefix_cache.c", "reuse.c", "scheduler.c", "wait_queue.c", "state.h"]
SWAPS = [
    (r"(?<![<>=!\-])<(?![<=])", ["<=", ">="]), (r"<=", ["<", ">"]),
    (r"(?<![<>=!\-])>(?![>=])", [">=", "<="]), (r">=", [">", "<"]),
    (r"==", ["!="]), (r"!=", ["=="]), (r"&&", ["||"]), (r"\|\|", ["&&"]),
    (r"(?<![+\w(])\+ (?=\w|\()", ["- "]), (r"(?<![\-\w(])- (?=\w|\()", ["+ "]),
    (r"\+=", ["-=", "="]), (r"-=", ["+="]), (r"\|=", ["="]),
    (r"\+\+", ["--"]), (r"(?<!-)--(?!-)", ["++"]),
    (r"\btrue\b", ["false"]), (r"\bfalse\b", ["true"]),
    (r"\bQN_MIN\b", ["QN_MAX"]), (r"\bQN_MAX\b(?!_)", ["QN_MIN"]),
    (r"(?<![\w.])1(?![\w.])", ["0", "2"]), (r"(?<![\w.])0(?![\w.])", ["1"]),
    (r"(?<![\w.\[])2(?![\w.])", ["1"]), (r"\b(?:4|16|32|1024|8)\b(?! >=)", ["3"]),
    (r"(?<=\()!(?=\w)", [""]), (r"(?<=&& )!(?=\w)", [""]),
]


def mutants(name, text):
    """Yields (line number, what, new text)."""
    lines = text.split("\n")
    seen_code = False
    for i, line in enumerate(lines):
        code = line.split("//")[0].rstrip()
        stripped = code.strip()
        seen_code = seen_code or "{" in code
        if not seen_code or not stripped or stripped.startswith("#"):
            continue
        quoted = [m.span() for m in re.finditer(r'"[^"]*"', code)]

        def put(new_line):
            return "\n".join(lines[:i] + [new_line] + lines[i + 1:])

        for pattern, replacements in SWAPS:
            for m in re.finditer(pattern, code):
                if any(a <= m.start() < b for a, b in quoted) or "#include" in code:
                    continue
                for r in replacements:
                    new = code[:m.start()] + r + code[m.end():]
                    yield i + 1, f"{stripped}  =>  {new.strip()}", put(new)
        simple = re.fullmatch(r"[\w\->.\[\]*&+()\s,!?:|<>=/]+;", stripped)
        declares = re.match(r"(const |static |return\b|u?int\d*_t |size_t |bool |double |qn_\w+ \*?\w+ ?[=;(]"
                            r"|goto |typedef |void |struct |for |do |else )", stripped)
        balanced = stripped.count("(") == stripped.count(")")
        starts = i > 0 and re.search(r"[;{}]\s*(//.*)?$|^\s*//|^\s*$", lines[i - 1]) is not None
        if simple and not declares and balanced and starts:
            if stripped.startswith("if ("):
                yield i + 1, f"drop: {stripped}", put("")
            else:
                yield i + 1, f"drop: {stripped}", put(code.replace(stripped, ";"))
        elif stripped.startswith("return ") and i > 0 and stripped in ("return;",):
            yield i + 1, f"drop: {stripped}", put(";")


def sh(args, timeout, cwd):
    try:
        p = subprocess.run(args, cwd=cwd, timeout=timeout, stdout=subprocess.DEVNULL,
                           stderr=subprocess.PIPE)
        return p.returncode, p.stderr.decode(errors="replace")
    except subprocess.TimeoutExpired:
        return 124, "timeout"


class Bench:
    def __init__(self, work, build):
        self.work, self.build = work, build
        self.cc = ["gcc", "-std=c17", "-O1", "-g0", "-D_GNU_SOURCE", "-fno-strict-aliasing", "-w",
                   "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
        for t in ["tools/scheduler_check", "tests/scheduler/sim_main", "tests/scheduler/test_parts",
                  "tests/scheduler/test_prefix", "tests/scheduler/test_scheduler"]:
            self.must(self.cc + ["-I" + ROOT, "-c", f"{ROOT}/{t}.c", "-o", os.path.basename(t) + ".o"])
        for s in SOURCES:
            if s.endswith(".c"):
                self.must(self.cc + ["-I" + ROOT, "-c", f"{ROOT}/scheduler/{s}", "-o", s[:-2] + ".o"])
        self.must(self.cc + ["-I" + ROOT, "-c", f"{ROOT}/scheduler/check.c", "-o", "check.o"])

    def must(self, args):
        rc, err = sh(args, 120, self.work)
        if rc != 0:
            sys.exit(f"mutate.py: {' '.join(args)}\n{err}")

    def kills(self, number, name, text):
        """None: does not build. Else who noticed, "" for nobody."""
        d = os.path.join(self.work, f"m{number}")
        os.makedirs(d + "/scheduler", exist_ok=True)
        objects = []
        changed = [name] if name.endswith(".c") else [s for s in SOURCES + ["check.c"] if s.endswith(".c")]
        for s in SOURCES + ["check.c"]:
            if s.endswith(".c") and s not in changed:
                objects.append(os.path.join(self.work, s[:-2] + ".o"))
        with open(f"{d}/scheduler/{name}", "w") as f:
            f.write(text)
        for s in changed:
            source = f"{d}/scheduler/{s}" if s == name else f"{ROOT}/scheduler/{s}"
            rc, _ = sh(self.cc + ["-I" + d, "-I" + ROOT, "-c", source, "-o", f"{d}/{s}.o"], 60, d)
            if rc != 0:
                return None
            objects.append(f"{d}/{s}.o")
        libs = [f"{self.build}/attention/libqn_attention.a", f"{self.build}/base/libqn_base.a", "-lm",
                "-lpthread"]
        o = self.work + "/"
        programs = [
            ("parts", [o + "test_parts.o"], ["-lcmocka"], [], 20),
            ("prefix", [o + "test_prefix.o"], ["-lcmocka"], [], 20),
            ("unit", [o + "test_scheduler.o"], ["-lcmocka", "-Wl,--wrap=malloc", "-Wl,--wrap=calloc",
              "-Wl,--wrap=free"], [], 20),
            ("sim", [o + "scheduler_check.o", o + "sim_main.o"], [], ["--seeds", "150", "--steps", "600"], 60),
        ]
        for who, own, flags, args, timeout in programs:
            exe = f"{d}/{who}"
            rc, _ = sh(["gcc", "-fsanitize=address,undefined", "-o", exe] + own + objects + libs + flags, 60, d)
            if rc != 0:
                return None
            rc, _ = sh([exe] + args, timeout, d)
            if rc != 0:
                return who
        return ""


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--sample", type=int, default=0)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--jobs", type=int, default=2)
    ap.add_argument("--only", default="")
    ap.add_argument("--build", default=os.path.join(ROOT, "build/asan"))
    a = ap.parse_args()
    todo = []
    for name in SOURCES:
        with open(f"{ROOT}/scheduler/{name}") as f:
            text = f.read()
        for line, what, new in mutants(name, text):
            if not a.only or a.only == f"{name}:{line}":
                todo.append((name, line, what, new))
    total = len(todo)
    if a.sample and a.sample < total:
        todo = random.Random(a.seed).sample(todo, a.sample)
    counts = {}
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(work, a.build)
        with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
            jobs = {pool.submit(bench.kills, i, t[0], t[3]): t for i, t in enumerate(todo)}
            for job in concurrent.futures.as_completed(jobs):
                name, line, what, _ = jobs[job]
                result = job.result()
                key = "does not build" if result is None else result or "LIVES"
                counts[key] = counts.get(key, 0) + 1
                if result == "":
                    print(f"lives: scheduler/{name}:{line}: {what}", flush=True)
    built = sum(n for k, n in counts.items() if k != "does not build")
    lives = counts.get("LIVES", 0)
    print(f"{total} places, {built} mutants run, {built - lives} caught "
          f"({100 * (built - lives) / max(built, 1):.1f}%): {counts}")


if __name__ == "__main__":
    main()
