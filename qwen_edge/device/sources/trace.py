"""Recorded samples, played again: a file with one line of JSON each, as `record` writes it."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from qwen_edge.device.telemetry import Telemetry, TelemetryError


class Trace:
    """A source. Time runs `speed` times as fast as it did; `at` is when a sample would have been read now.

    At its end it begins again, like a device that is switched on once more. To hold the last sample would show a board
    whose temperature and power no load moves, which nothing real does. Used by one thread; has nothing to close."""

    name = "trace"

    def __init__(self, path: Path, speed: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Reads the whole file. Raises TelemetryError with the file and the number of the line."""
        if not speed > 0:
            raise TelemetryError(f"A trace cannot run at {speed:g} times its speed: give a number above 0.")
        self._samples = _load(path)
        self._times = [sample.at - self._samples[0].at for sample in self._samples]
        # the last one lasts as long as the others on average
        self._length = self._times[-1] * len(self._times) / max(1, len(self._times) - 1)
        self._speed, self._clock = speed, clock
        self._began = clock()

    def read(self) -> Telemetry:
        sample, at = self._now()
        return msgspec.structs.replace(sample, source=self.name, at=at)

    def watts(self) -> None:
        """Between two samples nothing was recorded."""

    def close(self) -> None:
        pass

    def _now(self) -> tuple[Telemetry, float]:
        """The sample that holds now, and when it began to, by our clock."""
        now = self._clock()
        played = (now - self._began) * self._speed
        if self._length:
            played %= self._length
        number = max(0, bisect.bisect_right(self._times, played) - 1)
        return self._samples[number], now - (played - self._times[number]) / self._speed


def record(samples: Iterable[Telemetry], file: BinaryIO) -> None:
    """Append samples, each at once, so that a recording that is interrupted is a shorter one."""
    for sample in samples:
        file.write(msgspec.json.encode(sample) + b"\n")
        file.flush()


def _load(path: Path) -> list[Telemetry]:
    samples: list[Telemetry] = []
    decoder = msgspec.json.Decoder(Telemetry)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                samples.append(_decode(decoder, line, f"{path}, line {number}"))
                if len(samples) > 1 and samples[-1].at < samples[-2].at:
                    raise TelemetryError(f"{path}, line {number}: it is older than the line before.")
    except OSError as error:
        raise TelemetryError(f"The trace {path} cannot be read: {error.strerror or error}.") from None
    if not samples:
        raise TelemetryError(f"The trace {path} is empty: record one, a line of JSON a sample.")
    return samples


def _decode(decoder: msgspec.json.Decoder[Telemetry], line: bytes, where: str) -> Telemetry:
    try:
        return decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TelemetryError(f"{where}: this is no sample: {error}. Take the line out, or record anew.") from None
