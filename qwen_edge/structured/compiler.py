"""Compiles shapes for one vocabulary, with limits, and keeps what was compiled last.

llguidance compiles without the interpreter lock, in milliseconds. Its limits bound the time and the memory of the
compilation and of each mask after it. Thread-safe: the engine compiles in the thread that tokenizes long prompts.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Any

from llguidance import LLMatcher, LLParserLimits

from qwen_edge.protocol.messages import Shape
from qwen_edge.structured.constraint import Constraint
from qwen_edge.structured.grammar import grammar
from qwen_edge.structured.schema import ShapeError

_KEPT = 16  # compiled shapes
_LONGEST_FORCED = 4096  # tokens: a grammar that forces more never ends


def _limits() -> LLParserLimits:
    """What a grammar may take. llguidance does some 50,000 steps of `initial_lexer_fuel`, and 14,000 of
    `step_lexer_fuel`, in a millisecond."""
    return LLParserLimits(
        initial_lexer_fuel=5_000_000,
        step_lexer_fuel=200_000,
        step_max_items=50_000,
        max_lexer_states=100_000,
        max_grammar_size=200_000,
        verbose_errors=False,
    )


class Compiler:
    """Makes constraints of shapes."""

    def __init__(self, make_tokenizer: Callable[[], Any], size: int, ends: Collection[int]) -> None:
        """`make_tokenizer` makes llguidance's view of the vocabulary: half a second and 55 MB, so only when the first
        shape comes. `size`: tokens of the vocabulary. `ends`: the tokens that end the model's turn."""
        self._make_tokenizer, self._size, self._ends = make_tokenizer, size, tuple(ends)
        self._tokenizer: Any = None
        self._compiled: OrderedDict[Shape, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def knows(self, shape: Shape) -> bool:
        """Whether a constraint of this shape is made at once."""
        return shape in self._compiled

    def compile(self, shape: Shape) -> Constraint:
        """A constraint at its beginning. Raises ShapeError."""
        with self._lock:
            if (matcher := self._compiled.get(shape)) is None:
                matcher = self._compiled[shape] = self._compile(shape)
                while len(self._compiled) > _KEPT:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(shape)
            return Constraint(matcher.deep_copy(), self._size, self._ends)

    def _compile(self, shape: Shape) -> LLMatcher:
        text = grammar(shape)
        if self._tokenizer is None:
            self._tokenizer = self._make_tokenizer()
        matcher = LLMatcher(self._tokenizer, text, log_level=0, limits=_limits())
        if not matcher.is_error() and len(matcher.deep_copy().compute_ff_tokens()) > _LONGEST_FORCED:
            raise ShapeError("no finite answer fits: what is forced has no end")
        if not matcher.is_error():
            matcher.deep_copy().compute_bitmask()  # some errors are found by the first mask only
        if matcher.is_error():
            raise ShapeError(_first_line(matcher.get_error()))
        return matcher


def _first_line(error: str) -> str:
    return error.strip().splitlines()[0] if error.strip() else "the grammar cannot be compiled"
