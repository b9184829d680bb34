# SPDX-License-Identifier: Apache-2.0
"""Clients that leave, and what the server says of it: for test_disconnect.py and benchmarks/disconnect.

A slow server makes the phases long enough to be met: one sequence at a time, a few prompt tokens in a
step, the scalar kernels. The metrics are read on the admin port, which speaks plain HTTP and is served
by a loop of its own."""

import http.client
import json
import random
import re
import socket
import struct
import time

SLOW = ["--isa", "scalar", "--threads", "1", "--max-num-seqs", "1", "--max-num-batched-tokens", "4",
        "--admin-port", "-1"]
FAST = ["--max-num-seqs", "8", "--max-num-batched-tokens", "64", "--admin-port", "-1"]
PHASES = ("queued", "prefill", "decode")
WAYS = ("close", "rst", "half")
WORDS = "cat dog sun rain hill boat red blue tell me a story about what is the capital of two plus".split()


def admin_port(log):
    return int(re.search(rb"admin port: http://127.0.0.1:(\d+)", log).group(1))


class Watch:
    """The server's own numbers, over one kept connection."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def read(self):
        """Each metric's value, summed over its labels; aborts, and those whose blocks were free in time."""
        self.connection.request("GET", "/metrics")
        text = self.connection.getresponse().read().decode()
        out = {}
        for line in text.splitlines():
            if line[:1] != "#" and "_bucket" not in line[: line.index("{") if "{" in line else None]:
                name, value = line.rsplit(" ", 1)
                name = name.replace("vllm:", "")
                base = name.split("{")[0]
                out[base] = out.get(base, 0) + float(value)
                if 'finished_reason="abort"' in name:
                    out["aborts"] = float(value)
            elif line.startswith("vllm:request_abort_steps_bucket") and 'le="2"' in line:
                out["aborts_in_two_steps"] = float(line.rsplit(" ", 1)[1])
        return out

    def until(self, what, seconds=60, pause=0.0005):
        """Reads until what(numbers) holds; returns them and when they were asked for."""
        deadline = time.monotonic() + seconds
        while True:
            numbers, now = self.read(), time.monotonic()
            if what(numbers):
                return numbers, now
            assert now < deadline, "it did not happen in %d s: %s" % (seconds, numbers)
            time.sleep(pause)

    def idle(self, seconds=60):
        return self.until(lambda m: not m["num_requests_running"] and not m["num_requests_waiting"]
                          and not m["kv_cache_usage_perc"], seconds)

    def close(self):
        self.connection.close()


def prompt(rng, words):
    return " ".join(rng.choice(WORDS) for _ in range(words))


def request(rng, words=8, max_tokens=1500, **fields):
    body = json.dumps({"prompt": prompt(rng, words), "max_tokens": max_tokens, "ignore_eos": True, **fields}).encode()
    return (b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % len(body) + body)


class Client:
    def __init__(self, port, tls=None, timeout=60):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.tls = tls is not None
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")

    def send(self, data):
        self.socket.sendall(data)

    def receive_until(self, text):
        got = b""
        while text not in got:
            piece = self.socket.recv(65536)
            assert piece, "the server closed: %r" % got[-300:]
            got += piece
        return got

    def leave(self, how):
        """close: as a process that ends (with bytes unread the kernel makes it a reset). rst: a reset at
        any rate. half: only the sending side, by TLS with its goodbye; the socket stays."""
        if how == "rst":
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "half":
            try:
                if self.tls:
                    self.socket.setblocking(False)
                    self.socket.unwrap()
                else:
                    self.socket.shutdown(socket.SHUT_WR)
            except OSError:  # the answer that waits, or a server that was first
                pass
            return
        self.socket.close()

    def close(self):
        self.socket.close()


class Blocker:
    """A request that keeps the only sequence of a slow server for as long as is wanted."""

    def __init__(self, port, tls=None):
        self.client = Client(port, tls)
        self.client.send(request(random.Random(1), n=64, stream=True))
        self.client.receive_until(b"data: {")

    def close(self):
        self.client.close()


def leave_in(phase, how, stream, rng, port, watch, tls=None):
    """One client that leaves in a phase of its request (queued: a Blocker runs). Returns the seconds from
    its leaving until the abort was counted and until its blocks were free, as the metrics showed them, and
    the step's number of each; None if the phase was over before it could leave."""
    before = watch.read()
    client = Client(port, tls)
    client.send(request(rng, words=8 if phase == "decode" else 400, stream=stream))
    if phase == "queued":
        submitted = "request_prompt_tokens_count"
        watch.until(lambda m: m[submitted] > before[submitted])
    else:
        watch.until(lambda m: m["num_requests_running"] > 0)
    if phase == "decode":
        if stream:
            client.receive_until(b"data: {")
        watch.until(lambda m: m["generation_tokens_total"] > before["generation_tokens_total"] + 1)
    else:
        time.sleep(rng.random() * 0.03)
    seen = watch.read()
    begin = time.monotonic()
    client.leave(how)
    aborted, abort_at = watch.until(lambda m: m["aborts"] > before["aborts"])
    freed = "request_abort_steps_count"
    free, free_at = watch.until(lambda m: m[freed] > before[freed])
    if phase != "queued":
        assert not free["kv_cache_usage_perc"] and not free["num_requests_running"], free
    client.close()
    if phase == "prefill" and free["generation_tokens_total"] != before["generation_tokens_total"]:
        return None
    steps = "scheduler_steps_total"
    return {"abort_s": abort_at - begin, "free_s": free_at - begin, "abort_steps": aborted[steps] - seen[steps],
            "free_steps": free[steps] - seen[steps]}


def leave_anyhow(rng, port, tls=None):
    """One client that leaves after some bytes of its request, or at some moment of the answer."""
    ask = request(rng, words=rng.choice((1, 8, 60, 300)), max_tokens=rng.choice((1, 20, 600)),
                  n=rng.choice((1, 1, 1, 4)), stream=rng.random() < 0.5)
    if rng.random() < 0.1:
        ask = ask.replace(b"POST /v1/completions", rng.choice((b"POST /tokenize", b"POST /nowhere")))
    client = Client(port, tls)
    try:
        if rng.random() < 0.25:
            client.send(ask[: rng.randrange(len(ask))])
        else:
            client.send(ask)
            if rng.random() < 0.5:
                time.sleep(min(rng.expovariate(100), 0.1))
            else:
                client.socket.recv(rng.randrange(1, 3000))
    except OSError:
        pass  # it was answered, and the connection closed
    client.leave(rng.choice(WAYS))
    client.close()
