"""The messages between the daemon and the renderer process: a question and its answer, each one line of JSON. (JSON,
because its integers may have any length.)

In:  Open | Render | RenderNextTurn
Out: Opened | Rendered | Refused
"""

from __future__ import annotations

import msgspec

from qwen_edge.chat.abilities import TemplateAbilities, TemplateSource
from qwen_edge.chat.messages import ChatRequest, ToolCall
from qwen_edge.protocol.messages import Markers, Segment


class Open(msgspec.Struct, frozen=True, tag=True):
    """The first question: compile this template, and probe it if `abilities` is None."""

    source: TemplateSource
    abilities: TemplateAbilities | None = None


class Render(msgspec.Struct, frozen=True, tag=True):
    """Render the prompt of this request."""

    request: ChatRequest


class RenderNextTurn(msgspec.Struct, frozen=True, tag=True):
    """Render the start of the next prompt, given that `content` and `calls` are the answer to this request."""

    request: ChatRequest
    content: str
    calls: tuple[ToolCall, ...]


class Opened(msgspec.Struct, frozen=True, tag=True):
    """The template is usable."""

    abilities: TemplateAbilities


class Rendered(msgspec.Struct, frozen=True, tag=True):
    """A prompt. `reasoning`: the markers around the model's reasoning. `reasons`: the prompt ends with the opening
    marker, so the answer begins inside the reasoning. `reasoned`: the prompt ends behind a closed think block, so the
    answer needs none."""

    prompt: tuple[Segment, ...]
    reasoning: Markers | None = None
    reasons: bool = False
    reasoned: bool = False


class Refused(msgspec.Struct, frozen=True, tag=True):
    """The question cannot be answered. `why`: a sentence for the client; `parameter`: the part of the request at fault.
    `out_of_memory`: memory has run out, and the process ends."""

    why: str
    parameter: str | None = None
    out_of_memory: bool = False


Question = Open | Render | RenderNextTurn
Answer = Opened | Rendered | Refused


def encode(message: Question | Answer) -> bytes:
    """The message as one line. Raises RecursionError if it is nested too deeply."""
    return msgspec.json.encode(message) + b"\n"


def decode_question(line: bytes) -> Question:
    return msgspec.json.decode(line, type=Question)


def decode_answer(line: bytes) -> Answer:
    return msgspec.json.decode(line, type=Answer)
