"""What was found to be quickest, kept for each model and site: by `qwen-edge tune`, or by the daemon when it starts
with a model for the first time.

A site is all that decides about it beside the model: processor, devices, gpu_layers and build of llama.cpp. Only who
has loaded llama.cpp knows it (`llama/site.py`); the daemon hands what is known of a model to the engine, which chooses.
"""

from __future__ import annotations

from pathlib import Path

from qwen_edge.models.json_store import JsonStore
from qwen_edge.protocol.messages import Tuning

_FILE = "tuning.json"


def recall(model: Path, folder: Path | None = None) -> dict[str, Tuning]:
    """What is best for this model, by site, as far as it has been measured."""
    known = JsonStore(_FILE, Tuning, folder).read()
    return {key.removeprefix(_of(model)): tuning for key, tuning in known.items() if key.startswith(_of(model))}


def keep(model: Path, site: str, tuning: Tuning, folder: Path | None = None) -> None:
    """Remember it, instead of what was found there before."""
    JsonStore(_FILE, Tuning, folder).keep(f"{_of(model)}{site}", tuning)


def _of(model: Path) -> str:
    return f"{model.name}, {model.stat().st_size} bytes; "
