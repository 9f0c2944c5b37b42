"""Writes small checkpoints in Hugging Face layout, in every shape the converter must take or refuse."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from qwen_edge.convert.vocabulary import QWEN2_SPLIT

ADDED = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<think>", "</think>"]
MERGES = ["h e", "l l", "Ġ Ġ", "he ll", "hell o"]
_PERIOD = 1_048_583
_DTYPES = {"BF16": ml_dtypes.bfloat16, "F16": np.float16, "F32": np.float32}


def byte_letters() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [letters[byte] for byte in range(256)]


def merges_of(characters: str) -> list[str]:
    """Merges that make a token of each of these characters, of two bytes in UTF-8."""
    letters = byte_letters()
    return [" ".join(letters[byte] for byte in character.encode()) for character in characters]


def write_checkpoint(
    folder: Path,
    *,
    architecture: str = "Qwen3ForCausalLM",
    layers: int = 2,
    dtype: str = "BF16",
    tied: bool = True,
    head: bool = False,
    shards: int = 1,
    tokenizer_json: bool = True,
    config: Mapping[str, Any] = {},
    seed: int = 0,
    merges: Sequence[str] = MERGES,
) -> dict[str, np.ndarray]:
    """Write a tiny model of noise, always the same for a `seed`; returns its tensors.

    `head` adds lm_head.weight, a copy of the embedding if tied.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocab = _write_tokenizer(folder, tokenizer_json, merges)
    hidden, ffn, heads, kv_heads, head_dim, rows = 256, 512, 4, 2, 64, len(vocab) + len(ADDED) + 5
    qwen3 = architecture == "Qwen3ForCausalLM"
    described = {
        "architectures": [architecture],
        "model_type": "qwen3" if qwen3 else "qwen2",
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "num_hidden_layers": layers,
        "max_position_embeddings": 4096,
        "vocab_size": rows,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "eos_token_id": len(vocab) + 2,
        "bos_token_id": len(vocab),
        **({"head_dim": head_dim} if qwen3 else {}),
        **config,
    }
    (folder / "config.json").write_text(json.dumps(described))
    generation = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    tensors = _tensors(seed, qwen3, layers, _DTYPES[dtype], hidden, ffn, heads, kv_heads, head_dim, rows)
    if head or not tied:
        embedding = tensors["model.embed_tokens.weight"]
        tensors["lm_head.weight"] = embedding.copy() if tied else embedding[::-1].copy()
    save_shards(folder, tensors, shards)
    return tensors


def save_shards(folder: Path, tensors: Mapping[str, np.ndarray], shards: int) -> None:
    if shards == 1:
        save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    names = sorted(tensors)
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[i::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def noise(seed: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Numbers from -1 to 1 without order, the same on every machine and with every numpy: a hash of their index.

    They repeat after a prime number of them, so that large tensors take little memory to make.
    """
    word = np.arange(min(math.prod(shape), _PERIOD), dtype=np.uint32)
    word += np.uint32(seed * 0x9E3779B9 & 0xFFFFFFFF)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):  # MurmurHash3's last steps
        word ^= word >> np.uint32(shift)
        word *= np.uint32(factor)
    values = (word >> np.uint32(8)).astype(np.float32) / 2**23 - 1
    return np.resize(values.astype(dtype), shape)


def _tensors(seed, qwen3, layers, dtype, hidden, ffn, heads, kv_heads, head_dim, rows) -> dict[str, np.ndarray]:
    seeds = itertools.count(1000 * seed)

    def random(*shape: int) -> np.ndarray:
        return (noise(next(seeds), shape, np.float32) * np.float32(0.087)).astype(dtype)

    q, kv = heads * head_dim, kv_heads * head_dim
    tensors = {"model.embed_tokens.weight": random(rows, hidden), "model.norm.weight": 1 + random(hidden)}
    for i in range(layers):
        p = f"model.layers.{i}."
        tensors |= {
            p + "input_layernorm.weight": 1 + random(hidden),
            p + "post_attention_layernorm.weight": 1 + random(hidden),
            p + "self_attn.q_proj.weight": random(q, hidden),
            p + "self_attn.k_proj.weight": random(kv, hidden),
            p + "self_attn.v_proj.weight": random(kv, hidden),
            p + "self_attn.o_proj.weight": random(hidden, q),
            p + "mlp.gate_proj.weight": random(ffn, hidden),
            p + "mlp.up_proj.weight": random(ffn, hidden),
            p + "mlp.down_proj.weight": random(hidden, ffn),
        }
        if qwen3:
            tensors |= {p + f"self_attn.{x}_norm.weight": 1 + random(head_dim) for x in "qk"}
        else:
            sizes = {"q": q, "k": kv, "v": kv}
            tensors |= {p + f"self_attn.{x}_proj.bias": random(size) for x, size in sizes.items()}
    return {name: tensor.astype(dtype) for name, tensor in tensors.items()}


def _write_tokenizer(folder: Path, whole: bool, merges: Sequence[str]) -> dict[str, int]:
    letters = byte_letters()
    vocab = {token: i for i, token in enumerate([*letters, *(merge.replace(" ", "") for merge in merges)])}
    added = [
        {"id": len(vocab) + i, "content": text, "special": not text.startswith(("<th", "</", "<tool"))}
        for i, text in enumerate(ADDED)
    ]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [{**flags, **token} for token in added]
    settings = {
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
        "chat_template": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "added_tokens_decoder": {str(token["id"]): {k: v for k, v in token.items() if k != "id"} for token in added},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    if whole:
        byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
        split = {"type": "Split", "pattern": {"Regex": QWEN2_SPLIT}, "behavior": "Isolated", "invert": False}
        model = {"type": "BPE", "vocab": vocab, "merges": [merge.split(" ") for merge in merges]}
        tokenizer = {
            "version": "1.0",
            "added_tokens": added,
            "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
            "post_processor": byte_level,
            "decoder": byte_level,
            "model": model,
        }
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return vocab
