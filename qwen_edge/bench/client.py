"""One streamed chat completion, timed."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

from qwen_edge.errors import UserError


@dataclass(frozen=True)
class Answer:
    """Seconds from the request to each piece of text, and the tokens the server says it made (or the pieces that came,
    where it says nothing)."""

    at: tuple[float, ...]
    tokens: int
    prompt_tokens: int

    @property
    def first(self) -> float:
        return self.at[0]

    @property
    def speed(self) -> float:
        """Tokens a second after the first."""
        return (self.tokens - 1) / (self.at[-1] - self.at[0]) if len(self.at) > 1 else 0.0

    @property
    def longest_gap(self) -> float:
        return max((later - earlier for earlier, later in zip(self.at, self.at[1:], strict=False)), default=0.0)


class Server:
    """An OpenAI-compatible server at `url` (without /v1). Its first model is asked."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._http = http
        self._model: str | None = None

    async def ask(
        self,
        user: str,
        *,
        system: str | None = None,
        max_tokens: int = 128,
        begun: asyncio.Event | None = None,
        **more: Any,
    ) -> Answer:
        """`begun` is set at the first text. Raises UserError with the server's own words where it refuses."""
        messages = [{"role": "system", "content": system}] if system else []
        body = {
            "model": await self.model(),
            "messages": [*messages, {"role": "user", "content": user}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **more,
        }
        at, usage = list[float](), dict[str, int]()
        began = time.perf_counter()
        try:
            async with self._http.post(f"{self.url}/v1/chat/completions", json=body) as response:
                if response.status == 400 and "ignore_eos" in more:  # a strict server: its answers end where they end
                    del more["ignore_eos"]
                    return await self.ask(user, system=system, max_tokens=max_tokens, begun=begun, **more)
                if response.status != 200:
                    raise UserError(f"{self.url} answers {response.status}: {(await response.text())[:300]}")
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        chunk = json.loads(line[6:])
                        usage = chunk.get("usage") or usage
                        if _has_text(chunk):
                            at.append(time.perf_counter() - began)
                            if begun:
                                begun.set()
        except aiohttp.ClientError as error:
            raise UserError(f"{self.url} cannot be reached: {error}. Is the server running?") from None
        finally:
            if begun:  # whoever waits for the beginning need not wait for one that will not come
                begun.set()
        if not at:
            raise UserError(f"{self.url} answered without any text.")
        return Answer(tuple(at), usage.get("completion_tokens", len(at)), usage.get("prompt_tokens", 0))

    async def model(self) -> str:
        if self._model is None:
            try:
                async with self._http.get(f"{self.url}/v1/models") as response:
                    self._model = str((await response.json(content_type=None))["data"][0]["id"])
            except (aiohttp.ClientError, KeyError, IndexError, ValueError) as error:
                raise UserError(
                    f"{self.url}/v1/models names no model: {error!r}. Is this a server of OpenAI's API?"
                ) from None
        return self._model


def _has_text(chunk: dict[str, Any]) -> bool:
    return any(
        choice.get("delta", {}).get("content") or choice.get("delta", {}).get("reasoning_content")
        for choice in chunk.get("choices", ())
    )
