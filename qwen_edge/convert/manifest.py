"""The manifest of a converted file: its origin, the tools that made it, and the results of the checks.

`<file>.json` beside the model; written by the converter, read by `doctor` and by people.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from qwen_edge.core.regular_file import regular_only

FORMAT = 1


class Input(msgspec.Struct, frozen=True):
    name: str
    bytes: int
    sha256: str


class Kept(msgspec.Struct, frozen=True):
    """What is left of a vocabulary that was cut to `languages`: `tokens` of `of`."""

    languages: tuple[str, ...]
    tokens: int
    of: int


class Imatrix(msgspec.Struct, frozen=True):
    """The text that an importance matrix was measured with: its file, its digest, and how many tokens it has."""

    text: str
    sha256: str
    tokens: int


class Manifest(msgspec.Struct, frozen=True):
    """`seconds`: wall time by stage. `fingerprint`: changes if another conversion would give another file. `types`:
    number of tensors by type. `tensors`: each tensor as "Q4_K 1024x3072" (row length first, as in GGUF). `vocabulary`:
    None if all of it was kept."""

    format: int
    file: str
    type: str
    bytes: int
    sha256: str
    source: str
    revision: str | None
    fingerprint: str
    created: str
    tools: dict[str, str]
    inputs: tuple[Input, ...]
    types: dict[str, int]
    checks: dict[str, Any]
    seconds: dict[str, float]
    tensors: dict[str, str]
    vocabulary: Kept | None = None
    imatrix: Imatrix | None = None


def manifest_path(model: Path) -> Path:
    return model.with_name(model.name + ".json")


def read_manifest(model: Path) -> Manifest | None:
    """The manifest of a model; None if there is none, or it cannot be read as one."""
    try:
        with open(manifest_path(model), "rb", opener=regular_only) as file:
            return msgspec.json.decode(file.read(), type=Manifest)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def encode_manifest(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
