"""The work that servers are compared at. Every prompt is new, so that nothing is remembered that a user would not
find remembered either."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Mapping
from random import Random

from qwen_edge.bench.client import Answer, Server

Figures = Mapping[str, float]
Workload = Callable[[Server, Random], Awaitable[Figures]]

_TEXT = (
    "the a kitchen hall garden window door lamp sensor morning evening water light warm cold open close north south "
    "quiet bright rain wind report value table chair floor stairs green blue red seven twelve after before under over "
    "because while slowly quickly reads shows turns keeps finds and or with without house street market river bridge"
)
_WORDS = _TEXT.split()


async def one_question(server: Server, rng: Random) -> Figures:
    """A prompt of 200 words, 128 tokens of answer."""
    answer = await server.ask(_words(rng, 200), max_tokens=128, ignore_eos=True)
    return {"first token, s": answer.first, "tokens/s": answer.speed}


async def eight_clients(server: Server, rng: Random) -> Figures:
    """Eight clients at once with a system prompt of 400 words in common, which the server has seen once before."""
    system = _words(rng, 400)
    await server.ask(_words(rng, 10), system=system, max_tokens=16)
    answers, seconds = await _at_once(
        [lambda: server.ask(_words(rng, 25), system=system, max_tokens=64, ignore_eos=True) for _ in range(8)]
    )
    return {
        "total tokens/s": sum(answer.tokens for answer in answers) / seconds,
        "median first token, s": statistics.median(answer.first for answer in answers),
    }


async def long_prompt(server: Server, rng: Random) -> Figures:
    """Two answers are streaming when a prompt of 1,800 words comes; and the same prompt's length alone."""
    alone = await server.ask(_words(rng, 1800), max_tokens=8)
    begun = [asyncio.Event(), asyncio.Event()]
    streams = [
        asyncio.create_task(server.ask(_words(rng, 30), max_tokens=400, begun=event, ignore_eos=True))
        for event in begun
    ]
    await asyncio.gather(*(event.wait() for event in begun))
    beside = await server.ask(_words(rng, 1800), max_tokens=8)
    answers = await asyncio.gather(*streams)
    return {
        "longest gap, s": max(answer.longest_gap for answer in answers),
        "first token of the long prompt, s": beside.first,
        "the same alone, s": alone.first,
    }


async def relativity(server: Server, rng: Random) -> Figures:
    """The question of the article on Qwen3-0.6B at the edge."""
    answer = await server.ask("请简述相对论的基本原理", max_tokens=256)
    return {"first token, s": answer.first, "tokens/s": answer.speed}


WORKLOADS: Mapping[str, Workload] = {
    "one question": one_question,
    "eight clients": eight_clients,
    "long prompt": long_prompt,
    "relativity": relativity,
}
MORE_IS_BETTER = {"tokens/s", "total tokens/s"}


async def _at_once(asks: list[Callable[[], Awaitable[Answer]]]) -> tuple[list[Answer], float]:
    clock = asyncio.get_running_loop().time
    began = clock()
    answers = await asyncio.gather(*(ask() for ask in asks))
    return list(answers), clock() - began


def _words(rng: Random, count: int) -> str:
    return " ".join(rng.choice(_WORDS) for _ in range(count))
