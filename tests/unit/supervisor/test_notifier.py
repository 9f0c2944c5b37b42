"""Waiting for a condition: nobody sleeps on when it holds, nobody wakes before."""

import asyncio

from qwen_edge.supervisor.notifier import Notifier
from tests.unit.supervisor.virtual_time import run


def test_each_waiter_returns_when_its_own_condition_holds():
    async def program() -> None:
        notifier, value = Notifier(), [0]
        first = asyncio.create_task(notifier.until(lambda: value[0] >= 1))
        second = asyncio.create_task(notifier.until(lambda: value[0] >= 2))
        await asyncio.sleep(1)
        value[0] = 1
        notifier.fire()
        await first
        await asyncio.sleep(1)
        assert not second.done()
        value[0] = 2
        notifier.fire()
        notifier.fire()  # before anybody has run
        await second
        await notifier.until(lambda: True)

    run(program())


def test_who_is_cancelled_while_waiting_is_forgotten():
    async def program() -> None:
        notifier = Notifier()
        waiting = asyncio.create_task(notifier.until(lambda: False))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        notifier.fire()
        assert not notifier._waiting

    run(program())
