# SPDX-License-Identifier: Apache-2.0
"""TLS: who is refused, what is kept of the plain connection's rules, new certificates while it runs."""

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import time

import pytest
from conftest import MODEL

CHAT = {"messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 30, "ignore_eos": True}


def make_cert(folder, name):
    if not shutil.which("openssl"):
        pytest.skip("skipped: no openssl program")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
                    "-nodes", "-days", "2", "-subj", "/CN=" + name, "-addext", "subjectAltName=DNS:localhost",
                    "-keyout", str(folder / (name + ".key")), "-out", str(folder / (name + ".pem"))],
                   check=True, capture_output=True)
    return folder / (name + ".pem"), folder / (name + ".key")


@pytest.fixture()
def tls(start, tmp_path):
    cert, key = make_cert(tmp_path, "one")
    s = start("--ssl-certfile", cert, "--ssl-keyfile", key, "--admin-port", "-1")
    s.cert, s.key = cert, key
    return s


def context(cert, **kw):
    c = ssl.create_default_context(cafile=str(cert))
    for name, value in kw.items():
        setattr(c, name, value)
    return c


def connect(s, **kw):
    raw = socket.create_connection(("127.0.0.1", s.port), timeout=20)
    return context(s.cert, **kw).wrap_socket(raw, server_hostname="localhost")


def ask(s, method, path, body=None):
    c = http.client.HTTPSConnection("localhost", s.port, timeout=60, context=context(s.cert))
    c.sock = connect(s)
    c.request(method, path, body, {"Content-Type": "application/json"})
    r = c.getresponse()
    data = r.read()
    c.close()
    return r.status, data


def test_requests_and_streams(tls):
    assert ask(tls, "GET", "/health")[0] == 200
    code, data = ask(tls, "POST", "/v1/chat/completions", json.dumps(CHAT))
    assert code == 200 and json.loads(data)["usage"]["completion_tokens"] == 30
    code, data = ask(tls, "POST", "/v1/chat/completions", json.dumps({**CHAT, "stream": True}))
    assert code == 200 and data.endswith(b"data: [DONE]\n\n")
    # Bodies past every buffer's size, several on one connection, and errors.
    c = connect(tls)
    for size in (10, 16384, 70_000, 1_000_000, 3_000_000):
        body = json.dumps({"prompt": "a" * size}).encode()
        c.sendall(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                  b"Content-Length: %d\r\n\r\n" % len(body) + body)
        r = http.client.HTTPResponse(c)
        r.begin()
        assert r.status == 200 and json.loads(r.read())["count"] > 0
    c.sendall(b"GET  / HTTP/1.1\r\n\r\n")
    assert c.recv(100).startswith(b"HTTP/1.1 400")
    while c.recv(1000):
        pass  # ends with a proper goodbye, not with an error
    c.close()
    assert ask(tls, "POST", "/tokenize", b"x" * (9 << 20))[0] == 413


def test_versions_and_plain(tls):
    assert connect(tls).version() == "TLSv1.3"
    assert connect(tls, maximum_version=ssl.TLSVersion.TLSv1_2).version() == "TLSv1.2"
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old = context(tls.cert, minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
        old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        old.wrap_socket(socket.create_connection(("127.0.0.1", tls.port), timeout=5), server_hostname="localhost")
    assert b"HTTP/1.1" not in tls.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    c = context(tls.cert)
    c.set_alpn_protocols(["h2", "http/1.1"])
    with c.wrap_socket(socket.create_connection(("127.0.0.1", tls.port)), server_hostname="localhost") as s:
        assert s.selected_alpn_protocol() == "http/1.1"


def admin(s, name):
    """A metric from the admin port, which speaks plain HTTP."""
    port = s.port
    s.port = int(s.log.split(b"admin port: http://127.0.0.1:")[1].split(b"\n")[0])
    try:
        return s.metric(name)
    finally:
        s.port = port


def test_who_leaves_is_seen(tls):
    body = json.dumps({**CHAT, "max_tokens": 1500, "stream": True, "n": 4}).encode()
    c = connect(tls)
    c.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
              b"Content-Length: %d\r\n\r\n" % len(body) + body)
    assert c.recv(1000).startswith(b"HTTP/1.1 200")
    deadline = time.time() + 5
    while not admin(tls, "vllm:num_requests_running"):
        assert time.time() < deadline
    c.close()
    begin = time.time()
    while admin(tls, "vllm:num_requests_running") and time.time() - begin < 5:
        time.sleep(0.01)
    assert time.time() - begin < 1
    assert admin(tls, "vllm:kv_cache_usage_perc") == 0


def test_new_certificate(tls, tmp_path):
    def served():
        return ssl.get_server_certificate(("127.0.0.1", tls.port))

    old = connect(tls)
    first = served()
    tls.key.write_text("nonsense")
    deadline = time.time() + 10
    while b"stays as it was" not in tls.log and time.time() < deadline:
        time.sleep(0.05)
    assert b"stays as it was" in tls.log and served() == first
    cert, key = make_cert(tmp_path, "two")
    os.replace(key, tls.key)
    os.replace(cert, tls.cert)
    while served() == first and time.time() < deadline:
        time.sleep(0.05)
    assert served() == tls.cert.read_text()
    # A connection from before goes on.
    old.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert old.recv(100).startswith(b"HTTP/1.1 200")


def test_bad_files(tmp_path):
    cert, key = make_cert(tmp_path, "one")
    _, other = make_cert(tmp_path, "two")
    for args in ((cert, other), (cert, tmp_path / "none"), (key, key), (tmp_path, key)):
        r = subprocess.run([os.environ["QN_QUERN"], "serve", str(MODEL), "--port", "0", "--ssl-certfile",
                            str(args[0]), "--ssl-keyfile", str(args[1])], capture_output=True, timeout=60)
        assert r.returncode == 1 and b"error" in r.stderr, args
    r = subprocess.run([os.environ["QN_QUERN"], "serve", str(MODEL), "--port", "0", "--ssl-certfile", str(cert)],
                       capture_output=True, timeout=60)
    assert r.returncode == 1 and b"both" in r.stderr
