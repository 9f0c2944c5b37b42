"""Which model and adapter cells were computed with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelId:
    """`model` is the path of the model's file. Cells of one id are of no use for another: there is a KV cache manager,
    with a radix tree, a host tier and a disk tier, for each."""

    model: str
    adapter: str = "none"
