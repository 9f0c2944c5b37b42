"""A checkpoint folder in Hugging Face layout: its configuration and its tensors, checked against each other.

Reads config.json, generation_config.json and the safetensors headers; no weight is read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from qwen_edge.convert.safetensors import Tensor, read_header
from qwen_edge.errors import ConversionError

_INDEX = "model.safetensors.index.json"
_LARGEST = 3.4e38  # of a 32-bit float, which is what GGUF stores


@dataclass(frozen=True)
class Checkpoint:
    """`tensors` are in the order llama.cpp's converter writes them: file by file, each sorted by name."""

    folder: Path
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def weight_files(self) -> list[Path]:
        return sorted({tensor.file for tensor in self.tensors.values()})


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read and check what describes the weights. Raises ConversionError for anything missing or damaged."""
    if not folder.is_dir():
        raise ConversionError(f"{folder} is not a folder. Give a checkpoint folder or a Hub name like Qwen/Qwen3-0.6B.")
    config = read_json(folder / "config.json", required=True)
    generation = read_json(folder / "generation_config.json")
    return Checkpoint(folder, config, generation, _read_tensors(folder))


def read_json(file: Path, *, required: bool = False) -> dict[str, Any]:
    """A JSON object from a file; {} if an optional one is not there."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Any])
    except FileNotFoundError:
        if not required:
            return {}
        raise ConversionError(
            f"{file.parent} has no {file.name}: it is not a whole checkpoint in Hugging Face layout. Download it again."
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConversionError(f"{file} is damaged: {error}. Download it again.") from None


def read_text(file: Path) -> str:
    """A text file of the checkpoint. Raises ConversionError if it is no text."""
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConversionError(f"{file} is damaged: {error}. Download it again.") from None


def number(values: Mapping[str, Any], key: str, where: str | Path) -> float:
    """A number from a JSON object of the file `where`; text that is one is taken for it. Raises ConversionError."""
    value = values.get(key)
    try:
        if not isinstance(value, bool) and abs(found := float(value)) <= _LARGEST:  # type: ignore[arg-type]
            return found
    except (TypeError, ValueError, OverflowError):
        pass
    raise ConversionError(f"{where}: {key} is {value!r}, a number was expected. Correct the file, or take it away.")


def whole_number(values: Mapping[str, Any], key: str, where: str | Path) -> int:
    """The same for a count: 20.0 is one, 20.5 is not."""
    value = number(values, key, where)
    if not value.is_integer() or abs(value) >= 1 << 31:
        raise ConversionError(f"{where}: {key} is {values[key]!r}, a whole number was expected. Correct the file.")
    return int(value)


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    index = read_json(folder / _INDEX)
    weight_map = index.get("weight_map", {})
    if index and not (isinstance(weight_map, dict) and weight_map):
        raise ConversionError(f"{folder / _INDEX} is damaged: it has no weight_map. Download it again.")
    names = sorted(set(weight_map.values())) or sorted(file.name for file in folder.glob("model*.safetensors"))
    if not names:
        raise ConversionError(f"{folder} has no model.safetensors. Only safetensors checkpoints can be converted.")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ConversionError(f"{folder} is incomplete: {', '.join(missing)} missing. Download it again.")
    tensors: dict[str, Tensor] = {}
    for name in names:
        for tensor in read_header(folder / name).values():
            if tensor.name in tensors:
                raise ConversionError(
                    f"{folder / name}: tensor {tensor.name!r} is also in {tensors[tensor.name].file.name}. "
                    "Two versions of the checkpoint are mixed in this folder: keep one."
                )
            tensors[tensor.name] = tensor
    if weight_map and (lost := sorted(set(weight_map) - set(tensors))):
        raise ConversionError(
            f"{folder} is incomplete: no file holds {lost[0]!r}, which {_INDEX} names ({len(lost)} missing in all). "
            "Download it again."
        )
    return tensors
