"""`qwen-edge advise`: which power mode uses the least energy, and which answers first."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import click
import msgspec
from rich.table import Table

from qwen_edge.bench.workloads import WORKLOADS
from qwen_edge.cli.daemon_client import ask_device, path_at, service_address, url_option
from qwen_edge.cli.flags import MOST_TIMES
from qwen_edge.cli.terminal import as_json as to_json
from qwen_edge.cli.terminal import plain, terminal
from qwen_edge.client.server import UnreachableError, servers_at
from qwen_edge.config.paths import find_place, state_folder
from qwen_edge.core.errors import ConfigError, NotNowError, UserError
from qwen_edge.core.printable import clean
from qwen_edge.core.progress import counted, on_console
from qwen_edge.device.host.cpu import cpu_name
from qwen_edge.device.sources.board import PowerMode
from qwen_edge.models.json_store import JsonStore

_FILE = "modes.json"
_WORK, _TOKENS = "one question", 128  # of the answer
_SETTLED = 2.5  # seconds after which all energy has been attributed
_FULL = 0.99  # share of the time: with a lower duty the mode was not used to its full speed
_ROOT = Path("/")


class Measured(msgspec.Struct, frozen=True):
    """The figures of a power mode: seconds to the first token, tokens per second, and answer tokens per joule of the
    whole board, idle power included (None where power is not measured). `at` is wall-clock time."""

    mode: str
    model: str
    first_token: float
    tokens_per_second: float
    tokens_per_joule: float | None
    at: float


@click.command("advise", short_help="Measure and compare the board's power modes.")
@url_option("Address of the daemon, which must run on this machine.")
@click.option(
    "--repeat", type=click.IntRange(1, MOST_TIMES), default=3, show_default=True, help="Number of questions to ask."
)
@click.option("--json", "as_json", is_flag=True, help="Print all measured modes as JSON.")
def command(url: str, repeat: int, as_json: bool) -> None:
    """Measure the current power mode of this board, and compare it with the modes measured before.

    The running daemon is asked questions of 200 words with answers of 128 tokens. To measure another mode, switch to it
    (sudo nvpmodel -m ID) and run this command again: it never switches the mode itself.

    The result is stored for the service if it is installed and --url names no other daemon, otherwise for a daemon that
    you run yourself. If the daemon requires an API key, set the environment variable QWEN_EDGE_API_KEY."""
    kept = JsonStore(_FILE, Measured, state_of(url))
    try:
        now = asyncio.run(_measure(url, repeat))
    except UnreachableError as error:  # the daemon has stopped meanwhile
        raise NotNowError(str(error)) from None
    key_of_now = f"{cpu_name()}; {now.model}; {now.mode}"
    kept.keep(key_of_now, now)
    modes = [
        one for key, one in (kept.read() | {key_of_now: now}).items() if key.startswith(f"{cpu_name()}; {now.model}; ")
    ]
    if as_json:
        click.echo(to_json([msgspec.to_builtins(one) for one in modes]))
        return
    terminal().print(_table(modes, now))
    for line in advice(modes, PowerMode(_ROOT).modes):
        click.echo(clean(line))
    click.echo(clean(f"The measurements are stored in {kept.file}."))


def state_of(url: str, root: Path = _ROOT) -> Path:
    """The state folder of the daemon at `url`. Raises UserError if this user may not write there."""
    place = find_place(None, root=root)
    try:
        is_service = place.service and path_at(url, "") == service_address(root)
    except ConfigError:  # the service cannot start, so this is another daemon
        is_service = False
    if not is_service:
        return state_folder()
    place.check("advise", writing=True)
    return place.state


async def _measure(url: str, repeat: int) -> Measured:
    """Raises NotNowError if there is no daemon; UserError if it refuses, or was throttled meanwhile: such figures
    do not describe the mode."""
    await asyncio.to_thread(ask_device, url)
    figures, looks = [], []
    async with servers_at([url]) as (server,):
        await server.ask("Hello", max_tokens=4)  # wakes a sleeping engine
        await asyncio.sleep(_SETTLED)
        before = await asyncio.to_thread(ask_device, url)
        began = time.monotonic()
        with on_console(terminal(stderr=True)).stage("measuring", repeat, counted("questions")) as stage:
            for number in range(repeat):
                stage.begin(f"question {number + 1} of {repeat}")
                figures.append(await WORKLOADS[_WORK].run(server, Random(time.time_ns())))  # noqa: S311 - words, not keys
                looks.append((await asyncio.to_thread(ask_device, url))["governor"])
                stage(1)
        seconds = time.monotonic() - began
        await asyncio.sleep(_SETTLED)
    after = await asyncio.to_thread(ask_device, url)
    slowed = [look["because"] or "heat" for look in looks if look["duty"] < 1 or (look["duty_asked"] or 1) < _FULL]
    if slowed:
        raise UserError(
            f"The engine was throttled meanwhile ({slowed[0]}): let the board cool, plug it in, and run this again."
        )
    tokens, joules = _TOKENS * repeat, _joules(before, after, seconds)
    return Measured(
        mode=(after["telemetry"] or {}).get("mode") or "unknown",
        model=after["model"],
        first_token=statistics.median(one["first token, s"] for one in figures),
        tokens_per_second=statistics.median(one["tokens/s"] for one in figures),
        tokens_per_joule=tokens / joules if joules > 0 else None,
        at=time.time(),
    )


def _joules(before: Mapping[str, Any], after: Mapping[str, Any], seconds: float) -> float:
    """Joules of the board during `seconds` of questions: energy for answers plus idle energy."""
    if not before["energy"] or not after["energy"]:
        return 0.0
    then, now = before["energy"]["joules"], after["energy"]["joules"]
    idle = after["energy"]["idle_watts"]
    worked = sum(now[phase] - then[phase] for phase in now if phase != "idle")
    return float(worked + (now["idle"] - then["idle"] if idle is None else idle * seconds))


def advice(modes: list[Measured], known: Mapping[int, str]) -> list[str]:
    """The best modes, and the modes not measured yet; `known`: the names of the board's modes by nvpmodel's numbers."""
    lines = []
    soonest = min(modes, key=lambda one: one.first_token)
    frugal = max(modes, key=lambda one: one.tokens_per_joule or 0.0)
    if frugal.tokens_per_joule:
        lines.append(f"The most tokens per joule: {frugal.mode} ({frugal.tokens_per_joule:.2f}).")
    else:
        lines.append("This board's power is not measured, so energy per token is unknown: see qwen-edge status.")
    lines.append(f"The shortest first token: {soonest.mode} ({1000 * soonest.first_token:.0f} ms).")
    measured = {one.mode for one in modes}
    for number, name in known.items():
        if name not in measured:
            lines.append(f"Not measured: {name}. sudo nvpmodel -m {number}, then qwen-edge advise.")
    return lines


def _table(modes: list[Measured], now: Measured) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("mode", "first token, ms", "tokens/s", "tokens/J", "measured"):
        table.add_column(title, justify="left" if title == "mode" else "right")
    for one in sorted(modes, key=lambda one: one.first_token):
        joule = "-" if one.tokens_per_joule is None else f"{one.tokens_per_joule:.2f}"
        when = "now" if one == now else time.strftime("%Y-%m-%d %H:%M", time.localtime(one.at))
        table.add_row(plain(one.mode), f"{1000 * one.first_token:.0f}", f"{one.tokens_per_second:.1f}", joule, when)
    return table
