"""Waiting for a condition: nobody sleeps on when it holds, nobody wakes before."""

import asyncio

from qwen_edge.supervisor.condition import Condition
from tests.unit.supervisor.virtual_time import run


def test_each_waiter_returns_when_its_own_condition_holds():
    async def program() -> None:
        condition, value = Condition(), [0]
        first = asyncio.create_task(condition.wait_for(lambda: value[0] >= 1))
        second = asyncio.create_task(condition.wait_for(lambda: value[0] >= 2))
        await asyncio.sleep(1)
        value[0] = 1
        condition.notify_all()
        await first
        await asyncio.sleep(1)
        assert not second.done()
        value[0] = 2
        condition.notify_all()
        condition.notify_all()  # before anybody has run
        await second
        await condition.wait_for(lambda: True)

    run(program())


def test_who_is_cancelled_while_waiting_is_forgotten():
    async def program() -> None:
        condition = Condition()
        waiting = asyncio.create_task(condition.wait_for(lambda: False))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        condition.notify_all()
        assert not condition._waiting

    run(program())
