"""What the next token of one answer may be, and which tokens must follow: shapes, tool calls, an end of thinking.

Where nothing is asked for, any token may follow. In each region of the text (chat/regions.py) something else counts:

- reasoning: the budget of tokens. Near its end the closing marker becomes likelier. At its end, and in a loop, a short
  sentence and the marker are forced; with a budget of 0 the marker alone, for a model that always thinks.
- answer: the shape begins here, behind the reasoning. If tools are offered as well, a call may come in its place. If a
  call is required, its opening marker is forced.
- call: the tools that may be called, with their schemas. Behind a complete call the closing marker is forced.

Used by the engine's thread, one instance a sequence. Before each token ask `forced`, until nothing is, then `allowed`;
`accept` each token, with the region of the next one.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from qwen_edge.engine.backend import Vocabulary
from qwen_edge.engine.loop_detector import LoopDetector
from qwen_edge.protocol.messages import Region, Steered, StoppedBy, Submit
from qwen_edge.protocol.sampling import NO_BIASES
from qwen_edge.structured.constraint import Constraint

_CLOSING_SENTENCE = "\n\nI have thought about this for long enough, and answer now.\n"
_NEAR = 64  # last tokens of a budget, in which the closing marker becomes likelier
_STEEP = 0.15  # what the marker's logit gains with each of them
_BEHIND_THINKING, _INSIDE_CALL = "\n\n", "\n"  # as Qwen's template writes them


class Steering:
    """Of one answer. `end` is set when the answer is complete, or when it can only be cut; `stopped_by`, if a loop
    was the reason."""

    def __init__(
        self,
        request: Submit,
        region: Region | None,
        vocabulary: Vocabulary,
        answer: Constraint | None = None,
        call: Constraint | None = None,
    ) -> None:
        """`region`: of the first token. `answer`, `call`: the constraints of `request.shape` and `request.call_shape`,
        at their beginning."""
        self._request, self._region, self._vocabulary = request, region, vocabulary
        self._answer, self._call_shape = answer, call
        self._call: Constraint | None = None  # of the open call
        self._open_call = self._encode(request.calls.open) if request.calls else []
        close = self._encode(request.reasoning.close) if request.reasoning else []
        self._close = close[0] if len(close) == 1 else None  # the closing marker, if it is one token
        self._queued = list[int]()  # tokens that must follow, before anything else counts
        self._forced_ahead = 0  # tokens that `forced` has returned and that are not yet accepted
        self._unconstrained = 0  # how many of the coming tokens belong to no constraint
        self._thought = 0  # tokens of reasoning
        self._begun = False  # the answer's shape has a token
        self._called = False  # a call was opened
        self._loops = False  # the reasoning repeats itself
        self._detector = LoopDetector()
        self._forced, self._masks, self._seconds = 0, 0, 0.0  # as in Steered
        self.end: Literal["stop", "length"] | None = None
        self.stopped_by: StoppedBy | Literal[""] = ""

    def forced(self) -> list[int]:
        """The tokens that must follow; often none. All of them come next: `accept` each."""
        began = time.perf_counter()
        tokens = [] if self.end else self._find_forced()
        self._forced_ahead += len(tokens)
        self._seconds += time.perf_counter() - began
        return tokens

    @property
    def reasoning_tokens(self) -> int:
        """How many tokens of the answer are reasoning, its closing marker included."""
        return self._thought

    @property
    def steered(self) -> Steered:
        """What was done so far."""
        return Steered(self._forced, self._masks, self._seconds)

    def allowed(self) -> Any:
        """Which tokens may follow, one bool each; None if all may. Raises ShapeError if the shape is too complex."""
        if (constraint := self._constraint) is None:
            return self._without_constraint()
        began = time.perf_counter()
        allowed = constraint.allowed()
        if self._may_call:
            allowed[self._open_call[0]] = True
        self._masks += 1
        self._seconds += time.perf_counter() - began
        return allowed

    def agrees(self, guesses: Sequence[int]) -> int:
        """How many of these tokens, from the first on, may follow, as far as is known before one is accepted."""
        if self._is_between_calls:
            return 0
        constraint = self._constraint
        return constraint.agrees(guesses) if constraint else len(guesses)

    @property
    def biases(self) -> Mapping[int, float]:
        """What is added to the logits of some tokens."""
        budget = self._request.thinking_budget
        if budget is None or self._region != "reasoning" or self._close is None:
            return NO_BIASES
        near = _NEAR - (budget - self._thought)
        return {self._close: _STEEP * near} if near > 0 else NO_BIASES

    def accept(self, token: int, region: Region | None) -> None:
        """The token follows; the next one will stand in `region`. Raises ShapeError if the token may not follow."""
        before, self._region = self._region, region
        was_forced, was_unconstrained = self._forced_ahead > 0, self._unconstrained > 0
        self._forced += was_forced
        self._forced_ahead -= was_forced
        self._unconstrained -= was_unconstrained
        self._thought += before == "reasoning"
        if before != region:
            self._detector = LoopDetector()
        elif self._request.stops_loops and self._detector.add(token):
            self._stop_loop()
        if not was_unconstrained:
            self._accept_constrained(token, before)
        if before != region:
            self._cross(before, region, by_force=was_unconstrained)

    # what counts now

    @property
    def _constraint(self) -> Constraint | None:
        if self._region == "call":
            return self._call
        return self._answer if self._region == "answer" and not self._called else None

    @property
    def _must_keep_shape(self) -> bool:
        """Whether the answer cannot be any text: then reasoning is opened and left as the template does it."""
        return self._answer is not None or self._request.requires_call

    @property
    def _may_call(self) -> bool:
        """Whether a call may come in place of the answer that has a shape."""
        return self._region == "answer" and not self._begun and bool(self._open_call)

    @property
    def _is_between_calls(self) -> bool:
        """Whether only another call may come, or the end."""
        return self._region == "answer" and self._called and self._must_keep_shape and not self._queued

    def _without_constraint(self) -> Any:
        """Between two calls, another one or the end; in the reasoning before an answer that must come, no end."""
        between = self._is_between_calls
        if not self._must_keep_shape or (self._region == "answer" and not between):
            return None
        allowed = np.full(self._vocabulary.size, not between)
        allowed[list(self._vocabulary.ends)] = between
        allowed[self._encode(_INSIDE_CALL)[0]] = True
        return allowed

    # forced tokens

    def _find_forced(self) -> list[int]:
        tokens, self._queued = self._queued or self._markers(), []
        self._unconstrained += len(tokens)
        if tokens or (constraint := self._constraint) is None or self._may_call:
            return tokens
        return constraint.forced()

    def _markers(self) -> list[int]:
        """What opens or closes a region by force."""
        reasoning, calls = self._request.reasoning, self._request.calls
        if self._region is None and self._must_keep_shape and reasoning:
            return self._encode(reasoning.open)  # the model goes on as it is used to
        if self._region == "reasoning" and reasoning and self._is_enough:
            return self._encode((_CLOSING_SENTENCE if self._thought else "\n") + reasoning.close + _BEHIND_THINKING)
        if self._region == "answer" and self._request.requires_call and calls and not self._called:
            return self._encode(calls.open + _INSIDE_CALL)
        return []

    @property
    def _is_enough(self) -> bool:
        budget = self._request.thinking_budget
        return self._loops or (budget is not None and self._thought >= budget)

    # accepted tokens

    def _accept_constrained(self, token: int, before: Region | None) -> None:
        if before == "call" and self._call:
            self._call.accept(token)
            if self._call.done and self._request.calls:
                self._queued = self._encode(self._request.calls.close)
        elif before == "answer" and self._called and self._must_keep_shape and token not in self._vocabulary.ends:
            self._queued = [*self._open_call, *self._encode(_INSIDE_CALL)]
        elif before == "answer" and self._answer and not self._called:
            self._accept_answer(self._answer, token)

    def _accept_answer(self, answer: Constraint, token: int) -> None:
        if not self._begun and self._open_call[:1] == [token] and not answer.agrees([token]):
            self._called = True
            self._queued = [*self._open_call[1:], *self._encode(_INSIDE_CALL)]
            return
        answer.accept(token)
        self._begun = True
        if answer.done:
            self.end = "stop"

    def _cross(self, before: Region | None, region: Region | None, *, by_force: bool) -> None:
        """The text has entered another region, by a marker of the model's or `by_force`."""
        if before == "reasoning" and region == "answer" and self._must_keep_shape and not by_force:
            self._queued = self._encode(_BEHIND_THINKING)
        elif region == "call":
            self._called = True
            self._call = self._call_shape.copy() if self._call_shape else None
            if self._call and not by_force and not self._queued:
                self._queued = self._encode(_INSIDE_CALL)
        elif before == "call":
            self._call = None
            if not self._request.parallel_calls:
                self.end = "stop"
        self._loops = False

    def _stop_loop(self) -> None:
        if self._region == "reasoning":
            self._loops = True
        else:
            self.end, self.stopped_by = "length" if self._constraint else "stop", "loop"

    def _encode(self, text: str) -> list[int]:
        return self._vocabulary.encode_marked(text)
