"""With room enough for copies, nothing that was asked for is lost: not in life, and not at a stop."""

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.protocol.messages import EVERYBODY, Caller
from tests.unit.kv.test_manager import Home

FEW = 16  # tokens that are as quickly computed as copied


class Talks(Home):
    """Requests of several owners. Parked cells have a price: those of others go while a request runs."""

    def ask(self, prompt: list[int], answer: Sequence[int] = (), caller: Caller = EVERYBODY) -> None:
        sequence, computed = self._open(prompt, caller)
        self.open[sequence] = [*prompt, *answer], computed
        assert self.compute(sequence, len(prompt) + len(answer))
        self.manager.tidy()
        self.check()
        tokens, _ = self.open.pop(sequence)
        self.manager.park(sequence, tokens, len(prompt))

    def lost(self, asked: Iterable[tuple[list[int], Caller]]) -> list[tuple[str, int, int]]:
        """Of which prompts more than a few tokens would be computed: whose they are, and how many tokens are known."""
        found = list[tuple[str, int, int]]()
        for prompt, caller in asked:
            sequence, known = self._open([*prompt, -1], caller)
            self.manager.close(sequence)
            if known <= len(prompt) - FEW:
                found.append((caller.owner, known, len(prompt)))
        return found

    def _open(self, tokens: list[int], caller: Caller) -> tuple[int, int]:
        opened = self.manager.open(tokens, caller)
        assert opened
        return opened[0], self.restore(opened[0], tokens)


@contextmanager
def home(folder: Path, **options) -> Iterator[Talks]:
    disk = DiskTier(folder, "fake", limit=1 << 24, per_day=1 << 30, cell=4)
    try:
        yield Talks(**{"size": 4000, "sequences": 4, "spare": 0, "host_tier_cells": 100_000, **options}, disk=disk)
    finally:
        disk.close()


@pytest.mark.parametrize("common", [1, 2, 3, 15, 16, 17, 255, 256, 257])
@pytest.mark.parametrize("spare", [0, 40])
def test_conversations_outlive_what_they_have_in_common_with_another(tmp_path, caplog, common, spare):
    """As `<|im_start|>user` is what one without a system prompt has in common with others like it."""
    beginning = list(range(common))
    prompts = [[*beginning, *[1001] * 60], [*beginning, *[1002] * 60], [1003] * 60]
    asked = [(prompt, EVERYBODY) for prompt in prompts]
    with home(tmp_path, spare=spare) as one:
        for prompt in prompts:
            one.ask(prompt)
        assert one.lost(asked) == []
        one.manager.leave(10, lambda: 0.0)
        assert "not written down" not in caplog.text
    with home(tmp_path) as other:
        assert other.lost(asked) == []


def test_a_prompt_that_goes_on_from_a_part_of_an_answer_outlives_the_answer(tmp_path):
    asked = [[1] * 60, [*[1] * 60, *[2] * 30, *[3] * 60], [4] * 60]
    with home(tmp_path) as one:
        for _ in range(2):  # the answer is worth more than what parts from it
            one.ask(asked[0], answer=[2] * 60)
        one.ask(asked[1])
        one.ask(asked[2])
        assert one.lost((prompt, EVERYBODY) for prompt in asked) == []


def test_a_prompt_outlives_a_shorter_one_whose_answer_holds_it(tmp_path):
    asked = [[1] * 100, [1] * 50, [2] * 60]
    with home(tmp_path) as one:
        one.ask(asked[0])
        one.ask(asked[1], answer=[1] * 70)
        one.ask(asked[2])
        assert one.lost((prompt, EVERYBODY) for prompt in asked) == []


def test_a_prompt_that_parts_from_another_in_its_last_tokens_outlives_them(tmp_path):
    """What asks for an answer, as `<think>` does, makes way for the next turn, which is computed ahead."""
    asked = [[*[1] * 60, 7], [*[1] * 60, 7, *[3] * 60], [4] * 60]
    with home(tmp_path) as one:
        for _ in range(2):
            one.ask([*asked[0], 8], answer=[2] * 60)
        one.ask(asked[1])
        one.ask([*asked[0], 8], answer=[2] * 60)
        one.manager.drop_outdated([*[1] * 60, *[9] * 30])
        one.ask(asked[2])
        assert one.lost((prompt, EVERYBODY) for prompt in asked) == []


def test_a_short_prompt_that_soon_parts_from_others_is_written_at_a_stop(tmp_path):
    asked = [([1, 2, 3, *[number] * 15], EVERYBODY) for number in range(4, 8)]
    with home(tmp_path, spare=1000) as one:
        for prompt, _ in asked:
            one.ask(prompt)
        one.manager.leave(10, lambda: 0.0)
    with home(tmp_path) as other:
        assert other.lost(asked) == []


# a few tokens, so that conversations have beginnings in common, in stretches around what is copied and written at once
stretches = st.tuples(st.integers(1, 3), st.sampled_from((1, 2, 3, 13, 16, 17, 40, 255, 256, 257))).map(
    lambda one: [one[0]] * one[1]
)
texts = st.lists(stretches, min_size=1, max_size=4).map(lambda parts: [token for part in parts for token in part])
requests = st.tuples(texts, st.lists(stretches, max_size=2), st.sampled_from(("", "kitchen", "garage")))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(requests, min_size=2, max_size=8),
    st.sampled_from((2, 4)),
    st.sampled_from((0, 40, 10_000)),
    st.data(),
)
def test_nothing_that_was_asked_for_is_lost_in_whatever_order(talks, sequences, spare, data):
    with tempfile.TemporaryDirectory() as folder, home(Path(folder), sequences=sequences, spare=spare) as one:
        asked = list[tuple[list[int], Caller]]()
        for prompt, answer, owner in talks:
            caller = Caller(owner) if owner else EVERYBODY
            one.ask(prompt, [token for part in answer for token in part], caller)
            asked.append((prompt, caller))
            while data.draw(st.booleans(), label="prepare") and one.manager.prepare():
                pass
        assert one.lost(asked) == [], "while the engine runs"
        one.manager.leave(10, lambda: 0.0)
        with home(Path(folder), spare=10_000) as other:
            assert other.lost(asked) == [], "after a stop"
