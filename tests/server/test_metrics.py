# SPDX-License-Identifier: Apache-2.0
"""The metrics that dashboards and autoscalers for vLLM read: each name, type, label and bucket."""

import json
import pathlib
import re
import shutil
import subprocess
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BODY = {"messages": [{"role": "user", "content": "What is 2 + 3?"}], "max_tokens": 8}
MODEL = ("model_name", "engine")
TTFT = [.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560]
TOKEN = [.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5, 5, 7.5, 10, 20, 40, 80]
REQUEST = [.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680]
ITERATION = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384]
BATCH = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]
STEP = [.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10]
HTTP = [.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120]
ABORT = [0, 1, 2, 3]
LENGTH = "1, 2, 5 up to the context"

# name behind the prefix: (type, labels besides `le`, buckets)
PREFIXED = {
    "num_requests_running": ("gauge", MODEL, None),
    "num_requests_waiting": ("gauge", MODEL, None),
    "kv_cache_usage_perc": ("gauge", MODEL, None),
    "cache_config_info": ("gauge", MODEL + ("block_size", "cache_dtype", "enable_prefix_caching",
                                            "num_gpu_blocks"), None),
    "lora_requests_info": ("gauge", MODEL + ("max_lora", "running_lora_adapters",
                                             "waiting_lora_adapters"), None),
    "prefix_cache_queries_total": ("counter", MODEL, None),
    "prefix_cache_hits_total": ("counter", MODEL, None),
    "num_preemptions_total": ("counter", MODEL, None),
    "prompt_tokens_total": ("counter", MODEL, None),
    "prompt_tokens_cached_total": ("counter", MODEL, None),
    "generation_tokens_total": ("counter", MODEL, None),
    "request_success_total": ("counter", MODEL + ("finished_reason",), None),
    "admission_rejections_total": ("counter", MODEL + ("reason",), None),
    "spec_decode_num_drafts_total": ("counter", MODEL, None),
    "spec_decode_num_draft_tokens_total": ("counter", MODEL, None),
    "spec_decode_num_accepted_tokens_total": ("counter", MODEL, None),
    "spec_decode_num_accepted_tokens_per_pos_total": ("counter", MODEL + ("position",), None),
    "time_to_first_token_seconds": ("histogram", MODEL, TTFT),
    "inter_token_latency_seconds": ("histogram", MODEL, TOKEN),
    "request_time_per_output_token_seconds": ("histogram", MODEL, TOKEN),
    "e2e_request_latency_seconds": ("histogram", MODEL, REQUEST),
    "request_queue_time_seconds": ("histogram", MODEL, REQUEST),
    "request_inference_time_seconds": ("histogram", MODEL, REQUEST),
    "request_prefill_time_seconds": ("histogram", MODEL, REQUEST),
    "request_decode_time_seconds": ("histogram", MODEL, REQUEST),
    "iteration_tokens_total": ("histogram", MODEL, ITERATION),
    "request_prompt_tokens": ("histogram", MODEL, LENGTH),
    "request_generation_tokens": ("histogram", MODEL, LENGTH),
    "request_max_num_generation_tokens": ("histogram", MODEL, LENGTH),
    "request_params_max_tokens": ("histogram", MODEL, LENGTH),
    "request_params_n": ("histogram", MODEL, [1, 2, 5, 10, 20]),
    # Our own.
    "step_duration_seconds": ("histogram", MODEL + ("phase",), STEP),
    "step_batch_size": ("histogram", MODEL, BATCH),
    "scheduler_steps_total": ("counter", MODEL, None),
    "request_abort_steps": ("histogram", MODEL, ABORT),
    "healthy": ("gauge", MODEL, None),
    "watchdog_state": ("gauge", MODEL + ("state",), None),
    "watchdog_silence_seconds": ("gauge", MODEL, None),
    "build_info": ("gauge", ("version", "backend"), None),
}
BARE = {
    "http_requests_total": ("counter", ("handler", "method", "status"), None),
    "http_request_duration_seconds": ("histogram", (), HTTP),
    "process_cpu_seconds_total": ("counter", (), None),
    "process_resident_memory_bytes": ("gauge", (), None),
    "process_open_fds": ("gauge", (), None),
    "process_max_fds": ("gauge", (), None),
    "process_start_time_seconds": ("gauge", (), None),
}
VALUES = {
    "finished_reason": {"stop", "length", "abort", "error"},
    "state": {"idle", "working", "stalled"},
    "phase": {"schedule", "forward", "sample"},
    "engine": {"0"},
    "max_lora": {"0"},
    "running_lora_adapters": {""},
    "position": {"0"},
}


def parse(text):
    """{name: (type, [(sample name, labels, value)])}; every sample must follow its own TYPE."""
    metrics, name = {}, None
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert name not in metrics and len(line.split()) > 3, line
        elif line.startswith("# TYPE "):
            _, _, typed, kind = line.split()
            assert typed == name
            metrics[name] = (kind, [])
        else:
            m = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)', line)
            assert m, line
            labels = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', m.group(2) or "")
            assert ",".join(f'{k}="{v}"' for k, v in labels) == (m.group(2) or ""), line
            suffixes = ("_bucket", "_sum", "_count") if metrics[name][0] == "histogram" else ("",)
            assert m.group(1) in [name + s for s in suffixes], line
            metrics[name][1].append((m.group(1), dict(labels), float(m.group(3))))
    return metrics


def one_two_five(most):
    return [s * 10**k for k in range(9) for s in (1, 2, 5) if s * 10**k <= most]


def check(text, prefix, context):
    want = {prefix + n: w for n, w in PREFIXED.items()} | BARE
    if prefix == "quern_":
        want["quern_iteration_tokens"] = want.pop("quern_iteration_tokens_total")
    got = parse(text)
    assert set(got) == set(want)
    for name, (kind, labels, buckets) in want.items():
        assert got[name][0] == kind, name
        assert got[name][1], name
        bounds, counts = {}, {}
        for sample, have, value in got[name][1]:
            le = have.pop("le", None)
            assert (le is not None) == sample.endswith("_bucket"), name
            assert sorted(have) == sorted(labels), name
            for key, allowed in VALUES.items():
                assert have.get(key) is None or have[key] in allowed, (name, have)
            key = json.dumps(have, sort_keys=True)
            if le is not None:
                bounds.setdefault(key, []).append((float(le), value))
            elif sample.endswith("_count"):
                counts[key] = value
        if kind != "histogram":
            continue
        wanted = one_two_five(context) if buckets == LENGTH else buckets
        for key, rows in bounds.items():
            assert [b for b, _ in rows] == [*map(float, wanted), float("inf")], name
            values = [v for _, v in rows]
            assert values == sorted(values) and values[-1] == counts[key], name
    for label in ("finished_reason", "state", "phase"):
        seen = {h[label] for _, rows in got.values() for _, h, _ in rows if label in h}
        assert seen == VALUES[label]
    return got


def test_every_metric(server):
    context = server.request("GET", "/v1/models")[2]["data"][0]["max_model_len"]
    assert server.request("POST", "/v1/chat/completions", BODY)[0] == 200
    _, headers, text = server.request("GET", "/metrics")
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    got = check(text, "vllm:", context)
    # Before anything was asked the names are there too.
    value = {n: {json.dumps(h, sort_keys=True): v for _, h, v in rows} for n, (_, rows) in got.items()}
    assert abs(list(value["vllm:lora_requests_info"].values())[0] - time.time()) < 60


def test_page():
    """docs/metrics.md lists what there is."""
    heading, rows = "", {}
    for line in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        if line.startswith("## "):
            heading = line[3:]
        if line.startswith("| `"):
            name, kind, labels, _ = [c.strip() for c in line.strip()[1:-1].split("|")]
            rows[heading, name.strip("`")] = (kind, tuple(re.findall(r"`(\w+)`", labels)))
    want = {("With the prefix", n): (k, tuple(x for x in l if x not in MODEL)) for n, (k, l, _) in PREFIXED.items()}
    want |= {("Without", n): (k, l) for n, (k, l, _) in BARE.items()}
    assert rows == want


def test_promtool(start):
    if not shutil.which("promtool"):
        pytest.skip("skipped: no promtool (Debian: prometheus)")
    s = start("--metrics-prefix", "quern_", "--served-model-name", 'a "b" \\c', "second")
    assert s.request("POST", "/v1/chat/completions", BODY)[0] == 200
    text = s.request("GET", "/metrics")[2]
    r = subprocess.run(["promtool", "check", "metrics"], input=text.encode(), capture_output=True,
                       timeout=60)
    assert r.returncode == 0 and not r.stdout.strip() and not r.stderr.strip(), r.stdout + r.stderr
    got = check(text, "quern_", s.request("GET", "/v1/models")[2]["data"][0]["max_model_len"])
    assert got["quern_num_requests_running"][1][0][1]["model_name"] == r'a \"b\" \\c'
    assert s.metric("quern_request_max_num_generation_tokens_count") == 1
    assert s.metric("quern_build_info") == 1


def test_steps_are_counted(start):
    """Rows, sequences and the three parts of a step, against what one request must cost."""
    s = start()
    names = ("step_batch_size", "iteration_tokens_total", "step_duration_seconds")
    for n in names:
        assert s.metric(f"vllm:{n}_count") == 0
    r = s.request("POST", "/v1/completions", {"prompt": [300] * 20, "max_tokens": 10, "ignore_eos": True})
    assert r[0] == 200
    # Ten steps: the prompt with the first token, then nine of one row.
    assert s.metric("vllm:scheduler_steps_total") == 10
    assert s.metric("vllm:step_batch_size_count") == s.metric("vllm:step_batch_size_sum") == 10
    assert s.metric("vllm:iteration_tokens_total_count") == 10
    assert s.metric("vllm:iteration_tokens_total_sum") == 20 + 9
    assert s.metric("vllm:iteration_tokens_total_bucket", le="1") == 9
    assert s.metric("vllm:iteration_tokens_total_bucket", le="32") == 10
    parts = {p: s.metric("vllm:step_duration_seconds_sum", phase=p) for p in ("schedule", "forward", "sample")}
    assert all(v > 0 for v in parts.values()), parts
    assert all(s.metric("vllm:step_duration_seconds_count", phase=p) == 10 for p in parts)
    assert s.metric("vllm:watchdog_state", state="idle") == 1
    assert s.metric("vllm:watchdog_silence_seconds") == 0
    assert s.metric("vllm:num_preemptions_total") == 0


def test_counters_of_requests(start):
    s = start("--max-num-seqs", 4, "--block-size", 16)
    prompt = list(range(300, 380))
    ask = {"prompt": prompt, "max_tokens": 4, "ignore_eos": True, "temperature": 0}
    for _ in range(2):
        assert s.request("POST", "/v1/completions", ask)[0] == 200
    assert s.metric("vllm:prompt_tokens_total") == 160
    assert s.metric("vllm:generation_tokens_total") == 8
    assert s.metric("vllm:prefix_cache_queries_total") == 160
    # Whole blocks, and at least one token is computed.
    assert s.metric("vllm:prefix_cache_hits_total") == s.metric("vllm:prompt_tokens_cached_total") == 64
    assert s.metric("vllm:request_success_total", finished_reason="length") == 2
    assert s.metric("vllm:request_params_max_tokens_sum") == 8
    assert s.metric("vllm:request_prompt_tokens_bucket", le="100") == 2
    assert s.metric("vllm:request_generation_tokens_sum") == 8
    # Four choices: the prompt is computed once.
    assert s.request("POST", "/v1/completions", {**ask, "prompt": prompt[::-1], "n": 4})[0] == 200
    assert s.metric("vllm:request_params_n_bucket", le="2") == 2
    assert s.metric("vllm:request_params_n_bucket", le="5") == 3
    assert s.metric("vllm:request_success_total", finished_reason="length") == 6


def test_line_in_the_log(start):
    """Every ten seconds while there is work: rates, queue, KV use, prefix hits."""
    s = start("--max-num-seqs", 1)
    prompt = list(range(300, 380))
    ask = {"prompt": prompt, "max_tokens": 4, "ignore_eos": True, "temperature": 0}
    for _ in range(2):
        assert s.request("POST", "/v1/completions", ask)[0] == 200
    deadline = time.time() + 20
    pattern = re.compile(rb"prompt ([\d.]+) tok/s, generation ([\d.]+) tok/s, running (\d+), waiting (\d+), "
                         rb"KV use ([\d.]+)%, prefix cache hits ([\d.]+)%")
    while not (lines := pattern.findall(s.log)) and time.time() < deadline:
        time.sleep(0.1)
    assert len(lines) == 1, s.log
    prompt_rate, rate, running, waiting, kv, hits = map(float, lines[0])
    assert 160 / 20 < prompt_rate <= 16 and 8 / 20 < rate <= 0.8
    assert (running, waiting, kv, hits) == (0, 0, 0, 40)
    time.sleep(10.5)
    assert len(pattern.findall(s.log)) == 1, "idle time is not worth a line"
