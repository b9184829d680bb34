#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes goldens.json with Python's Jinja2, set up as transformers does for chat templates.

usage: make_goldens.py [--templates DIR]

goldens.json holds: a context and a list of small templates with what Jinja2 makes of them;
conversations; and for each real template in DIR (not part of this repository) the SHA-256 of its
output for each conversation, null where it raises, false where it recurses for ever. Needs jinja2; the C test needs neither.
"""
import argparse
import datetime
import hashlib
import json
import pathlib

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedEnvironment

import cases

HERE = pathlib.Path(__file__).parent
NOW = datetime.datetime(2024, 7, 26, 9, 5, 3, tzinfo=datetime.timezone.utc)


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def environment(kind):
    env = kind(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda fmt: NOW.strftime(fmt)
    return env


def render(env, template, context):
    """The output; None where compiling or rendering fails, False where it recurses for ever."""
    try:
        return env.from_string(template).render(**context)
    except RecursionError:
        return False
    except Exception:  # noqa: BLE001: Python's own errors come through too
        return None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--templates", type=pathlib.Path)
    args = parser.parse_args()
    strict = environment(ImmutableSandboxedEnvironment)
    lax = environment(SandboxedEnvironment)  # lets append and pop change lists
    out = {"now": int(NOW.timestamp()), "context": cases.CONTEXT, "cases": []}
    for group, env in ((cases.TEMPLATES, strict), (cases.MUTATING, lax)):
        for template in group:
            got = render(env, template, json.loads(json.dumps(cases.CONTEXT)))
            out["cases"].append({"t": template, "o": got})
    out["conversations"] = cases.CONVERSATIONS
    out["templates"] = {}
    old = HERE / "goldens.json"
    if args.templates:
        for path in sorted(args.templates.glob("*.jinja")):
            text = path.read_text(encoding="utf-8")
            hashes = []
            for conv in cases.CONVERSATIONS:
                got = render(strict, text, json.loads(json.dumps({**conv, **cases.TOKENS})))
                hashes.append(hashlib.sha256(got.encode("utf-8")).hexdigest()
                              if isinstance(got, str) else got)
            out["templates"][path.name] = hashes
    elif old.exists():
        out["templates"] = json.loads(old.read_text())["templates"]
    out["tokens"] = cases.TOKENS
    with open(old, "w", encoding="utf-8") as f:
        f.write("{\n")
        for i, (key, value) in enumerate(out.items()):
            f.write(f"{json.dumps(key)}: ")
            if isinstance(value, list):
                rows = ",\n".join(json.dumps(v, ensure_ascii=False) for v in value)
                f.write(f"[\n{rows}\n]")
            else:
                f.write(json.dumps(value, ensure_ascii=False))
            f.write(",\n" if i + 1 < len(out) else "\n}\n")
    failed = sum(c["o"] is None for c in out["cases"])
    print(f"{len(out['cases'])} cases ({failed} that fail), {len(out['conversations'])} "
          f"conversations, {len(out['templates'])} templates")


if __name__ == "__main__":
    main()
