"""The Qwen3 architecture in plain torch, as small as it can be said.

`train` builds it and optimizes it. Module names are those of Hugging Face's
Qwen3ForCausalLM, so `state_dict()` is already the checkpoint's list of tensors. There is no
cache and no generation here: answers are made, and measured, by llama.cpp (see `evaluate`).

A row is a tree of token sequences that share their beginnings (see `tree`): positions and
the attention mask come from outside, and logits are computed only where a loss is wanted.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes that config.json states."""

    vocab: int = 2048
    hidden: int = 256
    layers: int = 6
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    ffn: int = 512
    rope_theta: float = 1e6
    eps: float = 1e-6


class Attention(nn.Module):
    """Grouped-query attention with a norm on every query and key head."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.q_proj = nn.Linear(shape.hidden, shape.heads * shape.head_dim, bias=False)
        self.k_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head_dim, bias=False)
        self.v_proj = nn.Linear(shape.hidden, shape.kv_heads * shape.head_dim, bias=False)
        self.o_proj = nn.Linear(shape.heads * shape.head_dim, shape.hidden, bias=False)
        self.q_norm = nn.RMSNorm(shape.head_dim, eps=shape.eps)
        self.k_norm = nn.RMSNorm(shape.head_dim, eps=shape.eps)

    def forward(self, x: Tensor, rope: Tensor, mask: Tensor, at: Tensor | slice) -> Tensor:
        """What the tokens `at` see in the row `x`."""
        heads = (-1, self.shape.head_dim)
        q = rotate(self.q_norm(self.q_proj(x[at]).unflatten(1, heads)), rope[:, at])
        k = rotate(self.k_norm(self.k_proj(x).unflatten(1, heads)), rope)
        v = self.v_proj(x).unflatten(1, heads)
        seen: Tensor = self.o_proj(attend(q, k, v, mask[at]).flatten(1))
        return seen


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.ffn, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.ffn, bias=False)
        self.down_proj = nn.Linear(shape.ffn, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return mixed


class Layer(nn.Module):
    """Attention and MLP, each on a normed copy of the residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = MLP(shape)
        self.input_layernorm = nn.RMSNorm(shape.hidden, eps=shape.eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, eps=shape.eps)

    def forward(self, x: Tensor, rope: Tensor, mask: Tensor, at: Tensor | slice) -> Tensor:
        after: Tensor = x[at] + self.self_attn(self.input_layernorm(x), rope, mask, at)
        done: Tensor = after + self.mlp(self.post_attention_layernorm(after))
        return done


class Trunk(nn.Module):
    """Everything below the output head."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=shape.eps)
        half = shape.head_dim // 2
        self.frequencies = shape.rope_theta ** (-torch.arange(half, dtype=torch.float32) / half)

    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor, wanted: Tensor) -> Tensor:
        """The states of the wanted tokens: the last layer computes no others."""
        angle = positions[:, None] * self.frequencies
        rope = torch.stack((angle.cos(), angle.sin()))
        x = self.embed_tokens(tokens)
        for layer in self.layers[:-1]:
            x = layer(x, rope, mask, slice(None))
        states: Tensor = self.norm(self.layers[-1](x, rope, mask, wanted))
        return states


class Qwen3(nn.Module):
    """The whole model; the head is the embedding matrix."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Trunk(shape)
        self.apply(initialize)

    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor, wanted: Tensor) -> Tensor:
        """Logits at the wanted places of one row."""
        return functional.linear(self.model(tokens, positions, mask, wanted), self.model.embed_tokens.weight)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, block: int = 192) -> Tensor:
    """Attention over (tokens, heads, dimensions). All of a row's queries go in blocks that leave out later keys."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    whole, seen = q.shape[2] == k.shape[2], []
    for start in range(0, q.shape[2], block):
        rows, keys = slice(start, start + block), slice(start + block if whole else None)
        seen.append(
            functional.scaled_dot_product_attention(
                q[:, :, rows], k[:, :, keys], v[:, :, keys], attn_mask=mask[None, None, rows, keys], enable_gqa=True
            )
        )
    return torch.cat(seen, dim=2)[0].transpose(0, 1)


def rotate(x: Tensor, rope: Tensor) -> Tensor:
    """RoPE over half-split pairs: dimension i turns with i + head_dim / 2."""
    cos, sin = rope[:, :, None]
    low, high = x.chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)


def initialize(module: nn.Module) -> None:
    """Normal(0, 0.02) matrices; norms keep their ones."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
