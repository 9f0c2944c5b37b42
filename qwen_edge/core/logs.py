"""The log of the daemon and the engine process: its format, and what is told only once."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Hashable

from qwen_edge.core.printable import printable
from qwen_edge.core.progress import ERASE, is_terminal

_LONGEST = 2000  # characters of a line: names are cut where they are logged; this limits errors of other programs


class _OneLine(logging.Formatter):
    """Writes a record as one printable line, and indents the lines of a traceback. So text from outside can neither
    look like a record of its own nor control a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = printable(record.message, _LONGEST)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]
        return "\n".join("    " + printable(line, _LONGEST) for line in lines)


class _Lines(logging.StreamHandler):  # type: ignore[type-arg]  # Python 3.10 has no StreamHandler[TextIO]
    """Writes lines to a stream. On a terminal it first erases the line that shows progress, which is drawn
    again when it changes."""

    def emit(self, record: logging.LogRecord) -> None:
        if is_terminal(self.stream):
            self.stream.write(ERASE)
        super().emit(record)


class ToldBefore:
    """Knows what the log has told, so that a line which every request would repeat is there once. It remembers the
    latest `most` things by their hashes. For one thread."""

    def __init__(self, most: int = 256) -> None:
        self._most, self._told = most, OrderedDict[int, None]()

    def is_new(self, what: Hashable) -> bool:
        """Whether `what` has not been asked about before."""
        is_new = (key := hash(what)) not in self._told
        self._told[key] = None
        self._told.move_to_end(key)
        if len(self._told) > self._most:
            self._told.popitem(last=False)
        return is_new


def start_logging(level: str) -> None:
    """Log to the standard error stream, from this level on."""
    # systemd's journal adds the time itself
    form = "%(levelname)s %(message)s" if "JOURNAL_STREAM" in os.environ else "%(asctime)s %(levelname)s %(message)s"
    handler = _Lines()
    handler.setFormatter(_OneLine(form))
    logging.basicConfig(level=level.upper(), handlers=[handler])
