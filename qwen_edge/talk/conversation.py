"""The messages of one conversation: asked, answered, taken back, written to a file and read again. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from qwen_edge.core.errors import UserError

Json = dict[str, Any]

NOT_RUN = "This function was not run: there is no result."  # sent for a call to which nobody has given a result


class Call(msgspec.Struct, frozen=True):
    """A function that the model calls. `arguments` is JSON as the model wrote it."""

    name: str
    arguments: str
    id: str = ""


class Message(msgspec.Struct, frozen=True):
    """One message. `reasoning` and `calls` are the assistant's; `call_id` is the call of which a tool tells the
    result."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    reasoning: str = ""
    calls: tuple[Call, ...] = ()
    call_id: str = ""


class Conversation:
    """The messages, the system prompt first if there is one."""

    def __init__(self, messages: Sequence[Message] = ()) -> None:
        self._messages = list(messages)

    @property
    def messages(self) -> tuple[Message, ...]:
        return tuple(self._messages)

    @property
    def system(self) -> str:
        """The system prompt, or an empty text."""
        first = self._messages[:1]
        return first[0].content if first and first[0].role == "system" else ""

    @system.setter
    def system(self, text: str) -> None:
        if self._messages and self._messages[0].role == "system":
            del self._messages[0]
        if text:
            self._messages.insert(0, Message("system", well_formed(text)))

    def ask(self, text: str) -> None:
        """Add a question."""
        self._messages.append(Message("user", well_formed(text)))

    def answer(self, content: str, reasoning: str = "", calls: Sequence[Call] = ()) -> None:
        """Add an answer."""
        whole = [Call(well_formed(one.name), well_formed(one.arguments), well_formed(one.id)) for one in calls]
        self._messages.append(Message("assistant", well_formed(content), well_formed(reasoning), tuple(whole)))

    def undo(self) -> str | None:
        """Take back the last question and all that came after it. Returns the question; None if there is none."""
        for at in range(len(self._messages) - 1, -1, -1):
            if self._messages[at].role == "user":
                question = self._messages[at].content
                del self._messages[at:]
                return question
        return None

    def clear(self) -> None:
        """Forget everything but the system prompt."""
        system = self.system
        self._messages.clear()
        self.system = system

    def to_send(self) -> list[Json]:
        """The messages as a request has them: without reasoning, which models do not read again, and with a result for
        every call, which OpenAI's API requires."""
        sent, open_ids = list[Json](), list[str]()
        for message in self._messages:
            if message.role == "tool":
                open_ids = [one for one in open_ids if one != message.call_id]
            else:
                sent += _not_run(open_ids)
                open_ids = [one.id for one in message.calls]
            sent.append(_as_json(message, reasoning=False))
        return sent + _not_run(open_ids)

    def dumps(self) -> bytes:
        """The messages as a JSON list, in OpenAI's form; the reasoning stands in `reasoning_content`."""
        return msgspec.json.format(msgspec.json.encode([_as_json(one) for one in self._messages]), indent=1) + b"\n"

    @classmethod
    def loads(cls, data: bytes, where: str) -> Conversation:
        """The conversation in a JSON list of messages, or in an object that has such a list as `messages`. What no
        conversation here can hold, such as pictures, is an error. `where`: the name in errors. Raises UserError."""
        try:
            found = msgspec.json.decode(data, type=list[_Read] | _Request)
        except msgspec.ValidationError as error:
            raise UserError(f"{where} is no conversation: {error}. It must be a list of messages.") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{where} is not JSON: {error}.") from None
        except RecursionError:
            raise UserError(f"{where} is no conversation: too many lists are inside each other.") from None
        return cls([one.message() for one in (found.messages if isinstance(found, _Request) else found)])


def calls_as_json(calls: Sequence[Call]) -> list[Json]:
    """Calls in OpenAI's form."""
    return [
        {"id": one.id, "type": "function", "function": {"name": one.name, "arguments": one.arguments}} for one in calls
    ]


def well_formed(text: str) -> str:
    """The text without halves of surrogate pairs, which no request and no file can hold."""
    return text.encode("utf-8", errors="replace").decode()


class _Part(msgspec.Struct):
    """A part of a message in OpenAI's form: text."""

    type: Literal["text"]
    text: str


class _Function(msgspec.Struct):
    name: str
    arguments: str = ""


class _ReadCall(msgspec.Struct):
    function: _Function
    id: str = ""


class _Read(msgspec.Struct):
    """A message in OpenAI's form, as far as a conversation needs it."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[_Part] | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ReadCall] | None = None
    tool_call_id: str | None = None

    def message(self) -> Message:
        parts = self.content or ""
        content = parts if isinstance(parts, str) else "".join(one.text for one in parts)
        calls = tuple(Call(one.function.name, one.function.arguments, one.id) for one in self.tool_calls or ())
        role = "system" if self.role == "developer" else self.role
        return Message(role, content, self.reasoning_content or "", calls, self.tool_call_id or "")


class _Request(msgspec.Struct):
    """A whole request, as programs log it."""

    messages: list[_Read]


class _Written(msgspec.Struct, omit_defaults=True):
    role: str
    content: str | None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[Json] | UnsetType = UNSET
    tool_call_id: str | UnsetType = UNSET


def _as_json(message: Message, *, reasoning: bool = True) -> Json:
    calls = calls_as_json(message.calls)
    written = _Written(
        message.role,
        message.content if message.content or not calls else None,
        (reasoning and message.reasoning) or UNSET,
        calls or UNSET,
        message.call_id or UNSET,
    )
    built: Json = msgspec.to_builtins(written)
    return built


def _not_run(ids: Sequence[str]) -> list[Json]:
    return [{"role": "tool", "tool_call_id": one, "content": NOT_RUN} for one in ids]
