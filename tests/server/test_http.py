# SPDX-License-Identifier: Apache-2.0
"""The connection itself: keep-alive, pipelining, limits, hostile bytes, metrics."""

import json
import random
import re
import socket
import time

import h11
import pytest

BODY = json.dumps({"messages": [{"role": "user", "content": "What is 2 + 3?"}], "temperature": 0}).encode()


def post(body=BODY, path=b"/v1/chat/completions", extra=b""):
    return (b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n%s"
            b"Content-Length: %d\r\n\r\n" % (path, extra, len(body)) + body)


def get(path=b"/health", extra=b""):
    return b"GET %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n" % (path, extra)


def responses(raw):
    """All responses in raw, read by h11: [(status, headers, body)]."""
    out, rest = [], raw
    while rest:
        c = h11.Connection(h11.CLIENT)
        c.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        c.send(h11.EndOfMessage())
        c.receive_data(rest)
        head, body = None, b""
        while True:
            e = c.next_event()
            if isinstance(e, h11.NEED_DATA.__class__) or e is h11.NEED_DATA:
                if head is None or head[0] == 100:
                    return out
                raise AssertionError("an incomplete response: " + repr(rest[:200]))
            if isinstance(e, h11.InformationalResponse):
                out.append((e.status_code, dict(e.headers), b""))
                continue
            if isinstance(e, h11.Response):
                head = (e.status_code, dict(e.headers))
            elif isinstance(e, h11.Data):
                body += bytes(e.data)
            elif isinstance(e, h11.EndOfMessage):
                break
        out.append((*head, body))
        rest = c.trailing_data[0]
    return out


def statuses(raw):
    return [r[0] for r in responses(raw)]


def test_keep_alive_and_pipelining(server):
    asks = [get(), post(), get(b"/v1/models"), post(b"{"), get(b"/nowhere"), get(b"/version"), post()]
    raw = server.raw(b"".join(asks))
    got = responses(raw)
    assert [r[0] for r in got] == [200, 200, 200, 400, 404, 200, 200]
    assert b'"quern-demo"' in got[2][2]
    first, last = json.loads(got[1][2]), json.loads(got[6][2])
    assert first["choices"] == last["choices"]
    # An answer that streams comes whole before the next.
    stream = json.dumps({**json.loads(BODY), "stream": True}).encode()
    got = responses(server.raw(post(stream) + get() + post(stream)))
    assert [r[0] for r in got] == [200, 200, 200]
    assert got[0][2].endswith(b"data: [DONE]\n\n") and got[2][2].endswith(b"data: [DONE]\n\n")


def test_byte_by_byte(server):
    s = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for b in post():
        s.sendall(bytes([b]))
    data = s.recv(65536)
    assert statuses(data) == [200]
    s.close()


def test_chunked_body(server):
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in (BODY[:7], BODY[7:50], BODY[50:]))
    ask = (b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
           b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nX-Trailer: y\r\n\r\n")
    assert statuses(server.raw(ask + get())) == [200, 200]


def test_expect_continue(server):
    s = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    head, body = post(extra=b"Expect: 100-continue\r\n").split(b"\r\n\r\n")
    s.sendall(head + b"\r\n\r\n")
    assert s.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    s.sendall(body)
    assert statuses(s.recv(65536)) == [200]
    s.close()
    # No invitation for what will be refused.
    bad = post(path=b"/nowhere", extra=b"Expect: 100-continue\r\n").split(b"\r\n\r\n")[0] + b"\r\n\r\n"
    assert statuses(server.raw(bad)) == [404]
    assert statuses(server.raw(post(extra=b"Expect: 200-maybe\r\n"))) == [417]


def test_http10(server):
    raw = server.raw(b"GET /health HTTP/1.0\r\n\r\n")
    assert statuses(raw) == [200] and b"Connection: close" in raw
    stream = json.dumps({**json.loads(BODY), "stream": True}).encode()
    raw = server.raw(post(stream).replace(b"HTTP/1.1", b"HTTP/1.0"))
    head, body = raw.split(b"\r\n\r\n", 1)
    assert b"chunked" not in head and body.startswith(b"data: {") and body.endswith(b"data: [DONE]\n\n")


def test_head(server):
    raw = server.raw(b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n" + get())
    first, rest = raw.split(b"\r\n\r\n", 1)
    assert first.startswith(b"HTTP/1.1 200") and b"Content-Length: 15" in first
    assert statuses(rest) == [200]


def test_routes(server):
    for path in ("/health", "/ping", "/version", "/metrics", "/v1/models", "/v1/models/quern-demo"):
        assert server.request("GET", path)[0] == 200
    assert re.match(r"\d+\.\d+\.\d+", server.request("GET", "/version")[2]["version"])
    assert server.request("POST", "/ping", {})[0] == 200
    for method, path, allow in (("GET", "/v1/chat/completions", "POST"), ("DELETE", "/v1/models", "GET, HEAD"),
                                ("POST", "/health", "GET, HEAD"), ("OPTIONS", "/tokenize", "POST")):
        status, headers, r = server.request(method, path)
        assert status == 405 and headers["Allow"] == allow and r["error"]["message"]
    for path in ("/", "/v1", "/v1/models/", "/v1/chat/completions/", "/V1/models", "/v1/chat"):
        status, _, r = server.request("GET", path)
        assert status == 404 and r["error"]["type"] == "invalid_request_error"


def test_content_type(server):
    for ctype in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""):
        assert server.request("POST", "/v1/chat/completions", BODY, {"Content-Type": ctype})[0] == 400
    for ctype in ("application/json; charset=utf-8", "Application/JSON"):
        assert server.request("POST", "/v1/chat/completions", BODY, {"Content-Type": ctype})[0] == 200


def test_host_names_this_machine(server):
    ask = b"GET /health HTTP/1.1\r\nConnection: close\r\nHost: %s\r\n\r\n"
    for host in (b"localhost", b"localhost:8000", b"127.0.0.1:5", b"[::1]:8000", b"a.localhost", b"127.1.2.3"):
        assert statuses(server.raw(ask % host)) == [200], host
    for host in (b"evil.example", b"127.0.0.1.evil.example", b"localhost.evil.example", b"10.0.0.1", b"[::2]"):
        raw = server.raw(ask % host)
        assert statuses(raw) == [403], host
        assert b"loopback" in raw
    # No CORS unless asked for.
    _, headers, _ = server.request("GET", "/v1/models", headers={"Origin": "http://evil.example"})
    assert not any(h.lower().startswith("access-control") for h in headers)


def test_request_id(server):
    for good in ("abc", "A.b_c-9", "x" * 128):
        assert server.request("GET", "/health", headers={"X-Request-Id": good})[1]["X-Request-Id"] == good
    made = [server.request("GET", "/health", headers={"X-Request-Id": bad})[1]["X-Request-Id"]
            for bad in ("", "a b", "x" * 129, "a;b")]
    made.append(server.request("GET", "/nowhere")[1]["X-Request-Id"])
    assert len(set(made)) == 5 and all(re.fullmatch(r"[A-Za-z0-9._-]{1,128}", m) for m in made)


def test_bad_bytes_get_the_error_shape(server):
    for raw, status in (
        (b"nonsense\r\n\r\n", 400),
        (b"GET //health HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /v1%2fmodels HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/3.0\r\nHost: localhost\r\n\r\n", 505),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40000 + b"\r\n\r\n", 431),
        (b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
         b"Content-Length: 99999999\r\n\r\n", 413),
        (b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
         b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    ):
        got = responses(server.raw(raw))
        # One answer, then the end: what follows bad bytes is not a request.
        assert [r[0] for r in got] == [status], raw[:60]
        error = json.loads(got[0][2])["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["message"]


def test_large_body_is_refused_in_time(server):
    chunk = b"fffff\r\n" + b" " * 0xFFFFF + b"\r\n"
    s = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    s.sendall(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
              b"Transfer-Encoding: chunked\r\n\r\n")
    answer = b""
    try:
        for _ in range(20):
            s.sendall(chunk)
    except OSError:
        pass
    try:
        while piece := s.recv(65536):
            answer += piece
    except OSError:
        pass
    assert answer.startswith(b"HTTP/1.1 413")
    s.close()


def test_slow_reader_is_paused(start):
    """Whoever does not read holds up nobody, and what waits for him is bounded."""
    # With a prefix cache the second round's blocks would be others than the first's: new memory.
    server = start("--no-enable-prefix-caching")
    ask = {"messages": [{"role": "user", "content": "Tell me a story."}], "n": 8, "max_tokens": 1200,
           "ignore_eos": True}
    # The KV cache is memory too, once it was touched: not to be taken for output that waits.
    assert server.request("POST", "/v1/chat/completions", ask)[0] == 200
    body = json.dumps({**ask, "stream": True, "logprobs": True, "top_logprobs": 20}).encode()
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect(("127.0.0.1", server.port))
    s.sendall(post(body))
    before = server.metric("process_resident_memory_bytes")
    begin = time.time()
    while not server.metric("vllm:num_requests_running") and time.time() - begin < 5:
        pass
    while server.metric("vllm:num_requests_running") and time.time() - begin < 60:
        assert server.request("POST", "/v1/chat/completions", BODY)[0] == 200
        time.sleep(0.05)
    # All of it would be 8 * 1200 tokens of some 2 KB each; as numbers it is a tenth of that. (A
    # sanitizer keeps what was freed: there the memory says nothing.)
    with open(f"/proc/{server.process.pid}/maps", "rb") as maps:
        sanitized = re.search(rb"/lib[at]san\.so", maps.read())
    assert sanitized or server.metric("process_resident_memory_bytes") - before < 8e6
    s.close()
    server.wait_idle()


def test_disconnects_everywhere(server):
    """Cut a streamed exchange after every so many bytes of request or answer: nothing is left behind."""
    body = json.dumps({"messages": [{"role": "user", "content": "Tell me a story."}], "stream": True,
                       "max_tokens": 200, "ignore_eos": True}).encode()
    ask = post(body)
    fds = server.metric("process_open_fds")
    for cut in list(range(0, len(ask), 23)) + [len(ask)] * 20:
        s = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        s.sendall(ask[:cut])
        if cut == len(ask):
            want = random.Random(cut).randrange(2000)
            while want > 0:
                want -= len(s.recv(want))
        s.close()
    server.wait_idle()
    assert server.metric("vllm:kv_cache_usage_perc") == 0
    deadline = time.time() + 5
    while server.metric("process_open_fds") > fds and time.time() < deadline:
        time.sleep(0.05)
    assert server.metric("process_open_fds") <= fds


def test_metrics(server):
    # A series appears with its first request.
    assert server.request("POST", "/v1/chat/completions", BODY)[0] == 200
    before = {n: server.metric("vllm:" + n) for n in ("prompt_tokens_total", "generation_tokens_total")}
    count = server.metric("vllm:time_to_first_token_seconds_count")
    asked = server.metric("http_requests_total", handler="/v1/chat/completions", status="200")
    usage = server.request("POST", "/v1/chat/completions", BODY)[2]["usage"]
    assert server.metric("vllm:prompt_tokens_total") == before["prompt_tokens_total"] + usage["prompt_tokens"]
    assert (server.metric("vllm:generation_tokens_total")
            == before["generation_tokens_total"] + usage["completion_tokens"])
    assert server.metric("vllm:time_to_first_token_seconds_count") == count + 1
    assert server.metric("http_requests_total", handler="/v1/chat/completions", status="200") == asked + 1
    # Label values are ours alone.
    server.raw(b"EVIL /evil HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert "evil" not in server.request("GET", "/metrics")[2].lower()


def test_long_prompts_stall_nobody(start):
    """While megabytes are tokenized, the same event loop answers others; who leaves is forgotten."""
    s = start("--prepare-threads", 1)
    text = "".join(random.Random(3).choice("abcdefgh ijkl,.\n") for _ in range(3 << 20))
    body = json.dumps({"prompt": text}).encode()
    begin = time.time()
    assert s.request("POST", "/tokenize", body)[2]["count"] > 1000
    alone = time.time() - begin
    socks = []
    for _ in range(6):
        c = socket.create_connection(("127.0.0.1", s.port), timeout=30)
        c.sendall(post(body, b"/tokenize"))
        socks.append(c)
    waits = []
    for _ in range(10):
        begin = time.time()
        assert s.request("GET", "/v1/models")[0] == 200
        waits.append(time.time() - begin)
    # Six of them would take six times as long.
    assert sorted(waits)[5] < max(alone, 0.05), (waits, alone)
    for c in socks:
        c.close()
    s.wait_idle()
    assert s.request("POST", "/v1/chat/completions", BODY)[0] == 200
