"""Checks that llama.cpp can load a model file, in a worker process that a damaged file may crash."""

from __future__ import annotations

from pathlib import Path

from qwen_edge.convert.tensor_table import read_tensor_table
from qwen_edge.convert.worker import run_worker


def check_loads(file: Path) -> list[str]:
    """Load the file and return the ordinary words among its end tokens, which are rarely intended, e.g. `11 (',')`.
    Takes 0.5 s. Raises ConversionError for a file that llama.cpp refuses or that crashes it."""
    read_tensor_table(file)
    found: list[str] = run_worker({"do": "load", "file": str(file)}, lambda _: None)["ordinary_ends"]
    return found
