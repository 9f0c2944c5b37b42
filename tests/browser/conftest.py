"""Debian's Chromium, without a window; tests are skipped where it is not installed."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

Visit = Callable[[str], Awaitable[None]]


@pytest.fixture
async def visit(tmp_path: Path) -> AsyncIterator[Visit]:
    """Open a page in a browser, which stays open until the test has ended."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    browsers = list[asyncio.subprocess.Process]()

    async def open_page(url: str) -> None:
        browsers.append(
            await asyncio.create_subprocess_exec(
                CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
                "--remote-debugging-port=0", url,
                stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
            )
        )  # fmt: skip

    yield open_page
    for browser in browsers:
        browser.terminate()
        await browser.wait()
