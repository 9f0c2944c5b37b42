"""Makes a ChatRequest of the body of a response. Every error names the parameter. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from qwen_edge.chat.messages import ChatRequest
from qwen_edge.core.errors import RequestError
from qwen_edge.core.first import first
from qwen_edge.core.printable import printable
from qwen_edge.server.answering import Asked
from qwen_edge.server.openai.chat_body import ThinkingSwitch
from qwen_edge.server.openai.parse import LONGEST_NAME, most_tokens, template_arguments
from qwen_edge.server.openai.responses.body import FunctionTool, ReasoningOptions, ResponsesBody
from qwen_edge.server.openai.responses.conversation import messages_of
from qwen_edge.server.openai.responses.items import Item
from qwen_edge.server.openai.shapes import wanted_shapes
from qwen_edge.server.sampling import sampling, stop_texts
from qwen_edge.server.shapes import ANY_OBJECT, Wanted, answer_shape
from qwen_edge.server.thinking import Effort, Thinking, thinking
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
    think = _thinking(body, asked, messages, switch)
    shape = answer_shape(
        [*_from_text(body), *wanted_shapes(body)],
        whitespace=bool(body.x_json_whitespace),
        shown=body.x_schema_in_prompt is not False,
        remedy=_REMEDY,
    )
    calls = call_shape([_tool(tool) for tool in body.tools or () if tool], body.tool_choice, "tools[{}].parameters")
    return ChatRequest(
        messages=tuple(messages),
        sampling=sampling(body, asked.model.sampling, defaults, logprobs(body)),
        tools=calls.tools,
        thinking=think.on,
        return_reasoning=first(body.return_reasoning, body.include_reasoning, not _options(body).exclude),
        template_arguments=arguments,
        max_tokens=most_tokens(body, ("max_output_tokens", "max_tokens", "max_completion_tokens"), defaults.max_tokens),
        stop=stop_texts(body.stop),
        parallel_calls=body.parallel_tool_calls is not False,
        priority=body.priority or "interactive",
        wait_seconds=body.wait_seconds,
        max_seconds=body.max_seconds,
        client=asked.client,
        caller=asked.caller,
        conversation=(body.prompt_cache_key or body.user or "")[:LONGEST_NAME],
        goes_on=bool(body.prompt_cache_key),
        volatile=first(body.x_volatile, defaults.volatile),
        shape=shape.shape,
        shape_parameter=shape.parameter,
        shown_schema=shape.shown,
        call_shape=calls.shape,
        requires_call=calls.required,
        strict_calls=calls.strict,
        thinking_budget=think.budget,
        stops_loops=defaults.stop_loops,
        unenforced=(*shape.unenforced, *calls.unenforced),
    )


def includes(body: ResponsesBody, what: str) -> bool:
    """Whether the client asks for this part of the answer."""
    return what in (body.include or ())


def logprobs(body: ResponsesBody) -> int | None:
    """The number of alternatives to report for each token; None for no logprobs."""
    asked = body.top_logprobs or includes(body, "message.output_text.logprobs")
    return (body.top_logprobs or 0) if asked else None


def _options(body: ResponsesBody) -> ReasoningOptions:
    return body.reasoning or ReasoningOptions()


def _thinking(
    body: ResponsesBody, asked: Asked, messages: Sequence[Mapping[str, Any]], switch: bool | None
) -> Thinking:
    """Whether and how long to think, from all the names that clients have for it."""
    options, object_ = _options(body), body.thinking or ThinkingSwitch()
    types = {"enabled": True, "disabled": False}
    think = body.think if isinstance(body.think, bool) else None
    effort: Effort | None = first(
        options.effort, body.reasoning_effort, body.think if body.think in get_args(Effort) else None
    )
    return thinking(
        switch=first(body.enable_thinking, switch, think, types.get(object_.type or ""), options.enabled),
        effort=effort,
        budget=first(body.thinking_budget, body.thinking_budget_tokens, object_.budget_tokens, options.max_tokens),
        effort_parameter="reasoning.effort",
        messages=messages,
        defaults=asked.defaults,
        can=asked.model.abilities,
    )


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
