# SPDX-License-Identifier: Apache-2.0
"""The commands as a user meets them: what they print, their exit codes, and bad input."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUERN = os.environ["QN_QUERN"]
DEMO = str(ROOT / "models" / "quern-demo-q8_0.gguf")
GOLDEN = ROOT / "tests" / "golden" / "data"


def quern(*args, stdin="", env=None, timeout=120):
    return subprocess.run(
        [QUERN, *map(str, args)],
        input=stdin.encode(),
        capture_output=True,
        timeout=timeout,
        env={**os.environ, **(env or {})},
    )


def out(*args, **kw):
    r = quern(*args, **kw)
    assert r.returncode == 0, r.stderr.decode()
    return r.stdout.decode()


def one_error_line(r):
    lines = r.stderr.decode().splitlines()
    errors = [line for line in lines if line.startswith("quern: error: ")]
    assert len(errors) == 1, lines
    return errors[0]


def test_help_and_version():
    assert "serve" in out("--help")
    assert out("--version").startswith("quern ")
    for command in ("serve", "generate", "chat", "tokenize", "inspect", "download", "synth"):
        text = out(command, "--help")
        assert text.startswith("usage: quern " + command)
    assert quern().returncode == 2
    assert quern("frobnicate").returncode == 2


@pytest.mark.parametrize(
    "args",
    [
        ("generate",),
        ("generate", DEMO),
        ("generate", DEMO, "-p"),
        ("generate", DEMO, "-p", "x", "--no-such-flag"),
        ("generate", DEMO, "-p", "x", "-n", "many"),
        ("serve", DEMO, "--config"),
        ("generate", DEMO, "-p", "x", "--temperature", "nan"),
        ("generate", DEMO, "-p", "x", "--temperature", "-1"),
        ("generate", DEMO, "-p", "x", "--top-p", "2"),
        ("generate", DEMO, "extra", "-p", "x"),
        ("generate", DEMO, "-p", "x", "--kv-cache-dtype", "fp3"),
        ("generate", DEMO, "-p", "x", "--device", "abacus"),
        ("serve", DEMO, "--port", "99999"),
        ("download",),
        ("download", "no-slash"),
        ("download", "a/b/c"),
        ("download", "a/b", "c/d"),
        ("chat",),
        ("chat", DEMO, "--url", "http://localhost:1"),
        ("chat", "--url", "ftp://example"),
    ],
)
def test_wrong_usage(args):
    r = quern(*args)
    assert r.returncode == 2
    one_error_line(r)


def test_generate_is_deterministic_and_streams_the_same_text():
    args = ("generate", DEMO, "-p", "Once upon a time", "-n", 40, "--seed", 7)
    a = json.loads(out(*args, "--json", "--threads", 1))
    b = json.loads(out(*args, "--json", "--threads", 2, "--max-num-batched-tokens", 3))
    assert a["ids"] == b["ids"] and len(a["ids"]) == 40
    assert a["finish_reason"] == "length" and a["completion_tokens"] == 40
    assert out(*args) == a["text"] + "\n"
    other = json.loads(out(*args[:-1], 8, "--json"))
    assert other["ids"] != a["ids"]


def test_generate_from_ids_and_logprobs():
    text = json.loads(out("generate", DEMO, "-p", "What is", "-n", 5, "--temperature", 0, "--json",
                          "--logprobs", 0))
    ids = out("tokenize", DEMO, "What is", "--ids").split()
    same = json.loads(out("generate", DEMO, "--ids", ",".join(ids), "-n", 5, "--temperature", 0,
                          "--json"))
    assert same["ids"] == text["ids"]
    assert len(text["logprobs"]) == 5 and all(p <= 0 for p in text["logprobs"])


def test_prompt_that_cannot_fit():
    r = quern("generate", DEMO, "-p", "hello " * 100, "--max-model-len", 32)
    assert r.returncode == 1
    assert "32" in one_error_line(r)


def test_chat_from_a_pipe():
    answers = out("chat", DEMO, "--temperature", 0, stdin="What is 2 + 3?\nWho are you?\n")
    first, second = answers.strip().splitlines()
    assert "5" in first
    assert "quern" in second
    assert out("chat", DEMO, "--temperature", 0, "-p", "What is 2 + 3?").strip() == first


def test_chat_from_hf_directory():
    # A random model's words mean nothing; that its own template and tokenizer work does.
    out("chat", GOLDEN / "qwen3" / "hf", "-p", "hi", "--max-tokens", 3)


def test_no_raw_control_characters():
    # Random weights produce any byte; none that drives a terminal may come through.
    for seed in range(3):
        raw = quern("generate", GOLDEN / "qwen3" / "model-f32.gguf", "-p", "x", "-n", 100,
                    "--temperature", 3, "--seed", seed, "--ignore-eos", "--max-model-len", 200)
        assert raw.returncode == 0, raw.stderr
        assert not any(b < 32 and b not in (9, 10) for b in raw.stdout)
        raw.stdout.decode()  # and it is UTF-8


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 16, b"not a model"])
@pytest.mark.parametrize("command", ["generate", "inspect", "tokenize", "serve"])
def test_bad_files(tmp_path, command, content):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    args = {"generate": ("-p", "x"), "tokenize": ("x",), "serve": ("--port", "0")}.get(command, ())
    r = quern(command, path, *args)
    assert r.returncode == 1
    assert str(path) in one_error_line(r)


def test_truncated_file(tmp_path):
    path = tmp_path / "cut.gguf"
    data = pathlib.Path(DEMO).read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    r = quern("generate", path, "-p", "x")
    assert r.returncode == 1
    line = one_error_line(r)
    assert str(path) in line and "tensor" in line


def test_missing_file():
    r = quern("generate", "/no/such/model.gguf", "-p", "x")
    assert r.returncode == 1
    assert "/no/such/model.gguf" in one_error_line(r)


def test_tokenize_round_trip():
    text = "Hello, wörld!\n  2 + 3 = 5 🙂"
    ids = out("tokenize", DEMO, text, "--ids").split()
    assert ids and all(i.isdigit() for i in ids)
    special = out("tokenize", DEMO, "<|im_start|>", "--ids").split()
    plain = out("tokenize", DEMO, "<|im_start|>", "--ids", "--no-parse-special").split()
    assert len(special) == 1 and len(plain) > 1


def test_inspect():
    text = out("inspect", DEMO)
    for word in ("general.architecture", "qwen3", "blk.0.attn_q.weight", "q8_0", "attention",
                 "kv_write", "token_embd.weight"):
        assert word in text
    data = json.loads(out("inspect", DEMO, "--json"))
    assert data["metadata"]
    assert "model.layers.0.self_attn.q_proj.weight" in out("inspect", GOLDEN / "qwen3" / "hf")


def test_synth_serves(tmp_path):
    config = GOLDEN / "qwen3" / "hf" / "config.json"
    path = tmp_path / "synth.gguf"
    out("synth", config, path, "--type", "q8_0")
    again = tmp_path / "again.gguf"
    out("synth", config, again, "--type", "q8_0")
    assert path.read_bytes() == again.read_bytes()
    r = quern("synth", config, path, "--type", "q8_0")
    assert r.returncode == 1 and "exists" in one_error_line(r)
    result = json.loads(out("generate", path, "-p", "x", "-n", 4, "--ignore-eos", "--json"))
    assert result["completion_tokens"] == 4
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    r = quern("synth", config, pipe, "--force")
    assert r.returncode == 1 and "not a regular file" in one_error_line(r) and pipe.is_fifo()


@pytest.mark.parametrize(
    "key, value, word",
    [
        ("rope_scaling", "linear", "'rope_scaling' is not an object"),
        ("rope_parameters", 5, "'rope_parameters' is not an object"),
        ("rope_parameters", {"rope_type": 5}, "rope type is not a string"),
        ("rope_scaling", {"type": ["yarn"]}, "rope type is not a string"),
    ],
)
def test_rope_of_a_wrong_type(tmp_path, key, value, word):
    model = tmp_path / "model"
    shutil.copytree(GOLDEN / "llama2" / "hf", model)
    config = json.loads((model / "config.json").read_text())
    config.pop("rope_parameters", None)
    config[key] = value
    (model / "config.json").write_text(json.dumps(config))
    r = quern("generate", model, "-p", "x")
    assert r.returncode == 1 and word in one_error_line(r)


@pytest.mark.parametrize("ids", ["1,,3", "1,", ",1", "", "-1", "1;2"])
def test_malformed_ids(ids):
    r = quern("generate", DEMO, "--ids", ids)
    assert r.returncode == 1 and "--ids" in one_error_line(r)


def wait_for_port(process):
    """The port of a server started with --port 0, from its log."""
    for line in process.stderr:
        text = line.decode()
        if "http://127.0.0.1:" in text:
            return int(text.split("http://127.0.0.1:")[1].split("/")[0])
    raise AssertionError("the server ended")


def test_serve_environment_config_and_chat_url(tmp_path):
    config = tmp_path / "quern.yaml"
    config.write_text("# comment\nserved-model-name: from-config\nmax_num_seqs: 3\nport: 1\n")
    server = subprocess.Popen(
        [QUERN, "serve", DEMO, "--config", str(config), "--port", "0"],
        stderr=subprocess.PIPE,
        env={**os.environ, "QUERN_MAX_MODEL_LEN": "300", "QUERN_PORT": "tcp://10.0.0.1:8000"},
    )
    try:
        port = wait_for_port(server)
        answer = out("chat", "--url", f"http://127.0.0.1:{port}", "--temperature", 0, "-p",
                     "What is 2 + 3?")
        assert "5" in answer
        r = quern("chat", "--url", f"http://127.0.0.1:{port}/v1", "--model", "other", "-p", "hi")
        assert r.returncode == 1 and "other" in one_error_line(r)
        r = quern("chat", "--url", f"http://127.0.0.1:{port}", "-p", "word " * 400)
        assert r.returncode == 1 and "300" in one_error_line(r)
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0


@pytest.mark.parametrize(
    "text, code, word",
    [
        ("no-quiet: true\nhost: not an address\n", 1, "INFO"),
        ("no-quiet: false\nhost: not an address\n", 1, ""),
        ("no-host: true\n", 2, ":1: no such option"),
        ("protect-metrics: maybe\n", 2, ":1: 'maybe'"),
    ],
)
def test_config_file(tmp_path, text, code, word):
    config = tmp_path / "quern.yaml"
    config.write_text(text)
    r = quern("serve", DEMO, "--config", config)
    one_error_line(r)
    assert r.returncode == code and word.encode() in r.stderr
    assert word == "INFO" or b"INFO" not in r.stderr


def test_serve_port_in_use():
    server = subprocess.Popen([QUERN, "serve", DEMO, "--port", "0"], stderr=subprocess.PIPE)
    try:
        port = wait_for_port(server)
        r = quern("serve", DEMO, "--port", port)
        assert r.returncode == 1 and str(port) in one_error_line(r)
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0


EVENT = b'data: {"choices":[{"delta":{"content":"ha\\u001b[31mlf\\u0000"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "stream, code, word",
    [
        (EVENT + DONE, 0, ""),
        (EVENT, 1, "broke off"),
        (b"", 1, "broke off"),
        (EVENT + b"data: [[[\n\n" + DONE, 1, "not a JSON object"),
        (b"data: 5\n\n" + DONE, 1, "not a JSON object"),
        (b'data: {"error":{"message":"no\\u0007 more"}}\n\n' + DONE, 1, "no\\x07 more"),
    ],
)
def test_chat_with_a_bad_server(stream, code, word):
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection = listener.accept()[0]
        connection.recv(65536)
        connection.sendall(head + stream)
        connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    r = quern("chat", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}", "-p", "hi")
    thread.join(10)
    listener.close()
    assert r.returncode == code, r.stderr
    assert b"\x1b" not in r.stdout and b"\0" not in r.stdout
    if EVENT in stream:
        assert b"ha\\x1b[31mlf" in r.stdout
    if code:
        assert word in one_error_line(r)


def test_chat_wants_utf8():
    for args in (("-p", b"\xff"), ("-p", b"x", "--system", b"\xff")):
        r = subprocess.run([QUERN, "chat", DEMO, *args], capture_output=True, timeout=60)
        assert r.returncode in (1, 2) and "UTF-8" in one_error_line(r)


def test_generate_stops_at_interrupt():
    p = subprocess.Popen(
        [QUERN, "generate", DEMO, "-p", "x", "-n", "2000", "--ignore-eos", "--max-model-len", "2040"],
        stdout=subprocess.PIPE)
    assert p.stdout.read(20)
    time.sleep(0.05)
    p.send_signal(signal.SIGINT)
    p.stdout.read()
    assert p.wait(20) == 0
