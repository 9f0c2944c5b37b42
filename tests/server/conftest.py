"""The real daemon on a real port, with the engine's real loop over a real socket, and a model of a few lines."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from qwen_edge.auth.keys import Keys
from qwen_edge.config.load import parse_config
from qwen_edge.config.schema import Config
from qwen_edge.daemon.main import Daemon
from qwen_edge.daemon.sd_notify import Notifier
from qwen_edge.device.telemetry import Source
from qwen_edge.protocol.messages import Load, Tuning
from qwen_edge.renderer.handle import Renderer
from qwen_edge.supervisor.limits import SupervisorLimits
from qwen_edge.supervisor.supervisor import Supervisor
from tests.fakes import TEMPLATE, FakeBackend, FakeEngineProcess, Script

collect_ignore = ["test_openapi.py"] if sys.version_info < (3, 11) else []  # schemathesis needs Python 3.11


@dataclass
class Served:
    """A running daemon: `backend` is the model in the engine that runs now, `engines` are all it ever had."""

    address: str
    supervisor: Supervisor
    http: aiohttp.ClientSession
    task: asyncio.Task[None]
    engines: list[FakeEngineProcess] = field(default_factory=list)
    failing_starts: list[OSError] = field(default_factory=list)  # raised instead of starting another engine
    may_load: threading.Event = field(default_factory=threading.Event)
    renderer: Renderer = field(default_factory=Renderer)

    @property
    def backend(self) -> FakeBackend:
        return self.engines[-1].backend

    @property
    def begun(self) -> int:
        """How many requests the engine has begun and not finished."""
        return sum(pending.started for pending in self.supervisor._requests)

    def post(self, body: Any, **options: Any) -> Any:
        return self.http.post(f"{self.address}/v1/chat/completions", json=body, **options)

    async def ask(self, text: str = "hi", **body: Any) -> tuple[int, dict[str, Any]]:
        messages = [{"role": "user", "content": text}]
        async with self.post({"messages": messages, **body}) as response:
            return response.status, await response.json()

    async def health(self) -> tuple[int, dict[str, Any]]:
        async with self.http.get(f"{self.address}/health") as response:
            return response.status, await response.json()


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    running: list[Served] = []

    async def start(
        script: Script = lambda prompt: "Hello!",
        settings: str = "",
        *,
        keys: Keys | None = None,
        context: int = 4096,
        parallel: int = 1,
        gate: threading.Event | None = None,
        notifier: Notifier | None = None,
        hang_seconds: float = 30.0,
        ahead_per_hour: float = 0.0,
        idle: float = math.inf,
        growth: int | None = None,
        memory: Callable[[int], int] = lambda pid: 0,
        source: Source | None = None,
        tuning: Tuning | None = None,
        template: str | None = TEMPLATE,
        render_seconds: float = 5.0,
        stops_loops: bool = False,
    ) -> Served:
        """`stops_loops`: most scripts become long by repeating themselves, so loops count only where a test says so."""
        engines: list[FakeEngineProcess] = []
        failing_starts: list[OSError] = []
        may_load = threading.Event()
        may_load.set()

        def engine() -> FakeEngineProcess:
            if failing_starts:
                raise failing_starts.pop()
            backend = FakeBackend(
                script, context=context, parallel=parallel, gate=gate, template=template, says_forced=True
            )
            backend.tuning = tuning
            engines.append(FakeEngineProcess(backend, may_load))
            return engines[-1]

        model = tmp_path / "fake.gguf"
        model.touch()
        config: Config = parse_config(f"server:\n  port: 0\n{settings}", "test")
        config = replace(config, chat=replace(config.chat, stop_loops=stops_loops))
        load = Load("fake.gguf", context, 16, 1, 0, "f16", "off", 0.2, ahead_per_hour=ahead_per_hour)
        limits = SupervisorLimits(
            load_seconds=30,
            hang_seconds=hang_seconds,
            idle_seconds=idle,
            memory_bytes=growth,
            memory_seconds=0.0,
        )
        supervisor = Supervisor(load, limits, start=engine, memory=memory)
        supervisor.spawn()
        notifier, keys = notifier or Notifier({}), keys or Keys()
        renderer = Renderer(seconds=render_seconds)
        renderer.spawn()
        found = source, "test"
        daemon = Daemon(config, model, keys, supervisor, notifier, lambda: found, renderer=renderer)
        said: asyncio.Queue[str] = asyncio.Queue()
        task = asyncio.create_task(daemon.run(said.put_nowait))
        telling = asyncio.create_task(said.get())
        await asyncio.wait([task, telling], return_when=asyncio.FIRST_COMPLETED)
        if task.done():  # refused at the start
            telling.cancel()
            await task
        line = await telling
        http = aiohttp.ClientSession()
        served = Served(line.split()[2], supervisor, http, task, engines, failing_starts, may_load, renderer)
        running.append(served)
        return served

    yield start
    for served in running:
        if not served.task.done():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        await served.task
        await served.http.close()
