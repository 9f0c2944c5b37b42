"""The response object: what of the request it repeats, and how it ends. Pure.

Reference: https://platform.openai.com/docs/api-reference/responses/object.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from qwen_edge.chat.messages import ChatRequest, Finish
from qwen_edge.core.errors import ErrorKind, RequestError
from qwen_edge.core.first import first
from qwen_edge.server.answer_fields import energy, stopped
from qwen_edge.server.openai.errors import error_object
from qwen_edge.server.openai.responses.body import Format, FunctionTool, ReasoningOptions, ResponsesBody, TextOptions
from qwen_edge.server.replies import Json

# the words that the reference has for an error of a response
_CODES: Mapping[ErrorKind, str] = {"rate_limited": "rate_limit_exceeded", "invalid_request": "invalid_prompt"}


def begun(body: ResponsesBody, chat: ChatRequest, model: str) -> Json:
    """The response before its first item."""
    reasoning = body.reasoning or ReasoningOptions()
    return {
        "id": f"resp_{secrets.token_hex(16)}",
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": chat.max_tokens,
        "max_tool_calls": body.max_tool_calls,
        "metadata": body.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": chat.parallel_calls,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "prompt_cache_retention": body.prompt_cache_retention,
        "reasoning": {
            "effort": first(reasoning.effort, body.reasoning_effort),
            "summary": first(reasoning.summary, reasoning.generate_summary),
        },
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": body.store is not False,
        "temperature": chat.sampling.temperature,
        "text": _text(body.text or TextOptions()),
        "tool_choice": _tool_choice(body.tool_choice),
        "tools": [_tool(tool) for tool in body.tools or () if tool],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": chat.sampling.top_p,
        "truncation": body.truncation or "disabled",
        "usage": None,
        "user": body.user,
    }


def ended(response: Json, output: list[Json], finish: Finish) -> Json:
    """The response with all its items."""
    cut = finish.reason == "length"
    return {
        **response,
        "status": "incomplete" if cut else "completed",
        "completed_at": None if cut else int(time.time()),
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "output": output,
        "usage": _usage(finish),
        **stopped(finish),
    }


def failed(response: Json, output: list[Json], error: RequestError) -> Json:
    """The response that an error has ended, with what there was of it."""
    message = error_object(error)["error"]["message"]
    code = _CODES.get(error.kind, "server_error")
    return {**response, "status": "failed", "output": output, "error": {"code": code, "message": message}}


def _usage(finish: Finish) -> Json:
    usage = finish.usage
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.prompt_tokens - usage.cached_tokens,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "x_forced_tokens": usage.steered.forced,
        },
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        **energy(usage),
    }


def _text(text: TextOptions) -> Json:
    form = text.format or Format()
    shown: Json = {"type": form.type or "text"}
    if form.type == "json_schema":
        shown |= {"name": form.name, "description": form.description, "schema": form.schema, "strict": form.strict}
    return {"format": shown, "verbosity": text.verbosity or "medium"}


def _tool(tool: FunctionTool) -> Json:
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict is not False,
    }


def _tool_choice(choice: str | Mapping[str, Any] | None) -> Any:
    """The choice in the reference's form, whatever form the client has sent."""
    if choice == "any":
        return "required"
    if not isinstance(choice, Mapping):
        return choice or "auto"
    if isinstance(function := choice.get("function"), Mapping):
        return {"type": "function", "name": function.get("name")}
    if isinstance(allowed := choice.get("allowed_tools"), Mapping):
        return {"type": "allowed_tools", **allowed}
    return dict(choice)
