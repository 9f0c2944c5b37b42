"""Guessing tokens changes nothing about how likely each text is."""

import random
from collections import Counter
from itertools import product

from qwen_edge.engine.loop import Engine
from qwen_edge.protocol.messages import Sampling, Segment, Submit, Tokens
from tests.fakes import END, FakeBackend

NEXT = {  # how likely each token is behind the last one; guesses (a, b, c in turn) are often right, and often not
    "a": {"a": 0.1, "b": 0.7, "c": 0.2},
    "b": {"a": 0.3, "b": 0.15, "c": 0.55},
    "c": {"a": 0.6, "b": 0.25, "c": 0.15},
}
LENGTH = 4
TEXTS = 6000


class Dice:
    """A sampler that throws for the token behind the last one in the cache."""

    def __init__(self, backend: FakeBackend, seed: int) -> None:
        self._backend = backend
        self._throw = random.Random(seed)

    def sample(self, row: int, allowed=None, biases=None) -> int:
        sequence, length = self._backend.logits[row]
        last = chr(self._backend.cells.held(sequence)[length - 1])
        return ord(self._throw.choices(list(NEXT[last]), list(NEXT[last].values()))[0])

    def close(self) -> None:
        self._backend.open_samplers -= 1


class Chance(FakeBackend):
    def __init__(self) -> None:
        super().__init__(lambda prompt: "", batch=64, context=2000)
        self.guessed = 0

    def sampler(self, settings: Sampling) -> Dice:
        self.open_samplers += 1
        return Dice(self, settings.seed)

    def is_end(self, token: int) -> bool:
        return token == END

    def decode(self, slices) -> None:
        super().decode(slices)
        self.guessed += sum(one.logits - 1 for one in slices if one.logits > 1)


def texts(*, speculates: bool) -> tuple[Counter[str], int]:
    """What comes behind abcabc..., over many seeds; and how many tokens were guessed."""
    backend = Chance()
    now = iter(range(1 << 30))
    engine = Engine(backend, lambda: float(next(now)), speculates=speculates)  # a batch takes the same, however long
    said: dict[int, str] = {}
    for seed in range(TEXTS):
        engine.submit(Submit(seed, (Segment("abc" * 5),), Sampling(seed=seed), LENGTH, 1e9))
        while engine.busy:
            for event in engine.step():
                if isinstance(event, Tokens):
                    said[event.id] = said.get(event.id, "") + event.text
    return Counter(said.values()), backend.guessed


def chi_square(seen: Counter[str]) -> tuple[float, int]:
    """Against what is exactly expected; and the degrees of freedom."""
    total, cells = 0.0, 0
    for tokens in product("abc", repeat=LENGTH):
        likely, last = 1.0, "c"
        for token in tokens:
            likely, last = likely * NEXT[last][token], token
        total += (seen["".join(tokens)] - TEXTS * likely) ** 2 / (TEXTS * likely)
        cells += 1
    return total, cells - 1


def test_sampled_texts_are_as_likely_with_guesses_as_the_model_makes_them():
    seen, guessed = texts(speculates=True)
    assert guessed > TEXTS / 2
    assert sum(seen.values()) == TEXTS
    found, freedom = chi_square(seen)
    # mean plus four standard deviations of chi-square; a rule that takes a guess without asking the sampler is far off
    assert found < freedom + 4 * (2 * freedom) ** 0.5


def test_the_same_seed_says_the_same_with_guesses_and_without():
    with_guesses, guessed = texts(speculates=True)
    without, none = texts(speculates=False)
    assert with_guesses == without
    assert guessed > 0 == none
