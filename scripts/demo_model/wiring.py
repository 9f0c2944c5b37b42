"""Lays an induction circuit into the fresh model, so that it can copy from the first step.

Turning a request into a call is copying: the tool's name, its parameters, what the user said.
Left alone, a transformer finds the circuit for it only after some ten thousand steps (Olsson
et al., In-context Learning and Induction Heads, 2022), longer than all of this training. It
takes two heads:

    layer 0   attends to the token before, and notes part of its embedding in a register
              that embeddings leave empty
    layer 1   attends to where the register equals the present token, which is behind the last
              place where the present token stood, and adds the embedding of what stood there

Everything remains trainable; only the start is chosen.
"""

import torch
from torch import nn

from .model import Attention, Qwen3

_FAST = 6  # rotary pairs that turn fast enough to tell one token from the next
_SLOW = 14  # from this pair on a few hundred tokens hardly turn them


def wire_copying(model: Qwen3) -> None:
    """Changes the embedding and the first two layers' attention. Residual dimensions, of 256:

    0 to 190 the embedding, 191 a constant that every token has, 192 to 255 the register.
    """
    with torch.no_grad():
        embedding = model.model.embed_tokens.weight
        embedding[:, 191] = 0.1
        embedding[:, 192:] = 0.0
        first, second = (layer.self_attn for layer in model.model.layers[:2])
        _attend_to_the_token_before(first, model.model.frequencies)
        first.v_proj.weight[:64] = _selected(range(64))
        _write(first, range(192, 256), gain=0.03)
        _attend_to_what_followed(second)
        second.v_proj.weight[:64] = _selected(range(64, 128))
        _write(second, range(64, 128), gain=0.1)


def _attend_to_the_token_before(layer: Attention, frequencies: torch.Tensor) -> None:
    """Score sum(cos(frequency * (distance - 1))), from the constant alone."""
    turn = frequencies[:_FAST]
    for head in range(2):
        query = layer.q_proj.weight[64 * head : 64 * (head + 1)]
        query.zero_()
        query[:_FAST, 191] = turn.cos()
        query[32 : 32 + _FAST, 191] = -turn.sin()
    key = layer.k_proj.weight[:64]
    key.zero_()
    key[:_FAST, 191] = 1.0
    _sharpen(layer, [*range(_FAST), *range(32, 32 + _FAST)], 2.0)


def _attend_to_what_followed(layer: Attention) -> None:
    """Queries are embeddings, keys the register, both in pairs that rotation leaves alone."""
    slots = [*range(_SLOW, 32), *range(32 + _SLOW, 64)]
    for head in range(2):
        query = layer.q_proj.weight[64 * head : 64 * (head + 1)]
        query.zero_()
        query[slots, range(len(slots))] = 1.0
    key = layer.k_proj.weight[:64]
    key.zero_()
    key[slots, range(192, 192 + len(slots))] = 1.0
    _sharpen(layer, slots, 1.5)


def _sharpen(layer: Attention, dimensions: list[int], gain: float) -> None:
    for norm in (layer.q_norm, layer.k_norm):
        norm.weight[dimensions] = gain


def _selected(dimensions: range) -> torch.Tensor:
    return torch.eye(256)[dimensions]


def _write(layer: Attention, dimensions: range, gain: float) -> None:
    """What the first two heads (which share keys and values) saw goes into these dimensions of the residual stream."""
    out: nn.Linear = layer.o_proj
    for head in range(2):
        out.weight[:, 64 * head : 64 * (head + 1)] = gain / 2 * torch.eye(256)[:, dimensions]
