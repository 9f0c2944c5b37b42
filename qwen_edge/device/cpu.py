"""How many cores this process may compute on."""

from __future__ import annotations

import os

import psutil


def usable_cores() -> int:
    """Physical cores, as far as this process is allowed on them: hyperthreads share the units that inference needs."""
    allowed = len(os.sched_getaffinity(0))
    return min(allowed, psutil.cpu_count(logical=False) or allowed)
