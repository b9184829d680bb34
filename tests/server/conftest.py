# SPDX-License-Identifier: Apache-2.0
"""A real `quern serve` on the bundled model, once for each test module."""

import http.client
import json
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import threading
import time

import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "quern-demo-q8_0.gguf"


class Server:
    def __init__(self, *args, env=None, model=MODEL):
        self.log = b""
        self.process = subprocess.Popen(
            [os.environ["QN_QUERN"], "serve", str(model), "--port", "0", *map(str, args)],
            stderr=subprocess.PIPE,
            env={**os.environ, **(env or {})},
        )
        self.port = None
        deadline = time.time() + 60
        fd = self.process.stderr.fileno()
        while self.port is None:
            ready, _, _ = select.select([fd], [], [], max(0, deadline - time.time()))
            piece = os.read(fd, 65536) if ready else b""
            self.log += piece
            m = re.search(rb"serving .* at https?://[^/]*:(\d+)/v1", self.log)
            if m:
                self.port = int(m.group(1))
            elif not piece:
                self.process.kill()
                raise AssertionError("the server did not start: " + self.log.decode())
        # What it says later is kept too: a full pipe must not stop it.
        self.reader = threading.Thread(target=self.read_log, args=(fd,), daemon=True)
        self.reader.start()
        self.url = f"http://127.0.0.1:{self.port}"

    def read_log(self, fd):
        while piece := os.read(fd, 65536):
            self.log += piece

    def client(self, **kw):
        kw.setdefault("api_key", "none")
        kw.setdefault("max_retries", 0)
        return openai.OpenAI(base_url=self.url + "/v1", timeout=120, **kw)

    def request(self, method, path, body=None, headers=None):
        """One request over a connection of its own: (status, headers, parsed JSON or text)."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = dict(headers or {})
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        c.request(method, path, body, headers)
        r = c.getresponse()
        data = r.read()
        c.close()
        if "json" in (r.getheader("Content-Type") or ""):
            return r.status, r.headers, json.loads(data)
        return r.status, r.headers, data.decode()

    def raw(self, data, close=False):
        """Bytes in, all bytes out until the server closes (or is silent for a second)."""
        s = socket.create_connection(("127.0.0.1", self.port), timeout=1)
        s.sendall(data)
        if close:
            s.shutdown(socket.SHUT_WR)
        out = b""
        try:
            while piece := s.recv(65536):
                out += piece
        except (socket.timeout, ConnectionResetError):
            pass
        s.close()
        return out

    def metric(self, name, **labels):
        """The sum over the samples of a metric that have these labels."""
        total, found = 0.0, False
        for line in self.request("GET", "/metrics")[2].splitlines():
            m = re.match(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$", line)
            if m and m.group(1) == name:
                have = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', m.group(2) or ""))
                if all(have.get(k) == v for k, v in labels.items()):
                    total += float(m.group(3))
                    found = True
        assert found, name
        return total

    def wait_idle(self, seconds=60):
        """Until nothing runs or waits; returns how long that took. The bound is for hangs."""
        begin = time.time()
        while time.time() - begin < seconds:
            if not self.metric("vllm:num_requests_running") and not self.metric(
                "vllm:num_requests_waiting"
            ):
                return time.time() - begin
            time.sleep(0.01)
        raise AssertionError("requests are still running")

    def stop(self, sig=signal.SIGTERM, timeout=60):
        self.process.send_signal(sig)
        return self.process.wait(timeout)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.reader.join()
        self.process.stderr.close()


@pytest.fixture(scope="module")
def server():
    s = Server()
    yield s
    alive = s.process.poll() is None
    code = s.stop() if alive else s.process.returncode
    s.close()
    assert alive and code == 0, "the server did not survive its tests"


@pytest.fixture()
def client(server):
    return server.client()


@pytest.fixture()
def start():
    """start(*flags): a server of the test's own."""
    servers = []

    def make(*args, **kw):
        servers.append(Server(*args, **kw))
        return servers[-1]

    yield make
    for s in servers:
        s.close()
