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
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from qwen_edge.auth.keys import Keys, read_keys
from qwen_edge.chat.abilities import TemplateSource
from qwen_edge.config.paths import find_model
from qwen_edge.config.schema import Config, EngineConfig
from qwen_edge.core.errors import CrashedError, EngineError, NotNowError, UnservableError
from qwen_edge.daemon.descriptors import (
    Reserve,
    allowed,
    backlog_within,
    connection_limit,
    quiet_when_used_up,
    raise_limit,
)
from qwen_edge.daemon.sd_notify import Notifier
from qwen_edge.device.host.gpu import Gpu, find_gpu, rebuild_command
from qwen_edge.models.tuning import keep, recall
from qwen_edge.protocol.messages import Ready
from qwen_edge.renderer.handle import Renderer
from qwen_edge.supervisor.engine_process import SPAWN_DESCRIPTORS, EngineProcess
from qwen_edge.supervisor.engine_settings import files, load_message, patience_with
from qwen_edge.supervisor.state import State as EngineState
from qwen_edge.supervisor.supervisor import Supervisor

if TYPE_CHECKING:  # heavy: the engine process is started before any of these is imported
    from aiohttp import web

    from qwen_edge.device.from_config import Found
    from qwen_edge.server.connections import Connections
    from qwen_edge.server.state import State
    from qwen_edge.service.thermal import ThermalControl

log = logging.getLogger(__name__)

_TELL_SECONDS = 5.0


def serve(config: Config, say: Callable[[str], None]) -> None:
    """Run until SIGTERM or SIGINT. `say` gets the one line that tells it is ready.

    Raises ConfigError or EngineError if it cannot start.
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
        load_message(config.engine, model, recall(model), notifier.watchdog_seconds, files(config.remember)),
        patience_with(config.engine),
        start=start,
    )
    engine.spawn()
    renderer = Renderer()
    renderer.spawn()
    try:
        asyncio.run(Daemon(config, model, keys, engine, notifier, renderer=renderer).run(say))
    except CrashedError as error:
        raise _tried_on_paper(error, model) from None


def _tried_on_paper(error: CrashedError, model: Path) -> EngineError:
    """Whether a crash while loading was the file's fault, which a restart does not mend: llama.cpp then crashes also in
    a process that reads the file's header alone. Takes half a second. `error` itself if it was not."""
    from qwen_edge.convert.worker import StepError, run_worker  # seldom needed

    try:
        run_worker({"do": "load", "file": str(model)}, lambda _: None)
    except StepError as failed:
        if failed.lasting:
            return UnservableError(f"{error} So it would again: {failed}")
    except OSError:  # there is no memory or no descriptor for another process
        pass
    return error


def check_gpu(config: EngineConfig, model: Ready, gpu: Gpu | None) -> None:
    """A GPU that is here, or required, and not used is told: it is the best-known trap on a Jetson.

    Raises UnservableError if it is required and llama.cpp is not built for one, EngineError if it was not found."""
    if model.gpu_layers or not (gpu or config.require_gpu):
        return
    if gpu and config.gpu_layers == 0:
        log.info("%s is here, and not used: engine.gpu_layers is 0", gpu.name)
        return
    here = f"{gpu.name} is here, but" if gpu else "engine.require_gpu is set, but"
    if model.gpu_build:
        trap = f"{here} llama.cpp, which is built for a GPU, finds none: is its driver up? qwen-edge doctor tells more."
    else:
        trap = f"{here} llama.cpp runs on the CPU. Build it with CUDA: {rebuild_command(gpu or Gpu('', 'native'))}"
    if config.require_gpu:
        raise (EngineError if model.gpu_build else UnservableError)(trap)
    log.warning("%s", trap)


def tell_of_shorter_context(config: EngineConfig, model: Ready) -> None:
    """One line where the context is not what the settings say."""
    if model.context < config.context:
        log.info(
            "engine.context is %d tokens, but the model was trained for %d: the context has %d",
            config.context,
            model.context,
            model.context,
        )


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
        self._notifier = notifier
        self._find = find
        self._renderer = renderer or Renderer()
        self._status = ""  # the line for the service manager, once the daemon serves
        self._stop, self._stop_now = asyncio.Event(), asyncio.Event()  # the first signal, and the second
        self._tasks: list[asyncio.Task[None]] = []  # beside the engine's
        self._runner: web.AppRunner | None = None
        self._connections: Connections | None = None
        self._server: asyncio.Server | None = None

    async def run(self, say: Callable[[str], None]) -> None:
        """The whole life of the daemon. `say` gets the line that it is ready. Raises EngineError or NotNowError if it
        cannot start."""
        engine = asyncio.create_task(self._engine.run())
        try:
            state = await self._start_up(engine, say)
            await self._main_loop(engine)
            await self._drain(state)
        finally:
            await self._shutdown()
        await engine

    async def _start_up(self, engine: asyncio.Task[None], say: Callable[[str], None]) -> State:
        """Listen, and wait until the model is loaded and the renderer has its template; until then /health answers 503.
        Returns early if a signal comes meanwhile."""
        from qwen_edge.service.thermal import ThermalControl

        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        thermal = ThermalControl(self._engine, self._config.device, find=self._find)
        self._tasks += [asyncio.create_task(one) for one in (self._watchdog(), thermal.run(), self._tell(thermal))]
        state = await self._serve_http(thermal)
        await self._first_of(self._engine.loaded(), self._stop.wait(), engine)
        if model := self._engine.model:
            await self._first_of(self._renderer.open(TemplateSource.of(model)), self._stop.wait())
            if not self._stop.is_set():
                self._remember(model)
                self._announce(model, say)
        return state

    async def _main_loop(self, engine: asyncio.Task[None]) -> None:
        """Serve until a signal. Raises what ends the supervisor, which is a bug."""
        await self._first_of(self._stop.wait(), engine)

    async def _shutdown(self) -> None:
        """End all that was started: requests that still run are cut off. What was not started is passed over."""
        for task in self._tasks:
            task.cancel()
        if self._server:
            self._server.close()
        if self._runner:
            await self._runner.cleanup()
        await self._renderer.stop()
        await self._engine.stop(grace=0.0 if self._stop_now.is_set() else 5.0)
        if self._connections:
            await self._connections.close()

    async def _serve_http(self, thermal: ThermalControl) -> State:
        """Make the application, and take connections. Raises NotNowError."""
        from aiohttp import web

        from qwen_edge.server.app import ALL_DIALECTS, make_app
        from qwen_edge.server.connections import Connections
        from qwen_edge.server.state import State

        state = State(self._config, self._engine, thermal, self._model.stem, self._keys, self._renderer)
        self._runner = web.AppRunner(
            make_app(state, ALL_DIALECTS),
            handle_signals=False,
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=0.5,
        )
        await self._runner.setup()
        assert self._runner.server
        limits, most = self._config.server, self._connection_limit()
        self._connections = Connections(self._runner.server, limits, most, ALL_DIALECTS)
        self._tasks.append(asyncio.create_task(self._connections.run()))
        self._server = await self._listen(self._connections)
        return state

    async def _listen(self, connections: Connections) -> asyncio.Server:
        """Bind and accept. Raises NotNowError."""
        host, port = self._config.server.host, self._config.server.port
        loop, backlog = asyncio.get_running_loop(), backlog_within(allowed())
        loop.set_exception_handler(quiet_when_used_up())
        try:
            return await loop.create_server(connections.accept, host, port, reuse_address=True, backlog=backlog)
        except OSError as error:
            raise NotNowError(
                f"Cannot listen on {host}:{port}: {_cause(error)}. "
                "Stop what uses the port, or choose another: server.port (--port)."
            ) from None

    def _connection_limit(self) -> int:
        """server.max_connections, or what the file descriptors allow."""
        wanted, descriptors = self._config.server.max_connections, allowed()
        most = connection_limit(wanted, descriptors)
        if most < wanted:
            log.warning(
                "server.max_connections is %d, and %d file descriptors allow %d connections (ulimit -Hn, LimitNOFILE)",
                wanted,
                descriptors,
                most,
            )
        return most

    def _remember(self, model: Ready) -> None:
        """Keep what the engine has measured, so that it does not measure again at the next start."""
        if model.tuning:
            keep(self._model, model.site, model.tuning)
            attention = model.tuning.flash_attention
            log.info(
                "measured for the first start with this model: flash attention %s is quickest. "
                "`qwen-edge tune` measures longer.",
                "for short conversations" if attention == "small" else attention,
            )

    def _announce(self, model: Ready, say: Callable[[str], None]) -> None:
        """Say on which address it serves, and what may surprise the user."""
        check_gpu(self._config.engine, model, find_gpu())
        tell_of_shorter_context(self._config.engine, model)
        for word in model.ordinary_ends:
            log.warning(
                "answers end where the model writes token %s, an ordinary word: the file names no end token, or a "
                "wrong one. Convert the model again, or set tokenizer.ggml.eos_token_id in it.",
                word,
            )
        where = f"{model.gpu_layers}/{model.layers + 1} layers on the GPU" if model.gpu_layers else "CPU"
        size = f"context {model.context}  {self._memory(model)}"
        assert self._server
        address = _address(self._config.server.host, self._server)
        status = f"{address}  {self._model.stem}  {size}{where}, {model.threads} threads"
        seconds = time.time() - psutil.Process().create_time()
        say(f"qwen-edge {version('qwen-edge')}  {status}  ready in {seconds:.2f} s")
        self._status = status
        self._notifier.ready(status)

    def _memory(self, model: Ready) -> str:
        """How much memory would be free without daemon and engine, now and once the context is full; empty if the
        system does not tell."""
        try:
            processes = [psutil.Process(), *psutil.Process().children()]
            now = sum(process.memory_full_info().pss for process in processes)
        except psutil.Error:
            return ""
        full = f" ({(now + model.bytes_to_come) / 1e6:.0f} when it is full)" if model.bytes_to_come else ""
        return f"{now / 1e6:.0f} MB{full}  "

    async def _drain(self, state: State) -> None:
        """Take no new request, and finish those that run until clients have their answers; give up after drain_seconds,
        or at once at a second signal."""
        assert self._server and self._connections
        state.stopping = True
        self._notifier.stopping(self._config.server.drain_seconds + 10)
        self._server.close()
        self._connections.hurry()
        if state.in_flight:
            log.info("stopping: %d requests are being finished", state.in_flight)
        with contextlib.suppress(asyncio.TimeoutError):
            finished = self._first_of(self._finished(state, self._connections), self._stop_now.wait())
            await asyncio.wait_for(finished, self._config.server.drain_seconds)
        if state.in_flight:
            log.warning("stopping now: %d requests are cut off", state.in_flight)

    @staticmethod
    async def _finished(state: State, connections: Connections) -> None:
        await state.idle.wait()
        await connections.emptied()

    async def _watchdog(self) -> None:
        """Tell systemd that the daemon is alive as long as the engine is heard of: without an engine it is of no use.

        While an engine loads or is replaced, the daemon counts as alive for as long as loading may take."""
        interval = self._notifier.watchdog_seconds
        while True:
            if self._engine.model is None:
                self._notifier.still_starting(30)
            if interval:
                patience = interval / 2 if self._engine.state is EngineState.READY else self._config.engine.load_seconds
                if self._engine.absence < patience:
                    self._notifier.alive()
            await asyncio.sleep(min(interval / 4, 10.0) if interval else 10.0)

    async def _tell(self, thermal: ThermalControl) -> None:
        """Tell the service manager how engine and device are, every few seconds."""
        while True:
            await asyncio.sleep(_TELL_SECONDS)
            if self._status and not self._stop.is_set():
                engine = self._engine
                trouble = "" if engine.takes else f"{engine.condition} ({engine.last_death})  "
                self._notifier.status(f"{trouble}{self._status}  {thermal.status_text}")

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    @staticmethod
    async def _first_of(*things: Awaitable[Any]) -> None:
        """Wait until one of `things` is done, and raise its error if it has one. The others are cancelled, except
        tasks, which go on."""
        tasks = [asyncio.ensure_future(thing) for thing in things]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task, thing in zip(tasks, things, strict=True):
            if task is not thing and not task.done():
                task.cancel()
        for task in done:
            task.result()


def _cause(error: OSError) -> str:
    """The system's message alone: asyncio adds a text of its own to it, with the address once more."""
    number = error.errno or 0  # negative where a name is not known
    return os.strerror(number) if number > 0 else str(error.strerror or error)


def _address(host: str, server: asyncio.Server) -> str:
    """The daemon's URL, with the port that was really taken (for port 0)."""
    port = server.sockets[0].getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
