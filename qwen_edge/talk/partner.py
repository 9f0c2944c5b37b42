"""Who answers: a daemon that runs, a private one with the wanted model, or the server at a URL.

A private daemon that has died is started again for the next question.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from qwen_edge.client.private_daemon import PrivateDaemon, private_daemon
from qwen_edge.client.server import RefusedError, Server, UnreachableError, server_url, servers_at
from qwen_edge.core.errors import UserError

_PAUSE = 0.5  # seconds between two questions to a server that loads
_DYING = 1.0  # seconds between the end of a connection and that of its process
_NO_KEY = (401, 403)  # statuses
_LARGEST = 10**9  # tokens: a larger context is none


@dataclass(frozen=True)
class Place:
    """Where to look for who answers. `running`: the address of the daemon that may run here. `settings`: a settings
    file; then only a private daemon with these settings answers. `start`: starts a private daemon."""

    running: str
    settings: Path | None = None
    start: Callable[..., contextlib.AbstractAsyncContextManager[PrivateDaemon]] = private_daemon


class Partner:
    """Who answers now. Call `use` first. A context manager, which stops what it has started."""

    def __init__(self, place: Place, say: Callable[[str], None]) -> None:
        """`say` gets what is waited for, in lines that are not cleaned for a terminal."""
        self._place, self._say = place, say
        self._stack = AsyncExitStack()
        self._server: Server | None = None
        self._private: PrivateDaemon | None = None
        self._wanted: str | None = None
        self.model = ""
        self.context: int | None = None

    async def __aenter__(self) -> Partner:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    @property
    def url(self) -> str:
        return self._server.url if self._server else ""

    @property
    def is_private(self) -> bool:
        return self._private is not None

    async def use(self, wanted: str | None) -> None:
        """Talk to the server at a URL; or to the daemon that runs, if it serves this model (None: any), else to a
        private one with it. Whoever answered before does so if this fails, and is else left. Raises UserError."""
        if wanted is not None and await self._choose(wanted):
            return
        await self._replace(wanted)

    async def _replace(self, wanted: str | None) -> None:
        fresh = AsyncExitStack()
        try:
            private, server, listed = await self._open(fresh, wanted)
        except BaseException:
            await fresh.aclose()
            raise
        before, self._stack = self._stack, fresh
        self._private, self._server, self._wanted = private, server, wanted
        self.model, self.context = listed["id"], _context(listed)
        await before.aclose()

    async def _choose(self, name: str) -> bool:
        """Whether the server that answers now has a model of this name, which then is asked."""
        if not self._server or server_url(name):
            return False
        with contextlib.suppress(UserError):
            if listed := _named(await self._server.models(), name):
                self.model, self.context = listed["id"], _context(listed)
                return True
        return False

    async def others(self) -> list[str]:
        """The names of the further models that the server lists. Raises UserError."""
        return [one["id"] for one in await self._asked().models() if one["id"] != self.model]

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Ask; the chunks of the answer. A private daemon that has died before the first one is started again. Raises
        UserError."""
        begun = False
        try:
            async with aclosing(self._asked().stream({"model": self.model, **body})) as chunks:
                async for chunk in chunks:
                    begun = True
                    yield chunk
        except UnreachableError:
            if begun or not self._private or not await self._private.has_ended(_DYING):
                raise
        else:
            return
        self._say("the private daemon has ended; it is started again")
        await self._replace(self._wanted)
        async with aclosing(self._asked().stream({"model": self.model, **body})) as chunks:
            async for chunk in chunks:
                yield chunk

    def _asked(self) -> Server:
        assert self._server, "use() comes first"
        return self._server

    async def _open(
        self, stack: AsyncExitStack, wanted: str | None
    ) -> tuple[PrivateDaemon | None, Server, dict[str, Any]]:
        url = server_url(wanted) if wanted is not None else None
        if url or not self._place.settings:
            (server,) = await stack.enter_async_context(servers_at([url or self._place.running]))
            try:
                listed = await self._listed(server)
                if chosen := listed[0] if url or wanted is None else _named(listed, wanted):
                    return None, server, chosen
            except UserError as error:
                if url or (wanted is None and isinstance(error, RefusedError) and error.status in _NO_KEY):
                    raise
        start = self._place.start(wanted, settings=self._place.settings, say=self._say)
        private = await stack.enter_async_context(start)
        (server,) = await stack.enter_async_context(servers_at([private.url]))
        return private, server, (await self._listed(server))[0]

    async def _listed(self, server: Server) -> list[dict[str, Any]]:
        """The models that the server lists, at least one; waits while it loads. Raises UserError."""
        told = False
        while True:
            try:
                listed = await server.models()
                break
            except RefusedError as error:
                if error.status != 503:
                    raise
                if not told:
                    self._say(f"waiting for {server.url}: {error.words}")
                told = True
            await asyncio.sleep(_PAUSE)
        if not listed:
            raise UserError(f"{server.url} has no model.")
        return listed


def _named(listed: list[dict[str, Any]], wanted: str) -> dict[str, Any] | None:
    """The model of this name or file."""
    names = {wanted, Path(wanted).name, Path(wanted).name.removesuffix(".gguf")}
    return next((one for one in listed if one["id"] in names), None)


def _context(listed: Mapping[str, Any]) -> int | None:
    """The size of the context, as our daemon (context_length), vLLM and llama-server (meta.n_ctx) tell it."""
    meta = listed.get("meta")
    told = [listed.get("context_length"), listed.get("max_model_len")]
    told += [meta.get("n_ctx")] if isinstance(meta, Mapping) else []
    return next((one for one in told if type(one) is int and 0 < one < _LARGEST), None)
