"""Breaks a text into lines while it comes, and tells prose and code apart. Pure.

A terminal breaks a line in the middle of a word; this breaks between words, and between Chinese characters. A piece of
the text is held back until it is known that it belongs into its line: a word, or what may be the fence of a code block.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len

_TAB = 8
# punctuation that does not begin a line in Chinese and Japanese
_CLOSING = set("，。、；：？！）》」』】〉〕”’…—～·々ー％")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^`]*)")  # the rest of the line is the language
_MAYBE_FENCE = re.compile(r" {0,3}(`{0,2}|~{0,2})")


class WordWrap:
    """Breaks prose into lines of at most `width` cells; a longer word is left to the terminal."""

    def __init__(self, width: int) -> None:
        self._width = max(width, 2)
        self._column = 0
        self._word = ""
        self._inside = False  # the beginning of this word is told already

    def put(self, text: str) -> str:
        """Take a piece of the text; returns what can be shown of it."""
        return "".join(part for one in text for part in self._take(one))

    def end(self) -> str:
        """What is left."""
        return self._flush()

    def _take(self, one: str) -> Iterator[str]:
        if one == "\n":
            yield self._flush() + one
            self._column = 0
        elif one in " \t":
            yield self._flush()
            cells = 1 if one == " " else _TAB - self._column % _TAB
            if self._column + cells <= self._width:  # a space at the end of a full line is the line's end
                self._column += cells
                yield one
        else:
            if self._word and _may_break(self._word[-1], one):
                yield self._flush()
            self._word += one
            if len(self._word) > self._width:  # longer than a line: held back in vain
                yield self._flush()
                self._inside = True

    def _flush(self) -> str:
        word, self._word = self._word, ""
        cells = cell_len(word)
        new_line = "\n" if self._column and not self._inside and self._column + cells > self._width else ""
        column = cells if new_line else self._column + cells
        self._column = column if column <= self._width else column % self._width
        self._inside = False
        return new_line + word


def _may_break(before: str, after: str) -> bool:
    """Whether a line may end between these two characters, neither of which is a space."""
    return after not in _CLOSING and (cell_len(before) == 2 or cell_len(after) == 2)


@dataclass(frozen=True)
class Part:
    """A part of an answer: a piece of prose, the fence of a code block, or a whole line of code without its end."""

    kind: Literal["prose", "fence", "code"]
    text: str
    language: str = ""


class Fences:
    """Tells prose and code blocks (between ``` or ~~~) apart."""

    def __init__(self) -> None:
        self._held = ""  # the line so far, where nothing of it has been told
        self._fence, self._language = "", ""  # of the block that is open
        self._line_begun = False  # prose of this line has been told

    def put(self, text: str) -> Iterator[Part]:
        """Take a piece of the text; returns what is known of it."""
        for piece in re.split(r"(?<=\n)", text):
            if self._line_begun:
                yield Part("prose", piece)
                self._line_begun = not piece.endswith("\n")
            elif piece:
                self._held += piece
                yield from self._told()

    def end(self) -> Iterator[Part]:
        """What is left."""
        line, self._held = self._held, ""
        if line:
            yield self._whole(line) if self._fence or _FENCE.fullmatch(line) else Part("prose", line)

    def _told(self) -> Iterator[Part]:
        line = self._held
        if line.endswith("\n"):
            self._held = ""
            yield self._whole(line[:-1])
        elif not self._fence and not _FENCE.fullmatch(line) and not _MAYBE_FENCE.fullmatch(line):
            self._held, self._line_begun = "", True
            yield Part("prose", line)

    def _whole(self, line: str) -> Part:
        """A line of which nothing has been told."""
        match = _FENCE.fullmatch(line.rstrip())
        if self._fence:
            if match and match[1].startswith(self._fence) and not match[2].strip():
                self._fence = ""
                return Part("fence", line)
            return Part("code", line, self._language)
        if match:
            self._fence, self._language = match[1], (match[2].split() or [""])[0]
            return Part("fence", line, self._language)
        return Part("prose", line + "\n")
