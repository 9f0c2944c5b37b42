"""The daemon: puts the parts together, says when it is ready, and stops in good order.

`Daemon.run` is its life: start-up, main loop, shutdown. The engine process is started before aiohttp is imported, so
both load at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from qwen_edge.auth.keys import Keys, read_keys
from qwen_edge.chat.abilities import TemplateSource
from qwen_edge.config.paths import find_model
from qwen_edge.config.schema import Config
from qwen_edge.core.errors import CrashedError, EngineError, UnservableError
from qwen_edge.core.progress import on_stream
from qwen_edge.daemon.announcement import status_line, tell_surprises
from qwen_edge.daemon.descriptors import Reserve, raise_limit
from qwen_edge.daemon.heartbeat import Heartbeat
from qwen_edge.daemon.load_display import LoadDisplay
from qwen_edge.daemon.sd_notify import Notifier
from qwen_edge.device.host.memory import total_bytes
from qwen_edge.models.tuning import described, keep, recall
from qwen_edge.protocol.messages import Ready
from qwen_edge.renderer.handle import Renderer
from qwen_edge.supervisor.engine_process import SPAWN_DESCRIPTORS, EngineProcess
from qwen_edge.supervisor.engine_settings import conversation_files, load_message, supervisor_limits
from qwen_edge.supervisor.supervisor import Supervisor

if TYPE_CHECKING:  # heavy: the engine process is started before any of these is imported
    from qwen_edge.daemon.http_server import HttpServer
    from qwen_edge.device.from_config import Found
    from qwen_edge.device.history import History

log = logging.getLogger(__name__)


def serve(config: Config, say: Callable[[str], None]) -> None:
    """Run until SIGTERM or SIGINT. `say` gets the one line that tells it is ready.

    Raises UserError if it cannot start.
    """
    raise_limit()
    model = find_model(config.model)
    keys = read_keys(config)
    notifier = Notifier()
    reserve = Reserve(SPAWN_DESCRIPTORS)

    def start() -> EngineProcess:
        with reserve.lent():
            return EngineProcess()

    engine = Supervisor(
        load_message(
            config.engine, model, recall(model), notifier.watchdog_seconds, conversation_files(config.remember)
        ),
        supervisor_limits(config.engine),
        start=start,
    )
    engine.spawn()
    renderer = Renderer()
    renderer.spawn()
    try:
        asyncio.run(Daemon(config, model, keys, engine, notifier, renderer=renderer).run(say))
    except CrashedError as error:
        raise _blame_file_if_it_crashes_again(error, model) from None


def _blame_file_if_it_crashes_again(error: CrashedError, model: Path) -> EngineError:
    """The error to report for a crash while loading: UnservableError if llama.cpp also crashes in a process that reads
    the file's header alone, as a restart does not help then; else `error`. Takes half a second."""
    from qwen_edge.convert.worker import StepError, run_worker  # seldom needed

    try:
        run_worker({"do": "load", "file": str(model)}, lambda _: None)
    except StepError as failed:
        if failed.lasting:
            return UnservableError(f"{error} A restart would not help: {failed}")
    except OSError:  # there is no memory or no descriptor for another process
        pass
    return error


class Daemon:
    """One life of the daemon, on one event loop. Make it, then `run` it once."""

    def __init__(
        self,
        config: Config,
        model: Path,
        keys: Keys,
        engine: Supervisor,
        notifier: Notifier,
        find: Callable[[], Found] | None = None,
        *,
        renderer: Renderer | None = None,
    ) -> None:
        """`find` makes the source of telemetry; None: the one that the settings name. `renderer` None: a new one."""
        self._config = config
        self._model = model
        self._keys = keys
        self._engine = engine
        progress = on_stream(sys.stderr, lambda line: log.info("%s", line))
        engine.on_loading = LoadDisplay(progress, model)
        self._find = find
        self._renderer = renderer or Renderer()
        self._heartbeat = Heartbeat(notifier, engine, config.engine.load_seconds)
        self._stop, self._stop_now = asyncio.Event(), asyncio.Event()  # the first signal, and the second
        self._tasks: list[asyncio.Task[None]] = []  # beside the engine's
        self._http: HttpServer | None = None
        self._history: History | None = None

    async def run(self, say: Callable[[str], None]) -> None:
        """The whole life of the daemon. `say` gets the line that it is ready. Raises EngineError or NotNowError if it
        cannot start."""
        engine = asyncio.create_task(self._engine.run())
        try:
            http = await self._start_up(engine, say)
            await self._main_loop(engine)
            await self._drain(http)
        finally:
            await self._shutdown()
        await engine

    async def _start_up(self, engine: asyncio.Task[None], say: Callable[[str], None]) -> HttpServer:
        """Listen, and wait until the model is loaded and the renderer has its template; until then /health answers 503.
        Returns early if a signal comes meanwhile."""
        from qwen_edge.daemon.http_server import HttpServer
        from qwen_edge.device.history import kept_history
        from qwen_edge.server.state import State
        from qwen_edge.service.thermal import ThermalControl

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        self._history = history = kept_history(self._config.remember, self._memory)
        thermal = ThermalControl(self._engine, self._config.device, find=self._find, history=history)
        heartbeat = self._heartbeat
        self._tasks += map(asyncio.create_task, (heartbeat.watchdog(), thermal.run(), heartbeat.tell(thermal)))
        http = HttpServer(State(self._config, self._engine, thermal, self._model.stem, self._keys, self._renderer))
        self._http = http
        await http.start()
        await self._first_of(self._engine.loaded(), self._stop.wait(), engine)
        if model := self._engine.model:
            await self._first_of(self._renderer.open(TemplateSource.of(model)), self._stop.wait())
            if not self._stop.is_set():
                self._keep_tuning(model)
                self._announce(http, model, say)
        return http

    async def _main_loop(self, engine: asyncio.Task[None]) -> None:
        """Serve until a signal. Raises what ends the supervisor, which is a bug."""
        await self._first_of(self._stop.wait(), engine)

    async def _drain(self, http: HttpServer) -> None:
        """Take no new request, and wait until running requests have ended and clients have their answers. Give up after
        drain_seconds, or at once at a second signal."""
        drain_seconds = self._config.server.drain_seconds
        self._heartbeat.stopping(drain_seconds + 10)
        http.refuse_new()
        if http.in_flight:
            log.info("stopping: %d requests are being finished", http.in_flight)
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._first_of(http.drain(), self._stop_now.wait()), drain_seconds)
        if http.in_flight:
            log.warning("stopping now: %d requests are cut off", http.in_flight)

    async def _shutdown(self) -> None:
        """End all that was started: requests that still run are cut off. What was not started is passed over."""
        for task in self._tasks:
            task.cancel()
        if self._http:
            await self._http.stop()
        await self._renderer.stop()
        if self._history:
            await self._history.close()
        await self._engine.stop(grace=0.0 if self._stop_now.is_set() else 5.0)
        if self._http:
            await self._http.close()

    def _memory(self) -> int | None:
        """Bytes of the daemon and the engine."""
        return total_bytes(os.getpid(), self._engine.pid)

    def _keep_tuning(self, model: Ready) -> None:
        """Keep what the engine has measured, so that it does not measure again at the next start."""
        if model.tuning:
            keep(self._model, model.site, model.tuning)
            log.info(
                "measured for the first start with this model: %s. `qwen-edge tune` measures longer.",
                described(model.tuning),
            )

    def _announce(self, http: HttpServer, model: Ready, say: Callable[[str], None]) -> None:
        """Say on which address it serves, and what may surprise the user."""
        tell_surprises(self._config.engine, model)
        status = status_line(model, self._model.stem, http.address)
        seconds = time.time() - psutil.Process().create_time()
        say(f"qwen-edge {version('qwen-edge')}  {status}  ready in {seconds:.2f} s")
        self._heartbeat.ready(status)

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    @staticmethod
    async def _first_of(*things: Awaitable[Any]) -> None:
        """Wait until one of `things` is done, and raise its error if it has one. The others are cancelled, also if the
        waiting itself is cancelled; except tasks, which go on."""
        tasks = [asyncio.ensure_future(thing) for thing in things]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task, thing in zip(tasks, things, strict=True):
                if task is not thing:
                    task.cancel()
        for task in done:
            task.result()
