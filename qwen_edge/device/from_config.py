"""From the settings under `device` to the telemetry source and the governor's settings; warns of ineffective ones."""

from __future__ import annotations

import logging

from qwen_edge.config.paths import expand_path
from qwen_edge.config.schema import DeviceConfig
from qwen_edge.core.errors import ConfigError
from qwen_edge.device.governor.thresholds import GovernorSettings
from qwen_edge.device.sources.choice import choose
from qwen_edge.device.telemetry import Source, Telemetry

log = logging.getLogger(__name__)

_SILENT = 3  # intervals without a sample that are still normal

Found = tuple[Source | None, str]


def warn_of_ineffective_settings(settings: DeviceConfig, sample: Telemetry | None) -> None:
    """Log each setting that has no effect on this device. `sample` is None where there is no telemetry."""
    if sample is None or sample.watts is None:
        for name in ("watts", "joules_per_hour"):
            if getattr(settings, name):
                log.warning("device.%s has no effect: power is not measured here", name)
    if (sample is None or sample.tj is None) and (settings.target_celsius or settings.pause_celsius):
        log.warning("device.target_celsius and pause_celsius have no effect: no temperature is measured here")
    if settings.trace and settings.source != "trace":
        log.warning("device.trace has no effect: device.source is %s, not trace", settings.source)


def find_source(settings: DeviceConfig) -> Found:
    """The telemetry source that the settings ask for. Raises TelemetryError for a trace that cannot be used,
    ConfigError if its path cannot be one (`load_config` has refused such a path before a daemon begins)."""
    trace = expand_path(settings.trace, "device.trace") if settings.trace else None
    return choose(settings.source, trace=trace, speed=settings.trace_speed, interval=settings.interval_seconds)


def governor_settings(settings: DeviceConfig) -> GovernorSettings:
    """The settings of the governor. Raises ConfigError if two of them contradict each other."""
    target, pause = settings.target_celsius, settings.pause_celsius
    if target is not None and pause is not None and pause < target + 4:
        raise ConfigError(f"device.pause_celsius {pause:g} must be at least 4 above device.target_celsius {target:g}.")
    return GovernorSettings(
        target=target,
        pause=pause,
        watts=settings.watts,
        battery_duty=settings.battery_duty,
        battery_reserve=settings.battery_reserve,
        patience=_SILENT * settings.interval_seconds,
    )
