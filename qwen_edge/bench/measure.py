"""Runs the workloads on all servers, in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from random import Random

from qwen_edge.bench.report import Results
from qwen_edge.bench.server_processes import memory_bytes, wait_until_idle
from qwen_edge.bench.workloads import WORKLOADS
from qwen_edge.client.server import Server, servers_at
from qwen_edge.client.start_server import running

Say = Callable[[str], None]


@dataclass(frozen=True)
class WaitTimes:
    """Seconds: how long a server may load, and how long all servers rest before the workloads, and before their memory
    is measured. The rest lets servers finish the work that they do when idle."""

    load: float = 600.0
    rest: float = 0.0


async def measure(
    urls: Sequence[str],
    work: Sequence[str],
    repeat: int,
    seed: int,
    say: Say,
    *,
    start: Sequence[Sequence[str]] = (),
    waits: WaitTimes = WaitTimes(),
) -> Results:
    """Ask each server one question that does not count; then run each workload on all servers in turn, `repeat` times
    unless it is slow. `say` gets progress messages. `start`: a command for each URL, or none; the commands run until
    the measurement ends. Raises UserError if a server cannot be started or measured."""
    results = Results(urls)
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(servers_at(urls))
        if start:
            # servers load one after the other, so that each has the machine for itself
            for server, url, command in zip(servers, urls, start, strict=True):
                say(f"start: {url}")
                child = await stack.enter_async_context(running(server, command))
                results.add("start", url, {"load time, s": await child.load(server, waits.load)})
        for server in servers:
            await server.ask("Hello", max_tokens=4)
        await asyncio.sleep(waits.rest)
        for name in work:
            await _in_turn(servers, name, 1 if WORKLOADS[name].slow else repeat, seed, say, results)
        await asyncio.sleep(waits.rest)
        for url in urls:
            size = memory_bytes(url)
            if size is not None:
                results.add("after all of it", url, {"memory (PSS), MiB": size / (1 << 20)})
    return results


async def _in_turn(servers: Sequence[Server], name: str, repeat: int, seed: int, say: Say, results: Results) -> None:
    for number in range(repeat):
        # every other round runs in reverse order, so that no server is always the first
        for server, url in list(zip(servers, results.servers, strict=True))[:: -1 if number % 2 else 1]:
            await wait_until_idle(results.servers)
            say(f"{name}, {number + 1} of {repeat}: {url}")
            rng = Random(f"{seed} {name} {number}")  # noqa: S311 - words, not keys
            results.add(name, url, await WORKLOADS[name].run(server, rng))
