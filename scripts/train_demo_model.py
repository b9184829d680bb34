#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains quern-demo, the small chat model in models/, and exports it as GGUF or a HF directory.

Needs the packages of scripts/requirements-train.txt (PyTorch on CPU; quern itself needs none of
them) and, for --compile, a C++ compiler. About 40 minutes on 2 cores with the defaults.

  python scripts/train_demo_model.py --work build/demo --compile \\
      --export-gguf models/quern-demo-q8_0.gguf
  python scripts/train_demo_model.py --work build/demo --from-checkpoint --export-hf build/hf

The text comes from demo_text.py and a seed. The architecture is Qwen3 with every width a
multiple of 256, so that every GGUF block format applies. The run ends with the held-out loss and
the share of held-out sums answered exactly, in F32 and with the weights as Q8_0 stores them.
"""

import argparse
import json
import math
import os
import random
import time

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import Qwen3Config, Qwen3ForCausalLM

import demo_exchanges
import demo_text

VOCAB = 2048
CONTEXT = 2048
END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIALS = [END_OF_TEXT, IM_START, IM_END]

# The pre-tokenizer that GGUF files call "qwen2": one digit a piece, letters with one lead-in mark.
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)

# What the prompt side of a chat counts in the loss; the assistant's words count 1.
PROMPT_WEIGHT = 0.1


def train_tokenizer(seed):
    writer = demo_text.Writer(seed)
    texts = (text for _ in range(60000) for _, text in writer.training_document())
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIALS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != VOCAB:
        raise SystemExit(f"the tokenizer has {tokenizer.get_vocab_size()} tokens, not {VOCAB}")
    return tokenizer


class Encoder:
    """Turns documents into ids and loss weights, exactly as the chat template renders them."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.start, self.end = tokenizer.token_to_id(IM_START), tokenizer.token_to_id(IM_END)
        self.newline = tokenizer.encode("\n").ids
        self.reply_head = len(tokenizer.encode("assistant\n").ids)

    def encode(self, document):
        """(ids, weights); weights[i] is what predicting ids[i] counts."""
        ids, weights = [], []
        for role, text in document:
            if role == "text":
                piece = self.tokenizer.encode(text).ids + [self.end]
                ids += piece
                weights += [1.0] * len(piece)
                continue
            piece = self.tokenizer.encode(f"{role}\n{text}").ids + [self.end]
            reply = role == "assistant"
            head = self.reply_head if reply else len(piece)
            ids += [self.start] + piece + self.newline
            weights += [PROMPT_WEIGHT] * (1 + head) + [1.0] * (len(piece) - head)
            weights += [PROMPT_WEIGHT] * len(self.newline)
        return ids, weights


class Batches:
    """Rows of whole documents, each seeing only itself; long rows hold one long chat each."""

    def __init__(self, encoder, seed):
        self.encoder = encoder
        self.writer = demo_text.Writer(seed)
        self.rng = random.Random(seed)

    def row(self, length):
        ids, weights, starts = [], [], []
        misses = 0
        while misses < 3 and len(ids) < length - 16:
            doc_ids, doc_weights = self.encoder.encode(self.writer.training_document())
            if len(ids) + len(doc_ids) > length + 1:
                misses += 1
                continue
            starts.append(len(ids))
            ids += doc_ids
            weights += doc_weights
        return ids, weights, starts

    def long_row(self, length):
        ids, weights = [], []
        while len(ids) < length - 16:
            doc = self.writer.training_document()
            if ids and doc[0][0] == "system":
                doc = doc[1:]
            if doc[0][0] == "text":
                continue
            doc_ids, doc_weights = self.encoder.encode(doc)
            ids += doc_ids
            weights += doc_weights
        return ids[: length + 1], weights[: length + 1], [0]

    def batch(self, rows, length, long):
        ids = torch.zeros(rows, length + 1, dtype=torch.long)
        weights = torch.zeros(rows, length + 1)
        positions = torch.zeros(rows, length, dtype=torch.long)
        documents = torch.full((rows, length), -1, dtype=torch.long)
        for r in range(rows):
            row_ids, row_weights, starts = self.long_row(length) if long else self.row(length)
            n = len(row_ids)
            ids[r, :n] = torch.tensor(row_ids)
            weights[r, :n] = torch.tensor(row_weights)
            for d, first in enumerate(starts):
                last = min(starts[d + 1] if d + 1 < len(starts) else n, length)
                positions[r, first:last] = torch.arange(last - first)
                documents[r, first:last] = d
                weights[r, first] = 0.0  # nothing before it to predict it from
        same = documents[:, :, None] == documents[:, None, :]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        mask = torch.zeros(rows, 1, length, length)
        mask.masked_fill_(~(same & causal)[:, None], torch.finfo(torch.float32).min)
        return ids, weights, positions, mask


def make_model(layers):
    config = Qwen3Config(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=None,
        eos_token_id=SPECIALS.index(IM_END),
        pad_token_id=SPECIALS.index(END_OF_TEXT),
    )
    config._attn_implementation = "sdpa"
    return Qwen3ForCausalLM(config)


def make_optimizers(model):
    """Muon for the layers' matrices, AdamW for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(
            matrices, lr=3e-3, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=3e-3, betas=(0.9, 0.97), weight_decay=0.0),
    ]


def save_checkpoint(model, tokenizer, work, step):
    temporary = os.path.join(work, "checkpoint.tmp")
    torch.save(
        {"step": step, "layers": model.config.num_hidden_layers, "model": model.state_dict()},
        temporary,
    )
    os.replace(temporary, os.path.join(work, "checkpoint.pt"))
    tokenizer.save(os.path.join(work, "tokenizer.json"))


def load_checkpoint(work):
    saved = torch.load(os.path.join(work, "checkpoint.pt"), weights_only=True)
    model = make_model(saved["layers"])
    model.load_state_dict(saved["model"])
    return model, Tokenizer.from_file(os.path.join(work, "tokenizer.json")), saved["step"]


def train(args):
    torch.manual_seed(args.seed)
    if args.resume:
        model, tokenizer, step = load_checkpoint(args.work)
    else:
        model, tokenizer, step = make_model(args.layers), train_tokenizer(args.seed), 0
    encoder = Encoder(tokenizer)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    forward = torch.compile(model, dynamic=False) if args.compile else model
    optimizers = make_optimizers(model)
    rates = [[g["lr"] for g in o.param_groups] for o in optimizers]
    batches = Batches(encoder, args.seed + 1 + step)
    resumed_at, first = step / args.steps, step
    began = saved_at = time.time()
    smooth, tokens = None, 0
    while True:
        minutes = (time.time() - began) / 60
        in_time = resumed_at + (1.0 - resumed_at) * minutes / args.minutes
        progress = max(step / args.steps, in_time)
        if progress >= 1:
            break
        scale = min(1.0, (step - first + 1) / 100) * (1.0 - progress)
        for optimizer, base in zip(optimizers, rates):
            for group, rate in zip(optimizer.param_groups, base):
                group["lr"] = rate * scale
        long = progress > 1 - args.long_share
        length = args.length * 4 if long else args.length
        ids, weights, positions, mask = batches.batch(args.batch // length, length, long)
        with torch.autocast("cpu", torch.bfloat16):
            logits = forward(
                input_ids=ids[:, :-1],
                attention_mask=mask.to(torch.bfloat16),
                position_ids=positions,
                use_cache=False,
            ).logits
        losses = F.cross_entropy(
            logits.float().view(-1, VOCAB), ids[:, 1:].reshape(-1), reduction="none"
        )
        weight = weights[:, 1:].reshape(-1)
        loss = (losses * weight).sum() / weight.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        tokens += args.batch
        step += 1
        if step % 50 == 0 or step == first + 1:
            rate = tokens / (time.time() - began)
            print(
                f"step {step} loss {smooth:.4f} {minutes:.1f} min {rate:.0f} tokens/s", flush=True
            )
        if not math.isfinite(smooth):
            raise SystemExit("the loss is not finite")
        if time.time() - saved_at > 180:
            save_checkpoint(model, tokenizer, args.work, step)
            saved_at = time.time()
    save_checkpoint(model, tokenizer, args.work, step)


@torch.no_grad()
def teacher_forced(model, rows):
    """For each (ids, weights): the losses of the ids after the first, and where argmax is right."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    results = [None] * len(rows)
    for at in range(0, len(order), 32):
        part = order[at : at + 32]
        width = max(len(rows[i][0]) for i in part)
        ids = torch.zeros(len(part), width, dtype=torch.long)
        for r, i in enumerate(part):
            ids[r, : len(rows[i][0])] = torch.tensor(rows[i][0])
        logits = model(input_ids=ids, use_cache=False).logits
        losses = F.cross_entropy(logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")
        right = logits[:, :-1].argmax(-1) == ids[:, 1:]
        for r, i in enumerate(part):
            n = len(rows[i][0]) - 1
            results[i] = (losses[r, :n].numpy(), right[r, :n].numpy())
    return results


def answers_exactly(model, encoder, chats):
    """The share of chats whose last answer greedy decoding would give word for word."""
    rows = [encoder.encode(chat) for chat in chats]
    good = 0
    for (ids, weights), (_, right), chat in zip(rows, teacher_forced(model, rows), chats):
        answer = len(encoder.tokenizer.encode(chat[-1][1]).ids) + 1
        end = len(ids) - len(encoder.newline) - 1  # index in right of the end mark, plus one
        good += bool(right[end - answer : end].all())
    return good / len(chats)


def evaluate(model, tokenizer, label, seed=99):
    model.eval()
    encoder = Encoder(tokenizer)
    writer = demo_text.Writer(seed)
    rows = [encoder.encode(writer.held_out_document()) for _ in range(400)]
    reply_loss = reply_count = all_loss = all_count = 0.0
    for (_, weights), (losses, _) in zip(rows, teacher_forced(model, rows)):
        is_reply = np.array(weights[1:]) == 1.0
        reply_loss, reply_count = reply_loss + losses[is_reply].sum(), reply_count + is_reply.sum()
        all_loss, all_count = all_loss + losses.sum(), all_count + len(losses)
    print(
        f"{label}: held-out loss {reply_loss / reply_count:.4f} on replies, "
        f"{all_loss / all_count:.4f} on all text ({int(all_count)} tokens)"
    )
    asked = lambda op, a, b: [
        ("user", writer.sum_question(op, a, b)),
        ("assistant", demo_exchanges.sum_answer(op, a, b)),
    ]
    kept = demo_exchanges.held_out_sums()
    by_op = []
    for op in "+-x":
        sums = [s for s in kept if s[0] == op]
        share = answers_exactly(model, encoder, [asked(*s) for s in sums for _ in range(4)])
        by_op.append(f"{op} {share:.1%} of {len(sums)}")
    print(f"{label}: sums never seen in training, answered exactly: {', '.join(by_op)}")
    small = [(op, a, b) for op in "+-x" for a in range(11) for b in range(11)]
    share = answers_exactly(model, encoder, [asked(*s) for s in small])
    print(f"{label}: sums with numbers up to 10, in random wordings: {share:.1%} of {len(small)}")
    chats = []
    while len(chats) < 1000:
        doc = writer.held_out_document()
        if (
            doc[0][0] != "text"
            and len(doc[-1][1]) < 150
            and not doc[-2][1]
            .lower()
            .startswith(
                (
                    "name",
                    "list",
                    "tell",
                    "give",
                    "can you name",
                    "what are",
                    "surprise",
                    "do you know a",
                    "say",
                    "teach",
                )
            )
        ):
            chats.append(doc)
    print(
        f"{label}: held-out chats with one right answer, answered exactly: "
        f"{answers_exactly(model, encoder, chats):.1%} of {len(chats)}",
        flush=True,
    )


# --- export ---

GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    """The GGUF name of a tensor of the model, or None for the tied output matrix."""
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    if name == "lm_head.weight":
        return None
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{GGUF_NAMES[rest.removesuffix('.weight')]}.weight"


def export_gguf(model, tokenizer, path):
    import gguf

    config = model.config
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_name(demo_text.NAME)
    writer.add_description("The small chat model that is bundled with quern.")
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(VOCAB)

    description = json.loads(tokenizer.to_str())
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([token for token, _ in by_id])
    writer.add_token_types(
        [gguf.TokenType.CONTROL if t in SPECIALS else gguf.TokenType.NORMAL for t, _ in by_id]
    )
    merges = description["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_eos_token_id(tokenizer.token_to_id(IM_END))
    writer.add_pad_token_id(tokenizer.token_to_id(END_OF_TEXT))
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)

    for name, tensor in model.state_dict().items():
        target = gguf_name(name)
        if target is None:
            continue
        data = tensor.float().numpy()
        if data.ndim == 1:
            writer.add_tensor(target, data)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(target, gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(f"{path}: {os.path.getsize(path):,} bytes")


def as_q8_0(model):
    """A copy of the model with the weights that the Q8_0 file holds."""
    import gguf

    copy = make_model(model.config.num_hidden_layers)
    state = {}
    for name, tensor in model.state_dict().items():
        data = tensor.float().numpy()
        if data.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            data = gguf.quants.dequantize(gguf.quants.quantize(data, kind), kind)
        state[name] = torch.from_numpy(np.array(data))
    copy.load_state_dict(state)
    return copy


def export_hf(model, tokenizer, directory):
    os.makedirs(directory, exist_ok=True)
    model.generation_config.do_sample = False
    model.save_pretrained(directory)
    tokenizer.save(os.path.join(directory, "tokenizer.json"))
    special = lambda text: {
        "content": text,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }
    config = {
        "add_bos_token": False,
        "added_tokens_decoder": {str(tokenizer.token_to_id(t)): special(t) for t in SPECIALS},
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": IM_END,
        "model_max_length": CONTEXT,
        "pad_token": END_OF_TEXT,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    with open(os.path.join(directory, "tokenizer_config.json"), "w", encoding="utf-8") as out:
        json.dump(config, out, indent=2, ensure_ascii=False)
        out.write("\n")
    print(f"{directory}: written")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", required=True, help="folder for the checkpoint and tokenizer")
    parser.add_argument("--from-checkpoint", action="store_true", help="do not train, only export")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="train on from the checkpoint in --work (optimizers start anew)",
    )
    parser.add_argument("--export-gguf", metavar="PATH", help="write a Q8_0 GGUF file")
    parser.add_argument(
        "--export-hf", metavar="DIR", help="write config.json, safetensors, tokenizer"
    )
    parser.add_argument("--no-evaluate", action="store_true", help="skip the held-out measures")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--minutes", type=float, default=40, help="stop after this long")
    parser.add_argument("--batch", type=int, default=4096, help="tokens in a step")
    parser.add_argument("--length", type=int, default=256, help="tokens in a row")
    parser.add_argument("--long-share", type=float, default=0.12, help="last share, rows 4x longer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="torch.compile: twice the speed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.makedirs(args.work, exist_ok=True)
    if not args.from_checkpoint:
        train(args)
    model, tokenizer, step = load_checkpoint(args.work)
    print(f"checkpoint of step {step}")
    if args.export_gguf:
        export_gguf(model, tokenizer, args.export_gguf)
    if args.export_hf:
        export_hf(model, tokenizer, args.export_hf)
    if not args.no_evaluate:
        evaluate(model, tokenizer, "F32")
        evaluate(as_q8_0(model), tokenizer, "Q8_0")


if __name__ == "__main__":
    main()
