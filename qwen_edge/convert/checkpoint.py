"""A checkpoint folder in Hugging Face layout: reads and checks its configuration and its list of tensors.

Reads config.json, generation_config.json and the safetensors headers; weights are not read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from qwen_edge.convert.diagnose import explain_adapter, has_adapter, read_bytes, refuse_quantized, refuse_wrapped
from qwen_edge.convert.safetensors import Tensor
from qwen_edge.convert.weights import has_weights, read_weights
from qwen_edge.core.errors import ConversionError

_LARGEST = 3.4e38  # the largest 32-bit float: GGUF stores numbers as such
_SHOWN = 80  # characters of a value shown in an error

_T = TypeVar("_T")


@dataclass(frozen=True)
class Checkpoint:
    """`tensors` are in the order in which llama.cpp's converter writes them: file by file, each sorted by name. `notes`
    are sentences for the user about files that were left out or chosen."""

    folder: Path
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()

    @property
    def weight_files(self) -> list[Path]:
        return sorted({tensor.file for tensor in self.tensors.values()})


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read and check everything but the weights. Raises ConversionError for a missing or damaged file."""
    if not folder.is_dir():
        raise ConversionError(f"{folder} is not a folder. Give a checkpoint folder or a Hub name like Qwen/Qwen3-0.6B.")
    notes = []
    if has_adapter(folder):
        if not has_weights(folder):
            base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
            raise ConversionError(explain_adapter(folder, base))
        notes.append(f"{folder} also holds a LoRA adapter (adapter_config.json), which is not applied to the model")
    config = read_json(folder / "config.json", required=True)
    refuse_quantized(config, folder / "config.json")
    generation = read_json(folder / "generation_config.json")
    weights = read_weights(folder, lambda file: read_json(file) if file.exists() else None)
    refuse_wrapped(weights.tensors, folder)
    return Checkpoint(folder, config, generation, weights.tensors, (*notes, *weights.notes))


def read_json(file: Path, *, required: bool = False) -> dict[str, Any]:
    """The JSON object in a file; {} if the file is optional and missing."""
    found = read_typed(file, dict[str, Any])
    if found is None and required:
        raise ConversionError(
            f"{file.parent} has no {file.name}: it is not a complete checkpoint in Hugging Face layout. "
            "Download it again."
        )
    return found or {}


def read_typed(file: Path, kind: type[_T]) -> _T | None:
    """The JSON in a file, as `kind`; None if the file is missing. Raises ConversionError for JSON of another form."""
    try:
        return msgspec.json.decode(read_bytes(file), type=kind)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConversionError(f"{file} is damaged: {error}. Download it again.") from None
    except RecursionError:
        raise ConversionError(f"{file} is damaged: it is nested too deeply. Download it again.") from None


def as_type(value: object, kind: type[_T], where: str | Path) -> _T:
    """Convert a part of a JSON file to `kind`. `where` names the file and the part. Raises ConversionError."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ConversionError(f"{where} is damaged: {error}. Download it again.") from None


def read_text(file: Path) -> str:
    """The content of a text file of the checkpoint. Raises ConversionError if it is not UTF-8."""
    try:
        return read_bytes(file).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise ConversionError(f"{file} is damaged: {error}. Download it again.") from None


def short_repr(value: object) -> str:
    """The `repr` of a value for an error message, at most 80 characters of it."""
    try:
        text = repr(value)
    except ValueError:  # Python refuses to format whole numbers of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def number(values: Mapping[str, Any], key: str, where: str | Path) -> float:
    """A number from a JSON object of the file `where`; text that is a number is accepted. Raises ConversionError."""
    value = values.get(key)
    try:
        if not isinstance(value, bool) and abs(found := float(value)) <= _LARGEST:  # type: ignore[arg-type]
            return found
    except (TypeError, ValueError, OverflowError):
        pass
    raise ConversionError(f"{where}: {key} is {short_repr(value)}, a number was expected. Correct it, or remove it.")


def positive(values: Mapping[str, Any], key: str, where: str | Path) -> float:
    """As `number`, for a value that must be above 0."""
    value = number(values, key, where)
    if value <= 0:
        raise ConversionError(f"{where}: {key} is {short_repr(values[key])}, a number above 0 was expected.")
    return value


def whole_number(values: Mapping[str, Any], key: str, where: str | Path) -> int:
    """As `number`, for a count: 20.0 is accepted, 20.5 is not."""
    value = number(values, key, where)
    if not value.is_integer() or abs(value) >= 1 << 31:
        raise ConversionError(
            f"{where}: {key} is {short_repr(values[key])}, a whole number was expected. Correct the file."
        )
    return int(value)
