"""Admits or refuses a chat request, passes it to the Answerer, and yields the parts of the answer that the client asked
for.

`server/` calls it. The only Answerer is the model of this machine's engine (service/local_engine.py).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Protocol

import msgspec

from qwen_edge.chat.abilities import TemplateAbilities
from qwen_edge.chat.messages import ChatRequest, Delta, Finish, Reasoning
from qwen_edge.core.errors import RequestError, WaitedTooLongError, context_too_long
from qwen_edge.core.merge_streams import merged
from qwen_edge.protocol.messages import Sampling, Segment
from qwen_edge.service.embedding import Embedded, EmbeddingRequest
from qwen_edge.service.preparations import Preparations
from qwen_edge.service.thermal import ThermalControl


@dataclass(frozen=True)
class ModelInfo:
    """What a dialect needs to know of the model that answers: its sampling where a request and the settings do not
    say, its context in tokens, and what its chat template can do."""

    sampling: Sampling
    context: int
    abilities: TemplateAbilities = field(default_factory=TemplateAbilities)


class Answerer(Protocol):
    """Something that answers chat requests. Used on the daemon's event loop."""

    @property
    def model(self) -> ModelInfo:
        """The model that answers. Raises RequestError while it is not known yet."""

    @property
    def most_pending(self) -> int:
        """How many answers may be running or waiting at once."""

    def refuse_if_busy(self) -> None:
        """Raises RequestError if no further answer can be accepted now."""

    def answer(self, request: ChatRequest, *, first: bool = True) -> AsyncGenerator[Delta | Finish, None]:
        """Yield the deltas of one answer in order, then Finish. `first`: whether it is the first of the request's
        answers; the conversation is expected to continue from that one. Closing the generator stops the work. Raises
        RequestError."""

    async def embed(self, request: EmbeddingRequest) -> tuple[Embedded, ...]:
        """The embeddings of the inputs, in their order. Raises RequestError."""

    async def render(self, request: ChatRequest) -> tuple[Segment, ...]:
        """The prompt of a request. Raises RequestError."""

    async def tokens(self, prompt: tuple[Segment, ...], *, begin: bool) -> tuple[int, ...]:
        """The tokens of a prompt of any length; with `begin`, with the one that every prompt of the model begins with.
        Raises RequestError."""

    async def tokenize(self, text: str, *, special: bool, begin: bool = False) -> tuple[int, ...]:
        """The tokens of a text of any length. With `special`, the texts of special tokens are these tokens; `begin` as
        above. Raises RequestError."""

    async def pieces(self, tokens: Sequence[int]) -> tuple[bytes, ...]:
        """The bytes of each token, which may be a part of a character; special tokens show as their texts. Raises
        RequestError if the model has no such token."""


class ChatService:
    """Answers chat requests. Used on the daemon's event loop."""

    def __init__(self, answerer: Answerer, thermal: ThermalControl) -> None:
        self._answerer = answerer
        self._thermal = thermal
        self._preparations = Preparations(self.answer)

    @property
    def model(self) -> ModelInfo:
        """The model that answers. Raises RequestError while it is not known yet."""
        return self._answerer.model

    async def prompt(self, request: ChatRequest) -> str:
        """The text of the request's prompt. Raises RequestError."""
        self._answerer.refuse_if_busy()
        return "".join(segment.text for segment in await self._answerer.render(request))

    async def count(self, request: ChatRequest) -> int:
        """How many tokens the request's prompt has, which may be more than the context. Raises RequestError."""
        self._answerer.refuse_if_busy()
        return len(await self._answerer.tokens(await self._answerer.render(request), begin=True))

    async def prepare(self, request: ChatRequest) -> int:
        """Begin to compute the request's prompt, for the request that will follow; returns how many tokens it has. The
        computation goes on until the conversation's next request, or preparation, comes. Raises RequestError."""
        tokens = await self.count(request)
        if tokens >= (context := self.model.context):
            raise context_too_long(tokens, context)
        self._thermal.admit(request.priority, request.client)
        self._preparations.start(request)
        return tokens

    async def tokenize(self, text: str, *, special: bool, begin: bool = False) -> tuple[int, ...]:
        """As Answerer.tokenize."""
        self._answerer.refuse_if_busy()
        return await self._answerer.tokenize(text, special=special, begin=begin)

    async def pieces(self, tokens: Sequence[int]) -> tuple[bytes, ...]:
        """As Answerer.pieces."""
        self._answerer.refuse_if_busy()
        return await self._answerer.pieces(tokens)

    async def all_choices(self, requests: Sequence[ChatRequest]) -> AsyncGenerator[tuple[int, Delta | Finish], None]:
        """Generate all answers to these requests, which came in one HTTP request, at the same time: `choices` of each.
        Yield each event with the number of its answer, counted through all requests. The answers to one request share
        the prompt and differ in the seed. Closing the generator stops all of them. Raises RequestError."""
        wanted = sum(request.choices for request in requests)
        if wanted > (most := self._answerer.most_pending):
            raise RequestError(
                f"{wanted} answers are asked for at once, and engine.parallel and server.max_waiting allow {most}.",
                parameter="n",
            )
        each = [
            self.answer(one, first=number == 0) for request in requests for number, one in enumerate(_seeded(request))
        ]
        async with merged(each) as events:
            async for number, event in events:
                yield number, event

    async def embed(self, request: EmbeddingRequest) -> tuple[Embedded, ...]:
        """The embeddings of the inputs, in their order. A caller that is cancelled ends the work. Raises
        RequestError."""
        self._answerer.refuse_if_busy()
        self._thermal.admit(request.priority, request.client)
        return await self._answerer.embed(request)

    async def answer(self, request: ChatRequest, *, first: bool = True) -> AsyncGenerator[Delta | Finish, None]:
        """Yield the deltas of one answer, then Finish. Closing the generator stops the work. Raises RequestError."""
        if not request.prepares:
            self._preparations.end(request)
        self._answerer.refuse_if_busy()
        priority = self._thermal.admit(request.priority, request.client)
        try:
            async with aclosing(self._answerer.answer(replace(request, priority=priority), first=first)) as events:
                async for event in events:
                    if request.return_reasoning or not isinstance(event, Reasoning):
                        yield event
        except WaitedTooLongError:
            # if the device has paused since then, refuse with that reason, and the time to wait, instead of "busy"

            self._thermal.admit(request.priority, request.client)
            raise


def _seeded(request: ChatRequest) -> list[ChatRequest]:
    """A request for each of its answers, with a seed of its own."""
    sampling = request.sampling
    seeds = [(sampling.seed + number) % 0xFFFFFFFF for number in range(request.choices)]
    return [replace(request, sampling=msgspec.structs.replace(sampling, seed=seed)) for seed in seeds]
