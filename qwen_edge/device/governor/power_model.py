"""The power model: what the board draws when idle, and how much more when the engine computes all the time. It turns a
limit in watts into a duty without trial and error. Pure; every value is frozen."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from qwen_edge.device.governor.gain import GainEstimator, towards

_SMOOTH = 2.0  # seconds: time constant of the filter; readings are instantaneous and noisy
_LEAST_SPAN = 0.1  # watts


@dataclass(frozen=True)
class PowerModel:
    """`watts` and the share of work (0..1) they were drawn at, both filtered. Start with `begin`, then `after`."""

    watts: float
    work: float
    _estimator: GainEstimator = field(default_factory=lambda: GainEstimator(_LEAST_SPAN))

    @staticmethod
    def begin(watts: float, work: float) -> PowerModel:
        return PowerModel(watts, work)

    @property
    def span(self) -> float | None:
        """Watts between idle and full work; None until the engine has both rested and worked."""
        return self._estimator.gain

    def after(self, watts: float, work: float, seconds: float) -> PowerModel:
        """`seconds` later the board draws `watts`; since then the engine computed for the share `work` of the time."""
        now, share = towards(self.watts, watts, seconds / _SMOOTH), towards(self.work, work, seconds / _SMOOTH)
        return replace(self, watts=now, work=share, _estimator=self._estimator.after(share, now, seconds))

    def duty_within(self, limit: float) -> float:
        """The share of work at which the board draws `limit` watts; may be below 0 or above 1. Until the span is known,
        the current work is scaled by limit / watts."""
        if self.span is None:
            return 1.0 if self.watts <= limit else self.work * limit / self.watts
        return self.work + (limit - self.watts) / self.span
