"""Controls heat, power and energy in the daemon: passes telemetry to the governor, and the governor's limits to the
engine; admits requests, and counts their joules.

The governor runs with every sample, and after an interval without a sample. Its input is the sample, and the work that
the engine did since the last run. A source that does not answer blocks nothing here. Runs on the daemon's event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import math
import time
from collections.abc import Callable

from qwen_edge.config.schema import DeviceConfig
from qwen_edge.core.errors import device_limited, over_budget
from qwen_edge.core.printable import printable
from qwen_edge.device.energy.accounts import Accounts
from qwen_edge.device.energy.meter import Meter
from qwen_edge.device.from_config import Found, find_source, governor_settings, warn_of_ineffective_settings
from qwen_edge.device.governor.decision import Decision, State, govern
from qwen_edge.device.history import History
from qwen_edge.device.history_file import Reading
from qwen_edge.device.report import Governed, Report, reason_of
from qwen_edge.device.sources.reader import Power, Reader, ReaderEvent, SourceSearch
from qwen_edge.device.telemetry import Telemetry, TelemetryError
from qwen_edge.protocol.messages import Limits, Priority, StepStats
from qwen_edge.supervisor.supervisor import Supervisor

log = logging.getLogger(__name__)

# the decision used after the governor has raised an exception
_SAFE = Decision("warm", Limits(duty=0.3, idle_work=False), because="no telemetry")


class ThermalControl:
    """Runs the governor (`run`), admits or refuses requests (`admit`), and reports their energy (`joules`)."""

    def __init__(
        self,
        engine: Supervisor,
        settings: DeviceConfig,
        *,
        find: Callable[[], Found] | None = None,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], datetime.date] = datetime.date.today,
        history: History | None = None,
    ) -> None:
        """`find` returns the telemetry source and its description; by default the settings choose the source. It is
        called in a thread. `history` keeps what is read and decided; by default in memory only."""
        self._engine = engine
        self._settings = settings
        self._find = find or (lambda: find_source(settings))
        self._clock = clock
        self._governor_settings = governor_settings(settings)
        self._state = State()
        self._decision = Decision()
        self._decided = clock()
        self._meter = Meter(clock())
        self._accounts = Accounts(settings.joules_per_hour, today)
        self.history = history or History()
        self._source_description = "not looked for yet"
        self._governs = True  # False once the search has found no telemetry source
        self._trouble: str | None = None
        self._sample: Telemetry | None = None
        self._reader: Reader | None = None
        self._missed = set[str]()  # sensors that did not answer; each is logged once
        self._failed = False  # whether the governor has raised an exception; logged once
        engine.on_step = self._on_step

    async def run(self) -> None:
        """Read telemetry and govern until cancelled."""
        loop = asyncio.get_running_loop()

        def forward(event: ReaderEvent) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._on_reader_event, event)

        self._reader = reader = Reader(self._find, forward, interval=self._settings.interval_seconds)
        reader.start()
        try:
            while True:
                await asyncio.sleep(self._settings.interval_seconds)
                reader.set_busy(self._engine.pending > 0)
                if self._clock() - self._decided > 1.5 * self._settings.interval_seconds:
                    self._decide()
        finally:
            reader.stop()

    def client(self, key_name: str | None, user: str | None) -> str:
        """The client to which the request's energy is charged: the key's name. Without keys, the request's `user`, if
        that user has an energy budget."""
        if key_name is not None:
            return key_name
        return user if user and user in self._settings.joules_per_hour else "anonymous"

    def admit(self, priority: Priority, client: str) -> Priority:
        """Admit a request: return the priority that it gets. Raises RequestError if the client must wait because of its
        energy budget, or the device takes no requests of this priority now."""
        now, decision = self._clock(), self._decision
        if wait := self._accounts.wait(client, now):
            raise over_budget(printable(client), math.ceil(wait))
        given: Priority = (
            "background" if priority == "interactive" and self._accounts.is_over(client, now) else priority
        )
        if given in decision.refused:
            who = (
                f"{priority} requests"
                if given == priority
                else f"requests of {printable(client)}, which is over its energy budget,"
            )
            raise device_limited(who, self.status_text, math.ceil(decision.retry_after))
        return given

    def joules(self, request: int) -> float | None:
        """The energy of a finished request; None if it was not measured."""
        return self._accounts.finish_request(request)

    @property
    def status_text(self) -> str:
        """The state of the device, for a status line."""
        if not self._governs:
            return "no telemetry"
        decision, sample = self._decision, self._sample
        because = f" ({decision.because})" if decision.because else ""
        parts = [f"{decision.level}, duty {decision.limits.duty:.2f}{because}"]
        if sample and sample.tj is not None:
            parts.append(f"tj {sample.tj:.1f} C")
        if sample and sample.watts is not None:
            parts.append(f"{sample.watts:.1f} W")
        return ", ".join(parts)

    @property
    def report(self) -> Report:
        """The present state of the device, the governor and the energy counters."""
        now, decision = self._clock(), self._decision
        activity = self._meter.activity(now)
        return Report(
            source=self._source_description,
            trouble=self._trouble,
            age=None if self._sample is None else now - self._sample.at,
            telemetry=self._sample,
            governor=Governed(
                level=decision.level if self._governs else "unknown",
                duty=decision.limits.duty,
                duty_asked=activity.asked,
                duty_ran=activity.ran,
                because=decision.because,
                reason=reason_of(decision.because, governs=self._governs),
                target=decision.thresholds.target,
                pause=decision.thresholds.pause,
                refused=decision.refused,
                retry_after=decision.retry_after if decision.refused else 0.0,
            ),
            energy=self._accounts.energy,
            tokens_per_second=activity.tokens_per_second,
            sequences=activity.sequences,
            pending=self._engine.pending,
        )

    def _on_reader_event(self, event: ReaderEvent) -> None:
        """Handle an event of the reader's thread. Events arrive in the order of their readings."""
        if isinstance(event, SourceSearch):
            self._on_source_search(event)
        elif isinstance(event, Power):
            self._accounts.add_power(event.at, event.watts, mean=event.mean)
        elif isinstance(event, TelemetryError):
            if self._trouble != str(event):
                log.warning("telemetry: %s", event)
            self._trouble = str(event)
        else:
            self._on_sample(event)

    def _on_sample(self, sample: Telemetry) -> None:
        if self._trouble:
            log.info("telemetry is there again")
        if self._sample is None:
            warn_of_ineffective_settings(self._settings, sample)
        for sensor in set(sample.missing) - self._missed:
            log.warning("telemetry: a sensor does not answer: %s", sensor)
        self._missed |= set(sample.missing)
        self._sample, self._trouble = sample, None
        if sample.watts is not None:
            self._accounts.add_power(sample.at, sample.watts, mean=sample.mean)
        self._decide()

    def _on_source_search(self, search: SourceSearch) -> None:
        if search.description != self._source_description:
            log.info("telemetry: %s", search.description)
            if not search.found:
                warn_of_ineffective_settings(self._settings, None)
        self._source_description, self._governs, self._trouble = search.description, search.found, None

    def _on_step(self, step: StepStats) -> None:
        self._meter.add_step(step)
        self._accounts.add_step(step, self._engine.client_of)
        if self._reader:
            self._reader.set_busy(True)

    def _decide(self) -> None:
        """Run the governor. If it raises an exception, use the safe decision (30 % duty), so that the device is never
        ungoverned."""
        now, level = self._clock(), self._decision.level
        idle = self._engine.pending == 0 and self._meter.is_quiet(now)
        work = self._meter.take_work(now, wanted=self._engine.pending > 0)
        seconds, self._decided = now - self._decided, now
        self._accounts.update(now, idle=idle)
        try:
            if self._governs:
                self._decision, self._state = govern(self._sample, work, self._state, self._governor_settings, seconds)
            else:
                self._decision, self._state = Decision(), State()
        except Exception as error:
            self._decision, self._state = _SAFE, State()
            self._trouble = f"The governor failed ({error!r}): this is a bug in qwen-edge."
            if not self._failed:
                log.exception("the governor failed: this is a bug in qwen-edge")
            self._failed = True
        self._engine.limit(self._decision.limits)
        self._meter.set_duty(self._decision.limits.duty, now)
        self.history.add(self._reading(now))
        if self._decision.level != level:
            log.warning("device: %s", self.status_text)

    def _reading(self, now: float) -> Reading:
        """What is recorded of the device: the latest telemetry, unless it is old, and the decision made of it."""
        sample = self._sample
        if sample is not None and now - sample.at > self._governor_settings.patience:
            sample = None
        clock = sample.clocks.get("cpu") if sample else None
        return Reading(
            celsius=sample.tj if sample else None,
            target=self._decision.thresholds.target if self._governs else None,
            watts=sample.watts if sample else None,
            duty=self._decision.limits.duty,
            hertz=clock.hertz if clock else None,
            tokens_per_second=self._meter.activity(now).tokens_per_second,
            pending=self._engine.pending,
        )
