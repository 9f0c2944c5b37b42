"""The line in which a person writes: several lines, history, completion (prompt_toolkit)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from qwen_edge.core import atomic_file
from qwen_edge.talk.commands import COMMANDS
from qwen_edge.talk.conversation import well_formed
from qwen_edge.talk.talk import Leave

_MOST_HISTORY, _KEPT_HISTORY = 400_000, 200_000  # bytes of the file; of it when it is cut
_LONGEST_ENTRY = 20_000  # characters


class Prompt:
    """Asks for lines. `interrupted`: whether Ctrl-C was the last thing that happened."""

    def __init__(self, history: History, models: Callable[[], Iterable[str]] = tuple) -> None:
        """`models`: the names that /model may take."""
        self.interrupted = False
        self._session = PromptSession[str](
            ">>> ",
            history=history,
            completer=CommandCompleter(models),
            key_bindings=_keys(),
            multiline=True,
            prompt_continuation="... ",
        )
        self._yes_no = PromptSession[str](history=InMemoryHistory())

    async def line(self, draft: str, note: Callable[[str], None]) -> str:
        """What the person writes; `draft` stands there already. `note` shows a line. Raises Leave for Ctrl-D, and for a
        second Ctrl-C."""
        while True:
            try:
                text = await self._session.prompt_async(default=draft, handle_sigint=False)
            except EOFError:
                raise Leave from None
            except KeyboardInterrupt:
                draft = ""
                if self.interrupted and not self._session.default_buffer.text:
                    raise Leave from None
                self.interrupted = True
                note("Ctrl-C again leaves, as Ctrl-D does.")
                continue
            self.interrupted = False
            return text

    async def confirm(self, question: str) -> bool:
        """Whether the person says yes."""
        try:
            said = await self._yes_no.prompt_async(f"{well_formed(question)} [y/N] ", handle_sigint=False)
        except (EOFError, KeyboardInterrupt):
            return False
        return said.strip().lower() in ("y", "yes", "j", "是")


def open_history(state: Path) -> History:
    """What was asked before, in a file that only this user may read, which does not grow without end; in memory if
    there can be no such file."""
    file = state / "chat_history"
    try:
        state.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        if not file.is_file():  # a pipe has no end
            return InMemoryHistory()
        if (data := file.read_bytes())[_MOST_HISTORY:]:
            _, _, kept = data[-_KEPT_HISTORY:].partition(b"\n\n# ")  # the beginning of an entry
            atomic_file.replace(file, b"\n# " + kept if kept else b"", private=True)
        file.chmod(0o600)
        with file.open("ab"):
            return _BoundedHistory(str(file))
    except OSError:
        return InMemoryHistory()


class _BoundedHistory(FileHistory):
    """Keeps what a person could have typed, and lets no full disk end a conversation."""

    def store_string(self, string: str) -> None:
        if len(string) <= _LONGEST_ENTRY:
            with contextlib.suppress(OSError):
                super().store_string(well_formed(string))


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.is_cursor_at_the_end and buffer.text.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys


class CommandCompleter(Completer):
    """Completes commands, and what some of them take."""

    def __init__(self, models: Callable[[], Iterable[str]]) -> None:
        self._models, self._paths = models, PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        name, space, said = document.text_before_cursor.partition(" ")
        if not name.startswith("/") or "\n" in said:
            return
        if not space:
            for one, command in COMMANDS.items():
                if one.startswith(name):
                    yield Completion(one, -len(name), display_meta=command.help)
            return
        kind = COMMANDS[name].completes if name in COMMANDS else ""
        if kind == "file":
            yield from self._paths.get_completions(Document(said.lstrip()), complete_event)
        elif kind:
            for one in ("on", "off", "show") if kind == "think" else self._models():
                if one.startswith(said):
                    yield Completion(one, -len(said))
