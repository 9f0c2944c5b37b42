"""Requests of programs that are too large for a test, as their sources send them."""

import json
from pathlib import Path
from typing import Any


def recorded(name: str) -> dict[str, Any]:
    """The requests in the file of this name."""
    whole: dict[str, Any] = json.loads((Path(__file__).parent / f"{name}.json").read_text(encoding="utf-8"))
    return whole
