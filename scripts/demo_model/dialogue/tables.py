"""Reads the tables in `data/`. A list of phrases is one string there, separated by semicolons."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

_DATA = Path(__file__).resolve().parents[1] / "data"


@cache
def table(name: str) -> Any:
    """The content of data/<name>.yaml; callers do not change it."""
    return yaml.safe_load((_DATA / f"{name}.yaml").read_text(encoding="utf-8"))


def phrases(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(";")) if text else ()
