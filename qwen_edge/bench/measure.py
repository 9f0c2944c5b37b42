"""Runs the workloads on servers: on all of them in turn, or on one after the other where models are started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random

from qwen_edge.bench.report import Results
from qwen_edge.bench.server_processes import memory_bytes, wait_until_idle
from qwen_edge.bench.workloads import WORKLOADS
from qwen_edge.client.private_daemon import private_daemon
from qwen_edge.client.server import Server, servers_at
from qwen_edge.client.start_server import running
from qwen_edge.core.errors import UserError

Say = Callable[[str], None]
Advance = Callable[[float], None]


@dataclass(frozen=True)
class WaitTimes:
    """Seconds: how long a server may load, and how long all servers rest before the workloads, and before their memory
    is measured. The rest lets servers finish the work that they do when idle."""

    load: float = 600.0
    rest: float = 0.0


@dataclass(frozen=True)
class Target:
    """What is measured, under the `name` that tables show: a server at the URL `name`, which `command` starts if there
    is one, or a `model` file, for which a private daemon is started."""

    name: str
    model: Path | None = None
    command: Sequence[str] = ()


@dataclass(frozen=True)
class Plan:
    """The workloads, and how often each of them is run, unless it is slow. `seed`: of the words in prompts."""

    work: Sequence[str]
    repeat: int
    seed: int
    waits: WaitTimes = WaitTimes()

    def times(self, name: str) -> int:
        """How often a workload is run on each server."""
        return 1 if WORKLOADS[name].slow else self.repeat

    @property
    def seconds(self) -> float:
        """About how long one server takes, from its first answer on."""
        return sum(self.times(name) * WORKLOADS[name].seconds for name in self.work)


async def measure(
    urls: Sequence[str],
    plan: Plan,
    say: Say,
    *,
    start: Sequence[Sequence[str]] = (),
    advance: Advance = lambda _: None,
) -> Results:
    """Ask each server one question that does not count; then run the workloads on all servers in turn. `say` gets
    progress messages, `advance` about the seconds of what is done. `start`: a command for each URL, or none; the
    commands run until the measurement ends. Raises UserError if a server cannot be started or measured."""
    results = Results(urls)
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(servers_at(urls))
        named = dict(zip(urls, servers, strict=True))
        # servers load one after the other, so that each has the machine for itself
        for url, command in zip(urls, start, strict=bool(start)):
            await _start(stack, named[url], Target(url, command=command), plan.waits, say, results)
        await _run(named, plan, say, advance, results)
    return results


async def measure_one_by_one(
    targets: Sequence[Target], plan: Plan, say: Say, advance: Advance = lambda _: None
) -> Results:
    """Measure each target as `measure` does, but one after the other, so that two models never compete for memory. A
    model is started twice, and the second start counts: the first one may measure which settings are fastest, and
    reads the file from the disk. What cannot be started or measured is noted with the reason in `Results.failed`."""
    results = Results([target.name for target in targets])
    for target in targets:
        done = 0.0

        def advanced(seconds: float) -> None:
            nonlocal done
            done += seconds
            advance(seconds)

        try:
            async with AsyncExitStack() as stack:
                server = await _started(stack, target, plan.waits, say, results)
                await _run({target.name: server}, plan, say, advanced, results)
        except UserError as error:
            results.failed[target.name] = str(error)
            say(f"{target.name} is left: {error}")
        advance(plan.seconds - done)
    return results


async def _started(stack: AsyncExitStack, target: Target, waits: WaitTimes, say: Say, results: Results) -> Server:
    """The server of a target, until the stack is left. Raises UserError."""
    if not target.model:
        (server,) = await stack.enter_async_context(servers_at([target.name]))
        if target.command:
            await _start(stack, server, target, waits, say, results)
        return server
    say(f"first start: {target.name}")
    async with private_daemon(target.model, say=say):
        pass
    say(f"start: {target.name}")
    daemon = await stack.enter_async_context(private_daemon(target.model))
    (server,) = await stack.enter_async_context(servers_at([daemon.url]))
    results.add("start", target.name, {"load time, s": await daemon.process.load(server, waits.load)})
    return server


async def _start(
    stack: AsyncExitStack, server: Server, target: Target, waits: WaitTimes, say: Say, results: Results
) -> None:
    """Run the command of a target until the stack is left. Raises UserError."""
    say(f"start: {target.name}")
    child = await stack.enter_async_context(running(server, target.command))
    results.add("start", target.name, {"load time, s": await child.load(server, waits.load)})


async def _run(servers: Mapping[str, Server], plan: Plan, say: Say, advance: Advance, results: Results) -> None:
    """All workloads, each on all servers in turn; and the memory of the servers after them. Raises UserError."""
    for server in servers.values():
        await server.ask("Hello", max_tokens=4)
    await asyncio.sleep(plan.waits.rest)
    for work in plan.work:
        for number in range(plan.times(work)):
            # every other round runs in reverse order, so that no server is always the first
            for name, server in list(servers.items())[:: -1 if number % 2 else 1]:
                await wait_until_idle([one.url for one in servers.values()])
                say(f"{work}, {number + 1} of {plan.times(work)}: {name}")
                rng = Random(f"{plan.seed} {work} {number}")  # noqa: S311 - words, not keys
                results.add(work, name, await WORKLOADS[work].run(server, rng))
                advance(WORKLOADS[work].seconds)
    await asyncio.sleep(plan.waits.rest)
    for name, server in servers.items():
        size = memory_bytes(server.url)
        if size is not None:
            results.add("after all of it", name, {"memory (PSS), MiB": size / (1 << 20)})
