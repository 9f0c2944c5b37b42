"""Starts servers, measures how long they load, and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import IO

from qwen_edge.client.server import RefusedError, Server, UnreachableError
from qwen_edge.core.errors import UserError

_PAUSE = 0.05  # seconds between two requests to a loading server
_LAST_LINES, _LAST_BYTES = 10, 4096


@asynccontextmanager
async def running(server: Server, command: Sequence[str], *, grace: float = 10.0) -> AsyncIterator[StartedServer]:
    """Run `command` until the context is left; then send SIGTERM, and after `grace` seconds SIGKILL. Raises UserError
    if the command cannot be started, or if the server is unreachable because the command has ended."""
    await _must_be_free(server)
    async with started(command, grace=grace) as child:
        try:
            yield child
        except UnreachableError as error:
            await asyncio.wait({child.ended}, timeout=1)  # a connection breaks shortly before its process has ended
            if child.ended.done():
                raise UserError(f"{error} {child.describe_end()}") from None
            raise


@asynccontextmanager
async def started(
    command: Sequence[str], *, grace: float = 10.0, environment: Mapping[str, str] | None = None
) -> AsyncIterator[StartedServer]:
    """As `running`, for a command whose address is not known yet. `environment`: None for that of this process."""
    with tempfile.TemporaryFile() as log:
        began = time.perf_counter()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=environment,
            )
        except OSError as error:
            raise UserError(f"{shlex.join(command)} cannot be started: {error.strerror}.") from None
        child = StartedServer(shlex.join(command), process, log, began)
        try:
            yield child
        finally:
            await child.stop(grace)


class StartedServer:
    """A command and all processes that it starts, in their own process group. `ended`: a future of the command's exit
    status."""

    def __init__(self, command: str, process: asyncio.subprocess.Process, log: IO[bytes], began: float) -> None:
        self._command = command
        self._process = process
        self._log = log
        self._began = began
        self.ended = asyncio.create_task(self._wait())

    async def load(self, server: Server, seconds: float) -> float:
        """Seconds from the start until the server has answered with one token. Raises UserError if the command ends
        earlier, if the server refuses for another reason than loading, or after `seconds`."""
        answering = asyncio.create_task(_first_answer(server))
        try:
            await asyncio.wait({answering, self.ended}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            taken = time.perf_counter() - self._began
            if self.ended.done():
                raise UserError(f"{server.url} has not answered. {self.describe_end()}")
            if not answering.done():
                raise UserError(
                    f"{server.url} has not answered within {seconds:g} s. Does {self._command} listen at this address? "
                    f"If the server only needs longer to load, raise --load-seconds. {self._last_lines()}"
                )
            await answering
            return taken
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    def output(self, start: int = 0) -> bytes:
        """What the command has printed, without the first `start` bytes."""
        # not read(): the command shares this file's position
        return os.pread(self._log.fileno(), os.fstat(self._log.fileno()).st_size, start)

    def describe_end(self) -> str:
        """How the command has ended, and the end of its output."""
        status = self.ended.result()
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"
        remedy = "" if status else " The command must stay in the foreground."
        return f"{self._command} {how}.{remedy} {self._last_lines()}"

    async def stop(self, grace: float) -> None:
        """Stop the command and the processes that it started, and wait for their end."""
        try:
            if not self.ended.done():
                self._signal(signal.SIGTERM)
                await asyncio.wait({self.ended}, timeout=grace)
        finally:  # also when this is interrupted
            if not self.ended.done():
                self._signal(signal.SIGKILL)
        await asyncio.wait({self.ended})

    async def _wait(self) -> int:
        status = await self._process.wait()
        self._signal(signal.SIGKILL)  # the remaining processes; now, because the group's id may be reused later
        return status

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _last_lines(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        text = self.output(max(0, size - _LAST_BYTES)).decode(errors="replace")
        lines = text.splitlines()[-_LAST_LINES:]
        return "\n  ".join(["Its last lines:", *lines]) if lines else "It has printed nothing."


async def _must_be_free(server: Server) -> None:
    try:
        await server.model()
    except UnreachableError:
        return
    except RefusedError:
        pass  # the server runs and refuses
    raise UserError(
        f"{server.url} answers before its server is started: another server runs there. Stop it, or leave out --start."
    )


async def _first_answer(server: Server) -> None:
    while True:
        try:
            await server.prompt_tokens("Hello")
            return
        except UnreachableError:
            pass
        except RefusedError as refused:
            if refused.status != 503:
                raise
        await asyncio.sleep(_PAUSE)
