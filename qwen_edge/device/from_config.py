"""What the settings say of the device: where it is read, what is aimed at, and what of it does nothing here."""

from __future__ import annotations

import logging

from qwen_edge.config.paths import expand_path
from qwen_edge.config.schema import DeviceConfig
from qwen_edge.core.errors import ConfigError
from qwen_edge.device.governor.points import Aims
from qwen_edge.device.sources.choice import choose
from qwen_edge.device.telemetry import Source, Telemetry

log = logging.getLogger(__name__)

_SILENT = 3  # intervals without a sample that need not mean anything

Found = tuple[Source | None, str]


def warn_of_what_does_nothing(settings: DeviceConfig, sample: Telemetry | None) -> None:
    """Settings that ask for what this device cannot do."""
    if sample is None or sample.watts is None:
        for name in ("watts", "joules_per_hour"):
            if getattr(settings, name):
                log.warning("device.%s does nothing: power is not measured here", name)
    if (sample is None or sample.tj is None) and (settings.target_celsius or settings.pause_celsius):
        log.warning("device.target_celsius and pause_celsius do nothing: no temperature is measured here")
    if settings.trace and settings.source != "trace":
        log.warning("device.trace does nothing: device.source is %s", settings.source)


def find_source(settings: DeviceConfig) -> Found:
    """What the settings ask for. Raises TelemetryError for a trace that cannot be used, ConfigError if its path cannot
    be one (`load_config` has refused such a path before a daemon begins)."""
    trace = expand_path(settings.trace, "device.trace") if settings.trace else None
    return choose(settings.source, trace=trace, speed=settings.trace_speed, interval=settings.interval_seconds)


def aims_of(settings: DeviceConfig) -> Aims:
    """What the governor is to keep to. Raises ConfigError for what does not go together."""
    target, pause = settings.target_celsius, settings.pause_celsius
    if target is not None and pause is not None and pause < target + 4:
        raise ConfigError(f"device.pause_celsius {pause:g} must be at least 4 above device.target_celsius {target:g}.")
    return Aims(
        target=target,
        pause=pause,
        watts=settings.watts,
        battery_duty=settings.battery_duty,
        battery_reserve=settings.battery_reserve,
        patience=_SILENT * settings.interval_seconds,
    )
