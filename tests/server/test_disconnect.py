# SPDX-License-Identifier: Apache-2.0
"""A client that leaves, in every phase of its request, is seen; what it held is free two steps later.

What a busy machine could break is not asserted: the bounds are in steps, which the server counts
itself (request_abort_steps), and in seconds only so that a hang ends. The times are printed."""

import random
import ssl
import threading

import pytest

from conftest import Server
from leaving import FAST, PHASES, SLOW, WAYS, Blocker, Client, Watch, admin_port, leave_anyhow, leave_in, request
from test_tls import make_cert


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return make_cert(tmp_path_factory.mktemp("tls"), "one")


class Target:
    def __init__(self, flags, certificate=None):
        cert = ["--ssl-certfile", certificate[0], "--ssl-keyfile", certificate[1]] if certificate else []
        self.server = Server(*flags, *cert)
        self.tls = ssl.create_default_context(cafile=str(certificate[0])) if certificate else None
        self.port = self.server.port
        self.watch = Watch(admin_port(self.server.log))

    def good(self):
        """The next good request is answered."""
        c = Client(self.port, self.tls)
        c.send(request(random.Random(0), max_tokens=3))
        answer = c.receive_until(b'"usage"')
        assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]
        c.close()

    def check(self):
        """Nothing is left: no request, no block, no descriptor; and no abort took over two steps."""
        end, _ = self.watch.idle()
        self.watch.until(lambda m: m["process_open_fds"] <= self.fds, 20)
        assert end["aborts_in_two_steps"] == end["request_abort_steps_count"], end
        self.good()
        self.watch.idle()
        return end

    def begin(self):
        self.good()
        numbers, _ = self.watch.idle()
        self.fds = numbers["process_open_fds"]

    def close(self):
        self.watch.close()
        code = self.server.stop()
        self.server.close()
        assert code == 0, self.server.log.decode()[-2000:]


def targets(flags):
    @pytest.fixture(scope="module", params=["plain", "tls"])
    def make(request):
        t = Target(flags, request.getfixturevalue("certificate") if request.param == "tls" else None)
        t.begin()
        yield t
        t.close()

    return make


slow, fast = targets(SLOW), targets(FAST)


@pytest.mark.parametrize("phase", PHASES)
def test_phases(slow, phase):
    rng = random.Random(phase)
    blocker = Blocker(slow.port, slow.tls) if phase == "queued" else None
    met = 0
    for how in WAYS:
        for stream in (True, False):
            for _ in range(5):
                r = leave_in(phase, how, stream, rng, slow.port, slow.watch, slow.tls)
                if r:
                    break
            assert r, "the phase was never met"
            print("%s, %s, %s: abort after %.1f ms, free after %.1f ms and %d steps" % (
                phase, how, "streamed" if stream else "whole", r["abort_s"] * 1e3, r["free_s"] * 1e3, r["free_steps"]))
            assert r["abort_s"] < 10 and r["free_s"] < 20
            met += 1
    if blocker:
        blocker.close()
    end = slow.check()
    assert met == 2 * len(WAYS) and end["request_abort_steps_count"] >= met


def test_at_every_byte(fast):
    ask = request(random.Random(2), words=1, stream=True)
    for cut in range(0, len(ask) + 1, 5 if fast.tls else 1):
        c = Client(fast.port, fast.tls)
        c.send(ask[:cut])
        c.leave(WAYS[cut % 3])
        c.close()
    fast.check()


def test_at_random_moments(fast):
    before = fast.watch.read()
    failures = []

    def leaver(seed):
        rng = random.Random(seed)
        try:
            for _ in range(30):
                leave_anyhow(rng, fast.port, fast.tls)
        except Exception as e:  # shown by the test, not lost with the thread
            failures.append((seed, e))

    threads = [threading.Thread(target=leaver, args=(seed,)) for seed in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures, failures
    end = fast.check()
    # Some left in time, some were done before.
    assert end["aborts"] > before["aborts"] + 20, end["aborts"]
