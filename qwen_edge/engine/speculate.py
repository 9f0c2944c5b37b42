"""Guesses the next tokens of a sequence from its own text or earlier answers, and how many are worth computing.

Text that quotes, edits or lists repeats itself (prompt lookup, Saxena 2023,
https://github.com/apoorvumang/prompt-lookup-decoding). Answers repeat each other: commands and reports are alike, and
reasoning and tool calls begin with the same marks each time. These marks are guessed with the last slice of the prompt,
so that the first word comes sooner. A guess costs one more token in the batch and saves a whole step when it is right.
Soon after, it is known which guesses would have been right, computed or not, so watching their rate costs nothing. The
sampler chooses every token as it would without guesses: no answer changes.
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
_MOST_PLACES = 4096  # places in earlier answers that are remembered: a megabyte


@dataclass(frozen=True, slots=True)
class Draft:
    """Guesses of the next tokens of a sequence, and the rate at which such guesses come true."""

    tokens: tuple[int, ...]
    rate: float

    def cut(self, count: int) -> Draft:
        """The first `count` guesses."""
        return self if count >= len(self.tokens) else Draft(self.tokens[:count], self.rate)


class Rate:
    """The rate at which first guesses come true."""

    def __init__(self) -> None:
        self.value = 0.5

    def learn(self, right: bool) -> None:
        self.value += _MEMORY * (right - self.value)


class Answers:
    """What followed the same tokens in earlier answers. Tokens on which two answers agree come true more often than
    tokens of one answer, so both have a rate of their own. An answer is guessed from answers of its own `scope` only:
    nobody can tell from its speed what others were answered. Of one engine; used by its thread."""

    def __init__(self) -> None:
        self._agreed, self._once = Rate(), Rate()
        # the oldest first: what followed these tokens the last time, and how much of it the time before
        self._seen: dict[tuple[str | None, tuple[int, ...]], tuple[tuple[int, ...], int]] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def after(self, tokens: list[int], scope: str | None = "") -> tuple[list[int], Rate]:
        """What followed the last of these tokens in earlier answers, and the rate of such guesses: the tokens on which
        the last two answers agree, or else those of the last answer; empty if no answer had them."""
        latest, same = self._seen.get((scope, tuple(tokens[-_GRAM:])), ((), 0))
        return (list(latest[:same]), self._agreed) if same else (list(latest), self._once)

    def learn(self, tokens: list[int], prompt: int, scope: str | None = "") -> None:
        """Remember an answer, which stands in these tokens behind the first `prompt` of them."""
        for at in range(max(prompt, _GRAM), len(tokens)):
            latest, key = tuple(tokens[at : at + _LONGEST]), (scope, tuple(tokens[at - _GRAM : at]))
            before, _ = self._seen.pop(key, ((), 0))
            self._seen[key] = latest, common_prefix(latest, before)
        for key in list(self._seen)[: max(0, len(self._seen) - _MOST_PLACES)]:
            del self._seen[key]


class Lookup:
    """Guesses for one sequence. `guess` is called with all tokens of the sequence, as they grow. Used by the engine's
    thread."""

    def __init__(self, answers: Answers, prompt: int, is_mark: Callable[[int], bool], scope: str | None = "") -> None:
        """The answer begins behind the first `prompt` tokens. `is_mark` tells the tokens that have no text to show;
        earlier answers are those of this `scope`."""
        self._seen: dict[tuple[int, ...], int] = {}  # where the token stands that followed these tokens
        self._read = 0
        self._prompt = prompt
        self._answers, self._is_mark, self._scope = answers, is_mark, scope
        self._own = self._rate_of_last = Rate()  # the latter of the last guess
        self._expected: int | None = None

    @property
    def rate(self) -> float:
        """At which guesses like the last one come true."""
        return self._rate_of_last.value

    def draft(self, tokens: list[int]) -> Draft:
        """As `guess`, with the rate."""
        return Draft(tuple(self.guess(tokens)), self.rate)

    def guess(self, tokens: list[int]) -> list[int]:
        """What followed the last tokens earlier in this sequence, or else in other answers; empty if they are new.

        An answer begins like other answers, and not like those in its prompt: templates leave out how they began. The
        first word is not guessed: a guess would only delay it."""
        self._learn(tokens)
        begun = len(tokens) > self._prompt
        if begun and (at := self._seen.get(tuple(tokens[-_GRAM:]))):
            guess, self._rate_of_last = list(tokens[at : at + _LONGEST]), self._own
        else:
            guess, self._rate_of_last = self._answers.after(tokens, self._scope)
            guess = guess if begun else list(takewhile(self._is_mark, guess))
        self._expected = guess[0] if guess else None
        return guess

    def _learn(self, tokens: list[int]) -> None:
        """Remember where tokens stand that came since the last call."""
        if self._expected is not None and self._read < len(tokens):
            self._rate_of_last.learn(tokens[self._read] == self._expected)
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
