# SPDX-License-Identifier: Apache-2.0
"""What took down servers of this kind, one case for each kind of it, kept.

Each case is sent to one server; afterwards the next good request must be answered and nothing may be left.
Rows that are not about requests are kept elsewhere:
  model files (GGUF, safetensors): tests/formats/{gguf_test,safetensors_test,mutation_test}.c, tests/fuzz/
  chat templates (recursion, range(), output): tests/template/test_template_hostile.c
  tokenizer files and text: tests/tokenizer/, tests/fuzz/tokenizer_*.c
  HTTP framing against h11: tests/http/test_h11.py, byte tables: tests/http/test_codec.c
  deadlines, output caps: tests/http/test_conn.c; clients that leave: test_disconnect.py
  cached KV of other keys: test_access.py; JSON of any kind: tests/fuzz/request_json.c, test_mutated.py
There are no grammars, adapters, speculation, parsers of tool calls and control channels here to attack."""

import itertools
import json
import random
import socket
import ssl
import time

import pytest

from conftest import Server
from test_http import get, post, statuses
from test_tls import make_cert

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES = '[{"role": "user", "content": "x"}]'
GOOD = {"messages": [{"role": "user", "content": "What is 2 + 3?"}], "max_tokens": 3}


@pytest.fixture(scope="module")
def server():
    s = Server("--max-body-bytes", "1Mi")
    yield s
    code = s.stop() if s.process.poll() is None else None
    s.close()
    assert code == 0, "the server did not survive its tests"


def chat(fields):
    return CHAT, '{"messages": %s, "max_tokens": 2, %s}' % (MESSAGES, fields)


def completion(fields):
    return COMPLETIONS, '{"prompt": "x", "max_tokens": 2, %s}' % fields


def array(element, n):
    return "[" + ", ".join([element] * n) + "]"


# (what it guards, the requests, the status)
FIELDS = [
    # A NaN or an infinity among the sampling parameters poisons a whole batch.
    ("not finite", [chat('"%s": %s' % (f, v)) for f in ("temperature", "top_p", "min_p", "presence_penalty",
     "repetition_penalty") for v in ("1e999", "-1e999", "NaN", "Infinity", "1e308", "-1e308")], 400),
    # Counts without a cap are memory without a cap.
    ("counts", [chat(f) for f in (
        '"n": 129', '"n": 2147483648', '"logprobs": true, "top_logprobs": 21', '"stop": ' + array('"x"', 65),
        '"stop": ["%s"]' % ("x" * 1025), '"stop_token_ids": ' + array("7", 65),
        '"logit_bias": {%s}' % ", ".join('"%d": 1' % i for i in range(1025)),
        '"bad_words": ' + array('"x"', 129),
        '"tools": ' + array('{"type": "function", "function": {"name": "f"}}', 257), '"prompt_logprobs": 21')]
     + [(CHAT, '{"messages": %s}' % array('{"role": "user", "content": "x"}', 4097)),
        (CHAT, '{"messages": [{"role": "user", "content": %s}]}' % array('{"type": "text", "text": "x"}', 1025)),
        (COMPLETIONS, '{"prompt": %s}' % array('"x"', 129)),
        (COMPLETIONS, '{"prompt": %s, "n": 2}' % array('"x"', 65))], 400),
    # Fields that each are fine, and together end the thread that reads them.
    ("pairs that disagree", [chat(f) for f in (
        '"min_tokens": 3', '"stream_options": {"include_usage": true}', '"top_logprobs": 1',
        '"best_of": 2, "n": 3',
        '"prompt_logprobs": 1, "stream": true', '"continue_final_message": true')] + [
        (CHAT, '{"messages": %s, "min_tokens": 20, "max_completion_tokens": 10}' % MESSAGES),
        (CHAT, '{"messages": %s, "min_tokens": 2000000000}' % MESSAGES),
        (CHAT, '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], '
               '"continue_final_message": true, "add_generation_prompt": true}')], 400),
    # An id outside the vocabulary is an index outside an array.
    ("ids out of range", [(COMPLETIONS, '{"prompt": [%s]}' % i) for i in (
        "-1", "1000000", "2147483648", "-2147483649", "9223372036854775808", "1.5", "null", "true")]
     + [(COMPLETIONS, '{"prompt": [[7], [-1]]}')]
     + [completion('"%s": [%s]' % (f, i)) for f in ("stop_token_ids", "allowed_token_ids")
        for i in ("-1", "1000000", "4294967303")]
     + [completion('"logit_bias": {"%s": 1}' % i) for i in (
        "-1", "1000000", "4294967303", "7x", "", " 7", "07", "1e1")]
     + [("/detokenize", '{"tokens": [%s]}' % i) for i in ("-1", "1000000", "4294967303", "1.5", "null")], 400),
    # Negative and huge integers where a size is meant.
    ("integers", [chat('"%s": %s' % (f, v)) for f in ("n", "min_tokens", "top_k", "top_logprobs", "priority")
     for v in ("-2147483649", "9223372036854775807", "99999999999999999999999")]
     + [(CHAT, '{"messages": %s, "max_tokens": %s}' % (MESSAGES, v)) for v in (
        "-1", "0", "2147483648", "1e3", "4294967297")], 400),
    # A salt with a path or a NUL in it once ended an engine.
    ("cache_salt", [chat('"cache_salt": %s' % v) for v in (
        '"a/b"', '"a\\\\b"', '"a@b"', '"a\\u0000b"', '""', '"%s"' % ("x" * 129), "5", "[]")], 400),
    # Nesting and repeated names: stacks and hash tables.
    ("JSON", [(CHAT, v) for v in (
        "[" * 100000, '{"a":' * 100000, '{"messages": %s, "x": %s1%s}' % (MESSAGES, "[" * 64, "]" * 64),
        '{"messages": %s, "messages": %s}' % (MESSAGES, MESSAGES),
        '{"messages": %s, "x": {"a": 1, "a": 2}}' % MESSAGES,
        '{"messages": %s, "x": [%s]}' % (MESSAGES, ", ".join(["{}"] * 70000)), '{"messages": %s' % MESSAGES,
        '{"messages": %s} x' % MESSAGES, "", "null", "[]", '"x"', "\ufeff{}", '{"messages": "\\ud800"}',
        "{'messages': 1}")], 400),
    # Templates of a request are programs of a stranger; variables must not shadow the server's.
    ("templates", [chat('"chat_template": "{%% for i in range(10**9) %%}x{%% endfor %%}"'),
                   chat('"chat_template_kwargs": {"messages": []}'),
                   chat('"chat_template_kwargs": {"tools": 1}')], 400),
    # Words that nobody here would look for are searched in every token.
    ("stop strings", [chat('"stop": [""]'), chat('"stop": "\\u0000"'), chat('"bad_words": [" "]'),
        chat('"bad_words": [""]')], 400),
    # More than the context: refused by length, not computed; and too large a body is not read.
    ("length", [(COMPLETIONS, json.dumps({"prompt": "word " * 100000})), (COMPLETIONS,
        json.dumps({"prompt": [7] * 2048})),
                (CHAT, json.dumps({"messages": [{"role": "user", "content": "word " * 100000}]}))], 400),
    ("body", [(CHAT, '{"messages": "%s"}' % ("x" * (1 << 20)))], 413),
]


@pytest.mark.parametrize("requests,status", [r[1:] for r in FIELDS], ids=[r[0] for r in FIELDS])
def test_field(server, requests, status):
    for path, body in requests:
        code, headers, r = server.request("POST", path, body.encode(errors="surrogatepass"))
        assert code == status, (path, body[:300], code, r)
        assert set(r["error"]) == {"message", "type", "param", "code"} and r["error"]["message"], r
        assert len(r["error"]["message"]) < 600
    code, _, r = server.request("POST", CHAT, GOOD)
    assert code == 200 and r["choices"]
    server.wait_idle()
    assert server.metric("vllm:kv_cache_usage_perc") == 0


# Each pair of these together is either answered or refused: nothing hangs, nothing is a 500.
FEATURES = [
    {"n": 3}, {"stream": True}, {"logprobs": 2}, {"echo": True}, {"prompt_logprobs": 1}, {"stop": ["e",
        "the"]},
    {"stop_token_ids": [70]}, {"min_tokens": 4}, {"ignore_eos": True}, {"presence_penalty": 1.0},
    {"frequency_penalty": 1.0},
    {"repetition_penalty": 1.5}, {"logit_bias": {"70": 5}}, {"allowed_token_ids": [70, 71]},
    {"bad_words": ["the", "a b"]},
    {"seed": 5}, {"temperature": 0}, {"top_k": 1}, {"top_p": 0.1}, {"min_p": 0.5}, {"cache_salt": "s"},
    {"priority": 3},
    {"return_token_ids": True}, {"include_stop_str_in_output": True}, {"skip_special_tokens": False},
    {"max_tokens": 1},
    {"prompt": ["a", "b c"]}, {"prompt": [70, 71]}, {"stream": True,
        "stream_options": {"continuous_usage_stats": True}},
]


def test_pairs_of_features(server):
    for a, b in itertools.combinations(FEATURES, 2):
        code, _, r = server.request("POST", COMPLETIONS, {"prompt": "the cat", "max_tokens": 5, **a, **b})
        assert code in (200, 400), (a, b, r)
        if code == 400:
            assert r["error"]["param"], (a, b, r)
    server.wait_idle()
    assert server.metric("vllm:kv_cache_usage_perc") == 0


# ------------------------------------------------------------------ who may come in

ODD_PATHS = [b"//v1/models", b"/v1//models", b"/v1%2fmodels", b"/v1%2Fmodels", b"/v1/models%00",
    b"/v1/models%00.txt", b"/v1/./models",
             b"/health/../v1/models", b"/health/%2e%2e/v1/models", b"/health%2f..%2fv1/models",
             b"/V1/models", b"/v1/models/",
             b"/v1/models;/health", b"/v1/models?/health", b"/v1/models#/health",
             b"http://localhost/v1/models",
             b"http://localhost@x/v1/models", b"http:///v1/models", b"\\v1\\models", b"/v1\\models",
             b"/\xc3\xb6/../v1/models", b"/v%31/models", b"/%76%31/models", b"*", b"v1/models",
             b"/health v1/models"]
ODD_FIELDS = [b"X-Original-URL: /health\r\n", b"X-Rewrite-URL: /health\r\n",
    b"X-HTTP-Method-Override: GET\r\n", b"Host: localhost\r\n",
              b"Authorization: Bearer\r\n", b"Authorization: Bearer \r\n",
              b"Authorization: Basic c2VjcmV0\r\n",
              b"Authorization: Bearer x\r\nAuthorization: Bearer secret\r\n",
              b"Authorization: Bearer secret, Bearer x\r\n",
              b"Authorization: Bearer secretx\r\n", b"Authorization: Bearer secre\r\n",
              b"Authorization: bearersecret\r\n",
              b"Authorization : Bearer secret\r\n", b"Proxy-Authorization: Bearer secret\r\n",
              b"Api-Key: secret\r\n",
              b"Authorization: Bearer " + b"s" * 20000 + b"\r\n"]
ODD_HOSTS = [b"localhost/health", b"localhost:8000@evil", b"localhost, evil", b"evil.example", b"[::1",
    b"localhost:99999999", b"\xff"]


def test_no_way_around_the_key(start):
    """A path, a host or a field that is read twice in two ways lets somebody in: nothing is read twice here."""
    s = start("--api-key", "secret")
    asks = [b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % p for p in ODD_PATHS]
    asks += [b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s\r\n" % f for f in ODD_FIELDS]
    with_key = b"GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nAuthorization: Bearer secret\r\n\r\n"
    asks += [with_key % (b"/v1/models", host) for host in ODD_HOSTS]
    asks += [b"GET /v1/models HTTP/1.1\r\nConnection: close\r\nAuthorization: Bearer secret\r\n\r\n"]
    for ask in asks:
        answer = s.raw(ask)
        assert b'"quern-demo"' not in answer, ask[:200]
        assert statuses(answer)[0] in (400, 401, 403, 404, 405, 431), (ask[:200], answer[:200])
    assert b'{"status":' in s.raw(get(b"/health?/../v1/models",
        b"Connection: close\r\n"))  # a query is no path
    assert b'"quern-demo"' in s.raw(with_key % (b"/v1/models", b"localhost"))
    # What is percent-encoded without need is the same path, for the key as well as for the route.
    assert b'"quern-demo"' in s.raw(with_key % (b"/v%31/models", b"localhost"))


# ------------------------------------------------------------------ framing

BODY = b'{"prompt": "x"}'
POST = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
FRAMING = [
    # Two lengths: what one hop takes for a body is a request for the next.
    ("two lengths", [POST + f + b"\r\n\r\n" + BODY + SMUGGLED for f in (
        b"Content-Length: 15\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 15",
        b"Content-Length: 15\r\nContent-Length: 15", b"Content-Length: 15\r\nContent-Length: 0",
        b"Content-Length: 15, 15",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: chunked;q=1", b"Transfer-Encoding : chunked",
        b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding: \x00chunked",
        b"Content-Length: +15", b"Content-Length: -15", b"Content-Length: 0x0f", b"Content-Length: 1 5",
        b"Content-Length: ",
        b"Content-Length: 15\x00", b"Content-Length : 15", b"Content-Length: 15\n",
        b"Content-Length: \n 15", b"Content-Length:\r\n 15")], {400}),
    ("too long", [POST + b"Content-Length: %s\r\n\r\n" % n for n in (b"1048577",
        b"99999999999999999999", b"18446744073709551631")], {413}),
    ("chunks", [CHUNKED + c + SMUGGLED for c in (
        b"f;x=y\r\n" + BODY + b"\r\n0\r\n\r\n", b"F \r\n" + BODY + b"\r\n0\r\n\r\n",
        b"0xf\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"+f\r\n" + BODY + b"\r\n0\r\n\r\n", b"-1\r\n", b"\r\n", b"g\r\n", b"00000000000000000\r\n\r\n",
        b"f\n" + BODY + b"\r\n0\r\n\r\n",
        b"f\r\n" + BODY + b"0\r\n\r\n", b"e\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"f\r\n" + BODY + b"\r\n0\r\nHost: x\r\n\r\n",
        b"f\r\n" + BODY + b"\r\n0\r\nContent-Length: 5\r\n\r\n", b"f\r\n" + BODY + b"\r\n0\r\n x: y\r\n\r\n",
        b"f\r\n" + BODY + b"\r\n0\r\nx : y\r\n\r\n", b"f\r\n" + BODY + b"\r\n0\n\n",
        b"f\r" + BODY + b"\r\n0\r\n\r\n")], {400}),
    ("chunks that add up", [CHUNKED + b"f" * 16 + b"\r\n", CHUNKED + b"7fffffffffffffff\r\n",
        CHUNKED + b"100001\r\n"], {413}),
    ("trailers", [CHUNKED + b"f\r\n" + BODY + b"\r\n0\r\n" + b"X: y\r\n" * 40 + b"\r\n",
                  CHUNKED + b"f\r\n" + BODY + b"\r\n0\r\nX: " + b"y" * 9000 + b"\r\n\r\n"], {400, 431}),
    ("header lines", [b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + f + b"\r\n\r\n" + SMUGGLED for f in (
        b" folded: x", b"A: b\r\n\tfolded", b"A\x00: b", b"A: \x00b", b"A: \x1fb", b"A: b\x7f",
        b"A : b", b": b", b"A", b"A b: c", b"\xc3\xb6: x",
        b"A: b\rC: d", b"A: b\nC: d", b"Host: localhost", b"Host : localhost", b"(x): y",
        b"A:b\x0b\r")], {400}),
    ("too many header lines", [b"GET /health HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 101 + b"\r\n",
                               b"GET /health HTTP/1.1\r\nHost: localhost\r\nA: " + b"b" * 33000 + b"\r\n\r\n",
                               b"GET /" + b"a" * 33000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
                               b"A" * 40000], {400, 431}),
    ("request lines", [line + b"\r\nHost: localhost\r\n\r\n" for line in (
        b"GET  /health HTTP/1.1", b"GET /health  HTTP/1.1", b"GET /health HTTP/1.1 ",
        b" GET /health HTTP/1.1", b"GET\t/health HTTP/1.1",
        b"GET /health", b"GET /health HTTP/1", b"GET /health HTTP/11", b"GET /health http/1.1",
        b"GET /health HTTP/1.10", b"GET /hea lth HTTP/1.1",
        b"G\x00T /health HTTP/1.1", b"GET /health\x00 HTTP/1.1", b"GET /health\xff HTTP/1.1",
        b"GET health HTTP/1.1", b"GET @health HTTP/1.1",
        b"PRI * HTTP/2.0\r\n\r\nSM", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"CONNECT localhost:80 HTTP/1.1",
        b"AAAAAAAAAAAAAAAAAAAAAAAAA /health HTTP/1.1")], {400, 505}),
    ("versions", [b"GET /health HTTP/%s\r\nHost: localhost\r\n\r\n" % v for v in (b"2.0", b"3.0",
        b"0.9", b"1.2", b"9.9")], {505}),
    ("Expect", [POST + b"Content-Length: 15\r\nExpect: %s\r\n\r\n" % e for e in (b"200-ok",
        b"100-continue, x", b"")], {417}),
]


@pytest.mark.parametrize("asks,status", [r[1:] for r in FRAMING], ids=[r[0] for r in FRAMING])
def test_framing(server, asks, status):
    for ask in asks:
        got = statuses(server.raw(ask))
        # One answer, and then the connection is closed: nothing behind it is taken for a request.
        assert len(got) == 1 and got[0] in status, (ask[:300], got)
    assert server.request("POST", CHAT, GOOD)[0] == 200
    assert statuses(server.raw(CHUNKED + b"f\r\n" + BODY + b"\r\n0\r\nX: y\r\n\r\n"
                               + get(extra=b"Connection: close\r\n"))) == [200, 200]


# ------------------------------------------------------------------ slow ones

HEAD = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SLOW_SENDERS = {  # what is sent at once, what follows a byte at a time
    "request line": (b"", b"GET /" + b"a" * 1000),
    "header field": (HEAD, b"X: " + b"y" * 1000),
    "header lines": (HEAD, b"X: y\r\n" * 90),
    "blank line before": (b"\r\n", b""),
    "body": (HEAD + b"Content-Length: 1000\r\n\r\n", b'{"prompt": "' + b"x" * 900),
    "body of one byte chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n{\r\n" * 200),
    "chunk size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0000000000000001\r\n{\r\n" * 40),
    "trailer": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nf\r\n" + BODY + b"\r\n0\r\n", b"X: y\r\n" * 30),
    "nothing": (b"", b""),
    "pipelined": (get() + HEAD, b"X: y\r\n" * 90),
}


def trickle(port, parts, most=20):
    """Sends the first part at once and the second a byte every 20 ms: how long the server bore it, what it said."""
    s = socket.create_connection(("127.0.0.1", port), timeout=0.02)
    begin, answer = time.monotonic(), b""
    try:
        s.sendall(parts[0])
        rest = iter(parts[1])
        while time.monotonic() - begin < most:
            byte = next(rest, None)
            if byte is not None:
                s.sendall(bytes([byte]))
            try:
                piece = s.recv(4096)
                if not piece:
                    break
                answer += piece
            except TimeoutError:
                pass
    except OSError:
        pass
    s.close()
    return time.monotonic() - begin, answer


def test_slow_senders(start):
    """Deadlines are absolute: a byte now and then does not move them. Meanwhile others are answered."""
    s = start("--header-timeout", 1, "--body-timeout", 1, "--keep-alive-timeout", 1.5)
    import concurrent.futures

    with concurrent.futures.ThreadPoolExecutor(len(SLOW_SENDERS)) as pool:
        futures = {name: pool.submit(trickle, s.port, parts) for name, parts in SLOW_SENDERS.items()}
        waits = []
        while not all(f.done() for f in futures.values()):
            begin = time.monotonic()
            assert s.request("POST", CHAT, GOOD)[0] == 200
            waits.append(time.monotonic() - begin)
        for name, f in futures.items():
            seconds, answer = f.result()
            assert 0.8 < seconds < 15, (name, seconds)
            if name not in ("nothing", "blank line before"):
                assert b"HTTP/1.1 408 " in answer, (name, answer)
    print("others were answered after %.1f ms in the median" % (sorted(waits)[len(waits) // 2] * 1e3))
    s.wait_idle()


def test_slow_handshake(start, tmp_path):
    cert, key = make_cert(tmp_path, "one")
    s = start("--ssl-certfile", cert, "--ssl-keyfile", key, "--header-timeout", 1,
        "--keep-alive-timeout", 1.5)
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # the beginning of a greeting that never ends
    for parts in ((b"", b""), (hello, b"\0" * 1000), (b"\x16", b"\x03")):
        seconds, answer = trickle(s.port, parts)
        assert 0.8 < seconds < 15 and b"HTTP" not in answer
    # One that speaks TLS well and then trickles is cut off in the same way as any other.
    context = ssl.create_default_context(cafile=str(cert))
    with context.wrap_socket(socket.create_connection(("127.0.0.1", s.port), timeout=15),
        server_hostname="localhost") as c:
        c.sendall(b"GET /health HTTP/1.1\r\nHo")
        assert b" 408 " in c.recv(1000)


def test_slow_readers(start):
    """Who takes nothing of an answer is cut off, whole or streamed, and what waits for him is bounded."""
    s = start("--stall-timeout", 1)
    big = json.dumps({"prompt": "a b c " * 100000, "return_token_strs": True}).encode()
    story = json.dumps({"prompt": "a", "max_tokens": 1900, "ignore_eos": True, "n": 8, "stream": True,
        "logprobs": 20}).encode()
    aborts = s.metric("vllm:request_success_total", finished_reason="abort")
    slow = []
    for ask in [post(big, b"/tokenize")] * 3 + [post(story,
        b"/v1/completions")] * 2 + [get(b"/metrics") * 2000]:
        c = socket.socket()
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        c.connect(("127.0.0.1", s.port))
        c.settimeout(1)
        try:
            c.sendall(ask)
        except TimeoutError:
            pass  # nothing more is taken from who does not read
        slow.append(c)
    deadline = time.time() + 60
    while s.metric("vllm:request_success_total", finished_reason="abort") < aborts + 16:
        assert time.time() < deadline
        assert s.request("POST", CHAT, GOOD)[0] == 200
        time.sleep(0.05)
    s.wait_idle(30)
    assert s.metric("vllm:kv_cache_usage_perc") == 0
    for c in slow:
        c.close()


# ------------------------------------------------------------------ full

def test_refused_before_tokenizing(start):
    """A full server says so at once: what is long in a request is not done for it first."""
    # The slow kernels keep one request running, and one waiting, for long enough.
    s = start("--isa", "scalar", "--threads", 1, "--max-num-seqs", 1, "--max-num-queued-reqs", 1)
    text = "".join(random.Random(3).choice("abcdefgh ijkl,.\n") for _ in range(1 << 16)) * 48
    begin = time.monotonic()
    assert s.request("POST", "/tokenize", {"prompt": text})[0] == 200
    tokenizing = time.monotonic() - begin
    blockers = []
    for number in ("running", "waiting"):
        c = socket.create_connection(("127.0.0.1", s.port), timeout=20)
        c.sendall(post(b'{"prompt": "a", "max_tokens": 1900, "ignore_eos": true}', b"/v1/completions"))
        blockers.append(c)
        deadline = time.monotonic() + 20
        while s.metric("vllm:num_requests_" + number) != 1:
            assert time.monotonic() < deadline
    times, codes = [], []
    for _ in range(5):
        begin = time.monotonic()
        codes.append(s.request("POST", COMPLETIONS, {"prompt": text})[0])
        times.append(time.monotonic() - begin)
    for c in blockers:
        c.close()
    # The first of them at least came while the queue was full.
    assert codes[0] == 503 and min(times) < tokenizing / 2, (codes, times, tokenizing)


# ------------------------------------------------------------------ half-closed

def half_closed(s, data, tls=None):
    """Sends data and shuts the sending side, under TLS by a goodbye as well; all that comes back."""
    c = socket.create_connection(("127.0.0.1", s.port), timeout=20)
    answer = b""
    if not tls:
        c.sendall(data)
        c.shutdown(socket.SHUT_WR)
        while piece := c.recv(65536):
            answer += piece
        c.close()
        return answer
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = tls.wrap_bio(incoming, outgoing, server_hostname="localhost")

    def step(what):
        while True:
            try:
                return what()
            except ssl.SSLWantReadError:
                if outgoing.pending:
                    c.sendall(outgoing.read())
                piece = c.recv(65536)
                incoming.write(piece) if piece else incoming.write_eof()

    step(session.do_handshake)
    session.write(data)
    try:
        session.unwrap()
    except ssl.SSLWantReadError:
        pass  # its goodbye is written, the server's has not come
    c.sendall(outgoing.read())
    c.shutdown(socket.SHUT_WR)
    try:
        while piece := step(lambda: session.read(65536)):
            answer += piece
    except ssl.SSLZeroReturnError:
        pass  # a proper end; anything else is an error
    c.close()
    return answer


def test_half_closed(server):
    """A client that shuts its sending side (`nc -N`) gets what is a matter of moments; a generation ends, because
    that is all that is seen of most clients that leave."""
    for ask in (get(), get(b"/metrics"), get(b"/v1/models"), get(b"/v1/models/quern-demo"),
        post(b'{"prompt": "x"}', b"/tokenize"),
                post(json.dumps({"prompt": "a b " * 50000}).encode(), b"/tokenize"),
                post(b'{"tokens": [70]}', b"/detokenize")):
        for _ in range(5):
            assert statuses(half_closed(server, ask)) == [200], ask[:60]
    assert statuses(half_closed(server, get() * 3 + get(b"/v1/models"))) == [200] * 4
    aborts = server.metric("vllm:request_success_total", finished_reason="abort")
    for stream in (True, False):
        body = json.dumps({"prompt": "x", "max_tokens": 1900, "ignore_eos": True, "stream": stream,
            "n": 4}).encode()
        answer = half_closed(server, post(body, b"/v1/completions"))
        assert b"[DONE]" not in answer and b'"usage"' not in answer
    server.wait_idle()
    assert server.metric("vllm:request_success_total", finished_reason="abort") > aborts
    assert statuses(half_closed(server, b"GET /hea")) == [] and statuses(half_closed(server,
        POST + b"Content-Length: 15\r\n\r\n{")) == []


def test_half_closed_tls(start, tmp_path):
    cert, key = make_cert(tmp_path, "one")
    s = start("--ssl-certfile", cert, "--ssl-keyfile", key)
    tls = ssl.create_default_context(cafile=str(cert))
    big = json.dumps({"prompt": "a b " * 50000}).encode()
    for ask in (get(), get(b"/metrics"), get(b"/v1/models"), post(big, b"/tokenize"),
        post(b'{"tokens": [70]}', b"/detokenize")):
        for _ in range(3):
            assert statuses(half_closed(s, ask, tls)) == [200], ask[:60]


def test_at_once(server):
    """Garbage on many connections at a time."""
    rng = random.Random(3)
    asks = [a for row in FRAMING for a in row[1]]
    conns = []
    for _ in range(200):
        c = socket.create_connection(("127.0.0.1", server.port), timeout=20)
        ask = rng.choice(asks)
        c.sendall(ask[: rng.randrange(1, len(ask) + 1)])
        conns.append(c)
    assert server.request("POST", CHAT, GOOD)[0] == 200
    for c in conns:
        c.close()
    server.wait_idle()
