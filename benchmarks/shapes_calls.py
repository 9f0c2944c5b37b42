#!/usr/bin/env python3
"""Device commands that the demo model never saw: how many become the right call, from running servers.

usage: shapes_calls.py --url new=http://127.0.0.1:8102 --url old=http://127.0.0.1:8103 [--commands 100]

The questions are those of scripts/demo_model/exam.py, each with thinking on and off, asked over HTTP with
`tool_choice` auto, and with required where a server takes it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for scripts, which are not installed

from scripts.demo_model.dialogue.dialogues import write_dialogue
from scripts.demo_model.dialogue.scene import draw_scene
from scripts.demo_model.dialogue.split import Split
from scripts.demo_model.dialogue.words import LANGS


class Command(NamedTuple):
    """`calls`: the right ones, each a name and arguments."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]]
    calls: list[tuple[str, Any]]


def commands(count: int, seed: int = 7) -> list[Command]:
    """As many device commands as that from held-out dialogues."""
    return [command for command, _ in zip(_commands(Random(seed)), range(count), strict=False)]


def _commands(rng: Random) -> Iterator[Command]:
    while True:
        dialogue = write_dialogue(rng, draw_scene(rng, Split.HELD_OUT), rng.choice(LANGS))
        tools = [{"type": "function", "function": _function(tool.schema())} for tool in dialogue.scene.tools]
        for index, mark in dialogue.marks.items():
            if mark.kind in ("first", "follow-up"):
                right = [call["function"] for call in dialogue.messages[index]["tool_calls"]]
                history = [_sent(message) for message in dialogue.messages[:index]]
                yield Command(history, tools, [(call["name"], call["arguments"]) for call in right])


def _function(schema: Any) -> Any:
    return schema.get("function", schema)


def _sent(message: dict[str, Any]) -> dict[str, Any]:
    """A message of the history as clients send it: arguments as text, and no thoughts."""
    sent = {key: value for key, value in message.items() if key != "reasoning_content"}
    if calls := sent.get("tool_calls"):
        sent["tool_calls"] = [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {
                    "name": call["function"]["name"],
                    "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False),
                },
            }
            for number, call in enumerate(calls)
        ]
    return sent | ({"tool_call_id": "call_0"} if sent["role"] == "tool" else {})


def ask(host: str, command: Command, **more: Any) -> tuple[int, dict[str, Any]]:
    body = {"messages": command.messages, "tools": command.tools, "max_tokens": 200, **more}
    connection = http.client.HTTPConnection(host, timeout=300)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    status, found = response.status, json.loads(response.read())
    connection.close()
    return status, found


def judge(status: int, found: dict[str, Any], command: Command) -> str:
    """What became of a command."""
    if status != 200:
        return f"HTTP {status}: {found['error']['message'][:60]}"
    [choice] = found["choices"]
    try:
        calls = [
            (call["function"]["name"], json.loads(call["function"]["arguments"]))
            for call in choice["message"].get("tool_calls") or ()
        ]
    except ValueError:
        return "broken arguments"
    if calls == command.calls:
        return "right"
    if "<tool_call>" in (choice["message"]["content"] or ""):
        return "a call as text"
    return "another call" if calls else "no call"


def main() -> None:
    parser = argparse.ArgumentParser(description="How many device commands become the right call.")
    parser.add_argument("--url", action="append", required=True, help="NAME=http://HOST:PORT")
    parser.add_argument("--commands", type=int, default=100)
    parser.add_argument("--choice", nargs="+", default=["auto", "required"])
    parser.add_argument("--temperature", nargs="+", type=float, default=[0.0, 1.0, 1.5])
    options = parser.parse_args()
    asked = [(command, thinking) for command in commands(options.commands) for thinking in (True, False)]
    for url in options.url:
        name, _, address = url.rpartition("=")
        for choice in options.choice:
            for temperature in options.temperature:
                counts = Counter[str]()
                for seed, (command, thinking) in enumerate(asked):
                    more = {"tool_choice": choice, "temperature": temperature, "seed": seed, "top_k": 0, "top_p": 1}
                    found = ask(urlsplit(address).netloc, command, enable_thinking=thinking, **more)
                    outcome = judge(*found, command)
                    counts[outcome] += 1
                    if outcome.startswith("HTTP 400"):
                        break
                share = counts["right"] / counts.total()
                print(f"{name} {choice:8} temperature {temperature}: {share:7.2%}  {dict(counts)}", flush=True)


if __name__ == "__main__":
    main()
