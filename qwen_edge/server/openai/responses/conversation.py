"""Makes the messages that a chat template takes of items. Pure.

An assistant's turn is several items (reasoning, a message, calls), and one message for the template: the same text that
the turn had when the model wrote it, so that it is found in the KV cache.
"""

from __future__ import annotations

from collections.abc import Sequence

from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.server.chat_request import Plain, plain_call
from qwen_edge.server.openai.responses.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    Reasoning,
    text_of,
)
from qwen_edge.server.openai.responses.reasoning_text import MOST_UNPACKED, unpacked


def messages_of(items: Sequence[Item], stored: int = 0) -> list[Plain]:
    """The messages. `stored`: how many of the items are not of this request's input, which errors name. Raises
    RequestError."""
    messages, called, turn = list[Plain](), set[str](), _Turn()
    for number, item in enumerate(items, -stored):
        where = f"input[{number}]"
        if isinstance(item, FunctionCallOutput):
            if item.call_id not in called:
                raise RequestError(
                    f"{where}: there is no function call with the call_id {printable(item.call_id, 60)!r} before its "
                    "output. Send the function_call item, too, or previous_response_id.",
                    parameter=f"{where}.call_id",
                )
            messages += turn.ended()
            messages.append({"role": "tool", "content": text_of(item.output), "tool_call_id": item.call_id})
        elif isinstance(item, Message) and item.role != "assistant":
            messages += turn.ended()
            role = "system" if item.role == "developer" else item.role
            messages.append({"role": role, "content": text_of(item.content)})
        else:
            messages += turn.add(item, where)
            if isinstance(item, FunctionCall):
                called.add(item.call_id)
    return [*messages, *turn.ended()]


class _Turn:
    """The items of one turn of the assistant, and then of the next."""

    def __init__(self) -> None:
        self._message: Plain = {}
        self._room = MOST_UNPACKED  # bytes that all reasoning of the conversation may still have

    def add(self, item: Item, where: str) -> list[Plain]:
        """Returns the turn before, if the item begins another one."""
        ended = self.ended() if self._begins_another(item) else []
        turn = self._message
        if isinstance(item, Reasoning):
            turn["reasoning_content"] = turn.get("reasoning_content", "") + self._reasoning(item, where)
        elif isinstance(item, Message):
            turn["content"] = turn.get("content", "") + text_of(item.content)
        elif isinstance(item, FunctionCall):
            turn.setdefault("tool_calls", []).append(plain_call(item.name, item.arguments, item.call_id))
        return ended

    def ended(self) -> list[Plain]:
        """The message of the turn, if there is one; the next item begins another turn."""
        turn, self._message = self._message, {}
        return [{"role": "assistant", "content": "", **turn}] if turn else []

    def _begins_another(self, item: Item) -> bool:
        """Whether the item cannot belong to the turn. Behind calls everything does: their outputs end the turn, and
        Home Assistant sends the reasoning behind them."""
        turn = self._message
        return "content" in turn and "tool_calls" not in turn and isinstance(item, Reasoning | Message)

    def _reasoning(self, item: Reasoning, where: str) -> str:
        if item.content:
            return "".join(part.text for part in item.content)
        if item.encrypted_content:
            text = unpacked(item.encrypted_content, f"{where}.encrypted_content", self._room)
            self._room -= len(text.encode())
            return text
        return "\n\n".join(part.text for part in item.summary)
