"""A graphics card by NVIDIA's management library, if its Python package nvidia-ml-py and the driver are there.

Every call may fail by itself: a card that does not know something answers NotSupported, one that has fallen off the bus
answers nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qwen_edge.device.files import Look
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
        count = self._ask(Look(), "graphics cards", nvml.nvmlDeviceGetCount) or 0
        names = ["gpu", *(f"gpu {number}" for number in range(2, count + 1))]
        handles = [self._ask(Look(), name, nvml.nvmlDeviceGetHandleByIndex, i) for i, name in enumerate(names[:count])]
        self._cards = {name: handle for name, handle in zip(names, handles, strict=False) if handle is not None}
        self.trips = [self._trips(handle) for handle in self._cards.values()]

    def __bool__(self) -> bool:
        return bool(self._cards)

    def read(self, look: Look) -> dict[str, Card]:
        return {name: self._read(look, name, card) for name, card in self._cards.items()}

    def watts(self, look: Look) -> float | None:
        """Of all cards together: 0 without any, None if one does not say."""
        powers = [self._power(look, name, card) for name, card in self._cards.items()]
        known = [power for power in powers if power is not None]
        return sum(known) if len(known) == len(powers) else None

    def _read(self, look: Look, name: str, card: Any) -> Card:
        nvml = self._nvml
        # NVML 13 has a new name for it and will drop the old one
        celsius = getattr(nvml, "nvmlDeviceGetTemperatureV", None) or nvml.nvmlDeviceGetTemperature
        reasons = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
        reasons = reasons or nvml.nvmlDeviceGetCurrentClocksThrottleReasons
        megahertz = self._ask(look, f"{name} clock", nvml.nvmlDeviceGetClockInfo, card, nvml.NVML_CLOCK_SM)
        most = self._ask(look, f"{name} clock", nvml.nvmlDeviceGetMaxClockInfo, card, nvml.NVML_CLOCK_SM)
        use = self._ask(look, f"{name} load", nvml.nvmlDeviceGetUtilizationRates, card)
        bits = self._ask(look, f"{name} throttling", reasons, card) or 0
        return Card(
            self._ask(look, f"{name} temperature", celsius, card, nvml.NVML_TEMPERATURE_GPU),
            self._power(look, name, card),
            None if megahertz is None else Clock(1e6 * megahertz, None if most is None else 1e6 * most),
            None if use is None else use.gpu / 100,
            tuple(f"{name}: {reason}" for bit, reason in _REASONS.items() if bits & bit),
        )

    def _power(self, look: Look, name: str, card: Any) -> float | None:
        milliwatts = self._ask(look, f"{name} power", self._nvml.nvmlDeviceGetPowerUsage, card)
        return None if milliwatts is None else milliwatts / 1000

    def _trips(self, card: Any) -> Trips:
        ask, nvml = self._nvml.nvmlDeviceGetTemperatureThreshold, self._nvml
        slower = self._ask(Look(), "slowdown", ask, card, nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
        off = self._ask(Look(), "shutdown", ask, card, nvml.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN)
        return Trips(passive=slower or None, critical=off or None)

    def _ask(self, look: Look, name: str, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except self._nvml.NVMLError as error:
            if getattr(error, "value", None) != self._nvml.NVML_ERROR_NOT_SUPPORTED:
                look.miss(name, str(error))
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
