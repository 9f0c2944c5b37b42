"""Who gets the page, from where, and with what key."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
from playwright.async_api import expect

from qwen_edge.auth.keys import Keys
from qwen_edge.server.page import files
from tests.browser.chat import Chat
from tests.browser.front import front, self_signed

STORED = "() => JSON.stringify([Object.entries(localStorage), Object.entries(sessionStorage), document.cookie])"


def echo(prompt: str) -> str:
    return "You said: " + prompt.rpartition("<|im_start|>user\n")[2].partition("<|im_end|>")[0]


async def test_a_key_is_asked_for_once_and_kept_in_the_session_only(serve, visit):
    served = await serve(echo, keys=Keys({"secret-key": "me"}))
    visit.forgive("401 (Unauthorized)")
    chat = Chat(await visit(served.address))
    dialog = chat.page.get_by_role("dialog", name="This server needs a key")
    field = dialog.get_by_role("textbox", name="Key")
    await expect(field).to_be_focused()
    await expect(field).to_have_attribute("type", "password")
    await field.fill("wrong")
    await field.press("Enter")
    await expect(dialog.get_by_role("alert")).to_have_text("The server does not accept this key.")
    await field.fill("secret-key")
    await dialog.get_by_role("button", name="Use key").click()
    await expect(dialog).to_be_hidden()
    await expect(chat.page.get_by_text("fake", exact=True)).to_be_visible()
    await expect(await chat.answered("hi")).to_contain_text("You said: hi")
    await chat.page.reload()
    await expect(await chat.answered("again")).to_contain_text("You said: again")
    await expect(dialog).to_be_hidden()
    local, session, cookie = json.loads(await chat.page.evaluate(STORED))
    assert "secret-key" in str(session) and "secret-key" not in str(local) and cookie == ""
    kept = await chat.page.evaluate(
        """() => new Promise((resolve) => {
          indexedDB.open('qwen-edge').onsuccess = ({ target }) =>
            target.result.transaction('conversations').objectStore('conversations').getAll().onsuccess =
              (found) => resolve(JSON.stringify(found.target.result));
        })"""
    )
    assert "again" in kept and "secret-key" not in kept
    assert not [one.url for one in visit.requests if "secret-key" in one.url]
    other = await chat.page.context.new_page()  # another tab is another session
    await other.goto(served.address)
    await expect(other.get_by_role("dialog", name="This server needs a key")).to_be_visible()


async def test_whoever_gives_no_key_may_give_it_later(serve, visit):
    served = await serve(echo, keys=Keys({"secret-key": "me"}))
    visit.forgive("401 (Unauthorized)")
    chat = Chat(await visit(served.address))
    dialog = chat.page.get_by_role("dialog", name="This server needs a key")
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(chat.page.get_by_text("This server answers only with a key.")).to_be_visible()
    answer = await chat.ask("hi")
    await dialog.get_by_role("textbox", name="Key").fill("secret-key")
    await dialog.get_by_role("textbox", name="Key").press("Enter")
    await expect(answer).to_contain_text("You said: hi")


async def test_the_page_works_below_a_path_of_a_proxy(serve, visit):
    served = await serve(echo)
    async with front(served.address, "/qwen") as proxy:
        chat = Chat(await visit(proxy.address))
        await expect(await chat.answered("hi")).to_contain_text("You said: hi")
        await chat.page.get_by_role("tab", name="Device").click()
        await expect(chat.page.get_by_text("fake · Engine ready")).to_be_visible()
        await chat.page.reload()
        await expect(chat.page.get_by_role("tabpanel", name="Device")).to_be_visible()
        assert all(one.url.startswith(proxy.address) for one in visit.requests if not one.url.startswith("blob:"))


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
async def test_the_page_works_over_tls(serve, visit, tmp_path):
    served = await serve(echo, keys=Keys({"secret-key": "me"}))
    visit.forgive("401 (Unauthorized)")
    async with front(served.address, "/qwen", self_signed(tmp_path)) as proxy:
        assert proxy.address.startswith("https://")
        chat = Chat(await visit(proxy.address, ignore_https_errors=True))
        await chat.page.get_by_role("textbox", name="Key").fill("secret-key")
        await chat.page.get_by_role("textbox", name="Key").press("Enter")
        await expect(await chat.answered("hi")).to_contain_text("You said: hi")


async def test_the_page_is_switched_off_by_a_setting_and_nothing_of_it_is_left(serve, visit):
    served = await serve(settings="  page: false")
    page = await visit(served.address)
    assert await page.inner_text("body") == "Ollama is running"
    visit.forgive("404 (Not Found)")
    response = await page.goto(f"{served.address}/page/app.js")
    assert response and response.status == 404


async def test_all_that_a_browser_loads_for_both_parts_is_small(serve, visit):
    served = await serve(echo)
    page = await visit(served.address)
    await page.get_by_role("tab", name="Device").click()
    await expect(page.get_by_text("fake · Engine ready")).to_be_visible()
    loaded = {one.url.partition("/page/")[2] for one in visit.requests if "/page/" in one.url}
    static = {path.name: path for path in Path(files.__file__).with_name("static").iterdir()}
    assert loaded | {"index.html"} == set(static), "a file is not used"
    sent = await page.evaluate(
        """() => [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
          .reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0)"""
    )
    assert sent < 150_000
    assert sum(len(gzip.compress(path.read_bytes())) for path in static.values()) < 150_000


async def test_a_page_that_was_loaded_once_is_asked_for_and_not_sent_again(serve, visit):
    served = await serve(echo)
    page = await visit(served.address)
    await expect(Chat(page).question).to_be_visible()
    await page.reload()
    await expect(Chat(page).question).to_be_visible()
    again = "performance.getEntriesByType('resource').filter(({ name }) => name.includes('/page/'))"
    assert await page.evaluate(f"{again}.length") > 3
    assert await page.evaluate(f"{again}.reduce((sum, {{ transferSize }}) => sum + transferSize, 0)") < 15_000
