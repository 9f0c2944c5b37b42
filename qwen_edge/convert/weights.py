"""Finds the files with the weights, by the rules of transformers, and reads the list of their tensors.

model.safetensors takes precedence over an index of shards; without an index every model*.safetensors is a shard. Files
that are left out are noted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_edge.convert.diagnose import explain_no_weights
from qwen_edge.convert.safetensors import Tensor, read_header
from qwen_edge.core.errors import ConversionError

_WHOLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PART = re.compile(r"(.+)-(\d+)-of-(\d+)\.safetensors")
_MOST_PARTS = 10_000


@dataclass(frozen=True)
class Weights:
    """`tensors`: file by file, each sorted by name. `notes`: sentences about unused files."""

    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()


def has_weights(folder: Path) -> bool:
    """Whether the folder holds weights, complete or not."""
    return (folder / _INDEX).exists() or bool(_found(folder))


def read_weights(folder: Path, read_index: Callable[[Path], dict[str, Any] | None]) -> Weights:
    """`read_index` reads a JSON file; None if it is missing. Raises ConversionError for missing, damaged or duplicate
    weights."""
    index = read_index(folder / _INDEX)
    weight_map = {} if index is None else _weight_map(index, folder / _INDEX)
    parts = sorted(set(weight_map.values()))
    if parts and _WHOLE not in parts and (folder / _WHOLE).is_file():
        return Weights(_read(folder, [_WHOLE]), (_stale(folder, parts),))
    names = parts or _found(folder)
    if not names:
        raise ConversionError(explain_no_weights(folder))
    if not parts:
        names = _whole_set(folder, names)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ConversionError(f"{folder} is incomplete: {_first_names(missing)} missing. Download it again.")
    tensors = _read(folder, names)
    if lost := sorted(set(weight_map) - set(tensors)):
        raise ConversionError(
            f"{folder} is incomplete: no file holds {lost[0]!r}, which {_INDEX} names ({len(lost)} missing in all). "
            "Download it again."
        )
    unused = sorted(set(_found(folder)) - set(names))
    return Weights(
        tensors, (f"{_first_names(unused)} in {folder} left out: {_INDEX} does not name it",) if unused else ()
    )


def _found(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("model*.safetensors") if file.is_file())


def _weight_map(index: Mapping[str, Any], file: Path) -> dict[str, str]:
    """Tensor -> file name; all files are in the folder of the index."""
    found = index.get("weight_map")
    if not (isinstance(found, dict) and found):
        raise ConversionError(f"{file} is damaged: it has no weight_map. Download it again.")
    for tensor, name in found.items():
        if not isinstance(name, str) or not name.endswith(".safetensors") or Path(name).name != name or "\0" in name:
            raise ConversionError(
                f"{file} is damaged: weight_map says that {tensor[:80]!r} is in {repr(name)[:80]}, which is not "
                "a safetensors file of this folder. Download it again."
            )
    return found


def _stale(folder: Path, parts: Sequence[str]) -> str:
    """The note on an index beside a complete model.safetensors."""
    here = [name for name in parts if (folder / name).is_file()]
    beside = f"{_first_names(here)} left out" if here else f"it names {_first_names(parts)}, which do not exist"
    return f"{_WHOLE} is converted, as transformers would load it; {_INDEX} belongs to another set: {beside}"


def _whole_set(folder: Path, names: list[str]) -> list[str]:
    """Check files without an index: numbered files must form one complete set."""
    sets: dict[tuple[str, int], set[int]] = {}
    for name in names:
        if match := _PART.fullmatch(name):
            sets.setdefault((match[1], min(int(match[3]), _MOST_PARTS)), set()).add(int(match[2]))
    if len(sets) > 1 or (sets and _WHOLE in names):
        raise ConversionError(
            f"{folder} holds two sets of weights: {_first_names(names)}. "
            "Two versions of the checkpoint are mixed in this folder: keep one."
        )
    for (stem, total), numbers in sets.items():
        if lacking := sorted(set(range(1, total + 1)) - numbers):
            missing = [f"{stem}-{i:05d}-of-{total:05d}.safetensors" for i in lacking]
            raise ConversionError(f"{folder} is incomplete: {_first_names(missing)} missing. Download it again.")
    return names


def _read(folder: Path, names: Sequence[str]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name in names:
        for tensor in read_header(folder / name).values():
            if tensor.name in tensors:
                raise ConversionError(
                    f"{folder / name}: tensor {tensor.name!r} is also in {tensors[tensor.name].file.name}. "
                    "Two versions of the checkpoint are mixed in this folder: keep one."
                )
            tensors[tensor.name] = tensor
    return tensors


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
