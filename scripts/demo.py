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
    first = None
    usage: dict[str, Any] = {}
    for chunk in stream(host, messages=[{"role": "user", "content": question}], **options):
        usage = chunk.get("usage") or usage
        for choice in chunk["choices"]:
            text = spoken(choice["delta"])
            if text and first is None:
                first = time.perf_counter()
            print(text, end="", flush=True)
    first = first or time.perf_counter()
    tokens = usage["completion_tokens"]
    rate = (tokens - 1) / max(time.perf_counter() - first, 1e-9)
    print(f"\n  [first token after {1000 * (first - began):.0f} ms, {tokens} tokens, {rate:.0f} tokens/s]")


def spoken(delta: dict[str, Any]) -> str:
    """What a person wants to see of a piece: the thinking in grey, calls as the function they call."""
    if thought := delta.get("reasoning_content"):
        return f"\033[2m{thought}\033[0m" if sys.stdout.isatty() else thought
    calls = [call["function"] for call in delta.get("tool_calls", [])]
    return (delta.get("content") or "") + "".join(f"{call['name']}({call['arguments']})" for call in calls)


def stream(host: str, **body: Any) -> Iterator[dict[str, Any]]:
    """The chunks of a streamed answer."""
    connection = http.client.HTTPConnection(host, timeout=120)
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        sys.exit(f"HTTP {response.status}: {response.read().decode()}")
    for line in response:
        data = line.decode().removeprefix("data: ").strip()
        if data and data != "[DONE]":
            yield json.loads(data)
    connection.close()


if __name__ == "__main__":
    main()
