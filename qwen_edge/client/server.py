"""Asks an OpenAI-compatible server, and measures the time of each streamed answer."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import aiohttp

from qwen_edge.core.errors import UserError

_HOST_PORT = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}(/\S*)?")
_SCHEME = re.compile(r"[A-Za-z][\w+.-]*://")

_REMEDIES = {  # by HTTP status
    401: " Set the environment variable QWEN_EDGE_API_KEY to the key.",
    404: " Is this a server of OpenAI's API?",
}


class UnreachableError(UserError):
    """The connection to the server failed or broke."""


class RefusedError(UserError):
    """The server answered with an error. `status`: the HTTP status; of an error in the middle of a stream, 503 if the
    same request may be answered later, else 500. `words`: the server's own message."""

    def __init__(self, url: str, status: int, words: str) -> None:
        self.status, self.words = status, _message(words)
        super().__init__(f"{url} answers {status}: {self.words[:300]}{_REMEDIES.get(status, '')}")


@dataclass(frozen=True)
class Answer:
    """One timed answer. `at`: seconds from the request to each piece of text. `tokens`: the number that the server
    reports; if it reports none, the number of pieces."""

    at: tuple[float, ...]
    tokens: int
    prompt_tokens: int
    text: str = ""  # without the reasoning, if the server separates it
    finish: str = ""  # why the answer ended, such as stop or length

    @property
    def first(self) -> float:
        return self.at[0]

    @property
    def speed(self) -> float:
        """Tokens per second after the first token."""
        return (self.tokens - 1) / (self.at[-1] - self.at[0]) if len(self.at) > 1 else 0.0

    @property
    def longest_gap(self) -> float:
        return max((later - earlier for earlier, later in zip(self.at, self.at[1:], strict=False)), default=0.0)


class Server:
    """An OpenAI-compatible server at `url` (without /v1). Requests go to `model`; by default, to the first it has."""

    def __init__(self, url: str, http: aiohttp.ClientSession, model: str | None = None) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        self._http = http
        self._model = model

    async def ask(
        self,
        user: str,
        *,
        system: str | None = None,
        history: Sequence[Mapping[str, str]] = (),
        max_tokens: int = 128,
        required: Mapping[str, Any] = MappingProxyType({}),
        begun: asyncio.Event | None = None,
        **more: Any,
    ) -> Answer:
        """Ask a question and time the answer. `history`: the earlier messages. `required`: more parameters of
        the request. `more`: parameters that are left out if the server refuses them. `begun`: set at the first text.
        Raises UserError with the server's error message."""
        messages = [{"role": "system", "content": system}] if system else []
        body = {
            "model": await self.model(),
            "messages": [*messages, *history, {"role": "user", "content": user}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **required,
            **more,
        }
        at, usage, text, finish = list[float](), dict[str, int](), list[str](), ""
        began = time.perf_counter()
        try:
            async with self._request("POST", "/v1/chat/completions", json=body) as response:
                async for line in response.content:
                    if line.startswith(b"data: {"):
                        chunk = self._chunk(line[6:])
                        usage = chunk.get("usage") or usage
                        for choice in chunk.get("choices", ()):
                            finish = choice.get("finish_reason") or finish
                        if _has_text(chunk):
                            at.append(time.perf_counter() - began)
                            text += [choice["delta"].get("content") or "" for choice in chunk["choices"]]
                            if begun:
                                begun.set()
        except RefusedError as refused:
            if refused.status not in (400, 422) or not more:
                raise
            # a strict server refuses the additional parameters: ask again without them
            return await self.ask(
                user, system=system, history=history, max_tokens=max_tokens, required=required, begun=begun
            )
        finally:
            if begun:  # after an error too: nobody must wait for a text that will not come
                begun.set()
        if not at:
            raise UserError(f"{self.url} has sent an answer without any text. Does its model answer in another client?")
        tokens, prompt_tokens = usage.get("completion_tokens", len(at)), usage.get("prompt_tokens", 0)
        return Answer(tuple(at), tokens, prompt_tokens, "".join(text), finish)

    async def prompt_tokens(self, user: str) -> int:
        """The number of tokens of the prompt as the server counts them; 0 if it does not report them. Asks for an
        answer of one token, which may have no text. Raises UserError as `ask` does."""
        messages = [{"role": "user", "content": user}]
        body = {"model": await self.model(), "messages": messages, "max_tokens": 1, "temperature": 0}
        async with self._request("POST", "/v1/chat/completions", json=body) as response:
            try:
                usage = (await response.json(content_type=None)).get("usage") or {}
            except (ValueError, AttributeError):
                raise UserError(
                    f"{self.url} answers, but not with a chat completion. Is this a server of OpenAI's API?"
                ) from None
        return int(usage.get("prompt_tokens", 0))

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of a streamed chat completion, the last ones with its usage. Raises RefusedError for an error of
        the server, also in the middle; UnreachableError if the stream breaks off."""
        whole = {**body, "stream": True, "stream_options": {"include_usage": True}}
        whole.setdefault("model", await self.model())
        path, ended = "/v1/chat/completions", False
        async with self._request("POST", path, json=whole) as response:
            async for line in _lines(response):
                if line.startswith(b"data: {"):
                    try:
                        chunk = json.loads(line[6:])
                    except (ValueError, RecursionError):
                        raise UserError(f"{self.url} has sent an event that is not JSON.") from None
                    if error := chunk.get("error"):
                        raise RefusedError(self.url + path, _status(error), json.dumps({"error": error}))
                    ended = ended or b'"finish_reason":"' in line.replace(b": ", b":")
                    yield chunk
        if not ended:
            raise UnreachableError(f"{self.url} has ended its answer in the middle.")

    async def models(self) -> list[dict[str, Any]]:
        """The models that the server lists, each with at least an `id`. Raises UserError."""
        async with self._request("GET", "/v1/models") as response:
            try:
                return [one for one in (await response.json(content_type=None))["data"] if isinstance(one["id"], str)]
            except (KeyError, TypeError, ValueError):
                raise UserError(f"{self.url}/v1/models lists no models. Is this a server of OpenAI's API?") from None

    async def model(self) -> str:
        """The name of the model that is asked."""
        if self._model is None:
            async with self._request("GET", "/v1/models") as response:
                try:
                    self._model = str((await response.json(content_type=None))["data"][0]["id"])
                except (KeyError, IndexError, TypeError, ValueError) as error:
                    raise UserError(
                        f"{self.url}/v1/models names no model: {error!r}. Is this a server of OpenAI's API?"
                    ) from None
        return self._model

    def _chunk(self, data: bytes) -> dict[str, Any]:
        """One event of a stream. Raises UserError if the event is an error."""
        try:
            chunk: dict[str, Any] = json.loads(data)
        except ValueError:
            raise UserError(f"{self.url} has sent an event that is not JSON.") from None
        if error := chunk.get("error"):
            words = error.get("message") if isinstance(error, dict) else error
            raise UserError(f"{self.url} has ended its answer with an error: {str(words)[:300]}")
        return chunk

    @asynccontextmanager
    async def _request(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        url = self.url + path
        try:
            async with self._http.request(method, url, **options) as response:
                if response.status != 200:
                    raise RefusedError(url, response.status, await response.text(errors="replace"))
                yield response
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise UserError(f"{url} is not the address of a server. Write it as in http://127.0.0.1:8080.") from None
        except aiohttp.ClientError as error:
            raise UnreachableError(f"{url} cannot be reached: {_cause(error)}. Is the server running?") from None


def server_url(text: str) -> str | None:
    """The URL of a server that a person names, also by HOST:PORT; None if the text names none."""
    if _SCHEME.match(text):
        return text
    return f"http://{text}" if _HOST_PORT.fullmatch(text) and not Path(text).exists() else None


@asynccontextmanager
async def servers_at(urls: Sequence[str], model: str | None = None) -> AsyncIterator[list[Server]]:
    """The servers at these URLs, to be asked for `model`, or each for its first one. Each question opens a new
    connection, because some servers close an idle connection at the moment of its next use. The key in the environment
    (QWEN_EDGE_API_KEY), if any, is sent to all servers."""
    key = os.environ.get("QWEN_EDGE_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    connector, timeout = aiohttp.TCPConnector(force_close=True), aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers=headers) as http:
        yield [Server(url, http, model) for url in urls]


def _cause(error: aiohttp.ClientError) -> str:
    """Why there is no connection; aiohttp's own words name its classes and settings, too."""
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        number, words = error.os_error.errno, error.os_error.strerror
        return os.strerror(number) if number and number > 0 else words or str(error)  # below 0: of a look-up
    return str(error)


def _has_text(chunk: dict[str, Any]) -> bool:
    return any(
        choice.get("delta", {}).get("content") or choice.get("delta", {}).get("reasoning_content")
        for choice in chunk.get("choices", ())
    )


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The lines of a body, however long. Raises aiohttp.ClientError."""
    rest = b""
    async for data in response.content.iter_any():
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line
    yield rest


def _message(words: str) -> str:
    """The message of an error body; the body itself if it has none."""
    try:
        error = json.loads(words)["error"]
        return str(error if isinstance(error, str) else error["message"])
    except (ValueError, KeyError, TypeError):
        return words[:300]


def _status(error: Any) -> int:
    """The status that an error in a stream would have had, as far as it tells."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int):
        return code
    return 503 if code in ("unavailable", "engine_failed") else 500
