"""`qwen-edge bench`: measures servers side by side."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import Any

import click

from qwen_edge.bench.article_table import REPEAT as ARTICLE_REPEAT
from qwen_edge.bench.article_table import WORK as ARTICLE_WORK
from qwen_edge.bench.article_table import article_plot, article_table
from qwen_edge.bench.measure import Plan, Target, WaitTimes, measure, measure_one_by_one
from qwen_edge.bench.plot import draw
from qwen_edge.bench.report import Results
from qwen_edge.bench.workloads import WORKLOADS
from qwen_edge.cli.flags import MOST_TIMES, Number
from qwen_edge.cli.plot_file import plot_option, write_file
from qwen_edge.cli.terminal import as_json as to_json
from qwen_edge.cli.terminal import plain, terminal
from qwen_edge.cli.until_signalled import run_until_signalled
from qwen_edge.client.private_daemon import model_named
from qwen_edge.client.server import server_url
from qwen_edge.config.paths import find_place
from qwen_edge.config.schema import MOST_SECONDS
from qwen_edge.core.errors import UserError
from qwen_edge.core.progress import SHARE, Stage, on_console

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


@click.command("bench", short_help="Measure servers or models side by side.")
@click.argument("servers", nargs=-1, required=True, metavar="URL|MODEL...")
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
    help="Print the article's table: load time (of models, and with --start), first token, tokens/s, memory, and "
    "whether a context of 8K tokens is supported. Takes minutes.",
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
@plot_option("Draw the medians to an SVG file.")
def command(servers: tuple[str, ...], as_article: bool, as_json: bool, plot: Path | None, **options: Any) -> None:
    """Measure OpenAI-compatible servers, e.g. http://127.0.0.1:8080, or model files (GGUF), side by side.

    The servers are asked in turn, after a warm-up question that does not count. The first server is compared with the
    others. If a server requires an API key, set the environment variable QWEN_EDGE_API_KEY.

    For a model, a daemon with the settings of this device is started, and stopped when the model is measured. With a
    model among the arguments, one after the other is measured, so that two models never compete for memory; what cannot
    be measured is shown with the reason.
    """
    targets = _targets(servers, options["start"])
    _check([target.name for target in targets if not target.model], as_article, options)
    plan = Plan(
        options["work"] or (ARTICLE_WORK if as_article else _QUICK),
        options["repeat"] or (ARTICLE_REPEAT if as_article else _REPEAT),
        time.time_ns() if options["seed"] is None else options["seed"],
        WaitTimes(options["load_seconds"] or _LOAD_SECONDS, options["rest"]),
    )
    with on_console(terminal(stderr=True)).stage("measuring", len(targets) * plan.seconds, SHARE) as stage:
        results = run_until_signalled(_measure(targets, plan, stage, options["start"]))
    if as_json:
        click.echo(to_json(results.as_json()))
    else:
        _show(results, as_article=as_article)
    if plot:
        write_file(plot, article_plot(results) if as_article else draw(results))
    if not results.measured:
        raise UserError("Nothing could be measured.")


async def _measure(targets: list[Target], plan: Plan, stage: Stage, start: list[list[str]]) -> Results:
    if any(target.model for target in targets):
        return await measure_one_by_one(targets, plan, stage.begin, stage)
    urls = [target.name for target in targets]
    return await measure(urls, plan, stage.begin, start=start, advance=stage)


def _show(results: Results, *, as_article: bool) -> None:
    console = terminal()
    console.print(article_table(results) if as_article else results.table())
    for name, why in results.failed.items():
        console.print(plain(f"{name} was not measured to the end: {why}"), soft_wrap=True)


def _targets(arguments: tuple[str, ...], start: list[list[str]]) -> list[Target]:
    """What the arguments name; the n-th command is for the n-th URL. Raises UsageError."""
    commands, targets = iter(start), list[Target]()
    for argument in arguments:
        url = server_url(argument)
        target = Target(url, command=next(commands, ())) if url else _model(argument, arguments)
        if target.name in (one.name for one in targets):
            raise click.UsageError(f"{argument} is given twice.")
        targets.append(target)
    return targets


def _model(argument: str, arguments: tuple[str, ...]) -> Target:
    """The model, under the name of its file; under its path, if another argument has a file of this name."""
    try:
        file = model_named(argument, find_place(None).models)
    except UserError as error:
        raise click.UsageError(
            f"{argument} is neither the address of a server, such as http://127.0.0.1:8080, nor a model. {error}"
        ) from None
    shared = any(one != argument and Path(one).name == file.name for one in arguments)
    return Target(argument if shared else file.name, model=file)


def _check(urls: list[str], as_article: bool, options: dict[str, Any]) -> None:
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
