"""Compiles shapes for one vocabulary, with limits, and keeps what was compiled last.

llguidance compiles without the interpreter lock, mostly in milliseconds. Its own limits bound each mask and some of the
compilation; what `schema.check` and `grammar` refuse bounds the rest. Thread-safe: the engine compiles in the thread
that tokenizes long prompts.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen_edge.protocol.messages import Shape
from qwen_edge.structured.constraint import Constraint, first_line
from qwen_edge.structured.errors import ShapeError
from qwen_edge.structured.grammar import grammar

if TYPE_CHECKING:  # 30 ms and 6 MB, which an engine without shapes need not pay
    from llguidance import LLParserLimits

_KEPT = 16  # compiled shapes
_LONGEST = 1 << 18  # characters of a shape: those of a few tools with large schemas
_POSITION = re.compile(r"^at \d+\(\d+\): (?:failed to compile JSON schema: )?")
_REHEARSED = 4  # masks that are tried out


def _limits() -> LLParserLimits:
    """What a grammar may take. llguidance does some 10,000 steps of `initial_lexer_fuel`, 14,000 of `step_lexer_fuel`,
    and 400 of `step_max_items`, in a millisecond."""
    from llguidance import LLParserLimits

    return LLParserLimits(
        initial_lexer_fuel=1_000_000,
        step_lexer_fuel=200_000,
        step_max_items=5_000,
        max_lexer_states=100_000,
        max_grammar_size=200_000,
        verbose_errors=False,
    )


class Compiler:
    """Makes constraints of shapes, for one vocabulary. Thread-safe."""

    def __init__(self, make_tokenizer: Callable[[], Any], size: int, ends: Collection[int]) -> None:
        """`make_tokenizer` makes llguidance's view of the vocabulary: half a second and 40 MB, so only when the first
        shape comes. `size`: tokens of the vocabulary. `ends`: the tokens that end the model's turn."""
        self._make_tokenizer, self._size, self._ends = make_tokenizer, size, tuple(ends)
        self._tokenizer: Any = None
        self._compiled: OrderedDict[Shape, Constraint | ShapeError] = OrderedDict()
        self._lock = threading.Lock()  # of what was compiled
        self._building = threading.Lock()  # of the tokenizer

    def known(self, shape: Shape) -> Constraint | None:
        """A constraint at its beginning, at once; None if the shape must be compiled first. Raises ShapeError."""
        with self._lock:
            if (known := self._compiled.get(shape)) is None:
                return None
            self._compiled.move_to_end(shape)
        if isinstance(known, ShapeError):
            raise ShapeError(known.what)
        return known.copy()

    def compile(self, shape: Shape) -> Constraint:
        """A constraint at its beginning; takes as long as it takes to compile the shape. Raises ShapeError."""
        if known := self.known(shape):
            return known
        try:
            compiled: Constraint | ShapeError = self._compile(shape)
        except ShapeError as error:
            compiled = error
        with self._lock:
            self._compiled[shape] = compiled
            while len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        if isinstance(compiled, ShapeError):
            raise compiled
        return compiled.copy()

    def prepare(self) -> None:
        """Make the tokenizer, for which only the first shape has to wait."""
        with self._building:
            if self._tokenizer is None:
                self._tokenizer = self._make_tokenizer()

    def _compile(self, shape: Shape) -> Constraint:
        if len(shape.text) > _LONGEST:
            raise ShapeError(f"the shape has more than {_LONGEST} characters")
        from llguidance import LLMatcher

        text = grammar(shape)
        self.prepare()
        matcher = LLMatcher(self._tokenizer, text, log_level=0, limits=_limits())
        if matcher.is_error():
            raise ShapeError(_reason(shape, matcher.get_error()))
        constraint = Constraint(matcher, self._size, self._ends)
        _rehearse(constraint.copy(), self._ends)
        return constraint


def _reason(shape: Shape, error: str) -> str:
    """Why a shape cannot be compiled. Only in a grammar in Lark is a position one in the client's own text."""
    reason = first_line(error)
    if shape.kind == "lark":
        return f"{reason} (read as Lark, because no rule has ::=)"
    return _POSITION.sub("", reason)


def _rehearse(constraint: Constraint, ends: Collection[int]) -> None:
    """Write the first tokens of some answer: some shapes turn out to be too complex, or endless, only there. Raises
    ShapeError."""
    for _ in range(_REHEARSED):
        for token in constraint.forced():
            constraint.accept(token)
        allowed = constraint.allowed()
        allowed[[*ends]] = False
        if constraint.done or not len(tokens := np.flatnonzero(allowed)):
            return
        constraint.accept(int(tokens[len(tokens) // 2]))
