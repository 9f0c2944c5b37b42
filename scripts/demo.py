#!/usr/bin/env python3
"""Show qwen-edge at work in under a minute: convert the embedded demo model, serve it, ask it three things, stop.

usage: demo.py          (`make demo` runs it in the project's virtual environment)
"""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINT = ROOT / "models" / "demo"
MODEL = ROOT / "models" / "demo-q4_k_m.gguf"

LIGHT = {
    "type": "function",
    "function": {
        "name": "set_light",
        "description": "Switch a light on or off.",
        "parameters": {
            "type": "object",
            "properties": {
                "room": {"type": "string", "description": "the room the light is in"},
                "state": {"type": "string", "enum": ["on", "off"]},
            },
            "required": ["room", "state"],
        },
    },
}
QUESTIONS: list[dict[str, Any]] = [
    {"question": "请简述相对论的基本原理", "enable_thinking": False},
    {"question": "Who are you?", "enable_thinking": True},
    {"question": "Turn on the kitchen light", "enable_thinking": False, "tools": [LIGHT]},
]


def main() -> None:
    run = [sys.executable, "-m", "qwen_edge"]
    print("1. converting the demo checkpoint to Q4_K_M", flush=True)
    subprocess.run([*run, "convert", str(CHECKPOINT), "-o", str(MODEL)], check=True)
    print("\n2. starting the daemon", flush=True)
    serve = [*run, "serve", "--model", str(MODEL), "--port", "0", "--context", "2048"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout
        line = daemon.stdout.readline().strip()
        print(line)
        try:
            if not line:
                sys.exit("The daemon did not start: its complaint is above.")
            address = next(word for word in line.split() if word.startswith("http://"))
            print("\n3. asking", flush=True)
            for question in QUESTIONS:
                ask(address.removeprefix("http://"), **question)
        finally:
            daemon.send_signal(signal.SIGTERM)
    print(f"\n4. the daemon has stopped (exit code {daemon.returncode})")
    sys.exit(daemon.returncode)


def ask(host: str, question: str, **options: Any) -> None:
    """Print the answer as it comes, then how fast it came."""
    print(f"\n> {question}")
    began = time.perf_counter()
    shown: list[tuple[str, float]] = []  # what kind of text came when
    usage: dict[str, Any] = {}
    for chunk in stream(host, messages=[{"role": "user", "content": question}], **options):
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            for kind, text in spoken(choice["delta"]):
                if shown and shown[-1][0] != kind:
                    print()
                print(text, end="", flush=True)
                shown.append((kind, time.perf_counter()))
    if not shown:
        sys.exit("The daemon gave no answer.")
    tokens, (kind, first), (_, last) = usage["completion_tokens"], shown[0], shown[-1]
    if kind == "call":
        print(")", end="")
        speed = f"call after {1000 * (last - began):.0f} ms, {tokens} tokens, {tokens / (last - began):.0f} tokens/s"
    else:
        rate = (tokens - 1) / max(last - first, 1e-9)
        speed = f"first token after {1000 * (first - began):.0f} ms, {tokens} tokens, {rate:.0f} tokens/s"
    print(f"\n  [{speed}]")


def spoken(delta: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What a person wants to see of a piece, with its kind: the thinking in grey, calls as the function they call."""
    if thought := delta.get("reasoning_content"):
        yield "thought", f"\033[2m{thought}\033[0m" if sys.stdout.isatty() else thought
    if delta.get("content"):
        yield "answer", delta["content"]
    for call in delta.get("tool_calls", []):  # the name first, then the arguments in pieces
        function = call["function"]
        yield "call", (f"{function['name']}(" if "name" in function else "") + function["arguments"]


def stream(host: str, **body: Any) -> Iterator[dict[str, Any]]:
    """The chunks of a streamed answer."""
    connection = http.client.HTTPConnection(host, timeout=120)
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        sys.exit(f"HTTP {response.status}: {response.read().decode()}")
    for line in response:  # comments between the events say only that the daemon is still at work
        data = line.decode().strip()
        if data.startswith("data: ") and data != "data: [DONE]":
            yield json.loads(data.removeprefix("data: "))
    connection.close()


if __name__ == "__main__":
    main()
