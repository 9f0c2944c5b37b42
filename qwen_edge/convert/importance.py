"""Stage between writing and quantizing, with `--imatrix`: measures the importance matrix, in a worker process.

The unquantized model reads a text, and the size of what each column of its matrices is multiplied with decides how
llama.cpp rounds the weights (`llama/importance.py`). The text is the user's, or ours: `importance.txt`, Chinese and
English about homes and devices, with tool calls, JSON and code.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qwen_edge.convert.worker import run_writer
from qwen_edge.core.errors import ConversionError, EngineError
from qwen_edge.core.progress import CHARACTERS, Progress
from qwen_edge.core.regular_file import regular_only

OWN = Path(__file__).with_name("importance.txt")
_MOST_BYTES = 1 << 20  # an hour for Qwen3-0.6B on two cores; a tenth of that is plenty
LEAST_TOKENS = 512  # of fewer, the columns' means say more about the text than about the model
_TOKENS = "tokens"  # a name that no matrix has


@dataclass(frozen=True)
class Text:
    """A text to measure with. `name`: what the manifest calls it."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_text(named: Path | None) -> Text:
    """The text in the file `named`, or our own text. Raises ConversionError for a file that cannot be read, holds no
    UTF-8 text, or is too short or too long."""
    if named is None:
        return Text("qwen-edge's own", OWN.read_text("utf-8"))
    try:
        with open(named, "rb", opener=regular_only) as file:
            data = file.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        why = error.strerror if isinstance(error, OSError) else error
        raise ConversionError(
            f"--imatrix {named} cannot be read: {why}. Name a text file; or write --imatrix behind all other "
            "arguments, to measure with qwen-edge's own text."
        ) from None
    if len(data) > _MOST_BYTES:
        raise ConversionError(f"--imatrix {named} has more than 1 MiB, which would take hours. 100 kB are plenty.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConversionError(
            f"--imatrix {named} is not UTF-8 text: byte {error.start} cannot be read. Save the file as UTF-8."
        ) from None
    if len(data) < LEAST_TOKENS:  # a token has at least one byte
        raise ConversionError(too_short(str(named), f"{len(data)} bytes"))
    return Text(str(named), text)


def measure_importance(text: Text, model: Path, target: Path, *, threads: int, progress: Progress) -> None:
    """Write what the unquantized model finds on the text to `target`. Raises ConversionError if the text has too few
    tokens, or llama.cpp fails; OSError if the disk is full."""
    copy = target.with_suffix(".txt")  # the text that was read and hashed, whatever becomes of the user's file
    copy.write_bytes(text.text.encode())
    task = {
        "do": "importance",
        "model": str(model),
        "text": str(copy),
        "name": text.name,
        "target": str(target),
        "threads": threads,
    }
    with progress.stage("measuring importance", len(text.text), CHARACTERS) as advance:
        run_writer(task, advance)
    copy.unlink()


def save_importance(file: Path, importance: Mapping[str, npt.NDArray[np.float32]], tokens: int) -> None:
    """Write the importance of the columns of each matrix, and how many tokens were read. Raises OSError."""
    arrays: dict[str, Any] = {_TOKENS: np.array(tokens), **importance}
    with file.open("wb") as out:
        np.savez(out, **arrays)


def read_importance(file: Path) -> dict[str, npt.NDArray[np.float32]]:
    """The importance of the columns, by name of the matrix. Raises EngineError if the file is damaged."""
    try:
        with file.open("rb") as stored, np.load(stored) as held:
            return {name: held[name] for name in held.files if name != _TOKENS}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise EngineError(f"{file} is damaged ({error}). Run the same command again: it is measured anew.") from None


def tokens_read(file: Path) -> int:
    """How many tokens the model read."""
    with np.load(file) as held:
        return int(held[_TOKENS])


def too_short(name: str, length: str) -> str:
    """The message for a text of this length, such as "80 tokens"."""
    return (
        f"--imatrix {name} is too short: it has {length}, and at least {LEAST_TOKENS} tokens are needed. Several "
        "thousand are better."
    )
