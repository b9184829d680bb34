# SPDX-License-Identifier: Apache-2.0
"""h11 as the oracle: whatever our codec accepts h11 reads as the same messages, and what it refuses
beyond h11 it refuses for one of the reasons listed here."""

import os
import random
import re
import struct
import subprocess

import h11

HOST = b"Host: example.org\r\n"
SEEDS = [
    b"GET / HTTP/1.1\r\n" + HOST + b"\r\n",
    b"GET /a/b?c=d&e=%20 HTTP/1.1\r\n" + HOST + b"Accept: */*\r\nX-Y:  z \r\n\r\n",
    b"POST /x HTTP/1.1\r\n" + HOST + b"Content-Length: 11\r\n\r\nhello world",
    b"POST /x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    b"POST /x HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: v\r\n\r\n",
    b"GET /x HTTP/1.0\r\n\r\n",
    b"DELETE /x HTTP/1.1\r\nConnection: keep-alive\r\n" + HOST + b"\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"\r\nPOST /2 HTTP/1.1\r\nContent-Length: 2\r\n" + HOST + b"\r\nhi",
]


def ours(inputs):
    data = b"".join(struct.pack("<I", len(i)) + i for i in inputs)
    out = subprocess.run([os.environ["QN_HTTP_TRANSCRIPT"]], input=data, capture_output=True, check=True, timeout=120)
    lines = out.stdout.decode().splitlines()
    assert len(lines) == len(inputs)
    result = []
    for line in lines:
        *messages, end = line.split(";")
        parsed = []
        for m in messages:
            method, target, minor, fields, body = m.split(" ")
            parsed.append((bytes.fromhex(method), bytes.fromhex(target), int(minor), int(fields), bytes.fromhex(body)))
        result.append((parsed, end))
    return result


def theirs(data):
    # One blank line before a message is to be ignored (RFC 9112, 2.2); h11 does not.
    data = data.removeprefix(b"\r\n")
    if not data:
        return [], "end"
    c = h11.Connection(h11.SERVER)
    c.receive_data(data)
    messages, head, body = [], None, b""
    try:
        while True:
            e = c.next_event()
            if e is h11.NEED_DATA:
                rest = c.trailing_data[0]
                return messages, "open" if head or rest else "end"
            if isinstance(e, h11.Request):
                head, body = e, b""
            elif isinstance(e, h11.Data):
                body += bytes(e.data)
            elif isinstance(e, h11.EndOfMessage):
                minor = int(head.http_version[-1:])
                messages.append((head.method, head.target, minor, len(head.headers), body))
                head = None
                rest = c.trailing_data[0].removeprefix(b"\r\n")
                if not rest:
                    return messages, "end"
                c = h11.Connection(h11.SERVER)
                c.receive_data(rest)
    except h11.RemoteProtocolError as e:
        return messages, "bad " + str(e.error_status_hint)


def mutate(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(6)
        if kind == 0 and at < len(data):
            data[at] = rng.choice(b"\r\n\t :;,/%\0aA09f+-\x7f\x80")
        elif kind == 1:
            del data[at : at + rng.randint(1, 3)]
        elif kind == 2:
            data[at:at] = rng.choice([b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b";x=y", b",", b"0", b"f"])
        elif kind == 3:
            line = rng.choice([b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", HOST, b"X: y\r\n",
                               b"Transfer-Encoding: identity\r\n", b" folded\r\n", b"Content-Length: 1,1\r\n",
                               b"Content-Length: +3\r\n", b"X : y\r\n", b"Connection: close\r\n"])
            starts = [m.end() for m in re.finditer(rb"\r\n", bytes(data))] or [0]
            at = rng.choice(starts)
            data[at:at] = line
        elif kind == 4:
            del data[at:]
        else:
            data = bytearray(bytes(data).replace(*rng.choice([(b"\r\n", b"\n"), (b"HTTP/1.1", b"HTTP/1.0"),
                                                              (b": ", b":"), (b"/", b"//")]), 1))
    return bytes(data)


def test_against_h11():
    rng = random.Random(11)
    inputs = SEEDS + [mutate(rng, rng.choice(SEEDS)) for _ in range(30000)]
    stricter = both = 0
    for data, (mine, my_end) in zip(inputs, ours(inputs)):
        their, their_end = theirs(data)
        # Never a message that h11 would not see, or would see otherwise. What h11 cannot tell is a
        # connection that ends after a message of HTTP/1.0, or after "Connection: close".
        assert mine == their[: len(mine)], data
        if my_end.startswith("bad"):
            stricter += not their_end.startswith("bad")
        else:
            both += 1
            assert len(mine) == len(their), data
            if their_end.startswith("bad"):
                # h11 judges a line that is not whole yet.
                assert my_end == "open", data
    for data, (mine, my_end) in zip(SEEDS, ours(SEEDS)):
        assert my_end == "end" and mine == theirs(data)[0], data
    assert both > 3000 and stricter > 500


def test_what_h11_lets_pass_and_we_do_not():
    cases = {
        b"GET / HTTP/1.1\n" + HOST + b"\r\n": "bad 400",  # bare line feeds
        b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n": "bad 400",  # folded lines
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi": "bad 400",
        b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 2, 2\r\n\r\nhi": "bad 400",
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nhi\r\n0\r\n\r\n": "bad 400",
        b"GET //a HTTP/1.1\r\n" + HOST + b"\r\n": "bad 400",
        b"GET /%2e%2e/a HTTP/1.1\r\n" + HOST + b"\r\n": "bad 400",
    }
    for data, (mine, end) in zip(cases, ours(list(cases))):
        assert (mine, end) == ([], cases[data]), data
        assert not theirs(data)[1].startswith("bad"), data
