"""POST /v1/chat/completions: the service's deltas as server-sent events, or folded into one body."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from aiohttp import web

from qwen_edge.chat.messages import Delta, Finish
from qwen_edge.errors import RequestError, internal_error, no_such_model, unavailable
from qwen_edge.server import openai
from qwen_edge.server.schema import ChatBody, read_body, to_request
from qwen_edge.server.state import STATE, caller_of

log = logging.getLogger(__name__)


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Cancelled by aiohttp when the client goes away, which ends the service's iterator and with it the generation."""
    state = request.app[STATE]
    ignore = state.config.server.unknown_parameters == "ignore"
    data = await _read(request, state.config.server.body_seconds)
    body, unknown = read_body(data, ignore_unknown=ignore)
    if unknown:
        log.warning("unknown parameters ignored: %s", ", ".join(unknown))
    if body.model and not state.names_model(body.model):
        raise no_such_model(body.model, state.model_name)
    if state.engine.model is None:
        raise unavailable("The model is still loading. Try again in a moment.", retry_after=2)
    caller = caller_of(request)
    client = state.climate.client(caller.owner or None, body.user)
    chat = to_request(body, state.engine.model.defaults, state.config.chat, client, caller)
    encoder = openai.Encoder(state.model_name)
    async with aclosing(state.metrics.watch(state.service.choices(chat), chat.choices)) as events:
        if body.stream:
            return await _stream(request, body, encoder, events)
        whole = encoder.whole([event async for event in events])
        return web.Response(body=msgspec.json.encode(whole), content_type="application/json")


async def _stream(
    request: web.Request,
    body: ChatBody,
    encoder: openai.Encoder,
    events: AsyncGenerator[tuple[int, Delta | Finish], None],
) -> web.StreamResponse:
    """Headers go out with the first event, so that a request refused by the engine still gets its own status."""
    choice, event = await anext(events)
    response = web.StreamResponse(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
    response.content_type = "text/event-stream"
    await response.prepare(request)
    begun, finishes = set[int](), list[Finish]()
    try:
        while True:
            if choice not in begun:
                begun.add(choice)
                await _send(response, encoder.first(choice))
            if isinstance(event, Finish):
                finishes.append(event)
                await _send(response, encoder.finish(choice, event))
            else:
                await _send(response, encoder.delta(choice, event))
            if len(finishes) == (body.n or 1):
                break
            choice, event = await anext(events)
        if body.stream_options and body.stream_options.include_usage:
            await _send(response, encoder.usage(finishes))
        await response.write(b"data: [DONE]\n\n")
    except RequestError as error:
        await _send(response, openai.error(error))
    except ConnectionError:
        raise  # the client is gone
    except Exception:  # headers are out: the error can only be an event
        log.exception("streaming an answer failed")
        await _send(response, openai.error(internal_error()))
    await response.write_eof()
    return response


async def _read(request: web.Request, seconds: float) -> bytes:
    """The body, which must come within reason: a client that never ends would keep the daemon from stopping."""
    try:
        return await asyncio.wait_for(request.read(), seconds)
    except asyncio.TimeoutError:
        raise RequestError(f"The body did not come within {seconds:g} s.", status=408) from None


async def _send(response: web.StreamResponse, data: openai.Json) -> None:
    await response.write(b"data: " + msgspec.json.encode(data) + b"\n\n")
