"""Chooses the source of telemetry for this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qwen_edge.config.schema import SourceKind
from qwen_edge.device.sources.jtop import Jtop, helper_process
from qwen_edge.device.sources.jtop_connection import SERVICE_SOCKET, HelperService
from qwen_edge.device.sources.laptop import Laptop
from qwen_edge.device.sources.nvml import open_nvml
from qwen_edge.device.sources.sysfs import Sysfs
from qwen_edge.device.sources.trace import Trace
from qwen_edge.device.telemetry import Source, TelemetryError

_NO_JETSON = "/sys shows no temperature zone and no power rail of a Jetson"
_NO_SENSORS = "/sys shows no processor temperature, no processor power and no battery, as in most virtual machines"


def choose(
    kind: SourceKind,
    *,
    trace: Path | None = None,
    speed: float = 1.0,
    interval: float = 1.0,
    root: Path = Path("/"),
    clock: Callable[[], float] = time.monotonic,
    nvml: Callable[[], Any] = open_nvml,
) -> tuple[Source | None, str]:
    """A source and its description; or None and the reason why there is none.

    `auto` is a Jetson's /sys or, elsewhere, the sensors of a PC. `trace` and `speed` are for a trace, `interval`
    (seconds) is for jtop; `nvml` loads NVIDIA's library. Raises TelemetryError for a trace that cannot be used."""
    if kind == "trace":
        return _trace(trace, speed, clock)
    if kind == "jtop":
        return _jtop(interval, root, clock)
    if kind in ("auto", "sysfs") and Sysfs.found(root):
        return Sysfs(root, clock), "sysfs: the sensors of this Jetson"
    if kind in ("auto", "laptop"):
        library = nvml()
        if Laptop.found(root, library):
            card = " and its graphics card" if library else ""
            return Laptop(root, clock, library), f"laptop: the sensors of this machine{card}"
    reasons = {
        "none": "none: telemetry is switched off",
        "sysfs": f"none: {_NO_JETSON}",
        "laptop": f"none: {_NO_SENSORS}",
        "auto": f"none: {_NO_JETSON}; and {_NO_SENSORS}",
    }
    return None, reasons[kind]


def _jtop(interval: float, root: Path, clock: Callable[[], float]) -> tuple[Source, str]:
    """By systemd's helper process where its socket exists: then the daemon need not be in group jtop."""
    path = root / SERVICE_SOCKET.relative_to("/")
    if path.is_socket():
        # it writes one line a second; the interval cannot be chosen
        source = Jtop(lambda: HelperService(path), max(1.0, interval), clock=clock)
        return source, f"jtop: read by the process behind qwen-edge-jtop.socket ({path})"
    source = Jtop(helper_process(interval, root=root), interval, clock=clock)
    return source, "jtop: read by a helper process of qwen-edge"


def _trace(path: Path | None, speed: float, clock: Callable[[], float]) -> tuple[Source, str]:
    if path is None:
        raise TelemetryError("device.source is trace: set device.trace to the recorded file.")
    times = "" if speed == 1 else f", {speed:g} times as fast"
    return Trace(path, speed, clock), f"trace: {path}{times}"
