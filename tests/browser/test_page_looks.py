"""The page for eyes, fingers, keyboards and screen readers: sizes, themes, languages, and axe-core's rules."""

from __future__ import annotations

import json
import re
import threading

import pytest
from playwright.async_api import Page, expect

from tests.browser.axe import violations
from tests.browser.chat import Chat
from tests.browser.conftest import DESKTOP, PHONE

ANSWER = """<think>What is asked is **simple**.</think>
# One

Text with `code`, *emphasis*, ~~none~~ and [a link](https://a.example).

- [ ] open
- [x] done

> said

| a | b |
|:--|--:|
| 1 | 2 |

```python
print("a line that is much longer than the screen of any phone could ever be, and longer still, without a break")
```
"""
# names, units, and what this test itself says: the texts of conversations and JSON are not the page's words
NAMES = {
    "qwen-edge",
    "fake",
    "test",
    "JSON",
    "Schema",
    "Markdown",
    "English",
    "Top",
    "p",
    "k",
    "Python",
    "Esc",
    "MB",
    "GB",
}

_WORDS = """() => {
  const found = [document.title];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = texts.nextNode());) {
    const place = node.parentElement;
    const shown = place.checkVisibility({ visibilityProperty: true });
    if (shown && !place.closest('script, style, noscript, [lang=zh], [lang=en]:not(html), .prose, textarea')) found.push(node.data);
  }
  for (const node of document.querySelectorAll('[aria-label], [title], [placeholder], [alt]')) {
    if (node.checkVisibility()) found.push(...['aria-label', 'title', 'placeholder', 'alt'].map((name) => node.getAttribute(name) ?? ''));
  }
  return found;
}"""  # noqa: E501 - JavaScript


async def _overflow(page: Page) -> int:
    return await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


async def _talk(serve, visit, **options) -> Chat:
    served = await serve(lambda prompt: ANSWER)
    chat = Chat(await visit(served.address, **options))
    await chat.answered("Show all that Markdown has.")
    await chat.answers.get_by_text(re.compile("Thought for")).click()
    return chat


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
async def test_axe_finds_nothing_in_the_chat_its_dialogs_and_its_errors(serve, visit, theme, size):
    visit.forgive("ERR_FAILED")
    chat = await _talk(serve, visit, color_scheme=theme, viewport=size)
    assert await violations(chat.page) == []
    await chat.page.get_by_role("button", name="Settings").click()
    await chat.page.get_by_label("JSON schema").fill("{")
    await chat.page.get_by_role("dialog").get_by_role("button", name="Save").click()
    assert await violations(chat.page) == []
    await chat.page.get_by_role("dialog").get_by_role("button", name="Close").click()
    await chat.questions.get_by_role("button", name="Edit").click()
    assert await violations(chat.page) == []
    await chat.page.keyboard.press("Escape")
    await chat.page.get_by_label("Export").click()
    if size is PHONE:
        await chat.page.get_by_role("button", name="Conversations").click()
    assert await violations(chat.page) == []
    if size is PHONE:
        await chat.page.keyboard.press("Escape")
    await chat.page.route("**/v1/chat/completions", lambda route: route.abort())
    await chat.answered("and now?")
    assert await violations(chat.page) == []


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_axe_finds_nothing_in_an_empty_chat_and_while_an_answer_is_written(serve, visit, theme):
    served = await serve(lambda prompt: ANSWER)
    chat = Chat(await visit(served.address, color_scheme=theme))
    assert await violations(chat.page) == []
    served.backend.gate = gate = threading.Event()
    answer = await chat.ask("hi")
    await expect(answer).to_have_attribute("aria-busy", "true")
    assert await violations(chat.page) == []
    gate.set()
    await expect(answer).to_have_attribute("aria-busy", "false")


@pytest.mark.parametrize("width", [280, 320, 360, 412, 768, 1024, 1920])
async def test_nothing_is_wider_than_the_window(serve, visit, width):
    chat = await _talk(serve, visit, viewport={"width": width, "height": 640})
    assert await _overflow(chat.page) == 0
    for button in ("Settings", "Send"):
        box = await chat.page.get_by_role("button", name=button).bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= width
    await chat.page.get_by_role("button", name="Settings").click()
    assert await _overflow(chat.page) == 0
    await chat.page.keyboard.press("Escape")
    await chat.page.get_by_role("tab", name="Device").click()
    await expect(chat.page.get_by_role("heading", name="Details")).to_be_visible()
    assert await _overflow(chat.page) == 0


async def test_a_phone_reaches_its_conversations_by_touch_and_they_do_not_cover_the_chat(serve, visit):
    served = await serve(lambda prompt: "yes")
    page = await visit(served.address, viewport=PHONE, has_touch=True, is_mobile=True)
    chat = Chat(page)
    for question in ("apples", "pears"):
        await page.get_by_role("button", name="New conversation").last.tap()
        await chat.question.fill(question)
        await chat.send.tap()
        await expect(chat.answers).to_contain_text(["yes"])
    drawer = page.get_by_role("navigation", name="Conversations")
    await expect(drawer).not_to_be_in_viewport()
    await page.get_by_role("button", name="Conversations").tap()
    await expect(drawer).to_be_in_viewport()
    await drawer.get_by_role("button", name="apples").tap()
    await expect(drawer).not_to_be_in_viewport()
    await expect(chat.questions).to_have_text("apples")
    await chat.question.press("Enter")  # a phone's keyboard has no other key for a new line
    await expect(chat.question).to_have_value("\n")


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
async def test_a_chinese_browser_shows_no_english(serve, visit, size):
    schema = json.dumps({"type": "object"})
    served = await serve(lambda prompt: "<think>想</think>好")
    page = await visit(served.address, locale="zh-CN", viewport=size)
    found: list[str] = []

    async def read() -> None:
        found.extend(await page.evaluate(_WORDS))

    await read()
    await page.get_by_role("textbox", name="您的问题").fill("你好")
    await page.get_by_role("button", name="发送").click()
    answer = page.get_by_role("article", name="回答")
    await expect(answer).to_have_attribute("aria-busy", "false")
    await read()
    await page.get_by_role("button", name="设置").click()
    await page.get_by_label("JSON Schema").fill(schema)
    await page.get_by_label("温度").fill("9")
    await page.get_by_role("button", name="保存").click()
    await read()
    await page.get_by_role("dialog").get_by_role("button", name="关闭").click()
    await page.get_by_label("导出").click()
    await read()
    await page.get_by_role("heading", level=2).click()
    await expect(page.get_by_role("button", name="导出为 JSON")).to_be_hidden()
    await page.get_by_role("article", name="您").get_by_role("button", name="编辑").click()
    await read()
    await page.get_by_role("tab", name="设备").click()
    await expect(page.get_by_role("heading", name="记住的对话")).to_be_visible()
    await expect(page.get_by_role("row").nth(1)).to_be_visible()
    await read()
    own = [text for text in found if "<|im_start|>" not in text and not text.startswith(("{", "["))]
    assert set(re.findall(r"[A-Za-z]+(?:-[A-Za-z]+)*", " ".join(own))) - NAMES == set()
    assert await page.evaluate("document.documentElement.lang") == "zh-CN"


async def test_the_language_is_that_of_the_browser_until_somebody_chooses_and_then_stays(serve, visit):
    served = await serve()
    page = await visit(served.address, locale="de-DE")
    await expect(page.get_by_role("tab", name="Device")).to_be_visible()
    await page.get_by_role("button", name="中文").click()
    await expect(page.get_by_role("tab", name="设备")).to_be_visible()
    await expect(page.get_by_role("textbox", name="您的问题")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("tab", name="设备")).to_be_visible()
    assert await page.evaluate("document.documentElement.lang") == "zh-CN"


async def test_both_themes_follow_the_system_at_once(serve, visit):
    served = await serve()
    page = await visit(served.address, color_scheme="light")
    light = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    await page.emulate_media(color_scheme="dark")
    dark = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (light, dark)]
    assert brightness[0] > 650 and brightness[1] < 120


async def test_with_reduced_motion_nothing_moves(serve, visit):
    served = await serve(lambda prompt: ANSWER, gate=threading.Event())
    chat = Chat(await visit(served.address, reduced_motion="reduce"))
    answer = await chat.ask("hi")
    await expect(answer).to_have_attribute("aria-busy", "true")
    assert await chat.page.evaluate("document.getAnimations().length") == 0
    served.backend.gate.set()
    await expect(answer).to_have_attribute("aria-busy", "false")
    moving = """() => [...document.querySelectorAll('*')].filter((node) => {
      const { transitionDuration, animationName, scrollBehavior } = getComputedStyle(node);
      return parseFloat(transitionDuration) > 0 || animationName !== 'none' || scrollBehavior === 'smooth';
    }).map((node) => node.outerHTML.slice(0, 100))"""
    assert await chat.page.evaluate(moving) == []


async def test_the_whole_chat_is_used_by_keyboard_alone(serve, visit):
    served = await serve(lambda prompt: "Use `x`.")
    chat = Chat(await visit(served.address))
    page, press = chat.page, chat.page.keyboard.press
    await expect(chat.question).to_be_focused()
    await page.keyboard.type("first line")
    await press("Shift+Enter")
    await page.keyboard.type("second line")
    await press("Enter")
    await expect(chat.questions).to_have_text("first line\nsecond line")
    await expect(chat.answers).to_have_attribute("aria-busy", "false")
    reached = await _walk(page)
    wanted = {"Chat", "中文", "Rename", "Delete", "Export", "Edit", "Copy", "Try again", "Settings", "Your question"}
    assert wanted - reached == set()
    await page.get_by_role("tab", name="Chat").focus()
    await press("ArrowRight")
    await expect(page.get_by_role("tab", name="Device")).to_be_focused()
    await expect(page.get_by_role("tabpanel", name="Device")).to_be_visible()
    await expect(page.get_by_role("tabpanel", name="Chat")).to_be_hidden()
    await press("ArrowLeft")
    await expect(page.get_by_role("tabpanel", name="Chat")).to_be_visible()
    await page.get_by_role("button", name="Settings").focus()
    await press("Enter")
    await expect(page.get_by_label("System prompt")).to_be_focused()
    await press("Escape")
    await expect(page.get_by_role("button", name="Settings")).to_be_focused()


async def _walk(page: Page) -> set[str]:
    """The names of all that the tab key reaches; each must show that it has the focus."""
    reached = set()
    for _ in range(40):
        await page.keyboard.press("Tab")
        name, seen = await page.evaluate(
            """() => {
              const node = document.activeElement;
              const { outlineStyle, outlineWidth } = getComputedStyle(node.closest('.composer textarea')?.form ?? node);
              const name = node.getAttribute('aria-label') ?? node.textContent.trim();
              return [name, node === document.body || (outlineStyle !== 'none' && parseFloat(outlineWidth) >= 1)];
            }"""
        )
        assert seen, f"{name}: the focus is not seen"
        reached.add(name)
    return reached


async def test_a_screen_reader_is_told_what_happens(serve, visit):
    served = await serve(lambda prompt: "Hello!")
    chat = Chat(await visit(served.address))
    status = chat.page.get_by_role("status")
    await chat.answered("hi")
    await expect(status).to_have_text("Answer complete")
    await chat.conversation("hi").get_by_role("button", name="Delete").click()
    await chat.page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(status).to_have_text("Conversation deleted")
