"""A program in a terminal, as a person has it: keys go in, what is shown comes out."""

from __future__ import annotations

import asyncio
import codecs
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Mapping
from types import TracebackType

_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>78]|\r")


def _as_in_a_terminal() -> None:
    """Ctrl-C is to reach the program, and so is the end of the terminal: tests may run under nohup, which hides it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class PseudoTerminal:
    """`qwen-edge ARGUMENTS` in a terminal of 80 columns. `shown` is everything that it has shown."""

    def __init__(self, *arguments: str, environment: Mapping[str, str] = {}, columns: int = 80) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        plain = {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "qwen_edge", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, **plain, **environment},
            start_new_session=True,
            preexec_fn=_as_in_a_terminal,  # noqa: PLW1509
        )
        os.close(slave)
        self.raw, self._ended = b"", False
        self.on_output: Callable[[str], object] = lambda _: None  # hears every piece as it is shown
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._come = asyncio.Event()
        self._seen = 0  # characters of `shown` that were waited for
        asyncio.get_running_loop().add_reader(self._master, self._read)

    @property
    def shown(self) -> str:
        """What was shown, without the sequences that move the cursor and change colours."""
        return _SEQUENCE.sub("", self.raw.decode(errors="replace"))

    def send(self, keys: str) -> None:
        """Press these keys."""
        os.write(self._master, keys.encode())

    async def until(self, text: str) -> str:
        """Wait until this text is shown, behind what was waited for before. Returns what came until then."""
        while (at := self.shown.find(text, self._seen)) < 0:
            assert not self._ended, f"{text!r} is not in {self.shown[self._seen :]!r}"
            self._come.clear()
            await self._come.wait()
        before, self._seen = self.shown[self._seen : at], at + len(text)
        return before

    async def prompt(self) -> str:
        """Wait for an empty prompt (one with a text is drawn otherwise), and return what was shown before."""
        return await self.until(">>>\n")

    async def ended(self) -> int:
        """Wait until the program has ended; its exit code."""
        return await asyncio.to_thread(self.process.wait)

    def __enter__(self) -> PseudoTerminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._master)

    def _read(self) -> None:
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:  # EIO: the program has closed it
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self.raw += data
        self._ended = not data
        self.on_output(self._decoder.decode(data))
        self._come.set()
