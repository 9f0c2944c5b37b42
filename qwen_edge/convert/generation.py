"""The sampling defaults of generation_config.json: checked, and converted to GGUF's names and types."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from qwen_edge.convert.checkpoint import Checkpoint, number, short_repr, whole_number
from qwen_edge.core.errors import ConversionError


@dataclass(frozen=True)
class _Setting:
    """`name` is GGUF's. Values lie between `least` and `most`; `above`: `least` itself is excluded."""

    name: str
    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    whole: bool = False

    def accepts(self, value: float) -> bool:
        return self.least <= value <= self.most and not (self.above and value == self.least)

    @property
    def range_text(self) -> str:
        least = f"{'above' if self.above else 'from'} {self.least:g}" if self.least > -math.inf else ""
        most = f"{'up ' if least else ''}to {self.most:g}" if self.most < math.inf else ""
        return " ".join(part for part in (least, most or ("up" if not self.above else "")) if part)


_SETTINGS = {
    "top_k": _Setting("top_k", 0, whole=True),
    "top_p": _Setting("top_p", 0, 1, above=True),
    "min_p": _Setting("min_p", 0, 1),
    "xtc_probability": _Setting("xtc_probability", 0, 1),
    "xtc_threshold": _Setting("xtc_threshold", 0, 1),
    "temperature": _Setting("temp", 0),
    "penalty_last_n": _Setting("penalty_last_n", -1, whole=True),
    "repetition_penalty": _Setting("penalty_repeat", 0, above=True),
    "penalty_repeat": _Setting("penalty_repeat", 0, above=True),
    "mirostat": _Setting("mirostat", 0, 2, whole=True),
    "mirostat_tau": _Setting("mirostat_tau", 0),
    "mirostat_eta": _Setting("mirostat_eta", 0),
}


def read_sampling(checkpoint: Checkpoint) -> Mapping[str, str | float]:
    """GGUF name -> value, for the settings given. Counts may be written as 20.0 or "20". Raises ConversionError for a
    value that no sampler can use."""
    given, where = checkpoint.generation, checkpoint.folder / "generation_config.json"
    found: dict[str, str | float] = {}
    if given.get("sequence") is not None:
        found["sequence"] = _text(given["sequence"])
    for key, setting in _SETTINGS.items():
        if given.get(key) is None:
            continue
        value = (whole_number if setting.whole else number)(given, key, where)
        if not setting.accepts(value):
            raise ConversionError(
                f"{where}: {key} is {short_repr(given[key])}, which no sampler can use; "
                f"use a number {setting.range_text}. Correct the file, or remove the key."
            )
        found[setting.name] = value
    return found


def _text(value: object) -> str:
    return value if isinstance(value, str) else short_repr(value)
