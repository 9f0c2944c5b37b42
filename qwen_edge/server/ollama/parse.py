"""Makes a ChatRequest of the body of /api/chat or /api/generate. Every error names the parameter. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from qwen_edge.chat.messages import ChatRequest
from qwen_edge.core.errors import RequestError
from qwen_edge.core.first import first
from qwen_edge.renderer.handle import refuse_too_many_messages
from qwen_edge.server.answering import Asked
from qwen_edge.server.chat_request import Plain, alternatives, basic_chat, continued, plain_call
from qwen_edge.server.ollama.bodies import (
    OllamaCall,
    OllamaChatBody,
    OllamaGenerateBody,
    OllamaMessage,
    OllamaOptions,
    OllamaQuestion,
    Tools,
)
from qwen_edge.server.parameters import read_group, read_json
from qwen_edge.server.sampling import sampling, stop_texts
from qwen_edge.server.shapes import ANY_OBJECT, Wanted, answer_shape
from qwen_edge.server.thinking import Thinking, thinking, thinking_when_begun
from qwen_edge.server.tool_choice import Calls, call_shape

_Body = TypeVar("_Body", bound=OllamaQuestion)

_REMEDY = "describe it in the schema's description, which the model reads"


def read_question(kind: type[_Body], data: bytes, *, ignore_unknown: bool) -> _Body:
    """Parse and check the body. Raises RequestError."""
    values = read_json(data)
    if isinstance(messages := values.get("messages"), list):
        refuse_too_many_messages(len(messages))
    body = read_group(kind, values, ignore_unknown=ignore_unknown)
    if isinstance(body, OllamaChatBody):
        read_group(Tools, {"tools": body.tools or []}, ignore_unknown=True)
    return body


def refuse_larger_context(options: OllamaOptions | None, asked: Asked) -> None:
    """Raises RequestError if the client counts on a larger context than there is: its conversation might not fit."""
    wanted, there_is = (options or OllamaOptions()).num_ctx or 0, asked.model.context
    if wanted > there_is:
        raise RequestError(
            f"options.num_ctx: {wanted} tokens are asked for, and this server's context holds {there_is}. Ask for no "
            "more, or raise engine.context in the configuration.",
            code="unsupported_value",
            parameter="options.num_ctx",
        )


def chat_request(body: OllamaChatBody, asked: Asked) -> ChatRequest:
    """The request of /api/chat. Raises RequestError."""
    messages, begun = continued([_plain(number, one) for number, one in enumerate(body.messages or ())])
    return _request(body, asked, messages, begun, call_shape(body.tools, None))


def generate_request(body: OllamaGenerateBody, asked: Asked) -> ChatRequest:
    """The request of /api/generate: a conversation of one question, or with `raw` the prompt as it is. Raises
    RequestError."""
    prompt = body.prompt or ""
    if not body.raw:
        system = [{"role": "system", "content": body.system}] if body.system else []
        return _request(body, asked, [*system, {"role": "user", "content": prompt}], "", Calls())
    for name, value in (("system", body.system), ("think", body.think)):
        if value:
            raise RequestError(
                f"{name} has no effect on a raw prompt, which no template renders. Leave {name} out, and write what it "
                "says into the prompt.",
                code="unsupported_value",
                parameter=name,
            )
    request = _request(body, asked, (), "", Calls())
    # as a prompt of /v1/completions: chat.stop_loops is for chats, and there is no place to show a schema
    return replace(request, raw=(prompt,), thinking=None, stops_loops=False, shown_schema="")


def _request(
    body: OllamaQuestion, asked: Asked, messages: Sequence[Mapping[str, Any]], begun: str, calls: Calls
) -> ChatRequest:
    """Missing values come from the configuration first, then from the model's own defaults."""
    refuse_larger_context(body.options, asked)
    options = body.options or OllamaOptions()
    think = _thinking(body, asked, messages, begun=bool(begun))
    schema = {"json": ANY_OBJECT}.get(body.format) if isinstance(body.format, str) else body.format
    wanted = [] if schema is None else [Wanted("format", "json_schema", schema)]
    shape = answer_shape(wanted, remedy=_REMEDY)
    chosen = sampling(options, asked.model.sampling, asked.defaults, alternatives(body.logprobs, body.top_logprobs))
    return replace(
        basic_chat(asked, chosen, messages, think, shape, calls),
        max_tokens=_most_tokens(options, asked.defaults.max_tokens),
        stop=stop_texts(options.stop),
        begun=begun,
    )


def _thinking(body: OllamaQuestion, asked: Asked, messages: Sequence[Mapping[str, Any]], *, begun: bool) -> Thinking:
    can, switch = asked.model.abilities, body.think if isinstance(body.think, bool) else None
    if (switch, can.thinking) in ((True, "never"), (False, "always")):
        why = "cannot think" if switch else "always thinks"
        raise RequestError(f"think: this model {why}. Leave think out.", parameter="think")
    if begun:
        return thinking_when_begun(switch, "think", can)
    return thinking(
        switch=switch,
        effort=None if isinstance(body.think, bool) else body.think,
        effort_parameter="think",
        messages=messages,
        defaults=asked.defaults,
        can=can,
    )


def _most_tokens(options: OllamaOptions, default: int | None) -> int | None:
    """num_predict; 0 and less ask for all that the context has room for."""
    most = first(options.num_predict, default)
    return most if most and most > 0 else None


def _plain(number: int, message: OllamaMessage) -> Plain:
    """The message in the form that chat templates take. Raises RequestError for images."""
    if message.images:
        parameter = f"messages[{number}].images"
        raise RequestError(
            f"{parameter} is not supported: the model reads text only. Remove the images.",
            code="unsupported_value",
            parameter=parameter,
        )
    role = "system" if message.role == "developer" else message.role
    plain: Plain = {"role": role, "content": message.content or ""}
    if message.thinking is not None and role == "assistant":
        plain["reasoning_content"] = message.thinking
    if calls := _calls(message.tool_calls or ()):
        plain["tool_calls"] = calls
    if message.tool_name is not None:
        plain["name"] = message.tool_name
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    return plain


def _calls(calls: Sequence[OllamaCall | None]) -> list[Plain]:
    return [plain_call(one.function.name, one.function.arguments, one.id) for one in calls if one is not None]
