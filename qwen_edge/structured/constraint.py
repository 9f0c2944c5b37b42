"""What may follow in one answer that must keep a shape: a mask over the vocabulary, and the tokens that are forced.

Used by the engine's thread, one instance a sequence. A mask takes some 0.1 ms for 150,000 tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qwen_edge.structured.errors import ShapeError

if TYPE_CHECKING:
    from llguidance import LLMatcher

_LONGEST_FORCED = 1 << 14  # bytes that follow one token by force: more take tens of milliseconds, or have no end


class Constraint:
    """The shape of one text, and how much of the text there is. It begins before the first token."""

    def __init__(self, matcher: LLMatcher, size: int, ends: Collection[int]) -> None:
        """`size`: how many logits there are. `ends`: the tokens that end the text."""
        self._matcher, self._size, self._ends = matcher, size, frozenset(ends)
        self._bits = np.zeros(-(-size // 32), np.uint32)

    def copy(self) -> Constraint:
        """Another constraint of the same shape, as far as this one."""
        return Constraint(self._matcher.deep_copy(), self._size, self._ends)

    @property
    def complete(self) -> bool:
        """Whether the text fits the shape as it is."""
        return self._matcher.is_accepting()

    @property
    def done(self) -> bool:
        """Whether the text fits the shape, and nothing may follow."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def forced(self) -> list[int]:
        """The tokens that must follow, in the model's own tokenization; they are not yet accepted. A token that the
        model could end in another way is not among them. Raises ShapeError if they are too many."""
        if len(self._matcher.compute_ff_bytes()) > _LONGEST_FORCED:
            raise ShapeError(f"no answer of a usable length fits: more than {_LONGEST_FORCED} bytes are forced at once")
        return self._matcher.compute_ff_tokens()

    def agrees(self, tokens: Sequence[int]) -> int:
        """How many of these tokens, from the first on, may follow."""
        return self._matcher.validate_tokens(list(tokens))

    def allowed(self) -> Any:
        """The tokens that may follow, as one bool each. An end token is among them where the text is complete. Raises
        ShapeError if the shape turns out to be too complex here."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._check()
        return np.unpackbits(self._bits.view(np.uint8), count=self._size, bitorder="little").view(np.bool_)

    def accept(self, token: int) -> None:
        """The token follows. Raises ShapeError if it may not."""
        if token in self._ends and self._matcher.is_stopped():
            return
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ShapeError(first_line(self._matcher.get_error()))


def first_line(error: str) -> str:
    """Of an error of llguidance, which may be followed by the grammar."""
    lines = error.strip().splitlines() or ["the grammar cannot be used"]
    reasons = [line for line in lines[1:] if line.startswith("error: ")]
    return f"{lines[0].rstrip(':')}: {reasons[-1].removeprefix('error: ')}" if reasons else lines[0]
