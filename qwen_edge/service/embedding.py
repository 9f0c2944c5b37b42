"""Embeddings: what is asked for, and the vectors. Plain values."""

from __future__ import annotations

from dataclasses import dataclass

from qwen_edge.protocol.messages import Priority

MOST_EMBEDDED = 2048  # tokens of one input: they need as much memory as tokens of a conversation


@dataclass(frozen=True)
class EmbeddingRequest:
    """`inputs`: each a text or token ids; none is empty. `client`: the client's name for the energy budget.
    `dimensions`: how many numbers a vector must have; None for the model's own. `truncate`: of an input that is too
    long the beginning counts; else it is an error."""

    inputs: tuple[str | tuple[int, ...], ...]
    client: str = ""
    priority: Priority = "interactive"
    dimensions: int | None = None
    truncate: bool = False


@dataclass(frozen=True)
class Embedded:
    """The vector of one input, of length 1, and how many tokens the input has."""

    vector: tuple[float, ...]
    tokens: int
