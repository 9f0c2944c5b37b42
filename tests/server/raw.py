"""Connections without an HTTP client, which would not do what these tests do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

MESSAGES = [{"role": "user", "content": "hi"}]


def address_of(served: Any) -> tuple[str, int]:
    host, port = served.address.removeprefix("http://").split(":")
    return host, int(port)


@contextlib.asynccontextmanager
async def raw(served: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*address_of(served))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def unread(served: Any, data: bytes) -> AsyncIterator[socket.socket]:
    """A connection that has sent `data`, and of whose answer the kernel takes as little as can be."""
    with socket.socket() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, address_of(served))
        await loop.sock_sendall(client, data)
        yield client


async def read_all(client: socket.socket) -> bytes:
    """Until the end, which may be a reset."""
    whole = b""
    with contextlib.suppress(ConnectionResetError):
        while data := await asyncio.get_running_loop().sock_recv(client, 1 << 16):
            whole += data
    return whole


def post(path: str = "/v1/chat/completions", *headers: str, body: bytes | None = None, **fields: Any) -> bytes:
    """A request as it goes over the wire."""
    data = json.dumps({"messages": MESSAGES, **fields}).encode() if body is None else body
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(data)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + data
