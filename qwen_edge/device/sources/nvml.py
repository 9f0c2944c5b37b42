"""NVIDIA graphics cards, by NVIDIA's management library, where the package nvidia-ml-py and the driver are installed.

Each call may fail on its own: a card raises NotSupported for a value it does not have, and GPU is lost after it has
fallen off the bus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qwen_edge.device.sources.files import FileSnapshot
from qwen_edge.device.telemetry import Clock, Trips

# NVML API reference, nvmlClocksEventReasons; limits set by an application or by an idle card do not count
_REASONS = {
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x20: "heat",
    0x40: "heat, by the hardware",
    0x80: "power brake",
}


@dataclass(frozen=True)
class Card:
    """The current values of a card; None: the card does not have the value."""

    celsius: float | None
    watts: float | None
    clock: Clock | None
    load: float | None
    throttled: tuple[str, ...]


class Nvidia:
    """All cards. `nvml` is the module pynvml after nvmlInit. Used by the reading thread."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        count = self._ask(FileSnapshot(), "graphics cards", "Count") or 0
        names = ["gpu", *(f"gpu {number}" for number in range(2, count + 1))]
        handles = [self._ask(FileSnapshot(), name, "HandleByIndex", i) for i, name in enumerate(names[:count])]
        self._cards = {name: handle for name, handle in zip(names, handles, strict=False) if handle is not None}
        self.trips = [self._trips(handle) for handle in self._cards.values()]

    def __bool__(self) -> bool:
        return bool(self._cards)

    def read(self, snapshot: FileSnapshot) -> dict[str, Card]:
        return {name: self._read(snapshot, name, card) for name, card in self._cards.items()}

    def watts(self, snapshot: FileSnapshot) -> float | None:
        """The power of all cards together: 0 without cards, None if one of them does not report it."""
        powers = [self._power(snapshot, name, card) for name, card in self._cards.items()]
        known = [power for power in powers if power is not None]
        return sum(known) if len(known) == len(powers) else None

    def _read(self, snapshot: FileSnapshot, name: str, card: Any) -> Card:
        nvml = self._nvml
        megahertz = self._ask(snapshot, f"{name} clock", "ClockInfo", card, nvml.NVML_CLOCK_SM)
        most = self._ask(snapshot, f"{name} clock", "MaxClockInfo", card, nvml.NVML_CLOCK_SM)
        use = self._ask(snapshot, f"{name} load", "UtilizationRates", card)
        bits = (
            self._ask(snapshot, f"{name} throttling", "CurrentClocksThrottleReasons CurrentClocksEventReasons", card)
            or 0
        )
        return Card(
            self._ask(snapshot, f"{name} temperature", "Temperature TemperatureV", card, nvml.NVML_TEMPERATURE_GPU),
            self._power(snapshot, name, card),
            None if megahertz is None else Clock(1e6 * megahertz, None if most is None else 1e6 * most),
            None if use is None else use.gpu / 100,
            tuple(f"{name}: {reason}" for bit, reason in _REASONS.items() if bits & bit),
        )

    def _power(self, snapshot: FileSnapshot, name: str, card: Any) -> float | None:
        milliwatts = self._ask(snapshot, f"{name} power", "PowerUsage", card)
        return None if milliwatts is None else milliwatts / 1000

    def _trips(self, card: Any) -> Trips:
        slowdown, shutdown = (
            self._ask(FileSnapshot(), "limit", "TemperatureThreshold", card, which)
            for which in (
                self._nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN,
                self._nvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN,
            )
        )
        return Trips(passive=slowdown or None, critical=shutdown or None)

    def _ask(self, snapshot: FileSnapshot, what: str, calls: str, *arguments: Any) -> Any:
        """Call the first available of `calls`, names without nvmlDeviceGet, the old one first: releases before 13 do
        not have the new one, and a later release may drop the old one."""
        nvml = self._nvml
        for call in (getattr(nvml, f"nvmlDeviceGet{name}", None) for name in calls.split()):
            try:
                if call:
                    return call(*arguments)
            except nvml.NVMLError as error:
                if error.value not in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND):
                    snapshot.add_missing(what, str(error))
                if error.value != nvml.NVML_ERROR_FUNCTION_NOT_FOUND:
                    return None
        return None


def open_nvml() -> Any:
    """The initialised library; None where there is no package, no driver or no card."""
    try:
        import pynvml  # an optional package
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return pynvml if pynvml.nvmlDeviceGetCount() else None
    except pynvml.NVMLError:
        return None
