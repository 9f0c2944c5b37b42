"""The conversation in the terminal: asks for a line, runs it or has it answered, again and again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import aclosing

from qwen_edge.client.server import RefusedError
from qwen_edge.core.errors import UserError
from qwen_edge.talk.answer import Reply, ending
from qwen_edge.talk.commands import run_command
from qwen_edge.talk.prompt import Prompt
from qwen_edge.talk.screen import Shown, call_line
from qwen_edge.talk.talk import Leave, Talk, is_command, line_of, question_of


async def converse(talk: Talk, prompt: Prompt) -> None:
    """Talk until the person leaves. What goes wrong with a question is told, and the conversation goes on."""
    talk.note(f"{talk.introduction()}. /help lists the commands; Ctrl-D leaves.")
    with contextlib.suppress(Leave):
        while True:
            line, talk.pending = talk.pending, None
            if line is None:
                draft, talk.draft = talk.draft, ""
                line = await prompt.line(draft, talk.note)
            if line.strip():
                await _do(talk, prompt, line)


async def _do(talk: Talk, prompt: Prompt, line: str) -> None:
    """One line: a command or a question. Ctrl-C stops either."""
    task = asyncio.ensure_future(run_command(talk, line) if is_command(line) else _question(talk, line))
    with _interrupts(task):
        try:
            await asyncio.wait({task})
        finally:
            if not task.done():  # the conversation is to end
                task.cancel()
                await asyncio.wait({task})
    try:
        task.result()
    except asyncio.CancelledError:
        prompt.interrupted = True
        talk.note("Stopped. Ctrl-C again leaves.")
    except UserError as error:
        talk.complain(explained(error))


async def _question(talk: Talk, line: str) -> None:
    """Ask, and show the answer. A question without an answer is taken back, and stands at the next prompt; what was
    answered when a person stops it stays."""
    talk.conversation.ask(question_of(line))
    reply = Reply()
    body = {"messages": talk.conversation.to_send(), **talk.options.body()}
    try:
        with Shown(talk.console, thinking=talk.options.thinking is not False) as shown:
            async with aclosing(talk.partner.stream(body)) as chunks:
                async for chunk in chunks:
                    for piece in reply.feed(chunk):
                        for part in piece.parts():
                            shown.put(part, reply.thought)
                            await asyncio.sleep(0)  # Ctrl-C stops a long piece, too
    except BaseException as error:
        answer = talk.last = reply.answer()
        if isinstance(error, asyncio.CancelledError) and answer.content:
            talk.conversation.answer(answer.content, answer.reasoning)  # without calls, one of which may be cut
        else:
            talk.draft = line_of(talk.conversation.undo() or "")
        raise
    answer = talk.last = reply.answer()
    talk.conversation.answer(answer.content, answer.reasoning, answer.calls)
    for call in answer.calls:
        talk.console.print(call_line(call), soft_wrap=True)
    if words := ending(answer):
        talk.note(words)


def explained(error: UserError) -> str:
    """An error for a person who talks: the server's own words, if it has refused."""
    if not isinstance(error, RefusedError):
        return str(error)
    key = " Set the environment variable QWEN_EDGE_API_KEY to the key." if error.status == 401 else ""
    return f"The server refuses: {error.words}{key}"


@contextlib.contextmanager
def _interrupts(task: asyncio.Future[None]) -> Iterator[None]:
    """Ctrl-C cancels the task, and keys that are pressed meanwhile are not shown: they are for the next prompt."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, task.cancel)
    with _no_echo():
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)


@contextlib.contextmanager
def _no_echo() -> Iterator[None]:
    try:
        before = termios.tcgetattr(sys.stdin)
    except (termios.error, ValueError, OSError):  # no terminal
        yield
        return
    silent = before.copy()
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSANOW, silent)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSANOW, before)
