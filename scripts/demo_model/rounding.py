"""Lets the model feel Q4_K_M while it still can learn: weights are rounded for the forward and backward pass.

The rounding is llama.cpp's in kind, not bit for bit: matrices in groups of 32 with 16 levels
between a minimum (at most 0) and a maximum, the embedding in groups of 16 with 64 levels.
Gradients are taken at the rounded weights and applied to the exact ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def rounded(model: nn.Module) -> Iterator[None]:
    """Inside, every matrix has the values it will have when quantized."""
    matrices = [(name, p) for name, p in model.named_parameters() if p.ndim == 2]
    exact = [p.data for _, p in matrices]
    for name, p in matrices:
        p.data = _embedding(p.data) if "embed" in name else _matrix(p.data)
    try:
        yield
    finally:
        for (_, p), weights in zip(matrices, exact, strict=True):
            p.data = weights


def _matrix(weights: Tensor) -> Tensor:
    groups = weights.view(-1, 32)
    low = groups.amin(1, keepdim=True).clamp(max=0)
    step = ((groups.amax(1, keepdim=True) - low) / 15).clamp(min=1e-9)
    return (((groups - low) / step).round() * step + low).view_as(weights)


def _embedding(weights: Tensor) -> Tensor:
    groups = weights.view(-1, 16)
    step = (groups.abs().amax(1, keepdim=True) / 31).clamp(min=1e-9)
    return ((groups / step).round().clamp(-32, 31) * step).view_as(weights)
