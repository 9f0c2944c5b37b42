"""The daemon's HTTP server: the application, its listening sockets, and a limited number of connections.

Imports aiohttp: daemon/main.py imports this module only after it has started the engine process. Used on the daemon's
event loop.
"""

from __future__ import annotations

import asyncio
import logging
import os

from aiohttp import web

from qwen_edge.config.schema import ServerConfig
from qwen_edge.core.errors import NotNowError
from qwen_edge.daemon.descriptors import allowed, backlog_within, connection_limit, quiet_when_used_up
from qwen_edge.server.app import ALL_DIALECTS, make_app
from qwen_edge.server.connections import Connections
from qwen_edge.server.state import State

log = logging.getLogger(__name__)


class HttpServer:
    """One server. `start` it, `drain` it, then `stop` it and `close` what is left. What was not started is passed over
    by `stop` and `close`."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._settings = state.config.server
        self._runner = web.AppRunner(
            make_app(state, ALL_DIALECTS),
            handle_signals=False,
            handler_cancellation=True,
            access_log=None,
            shutdown_timeout=0.5,
        )
        self._limits: asyncio.Task[None] | None = None  # enforces the limits of the connections
        self._connections: Connections | None = None
        self._servers: list[asyncio.Server] = []  # one for each port; the first is that of server.port

    async def start(self) -> None:
        """Listen, and take connections. Raises NotNowError."""
        await self._runner.setup()
        assert self._runner.server
        most = _most_connections(self._settings)
        self._connections = Connections(self._runner.server, self._settings, most, ALL_DIALECTS)
        self._limits = asyncio.create_task(self._connections.run())
        for setting, port in self._settings.ports.items():
            self._servers.append(await _listen(self._connections, self._settings.host, port, setting))

    @property
    def address(self) -> str:
        """The URL, with the port that was really taken (for port 0)."""
        host, port = self._settings.host, self._servers[0].sockets[0].getsockname()[1]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    @property
    def in_flight(self) -> int:
        """How many requests are being handled."""
        return self._state.in_flight

    def refuse_new(self) -> None:
        """Take no new connection and no new request, and give clients that read nothing less time."""
        assert self._connections
        self._state.stopping = True
        self._stop_listening()
        self._connections.hurry()

    async def drain(self) -> None:
        """Wait until all requests have ended and the kernel has taken their answers."""
        assert self._connections
        await self._state.idle.wait()
        await self._connections.emptied()

    async def stop(self) -> None:
        """Stop listening, and end the application: requests that still run are cut off."""
        if self._limits:
            self._limits.cancel()
        self._stop_listening()
        await self._runner.cleanup()

    async def close(self) -> None:
        """Close the connections that are left."""
        if self._connections:
            await self._connections.close()

    def _stop_listening(self) -> None:
        for server in self._servers:
            server.close()


async def _listen(connections: Connections, host: str, port: int, setting: str) -> asyncio.Server:
    """Bind and accept. `setting`: which one names the port. Raises NotNowError."""
    loop, backlog = asyncio.get_running_loop(), backlog_within(allowed())
    loop.set_exception_handler(quiet_when_used_up())
    try:
        return await loop.create_server(connections.accept, host, port, reuse_address=True, backlog=backlog)
    except OSError as error:
        option = " (--port)" if setting == "server.port" else ""
        raise NotNowError(
            f"Cannot listen on {host}:{port}: {_cause(error)}. "
            f"Stop what uses the port, or choose another: {setting}{option}."
        ) from None


def _most_connections(settings: ServerConfig) -> int:
    """server.max_connections, or what the file descriptors allow."""
    wanted, descriptors = settings.max_connections, allowed()
    most = connection_limit(wanted, descriptors)
    if most < wanted:
        log.warning(
            "server.max_connections is %d, but %d file descriptors allow only %d connections. "
            "To have more file descriptors, raise LimitNOFILE in the unit, or ulimit -Hn",
            wanted,
            descriptors,
            most,
        )
    return most


def _cause(error: OSError) -> str:
    """The system's message alone: asyncio adds a text of its own to it, with the address once more."""
    number = error.errno or 0  # negative where a name is not known
    return os.strerror(number) if number > 0 else str(error.strerror or error)
