#!/usr/bin/env python3
"""What goes wrong, done on purpose: engines that are killed under load, and engines that leave memory and come back.

usage: drills.py MODEL [--rounds 3] [--turns 4]

Eight streams run and four requests wait when the engine is killed (SIGKILL, SIGABRT) or stopped (SIGSTOP, until the
watchdog acts): how each of them ends is counted, and when the next answers come. Then a conversation of some 1,000
tokens goes on after the engine has left memory: seconds to its first token, and what the daemon alone takes meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import psutil

_TEXT = "kitchen hall garden window door lamp sensor morning evening water light warm cold open close north"
WORDS = _TEXT.split()
STREAMS, WAITING = 8, 4
HANGS = 3.0  # seconds of silence after which the daemon kills an engine
LEAVES = 6.0  # seconds without a request after which an engine leaves


@contextlib.asynccontextmanager
async def served(model: Path, settings: str) -> AsyncIterator[tuple[str, psutil.Process, Path]]:
    """A daemon of our own: its address, its process, and where it keeps conversations."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "settings.yaml"
        file.write_text(f"{settings}\nremember: {{folder: {folder}/conversations}}\n")
        command = [sys.executable, "-m", "qwen_edge", "serve", "--model", str(model), "--port", "0", "-c", str(file)]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        assert process.stdout
        try:
            line = (await process.stdout.readline()).decode()
            address = next(word for word in line.split() if word.startswith("http://"))
            yield address, psutil.Process(process.pid), Path(folder) / "conversations"
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()


async def stream(http: aiohttp.ClientSession, url: str, messages: list[dict[str, str]], **more: Any) -> dict[str, Any]:
    """How a streamed answer went: `end` is done, an error event, an HTTP status, or a broken connection."""
    body = {"messages": messages, "stream": True, "temperature": 0, "ignore_eos": True, **more}
    began, first, text = time.monotonic(), None, ""
    try:
        async with http.post(f"{url}/v1/chat/completions", json=body) as response:
            if response.status != 200:
                return {"end": f"{response.status}", "retry": response.headers.get("Retry-After")}
            async for line in response.content:
                data = line.decode().removeprefix("data: ").strip()
                if data == "[DONE]":
                    return {"end": "done", "first": first, "text": text, "at": time.monotonic()}
                if data:
                    event = json.loads(data)
                    if "error" in event:
                        return {"end": "error event"}
                    delta = event["choices"][0]["delta"] if event["choices"] else {}
                    if delta.get("content") or delta.get("reasoning_content"):
                        first = first or time.monotonic() - began
                        text += delta.get("content") or ""
    except aiohttp.ClientError:
        return {"end": "broken connection"}
    return {"end": "cut off"}


def question(rng: Random, words: int) -> dict[str, str]:
    return {"role": "user", "content": " ".join(rng.choice(WORDS) for _ in range(words))}


async def crash(http: aiohttp.ClientSession, model: Path, number: signal.Signals, rng: Random) -> dict[str, Any]:
    """One engine less, under load."""
    settings = f"engine: {{hang_seconds: {HANGS}, parallel: {STREAMS}}}\nchat: {{thinking: false}}"
    async with served(model, settings) as (url, daemon, _):
        (engine,) = [child for child in daemon.children() if "qwen_edge.engine.main" in " ".join(child.cmdline())]
        running = [asyncio.create_task(stream(http, url, [question(rng, 20)], max_tokens=400)) for _ in range(STREAMS)]
        await asyncio.sleep(4.0)  # they are all under way
        waiting = [asyncio.create_task(stream(http, url, [question(rng, 20)], max_tokens=8)) for _ in range(WAITING)]
        await asyncio.sleep(0.5)
        engine.send_signal(number)
        ends = await asyncio.gather(*running)
        noticed = time.monotonic()
        later = await asyncio.gather(*waiting)
        health = await (await http.get(f"{url}/health")).json()
        return {
            "streams": Counter(one["end"] for one in ends),
            "waiting": Counter(one["end"] for one in later),
            "first answer": min((one["at"] for one in later if "at" in one), default=noticed) - noticed,
            "health": health["status"],
        }


async def unload(http: aiohttp.ClientSession, model: Path, turns: int, rng: Random) -> None:
    """A conversation that goes on when the engine has gone."""
    settings = f"engine: {{unload_seconds: {LEAVES}}}\nchat: {{thinking: false}}"
    async with served(model, settings) as (url, daemon, folder):
        history = [question(rng, 850)]
        answer = await stream(http, url, history, max_tokens=24)
        first = list[float]()
        for _ in range(turns):
            history += [{"role": "assistant", "content": answer["text"]}]
            while (await (await http.get(f"{url}/health")).json())["status"] != "asleep":  # noqa: ASYNC110
                await asyncio.sleep(0.5)
            before = daemon.cpu_times()
            await asyncio.sleep(5.0)
            after = daemon.cpu_times()
            idle = after.user + after.system - before.user - before.system
            size = daemon.memory_full_info().pss / (1 << 20)
            history += [question(rng, 25)]
            answer = await stream(http, url, history, max_tokens=24)
            first.append(answer["first"])
            print(
                f"  first token after {first[-1]:.2f} s; before, the daemon alone: {size:.0f} MiB, {idle:.2f} s in 5 s"
            )
        written = json.loads((folder / "written.json").read_text())["bytes"]
        kept = sum(file.stat().st_size for file in folder.glob("*.kv"))
        print(f"  median {statistics.median(first):.2f} s; {written / 1e6:.0f} MB written, {kept / 1e6:.0f} MB kept")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=4)
    given = parser.parse_args()
    rng = Random(time.time_ns())
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http:
        for number in (signal.SIGKILL, signal.SIGABRT, signal.SIGSTOP):
            for _ in range(given.rounds):
                seen = await crash(http, given.model, number, rng)
                print(
                    f"{number.name}: streams {dict(seen['streams'])}, waiting {dict(seen['waiting'])}, first answer "
                    f"{seen['first answer']:.2f} s after the loss was noticed, health {seen['health']}",
                    flush=True,
                )
        print("unloaded:")
        await unload(http, given.model, given.turns, rng)


if __name__ == "__main__":
    asyncio.run(main())
