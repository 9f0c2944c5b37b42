"""A small JSON file in the folder of conversations, read once at the start and replaced as a whole."""

from __future__ import annotations

import logging
from concurrent.futures import Executor, Future, wait
from pathlib import Path
from typing import TypeVar

import msgspec

from qwen_edge.core import atomic_file
from qwen_edge.kv.folder import Folder, open_ours

log = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST = 64 << 20  # bytes of a note: 64 pins of the longest context are less
_ASIDE = 9  # files that may lie aside under one name


class Note:
    """Used by the engine's thread; once the engine runs, only the writer's thread touches the file itself."""

    def __init__(self, folder: Folder, name: str, writer: Executor) -> None:
        self._folder = folder
        self._file = folder.path / name
        self._writer = writer
        self._strange = False  # the file is not one that qwen-edge has written
        self._newest: bytes | None = None  # what is to be written, until the writer tries it
        self._wrote = True  # whether the last try succeeded
        self._last: Future[bool] | None = None

    def read(self, kind: type[T]) -> T | None:
        """The content. None if there is no file, or one with other content, which is set aside with a warning."""
        try:
            with open_ours(self._file) as source:
                data = source.read(_LONGEST + 1) or b""
            if len(data) > _LONGEST:
                raise ValueError("it is too long")
            return msgspec.json.decode(data, type=kind)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, msgspec.MsgspecError, RecursionError, MemoryError) as error:
            self._strange = True
            log.warning("%s is not used, as it is not what qwen-edge writes: %s", self._file, error)
            self._set_aside()
            return None

    def write(self, data: bytes) -> None:
        """Have the file replaced. If the disk is busy meanwhile, only the newest of several contents is written."""
        self._newest = data
        self._last = self._writer.submit(self._write)

    def written(self, seconds: float) -> bool:
        """Whether the file has the newest content; waits for that, but no longer than `seconds`."""
        if self._last is None:
            return True
        wait([self._last], seconds)
        return self._last.done() and self._last.result()

    def _write(self) -> bool:
        """In the writer's thread. False, with a warning, if the file system refuses."""
        data, self._newest = self._newest, None
        if data is not None:
            self._wrote = self._replace(data)
        return self._wrote

    def _replace(self, data: bytes) -> bool:
        what = f"{self._file.name} cannot be written"
        try:
            self._folder.renew()
            if self._strange and not self._set_aside():
                return False
            # not durable: an empty file, after a power cut, is set aside at the next start
            atomic_file.replace(self._file, data, private=True)
        except OSError as error:
            self._folder.tell(what, error)
            return False
        self._folder.works(what)
        return True

    def _set_aside(self) -> bool:
        """Rename a file that is not ours, so that it is not lost when ours is written. False if that is impossible."""
        for number in range(1, _ASIDE + 1):
            aside = Path(f"{self._file}.set-aside-{number}")
            if aside.exists() or aside.is_symlink():
                continue
            try:
                self._file.rename(aside)
            except FileNotFoundError:
                pass
            except OSError as error:
                self._folder.tell(f"{self._file.name} cannot be set aside", error)
                return False
            else:
                log.warning("%s lies in %s now", self._file.name, aside)
            self._strange = False
            return True
        self._folder.tell(f"{self._file.name} cannot be set aside", ValueError(f"{_ASIDE} files lie aside already"))
        return False
