#!/usr/bin/env python3
"""What the page costs: its first paint, its bytes, the tasks that hold a browser up, and the daemon's processor time.

usage: page.py MODEL [--paints 10] [--tokens 4000] [--rate 100] [--seconds 60]

Needs Debian's chromium. The first paint is measured on loopback with an empty cache, a new profile each time. An answer
of 4,000 tokens with all that Markdown has is streamed by a proxy in front of the daemon, while the page follows, then
while somebody scrolls, and is scrolled again when it is whole. A task is what Chromium's trace calls RunTask on the
page's main thread, by the clock and by the time on the processor, as other programs run beside it. Processor time is
of the daemon with all its processes, for as many seconds with no page, with three pages that show the chat, and with
three that show the device.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import statistics
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
from playwright.async_api import Browser, Page, async_playwright

from tests.browser.front import front, streamed
from tests.served import ServedModel

_PART = """
## Heat, part {n}

A chip that is *too warm* computes **less**: see `device.target_celsius` and [the manual](https://home.example/heat).
芯片过热时会变慢。

| sensor | Celsius | state |
|:--|--:|---|
| CPU | {n} | fine |
| GPU | 6{n} | warm |

1. Read the sensors.
2. Decide:
   - slow down, or
   - go on.

```python
def slower(celsius: float, target: float = 85.0) -> float:
    return max(0.0, min(1.0, (target - celsius) / 10 + {n}))
```

> What is computed is remembered, and what was remembered is not computed anew.
"""
_PAINT = """() => new Promise((resolve) => new PerformanceObserver((list) => {
  const [found] = list.getEntriesByName('first-contentful-paint');
  if (found) resolve(found.startTime);
}).observe({ type: 'paint', buffered: true }))"""
_LOADED = """() => [...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
  .filter((entry) => entry.initiatorType !== 'fetch').map((entry) => [entry.transferSize, entry.decodedBodySize])"""


async def paints(browser: Browser, address: str, times: int) -> None:
    found, sizes = [], []
    for _ in range(times):
        context = await browser.new_context()
        page = await context.new_page()
        await page.goto(address)
        found.append(await page.evaluate(_PAINT))
        await page.wait_for_load_state("networkidle")
        sizes = await page.evaluate(_LOADED)
        await context.close()
    each = " ".join(f"{paint:.0f}" for paint in found)
    print(f"first contentful paint: {statistics.median(found):.0f} ms (median of {each})")
    sent, whole = (sum(column) / 1000 for column in zip(*sizes, strict=True))
    print(f"loaded: {len(sizes)} files, {whole:.1f} KB, {sent:.1f} KB sent (gzip, with headers)")


def answer(tokens: int) -> list[str]:
    """Pieces as long as tokens are, about four characters each."""
    text = "".join(_PART.format(n=number) for number in range(1, tokens * 4 // len(_PART) + 1))
    return [text[start : start + 4] for start in range(0, len(text), 4)]


async def scroll(page: Page, over: asyncio.Event) -> None:
    for step in range(10_000):
        if over.is_set():
            return
        await page.mouse.wheel(0, -400 if step % 12 < 6 else 400)
        await asyncio.sleep(0.05)


class Tasks:
    """The tasks of the page's main thread while it is entered."""

    def __init__(self, browser: Browser, page: Page, what: str) -> None:
        self._browser, self._page, self._what = browser, page, what

    async def __aenter__(self) -> None:
        await self._browser.start_tracing(
            page=self._page, categories=["toplevel", "disabled-by-default-devtools.timeline"]
        )

    async def __aexit__(self, *_exception: object) -> None:
        events = json.loads(await self._browser.stop_tracing())["traceEvents"]
        mains = {(one["pid"], one["tid"]) for one in events if one.get("args", {}).get("name") == "CrRendererMain"}
        spans = [one for one in events if one["name"] == "RunTask" and (one["pid"], one["tid"]) in mains]
        for name, key in (("processor", "tdur"), ("clock", "dur")):
            lasted = sorted(one.get(key, 0) / 1000 for one in spans)
            lasted = [one for one in lasted if one >= 1] or [0.0]
            p95 = lasted[min(len(lasted) - 1, int(len(lasted) * 0.95))]
            late = sum(one > 50 for one in lasted)
            print(
                f"{self._what}: {len(lasted)} tasks of 1 ms and more by the {name}, p95 {p95:.1f} ms, "
                f"longest {lasted[-1]:.1f} ms, {late} over 50 ms"
            )


async def streaming(browser: Browser, address: str, tokens: int, rate: float) -> None:
    pieces = answer(tokens)

    async def paced() -> AsyncIterator[str]:
        for piece in pieces:
            yield piece
            await asyncio.sleep(1 / rate)

    async with front(address) as proxy:
        proxy.instead["/v1/chat/completions"] = streamed(paced)
        page = await browser.new_page(viewport={"width": 1280, "height": 800})
        await page.goto(proxy.address)
        question = page.get_by_role("textbox").first
        for what, scrolled in (("streaming, following", False), ("streaming, scrolled", True)):
            await question.fill("Tell me about heat.")
            over = asyncio.Event()
            async with Tasks(browser, page, what):
                await question.press("Enter")
                await page.get_by_role("button", name="Stop").wait_for()
                await page.mouse.move(640, 300)
                scrolling = asyncio.create_task(scroll(page, over)) if scrolled else None
                await page.get_by_role("button", name="Stop").wait_for(state="hidden", timeout=0)
                over.set()
                if scrolling:
                    await scrolling
        over.clear()
        async with Tasks(browser, page, "whole, scrolled"):
            scrolling = asyncio.create_task(scroll(page, over))
            await asyncio.sleep(10)
            over.set()
            await scrolling
        await page.close()


def processor_seconds(daemon: psutil.Process) -> float:
    times = [process.cpu_times() for process in (daemon, *daemon.children(recursive=True))]
    return sum(one.user + one.system for one in times)


async def idle(browser: Browser, served: ServedModel, view: str | None, seconds: float) -> None:
    contexts = [await browser.new_context() for _ in range(3 if view else 0)]
    for context in contexts:
        page = await context.new_page()
        await page.goto(f"{served.address}/#{view}")
    await asyncio.sleep(3)  # what is loaded at first is not idle
    daemon = psutil.Process(served.process.pid)
    before = processor_seconds(daemon)
    await asyncio.sleep(seconds)
    share = (processor_seconds(daemon) - before) / seconds
    print(f"{f'three pages, {view}' if view else 'no page'}: {share:.2%} of a core over {seconds:.0f} s")
    for context in contexts:
        await context.close()


async def measure(options: argparse.Namespace, served: ServedModel) -> None:
    async with async_playwright() as playwright:
        chromium: dict[str, Any] = {"executable_path": shutil.which("chromium"), "args": ["--disable-dev-shm-usage"]}
        browser = await playwright.chromium.launch(**chromium)
        print(f"Chromium {browser.version}")
        await paints(browser, served.address, options.paints)
        await streaming(browser, served.address, options.tokens, options.rate)
        for view in (None, "chat", "device"):
            await idle(browser, served, view, options.seconds)
        await browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--paints", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    with ServedModel(given.model, "--context", "2048") as running:
        asyncio.run(measure(given, running))
