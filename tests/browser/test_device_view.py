"""The device's part of the page: figures, plots, reasons and remembered conversations, as people meet them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import Any

import pytest
from playwright.async_api import Page, Route, expect

from qwen_edge.auth.keys import Keys
from qwen_edge.device.telemetry import Clock
from tests.browser.axe import violations
from tests.browser.conftest import PHONE
from tests.browser.hostile import MARKUP
from tests.server.test_device import QUICK, Board, becomes

HOT: dict[str, Any] = {
    "tj": 88.5,
    "watts": 12.3,
    "mode": "25W",
    "clocks": {"gpu": Clock(306e6)},
    "memory_used": 4_000_000_000,
    "memory_total": 8_000_000_000,
}


def samples(celsius: Sequence[float | None]) -> list[dict[str, Any]]:
    """A history of one value every five seconds, up to now."""
    others = {
        "target": 85,
        "watts": None,
        "duty": 1,
        "hertz": None,
        "tokens_per_second": 0,
        "pending": 0,
        "memory": None,
    }
    begin = time.time() - 5 * len(celsius)
    return [{"at": begin + 5 * place, "celsius": value, **others} for place, value in enumerate(celsius)]


async def look(page: Page, history: Sequence[float | None] = ()) -> Page:
    """Go to the device's part, with this history of temperatures."""

    async def answer(route: Route) -> None:
        body = {"object": "device.history", "every": 5, "samples": samples(history)}
        await route.fulfill(content_type="application/json", body=json.dumps(body))

    await page.route("**/v1/device/history?*", answer)
    await page.get_by_role("tab").nth(1).click()
    await expect(page.locator(".figures")).to_be_visible()
    return page


def tile(page: Page, name: str) -> Any:
    return page.get_by_role("article", name=name, exact=True)


async def test_what_is_known_is_shown_and_follows_the_board(serve, visit):
    board = Board(**HOT)
    served = await serve(settings=QUICK, source=board)
    await becomes(served, lambda found: found["governor"]["level"] == "hot")
    page = await look(await visit(served.address))
    await expect(
        page.get_by_text("The board is hot: background and idle requests are refused for about")
    ).to_be_visible()
    await expect(tile(page, "Temperature")).to_contain_text("88.5 °C")
    await expect(tile(page, "Temperature")).to_contain_text("target 85 °C, pauses at 95 °C")
    await expect(tile(page, "Power")).to_contain_text("12.3 W")
    await expect(tile(page, "Memory")).to_contain_text("whole machine: 4 GB of 8 GB")
    await expect(tile(page, "Queue")).to_contain_text("0 running, 0 waiting")
    for words in ("gpu 306 MHz", "mode 25W", "fake · Engine ready"):
        await expect(page.get_by_text(words)).to_be_visible()
    board.values.update(tj=50.0, watts=5.0)
    await expect(tile(page, "Temperature")).to_contain_text("50 °C")
    await expect(page.get_by_text("Normal", exact=True)).to_be_visible(timeout=30_000)  # the duty rises slowly


async def test_a_machine_without_sensors_is_told_in_a_sentence_and_not_in_empty_plots(serve, visit):
    served = await serve()
    page = await look(await visit(served.address))
    await expect(page.get_by_text("This machine shows neither temperature nor power")).to_be_visible()
    await expect(tile(page, "Speed")).to_be_visible()
    for name in ("Temperature", "Power"):
        await expect(tile(page, name)).to_be_hidden()


async def test_a_plot_has_gaps_a_target_and_a_sentence_for_screen_readers(serve, visit):
    served = await serve(settings=QUICK, source=Board(tj=60.0))
    page = await look(await visit(served.address), [50.0, 55.5, None, None, 70.0, 65.0])
    plot = tile(page, "Temperature").get_by_role("img")
    await expect(plot).to_have_accessible_name(
        "Temperature The last 15 minutes: lowest 50 °C, highest 70 °C, now 60 °C. Target 85 °C."
    )
    await expect(plot.locator(".line")).to_have_attribute("d", re.compile("^M[^M]+M[^M]+$"))
    await expect(plot.locator(".target")).to_have_attribute("d", re.compile("^M0 "))


async def test_a_conversation_is_forgotten_only_after_a_question(serve, visit):
    served = await serve()
    await served.ask("Where is the lamp?")
    page = await look(await visit(served.address))
    table = page.get_by_role("table", name="Remembered conversations")
    await expect(table.get_by_role("row")).to_have_count(2)
    forget = table.get_by_role("button", name=re.compile("^Forget: "))
    await forget.click()
    dialog = page.get_by_role("dialog", name="Forget this conversation?")
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(dialog).to_be_hidden()
    await expect(table.get_by_role("row")).to_have_count(2)
    await forget.click()
    await dialog.get_by_role("button", name="Forget").click()
    await expect(page.get_by_text("Nothing is remembered yet.")).to_be_visible()
    await expect(page.get_by_role("heading", name="Remembered conversations")).to_be_focused()
    await expect(page.get_by_role("status")).to_have_text("Forgotten.")


async def test_a_conversation_is_pinned_for_hours_by_keyboard_alone(serve, visit):
    served = await serve()
    await served.ask("Where is the lamp?")
    page = await look(await visit(served.address))
    pin = page.get_by_role("button", name=re.compile("^Pin: "))
    await pin.press("Enter")
    hours = page.get_by_label("Hours from now")
    await expect(hours).to_be_focused()
    await hours.fill("48")
    await hours.press("Enter")
    await expect(page.get_by_role("cell", name="48 h left")).to_be_visible()
    await expect(pin).to_be_focused()
    async with served.http.get(f"{served.address}/v1/cache") as response:
        (kept,) = (await response.json())["data"]
    assert 47 * 3600 < kept["pinned_until"] - time.time() <= 48 * 3600


async def test_what_a_conversation_ends_in_is_text_and_nothing_else(serve, visit):
    served = await serve(context=1 << 16)
    for text in MARKUP.values():
        await served.ask(text[-200:])
    page = await look(await visit(served.address))
    await expect(page.get_by_role("table")).to_be_visible()
    await page.get_by_role("button", name=re.compile("^Forget: ")).first.click()
    assert await page.evaluate("window.__pwned") is None
    assert await page.locator("table :is(img, script, a, iframe, svg)").count() == 0


async def test_nobody_is_asked_while_nobody_looks(serve, visit):
    served = await serve()
    page = await visit(served.address)
    await page.clock.install()
    await look(page)

    def questions() -> int:
        return sum(request.url.endswith("/v1/device") for request in visit.requests)

    async with page.expect_response("**/v1/device"):
        await page.clock.run_for(2500)
    await page.get_by_role("tab", name="Chat").click()
    asked = questions()
    await page.clock.run_for(60_000)
    assert questions() == asked
    async with page.expect_response("**/v1/device"):
        await page.get_by_role("tab", name="Device").click()


async def test_an_unloaded_model_is_not_loaded_because_somebody_looks(serve, visit):
    served = await serve(idle=0.05)
    await becomes(served, lambda found: found["engine"] == "asleep")
    page = await look(await visit(served.address))
    await expect(page.get_by_text("the model is unloaded, and the next question loads it")).to_be_visible()
    await expect(page.get_by_text("The model is unloaded, and with it the list.")).to_be_visible()
    assert not [request for request in visit.requests if "/v1/cache" in request.url]
    assert len(served.engines) == 1


async def test_a_daemon_that_goes_away_is_told_and_picked_up_again(serve, visit):
    visit.forgive("net::ERR")
    served = await serve(settings=QUICK, source=Board())
    page = await visit(served.address)
    await page.clock.install()
    await look(page)
    await page.route("**/v1/device", lambda route: route.abort())
    lost = page.get_by_text("The server cannot be reached. Is it running?").first
    await page.clock.run_for(2500)
    await expect(lost).to_be_visible()
    await expect(page.get_by_text("These figures are from")).to_be_visible()
    await page.unroute("**/v1/device")
    await page.clock.run_for(6000)
    await expect(lost).to_be_hidden()


async def test_who_gives_no_key_is_asked_again_only_on_request(serve, visit):
    visit.forgive("401")
    served = await serve(keys=Keys({"secret": "page"}))
    page = await visit(f"{served.address}/#device")
    await page.clock.install()
    dialog = page.get_by_role("dialog", name="This server needs a key")
    await dialog.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_text("This server answers only with a key.").first).to_be_visible()
    await page.clock.run_for(60_000)
    await expect(dialog).to_be_hidden()
    await page.get_by_role("button", name="Try again").click()
    await dialog.get_by_label("Key").fill("secret")
    await dialog.get_by_role("button", name="Use key").click()
    await expect(tile(page, "Speed")).to_be_visible()


async def test_an_engine_that_died_is_told_with_its_reason(serve, visit):
    served = await serve()
    served.engines[-1].kill()
    await becomes(served, lambda found: found["restarts"] == 1 and found["engine"] == "ready")
    page = await look(await visit(served.address))
    await expect(page.get_by_text(re.compile("^1; the last one: "))).to_be_visible()


async def test_a_chinese_reader_is_told_why_in_chinese(serve, visit):
    served = await serve(settings=QUICK, source=Board(**{**HOT, "tj": 97.0}))
    await becomes(served, lambda found: found["governor"]["level"] == "critical")
    page = await look(await visit(served.address, locale="zh-CN"))
    await expect(page.get_by_text("温度接近 95 °C：约")).to_be_visible()
    await expect(tile(page, "温度")).to_contain_text("97 °C")
    await page.get_by_role("button", name="English").click()
    await expect(page.get_by_text("The board is close to 95 °C")).to_be_visible()
    await expect(tile(page, "Temperature")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, {"width": 1280, "height": 800}], ids=["phone", "desktop"])
async def test_no_rule_for_people_who_do_not_see_or_point_is_broken(serve, visit, scheme, size):
    served = await serve(settings=QUICK, source=Board(**HOT))
    await served.ask("Where is the lamp?")
    page = await look(await visit(served.address, color_scheme=scheme, viewport=size), [50.0, None, 60.0])
    await expect(page.get_by_role("table")).to_be_visible()
    assert await violations(page) == []
    wide = await page.evaluate("document.documentElement.scrollWidth > innerWidth")
    assert not wide, "nothing is beyond the edge of the screen"
    await page.get_by_role("button", name=re.compile("^Pin: ")).click()
    assert await violations(page) == []
