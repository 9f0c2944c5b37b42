"""Guesses the next tokens of a sequence from its own text or earlier answers, and how many are worth computing.

Text that quotes, edits or lists repeats itself (prompt lookup, Saxena 2023,
https://github.com/apoorvumang/prompt-lookup-decoding). Answers repeat each other: reasoning and tool calls begin with
the same tokens each time, which have no text to show, and which are guessed with the last slice of the prompt. A guess
costs a token more in the batch and saves a whole step when it is right. Which guesses would have been right is known
soon after, computed or not, so the rate of right ones costs nothing to watch. The sampler decides about every token as
ever: what comes out is what would have come anyway.
"""

from __future__ import annotations

from collections.abc import Sequence

from qwen_edge.engine.pace import Pace
from qwen_edge.kv.radix import common_prefix

_GRAM = 3  # tokens that must be the same as before for a guess to be made
_LONGEST = 7
_FIRST = 3  # guesses beside a prompt: a batch of four is quick, and nobody waits for the eighth word to hear the first
_MEMORY = 0.1  # weight of the newest guess in the rate
_KEPT = 4096  # places in earlier answers: a megabyte


class Rate:
    """Of first guesses that come true."""

    def __init__(self) -> None:
        self.value = 0.5

    def learn(self, right: bool) -> None:
        self.value += _MEMORY * (right - self.value)


class Answers:
    """What followed the same tokens in the last two answers that had them. Of an engine; used by its thread."""

    def __init__(self) -> None:
        self.rate = Rate()
        # the oldest first: what followed these tokens the last time, and how much of it the time before
        self._seen: dict[tuple[int, ...], tuple[tuple[int, ...], int]] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def after(self, tokens: Sequence[int]) -> list[int]:
        """What followed when the last of these tokens stood in an answer; empty if that differed."""
        latest, same = self._seen.get(tuple(tokens[-_GRAM:]), ((), 0))
        return list(latest[:same])

    def learn(self, tokens: Sequence[int], prompt: int) -> None:
        """Take note of an answer, which stands in these tokens behind a prompt of so many."""
        for at in range(max(prompt, _GRAM), len(tokens)):
            latest, key = tuple(tokens[at : at + _LONGEST]), tuple(tokens[at - _GRAM : at])
            before, _ = self._seen.pop(key, ((), 0))
            self._seen[key] = latest, common_prefix(latest, before)
        for key in list(self._seen)[: max(0, len(self._seen) - _KEPT)]:
            del self._seen[key]


class Lookup:
    """Of one sequence; used by the engine's thread. Feed it by calling `guess` with all tokens, as they grow."""

    def __init__(self, answers: Answers, prompt: int) -> None:
        """The first `prompt` tokens are not of the answer."""
        self._seen: dict[tuple[int, ...], int] = {}  # where what followed these tokens stands
        self._read = 0
        self._prompt = prompt
        self._answers = answers
        self._own = self._asked = Rate()  # asked is who guessed last
        self._expected: int | None = None

    @property
    def rate(self) -> float:
        """Of guesses like the last one that come true."""
        return self._asked.value

    def guess(self, tokens: Sequence[int]) -> list[int]:
        """What followed when the last tokens stood here before, or else in other answers; empty if they never did. An
        answer begins like other answers, and not like those in its prompt: templates leave out how they began."""
        self._learn(tokens)
        at = self._seen.get(tuple(tokens[-_GRAM:])) if len(tokens) > self._prompt else None
        self._asked = self._answers.rate if at is None else self._own
        guess = self._answers.after(tokens) if at is None else list(tokens[at : at + _LONGEST])
        guess = guess if len(tokens) > self._prompt else guess[:_FIRST]
        self._expected = guess[0] if guess else None
        return guess

    def _learn(self, tokens: Sequence[int]) -> None:
        """Take note of the tokens that are new. The last ones are not: nothing has followed them yet."""
        if self._expected is not None and self._read < len(tokens):
            self._asked.learn(tokens[self._read] == self._expected)
        for at in range(max(self._read, _GRAM), len(tokens)):
            self._seen[tuple(tokens[at - _GRAM : at])] = at
        self._read = len(tokens)


def worth(guesses: int, rate: float, tokens: int, rows: int, streams: int, pace: Pace) -> int:
    """How many of the guesses to compute in a batch of so many tokens and rows of logits, beside which so many answers
    are decoded: as many as save the most time, none if none does. Each guess is right at the rate, if those before it
    were, and saves what a token takes in a plain batch."""
    plain, each = pace.seconds(tokens, rows), pace.seconds(streams, streams) / streams
    best, most, saved, chance = 0, 0.0, 0.0, 1.0
    for count in range(1, guesses + 1):
        chance *= rate
        saved += chance * each
        gain = saved - (pace.seconds(tokens + count, rows + count) - plain)
        if gain > most:
            best, most = count, gain
    return best
