"""The engine process: started with the number of its end of the socket pair.

It loads the model that the first message names. Then it hears messages, steps the engine and sends the events, in turn.
Without requests it does idle work, then sleeps on the socket and gives a sign of life now and then. It ends when told
to, or when the daemon is gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Literal

from qwen_edge.core.errors import EngineError, UnservableError
from qwen_edge.core.logs import start_logging
from qwen_edge.engine.backend import Backend
from qwen_edge.engine.huge_pages import HugePages
from qwen_edge.engine.loop import Engine
from qwen_edge.kv.disk_tier import DiskTier
from qwen_edge.kv.folder import Folder
from qwen_edge.protocol.framing import encode, inbound_frames
from qwen_edge.protocol.loading import SILENT_BEATS, Doing
from qwen_edge.protocol.messages import (
    Abort,
    Beat,
    Done,
    Embed,
    Failed,
    Files,
    Inbound,
    InspectCache,
    Limits,
    Load,
    Loading,
    Outbound,
    Pieces,
    Ready,
    Stop,
    Submit,
    Tokenize,
    Warm,
)

log = logging.getLogger(__name__)

_WRITING = 0.05  # seconds between two checks whether a file has been written
_OPENING, _USUAL = 60.0, 1.0  # seconds that opening the folder of conversations may take, and usually takes at most
_HEARING = 0.05  # seconds between two checks whether it is open
_ORPHANED = 4.0  # seconds to write conversations to disk after the daemon has died
_LOCKED = 10.0  # seconds for which the engine before this one may still be writing
_READING = 0.005  # seconds between two checks whether a long prompt has been tokenized
_TOLD = 4  # times in a beat the daemon is told how far the start is
_LONGEST_REST = 0.5  # seconds after which requests that have waited too long are ended, also during a rest
_FIRST_WORD = 0.001  # seconds for which the daemon gets a core to send the word: else it may wait 4 ms for one
_GRACE = 0.2  # seconds: a program that asks one thing after the other does not find the engine busy with idle work


class Channel:
    """The engine's end of the socket pair. Blocking in one thread; EOFError when the daemon is gone."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._frames = inbound_frames()
        self._said = time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds since the last message was sent."""
        return time.monotonic() - self._said

    def send(self, messages: list[Outbound]) -> None:
        self._connection.sendall(encode(messages))
        self._said = time.monotonic()

    def receive(self, timeout: float) -> list[Inbound]:
        """The messages that have come, or that come within `timeout` seconds; may be none."""
        readable, _, _ = select.select([self._connection], [], [], timeout)
        if not readable:
            return []
        data = self._connection.recv(1 << 20)
        if not data:
            raise EOFError
        return self._frames.feed(data)


def main(arguments: list[str]) -> None:
    # The daemon decides when the engine ends. Ctrl-C in a terminal and a service manager's stop reach the whole group
    # and are meant for the daemon, which lets running answers finish.
    start_logging("warning")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # a low number: select() takes none above 1,023, and a daemon with many connections hands on a high one
    ours = os.dup(given := int(arguments[0]))
    os.close(given)
    with socket.socket(fileno=ours) as connection, contextlib.suppress(EOFError, ConnectionError):
        serve(Channel(connection), load_llama, HugePages())
    sys.stdout.flush()
    os._exit(0)  # freeing gigabytes page by page is the kernel's job


def serve(
    channel: Channel,
    load_backend: Callable[[Load, Channel], tuple[Backend, Ready]],
    pages: HugePages,
    disk_of: Callable[[Files, Backend], DiskTier | None] | None = None,
) -> None:
    """Obey the daemon until it says Stop or is gone (EOFError), or until something fails, which the daemon is told. The
    daemon hears Ready when nothing is left that could prevent answers. `disk_of` opens the folder of conversations."""
    messages: list[Inbound] = []
    while not messages:
        messages = channel.receive(60.0)
    load = messages.pop(0)
    assert isinstance(load, Load), "the daemon's first message says what to load"
    try:
        backend, ready = load_backend(load, channel)
        disk = _opened(load, backend, channel, messages, disk_of or open_disk) if load.files else None
        engine = Engine(
            backend,
            longest_step=SILENT_BEATS * load.beat_seconds,
            speculates=load.speculate,
            ahead_per_hour=load.ahead_per_hour,
            disk=disk,
        )
        channel.send([ready])
        pages.scan()
        try:
            stop: Stop | None = None
            heard: list[Inbound] | None = messages
            while heard is not None and not (stop := _dispatch(engine, channel, heard)):
                heard = _turn(engine, channel, pages, load.beat_seconds)
        except (EOFError, ConnectionError):  # the daemon was killed, which must not lose conversations
            engine.leave(_ORPHANED)
            raise
        if stop:
            engine.leave(stop.seconds)
    except EngineError as error:
        code: Literal["engine", "unservable"] = "unservable" if isinstance(error, UnservableError) else "engine"
        channel.send([Failed(None, code, str(error))])
    except (EOFError, ConnectionError):
        raise
    except Exception as error:
        log.exception("This is a bug in qwen-edge: the engine process ends over an error of its own")
        channel.send([Failed(None, "engine", f"this is a bug in qwen-edge: {error!r}")])


def _turn(engine: Engine, channel: Channel, pages: HugePages, beat_seconds: float) -> list[Inbound] | None:
    """One step, and what follows from it; returns the messages that have come meanwhile, None if the engine is broken.
    Raises EngineError."""
    if admitted := engine.admit():
        channel.send(admitted)
    if engine.duty.rest:
        return _rest(engine, channel, beat_seconds)
    result = engine.step(admit=False)
    if result.events or channel.silence >= beat_seconds:  # idle, or in the middle of a long prompt
        channel.send([*result] or [Beat()])
    if result.broken:
        return None
    if embedded := engine.embed():
        channel.send([*embedded])
    if any(isinstance(event, Done) for event in result):
        pages.scan()  # the KV cache may have grown
        return _hear(engine, channel, 0.0 if engine.busy else _GRACE)
    if engine.waits:
        return _hear(engine, channel, _READING)
    if engine.busy:
        return _hear(engine, channel, _FIRST_WORD) if result.first_word else channel.receive(0.0)
    return _idle(engine, channel, pages, beat_seconds)


def _idle(engine: Engine, channel: Channel, pages: HugePages, beat_seconds: float) -> list[Inbound]:
    """There are no requests: do a piece of idle work, or else wait for messages. Raises EngineError, also where only a
    new process helps."""
    if engine.hung:
        engine.leave(_ORPHANED)
        raise EngineError(
            "a schema, pattern or grammar of a request takes too long to compile, and only a new engine stops that"
        )
    if prepared := engine.prepare():
        if prepared.events:
            channel.send([*prepared])
        return channel.receive(0.0)
    if engine.duty.limits.idle_work and pages.step():
        return channel.receive(0.0)
    pause = engine.pause
    messages = _hear(engine, channel, min(_WRITING if engine.writing else beat_seconds, pause or beat_seconds))
    if not messages and not pause:
        engine.tidy()
        pages.scan()
    return messages


def _rest(engine: Engine, channel: Channel, beat_seconds: float) -> list[Inbound]:
    """Compute nothing until the device may be used again, or until a message comes."""
    if channel.silence >= beat_seconds:
        channel.send([Beat()])
    return _hear(engine, channel, min(engine.duty.rest, beat_seconds, _LONGEST_REST))


def _hear(engine: Engine, channel: Channel, seconds: float) -> list[Inbound]:
    """The messages that come within `seconds`, in which nothing is computed."""
    began = engine.clock()
    messages = channel.receive(seconds)
    engine.duty.rested(engine.clock() - began, busy=engine.busy)
    return messages


def load_llama(load: Load, channel: Channel) -> tuple[Backend, Ready]:
    """Load the model with llama.cpp, and report the progress. Raises EngineError."""
    # imported here, not at the start: importing numpy and llama.cpp takes a quarter of a second
    from qwen_edge.llama.backend import LlamaBackend

    said: Doing = "load"

    def on_progress(progress: Loading) -> None:
        nonlocal said
        if channel.silence > load.beat_seconds / _TOLD or progress.doing != said:
            said = progress.doing
            channel.send([progress])

    backend = LlamaBackend(load, on_progress)
    if not load.awaited:
        backend.warm_up()
    return backend, backend.ready()


def open_disk(files: Files | None, backend: Backend) -> DiskTier | None:
    """Open the folder where conversations are kept; None, with a line in the log, if they cannot be kept. Takes as long
    as the disk takes."""
    if files is None:
        return None
    if not backend.cells.memory.saves_parts:
        log.warning("conversations are not kept on disk: the cells of this kind of model cannot be saved in parts")
        return None
    try:
        folder = Folder(Path(files.folder), _LOCKED)
        return DiskTier(
            folder, backend.fingerprint, limit=files.bytes, per_day=files.bytes_per_day, cell=backend.cells.cell_bytes
        )
    except (OSError, ValueError) as error:  # ValueError: the text is no possible path
        log.warning(
            "conversations are not kept on disk: %s. Repair the folder and restart, or set remember.folder to another.",
            error,
        )
        return None


def _opened(
    load: Load,
    backend: Backend,
    channel: Channel,
    messages: list[Inbound],
    disk_of: Callable[[Files, Backend], DiskTier | None],
) -> DiskTier | None:
    """Call `disk_of` in a thread, and send beats meanwhile; messages that come are added to `messages`. None if the
    disk hangs."""
    assert load.files
    opener = ThreadPoolExecutor(1, "disk-open")
    opening, until = opener.submit(disk_of, load.files, backend), time.monotonic() + _OPENING
    opener.shutdown(wait=False)
    while not opening.done() and time.monotonic() < until:
        wait([opening], min(_HEARING, load.beat_seconds))
        messages += channel.receive(0.0)
        if channel.silence >= load.beat_seconds:
            channel.send([Beat()])
        elif channel.silence >= load.beat_seconds / _TOLD and time.monotonic() > until - _OPENING + _USUAL:
            channel.send([Loading(0.0, "remember")])
    if opening.done():
        return opening.result()
    log.warning(
        "conversations are not kept on disk: the disk of %s has not answered in %.0f s. Look at the disk (`dmesg`), "
        "then restart.",
        load.files.folder,
        _OPENING,
    )
    return None


def _dispatch(engine: Engine, channel: Channel, messages: list[Inbound]) -> Stop | None:
    """Hand messages to the engine; returns the Stop among them, if there is one."""
    for message in messages:
        if isinstance(message, Submit):
            engine.submit(message)
        elif isinstance(message, Abort):
            engine.abort(message)
        elif isinstance(message, Warm):
            engine.warm(message)
        elif isinstance(message, Limits):
            engine.allow(message)
        elif isinstance(message, InspectCache):
            channel.send([engine.inspect(message)])
        elif isinstance(message, Tokenize | Pieces | Embed):
            engine.ask(message)
        elif isinstance(message, Stop):
            return message
    return None
