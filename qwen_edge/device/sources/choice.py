"""Which source of telemetry to use on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from qwen_edge.device.sources.jtop import Jtop, helper_process
from qwen_edge.device.sources.jtop_connection import SERVICE_SOCKET, HelperService
from qwen_edge.device.sources.laptop import Laptop
from qwen_edge.device.sources.nvml import open_nvml
from qwen_edge.device.sources.sysfs import Sysfs
from qwen_edge.device.sources.trace import Trace
from qwen_edge.device.telemetry import Source, TelemetryError

Kind = Literal["auto", "sysfs", "jtop", "laptop", "trace", "none"]

_NO_JETSON = "there is no Jetson's temperature zone or power rail in /sys"
_NO_SENSORS = "there is no temperature, battery or power of a processor in /sys, as in most virtual machines"


def choose(
    kind: Kind,
    *,
    trace: Path | None = None,
    speed: float = 1.0,
    interval: float = 1.0,
    root: Path = Path("/"),
    clock: Callable[[], float] = time.monotonic,
    nvml: Callable[[], Any] = open_nvml,
) -> tuple[Source | None, str]:
    """A source and a few words on it; or None and why there is none.

    `auto` is a Jetson's /sys, else a PC's sensors. `trace` and `speed` are for a trace, `interval` (seconds) for jtop,
    `nvml` loads NVIDIA's library. Raises TelemetryError for a trace that cannot be used."""
    if kind == "trace":
        return _trace(trace, speed, clock)
    if kind == "jtop":
        return _jtop(interval, root, clock)
    if kind in ("auto", "sysfs") and Sysfs.found(root):
        return Sysfs(root, clock), "sysfs: the sensors of this Jetson"
    if kind in ("auto", "laptop"):
        library = nvml()
        if Laptop.found(root, library):
            words = " and its graphics card" if library else ""
            return Laptop(root, clock, library), f"laptop: the sensors of this machine{words}"
    reasons = {
        "none": "none: telemetry is switched off",
        "sysfs": f"none: {_NO_JETSON}",
        "laptop": f"none: {_NO_SENSORS}",
        "auto": f"none: {_NO_JETSON}; and {_NO_SENSORS}",
    }
    return None, reasons[kind]


def _jtop(interval: float, root: Path, clock: Callable[[], float]) -> tuple[Source, str]:
    """systemd's side process where its socket is, so that this one need not be in group jtop."""
    path = root / SERVICE_SOCKET.relative_to("/")
    if path.is_socket():
        # it speaks once a second, whatever we would like
        return Jtop(
            lambda: HelperService(path), max(1.0, interval), clock=clock
        ), f"jtop: by qwen-edge-jtop.socket ({path})"
    return Jtop(helper_process(interval, root=root), interval, clock=clock), "jtop: by a process of our own"


def _trace(path: Path | None, speed: float, clock: Callable[[], float]) -> tuple[Source, str]:
    if path is None:
        raise TelemetryError("A trace needs the file that was recorded: say which.")
    times = "" if speed == 1 else f", {speed:g} times as fast"
    return Trace(path, speed, clock), f"trace: {path}{times}"
