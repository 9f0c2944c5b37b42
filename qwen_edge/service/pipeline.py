"""THE pipeline, top to bottom: chat request -> prompt -> engine -> text -> deltas.

HTTP stands above it, processes and llama.cpp below; neither is seen here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace

import msgspec

from qwen_edge.chat.messages import ChatRequest, Delta, Finish, Reasoning, ToolCallDelta, ToolCallStart
from qwen_edge.chat.parser import Parser
from qwen_edge.chat.tools import CALL, in_order
from qwen_edge.core.errors import RequestError, WaitedTooLongError, unavailable
from qwen_edge.core.merge_streams import merged
from qwen_edge.protocol.messages import Done, Logprob, MissReason, Ready, Submit, Tokens, Warm
from qwen_edge.renderer.handle import Renderer
from qwen_edge.renderer.messages import Rendered
from qwen_edge.service.thermal import ThermalControl
from qwen_edge.supervisor.supervisor import Supervisor

log = logging.getLogger(__name__)

_EVER = 1e9  # seconds

_MISSED: dict[MissReason, str] = {
    "new": "what follows is new, nothing like it was asked before",
    "template": "the chat template, its arguments, enable_thinking or the tools are others than before",
    "start": "the first message has changed, and the rest has not "
    "(a clock or a state in the system prompt? see x_volatile in docs/api.md)",
    "edited": "the history is not as it was before",
    "evicted": "the rest was computed before, and has left the KV cache since",
}


class ChatService:
    """Answers chat requests with the engine's model. Used on the daemon's event loop."""

    def __init__(
        self,
        engine: Supervisor,
        thermal: ThermalControl,
        renderer: Renderer,
        *,
        max_pending: int,
        wait_seconds: float,
        answer_seconds: float,
    ) -> None:
        """`max_pending` requests may be running or waiting. One may wait so many seconds, and then compute for so
        many."""
        self._engine = engine
        self._thermal = thermal
        self._renderer = renderer
        self._max_pending = max_pending
        self._wait_seconds = wait_seconds
        self._answer_seconds = answer_seconds
        self._rendering = 0  # requests whose prompts are being rendered, or wait for that
        self._looks = set[asyncio.Task[None]]()  # under way: each renders the next turn of a conversation

    async def choices(self, request: ChatRequest) -> AsyncGenerator[tuple[int, Delta | Finish], None]:
        """As many answers as are asked for, side by side: their pieces as they come, each with its answer's number.
        They share the prompt and differ in the seed. Leaving early stops them all. Raises RequestError."""
        if request.choices > self._max_pending:
            raise RequestError(
                f"n is {request.choices}, and engine.parallel and server.max_waiting allow {self._max_pending}.",
                parameter="n",
            )
        sampling = request.sampling
        seeds = [(sampling.seed + i) % 0xFFFFFFFF for i in range(request.choices)]
        each = [replace(request, sampling=msgspec.structs.replace(sampling, seed=seed)) for seed in seeds]
        async with merged([self.answer(one, first=number == 0) for number, one in enumerate(each)]) as events:
            async for number, event in events:
                yield number, event

    async def answer(self, request: ChatRequest, *, first: bool = True) -> AsyncGenerator[Delta | Finish, None]:
        """Yield the answer as it comes, Finish last. With the `first` of several the conversation is expected to go on;
        the others wait for their place as long as it takes. Leaving early stops the generation. Raises RequestError."""
        model = self._ready_model()
        priority = self._thermal.admit(request.priority, request.client)
        rendered = await self._render(model, request)
        submit = Submit(
            id=0,
            prompt=rendered.prompt,
            sampling=request.sampling,
            max_tokens=request.max_tokens or model.context,
            max_seconds=request.max_seconds or _EVER,
            work_seconds=self._answer_seconds,
            stop=request.stop,
            reasoning=rendered.reasoning,
            reasons=rendered.reasons,
            calls=CALL if request.tools else None,
            priority=priority,
            client=request.client,
            caller=request.caller,
            wait_seconds=min(request.wait_seconds or _EVER, self._wait_seconds) if first else _EVER,
            conversation=request.conversation,
            asked=0 if not first else 2 if request.goes_on else 1,  # several answers are to one question
            pin_seconds=request.pin_seconds,
            layout=_layout(model, request),
        )
        names = {tool["function"]["name"] for tool in request.tools}
        parser = Parser(rendered.reasoning, names, reasons=rendered.reasons)
        called, left_out, logprobs, said = False, False, list[Logprob](), list[Delta]()
        async with aclosing(self._ask(submit, request)) as events:
            async for event in events:
                logprobs += event.logprobs if isinstance(event, Tokens) else ()
                deltas = parser.feed(event.text) if isinstance(event, Tokens) else parser.finish()
                for delta in deltas:
                    known, logprobs = tuple(logprobs), []
                    if isinstance(delta, Reasoning) and not request.return_reasoning:
                        continue
                    if isinstance(delta, ToolCallStart):
                        left_out, called = called and not request.parallel_calls, True
                    if left_out and isinstance(delta, ToolCallDelta):
                        continue
                    said.append(delta)
                    yield replace(delta, logprobs=known) if known else delta
                if isinstance(event, Done):
                    _tell_miss(event)
                    if first:
                        look = asyncio.create_task(self._look_ahead(model, request, said))
                        self._looks.add(look)
                        look.add_done_callback(self._looks.discard)
                    reason = "tool_calls" if called and event.reason == "stop" else event.reason
                    yield Finish(reason, event, self._thermal.joules(event.id), tuple(logprobs))

    async def _render(self, model: Ready, request: ChatRequest) -> Rendered:
        """Its prompt. The request has its place among those that may be pending from here on. Raises RequestError."""
        self._rendering += 1
        try:
            return await self._renderer.render(model, request)
        finally:
            self._rendering -= 1

    async def _ask(self, submit: Submit, request: ChatRequest) -> AsyncGenerator[Tokens | Done, None]:
        """What the engine says to it. Raises RequestError."""
        try:
            async with aclosing(self._engine.answer(submit)) as events:
                async for event in events:
                    yield event
        except WaitedTooLongError:
            # a device that has paused meanwhile is not busy, but hot: whoever asks now hears so, and for how long
            self._thermal.admit(request.priority, request.client)
            raise

    async def _look_ahead(self, model: Ready, request: ChatRequest, said: Sequence[Delta]) -> None:
        """Let the engine read the conversation as its next turn will show it, while nobody waits."""
        with contextlib.suppress(RequestError):  # a template may refuse what nobody has asked for
            prompt = await self._renderer.next_turn(model, request, said)
            self._engine.warm(Warm(prompt, request.caller))

    def _ready_model(self) -> Ready:
        if self._engine.model is None:
            raise unavailable("The model is still loading. Try again in a moment.", retry_after=2)
        if (pending := self._engine.pending + self._rendering) >= self._max_pending:
            raise unavailable(
                f"{pending} requests are being answered or waiting, as many as engine.parallel and "
                "server.max_waiting allow.",
                retry_after=5,
            )
        return self._engine.model


def _layout(model: Ready, request: ChatRequest) -> str:
    """Stands for all that shapes a prompt beside its messages."""
    shape = [model.chat_template, in_order(request.tools), request.thinking, request.template_arguments]
    return hashlib.blake2b(msgspec.json.encode(shape), digest_size=8).hexdigest()


def _tell_miss(done: Done) -> None:
    if done.missed:
        at, of = done.missed_at, done.prompt_tokens
        log.debug("prefix missed at %d of %d tokens: %s", at, of, _MISSED[done.missed])
