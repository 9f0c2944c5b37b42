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

from qwen_edge.chat.messages import ChatRequest, Delta, Finish, Reasoning, ToolCall
from qwen_edge.chat.parser import Parser
from qwen_edge.chat.template import ChatTemplate, opens_reasoning
from qwen_edge.climate import Climate
from qwen_edge.errors import EngineError, RequestError, WaitedTooLongError, unavailable
from qwen_edge.merge import merged
from qwen_edge.messages import Done, Logprob, MissReason, Ready, Submit, Tokens, Warm
from qwen_edge.supervisor import Supervisor

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
        self, engine: Supervisor, climate: Climate, *, max_pending: int, wait_seconds: float, answer_seconds: float
    ) -> None:
        """`max_pending` requests may be running or waiting. One may wait so many seconds, and then compute for so
        many."""
        self._engine = engine
        self._climate = climate
        self._max_pending = max_pending
        self._wait_seconds = wait_seconds
        self._answer_seconds = answer_seconds
        self._template: tuple[str, ChatTemplate] | None = None

    async def choices(self, request: ChatRequest) -> AsyncGenerator[tuple[int, Delta | Finish], None]:
        """As many answers as are asked for, side by side: their pieces as they come, each with its answer's number.
        They share the prompt and differ in the seed. Leaving early stops them all. Raises RequestError."""
        if request.choices > self._max_pending:
            raise RequestError(
                f"n is {request.choices}, and engine.parallel and server.max_waiting allow {self._max_pending}.",
                param="n",
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
        priority = self._climate.admit(request.priority, request.client)
        template = self._template_of(model)
        prompt = template.render(request)
        reasons = opens_reasoning(prompt)
        submit = Submit(
            id=0,
            prompt=prompt,
            sampling=request.sampling,
            max_tokens=request.max_tokens or model.context,
            max_seconds=request.max_seconds or _EVER,
            work_seconds=self._answer_seconds,
            stop=request.stop,
            reasoning=template.reasoning,
            reasons=reasons,
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
        parser = Parser(template.reasoning, names, reasons=reasons)
        called, logprobs, said = False, list[Logprob](), list[Delta]()
        async with aclosing(self._ask(submit, request)) as events:
            async for event in events:
                logprobs += event.logprobs if isinstance(event, Tokens) else ()
                deltas = parser.feed(event.text) if isinstance(event, Tokens) else parser.finish()
                for delta in deltas:
                    known, logprobs = tuple(logprobs), []
                    if isinstance(delta, Reasoning) and not request.return_reasoning:
                        continue
                    if called and isinstance(delta, ToolCall) and not request.parallel_calls:
                        continue
                    called = called or isinstance(delta, ToolCall)
                    said.append(delta)
                    yield replace(delta, logprobs=known) if known else delta
                if isinstance(event, Done):
                    _tell_miss(event)
                    if first:
                        asyncio.get_running_loop().call_soon(self._look_ahead, template, request, said)
                    reason = "tool_calls" if called and event.reason == "stop" else event.reason
                    yield Finish(reason, event, self._climate.joules(event.id), tuple(logprobs))

    async def _ask(self, submit: Submit, request: ChatRequest) -> AsyncGenerator[Tokens | Done, None]:
        """What the engine says to it. Raises RequestError."""
        try:
            async with aclosing(self._engine.answer(submit)) as events:
                async for event in events:
                    yield event
        except WaitedTooLongError:
            # a device that has paused meanwhile is not busy, but hot: whoever asks now hears so, and for how long
            self._climate.admit(request.priority, request.client)
            raise

    def _look_ahead(self, template: ChatTemplate, request: ChatRequest, said: Sequence[Delta]) -> None:
        """Let the engine read the conversation as its next turn will show it, while nobody waits."""
        with contextlib.suppress(RequestError):  # a template may refuse what nobody has asked for
            self._engine.warm(Warm(template.next_turn(request, said), request.caller))

    def _ready_model(self) -> Ready:
        if self._engine.model is None:
            raise unavailable("The model is still loading. Try again in a moment.", retry_after=2)
        if self._engine.pending >= self._max_pending:
            raise unavailable(
                f"{self._engine.pending} requests are being answered or waiting, as many as engine.parallel and "
                "server.max_waiting allow.",
                retry_after=5,
            )
        return self._engine.model

    def _template_of(self, model: Ready) -> ChatTemplate:
        source = model.chat_template
        if source is None:
            raise EngineError(f"{model.name} has no chat template. Convert it from a chat model's checkpoint.")
        if self._template is None or self._template[0] != source:
            self._template = source, ChatTemplate(source, model.specials)
        return self._template[1]


def _layout(model: Ready, request: ChatRequest) -> str:
    """Stands for all that shapes a prompt beside its messages."""
    shape = [model.chat_template, request.tools, request.thinking, request.template_arguments]
    return hashlib.blake2b(msgspec.json.encode(shape), digest_size=8).hexdigest()


def _tell_miss(done: Done) -> None:
    if done.missed:
        at, of = done.missed_at, done.prompt_tokens
        log.debug("prefix missed at %d of %d tokens: %s", at, of, _MISSED[done.missed])
