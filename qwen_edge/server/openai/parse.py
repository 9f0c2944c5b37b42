"""Parses the body of a chat completion into a ChatRequest. Every error names the parameter.

Reference: https://platform.openai.com/docs/api-reference/chat/create, with parameters that Qwen's users know
(enable_thinking, chat_template_kwargs, top_k, min_p, repetition_penalty, return_reasoning), and our own (priority,
wait_seconds, max_seconds, x_volatile). A parameter is honoured or refused; the few that are only labels for the
caller's records are marked below.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec.structs import fields

from qwen_edge.chat.messages import ChatRequest
from qwen_edge.config.schema import ChatConfig
from qwen_edge.config.validation import split_complaint
from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.protocol.messages import EVERYBODY, Caller, Priority, Sampling
from qwen_edge.renderer.handle import refuse_too_many_messages
from qwen_edge.server.body import parse_json, pass_over_unknown
from qwen_edge.server.openai.shapes import NamedSchema, ResponseFormat, ShapeParameters, StructuredOutputs, answer_shape
from qwen_edge.server.openai.spelling import advice
from qwen_edge.server.openai.tool_choice import call_shape

_Count = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]
_Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
_Seconds = Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]
_Bias = Annotated[float, msgspec.Meta(ge=-100, le=100)]
_DAY = 86400.0  # seconds
_NAME = 200  # characters of a conversation's name, which the engine stores


class _Text(msgspec.Struct, tag_field="type", tag="text"):
    text: str | None


class _Refusal(msgspec.Struct, tag_field="type", tag="refusal"):
    refusal: str | None


class _Function(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] | None = None


class _Call(msgspec.Struct):
    function: _Function
    id: str | None = None
    type: Literal["function"] | None = None


class _Message(msgspec.Struct):
    """The fields of a message that a template can render. Others are ignored, except those in `_UNREADABLE`."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Text | _Refusal | None] | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call | None] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    refusal: str | None = None


# fields with content for the model that no template here can render: they are refused
_UNREADABLE = ("audio", "function_call", "images", "partial", "prefix", "videos")


class _ToolFunction(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class _Tool(msgspec.Struct):
    """A tool. `type` may be missing, because there is only one type."""

    function: _ToolFunction
    type: Literal["function"] | None = None


class _Tools(msgspec.Struct):
    tools: list[_Tool | None]


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Reasoning(msgspec.Struct):
    """OpenRouter's; `max_tokens` is a thinking budget."""

    max_tokens: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None


class ChatBody(ShapeParameters, kw_only=True):
    """The body, with OpenAI's names. Values that a server without the feature can honour (n=1, logprobs=false) are
    accepted. Null means the same as a missing value: for every parameter, for every optional field inside one, and for
    every list element except messages."""

    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    stop: str | Annotated[list[str | None], msgspec.Meta(max_length=16)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: _Fraction | None = None
    top_k: Annotated[int, msgspec.Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: _Fraction | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(ge=0.01, le=2)] | None = None
    seed: int | None = None
    tools: list[dict[str, Any] | None] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    enable_thinking: bool | None = None
    return_reasoning: bool | None = None
    priority: Priority | None = None
    wait_seconds: _Seconds | None = None
    max_seconds: _Seconds | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    x_volatile: bool | None = None
    typical_p: _Fraction | None = None
    dry_multiplier: Annotated[float, msgspec.Meta(ge=0, le=10)] | None = None
    dry_base: Annotated[float, msgspec.Meta(ge=1, le=10)] | None = None
    dry_allowed_length: Annotated[int, msgspec.Meta(ge=1, le=1000)] | None = None
    dry_penalty_last_n: Annotated[int, msgspec.Meta(ge=-1, le=2**20)] | None = None
    min_tokens: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[Annotated[str, msgspec.Meta(pattern="^[0-9]{1,9}$")], _Bias | None] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=16)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, msgspec.Meta(ge=0, le=20)] | None = None
    thinking_budget: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    reasoning: Reasoning | None = None
    # accepted where it asks for what happens anyway
    store: bool | None = None
    modalities: list[str | None] | None = None
    # labels for the caller's own books
    user: str | None = None
    metadata: dict[str, Any] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    service_tier: str | None = None


_INNER: Mapping[str, type[msgspec.Struct]] = {
    "reasoning": Reasoning,
    "response_format": ResponseFormat,
    "response_format.json_schema": NamedSchema,
    "stream_options": _StreamOptions,
    "structured_outputs": StructuredOutputs,
}

_KNOWN = (
    *ChatBody.__struct_fields__,
    *(f"{path}.{name}" for path, kind in _INNER.items() for name in kind.__struct_fields__),
)

_NOT_YET: dict[str, tuple[str, Callable[[ChatBody], bool]]] = {  # what is taken, and what is not
    "store": ("only false", lambda body: bool(body.store)),
    "modalities": ('only ["text"]', lambda body: not {*(body.modalities or ())} <= {"text", None}),
}


def read_body(data: bytes, *, ignore_unknown: bool) -> ChatBody:
    """Parse and check the body. Raises RequestError."""
    values = parse_json(data)
    if not isinstance(values, dict):
        raise RequestError("The body must be a JSON object.")
    if unknown := _unknown(values):
        pass_over_unknown(unknown, ignore=ignore_unknown, advice=advice(unknown[0], _KNOWN))
    messages = values.get("messages")
    if isinstance(messages, list):
        refuse_too_many_messages(len(messages))
        _refuse_unreadable(messages)
    try:
        body = msgspec.convert(
            {key: _whole(key, value) for key, value in values.items() if value is not None}, ChatBody
        )
        msgspec.convert({"tools": body.tools or []}, _Tools)
    except msgspec.ValidationError as error:
        what, path = split_complaint(error)
        param = path[2:] or None
        complaint = printable(what.replace("`", ""), 300) + _choices(what, param or "")
        raise RequestError(f"Invalid {printable(param or 'body')}: {complaint}.", parameter=param) from None
    for param, (supported, is_asked) in _NOT_YET.items():
        if is_asked(body):
            message = (
                f"{param}: this value is not supported, {supported}. Send a supported value, or leave {param} out."
            )
            raise RequestError(message, code="unsupported_value", parameter=param)
    return body


def _choices(what: str, param: str) -> str:
    """The allowed words, if `what` complains about a word that is not allowed; else an empty text."""
    if what.startswith("Invalid value") and param.endswith(".type"):
        return ": content is text here, or a list of parts of type text"
    if not what.startswith("Invalid enum value"):
        return ""
    name = param.rpartition(".")[2]
    kinds = (field.type for kind in (ChatBody, _Message, _Tool) for field in fields(kind) if field.name == name)
    words = [
        word
        for kind in kinds
        for one in (kind, *get_args(kind))
        if get_origin(one) is Literal
        for word in get_args(one)
    ]
    return f": must be one of {', '.join(words)}"


def _unknown(values: Mapping[str, Any]) -> list[str]:
    """The unknown parameters that are not null, also those inside others."""
    groups: list[tuple[str, Any, type[msgspec.Struct]]] = [("", values, ChatBody)]
    for path, kind in _INNER.items():
        inner: Any = values
        for name in path.split("."):
            inner = inner.get(name) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            groups.append((f"{path}.", inner, kind))
    return sorted(
        prefix + name
        for prefix, group, known in groups
        for name, value in group.items()
        if value is not None and name not in known.__struct_fields__
    )


def _refuse_unreadable(messages: list[Any]) -> None:
    """Raises RequestError for a message with content that the model would not see."""
    for number, message in enumerate(messages):
        if isinstance(message, dict) and (field := next((one for one in _UNREADABLE if message.get(one)), None)):
            param = f"messages[{number}].{field}"
            raise RequestError(f"{param} is not supported: remove it.", code="unsupported_value", parameter=param)


def _whole(name: str, value: Any) -> Any:
    """Turn 150.0 into 150: JSON, and the languages of some clients, have no integer type."""
    if name == "reasoning" and isinstance(value, dict):
        return {key: _whole(key, one) for key, one in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def to_request(
    body: ChatBody, model: Sampling, defaults: ChatConfig, client: str, caller: Caller = EVERYBODY
) -> ChatRequest:
    """The request. Missing values come from the configuration first, then from the model's own defaults. `client`: the
    name for the energy budget; `caller`: the owner of the key."""
    arguments = dict(body.chat_template_kwargs or {})
    ours = {name: arguments.pop(name, None) for name in ("add_generation_prompt", "messages", "tools")}
    if taken := [name for name, value in ours.items() if value is not None]:
        raise RequestError(
            f"chat_template_kwargs may not set {taken[0]!r}: the server does.", parameter="chat_template_kwargs"
        )
    thinking = arguments.pop("enable_thinking", None)
    if not isinstance(thinking, bool | None):
        raise RequestError("enable_thinking must be true or false.", parameter="chat_template_kwargs")
    answer, calls = answer_shape(body), call_shape(body)
    reasoning = body.reasoning or Reasoning()
    budget = _first(body.thinking_budget, reasoning.max_tokens, defaults.thinking_budget)
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return ChatRequest(
        messages=tuple(_message(message) for message in body.messages),
        sampling=_sampling(body, model, defaults),
        tools=calls.tools,
        thinking=False if budget == 0 else _first(body.enable_thinking, thinking, defaults.thinking),
        return_reasoning=body.return_reasoning is not False,
        template_arguments=arguments,
        max_tokens=_first(body.max_completion_tokens, body.max_tokens, defaults.max_tokens),
        stop=tuple(text for text in stop if text),
        parallel_calls=body.parallel_tool_calls is not False,
        priority=body.priority or "interactive",
        choices=body.n or 1,
        wait_seconds=body.wait_seconds,
        max_seconds=body.max_seconds,
        client=client,
        caller=caller,
        conversation=(body.prompt_cache_key or body.user or "")[:_NAME],
        goes_on=bool(body.prompt_cache_key),
        pin_seconds=_DAY if body.prompt_cache_retention == "24h" else 0.0,
        volatile=_first(body.x_volatile, defaults.volatile),
        shape=answer.shape,
        shape_parameter=answer.parameter,
        shown_schema=answer.shown,
        call_shape=calls.shape,
        requires_call=calls.required,
        thinking_budget=budget,
        stops_loops=defaults.stop_loops,
        unenforced=(*answer.unenforced, *calls.unenforced),
    )


def _sampling(body: ChatBody, model: Sampling, defaults: ChatConfig) -> Sampling:
    if body.top_logprobs and not body.logprobs:
        raise RequestError("top_logprobs needs logprobs: true.", parameter="top_logprobs")
    seed = secrets.randbits(32) if body.seed is None else body.seed
    return Sampling(
        temperature=_first(body.temperature, defaults.temperature, model.temperature),
        top_k=max(0, _first(body.top_k, defaults.top_k, model.top_k)),
        top_p=_first(body.top_p, defaults.top_p, model.top_p),
        min_p=_first(body.min_p, defaults.min_p, model.min_p),
        repetition_penalty=_first(body.repetition_penalty, defaults.repetition_penalty, model.repetition_penalty),
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        typical_p=_first(body.typical_p, model.typical_p),
        dry_multiplier=_first(body.dry_multiplier, model.dry_multiplier),
        dry_base=_first(body.dry_base, model.dry_base),
        dry_allowed_length=_first(body.dry_allowed_length, model.dry_allowed_length),
        dry_penalty_last_n=_first(body.dry_penalty_last_n, model.dry_penalty_last_n),
        min_tokens=body.min_tokens or 0,
        ignore_eos=bool(body.ignore_eos),
        logit_bias=tuple((int(token), bias) for token, bias in (body.logit_bias or {}).items() if bias is not None),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        # llama.cpp takes 0xFFFFFFFF as a request for a random seed
        seed=seed % 0xFFFFFFFF,
    )


def _message(message: _Message) -> Mapping[str, Any]:
    """The message in the form that chat templates take: content is text, calls are in OpenAI's form, missing fields are
    left out."""
    content = message.content or message.refusal or ""
    if not isinstance(content, str):
        content = "".join(_text(part) for part in content if part is not None)
    plain: dict[str, Any] = {"role": "system" if message.role == "developer" else message.role, "content": content}
    if message.reasoning_content is not None:
        plain["reasoning_content"] = message.reasoning_content
    if calls := [_call(call) for call in message.tool_calls or () if call is not None]:
        plain["tool_calls"] = calls
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        plain["name"] = message.name
    return plain


def _text(part: _Text | _Refusal) -> str:
    return (part.text if isinstance(part, _Text) else part.refusal) or ""


def _call(call: _Call) -> Mapping[str, Any]:
    """A tool call of the history, in OpenAI's form. Missing or empty arguments become `{}`."""
    function = {"name": call.function.name, "arguments": call.function.arguments or "{}"}
    plain = {"id": call.id, "type": "function", "function": function}
    return plain if call.id else {key: plain[key] for key in ("type", "function")}


def _first(*values: Any) -> Any:
    """The first value that is not None."""
    return next((value for value in values if value is not None), None)
