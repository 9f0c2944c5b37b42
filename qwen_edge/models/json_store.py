"""JSON files in the state folder that keep measured values by name.

The values can be measured again, so a file that cannot be read counts as missing.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from qwen_edge.config.paths import hand_over, state_folder
from qwen_edge.core import atomic_file
from qwen_edge.core.regular_file import regular_only

log = logging.getLogger(__name__)

_Value = TypeVar("_Value")


class JsonStore(Generic[_Value]):
    """The values in one file. Several processes may use the file; the last one to write wins."""

    def __init__(self, name: str, kind: type[_Value], folder: Path | None = None) -> None:
        """`folder`: by default the state folder."""
        self.file = (folder or state_folder()) / name
        self._kind = kind

    def read(self) -> dict[str, _Value]:
        """All values by name. What cannot be read is logged, and counts as missing."""
        try:
            with open(self.file, "rb", opener=regular_only) as file:
                found = msgspec.json.decode(file.read(), type=dict[str, msgspec.Raw])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s cannot be read, and its measurements are ignored: %s", self.file, error)
            return {}
        return {name: value for name, raw in found.items() if (value := self._value(name, raw)) is not None}

    def _value(self, name: str, raw: msgspec.Raw) -> _Value | None:
        try:
            return msgspec.json.decode(raw, type=self._kind)
        except msgspec.MsgspecError as error:
            log.warning("the measurement %r in %s cannot be read, and is ignored: %s", name, self.file, error)
            return None

    def keep(self, name: str, value: _Value) -> None:
        """Write the value under this name, and keep all others. An error of the disk is logged, not raised."""
        known = self.read() | {name: value}
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file.replacing(self.file) as out:
                out.write(msgspec.json.format(msgspec.json.encode(known), indent=1))
                hand_over(Path(out.name))
        except OSError as error:
            log.warning(
                "a measurement cannot be kept in %s, and will be repeated: %s", self.file, error.strerror or error
            )
