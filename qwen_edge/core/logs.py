"""How both processes write into the log."""

from __future__ import annotations

import logging
import os

from qwen_edge.core.printable import printable

_LONGEST = 2000  # characters of a line: a name is cut where it is logged, this is for the text of others' errors


class _OneLine(logging.Formatter):
    """A record is one line, whatever is in its message; the lines of a traceback are indented. So nothing that comes
    from outside can look like a record of its own or give orders to a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = printable(record.message, _LONGEST)
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]
        return "\n".join("    " + printable(line, _LONGEST) for line in lines)


def start_logging(level: str) -> None:
    """To the standard error stream, from this level on."""
    # the journal has its own clock
    form = "%(levelname)s %(message)s" if "JOURNAL_STREAM" in os.environ else "%(asctime)s %(levelname)s %(message)s"
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine(form))
    logging.basicConfig(level=level.upper(), handlers=[handler])
