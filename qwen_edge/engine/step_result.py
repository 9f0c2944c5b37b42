"""What one step of the engine did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from qwen_edge.protocol.messages import Outbound


@dataclass(frozen=True, slots=True)
class StepResult:
    """The messages to the daemon, in order (also by iterating), and what the process around the engine must know."""

    events: tuple[Outbound, ...] = ()
    computed: int = 0  # tokens of prompts and answers, and guesses
    chosen: int = 0  # tokens of answers
    seconds: float = 0.0  # from the schedule to the last token chosen
    first_word: bool = False  # an answer has its first word in this step
    broken: bool = False  # a decode has failed: the engine must not be used any more

    def __iter__(self) -> Iterator[Outbound]:
        return iter(self.events)
