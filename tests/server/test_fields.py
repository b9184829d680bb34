# SPDX-License-Identifier: Apache-2.0
"""docs/openai-fields.md and docs/flags.md say what the server does: each example of theirs is sent."""

import json
import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = {"honoured", "limits", "refused", "ignored"}
MESSAGES = [{"role": "user", "content": "What is 2 + 3?"}]
# What an accepted example needs beside it.
BESIDE = {
    "top_logprobs": {"logprobs": True},
    "stream_options": {"stream": True},
    "continue_final_message": {"messages": MESSAGES + [{"role": "assistant", "content": "It is"}]},
    "best_of": {"n": 1},
    "ignore_eos": {"max_tokens": 3},
}


def tables(page, columns):
    """(heading, cells) of each row of the page's tables."""
    heading, header = "", True
    for line in (ROOT / "docs" / page).read_text().splitlines():
        if line.startswith("## "):
            heading = line[3:]
        if not line.startswith("|"):
            header = True
            continue
        cells = [c.strip("| ") for c in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
        if header:
            header = False
            assert len(cells) == columns, line
        elif not set(cells[0]) <= set("- "):
            assert len(cells) == columns, line
            yield heading, cells


def fields():
    for heading, (name, _, here, accepted, refused, _) in tables("openai-fields.md", 6):
        assert here in KINDS and re.fullmatch(r"`\w+`", name), name
        both = heading == "Both routes"
        routes = ["chat/completions", "completions"] if both else [heading.strip("`")[4:]]
        for route in routes:
            yield route, name.strip("`"), here, accepted.strip("`"), refused.strip("`")


FIELDS = list(fields())


def post(server, route, name, value):
    body = {"max_tokens": 2, **BESIDE.get(name, {})}
    body.setdefault("messages", MESSAGES) if "chat" in route else body.setdefault("prompt", "Once")
    if name == "max_completion_tokens":
        body.pop("max_tokens")
    body[name] = value
    return server.request("POST", "/v1/" + route, body)


@pytest.mark.parametrize("route,name,here,accepted,refused", FIELDS,
                         ids=[f"{r}-{n}" for r, n, *_ in FIELDS])
def test_field(server, route, name, here, accepted, refused):
    assert refused or here == "ignored", "a field that can be wrong needs an example of it"
    assert accepted
    status, _, r = post(server, route, name, json.loads(accepted))
    assert status == 200, r
    if refused:
        status, _, r = post(server, route, name, json.loads(refused))
        assert status == 400 and r["error"]["param"].startswith(name), r
        assert name.split("_")[0] in r["error"]["message"]


def test_every_refused_field_is_on_the_page():
    source = (ROOT / "server" / "request.c").read_text()
    names = set(re.findall(r'\{"(\w+)", NEUTRAL_', source))
    assert len(names) > 20
    assert names == {n for _, n, here, *_ in FIELDS if here == "refused"}


def test_every_field_of_the_client_is_on_the_page():
    """The real client's own parameters: none may be unheard of."""
    from openai.types import completion_create_params as completions
    from openai.types.chat import completion_create_params as chat

    for route, params in (("chat/completions", chat), ("completions", completions)):
        known = set(params.CompletionCreateParamsBase.__annotations__)
        assert len(known) > 10
        missing = known - {n for r, n, *_ in FIELDS if r == route}
        assert not missing


def test_flags():
    rows = [cells for _, cells in tables("flags.md", 3)]
    assert len(rows) > 60
    quern = os.environ["QN_QUERN"]
    text = subprocess.run([quern, "serve", "--help"], capture_output=True, text=True).stdout
    shown = set(re.findall(r"^ +(?:-\w, )?(--[\w-]+)", text, re.M))
    assert len(shown) > 20
    listed = set()
    for flag, here, _ in rows:
        flag = flag.strip("`")
        assert here in ("honoured", "limits", "refused") and re.fullmatch(r"--[\w-]+", flag), flag
        listed.add(flag)
        if here == "refused":
            r = subprocess.run([quern, "serve", "no-such-model", flag, "1"], capture_output=True,
                               text=True)
            assert r.returncode != 0 and flag in r.stderr, (flag, r.stderr)
            assert flag not in shown
        else:
            assert flag in shown, flag
    assert shown - {"--help"} <= listed
