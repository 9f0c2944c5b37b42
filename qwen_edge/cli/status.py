"""`qwen-edge status`: shows the state of a running daemon and its device."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path

import click
import msgspec
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from qwen_edge.cli.daemon_client import ask_device, url_option
from qwen_edge.cli.device_plot import plot
from qwen_edge.cli.flags import Number
from qwen_edge.cli.sparkline import bar
from qwen_edge.cli.terminal import LEVEL_STYLES, plain, terminal
from qwen_edge.cli.terminal import as_json as to_json
from qwen_edge.cli.watch import watch
from qwen_edge.cli.watch_rows import Json
from qwen_edge.config.schema import MOST_SECONDS
from qwen_edge.core.errors import UserError
from qwen_edge.core.printable import clean
from qwen_edge.device.history import LONGEST
from qwen_edge.device.sources.trace import record
from qwen_edge.device.telemetry import Telemetry

_BAR = 20  # characters
_MOST_HOURS, _PLOT = LONGEST / 3600, Path("device-history.svg")


@click.command("status", short_help="Show temperatures, watts, speed, energy, cache.")
@url_option("Address of the daemon.")
@click.option("--once", is_flag=True, help="Print once and exit.  [default on a terminal: refresh until Ctrl-C]")
@click.option("--watch", "watching", is_flag=True, help="Fill the terminal with a live view, until q or Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the daemon's answer once, as JSON (GET /v1/device).")
@click.option(
    "--every", type=Number(0.2, MOST_SECONDS), default=1.0, show_default=True, help="Seconds between two readings."
)
@click.option(
    "--record",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the readings to a new file, one a line, until Ctrl-C. The setting device.trace plays it.",
)
@click.option(
    "--plot",
    "hours",
    metavar="HOURS",
    type=Number(0.01, _MOST_HOURS),
    help="Draw the last hours, at most 72, as SVG, and exit.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help=f"The file for --plot; - for the standard output.  [default: {_PLOT}]",
)
def command(  # noqa: PLR0913 - one for each option
    *,
    url: str,
    once: bool,
    watching: bool,
    as_json: bool,
    every: float,
    file: Path | None,
    hours: float | None,
    out: Path | None,
) -> None:
    """Show temperatures, watts, the governor's decision, tokens per second, joules per token, and cache use.

    If the daemon requires an API key, set the environment variable QWEN_EDGE_API_KEY."""
    if out and hours is None:
        raise click.UsageError("--out is the file for --plot HOURS.")
    given = {"--watch": watching, "--json": as_json, "--record": file, "--plot": hours is not None}
    if len(ways := [name for name, value in given.items() if value]) > 1:
        raise click.UsageError(f"{' and '.join(ways)} do not go together: give one of them.")
    if hours is not None:
        plot(url, hours, out or _PLOT)
    elif as_json:
        click.echo(to_json(ask_device(url)))
    elif file:
        _record(url, every, file)
    elif watching:
        watch(url, every)
    elif once or not sys.stdout.isatty():
        terminal().print(render(ask_device(url)))
    else:
        with Live(render(ask_device(url)), console=terminal(), auto_refresh=False) as live:
            while True:
                time.sleep(every)
                live.update(render(ask_device(url)), refresh=True)


def _record(url: str, every: float, file: Path) -> None:
    """Record until Ctrl-C, into a new file: a trace cannot be continued after a reboot, which resets its clock."""
    last = -math.inf
    try:
        if file.exists() and file.stat().st_size:
            raise UserError(f"{file} exists already: name another file, or delete it.")
        with file.open("ab") as out:
            while True:
                sample = ask_device(url)["telemetry"]
                if sample is None:
                    raise UserError("There is no telemetry to record: qwen-edge status shows the reason.")
                if sample["at"] > last:
                    record([msgspec.convert(sample, Telemetry)], out)
                    last = sample["at"]
                time.sleep(every)
    except OSError as error:
        raise UserError(f"{file} cannot be written: {error.strerror}.") from None


def render(device: Json) -> RenderableType:
    """The answer of /v1/device, for a terminal."""
    governor = device["governor"]
    head = Text.assemble(
        (f"{clean(governor['level'])}  ", LEVEL_STYLES.get(governor["level"], "")),
        clean(f"{device['model']}  engine {device['engine']}  {device['pending']} pending"),
    )
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    table.add_column()
    for name, words in _rows(device):
        table.add_row(name, plain(words) if isinstance(words, str) else words)
    return Group(head, table)


def _rows(device: Json) -> list[tuple[str, RenderableType]]:
    governor, sample, energy = device["governor"], device["telemetry"], device["energy"]
    because = f" for {governor['because']}" if governor["because"] else ""
    ran = ""
    if governor["duty_ran"] is not None:
        ran = f"; the last half minute {governor['duty_ran']:.0%} of {governor['duty_asked']:.0%}"
    rows: list[tuple[str, RenderableType]] = [
        ("duty", f"{bar(governor['duty'], _BAR)} {governor['duty']:.0%}{because}{ran}")
    ]
    if governor["refused"]:
        rows.append(("refused", f"{', '.join(governor['refused'])}; in {governor['retry_after']:.0f} s again"))
    rows += _sensors(sample, governor) if sample else []
    speed = f"{device['tokens_per_second']:.1f} tokens/s, {device['sequences']} at once"
    per_token = energy and energy["joules_per_token"]
    rows.append(("answers", speed + (f", {per_token:.3g} J a token" if per_token else "")))
    if energy:
        rows.append(("energy", _energy(energy)))
    cache = device["cache"]
    if cache["prompt_tokens"]:
        share = cache["cached_tokens"] / cache["prompt_tokens"]
        rows.append(("cache", f"{share:.0%} of {cache['prompt_tokens']} tokens of prompts"))
    trouble = f" ({device['trouble']})" if device["trouble"] else ""
    age = f", {device['age']:.1f} s ago" if device["age"] is not None else ""
    return [*rows, ("source", f"{device['source']}{age}{trouble}")]


def _sensors(sample: Json, governor: Json) -> list[tuple[str, RenderableType]]:
    rows: list[tuple[str, RenderableType]] = []
    if sample["tj"] is not None:
        share = sample["tj"] / governor["pause"]
        limits = f"target {governor['target']:.0f}, pause {governor['pause']:.0f}"
        rows.append(("tj", f"{bar(share, _BAR)} {sample['tj']:.1f} °C ({limits})"))
    zones = {name: value for name, value in sample["temperatures"].items() if name != "tj"}
    if zones:
        rows.append(("zones", "  ".join(f"{name} {value:.1f}" for name, value in zones.items())))
    if sample["watts"] is not None or sample["rails"]:
        total = [] if sample["watts"] is None else [f"{sample['watts']:.1f} W"]
        rows.append(("power", "  ".join([*total, *(f"{name} {value:.1f}" for name, value in sample["rails"].items())])))
    loads = [f"{name} {sample[f'{name}_load']:.0%}" for name in ("cpu", "gpu") if sample[f"{name}_load"] is not None]
    clocks = [f"{name} {clock['hertz'] / 1e6:.0f} MHz" for name, clock in sample["clocks"].items()]
    if loads or clocks:
        rows.append(("load", "  ".join([*loads, *clocks])))
    if sample["memory_total"]:
        rows.append(("memory", f"{sample['memory_used'] / 1e9:.1f} of {sample['memory_total'] / 1e9:.1f} GB"))
    fan = [f"fan {sample['fan']:.0%}"] if sample["fan"] is not None else []
    mode = [f"mode {sample['mode']}"] if sample["mode"] else []
    battery = sample["battery"]
    level = [f"battery {battery['level']:.0%}{', in use' if battery['discharging'] else ''}"] if battery else []
    if fan or mode or level:
        rows.append(("board", "  ".join([*mode, *fan, *level])))
    rows += [("slowed", Text(clean(words), style="red")) for words in sample["throttled"]]
    rows += [("not read", Text(clean(words), style="red")) for words in sample["missing"]]
    return rows


def _energy(energy: Json) -> str:
    phases = "  ".join(f"{phase} {joules:.0f}" for phase, joules in energy["joules"].items())
    clients = "".join(f"  {client} {joules:.0f}" for client, joules in energy["clients"].items())
    today = sum(energy["today"].values())
    idle = "" if energy["idle_watts"] is None else f"{energy['idle_watts']:.1f} W idle; "
    return f"{today / 3600:.2f} Wh today; {idle}J since the start: {phases}{';' if clients else ''}{clients}"
