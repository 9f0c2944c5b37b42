"""Everything that crosses between the daemon and the renderer process: one line of JSON each way, a question and its
answer. JSON, as whole numbers in it may have any length.

In:  Open | Render | Foresee
Out: Opened | Rendered | Refused
"""

from __future__ import annotations

import msgspec

from qwen_edge.chat.abilities import TemplateAbilities, TemplateSource
from qwen_edge.chat.messages import ChatRequest, ToolCall
from qwen_edge.protocol.messages import Markers, Segment


class Open(msgspec.Struct, frozen=True, tag=True):
    """The first question: compile this template. Without `abilities`, find them out."""

    source: TemplateSource
    abilities: TemplateAbilities | None = None


class Render(msgspec.Struct, frozen=True, tag=True):
    """The prompt of this request."""

    request: ChatRequest


class Foresee(msgspec.Struct, frozen=True, tag=True):
    """What the next prompt begins with, when `content` and `calls` are the answer to this request."""

    request: ChatRequest
    content: str
    calls: tuple[ToolCall, ...]


class Opened(msgspec.Struct, frozen=True, tag=True):
    """The template is of use."""

    abilities: TemplateAbilities


class Rendered(msgspec.Struct, frozen=True, tag=True):
    """`reasoning` are the marks around the model's thinking; `reasons`: the prompt itself has opened it."""

    prompt: tuple[Segment, ...]
    reasoning: Markers | None = None
    reasons: bool = False


class Refused(msgspec.Struct, frozen=True, tag=True):
    """It cannot be done: a sentence, and the parameter of the request that it is about. `spent`: memory has run out,
    and the process ends."""

    why: str
    parameter: str | None = None
    spent: bool = False


Question = Open | Render | Foresee
Answer = Opened | Rendered | Refused


def encode(message: Question | Answer) -> bytes:
    """One line. Raises RecursionError for what is nested too deeply."""
    return msgspec.json.encode(message) + b"\n"


def decode_question(line: bytes) -> Question:
    return msgspec.json.decode(line, type=Question)


def decode_answer(line: bytes) -> Answer:
    return msgspec.json.decode(line, type=Answer)
