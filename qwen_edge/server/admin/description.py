"""GET /openapi.json."""

from __future__ import annotations

from aiohttp import web

from qwen_edge.server.openapi import DESCRIPTION


async def openapi(request: web.Request) -> web.Response:
    """The description of all paths."""
    return web.Response(body=request.app[DESCRIPTION].page, content_type="application/json")
