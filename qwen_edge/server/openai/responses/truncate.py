"""`truncation: auto`: leaves out the oldest turns of a conversation that the context has no room for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from qwen_edge.chat.messages import ChatRequest
from qwen_edge.core.errors import RequestError

_ROOM = 4  # the answer has at least the 4th part of the context, unless it needs less


async def truncated(chat: ChatRequest, context: int, count: Callable[[ChatRequest], Awaitable[int]]) -> ChatRequest:
    """The request without as many of its oldest turns as must go so that `context` tokens suffice for the prompt and
    for an answer. System messages before the first turn stay, and so does the last turn. `count`: the tokens of a
    request's prompt."""
    room = context - min(chat.max_tokens or context, context // _ROOM)
    shorter = _shorter(chat)
    fewest, most = 0, len(shorter) - 1  # the turns to leave out are between these, both included
    while fewest < most:
        middle = (fewest + most) // 2
        if await _fits(shorter[middle], room, count):
            most = middle
        else:
            fewest = middle + 1
    return shorter[fewest]


async def _fits(chat: ChatRequest, room: int, count: Callable[[ChatRequest], Awaitable[int]]) -> bool:
    try:
        return await count(chat) <= room
    except RequestError as error:
        if error.code == "context_length_exceeded":
            return False
        raise


def _shorter(chat: ChatRequest) -> list[ChatRequest]:
    """The request, without its first turn, without its first two turns, and so on. A turn begins with a question."""
    messages = chat.messages
    roles = [message["role"] for message in messages]
    head = next((number for number, role in enumerate(roles) if role != "system"), len(roles))
    starts = [number for number, role in enumerate(roles) if role == "user" and number > head]
    return [chat, *(replace(chat, messages=(*messages[:head], *messages[start:])) for start in starts)]
