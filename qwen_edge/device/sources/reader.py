"""Reads a telemetry source in a thread of its own, so that a hanging sensor blocks nothing else: the last sample just
gets older. The thread also searches for the source, as the search touches sensors."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from qwen_edge.device.telemetry import Source, Telemetry, TelemetryError

log = logging.getLogger(__name__)

_STOP_SECONDS = 0.5
_SEARCH_INTERVAL = 30.0  # seconds: a driver may be loaded late


class SourceSearch(NamedTuple):
    """The result of a search for a source: `description` says which was found, or why there is none."""

    description: str
    found: bool


class Power(NamedTuple):
    """The board's power (watts), read between two samples; `at` by the monotonic clock; `mean` as in Telemetry."""

    at: float
    watts: float
    mean: bool = False


ReaderEvent = SourceSearch | Telemetry | TelemetryError | Power


class Reader:
    """`find` returns a source and its description; while it finds none it is called again after `search_interval`
    seconds. `deliver` receives every event (the result of a search, a sample, an error, a power) in the reader's
    thread: it must not block.

    The methods may be called by any thread. If the reader's thread is stuck in a sensor when it is stopped, it stays
    behind as a daemon thread and delivers nothing more."""

    def __init__(
        self,
        find: Callable[[], tuple[Source | None, str]],
        deliver: Callable[[ReaderEvent], None],
        *,
        interval: float = 1.0,
        power_interval: float = 0.2,
        search_interval: float = _SEARCH_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find, self._deliver = find, deliver
        self._interval, self._power_interval, self._search_interval = interval, power_interval, search_interval
        self._clock = clock
        self._source: Source | None = None
        self._wake = threading.Event()
        self._stopped = False
        self._busy = False
        self._mean = False  # of the last sample
        self._logged: set[type[Exception]] = set()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close the source. Returns within 0.5 s, whatever the source does."""
        self._stopped = True
        self._wake.set()
        if source := self._source:
            closing = threading.Thread(target=source.close, name="telemetry closing", daemon=True)
            closing.start()
            closing.join(_STOP_SECONDS / 2)
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS / 2)

    def set_busy(self, busy: bool) -> None:
        """While the engine is busy, the power is also read between two samples, beginning at once."""
        if busy != self._busy:
            self._busy = busy
            self._wake.set()

    def _run(self) -> None:
        while not self._stopped and self._source is None:
            self._tell(self._look())
            self._rest_until(self._clock() + (0.0 if self._source else self._search_interval))
        while not self._stopped and self._source:
            due = self._clock() + self._interval
            self._tell(self._sample(self._source))
            self._rest_until(due, self._source)

    def _rest_until(self, due: float, source: Source | None = None) -> None:
        """Wait until `due` or until stopped; meanwhile deliver the power of `source` while the engine is busy."""
        while not self._stopped and (left := due - self._clock()) > 0:
            self._wake.wait(min(left, self._power_interval) if self._busy and source else left)
            self._wake.clear()
            if source and self._busy and self._clock() < due:
                self._tell_power(source)

    def _look(self) -> SourceSearch | TelemetryError:
        try:
            self._source, description = self._find()
        except TelemetryError as error:
            return error
        except Exception as error:
            return self._bug(error)
        return SourceSearch(description, self._source is not None)

    def _sample(self, source: Source) -> Telemetry | TelemetryError:
        try:
            sample = source.read()
        except TelemetryError as error:
            return error
        except Exception as error:
            return self._bug(error)
        self._mean = sample.mean
        return sample

    def _tell_power(self, source: Source) -> None:
        at = self._clock()
        try:
            watts = source.watts()
        except TelemetryError:
            return  # the next sample reports the reason
        except Exception as error:
            self._bug(error)
            return
        if watts is not None:
            self._tell(Power(at, watts, self._mean))

    def _tell(self, event: ReaderEvent) -> None:
        if not self._stopped:
            self._deliver(event)

    def _bug(self, error: Exception) -> TelemetryError:
        """Log the traceback, once for each type of exception: it may recur every second."""
        if type(error) not in self._logged:
            self._logged.add(type(error))
            log.error("telemetry failed: this is a bug in qwen-edge", exc_info=error)
        return TelemetryError(f"Telemetry failed ({error!r}): this is a bug in qwen-edge.")
