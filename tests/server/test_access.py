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
                      ("a b\n", "line 1"), ("x" * 600, "line 1"), ("k\0y\n", "line 1")):
        file.write_text(text)
        assert why in refused("--api-key-file", file)


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
    p = subprocess.Popen([os.environ["QN_QUERN"], "serve", str(MODEL), "--uds", path], stderr=subprocess.DEVNULL)
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
