"""Finds out what a model's chat template can do, by rendering small conversations with it.

The template's source does not tell: a name may stand in a comment, and only running the template shows what it does
with tools or a system message. So each probe puts words that occur nowhere else into a conversation and searches the
prompt for them. Pure; jinja2 is not imported here, because the daemon reads these values and renders in another
process.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from qwen_edge.protocol.messages import Ready

Message = Mapping[str, Any]

_SYSTEM, _FIRST, _ANSWER, _SECOND, _RESULT = "probesystem", "probefirst", "probeanswer", "probesecond", "proberesult"
_TOOL, _KEY, _VALUE = "probetool", "probekey", "probevalue"
_ARGUMENTS = {_KEY: _VALUE}


class TemplateSource(msgspec.Struct, frozen=True):
    """A model's chat template, in jinja2. `tool_use`: the template for conversations with tools, if the model has a
    separate one. `specials`: the texts of the model's special tokens; `bos` and `eos` are two of them, or empty."""

    default: str
    tool_use: str | None = None
    specials: tuple[str, ...] = ()
    bos: str = ""
    eos: str = ""

    @classmethod
    def of(cls, model: Ready) -> TemplateSource | None:
        """The templates of a loaded model; None if it has none."""
        return cls.chosen(model.chat_template, model.tool_template, model.specials, model.bos_token, model.eos_token)

    @classmethod
    def chosen(
        cls, default: str | None, tool_use: str | None, specials: tuple[str, ...], bos: str, eos: str
    ) -> TemplateSource | None:
        """From the two templates that a model file may have. A tool template without a default one is used for all
        conversations. None if the file has neither."""
        source = default or tool_use
        return cls(source, tool_use or None, specials, bos, eos) if source else None


class TemplateAbilities(msgspec.Struct, frozen=True):
    """What a request may ask of the template. `tools`: it renders the offered tools. `calls`: it renders the tool calls
    of earlier turns; `arguments`: whether it takes their arguments as JSON text or as an object. `thinking`: whether
    enable_thinking changes the prompt of a model that thinks."""

    system: bool = False
    tools: bool = False
    calls: bool = False
    arguments: Literal["text", "object"] = "text"
    thinking: Literal["never", "optional", "always"] = "never"

    def __str__(self) -> str:
        known = {"system messages": self.system, "tools": self.tools, "calls of tools": self.calls}
        thinking = {"never": "no thinking", "optional": "thinking on or off", "always": "always thinking"}
        words = [name if there else f"no {name}" for name, there in known.items()]
        return ", ".join([*words, thinking[self.thinking]])


class Outcome(msgspec.Struct, frozen=True):
    """The result of rendering. `declined`: why the template refused the messages; `fault`: how it failed."""

    text: str = ""
    declined: str = ""
    fault: str = ""


Render = Callable[[Mapping[str, Any]], Outcome]


class Findings(msgspec.Struct, frozen=True):
    """The result of probing a template. `fault` says why the template is unusable; empty if it is usable."""

    abilities: TemplateAbilities
    fault: str = ""


def probe(default: Render, tool_use: Render, *, thinks: bool) -> Findings:
    """Probe the template for conversations without tools and the one for conversations with tools. `thinks`: the
    template contains the think markers."""
    faults = list[str]()
    system = _shows_system(default, faults)
    tools = _shows_tools(tool_use, faults)
    calls, arguments = _shows_calls(tool_use, faults)
    thinking: Literal["never", "optional", "always"] = "never"
    if thinks:
        thinking = "optional" if _can_switch_thinking(default, faults) else "always"
    return Findings(TemplateAbilities(system, tools, calls, arguments, thinking), next(iter(faults), ""))


def _shows_system(render: Render, faults: list[str]) -> bool:
    """Whether the template renders system messages. A template that renders no conversation at all is at fault."""
    question = _user(_SECOND)
    turns = (_user(_FIRST), {"role": "assistant", "content": _ANSWER}, question)
    plain = _first_taken(render, turns, (question,))
    system = _first_taken(render, (_system(), *turns), (_system(), question))
    if plain.fault:
        faults.append(f"it fails with a plain conversation: {plain.fault}")
    elif system.fault:
        faults.append(f"it fails with a system message: {system.fault}")
    elif _SECOND not in plain.text + system.text:
        nothing = "it renders nothing" if not plain.text.strip() else "it ignores the messages"
        faults.append(f"it takes no plain question: {plain.declined}" if plain.declined else nothing)
    return _SYSTEM in system.text


def _first_taken(render: Render, *conversations: Sequence[Message]) -> Outcome:
    """The outcome of the first conversation that the template does not decline."""
    outcomes = [_outcome(render, messages) for messages in conversations]
    return next((outcome for outcome in outcomes if not outcome.declined), outcomes[-1])


def _shows_tools(render: Render, faults: list[str]) -> bool:
    """Whether the template renders the offered tools."""
    outcomes = [_outcome(render, (*start, _user(_FIRST)), tools=_tools(_TOOL)) for start in ((_system(),), ())]
    faults += _common_fault("tools", outcomes)
    return any(_TOOL in outcome.text for outcome in outcomes)


def _shows_calls(render: Render, faults: list[str]) -> tuple[bool, Literal["text", "object"]]:
    """Whether the template renders the tool calls of earlier turns, and in which form it takes their arguments. Text is
    preferred if both work, because it is exactly what the model has written."""
    text = json.dumps(_ARGUMENTS)
    as_text = _render_calls(render, text)
    if any(text in outcome.text for outcome in as_text):
        return True, "text"
    as_object = _render_calls(render, _ARGUMENTS)
    if any(_VALUE in outcome.text for outcome in as_object):
        return True, "object"
    faults += _common_fault("calls of tools", [*as_text, *as_object])
    return any(_TOOL in outcome.text for outcome in (*as_text, *as_object)), "text"


def _render_calls(render: Render, arguments: Any) -> list[Outcome]:
    """The outcomes of conversations with a tool call, from the most complete conversation to the call alone."""
    call = {"id": "probe0001", "type": "function", "function": {"name": _TOOL, "arguments": arguments}}
    said = {"role": "assistant", "content": "", "tool_calls": [call]}
    result = {"role": "tool", "content": _RESULT, "tool_call_id": "probe0001", "name": _TOOL}
    shapes = ((_system(), _user(_FIRST), said, result), (_user(_FIRST), said, result), (_user(_FIRST), said), (said,))
    return [_outcome(render, shape, tools=_tools("probeother")) for shape in shapes]


def _can_switch_thinking(render: Render, faults: list[str]) -> bool:
    """Whether enable_thinking changes the prompt."""
    on, off = (_outcome(render, (_user(_FIRST),), enable_thinking=thinking) for thinking in (True, False))
    faults += _common_fault("enable_thinking", [on, off])
    return on != off


def _common_fault(what: str, outcomes: Sequence[Outcome]) -> list[str]:
    """The first fault, if every outcome is a fault."""
    return [f"it fails with {what}: {outcomes[0].fault}"] if all(outcome.fault for outcome in outcomes) else []


def _outcome(render: Render, messages: Sequence[Message], **variables: Any) -> Outcome:
    return render({"messages": list(messages), "tools": None, "add_generation_prompt": True, **variables})


def _tools(name: str) -> list[Message]:
    parameters = {"type": "object", "properties": {"place": {"type": "string", "description": "A place."}}}
    return [{"type": "function", "function": {"name": name, "description": "A tool.", "parameters": parameters}}]


def _system() -> Message:
    return {"role": "system", "content": _SYSTEM}


def _user(text: str) -> Message:
    return {"role": "user", "content": text}
