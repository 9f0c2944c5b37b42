"""The fastest settings for each model and site: measured by `qwen-edge tune`, or by the daemon at its first start.

A site is everything else that decides which settings are fastest: the processor, the devices, gpu_layers and the build
of llama.cpp. Only a process that has loaded llama.cpp can tell the site (`llama/site.py`), so the daemon sends the
engine the tunings of all sites, and the engine chooses.
"""

from __future__ import annotations

from pathlib import Path

from qwen_edge.models.json_store import JsonStore
from qwen_edge.protocol.loading import SMALL_CELLS
from qwen_edge.protocol.messages import Tuning

_FILE = "tuning.json"


def recall(model: Path, folder: Path | None = None) -> dict[str, Tuning]:
    """The tunings of this model by site. `folder`: by default the state folder."""
    known = JsonStore(_FILE, Tuning, folder).read()
    return {key.removeprefix(_prefix(model)): tuning for key, tuning in known.items() if key.startswith(_prefix(model))}


def keep(model: Path, site: str, tuning: Tuning, folder: Path | None = None) -> None:
    """Write the tuning of this model and site, in place of an earlier one."""
    JsonStore(_FILE, Tuning, folder).keep(f"{_prefix(model)}{site}", tuning)


def described(tuning: Tuning) -> str:
    """What was measured to be fastest, in words."""
    attention = {"on": "on", "off": "off", "small": f"on up to {tuning.flash_cells or SMALL_CELLS} tokens, then off"}
    parts = [f"{tuning.threads} thread{'s' * (tuning.threads > 1)}"] if tuning.threads else []
    crowd = f" (on for {tuning.flash_streams} requests at once or more)" if tuning.flash_streams else ""
    parts += [f"flash attention {attention[tuning.flash_attention]}{crowd}"] if tuning.flash_attention != "auto" else []
    parts += [f"batches of {tuning.batch} tokens"] if tuning.batch else []
    if tuning.plain_from is not None:
        kind = f"plain from {tuning.plain_from} tokens on" if tuning.plain_from else "repacked"
        parts.append(f"weights for prompts {kind}")
    return ", ".join(parts)


def _prefix(model: Path) -> str:
    """The beginning of the model's keys in the file."""
    return f"{model.name}, {model.stat().st_size} bytes; "
