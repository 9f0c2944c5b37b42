"""Puts the chunks of a streamed answer together, and measures it. Pure, but for the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from qwen_edge.core.errors import UserError
from qwen_edge.talk.conversation import Call

_PART = 4096  # characters
_LARGEST = 1e15  # a larger number of a server is none: no float can hold each of them


@dataclass(frozen=True)
class Piece:
    """A piece of the answer as it comes. Calls are told at the end, when they are whole."""

    kind: Literal["reasoning", "content"]
    text: str

    def parts(self) -> Iterator[Piece]:
        """The piece in parts that a terminal shows in no time."""
        for at in range(0, len(self.text), _PART):
            yield Piece(self.kind, self.text[at : at + _PART])


@dataclass(frozen=True)
class Answer:
    """A whole answer. Seconds: `first` until the first piece, None if none came; `thought` for the reasoning; `seconds`
    in all. `usage`, `timings`: as the server told them. `stopped_by`: why our daemon has ended it early, such as
    "loop"."""

    content: str = ""
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    finish_reason: str = ""
    stopped_by: str = ""
    model: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, Any] = field(default_factory=dict)
    first: float | None = None
    thought: float = 0.0
    seconds: float = 0.0


class Reply:
    """One answer in the making: `feed` it the chunks, then take `answer()`. It may be taken at any time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """The request is sent now."""
        self._clock, self._began = clock, clock()
        self._texts: dict[str, list[str]] = {"reasoning": [], "content": []}
        self._at: dict[str, float] = {}  # when the first piece of each kind came
        self._calls: dict[int, _CallInTheMaking] = {}
        self._end = _Choice()
        self._last = _Chunk()
        self._usage, self._timings = dict[str, Any](), dict[str, Any]()

    def feed(self, chunk: Mapping[str, Any]) -> Iterator[Piece]:
        """Take a chunk; returns its pieces. Raises UserError for what is no chunk of a chat completion."""
        try:
            read = msgspec.convert(chunk, _Chunk, strict=False)
        except msgspec.ValidationError as error:
            raise UserError(f"The server has sent what is no chunk of a chat completion: {error}.") from None
        self._last = read
        self._usage, self._timings = read.usage or self._usage, read.timings or self._timings
        return iter([piece for choice in read.choices or () if choice.index == 0 for piece in self._take(choice)])

    def _take(self, choice: _Choice) -> Iterator[Piece]:
        delta = choice.delta or _Delta()
        if text := delta.reasoning_content or delta.reasoning:
            yield self._piece("reasoning", text)
        if delta.content:
            yield self._piece("content", delta.content)
        for one in delta.tool_calls or ():
            self._at.setdefault("content", self._clock())  # a call ends the reasoning, too
            self._calls.setdefault(one.index, _CallInTheMaking()).add(one)
        if choice.finish_reason:
            self._end = choice

    def _piece(self, kind: Literal["reasoning", "content"], text: str) -> Piece:
        self._at.setdefault(kind, self._clock())
        self._texts[kind].append(text)
        return Piece(kind, text)

    @property
    def thought(self) -> float:
        """Seconds of reasoning so far."""
        if "reasoning" not in self._at:
            return 0.0
        return max(0.0, self._at.get("content", self._clock()) - self._at["reasoning"])

    def answer(self) -> Answer:
        """What has come so far."""
        return Answer(
            content="".join(self._texts["content"]),
            reasoning="".join(self._texts["reasoning"]),
            calls=tuple(one.call(number) for number, one in sorted(self._calls.items())),
            finish_reason=self._end.finish_reason or "",
            stopped_by=self._end.x_stopped or "",
            model=self._last.model or "",
            usage=self._usage,
            timings=self._timings,
            first=min(self._at.values()) - self._began if self._at else None,
            thought=self.thought,
            seconds=self._clock() - self._began,
        )


class _FunctionPiece(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _CallPiece(msgspec.Struct):
    index: int = 0
    id: str | None = None
    function: _FunctionPiece | None = None


class _Delta(msgspec.Struct):
    """`reasoning`: OpenRouter's and Ollama's name for `reasoning_content`."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_CallPiece] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    finish_reason: str | None = None
    x_stopped: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    model: str | None = None
    usage: dict[str, Any] | None = None
    timings: dict[str, Any] | None = None


class _CallInTheMaking:
    def __init__(self) -> None:
        self._id, self._name, self._arguments = "", "", list[str]()

    def add(self, piece: _CallPiece) -> None:
        self._id = piece.id or self._id
        if piece.function:
            self._name += piece.function.name or ""
            self._arguments.append(piece.function.arguments or "")

    def call(self, number: int) -> Call:
        return Call(self._name, "".join(self._arguments), self._id or f"call_{number}")


def ending(answer: Answer) -> str:
    """What a reader should know of how the answer ended; nothing if it is whole."""
    if answer.stopped_by:
        return f"The server has stopped the answer ({answer.stopped_by})."
    if answer.finish_reason == "length":
        return "The answer is cut: it has reached its most tokens (-n), or the end of the context."
    return "" if answer.content or answer.calls else "The answer is empty."


def figures(answer: Answer, context: int | None) -> list[tuple[str, str]]:
    """What /stats shows: names and values. `context`: its size in tokens, if the server tells it."""
    usage, timings = _Numbers(answer.usage), _Numbers(answer.timings)
    prompt, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    rows = [] if answer.first is None else [("first token", f"{answer.first:.2f} s")]
    if answer.thought:
        rows.append(("thinking", f"{answer.thought:.1f} s"))
    after = answer.seconds - (answer.first or 0.0)
    speed = timings.get("predicted_per_second") or (written / after if written and after > 0 else None)
    if written is not None:
        rows.append(("answer", f"{written:.0f} tokens" + (f", {speed:.1f} tokens/s" if speed else "")))
    if prompt is not None:
        cached = usage.get("prompt_tokens_details", "cached_tokens")
        rows.append(("prompt", f"{prompt:.0f} tokens" + ("" if cached is None else f", {cached:.0f} of them cached")))
    if (joules := usage.get("energy_joules")) is not None:
        rows.append(("energy", f"{joules:.1f} J" + (f", {joules / written:.2f} J a token" if written else "")))
    if prompt is not None and written is not None:
        used = f"{prompt + written:.0f}"
        rows.append(("context", f"{used} of {context} tokens" if context else f"{used} tokens"))
    return rows


class _Numbers:
    """The numbers in an object of a server, which may be anything."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self._found = found

    def get(self, *path: str) -> float | None:
        """The number at this path, or None."""
        value: Any = self._found
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if is_number and abs(value) < _LARGEST else None  # not so for NaN
