# SPDX-License-Identifier: Apache-2.0
"""Models by name, against a local server that speaks the hub's API and misbehaves in many ways."""

import hashlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from hub_server import COMMIT, File, Hub

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUERN = os.environ["QN_QUERN"]
DEMO = ROOT / "models" / "quern-demo-q8_0.gguf"
MIB = 1 << 20
BIG = random.Random(1).randbytes(33 * MIB)  # three chunks
SECRET = "hf_AbCdEf0123456789secret"


def small_model():
    """The files of a directory, large ones in LFS; the bytes are never loaded."""
    a, b = b"weights one" * 1000, b"weights two" * 2000
    index = {"weight_map": {"x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors"}}
    return {
        ".gitattributes": File(b"*.bin filter=lfs\n"),
        "README.md": File(b"# a model\n"),
        "config.json": File(b'{"model_type": "llama"}'),
        "generation_config.json": File(b"{}"),
        "tokenizer.json": File(b'{"model": {}}', lfs=True),
        "chat_template.jinja": File(b""),
        "model.safetensors.index.json": File(json.dumps(index).encode()),
        "model-00001-of-00002.safetensors": File(a, lfs=True),
        "model-00002-of-00002.safetensors": File(b, lfs=True),
        "pytorch_model.bin": File(b"pickle", lfs=True),
        "modeling_evil.py": File(b"import os"),
    }


def quern(hub, home, *args, timeout=60, **env):
    base = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS_", "SSL_", "CURL_", "REQ"))}
    return subprocess.run(
        [QUERN, *map(str, args)], capture_output=True, timeout=timeout, text=True, stdin=subprocess.DEVNULL,
        env={**base, "HF_ENDPOINT": hub if isinstance(hub, str) else hub.url, "HF_HOME": str(home),
             "HOME": str(home), "no_proxy": "*", **env})


def download(hub, home, name="acme/tiny", *args, **env):
    r = quern(hub, home, "download", name, *args, **env)
    assert r.returncode == 0, r.stderr
    return pathlib.Path(r.stdout.strip())


def refused(hub, home, *args, name="acme/tiny", **env):
    r = quern(hub, home, "download", name, *args, **env)
    assert r.returncode == 1, (r.stdout, r.stderr)
    lines = [line for line in r.stderr.splitlines() if line.startswith("quern: error: ")]
    assert len(lines) == 1, r.stderr
    assert SECRET not in r.stderr
    return lines[0]


def repo(home):
    return home / "hub" / "models--acme--tiny"


def left_over(home):
    return [p.name for p in (repo(home) / "blobs").iterdir() if "incomplete" in p.name]


def big(**kw):
    return {"tiny-Q8_0.gguf": File(BIG, lfs=True, **kw)}


def unreachable():
    with socket.socket() as s:  # a port where nothing listens
        s.bind(("127.0.0.1", 0))
        return "http://127.0.0.1:%d" % s.getsockname()[1]


def test_a_directory(tmp_path):
    files = small_model()
    with Hub(files) as hub:
        path = download(hub, tmp_path)
        assert path == repo(tmp_path) / "snapshots" / COMMIT
        got = sorted(p.name for p in path.iterdir())
        # What a model needs, and neither pickles nor code.
        assert got == sorted(set(files) - {".gitattributes", "README.md", "pytorch_model.bin", "modeling_evil.py"})
        for p in path.iterdir():
            assert p.is_symlink() and os.readlink(p) == "../../blobs/" + files[p.name].hash
            assert p.read_bytes() == files[p.name].data
        assert (repo(tmp_path) / "refs" / "main").read_text() == COMMIT
        assert not left_over(tmp_path)
        # Again: one question about the revision, no file.
        hub.log.clear()
        assert download(hub, tmp_path) == path
        assert len(hub.log) == 1 and hub.log[0][1].startswith("/api/models/")
    # And without a network.
    assert download(unreachable(), tmp_path) == path
    assert download(unreachable(), tmp_path, HF_HUB_OFFLINE="1") == path


def test_offline_needs_all_of_it(tmp_path):
    with Hub(small_model()) as hub:
        error = refused(hub, tmp_path, HF_HUB_OFFLINE="1")
        assert "offline" in error and not hub.log
        path = download(hub, tmp_path)
        (path / "model-00002-of-00002.safetensors").unlink()
        error = refused(hub, tmp_path, HF_HUB_OFFLINE="YES")
        assert "model-00002-of-00002.safetensors" in error
        # With the network the link comes back, without a byte of the file.
        hub.log.clear()
        download(hub, tmp_path)
        assert not hub.requests("cdn")


def test_no_network_and_no_cache(tmp_path):
    error = refused(unreachable(), tmp_path)
    assert "cannot reach http://127.0.0.1" in error and "no file or folder 'acme/tiny'" in error


def test_revisions(tmp_path):
    with Hub(big(), revisions=("main", "refs/pr/1")) as hub:
        path = download(hub, tmp_path, "acme/tiny", "--revision", "refs/pr/1")
        assert (repo(tmp_path) / "refs" / "refs" / "pr" / "1").read_text() == COMMIT
        assert any("/revision/refs%2Fpr%2F1?" in p for p, _ in hub.requests("hub"))
        assert download(hub, tmp_path, "acme/tiny", "--revision", COMMIT) == path
        assert not (repo(tmp_path) / "refs" / COMMIT).exists()
        assert "no such revision" in refused(hub, tmp_path, "--revision", "v9")
        for evil in ("../../x", "a b", "", "/etc/passwd"):
            hub.log.clear()
            r = quern(hub, tmp_path, "download", "acme/tiny", "--revision", evil)
            assert (r.returncode == 1 and not hub.log) or evil == ""


def test_where_the_cache_is(tmp_path):
    with Hub(small_model()) as hub:
        for env, at in (
            ({"HF_HUB_CACHE": str(tmp_path / "a")}, "a"),
            ({"HUGGINGFACE_HUB_CACHE": "~/b"}, "b"),
            ({"HF_HOME": "", "XDG_CACHE_HOME": str(tmp_path / "c")}, "c/huggingface/hub"),
            ({"HF_HOME": ""}, ".cache/huggingface/hub"),
        ):
            path = download(hub, tmp_path, **env)
            assert path == tmp_path / at / "models--acme--tiny" / "snapshots" / COMMIT


def test_parallel_ranges(tmp_path):
    with Hub(big()) as hub:
        hub.delay = 0.3
        path = download(hub, tmp_path)
        assert path.read_bytes() == BIG and path.name == "tiny-Q8_0.gguf"
        ranges = sorted(h["Range"] for _, h in hub.requests("cdn"))
        assert ranges == ["bytes=0-16777215", "bytes=16777216-33554431", f"bytes=33554432-{len(BIG) - 1}"]
        assert hub.most == 3


def test_cut_connections(tmp_path):
    with Hub(big()) as hub:
        hub.cuts = [5 * MIB, 0, 3 * MIB, None, 7, MIB]
        assert download(hub, tmp_path).read_bytes() == BIG
        starts = {int(h["Range"][6:].split("-")[0]) for _, h in hub.requests("cdn")}
        assert len(starts) > 3 and not left_over(tmp_path)


def test_a_server_that_always_cuts(tmp_path):
    with Hub(big()) as hub:
        hub.cuts = [100] * 1000
        error = refused(hub, tmp_path)
        assert "broke off" in error and len(hub.requests("cdn")) < 40
        hub.cuts = []
        assert download(hub, tmp_path).read_bytes() == BIG


def test_resume_after_the_process_died(tmp_path):
    with Hub(big()) as hub:
        hub.delay = 0.5
        hub.cuts = [7 * MIB] * 3 + [0] * 1000
        p = subprocess.Popen([QUERN, "download", "acme/tiny"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "no_proxy": "*"})
        blob = repo(tmp_path) / "blobs" / (hub.files["tiny-Q8_0.gguf"].hash + ".incomplete")
        for _ in range(200):
            if blob.exists() and blob.stat().st_blocks * 512 >= 15 * MIB:  # the file has holes
                break
            time.sleep(0.05)
        time.sleep(0.3)
        p.send_signal(signal.SIGKILL)
        p.wait()
        time.sleep(0.6)  # the server ends with what it was asked for
        hub.cuts, hub.delay = [], 0
        hub.log.clear()
        assert download(hub, tmp_path).read_bytes() == BIG
        ranges = [h["Range"] for _, h in hub.requests("cdn")]
        fetched = sum(int(b) - int(a) + 1 for a, b in (r[6:].split("-") for r in ranges))
        assert fetched <= len(BIG) - 14 * MIB, ranges
        assert not left_over(tmp_path)


def test_resume_of_another_programs_part(tmp_path):
    with Hub(big()) as hub:
        blobs = repo(tmp_path) / "blobs"
        blobs.mkdir(parents=True)
        part = blobs / (hub.files["tiny-Q8_0.gguf"].hash + ".incomplete")
        part.write_bytes(BIG[:20 * MIB])
        assert download(hub, tmp_path).read_bytes() == BIG
        assert {h["Range"] for _, h in hub.requests("cdn")} == {"bytes=20971520-33554431", f"bytes=33554432-{len(BIG) - 1}"}


def test_a_damaged_part_is_fetched_anew(tmp_path):
    with Hub(big()) as hub:
        blobs = repo(tmp_path) / "blobs"
        blobs.mkdir(parents=True)
        part = blobs / (hub.files["tiny-Q8_0.gguf"].hash + ".incomplete")
        part.write_bytes(bytes(20 * MIB))
        r = quern(hub, tmp_path, "download", "acme/tiny")
        assert r.returncode == 0 and "damaged" in r.stderr
        assert pathlib.Path(r.stdout.strip()).read_bytes() == BIG
        part.write_bytes(BIG + b"too long")
        (blobs / hub.files["tiny-Q8_0.gguf"].hash).unlink()
        assert download(hub, tmp_path).read_bytes() == BIG
        part.with_name(part.name + ".parts").write_bytes(b"QNPARTS1" + b"\xff" * 100)
        part.write_bytes(BIG[:MIB])
        (blobs / hub.files["tiny-Q8_0.gguf"].hash).unlink()
        assert download(hub, tmp_path).read_bytes() == BIG


def test_a_server_without_ranges(tmp_path):
    with Hub(big()) as hub:
        hub.ranges = False
        assert download(hub, tmp_path).read_bytes() == BIG
        assert any("Range" not in h for _, h in hub.requests("cdn"))


def test_another_range_than_asked_for(tmp_path):
    with Hub(big()) as hub:
        hub.shift = 1
        assert "another range" in refused(hub, tmp_path)


@pytest.mark.parametrize("lfs", [True, False])
def test_a_wrong_hash(tmp_path, lfs):
    data = b"x" * 5000
    with Hub({"m.gguf": File(data, lfs=lfs, sent=data[:-1] + b"y")}) as hub:
        error = refused(hub, tmp_path)
        assert "'m.gguf' came with the hash" in error and "removed" in error
        assert hub.files["m.gguf"].hash in error
        assert not list((repo(tmp_path) / "blobs").iterdir())
        assert not (repo(tmp_path) / "snapshots" / COMMIT).exists()
        assert not (repo(tmp_path) / "refs" / "main").exists()


def test_more_or_fewer_bytes_than_stated(tmp_path):
    data = b"x" * 5000
    with Hub({"m.gguf": File(data, lfs=True, sent=data + b"more")}) as hub:
        assert "more bytes than it stated" in refused(hub, tmp_path)
    with Hub({"m.gguf": File(data, lfs=True, sent=data[:100])}) as hub:
        assert "broke off" in refused(hub, tmp_path)
    with Hub({"m.gguf": File(data, lfs=True, size=1 << 41)}) as hub:
        assert "MiB left" in refused(hub, tmp_path)
        assert not hub.requests("cdn")
    with Hub({"m.gguf": File(data, lfs=True, size=-1)}) as hub:
        assert "no size that can be" in refused(hub, tmp_path)
    with Hub({"m.gguf": File(data, lfs=True, size=1 << 62)}) as hub:
        assert "size that cannot be" in refused(hub, tmp_path)


def test_the_token_stays_with_the_hub(tmp_path):
    with Hub(small_model()) as hub:
        hub.token = SECRET
        assert "set HF_TOKEN" in refused(hub, tmp_path)
        assert "HF_TOKEN" in refused(hub, tmp_path, HF_TOKEN="hf_wrong")
        hub.log.clear()
        download(hub, tmp_path, HF_TOKEN=SECRET + "\n")
        assert hub.requests("cdn") and all("Authorization" not in h for _, h in hub.requests("cdn"))
        assert all(h["Authorization"] == "Bearer " + SECRET for _, h in hub.requests("hub"))


def test_where_the_token_comes_from(tmp_path):
    with Hub(small_model()) as hub:
        hub.token = SECRET
        (tmp_path / "token").write_text(SECRET + "\n")
        download(hub, tmp_path)
        (tmp_path / "token").rename(tmp_path / "elsewhere")
        refused(hub, tmp_path)
        download(hub, tmp_path, HF_TOKEN_PATH="~/elsewhere")
        for evil in ("two words", "line\r\nX-Evil: 1", "\x01", "x" * 5000):
            hub.log.clear()
            assert "is not one word" in refused(hub, tmp_path, HF_TOKEN=evil) and not hub.log


@pytest.mark.parametrize(
    "status, headers, token, words",
    [
        (401, {}, "", ["check the name, or set HF_TOKEN"]),
        (401, {"X-Error-Code": "GatedRepo"}, "", ["is gated", "accept its terms at http://127.0.0.1", "HF_TOKEN"]),
        (403, {"X-Error-Code": "GatedRepo"}, SECRET, ["is gated", "no access", "/acme/tiny"]),
        (403, {}, SECRET, ["needs read access"]),
        (404, {}, "", ["no such model"]),
        (404, {"X-Error-Code": "RevisionNotFound"}, "", ["no such revision"]),
        (429, {"Retry-After": "3600"}, "", ["limits requests", "3600 s", "set HF_TOKEN"]),
        (418, {}, "", ["HTTP 418"]),
        (302, {"Location": "file:///etc/passwd"}, "", ["no http(s) URL"]),
        (302, {}, "", ["no http(s) URL"]),
        (302, {"Location": "http://user:word@127.0.0.1/"}, "", ["no http(s) URL"]),
    ],
)
def test_refusals(tmp_path, status, headers, token, words):
    with Hub(small_model()) as hub:
        hub.answers = [(status, headers)]
        error = refused(hub, tmp_path, HF_TOKEN=token)
        assert all(w in error for w in words), error
        assert not (tmp_path / "hub").exists()


def test_busy_for_a_moment(tmp_path):
    with Hub(small_model()) as hub:
        hub.answers = [(429, {"Retry-After": "1"}), (503, {}), None, (500, {}), (429, {})]
        started = time.monotonic()
        download(hub, tmp_path)
        assert time.monotonic() - started > 1
        # A signed address that has run out: the hub is asked for a new one.
    with Hub(big()) as hub:
        hub.cdn_answers = [(403, {})]
        assert download(hub, tmp_path / "x").read_bytes() == BIG


def test_a_busy_hub_and_a_full_cache(tmp_path):
    with Hub(small_model()) as hub:
        path = download(hub, tmp_path)
        for answer in ((429, {"Retry-After": "3600"}), (503, {"Retry-After": "3600"})):
            hub.answers = [answer]
            r = quern(hub, tmp_path, "download", "acme/tiny")
            assert r.stdout.strip() == str(path) and "from the cache" in r.stderr
        hub.answers = [(403, {"X-Error-Code": "GatedRepo"})]
        assert "is gated" in refused(hub, tmp_path)


def test_redirects_are_limited(tmp_path):
    with Hub(small_model()) as hub:
        hub.answers = [(307, {"Location": "/api/models/acme/tiny/revision/main?blobs=true"})] * 3
        download(hub, tmp_path / "moved")
        hub.answers = [(307, {"Location": "/again"})] * 100
        hub.log.clear()
        assert "redirects more than" in refused(hub, tmp_path)
        assert len(hub.log) == 6
        hub.answers = []
        hub.redirect = "/acme/tiny/resolve/%s/tokenizer.json" % COMMIT
        assert "redirects more than" in refused(hub, tmp_path)
        for evil in ("ftp://127.0.0.1/x", "file:///etc/passwd", "http://a b/"):
            hub.redirect = evil
            assert "no http(s) URL" in refused(hub, tmp_path)


EVIL = ["../evil.gguf", "/tmp/evil.gguf", "a/../../evil.gguf", "a\\..\\evil.gguf", "..", "a//evil.gguf",
        "./evil.gguf", "evil\n.gguf", "x" * 300 + ".gguf", "a/" * 20 + "evil.gguf", "", 7, None]


def test_evil_names(tmp_path):
    with Hub({"config.json": File(b"{}")}) as hub:
        hub.extra = [{"rfilename": n, "size": 1, "blobId": hashlib.sha1(b"").hexdigest()} for n in EVIL]
        assert "neither model.safetensors" in refused(hub, tmp_path / "home")
        assert not list(tmp_path.rglob("*evil*"))
        assert not [p for p, _ in hub.requests("hub") if "evil" in p]
    files = small_model()
    files["model.safetensors.index.json"] = File(b'{"weight_map": {"a": "../../../evil.safetensors"}}')
    with Hub(files) as hub:
        assert "is not there" in refused(hub, tmp_path / "home")


@pytest.mark.parametrize(
    "listing",
    [
        b"", b"{}", b"[]", b"null", b"{\"sha\": 1}", b"[" * 100000, b"\xff\xfe", b"<html>",
        b'{"sha": "%s"}' % COMMIT.encode(),
        b'{"sha": "../../../../../../../../../../../../../x", "siblings": []}',
        b'{"sha": "%s", "siblings": [1, [], {"rfilename": "model.safetensors"}]}' % COMMIT.encode(),
        b'{"sha": "%s", "siblings": [{"rfilename": "m.gguf", "size": 1, "blobId": "../../x"}]}' % COMMIT.encode(),
        b'{"sha": "%s", "siblings": [{"rfilename": "m.gguf", "lfs": {"sha256": "%s", "size": 1e3}}]}'
        % (COMMIT.encode(), b"a" * 64),
        b" " * (33 << 20),
    ],
)
def test_evil_listings(tmp_path, listing):
    with Hub(small_model()) as hub:
        hub.listing = listing
        refused(hub, tmp_path)
        assert not [p for p in tmp_path.rglob("*") if p.is_file() or p.is_symlink()]


def test_links_in_the_cache_are_not_written_through(tmp_path):
    with Hub(big()) as hub:
        blobs = repo(tmp_path) / "blobs"
        blobs.mkdir(parents=True)
        target = tmp_path / "precious"
        target.write_text("mine")
        (blobs / (hub.files["tiny-Q8_0.gguf"].hash + ".incomplete")).symlink_to(target)
        assert "cannot open" in refused(hub, tmp_path)
        assert target.read_text() == "mine"


def test_which_gguf_file(tmp_path):
    files = {f"tiny-{q}.gguf": File(q.encode() * 100, lfs=True) for q in ("Q4_K_M", "Q8_0", "F16")}
    files["mmproj-tiny.gguf"] = File(b"vision", lfs=True)
    with Hub(files) as hub:
        assert "one of: F16, Q4_K_M, Q8_0" in refused(hub, tmp_path)
        assert "no GGUF file 'Q2_K'" in refused(hub, tmp_path, name="acme/tiny:Q2_K")
        path = download(hub, tmp_path, "acme/tiny:q8_0")
        assert path.name == "tiny-Q8_0.gguf" and path.read_bytes() == b"Q8_0" * 100
        assert len(hub.requests("cdn")) == 1
        # Offline there is only one to choose from.
        assert download(hub, tmp_path, "acme/tiny", HF_HUB_OFFLINE="1") == path


def test_two_at_once(tmp_path):
    with Hub(big()) as hub:
        hub.delay = 0.3
        results = []
        threads = [threading.Thread(target=lambda: results.append(download(hub, tmp_path))) for _ in range(3)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(results) == 3 and all(p.read_bytes() == BIG for p in results)
        assert len(hub.requests("cdn")) == 3  # chunks, not processes


def test_a_disk_that_cannot_be_written(tmp_path):
    with Hub(small_model()) as hub:
        (tmp_path / "hub").write_text("a file where a folder should be")
        assert "cannot make the folder" in refused(hub, tmp_path)


def test_a_full_disk(tmp_path):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, MIB))

    with Hub(big()) as hub:
        r = subprocess.run([QUERN, "download", "acme/tiny"], capture_output=True, text=True, timeout=60,
                           preexec_fn=limit, env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)})
        assert r.returncode == 1 and "cannot write" in r.stderr and r.stderr.count("error") == 1
        assert not (repo(tmp_path) / "blobs" / hub.files["tiny-Q8_0.gguf"].hash).exists()
        assert download(hub, tmp_path).read_bytes() == BIG


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if not shutil.which("openssl"):
        pytest.skip("skipped: no openssl program")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                    "-keyout", key, "-out", cert], check=True, capture_output=True)
    return str(cert), str(key)


def test_tls(tmp_path, certificate):
    with Hub(big(), tls=certificate) as hub:
        assert "certificate" in refused(hub, tmp_path, HF_TOKEN=SECRET) and not hub.log
        trusted = {"SSL_CERT_FILE": certificate[0]}
        other_name = hub.url.replace("localhost", "127.0.0.1")
        assert "cannot reach" in refused(other_name, tmp_path, **trusted) and not hub.log
        hub.redirect = hub.cdn.replace("https", "http") + "/blobs/x"
        assert "from https to http" in refused(hub, tmp_path, **trusted)
        hub.redirect = None
        assert download(hub, tmp_path, HF_TOKEN=SECRET, **trusted).read_bytes() == BIG
        assert all("Authorization" not in h for _, h in hub.requests("cdn"))


SNAPSHOT = """
import sys
from huggingface_hub import snapshot_download
print(snapshot_download("acme/tiny", local_files_only="local" in sys.argv, ignore_patterns=["*.bin", "*.py"]))
"""


def test_huggingface_hub_shares_the_cache(tmp_path):
    pytest.importorskip("huggingface_hub")
    files = small_model()

    def snapshot(hub, home, *args):
        env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "no_proxy": "*"}
        r = subprocess.run([sys.executable, "-c", SNAPSHOT, *args], capture_output=True, text=True, env=env, timeout=60)
        assert r.returncode == 0, r.stderr
        return pathlib.Path(r.stdout.strip())

    with Hub(files) as hub:
        ours = download(hub, tmp_path / "ours")
        assert snapshot(hub, tmp_path / "ours", "local") == ours
        # Theirs; then ours without a network, and with one but nothing to fetch.
        theirs = snapshot(hub, tmp_path / "theirs")
        assert download(hub, tmp_path / "theirs", HF_HUB_OFFLINE="1") == theirs
        hub.log.clear()
        assert download(hub, tmp_path / "theirs") == theirs and len(hub.log) == 1
        for name in ("config.json", "model-00001-of-00002.safetensors"):
            assert os.readlink(ours / name) == os.readlink(theirs / name)
        # What we began and they go on with: only what is missing.
        hub.log.clear()
        assert snapshot(hub, tmp_path / "ours") == ours
        assert not hub.requests("cdn")
        assert (ours / "README.md").read_bytes() == files["README.md"].data


def demo_hub():
    return Hub({"demo-Q8_0.gguf": File(DEMO.read_bytes(), lfs=True), "README.md": File(b"")}, repo="acme/demo")


def test_commands_take_a_name(tmp_path):
    with demo_hub() as hub:
        by_path = quern(hub, tmp_path, "generate", DEMO, "-p", "Once", "-n", "8", "--temperature", "0")
        by_name = quern(hub, tmp_path, "generate", "acme/demo", "-p", "Once", "-n", "8", "--temperature", "0")
        assert by_name.returncode == 0 and by_name.stdout == by_path.stdout
        shown = quern(hub, tmp_path, "inspect", "acme/demo:Q8_0", "--no-tensors", "--no-program")
        assert shown.returncode == 0 and "general.architecture" in shown.stdout
        ids = quern(hub, tmp_path, "tokenize", "acme/demo", "Hello", "--ids")
        assert ids.stdout == quern(hub, tmp_path, "tokenize", DEMO, "Hello", "--ids").stdout != ""
        assert len(hub.requests("cdn")) == 1
        # A path that exists wins over a name.
        (tmp_path / "acme").mkdir()
        (tmp_path / "acme" / "demo").symlink_to(DEMO)
        hub.log.clear()
        r = subprocess.run([QUERN, "tokenize", "acme/demo", "Hello", "--ids"], cwd=tmp_path, capture_output=True,
                           text=True, timeout=60, env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path)})
        assert r.stdout == ids.stdout and not hub.log
        # What is no name is a path.
        r = quern(hub, tmp_path, "generate", "models/typo.gguf", "-p", "x")
        assert r.returncode == 1 and "models/typo.gguf" in r.stderr and not hub.log


def test_serve_by_name(tmp_path):
    with demo_hub() as hub:
        p = subprocess.Popen([QUERN, "serve", "acme/demo", "--port", "0"], stderr=subprocess.PIPE, text=True,
                             env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "no_proxy": "*"})
        try:
            url = None
            for line in p.stderr:
                if "serving acme/demo at " in line:
                    url = line.split(" at ")[1].strip()
                    break
            assert url
            threading.Thread(target=p.stderr.read, daemon=True).start()
            open_ = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
            models = json.load(open_(url + "/models", timeout=30))
            assert models["data"][0]["id"] == "acme/demo"
            body = {"model": "acme/demo", "prompt": "Once", "max_tokens": 4}
            r = urllib.request.Request(url + "/completions", json.dumps(body).encode(),
                                       {"Content-Type": "application/json"})
            assert json.load(open_(r, timeout=60))["choices"][0]["text"]
        finally:
            p.terminate()
            p.wait(30)
