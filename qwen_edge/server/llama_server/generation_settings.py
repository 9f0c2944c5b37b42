"""How an answer is generated, with llama-server's names: those settings that mean something here. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwen_edge.protocol.messages import Sampling


def generation_settings(
    sampling: Sampling,
    max_tokens: int | None,
    *,
    stop: Sequence[str] = (),
    ends: Sequence[int] = (),
    stream: bool = False,
    grammar: str = "",
) -> dict[str, Any]:
    """`ends`: the tokens that end a turn; with `ignore_eos` they are banned, which shows as a bias of null."""
    biases: list[dict[str, Any]] = [{"token": token, "bias": bias} for token, bias in sampling.logit_bias]
    banned = [{"token": token, "bias": None} for token in ends if sampling.ignore_eos]
    return {
        "seed": sampling.seed,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "typical_p": sampling.typical_p,
        "repeat_last_n": sampling.penalty_window,
        "repeat_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "dry_multiplier": sampling.dry_multiplier,
        "dry_base": sampling.dry_base,
        "dry_allowed_length": sampling.dry_allowed_length,
        "dry_penalty_last_n": sampling.dry_penalty_last_n,
        "mirostat": 0,
        "xtc_probability": 0.0,
        "dynatemp_range": 0.0,
        "max_tokens": -1 if max_tokens is None else max_tokens,
        "n_predict": -1 if max_tokens is None else max_tokens,
        "n_probs": sampling.logprobs or 0,
        "stop": list(stop),
        "ignore_eos": sampling.ignore_eos,
        "logit_bias": [*biases, *banned],
        "stream": stream,
        "grammar": grammar,
    }
