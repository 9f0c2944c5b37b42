"""How both processes write into the log."""

from __future__ import annotations

import logging
import os


def start_logging(level: str) -> None:
    """To the standard error stream, from this level on."""
    # the journal has its own clock
    form = "%(levelname)s %(message)s" if "JOURNAL_STREAM" in os.environ else "%(asctime)s %(levelname)s %(message)s"
    logging.basicConfig(level=level.upper(), format=form)
