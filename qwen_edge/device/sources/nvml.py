"""A graphics card by NVIDIA's management library, if its Python package nvidia-ml-py and the driver are there.

Every call may fail by itself: a card that does not know something answers NotSupported, one that has fallen off the bus
answers nothing any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from qwen_edge.device.sources.files import FileSnapshot
from qwen_edge.device.telemetry import Clock, Trips

# NVML API reference, nvmlClocksEventReasons; what an application or an idle card sets is no slowing down
_REASONS = {
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x20: "heat",
    0x40: "heat, by the hardware",
    0x80: "power brake",
}


@dataclass(frozen=True)
class Card:
    """What a card says now; None is what it does not know."""

    celsius: float | None
    watts: float | None
    clock: Clock | None
    load: float | None
    throttled: tuple[str, ...]


class Nvidia:
    """All cards. `nvml` is the module pynvml after nvmlInit; by the thread that reads."""

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
        """Of all cards together: 0 without any, None if one does not say."""
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
        """`calls` are names without nvmlDeviceGet, the old one first: releases before 13 do not know the new one, and
        some later one will not know the old one."""
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
    """The library, ready to be asked; None where there is no package, no driver or no card."""
    try:
        import pynvml  # only where there may be a card
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return pynvml if pynvml.nvmlDeviceGetCount() else None
    except pynvml.NVMLError:
        return None
