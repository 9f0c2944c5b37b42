"""`qwen-edge tune`: measures the fastest engine settings on this device and stores them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from rich.table import Table

from qwen_edge.cli.plot_file import plot_option, write_file
from qwen_edge.cli.terminal import as_json as to_json
from qwen_edge.cli.terminal import other_program, terminal
from qwen_edge.cli.tune_plot import draw
from qwen_edge.config.load import config_of
from qwen_edge.config.paths import find_model, find_place
from qwen_edge.convert.load_check import check_loads
from qwen_edge.core.printable import clean
from qwen_edge.core.progress import counted, on_console
from qwen_edge.models.tuning import described, keep
from qwen_edge.protocol.messages import Tuning
from qwen_edge.supervisor.engine_settings import load_message

if TYPE_CHECKING:
    from qwen_edge.llama.tune import Try


@click.command("tune", short_help="Measure and store the fastest engine settings.")
@click.option("-c", "--config", "file", type=click.Path(path_type=Path), help="Settings file that the daemon will use.")
@click.option("--model", help="Model to measure with.  [default: the configured one]")
@click.option(
    "--brief",
    is_flag=True,
    help="Measure attention and weights only, in seconds, as the daemon does at its first start.",
)
@click.option("--json", "as_json", is_flag=True, help="Print every measurement as JSON.")
@plot_option("Draw the speeds over the depth of context to an SVG file.")
def command(file: Path | None, model: str | None, brief: bool, as_json: bool, plot: Path | None) -> None:
    """Measure the weights for prompts, threads, flash attention and batch size on this device, at several depths of
    context, and store the best.

    The result is stored for the service if it is installed and -c names no other settings file, otherwise for a daemon
    that you run yourself. Values given in the settings file are not varied. The daemon uses the result from its next
    start on; stop the daemon while you measure.
    """
    from qwen_edge.llama.bindings import send_log_to
    from qwen_edge.llama.model import Model
    from qwen_edge.llama.resolve import resolve
    from qwen_edge.llama.site import site
    from qwen_edge.llama.tune import Effort, setting, tune

    place = find_place(file)
    place.check("tune", writing=True)
    config = config_of(place)
    path = find_model(model or config.model, place.models)
    check_loads(path)  # a damaged file crashes a worker process, not this one
    load = load_message(config.engine, path)
    effort = Effort.brief() if brief else Effort()
    tries: list[Try] = []
    console = terminal(stderr=as_json)
    click.echo(clean(f"Measuring for {place.words(path)}"), err=as_json)
    if other := other_program(place):
        click.echo(
            clean(f"{other} If its llama.cpp is another build, this measurement does not apply to it."), err=True
        )
    send_log_to(lambda _level, _text: None)
    progress = on_console(terminal(stderr=True))
    with Model(path, gpu_layers=load.gpu_layers) as weights:
        with progress.stage("measuring", 0, counted("measurements")) as stage:
            found = tune(weights, load, effort, tries.append, stage=stage)
        best = resolve(weights, msgspec.structs.replace(load, tuning=found))
    keep(path, site(load.gpu_layers), found, place.state)
    shown = {one.tuning: one for one in tries}.values()  # of each setting the last try
    if as_json:
        click.echo(to_json([msgspec.to_builtins(one) for one in tries]))
    else:
        console.print(_table(list(shown)))
    kept = Tuning(
        best.threads, best.flash_attention, best.batch, best.flash_cells, found.plain_from, best.flash_streams
    )
    console.print(f"Best: {described(kept)}.", soft_wrap=True)
    if plot:
        write_file(plot, draw(list(shown), kept, setting, path.name))


def _table(tries: list[Try]) -> Table:
    """One row a measurement; measurements are compared by the seconds of a typical request."""
    caption = (
        "Tokens per second of prompt | answer, behind as many tokens in the cache. Settings that looked better were "
        "measured again, and the second measurement is shown: it decides."
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
