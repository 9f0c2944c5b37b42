"""Messages to a prompt, by the model's own chat template.

The template comes with the model, as jinja2 in the GGUF, and is rendered as Hugging Face renders it, in a sandbox.
What users, tools and documents say must never be read as control tokens. So before rendering, every special-token
text inside the messages is broken by a mark that no message contains; in the result, an unbroken one can only be the
template's own. The prompt leaves here as segments: special tokens, and text in which nothing is special.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import takewhile
from typing import Any, TypeVar

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from qwen_edge.chat.messages import ChatRequest, Content, Delta, ToolCall
from qwen_edge.chat.volatile import moved, taken_out
from qwen_edge.errors import RequestError
from qwen_edge.messages import Markers, Segment

_T = TypeVar("_T")

THINK = Markers("<think>", "</think>")

# noncharacters: valid in a string, meaningless in any text (https://www.unicode.org/faq/private_use.html#noncharacters)
_MARKS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


class ChatTemplate:
    """Compiled once a model; `render` is called on the daemon's event loop and takes well under a millisecond."""

    def __init__(self, source: str, specials: Collection[str]) -> None:
        """`specials` are the texts of the model's special tokens. Raises jinja2.TemplateSyntaxError."""
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self._template = environment.from_string(source)
        self._specials = re.compile("|".join(re.escape(text) for text in sorted(specials, key=len, reverse=True)))
        self._arguments_as_text = "is string" in source
        self.reasoning = THINK if THINK.close in source else None
        self.thinking_is_optional = "enable_thinking" in source

    def render(self, request: ChatRequest) -> tuple[Segment, ...]:
        """The prompt. Raises RequestError if the template refuses the messages or cannot do what is asked."""
        self._check_thinking(request.thinking)
        if request.volatile:
            request = replace(request, messages=moved(request.messages), volatile=False)
        try:
            mark = _unused_mark([request.messages, request.tools, request.template_arguments])
            prompt = self._template.render(self._variables(request, mark))
        except RecursionError:
            raise RequestError("The messages or tools are nested too deeply.") from None
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            raise RequestError(
                f"The model's chat template cannot render these messages: {error}", param="messages"
            ) from None
        return tuple(self._segments(prompt, mark))

    def next_turn(self, request: ChatRequest, answer: Sequence[Delta]) -> tuple[Segment, ...]:
        """What the prompt of the next turn will begin with, if this is the answer, whatever is said then: so far as two
        that differ in nothing else agree. The tokens of the last text may turn out otherwise when it goes on. Raises
        RequestError."""
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(piece.text for piece in answer if isinstance(piece, Content)),
        }
        calls = [piece for piece in answer if isinstance(piece, ToolCall)]
        if calls:
            functions = ({"name": call.name, "arguments": call.arguments} for call in calls)
            message["tool_calls"] = [{"type": "function", "function": function} for function in functions]
        elif request.volatile:
            # the next question brings another clock; with a tool's result the one before keeps its own
            request = replace(request, messages=taken_out(request.messages)[0], volatile=False)
        role = "tool" if calls else "user"
        turns = ((*request.messages, message, {"role": role, "content": said}) for said in "01")
        one, other = (self.render(replace(request, messages=messages)) for messages in turns)
        same = _agreeing(one, other)
        texts = [prompt[len(same)].text if len(prompt) > len(same) else "" for prompt in (one, other)]
        begun = "".join(_agreeing(*texts))
        return (*same, Segment(begun)) if begun else tuple(same)

    def _variables(self, request: ChatRequest, mark: str) -> dict[str, Any]:
        """What the template sees; nothing in it can be taken for a special token."""
        messages = [self._prepare(message) for message in request.messages]
        variables = {
            **self._defuse(request.template_arguments, mark),
            "messages": self._defuse(messages, mark),
            "tools": self._defuse(request.tools, mark) or None,
            "add_generation_prompt": True,
        }
        if request.thinking is not None:
            variables["enable_thinking"] = request.thinking
        return variables

    def _check_thinking(self, thinking: bool | None) -> None:
        if thinking and self.reasoning is None:
            raise RequestError("This model cannot think: leave enable_thinking out.", param="enable_thinking")
        if thinking is False and self.reasoning and not self.thinking_is_optional:
            raise RequestError(
                "This model always thinks: enable_thinking=false has no effect.", param="enable_thinking"
            )

    def _prepare(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """An assistant's message as the template takes it, so that its own cutting of think blocks is not needed."""
        if message["role"] != "assistant":
            return message
        prepared = dict(message)
        if self.reasoning and "reasoning_content" not in message and self.reasoning.close in message["content"]:
            thought, _, rest = message["content"].partition(self.reasoning.close)
            prepared["reasoning_content"] = thought.rpartition(self.reasoning.open)[2].strip("\n")
            prepared["content"] = rest.rpartition(self.reasoning.close)[2].lstrip("\n")
        if "tool_calls" in message and not self._arguments_as_text:
            prepared["tool_calls"] = [_with_parsed_arguments(call) for call in message["tool_calls"]]
        return prepared

    def _defuse(self, value: Any, mark: str) -> Any:
        """The value with the mark inside every special-token text."""
        if isinstance(value, str):
            return self._specials.sub(lambda match: match[0][0] + mark + match[0][1:], value)
        if isinstance(value, Mapping):
            return {self._defuse(key, mark): self._defuse(item, mark) for key, item in value.items()}
        if isinstance(value, Sequence):
            return [self._defuse(item, mark) for item in value]
        return value

    def _segments(self, prompt: str, mark: str) -> list[Segment]:
        segments, end = [], 0
        for match in self._specials.finditer(prompt):
            if plain := prompt[end : match.start()].replace(mark, ""):
                segments.append(Segment(plain))
            segments.append(Segment(match[0], special=True))
            end = match.end()
        if plain := prompt[end:].replace(mark, ""):
            segments.append(Segment(plain))
        return segments


def _agreeing(one: Sequence[_T], other: Sequence[_T]) -> list[_T]:
    """What two sequences begin with."""
    return [item for item, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))]


def opens_reasoning(prompt: Sequence[Segment]) -> bool:
    """Whether the template has opened the think block itself, so that the answer begins inside it."""
    return "".join(segment.text for segment in prompt[-2:]).rstrip().endswith(THINK.open)


def _with_parsed_arguments(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """Arguments as an object, for templates that print them as JSON whatever they are."""
    function = call["function"]
    try:
        return {**call, "function": {**function, "arguments": json.loads(function["arguments"])}}
    except (TypeError, ValueError):
        return call


def _unused_mark(values: Any) -> str:
    text = json.dumps(values, ensure_ascii=False)
    for mark in _MARKS:
        if mark not in text:
            return mark
    raise RequestError("The messages contain all 32 Unicode noncharacters from U+FDD0 on.", param="messages")


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
