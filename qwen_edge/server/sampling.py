"""How a request wants its tokens chosen: the parameters that several dialects share, and their defaults. Pure."""

from __future__ import annotations

import secrets
from typing import Annotated

import msgspec

from qwen_edge.config.schema import ChatConfig
from qwen_edge.core.first import first
from qwen_edge.protocol.messages import Sampling
from qwen_edge.server.parameters import Group, about, mapped

Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
FromZero = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
TopK = Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)]
Repetition = Annotated[float, msgspec.Meta(ge=0.01, le=2)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Bias = Annotated[float, msgspec.Meta(ge=-100, le=100)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]
# -1: none
Limit = Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1, extra_json_schema={"not": {"const": 0}})]
StopTexts = str | Annotated[list[str | None], msgspec.Meta(max_length=16)]


_WHOLE_ANSWER = 1 << 15  # tokens that penalties look back; llama.cpp allocates room for them


_CUTS = about("As usual; the model's own defaults if not given. `temperature: 0` is greedy, `top_k: 0` or `-1` is off.")
_PENALTIES = about("As usual, over the last `repeat_last_n` tokens of the answer (64; 0: off, -1: all).")
_DRY = about("DRY, against repetitions of whole phrases; off unless `dry_multiplier` is above 0.")
_ENDS = about(
    "The model cannot end the answer before `min_tokens` tokens, or, with `ignore_eos`, at all. A "
    "[shape](#answers-that-keep-a-shape) to which nothing can be added ends all the same."
)


class SamplingParameters(Group, kw_only=True):
    """How tokens are chosen"""

    temperature: Annotated[Temperature | None, _CUTS] = None
    top_p: Annotated[Fraction | None, _CUTS] = None
    top_k: Annotated[TopK | None, _CUTS] = None
    min_p: Annotated[Fraction | None, _CUTS] = None
    frequency_penalty: Annotated[Penalty | None, _PENALTIES] = None
    presence_penalty: Annotated[Penalty | None, _PENALTIES] = None
    repetition_penalty: Annotated[Repetition | None, _PENALTIES] = None
    repeat_last_n: Annotated[Annotated[int, msgspec.Meta(ge=-1, le=2**15)] | None, _PENALTIES] = None
    repeat_penalty: Annotated[Repetition | None, mapped("repetition_penalty")] = None
    typical_p: Annotated[Fraction | None, about("Locally typical sampling; 1 is off.")] = None
    dry_multiplier: Annotated[Annotated[float, msgspec.Meta(ge=0, le=10)] | None, _DRY] = None
    dry_base: Annotated[Annotated[float, msgspec.Meta(ge=1, le=10)] | None, _DRY] = None
    dry_allowed_length: Annotated[Annotated[int, msgspec.Meta(ge=1, le=1000)] | None, _DRY] = None
    dry_penalty_last_n: Annotated[Annotated[int, msgspec.Meta(ge=-1, le=2**20)] | None, _DRY] = None
    logit_bias: Annotated[
        dict[Annotated[str, msgspec.Meta(pattern="^[0-9]{1,9}$")], Bias | None] | None,
        about("Token ids to numbers from -100 to 100, added to their logits."),
    ] = None
    min_tokens: Annotated[FromZero | None, _ENDS] = None
    ignore_eos: Annotated[bool | None, _ENDS] = None
    seed: Annotated[
        int | None, about("The same seed and prompt give the same answer. -1, as without it, is a random seed.")
    ] = None


def sampling(asked: SamplingParameters, model: Sampling, defaults: ChatConfig, logprobs: int | None = None) -> Sampling:
    """What is asked for; else what the configuration says, else the model's own. `logprobs`: None for none, else the
    number of alternatives to report for each token."""
    # -1 asks vLLM and llama-server for a random seed, too
    seed = secrets.randbits(32) if asked.seed in (None, -1) else asked.seed
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
