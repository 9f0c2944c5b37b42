"""The daemon: puts the parts together, says when it is ready, and stops in good order.

The engine process is started before aiohttp is imported, so both load at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from qwen_edge.config import Config, EngineConfig
from qwen_edge.device.cpu import usable_cores
from qwen_edge.device.gpu import find_gpu, rebuild_command
from qwen_edge.errors import ConfigError, EngineError
from qwen_edge.messages import Load, Ready
from qwen_edge.paths import find_model
from qwen_edge.supervisor import Supervisor
from qwen_edge.systemd import Notifier

log = logging.getLogger(__name__)

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_FLASH_ATTENTION = {"on": 1, "off": 0, "auto": -1}


def serve(config: Config, say: Callable[[str], None]) -> None:
    """Run until SIGTERM or SIGINT. `say` gets the one line that tells it is ready.

    Raises ConfigError or EngineError if it cannot start.
    """
    model = find_model(config.model)
    keys = read_keys(config)
    notifier = Notifier()
    engine = Supervisor(
        load_message(config.engine, model, notifier.watchdog_seconds),
        load_seconds=config.engine.load_seconds,
        hang_seconds=config.engine.hang_seconds,
    )
    engine.spawn()
    asyncio.run(Daemon(config, model, keys, engine, notifier).run(say))


def read_keys(config: Config) -> frozenset[str]:
    """The API keys, one a line, from the configured file or from systemd's credential `api-keys`. Raises ConfigError.

    Binding to anything but loopback without a key is refused: it would hand the device to the whole network.
    """
    file = config.server.api_keys_file
    credential = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent")) / "api-keys"
    keys = _keys_in(Path(file).expanduser()) if file else _keys_in(credential) if credential.is_file() else frozenset()
    if file and not keys:
        raise ConfigError(f"server.api_keys_file: {file} holds no key. Write one a line.")
    if not keys and config.server.host not in _LOOPBACK:
        raise ConfigError(
            f"server.host is {config.server.host}, which others can reach, and there is no key. "
            "Set server.api_keys_file, or keep server.host at 127.0.0.1."
        )
    return keys


def _keys_in(file: Path) -> frozenset[str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"server.api_keys_file: cannot read {file}: {error}.") from None
    return frozenset(line.strip() for line in lines if line.strip() and not line.startswith("#"))


def load_message(config: EngineConfig, model: Path, watchdog: float | None = None) -> Load:
    """The engine's orders. It must be heard of well within the time after which it would be taken for dead."""
    patience = min(config.hang_seconds, watchdog or config.hang_seconds)
    # Without a GPU flash attention is slower the longer the context, up to 1.8 times at 2,048 tokens.
    flash_attention = "off" if config.flash_attention == "auto" and find_gpu() is None else config.flash_attention
    return Load(
        model=str(model.resolve()),
        context=config.context,
        batch=config.batch,
        threads=config.threads or usable_cores(),
        gpu_layers=config.gpu_layers,
        kv_type=config.kv_type,
        flash_attention=_FLASH_ATTENTION[flash_attention],
        beat_seconds=min(5.0, patience / 4),
    )


class Daemon:
    """One life, on one event loop."""

    def __init__(
        self, config: Config, model: Path, keys: frozenset[str], engine: Supervisor, notifier: Notifier
    ) -> None:
        self._config = config
        self._model = model
        self._keys = keys
        self._engine = engine
        self._notifier = notifier

    async def run(self, say: Callable[[str], None]) -> None:
        """Load, listen, serve, stop. While the model loads, /health answers 503."""
        from aiohttp import web

        from qwen_edge.server.app import make_app
        from qwen_edge.server.state import State

        self._stop, self._stop_now = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        engine = asyncio.create_task(self._engine.run())
        watchdog = asyncio.create_task(self._watchdog())
        state = State(self._config, self._engine, self._model.stem, self._keys)
        runner = web.AppRunner(
            make_app(state), handle_signals=False, handler_cancellation=True, access_log=None, shutdown_timeout=0.5
        )
        try:
            await runner.setup()
            address = await self._listen(runner)
            await self._first_of(self._engine.loaded(), self._stop.wait(), engine)
            if self._engine.model and not self._stop.is_set():
                self._announce(address, self._engine.model, say)
                await self._first_of(self._stop.wait(), engine)
            await self._drain(state, runner)
        finally:
            watchdog.cancel()
            await runner.cleanup()
            await self._engine.stop(grace=0.0 if self._stop_now.is_set() else 5.0)
        await engine

    async def _listen(self, runner: Any) -> str:
        """Bind; returns the address with the port that was really taken (for port 0)."""
        from aiohttp import web

        host, port = self._config.server.host, self._config.server.port
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise ConfigError(
                f"Cannot listen on {host}:{port}: {error.strerror or error}. "
                "Stop what uses the port, or choose another: server.port (--port)."
            ) from None
        return f"http://{host}:{runner.addresses[0][1]}"

    def _announce(self, address: str, model: Ready, say: Callable[[str], None]) -> None:
        gpu = find_gpu()
        if gpu and not model.gpu_layers:
            trap = f"{gpu.name} is here, but llama.cpp runs on the CPU. Build it with CUDA: {rebuild_command(gpu)}"
            if self._config.engine.require_gpu:
                raise EngineError(trap)
            log.warning("%s", trap)
        elif self._config.engine.require_gpu and not model.gpu_layers:
            raise EngineError("engine.require_gpu is set, and no layer runs on a GPU: qwen-edge doctor tells why.")
        where = f"{model.gpu_layers}/{model.layers + 1} layers on the GPU" if model.gpu_layers else "CPU"
        status = (
            f"{address}  {self._model.stem}  context {model.context}  {self._memory() / 1e6:.0f} MB  "
            f"{where}, {model.threads} threads"
        )
        seconds = time.time() - psutil.Process().create_time()
        say(f"qwen-edge {version('qwen-edge')}  {status}  ready in {seconds:.2f} s")
        self._notifier.ready(status)

    def _memory(self) -> int:
        """Bytes of memory that would be free if daemon and engine were not here."""
        processes = [psutil.Process(), *psutil.Process().children()]
        return sum(process.memory_full_info().pss for process in processes)

    async def _drain(self, state: Any, runner: Any) -> None:
        """Take nothing new, finish what runs; give up after drain_seconds, or at once at a second signal."""
        state.stopping = True
        self._notifier.stopping(self._config.server.drain_seconds + 10)
        for site in list(runner.sites):
            await site.stop()
        if state.in_flight:
            log.info("stopping: %d requests are being finished", state.in_flight)
        with contextlib.suppress(asyncio.TimeoutError):
            finished = self._first_of(state.idle.wait(), self._stop_now.wait())
            await asyncio.wait_for(finished, self._config.server.drain_seconds)
        if state.in_flight:
            log.warning("stopping now: %d requests are cut off", state.in_flight)

    async def _watchdog(self) -> None:
        """Tell systemd we are alive as long as the engine is heard of: a daemon without an engine is of no use."""
        interval = self._notifier.watchdog_seconds
        while True:
            if self._engine.state == "loading":
                self._notifier.still_starting(30)
            if interval and (self._engine.state != "ready" or self._engine.silence < interval / 2):
                self._notifier.alive()
            await asyncio.sleep(interval / 4 if interval else 10)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    @staticmethod
    async def _first_of(*things: Awaitable[Any]) -> None:
        """Wait until one of them is done; errors in it are raised. Tasks among them go on."""
        tasks = [asyncio.ensure_future(thing) for thing in things]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task, thing in zip(tasks, things, strict=True):
            if task is not thing and not task.done():
                task.cancel()
        for task in done:
            task.result()
