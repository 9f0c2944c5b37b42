"""Records `qwen-edge chat` in a terminal, as an asciicast (docs/chat.cast): python -m scripts.record_chat MODEL TOOLS

To play it: asciinema play docs/chat.cast
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.pseudo_terminal import PseudoTerminal

CAST = Path(__file__).resolve().parents[1] / "docs" / "chat.cast"
COLUMNS, ROWS = 80, 24
KEY_SECONDS, READ_SECONDS = 0.05, 1.5  # between two keys; for a reader, before the next line


async def record(model: str, tools: str) -> None:
    """Type the lines below, and write what is shown, with its times."""
    lines = [
        "Who are you?",
        "/stats",
        "/think off",
        "请简述相对论的基本原理",
        f"/tools {tools}",
        "Turn on the kitchen light",
        "/save talk.json",
        "/hlep",
    ]
    frames = list[tuple[float, str]]()
    began = time.monotonic()
    with PseudoTerminal("chat", model, "--temp", "0", columns=COLUMNS) as terminal:
        terminal.on_output = lambda text: frames.append((time.monotonic() - began, text))
        await terminal.prompt()
        for line in lines:
            await asyncio.sleep(READ_SECONDS)
            for key in line:
                terminal.send(key)
                await asyncio.sleep(KEY_SECONDS)
            terminal.send("\r")
            await terminal.prompt()
        await asyncio.sleep(READ_SECONDS)
        terminal.send("\x04")
        await terminal.ended()
        shown = terminal.shown
    head = {"version": 2, "width": COLUMNS, "height": ROWS, "env": {"TERM": "xterm-256color"}}
    rows = [json.dumps(head), *(json.dumps([round(at, 3), "o", text], ensure_ascii=False) for at, text in frames)]
    CAST.write_text("\n".join(rows) + "\n", encoding="utf-8")
    sys.stdout.write(shown)


def main() -> None:
    model, tools = sys.argv[1:]
    with tempfile.TemporaryDirectory() as state:
        os.environ["XDG_STATE_HOME"] = state
        asyncio.run(record(model, tools))


if __name__ == "__main__":
    main()
