#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Do the scheduler's tests notice faults? Changes one place of its source at a time (a comparison
flipped, a constant or an operator changed, a statement or a condition dropped), builds it, and runs
the unit tests, then the simulator, until one of them fails. Prints the mutants that live.

    tests/scheduler/mutate.py [--sample N] [--seed N] [--jobs N] [--only FILE[:LINE]] [--list]

mutants.md says of some mutants why nobody can notice them; they are counted by themselves. What the
tests use to look inside (check.c and the functions named *_check) is not mutated, nor are prefetches,
nor does -1 become another negative number. Compiles with gcc
and sanitizers in a temporary directory; nothing else is needed than the tests need.
"""
import argparse
import concurrent.futures
import glob
import os
import random
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SOURCES = ["block_pool.c", "id_map.c", "plan.c", "prefix_cache.c", "reuse.c", "scheduler.c",
           "wait_queue.c"]
HEADERS = ["block_pool.h", "state.h", "wait_queue.h"]
ORACLES = re.compile(r"^(static )?bool (qn_block_pool_check|check_node|qn_prefix_cache_check)\(.*\{")
SWAPS = [
    (r"(?<![<>=!\-])<(?![<=])", ["<=", ">="]), (r"<=", ["<", ">"]),
    (r"(?<![<>=!\-])>(?![>=])", [">=", "<="]), (r">=", [">", "<"]),
    (r"==", ["!="]), (r"!=", ["=="]), (r"&&", ["||"]), (r"\|\|", ["&&"]),
    (r"(?<![+\w(])\+ (?=\w|\()", ["- "]), (r"(?<![\-\w(])- (?=\w|\()", ["+ "]),
    (r"\+=", ["-=", "="]), (r"-=", ["+="]), (r"\|=", ["="]),
    (r"\+\+", ["--"]), (r"(?<!-)--(?!-)", ["++"]),
    (r"\btrue\b", ["false"]), (r"\bfalse\b", ["true"]),
    (r"\bQN_MIN\b", ["QN_MAX"]), (r"\bQN_MAX\b(?!_)", ["QN_MIN"]),
    (r"(?<![\w.\-])1(?![\w.])", ["0", "2"]), (r"(?<=-)1(?![\w.])", ["0"]), (r"(?<![\w.])0(?![\w.])", ["1"]),
    (r"(?<![\w.\[])2(?![\w.])", ["1"]), (r"\b(?:4|16|32|1024|8)\b(?! >=)", ["3"]),
    (r"(?<=\()!(?=\w)", [""]), (r"(?<=&& )!(?=\w)", [""]),
]
DECLARES = re.compile(r"(const |static |return\b|u?int\d*_t |size_t |bool |double |qn_\w+ \*?\w+ ?[=;(]"
                      r"|goto |typedef |void |struct |for |do |else )")
WRAP = ["-Wl,--wrap=malloc", "-Wl,--wrap=calloc", "-Wl,--wrap=free"]
# name, objects of its own, flags, arguments, seconds; the cheap ones first. The first two hold only
# some of the parts.
PARTS = {"parts": {"block_pool", "id_map", "wait_queue"}, "prefix": {"block_pool", "prefix_cache"}}
PROGRAMS = [
    ("parts", ["test_parts"], ["-lcmocka"], [], 10),
    ("prefix", ["test_prefix"], ["-lcmocka"], [], 10),
    ("scheduler", ["test_scheduler", "fixtures"], ["-lcmocka"] + WRAP, [], 10),
    ("short_of_blocks", ["test_short_of_blocks", "fixtures"], ["-lcmocka"] + WRAP, [], 10),
    ("shared_blocks", ["test_shared_blocks", "fixtures"], ["-lcmocka"] + WRAP, [], 10),
    ("sim", ["scheduler_check", "sim_main"], [], ["--seeds", "120", "--steps", "500"], 60),
]
OTHERS = ["tests/scheduler/" + f for f in ["test_parts", "test_prefix", "test_scheduler", "fixtures",
                                           "test_short_of_blocks", "test_shared_blocks", "sim_main"]]
OTHERS += ["tools/scheduler_check", "scheduler/check"]


def mutants(text):
    """Yields (line number, line before, line after, new text)."""
    lines = text.split("\n")
    seen_code = oracle = False
    for i, line in enumerate(lines):
        code = line.split("//")[0].rstrip()
        stripped = code.strip()
        seen_code = seen_code or "{" in code
        if ORACLES.match(line):
            oracle = True
        if oracle:
            oracle = line != "}"
            continue
        if not seen_code or not stripped or stripped.startswith("#") or "prefetch" in code:
            continue
        quoted = [m.span() for m in re.finditer(r'"[^"]*"', code)]

        def put(new_line):
            return "\n".join(lines[:i] + [new_line] + lines[i + 1:])

        for pattern, replacements in SWAPS:
            for m in re.finditer(pattern, code):
                if any(a <= m.start() < b for a, b in quoted):
                    continue
                for r in replacements:
                    new = code[:m.start()] + r + code[m.end():]
                    yield i + 1, stripped, new.strip(), put(new)
        simple = re.fullmatch(r"[\w\->.\[\]*&+()\s,!?:|<>=/]+;", stripped)
        balanced = stripped.count("(") == stripped.count(")")
        starts = i > 0 and re.search(r"[;{}]\s*(//.*)?$|^\s*//|^\s*$", lines[i - 1]) is not None
        if simple and not DECLARES.match(stripped) and balanced and starts:
            yield i + 1, stripped, "", put("" if stripped.startswith("if (") else
                                           code.replace(stripped, ";"))
        elif stripped == "return;":
            yield i + 1, stripped, "", put(";")


def explained():
    """{(file, line before, line after)}; after None: whatever becomes of that line."""
    known = set()
    file = None
    with open(os.path.join(HERE, "mutants.md")) as f:
        for line in f:
            if m := re.match(r"## (\S+)", line):
                file = m[1]
            elif m := re.match(r"- `(.*)` => `(.*)`", line):
                known.add((file, m[1], m[2]))
            elif m := re.match(r"- `(.*)` any", line):
                known.add((file, m[1], None))
            elif m := re.match(r"- `(.*)` dropped", line):
                known.add((file, m[1], ""))
    return known


def sh(args, timeout, cwd):
    try:
        p = subprocess.run(args, cwd=cwd, timeout=timeout, stdout=subprocess.DEVNULL,
                           stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        return p.returncode, p.stderr.decode(errors="replace")
    except subprocess.TimeoutExpired:
        return 124, "timeout"


class Bench:
    def __init__(self, work):
        self.work = work
        self.sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
        self.cc = ["gcc", "-std=c17", "-O1", "-g0", "-D_GNU_SOURCE", "-fno-strict-aliasing", "-w"]
        self.cc += self.sanitize
        for path in OTHERS + ["scheduler/" + s[:-2] for s in SOURCES]:
            self.must(self.cc + ["-I" + ROOT, "-c", f"{ROOT}/{path}.c", "-o",
                                 os.path.basename(path) + ".o"])
        below = [f for d in ("base", "attention") for f in glob.glob(f"{ROOT}/{d}/*.c")]
        os.mkdir(work + "/below")
        for f in below:
            self.must(self.cc + ["-I" + ROOT, "-c", f, "-o", "below/" + os.path.basename(f) + ".o"])
        self.below = work + "/below.a"
        self.must(["ar", "rcs", self.below] +
                  ["below/" + os.path.basename(f) + ".o" for f in below])

    def must(self, args):
        rc, err = sh(args, 120, self.work)
        if rc != 0:
            sys.exit(f"mutate.py: {' '.join(args)}\n{err}")

    def kills(self, name, text):
        """None: does not build. Else who noticed, "" for nobody."""
        with tempfile.TemporaryDirectory(dir=self.work) as d:
            os.makedirs(d + "/scheduler")
            with open(f"{d}/scheduler/{name}", "w") as f:
                f.write(text)
            objects = {p: f"{self.work}/{os.path.basename(p)}.o"
                       for p in OTHERS + ["scheduler/" + s[:-2] for s in SOURCES]}
            changed = [p for p in objects
                       if (name.endswith(".h") and p.startswith(("scheduler/", "tests/"))
                           and p != "tests/scheduler/sim_main") or p == "scheduler/" + name[:-2]]
            for p in changed:
                source = f"{d}/{p}.c" if os.path.exists(f"{d}/{p}.c") else f"{ROOT}/{p}.c"
                objects[p] = f"{d}/{os.path.basename(p)}.o"
                rc, _ = sh(self.cc + ["-I" + d, "-I" + ROOT, "-c", source, "-o", objects[p]], 60, d)
                if rc != 0:
                    return None
            library = [o for p, o in objects.items() if p.startswith("scheduler/")] + [self.below]
            by_name = {os.path.basename(p): o for p, o in objects.items()}
            for who, own, flags, args, timeout in PROGRAMS:
                if name.rpartition(".")[0] not in PARTS.get(who, {name.rpartition(".")[0]}):
                    continue
                exe = f"{d}/test_{who}"
                rc, err = sh(["gcc"] + self.sanitize + ["-o", exe] + [by_name[o] for o in own] +
                             library + ["-lm", "-lpthread"] + flags, 60, d)
                if rc != 0:
                    raise RuntimeError(err)
                rc, _ = sh([exe] + args, timeout, d)
                if rc != 0:
                    return who
        return ""


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--sample", type=int, default=0, help="so many at random; 0: all")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--jobs", type=int, default=2)
    ap.add_argument("--only", default="", help="a file, or a line of it")
    ap.add_argument("--list", action="store_true", help="print the mutants and run none")
    ap.add_argument("--explained", action="store_true", help="run those of mutants.md too")
    a = ap.parse_args()
    known = explained()
    todo = []
    for name in SOURCES + HEADERS:
        with open(f"{ROOT}/scheduler/{name}") as f:
            text = f.read()
        for line, before, after, new in mutants(text):
            if a.only in ("", name, f"{name}:{line}"):
                todo.append((name, line, before, after, new))
    total = len(todo)
    if a.sample and a.sample < total:
        todo = random.Random(a.seed).sample(todo, a.sample)
    if a.list:
        for name, line, before, after, _ in todo:
            print(f"{name}:{line}: {before}  =>  {after}")
        return
    counts = {}
    with tempfile.TemporaryDirectory() as work:
        bench = Bench(work)
        for name in ["block_pool.c", "prefix_cache.c", "plan.c"]:  # each test runs for one of them
            with open(f"{ROOT}/scheduler/{name}") as f:
                if who := bench.kills(name, f.read()):
                    sys.exit(f"mutate.py: {who} fails without any mutation")
        with concurrent.futures.ThreadPoolExecutor(a.jobs) as pool:
            jobs = {}
            for t in todo:
                if not a.explained and known & {(t[0], t[2], t[3]), (t[0], t[2], None)}:
                    counts["explained"] = counts.get("explained", 0) + 1
                else:
                    jobs[pool.submit(bench.kills, t[0], t[4])] = t
            for done, job in enumerate(concurrent.futures.as_completed(jobs)):
                if done % 25 == 0:
                    print(f"{done} of {len(jobs)}", file=sys.stderr, flush=True)
                name, line, before, after, _ = jobs[job]
                result = job.result()
                key = "does not build" if result is None else result or "LIVES"
                counts[key] = counts.get(key, 0) + 1
                if result == "":
                    print(f"lives: scheduler/{name}:{line}: {before}  =>  {after}", flush=True)
    built = sum(n for k, n in counts.items() if k != "does not build")
    lives, equal = counts.get("LIVES", 0), counts.get("explained", 0)
    caught = built - lives - equal
    print(f"{total} places; {built} mutants: {caught} caught, {equal} explained, {lives} live; "
          f"{100 * caught / max(built, 1):.1f}% of all, "
          f"{100 * caught / max(built - equal, 1):.1f}% of those that can be noticed: {counts}")


if __name__ == "__main__":
    main()
