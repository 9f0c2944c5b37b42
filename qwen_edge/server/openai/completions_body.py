"""The body of a completion, and the ChatRequests that it asks for. Every error names the parameter. Pure.

Reference: https://platform.openai.com/docs/api-reference/completions/create, with parameters that clients of vLLM and
llama-server send, and our own (priority, wait_seconds, max_seconds).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any

import msgspec

from qwen_edge.chat.messages import ChatRequest
from qwen_edge.core.errors import RequestError
from qwen_edge.protocol.messages import Priority
from qwen_edge.server.answering import Asked
from qwen_edge.server.chat_request import basic_completion, conversation_name, most_tokens
from qwen_edge.server.openai.chat_body import StreamOptions
from qwen_edge.server.openai.shapes import ShapeParameters, wanted_shapes
from qwen_edge.server.parameters import HINT, hint, mapped, only
from qwen_edge.server.prompts import PromptValue, Raw, raw_prompts
from qwen_edge.server.sampling import Limit, Seconds, StopTexts, sampling, stop_texts
from qwen_edge.server.shapes import answer_shape

_MAX_TOKENS = 16  # OpenAI's default for this path


class CompletionBody(ShapeParameters, kw_only=True):
    """The body, with OpenAI's names."""

    prompt: PromptValue
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Limit | None = None
    max_completion_tokens: Annotated[Limit | None, mapped("max_tokens")] = None
    n_predict: Annotated[Limit | None, mapped("max_tokens")] = None
    stop: StopTexts | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=16)] | None = None
    best_of: Annotated[int, msgspec.Meta(ge=1, le=16)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    priority: Priority | None = None
    wait_seconds: Seconds | None = None
    max_seconds: Seconds | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    # hints
    metadata: Annotated[dict[str, Any] | None, HINT] = None
    store: Annotated[bool | None, hint("Accepted; completions are not stored.")] = None
    service_tier: Annotated[str | None, HINT] = None
    cache_prompt: Annotated[bool | None, hint("Accepted; whatever is in the KV cache is used.")] = None
    id_slot: Annotated[int | None, HINT] = None
    n_keep: Annotated[int | None, HINT] = None
    timings_per_token: Annotated[bool | None, HINT] = None
    return_progress: Annotated[bool | None, HINT] = None
    keep_alive: Annotated[Any, hint("Accepted; engine.unload_seconds says when the model is unloaded.")] = None
    provider: Annotated[Any, HINT] = None
    spaces_between_special_tokens: Annotated[bool | None, HINT] = None
    xtc_threshold: Annotated[float | None, hint("Accepted; xtc_probability can only be 0.")] = None
    mirostat_tau: Annotated[float | None, hint("Accepted; mirostat can only be 0.")] = None
    mirostat_eta: Annotated[float | None, hint("Accepted; mirostat can only be 0.")] = None
    # only what happens anyway
    suffix: Annotated[
        str | None, only("", instead="The model continues text, and cannot fill in: write the suffix into the prompt.")
    ] = None
    use_beam_search: Annotated[bool | None, only(False)] = None
    mirostat: Annotated[int | None, only(0)] = None
    xtc_probability: Annotated[float | None, only(0)] = None
    tfs_z: Annotated[float | None, only(1)] = None
    samplers: Annotated[Any, only([], "", instead="The order of the samplers is llama.cpp's; leave samplers out.")] = (
        None
    )
    stop_token_ids: Annotated[list[int] | None, only([], instead="Send the texts of these tokens as stop.")] = None
    skip_special_tokens: Annotated[bool | None, only(True)] = None
    add_special_tokens: Annotated[bool | None, only(True)] = None
    prompt_logprobs: Annotated[int | None, only(0)] = None
    truncate_prompt_tokens: Annotated[int | None, only()] = None


@dataclass(frozen=True)
class Completion:
    """`chats`: a request for each prompt, in order. `echoed`: the prompts that stand before the answers; none without
    `echo`."""

    chats: tuple[ChatRequest, ...]
    echoed: tuple[Raw, ...] = ()


def to_completion(body: CompletionBody, asked: Asked) -> Completion:
    """What the body asks for. Raises RequestError."""
    prompts = raw_prompts(body.prompt)
    if body.best_of is not None and body.best_of not in (1, body.n or 1):
        raise RequestError(
            "best_of can only be 1 or n: all answers are returned. Send n, and choose among them.",
            code="unsupported_value",
            parameter="best_of",
        )
    if body.echo and body.logprobs is not None:
        raise RequestError(
            "echo with logprobs is not supported: only tokens of the answer have logprobs. Leave one of them out.",
            code="unsupported_value",
            parameter="echo",
        )
    shape = answer_shape(wanted_shapes(body), whitespace=bool(body.x_json_whitespace), shown=False)
    one = replace(
        basic_completion(asked, sampling(body, asked.model.sampling, asked.defaults, body.logprobs), shape),
        max_tokens=most_tokens(body, ("max_tokens", "max_completion_tokens", "n_predict"), _MAX_TOKENS),
        stop=stop_texts(body.stop),
        priority=body.priority or "interactive",
        choices=body.n or 1,
        wait_seconds=body.wait_seconds,
        max_seconds=body.max_seconds,
        conversation=conversation_name(body.prompt_cache_key, body.user),
        goes_on=bool(body.prompt_cache_key),
    )
    return Completion(tuple(replace(one, raw=raw) for raw in prompts), tuple(prompts) if body.echo else ())
