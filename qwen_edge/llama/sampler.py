"""Samples the next token: biases and bans on the logits, then their maximum or llama.cpp's sampler chain."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np

from qwen_edge.llama.bindings import C
from qwen_edge.llama.fixed_cells import FixedCells
from qwen_edge.llama.vocab import Vocab
from qwen_edge.protocol.messages import Alternative, Logprob, Sampling
from qwen_edge.protocol.sampling import NO_BIASES

_GREEDY_BELOW = 1e-3  # a lower temperature would make logits overflow
_NO_PENALTIES = (1.0, 0.0, 0.0)
_FEW = 256  # up to this top_k the candidates are found here; llama.cpp would list all 150,000 tokens first (0.5 ms)
_GROUP = 64  # logits in a group, whose largest is found first
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data
_BREAKERS = (b"\n", b":", b'"', b"*")  # at these DRY stops matching repetitions, as its author proposes


class Sampler:
    """Samples the tokens of one sequence from the logits of a context. Used by the engine's thread."""

    def __init__(self, settings: Sampling, cells: FixedCells, vocab: Vocab) -> None:
        """Raises ValueError if the settings name a token outside the vocabulary."""
        if unknown := [token for token, _ in settings.logit_bias if not 0 <= token < vocab.size]:
            raise ValueError(f"logit_bias names token {unknown[0]}; the model's go from 0 to {vocab.size - 1}")
        self._settings = settings
        self._cells = cells
        self._vocab = vocab
        self._taken = 0
        self._biased = np.array([token for token, _ in settings.logit_bias], np.int64)
        self._bias = np.array([bias for _, bias in settings.logit_bias], np.float32)
        # a chain would first copy all 150,000 logits into a list, which takes 0.5 ms a token
        largest = settings.temperature < _GREEDY_BELOW and _penalties(settings) == _NO_PENALTIES
        self._chain = None if largest and not settings.dry_multiplier else _Chain(settings, vocab, cells.size)

    def sample(self, row: int, allowed: Any = None, biases: Mapping[int, float] = NO_BIASES) -> int:
        """The next token, from the logits in row `row` of the last batch, which are changed by biases and bans. Where
        only end tokens are `allowed`, one of them is chosen, whatever forbids them."""
        logits = self._cells.logits(row)
        if len(self._bias):
            logits[self._biased] += self._bias
        for token, bias in biases.items():
            logits[token] += bias
        ends, goes_on = self._vocab.ends, self._settings.ignore_eos or self._taken < self._settings.min_tokens
        if goes_on and (allowed is None or np.count_nonzero(allowed) > np.count_nonzero(allowed[ends])):
            logits[ends] = -np.inf
        if allowed is not None:
            np.copyto(logits, -np.inf, where=~allowed)
        self._taken += 1
        if not self._chain:
            return int(logits.argmax())
        return self._chain.sample(self._cells.context.handle, row, logits, masked=allowed is not None)

    def accept(self, token: int) -> None:
        """Note a token that was put into the answer and not sampled: penalties, DRY and `min_tokens` count it. It uses
        no random number."""
        self._taken += 1
        if self._chain:
            self._chain.accept(token)

    def logprob(self, row: int | None, token: int) -> Logprob:
        """The log probabilities of the sampled token and of the likeliest ones: after biases, before temperature and
        truncation. `row` None: of a token that was put there, without alternatives. Its logits may not have been
        computed, and no other token could have come: its logprob is 0. So it is where only the token was asked for."""
        if row is None or self._settings.logprobs is None:
            certain = Alternative(self._piece(token), 0.0, token)
            return Logprob(certain, (certain,) if self._settings.logprobs else ())
        logits = self._cells.logits(row).astype(np.float64)
        logits -= logits.max()
        logits -= np.log(np.exp(logits).sum())
        count = min(self._settings.logprobs or 0, len(logits) - 1)
        top = np.argpartition(-logits, count)[:count]
        top = top[np.argsort(-logits[top], kind="stable")]
        return Logprob(self._alternative(token, logits), tuple(self._alternative(int(one), logits) for one in top))

    def close(self) -> None:
        if self._chain:
            self._chain.close()

    def _alternative(self, token: int, logits: Any) -> Alternative:
        logprob = max(float(logits[token]), -9999.0)  # JSON has no infinity, as OpenAI's
        return Alternative(self._piece(token), logprob, token)

    def _piece(self, token: int) -> bytes:
        return self._vocab.piece(token) or self._vocab.text(token).encode()


class _Chain:
    """llama.cpp's samplers in its own order: penalties apply to all logits, temperature comes after all truncation."""

    def __init__(self, settings: Sampling, vocab: Vocab, context: int) -> None:
        """`context`: the size of the context in tokens, the most that an answer can have."""
        self._chain = C.llama_sampler_chain_init(C.llama_sampler_chain_default_params())
        whole = _penalties(settings) != _NO_PENALTIES or settings.dry_multiplier or settings.top_k > _FEW
        self._few = 0 if whole else settings.top_k  # candidates to find here: top_k truncates first, to this many
        if _penalties(settings) != _NO_PENALTIES:
            self._add(C.llama_sampler_init_penalties(vocab.size, settings.penalty_window, *_penalties(settings)))
        if settings.dry_multiplier:
            self._add(_dry(settings, vocab, context))
        if settings.temperature < _GREEDY_BELOW:
            self._add(C.llama_sampler_init_greedy())
            return
        if settings.top_k > 0:
            self._add(C.llama_sampler_init_top_k(settings.top_k))
        if settings.typical_p < 1.0:
            if settings.ignore_eos or settings.min_tokens:
                # a banned token has no entropy, and llama.cpp would compute NaN
                self._add(C.llama_sampler_init_top_k(vocab.size - len(vocab.ends)))
            self._add(C.llama_sampler_init_typical(settings.typical_p, 1))
        if settings.top_p < 1.0:
            self._add(C.llama_sampler_init_top_p(settings.top_p, 1))
        if settings.min_p > 0.0:
            self._add(C.llama_sampler_init_min_p(settings.min_p, 1))
        self._add(C.llama_sampler_init_temp(settings.temperature))
        self._add(C.llama_sampler_init_dist(settings.seed))

    def sample(self, context: Any, row: int, logits: Any, *, masked: bool = False) -> int:
        """Sample from `logits`, which are the context's in row `row`. If they are `masked`, only the finite ones are
        candidates. The chain also remembers the token for its penalties."""
        if self._few <= 0 and not masked:
            return int(C.llama_sampler_sample(self._chain, context, row))
        ids = likeliest(logits, self._few) if self._few > 0 else np.arange(len(logits))
        if masked:
            ids = ids[np.isfinite(logits[ids])]
        candidates = np.zeros(len(ids), _CANDIDATE)
        candidates["id"], candidates["logit"] = ids, logits[ids]
        data = candidates.ctypes.data_as(ctypes.POINTER(C.llama_token_data))
        array = C.llama_token_data_array(data=data, size=len(ids), selected=-1, sorted=False)
        C.llama_sampler_apply(self._chain, ctypes.byref(array))
        token = int(array.data[array.selected].id)
        if self._few <= 0:  # llama_sampler_sample does this itself; a chain without penalties needs it not
            self.accept(token)
        return token

    def accept(self, token: int) -> None:
        C.llama_sampler_accept(self._chain, token)

    def close(self) -> None:
        if self._chain:
            C.llama_sampler_free(self._chain)
            self._chain = None

    def _add(self, sampler: Any) -> None:
        C.llama_sampler_chain_add(self._chain, sampler)


def likeliest(logits: Any, count: int) -> Any:
    """The tokens of at least the `count` largest logits, possibly a few more."""
    groups = len(logits) // _GROUP
    if count > groups:
        return np.arange(len(logits))
    # at least `count` logits are no smaller than the count-th largest of the groups' maxima
    largest = logits[: groups * _GROUP].reshape(_GROUP, groups).max(axis=0)
    return np.flatnonzero(logits >= np.partition(largest, -count)[-count])


def _dry(settings: Sampling, vocab: Vocab, whole: int) -> Any:
    """DRY: penalises tokens that would continue a repetition (https://github.com/oobabooga/text-generation-webui/pull/5677)."""
    window = whole if settings.dry_penalty_last_n < 0 else settings.dry_penalty_last_n
    shape = settings.dry_multiplier, settings.dry_base, settings.dry_allowed_length, window
    if vocab.dry is None or vocab.dry[0] != shape:
        # llama.cpp reads the whole vocabulary for it, tens of milliseconds: the last sampler is kept for cloning
        if vocab.dry:
            C.llama_sampler_free(vocab.dry[1])
        breakers = (ctypes.c_char_p * len(_BREAKERS))(*_BREAKERS)
        vocab.dry = shape, C.llama_sampler_init_dry(vocab.handle, *shape, breakers, len(_BREAKERS))
    return C.llama_sampler_clone(vocab.dry[1])


def _penalties(settings: Sampling) -> tuple[float, float, float]:
    return settings.repetition_penalty, settings.frequency_penalty, settings.presence_penalty
