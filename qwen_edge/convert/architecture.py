"""The supported architectures: their hyperparameters, and the shape and GGUF name of each tensor.

The names follow gguf's tensor table for the architectures qwen2 and qwen3
(https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/tensor_mapping.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qwen_edge.convert.checkpoint import Checkpoint, number, positive, short_repr, whole_number
from qwen_edge.convert.safetensors import Tensor
from qwen_edge.core.errors import ConversionError

ARCHITECTURES = {"Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}


@dataclass(frozen=True)
class Architecture:
    """The hyperparameters GGUF needs. `head_dim` is None where the checkpoint leaves it to hidden_size / heads."""

    name: str
    layers: int
    context: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int | None
    vocabulary: int
    rms_eps: float
    rope_theta: float
    rope_scaling: Mapping[str, Any]
    tied_head: bool
    attention_bias: bool


def read_architecture(config: Mapping[str, Any], where: str) -> Architecture:
    """The architecture a config.json describes; `where` names the file in errors."""
    listed = config.get("architectures") or ["none"]
    declared = listed[0] if isinstance(listed, list) else listed
    name = ARCHITECTURES.get(declared) if isinstance(declared, str) else None
    if name is None:
        told = declared if isinstance(declared, str) and declared.isprintable() else short_repr(declared)
        raise ConversionError(
            f"{where}: architecture {told[:80]} cannot be converted; {' and '.join(ARCHITECTURES)} can. "
            "For other models use llama.cpp's own converter."
        )

    def integer(key: str, most: int = (1 << 31) - 1) -> int:
        value = config.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise ConversionError(f"{where}: {key} is {short_repr(value)}, a positive whole number was expected.")
        if value > most:
            raise ConversionError(f"{where}: {key} is {short_repr(value)}, larger than in any model.")
        return value

    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise ConversionError(f"{where}: rope_scaling is {short_repr(rope)}, an object was expected.")
    theta = {"rope_theta": rope.get("rope_theta") or config.get("rope_theta") or 10000.0}
    return Architecture(
        name=name,
        layers=integer("num_hidden_layers", _MOST_LAYERS),
        context=integer("max_position_embeddings"),
        hidden=integer("hidden_size"),
        feed_forward=integer("intermediate_size"),
        heads=integer("num_attention_heads"),
        kv_heads=integer("num_key_value_heads"),
        head_dim=integer("head_dim") if "head_dim" in config or name == "qwen3" else None,
        vocabulary=integer("vocab_size"),
        rms_eps=positive({"rms_norm_eps": 1e-6, **config}, "rms_norm_eps", where),
        rope_theta=positive(theta, "rope_theta", where),
        rope_scaling=_rope_scaling(rope, config, where),
        tied_head=bool(config.get("tie_word_embeddings", False)),
        # Qwen2 always has biases on q, k and v; Qwen3 has them only if it says so.
        attention_bias=name == "qwen2" or bool(config.get("attention_bias", False)),
    )


_MOST_LAYERS = 1_000
_YARN = ("extrapolation_factor", "attention_factor", "attn_factor", "beta_fast", "beta_slow")
_CONTEXT = "original_max_position_embeddings"


def _rope_scaling(rope: Mapping[str, Any], config: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The RoPE scaling that GGUF stores, as numbers; {} if there is none. `original_max_position_embeddings` may be
    inside the group or beside it."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    needs = {"default": [], "linear": ["factor"], "yarn": ["factor", _CONTEXT]}
    if not isinstance(kind, str) or kind not in needs:
        raise ConversionError(f"{where}: rope scaling {short_repr(kind)} cannot be converted; linear and yarn can.")
    given = {_CONTEXT: config.get(_CONTEXT), **rope}
    if missing := [key for key in needs[kind] if given.get(key) is None]:
        raise ConversionError(f"{where}: rope scaling {kind!r} lacks {missing[0]}.")
    if kind == "default":
        return {}
    scaling = {key: number(given, key, where) for key in ("factor", *_YARN) if given.get(key) is not None}
    context = {_CONTEXT: whole_number(given, _CONTEXT, where)} if kind == "yarn" else {}
    for key in needs[kind]:
        positive(given, key, where)
    return {"rope_type": kind, **scaling, **context}


def name_tensors(checkpoint: Checkpoint, arch: Architecture) -> dict[str, Tensor]:
    """GGUF name -> source tensor, in writing order. Raises ConversionError if a tensor is missing, unknown or has the
    wrong shape."""
    expected = _expected_shapes(arch)
    named: dict[str, Tensor] = {}
    for tensor in checkpoint.tensors.values():
        if tensor.name.endswith(".rotary_emb.inv_freq"):
            continue  # a constant in old checkpoints, which follows from rope_theta
        shape = expected.pop(tensor.name, None)
        if shape is None:
            raise ConversionError(
                f"{tensor.file}: tensor {tensor.name!r} does not belong to {arch.name} with {arch.layers} layers. "
                "config.json and the weights are not from the same checkpoint."
            )
        if shape != tensor.shape:
            raise ConversionError(
                f"{tensor.file}: tensor {tensor.name!r} has shape {list(tensor.shape)}, "
                f"config.json makes it {list(shape)}. Download both files again, from one revision."
            )
        named[gguf_name(tensor.name)] = tensor
    if arch.tied_head:
        expected.pop("lm_head.weight", None)
    if expected:
        raise ConversionError(
            f"{checkpoint.folder} lacks tensor {next(iter(expected))!r} ({len(expected)} missing in all). "
            "The checkpoint is incomplete: download it again."
        )
    return named


def _expected_shapes(arch: Architecture) -> dict[str, tuple[int, ...]]:
    head_dim = arch.head_dim or arch.hidden // arch.heads
    q, kv, hidden, ffn = arch.heads * head_dim, arch.kv_heads * head_dim, arch.hidden, arch.feed_forward
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (q, hidden),
        "self_attn.k_proj.weight": (kv, hidden),
        "self_attn.v_proj.weight": (kv, hidden),
        "self_attn.o_proj.weight": (hidden, q),
        "mlp.gate_proj.weight": (ffn, hidden),
        "mlp.up_proj.weight": (ffn, hidden),
        "mlp.down_proj.weight": (hidden, ffn),
    }
    if arch.attention_bias:
        layer |= {"self_attn.q_proj.bias": (q,), "self_attn.k_proj.bias": (kv,), "self_attn.v_proj.bias": (kv,)}
    if arch.name == "qwen3":
        layer |= {"self_attn.q_norm.weight": (head_dim,), "self_attn.k_norm.weight": (head_dim,)}
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (arch.vocabulary, hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (arch.vocabulary, hidden),
    }
    for i in range(arch.layers):
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    return shapes


_GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")


def gguf_name(name: str) -> str:
    """`model.layers.3.mlp.up_proj.weight` -> `blk.3.ffn_up.weight`."""
    stem, _, kind = name.rpartition(".")
    match = _LAYER.fullmatch(stem)
    prefix = f"blk.{match[1]}." if match else ""
    return f"{prefix}{_GGUF_NAMES[match[2] if match else stem]}.{kind}"
