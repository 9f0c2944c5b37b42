"""The processor: its name, its model, and how many cores this process may use."""

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

_NUMBERS = (
    "vendor_id",
    "cpu family",
    "model",
    "CPU implementer",
    "CPU part",
)  # fields of /proc/cpuinfo that identify a model
_NICE = 10  # nice levels to add: a tenth of the scheduler's weight
_COMPUTES = re.compile("amx|avx|asimd|bf16|bmi|f16c|fma|i8mm|sme|sse4|sve")


def usable_cores() -> int:
    """Physical cores that this process may use. Hyperthreads do not count: they share the units inference needs."""
    allowed = len(os.sched_getaffinity(0))
    return min(allowed, psutil.cpu_count(logical=False) or allowed)


def preempted() -> float:
    """How often other processes have preempted this one so far, divided by the cores that it may use."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw / len(os.sched_getaffinity(0))


def lower_priority() -> None:
    """Let the calling thread take only about a tenth of a core from the threads that decode. Where the system forbids
    that, the thread keeps its priority."""
    if sys.platform == "linux":  # elsewhere this would be the priority of the whole process
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), os.getpriority(os.PRIO_PROCESS, 0) + _NICE)


def cpu_model(root: Path = Path("/")) -> str:
    """The processor's model numbers, and a digest of its vector instructions, over all cores. Two generations may have
    one name, as AMD's EPYC does in virtual machines."""
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
    """The name of the board or, where there is none, of the processor, as its maker writes it."""
    for file, sign in ((root / "proc/device-tree/model", ""), (root / "proc/cpuinfo", "model name")):
        try:
            lines = file.read_text(errors="replace").splitlines()
        except OSError:
            continue
        if line := next((line for line in lines if line.startswith(sign)), None):
            return line.rpartition(":")[2].strip("\0 \t")
    return platform.processor() or platform.machine()
