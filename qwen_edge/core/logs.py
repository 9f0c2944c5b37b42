"""The log format of the daemon and the engine process."""

from __future__ import annotations

import logging
import os

from qwen_edge.core.printable import printable

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


def start_logging(level: str) -> None:
    """Log to the standard error stream, from this level on."""
    # systemd's journal adds the time itself
    form = "%(levelname)s %(message)s" if "JOURNAL_STREAM" in os.environ else "%(asctime)s %(levelname)s %(message)s"
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine(form))
    logging.basicConfig(level=level.upper(), handlers=[handler])
