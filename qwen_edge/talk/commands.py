"""The commands of a conversation: a table of functions. Each one gets the talk and the text behind its name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.text import Text

from qwen_edge.core import atomic_file
from qwen_edge.core.errors import UserError
from qwen_edge.core.given_file import read_bytes
from qwen_edge.talk.answer import Answer, figures
from qwen_edge.talk.conversation import Conversation
from qwen_edge.talk.options import read_schema, read_tools
from qwen_edge.talk.talk import Leave, Talk, line_of

_OFF = "off"


@dataclass(frozen=True)
class Command:
    """`usage`: the text behind the name, as /help shows it. `completes`: what Tab offers behind the name."""

    run: Callable[[Talk, str], Awaitable[None]]
    usage: str
    help: str
    completes: Literal["", "file", "think", "model"] = ""


async def _help(talk: Talk, _: str) -> None:
    width = max(len(f"{name} {one.usage}") for name, one in COMMANDS.items())
    for name, one in COMMANDS.items():
        talk.note(f"{f'{name} {one.usage}':{width}}  {one.help}")
    talk.note("Alt-Enter, or a backslash at the end of a line: another line. Ctrl-C stops an answer, twice leaves.")
    talk.note("A message that begins with a slash: write two.")


async def _think(talk: Talk, said: str) -> None:
    if said == "show":
        talk.show(Text(talk.last.reasoning.strip(), "dim") if talk.last.reasoning else None, "There was no thinking.")
    elif said in ("on", _OFF):
        talk.options = replace(talk.options, thinking=said == "on")
        talk.note(f"Thinking is {said} from the next question on.")
    elif said:
        raise UserError("/think takes on, off or show.")
    else:
        words = {True: "on", False: _OFF, None: "left to the model"}[talk.options.thinking]
        talk.note(f"Thinking is {words}. /think on, /think off; /think show shows the last one.")


async def _system(talk: Talk, said: str) -> None:
    if said:
        talk.conversation.system = "" if said == _OFF else said
        talk.note("There is no system prompt now." if said == _OFF else "The system prompt is set.")
    else:
        talk.show(Text(talk.conversation.system) if talk.conversation.system else None, "There is no system prompt.")


async def _model(talk: Talk, said: str) -> None:
    if said:
        await talk.partner.use(said)
    talk.note(talk.introduction())
    if others := await talk.partner.others():
        talk.note(f"The server also has: {', '.join(others)}")


async def _save(talk: Talk, said: str) -> None:
    file = _file(said, "/save")
    try:
        if _is_there(file) and not await talk.confirm(f"{file} exists. Write over it?"):
            talk.note("Nothing is written.")
            return
        atomic_file.replace(file, talk.conversation.dumps(), private=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name, or no name
        raise UserError(f"{file} cannot be written: {getattr(error, 'strerror', None) or error}.") from None
    talk.note(f"{_messages(talk)} are in {file}.")


async def _load(talk: Talk, said: str) -> None:
    file = _file(said, "/load")
    talk.conversation = Conversation.loads(read_bytes(file), str(file))
    talk.note(f"{_messages(talk)} from {file}; the conversation goes on there.")


async def _tools(talk: Talk, said: str) -> None:
    if said and said != _OFF:
        talk.options = replace(talk.options, tools=read_tools(_file(said, "/tools")))
    elif said:
        talk.options = replace(talk.options, tools=())
    names = ", ".join(tool["function"]["name"] for tool in talk.options.tools)
    talk.note(f"The model may call: {names}. /tools off takes them away." if names else "The model has no functions.")


async def _schema(talk: Talk, said: str) -> None:
    if said and said != _OFF:
        talk.options = replace(talk.options, schema=read_schema(_file(said, "/schema")))
    elif said:
        talk.options = replace(talk.options, schema=None)
    held = talk.options.schema is not None
    talk.note("Answers are held to the schema. /schema off: no longer." if held else "Answers are held to no schema.")


async def _stats(talk: Talk, _: str) -> None:
    rows = figures(talk.last, talk.partner.context)
    if not rows:
        talk.note("There is no answer yet.")
    for name, value in rows:
        talk.note(f"{name:12} {value}")


async def _retry(talk: Talk, _: str) -> None:
    if (question := talk.conversation.undo()) is None:
        raise UserError("There is no question yet.")
    talk.pending = line_of(question)


async def _undo(talk: Talk, _: str) -> None:
    if (question := talk.conversation.undo()) is None:
        raise UserError("There is nothing to take back.")
    talk.draft = line_of(question)
    talk.note("The last question and its answer are taken back.")


async def _clear(talk: Talk, _: str) -> None:
    talk.conversation.clear()
    talk.last = Answer()
    talk.note("A new conversation" + (", with the same system prompt." if talk.conversation.system else "."))


async def _exit(_talk: Talk, _: str) -> None:
    raise Leave


COMMANDS = {
    "/help": Command(_help, "", "this list"),
    "/think": Command(_think, "[on|off|show]", "thinking before the answer; show the last one", "think"),
    "/system": Command(_system, "[TEXT|off]", "the system prompt: show, set, remove"),
    "/model": Command(_model, "[NAME|FILE|URL]", "who answers: show, choose another", "model"),
    "/save": Command(_save, "FILE", "write the conversation to a file, as JSON messages", "file"),
    "/load": Command(_load, "FILE", "go on with the conversation in a file", "file"),
    "/tools": Command(_tools, "[FILE|off]", "functions that the model may call, whose calls are shown", "file"),
    "/schema": Command(_schema, "[FILE|off]", "a JSON schema to which answers are held", "file"),
    "/stats": Command(_stats, "", "seconds, tokens, joules of the last answer"),
    "/retry": Command(_retry, "", "ask the last question again"),
    "/undo": Command(_undo, "", "take back the last question and its answer"),
    "/clear": Command(_clear, "", "begin a new conversation"),
    "/exit": Command(_exit, "", "leave; as Ctrl-D"),
}


async def run_command(talk: Talk, line: str) -> None:
    """Run a command. Raises UserError for a name that is none, Leave to end the conversation."""
    name, _, said = line.strip().partition(" ")
    if command := COMMANDS.get(name):
        await command.run(talk, said.strip())
        return
    near = difflib.get_close_matches(name, COMMANDS, 1)
    meant = f" Did you mean {near[0]}?" if near else ""
    raise UserError(f"There is no command {name}.{meant} /help lists them; for a text with a slash, write //.")


def _file(said: str, command: str) -> Path:
    if not said:
        raise UserError(f"{command} needs the name of a file.")
    try:
        return Path(said).expanduser()
    except RuntimeError:
        raise UserError(f"{said} begins with the home folder of nobody. Write the whole path.") from None


def _is_there(file: Path) -> bool:
    """Whether the file exists. Raises UserError for what is no file: a device or a pipe would be replaced by one."""
    if os.path.lexists(file) and not file.is_file():
        raise UserError(f"{file} cannot be written: it is no ordinary file.")
    return file.exists()


def _messages(talk: Talk) -> str:
    count = len(talk.conversation.messages)
    return f"{count} message{'s' * (count != 1)}"
