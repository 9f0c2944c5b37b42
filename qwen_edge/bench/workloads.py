"""The workloads by which servers are compared. Every prompt is new, so that a server's cache helps only where it would
help a user too."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from qwen_edge.bench.smart_home_prompt import QUESTIONS, ROOMS, home_prompt
from qwen_edge.client.server import Answer, RefusedError, Server
from qwen_edge.core.errors import UserError

Figures = Mapping[str, float]


@dataclass(frozen=True)
class Workload:
    """One workload. `run` runs it once. `slow`: it takes minutes on a CPU, so it runs only if it is named, and once for
    each server, whatever the number of repeats. `seconds`: about how long it takes on two cores, in relation to others:
    from this the time that is left is estimated."""

    run: Callable[[Server, Random], Awaitable[Figures]]
    seconds: float
    slow: bool = False


_TEXT = (
    "the a kitchen hall garden window door lamp sensor morning evening water light warm cold open close north south "
    "quiet bright rain wind report value table chair floor stairs green blue red seven twelve after before under over "
    "because while slowly quickly reads shows turns keeps finds and or with without house street market river bridge"
)
_WORDS = _TEXT.split()
# at the end of the reasoning some tokens have no text, which would look like a stall
_UNTHINKING = {"enable_thinking": False}

_TURNS, _READING = 5, 3.0  # seconds
_IN_A_ROW, _EARLY = 30, 8  # questions
_8K, _8K_ANSWER, _8K_MARGIN = 8192, 16, 8  # tokens


async def one_question(server: Server, rng: Random) -> Figures:
    """A prompt of 200 words, 128 tokens of answer."""
    answer = await server.ask(_words(rng, 200), max_tokens=128, ignore_eos=True)
    return {"first token, s": answer.first, "tokens/s": answer.speed}


async def questions_in_a_row(server: Server, rng: Random) -> Figures:
    """Thirty different questions of some 200 tokens, each right after the answer to the one before, of 16 tokens: a
    server that works ahead, or mends something, while it is idle has no time for it."""
    first = list[float]()
    for _ in range(_IN_A_ROW):
        answer = await server.ask(_words(rng, 150), system=_words(rng, 30), max_tokens=16, ignore_eos=True)
        first.append(answer.first)
    median, p95 = statistics.median(first), statistics.quantiles(first, n=20, method="inclusive")[-1]
    return {
        "first token, s": median,
        f"the same of the first {_EARLY}, s": statistics.median(first[:_EARLY]),
        "95 % / median": p95 / median,
    }


async def eight_clients(server: Server, rng: Random) -> Figures:
    """Eight clients at once with the same system prompt of 400 words, which the server has seen once before."""
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
        asyncio.create_task(
            server.ask(_words(rng, 30), max_tokens=200, begun=event, ignore_eos=True, chat_template_kwargs=_UNTHINKING)
        )
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


async def conversation(server: Server, rng: Random, **options: Any) -> Figures:
    """Five turns, each a message of 25 words and an answer, after which the user reads for 3 s."""
    history, first = list[Mapping[str, str]](), list[float]()
    for turn in range(_TURNS):
        await asyncio.sleep(_READING if turn else 0)
        user = _words(rng, 25)
        answer = await server.ask(user, history=history, **options)
        history += [{"role": "user", "content": user}, {"role": "assistant", "content": answer.text}]
        first.append(answer.first)
    turns = {f"turn {number}: first token, s": seconds for number, seconds in enumerate(first, 1)}
    return {**turns, "later turns: first token, s": statistics.median(first[1:])}


async def conversation_without_thinking(server: Server, rng: Random) -> Figures:
    """With thinking switched off, and answers of 160 tokens."""
    return await conversation(server, rng, max_tokens=160, ignore_eos=True, chat_template_kwargs=_UNTHINKING)


async def conversation_thinking(server: Server, rng: Random) -> Figures:
    """Answers that the model ends itself, of at most 256 tokens, reasoning included."""
    return await conversation(server, rng, max_tokens=256)


async def home(server: Server, rng: Random, *, marked: bool = False, **options: Any) -> Figures:
    """Four short questions to a home of 1,500 words, without history. The clock at the top of the prompt advances by a
    minute from one question to the next; the real pause is 3 s."""
    rooms, first = rng.sample(list(ROOMS), len(ROOMS)), list[float]()
    for minute, question in enumerate(QUESTIONS):
        await asyncio.sleep(_READING if minute else 0)
        system = home_prompt(rooms, minute, marked=marked)
        answer = await server.ask(question, system=system, max_tokens=16, chat_template_kwargs=_UNTHINKING, **options)
        first.append(answer.first)
    return {"first question: first token, s": first[0], "later questions: first token, s": statistics.median(first[1:])}


async def home_volatile(server: Server, rng: Random) -> Figures:
    """The same with marked clock and states, for a server that knows x_volatile. Others read the marks as text."""
    return await home(server, rng, marked=True, x_volatile=True)


async def relativity(server: Server, rng: Random) -> Figures:
    """The question of the article on Qwen3-0.6B at the edge. It is always the same: a server may cache the prompt."""
    answer = await server.ask("请简述相对论的基本原理", max_tokens=256)
    return {"first token, s": answer.first, "tokens/s": answer.speed}


async def context_of_8k(server: Server, rng: Random) -> Figures:
    """A prompt that fills 8,192 tokens, except for a small margin, together with the 16 tokens of its answer. A server
    that refuses the prompt, or truncates it, does not support 8K. Raises UserError if the server reports no token
    count."""
    try:
        few, more = [await server.prompt_tokens(_rounds(rng, count)) for count in (4, 12)]
        if few >= more:
            raise UserError(
                f"{server.url} does not report the length of a prompt in usage.prompt_tokens, "
                'so no prompt of 8K tokens can be made. Leave out the workload "8K context".'
            )
        a_round = round((more - few) / 8)
        count = 4 + (_8K - _8K_ANSWER - _8K_MARGIN - few) // a_round
        answer = await server.ask(_rounds(rng, count), max_tokens=_8K_ANSWER, ignore_eos=True)
    except RefusedError as refused:
        if not 400 <= refused.status < 500:
            raise
        return {"8K supported": 0.0}
    # some servers truncate the prompt and answer: their token count shows it (no count shows nothing)
    if 0 < answer.prompt_tokens < 0.98 * (few + (count - 4) * a_round):
        return {"8K supported": 0.0}
    return {"8K supported": 1.0, "first token, s": answer.first}


WORKLOADS: Mapping[str, Workload] = {
    "one question": Workload(one_question, 15),
    "eight clients": Workload(eight_clients, 30),
    "long prompt": Workload(long_prompt, 60),
    "conversation": Workload(conversation_without_thinking, 100),
    "conversation, thinking": Workload(conversation_thinking, 150),
    "relativity": Workload(relativity, 25),
    "questions in a row": Workload(questions_in_a_row, 120, slow=True),
    "8K context": Workload(context_of_8k, 200, slow=True),
    "home, clock on top": Workload(home, 100, slow=True),
    "home, volatile": Workload(home_volatile, 50, slow=True),
}
MORE_IS_BETTER = {"tokens/s", "total tokens/s", "8K supported"}


async def _at_once(asks: list[Callable[[], Awaitable[Answer]]]) -> tuple[list[Answer], float]:
    clock = asyncio.get_running_loop().time
    began = clock()
    answers = await asyncio.gather(*(ask() for ask in asks))
    return list(answers), clock() - began


def _words(rng: Random, count: int) -> str:
    return " ".join(rng.choice(_WORDS) for _ in range(count))


def _rounds(rng: Random, count: int) -> str:
    """The same 16 words in a new order each round, so that every round has as many tokens as the others."""
    words = _WORDS[:16]
    return "Words: " + " ".join(word for _ in range(count) for word in rng.sample(words, len(words)))
