"""The raters' page in Chromium: by keyboard, on a phone, in both languages and themes, with hostile answers."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest
from playwright.async_api import Page, expect

from qwen_edge.rate.answers import Answer, load
from qwen_edge.rate.blind import Session
from qwen_edge.rate.ratings import Rater, Scores, raters_of
from qwen_edge.rate.serve import serving
from tests.browser.axe import violations
from tests.browser.conftest import DESKTOP, PHONE
from tests.browser.hostile import MARKUP, TEXTS
from tests.unit.rate.samples import MODELS, answers_in

CRITERIA = ("relevance", "fluency", "accuracy", "coherence")


@pytest.fixture
def answers(tmp_path):
    return answers_in(tmp_path, questions=2, models=MODELS[:2])


@pytest.fixture
async def url(answers):
    async with serving(answers, "127.0.0.1", 0) as (url,):
        yield url


async def begin(page: Page, name: str = "Ann") -> None:
    await page.locator("#name").fill(name)
    await page.locator("#name").press("Enter")
    await expect(page.locator("#where, #thanks").filter(visible=True)).to_be_focused()


async def at(page: Page, words: str) -> None:
    """Wait until the page shows this."""
    await expect(page.locator("h2").filter(visible=True)).to_contain_text(words)


def ratings_of(answers) -> dict[tuple[str, str], Scores | None]:
    ((_, ratings),) = raters_of(answers.path)
    return {key: rating.scores for key, rating in ratings.items()}


async def test_a_rater_needs_the_keyboard_only(answers, url, visit):
    page = await visit(url)
    await page.keyboard.type("Ann")
    await page.keyboard.press("Enter")
    session = Session(answers, Rater(answers.path, "Ann"))
    for number, item in enumerate(session.items):
        await at(page, f"Answer {number + 1} of 4")
        await expect(page.locator("#text")).to_have_text(item.text)
        for key in "5432":
            await page.keyboard.press(key)
        await page.keyboard.press("Enter")
    await at(page, "Thank you")
    await expect(page.locator("#summary")).to_have_text("You have rated 4 of 4 answers.")
    assert list(ratings_of(answers).values()) == [Scores(5, 4, 3, 2)] * 4


async def test_a_missing_score_is_told_and_remarks_may_hold_digits(answers, url, visit):
    page = await visit(url)
    await begin(page)
    await page.keyboard.press("5")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_have_text("Rate this line from 1 to 5: Fluency")
    for key in "432":
        await page.keyboard.press(key)
    await page.locator("#remark").fill("1, 2 and 3")
    await page.locator("#save").click()
    await at(page, "Answer 2 of 4")
    await expect(page.get_by_role("alert")).to_have_text("")
    session = Session(answers, Rater(answers.path, "Ann"))
    assert session.rating(session.items[0]).scores == Scores(5, 4, 3, 2)
    assert session.rating(session.items[0]).remark == "1, 2 and 3"


async def test_a_rater_skips_goes_back_reloads_and_goes_on(answers, url, visit):
    page = await visit(url)
    await begin(page)
    await page.locator("#skip").click()
    await at(page, "Answer 2 of 4")
    for key in "1111":
        await page.keyboard.press(key)
    await page.locator("#save").click()
    await at(page, "Answer 3 of 4")
    await page.reload()
    await expect(page.locator("#name")).to_have_value("Ann")
    await page.locator("#name").press("Enter")
    await at(page, "Answer 3 of 4")
    await expect(page.locator("#count")).to_have_text("1 of 4 rated")
    await page.locator("#back").click()
    await at(page, "Answer 2 of 4")
    for name in CRITERIA:
        await expect(page.locator(f"input[name={name}][value='1']")).to_be_checked()
    await page.locator("label", has=page.locator("input[name=accuracy][value='5']")).click()
    await page.locator("#save").click()
    await at(page, "Answer 3 of 4")
    await page.locator("#back").click()
    await page.locator("#back").click()
    await at(page, "Answer 1 of 4")
    await expect(page.locator("#back")).to_be_disabled()
    session = Session(answers, Rater(answers.path, "Ann"))
    assert session.rating(session.items[0]).scores is None
    assert session.rating(session.items[1]).scores == Scores(1, 1, 5, 1)


async def test_a_server_that_is_gone_for_a_while_loses_nothing(answers, visit):
    async with AsyncExitStack() as life:
        (url,) = await life.enter_async_context(serving(answers, "127.0.0.1", 0))
        page = await visit(url)
        visit.forgive("ERR_CONNECTION_REFUSED")
        await begin(page)
        for key in "4444":
            await page.keyboard.press(key)
    await page.locator("#save").click()
    await expect(page.get_by_role("alert")).to_contain_text("The server does not answer")
    async with serving(load(answers.path), "127.0.0.1", int(url.rpartition(":")[2].strip("/"))):
        await page.locator("#save").click()
        await at(page, "Answer 2 of 4")
    assert list(ratings_of(answers).values()) == [Scores(4, 4, 4, 4)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("locale", ["en-US", "zh-CN"])
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
async def test_every_view_keeps_the_rules_of_axe_and_fits_the_screen(answers, url, visit, scheme, locale, viewport):
    answers.add(Answer("q0", MODELS[0], "word" * 200 + "\n" + "字" * 300, cut=True))
    answers.add(Answer("q0", MODELS[1], "word" * 200 + "\n" + "字" * 300, cut=True))
    page = await visit(url, locale=locale, viewport=viewport, color_scheme=scheme, has_touch=viewport == PHONE)

    async def check() -> None:
        assert await violations(page) == []
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    await check()
    title = {"en-US": "Rate answers", "zh-CN": "为回答打分"}[locale]
    assert await page.title() == title
    await expect(page.locator("h1")).to_have_text(title)
    await begin(page)
    await check()
    for _ in range(4):
        number = await page.locator("#where").inner_text()
        for name in CRITERIA:
            label = page.locator("label", has=page.locator(f"input[name={name}][value='4']"))
            await (label.tap() if viewport == PHONE else label.click())
            assert (await label.bounding_box())["height"] >= 44
        await page.locator("#save").click()
        await expect(page.locator("#where")).not_to_have_text(number) if _ < 3 else None
    await expect(page.locator("#done")).to_be_visible()
    await check()


async def test_a_hostile_answer_is_shown_as_text(tmp_path, visit):
    texts = {**MARKUP, **TEXTS}
    answers = answers_in(tmp_path, questions=len(texts), models=("m",))
    for number, text in enumerate(texts.values()):
        answers.add(Answer(f"q{number}", "m", text))
    async with serving(answers, "127.0.0.1", 0) as (url,):
        page = await visit(url)
        await begin(page)
        for number in range(len(texts)):
            await at(page, f"Answer {number + 1} of {len(texts)}")
            assert await page.evaluate("document.getElementById('text').childElementCount") == 0
            assert await page.evaluate("window.__pwned") is None
            await page.locator("#skip").click()
        await expect(page.locator("#done")).to_be_visible()
