"""What a daemon tells of its device, with one text wherever texts are."""

from __future__ import annotations

from typing import Any


def device(text: str) -> dict[str, Any]:
    return {
        "object": "device",
        "model": text,
        "engine": text,
        "pending": 0,
        "restarts": 0,
        "last_death": None,
        "memory": 93_000_000,
        "governor": {
            "level": text,
            "duty": 1.0,
            "duty_asked": 1.0,
            "duty_ran": 1.0,
            "because": text,
            "refused": [text],
            "retry_after": 1.0,
            "pause": 95.0,
            "target": 85.0,
        },
        "telemetry": {
            "tj": 50.0,
            "temperatures": {text: 40.0},
            "watts": 5.0,
            "rails": {text: 1.0},
            "cpu_load": 0.5,
            "gpu_load": None,
            "clocks": {text: {"hertz": 1e9}},
            "memory_total": 2,
            "memory_used": 1,
            "fan": 0.5,
            "mode": text,
            "battery": {"level": 0.5, "discharging": True},
            "throttled": [text],
            "missing": [text],
        },
        "energy": {
            "joules": {text: 1.0},
            "clients": {text: 1.0},
            "today": {text: 1.0},
            "idle_watts": 1.0,
            "joules_per_token": 0.1,
        },
        "tokens_per_second": 1.0,
        "sequences": 1,
        "cache": {"prompt_tokens": 2, "cached_tokens": 1},
        "trouble": text,
        "source": text,
        "age": 1.0,
    }
