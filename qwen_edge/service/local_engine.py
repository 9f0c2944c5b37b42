"""Answers a chat request with this machine's engine: chat request -> prompt -> engine -> parts of text -> deltas.

`service/pipeline.py` calls it. It uses the renderer and the supervisor, and knows nothing of HTTP or llama.cpp.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from qwen_edge.chat.messages import ChatRequest, Delta, Finish, FinishReason, ToolCallDelta, ToolCallStart, Usage
from qwen_edge.chat.parser import Parser
from qwen_edge.chat.raw import marked, raw_prompt
from qwen_edge.chat.tools import CALL
from qwen_edge.core.errors import RequestError, UnusableShapeError, unavailable
from qwen_edge.protocol import messages as protocol
from qwen_edge.protocol.messages import (
    Done,
    Embed,
    Logprob,
    MissReason,
    Pieces,
    Ready,
    Segment,
    Submit,
    TokenIds,
    Tokenize,
    TokenPieces,
    Tokens,
    Warm,
)
from qwen_edge.renderer.handle import Renderer
from qwen_edge.renderer.messages import Rendered
from qwen_edge.service.embedding import MOST_EMBEDDED, Embedded, EmbeddingRequest
from qwen_edge.service.pipeline import ModelInfo
from qwen_edge.supervisor.supervisor import Supervisor

log = logging.getLogger(__name__)

_EVER = 1e9  # seconds

_MISSED: dict[MissReason, str] = {
    "new": "the rest is new: no earlier prompt is of this conversation",
    "changed": "an earlier prompt of this conversation differs from here on "
    "(an edited message, other tools, a clock in the system prompt: see docs/api.md)",
    "evicted": "the rest was computed before, and has left the KV cache since",
}


class LocalEngine:
    """The Answerer (service/pipeline.py) that uses this machine's engine. Used on the daemon's event loop."""

    def __init__(
        self,
        engine: Supervisor,
        renderer: Renderer,
        joules: Callable[[int], float | None],
        *,
        most_pending: int,
        wait_seconds: float,
        answer_seconds: float,
    ) -> None:
        """`joules` returns the energy of a finished request, by its id. `most_pending`: how many requests may be
        running or waiting. A request may wait for `wait_seconds`, and then compute for `answer_seconds`."""
        self._engine = engine
        self._renderer = renderer
        self._joules = joules
        self._most_pending = most_pending
        self._wait_seconds = wait_seconds
        self._answer_seconds = answer_seconds
        self._rendering = 0  # requests whose prompts are being rendered, or wait for the renderer
        self._ahead_tasks = set[asyncio.Task[None]]()  # each renders the next turn of a conversation

    @property
    def model(self) -> ModelInfo:
        ready = self._ready_model()
        if not self._renderer.has_template:  # whether the model thinks, and calls tools, is not known yet
            raise unavailable("The model's chat template is being compiled. Try again in a moment.", retry_after=1)
        return ModelInfo(ready.defaults, ready.context, self._renderer.abilities)

    @property
    def most_pending(self) -> int:
        return self._most_pending

    def refuse_if_busy(self) -> None:
        """Raises RequestError while the model is not loaded, or while `most_pending` requests are pending."""
        self._ready_model()
        if (pending := self._engine.pending + self._rendering) >= self._most_pending:
            raise unavailable(
                f"{pending} requests are being answered or waiting, as many as engine.parallel and "
                "server.max_waiting allow.",
                retry_after=5,
            )

    async def answer(self, request: ChatRequest, *, first: bool = True) -> AsyncGenerator[Delta | Finish, None]:
        """Render the prompt, submit it to the engine, and make deltas of the engine's text. If a request asks for
        several answers (n > 1), only the first has a waiting limit."""
        model = self._ready_model()
        rendered = await self._render(model, request)
        names = {tool["function"]["name"] for tool in request.tools}
        parser = Parser(names, streams_calls=request.call_shape is not None)
        called, left_out, logprobs, said = False, False, list[Logprob](), list[Delta]()
        submit = self._submit(model, request, rendered, first=first)
        async with aclosing(_naming(request, self._engine.answer(submit))) as events:
            async for event in events:
                logprobs += event.logprobs if isinstance(event, Tokens) else ()
                for delta in parser.feed(event.parts) if isinstance(event, Tokens) else parser.finish():
                    known, logprobs = tuple(logprobs), []
                    if isinstance(delta, ToolCallStart):
                        left_out, called = called and not request.parallel_calls, True
                    if left_out and isinstance(delta, ToolCallDelta):
                        continue
                    said.append(delta)
                    yield replace(delta, logprobs=known) if known else delta
                if isinstance(event, Done):
                    _tell_miss(event)
                    if first and not request.raw and not request.prepares:
                        self._start_ahead_render(model, request, said)
                    reason: FinishReason = "tool_calls" if called and event.reason == "stop" else event.reason
                    yield Finish(reason, self._usage(event), tuple(logprobs), event.stopped_by, event.stop_text)

    async def render(self, request: ChatRequest) -> tuple[Segment, ...]:
        return (await self._render(self._ready_model(), request)).prompt

    async def tokens(self, prompt: tuple[Segment, ...], *, begin: bool) -> tuple[int, ...]:
        return (await self._engine.ask(Tokenize(0, prompt, begin), TokenIds)).tokens

    async def tokenize(self, text: str, *, special: bool, begin: bool = False) -> tuple[int, ...]:
        prompt = marked(text, self._ready_model().specials) if special else (Segment(text),)
        return await self.tokens(prompt, begin=begin)

    async def embed(self, request: EmbeddingRequest) -> tuple[Embedded, ...]:
        found = list[Embedded]()
        for number, given in enumerate(request.inputs):
            try:
                found.append(await self._embedded(given, request))
            except RequestError as error:
                error.parameter = error.parameter or f"input[{number}]"
                raise
        return tuple(found)

    async def _embedded(self, given: str | tuple[int, ...], request: EmbeddingRequest) -> Embedded:
        """The embedding of one input. Raises RequestError."""
        if isinstance(given, str):
            tokens = await self.tokenize(given, special=True, begin=True)
        else:
            await self.pieces(tokens := given)  # raises if the model has no such token
        most = min(MOST_EMBEDDED, self._ready_model().context)
        if request.truncate:
            tokens = tokens[:most]
        if len(tokens) > most:
            raise RequestError(
                f"A text has {len(tokens)} tokens, and {most} can be embedded at most. Cut the text into parts.",
                code="context_length_exceeded",
            )
        vector = (await self._engine.ask(Embed(0, tokens, request.client), protocol.Embedded)).vector
        if request.dimensions not in (None, len(vector)):
            raise RequestError(
                f"dimensions is {request.dimensions}, and this model's embeddings have {len(vector)} numbers. "
                "Leave dimensions out.",
                parameter="dimensions",
            )
        return Embedded(vector, len(tokens))

    async def pieces(self, tokens: Sequence[int]) -> tuple[bytes, ...]:
        return (await self._engine.ask(Pieces(0, tuple(tokens)), TokenPieces)).pieces

    def _submit(self, model: Ready, request: ChatRequest, rendered: Rendered, *, first: bool) -> Submit:
        """The request in the engine's terms."""
        return Submit(
            id=0,
            prompt=rendered.prompt,
            sampling=request.sampling,
            max_tokens=request.max_tokens or model.context,
            max_seconds=request.max_seconds or _EVER,
            work_seconds=self._answer_seconds,
            stop=request.stop,
            reasoning=None if rendered.reasoned and request.must_keep_shape else rendered.reasoning,
            reasons=rendered.reasons,
            calls=CALL if request.tools else None,
            shape=request.shape,
            call_shape=request.call_shape,
            requires_call=request.requires_call,
            strict_calls=request.strict_calls,
            parallel_calls=request.parallel_calls,
            thinking_budget=request.thinking_budget,
            stops_loops=request.stops_loops and not request.sampling.ignore_eos,
            priority=request.priority,
            client=request.client,
            caller=request.caller,
            wait_seconds=min(request.wait_seconds or _EVER, self._wait_seconds) if first else _EVER,
            conversation=request.conversation,
            # several answers are to one question
            asked=0 if not first or request.prepares else 2 if request.goes_on else 1,
            pin_seconds=request.pin_seconds,
        )

    def _usage(self, done: Done) -> Usage:
        return Usage(
            prompt_tokens=done.prompt_tokens,
            completion_tokens=done.completion_tokens,
            cached_tokens=done.cached_tokens,
            missed=done.missed,
            joules=self._joules(done.id),
            reasoning_tokens=done.reasoning_tokens,
            steered=done.steered,
            prefill_seconds=done.prefill_seconds,
            decode_seconds=done.decode_seconds,
        )

    async def _render(self, model: Ready, request: ChatRequest) -> Rendered:
        """Render the prompt of the request. While it is rendered, the request counts against `most_pending`. Raises
        RequestError."""
        if request.raw:
            return Rendered(raw_prompt(request.raw, model.specials))
        self._rendering += 1
        try:
            return await self._renderer.render(model, request)
        finally:
            self._rendering -= 1

    def _start_ahead_render(self, model: Ready, request: ChatRequest, said: Sequence[Delta]) -> None:
        """Render the start of the conversation's next prompt in a task, for the engine to compute while it is idle."""
        task = asyncio.create_task(self._render_ahead(model, request, said))
        self._ahead_tasks.add(task)
        task.add_done_callback(self._ahead_tasks.discard)

    async def _render_ahead(self, model: Ready, request: ChatRequest, said: Sequence[Delta]) -> None:
        with contextlib.suppress(RequestError):  # the template may refuse this turn, which no client has sent
            prompt = await self._renderer.next_turn(model, request, said)
            self._engine.warm(Warm(prompt, request.caller))

    def _ready_model(self) -> Ready:
        if self._engine.model is None:
            raise unavailable("The model is still loading. Try again in a moment.", retry_after=2)
        return self._engine.model


async def _naming(
    request: ChatRequest, events: AsyncGenerator[Tokens | Done, None]
) -> AsyncGenerator[Tokens | Done, None]:
    """The events; an error of a shape or of the prompt names the parameter that asked for it."""
    try:
        async with aclosing(events):
            async for event in events:
                yield event
    except UnusableShapeError as error:
        error.parameter = "tools" if error.of_call else request.shape_parameter
        raise
    except RequestError as error:
        if request.raw and error.parameter == "messages":
            error.parameter = "prompt"
        raise


def _tell_miss(done: Done) -> None:
    if done.missed:
        at, of = done.missed_at, done.prompt_tokens
        log.debug("prefix missed at %d of %d tokens: %s", at, of, _MISSED[done.missed])
