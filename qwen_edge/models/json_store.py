"""What was measured and is kept: JSON files in the state folder, of values by name.

They hold nothing that cannot be measured again: a file that cannot be read is a file that is not there.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from qwen_edge.config.paths import hand_over, state_folder
from qwen_edge.core import atomic_file

log = logging.getLogger(__name__)

_Value = TypeVar("_Value")


class JsonStore(Generic[_Value]):
    """Of one file. Several processes may use it; the last to write wins."""

    def __init__(self, name: str, kind: type[_Value], folder: Path | None = None) -> None:
        self.file = (folder or state_folder()) / name
        self._kind = kind

    def read(self) -> dict[str, _Value]:
        """All of it."""
        try:
            return msgspec.json.decode(self.file.read_bytes(), type=dict[str, self._kind])  # type: ignore[name-defined]
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s cannot be read and is left out: %s", self.file, error)
            return {}

    def keep(self, name: str, value: _Value) -> None:
        """In place of what had this name. Where nothing can be written, the log says so."""
        known = self.read() | {name: value}
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file.replacing(self.file) as out:
                out.write(msgspec.json.format(msgspec.json.encode(known), indent=1))
                hand_over(Path(out.name))
        except OSError as error:
            log.warning("what was measured cannot be kept in %s: %s", self.file, error.strerror or error)
