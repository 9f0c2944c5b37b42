"""The state of the device as Prometheus metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from qwen_edge.device.governor.decision import LEVELS
from qwen_edge.device.report import Report
from qwen_edge.service.thermal import ThermalControl

_STALE = 30.0  # seconds after which a reading is no longer exported


class DeviceMetrics(Collector):
    """Reads ThermalControl's report at each scrape. Unknown values are left out."""

    def __init__(self, thermal: ThermalControl) -> None:
        self._thermal = thermal

    def collect(self) -> Iterator[Metric]:
        report = self._thermal.report
        yield from _governor(report)
        yield from _sensors(report)
        yield from _energy(report)


def _governor(report: Report) -> Iterator[Metric]:
    governor = report.governor
    levels = {level: float(level == governor.level) for level in LEVELS}
    yield _each("device_level", "1 for the governor's present level", "level", levels)
    yield _each(
        "device_slowed",
        "1 for the cause that limits the duty now",
        "cause",
        {governor.because: 1.0} if governor.because else {},
    )
    yield _each(
        "device_refused",
        "1 for each priority whose requests are refused now",
        "priority",
        dict.fromkeys(governor.refused, 1.0),
    )
    yield _gauge("device_retry_seconds", "Seconds until refused requests may be sent again", governor.retry_after)
    yield _gauge(
        "telemetry_trouble", "1 if the sensors cannot be read: /v1/device tells why", float(bool(report.trouble))
    )
    yield _gauge("duty_ratio", "Share of the time in which the engine may compute", governor.duty)
    if governor.duty_ran is not None and governor.duty_asked is not None:
        yield _gauge(
            "duty_asked_ratio",
            "The duty that the governor allowed over the last 30 s, while there were requests",
            governor.duty_asked,
        )
        yield _gauge(
            "duty_measured_ratio",
            "The duty at which the engine ran over the last 30 s, while there were requests",
            governor.duty_ran,
        )
    yield _gauge("target_celsius", "The temperature that the governor holds", governor.target)
    yield _gauge("pause_celsius", "The temperature from which on the engine computes nothing", governor.pause)
    yield _gauge(
        "tokens_per_second",
        "Tokens of answers a second, over the last 30 s, while there were requests",
        report.tokens_per_second,
    )
    yield _gauge("sequences", "Requests in the engine's last step", report.sequences)


def _sensors(report: Report) -> Iterator[Metric]:
    sample = report.telemetry
    if sample is None or report.age is None:
        return
    yield _gauge("telemetry_age_seconds", "Seconds since the sensors were read", report.age)
    if report.age > _STALE:
        return
    hottest = {} if sample.tj is None else {"tj": sample.tj}
    yield _each(
        "temperature_celsius",
        "Temperatures; tj is the one that the governor follows",
        "zone",
        sample.temperatures | hottest,
    )
    yield _each("rail_power_watts", "Power of the board's rails", "rail", sample.rails)
    yield _each(
        "clock_hertz", "Clocks of the units", "unit", {name: clock.hertz for name, clock in sample.clocks.items()}
    )
    caps = {name: clock.cap for name, clock in sample.clocks.items() if clock.cap is not None}
    yield _each("clock_cap_hertz", "The highest clocks that are allowed now", "unit", caps)
    loads = {"gpu": sample.gpu_load, "cpu": sample.cpu_load}
    yield _each(
        "load_ratio", "Loads of the units", "unit", {name: load for name, load in loads.items() if load is not None}
    )
    yield _each(
        "throttled",
        "1 for each reason for which a clock is limited now",
        "reason",
        dict.fromkeys(sample.throttled, 1.0),
    )
    yield _gauge("sensors_missing", "Sensors that should be there and did not answer", float(len(sample.missing)))
    yield _each("power_mode", "1 for the present power mode", "mode", {sample.mode: 1.0} if sample.mode else {})
    battery = sample.battery
    singles = {
        "board_power_watts": ("Power of the whole board", sample.watts),
        "fan_ratio": ("Duty of the fan", sample.fan),
        "fan_rpm": ("Speed of the fan in revolutions per minute", sample.fan_rpm),
        "memory_used_bytes": ("Memory in use on this machine", sample.memory_used),
        "memory_bytes": ("Memory of this machine", sample.memory_total),
        "battery_level_ratio": ("Charge of the battery", battery.level if battery else None),
        "on_battery": ("1 if the device runs on its battery", float(battery.discharging) if battery else None),
        "on_mains": ("1 if the device is connected to mains", None if sample.mains is None else float(sample.mains)),
    }
    for name, (words, value) in singles.items():
        if value is not None:
            yield _gauge(name, words, value)


def _energy(report: Report) -> Iterator[Metric]:
    energy = report.energy
    if energy is None:
        return
    counter = CounterMetricFamily
    yield _each(
        "energy_joules",
        "Joules by phase; the phase idle is what the board draws in any case",
        "phase",
        energy.joules,
        counter,
    )
    yield _each(
        "client_energy_joules", "Joules by client, without those of the phase idle", "client", energy.clients, counter
    )
    yield _each(
        "energy_today_joules", "Joules by phase since midnight, or since the daemon started", "phase", energy.today
    )
    yield _each(
        "client_energy_today_joules",
        "Joules by client since midnight, or since the daemon started",
        "client",
        energy.clients_today,
    )
    if energy.idle_watts is not None:
        yield _gauge("idle_watts", "Power that the board draws while nothing is computed", energy.idle_watts)
    if energy.joules_per_token is not None:
        yield _gauge("joules_per_token", "Joules for one token of an answer, prompts included", energy.joules_per_token)


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(f"qwen_edge_{name}", words, value)


def _each(
    name: str,
    words: str,
    label: str,
    values: Mapping[Any, float],
    kind: type[GaugeMetricFamily | CounterMetricFamily] = GaugeMetricFamily,
) -> Metric:
    """A metric with one value for each key; the key is the value of the label."""
    family = kind(f"qwen_edge_{name}", words, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
