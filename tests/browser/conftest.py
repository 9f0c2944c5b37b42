"""Debian's Chromium, without a window; tests are skipped where it is not installed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, ConsoleMessage, Dialog, Page, Request, async_playwright

from tests.server.conftest import serve  # noqa: F401 - a fixture

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PHONE = {"width": 360, "height": 740}
DESKTOP = {"width": 1280, "height": 800}


class Visitor:
    """Opens pages, each as a new user with an empty store, and remembers what no page of ours may do."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.faults: list[str] = []
        self.requests: list[Request] = []
        self._forgiven: list[str] = []

    async def __call__(self, url: str, *, hosts: tuple[str, ...] = (), scripts: str = "", **options: Any) -> Page:
        """A page at `url`, which may send requests to `hosts` (HOST:PORT), too. `scripts` run before its own;
        `options` are those of Playwright's `new_context`."""
        context = await self.browser.new_context(**{"viewport": DESKTOP, "locale": "en-US", **options})
        context.set_default_timeout(15_000)
        if scripts:
            await context.add_init_script(scripts)
        own = {urlsplit(url).netloc, *hosts}

        def requested(request: Request) -> None:
            self.requests.append(request)
            where = urlsplit(request.url)
            if where.scheme not in ("data", "blob") and where.netloc not in own:
                self.faults.append(f"request to another host: {request.url}")

        async def asked(dialog: Dialog) -> None:
            self.faults.append(f"{dialog.type} dialog: {dialog.message}")
            await dialog.dismiss()

        def said(message: ConsoleMessage) -> None:
            if message.type in ("error", "warning"):
                self.faults.append(f"console {message.type}: {message.text} {message.location.get('url', '')}")

        context.on("request", requested)
        context.on("dialog", asked)
        context.on("console", said)
        context.on("weberror", lambda error: self.faults.append(f"uncaught in the page: {error.error}"))
        page = await context.new_page()
        await page.goto(url)
        return page

    def forgive(self, part: str) -> None:
        """The test itself brings about what has this part in its message."""
        self._forgiven.append(part)

    def check(self) -> None:
        unforgiven = [fault for fault in self.faults if not any(part in fault for part in self._forgiven)]
        assert not unforgiven, "\n".join(unforgiven)


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--disable-dev-shm-usage", "--disable-gpu"]
        )
        yield chromium
        await chromium.close()


@pytest.fixture
async def visit(browser: Browser) -> AsyncIterator[Visitor]:
    """Open a page. The test fails if the console shows an error or a warning (a violation of the page's security
    policy is one), if something is not caught, if a dialog opens, or if a request goes to a host that the test has not
    named."""
    visitor = Visitor(browser)
    yield visitor
    visitor.check()
