#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the files in tests/golden/data: tiny random models of every family, and what they answer.

The oracles are other people's: `transformers` in float32 with eager attention gives the logits,
the `gguf` package quantizes and dequantizes, `tokenizers` gives the ids of the sample texts.
README.md describes every file. Needs the packages of requirements.txt; takes under a minute.

  python tests/golden/make_goldens.py            # rewrites tests/golden/data
  python tests/golden/make_goldens.py --check    # makes them elsewhere and compares
"""

import argparse
import filecmp
import json
import math
import os
import shutil
import sys
import tempfile

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import trainers
from transformers import AutoModelForCausalLM

VOCAB = 288
HIDDEN = 64
TOKENS = 72
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16
Q8_0 = gguf.GGMLQuantizationType.Q8_0
Q4_0 = gguf.GGMLQuantizationType.Q4_0

# What the models of each family look like. "hf" is config.json as the family's own models have it;
# "exact16" makes every weight exact in F16 and in BF16, so that all files share one set of logits.
BASE = {
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "attention_dropout": 0.0,
    "use_cache": True,
}

FAMILIES = {
    "llama3": {
        "hf": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "intermediate_size": 96,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "max_position_embeddings": 256,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0,
            "rope_scaling": {
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 32,
                "rope_type": "llama3",
            },
            "tie_word_embeddings": False,
            "attention_bias": False,
            "mlp_bias": False,
            "pretraining_tp": 1,
            "bos_token_id": 0,
            "eos_token_id": [1, 2],
        },
        "tokenizer": "llama3",
        "hf_dtype": F32,
        "gguf": ["f32", "q8_0", "q4_0"],
    },
    "llama2": {
        "hf": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "intermediate_size": 96,
            "num_key_value_heads": 4,
            "max_position_embeddings": 128,
            "rms_norm_eps": 1e-5,
            # the older spelling of the scaling's kind
            "rope_scaling": {"type": "linear", "factor": 2.0},
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        "tokenizer": "spm",
        "hf_dtype": F16,
        "exact16": True,
        "gguf": ["f32", "f16"],
    },
    "mistral": {
        "hf": {
            "architectures": ["MistralForCausalLM"],
            "model_type": "mistral",
            "intermediate_size": 96,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "sliding_window": 24,
            "tie_word_embeddings": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        "tokenizer": "spm",
        "hf_dtype": BF16,
        "exact16": True,
        "shards": 2,
        "gguf": ["f32"],
    },
    "qwen25": {
        "hf": {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "intermediate_size": 96,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1000000.0,
            # named, but switched off: must be ignored
            "sliding_window": 16,
            "use_sliding_window": False,
            "max_window_layers": 1,
            "tie_word_embeddings": True,
            "bos_token_id": 0,
            "eos_token_id": 2,
        },
        "tokenizer": "qwen2",
        "hf_dtype": BF16,
        "exact16": True,
        "gguf": ["f32", "bf16"],
    },
    "qwen25-yarn": {
        "hf": {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "intermediate_size": 96,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "rope_scaling": {
                "factor": 4.0,
                "original_max_position_embeddings": 32,
                "type": "yarn",
            },
            "sliding_window": 128,
            "use_sliding_window": False,
            "max_window_layers": 2,
            "tie_word_embeddings": False,
            "bos_token_id": 0,
            "eos_token_id": 2,
        },
        "tokenizer": "qwen2",
        "hf_dtype": BF16,
        "exact16": True,
        "gguf": ["f32"],
    },
    "qwen3": {
        "hf": {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "intermediate_size": 96,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 512,
            "rms_norm_eps": 1e-6,
            # the newer spelling, as transformers 5 writes it
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
            "sliding_window": None,
            "use_sliding_window": False,
            "max_window_layers": 2,
            "layer_types": ["full_attention", "full_attention"],
            "attention_bias": False,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": 2,
        },
        "tokenizer": "qwen2",
        "hf_dtype": F32,
        "gguf": ["f32", "q8_0", "q4_0"],
    },
}

# Changes to the configuration that must show in the logits; else the golden would prove nothing.
MUST_MATTER = {
    "llama3": {"rope_scaling": None},
    "llama2": {"rope_scaling": None},
    "mistral": {"sliding_window": None},
    "qwen25-yarn": {"rope_scaling": None},
}


# --- tokenizers -----------------------------------------------------------------------------

SAMPLE = """The sun was warm and the old mill by the river turned all day. A quern is a small mill for
the hand: two round stones, one above the other. The upper stone turns, the grain goes in at the
hole, and the flour comes out at the rim. In the house there is bread on the table, and on the
bread there is honey. 12 bees made it in 345 days."""

TEXTS = [
    "",
    " ",
    "Hello, world!",
    "the mill on the river",
    "  two  spaces\n\nand lines\t tab",
    "It's 1234567 o'clock, isn't it?",
    "caf\u00e9 na\u00efve \u2014 \u03b1\u03b2\u03b3 \u4f60\u597d \U0001f600",
    "a\u0301e \u200b\ufeff end",
]

PATTERNS = {
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
SPECIALS = {
    "llama3": ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
    "qwen2": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "spm": ["<unk>", "<s>", "</s>"],
}
PRE = {"llama3": "llama-bpe", "qwen2": "qwen2"}
TEMPLATES = {
    "llama3": "{{ bos_token }}{% for m in messages %}{{ m['role'] + ': ' + m['content'] | trim"
    " + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}",
    "qwen2": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + "
    "'<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "spm": "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content"
    " + ' [/INST]' }}{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
}

SPM_CHARACTERS = "\u2581etaoinshrdlu"
SPM_PIECES = [
    "he",
    "\u2581t",
    "\u2581the",
    "in",
    "er",
    "\u2581a",
    "an",
    "nd",
    "on",
    "\u2581s",
    "th",
    "re",
    "\u2581an",
    "\u2581and",
    "ou",
    "ed",
]


def byte_level_tokenizer(kind):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERNS[kind]), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIALS[kind],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([SAMPLE], trainer)
    return tokenizer


def spm_vocabulary():
    """(tokens, scores, types) of a SentencePiece-like vocabulary: specials, bytes, pieces."""
    kinds = gguf.TokenType
    tokens, scores = list(SPECIALS["spm"]), [0.0] * 3
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL]
    for byte in range(256):
        tokens.append(f"<0x{byte:02X}>")
        scores.append(0.0)
        types.append(kinds.BYTE)
    pieces = SPM_PIECES + list(SPM_CHARACTERS)
    for rank, piece in enumerate(pieces):
        tokens.append(piece)
        scores.append(-float(rank))
        types.append(kinds.NORMAL)
    return tokens, scores, types


def spm_tokenizer():
    """The same vocabulary as tokenizer.json has it: BPE with byte fallback."""
    tokens, _, _ = spm_vocabulary()
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = [
        (p[:i], p[i:])
        for p in SPM_PIECES
        for i in range(1, len(p))
        if p[:i] in vocabulary and p[i:] in vocabulary
    ]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.add_special_tokens(SPECIALS["spm"])
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def make_tokenizer(kind):
    tokenizer = spm_tokenizer() if kind == "spm" else byte_level_tokenizer(kind)
    if tokenizer.get_vocab_size() != VOCAB:
        raise SystemExit(f"{kind}: {tokenizer.get_vocab_size()} tokens instead of {VOCAB}")
    return tokenizer


def write_hf_tokenizer(kind, tokenizer, directory):
    tokenizer.save(os.path.join(directory, "tokenizer.json"))
    bos, eos = {"llama3": (0, 2), "qwen2": (None, 2), "spm": (1, 2)}[kind]
    names = SPECIALS[kind]
    config = {
        "add_bos_token": bos is not None,
        "added_tokens_decoder": {
            str(i): {
                "content": name,
                "lstrip": False,
                "normalized": False,
                "rstrip": False,
                "single_word": False,
                "special": True,
            }
            for i, name in enumerate(names)
        },
        "bos_token": None if bos is None else names[bos],
        "eos_token": names[eos],
        "chat_template": TEMPLATES[kind],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
        "tokenizer_class": "LlamaTokenizer" if kind == "spm" else "PreTrainedTokenizerFast",
    }
    write_json(os.path.join(directory, "tokenizer_config.json"), config)


def write_gguf_tokenizer(kind, tokenizer, writer):
    if kind == "spm":
        tokens, scores, types = spm_vocabulary()
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(tokens)
        writer.add_token_scores(scores)
        writer.add_token_types(types)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_add_bos_token(True)
        writer.add_add_space_prefix(True)
    else:
        by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
        merges = json.loads(tokenizer.to_str())["model"]["merges"]
        special = gguf.TokenType.CONTROL
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(PRE[kind])
        writer.add_token_list([token for token, _ in by_id])
        writer.add_token_types(
            [special if token in SPECIALS[kind] else gguf.TokenType.NORMAL for token, _ in by_id]
        )
        writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
        if kind == "llama3":
            writer.add_bos_token_id(0)
        writer.add_eos_token_id(2)
        writer.add_add_bos_token(kind == "llama3")
    writer.add_chat_template(TEMPLATES[kind])


# --- models ---------------------------------------------------------------------------------


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as out:
        json.dump(value, out, indent=2, ensure_ascii=False)
        out.write("\n")


def load_model(config, state):
    """A transformers model made from a config.json, in float32 with eager attention."""
    with tempfile.TemporaryDirectory() as directory:
        write_json(os.path.join(directory, "config.json"), config)
        save_file(state, os.path.join(directory, "model.safetensors"), metadata={"format": "pt"})
        model, info = AutoModelForCausalLM.from_pretrained(
            directory, dtype=F32, attn_implementation="eager", output_loading_info=True
        )
    missing = [k for k in info["missing_keys"] if k != "lm_head.weight"]
    if missing or info["unexpected_keys"] or info["mismatched_keys"]:
        raise SystemExit(f"weights do not fit the model: {info}")
    return model.eval()


def shapes_of(config):
    """The tensors of a model of these families, by their Hugging Face names."""
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head = config.get("head_dim", HIDDEN // heads)
    wide = config["intermediate_size"]
    shapes = {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (VOCAB, HIDDEN)
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        shapes[p + "input_layernorm.weight"] = (HIDDEN,)
        shapes[p + "post_attention_layernorm.weight"] = (HIDDEN,)
        for name, rows in (("q", heads * head), ("k", kv_heads * head), ("v", kv_heads * head)):
            shapes[p + f"self_attn.{name}_proj.weight"] = (rows, HIDDEN)
            if config["model_type"] == "qwen2":
                shapes[p + f"self_attn.{name}_proj.bias"] = (rows,)
            if config["model_type"] == "qwen3" and name != "v":
                shapes[p + f"self_attn.{name}_norm.weight"] = (head,)
        shapes[p + "self_attn.o_proj.weight"] = (HIDDEN, heads * head)
        shapes[p + "mlp.gate_proj.weight"] = (wide, HIDDEN)
        shapes[p + "mlp.up_proj.weight"] = (wide, HIDDEN)
        shapes[p + "mlp.down_proj.weight"] = (HIDDEN, wide)
    return shapes


def random_weights(config, exact16, seed):
    """Weights large enough for logits that are far from flat and attention that is not uniform."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    spread = 0.3 if config["tie_word_embeddings"] else 1.0  # of the embeddings
    for name, shape in shapes_of(config).items():
        values = torch.randn(shape, generator=generator)
        if name.endswith("bias"):
            values *= 0.5
        elif "q_norm" in name or "k_norm" in name:
            values = 1.2 + 0.2 * values
        elif "norm" in name:
            values = 1.0 + 0.2 * values
        elif "lm_head" in name:
            values *= 0.3
        elif "embed_tokens" in name:
            values *= spread
        elif "o_proj" in name or "down_proj" in name:
            # what a layer adds stays below what it gets, as in trained models; else the rounding
            # of activations to 8 bits would be amplified as it never is in practice
            values *= 0.6 * spread / math.sqrt(shape[1])
        else:
            values *= 1.2 / math.sqrt(shape[1])
        if exact16:
            values = values.to(BF16).to(F32)
            values[values.abs() < 2.0**-12] = 0.0
            assert torch.equal(values.to(F16).to(F32), values)
        state[name] = values.contiguous()
    return state


@torch.no_grad()
def logits_of(config, state, ids):
    model = load_model(config, state)
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].numpy()


def write_hf(family, spec, state, tokenizer, directory):
    os.makedirs(directory)
    dtype = spec["hf_dtype"]
    config = {**BASE, **spec["hf"]}
    key = "dtype" if "rope_parameters" in config else "torch_dtype"
    config[key] = str(dtype).removeprefix("torch.")
    write_json(os.path.join(directory, "config.json"), config)
    eos = config["eos_token_id"]
    generation = {
        "bos_token_id": config["bos_token_id"],
        "eos_token_id": eos,
        "do_sample": True,
        "temperature": 0.7,
        "top_p": 0.8,
        "top_k": 20,
    }
    write_json(os.path.join(directory, "generation_config.json"), generation)
    write_hf_tokenizer(spec["tokenizer"], tokenizer, directory)
    stored = {name: tensor.to(dtype) for name, tensor in state.items()}
    metadata = {"format": "pt"}
    shards = spec.get("shards", 1)
    if shards == 1:
        save_file(stored, os.path.join(directory, "model.safetensors"), metadata=metadata)
    else:
        names = sorted(stored)
        where = {}
        for s in range(shards):
            part = names[s::shards]  # interleaved, so that a layer's tensors lie in both files
            file = f"model-{s + 1:05d}-of-{shards:05d}.safetensors"
            save_file(
                {n: stored[n] for n in part}, os.path.join(directory, file), metadata=metadata
            )
            where.update({n: file for n in part})
        total = sum(t.numel() * t.element_size() for t in stored.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        write_json(os.path.join(directory, "model.safetensors.index.json"), index)
    return directory


# --- GGUF -----------------------------------------------------------------------------------

GGUF_LAYER_NAMES = {
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
GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_0": gguf.LlamaFileType.MOSTLY_Q4_0,
}


def gguf_name(name):
    stem, kind = name.rsplit(".", 1)
    if stem in GGUF_NAMES:
        return f"{GGUF_NAMES[stem]}.{kind}"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{GGUF_LAYER_NAMES[rest]}.{kind}"


def pair_rows(values, heads):
    """Rows of one head from halves (0..h/2, h/2..h) to pairs (0, h/2, 1, h/2 + 1, ...)."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(np.swapaxes(halves, 1, 2)).reshape(values.shape)


def llama3_divisors(config):
    """By how much llama3 scaling divides each frequency."""
    scaling = config["rope_scaling"]
    half = config["head_dim"] // 2
    old, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    divisors = []
    for i in range(half):
        turns = old / (2 * math.pi * config["rope_theta"] ** (i / half))
        share = min(1.0, max(0.0, (turns - low) / (high - low)))
        divisors.append(1.0 / ((1.0 - share) / factor + share))
    return np.array(divisors, dtype=np.float32)


def stored_type(tensor_name, ndim, kind, untied):
    """The type of a tensor in a file of this kind: a Q4_0 file keeps its output matrix in Q8_0."""
    if ndim == 1 or kind == "f32":
        return gguf.GGMLQuantizationType.F32
    if kind == "q4_0" and untied and tensor_name == "output.weight":
        return Q8_0
    return gguf.GGMLQuantizationType[kind.upper()]


def write_gguf(family, spec, kind, state, tokenizer, path):
    """Writes a GGUF file; returns the state dictionary with the weights that the file holds."""
    config = {**BASE, **spec["hf"]}
    arch = {"llama": "llama", "mistral": "llama"}.get(config["model_type"], config["model_type"])
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head = config.get("head_dim", HIDDEN // heads)
    scaling = config.get("rope_scaling") or {}
    scaling_kind = scaling.get("rope_type", scaling.get("type"))
    theta = config.get("rope_theta", config.get("rope_parameters", {}).get("rope_theta", 10000.0))

    writer = gguf.GGUFWriter(path, arch)
    writer.add_name(f"golden {family}")
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(theta)
    writer.add_vocab_size(VOCAB)
    if arch == "llama":
        writer.add_rope_dimension_count(head)
    if "head_dim" in config:
        writer.add_key_length(head)
        writer.add_value_length(head)
    if config["model_type"] == "mistral":
        writer.add_sliding_window(config["sliding_window"])
    if scaling_kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])
    if scaling_kind == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(scaling["factor"])
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
    write_gguf_tokenizer(spec["tokenizer"], tokenizer, writer)

    if scaling_kind == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(config))
    held = {}
    for name, tensor in state.items():
        values = tensor.numpy()
        target = gguf_name(name)
        stored = stored_type(target, values.ndim, kind, not config["tie_word_embeddings"])
        data = gguf.quants.quantize(values, stored)
        held[name] = torch.from_numpy(np.array(gguf.quants.dequantize(data, stored), np.float32))
        if arch == "llama" and ("q_proj" in name or "k_proj" in name):
            # whole rows move, so this commutes with quantizing
            data = pair_rows(data, heads if "q_proj" in name else kv_heads)
        if stored == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(target, data)
        else:
            writer.add_tensor(target, data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


# --- dequantization -------------------------------------------------------------------------


def half_bits(values):
    return np.asarray(values, dtype=np.float16).view(np.uint16)


def block_bytes(kind, scales, rng):
    """One block for each scale (uint16 bits of a half), with random contents."""
    n = len(scales)
    body = rng.integers(0, 256, (n, 32 if kind == "q8_0" else 16), dtype=np.uint8)
    corners = [0x00, 0xFF, 0x80, 0x7F, 0x0F, 0xF0, 0x88]
    for i, byte in enumerate(corners):
        body[i, :] = byte
    head = np.ascontiguousarray(scales, dtype="<u2").view(np.uint8).reshape(n, 2)
    return np.concatenate([head, body], axis=1)


def write_dequant(kind, path, seed):
    """Sections of blocks and the values that the gguf package gives for them (see README.md)."""
    rng = np.random.default_rng(seed)
    stored = gguf.GGMLQuantizationType[kind.upper()]
    corners = np.array(
        [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00, 0xBC00],
        dtype=np.uint16,
    )
    not_finite = np.array([0x7C00, 0xFC00, 0x7E00, 0xFE00, 0x7C01, 0x7FFF, 0xFFFF], dtype=np.uint16)
    if kind in ("f16", "bf16"):
        top = 0x7C00 if kind == "f16" else 0x7F80
        bits = np.concatenate([corners, rng.integers(0, 0x10000, 4096).astype(np.uint16)])
        finite = bits[(bits & top) != top]
        odd = np.concatenate(
            [not_finite, np.arange(0x7F80, 0x7FA0, dtype=np.uint16), [0xFF80, 0x7FC0]]
        )
        odd = odd.astype(np.uint16)
        odd = odd[(odd & top) == top]
        sections = [
            (0, finite.astype("<u2").view(np.uint8).reshape(-1, 2)),
            (1, odd.astype("<u2").view(np.uint8).reshape(-1, 2)),
        ]
        values_each = 1
    else:
        usual = half_bits(rng.normal(0, 0.02, 96))
        wide = rng.integers(0, 0x10000, 96).astype(np.uint16)
        wide = wide[(wide & 0x7C00) != 0x7C00]
        sections = [
            (0, block_bytes(kind, np.concatenate([corners, usual, wide]), rng)),
            (1, block_bytes(kind, not_finite, rng)),
        ]
        values_each = 32
    with open(path, "wb") as out:
        out.write(b"QNDQ" + np.array([1, len(sections)], "<u4").tobytes())
        for flags, blocks in sections:
            with np.errstate(all="ignore"):
                values = gguf.quants.dequantize(blocks.reshape(1, -1), stored)
            values = np.asarray(values, dtype="<f4").reshape(-1)
            assert values.size == len(blocks) * values_each
            assert flags or np.isfinite(values).all()
            header = [flags, len(blocks), blocks.shape[1], values_each]
            out.write(np.array(header, "<u4").tobytes())
            out.write(blocks.tobytes())
            out.write(values.tobytes())


# --- all of it ------------------------------------------------------------------------------


def make_family(family, spec, seed, out, manifest):
    config = {**BASE, **spec["hf"]}
    folder = os.path.join(out, family)
    os.makedirs(folder)
    generator = torch.Generator().manual_seed(1000 + seed)
    ids = torch.randint(3, VOCAB, (TOKENS,), generator=generator).tolist()
    with open(os.path.join(folder, "tokens.txt"), "w", encoding="ascii") as file:
        file.write(" ".join(map(str, ids)) + "\n")

    tokenizer = make_tokenizer(spec["tokenizer"])
    cases = [{"text": t, "ids": tokenizer.encode(t, add_special_tokens=False).ids} for t in TEXTS]
    with open(os.path.join(folder, "encode.json"), "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")

    state = random_weights(config, spec.get("exact16", False), seed)
    hf = write_hf(family, spec, state, tokenizer, os.path.join(folder, "hf"))
    written = {}

    def expect(path, name, logits):
        if name not in written:
            logits.astype("<f4").tofile(os.path.join(folder, name))
            written[name] = logits
        assert np.array_equal(written[name], logits), (family, path)
        bound = name.removeprefix("logits-").removesuffix(".bin")
        manifest.append(
            f"{family}/{path} {family}/tokens.txt {family}/{name} {TOKENS} {VOCAB} {bound}"
        )

    # the directory as written, read back by transformers itself
    model = AutoModelForCausalLM.from_pretrained(hf, dtype=F32, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].numpy()
    expect("hf", "logits-f32.bin", logits)
    if family == "llama3":
        half = config["head_dim"] // 2
        plain = config["rope_theta"] ** (-np.arange(half) / half)
        scaled = model.model.rotary_emb.inv_freq.numpy()
        assert np.allclose(plain / llama3_divisors(config), scaled, rtol=1e-6)
    spread = float(logits.max() - logits.min())
    assert spread > 5, (family, spread)
    if family in MUST_MATTER:
        other = logits_of({**config, **MUST_MATTER[family]}, state, ids)
        change = float(np.abs(other - logits).max()) / spread
        assert change > 0.05, (family, change)
    for kind in spec["gguf"]:
        name = f"model-{kind}.gguf"
        held = write_gguf(family, spec, kind, state, tokenizer, os.path.join(folder, name))
        quantized = kind in ("q8_0", "q4_0")
        expect(name, f"logits-{kind if quantized else 'f32'}.bin", logits_of(config, held, ids))
    print(f"{family}: logits {logits.min():.2f}..{logits.max():.2f}")


def make_all(out):
    manifest = []
    for seed, (family, spec) in enumerate(FAMILIES.items()):
        make_family(family, spec, seed, out, manifest)
    with open(os.path.join(out, "manifest.txt"), "w", encoding="ascii") as file:
        file.write("\n".join(manifest) + "\n")
    for seed, kind in enumerate(("f16", "bf16", "q8_0", "q4_0")):
        write_dequant(kind, os.path.join(out, f"dequant_{kind}.bin"), seed)


def differences(left, right, at=""):
    found = filecmp.dircmp(left, right)
    names = found.left_only + found.right_only + found.funny_files
    _, unequal, errors = filecmp.cmpfiles(left, right, found.common_files, shallow=False)
    names = [os.path.join(at, n) for n in names + unequal + errors]
    for sub in found.common_dirs:
        names += differences(
            os.path.join(left, sub), os.path.join(right, sub), os.path.join(at, sub)
        )
    return names


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare with the committed files")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = os.path.join(os.path.dirname(os.path.abspath(__file__)), "data")
    with tempfile.TemporaryDirectory() as scratch:
        made = os.path.join(scratch, "data")
        os.mkdir(made)
        make_all(made)
        if args.check:
            names = differences(data, made)
            print("\n".join(["different:"] + names) if names else "all files are the same")
            sys.exit(bool(names))
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(made, data)
    print(f"{data}: written")


if __name__ == "__main__":
    main()
