"""Why the beginning of a prompt was not in the KV cache: remembers what was computed, and compares.

A miss is told where tokens are computed that an unchanged beginning would have saved, more than a handful of them:

- evicted: they were computed before and had to go.
- template: the conversation is known; what shapes its prompt beside the messages has changed (its `layout`).
- start: the first message has changed, and what follows the change comes back: a clock, a state.
- edited: the history has changed behind the first message.
- new: nothing of the kind was known; others may have the first message in common with it.

No miss is a prompt that goes on from an earlier one, or asks something else behind a history that is known. The end of
an earlier prompt, which opens the answer, is no part of the history and does not count. Pure.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from qwen_edge.kv.radix import common_prefix
from qwen_edge.protocol.messages import MissReason, Segment

_HANDFUL = 16  # tokens: so few may be computed again without a word
_WINDOW = 16  # tokens that are no accident when they come back; what stands between two messages is shorter
_SAMPLES = 32  # places of a text that are looked at, where it does not come back
_CANDIDATES = 4  # earlier prompts that are compared in detail


@dataclass(frozen=True)
class Miss:
    """Why a prompt missed, and how many of its tokens were there."""

    reason: MissReason
    position: int


@dataclass(frozen=True)
class Prompt:
    """A prompt, or the beginning of one, and whose it is. `conversation` is the client's name for it, or empty;
    `layout` stands for all that shapes it beside the messages; `head` tokens are its first message, 0 if not known.
    Only prompts of one `scope` are compared: nobody is told what others have asked."""

    tokens: array[int]
    conversation: str
    layout: str
    head: int
    borders: tuple[int, ...]  # where messages begin, from the second on; the last one is the answer's
    messages: frozenset[int]  # a hash of each
    scope: str | None = ""

    @property
    def history(self) -> int:
        """Where the answer is to begin: what stands from there on is not shown like that in later prompts."""
        return self.borders[-1] if self.borders else len(self.tokens)

    @property
    def last(self) -> int:
        """Where the last message begins: what is asked now."""
        return self.borders[-2] if len(self.borders) > 1 else 0

    @property
    def answer(self) -> int:
        """Where the first answer begins: the first message that opens as the answer to this prompt does. Who agrees so
        far was asked the same first question."""
        opening = self.tokens[self.history : self.history + 2]
        return next((at for at in self.borders if self.tokens[at : at + 2] == opening), self.head)


def prompt_of(tokens: Sequence[int], conversation: str, layout: str, head: int, scope: str | None = "") -> Prompt:
    """Find the borders of its messages: the token that the second one begins with stands for nothing else."""
    borders, at = list[int](), head
    while 0 < at < len(tokens):
        borders.append(at)
        try:
            at = tokens.index(tokens[head], at + 1)
        except ValueError:
            break
    text = array("i", tokens)
    messages = frozenset(_hash(text[start:end]) for start, end in pairwise([0, *borders]))
    return Prompt(text, conversation, layout, head, tuple(borders), messages, scope)


def _hash(text: array[int]) -> int:
    return hash(text.tobytes())


def first_message(prompt: Sequence[Segment], tokens: Sequence[int]) -> int:
    """How many tokens the first message takes, most often the system prompt and the tools. A message begins with a
    special token, the prompt's first, and text is never read as one: where it stands again the second begins. 0 if the
    prompt is not made so."""
    if not prompt or not prompt[0].special:
        return 0
    try:
        return tokens.index(tokens[0], 1)
    except ValueError:
        return 0


class Misses:
    """The last prompts that were computed, up to `most`. Of an engine; used by its thread."""

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._known: list[Prompt] = []  # the latest last

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, prompt: Prompt) -> None:
        """All of this prompt has been computed. Of a conversation that goes on only its latest prompt is kept."""
        others = [one for one in self._known if not _goes_on_from(prompt, one)]
        self._known = [*others, prompt][-self._most :]

    def remember_ahead(self, tokens: Sequence[int], scope: str | None = "") -> None:
        """These tokens, what a prompt will begin with, have been computed. They belong to the conversation that they go
        on from."""
        text = array("i", tokens)
        best, shared = None, 0
        for one in self._of(scope):
            common = common_prefix(one.tokens, text)
            if common >= max(shared, one.history):
                best, shared = one, common
            elif common == len(text):
                return  # on its way to what was computed before
        if best and shared < len(text):
            self.remember(prompt_of(tokens, best.conversation, best.layout, best.head, scope))

    def computed(self, tokens: Sequence[int], scope: str | None = "") -> int:
        """How many of these tokens, from the beginning, a prompt that is remembered has in common with them."""
        text = array("i", tokens)
        return max((common_prefix(one.tokens, text) for one in self._of(scope)), default=0)

    def explain(self, prompt: Prompt, cached: int) -> Miss | None:
        """Why no more than `cached` of its tokens were there; None if that is what could be expected."""
        if cached >= min(prompt.history, len(prompt.tokens) - 1):
            return None
        shared = [(common_prefix(one.tokens, prompt.tokens), one) for one in reversed(self._of(prompt.scope))]
        most = max((common for common, _ in shared), default=0)
        if most - cached > _HANDFUL:
            return Miss("evicted", cached)
        best = [one for common, one in shared if common == most]
        if most > prompt.answer and any(most >= min(one.history, prompt.history) for one in best):
            return None
        alike = sorted(shared, key=lambda pair: _likeness(pair[1], prompt, pair[0]), reverse=True)
        for common, one in alike[:_CANDIDATES]:
            at = max(common, cached)
            if _departs(one, prompt, common, at):
                return Miss(_what_changed(one, prompt, at), cached)
        if any(common >= prompt.head and _surely_same(one, prompt, common) for common, one in shared):
            return None
        return Miss("new", cached)

    def _of(self, scope: str | None) -> list[Prompt]:
        return [one for one in self._known if one.scope == scope]


def _goes_on_from(prompt: Prompt, earlier: Prompt) -> bool:
    history = earlier.tokens[: earlier.history]
    same = (prompt.scope, prompt.conversation) == (earlier.scope, earlier.conversation)
    return same and prompt.tokens[: len(history)] == history


def _same_name(one: Prompt, other: Prompt) -> bool:
    return bool(one.conversation) and one.conversation == other.conversation


def _likeness(one: Prompt, other: Prompt, common: int) -> tuple[bool, int, int]:
    """How likely both are of one conversation; larger is more."""
    return _same_name(one, other), len(one.messages & other.messages), common


def _surely_same(one: Prompt, prompt: Prompt, common: int) -> bool:
    """Whether both are of one conversation: by name, or because it begins with the same question."""
    return _same_name(one, prompt) or common > prompt.answer


def _departs(earlier: Prompt, prompt: Prompt, common: int, at: int) -> bool:
    """Whether what has to be computed, from `at` on, is the earlier one, changed behind the tokens they have in common:
    other text stands there, and then what stood behind it before; or another history, in a conversation that is surely
    the same."""
    rest = _Places(earlier.tokens[common:])
    if earlier.conversation == prompt.conversation:
        if rest.returning(prompt.tokens[max(at, prompt.head) : prompt.history], _HANDFUL + 1) > _HANDFUL:
            return True
        lost = min(earlier.history, prompt.last) - at > _HANDFUL
        if at >= prompt.head and lost and _surely_same(earlier, prompt, common):
            return True
    changed = prompt.head - at
    if changed <= _HANDFUL:
        return False
    if _same_name(earlier, prompt) and earlier.layout != prompt.layout:
        return True
    # prompts that have but a phrase in common are different ones
    return rest.returning(prompt.tokens[at : prompt.head], changed) >= max(_HANDFUL + 1, changed // 2)


def _what_changed(earlier: Prompt, prompt: Prompt, at: int) -> MissReason:
    if earlier.layout != prompt.layout:
        return "template"
    if at < prompt.head and _hash(prompt.tokens[: prompt.head]) not in earlier.messages:
        return "start"
    return "edited"  # or begins later in the history than before


class _Places:
    """Where stretches of a text stand."""

    def __init__(self, text: array[int]) -> None:
        self._text = text
        starts = range(0, len(text) - _WINDOW + 1, _WINDOW)
        self._starts = {text[at : at + _WINDOW].tobytes(): at for at in starts}

    def returning(self, text: array[int], enough: int) -> int:
        """How many tokens of another text stand here, too, wherever; no more are looked for when there are `enough`.
        Where nothing comes back, not every place of a long text is looked at."""
        step = max(_WINDOW, len(text) // _SAMPLES)
        at = found = 0
        while at + _WINDOW <= len(text) and found < enough:
            for here in range(at, min(at + _WINDOW, len(text) - _WINDOW + 1)):
                there = self._starts.get(text[here : here + _WINDOW].tobytes())
                if there is not None:
                    length = common_prefix(text[here:], self._text[there:])
                    found, at = found + length, here + length
                    break
            else:
                at += step
        return found
