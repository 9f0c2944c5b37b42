"""Runs the work on all servers, in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

import aiohttp

from qwen_edge.bench.client import Server
from qwen_edge.bench.memory import resident
from qwen_edge.bench.report import Results
from qwen_edge.bench.workloads import WORKLOADS


async def measure(
    urls: Sequence[str], work: Sequence[str], repeat: int, seed: int, say: Callable[[str], None]
) -> Results:
    """Every server once with a first question that does not count, then all of them in turn, `repeat` times for each
    work. `say` hears what is being done. Raises UserError if a server cannot be measured."""
    results = Results(urls)
    # a connection for each question: some servers close one that is kept just when it is used again
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as http:
        servers = [Server(url, http) for url in urls]
        for server in servers:
            await server.ask("Hello", max_tokens=4)
        for name in work:
            for number in range(repeat):
                # every other round begins with the last server, so that none is always the first
                for server, url in list(zip(servers, urls, strict=True))[:: -1 if number % 2 else 1]:
                    say(f"{name}, {number + 1} of {repeat}: {url}")
                    rng = Random(f"{seed} {name} {number}")  # noqa: S311 - words, not keys
                    results.add(name, url, await WORKLOADS[name](server, rng))
    sizes = [resident(url) for url in urls]
    for url, size in zip(urls, sizes, strict=True):
        if size is not None and None not in sizes:  # a row has all servers
            results.add("after all of it", url, {"memory (PSS), MiB": size / (1 << 20)})
    return results
