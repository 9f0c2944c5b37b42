"""Energy accounts: joules by phase, client and day, and whether a client may spend more. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping

import msgspec

from qwen_edge.device.energy.allowance import Allowances
from qwen_edge.device.energy.joules import PHASES, Ledger, Phase
from qwen_edge.protocol.messages import StepStats


class Energy(msgspec.Struct, frozen=True):
    """Joules by phase and by client, since the start and `today`. `idle_watts` is the board's power while nothing is
    computed. None: not known yet."""

    joules: dict[Phase, float]
    clients: dict[str, float]
    today: dict[Phase, float]
    clients_today: dict[str, float]
    idle_watts: float | None
    joules_per_token: float | None


class Accounts:
    """Takes engine steps and power samples, in the order of their times. Used on the daemon's event loop."""

    def __init__(self, joules_per_hour: Mapping[str, float], today: Callable[[], datetime.date]) -> None:
        """`joules_per_hour` is the budget by client name; `*` is the budget of every client not named."""
        self._allowances = Allowances(joules_per_hour)
        self._ledger = Ledger()
        self._today = today
        self._day = today()
        self._at_midnight: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self._clients_at_midnight: dict[str, float] = {}
        self._charged: dict[str, float] = {}  # joules by client that its allowance has counted
        self._sampled = False
        self._tokens = 0

    def add_step(self, step: StepStats, client_of: Callable[[int], str]) -> None:
        """The engine has run `step`; `client_of` returns the client of a request id."""
        if self._ledger.add_step(step, client_of):
            self._tokens += step.chosen

    def add_power(self, at: float, watts: float, *, mean: bool = False) -> None:
        """The board's power in watts at the time `at` (monotonic clock), or its `mean` since the last sample."""
        self._ledger.add_power(at, watts, mean=mean)
        self._sampled = True

    def update(self, now: float, *, idle: bool) -> None:
        """Called once an interval: charge what has been drawn to the clients. `idle`: no request is running."""
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
        """The joules that a finished request took; None if they are not known."""
        return self._ledger.finish_request(request)

    def is_over(self, client: str, now: float) -> bool:
        """Whether the client is over its budget; its requests then run at `background` priority."""
        return self._allowances.is_over(client, now)

    def wait(self, client: str, now: float) -> float:
        """Seconds until the client may send requests again; 0 if it may now."""
        return self._allowances.wait(client, now)

    @property
    def energy(self) -> Energy | None:
        """All accounts; None until power has been measured."""
        if not self._sampled:
            return None
        joules, clients = self._ledger.joules, self._ledger.clients
        spent, before = joules["prefill"] + joules["decode"], self._clients_at_midnight
        return Energy(
            joules=dict(joules),
            clients=dict(clients),
            today={phase: joules[phase] - self._at_midnight[phase] for phase in PHASES},
            clients_today={client: clients[client] - before.get(client, 0.0) for client in clients},
            idle_watts=self._ledger.idle_watts,
            joules_per_token=spent / self._tokens if self._tokens else None,
        )
