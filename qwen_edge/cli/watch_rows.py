"""The rows of `qwen-edge status --watch`: what the daemon's answers say, in words, without their layout. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]

_COOLEST = 30.0  # Celsius: the left end of the temperature's bar and the lower end of its line
_CAUSES = {
    "heat": "to hold the target temperature",
    "watts": "to hold the limit in watts",
    "battery": "because the device runs on its battery",
    "no telemetry": "because the sensors do not answer",
}


@dataclass(frozen=True)
class Row:
    """A line: its `name` and `words`; a `share` (0..1) is shown as a bar with a `mark` in it. `series` names the values
    of the last minutes, which lie within `limits`, or between 0 and the largest of them."""

    name: str
    words: str
    share: float | None = None
    mark: float | None = None
    series: str = ""
    limits: tuple[float, float] | None = None  # of the series


def values_of(device: Json) -> dict[str, float | None]:
    """The values whose last minutes are shown, under the names of /v1/device/history."""
    sample = device["telemetry"] or {}
    return {
        "celsius": sample.get("tj"),
        "watts": sample.get("watts"),
        "duty": device["governor"]["duty"],
        "tokens_per_second": device["tokens_per_second"],
        "pending": device["pending"],
        "memory": device["memory"],
    }


def why(device: Json) -> str:
    """Why requests are slowed or refused, in one sentence."""
    governor, sample = device["governor"], device["telemetry"]
    if governor["refused"]:
        names = " and ".join(governor["refused"])
        return f"New {names} requests are refused; clients should try again in {governor['retry_after']:.0f} s."
    if governor["duty"] < 1:
        cause = _CAUSES.get(governor["because"], "")
        return f"Answers are slowed to {governor['duty']:.0%} of the time {cause}".strip() + "."
    if sample is None or sample["tj"] is None:
        reason = device["trouble"] or "There is no temperature sensor: heat is left to the hardware."
        return str(reason)
    return "Nothing is slowed or refused."


def rows_of(device: Json, remembered: Sequence[Json], now: float) -> Iterator[Row]:
    """All rows, the most important ones first. `now` is the wall clock."""
    governor = device["governor"]
    sample = device["telemetry"]
    if sample:
        yield from _heat(sample, governor)
    yield Row("duty", f"{governor['duty']:.0%}", governor["duty"], series="duty", limits=(0.0, 1.0))
    if sample and sample["watts"] is not None:
        yield Row("power", f"{sample['watts']:.1f} W", series="watts")
    yield Row("speed", f"{device['tokens_per_second']:.1f} tokens/s", series="tokens_per_second")
    running = device["sequences"]
    waiting = max(0, device["pending"] - running)
    yield Row("queue", f"{running} running, {waiting} waiting", series="pending")
    yield from _memory(device["memory"], sample)
    if sample:
        yield from _board(sample)
    yield from _energy(device["energy"])
    yield _restarts(device)
    yield from _conversations(remembered, now)


def _heat(sample: Json, governor: Json) -> Iterator[Row]:
    if sample["tj"] is None:
        return
    target, pause = governor["target"], governor["pause"]
    yield Row(
        "temperature",
        f"{sample['tj']:.1f} °C, target {target:.0f}, pause {pause:.0f}",
        _share(sample["tj"], pause),
        _share(target, pause),
        series="celsius",
        limits=(_COOLEST, pause),
    )


def _share(celsius: float, pause: float) -> float:
    return (celsius - _COOLEST) / max(1.0, pause - _COOLEST)


def _memory(ours: int | None, sample: Json | None) -> Iterator[Row]:
    """The memory of the daemon and its engine, and that of the whole device, which the bar shows."""
    words, share = [], None
    if ours:
        words.append(f"{ours / 1e6:.0f} MB")
    if sample and sample["memory_total"]:
        used, total = sample["memory_used"] or 0, sample["memory_total"]
        words.append(f"device {used / 1e9:.1f} of {total / 1e9:.1f} GB")
        share = used / total
    if words:
        yield Row("memory", ", ".join(words), share, series="memory" if ours else "")


def _board(sample: Json) -> Iterator[Row]:
    clocks = [f"{name} {clock['hertz'] / 1e6:.0f} MHz" for name, clock in sample["clocks"].items()]
    if clocks:
        yield Row("clocks", "  ".join(clocks))
    for words in (*sample["throttled"], *sample["missing"]):
        yield Row("board", words)


def _energy(energy: Json | None) -> Iterator[Row]:
    if energy is None:
        return
    joules, per_token = sum(energy["today"].values()), energy["joules_per_token"]
    each = "" if not per_token else f", {per_token:.3g} J a token"
    yield Row("energy", f"{joules / 3600:.2f} Wh today{each}")


def _restarts(device: Json) -> Row:
    died = device["last_death"]
    return Row("restarts", f"{device['restarts']}" + (f", the last one: {died}" if died else ""))


def _conversations(remembered: Sequence[Json], now: float) -> Iterator[Row]:
    if not remembered:
        return
    megabytes = sum(one["file_bytes"] for one in remembered) / 1e6
    tokens = sum(one["tokens"] for one in remembered)
    number = f"{len(remembered)} conversation{'s' if len(remembered) > 1 else ''}"
    yield Row("remembered", f"{number}, {tokens} tokens, {megabytes:.0f} MB on disk")
    for one in remembered:
        hours = (one["pinned_until"] - now) / 3600
        pinned = f"pinned {hours:.1f} h, " if hours > 0 else ""
        yield Row("", f"{one['tokens']} tokens, {pinned}{one['ends']}")
