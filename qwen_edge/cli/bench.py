"""`qwen-edge bench`: how servers feel, side by side."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path

import click
from rich.console import Console

from qwen_edge.bench.measure import measure
from qwen_edge.bench.plot import draw
from qwen_edge.bench.workloads import WORKLOADS

_QUICK = tuple(name for name, work in WORKLOADS.items() if not work.slow)
_SLOW = ", ".join(f'"{name}"' for name, work in WORKLOADS.items() if work.slow)


@click.command("bench")
@click.argument("urls", nargs=-1, required=True, metavar="URL...")
@click.option(
    "--work",
    type=click.Choice(list(WORKLOADS)),
    multiple=True,
    help=f"Only this; may be given again.  [default: all but {_SLOW}, which takes minutes]",
)
@click.option(
    "--repeat",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help=f"Times that each server is asked; {_SLOW} is asked once in any case.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of the prompts' words.")
@click.option("--json", "as_json", is_flag=True, help="Every run, as JSON on standard output.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the medians into an SVG file.")
def command(
    urls: tuple[str, ...], work: tuple[str, ...], repeat: int, seed: int, as_json: bool, plot: Path | None
) -> None:
    """Measure OpenAI-compatible servers, e.g. http://127.0.0.1:8080, one or several side by side.

    They are asked in turn, after a first question that does not count, and the first is compared with the others.
    """
    results = asyncio.run(measure(urls, work or _QUICK, repeat, seed, partial(click.echo, err=True)))
    if as_json:
        click.echo(json.dumps(results.as_json(), ensure_ascii=False, indent=1))
    else:
        Console().print(results.table())
    if plot:
        plot.write_text(draw(results), encoding="utf-8")
