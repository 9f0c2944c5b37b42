#!/usr/bin/env python3
"""What a dialect costs: tokens a second of eight streams through each one, beside those through chat completions.

usage: dialects.py --url http://127.0.0.1:8080 [--streams 8] [--tokens 200] [--repeat 5]

The dialects take turns with the same questions, so that a machine that slows down slows all. Every stream is read to its
end, and its answer has exactly so many tokens (ignore_eos, or the dialect's way to say how long it may be).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

import aiohttp

Body = Callable[[str, int], dict[str, Any]]


def _chat(question: str, tokens: int) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens, "ignore_eos": True, "stream": True, "enable_thinking": False, "temperature": 0,
    }  # fmt: skip


def _responses(question: str, tokens: int) -> dict[str, Any]:
    return {
        "input": question, "max_output_tokens": tokens, "ignore_eos": True, "stream": True, "enable_thinking": False,
        "temperature": 0,
    }  # fmt: skip


def _messages(question: str, tokens: int) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": question}],
        "max_tokens": tokens, "stream": True, "thinking": {"type": "disabled"}, "temperature": 0, "ignore_eos": True,
    }  # fmt: skip


def _ollama(question: str, tokens: int) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": question}], "think": False,
        "options": {"num_predict": tokens, "temperature": 0, "ignore_eos": True},
    }  # fmt: skip


def _completions(question: str, tokens: int) -> dict[str, Any]:
    return {"prompt": question, "max_tokens": tokens, "ignore_eos": True, "stream": True, "temperature": 0}


DIALECTS: dict[str, tuple[str, Body]] = {
    "chat": ("/v1/chat/completions", _chat),
    "responses": ("/v1/responses", _responses),
    "messages": ("/v1/messages", _messages),
    "ollama": ("/api/chat", _ollama),
    "completions": ("/v1/completions", _completions),
}


async def _stream(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> int:
    """Read a stream to its end; returns its bytes."""
    async with session.post(url, json=body) as response:
        response.raise_for_status()
        return sum([len(part) async for part in response.content.iter_any()])


async def _round(session: aiohttp.ClientSession, url: str, body: Body, streams: int, tokens: int) -> tuple[float, int]:
    """Seconds for all streams at once, and their bytes."""
    began = time.perf_counter()
    sizes = await asyncio.gather(
        *(_stream(session, url, body(f"Count from {10 * number} upwards.", tokens)) for number in range(streams))
    )
    return time.perf_counter() - began, sum(sizes)


async def main(options: argparse.Namespace) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in DIALECTS}
    sizes = dict[str, int]()
    timeout = aiohttp.ClientTimeout(total=600)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        for number in range(options.repeat + 1):  # the first round warms up
            for name, (path, body) in DIALECTS.items():
                took, sizes[name] = await _round(session, options.url + path, body, options.streams, options.tokens)
                if number:
                    seconds[name].append(took)
    total = options.streams * options.tokens
    for name, each in seconds.items():
        ratios = [chat / took for chat, took in zip(seconds["chat"], each, strict=True)]
        rate = total / statistics.median(each)
        print(f"{name:12} {rate:7.1f} tokens/s  {statistics.median(ratios):.3f} of chat's"
              f"  {sizes[name] / total:6.0f} bytes a token  {' '.join(f'{one:.2f}' for one in each)} s")  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--streams", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=5)
    asyncio.run(main(parser.parse_args()))
