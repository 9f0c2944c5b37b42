#!/usr/bin/env python3
"""Answers that keep a shape: a device command of six fields, from running servers.

usage: shapes_served.py time --url ours=http://127.0.0.1:8102 --url theirs=http://127.0.0.1:8103 [--repeat 5]
       shapes_served.py valid --url ours=http://127.0.0.1:8102 [--commands 200]
       shapes_served.py beside --url ours=http://127.0.0.1:8102 [--repeat 5]

time: seconds to the whole answer. The servers take turns with the same commands, in the same words, so that a machine
that slows down slows all. `valid`: how many answers fit the schema, as the jsonschema library sees it. `beside`: tokens
a second of one stream while the server also writes answers without a shape, and with one.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import itertools
import json
import statistics
import threading
import time
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
from jsonschema import Draft202012Validator

from qwen_edge.client import server as bench

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "device": {"enum": ["light", "heating", "blind", "fan", "socket"]},
        "room": {"type": "string", "maxLength": 30},
        "action": {"enum": ["on", "off", "set", "open", "close"]},
        "percent": {"type": "integer", "minimum": 0, "maximum": 100},
        "time": {"type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"},
        "note": {"anyOf": [{"type": "string", "maxLength": 40}, {"type": "null"}]},
    },
    "required": ["device", "room", "action", "percent", "time", "note"],
    "additionalProperties": False,
}
_SYSTEM = (
    "You turn commands into JSON with the fields device (light, heating, blind, fan or socket), room, action (on, off, "
    "set, open or close), percent (0 to 100), time (HH:MM) and note (a short text or null)."
)
_ROOMS = ["kitchen", "living room", "bedroom", "bathroom", "garage", "office", "hall", "cellar", "balcony", "attic"]
_DEEDS = ["Dim the {} light to {} percent", "Turn on the {} fan at {} percent", "Set the {} heating to {} percent"]
_DEEDS += [
    "Open the {} blind to {} percent",
    "Close the {} blind down to {} percent",
    "Switch the {} socket off ({} %)",
]
_WORDS = ["at {}", "please, at {}", "from {} on", "by {}; the guests come", "at {}, and make a note of it"]


def commands(count: int, seed: int = 1) -> list[str]:
    """Different commands in words."""
    rng, found = Random(seed), dict[str, None]()
    while len(found) < count:
        time_of_day = f"{rng.randrange(24):02}:{rng.randrange(60):02}"
        deed = rng.choice(_DEEDS).format(rng.choice(_ROOMS), rng.randrange(101))
        found[f"{deed} {rng.choice(_WORDS).format(time_of_day)}."] = None
    return list(found)


def body(command: str, *, shape: bool = True, **more: Any) -> dict[str, Any]:
    """A request that all servers understand in the same way. `x_schema_in_prompt`: the words of the prompt are the
    same everywhere."""
    held = {"type": "json_schema", "json_schema": {"name": "command", "schema": SCHEMA}} if shape else {"type": "text"}
    return {
        "messages": [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": command}],
        "response_format": held,
        "chat_template_kwargs": {"enable_thinking": False},
        "x_schema_in_prompt": False,
        "max_tokens": 250,
        **more,
    }


class Answer(NamedTuple):
    text: str
    tokens: int
    forced: int
    seconds: float
    ended: str

    @property
    def valid(self) -> bool:
        try:
            return bool(Draft202012Validator(SCHEMA).is_valid(json.loads(self.text)))
        except ValueError:
            return False

    @property
    def spaces(self) -> int:
        """Characters of white space between the values."""
        try:
            return len(self.text) - len(json.dumps(json.loads(self.text), separators=(",", ":"), ensure_ascii=False))
        except ValueError:
            return -1


class Server:
    def __init__(self, url: str) -> None:
        self.name, _, address = url.rpartition("=")
        self._host = urlsplit(address).netloc
        self.name = self.name or self._host

    def answer(self, request: dict[str, Any]) -> Answer:
        """The whole answer, and the seconds that it took."""
        began = time.perf_counter()
        connection = http.client.HTTPConnection(self._host, timeout=600)
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(request), headers)
        response = connection.getresponse()
        found = json.loads(response.read())
        seconds = time.perf_counter() - began
        connection.close()
        if response.status != 200:
            raise SystemExit(f"{self.name}: {found}")
        [choice], usage = found["choices"], found["usage"]
        forced = (usage.get("completion_tokens_details") or {}).get("x_forced_tokens", 0)
        text = choice["message"]["content"] or ""
        return Answer(text, usage["completion_tokens"], forced, seconds, choice["finish_reason"])

    def rate(self, tokens: int) -> float:
        """Tokens a second of one stream, after its first token."""
        return asyncio.run(self._rate(tokens))

    async def _rate(self, tokens: int) -> float:
        off = {"enable_thinking": False}
        async with aiohttp.ClientSession() as http:
            stream = bench.Server(f"http://{self._host}", http).ask(
                "Tell a long story.", system=_SYSTEM, max_tokens=tokens, ignore_eos=True, temperature=0.7,
                chat_template_kwargs=off,
            )  # fmt: skip
            return (await stream).speed


def measure_time(servers: list[Server], repeat: int) -> None:
    for server in servers:
        server.answer(body("Turn on the hall light."))  # the system prompt is in the cache, the schema compiled
    for temperature in (0.0, 0.7):
        found: dict[str, list[Answer]] = {server.name: [] for server in servers}
        for number, command in enumerate(commands(repeat, seed=round(10 * temperature))):
            for server in servers if number % 2 else servers[::-1]:
                found[server.name].append(server.answer(body(command, temperature=temperature, seed=number)))
        print(f"temperature {temperature}:")
        medians = {name: statistics.median(one.seconds for one in answers) for name, answers in found.items()}
        for name, answers in found.items():
            print(f"  {name:14} {medians[name]:6.2f} s   {' '.join(f'{one.seconds:.2f}' for one in answers)}")
            print(
                f"  {'':14} tokens {statistics.median(one.tokens for one in answers):.0f}, of these forced "
                f"{statistics.median(one.forced for one in answers):.0f}; white space "
                f"{statistics.median(one.spaces for one in answers):.0f}; valid {sum(one.valid for one in answers)} of "
                f"{len(answers)}"
            )
            print(f"  {'':14} {answers[-1].text!r:.150}")
        for name in list(found)[1:]:
            print(f"  {servers[0].name} / {name}: {medians[servers[0].name] / medians[name]:.3f}")


def measure_valid(servers: list[Server], count: int) -> None:
    for server in servers:
        began, tokens, forced, valid, ends = time.perf_counter(), 0, 0, 0, dict[str, int]()
        for number, command in enumerate(commands(count)):
            answer = server.answer(body(command, temperature=0.0 if number % 2 else 1.0, seed=number))
            tokens, forced, valid = tokens + answer.tokens, forced + answer.forced, valid + answer.valid
            ends[answer.ended] = ends.get(answer.ended, 0) + 1
            if not answer.valid:
                print(f"  {command!r} -> {answer.text!r}")
        seconds = time.perf_counter() - began
        print(
            f"{server.name}: {valid} of {count} valid; {ends}; {seconds / count:.2f} s, {tokens / count:.1f} tokens, "
            f"{forced / count:.1f} of them forced an answer"
        )


def measure_beside(servers: list[Server], repeat: int, tokens: int) -> None:
    kinds: dict[str, bool | None] = {"alone": None, "beside free answers": False, "beside shapes": True}
    for server in servers:
        rates: dict[str, list[float]] = {kind: [] for kind in kinds}
        for _, (kind, shape) in itertools.product(range(repeat), kinds.items()):
            over = threading.Event()
            other = threading.Thread(target=_keep_asking, args=(server, shape, over))
            if shape is not None:
                other.start()
            rates[kind].append(server.rate(tokens))
            over.set()
            if shape is not None:
                other.join()
        print(server.name)
        for kind, found in rates.items():
            print(f"  {kind:20} {statistics.median(found):6.2f} tok/s   {' '.join(f'{one:.2f}' for one in found)}")
        ratios = [one / other for one, other in zip(rates["beside shapes"], rates["beside free answers"], strict=True)]
        print(f"  shapes / free: {statistics.median(ratios):.3f} ({' '.join(f'{one:.3f}' for one in ratios)})")


def _keep_asking(server: Server, shape: bool, over: threading.Event) -> None:
    """Answers of as many tokens, one after the other, until the stream has ended."""
    for number, command in enumerate(itertools.cycle(commands(100))):
        if over.is_set():
            return
        more = {} if shape else {"max_tokens": 40, "ignore_eos": True}
        server.answer(body(command, shape=shape, temperature=0.7, seed=number, **more))


def main() -> None:
    parser = argparse.ArgumentParser(description="A device command of six fields, from running servers.")
    parser.add_argument("what", choices=["time", "valid", "beside"])
    parser.add_argument("--url", action="append", required=True, help="NAME=http://HOST:PORT; ours first")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--commands", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=150, help="of the stream")
    options = parser.parse_args()
    servers = [Server(url) for url in options.url]
    if options.what == "time":
        measure_time(servers, options.repeat)
    elif options.what == "valid":
        measure_valid(servers, options.commands)
    else:
        measure_beside(servers, options.repeat, options.tokens)


if __name__ == "__main__":
    main()
