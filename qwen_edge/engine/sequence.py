"""One request on its way through the engine: its tokens, how many of them are computed, its phase, and how it ends.

The first `computed` tokens of a sequence stand in the KV cache; each step of the engine computes some of the others. A
slice of a prompt, the token chosen last, and tokens that were put there and not chosen are the same work. When all
tokens are computed, the next one is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from qwen_edge.core.errors import PromptTooLongError
from qwen_edge.engine.backend import Backend, Sampler, Vocabulary
from qwen_edge.engine.misses import Miss, Prompt, first_message, prompt_of
from qwen_edge.engine.output import Output
from qwen_edge.engine.speculate import Answers, Lookup
from qwen_edge.engine.tokenizing import Tokenized
from qwen_edge.kv.radix import common_prefix
from qwen_edge.kv.restore import Restore
from qwen_edge.protocol.messages import PRIORITIES, Done, Failed, Logprob, Part, Submit, Tokens


@dataclass(frozen=True, slots=True)
class Waiting:
    """The sequence has no place in the KV cache: it is new, or had to give way."""


@dataclass(frozen=True, slots=True)
class Placed:
    """The sequence has a place in the KV cache, under this sequence number."""

    seq_id: int


@dataclass(frozen=True, slots=True)
class Restoring(Placed):
    """Cells that copies and files hold are loaded, before anything is computed."""

    restore: Restore


@dataclass(frozen=True, slots=True)
class Running(Placed):
    """Each step may compute tokens."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer has ended, or nobody waits for it any more. The sampler is freed."""


Phase = Waiting | Restoring | Running | Finished
"""Of a sequence. A request whose prompt is being tokenized has no sequence yet (`tokenizing`)."""


class Accepted(NamedTuple):
    """What a chosen token may bring: the end of the answer, or its first word."""

    end: Literal["stop", "length"] | None = None
    first_word: bool = False


@dataclass(eq=False)
class Sequence:
    """A request and its `tokens`: the prompt, then the answer. `prompt_computed` counts the tokens of the prompt that
    were computed for this request; `missed` says why, if they might have been in the cache.

    The phase goes from Waiting to Restoring (`enter`), Running (`restored`) and Finished (`finish`); `give_way` leads
    back to Waiting, and `finish` ends any phase. What a phase has not, no sequence in it has: only a placed one has a
    `seq_id`, only a restoring one a `Restore`.

    Times are seconds of the engine's clock. Owned by the engine's thread."""

    request: Submit
    tokens: list[int]
    sampler: Sampler
    output: Output
    lookup: Lookup
    arrived: float
    shares_prefixes: bool = True  # whether the memory of the model lets two sequences share their first cells
    phase: Phase = field(default=Waiting(), init=False)
    computed: int = field(default=0, init=False)
    prompt_computed: int = field(default=0, init=False)
    unsaid: list[Part] = field(default_factory=list, init=False)
    unsent: list[Logprob] = field(default_factory=list, init=False)
    ended: Literal["stop", "length"] | None = field(default=None, init=False)  # and why: no token comes any more
    started: float | None = field(default=None, init=False)
    rested: float = field(default=0.0, init=False)  # seconds that the engine had rested in all when this one started
    first_token_at: float | None = field(default=None, init=False)
    spoke: bool = field(default=False, init=False)  # the answer has a word of text, not only marks
    missed: Miss | None = field(default=None, init=False)
    prompt: Prompt = field(init=False)
    rank: int = field(init=False)
    prompt_length: int = field(init=False)

    def __post_init__(self) -> None:
        self.rank = PRIORITIES.index(self.request.priority)
        self.prompt_length = len(self.tokens)
        head = first_message(self.request.prompt, self.tokens)
        self.prompt = prompt_of(self.tokens, self.request.conversation, head, self.scope)

    @classmethod
    def from_request(
        cls, request: Submit, tokens: Tokenized, backend: Backend, answers: Answers, arrived: float
    ) -> Sequence | Failed:
        """The sequence of a request, or why the request cannot be answered."""
        if isinstance(tokens, PromptTooLongError):
            return Failed(request.id, "context_too_long", "at least", tokens=tokens.tokens)
        if isinstance(tokens, KeyError):
            return Failed(request.id, "bad_request", f"the model has no token {tokens}")
        if not tokens:
            return Failed(request.id, "bad_request", "the prompt is empty")
        if len(tokens) >= backend.cells.size:
            return Failed(request.id, "context_too_long", "", tokens=len(tokens))
        try:
            sampler = backend.sampler(request.sampling)
        except ValueError as error:
            return Failed(request.id, "bad_request", str(error))
        output = Output(request.stop, request.reasoning, request.calls, reasons=request.reasons)
        lookup = Lookup(answers, len(tokens), backend.vocabulary.is_mark, request.caller.scope)
        return cls(request, tokens, sampler, output, lookup, arrived, backend.cells.memory.shares_prefixes)

    # phases

    def enter(self, seq_id: int, computed: int, restore: Restore) -> None:
        """The sequence has got a place, where `computed` of its tokens stand already."""
        assert isinstance(self.phase, Waiting)
        self.phase, self.computed = Restoring(seq_id, restore), computed

    def restored(self) -> None:
        """Nothing more is loaded: the other tokens are computed."""
        assert isinstance(self.phase, Restoring)
        self.phase = Running(self.phase.seq_id)

    def give_way(self) -> None:
        """The sequence has lost its place."""
        assert isinstance(self.phase, Placed)
        self._stop_restoring()
        self.phase, self.computed = Waiting(), 0

    def finish(self) -> None:
        assert not isinstance(self.phase, Finished)
        self._stop_restoring()
        self.sampler.close()
        self.phase = Finished()

    def _stop_restoring(self) -> None:
        if isinstance(self.phase, Restoring):
            self.phase.restore.drop()

    @property
    def seq_id(self) -> int:
        """Of a placed sequence: its number in the KV cache."""
        phase = self.phase
        assert isinstance(phase, Placed)
        return phase.seq_id

    # tokens

    @property
    def scope(self) -> str | None:
        """Whose prompts may be used for this one; None: everybody's."""
        return self.request.caller.scope

    def in_common(self, other: Sequence) -> int:
        """How many tokens, from the beginning, need to be computed for only one of both."""
        if not self.shares_prefixes or self.scope != other.scope:
            return 0
        return common_prefix(self.tokens, other.tokens)

    @property
    def remaining(self) -> int:
        """Tokens to compute before the next one can be chosen: between two steps never 0. The last token is always
        computed, as its logits are needed."""
        return len(self.tokens) - self.computed

    @property
    def answering(self) -> bool:
        """Whether the answer has begun: somebody may be reading it as it comes."""
        return self.first_token_at is not None

    @property
    def generated(self) -> int:
        """Tokens of the answer."""
        return len(self.tokens) - self.prompt_length

    def to_come(self, tokens: int) -> int:
        """How many of the next `tokens` tokens the answer may still have."""
        return max(0, min(tokens, self.request.max_tokens - self.generated))

    def choose(
        self, row: int, guesses: tuple[int, ...], is_end: Callable[[int], bool]
    ) -> tuple[list[int], list[Logprob]]:
        """The next token, chosen from the logits at place `row` of the last batch, and the tokens after it for as long
        as each is the one guessed; with their logprobs, if the request asks for them."""
        chosen, logprobs = list[int](), list[Logprob]()
        while True:
            token = self.sampler.sample(row + len(chosen))
            if self.request.sampling.logprobs is not None:
                logprobs.append(self.sampler.logprob(row + len(chosen), token))
            chosen.append(token)
            if is_end(token) or guesses[len(chosen) - 1 : len(chosen)] != (token,):
                return chosen, logprobs

    def accept(self, token: int, vocabulary: Vocabulary, context: int, now: float, rested: float) -> Accepted:
        """Add a chosen token to the answer, which ends there if it is as long as it may be, in tokens or seconds, or
        fills the context. `rested` as for `end_if_late`."""
        spoke = self.spoke
        self._add(token, vocabulary, context)
        self.end_if_late(now, rested)
        return Accepted(self.ended, self.spoke and not spoke)

    def force(self, tokens: Iterable[int], vocabulary: Vocabulary, context: int) -> None:
        """Add tokens to the answer that are not chosen, between two steps. The next step computes them together with
        the tokens before them, and what is chosen next follows them. They count as tokens of the answer, which may end
        with one of them, as with a chosen one: the rest is then left out. Since no other token could have come, each
        has the logprob 0. The daemon is told of them before the next step (`say`)."""
        assert not isinstance(self.phase, Finished)
        for token in tokens:
            if self.ended:
                return
            self.sampler.accept(token)
            if self.request.sampling.logprobs is not None:
                self.unsent.append(self.sampler.logprob(None, token))
            self._add(token, vocabulary, context)

    def _add(self, token: int, vocabulary: Vocabulary, context: int) -> None:
        self.tokens.append(token)
        if vocabulary.is_end(token):
            self.ended = "stop"
            return
        self.spoke = self.spoke or not vocabulary.is_mark(token)
        self.unsaid += self.output.push(vocabulary.piece(token))
        if self.output.stopped:
            self.ended = "stop"
        elif self.generated >= self.request.max_tokens or len(self.tokens) >= context:
            self.ended = "length"

    # ends

    def end_if_late(self, now: float, rested: float) -> None:
        """End the answer if it has taken as long as it may. `rested` are the seconds that the engine has rested in
        all."""
        if self.ended or self.started is None:
            return
        took, rests = now - self.started, rested - self.rested
        if took >= self.request.max_seconds or took - rests >= self.request.work_seconds:
            self.ended = "length"

    def waited_too_long(self, now: float) -> bool:
        """Of a sequence that has not started."""
        return now - self.arrived >= self.request.wait_seconds

    # messages

    def say(self) -> list[Tokens]:
        """The message with the text and the logprobs not sent yet; none if there is neither."""
        parts, logprobs, self.unsaid, self.unsent = tuple(self.unsaid), tuple(self.unsent), [], []
        return [Tokens(self.request.id, parts, logprobs)] if parts or logprobs else []

    def say_last(self) -> list[Tokens]:
        """As `say`, with the text that was held back: no token comes any more."""
        self.unsaid += self.output.finish()
        return self.say()

    def done(self, reason: Literal["stop", "length"], now: float) -> Done:
        first = self.first_token_at if self.first_token_at is not None else now
        started = self.started if self.started is not None else now
        return Done(
            id=self.request.id,
            reason=reason,
            prompt_tokens=self.prompt_length,
            cached_tokens=max(0, min(self.computed, self.prompt_length) - self.prompt_computed),
            completion_tokens=self.generated,
            prefill_seconds=first - started,
            decode_seconds=now - first,
            missed=self.missed.reason if self.missed else "",
            missed_at=self.missed.position if self.missed else 0,
        )
