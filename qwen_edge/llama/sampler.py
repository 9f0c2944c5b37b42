"""Choosing the next token: the largest logit, or llama.cpp's sampler chain built from one request's settings."""

from __future__ import annotations

from qwen_edge.llama.bindings import C
from qwen_edge.llama.context import Context
from qwen_edge.messages import Sampling

_GREEDY_BELOW = 1e-3  # logits divided by less leave the range of floats
_NO_PENALTIES = (1.0, 0.0, 0.0)


def make_sampler(settings: Sampling, context: Context, vocabulary: int) -> Largest | Chain:
    """What one request's settings ask for, for one sequence."""
    if settings.temperature < _GREEDY_BELOW and _penalties(settings) == _NO_PENALTIES:
        return Largest(context)
    return Chain(settings, context, vocabulary)


class Largest:
    """Takes the largest logit: a chain of one sampler would first write all 150,000 into a list, for half a millisecond
    a token."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def sample(self) -> int:
        return int(self._context.logits().argmax())

    def close(self) -> None:
        pass


class Chain:
    """Samples from the last logits of a context, in C. Owned by one sequence; `close()` frees it."""

    def __init__(self, settings: Sampling, context: Context, vocabulary: int) -> None:
        """The order is llama.cpp's own: penalties see all logits, temperature comes after every cut."""
        self._context = context
        self._chain = C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())
        if _penalties(settings) != _NO_PENALTIES:
            self._add(C.llama_sampler_init_penalties(vocabulary, settings.penalty_window, *_penalties(settings)))
        if settings.temperature < _GREEDY_BELOW:
            self._add(C.llama_sampler_init_greedy())
            return
        if settings.top_k > 0:
            self._add(C.llama_sampler_init_top_k(settings.top_k))
        if settings.top_p < 1.0:
            self._add(C.llama_sampler_init_top_p(settings.top_p, 1))
        if settings.min_p > 0.0:
            self._add(C.llama_sampler_init_min_p(settings.min_p, 1))
        self._add(C.llama_sampler_init_temp(settings.temperature))
        self._add(C.llama_sampler_init_dist(settings.seed))

    def sample(self) -> int:
        """The next token, which the chain also remembers for its penalties."""
        return int(C.llama_sampler_sample(self._chain, self._context.handle, -1))

    def close(self) -> None:
        if self._chain:
            C.llama_sampler_free(self._chain)
            self._chain = None

    def _add(self, sampler: int) -> None:
        C.llama_sampler_chain_add(self._chain, sampler)


def _penalties(settings: Sampling) -> tuple[float, float, float]:
    return settings.repetition_penalty, settings.frequency_penalty, settings.presence_penalty
