"""The page with the demo model: what people meet who type the README's first commands."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import expect

from tests.browser.chat import Chat
from tests.model.conftest import demo_model  # noqa: F401 - a fixture
from tests.served import ServedModel

pytestmark = pytest.mark.model
LIGHT = """[{"type": "function", "function": {"name": "set_light", "description": "Switch a light", "parameters": {
  "type": "object", "properties": {"room": {"type": "string"}, "state": {"type": "string", "enum": ["on", "off"]}},
  "required": ["room", "state"]}}}]"""


@pytest.fixture
def demo(demo_model):  # noqa: F811
    with ServedModel(demo_model, "--context", "2048") as served:
        yield served


async def test_a_conversation_with_the_demo_model_stopped_reloaded_and_gone_on_with(demo, visit):
    chat = Chat(await visit(demo.address))
    await chat.set(Temperature="0", Thinking="off")
    await expect(await chat.answered("Who are you?")).to_contain_text("demo model")
    await expect(chat.answers).to_contain_text([re.compile(r"\d tokens")])
    await expect(await chat.answered("请简述相对论的基本原理")).to_contain_text(re.compile("光速不变"))
    await chat.page.reload()
    await expect(chat.questions).to_have_text(["Who are you?", "请简述相对论的基本原理"])
    await chat.set(Thinking="on", Tools=LIGHT)
    answer = await chat.answered("Turn on the kitchen light")
    await expect(answer.get_by_text('"room": "kitchen"')).to_be_visible()
    await expect(answer.get_by_text(re.compile("Thought for"))).to_be_visible()
    await chat.page.get_by_label("Result of set_light").fill('{"ok": true}')
    await chat.button("Send results").click()
    await expect(chat.answers.last).to_contain_text(re.compile("light"))
    await expect(chat.answers.last).to_have_attribute("aria-busy", "false")
    await expect(chat.answers.last).to_contain_text(re.compile(r"[1-9]\d* of \d+ cached"))
    await chat.page.get_by_role("tab", name="Device").click()
    await expect(chat.page.get_by_role("row")).not_to_have_count(0)
    await expect(chat.page.get_by_role("article", name="Speed")).to_be_visible()
