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
from qwen_edge.server.thinking import Thinking, thinking
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
    messages, begun = _beginning([_plain(number, one) for number, one in enumerate(body.messages or ())])
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
    return replace(_request(body, asked, (), "", Calls()), raw=(prompt,), thinking=None, shown_schema="")


def _request(
    body: OllamaQuestion, asked: Asked, messages: Sequence[Mapping[str, Any]], begun: str, calls: Calls
) -> ChatRequest:
    """Missing values come from the configuration first, then from the model's own defaults."""
    refuse_larger_context(body.options, asked)
    options, defaults = body.options or OllamaOptions(), asked.defaults
    if options.seed == -1:
        options.seed = None  # Ollama's word for any seed
    think = _thinking(body, asked, messages, begun=bool(begun))
    schema = {"json": ANY_OBJECT}.get(body.format) if isinstance(body.format, str) else body.format
    wanted = [] if schema is None else [Wanted("format", "json_schema", schema)]
    shape = answer_shape(wanted, remedy=_REMEDY)
    return ChatRequest(
        messages=tuple(messages),
        sampling=sampling(options, asked.model.sampling, defaults, _logprobs(body)),
        tools=calls.tools,
        thinking=think.on,
        max_tokens=_most_tokens(options, defaults.max_tokens),
        stop=stop_texts(options.stop),
        client=asked.client,
        caller=asked.caller,
        volatile=defaults.volatile,
        begun=begun,
        shape=shape.shape,
        shape_parameter=shape.parameter,
        shown_schema=shape.shown,
        call_shape=calls.shape,
        strict_calls=calls.strict,
        thinking_budget=think.budget,
        stops_loops=defaults.stop_loops,
        unenforced=(*shape.unenforced, *calls.unenforced),
    )


def _beginning(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    """The messages, and the beginning of the answer: the text of an assistant's message that comes last, which the
    model continues."""
    last = messages[-1]
    if len(messages) > 1 and last["role"] == "assistant" and last["content"] and not last.get("tool_calls"):
        return messages[:-1], last["content"]
    return messages, ""


def _thinking(body: OllamaQuestion, asked: Asked, messages: Sequence[Mapping[str, Any]], *, begun: bool) -> Thinking:
    can, switch = asked.model.abilities, body.think if isinstance(body.think, bool) else None
    if switch and begun:
        raise RequestError(
            "think: the last message begins the answer, so the model cannot think before it. Leave think out, or end "
            "the messages with a question.",
            parameter="think",
        )
    if (switch, can.thinking) in ((True, "never"), (False, "always")):
        why = "cannot think" if switch else "always thinks"
        raise RequestError(f"think: this model {why}. Leave think out.", parameter="think")
    if begun:
        return Thinking(False if can.thinking == "optional" else None)
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


def _logprobs(body: OllamaQuestion) -> int | None:
    if body.top_logprobs and not body.logprobs:
        raise RequestError("top_logprobs needs logprobs: true.", parameter="top_logprobs")
    return (body.top_logprobs or 0) if body.logprobs else None


def _plain(number: int, message: OllamaMessage) -> dict[str, Any]:
    """The message in the form that chat templates take: calls are in OpenAI's form, missing fields are left out."""
    if message.images:
        parameter = f"messages[{number}].images"
        raise RequestError(
            f"{parameter} is not supported: the model reads text only. Remove the images.",
            code="unsupported_value",
            parameter=parameter,
        )
    role = "system" if message.role == "developer" else message.role
    plain: dict[str, Any] = {"role": role, "content": message.content or ""}
    if message.thinking is not None and role == "assistant":
        plain["reasoning_content"] = message.thinking
    if calls := [_call(call) for call in message.tool_calls or () if call is not None]:
        plain["tool_calls"] = calls
    if message.tool_name is not None:
        plain["name"] = message.tool_name
    if message.tool_call_id is not None:
        plain["tool_call_id"] = message.tool_call_id
    return plain


def _call(call: OllamaCall) -> Mapping[str, Any]:
    """A tool call of the history, in OpenAI's form. Missing or empty arguments become `{}`."""
    function = {"name": call.function.name, "arguments": call.function.arguments or "{}"}
    plain = {"type": "function", "function": function}
    return {"id": call.id, **plain} if call.id else plain
