# SPDX-License-Identifier: Apache-2.0
"""Who may come in: keys from a file, Unix sockets, web pages, limits; and what the log says of them."""

import hashlib
import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import time

import openai
import pytest

from conftest import MODEL

CHAT = {"messages": [{"role": "user", "content": "Say plugh."}], "max_tokens": 4}


def wait_for(what, seconds=10):
    deadline = time.time() + seconds
    while time.time() < deadline:
        if what():
            return
        time.sleep(0.02)
    raise AssertionError("it did not happen in time")


def status(server, key, path="/v1/models"):
    return server.request("GET", path, headers={"Authorization": "Bearer " + key} if key else {})[0]


def test_key_file(start, tmp_path):
    file = tmp_path / "keys"
    file.write_text("# two keys\nfirst-key \r\n\nsha256:%s\n" % hashlib.sha256(b"second").hexdigest())
    s = start("--api-key-file", file, env={"QUERN_API_KEY": "from-env"})
    for key in ("first-key", "second", "from-env"):
        assert status(s, key) == 200
    for key in (None, "third", "", "# two keys", "sha256:" + hashlib.sha256(b"second").hexdigest()):
        assert status(s, key) == 401
    # A change is seen by itself; a bad file changes nothing and no key is in what is said about it.
    file.write_text("third\n")
    wait_for(lambda: status(s, "third") == 200)
    assert status(s, "first-key") == 401 and status(s, "from-env") == 200
    file.write_text("fourth\nsecret with spaces\n")
    wait_for(lambda: b"line 2" in s.log)
    assert status(s, "third") == 200 and status(s, "fourth") == 401 and b"secret" not in s.log
    # Another file in its place (what a mounted secret does), and a signal.
    other = tmp_path / "other"
    other.write_text("fifth\n")
    os.replace(other, file)
    s.process.send_signal(signal.SIGHUP)
    wait_for(lambda: status(s, "fifth") == 200)
    # An empty file lets nobody in, rather than everybody.
    file.write_text("")
    wait_for(lambda: status(s, "fifth") == 401)
    assert status(s, None) == 401 and status(s, None, "/health") == 200
    file.unlink()
    s.process.send_signal(signal.SIGHUP)
    wait_for(lambda: b"stay as they were" in s.log.split(b"line 2")[1])
    assert status(s, None) == 401


def refused(*args):
    r = subprocess.run([os.environ["QN_QUERN"], "serve", str(MODEL), "--port", "0", *map(str, args)],
                       capture_output=True, timeout=60)
    assert r.returncode == 1
    return r.stderr.decode()


def test_bad_key_files(tmp_path):
    file = tmp_path / "keys"
    assert "keys" in refused("--api-key-file", file)
    for text, why in (("", "no API keys"), ("# nothing\n", "no API keys"), ("ok\nsha256:12\n", "line 2"),
                      ("a b\n", "line 1"), ("x" * 600, "line 1"), ("k\0y\n", "line 1"),
                      ("k name=a/b", "name="), ("k name=" + "x" * 65, "name="), ("k name=", "name="),
                      ("k scopes=root", "scopes="), ("k scopes=", "scopes="), ("k scopes=infer,,admin",
                          "scopes="),
                      ("k max-concurrent=0", "limit"), ("k max-concurrent=-1", "limit"),
                      ("k requests-per-minute=1e3", "limit"),
                      ("k requests-per-minute=999999999", "limit"), ("k max-concurrent=", "limit"),
                      ("a\n\nb\na name=x\n", "line 4: the key of line 1"),
                      ("sha256:%s\n# x\nsecond\n" % hashlib.sha256(b"second").hexdigest(), "line 3")):
        file.write_text(text)
        assert why in refused("--api-key-file", file)


def auth(key):
    return {"Authorization": "Bearer " + key}


def test_scopes(start, tmp_path):
    file = tmp_path / "keys"
    file.write_text("user\nscraper scopes=metrics\nops  scopes=admin,metrics\tname=ops\n")
    s = start("--api-key-file", file, "--protect-metrics", "--admin-port", "-1",
        env={"QUERN_API_KEY": "root"})
    admin = int(re.search(rb"admin port: http://127.0.0.1:(\d+)", s.log).group(1))
    for key, api, metrics in (("user", 200, 403), ("scraper", 403, 200), ("ops", 403, 200), ("root",
        200, 200),
                              ("nobody", 401, 401)):
        assert status(s, key) == api and status(s, key, "/metrics") == metrics, key
    code, _, r = s.request("POST", "/v1/chat/completions", CHAT, auth("scraper"))
    assert code == 403 and r["error"]["type"] == "permission_error" and r["error"]["code"] == "insufficient_permissions"
    assert status(s, "user", "/health") == 200 and status(s, None, "/version") == 200
    s.port = admin
    for key, code in ((None, 401), ("user", 403), ("scraper", 403)):
        assert s.request("POST", "/drain", headers=auth(key) if key else {})[0] == code
    assert s.request("POST", "/drain", headers=auth("ops"))[0] == 202
    assert s.process.wait(30) == 0


def test_rate_limit(start, tmp_path):
    file = tmp_path / "keys"
    file.write_text("slow requests-per-minute=3 name=slow\nfree\n")
    s = start("--api-key-file", file, "--enable-log-requests")
    ask = lambda key: s.request("POST", "/v1/chat/completions", CHAT, auth(key))
    assert [ask("slow")[0] for _ in range(3)] == [200] * 3
    code, headers, r = ask("slow")
    assert code == 429 and 1 <= int(headers["Retry-After"]) <= 21
    assert r["error"]["code"] == "rate_limit_exceeded" and r["error"]["type"] == "rate_limit_error"
    # What does not generate is not counted, others are not concerned, the client library knows the error.
    assert status(s, "slow") == 200 and ask("free")[0] == 200
    with pytest.raises(openai.RateLimitError) as e:
        s.client(api_key="slow").chat.completions.create(model="quern-demo", **CHAT)
    assert e.value.code == "rate_limit_exceeded"
    # Refused before the body is there, let alone read.
    answer = s.raw(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer slow\r\n"
                   b"Content-Type: application/json\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 429 ")
    # Reading the file again forgets nothing.
    file.write_text("# changed\nslow requests-per-minute=3\nfree\nnew\n")
    wait_for(lambda: status(s, "new") == 200)
    assert ask("slow")[0] == 429
    assert s.metric("vllm:admission_rejections_total", reason="key_limit") == 4
    wait_for(lambda: s.log.count(b'"status":429') == 4)
    assert b'"key_name":"slow"' in s.log


def test_concurrency_limit(start, tmp_path):
    file = tmp_path / "keys"
    file.write_text("two max-concurrent=2\nother\n")
    s = start("--api-key-file", file)
    body = json.dumps({**CHAT, "max_tokens": 1800, "ignore_eos": True, "stream": True, "n": 8}).encode()

    def begin():
        c = socket.create_connection(("127.0.0.1", s.port), timeout=30)
        c.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer two\r\n"
                  b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return c, c.recv(100)

    ask = lambda key: s.request("POST", "/v1/chat/completions", CHAT, auth(key))
    first, answer = begin()
    assert answer.startswith(b"HTTP/1.1 200 ")
    second, answer = begin()
    assert answer.startswith(b"HTTP/1.1 200 ")
    code, headers, r = ask("two")
    assert code == 429 and headers["Retry-After"] == "1" and r["error"]["code"] == "rate_limit_exceeded"
    assert ask("other")[0] == 200
    # Who leaves makes room, also in the middle of a body, and it is not given twice.
    first.close()
    wait_for(lambda: ask("two")[0] == 200)
    second.close()
    s.wait_idle(20)
    half = []
    for _ in range(2):
        c = socket.create_connection(("127.0.0.1", s.port), timeout=30)
        c.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer two\r\n"
                  b"Content-Type: application/json\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n")
        assert c.recv(100).startswith(b"HTTP/1.1 100 ")
        half.append(c)
    assert ask("two")[0] == 429
    for c in half:
        c.close()
    wait_for(lambda: ask("two")[0] == 200)
    # Several on one connection, one after the other, are one at a time.
    ask_bytes = (b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer two\r\n"
                 b"Content-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"prompt\": \"a\"}")
    answer = s.raw(ask_bytes * 10)
    assert answer.count(b"HTTP/1.1 200 ") == 10


def test_no_cache_is_shared(start, tmp_path):
    """One key's prompts are not found in the cache by another, whatever cache_salt it sends."""
    file = tmp_path / "keys"
    file.write_text("one\ntwo\n")
    text = "the cat and the dog saw a red boat on the hill " * 8

    def cached(s, key, **fields):
        ask = {"prompt": text, "max_tokens": 1, **fields}
        return s.request("POST", "/v1/completions", ask,
            auth(key))[2]["usage"]["prompt_tokens_details"]["cached_tokens"]

    s = start("--api-key-file", file)
    assert cached(s, "one") == 0 and cached(s, "one") > 16
    assert cached(s, "two") == 0 and cached(s, "two") > 16
    assert cached(s, "one", cache_salt="x") == 0 and cached(s, "one", cache_salt="x") > 16
    assert cached(s, "two", cache_salt="x") == 0
    assert cached(s, "one", cache_salt=hashlib.sha256(hashlib.sha256(b"two").digest()).hexdigest()) == 0
    s = start("--api-key-file", file, "--shared-prefix-cache")
    assert cached(s, "one") == 0 and cached(s, "two") > 16
    assert cached(s, "two", cache_salt="x") == 0 and cached(s, "one", cache_salt="x") > 16


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("any-host.example", timeout=30)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


def test_unix_socket(tmp_path):
    path = str(tmp_path / "quern.sock")
    stale = socket.socket(socket.AF_UNIX)  # left behind by a process that is gone
    stale.bind(path)
    stale.close()
    p = subprocess.Popen([os.environ["QN_QUERN"], "serve", str(MODEL), "--uds", path],
        stderr=subprocess.DEVNULL)
    try:
        def healthy():
            try:
                c = UnixConnection(path)
                c.request("GET", "/health")
                return c.getresponse().status == 200
            except OSError:
                return False

        wait_for(healthy, 60)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        c = UnixConnection(path)
        c.request("POST", "/v1/chat/completions", json.dumps(CHAT), {"Content-Type": "application/json"})
        assert json.loads(c.getresponse().read())["usage"]["completion_tokens"] > 0
        assert "another process" in refused("--uds", path)
        p.send_signal(signal.SIGTERM)
        assert p.wait(30) == 0 and not os.path.exists(path)
    finally:
        p.kill()
        p.wait()
    file = tmp_path / "file"
    file.write_text("precious")
    assert "no socket" in refused("--uds", file) and file.read_text() == "precious"
    assert "bytes" in refused("--uds", "x" * 200)


def test_cors(start):
    page = "https://app.example.org"
    s = start("--allowed-origins", page, "http://localhost:3000", "--api-key", "k", "--admin-port", "-1")
    ask = {"Origin": page, "Access-Control-Request-Method": "POST",
           "Access-Control-Request-Headers": "authorization,content-type"}
    code, headers, _ = s.request("OPTIONS", "/v1/chat/completions", headers=ask)
    assert code == 204 and headers["Access-Control-Allow-Origin"] == page
    assert "POST" in headers["Access-Control-Allow-Methods"]
    assert "Authorization" in headers["Access-Control-Allow-Headers"]
    code, headers, _ = s.request("POST", "/v1/chat/completions", CHAT,
                                 {"Origin": page, "Authorization": "Bearer k"})
    assert code == 200 and headers["Access-Control-Allow-Origin"] == page and headers["Vary"] == "Origin"
    # An answer that is an error is readable for the page too.
    code, headers, _ = s.request("POST", "/v1/chat/completions", CHAT, {"Origin": page})
    assert code == 401 and headers["Access-Control-Allow-Origin"] == page
    for origin in ("https://app.example.org.evil.example", "http://app.example.org", "null", ""):
        code, headers, _ = s.request("OPTIONS", "/v1/chat/completions", headers={**ask, "Origin": origin})
        assert code == 405 and headers["Access-Control-Allow-Origin"] is None
    # The admin port is for no page at all.
    s.port = int(re.search(rb"admin port: http://127.0.0.1:(\d+)", s.log).group(1))
    assert s.request("GET", "/health")[0] == 200
    assert s.request("POST", "/drain")[0] == 401
    auth = {"Authorization": "Bearer k"}
    assert s.request("POST", "/drain", headers={**auth, "Origin": page})[0] == 403
    assert s.request("POST", "/drain", headers=auth)[0] == 202
    assert s.process.wait(30) == 0


def test_log_line(start):
    s = start("--enable-log-requests", "--api-key", "key-one", "--max-body-bytes", "4Ki")
    auth = {"Authorization": "Bearer key-one", "X-Request-Id": "my-id"}
    usage = s.request("POST", "/v1/chat/completions", CHAT, auth)[2]["usage"]
    assert s.request("POST", "/v1/chat/completions", {"x": "y" * 5000}, auth)[0] == 413
    s.request("GET", "/nowhere-secret")
    wait_for(lambda: s.log.count(b'{"request_id"') == 3)
    lines = [json.loads(m) for m in re.findall(rb'\{"request_id".*\}', s.log)]
    first = lines[0]
    assert first["request_id"] == "my-id" and first["route"] == "/v1/chat/completions"
    assert first["key"] == hashlib.sha256(b"key-one").hexdigest()[:16]
    assert (first["method"], first["status"], first["complete"]) == ("POST", 200, True)
    assert first["prompt_tokens"] == usage["prompt_tokens"]
    assert first["output_tokens"] == usage["completion_tokens"]
    assert 0 < first["first_token_seconds"] <= first["seconds"] < 60 and first["bytes"] > 100
    assert lines[1]["status"] == 413 and lines[2]["route"] == "none" and lines[2]["status"] == 404
    assert b"plugh" not in s.log and b"secret" not in s.log and b"key-one" not in s.log
