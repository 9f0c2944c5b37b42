"""The limits at which the supervisor ends or replaces an engine."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class SupervisorLimits:
    """`load_seconds`: an engine that sends no message for this long while it loads is killed. `hang_seconds`: the same,
    after loading. `idle_seconds`: an engine without requests is unloaded after this time. `memory_bytes`: an engine
    whose own memory exceeds this limit for `memory_seconds` is replaced; None: the memory plan and a margin."""

    load_seconds: float
    hang_seconds: float
    idle_seconds: float = math.inf
    memory_bytes: int | None = None
    memory_seconds: float = 60.0
