"""`qwen-edge bench`: measures servers side by side."""

from __future__ import annotations

import asyncio
import shlex
import signal
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click

from qwen_edge.bench.article_table import REPEAT as ARTICLE_REPEAT
from qwen_edge.bench.article_table import WORK as ARTICLE_WORK
from qwen_edge.bench.article_table import article_table
from qwen_edge.bench.measure import WaitTimes, measure
from qwen_edge.bench.plot import draw
from qwen_edge.bench.workloads import WORKLOADS
from qwen_edge.cli.flags import MOST_TIMES, Number
from qwen_edge.cli.terminal import as_json as to_json
from qwen_edge.cli.terminal import terminal
from qwen_edge.config.schema import MOST_SECONDS
from qwen_edge.core.printable import clean

_T = TypeVar("_T")

_REPEAT = 3
_LOAD_SECONDS = 600.0
_QUICK = tuple(name for name, work in WORKLOADS.items() if not work.slow)
_SLOW = ", ".join(f'"{name}"' for name, work in WORKLOADS.items() if work.slow)


def _arguments(_context: click.Context, _option: click.Parameter, commands: tuple[str, ...]) -> list[list[str]]:
    try:
        split = [shlex.split(command) for command in commands]
    except ValueError as error:
        raise click.BadParameter(f"{error}; quote words as in a shell.") from None
    if not all(split):
        raise click.BadParameter("the command is empty.")
    return split


@click.command("bench", short_help="Measure OpenAI-compatible servers side by side.")
@click.argument("urls", nargs=-1, required=True, metavar="URL...")
@click.option(
    "--work",
    type=click.Choice(list(WORKLOADS)),
    multiple=True,
    help=f"Run only this workload; may be given more than once.  [default: all but {_SLOW}, which take minutes]",
)
@click.option(
    "--article",
    "as_article",
    is_flag=True,
    help="Print the article's table: load time (with --start), first token, tokens/s, memory, and whether a context of "
    "8K tokens is supported. Takes minutes.",
)
@click.option(
    "--repeat",
    type=click.IntRange(1, MOST_TIMES),
    help=f"Number of runs for each server; {_SLOW} are run once in any case.  "
    f"[default: {_REPEAT}; with --article: {ARTICLE_REPEAT}]",
)
@click.option(
    "--seed",
    type=int,
    help="Seed of the words in prompts. With a seed used before, servers may answer from their caches.",
)
@click.option(
    "--start",
    multiple=True,
    metavar="COMMAND",
    callback=_arguments,
    help="Start the server of the first URL with this command, and stop it at the end; a second --start is for the "
    "second URL, and so on. The load time, until the first token is answered, is measured once. COMMAND must stay in "
    "the foreground. It is not run by a shell: to set variables, write env NAME=VALUE COMMAND.",
)
@click.option(
    "--load-seconds",
    type=Number(0, MOST_SECONDS, min_open=True),
    help=f"Seconds that a server of --start may take to load.  [default: {_LOAD_SECONDS:g}]",
)
@click.option(
    "--rest",
    type=Number(0, MOST_SECONDS),
    default=10.0,
    show_default=True,
    help="Seconds without requests before the runs, and before memory is measured: idle servers free memory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print every run as JSON.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the medians to an SVG file.")
def command(urls: tuple[str, ...], as_article: bool, as_json: bool, plot: Path | None, **options: Any) -> None:
    """Measure one or several OpenAI-compatible servers, e.g. http://127.0.0.1:8080, side by side.

    The servers are asked in turn, after a warm-up question that does not count. The first server is compared with the
    others. If a server requires an API key, set the environment variable QWEN_EDGE_API_KEY.
    """
    _check(urls, as_article, options)
    measuring = measure(
        urls,
        options["work"] or (ARTICLE_WORK if as_article else _QUICK),
        options["repeat"] or (ARTICLE_REPEAT if as_article else _REPEAT),
        time.time_ns() if options["seed"] is None else options["seed"],
        lambda doing: click.echo(clean(doing), err=True),
        start=options["start"],
        waits=WaitTimes(options["load_seconds"] or _LOAD_SECONDS, options["rest"]),
    )
    try:
        results = asyncio.run(_until_signalled(measuring))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    if as_json:
        click.echo(to_json(results.as_json()))
    else:
        terminal().print(article_table(results) if as_article else results.table())
    if plot:
        plot.write_text(draw(results), encoding="utf-8")


def _check(urls: tuple[str, ...], as_article: bool, options: dict[str, Any]) -> None:
    start = options["start"]
    if start and len(start) != len(urls):
        raise click.UsageError(
            f"There are {len(start)} --start commands and {len(urls)} URLs: give one command for each URL, in the same "
            "order, or none."
        )
    if options["load_seconds"] and not start:
        raise click.UsageError("--load-seconds only applies to servers started with --start.")
    if as_article and options["work"]:
        raise click.UsageError("--article has its own workloads: leave out --work or --article.")


async def _until_signalled(work: Coroutine[Any, Any, _T]) -> _T:
    """Run `work`; a signal that would end this process cancels it instead, so that no started server is left behind."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # ignored under nohup
            loop.add_signal_handler(number, task.cancel)
    return await work
