"""Takes the pictures of the page in docs/: chat and device, phone and desktop, both themes, both languages.

    python -m scripts.screenshots models/demo-q4_k_m.gguf docs

The demo model answers, on a daemon that plays a trace of a cool board. What the device's part shows of heat is
simulated: a board without a fan on a warm day, held by the real governor (scripts/heat). Needs chromium, a font with
Chinese (fonts-noto-cjk), and pngquant for small files.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from playwright.async_api import Browser, Page, Route, ViewportSize, async_playwright, expect

from qwen_edge.device.governor.decision import Decision
from qwen_edge.device.telemetry import Clock, Telemetry, Trips
from scripts.heat.loop import Governor, Point, Scene, close_loop
from scripts.heat.plant import PLANTS

_PHONE, _DESKTOP = ViewportSize(width=390, height=780), ViewportSize(width=1200, height=760)
_WINDOW, _EVERY = 900, 5  # seconds that the plots show, and of a sample

LIGHT = {
    "type": "function",
    "function": {
        "name": "set_light",
        "description": "Switch a light",
        "parameters": {
            "type": "object",
            "properties": {"room": {"type": "string"}, "state": {"type": "string", "enum": ["on", "off"]}},
            "required": ["room", "state"],
        },
    },
}


@dataclass(frozen=True)
class Words:
    """The names of what is pressed, and what is asked, in a language."""

    locale: str
    settings: str
    temperature: str
    tools: str
    save: str
    question: str
    new: str
    result: str
    send_results: str
    device: str
    answer: str
    thought: str
    small_talk: tuple[str, ...]
    command: str


WORDS = {
    "en": Words(
        "en-US", "Settings", "Temperature", "Tools", "Save", "Your question", "New conversation", "Result of set_light",
        "Send results", "Device", "Answer", "Thought for", ("What can you do?", "Who are you?"),
        "Turn on the kitchen light",
    ),
    "zh": Words(
        "zh-CN", "设置", "温度", "工具", "保存", "您的问题", "新对话", "set_light 的结果",
        "发送结果", "设备", "回答", "思考了", ("请简述相对论的基本原理", "你是谁？"),
        "打开厨房的灯",
    ),
}  # fmt: skip


def warm_day(governor: Governor) -> list[Point]:
    """Twenty minutes: little to do at first, then always something, until the board is as warm as it may be."""

    def load(now: float) -> float:
        return 1.0 if now > 420 else 0.15 if now > 360 else 0.0

    return close_loop(Scene(PLANTS["nano, no fan"], ambient=33.0, load=load), governor, 1320)


def telemetry(points: list[Point]) -> list[Telemetry]:
    """One a second."""
    return [
        Telemetry(
            source="simulated",
            at=point.at,
            tj=round(point.chip, 1),
            temperatures={"cpu": round(point.chip - 1, 1), "gpu": round(point.chip, 1)},
            trips=Trips(passive=99.0, hot=103.0, critical=104.5),
            watts=round(point.watts, 2),
            clocks={"cpu": Clock(1.51e9, 1.51e9), "gpu": Clock(0.918e9, 1.02e9)},
            memory_used=3_400_000_000,
            memory_total=8_000_000_000,
            mode="25W",
        )
        for point in points[::4]
    ]


def history(points: list[Point], memory: int) -> list[dict[str, Any]]:
    """The last minutes before now, as GET /v1/device/history gives them. `memory`: bytes of the daemon."""
    last = points[-1].at
    return [
        {
            "at": time.time() - (last - point.at),
            "celsius": round(point.chip, 1),
            "target": 85.0,
            "watts": round(point.watts, 2),
            "duty": round(point.duty, 3),
            "hertz": 0.918e9,
            "tokens_per_second": round(21.4 * point.work, 1),
            "pending": 2 if point.work else 0,
            "memory": memory,
        }
        for point in points[-4 * _WINDOW :: 4 * _EVERY]
    ]


@contextmanager
def served(model: Path, trace: Path, folder: Path) -> Iterator[str]:
    """A daemon that plays the trace; its address."""
    settings = folder / "settings.yaml"
    settings.write_text(f"device: {{source: trace, trace: '{trace}'}}\nremember: {{where: off}}\n")
    command = [sys.executable, "-m", "qwen_edge", "serve", "--model", str(model), "--port", "0", "-c", str(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout
        yield next(word for word in daemon.stdout.readline().split() if word.startswith("http://"))
        daemon.send_signal(signal.SIGTERM)


async def answered(page: Page, words: Words) -> None:
    await expect(page.get_by_role("article", name=words.answer).last).to_have_attribute("aria-busy", "false")


async def talk(page: Page, words: Words) -> None:
    """Some conversations, the last of which is shown: a command with thoughts, a call and its result."""
    question = page.get_by_role("textbox", name=words.question)
    await page.get_by_role("button", name=words.settings).click()
    await page.get_by_label(words.temperature).fill("0")
    await page.get_by_label(words.tools).fill(json.dumps([LIGHT]))
    await page.get_by_role("button", name=words.save).click()
    for text in (*words.small_talk, words.command):
        await page.get_by_role("button", name=words.new).last.click()
        await question.fill(text)
        await question.press("Enter")
        await answered(page, words)
    await page.get_by_label(words.result).fill('{"ok": true}')
    await page.get_by_role("button", name=words.send_results).click()
    await answered(page, words)
    await page.get_by_text(words.thought).first.click()
    await page.get_by_role("region").evaluate("region => region.scrollTo(0, region.scrollHeight)")


async def picture(page: Page, file: Path) -> None:
    await page.mouse.move(1, 1)
    await page.evaluate("document.activeElement?.blur()")
    await page.screenshot(path=file, animations="disabled", caret="hide")
    if pngquant := shutil.which("pngquant"):
        smaller = ("--force", "--skip-if-larger", "--speed=1", "--output", str(file), "128", str(file))
        await (await asyncio.create_subprocess_exec(pngquant, *smaller)).wait()
    print(file)


async def play(page: Page, points: list[Point], decision: Decision) -> None:
    """Show this course and its end in the device's part; all else is what the daemon says."""

    async def past(route: Route) -> None:
        samples = (await (await route.fetch()).json())["samples"]
        memory = samples[-1]["memory"] if samples else 80_000_000
        body = {"object": "device.history", "every": _EVERY, "samples": history(points, memory)}
        await route.fulfill(json=body)

    async def now(route: Route) -> None:
        response = await route.fetch()
        governor = {"level": decision.level, "duty": decision.limits.duty, "because": decision.because}
        found = await response.json()
        found["governor"] |= {**governor, "reason": decision.because or "none", "refused": list(decision.refused)}
        found["governor"] |= {"duty_asked": decision.limits.duty, "duty_ran": decision.limits.duty - 0.01}
        found["telemetry"] = msgspec.to_builtins(telemetry(points)[-1])
        found |= {"tokens_per_second": history(points, 0)[-1]["tokens_per_second"], "pending": 2, "sequences": 2}
        found["source"] = "simulated"
        await route.fulfill(json=found)

    await page.route("**/v1/device/history?*", past)
    await page.route("**/v1/device", now)


async def take(browser: Browser, address: str, target: Path, points: list[Point], decision: Decision) -> None:
    for size, viewport, themes in (("desktop", _DESKTOP, ("light", "dark")), ("phone", _PHONE, ("dark", "light"))):
        for (language, words), theme in zip(WORDS.items(), themes, strict=True):
            scale = 2 if size == "phone" else 1
            context = await browser.new_context(
                viewport=viewport,
                locale=words.locale,
                color_scheme="dark" if theme == "dark" else "light",
                device_scale_factor=scale,
            )
            page = await context.new_page()
            await play(page, points, decision)
            await page.goto(address)
            await talk(page, words)
            await picture(page, target / f"page-chat-{size}-{theme}-{language}.png")
            other = "light" if theme == "dark" else "dark"
            await page.emulate_media(color_scheme="dark" if other == "dark" else "light")
            await page.get_by_role("tab", name=words.device).click()
            await page.get_by_role("row").nth(1).wait_for()
            await picture(page, target / f"page-device-{size}-{other}-{language}.png")
            await context.close()


async def main(model: Path, target: Path) -> None:
    governor = Governor()
    points = warm_day(governor)
    with tempfile.TemporaryDirectory() as name:
        trace = Path(name) / "trace.jsonl"
        trace.write_bytes(b"\n".join(map(msgspec.json.encode, telemetry(points)[:300])) + b"\n")
        with served(model, trace, Path(name)) as address:
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(executable_path=shutil.which("chromium"))
                await take(browser, address, target, points, governor.decision)
                await browser.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))
