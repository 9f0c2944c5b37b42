"""Guesses the next tokens of a sequence from its own text or earlier answers, and how many are worth computing.

Text that quotes, edits or lists repeats itself (prompt lookup, Saxena 2023,
https://github.com/apoorvumang/prompt-lookup-decoding). Answers repeat each other: commands and reports are alike, and
reasoning and tool calls begin with the same marks each time, which are guessed with the last slice of the prompt: the
first word comes behind them. A guess costs a token more in the batch and saves a whole step when it is right. Which
guesses would have been right is known soon after, computed or not, so the rate of right ones costs nothing to watch.
The sampler decides about every token as ever: what comes out is what would have come anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile

from qwen_edge.engine.cost_model import CostModel
from qwen_edge.kv.radix import common_prefix

_GRAM = 3  # tokens that must be the same as before for a guess to be made
_LONGEST = 7
_MEMORY = 0.1  # weight of the newest guess in the rate
_KEPT = 4096  # places in earlier answers: a megabyte


@dataclass(frozen=True, slots=True)
class Draft:
    """Guesses of the next tokens of a sequence, and the rate at which such guesses come true."""

    tokens: tuple[int, ...]
    rate: float


class Rate:
    """Of first guesses that come true."""

    def __init__(self) -> None:
        self.value = 0.5

    def learn(self, right: bool) -> None:
        self.value += _MEMORY * (right - self.value)


class Answers:
    """What followed the same tokens in earlier answers. What two agree on comes true more often than what was said
    once, so each has a rate of its own. Answers of one `scope` are guessed there only: how quickly an answer comes
    tells nobody what others were answered. Of an engine; used by its thread."""

    def __init__(self) -> None:
        self._agreed, self._once = Rate(), Rate()
        # the oldest first: what followed these tokens the last time, and how much of it the time before
        self._seen: dict[tuple[str | None, tuple[int, ...]], tuple[tuple[int, ...], int]] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def after(self, tokens: list[int], scope: str | None = "") -> tuple[list[int], Rate]:
        """What followed when the last of these tokens stood in an answer: so far as the last two that had them agree,
        or else in the last one; empty if there was none. And the rate of such guesses."""
        latest, same = self._seen.get((scope, tuple(tokens[-_GRAM:])), ((), 0))
        return (list(latest[:same]), self._agreed) if same else (list(latest), self._once)

    def learn(self, tokens: list[int], prompt: int, scope: str | None = "") -> None:
        """Take note of an answer, which stands in these tokens behind a prompt of so many."""
        for at in range(max(prompt, _GRAM), len(tokens)):
            latest, key = tuple(tokens[at : at + _LONGEST]), (scope, tuple(tokens[at - _GRAM : at]))
            before, _ = self._seen.pop(key, ((), 0))
            self._seen[key] = latest, common_prefix(latest, before)
        for key in list(self._seen)[: max(0, len(self._seen) - _KEPT)]:
            del self._seen[key]


class Lookup:
    """Of one sequence; used by the engine's thread. Feed it by calling `guess` with all tokens, as they grow."""

    def __init__(self, answers: Answers, prompt: int, is_mark: Callable[[int], bool], scope: str | None = "") -> None:
        """The first `prompt` tokens are not of the answer. `is_mark` tells tokens that have no text to show; earlier
        answers are those of this `scope`."""
        self._seen: dict[tuple[int, ...], int] = {}  # where what followed these tokens stands
        self._read = 0
        self._prompt = prompt
        self._answers, self._is_mark, self._scope = answers, is_mark, scope
        self._own = self._asked = Rate()  # asked is who guessed last
        self._expected: int | None = None

    @property
    def rate(self) -> float:
        """Of guesses like the last one that come true."""
        return self._asked.value

    def draft(self, tokens: list[int]) -> Draft:
        """As `guess`, with the rate."""
        return Draft(tuple(self.guess(tokens)), self.rate)

    def guess(self, tokens: list[int]) -> list[int]:
        """What followed when the last tokens stood here before, or else in other answers; empty if they never did.

        An answer begins like other answers, and not like those in its prompt: templates leave out how they began. The
        first word is not guessed: it is there without, and all the sooner."""
        self._learn(tokens)
        begun = len(tokens) > self._prompt
        if begun and (at := self._seen.get(tuple(tokens[-_GRAM:]))):
            guess, self._asked = list(tokens[at : at + _LONGEST]), self._own
        else:
            guess, self._asked = self._answers.after(tokens, self._scope)
            guess = guess if begun else list(takewhile(self._is_mark, guess))
        self._expected = guess[0] if guess else None
        return guess

    def _learn(self, tokens: list[int]) -> None:
        """Take note of the tokens that are new. The last ones are not: nothing has followed them yet."""
        if self._expected is not None and self._read < len(tokens):
            self._asked.learn(tokens[self._read] == self._expected)
        for at in range(max(self._read, _GRAM), len(tokens)):
            self._seen[tuple(tokens[at - _GRAM : at])] = at
        self._read = len(tokens)


def guesses_that_pay(guesses: int, rate: float, tokens: int, rows: int, streams: int, cost: CostModel) -> int:
    """How many of the guesses to compute in a batch that has `tokens` tokens and `rows` rows of logits without them,
    and decodes `streams` answers: as many as save the most time, 0 if none saves any. Each guess comes true at the
    rate, if those before it did, and saves the time that a token takes in a plain batch."""
    plain, each = cost.seconds(tokens, rows), cost.seconds(streams, streams) / streams
    best, most, saved, chance = 0, 0.0, 0.0, 1.0
    for count in range(1, guesses + 1):
        chance *= rate
        saved += chance * each
        gain = saved - (cost.seconds(tokens + count, rows + count) - plain)
        if gain > most:
            best, most = count, gain
    return best
