"""Heat, power and energy, on the daemon's side: telemetry in, limits to the engine, joules to whoever asks.

With every sample, and after an interval without one, the governor hears what was read and what the engine really did
since the last time; its limits go to the engine by the ordinary message. A source that is silent stalls nothing here.
Runs on the daemon's event loop.
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
from qwen_edge.core.errors import over_budget, too_hot
from qwen_edge.core.printable import printable
from qwen_edge.device.energy.accounts import Accounts
from qwen_edge.device.energy.meter import Meter
from qwen_edge.device.from_config import Found, find_source, governor_settings, warn_of_ineffective_settings
from qwen_edge.device.governor.decision import Decision, State, govern
from qwen_edge.device.report import Governed, Report
from qwen_edge.device.sources.reader import Power, Reader, ReaderEvent, SourceSearch
from qwen_edge.device.telemetry import Telemetry, TelemetryError
from qwen_edge.protocol.messages import Limits, Priority, StepStats
from qwen_edge.supervisor.supervisor import Supervisor

log = logging.getLogger(__name__)

_SAFE = Decision("warm", Limits(duty=0.3, idle_work=False), because="no telemetry")  # where we are not to be trusted


class ThermalControl:
    """Create it, `run` it, and ask it: may this request come in, and what has that one taken?"""

    def __init__(
        self,
        engine: Supervisor,
        settings: DeviceConfig,
        *,
        find: Callable[[], Found] | None = None,
        clock: Callable[[], float] = time.monotonic,
        today: Callable[[], datetime.date] = datetime.date.today,
    ) -> None:
        """`find` gives the source, and words on it; None: as the settings say. Called in a thread."""
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
        self._words = "not looked for yet"
        self._governs = True  # until it is known that there is nothing to be read
        self._trouble: str | None = None
        self._sample: Telemetry | None = None
        self._reader: Reader | None = None
        self._missed = set[str]()  # sensors that did not answer, which is said once
        self._failed = False  # by a bug of ours
        engine.on_ran = self._ran

    async def run(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()

        def hear(heard: ReaderEvent) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._hear, heard)

        self._reader = reader = Reader(self._find, hear, interval=self._settings.interval_seconds)
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
        """Whose request it is: the name of the key; where none is needed, what the request itself says, if that is
        somebody who has a budget."""
        if key_name is not None:
            return key_name
        return user if user and user in self._settings.joules_per_hour else "anonymous"

    def admit(self, priority: Priority, client: str) -> Priority:
        """The priority with which a request may come in. Raises RequestError if it may not now."""
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
            raise too_hot(who, self.words, math.ceil(decision.retry_after))
        return given

    def joules(self, request: int) -> float | None:
        """What a request that has ended has taken; None if that is not known."""
        return self._accounts.finish_request(request)

    @property
    def words(self) -> str:
        """How the device is, for a status line."""
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
        """The device as it is now."""
        now, decision = self._clock(), self._decision
        activity = self._meter.activity(now)
        return Report(
            source=self._words,
            trouble=self._trouble,
            age=None if self._sample is None else now - self._sample.at,
            telemetry=self._sample,
            governor=Governed(
                level=decision.level if self._governs else "unknown",
                duty=decision.limits.duty,
                duty_asked=activity.asked,
                duty_ran=activity.ran,
                because=decision.because,
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

    def _hear(self, heard: ReaderEvent) -> None:
        """What the reader has read, in the order in which it was."""
        if isinstance(heard, SourceSearch):
            self._sought(heard)
        elif isinstance(heard, Power):
            self._accounts.add_power(heard.at, heard.watts, mean=heard.mean)
        elif isinstance(heard, TelemetryError):
            if self._trouble != str(heard):
                log.warning("telemetry: %s", heard)
            self._trouble = str(heard)
        else:
            if self._trouble:
                log.info("telemetry is there again")
            if self._sample is None:
                warn_of_ineffective_settings(self._settings, heard)
            for words in set(heard.missing) - self._missed:
                log.warning("telemetry: a sensor does not answer: %s", words)
            self._missed |= set(heard.missing)
            self._sample, self._trouble = heard, None
            if heard.watts is not None:
                self._accounts.add_power(heard.at, heard.watts, mean=heard.mean)
            self._decide()

    def _sought(self, sought: SourceSearch) -> None:
        if sought.description != self._words:
            log.info("telemetry: %s", sought.description)
            if not sought.found:
                warn_of_ineffective_settings(self._settings, None)
        self._words, self._governs, self._trouble = sought.description, sought.found, None

    def _ran(self, step: StepStats) -> None:
        self._meter.add_step(step)
        self._accounts.add_step(step, self._engine.client_of)
        if self._reader:
            self._reader.set_busy(True)

    def _decide(self) -> None:
        """Let the governor decide. A bug of ours must not leave the device without: then it does little."""
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
        if self._decision.level != level:
            log.warning("device: %s", self.words)
