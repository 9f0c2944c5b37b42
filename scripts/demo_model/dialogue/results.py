"""What a tool returns, and what there is to tell the user about it."""

import json
from dataclasses import dataclass
from random import Random
from typing import Any

from .intents import Intent
from .tables import phrases, table
from .words import WORDS, Lang


@dataclass(frozen=True, slots=True)
class Result:
    """The content of a tool message and the sentence that tells the user."""

    content: str
    told: str
    good: bool = True


def result_of(rng: Random, intent: Intent) -> Result:
    """What the tool might return for the intent's call."""
    if rng.random() < 0.06:
        return _failed(rng, intent.lang)
    if intent.action.family == "weather":
        return _weather(rng, intent)
    echoed = intent.call()["arguments"]
    return Result(_text(rng.choice((*table("sentences")["fine"], echoed, {"ok": True} | echoed))), intent.done())


def _failed(rng: Random, lang: Lang) -> Result:
    error = rng.choice(phrases(table("sentences")["errors"]))
    shapes = (
        {"error": error},
        {"ok": False, "error": error},
        {"status": "failed", "message": error},
        {"success": False, "reason": error},
        f"error: {error}",
    )
    told = f"Sorry, that did not work: {error}." if lang == "en" else f"抱歉，没有成功：{error}。"
    return Result(_text(rng.choice(shapes)), told, good=False)


def _weather(rng: Random, intent: Intent) -> Result:
    sky, degrees = rng.choice(WORDS["condition"]), rng.randint(-9, 36)
    known = sky.zh[0] if rng.random() < 0.2 else sky.en[0]
    shapes = (
        {"temperature": degrees, "condition": known},
        {"weather": known, "temp_c": degrees},
        {"condition": known, "temperature": degrees, "unit": "C"},
        f"{known}, {degrees} °C",
    )
    reading = f"{sky.en[0]} and {degrees} °C" if intent.lang == "en" else f"{sky.zh[0]}，{degrees} °C"
    return Result(_text(rng.choice(shapes)), intent.done(reading))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
