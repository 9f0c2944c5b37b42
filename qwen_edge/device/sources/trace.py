"""Plays recorded samples: a file with one line of JSON a sample, as `record` writes it."""

from __future__ import annotations

import bisect
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from qwen_edge.core.regular_file import regular_only
from qwen_edge.device.telemetry import Telemetry, TelemetryError


class Trace:
    """A source. Plays the trace at `speed` times its own speed; `at` of a sample is set to the time now.

    At its end the trace starts again. Repeating the last sample instead would show a board whose temperature and power
    do not react to load, which no real board does. Used by one thread; has nothing to close."""

    name = "trace"

    def __init__(self, path: Path, speed: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Reads the whole file. Raises TelemetryError with the file and the number of the line."""
        if not speed > 0:
            raise TelemetryError(
                f"A trace cannot be played at {speed:g} times its speed: set device.trace_speed above 0."
            )
        self._samples = _load(path)
        self._times = [sample.at - self._samples[0].at for sample in self._samples]
        # the last sample lasts as long as the others on average
        self._length = self._times[-1] * len(self._times) / max(1, len(self._times) - 1)
        self._speed, self._clock = speed, clock
        self._began = clock()

    def read(self) -> Telemetry:
        sample, at = self._now()
        return msgspec.structs.replace(sample, source=self.name, at=at)

    def watts(self) -> None:
        """None: nothing was recorded between two samples."""

    def close(self) -> None:
        pass

    def _now(self) -> tuple[Telemetry, float]:
        """The current sample, and the time (this clock) from which on it is current."""
        now = self._clock()
        played = (now - self._began) * self._speed
        if self._length:
            played %= self._length
        number = max(0, bisect.bisect_right(self._times, played) - 1)
        return self._samples[number], now - (played - self._times[number]) / self._speed


def record(samples: Iterable[Telemetry], file: BinaryIO) -> None:
    """Append samples, flushing each, so that an interrupted recording is only shorter."""
    for sample in samples:
        file.write(msgspec.json.encode(sample) + b"\n")
        file.flush()


def _load(path: Path) -> list[Telemetry]:
    samples: list[Telemetry] = []
    decoder = msgspec.json.Decoder(Telemetry)
    try:
        with open(path, "rb", opener=regular_only) as file:
            for number, line in enumerate(file, 1):
                samples.append(_decode(decoder, line, f"{path}, line {number}"))
                if len(samples) > 1 and samples[-1].at < samples[-2].at:
                    raise TelemetryError(
                        f"{path}, line {number}: the sample is older than the one before it. "
                        "Delete the line, or record the trace again."
                    )
    except OSError as error:
        raise TelemetryError(f"The trace {path} cannot be read: {error.strerror or error}.") from None
    if not samples:
        raise TelemetryError(f"The trace {path} is empty. Record one: qwen-edge status --record FILE")
    return samples


def _decode(decoder: msgspec.json.Decoder[Telemetry], line: bytes, where: str) -> Telemetry:
    try:
        return decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TelemetryError(
            f"{where}: not a valid sample: {error}. Delete the line, or record the trace again."
        ) from None
