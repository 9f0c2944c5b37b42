"""What a person sees: one sentence when bootstrap.py gives up, and one line that moves while pip works."""

from __future__ import annotations

import re
import sys
import time
from typing import NoReturn

_COMPILED = re.compile(r"\[(\d+)/(\d+)\]")


def give_up(sentence: str) -> NoReturn:
    print(f"bootstrap: {sentence}", file=sys.stderr)
    sys.exit(2)


class Progress:
    """Shows that pip is alive: on a terminal one line that changes, in a log one line every 15 seconds."""

    def __init__(self) -> None:
        self._began = self._said = time.monotonic()
        self._terminal = sys.stdout.isatty()
        self._doing = "collecting packages"

    def show(self, line: str) -> None:
        if match := _COMPILED.search(line):
            self._doing = f"compiling llama.cpp: {match[1]} of {match[2]} files"
        elif line.startswith(("Collecting ", "Building wheel", "Installing collected")):
            self._doing = line.strip()[:70]
        now = time.monotonic()
        if now - self._said < (0.2 if self._terminal else 15.0):
            return
        self._said = now
        text = f"  {int(now - self._began):4} s  {self._doing}"
        print(f"\r{text:79.79}" if self._terminal else text, end="" if self._terminal else "\n", flush=True)

    def end(self) -> None:
        seconds = time.monotonic() - self._began
        print(f"\r{'':79}\rdone in {seconds:.0f} s" if self._terminal else f"done in {seconds:.0f} s")
