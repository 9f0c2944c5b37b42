"""One request on its way through the engine: its tokens, how many of them are computed, its phase, and how it ends.

The first `computed` tokens of a sequence stand in the KV cache; each step of the engine computes some of the others. A
slice of a prompt, the token chosen last, and tokens that were put there and not chosen are the same work. When all
tokens are computed, the next one is chosen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from qwen_edge.core.errors import PromptTooLongError
from qwen_edge.engine.backend import Backend, Sampler, Vocabulary
from qwen_edge.engine.constraints import UnusableShape
from qwen_edge.engine.misses import Miss, Prompt, first_message, prompt_of
from qwen_edge.engine.output import Output
from qwen_edge.engine.speculate import Answers, Lookup
from qwen_edge.engine.steering import Steering
from qwen_edge.engine.tokenizing import Prepared, Tokenized
from qwen_edge.kv.radix import common_prefix
from qwen_edge.kv.restore import Restore
from qwen_edge.protocol.messages import PRIORITIES, Done, Failed, Logprob, Part, StoppedBy, Submit, Tokens
from qwen_edge.structured.errors import ShapeError

log = logging.getLogger(__name__)


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


@dataclass(eq=False)
class Sequence:
    """A request and its `tokens`: the prompt, then the answer. `prompt_computed` counts the tokens of the prompt that
    were computed for this request; `missed` says why, if they might have been in the cache.

    The phase goes from Waiting to Restoring (`enter`), Running (`restored`) and Finished (`finish`); `give_way` leads
    back to Waiting, and `finish` ends any phase. Values of a phase exist only in it: only a placed one has a
    `seq_id`, only a restoring one a `Restore`.

    Times are seconds of the engine's clock. Owned by the engine's thread."""

    request: Submit
    tokens: list[int]
    sampler: Sampler
    output: Output
    steering: Steering
    lookup: Lookup
    arrived: float
    shares_prefixes: bool = True  # whether the memory of the model lets two sequences share their first cells
    phase: Phase = field(default=Waiting(), init=False)
    computed: int = field(default=0, init=False)
    prompt_computed: int = field(default=0, init=False)
    unsaid: list[Part] = field(default_factory=list, init=False)
    unsent: list[Logprob] = field(default_factory=list, init=False)
    ended: Literal["stop", "length"] | None = field(default=None, init=False)  # and why: no token comes any more
    stopped_by: StoppedBy | Literal[""] = field(default="", init=False)
    started: float | None = field(default=None, init=False)
    rested_before: float = field(default=0.0, init=False)  # seconds that the engine had rested when this one started
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
    def from_request(cls, prepared: Prepared[Submit], backend: Backend, answers: Answers) -> Sequence | Failed:
        """The sequence of a request, or why the request cannot be answered."""
        request, arrived = prepared.message, prepared.arrived
        tokens, constraints = prepared.tokens, prepared.constraints
        if isinstance(constraints, UnusableShape):
            return Failed(request.id, constraints.code, constraints.why)
        if failed := _refusal(request.id, tokens, backend.cells.size):
            return failed
        assert isinstance(tokens, list)
        try:
            sampler = backend.sampler(request.sampling)
        except ValueError as error:
            return Failed(request.id, "bad_request", str(error))
        output = Output(request.stop, request.reasoning, request.calls, reasons=request.reasons)
        steering = Steering(request, output.region, backend.vocabulary, *constraints)
        lookup = Lookup(answers, len(tokens), backend.vocabulary.is_mark, request.caller.scope)
        shares = backend.cells.memory.shares_prefixes
        sequence = cls(request, tokens, sampler, output, steering, lookup, arrived, shares)
        sequence.steer(backend.vocabulary, backend.cells.size)
        return sequence

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
        self, row: int, guesses: tuple[int, ...], vocabulary: Vocabulary, context: int, now: float, rested: float
    ) -> tuple[int, list[Tokens]]:
        """Choose the next token from the logits at place `row` of the last batch, and add those that must follow it; go
        on for as long as all are the ones guessed, up to the end of the answer. A token that must follow is never
        chosen, guessed or not: that would use a random number. Returns how many tokens were added, and a message for
        each choice, but for the end, which `say_last` tells. `rested` as for `end_if_late`."""
        start, right, said = len(self.tokens), 0, list[Tokens]()
        while True:
            self._choose_one(row + right, vocabulary, context)
            self.steer(vocabulary, context)
            added = self.tokens[start:]
            right = common_prefix(added, list(guesses))
            if self.ended or right < len(added):
                break
            said += self.say()
        self.computed += right  # a token that was guessed is computed already
        self.end_if_late(now, rested)
        return len(added), said if self.ended else said + self.say()

    def _choose_one(self, row: int, vocabulary: Vocabulary, context: int) -> None:
        try:
            token = self.sampler.sample(row, self.steering.allowed(), self.steering.biases)
            if self.request.sampling.reports:
                self.unsent.append(self.sampler.logprob(row, token))
            self._add(token, vocabulary, context)
        except ShapeError as error:
            self._give_up_shape(error)

    def steer(self, vocabulary: Vocabulary, context: int) -> None:
        """Add the tokens that must follow, if there are any (`steering`)."""
        try:
            while not self.ended and (tokens := self.steering.forced()):
                self.force(tokens, vocabulary, context)
        except ShapeError as error:
            self._give_up_shape(error)

    def _give_up_shape(self, error: ShapeError) -> None:
        """The shape is too complex for the limits of one mask: the answer cannot go on in it."""
        log.warning("an answer is cut: its shape became too complex after %d tokens: %s", self.generated, error)
        self.ended, self.stopped_by = "length", "shape"

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
            if self.request.sampling.reports:
                self.unsent.append(self.sampler.logprob(None, token))
            self._add(token, vocabulary, context)

    def _add(self, token: int, vocabulary: Vocabulary, context: int) -> None:
        self.tokens.append(token)
        if vocabulary.is_end(token):
            self.ended = "stop"
            return
        self.spoke = self.spoke or not vocabulary.is_mark(token)
        self.unsaid += self.output.push(vocabulary.piece(token))
        self.steering.accept(token, self.output.region)
        self.stopped_by = self.steering.stopped_by
        if self.output.stopped:
            self.ended = "stop"
        elif self.steering.end:
            self.ended = self.steering.end
        elif self.generated >= self.request.max_tokens or len(self.tokens) >= context:
            self.ended = "length"

    # ends

    def end_if_late(self, now: float, rested: float) -> None:
        """End the answer if it has taken as long as it may. `rested` are the seconds that the engine has rested in
        all."""
        if self.ended or self.started is None:
            return
        took, rests = now - self.started, rested - self.rested_before
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
            reason="stop" if self.output.stopped else reason,  # the stop text may be in the text that was held back
            prompt_tokens=self.prompt_length,
            cached_tokens=max(0, min(self.computed, self.prompt_length) - self.prompt_computed),
            completion_tokens=self.generated,
            prefill_seconds=first - started,
            decode_seconds=now - first,
            missed=self.missed.reason if self.missed else "",
            missed_at=self.missed.position if self.missed else 0,
            reasoning_tokens=self.steering.reasoning_tokens,
            stopped_by=self.stopped_by,
            stop_text=self.output.stop_text,
            steered=self.steering.steered,
        )


def _refusal(request: int, tokens: Tokenized, context: int) -> Failed | None:
    """Why this prompt cannot be answered in a context of so many tokens."""
    if isinstance(tokens, PromptTooLongError):
        return Failed(request, "context_too_long", "at least", tokens=tokens.tokens)
    if isinstance(tokens, KeyError):
        return Failed(request, "bad_request", f"the model has no token {tokens}")
    if not tokens:
        return Failed(request, "bad_request", "the prompt is empty")
    return Failed(request, "context_too_long", "", tokens=len(tokens)) if len(tokens) >= context else None
