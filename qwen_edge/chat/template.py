"""Renders messages to a prompt with the model's own chat template.

The template comes with the model, as jinja2 in the GGUF, and is rendered as Hugging Face renders it, in a sandbox.
Text of users, tools and documents must never be read as control tokens. So before rendering, a mark that no message
contains is inserted into every special-token text inside the messages. After rendering, a special-token text without
the mark can only come from the template. The prompt is returned as segments: special tokens, and plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import takewhile
from typing import Any, TypeVar

from qwen_edge.chat.abilities import Findings, Outcome, TemplateAbilities, TemplateSource, probe
from qwen_edge.chat.jinja import DeclinedError, Program, error_line, to_json
from qwen_edge.chat.messages import ChatRequest, ToolCall
from qwen_edge.chat.schema_prompt import with_schema
from qwen_edge.chat.tools import in_order
from qwen_edge.chat.volatile import moved, taken_out
from qwen_edge.core.errors import RequestError
from qwen_edge.protocol.messages import Markers, Segment

_T = TypeVar("_T")

THINK = Markers("<think>", "</think>")

# noncharacters: valid in a string, meaningless in any text (https://www.unicode.org/faq/private_use.html#noncharacters)
_UNUSED_CHARACTERS = [chr(code) for code in range(0xFDD0, 0xFDF0)]


class ChatTemplate:
    """One compiled template, for all requests to a model. `abilities` says what requests may ask for: `probe` finds
    that out (`findings`) by rendering small conversations through `_try`, which returns errors as values.

    A template may loop for ever, so the daemon renders in another process (`renderer/`)."""

    def __init__(
        self,
        source: str,
        specials: Collection[str],
        *,
        tool_use: str | None = None,
        bos: str = "",
        eos: str = "",
        abilities: TemplateAbilities | None = None,
    ) -> None:
        """See TemplateSource. Without `abilities`, the template is probed when they are first needed. Raises
        jinja2.TemplateSyntaxError, or any exception that compiling the template causes."""
        self._template = Program(source)
        self._tool_use = self._template if tool_use is None else Program(tool_use)
        self._tokens = {name: text for name, text in (("bos_token", bos), ("eos_token", eos)) if text}
        texts = sorted(specials, key=len, reverse=True)
        self._specials = re.compile("|".join(re.escape(text) for text in texts) or "(?!)")
        self.reasoning = THINK if THINK.close in source + (tool_use or "") else None
        self._known = abilities

    @classmethod
    def of(cls, source: TemplateSource, abilities: TemplateAbilities | None = None) -> ChatTemplate:
        """Raises as the constructor does."""
        return cls(
            source.default,
            source.specials,
            tool_use=source.tool_use,
            bos=source.bos,
            eos=source.eos,
            abilities=abilities,
        )

    @cached_property
    def abilities(self) -> TemplateAbilities:
        """What requests may ask for."""
        return self._known or self.findings.abilities

    @cached_property
    def findings(self) -> Findings:
        """The result of probing the template: its abilities, and what is wrong with it."""
        return probe(self._try(self._template), self._try(self._tool_use), thinks=self.reasoning is not None)

    def render(self, request: ChatRequest) -> tuple[Segment, ...]:
        """Render the prompt. Raises RequestError if the template refuses the messages or lacks a requested ability."""
        self._check(request)
        if request.volatile:
            request = replace(request, messages=moved(request.messages), volatile=False)
        if request.shown_schema:
            messages = with_schema(request.messages, request.shown_schema, system=self.abilities.system)
            request = replace(request, messages=messages)
        try:
            mark = _unused_mark([request.messages, request.tools, request.template_arguments])
            prompt = self._program(request).render(**self._variables(request, mark))
        except RequestError:
            raise
        except Exception as error:  # the template is untrusted code: it may raise anything
            raise RequestError(
                f"The model's chat template cannot render these messages: {error_line(error)}", parameter="messages"
            ) from None
        return tuple(self._segments(prompt, mark))

    def with_beginning(self, prompt: Sequence[Segment], begun: str) -> tuple[Segment, ...]:
        """The prompt with the beginning of the answer, which the model is to continue. An open think block is closed
        before it."""
        closed = self._segments(f"\n{THINK.close}\n\n", "") if opens_reasoning(prompt) else []
        return (*prompt, *closed, Segment(begun))

    def next_turn(self, request: ChatRequest, content: str, calls: Sequence[ToolCall] = ()) -> tuple[Segment, ...]:
        """Return the start of the next prompt, given that `content` and `calls` are the answer. Render two next turns
        that differ only in the new message, and return their common start. The last segment may tokenize differently
        once more text follows it. Raises RequestError."""
        message: dict[str, Any] = {"role": "assistant", "content": request.begun + content}
        request = replace(request, begun="")
        if calls:
            functions = ({"name": call.name, "arguments": call.arguments} for call in calls)
            message["tool_calls"] = [{"type": "function", "function": function} for function in functions]
        elif request.volatile:
            # the next question has its own volatile text; a tool's result leaves that of this question in place
            request = replace(request, messages=taken_out(request.messages)[0], volatile=False)
        role = "tool" if calls else "user"
        turns = ((*request.messages, message, {"role": role, "content": said}) for said in "01")
        one, other = (self.render(replace(request, messages=messages)) for messages in turns)
        same = _common_start(one, other)
        texts = [prompt[len(same)].text if len(prompt) > len(same) else "" for prompt in (one, other)]
        begun = "".join(_common_start(*texts))
        return (*same, Segment(begun)) if begun else tuple(same)

    def _check(self, request: ChatRequest) -> None:
        """Raises RequestError for anything that the template would silently drop, or cannot do."""
        can, roles = self.abilities, {message["role"] for message in request.messages}
        if request.tools and not can.tools:
            raise RequestError("This model's chat template has no place for tools: leave tools out.", parameter="tools")
        if not can.calls and any(message.get("tool_calls") for message in request.messages):
            raise RequestError(
                "This model's chat template has no place for calls of tools: leave tool_calls out.",
                parameter="messages",
            )
        if "system" in roles and not can.system:
            raise RequestError(
                "This model's chat template has no place for system messages: put their text before the first "
                "question.",
                parameter="messages",
            )
        if request.thinking and self.reasoning is None:
            raise RequestError("This model cannot think: leave enable_thinking out.", parameter="enable_thinking")
        if request.thinking is False and can.thinking == "always" and request.thinking_budget != 0:
            raise RequestError(
                "This model always thinks: enable_thinking=false has no effect. thinking_budget: 0 closes the thinking "
                "at once.",
                parameter="enable_thinking",
            )

    def _program(self, request: ChatRequest) -> Program:
        """The template for this conversation: the tool template if there are tools, tool calls or tool results."""
        uses_tools = request.tools or any(
            message["role"] == "tool" or message.get("tool_calls") for message in request.messages
        )
        return self._tool_use if uses_tools else self._template

    def _try(self, program: Program) -> Any:
        """Wrap the template for `probe`: errors are returned as an Outcome, not raised."""

        def render(variables: Mapping[str, Any]) -> Outcome:
            try:
                return Outcome(program.render(**{**self._tokens, **variables}))
            except DeclinedError as error:
                return Outcome(declined=error_line(error))
            except Exception as error:  # the template is untrusted code: it may raise anything
                return Outcome(fault=error_line(error))

        return render

    def _variables(self, request: ChatRequest, mark: str) -> dict[str, Any]:
        """The template's variables, with the mark in every special-token text that a client has written."""
        messages = [self._prepare(message) for message in request.messages]
        variables = {
            **self._tokens,
            **self._defuse(request.template_arguments, mark),
            "messages": self._defuse(messages, mark),
            "tools": self._defuse(in_order(request.tools), mark) or None,
            "add_generation_prompt": True,
        }
        if request.thinking is not None:
            variables["enable_thinking"] = request.thinking
        return variables

    def _prepare(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """Move a think block from the content of an assistant's message to `reasoning_content`, so that the template
        need not cut it out, and convert the arguments of tool calls."""
        if message["role"] != "assistant":
            return message
        prepared = dict(message)
        if self.reasoning and "reasoning_content" not in message and self.reasoning.close in message["content"]:
            thought, _, rest = message["content"].partition(self.reasoning.close)
            prepared["reasoning_content"] = thought.rpartition(self.reasoning.open)[2].strip("\n")
            prepared["content"] = rest.rpartition(self.reasoning.close)[2].lstrip("\n")
        if message.get("tool_calls"):
            prepared["tool_calls"] = [self._prepare_call(call) for call in message["tool_calls"]]
        return prepared

    def _prepare_call(self, call: Mapping[str, Any]) -> Mapping[str, Any]:
        """The call with its arguments as JSON text or as an object, whichever the template takes."""
        function = call.get("function")
        if not isinstance(function, Mapping):
            return call
        given = function.get("arguments")
        arguments = _as_text(given) if self.abilities.arguments == "text" else _as_object(given)
        return {**call, "function": {**function, "arguments": arguments}}

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


def _common_start(one: Sequence[_T], other: Sequence[_T]) -> list[_T]:
    """The longest common prefix of two sequences."""
    return [item for item, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))]


def opens_reasoning(prompt: Sequence[Segment]) -> bool:
    """Whether the prompt ends with an open think block, so that the answer begins inside it."""
    return "".join(segment.text for segment in prompt[-2:]).rstrip().endswith(THINK.open)


def closes_reasoning(prompt: Sequence[Segment]) -> bool:
    """Whether the prompt ends behind a closed think block, as it does with thinking switched off."""
    return "".join(segment.text for segment in prompt[-2:]).rstrip().endswith(THINK.close)


def _as_text(arguments: Any) -> str:
    """The arguments as JSON text. Text is returned unchanged; missing arguments become an empty object."""
    if isinstance(arguments, str):
        return arguments if arguments.strip() else "{}"
    return "{}" if arguments is None else to_json(arguments)


def _as_object(arguments: Any) -> Any:
    """The arguments as an object, for templates that print JSON themselves or list the arguments. Text that is not a
    JSON object (from another server's model) becomes the value of `arguments`."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments) if arguments.strip() else {}
        except (ValueError, RecursionError):
            return {"arguments": arguments}
    if arguments is None:
        return {}
    return arguments if isinstance(arguments, Mapping) else {"arguments": arguments}


def _unused_mark(values: Any) -> str:
    """A character that occurs nowhere in `values`. Raises RequestError if there is none."""
    text = json.dumps(values, ensure_ascii=False)
    for mark in _UNUSED_CHARACTERS:
        if mark not in text:
            return mark
    raise RequestError("The messages contain all 32 Unicode noncharacters from U+FDD0 on.", parameter="messages")
