"""Merges several asynchronous iterators into one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

_Item = TypeVar("_Item")


@asynccontextmanager
async def merged(sources: Sequence[AsyncGenerator[_Item, None]]) -> AsyncIterator[AsyncIterator[tuple[int, _Item]]]:
    """Yields the items of all sources as they arrive, each with the number of its source. The first exception of a
    source is raised to the reader. Leaving the context closes all sources."""
    if len(sources) == 1:
        async with aclosing(sources[0]) as only:
            yield ((0, item) async for item in only)
        return
    came: asyncio.Queue[tuple[int, _Item] | Exception | None] = asyncio.Queue()
    tasks = [asyncio.create_task(_read(number, source, came)) for number, source in enumerate(sources)]
    try:
        yield _drain(came, len(tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read(
    number: int, source: AsyncGenerator[_Item, None], came: asyncio.Queue[tuple[int, _Item] | Exception | None]
) -> None:
    try:
        async with aclosing(source):
            async for item in source:
                came.put_nowait((number, item))
    except Exception as error:  # raised again to the reader of the items
        came.put_nowait(error)
    came.put_nowait(None)


async def _drain(
    came: asyncio.Queue[tuple[int, _Item] | Exception | None], sources: int
) -> AsyncIterator[tuple[int, _Item]]:
    while sources:
        item = await came.get()
        if isinstance(item, Exception):
            raise item
        if item is None:
            sources -= 1
        else:
            yield item
