"""How many joules a client may spend in an hour. Pure.

A leaky bucket: what was spent drains at the allowed rate. Whoever is over it waits behind the others, and may so spend
half as much again; beyond that it is turned away until it is no longer over.
"""

from __future__ import annotations

from collections.abc import Mapping

_HOUR = 3600.0
_BEYOND = 1.5  # of the allowance, from which on a client is turned away


class Allowances:
    """Of all clients. Times are of one clock that only goes forward, in seconds."""

    def __init__(self, joules_per_hour: Mapping[str, float]) -> None:
        """By client; `*` is for those that are not named. Without it these have no limit."""
        self._allowed = dict(joules_per_hour)
        self._spent: dict[str, tuple[float, float]] = {}  # joules, and when they were so many
        self._away = set[str]()

    def spend(self, client: str, joules: float, now: float) -> None:
        """The client has spent so much."""
        if (allowed := self._of(client)) is not None:
            spent = self._left(client, now) + joules
            self._spent[client] = spent, now
            if spent > _BEYOND * allowed:
                self._away.add(client)

    def is_over(self, client: str, now: float) -> bool:
        """Whether it should wait behind others."""
        allowed = self._of(client)
        return allowed is not None and self._left(client, now) > allowed

    def wait(self, client: str, now: float) -> float:
        """Seconds for which it is turned away; 0 if it may ask."""
        if not self.is_over(client, now):
            self._away.discard(client)
        allowed = self._of(client)
        if client not in self._away or not allowed:
            return 0.0
        return (self._left(client, now) - allowed) / allowed * _HOUR

    def _left(self, client: str, now: float) -> float:
        """Joules that count yet."""
        joules, then = self._spent.get(client, (0.0, now))
        return max(0.0, joules - (self._of(client) or 0.0) * (now - then) / _HOUR)

    def _of(self, client: str) -> float | None:
        return self._allowed.get(client, self._allowed.get("*"))
