"""GET /v1/device/history: what is kept of the device's last minutes and days."""

from __future__ import annotations

from typing import Literal

import msgspec
from aiohttp import web

from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.device.history import LONGEST, RECENT
from qwen_edge.device.history_file import Sample
from qwen_edge.server.replies import json_response
from qwen_edge.server.state import STATE

QUERY = {"seconds": f"1 to {LONGEST}; {RECENT}. Up to {RECENT}, a sample is of 5 seconds; beyond, of a minute."}


class DeviceHistory(msgspec.Struct, forbid_unknown_fields=True):
    """`every`: the seconds of a sample. The oldest sample comes first. Times in which no daemon ran have none."""

    every: int
    samples: list[Sample]
    object: Literal["device.history"] = "device.history"


async def history(request: web.Request) -> web.Response:
    """The samples of the last seconds."""
    every, samples = await request.app[STATE].thermal.history.of_last(_seconds(request))
    return json_response(DeviceHistory(every, samples))


def _seconds(request: web.Request) -> float:
    """Raises RequestError."""
    text = request.query.get("seconds", str(RECENT))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= LONGEST:
        raise RequestError(
            f"'seconds' must be a number from 1 to {LONGEST}, and not {printable(text)!r}.", parameter="seconds"
        )
    return seconds
