"""What this machine computes with, and how many cores of it this process may use."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import resource
import sys
import threading
from hashlib import sha256
from pathlib import Path

import psutil

_NUMBERS = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")  # of /proc/cpuinfo
_NICE = 10  # steps of priority: a tenth of the weight of threads without
_COMPUTES = re.compile("amx|avx|asimd|bf16|bmi|f16c|fma|i8mm|sme|sse4|sve")


def usable_cores() -> int:
    """Physical cores, as far as this process is allowed on them: hyperthreads share the units that inference needs."""
    allowed = len(os.sched_getaffinity(0))
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def preempted() -> float:
    """How often so far others have taken a core away from this process, for each core that it may use."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw / len(os.sched_getaffinity(0))


def lower_priority() -> None:
    """Let the calling thread take only about a tenth of a core from the threads that decode. Where the system forbids
    that, the thread keeps its priority."""
    if sys.platform == "linux":  # elsewhere this would be the priority of the whole process
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _NICE)


def cpu_model(root: Path = Path("/")) -> str:
    """The processor's numbers, and a digest of the instructions it computes with: two generations may bear one name, as
    AMD's EPYC does in virtual machines. Where cores differ, of all of them."""
    try:
        lines = (root / "proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return "unknown model"
    pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    numbers = {name: sorted({value for key, value in pairs if key == name}) for name in _NUMBERS}
    flags = {flag for key, value in pairs if key in ("flags", "Features") for flag in value.split()}
    known = " ".join(sorted(flag for flag in flags if _COMPUTES.match(flag)))
    told = [f"{name} {'/'.join(values)}" for name, values in numbers.items() if values]
    return ", ".join([*told, f"flags {sha256(known.encode()).hexdigest()[:8]}"])


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
