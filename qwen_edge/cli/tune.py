"""`qwen-edge tune`: what is quickest on this device, measured and kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from rich.table import Table

from qwen_edge.cli.terminal import as_json as to_json
from qwen_edge.cli.terminal import other_program, terminal
from qwen_edge.config.paths import find_model, find_place
from qwen_edge.config.schema import load_config
from qwen_edge.convert.load_check import check_loads
from qwen_edge.core.printable import clean
from qwen_edge.models.tuning import keep
from qwen_edge.supervisor.engine_settings import load_message

if TYPE_CHECKING:
    from qwen_edge.llama.tune import Try


@click.command("tune", short_help="Measure what is quickest here, and keep it.")
@click.option("-c", "--config", "file", type=click.Path(path_type=Path), help="The settings the daemon will run with.")
@click.option("--model", help="The model to measure with, if not the configured one.")
@click.option(
    "--brief", is_flag=True, help="Only flash attention, in some seconds: what the daemon does at its first start."
)
@click.option("--json", "as_json", is_flag=True, help="Every try, as JSON on standard output.")
def command(file: Path | None, model: str | None, brief: bool, as_json: bool) -> None:
    """Measure threads, flash attention and batch on this device, at several depths, and keep the best.

    It is kept for the service where there is one and -c names no other settings, else for a daemon that you run
    yourself. What the settings file gives is not tried. The daemon takes the result at its next start; stop it while
    you measure.
    """
    from qwen_edge.llama.bindings import send_log_to
    from qwen_edge.llama.model import Model
    from qwen_edge.llama.resolve import resolve
    from qwen_edge.llama.site import site
    from qwen_edge.llama.tune import Effort, tune

    place = find_place(file)
    place.check("tune", writing=True)
    config = load_config(place.settings)
    path = find_model(model or config.model, place.models)
    check_loads(path)  # a damaged file ends a process of its own, not this one
    load = load_message(config.engine, path)
    effort = Effort.brief() if brief else Effort()
    tries: list[Try] = []
    console = terminal(stderr=as_json)
    click.echo(clean(f"Measuring for {place.words(path)}"), err=as_json)
    if other := other_program(place):
        click.echo(
            clean(f"{other} Its llama.cpp may be another build, for which this measurement does not count."), err=True
        )
    send_log_to(lambda _level, _text: None)
    with console.status("measuring"), Model(path, gpu_layers=load.gpu_layers) as weights:
        found = tune(weights, load, effort, tries.append)
        best = resolve(weights, msgspec.structs.replace(load, tuning=found))
    keep(path, site(load.gpu_layers), found, place.state)
    if as_json:
        click.echo(to_json([msgspec.to_builtins(one) for one in tries]))
    else:
        console.print(_table(tries))
    attention = {"off": "plain", "small": "flash, then plain"}.get(best.flash_attention, "flash")
    console.print(f"Best: {best.threads} threads, {attention} attention, batch {best.batch}.")


def _table(tries: list[Try]) -> Table:
    """One line a try; a typical request is what the tries are compared by."""
    caption = (
        "Tokens per second of a prompt | of an answer, behind so many tokens that are in the cache. What looked better "
        "was measured once more, which counts and is not shown."
    )
    table = Table(box=None, pad_edge=False, caption=caption, caption_justify="left")
    depths = [speed.depth for speed in tries[0].speeds]
    for title in ("threads", "attention", "batch", *(f"at {depth}" for depth in depths), "request, s"):
        table.add_column(title, justify="right", overflow="fold")
    for one in tries:
        speeds = [f"{speed.prompt:.0f} | {speed.answer:.1f}" for speed in one.speeds]
        attention = "flash" if one.tuning.flash_attention == "on" else "plain"
        request = f"{one.seconds:.2f}"
        table.add_row(str(one.tuning.threads), attention, str(one.tuning.batch), *speeds, request)
    return table
