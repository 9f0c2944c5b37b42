"""The README's fenced blocks, each with the mark above it that says what a test does with it.

run                                  a shell runs the block, in the checkout, as a person who may use sudo
run with DEVICE and KEY filled in    the same, with the device's address and the first key in place of these two words
run until the next heading           the same as "run", but in the background, until the next heading of any level
python                               Python runs the block
needs a GPU                          nobody runs the block, but it must be a shell script
output                               nobody runs the block: it shows what a command prints
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"
RUN_AS_ANOTHER_MACHINE = "run with DEVICE and KEY filled in"
MARKS = ("run", RUN_AS_ANOTHER_MACHINE, "run until the next heading", "python", "needs a GPU", "output")

_HEADING = re.compile(r"#+ (?P<title>[^\n]*)\n")
_BLOCK = re.compile(
    r"(?:<!-- test: (?P<mark>.*?) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_PART = re.compile(f"^(?:{_HEADING.pattern}|{_BLOCK.pattern})", re.DOTALL | re.MULTILINE)


_APT = "WARNING: apt does not have a stable CLI interface"  # it says so wherever there is no terminal


@dataclass(frozen=True)
class Block:
    """`line` is the number of the block's first line in the README; `mark` is None for a block without a mark."""

    heading: str
    line: int
    mark: str | None
    text: str


def blocks(text: str) -> Iterator[Block]:
    """All blocks of the page, in its order."""
    heading = ""
    for part in _PART.finditer(text):
        if part["title"]:
            heading = part["title"]
        else:
            yield Block(heading, text.count("\n", 0, part.start("text")) + 1, part["mark"], part["text"])


def warnings(said: str) -> list[str]:
    """The lines of an output that warn a reader who has done all as the page says."""
    return [line for line in said.splitlines() if re.search(r"\bWARNING\b", line) and not line.startswith(_APT)]
