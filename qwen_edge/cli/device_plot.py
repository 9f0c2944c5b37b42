"""Draws the kept history of a daemon's device: `qwen-edge status --plot HOURS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Literal

import click
import msgspec

from qwen_edge.cli.daemon_client import another_answer, ask, path_at
from qwen_edge.cli.plot_file import write_file
from qwen_edge.core.errors import UserError
from qwen_edge.core.svg import Line, Panel, draw_lines
from qwen_edge.device.history_file import Sample

STDOUT = Path("-")

_GAP = 2.5  # steps without a sample between two samples that no line joins


class History(msgspec.Struct):
    """The answer of GET /v1/device/history."""

    object: Literal["device.history"]
    every: float
    samples: list[Sample]


def plot(url: str, hours: float, file: Path) -> None:
    """Ask the daemon at `url`, draw its last `hours` to the file, and print the file's name; `-`: print the drawing.
    Raises UserError."""
    try:
        history = msgspec.convert(ask("GET", path_at(url, f"/v1/device/history?seconds={hours * 3600:.0f}")), History)
    except msgspec.ValidationError:
        raise another_answer(url) from None
    if not history.samples:
        raise UserError(f"The daemon at {url} has recorded nothing of {_last(hours)}. Try again in a minute.")
    svg = drawn(history, hours, datetime.now().astimezone().tzinfo)
    if file == STDOUT:
        click.echo(svg, nl=False)
        return
    write_file(file, svg)
    click.echo(str(file))


def _last(hours: float) -> str:
    if hours == 1:
        return "the last hour"
    return f"the last {hours:g} hours" if hours > 1 else f"the last {hours * 60:.0f} min"


def drawn(history: History, hours: float, zone: tzinfo | None) -> str:
    """The SVG, with times of the zone: heat, duty, watts and speed, one below the other. What was never measured has no
    plot. Pure."""
    samples = history.samples

    def line(name: str, value: Callable[[Sample], float | None]) -> Line:
        return Line(name, list(_with_gaps(samples, value, history.every)))

    targets = [one.target for one in samples if one.target is not None]
    panels = [
        Panel("Hottest zone, °C", [line("", lambda one: one.celsius)], targets[-1] if targets else None),
        Panel("Duty: the allowed share of computing, %", [line("", _percent)], zero=True),
        Panel("Power of the board, W", [line("", lambda one: one.watts)], zero=True),
        Panel("Tokens per second", [line("", lambda one: one.tokens_per_second)], zero=True),
    ]
    measured = [panel for panel in panels if any(y is not None for _, y in panel.lines[0].points)]
    titles = ", ".join(panel.title for panel in measured)
    about = f"{titles}; {_last(hours)}, in steps of {history.every:g} s."
    return draw_lines(f"The device in {_last(hours)}", measured, about=about, zone=zone)


def _percent(sample: Sample) -> float | None:
    return None if sample.duty is None else 100 * sample.duty


def _with_gaps(
    samples: Sequence[Sample], value: Callable[[Sample], float | None], every: float
) -> Iterator[tuple[float, float | None]]:
    """The points of a line, which is interrupted where no daemon ran."""
    last = None
    for sample in samples:
        if last is not None and sample.at - last > _GAP * every:
            yield last, None
        yield sample.at, value(sample)
        last = sample.at
