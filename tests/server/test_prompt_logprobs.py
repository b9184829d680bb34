# SPDX-License-Identifier: Apache-2.0
"""Prompt logprobs and echo with the real client: against what generating the same tokens gave, bit
for bit, and through chunks, preemptions and other traffic."""

import concurrent.futures
import json
import pathlib
import shutil

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROMPT = "Once upon a time there was a little fox, and every day the fox"
MESSAGES = [{"role": "user", "content": "What is 2 + 3?"}]


def complete(client, prompt, **kw):
    kw.setdefault("max_tokens", 8)
    kw.setdefault("temperature", 0)
    extra = {k: kw.pop(k) for k in ("ignore_eos", "return_token_ids", "prompt_logprobs", "top_k") if k in kw}
    return client.completions.create(model="quern-demo", prompt=prompt, extra_body=extra, **kw)


def ids_of(server, text):
    return server.request("POST", "/tokenize", {"prompt": text})[2]["tokens"]


def generated(client, ids, n=40, top=4):
    """What generating says of its own tokens: ids, logprobs, top logprobs."""
    c = complete(client, ids, max_tokens=n, logprobs=top, ignore_eos=True, return_token_ids=True).choices[0]
    return c.token_ids, c.logprobs.token_logprobs, c.logprobs.top_logprobs


def check_offsets(choice):
    """Each token's text is in the text at its offset, where text can show it."""
    lp = choice.logprobs
    assert len(lp.tokens) == len(lp.token_logprobs) == len(lp.top_logprobs) == len(lp.text_offset)
    seen = 0
    for token, at in zip(lp.tokens, lp.text_offset):
        if "\ufffd" not in token and not token.startswith("<|"):
            if choice.text[at:].startswith(token):
                seen += 1
    assert seen >= 0.9 * len(lp.tokens), list(zip(lp.tokens, lp.text_offset))


def test_scores_are_those_of_generating(server, client):
    ids = ids_of(server, PROMPT)
    out, logprobs, tops = generated(client, ids)
    c = complete(client, ids + out, max_tokens=0, echo=True, logprobs=4).choices[0]
    assert c.logprobs.token_logprobs[0] is None and c.logprobs.top_logprobs[0] is None
    assert len(c.logprobs.tokens) == len(ids) + len(out)
    assert c.logprobs.token_logprobs[len(ids):] == logprobs
    assert c.logprobs.top_logprobs[len(ids):] == tops
    r = complete(client, ids + out, max_tokens=1, prompt_logprobs=4).choices[0].model_extra["prompt_logprobs"]
    assert r[0] is None and len(r) == len(ids) + len(out)
    for i, (token, entry) in enumerate(zip((ids + out)[1:], r[1:]), 1):
        assert entry[str(token)]["logprob"] == c.logprobs.token_logprobs[i]
        assert list(entry)[0] == str(token) and 4 <= len(entry) <= 5
        assert entry[str(token)]["decoded_token"] == c.logprobs.tokens[i]
        ranks = sorted(e["rank"] for e in entry.values())
        assert ranks[:4] == [1, 2, 3, 4]
        values = [e["logprob"] for e in sorted(entry.values(), key=lambda e: e["rank"])]
        assert values == sorted(values, reverse=True)
        if i >= len(ids):
            assert entry[str(token)]["rank"] == 1  # it was generated greedily


def test_chat(client):
    r = client.chat.completions.create(model="quern-demo", messages=MESSAGES, max_tokens=4,
                                       extra_body={"prompt_logprobs": 0, "return_token_ids": True})
    scores, ids = r.model_extra["prompt_logprobs"], r.model_extra["prompt_token_ids"]
    assert len(scores) == len(ids) == r.usage.prompt_tokens and scores[0] is None
    for token, entry in zip(ids[1:], scores[1:]):
        assert list(entry) == [str(token)]
        one = entry[str(token)]
        assert set(one) == {"logprob", "rank", "decoded_token"}
        assert one["logprob"] <= 0 and one["rank"] >= 1
        assert (one["rank"] == 1) >= (one["logprob"] > -0.5)
    assert "<|im_start|>" in [next(iter(e.values()))["decoded_token"] for e in scores[1:]]
    plain = client.chat.completions.create(model="quern-demo", messages=MESSAGES, max_tokens=4)
    assert "prompt_logprobs" not in (plain.model_extra or {})


def test_echo(server, client):
    bare = complete(client, PROMPT)
    r = complete(client, PROMPT, echo=True)
    assert r.choices[0].text == PROMPT + bare.choices[0].text
    assert r.choices[0].logprobs is None and r.usage == bare.usage
    with_scores = complete(client, PROMPT, echo=True, logprobs=2).choices[0]
    assert with_scores.text == r.choices[0].text
    check_offsets(with_scores)
    want = complete(client, PROMPT, logprobs=2).choices[0].logprobs
    n = bare.usage.prompt_tokens
    assert with_scores.logprobs.tokens[n:] == want.tokens
    assert with_scores.logprobs.token_logprobs[n:] == want.token_logprobs
    assert with_scores.logprobs.top_logprobs[n:] == want.top_logprobs
    assert with_scores.logprobs.text_offset[n:] == [len(PROMPT) + at for at in want.text_offset]
    assert "".join(with_scores.logprobs.tokens[:n]).strip() == PROMPT
    assert all(len(t) in (2, 3) for t in with_scores.logprobs.top_logprobs[1:])


def test_echo_alone(server, client):
    ids = ids_of(server, PROMPT)
    for prompt in (PROMPT, ids):
        r = complete(client, prompt, max_tokens=0, echo=True)
        c = r.choices[0]
        assert c.text == PROMPT and c.finish_reason == "length"
        assert r.usage.completion_tokens == 0 and r.usage.prompt_tokens == len(ids)
        r = complete(client, prompt, max_tokens=0, echo=True, logprobs=0)
        assert len(r.choices[0].logprobs.tokens) == len(ids)
    one = complete(client, [ids[1]], max_tokens=0, echo=True, logprobs=1).choices[0].logprobs
    assert one.token_logprobs == [None] and one.top_logprobs == [None] and one.text_offset == [0]
    status, _, r = server.request("POST", "/v1/completions", {"prompt": "x", "max_tokens": 0})
    assert status == 400 and r["error"]["param"] == "max_tokens"
    status, _, r = server.request("POST", "/v1/completions", {"prompt": "x", "max_tokens": 0, "echo": True,
                                                              "min_tokens": 1})
    assert status == 400 and r["error"]["param"] == "min_tokens"


@pytest.mark.parametrize("text", ["naïve — 日本語 🦊 end", "  two spaces", "a\nb\n\n\tc", "<|im_end|> in a prompt"])
def test_echo_of_any_text(server, client, text):
    for prompt in (text, ids_of(server, text)):
        c = complete(client, prompt, max_tokens=0, echo=True, logprobs=1).choices[0]
        assert c.text == text
        offsets = c.logprobs.text_offset
        assert offsets == sorted(offsets) and offsets[0] == 0 and offsets[-1] <= len(text)
        for token, at in zip(c.logprobs.tokens, offsets):
            assert "\ufffd" in token or text[at:].startswith(token), (token, at)


def test_echo_streamed(client):
    for kw in ({}, {"logprobs": 3}, {"logprobs": 1, "max_tokens": 0}, {"max_tokens": 0}, {"n": 2, "logprobs": 1}):
        kw = {"echo": True, "seed": 5, "temperature": 0.8, **kw}
        want = complete(client, PROMPT, **kw)
        got = {c.index: {"text": "", "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
               for c in want.choices}
        for chunk in complete(client, PROMPT, stream=True, **kw):
            for c in chunk.choices:
                got[c.index]["text"] += c.text
                if c.logprobs:
                    for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
                        got[c.index][name] += getattr(c.logprobs, name)
        for c in want.choices:
            assert got[c.index]["text"] == c.text
            if c.logprobs:
                for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
                    assert got[c.index][name] == getattr(c.logprobs, name)


def test_choices_share_the_prompt(start):
    s = start()
    client = s.client()
    r = complete(client, [PROMPT, "The end"], n=3, echo=True, logprobs=2, prompt_logprobs=1, temperature=1, seed=3)
    n = [len(ids_of(s, p)) for p in (PROMPT, "The end")]
    assert len(r.choices) == 6
    for c in r.choices:
        first = r.choices[c.index // 3 * 3]
        k = n[c.index // 3]
        assert c.logprobs.token_logprobs[:k] == first.logprobs.token_logprobs[:k]
        assert c.model_extra["prompt_logprobs"] == first.model_extra["prompt_logprobs"]
        assert len(c.model_extra["prompt_logprobs"]) == k
    assert r.choices[0].model_extra["prompt_logprobs"] != r.choices[3].model_extra["prompt_logprobs"]
    # Each prompt's rows once, and one more row for each other choice's first token.
    assert s.metric("vllm:prompt_tokens_total") <= sum(n) + 2 * 2 + s.metric("vllm:prompt_tokens_cached_total")


def test_prefix_cache_is_not_read(start):
    s = start()
    client = s.client()
    ids = list(range(300, 400))
    first = complete(client, ids, echo=True, logprobs=3)
    complete(client, ids)
    hits = s.metric("vllm:prefix_cache_hits_total")
    assert hits > 0
    again = complete(client, ids, echo=True, logprobs=3)
    assert s.metric("vllm:prefix_cache_hits_total") == hits
    assert again.choices == first.choices
    assert again.usage.prompt_tokens_details.cached_tokens == 0


def test_same_with_little_room(start, server):
    """A KV cache that fits a third, chunks of any size, one logit row, other traffic: the same bits."""
    client = server.client()
    prompts = [list(range(300 + 7 * i, 300 + 7 * i + 60 + 5 * i)) for i in range(12)]

    def ask(c, i):
        kw = {"echo": True, "logprobs": 2} if i % 3 else {}
        return complete(c, prompts[i], max_tokens=60, ignore_eos=True, seed=i, temperature=i % 2, **kw).choices[0]

    want = [ask(client, i) for i in range(len(prompts))]
    for flags in (("--num-gpu-blocks-override", 28), ("--max-num-batched-tokens", 13, "--max-num-seqs", 5),
                  ("--max-num-seqs", 1)):
        s = start(*flags)
        c = s.client()
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            got = list(pool.map(lambda i: ask(c, i), range(len(prompts))))
        for a, b in zip(want, got):
            assert a == b, flags
        if "override" in flags[0]:
            assert s.metric("vllm:num_preemptions_total") > 0
        assert s.metric("vllm:kv_cache_usage_perc") == 0


@pytest.mark.parametrize("name", ["llama2", "llama3"])
def test_echo_behind_a_bos(start, name):
    """A BOS that the tokenizer puts before the text is a token without text."""
    s = start(model=ROOT / "tests" / "golden" / "data" / name / "hf")
    text = "hello world, again"
    ids = ids_of(s, text)
    bare = s.request("POST", "/tokenize", {"prompt": text, "add_special_tokens": False})[2]["tokens"]
    assert ids[1:] == bare
    ask = {"prompt": text, "max_tokens": 3, "echo": True, "logprobs": 1, "ignore_eos": True}
    c = s.request("POST", "/v1/completions", ask)[2]["choices"][0]
    lp, n = c["logprobs"], len(ids)
    assert c["text"].startswith(text) and len(lp["tokens"]) == n + 3
    assert lp["text_offset"][:2] == [0, 0] and lp["text_offset"][n] == len(text)
    for token, at in zip(lp["tokens"][1:n], lp["text_offset"][1:n]):
        assert text[at:].startswith(token if at else token.lstrip()), (token, at)
    c = s.request("POST", "/v1/completions", {**ask, "prompt": bare, "max_tokens": 0})[2]["choices"][0]
    assert c["text"] == text and c["logprobs"]["text_offset"] == [
        at for at in lp["text_offset"][1:n]]


def test_too_much(server):
    ids = list(range(300, 800))[:500]
    for beside, param in (({"prompt_logprobs": 20}, "prompt_logprobs"), ({"echo": True, "logprobs": 20}, "echo")):
        body = {"prompt": ids, "n": 128, "max_tokens": 1, **beside}
        status, _, r = server.request("POST", "/v1/completions", body)
        assert status == 400 and r["error"]["param"] == param, r
    assert server.request("POST", "/v1/completions", {"prompt": "x", "max_tokens": 1})[0] == 200


def test_chat_echo(client):
    """vLLM's: an answer that continues the assistant's last message is given with it."""
    def ask(messages, stream=False, **extra):
        return client.chat.completions.create(model="quern-demo", messages=messages, max_tokens=6, temperature=0,
                                              stream=stream, extra_body=extra)

    begun = MESSAGES + [{"role": "assistant", "content": "It is"}]
    plain = ask(begun, continue_final_message=True).choices[0].message.content
    assert ask(begun, continue_final_message=True, echo=True).choices[0].message.content == "It is" + plain
    chunks = ask(begun, stream=True, continue_final_message=True, echo=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "It is" + plain
    assert ask(MESSAGES, echo=True).choices[0].message == ask(MESSAGES).choices[0].message


def test_generation_config(tmp_path, start):
    """The model's own defaults, as with vLLM's --generation-config auto; a request overrides them."""
    hf = ROOT / "tests" / "golden" / "data" / "qwen3" / "hf"
    shutil.copytree(hf, tmp_path / "m")
    path = tmp_path / "m" / "generation_config.json"
    config = json.loads(path.read_text())
    config.update(temperature=40, top_k=30, top_p=0.9, min_p=0.05, repetition_penalty=1.3, max_new_tokens=7,
                  do_sample=True)
    path.write_text(json.dumps(config))
    s = start(model=tmp_path / "m")
    base = {"prompt": "hello world", "max_tokens": 30, "seed": 3, "ignore_eos": True, "return_token_ids": True}
    told = {"temperature": 40, "top_k": 30, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.3}

    def ids(**kw):
        status, _, r = s.request("POST", "/v1/completions", {**base, **kw})
        assert status == 200, r
        return r["choices"][0]["token_ids"]

    assert ids() == ids(**told)
    for name, off in (("temperature", 0), ("top_k", 2), ("top_p", 0.1), ("min_p", 0.9), ("repetition_penalty", 100)):
        assert ids(**{name: off}) != ids(), name
        assert ids(**{name: off}) == ids(**{**told, name: off})
    # max_new_tokens: of chats that do not say; completions have the API's own default.
    def chat(**kw):
        status, _, r = s.request("POST", "/v1/chat/completions", {"messages": MESSAGES, "ignore_eos": True, **kw})
        assert status == 200, r
        return r["usage"]["completion_tokens"]

    assert chat() == 7 and chat(max_tokens=11) == 11
    assert len(s.request("POST", "/v1/completions", {"prompt": "a", "ignore_eos": True,
                                                     "return_token_ids": True})[2]["choices"][0]["token_ids"]) == 16
