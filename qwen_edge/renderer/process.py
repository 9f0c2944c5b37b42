"""One run of the renderer, seen from the daemon: the process, and the daemon's end of the socket pair."""

from __future__ import annotations

import asyncio
import contextlib
import math
import subprocess

from qwen_edge.core.python_process import start_with_socket
from qwen_edge.renderer.messages import Answer, Question, decode_answer, encode

MEMORY_BYTES = 256 << 20  # for rendering, beyond what the process has at its start
_LONGEST_ANSWER = 1 << 28  # bytes: jinja.LONGEST_PROMPT characters, escaped, with their frames
_REAP_SECONDS = 10.0


class RendererProcess:
    """Created in any thread; then used on the daemon's event loop, for one question at a time."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: processor time for a question, roughly. Raises OSError if the process cannot be started."""
        limits = (str(MEMORY_BYTES), str(math.ceil(seconds)))
        self.process, self._socket = start_with_socket("qwen_edge.renderer.main", *limits)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def started(self) -> None:
        """Wait until the process has started. Raises EOFError or ConnectionError if it has died."""
        if self._streams is None:
            self._streams = await asyncio.open_unix_connection(sock=self._socket, limit=_LONGEST_ANSWER)
            await self._line()

    async def ask(self, question: Question) -> Answer:
        """Send a question and wait for the answer; call it after `started`. Raises EOFError or ConnectionError if the
        process has died. If a call is cancelled, end the process: its next answer would belong to the old question."""
        assert self._streams
        _, writer = self._streams
        writer.write(encode(question))
        await writer.drain()
        return decode_answer(await self._line())

    async def _line(self) -> bytes:
        assert self._streams
        try:
            return await self._streams[0].readuntil(b"\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            raise EOFError from None

    def end(self) -> None:
        """Kill the process, which has nothing to save. Never blocks."""
        self.process.kill()
        if self._streams:
            self._streams[1].transport.abort()
        else:
            self._socket.close()

    def reap(self) -> None:
        """Wait for the process after `end`. May block for a moment; gives up on a process that hangs in the kernel."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(_REAP_SECONDS)
