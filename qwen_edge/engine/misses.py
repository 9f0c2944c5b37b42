"""Why the beginning of a prompt was not in the KV cache: compares the prompt with earlier ones.

A prompt misses if more than a handful of its tokens have to be computed that an unchanged beginning would have saved:

- evicted: these tokens were computed before, and have left the cache since.
- changed: the conversation is known, and its prompt differs from the earlier one before the place where that one ended.
  A message was edited or left out, the tools are others, or there is a clock in the system prompt.
- new: no earlier prompt is of this conversation. The system prompt may well be the same.

A prompt that continues an earlier one is no miss, nor is another question behind the same history. The few tokens at
the end of a prompt that open the answer are no part of the history: later prompts do not repeat them. Pure.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from qwen_edge.kv.radix import common_prefix
from qwen_edge.protocol.messages import MissReason, Segment

_HANDFUL = 16  # tokens: recomputing no more than this is not reported; a shorter message may recur by chance
_WINDOW = 16  # tokens that do not recur by chance
_SAMPLES = 32  # places of a system prompt that are looked up in an earlier one
_CANDIDATES = 4  # earlier prompts that are compared in detail


@dataclass(frozen=True)
class Miss:
    """Why a prompt missed, and how many of its tokens were in the cache."""

    reason: MissReason
    position: int


@dataclass(frozen=True)
class Prompt:
    """A prompt, or the beginning of one. `conversation` is the client's name for it, or empty. The first message has
    `head` tokens, 0 if that is not known. Only prompts of one `scope` are compared: no client is told what others have
    asked."""

    tokens: array[int]
    conversation: str
    head: int
    borders: tuple[int, ...]  # where messages begin, from the second on; the last one is the answer's
    messages: tuple[int, ...]  # a hash of each message but the answer; 0 for a short one
    scope: str | None = ""

    @property
    def history(self) -> int:
        """Where the answer begins: later prompts need not repeat the tokens from there on."""
        return self.borders[-1] if self.borders else len(self.tokens)

    @property
    def last(self) -> int:
        """Where the last message begins, which is the question now asked."""
        return self.borders[-2] if len(self.borders) > 1 else 0

    @property
    def first_answer(self) -> int:
        """Where the first answer begins: at the first message that opens as the answer to this prompt does. Prompts
        that agree up to there ask the same first question."""
        opening = self.tokens[self.history : self.history + 2]
        return next((at for at in self.borders if self.tokens[at : at + 2] == opening), self.head)

    def messages_behind(self, position: int) -> set[int]:
        """The hashes of the long messages that end behind this token."""
        return {message for end, message in zip(self.borders, self.messages, strict=True) if message and end > position}


def prompt_of(tokens: list[int], conversation: str, head: int, scope: str | None = "") -> Prompt:
    """Find the messages of a prompt: each begins with the token that stands at `head`, and that token stands for
    nothing else."""
    borders, at = list[int](), head
    while 0 < at < len(tokens):
        borders.append(at)
        try:
            at = tokens.index(tokens[head], at + 1)
        except ValueError:
            break
    text = array("i", tokens)
    ranges = zip([0, *borders], borders, strict=False)
    messages = tuple(hash(text[start:end].tobytes()) if end - start > _HANDFUL else 0 for start, end in ranges)
    return Prompt(text, conversation, head, tuple(borders), messages, scope)


def first_message(prompt: tuple[Segment, ...], tokens: list[int]) -> int:
    """How many tokens the first message has; it is most often the system prompt with the tools. A message begins with a
    special token, which no text contains: where the prompt's first token recurs, the second message begins. 0 if the
    prompt has no such shape."""
    if not prompt or not prompt[0].special:
        return 0
    try:
        return tokens.index(tokens[0], 1)
    except ValueError:
        return 0


class Misses:
    """The last prompts that were computed, `most` at most. Of one engine; used by its thread."""

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._known: list[Prompt] = []  # the latest last

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, prompt: Prompt) -> None:
        """All of this prompt has been computed. Of one conversation only the latest prompt is kept."""
        others = [one for one in self._known if not _continues(prompt, one)]
        self._known = [*others, prompt][-self._most :]

    def remember_ahead(self, tokens: list[int], scope: str | None = "") -> None:
        """These tokens were computed before any prompt had them. They belong to the conversation that they continue."""
        text = array("i", tokens)
        best, shared = None, 0
        for one in self._of(scope):
            common = common_prefix(one.tokens, text)
            if common >= max(shared, one.history):
                best, shared = one, common
            elif common == len(text):
                return  # an earlier prompt has all of these tokens
        if best and shared < len(text):
            self.remember(prompt_of(tokens, best.conversation, best.head, scope))

    def computed(self, tokens: list[int], scope: str | None = "") -> int:
        """How many of these tokens, from the beginning, a remembered prompt has."""
        text = array("i", tokens)
        return max((common_prefix(one.tokens, text) for one in self._of(scope)), default=0)

    def explain(self, prompt: Prompt, cached: int) -> Miss | None:
        """Why only `cached` tokens of a prompt were in the cache; None if no more could be expected."""
        if cached >= min(prompt.history, len(prompt.tokens) - 1):
            return None
        shared = [(common_prefix(one.tokens, prompt.tokens), one) for one in reversed(self._of(prompt.scope))]
        most = max((common for common, _ in shared), default=0)
        if most - cached > _HANDFUL:
            return Miss("evicted", cached)
        closest = [one for common, one in shared if common == most]
        if most > prompt.first_answer and any(most >= min(one.history, prompt.history) for one in closest):
            return None
        shared.sort(key=lambda pair: _likeness(pair[1], prompt, pair[0]), reverse=True)
        if any(_was_changed(one, prompt, common, max(common, cached)) for common, one in shared[:_CANDIDATES]):
            return Miss("changed", cached)
        if any(common >= prompt.head and _same_conversation(one, prompt, common) for common, one in shared):
            return None
        return Miss("new", cached)

    def _of(self, scope: str | None) -> list[Prompt]:
        return [one for one in self._known if one.scope == scope]


def _continues(prompt: Prompt, earlier: Prompt) -> bool:
    history = earlier.tokens[: earlier.history]
    same = (prompt.scope, prompt.conversation) == (earlier.scope, earlier.conversation)
    return same and prompt.tokens[: len(history)] == history


def _same_name(one: Prompt, other: Prompt) -> bool:
    return bool(one.conversation) and one.conversation == other.conversation


def _same_conversation(earlier: Prompt, prompt: Prompt, common: int) -> bool:
    """Whether both prompts have one name, or ask the same first question."""
    return _same_name(earlier, prompt) or common > prompt.first_answer


def _likeness(earlier: Prompt, prompt: Prompt, common: int) -> tuple[bool, int, int]:
    """How likely two prompts are of one conversation: larger is likelier."""
    same = len(earlier.messages_behind(0) & prompt.messages_behind(0))
    return _same_name(earlier, prompt), same, common


def _was_changed(earlier: Prompt, prompt: Prompt, common: int, at: int) -> bool:
    """Whether a prompt is the earlier one with something changed. Both agree in `common` tokens; the prompt has to be
    computed from token `at` on."""
    if prompt.head - at > _HANDFUL:  # the first message itself differs
        known = earlier.tokens[common : max(common, earlier.head)]
        if _same_name(earlier, prompt) or _recurs(prompt.tokens[at : prompt.head], known):
            return True
    elif _same_conversation(earlier, prompt, common) and min(earlier.history, prompt.last) - at > _HANDFUL:
        return True
    # behind what differs stands a message that stood behind it in the earlier prompt, too
    recurring = earlier.messages_behind(common) & prompt.messages_behind(at)
    return earlier.conversation == prompt.conversation and bool(recurring)


def _recurs(text: array[int], earlier: array[int]) -> bool:
    """Whether half of a text, by samples, stands somewhere in an earlier text."""
    starts: Iterable[int] = range(0, len(earlier) - _WINDOW + 1, _WINDOW)
    known = {earlier[at : at + _WINDOW].tobytes() for at in starts}
    samples = range(0, len(text) - 2 * _WINDOW + 2, max(_WINDOW, len(text) // _SAMPLES))
    # windows of the earlier text begin at multiples of their length; here they may begin anywhere
    found = sum(any(text[at + i : at + i + _WINDOW].tobytes() in known for i in range(_WINDOW)) for at in samples)
    return found > 0 and 2 * found >= len(samples)
