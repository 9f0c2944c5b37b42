"""A model file tried on paper: llama.cpp reads its header and plans a context, and no weight is read.

For a process that a damaged file may take down.
"""

from __future__ import annotations

from pathlib import Path

from qwen_edge.llama.fixed_cells import FixedCells
from qwen_edge.llama.model import Model
from qwen_edge.protocol.messages import Load

_CONTEXT, _BATCH = 256, 32  # tokens


def try_loading(file: Path) -> list[str]:
    """The ordinary words that would end an answer, in words. Raises EngineError."""
    with Model(file, gpu_layers=0, simulate=True) as model:
        FixedCells(model, Load(str(file), _CONTEXT, _BATCH, 1, 0, "f16", "off", 5.0)).close()
        return ordinary_ends(model)


def ordinary_ends(model: Model) -> list[str]:
    """End tokens that are words, or parts of words, of which one seldom is meant: `11 (',')`."""
    return [f"{token} ({model.vocab.text(token)!r})" for token in model.vocab.ordinary_ends]
