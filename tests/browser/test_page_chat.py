"""Conversations on the page, with a model of a few lines behind the real daemon."""

from __future__ import annotations

import json
import re
import threading

import pytest
from playwright.async_api import expect

from tests.browser.chat import Chat


def echo(prompt: str) -> str:
    """Says the last question again."""
    return "You said: " + prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]


class Steps:
    """Lets the model go on by some tokens: a gate that counts."""

    def __init__(self) -> None:
        self._tokens = threading.Semaphore(0)

    def wait(self) -> bool:
        return self._tokens.acquire()

    def allow(self, tokens: int) -> None:
        self._tokens.release(tokens)


async def test_an_answer_appears_while_it_is_written_and_says_what_it_cost(serve, visit):
    steps = Steps()
    served = await serve(lambda prompt: "Hello, **world**, and\n\n- one\n- two", gate=steps)
    chat = Chat(await visit(served.address))
    answer = await chat.ask("hi")
    await expect(chat.questions).to_have_text("hi")
    await expect(answer).to_have_attribute("aria-busy", "true")
    await expect(chat.stop).to_be_visible()
    steps.allow(20)
    await expect(answer).to_contain_text("Hello")  # an answer that comes all at once has no speed
    steps.allow(1000)
    await expect(answer).to_have_attribute("aria-busy", "false")
    await expect(answer.get_by_role("strong")).to_have_text("world")
    await expect(answer.get_by_role("listitem")).to_have_text(["one", "two"])
    for words in (r"first token [\d.]+ s", r"[\d.]+ tokens/s", r"35 tokens", r"\d+ of \d+ cached"):
        await expect(answer).to_contain_text(re.compile(words))
    await expect(chat.question).to_have_value("")
    await expect(chat.question).to_be_focused()


async def test_what_has_come_is_shown_before_the_rest_is_computed(serve, visit):
    steps = Steps()
    served = await serve(lambda prompt: "first second third fourth", gate=steps)
    chat = Chat(await visit(served.address))
    answer = await chat.ask("hi")
    steps.allow(20)
    await expect(answer).to_contain_text("first")
    assert "fourth" not in await answer.inner_text()
    steps.allow(1000)
    await expect(answer).to_contain_text("fourth")
    await expect(answer).to_have_attribute("aria-busy", "false")


async def test_stop_ends_the_answer_in_the_engine_and_keeps_what_was_said(serve, visit):
    steps = Steps()
    served = await serve(lambda prompt: "begun " + "word " * 500, gate=steps)
    chat = Chat(await visit(served.address))
    for press in (chat.stop.click, lambda: chat.page.keyboard.press("Escape")):
        answer = await chat.ask("hi")
        steps.allow(40)
        await expect(answer).to_contain_text("begun")
        await press()
        await expect(answer).to_have_attribute("aria-busy", "false")
        await expect(answer).to_contain_text("Stopped")
        await expect(answer).to_contain_text("begun")
        await expect(chat.send).to_be_visible()
        steps.allow(20)  # the step that was in work
        await chat.page.wait_for_function("() => true")
    steps.allow(100_000)
    served.backend.script = echo
    await expect(await chat.answered("again")).to_contain_text("You said: again")
    assert served.begun == 0


async def test_a_reload_keeps_conversations_and_says_that_an_answer_was_cut(serve, visit):
    steps = Steps()
    served = await serve(lambda prompt: "Whole.", gate=steps)
    chat = Chat(await visit(served.address))
    steps.allow(1000)
    await chat.answered("first question")
    steps._tokens = threading.Semaphore(0)
    served.backend.script = lambda prompt: "begun " + "word " * 500
    answer = await chat.ask("second question")
    steps.allow(60)
    await expect(answer).to_contain_text("begun")
    await chat.page.reload()
    await expect(chat.questions).to_have_text(["first question", "second question"])
    await expect(chat.answers.nth(0)).to_contain_text("Whole.")
    await expect(chat.answers.nth(1)).to_contain_text("The page was closed during this answer.")
    steps.allow(100_000)
    served.backend.script = echo
    await chat.answers.nth(1).get_by_role("button", name="Try again").click()
    await expect(chat.answers.nth(1)).to_contain_text("You said: second question")
    await expect(chat.answers).to_have_count(2)
    await chat.page.reload()
    await expect(chat.answers.nth(1)).to_contain_text("You said: second question")


@pytest.mark.parametrize(
    "how",
    [
        "Object.defineProperty(window, 'indexedDB', { get: () => { throw new DOMException('no', 'SecurityError') } })",
        "IDBFactory.prototype.open = () => { throw new Error('no') }",
    ],
)
async def test_a_browser_that_keeps_nothing_is_said_and_the_conversation_goes_on(serve, visit, how):
    served = await serve(lambda prompt: "Fine.")
    chat = Chat(await visit(served.address, scripts=how))
    await expect(chat.alert).to_have_text(re.compile("keeps no conversations of this page"))
    await expect(await chat.answered("How are you?")).to_contain_text("Fine.")
    await chat.button("中文").click()
    await expect(chat.alert).to_have_text(re.compile("不保存"))


async def test_a_conversation_that_could_not_be_kept_is_said_with_the_reason_until_it_could(serve, visit):
    served = await serve(lambda prompt: "Fine.")
    chat = Chat(await visit(served.address))
    await chat.page.evaluate("() => { window.put = IDBObjectStore.prototype.put }")
    await chat.page.evaluate("() => { IDBObjectStore.prototype.put = () => { throw new Error('The disk is full.') } }")
    await expect(await chat.answered("How are you?")).to_contain_text("Fine.")
    await expect(chat.alert).to_have_text("This browser could not keep the conversation. The disk is full.")
    await chat.page.evaluate("() => { IDBObjectStore.prototype.put = window.put }")
    await chat.answered("And now?")
    await expect(chat.alert).to_be_hidden()
    await chat.page.reload()
    await expect(chat.questions).to_have_text(["How are you?", "And now?"])


async def test_a_question_is_edited_and_asked_again_without_what_followed(serve, visit):
    served = await serve(echo)
    chat = Chat(await visit(served.address))
    for question in ("one", "two", "three"):
        await chat.answered(question)
    second = chat.questions.nth(1)
    await second.hover()
    await second.get_by_role("button", name="Edit").click()
    field = second.get_by_role("textbox")
    await expect(field).to_have_value("two")
    await field.press("Escape")
    await expect(second).to_have_text("two")
    await second.get_by_role("button", name="Edit").click()
    await field.fill("other")
    await second.get_by_role("button", name="Ask again").click()
    await expect(chat.questions).to_have_text(["one", "other"])
    await expect(chat.answers.nth(1)).to_contain_text("You said: other")
    await expect(chat.answers).to_have_count(2)
    sent = json.loads([one for one in visit.requests if one.method == "POST"][-1].post_data)
    assert [message["content"] for message in sent["messages"]] == ["one", "You said: one", "other"]


async def test_conversations_are_kept_apart_named_found_and_deleted(serve, visit):
    served = await serve(echo)
    chat = Chat(await visit(served.address))
    await chat.answered("apples")
    await chat.button("New conversation").first.click()
    await chat.answered("pears")
    assert "apples" not in await chat.page.get_by_role("region", name="Messages").inner_text()
    await chat.conversation("apples").get_by_role("button", name="Rename").click()
    dialog = chat.page.get_by_role("dialog")
    await dialog.get_by_role("textbox").fill("fruit")
    await dialog.get_by_role("button", name="Rename").click()
    await chat.conversation("fruit").get_by_role("button", name="fruit").click()
    await expect(chat.answers).to_contain_text(["You said: apples"])
    await chat.answered("plums")
    await chat.page.reload()
    await expect(chat.questions).to_have_text(["apples", "plums"])
    for title in ("pears", "fruit"):
        await chat.conversation(title).get_by_role("button", name="Delete").click()
        await dialog.get_by_role("button", name="Delete").click()
        await expect(chat.conversation(title)).to_have_count(0)
    await chat.page.reload()
    await expect(chat.question).to_be_visible()
    await expect(chat.page.get_by_role("navigation", name="Conversations").get_by_role("listitem")).to_have_count(0)


async def test_an_answer_goes_on_while_another_conversation_is_looked_at(serve, visit):
    steps = Steps()
    served = await serve(lambda prompt: "word " * 40 + "end", gate=steps)
    chat = Chat(await visit(served.address))
    await chat.ask("long")
    steps.allow(30)
    await chat.button("New conversation").first.click()
    await expect(chat.answers).to_have_count(0)
    await expect(chat.send).to_be_visible()
    steps.allow(100_000)
    await chat.conversation("long").get_by_role("button", name="long").click()
    await expect(chat.answers).to_contain_text(["end"])


async def test_conversations_are_exported_as_json_and_markdown(serve, visit):
    served = await serve(lambda prompt: "Use `x`:\n\n```python\nx = 1\n```")
    chat = Chat(await visit(served.address))
    await chat.set(System_prompt="Be brief.")
    await chat.answered("how # to")
    exported = []
    for ending in ("JSON", "Markdown"):
        await chat.page.get_by_label("Export").click()
        async with chat.page.expect_download() as download:
            await chat.button(f"As {ending}").click()
        exported.append((await download.value).suggested_filename)
        exported.append((await (await download.value).path()).read_text())
    name, found, other, markdown = exported
    assert (name, other) == ("how-to.json", "how-to.md")
    assert [(one["role"], one["content"].split("\n")[0]) for one in json.loads(found)["messages"]] == [
        ("system", "Be brief."), ("user", "how # to"), ("assistant", "Use `x`:"),
    ]  # fmt: skip
    assert "```python\nx = 1\n```" in markdown and markdown.startswith("# how # to\n")


async def test_settings_are_sent_and_an_empty_one_is_left_to_the_model(serve, visit):
    served = await serve(lambda prompt: '{"city":"Ulm"}')
    chat = Chat(await visit(served.address))
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "light", "parameters": {"type": "object", "properties": {}}}}
    await chat.answered("plain")
    await chat.set(System_prompt="Be brief.", Temperature="0.25", Top_p="0.9", Top_k="7", Seed="11", Thinking="off")
    await chat.set(Most_tokens_of_an_answer="99", JSON_schema=json.dumps(schema))
    answer = await chat.answered("where?")
    await expect(answer.get_by_role("code")).to_have_text(re.compile(r'\{\s*"city": "Ulm"\s*\}'))
    await chat.set(JSON_schema="", Tools=json.dumps([tool]))
    await chat.answered("again")
    plain, shaped, tooled = (json.loads(one.post_data) for one in visit.requests if one.method == "POST")
    assert not plain.keys() & {"temperature", "top_p", "top_k", "seed", "max_tokens", "response_format", "tools"}
    assert shaped["messages"][0] == {"role": "system", "content": "Be brief."}
    wanted = {"temperature": 0.25, "top_p": 0.9, "top_k": 7, "seed": 11, "max_tokens": 99}
    assert {name: shaped[name] for name in wanted} == wanted
    assert shaped["chat_template_kwargs"] == {"enable_thinking": False}
    assert shaped["response_format"]["json_schema"]["schema"] == schema
    assert tooled["tools"] == [tool] and "response_format" not in tooled


async def test_settings_that_are_wrong_are_named_and_not_saved(serve, visit):
    served = await serve()
    page = await visit(served.address)
    await page.get_by_role("button", name="Settings").click()
    dialog = page.get_by_role("dialog", name="Settings")
    for label, value, words in (
        ("Temperature", "9", "A number from 0 to 5."),
        ("JSON schema", "{", "This is not JSON"),
        ("JSON schema", "[1]", "A schema is a JSON object."),
        ("Tools", '[{"name": 1}]', "Tools are a list of functions"),
    ):
        field = dialog.get_by_label(re.compile(f"^{label}"))
        await field.fill(value)
        await dialog.get_by_role("button", name="Save").click()
        await expect(dialog.get_by_role("alert").filter(has_text=words)).to_be_visible()
        await expect(field).to_be_focused()
        await expect(field).to_have_attribute("aria-invalid", "true")
        await field.fill("")
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()


async def test_thinking_is_folded_and_calls_get_their_results(serve, visit):
    call = '<tool_call>{"name": "light", "arguments": {"on": true}}</tool_call>'
    served = await serve(
        lambda prompt: "It is on." if "<|im_start|>tool\n" in prompt else f"<think>Hm, a lamp.</think>{call}"
    )
    chat = Chat(await visit(served.address))
    await chat.set(Tools='[{"type": "function", "function": {"name": "light", "parameters": {"type": "object"}}}]')
    answer = await chat.answered("light, please")
    thought = answer.get_by_text("Hm, a lamp.")
    await expect(thought).to_be_hidden()
    await answer.get_by_text(re.compile("Thought for")).click()
    await expect(thought).to_be_visible()
    await expect(answer.get_by_text('"on": true')).to_be_visible()
    await chat.page.get_by_label("Result of light").fill('{"ok": true}')
    await chat.button("Send results").click()
    await expect(chat.answers.nth(1)).to_contain_text("It is on.")
    sent = json.loads([one for one in visit.requests if one.method == "POST"][-1].post_data)["messages"]
    assert sent[2]["tool_call_id"] == sent[1]["tool_calls"][0]["id"] and sent[2]["content"] == '{"ok": true}'


async def test_code_is_copied_as_it_is(serve, visit):
    served = await serve(lambda prompt: "```html\n<b>&amp;</b>\n```")
    page = await visit(served.address, permissions=["clipboard-read", "clipboard-write"])
    answer = await Chat(page).answered("hi")
    await answer.get_by_role("button", name="Copy code").click()
    await expect(answer.get_by_role("button", name="Copied").first).to_be_visible()
    assert (await page.evaluate("navigator.clipboard.readText()")).strip() == "<b>&amp;</b>"


async def test_a_refusal_is_said_in_the_servers_words_and_may_be_tried_again(serve, visit):
    served = await serve(echo, context=256)
    chat = Chat(await visit(served.address))
    visit.forgive("400 (Bad Request)")
    answer = await chat.answered("word " * 200)
    await expect(answer).to_contain_text("context")
    await expect(answer.get_by_role("button", name="Try again")).to_be_visible()


async def test_a_server_that_is_gone_is_said_and_the_question_is_kept(serve, visit):
    served = await serve(echo)
    chat = Chat(await visit(served.address))
    await chat.page.route("**/v1/chat/completions", lambda route: route.abort("connectionrefused"))
    visit.forgive("ERR_CONNECTION_REFUSED")
    answer = await chat.answered("anybody?")
    await expect(answer).to_contain_text("The server cannot be reached.")
    await chat.page.unroute("**/v1/chat/completions")
    await answer.get_by_role("button", name="Try again").click()
    await expect(chat.answers.last).to_contain_text("You said: anybody?")
