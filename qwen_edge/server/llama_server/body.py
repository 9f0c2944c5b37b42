"""The body of llama-server's /completion, and the ChatRequests that it asks for. Every error names the parameter. Pure.

Reference: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import msgspec

from qwen_edge.chat.messages import ChatRequest
from qwen_edge.core.errors import RequestError
from qwen_edge.core.first import first
from qwen_edge.server.answering import Asked
from qwen_edge.server.chat_request import basic_completion, most_tokens
from qwen_edge.server.openai.shapes import ShapeParameters, wanted_shapes
from qwen_edge.server.parameters import HINT, hint, mapped, only
from qwen_edge.server.prompts import PromptValue, raw_prompts
from qwen_edge.server.sampling import FromZero, Limit, StopTexts, sampling, stop_texts
from qwen_edge.server.shapes import answer_shape

_AlmostEver = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class CompletionBody(ShapeParameters, kw_only=True):
    """The body, with llama-server's names."""

    prompt: PromptValue
    n_predict: Limit | None = None
    max_tokens: Annotated[Limit | None, mapped("n_predict")] = None
    stream: bool | None = None
    stop: StopTexts | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=16)] | None = None
    n_cmpl: Annotated[Annotated[int, msgspec.Meta(ge=1, le=16)] | None, mapped("n")] = None
    n_probs: Annotated[int, msgspec.Meta(ge=0, le=100)] | None = None
    logprobs: Annotated[Annotated[int, msgspec.Meta(ge=0, le=100)] | None, mapped("n_probs")] = None
    return_tokens: bool | None = None
    response_fields: list[str] | None = None
    t_max_predict_ms: _AlmostEver | None = None
    timings_per_token: Annotated[bool | None, hint("Accepted; the last event has the timings.")] = None
    # hints
    model: Annotated[str | None, HINT] = None
    cache_prompt: Annotated[bool | None, hint("Accepted; whatever is in the KV cache is used.")] = None
    id_slot: Annotated[int | None, HINT] = None
    n_keep: Annotated[int | None, hint("Accepted; the context is never shifted.")] = None
    n_discard: Annotated[int | None, hint("Accepted; the context is never shifted.")] = None
    n_cache_reuse: Annotated[int | None, HINT] = None
    min_keep: Annotated[FromZero | None, HINT] = None
    return_progress: Annotated[bool | None, HINT] = None
    backend_sampling: Annotated[bool | None, HINT] = None
    t_max_prompt_ms: Annotated[float | None, HINT] = None
    xtc_threshold: Annotated[float | None, hint("Accepted; xtc_probability can only be 0.")] = None
    mirostat_tau: Annotated[float | None, hint("Accepted; mirostat can only be 0.")] = None
    mirostat_eta: Annotated[float | None, hint("Accepted; mirostat can only be 0.")] = None
    dynatemp_exponent: Annotated[float | None, hint("Accepted; dynatemp_range can only be 0.")] = None
    # only what happens anyway
    mirostat: Annotated[int | None, only(0)] = None
    xtc_probability: Annotated[float | None, only(0)] = None
    tfs_z: Annotated[float | None, only(1)] = None
    top_n_sigma: Annotated[float | None, only(-1, 0)] = None
    dynatemp_range: Annotated[float | None, only(0)] = None
    post_sampling_probs: Annotated[
        bool | None, only(False, instead="Probabilities are those before temperature and truncation.")
    ] = None
    samplers: Annotated[Any, only([], "", instead="The order of the samplers is llama.cpp's; leave samplers out.")] = (
        None
    )
    n_indent: Annotated[int | None, only(0)] = None
    lora: Annotated[Any, only([])] = None
    image_data: Annotated[Any, only([], instead="The model reads text only.")] = None
    dry_sequence_breakers: Annotated[Any, only(["\n", ":", '"', "*"])] = None


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The body's values with each prompt {"prompt_string": text} as the text. Raises RequestError for a prompt with
    images."""
    found = dict(values)
    prompt = found.get("prompt")
    if isinstance(prompt, list):
        found["prompt"] = [_text(one) for one in prompt]
    elif prompt is not None:
        found["prompt"] = _text(prompt)
    return found


def _text(prompt: Any) -> Any:
    if not isinstance(prompt, dict):
        return prompt
    if prompt.get("multimodal_data"):
        raise RequestError(
            "prompt.multimodal_data: the model reads text only.",
            code="unsupported_value",
            parameter="prompt.multimodal_data",
        )
    return prompt.get("prompt_string")


def to_requests(body: CompletionBody, asked: Asked) -> Sequence[ChatRequest]:
    """A request for each prompt, in order. Raises RequestError."""
    shape = answer_shape(wanted_shapes(body), whitespace=bool(body.x_json_whitespace), shown=False)
    probabilities = first(body.n_probs, body.logprobs, 0)
    chosen = sampling(body, asked.model.sampling, asked.defaults, probabilities or None)
    seconds = body.t_max_predict_ms / 1000 if body.t_max_predict_ms else None
    one = replace(
        basic_completion(
            asked, msgspec.structs.replace(chosen, names_tokens=bool(body.stream or body.return_tokens)), shape
        ),
        max_tokens=most_tokens(body, ("n_predict", "max_tokens"), asked.defaults.max_tokens),
        stop=stop_texts(body.stop),
        choices=first(body.n, body.n_cmpl, 1),
        max_seconds=seconds,
    )
    return [replace(one, raw=raw) for raw in raw_prompts(body.prompt)]
