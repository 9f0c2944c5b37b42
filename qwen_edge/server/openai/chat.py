"""POST /v1/chat/completions: the pipeline's deltas as server-sent events, or as one body."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from aiohttp import web

from qwen_edge.chat.messages import ChatRequest, Delta, Finish
from qwen_edge.core.errors import RequestError, internal_error, no_such_model
from qwen_edge.core.logs import ToldBefore
from qwen_edge.core.printable import printable
from qwen_edge.server.body import read_whole
from qwen_edge.server.openai import encode as openai
from qwen_edge.server.openai import framing
from qwen_edge.server.openai.parse import ChatBody, read_body, to_request
from qwen_edge.server.sse import EventStream
from qwen_edge.server.state import STATE, caller_of

log = logging.getLogger(__name__)

_LONGEST_HEADER = 1000  # characters

_Events = AsyncGenerator[tuple[int, Delta | Finish], None]


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Handle a request. aiohttp cancels it if the client disconnects; that closes the pipeline's iterator and ends the
    generation."""
    state = request.app[STATE]
    ignore = state.config.server.unknown_parameters == "ignore"
    body = read_body(await read_whole(request), ignore_unknown=ignore)
    if body.model and not state.names_model(body.model):
        raise no_such_model(printable(body.model), state.model_name)
    model = state.service.model
    caller = caller_of(request)
    client = state.thermal.client(caller.owner or None, body.user)
    chat = to_request(body, model.sampling, state.config.chat, client, caller)
    encoder = openai.Encoder(state.model_name)
    events = state.metrics.watch(state.service.choices(chat), chat.choices)
    headers = _unenforced(chat, state.told_unenforced)
    if body.stream:
        return await _stream(EventStream(request, state.config.server.comment_seconds, headers), body, encoder, events)
    async with aclosing(events):
        whole = encoder.whole([event async for event in events])
    return web.Response(body=msgspec.json.encode(whole), content_type="application/json", headers=headers)


def _unenforced(chat: ChatRequest, told: ToldBefore) -> dict[str, str]:
    """The header that says what of its schemas the answer is not held to. The log says it, too: once a schema."""
    if not chat.unenforced:
        return {}
    listed = printable(", ".join(chat.unenforced), _LONGEST_HEADER)
    if told.is_new((chat.shape, chat.call_shape)):
        log.warning("answers are not held to all of a schema: %s", listed)
    return {"X-Unenforced": listed.encode("ascii", "replace").decode()}


async def _stream(stream: EventStream, body: ChatBody, encoder: openai.Encoder, events: _Events) -> web.StreamResponse:
    """Headers are sent with the first event, so that a request refused before it gets its own status; if the first
    event takes long, a comment sends them. The events are closed, which frees the request's sequence, before the
    client has read everything."""
    async with stream:
        try:
            async with aclosing(events), aclosing(_chunks(body, encoder, events)) as chunks:
                async for chunk in chunks:
                    await stream.send(framing.chunk_event(chunk))
            last = framing.DONE
        except RequestError as error:
            if not stream.begun:
                raise
            await stream.send(framing.error_event(error))
            last = b""
        except ConnectionError:
            raise  # the client has disconnected
        except Exception:
            if not stream.begun:
                raise
            log.exception("streaming an answer failed")
            await stream.send(framing.error_event(internal_error()))
            last = b""
    return await stream.end(last)


async def _chunks(body: ChatBody, encoder: openai.Encoder, events: _Events) -> AsyncGenerator[openai.Json, None]:
    """The events as OpenAI's chunks, up to the end of the last answer."""
    begun, finishes = set[int](), list[Finish]()
    async for choice, event in events:
        if choice not in begun:
            begun.add(choice)
            yield encoder.first(choice)
        if isinstance(event, Finish):
            finishes.append(event)
            yield encoder.finish(choice, event)
        elif chunk := encoder.delta(choice, event):
            yield chunk
        if len(finishes) == (body.n or 1):
            break
    if body.stream_options and body.stream_options.include_usage:
        yield encoder.usage(finishes)
