"""Runs the work on all servers, in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import aiohttp

from qwen_edge.bench.client import Server
from qwen_edge.bench.memory import resident
from qwen_edge.bench.report import Results
from qwen_edge.bench.workloads import WORKLOADS

Say = Callable[[str], None]


async def measure(
    urls: Sequence[str],
    work: Sequence[str],
    repeat: int,
    seed: int,
    say: Say,
) -> Results:
    """Every server once with a first question that does not count, then all of them in turn, `repeat` times for each
    work that is not slow. `say` hears what is being done. Raises UserError if a server cannot be measured."""
    results = Results(urls)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http:
        servers = [Server(url, http) for url in urls]
        for server in servers:
            await server.ask("Hello", max_tokens=4)
        for name in work:
            await _in_turn(servers, name, 1 if WORKLOADS[name].slow else repeat, seed, say, results)
        for url in urls:
            size = resident(url)
            if size is not None:
                results.add("after all of it", url, {"memory (PSS), MiB": size / (1 << 20)})
    return results


async def _in_turn(servers: Sequence[Server], name: str, repeat: int, seed: int, say: Say, results: Results) -> None:
    for number in range(repeat):
        # every other round begins with the last server, so that none is always the first
        for server, url in list(zip(servers, results.servers, strict=True))[:: -1 if number % 2 else 1]:
            say(f"{name}, {number + 1} of {repeat}: {url}")
            rng = Random(f"{seed} {name} {number}")  # noqa: S311 - words, not keys
            results.add(name, url, await WORKLOADS[name].run(server, rng))
