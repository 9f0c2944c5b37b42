#!/usr/bin/env python3
"""Many clients at once: tokens per second of all of them, and the time to the first token.

usage: crowd.py [--clients 16] [--repeat 2] URL...

Servers that run at these addresses are asked in turn. Each client asks two questions of some 150 tokens, one after the
other; an answer has at most 64 tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from dataclasses import dataclass
from itertools import chain

import aiohttp

_WORDS = ("lamp", "kitchen", "sensor", "window", "water", "night", "Tuesday", "garden", "seven", "blue")


@dataclass(frozen=True)
class Answer:
    """Seconds until its first token, and how many tokens it has."""

    first: float
    tokens: int


def question(seed: int) -> dict[str, object]:
    content = " ".join(random.Random(seed).choices(_WORDS, k=140))
    wanted = {"max_tokens": 64, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
    return {"messages": [{"role": "user", "content": content}], **wanted}


async def ask(session: aiohttp.ClientSession, url: str, seed: int) -> Answer:
    began, first, tokens = time.perf_counter(), 0.0, 0
    async with session.post(f"{url}/v1/chat/completions", json=question(seed)) as response:
        response.raise_for_status()
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[len("data: ") :])
            deltas = [choice["delta"] for choice in chunk["choices"]]
            if not first and any(delta.get("content") or delta.get("reasoning_content") for delta in deltas):
                first = time.perf_counter() - began
            tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
    return Answer(first, tokens)


async def crowd(url: str, clients: int, seed: int) -> str:
    """One line about a round of all clients at one server."""

    async def client(number: int) -> list[Answer]:
        return [await ask(session, url, seed + 2 * number + turn) for turn in range(2)]

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        began = time.perf_counter()
        answers = list(chain.from_iterable(await asyncio.gather(*map(client, range(clients)))))
        seconds = time.perf_counter() - began
    speed = sum(one.tokens for one in answers) / seconds
    first = statistics.median(one.first for one in answers)
    return f"{url}  {clients} clients  {speed:.1f} tokens/s  first token {first:.2f} s"


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("url", nargs="+")
    asked.add_argument("--clients", type=int, default=16)
    asked.add_argument("--repeat", type=int, default=2)
    options = asked.parse_args()
    for turn in range(options.repeat):
        for url in options.url:
            print(asyncio.run(crowd(url, options.clients, 1000 * turn)), flush=True)


if __name__ == "__main__":
    main()
