# SPDX-License-Identifier: Apache-2.0
"""Requests that were good, until something changed them: 1,000 of them, from a seed. None may get a 500,
whatever is answered is HTTP with an error of the one shape, and good requests go on being answered."""

import json
import os
import random
import re
import socket
import threading

import h11

from test_http import BODY

N, SEED = int(os.environ.get("QN_MUTATIONS", 1000)), int(os.environ.get("QN_SEED", 0))

CHAT = {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [
    {"type": "text", "text": "What is 2 + 3?"}]}], "max_tokens": 5, "temperature": 0.5, "seed": 1, "n": 2,
    "logprobs": True, "top_logprobs": 2, "stop": ["x", "\n\n"], "logit_bias": {"70": 1.5}, "stream": True,
    "stream_options": {"include_usage": True}, "presence_penalty": 0.1, "cache_salt": "s"}
COMPLETION = {"prompt": ["a b c", "d"], "max_tokens": 3, "min_tokens": 1, "top_k": 5, "top_p": 0.9,
    "min_p": 0.1,
              "logprobs": 1, "stop_token_ids": [70], "bad_words": ["never"], "allowed_token_ids": [70,
                  71, 72],
              "repetition_penalty": 1.2, "priority": -1, "return_token_ids": True, "ignore_eos": True}
BODIES = {b"/v1/chat/completions": CHAT, b"/v1/completions": COMPLETION,
          b"/tokenize": {"prompt": "a b", "add_special_tokens": True, "return_token_strs": True},
          b"/detokenize": {"tokens": [70, 71, 72]}}
NUMBERS = ["1e999", "-1e999", "NaN", "Infinity", "1e308", "-0", "0.1e-400", "9" * 40, "-" + "9" * 40,
    "2147483648",
           "-2147483649", "9223372036854775808", "18446744073709551616", "1.5", "0x10", "01", "1.",
           ".5", "+1"]
VALUES = [None, True, False, 0, -1, 2**31, 2**53, 1.5, "", "x" * 3000, "\0", "\ud800", [], {}, [[]],
    [None], {"a": {}},
          [1] * 3000, ["x"] * 200, [[[[[[[[]]]]]]]], {"": ""}]


def walk(value, path=()):
    yield path
    if isinstance(value, dict):
        for k, v in value.items():
            yield from walk(v, path + (k,))
    elif isinstance(value, list):
        for i, v in enumerate(value):
            yield from walk(v, path + (i,))


def change_json(rng, value):
    """A body with one value, name or count of it changed, as bytes."""
    value = json.loads(json.dumps(value))
    path = rng.choice([p for p in walk(value) if p])
    at = value
    for k in path[:-1]:
        at = at[k]
    kind = rng.randrange(7)
    if kind == 0:
        at[path[-1]] = rng.choice(VALUES)
    elif kind == 1:
        at[path[-1]] = "@number@"
        return json.dumps(value).encode().replace(b'"@number@"', rng.choice(NUMBERS).encode())
    elif kind == 2:
        depth = rng.choice((10, 63, 64, 65, 1000, 50000))
        at[path[-1]] = "@deep@"
        a, b = rng.choice([(b"[", b"]"), (b'{"a":', b"}")])
        return json.dumps(value).encode().replace(b'"@deep@"', a * depth + b"1" + b * rng.choice((depth,
            depth - 1)))
    elif kind == 3 and isinstance(at, dict):
        at[rng.choice(["n", "max_tokens", "stop", "prompt", "messages", "tools", "x"])] = rng.choice(VALUES)
    elif kind == 4:
        del at[path[-1]]
    elif kind == 5:
        text = json.dumps(value).encode()
        return text[: rng.randrange(len(text))]
    else:
        text = json.dumps(value)
        name = json.dumps(next(iter(value)))
        return text.replace("{", "{%s: 1, " % name, 1).encode()  # twice the same name
    return json.dumps(value).encode()


def change_bytes(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, kind = rng.randrange(len(data) + 1), rng.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at : at + rng.randint(1, 8)]
        elif kind == 2:
            data[at:at] = rng.choice([b"\r\n", b"\n", b"\r", b"\0", b" ", b"%00", b"}", b"[", b"9" * 20,
                b'"', b":", b"\xff"])
        elif kind == 3:
            data[at:at] = data[max(0, at - 30) : at]
        elif kind == 4 and at:
            del data[at:]
        else:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 40)))
    return bytes(data) or b"\0"


def chunked(rng, body):
    out, at = b"", 0
    while at < len(body):
        n = rng.randint(1, 60)
        out += b"%x\r\n%s\r\n" % (len(body[at : at + n]), body[at : at + n])
        at += n
    return out + b"0\r\n\r\n"


def change_chunks(rng, data):
    sizes = [m.span() for m in re.finditer(rb"(?:^|(?<=\r\n))[0-9a-f]+(?=\r\n)", data)]
    a, b = rng.choice(sizes)
    size = rng.choice([b"%x" % (int(data[a:b], 16) + rng.choice((-1, 1, 100))).__abs__(), b"-1", b"",
        b"g", b"0" * 17, b"f" * 16,
                       data[a:b] + b";x=y", b" " + data[a:b], b"0x" + data[a:b], data[a:b] + b"\r"])
    return data[:a] + size + data[b:]


def change_head(rng, head, length):
    lines = head.split(b"\r\n")
    at = rng.randrange(1, len(lines))
    kind = rng.randrange(7)
    if kind == 0:
        lines.insert(at, lines[rng.randrange(1, len(lines))])
    elif kind == 1:
        lines.insert(at, rng.choice([
            b"Content-Length: %d" % (length + rng.choice((-1, 0, 1, 10))),
            b"Transfer-Encoding: chunked", b"Content-Length: -1",
            b"Content-Length: 99999999999999999999", b"Content-Length: 1e3",
            b"Transfer-Encoding: gzip, chunked", b" folded",
            b"Expect: 100-continue", b"Connection: keep-alive, close", b"Host: evil.example",
            b"X: " + b"y" * 40000,
            b"Authorization: Bearer x", b"Upgrade: h2c", b"X-Request-Id: a\x01b",
            b"Content-Encoding: gzip", b"Origin: null"]))
    elif kind == 2:
        lines = lines[:1] + [b"X-%d: y" % i for i in range(rng.choice((90, 101, 5000)))] + lines[1:]
    elif kind == 3 and at < len(lines):
        del lines[at]
    elif kind == 4:
        lines[0] = rng.choice([lines[0].replace(b"HTTP/1.1", v) for v in (b"HTTP/1.0", b"HTTP/2.0",
            b"HTTP/1.1x", b"")]
                              + [lines[0].replace(b" /", b" " + p) for p in (b"//", b"/%2f", b"/../",
                                  b"http://localhost/", b"/%00", b"*")]
                              + [lines[0].replace(b"POST", m) for m in (b"GET", b"PUT", b"CONNECT",
                                  b"OPTIONS", b"post", b"POST\t")])
    elif kind == 5:
        lines[at % len(lines)] = lines[at % len(lines)].replace(b": ", rng.choice([b":", b" : ",
            b":\t\0", b": \x7f", b";"]))
    else:
        return b"\n".join(lines)
    return b"\r\n".join(lines)


def mutated(rng):
    path = rng.choice(list(BODIES))
    kind = rng.randrange(4)
    body = change_json(rng, BODIES[path]) if kind == 0 else json.dumps(BODIES[path]).encode()
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n" % path
    in_chunks = rng.random() < 0.3 or kind == 2
    head += b"Transfer-Encoding: chunked" if in_chunks else b"Content-Length: %d" % len(body)
    if kind == 1:
        head = change_head(rng, head, len(body))
    sent = chunked(rng, body) if in_chunks else body
    if kind == 2:
        sent = change_chunks(rng, sent)
    data = head + b"\r\n\r\n" + sent
    return change_bytes(rng, data) if kind == 3 else data


def exchange(port, data, patience):
    s = socket.create_connection(("127.0.0.1", port), timeout=patience)
    answer = b""
    try:
        s.sendall(data)
        while piece := s.recv(65536):
            answer += piece
        return answer, True
    except (TimeoutError, ConnectionResetError, BrokenPipeError):
        return answer, False
    finally:
        s.close()


def responses(raw):
    """All responses of a connection that was closed, as h11 reads them: [(status, body)]."""
    out = []
    while raw:
        c = h11.Connection(h11.CLIENT)
        c.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        c.send(h11.EndOfMessage())
        c.receive_data(raw)
        status, body, ended = None, b"", False
        while True:
            e = c.next_event()
            if e is h11.NEED_DATA:
                assert not ended, "an incomplete response: %r" % raw[:500]
                ended = True
                c.receive_data(b"")
            elif isinstance(e, (h11.Response, h11.InformationalResponse)):
                status = e.status_code
            elif isinstance(e, h11.Data):
                body += bytes(e.data)
            elif isinstance(e, h11.EndOfMessage):
                break
            else:
                assert isinstance(e,
                    h11.ConnectionClosed) and status == 100, "an incomplete response: %r" % raw[:500]
                return out
        out.append((status, body))
        raw = c.trailing_data[0]
    return out


def test_mutated_requests(server):
    counts, failures, lock = {}, [], threading.Lock()

    def run(part):
        rng = random.Random("%d %d" % (SEED, part))
        for i in range(N // 8):
            data = mutated(rng)
            try:
                answer, whole = exchange(server.port, data, 0.3)
                assert not answer or answer.startswith(b"HTTP/1.1 "), answer[:100]
                if whole:
                    for status, body in responses(answer):
                        with lock:
                            counts[status] = counts.get(status, 0) + 1
                        assert status < 500 or status in (501, 503, 505), answer
                        if status >= 400:
                            error = json.loads(body)["error"]
                            assert set(error) == {"message", "type", "param",
                                "code"} and error["message"], body
                if i % 50 == 49:
                    status, _, r = server.request("POST", "/v1/chat/completions", BODY)
                    assert status == 200 and r["choices"], r
                    assert server.request("GET", "/health")[0] == 200
            except (AssertionError, KeyError, ValueError, OSError, h11.RemoteProtocolError) as e:
                failures.append((data[:3000], repr(e)))
                return

    threads = [threading.Thread(target=run, args=(part,)) for part in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures, failures[0]
    print(sorted(counts.items()))
    # Good, malformed and too large ones were among them.
    assert counts.get(200, 0) > N / 50 and counts.get(400, 0) > N / 5, counts
    assert {413, 431} <= set(counts), counts
    server.wait_idle(60)
    assert server.metric("vllm:kv_cache_usage_perc") == 0
    assert server.request("POST", "/v1/chat/completions", BODY)[0] == 200
