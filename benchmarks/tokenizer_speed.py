#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tokenizing and loading speed beside Hugging Face's tokenizers, on one thread.

    tokenizer_speed.py PROGRAM TEXT VOCAB.gguf...   both on the same vocabularies and text
    tokenizer_speed.py PROGRAM --load               a synthetic tokenizer.json, 250k tokens, 450k merges

PROGRAM is the built tokenizer_speed (ninja tokenizer_speed). Needs: pip install tokenizers gguf.
The two take turns; medians of --rounds are printed. The ids must be equal, or it stops.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

from tokenizers import Regex, Tokenizer, models, pre_tokenizers  # noqa: E402

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
PATTERNS = {"llama-bpe": LLAMA3, "qwen2": LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"), "gpt-2": None}


def hugging_face(path):
    """The same vocabulary as a tokenizers.Tokenizer; None where its pattern is not known here."""
    import gguf
    fields = gguf.GGUFReader(path).fields
    pre = fields["tokenizer.ggml.pre"].contents()
    if pre not in PATTERNS:
        return None
    vocab = {t: i for i, t in enumerate(fields["tokenizer.ggml.tokens"].contents())}
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    tok = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=pre == "llama-bpe"))
    steps = []
    if PATTERNS[pre]:
        steps.append(pre_tokenizers.Split(Regex(PATTERNS[pre]), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not PATTERNS[pre]))
    tok.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return tok


def run(program, model, text, chunk=0):
    words = subprocess.run([program, model, text, str(chunk)], check=True, capture_output=True,
                           text=True).stdout.split()
    return float(words[1]), float(words[3]), int(words[5]), words[7]


def hash_ids(ids):
    h = 2166136261
    for i in ids:
        for b in i.to_bytes(4, "little"):
            h = (h ^ b) * 16777619 & 0xffffffff
    return f"{h:08x}"


def pieces(data, chunk):
    """As tokenizer_speed.c cuts."""
    at = 0
    while at < len(data):
        end = min(at + (chunk or len(data)), len(data))
        while end < len(data) and data[end] & 0xc0 == 0x80:
            end += 1
        yield data[at:end].decode()
        at = end


def compare(program, text_path, vocab, rounds):
    tok = hugging_face(vocab)
    if tok is None:
        print(f"{vocab}: its pattern is not known to this script")
        return
    data = open(text_path, "rb").read()
    for chunk in (0, 2000):
        texts = list(pieces(data, chunk))
        ours, theirs = [], []
        for _ in range(rounds):
            load, seconds, count, digest = run(program, vocab, text_path, chunk)
            ours.append(seconds)
            start = time.perf_counter()
            out = tok.encode_batch_fast(texts, add_special_tokens=False)
            theirs.append(time.perf_counter() - start)
        ids = [i for e in out for i in e.ids]
        if len(ids) != count or hash_ids(ids) != digest:
            raise SystemExit(f"{vocab}: the ids differ ({count} and {len(ids)} tokens)")
        a, b = statistics.median(ours), statistics.median(theirs)
        mb = len(data) / 1e6
        print(f"{os.path.basename(vocab)}, {'whole text' if not chunk else f'pieces of {chunk}'}: "
              f"quern {mb / a:.1f} MB/s ({a * 1e3:.1f} ms), tokenizers {mb / b:.1f} MB/s "
              f"({b * 1e3:.1f} ms): {b / a:.1f} times; load {load * 1e3:.1f} ms; same {count} ids")


def synthetic(path, n_tokens=250_000, n_merges=450_000):
    """A byte-level vocabulary of this size whose merges are consistent, written as HF writes it."""
    import itertools
    alphabet = [chr(c) for c in list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))]
    alphabet += [chr(256 + i) for i in range(256 - len(alphabet))]
    vocab = {c: i for i, c in enumerate(alphabet)}
    syllables = [a + b for a in "bdfgklmnprstvz\u0120" for b in "aeiou"]
    merges = []
    for n in range(1, 5):  # words of up to four syllables, each with every way to put it together
        for word in itertools.product(syllables, repeat=n):
            if len(vocab) >= n_tokens:
                break
            text = "".join(word)
            vocab[text] = len(vocab)
            cuts = [1] if n == 1 else [2 * k for k in range(1, n)]
            merges += [[text[:k], text[k:]] for k in cuts if text[:k] in vocab and text[k:] in vocab]
    data = json.loads(Tokenizer(models.BPE()).to_str())
    data["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                             "use_regex": True}
    data["decoder"] = data["pre_tokenizer"]
    data["model"].update(vocab=vocab, merges=merges[:n_merges])
    with open(path, "w", encoding="utf-8") as f:
        json.dump(data, f, ensure_ascii=False, indent=2)
    return len(vocab), min(len(merges), n_merges)


def load(program, rounds):
    with tempfile.TemporaryDirectory() as tmp:
        path, text = os.path.join(tmp, "tokenizer.json"), os.path.join(tmp, "text")
        tokens, merges = synthetic(path)
        with open(text, "w") as f:
            f.write("Hello")
        ours, theirs = [], []
        for _ in range(rounds):
            ours.append(run(program, path, text)[0])
            start = time.perf_counter()
            Tokenizer.from_file(path)
            theirs.append(time.perf_counter() - start)
        print(f"tokenizer.json of {os.path.getsize(path) / 1e6:.1f} MB, {tokens} tokens, {merges} "
              f"merges: quern {statistics.median(ours) * 1e3:.0f} ms, tokenizers "
              f"{statistics.median(theirs) * 1e3:.0f} ms")


def main():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("program")
    p.add_argument("text", nargs="?")
    p.add_argument("vocab", nargs="*")
    p.add_argument("--rounds", type=int, default=9)
    p.add_argument("--load", action="store_true")
    args = p.parse_args()
    if args.load:
        load(args.program, args.rounds)
    for vocab in args.vocab:
        compare(args.program, args.text, vocab, args.rounds)


if __name__ == "__main__":
    main()
