"""What is kept of the device's past: the last 15 minutes in steps of 5 seconds in memory, and the last 3 days by the
minute in the state folder (`history_file.py`).

Inside, times are seconds since the boot, so that a step of the system's clock moves nothing that is in memory: they
become Unix times when they are shown or written. What was written before the clock was set keeps its wrong time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec

from qwen_edge.config.paths import state_folder
from qwen_edge.config.schema import RememberConfig
from qwen_edge.core.errors import ConfigError
from qwen_edge.device.history_file import HistoryFile, Reading, Sample

log = logging.getLogger(__name__)

EVERY, MINUTE = 5, 60  # seconds of a sample in memory, and in the file
RECENT, LONGEST = 15 * MINUTE, 3 * 24 * 60 * MINUTE  # seconds that are kept in steps of 5 s, and by the minute

_FOLDER = "device-history"
_WRITE_EVERY = 10 * MINUTE  # seconds: each write wears out flash memory
_PATIENCE = 5.0  # seconds that a question, or the end of the daemon, waits for the disk
_AHEAD = float(MINUTE)  # seconds that a kept time may be ahead of the clock; beyond, the clock was wrong


def since_boot() -> float:
    """Seconds since the boot. Unlike the monotonic clock, they include the time in which the system was suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def kept_history(settings: RememberConfig, memory: Callable[[], int | None]) -> History:
    """The history in the state folder; in memory only, where conversations are not remembered on disk either."""
    folder = None
    if settings.where == "disk":
        try:
            folder = state_folder() / _FOLDER
        except ConfigError as error:  # this user has no home folder
            log.warning("the history of the device is kept in memory only: %s", error)
    return History(folder, memory=memory)


class History:
    """Used on the daemon's event loop. Reads and writes its files on a thread of its own, so that a slow card holds up
    nothing. Whatever is wrong with the files, the history goes on in memory."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        memory: Callable[[], int | None] = lambda: None,
        clock: Callable[[], float] = since_boot,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`folder`: None keeps all in memory. `memory` returns the bytes to record with each sample of 5 s. `wall`: the
        Unix time."""
        self._file = HistoryFile(folder) if folder else None
        self._memory, self._clock, self._wall = memory, clock, wall
        self._readings: list[Reading] = []  # of the present 5 s
        self._of_minute: list[Sample] = []  # of the present minute
        self._recent = deque[Sample](maxlen=RECENT // EVERY)
        self._minutes = deque[Sample](maxlen=LONGEST // MINUTE)  # that are not in the file
        self._last = self._next_write = clock()
        self._next_write += _WRITE_EVERY
        self._thread = ThreadPoolExecutor(1, "device history")
        self._writing: Future[None] | None = None
        self._written = 0  # minutes that are being written
        self._reading: Future[list[Sample]] | None = None  # shared by all who ask meanwhile
        self._told = False  # whether the log has told that the files cannot be used

    def add(self, reading: Reading) -> None:
        """Record how the device is now. Called about once a second."""
        now = self._clock()
        if now // EVERY != self._last // EVERY:
            self._end_step()
        if now // MINUTE != self._last // MINUTE:
            self._end_minute(now)
        self._last = now
        self._readings.append(reading)

    async def of_last(self, seconds: float) -> tuple[int, list[Sample]]:
        """The seconds of a step, and the samples of the last `seconds`, the oldest first. Up to 15 minutes the steps
        have 5 seconds; beyond, and up to 3 days, a minute."""
        if seconds <= RECENT:
            return EVERY, self._within(seconds, self._in_unix_time(self._recent))
        written = await self._read()
        return MINUTE, self._within(seconds, [*written, *self._in_unix_time(self._minutes)])

    async def close(self) -> None:
        """Write the whole minutes that are not written. Ends within seconds, whatever the disk does; a write that hangs
        then keeps Python from ending, until systemd kills it."""
        self._settle()
        if self._file and self._minutes and not self._writing:
            self._write(self._file)
        if self._writing:
            with contextlib.suppress(OSError, asyncio.TimeoutError):  # `_settle` tells of them
                await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._writing)), _PATIENCE)
            self._settle()
        if self._file and not self._writing:
            self._file.close()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _end_step(self) -> None:
        if not self._readings:
            return
        whole = msgspec.structs.replace(combined(self._readings), memory=self._memory())
        sample = Sample(at=self._last, **msgspec.structs.asdict(whole))
        self._readings.clear()
        self._recent.append(sample)
        self._of_minute.append(sample)

    def _end_minute(self, now: float) -> None:
        if self._of_minute:
            whole = combined(self._of_minute)
            self._of_minute.clear()
            self._minutes.append(Sample(at=self._last, **msgspec.structs.asdict(whole)))
        self._settle()
        if self._file and self._minutes and not self._writing and now >= self._next_write:
            self._write(self._file)
            self._next_write = now + _WRITE_EVERY

    def _write(self, file: HistoryFile) -> None:
        batch = self._in_unix_time(self._minutes)
        self._written, self._writing = len(batch), self._thread.submit(file.append, batch)

    def _settle(self) -> None:
        """If the last write has ended, forget what it has written, or say why it has not."""
        if self._writing is None or not self._writing.done():
            return
        error, self._writing = self._writing.exception(), None
        if error is not None:
            self._tell(error)
            return
        for _ in range(min(self._written, len(self._minutes))):
            self._minutes.popleft()

    async def _read(self) -> list[Sample]:
        """What is in the files; nothing if they cannot be read, or not soon."""
        if self._file is None:
            return []
        if self._reading is None or self._reading.done():
            self._reading = self._thread.submit(self._file.read)
        try:
            return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._reading)), _PATIENCE)
        except asyncio.TimeoutError:
            self._tell(TimeoutError("the disk does not answer"))
        except OSError as error:
            self._tell(error)
        return []

    def _tell(self, error: BaseException) -> None:
        if not self._told:
            log.warning("the history of the device cannot be kept on disk, and is kept in memory: %s", error)
        self._told = True

    def _in_unix_time(self, samples: Iterable[Sample]) -> list[Sample]:
        ahead = self._wall() - self._clock()
        return [msgspec.structs.replace(sample, at=round(sample.at + ahead)) for sample in samples]

    def _within(self, seconds: float, samples: Sequence[Sample]) -> list[Sample]:
        """The samples of the last `seconds`, sorted, one for each time: what is written and not yet forgotten is there
        twice."""
        now = self._wall()
        by_time = {sample.at: sample for sample in samples if now - seconds <= sample.at <= now + _AHEAD}
        return [by_time[at] for at in sorted(by_time)]


def combined(readings: Sequence[Reading]) -> Reading:
    """One reading for several: the highest temperature, queue and memory, the last target, the mean of all else. A
    value is None if no reading has it."""
    celsius = [one.celsius for one in readings if one.celsius is not None]
    memory = [one.memory for one in readings if one.memory is not None]
    return Reading(
        celsius=max(celsius, default=None),
        target=readings[-1].target,
        watts=_mean((one.watts for one in readings), 3),
        duty=_mean((one.duty for one in readings), 4),
        hertz=_mean((one.hertz for one in readings), 0),
        tokens_per_second=_mean((one.tokens_per_second for one in readings), 2) or 0.0,
        pending=max(one.pending for one in readings),
        memory=max(memory, default=None),
    )


def _mean(values: Iterable[float | None], digits: int) -> float | None:
    known = [value for value in values if value is not None]
    return round(sum(known) / len(known), digits) if known else None
