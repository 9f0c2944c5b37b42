"""The manifest beside a converted file: where it came from, what made it, and what it was seen to do.

`<file>.json`, written by the converter, read by `doctor` and by whoever wonders in three years.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

FORMAT = 1


class Input(msgspec.Struct, frozen=True):
    name: str
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """`seconds` are wall time by stage; `fingerprint` tells whether a conversion of the same inputs would differ;
    `types` counts tensors by type, `tensors` lists each as "Q4_K 1024x3072" (row length first, as GGUF has it)."""

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


def manifest_path(model: Path) -> Path:
    return model.with_name(model.name + ".json")


def read_manifest(model: Path) -> Manifest | None:
    """The manifest beside a model; None if there is none that can be read, or it is not one of ours."""
    try:
        return msgspec.json.decode(manifest_path(model).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def encode_manifest(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
