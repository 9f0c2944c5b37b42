"""What the board draws, and how much more when the engine computes all the time: so a limit in watts becomes a duty
without trying. Pure; every value is frozen."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from qwen_edge.device.governor.gain import GainEstimator, towards

_SMOOTH = 2.0  # seconds: readings are moments, and noisy
_LEAST_SPAN = 0.1  # watts


@dataclass(frozen=True)
class PowerModel:
    """`watts` and the share of work they were drawn under, both filtered. `begin` with the first reading."""

    watts: float
    work: float
    _estimator: GainEstimator = field(default_factory=lambda: GainEstimator(_LEAST_SPAN))

    @staticmethod
    def begin(watts: float, work: float) -> PowerModel:
        return PowerModel(watts, work)

    @property
    def span(self) -> float | None:
        """Watts between idle and full work; None as long as the engine has not both rested and worked."""
        return self._estimator.gain

    def after(self, watts: float, work: float, seconds: float) -> PowerModel:
        """So much later so much was drawn, while the engine computed for so much of the time."""
        now, share = towards(self.watts, watts, seconds / _SMOOTH), towards(self.work, work, seconds / _SMOOTH)
        return replace(self, watts=now, work=share, _estimator=self._estimator.after(share, now, seconds))

    def duty_within(self, limit: float) -> float:
        """The share of work with which no more than `limit` watts are drawn; may be none or more than all. Before the
        span is known: as much less than now as there are too many watts now."""
        if self.span is None:
            return 1.0 if self.watts <= limit else self.work * limit / self.watts
        return self.work + (limit - self.watts) / self.span
