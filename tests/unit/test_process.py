"""The daemon's end of the socket pair to the engine."""

import asyncio
import socket

from qwen_edge.frames import encode
from qwen_edge.messages import Abort, Began, Failed
from qwen_edge.process import Link


async def test_what_a_dying_engine_has_said_is_heard_also_if_it_was_written_to_meanwhile():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    heard: list = []
    loop = asyncio.get_running_loop()
    _, link = await loop.create_unix_connection(lambda: Link(ours, heard.append), sock=ours)
    said = [Began(1), Failed(1, "engine", "the GPU has fallen off the bus")]
    with theirs:
        theirs.sendall(encode(said))
    link.send([Abort(2)])  # fails, before anything has been read
    await link.closed
    assert heard == said
