"""Shows an answer in the terminal while it comes: its thinking dim and folded afterwards, its code highlighted.

All text of the model is shown as text (core/printable.py). A control character is escaped by itself, so it does not
matter where the pieces of a stream divide a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.syntax import Syntax
from rich.text import Text

from qwen_edge.core.printable import clean
from qwen_edge.talk.answer import Piece
from qwen_edge.talk.conversation import Call
from qwen_edge.talk.lines import Fences, Part, WordWrap

_WINDOW = 6  # lines of the thinking that are seen while it comes
_TAIL = 4000  # characters of which those lines are made
_MOST_CODE = 20_000  # characters that get colours: what is longer is no code, and would hold up everything
_BEFORE = 24  # lines of code that give the next one its colours; all of them would cost more with each line


class Shown:
    """One answer on the screen. A context manager, which leaves the screen in order whatever happens; its `put` takes
    the pieces."""

    def __init__(self, console: Console, *, thinking: bool = True) -> None:
        """`thinking`: whether the thinking is seen while it comes."""
        self._console, self._thinking = console, thinking
        self._is_live = False
        self._thoughts, self._thought = "", 0.0
        self._spinner = Spinner("dots", style="dim")
        self._live = Live(get_renderable=self._meanwhile, console=console, transient=True, refresh_per_second=8)
        self._fences, self._wrap = Fences(), WordWrap(console.width)
        self._block = list[str]()
        self._line_begun = False

    def __enter__(self) -> Shown:
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._is_live = True
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._fold()
        for part in self._fences.end():
            self._show(part)
        self._write(self._wrap.end())
        if self._line_begun:
            self._write("\n")

    def put(self, piece: Piece, thought: float) -> None:
        """Show a piece. `thought`: the seconds of thinking so far."""
        text, self._thought = clean(piece.text), thought
        if piece.kind == "reasoning":
            self._thoughts = (self._thoughts + text)[-_TAIL:]
            return
        self._fold()
        for part in self._fences.put(text):
            self._show(part)

    def _meanwhile(self) -> RenderableType:
        """What is shown until the answer comes: the last lines of the thinking, if there is any. Called in rich's
        thread, some times a second."""
        if not self._is_live:
            return Text("")
        if not self._thoughts:
            return self._spinner
        if not self._thinking:
            return Text(f"thinking, {self._thought:.0f} s", "dim")
        lines = Text(self._thoughts.strip(), "dim").wrap(self._console, self._console.width)
        return Text("\n").join(lines[-_WINDOW:])

    def _fold(self) -> None:
        """Take away what was shown while nothing of the answer was there; of the thinking one line stays."""
        if self._is_live:
            self._is_live = False
            self._live.stop()
        if self._thoughts:
            self._console.print(Text(f"thought for {self._thought:.1f} s", "dim italic"))
            self._thoughts = ""

    def _show(self, part: Part) -> None:
        if part.kind == "prose":
            self._write(self._wrap.put(part.text))
            return
        self._write(self._wrap.end())
        if part.kind == "fence":
            self._block = []
            self._write(part.text + "\n", "dim")
        else:
            self._block = [*self._block[-_BEFORE:], part.text]
            self._console.print(_highlighted(self._block, part.language), soft_wrap=True)

    def _write(self, text: str, style: str = "") -> None:
        if text:
            self._console.print(Text(text, style), end="", soft_wrap=True)
            self._line_begun = not text.endswith("\n")


def _highlighted(block: Sequence[str], language: str) -> Text:
    """The last line of a block of code, with the colours that the lines before it give it."""
    line = Text(block[-1])
    code = "\n".join(block)
    if language and len(code) <= _MOST_CODE:
        lines = Syntax(code, language, theme="ansi_dark").highlight(code).split("\n", allow_blank=True)
        if len(block) <= len(lines) and lines[len(block) - 1].plain == line.plain:
            return lines[len(block) - 1]
    return line


def call_line(call: Call) -> Text:
    """A function that the model calls, on one line: its name and its arguments."""
    words = f"{call.name}({call.arguments})"
    return Text.assemble(("call ", "dim"), clean(words).replace("\n", "\\n").replace("\t", "\\t"))
