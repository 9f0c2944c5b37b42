"""What this machine computes with, and how many cores of it this process may use."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path

import psutil


def usable_cores() -> int:
    """Physical cores, as far as this process is allowed on them: hyperthreads share the units that inference needs."""
    allowed = len(os.sched_getaffinity(0))
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def preempted() -> float:
    """How often so far others have taken a core away from this process, for each core that it may use."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw / len(os.sched_getaffinity(0))


def cpu_name(root: Path = Path("/")) -> str:
    """The processor, or the board it sits on, in its maker's words."""
    for file, sign in ((root / "proc/device-tree/model", ""), (root / "proc/cpuinfo", "model name")):
        try:
            lines = file.read_text(errors="replace").splitlines()
        except OSError:
            continue
        if line := next((line for line in lines if line.startswith(sign)), None):
            return line.rpartition(":")[2].strip("\0 \t")
    return platform.processor() or platform.machine()
