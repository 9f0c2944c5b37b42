"""`qwen-edge rate`: answers of several models, rated blind by people, and the table of what they think."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import click
from msgspec.structs import asdict

from qwen_edge.cli.flags import Number
from qwen_edge.cli.plot_file import plot_option, write_file
from qwen_edge.cli.terminal import as_json as to_json
from qwen_edge.cli.terminal import terminal
from qwen_edge.cli.until_signalled import run_until_signalled
from qwen_edge.config.schema import MOST_SECONDS
from qwen_edge.core.errors import NotNowError, UserError
from qwen_edge.core.printable import clean
from qwen_edge.rate.answers import Answers, Sampling, create, has_begun, load
from qwen_edge.rate.questions import Question, our_questions, read_questions
from qwen_edge.rate.ratings import Rater, checked_name

_FILE = click.Path(path_type=Path, dir_okay=False)
_ANSWERS = click.argument("file", type=_FILE)


@click.group("rate", short_help="Let people rate answers of several models, blind.")
def command() -> None:
    """Collect answers of several models to the same questions, let people rate them without the models' names, and
    print a table of the ratings. See docs/rate.md."""


@command.command("collect", short_help="Ask models the same questions.")
@click.argument("out", type=_FILE)
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option("--questions", type=_FILE, help="A file of questions: YAML, JSON, CSV, or one a line.  [default: ours]")
@click.option("--language", "languages", metavar="TAG", multiple=True, help="Only questions in this language: zh, en.")
@click.option("--kind", "kinds", metavar="KIND", multiple=True, help="Only questions of this kind. May be repeated.")
@click.option("--id", "ids", metavar="ID", multiple=True, help="Only this question. May be repeated.")
@click.option("--temperature", type=Number(0, 2), help="Sampling temperature of all models.  [default: 0]")
@click.option("--max-tokens", type=click.IntRange(1, 1_000_000), help="Longest answer, in tokens.  [default: 512]")
@click.option("--think/--no-think", "thinking", default=None, help="Let models think that can.  [default: --no-think]")
@click.option(
    "--answer-seconds",
    type=Number(0, MOST_SECONDS, min_open=True),
    default=600.0,
    show_default=True,
    help="The longest time for one answer.",
)
def collect(out: Path, targets: tuple[str, ...], answer_seconds: float, **options: Any) -> None:
    """Ask models the same questions, and write their answers to the file OUT.

    A TARGET is the URL of an OpenAI-compatible server, or a GGUF file, for which a daemon is started; NAME=TARGET names
    the model in the results. If OUT exists, only what is missing in it is asked: after an interruption, type the same
    again; to add a model, give OUT and the new target. If a server requires an API key, set the environment variable
    QWEN_EDGE_API_KEY.
    """
    from qwen_edge.core.progress import counted, on_console
    from qwen_edge.rate.collect import Collector, parse_targets

    asked = parse_targets(targets)
    answers = _resume(out, options) if has_begun(out) else _begin(out, options)
    progress = on_console(terminal(stderr=True))
    collector = Collector(
        answers, lambda title, total: progress.stage(title, total, counted("answers")), progress.say, answer_seconds
    )
    missing = run_until_signalled(collector.collect(asked))
    click.echo(f"{clean(str(out))}: questions: {len(answers.questions)}, models: {len(answers.models)}")
    if missing:
        raise NotNowError(f"Missing answers: {missing}. Run the same command again to ask for them.")


@command.command("answer", short_help="Rate answers here in the terminal.")
@_ANSWERS
@click.option("--rater", required=True, metavar="NAME", help="Your name, as it stands in the results.")
@click.option("--again", is_flag=True, help="Go through all answers once more, from the first.")
def answer(file: Path, rater: str, again: bool) -> None:
    """Rate the answers in FILE here in the terminal, from 1 to 5, without knowing the models.

    Each rating is saved at once: leave with q or Ctrl-C, and type the same again to go on."""
    from qwen_edge.rate.blind import Session
    from qwen_edge.rate.terminal import rate

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - input() edits lines with it, Chinese ones too

    session = Session(load(file), Rater(file, checked_name(rater)))
    rate(session, input, click.echo, again=again)


@command.command("serve", short_help="Serve a page on which several people rate.")
@_ANSWERS
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="0 takes a free port.")
def serve(file: Path, host: str, port: int) -> None:
    """Serve a page on which several people rate the answers in FILE, each under a name.

    Everybody who can reach the port can rate, so the page is for this machine only unless --host says otherwise."""
    run_until_signalled(_serve(load(file), host, port))


@command.command("judge", short_help="Let a model rate the answers.")
@_ANSWERS
@click.argument("url")
@click.option("--model", metavar="NAME", help="The model to ask.  [default: the first of the server]")
def judge(file: Path, url: str, model: str | None) -> None:
    """Let the model at URL rate the answers in FILE. It is marked as a model, and its ratings stay out of the means
    unless `result --with-judges` asks for them."""
    missing = run_until_signalled(_judge(load(file), url, model))
    if missing:
        raise NotNowError(f"Missing ratings: {missing}. Run the same command again to ask for them.")


@command.command("result", short_help="Print what the raters think.")
@_ANSWERS
@click.option("--with-judges", is_flag=True, help="Count the ratings of judge models like those of people.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.option("--csv", "table", type=_FILE, help="Write all ratings to a CSV file, one a row.")
@plot_option("Draw the means and their intervals to an SVG file.")
def result(file: Path, with_judges: bool, as_json: bool, table: Path | None, plot: Path | None) -> None:
    """Print the means of the ratings in FILE: of each model with 95% intervals, of each rater, and the agreement of the
    raters."""
    from qwen_edge.rate import result as results
    from qwen_edge.rate.plot import draw

    answers = load(file)
    found = results.result(answers, with_judges=with_judges)
    if not found.raters or not any(row.rated for row in found.raters):
        raise UserError(f"Nobody has rated {file} yet: qwen-edge rate answer {file} --rater NAME")
    if table:
        write_file(table, results.as_csv(answers))
    if plot:
        write_file(plot, draw(found))
    if as_json:
        click.echo(to_json(results.as_json(found)))
        return
    console = terminal()
    for number, one in enumerate(results.tables(found)):
        if number:
            console.print()
        console.print(one)


def _begin(out: Path, options: dict[str, Any]) -> Answers:
    given = {name: options[name] for name in asdict(Sampling()) if options[name] is not None}
    return create(out, _chosen(options), Sampling(**given))


def _chosen(options: dict[str, Any]) -> list[Question]:
    """The questions that the options choose. Raises UserError."""
    questions = read_questions(options["questions"]) if options["questions"] else our_questions()
    for field, wanted in (("language", options["languages"]), ("kind", options["kinds"]), ("id", options["ids"])):
        known = list(dict.fromkeys(getattr(one, field) for one in questions))
        if unknown := [one for one in wanted if one not in known]:
            raise UserError(f"No question has the {field} {unknown[0]}. There are: {', '.join(filter(None, known))}.")
        questions = [one for one in questions if not wanted or getattr(one, field) in wanted]
    return questions


def _resume(out: Path, options: dict[str, Any]) -> Answers:
    """The file, if what the options say agrees with it. Raises UserError."""
    answers = load(out)
    for name, value in asdict(answers.header.sampling).items():
        if options[name] is not None and options[name] != value:
            raise UserError(
                f"The answers in {out} were asked for with {name} {value}. To keep models comparable, leave out the "
                "option, or write to another file."
            )
    chooses = any(options[name] for name in ("questions", "languages", "kinds", "ids"))
    if chooses and _chosen(options) != list(answers.questions):
        raise UserError(f"{out} holds answers to other questions. Leave out the options that choose questions.")
    return answers


async def _serve(answers: Answers, host: str, port: int) -> None:
    from qwen_edge.rate.serve import serving

    async with serving(answers, host, port) as urls:
        click.echo(f"The page for raters is at {' and '.join(urls)}. Ctrl-C stops it; ratings are saved at once.")
        await asyncio.Event().wait()


async def _judge(answers: Answers, url: str, model: str | None) -> int:
    from qwen_edge.client.server import server_url, servers_at
    from qwen_edge.core.progress import counted, on_console
    from qwen_edge.rate.judge import judge

    progress = on_console(terminal(stderr=True))
    async with servers_at([server_url(url) or url], model) as (server,):
        return await judge(
            answers, server, lambda title, total: progress.stage(title, total, counted("answers")), progress.say
        )
