"""Reads a source in a thread of its own, so that a sensor that hangs stalls nobody: who waits for a sample only sees
the last one grow old."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from qwen_edge.device.telemetry import Source, Telemetry, TelemetryError

log = logging.getLogger(__name__)

_STOP_SECONDS = 0.5


class Power(NamedTuple):
    """The board's power (watts) between two samples; `at` by the monotonic clock."""

    at: float
    watts: float


class Reader:
    """`hear` gets every sample, or why there is none, and every power, in this thread: it must not block. `latest` is
    the last sample there was.

    The others may be called by any thread. A thread that is stuck in a sensor when it is stopped stays behind, as a
    daemon, and says nothing any more."""

    def __init__(
        self,
        source: Source,
        hear: Callable[[Telemetry | TelemetryError | Power], None],
        *,
        interval: float = 1.0,
        power_interval: float = 0.2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.latest: Telemetry | None = None
        self._source, self._hear = source, hear
        self._interval, self._power_interval, self._clock = interval, power_interval, clock
        self._wake = threading.Event()
        self._stopped = False
        self._busy = False
        self._logged: set[type[Exception]] = set()
        self._thread = threading.Thread(target=self._run, name=f"telemetry {source.name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Close the source. Returns within half a second, whatever the source does."""
        self._stopped = True
        self._wake.set()
        closing = threading.Thread(target=self._source.close, name="telemetry closing", daemon=True)
        closing.start()
        closing.join(_STOP_SECONDS / 2)
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS / 2)

    def set_busy(self, busy: bool) -> None:
        """While something is computed, the power between two samples is heard, too, beginning at once."""
        if busy != self._busy:
            self._busy = busy
            self._wake.set()

    def age(self) -> float | None:
        """Seconds since the latest sample was read; None before the first."""
        latest = self.latest
        return None if latest is None else self._clock() - latest.at

    def _run(self) -> None:
        while not self._stopped:
            due = self._clock() + self._interval
            self._tell(self._sample())
            while not self._stopped and (left := due - self._clock()) > 0:
                self._wake.wait(min(left, self._power_interval) if self._busy else left)
                self._wake.clear()
                if self._busy and self._clock() < due:
                    self._tell_power()

    def _sample(self) -> Telemetry | TelemetryError:
        try:
            self.latest = sample = self._source.read()
        except TelemetryError as error:
            return error
        except Exception as error:
            return self._bug(error)
        return sample

    def _tell_power(self) -> None:
        at = self._clock()
        try:
            watts = self._source.watts()
        except TelemetryError:
            return  # the next sample says why
        except Exception as error:
            self._bug(error)
            return
        if watts is not None:
            self._tell(Power(at, watts))

    def _tell(self, heard: Telemetry | TelemetryError | Power) -> None:
        if not self._stopped:
            self._hear(heard)

    def _bug(self, error: Exception) -> TelemetryError:
        """Log it whole, once of each kind: it may come back every second."""
        if type(error) not in self._logged:
            self._logged.add(type(error))
            log.error("telemetry by %s failed: this is a bug in qwen-edge", self._source.name, exc_info=error)
        return TelemetryError(f"Telemetry by {self._source.name} failed ({error!r}): this is a bug in qwen-edge.")
