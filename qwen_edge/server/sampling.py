"""How a request wants its tokens chosen: the parameters that several dialects share, and their defaults. Pure."""

from __future__ import annotations

import secrets
from typing import Annotated

import msgspec

from qwen_edge.config.schema import ChatConfig
from qwen_edge.core.first import first
from qwen_edge.protocol.messages import Sampling
from qwen_edge.server.parameters import Group, mapped

Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
FromZero = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
TopK = Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)]
Repetition = Annotated[float, msgspec.Meta(ge=0.01, le=2)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Bias = Annotated[float, msgspec.Meta(ge=-100, le=100)]
StopTexts = str | Annotated[list[str | None], msgspec.Meta(max_length=16)]


_WHOLE_ANSWER = 1 << 15  # tokens that penalties look back; llama.cpp allocates room for them


class SamplingParameters(Group, kw_only=True):
    """The parameters of sampling, with the names that most servers give them."""

    temperature: Temperature | None = None
    top_p: Fraction | None = None
    top_k: TopK | None = None
    min_p: Fraction | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Repetition | None = None
    repeat_penalty: Annotated[Repetition | None, mapped("repetition_penalty")] = None
    repeat_last_n: Annotated[int, msgspec.Meta(ge=-1, le=2**15)] | None = None
    seed: int | None = None
    typical_p: Fraction | None = None
    dry_multiplier: Annotated[float, msgspec.Meta(ge=0, le=10)] | None = None
    dry_base: Annotated[float, msgspec.Meta(ge=1, le=10)] | None = None
    dry_allowed_length: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    dry_penalty_last_n: Annotated[int, msgspec.Meta(ge=-1, le=2**20)] | None = None
    min_tokens: FromZero | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[Annotated[str, msgspec.Meta(pattern="^[0-9]{1,9}$")], Bias | None] | None = None


def sampling(asked: SamplingParameters, model: Sampling, defaults: ChatConfig, logprobs: int | None = None) -> Sampling:
    """What is asked for; else what the configuration says, else the model's own. `logprobs`: None for none, else the
    number of alternatives to report for each token."""
    seed = secrets.randbits(32) if asked.seed is None else asked.seed
    window = first(asked.repeat_last_n, model.penalty_window)
    repetition = first(asked.repetition_penalty, asked.repeat_penalty, defaults.repetition_penalty)
    return Sampling(
        temperature=first(asked.temperature, defaults.temperature, model.temperature),
        top_k=max(0, first(asked.top_k, defaults.top_k, model.top_k)),
        top_p=first(asked.top_p, defaults.top_p, model.top_p),
        min_p=first(asked.min_p, defaults.min_p, model.min_p),
        repetition_penalty=first(repetition, model.repetition_penalty),
        frequency_penalty=asked.frequency_penalty or 0.0,
        presence_penalty=asked.presence_penalty or 0.0,
        penalty_window=_WHOLE_ANSWER if window < 0 else window,
        typical_p=first(asked.typical_p, model.typical_p),
        dry_multiplier=first(asked.dry_multiplier, model.dry_multiplier),
        dry_base=first(asked.dry_base, model.dry_base),
        dry_allowed_length=first(asked.dry_allowed_length, model.dry_allowed_length),
        dry_penalty_last_n=first(asked.dry_penalty_last_n, model.dry_penalty_last_n),
        min_tokens=asked.min_tokens or 0,
        ignore_eos=bool(asked.ignore_eos),
        logit_bias=tuple((int(token), bias) for token, bias in (asked.logit_bias or {}).items() if bias is not None),
        logprobs=logprobs,
        # llama.cpp takes 0xFFFFFFFF as a request for a random seed
        seed=seed % 0xFFFFFFFF,
    )


def stop_texts(stop: StopTexts | None) -> tuple[str, ...]:
    """The texts that end an answer. Empty ones mean nothing."""
    listed = (stop,) if isinstance(stop, str) else tuple(stop or ())
    return tuple(text for text in listed if text)
