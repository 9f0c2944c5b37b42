"""What all paths that ask the model share: who asks, and how the answer's events reach the client, streamed or whole.

A handler reads top to bottom: `asked_by` and the body, the dialect's parser, the dialect's encoder, `respond`.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, TypeVar

from aiohttp import web

from qwen_edge.chat.messages import ChatRequest, Delta, Finish
from qwen_edge.config.schema import ChatConfig
from qwen_edge.core.errors import RequestError, internal_error
from qwen_edge.core.logs import ToldBefore
from qwen_edge.core.printable import printable
from qwen_edge.protocol.messages import EVERYBODY, Caller
from qwen_edge.server.body import read_whole
from qwen_edge.server.parameters import Group, read_group, read_json
from qwen_edge.server.replies import Json, json_response
from qwen_edge.server.sse import EventStream
from qwen_edge.server.state import STATE, caller_of
from qwen_edge.service.pipeline import ModelInfo

log = logging.getLogger(__name__)

Events = AsyncGenerator[tuple[int, Delta | Finish], None]

_Body = TypeVar("_Body", bound=Group)

_LONGEST_HEADER = 1000  # characters


@dataclass(frozen=True)
class Asked:
    """What a parser needs to know besides the body: the model that answers, the settings' defaults, the owner of the
    key, the name for the energy budget."""

    model: ModelInfo
    defaults: ChatConfig
    client: str = ""
    caller: Caller = EVERYBODY


class Encoder(Protocol):
    """Writes the answer to one request in the form of a dialect. Used for one request; pure.

    `content_type`: of the stream. Each method below but `whole` returns complete frames of the stream."""

    content_type: str

    def frames(self, choice: int, event: Delta | Finish) -> Iterable[bytes]:
        """The frames of an event. `choice`: the number of the answer. The first call also opens the stream."""

    def end(self) -> bytes:
        """What follows the last event."""

    def error(self, error: RequestError) -> bytes:
        """The frame of an error after the stream has begun; nothing follows it."""

    def whole(self, events: Sequence[tuple[int, Delta | Finish]]) -> Json | list[Json]:
        """The body of an answer without streaming."""


def ignores_unknown(request: web.Request) -> bool:
    """Whether the settings say to ignore unknown parameters."""
    return request.app[STATE].config.server.unknown_parameters == "ignore"


async def read_request(request: web.Request, kind: type[_Body]) -> _Body:
    """The body of the request, checked. Raises RequestError."""
    return read_group(kind, read_json(await read_whole(request)), ignore_unknown=ignores_unknown(request))


def asked_by(request: web.Request, model: str | None, user: str | None = None) -> Asked:
    """`model`: the name of the model that the request asks for, if it names one; `user`: the client's name for itself.
    Raises RequestError if this server does not answer to that name, or the model is not known yet."""
    state = request.app[STATE]
    if model:
        state.refuse_other_model(model)
    caller = caller_of(request)
    client = state.thermal.client(caller.owner or None, user)
    return Asked(state.service.model, state.config.chat, client, caller)


async def respond(
    request: web.Request,
    chats: Sequence[ChatRequest],
    encoder: Encoder,
    *,
    stream: bool,
    finished: Callable[[], Awaitable[None]] | None = None,
    on_event: Callable[[], None] | None = None,
) -> web.StreamResponse:
    """Answer the chat requests of one HTTP request; their answers are numbered in order. `finished` is awaited when all
    answers are complete, before the client can know. `on_event` is called whenever an event has come, before it is
    encoded. aiohttp cancels the handler if the client disconnects: that closes the pipeline's iterators, which ends the
    generation. Raises RequestError."""
    state = request.app[STATE]
    events = state.metrics.watch(state.service.all_choices(chats), [chat.choices for chat in chats])
    if on_event:
        events = _noticed(events, on_event)
    headers = _unenforced(chats, state.told_unenforced)
    if stream:
        quiet = state.config.server.comment_seconds
        events_to = EventStream(request, quiet, headers, content_type=encoder.content_type)
        return await _stream(events_to, encoder, events, finished)
    async with aclosing(events):
        whole = encoder.whole([event async for event in events])
    if finished:
        await finished()
    return json_response(whole, headers=headers)


async def _noticed(events: Events, on_event: Callable[[], None]) -> Events:
    async with aclosing(events):
        async for event in events:
            on_event()
            yield event


def _unenforced(chats: Sequence[ChatRequest], told: ToldBefore) -> dict[str, str]:
    """The header that says what of its schemas the answer is not held to. The log says it, too: once a schema."""
    names = dict.fromkeys(name for chat in chats for name in chat.unenforced)
    if not names:
        return {}
    listed = printable(", ".join(names), _LONGEST_HEADER)
    if told.is_new(tuple((chat.shape, chat.call_shape) for chat in chats)):
        log.warning("answers are not held to all of a schema: %s", listed)
    return {"X-Unenforced": listed.encode("ascii", "replace").decode()}


async def _stream(
    stream: EventStream, encoder: Encoder, events: Events, finished: Callable[[], Awaitable[None]] | None
) -> web.StreamResponse:
    """Headers are sent with the first event, so that a request refused before it gets its own status; if the first
    event takes long, a comment sends them. The events are closed, which frees the request's sequence, before the
    client has read everything."""
    async with stream:
        try:
            async with aclosing(events):
                async for choice, event in events:
                    for frame in encoder.frames(choice, event):
                        await stream.send(frame)
            if finished:
                await finished()
            last = encoder.end()
        except RequestError as error:
            if not stream.begun:
                raise
            last = encoder.error(error)
        except ConnectionError:
            raise  # the client has disconnected
        except Exception:
            if not stream.begun:
                raise
            log.exception("streaming an answer failed")
            last = encoder.error(internal_error())
    return await stream.end(last)
