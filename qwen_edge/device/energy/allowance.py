"""How many joules a client may spend in an hour. Pure.

A leaky bucket: spent joules drain at the allowed rate. A client whose bucket holds more than an hour's budget drops to
`background` priority. At 150 % of the budget its requests are refused until the bucket is back at 100 %.
"""

from __future__ import annotations

from collections.abc import Mapping

_HOUR = 3600.0
_BEYOND = 1.5  # times the budget: from here on, the client is refused


class Allowances:
    """The buckets of all clients. `now` is in seconds, of a clock that never goes back."""

    def __init__(self, joules_per_hour: Mapping[str, float]) -> None:
        """Budgets by client name; `*` is the budget of clients not named, which otherwise have no limit."""
        self._allowed = dict(joules_per_hour)
        self._spent: dict[str, tuple[float, float]] = {}  # joules in the bucket, and the time at which it held them
        self._away = set[str]()

    def spend(self, client: str, joules: float, now: float) -> None:
        """Charge `joules` to the client."""
        if (allowed := self._of(client)) is not None:
            spent = self._left(client, now) + joules
            self._spent[client] = spent, now
            if spent > _BEYOND * allowed:
                self._away.add(client)

    def is_over(self, client: str, now: float) -> bool:
        """Whether the client has spent more than its budget."""
        allowed = self._of(client)
        return allowed is not None and self._left(client, now) > allowed

    def wait(self, client: str, now: float) -> float:
        """Seconds until the client is accepted again; 0 if it is accepted now."""
        if not self.is_over(client, now):
            self._away.discard(client)
        allowed = self._of(client)
        if client not in self._away or not allowed:
            return 0.0
        return (self._left(client, now) - allowed) / allowed * _HOUR

    def _left(self, client: str, now: float) -> float:
        """Joules in the client's bucket now."""
        joules, then = self._spent.get(client, (0.0, now))
        return max(0.0, joules - (self._of(client) or 0.0) * (now - then) / _HOUR)

    def _of(self, client: str) -> float | None:
        return self._allowed.get(client, self._allowed.get("*"))
