"""How tokens are chosen, and how likely they were. Sent in both directions."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

NO_BIASES: Mapping[int, float] = MappingProxyType({})
"""Nothing is added to any logit."""


class Sampling(msgspec.Struct, frozen=True):
    """How to choose tokens. temperature 0 is greedy; top_k 0, top_p 1, typical_p 1 and min_p 0 cut nothing; seed has 32
    bits. Penalties look back `penalty_window` tokens of the answer; repetition 1 and frequency or presence 0 penalise
    nothing, nor does DRY with multiplier 0 (its window of -1 is the whole answer).

    The model cannot end its turn within the first `min_tokens`, or with `ignore_eos` at all. `logit_bias` holds pairs
    of a token and a number that is added to its logit. `logprobs` None asks for no log-probabilities; n asks for that
    of each chosen token and of the n likeliest tokens. With `names_tokens`, chosen tokens are reported without a
    logprob, too."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_window: int = 64
    seed: int = 0
    typical_p: float = 1.0
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    min_tokens: int = 0
    ignore_eos: bool = False
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    names_tokens: bool = False

    @property
    def reports(self) -> bool:
        """Whether each chosen token is reported as a Logprob."""
        return self.names_tokens or self.logprobs is not None


class Alternative(msgspec.Struct, frozen=True, array_like=True):
    """A token, as the bytes that it stands for and as its number, and the natural logarithm of its probability."""

    piece: bytes
    logprob: float
    token: int = 0


class Logprob(msgspec.Struct, frozen=True, array_like=True):
    """The token that was chosen, and the likeliest tokens at its position. A token that was forced has the logprob 0
    and stands alone: no other token could have come."""

    chosen: Alternative
    top: tuple[Alternative, ...]
