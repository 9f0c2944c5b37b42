"""Choosing the next token: llama.cpp's sampler chain, built from one request's settings."""

from __future__ import annotations

from qwen_edge.llama.bindings import C
from qwen_edge.llama.context import Context
from qwen_edge.messages import Sampling

_GREEDY_BELOW = 1e-3  # logits divided by less leave the range of floats


class Sampler:
    """Samples from the last logits of a context, in C. Owned by one sequence; `close()` frees it."""

    def __init__(self, settings: Sampling, context: Context, vocabulary: int) -> None:
        """The order is llama.cpp's own: penalties see all logits, temperature comes after every cut."""
        self._context = context.handle
        self._chain = C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())
        penalties = (settings.repetition_penalty, settings.frequency_penalty, settings.presence_penalty)
        if penalties != (1.0, 0.0, 0.0):
            self._add(C.llama_sampler_init_penalties(vocabulary, settings.penalty_window, *penalties))
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
        return int(C.llama_sampler_sample(self._chain, self._context, -1))

    def close(self) -> None:
        if self._chain:
            C.llama_sampler_free(self._chain)
            self._chain = None

    def _add(self, sampler: int) -> None:
        C.llama_sampler_chain_add(self._chain, sampler)
