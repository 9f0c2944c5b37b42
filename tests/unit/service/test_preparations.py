"""Which preparations run at once, and what ends them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace

import pytest

from qwen_edge.chat.messages import ChatRequest, Content
from qwen_edge.core.errors import unavailable
from qwen_edge.protocol.messages import Caller, Sampling, Shape
from qwen_edge.service.preparations import Preparations, as_preparation

REQUEST = ChatRequest(({"role": "user", "content": "hi"},), Sampling())


def of(conversation: str, owner: str = "") -> ChatRequest:
    return replace(REQUEST, conversation=conversation, caller=Caller(owner))


class Engine:
    """Computes a prompt until it may go on, and tells which computations were ended."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.ended: list[str] = []
        self.may_go_on = asyncio.Event()
        self.error: Exception | None = None

    async def answer(self, request: ChatRequest):
        name = f"{request.caller.owner}/{request.conversation}"
        self.running.append(name)
        try:
            if self.error:
                raise self.error
            await self.may_go_on.wait()
            yield Content("x")
        except BaseException:
            self.ended.append(name)
            raise
        finally:
            self.running.remove(name)


@pytest.fixture
async def engine():
    return Engine()


@pytest.fixture
async def preparations(engine):
    preparations = Preparations(engine.answer)
    yield preparations
    engine.may_go_on.set()
    await settled()


async def settled() -> None:
    """All that can run has run."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_the_next_of_a_conversation_ends_the_one_before(engine, preparations):
    for _ in range(3):
        preparations.start(of("kitchen"))
        await settled()
    assert engine.running == ["/kitchen"] and engine.ended == ["/kitchen"] * 2


async def test_the_question_ends_the_preparation_of_its_own_conversation_only(engine, preparations):
    for one in (of("kitchen"), of("hall"), of("kitchen", "ann"), of("")):
        preparations.start(one)
    await settled()
    preparations.end(of("kitchen"))
    preparations.end(of("unknown"))
    await settled()
    assert engine.ended == ["/kitchen"] and engine.running == ["/hall", "ann/kitchen", "/"]


async def test_the_oldest_ends_when_there_are_too_many(engine, preparations):
    for number in range(7):
        preparations.start(of(str(number)))
        await settled()
    assert engine.running == ["/3", "/4", "/5", "/6"] and len(preparations) == 4


async def test_one_that_is_done_is_forgotten(engine, preparations):
    engine.may_go_on.set()
    preparations.start(of("kitchen"))
    await settled()
    assert len(preparations) == 0 and not engine.ended


async def test_one_that_is_refused_disturbs_nobody(engine, preparations, caplog):
    caplog.set_level(logging.DEBUG)
    engine.error = unavailable("Busy.", 1)
    preparations.start(of("kitchen"))
    await settled()
    assert len(preparations) == 0
    assert [(one.levelname, one.getMessage()) for one in caplog.records if "prepared" in one.getMessage()] == [
        ("DEBUG", "a prompt was not prepared: Busy.")
    ]


async def test_a_fault_of_ours_is_in_the_log(engine, preparations, caplog):
    engine.error = KeyError("a mistake")
    preparations.start(of("kitchen"))
    with contextlib.suppress(KeyError):
        await settled()
    assert "Traceback" in caplog.text and "preparing a prompt failed" in caplog.text


def test_a_preparation_has_the_same_prompt_and_one_token():
    shape = Shape("regex", "a")
    asked = replace(
        REQUEST, shown_schema="{}", tools=({"function": {"name": "f"}},), shape=shape, call_shape=shape,
        requires_call=True, choices=3, max_tokens=50, stop=("x",), thinking=False, pin_seconds=5.0,
    )  # fmt: skip
    prepared = as_preparation(asked)
    for name in ("messages", "tools", "shown_schema", "thinking", "template_arguments", "caller", "conversation"):
        assert getattr(prepared, name) == getattr(asked, name)
    assert (prepared.max_tokens, prepared.choices, prepared.shape, prepared.call_shape) == (1, 1, None, None)
    assert prepared.prepares and not prepared.must_keep_shape
