"""Makes a ChatRequest of the body of a response. Every error names the parameter. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qwen_edge.chat.messages import ChatRequest
from qwen_edge.core.errors import RequestError
from qwen_edge.core.first import first
from qwen_edge.core.printable import printable
from qwen_edge.server.answering import Asked
from qwen_edge.server.chat_request import basic_chat, conversation_name, most_tokens
from qwen_edge.server.openai.parse import template_arguments
from qwen_edge.server.openai.responses.body import FunctionTool, ResponsesBody
from qwen_edge.server.openai.responses.conversation import messages_of
from qwen_edge.server.openai.responses.items import Item
from qwen_edge.server.openai.shapes import wanted_shapes
from qwen_edge.server.openai.thinking import asked_thinking, returns_reasoning
from qwen_edge.server.sampling import sampling, stop_texts
from qwen_edge.server.shapes import ANY_OBJECT, Wanted, answer_shape
from qwen_edge.server.tool_choice import Tool, call_shape

_REMEDY = 'accept answers that are not held to it: text.format with "strict": false'


def to_request(body: ResponsesBody, items: Sequence[Item], asked: Asked, stored: int = 0) -> ChatRequest:
    """The request. `items`: the whole conversation, of which `stored` items are not in the body. Raises
    RequestError."""
    defaults = asked.defaults
    messages = messages_of(items, stored)
    if not messages:
        raise RequestError("input is missing: send a text, or a list of items.", parameter="input")
    if body.instructions:
        messages = [{"role": "system", "content": body.instructions}, *messages]
    arguments, switch = template_arguments(body.chat_template_kwargs)
    think = asked_thinking(
        body,
        asked,
        messages,
        template_switch=switch,
        effort=body.reasoning.effort if body.reasoning else None,
        effort_parameter="reasoning.effort",
    )
    shape = answer_shape(
        [*_from_text(body), *wanted_shapes(body)],
        whitespace=bool(body.x_json_whitespace),
        shown=body.x_schema_in_prompt is not False,
        remedy=_REMEDY,
    )
    calls = call_shape([_tool(tool) for tool in body.tools or () if tool], body.tool_choice, "tools[{}].parameters")
    request = basic_chat(
        asked, sampling(body, asked.model.sampling, defaults, logprobs(body)), messages, think, shape, calls
    )
    return replace(
        request,
        return_reasoning=returns_reasoning(body),
        template_arguments=arguments,
        max_tokens=most_tokens(body, ("max_output_tokens", "max_tokens", "max_completion_tokens"), defaults.max_tokens),
        stop=stop_texts(body.stop),
        parallel_calls=body.parallel_tool_calls is not False,
        priority=body.priority or "interactive",
        wait_seconds=body.wait_seconds,
        max_seconds=body.max_seconds,
        conversation=conversation_name(body.prompt_cache_key, body.user),
        goes_on=bool(body.prompt_cache_key),
        volatile=first(body.x_volatile, defaults.volatile),
    )


def includes(body: ResponsesBody, what: str) -> bool:
    """Whether the client asks for this part of the answer."""
    return what in (body.include or ())


def logprobs(body: ResponsesBody) -> int | None:
    """The number of alternatives to report for each token; None for no logprobs."""
    asked = body.top_logprobs or includes(body, "message.output_text.logprobs")
    return (body.top_logprobs or 0) if asked else None


def _from_text(body: ResponsesBody) -> list[Wanted]:
    """The shape that text.format asks for."""
    form = body.text.format if body.text else None
    kind = form.type if form else None
    if form is None or kind in (None, "text"):
        return []
    if kind == "json_object":
        return [Wanted("text.format", "json_schema", ANY_OBJECT if form.schema is None else form.schema)]
    if kind != "json_schema":
        raise RequestError(
            f'text.format.type: {printable(str(kind), 60)!r} is unknown. Send "text", "json_object" or "json_schema".',
            code="unsupported_value",
            parameter="text.format.type",
        )
    if form.schema is None:
        raise RequestError(
            'text.format.schema is missing: with type "json_schema" it holds the schema.',
            parameter="text.format.schema",
        )
    return [Wanted("text.format.schema", "json_schema", form.schema, form.strict)]


def _tool(tool: FunctionTool) -> Tool:
    """The tool in the form of chat completions, which templates take."""
    more = {"description": tool.description, "parameters": tool.parameters, "strict": tool.strict}
    function = {"name": tool.name, **{name: value for name, value in more.items() if value is not None}}
    return {"type": "function", "function": function}
