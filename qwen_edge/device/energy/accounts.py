"""Who has spent how many joules: by phase, client and day, and whether that client may spend more. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping

import msgspec

from qwen_edge.device.energy.allowance import Allowances
from qwen_edge.device.energy.joules import PHASES, Ledger, Phase
from qwen_edge.protocol.messages import StepStats


class Energy(msgspec.Struct, frozen=True):
    """Joules by phase and by client, since the start and `today`; `idle_watts` is what the board draws anyway. None is
    what is not known yet."""

    joules: dict[Phase, float]
    clients: dict[str, float]
    today: dict[Phase, float]
    clients_today: dict[str, float]
    idle_watts: float | None
    joules_per_token: float | None


class Accounts:
    """Fed with steps and samples of power, in their order. Used on the daemon's event loop."""

    def __init__(self, joules_per_hour: Mapping[str, float], today: Callable[[], datetime.date]) -> None:
        """What clients may spend, by name; `*` is for those without a name of their own there."""
        self._allowances = Allowances(joules_per_hour)
        self._ledger = Ledger()
        self._today = today
        self._day = today()
        self._at_midnight: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self._clients_at_midnight: dict[str, float] = {}
        self._charged: dict[str, float] = {}  # to allowances
        self._sampled = False
        self._tokens = 0

    def add_step(self, step: StepStats, client_of: Callable[[int], str]) -> None:
        """A step has run, of requests of these clients."""
        if self._ledger.add_step(step, client_of):
            self._tokens += step.chosen

    def add_power(self, at: float, watts: float, *, mean: bool = False) -> None:
        """A sample of the board's power, in watts, at a time of the monotonic clock, or the mean since the last."""
        self._ledger.add_power(at, watts, mean=mean)
        self._sampled = True

    def update(self, now: float, *, idle: bool) -> None:
        """Once every interval: who has spent how much by now. `idle` tells that nothing runs."""
        if idle:
            self._ledger.idle_until(now)
        for client, joules in self._ledger.clients.items():
            if spent := joules - self._charged.get(client, 0.0):
                self._charged[client] = joules
                self._allowances.spend(client, spent, now)
        if self._day != (day := self._today()):
            self._day, self._at_midnight = day, dict(self._ledger.joules)
            self._clients_at_midnight = dict(self._ledger.clients)

    def finish_request(self, request: int) -> float | None:
        """The joules of a request that has ended; None if they are not known."""
        return self._ledger.finish_request(request)

    def is_over(self, client: str, now: float) -> bool:
        """Whether the client has spent more than it may, and should wait behind others."""
        return self._allowances.is_over(client, now)

    def wait(self, client: str, now: float) -> float:
        """Seconds until it may ask again; 0 if it may now."""
        return self._allowances.wait(client, now)

    @property
    def energy(self) -> Energy | None:
        """All of it; None as long as no power has been measured."""
        if not self._sampled:
            return None
        joules, clients = self._ledger.joules, self._ledger.clients
        spent, before = joules["prefill"] + joules["decode"], self._clients_at_midnight
        return Energy(
            joules=dict(joules),
            clients=dict(clients),
            today={phase: joules[phase] - self._at_midnight[phase] for phase in PHASES},
            clients_today={client: clients[client] - before.get(client, 0.0) for client in clients},
            idle_watts=self._ledger.floor,
            joules_per_token=spent / self._tokens if self._tokens else None,
        )
