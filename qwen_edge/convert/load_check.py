"""Whether llama.cpp can load a model file, found out in a process that the file may take down."""

from __future__ import annotations

from pathlib import Path

from qwen_edge.convert.tensor_table import read_tensor_table
from qwen_edge.convert.worker import run_worker


def ordinary_ends(file: Path) -> list[str]:
    """The ordinary words that would end an answer, which is seldom meant: `11 (',')`. Takes half a second. Raises
    ConversionError for a file that llama.cpp refuses, or dies of."""
    read_tensor_table(file)
    found: list[str] = run_worker({"do": "load", "file": str(file)}, lambda _: None)["ordinary_ends"]
    return found
