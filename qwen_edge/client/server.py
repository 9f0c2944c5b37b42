"""Asks an OpenAI-compatible server, and measures the time of each streamed answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import aiohttp
import msgspec

from qwen_edge.core.errors import UserError
from qwen_edge.core.printable import printable

_HOST_PORT = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}(/\S*)?")
_SCHEME = re.compile(r"[A-Za-z][\w+.-]*://")

_REMEDIES = {  # by HTTP status
    401: " Set the environment variable QWEN_EDGE_API_KEY to the key.",
    404: " Is this a server of OpenAI's API?",
}
_LONGEST = 32_000_000  # bytes of a line, or of a body that is read whole: no model has so much to say at once
_MOST_TOKENS = 2**53  # a larger number of tokens is none


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
            "messages": [*messages, *history, {"role": "user", "content": user}],
            "max_tokens": max_tokens,
            "temperature": 0,
            **required,
            **more,
        }
        at, usage, text, finish = list[float](), _Usage(), list[str](), ""
        try:
            body["model"] = await self.model()  # before the clock runs
            began = time.perf_counter()
            async with aclosing(self.stream(body)) as chunks:
                async for one in chunks:
                    chunk = self._measured(one)
                    usage = chunk.usage or usage
                    for choice in chunk.choices or ():
                        finish = choice.finish_reason or finish
                    if chunk.has_text:
                        at.append(time.perf_counter() - began)
                        text += [choice.content for choice in chunk.choices or ()]
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
        tokens = len(at) if usage.completion_tokens is None else usage.completion_tokens
        return Answer(tuple(at), tokens, usage.prompt_tokens or 0, "".join(text), finish)

    async def prompt_tokens(self, user: str) -> int:
        """The number of tokens of the prompt as the server counts them; 0 if it does not report them. Asks for an
        answer of one token, which may have no text. Raises UserError as `ask` does."""
        messages = [{"role": "user", "content": user}]
        body = {"model": await self.model(), "messages": messages, "max_tokens": 1, "temperature": 0}
        async with self._request("POST", "/v1/chat/completions", json=body) as response:
            try:
                found = msgspec.convert(await _json(response), _Chunk, strict=False)
            except (ValueError, RecursionError, msgspec.ValidationError):
                raise UserError(
                    f"{self.url} answers, but not with a chat completion. Is this a server of OpenAI's API?"
                ) from None
        return (found.usage and found.usage.prompt_tokens) or 0

    async def stream(self, body: Mapping[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of a streamed chat completion, the last ones with its usage. Raises RefusedError for an error of
        the server, also in the middle; UnreachableError if the stream breaks off."""
        whole = {**body, "stream": True, "stream_options": {"include_usage": True}}
        if "model" not in whole:
            whole["model"] = await self.model()
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
                    await asyncio.sleep(0)  # a signal must be heard while much is there at once
                    ended = ended or b'"finish_reason":"' in line.replace(b": ", b":")
                    yield chunk
        if not ended:
            raise UnreachableError(f"{self.url} has ended its answer in the middle.")

    async def models(self) -> list[dict[str, Any]]:
        """The models that the server lists, each with at least an `id`. Raises UserError."""
        async with self._request("GET", "/v1/models") as response:
            try:
                return [one for one in (await _json(response))["data"] if isinstance(one["id"], str)]
            except (KeyError, TypeError, ValueError, RecursionError):
                raise UserError(f"{self.url}/v1/models lists no models. Is this a server of OpenAI's API?") from None

    async def model(self) -> str:
        """The name of the model that is asked."""
        if self._model is None:
            listed = await self.models()
            if not listed:
                raise UserError(f"{self.url}/v1/models names no model. Is one loaded?")
            self._model = str(listed[0]["id"])
        return self._model

    def _measured(self, chunk: dict[str, Any]) -> _Chunk:
        """Raises UserError if it is no chunk of a chat completion."""
        try:
            return msgspec.convert(chunk, _Chunk, strict=False)
        except msgspec.ValidationError as error:
            raise UserError(f"{self.url} has sent what is no chunk of a chat completion: {error}.") from None

    @asynccontextmanager
    async def _request(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        url = self.url + path
        try:
            async with self._http.request(method, url, **options) as response:
                if response.status != 200:
                    raise RefusedError(url, response.status, (await _body(response)).decode(errors="replace"))
                yield response
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError):  # UnicodeError: no name of a host
            raise UserError(f"{url} is not the address of a server. Write it as in http://127.0.0.1:8080.") from None
        except aiohttp.ClientError as error:
            words = printable(_cause(error), 300)  # it may quote what the server has sent
            raise UnreachableError(f"{url} cannot be reached: {words}. Is the server running?") from None


def server_url(text: str) -> str | None:
    """The URL of a server that a person names, also by HOST:PORT; None if the text names none."""
    if _SCHEME.match(text):
        return text
    with contextlib.suppress(OSError):  # too long for the name of a file
        if Path(text).exists():
            return None
    return f"http://{text}" if _HOST_PORT.fullmatch(text) else None


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


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None

    @property
    def content(self) -> str:
        return (self.delta and self.delta.content) or ""


_Tokens = Annotated[int, msgspec.Meta(ge=0, le=_MOST_TOKENS)]


class _Usage(msgspec.Struct):
    completion_tokens: _Tokens | None = None
    prompt_tokens: _Tokens | None = None


class _Chunk(msgspec.Struct):
    """A chunk of an answer, or a whole one without its text, as far as it is measured."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None

    @property
    def has_text(self) -> bool:
        deltas = (choice.delta for choice in self.choices or ())
        return any(delta and (delta.content or delta.reasoning_content) for delta in deltas)


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """The lines of a body. Raises aiohttp.ClientError, and UserError for a line that does not end."""
    line = bytearray()
    async for data in response.content.iter_any():
        *ends, rest = data.split(b"\n")
        for end in ends:
            line += end
            yield bytes(line)
            line.clear()
        line += rest
        _must_be_short(response, line)
    yield bytes(line)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The whole body. Raises aiohttp.ClientError, and UserError for one that does not end."""
    body = bytearray()
    async for data in response.content.iter_any():
        body += data
        _must_be_short(response, body)
    return bytes(body)


async def _json(response: aiohttp.ClientResponse) -> Any:
    """The body as JSON. Raises as `_body`, and ValueError and RecursionError."""
    return json.loads(await _body(response))


def _must_be_short(response: aiohttp.ClientResponse, data: bytearray) -> None:
    if len(data) > _LONGEST:
        raise UserError(f"{response.url} has sent more than {_LONGEST // 1_000_000} MB at once, and is given up.")


def _message(words: str) -> str:
    """The message of an error body; the body itself if it has none."""
    try:
        error = json.loads(words)["error"]
        return str(error if isinstance(error, str) else error["message"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return words[:300]


def _status(error: Any) -> int:
    """The status that an error in a stream would have had, as far as it tells."""
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int):
        return code
    return 503 if code in ("unavailable", "engine_failed") else 500
