# SPDX-License-Identifier: Apache-2.0
"""Many users at once on a KV cache that fits a third of them: every stream gets, bit for bit, the
tokens and log probabilities that it gets alone."""

import asyncio
import random

import openai
import pytest

from conftest import Server

N = 64
preemptions = []
WORDS = "cat dog sun rain hill boat red blue tell me a story about what is the capital of two plus".split()


def jobs():
    rng = random.Random(11)
    out = []
    for i in range(N):
        text = " ".join(rng.choice(WORDS) for _ in range(rng.choice([2, 8, 40, 120])))
        out.append(
            dict(
                model="quern-demo",
                messages=[{"role": "user", "content": text}],
                temperature=0 if i % 2 else 0.9,
                top_p=0.95,
                seed=i,
                max_completion_tokens=rng.choice([5, 60, 150]),
                logprobs=True,
                top_logprobs=i % 3,
                extra_body={"ignore_eos": i % 4 != 0},
            )
        )
    return out


async def ask(client, job):
    tokens, finish = [], None
    stream = await client.chat.completions.create(**job, stream=True)
    async for chunk in stream:
        for choice in chunk.choices:
            for t in choice.logprobs.content or [] if choice.logprobs else []:
                tokens.append((t.token, t.logprob, [(x.token, x.logprob) for x in t.top_logprobs]))
            finish = choice.finish_reason or finish
    return tokens, finish


async def ask_all(server, together):
    client = openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0, timeout=300)
    async with client:
        if together:
            return await asyncio.gather(*(ask(client, job) for job in jobs()))
        return [await ask(client, job) for job in jobs()]


@pytest.fixture(scope="module")
def alone():
    server = Server("--served-model-name", "quern-demo", "--no-enable-prefix-caching")
    answers = asyncio.run(ask_all(server, together=False))
    assert server.stop() == 0
    assert all(tokens and finish in ("stop", "length") for tokens, finish in answers)
    return answers


# About 600 blocks of 16 tokens would hold all of them at their end.
@pytest.mark.parametrize(
    "flags",
    [
        ("--enable-prefix-caching", "--max-num-batched-tokens", 512),
        ("--no-enable-prefix-caching", "--max-num-batched-tokens", 512),
        ("--enable-prefix-caching", "--max-num-batched-tokens", 65),
        ("--no-enable-prefix-caching", "--max-num-batched-tokens", 80, "--long-prefill-token-threshold", 7,
         "--threads", 1),
    ],
)
def test_as_alone(alone, flags):
    server = Server("--served-model-name", "quern-demo", "--max-model-len", 512,
                    "--num-gpu-blocks-override", 200, *flags)
    try:
        together = asyncio.run(ask_all(server, together=True))
        for i, (want, got) in enumerate(zip(alone, together)):
            assert want == got, f"stream {i}"
        preemptions.append(server.metric("vllm:num_preemptions_total"))
        assert server.metric("vllm:kv_cache_usage_perc") == 0
        assert server.metric("vllm:num_requests_running") == 0
    finally:
        assert server.stop() == 0


def test_some_were_preempted():
    # How many is the admission's business and depends on timing; that it never happens would mean
    # that the cache was large enough, and the tests above show nothing.
    assert sum(preemptions) > 0, preemptions
