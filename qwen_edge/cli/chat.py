"""`qwen-edge chat`: a conversation in the terminal, or one question of a script."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qwen_edge.cli.daemon_client import service_address
from qwen_edge.cli.flags import Number
from qwen_edge.cli.terminal import as_json as to_json
from qwen_edge.cli.terminal import terminal
from qwen_edge.cli.until_signalled import run_until_signalled
from qwen_edge.config.paths import find_place, state_folder
from qwen_edge.core.errors import ConfigError, NotNowError, UserError
from qwen_edge.core.printable import clean, without_controls

if TYPE_CHECKING:  # heavy: not for --help
    from qwen_edge.talk.options import Options
    from qwen_edge.talk.partner import Partner

_MOST = 2**31 - 1  # tokens
_NOT_NOW = (429, 503)  # statuses of a server that may answer later


class _RefusedError(UserError):
    """The server has refused the question."""

    exit_code = 1


@dataclass(frozen=True)
class _Asked:
    """What the command line asks for. `question`: None for none."""

    model: str | None
    question: str | None
    goes_on: bool
    as_json: bool
    system: str
    settings: Path | None
    options: Options


@click.command("chat", short_help="Talk to a model in the terminal, or ask one question.")
@click.argument("model", required=False, metavar="[MODEL|URL]")
@click.option("-m", "--model", "also_model", metavar="MODEL|URL", help="The same, as llama.cpp writes it.")
@click.option(
    "-p",
    "--prompt",
    is_flag=False,
    flag_value="",
    metavar="[TEXT]",
    help="Ask this question, print the answer, and end. Text from a pipe follows TEXT, or is the question itself.",
)
@click.option("-i", "--interactive", "goes_on", is_flag=True, help="Go on talking after the answer to -p.")
@click.option("-sys", "--system", metavar="TEXT", default="", help="The system prompt.")
@click.option("-n", "--max-tokens", type=click.IntRange(-1, _MOST), help="The most tokens of an answer; -1: no limit.")
@click.option("--temp", type=Number(0, 2), help="Temperature; 0 always takes the likeliest token.")
@click.option("--top-p", type=Number(0, 1), help="Choose among the likeliest tokens of this share.")
@click.option("--top-k", type=click.IntRange(-1, _MOST), help="Choose among so many tokens; 0: all.")
@click.option("--seed", type=int, help="The same seed and question give the same answer.")
@click.option("--think/--no-think", default=None, help="With or without thinking.  [default: left to the model]")
@click.option("--tools", type=click.Path(path_type=Path), help="JSON file of functions; calls are shown, not run.")
@click.option("--schema", type=click.Path(path_type=Path), help="JSON schema to which answers are held.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: answer, reasoning, calls, usage, times.")
@click.option(
    "-c", "--config", "settings", type=click.Path(path_type=Path), help="Settings file for a daemon of its own."
)
def command(model: str | None, also_model: str | None, **options: Any) -> None:
    """Talk to a model in the terminal. /help lists the commands.

    MODEL is a model file or its name in the models folder. The daemon that runs answers if it serves this model;
    otherwise a private daemon is started on a free port, and stopped at the end. With the URL of an OpenAI-compatible
    server, that server answers. If it requires an API key, set the environment variable QWEN_EDGE_API_KEY.

    With -p, or with a question from a pipe, nothing but the answer is printed. Exit codes: 0; 1 if the server refuses
    the question; 2 for a mistake in the options; 75 if nobody answers now, or the model is not there; 78 if the model
    cannot be served; 130 if it was interrupted.
    """
    if model and also_model:
        raise click.UsageError("MODEL is given twice: leave out -m.")
    _check_settings(model or also_model, options["settings"])
    asked = _asked(model or also_model, options)
    _run(_talk(asked) if asked.goes_on else _once(asked))


def _check_settings(model: str | None, settings: Path | None) -> None:
    from qwen_edge.client.server import server_url

    if settings and model and (url := server_url(model)):
        raise click.UsageError(f"-c is for a daemon that is started, and {url} is asked. Leave out one of them.")


def _run(work: Coroutine[Any, Any, None]) -> None:
    """Run `work`; the errors of a server get their exit codes."""
    from qwen_edge.client.server import RefusedError, UnreachableError
    from qwen_edge.talk.session import explained

    try:
        run_until_signalled(work)
    except RefusedError as error:
        raise (NotNowError if error.status in _NOT_NOW else _RefusedError)(explained(error)) from None
    except UnreachableError as error:
        raise NotNowError(str(error)) from None
    except BrokenPipeError:  # whoever reads the answer has enough of it, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def _asked(model: str | None, given: dict[str, Any]) -> _Asked:
    """What is asked for. Raises click.UsageError for what cannot be meant."""
    from qwen_edge.talk.options import Options, read_schema, read_tools

    piped, prompt = not sys.stdin.isatty(), given["prompt"]
    goes_on = given["goes_on"] or (prompt is None and not piped)
    if goes_on and given["as_json"]:
        raise click.UsageError("--json is for one question: give it with -p, without --interactive.")
    if goes_on and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("a conversation needs a terminal. For one question use -p, without --interactive.")
    question = _question(prompt, piped and not goes_on)
    if not question and (prompt is not None or not goes_on):
        raise click.UsageError("there is no question: give it behind -p, or through a pipe.")
    tokens = given["max_tokens"]
    options = Options(
        temperature=given["temp"],
        top_p=given["top_p"],
        top_k=given["top_k"],
        seed=given["seed"],
        max_tokens=None if tokens == -1 else tokens,
        thinking=given["think"],
        tools=read_tools(given["tools"]) if given["tools"] else (),
        schema=read_schema(given["schema"]) if given["schema"] else None,
    )
    return _Asked(model, question, goes_on, given["as_json"], given["system"], given["settings"], options)


def _question(prompt: str | None, piped: bool) -> str | None:
    """The text of -p, and behind it that of the pipe."""
    try:
        parts = [prompt or "", sys.stdin.buffer.read().decode() if piped else ""]
    except UnicodeDecodeError:
        raise UserError("The question from the pipe is not UTF-8 text.") from None
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) or None


def _partner(asked: _Asked, stderr: bool) -> Partner:
    """Who is to answer. What is waited for is told on stderr, or in the conversation."""
    from qwen_edge.talk.partner import Partner, Place

    try:
        running = service_address()
    except ConfigError:
        running = ""
    return Partner(Place(running, asked.settings), lambda words: click.echo(clean(words), err=stderr))


async def _once(asked: _Asked) -> None:
    from qwen_edge.talk.answer import ending
    from qwen_edge.talk.conversation import Conversation
    from qwen_edge.talk.once import as_object, ask_once
    from qwen_edge.talk.screen import call_line

    conversation = Conversation()
    conversation.system = asked.system
    conversation.ask(asked.question or "")
    output = _Output()
    try:
        async with _partner(asked, stderr=True) as partner:
            await partner.use(asked.model)
            write = _nowhere if asked.as_json else output.write
            answer = await ask_once(partner, conversation, asked.options, write, terminal(stderr=True))
    finally:
        output.end()
    if asked.as_json:
        click.echo(to_json(as_object(answer)))
        return
    for call in answer.calls:
        click.echo(call_line(call).plain, err=True)
    if words := ending(answer):
        click.echo(clean(words), err=True)


async def _talk(asked: _Asked) -> None:
    from qwen_edge.talk.conversation import Conversation
    from qwen_edge.talk.prompt import Prompt, open_history
    from qwen_edge.talk.session import converse
    from qwen_edge.talk.talk import Talk, line_of

    console = terminal()
    async with _partner(asked, stderr=False) as partner:
        await partner.use(asked.model)
        prompt = Prompt(open_history(state_folder()), _models_here)
        first = line_of(asked.question) if asked.question else None
        talk = Talk(partner, console, prompt.confirm, Conversation(), asked.options, pending=first)
        talk.conversation.system = asked.system
        await converse(talk, prompt)


def _models_here() -> Iterator[str]:
    """The names of the models in the models folder."""
    try:
        yield from sorted(file.stem for file in find_place(None).models.glob("*.gguf"))
    except (OSError, ConfigError):
        return


class _Output:
    """Standard output. On a terminal all invisible characters are escaped, elsewhere those that control a terminal."""

    def __init__(self) -> None:
        self._shown = clean if sys.stdout.isatty() else without_controls
        self._line_begun = False

    def write(self, text: str) -> None:
        """Print a piece of the answer at once."""
        click.echo(self._shown(text), nl=False)
        self._line_begun = not text.endswith("\n") if text else self._line_begun

    def end(self) -> None:
        """End the last line."""
        if self._line_begun:
            self._line_begun = False
            click.echo()


def _nowhere(_: str) -> None:
    """Shows nothing: the answer is printed whole."""
