"""Makes text from outside (models, servers, files, names) safe to show in a log line, in an error, on a terminal.

Characters that would control a log or a terminal are written as escape sequences (\\x1b): control characters, invisible
characters, characters that change the direction of writing, halves of surrogate pairs.
"""

from __future__ import annotations

import unicodedata

_MOST = 100  # characters
_LINES = {"\n", "\t"}
# controls (escape codes begin with one), formatting, surrogates, separators of lines and paragraphs
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_CONTROLS = {"Cc", "Cs"}
_JOINERS = {"\u200c", "\u200d"}  # part of words and of emoji


def printable(text: object, most: int = _MOST) -> str:
    """`text` on one line and no longer than `most` characters, with an ellipsis where it was cut."""
    whole = str(text)
    shown = "".join(_escaped(one) if is_hidden(one) or one in _LINES else one for one in whole[: most + 1])
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def clean(text: str) -> str:
    """`text` in full length; line ends and tabs are kept."""
    return "".join(_escaped(one) if is_hidden(one) else one for one in text)


def without_controls(text: str) -> str:
    """`text` for a file or another program, whose output may reach a terminal: escaped is only what controls a terminal
    or is no character. Invisible characters that belong to a text, as in Arabic, stay."""
    return "".join(
        _escaped(one) if one not in _LINES and unicodedata.category(one) in _CONTROLS else one for one in text
    )


def is_hidden(one: str) -> bool:
    """Whether the character is invisible, and may control a log or a terminal."""
    return one not in _LINES and one not in _JOINERS and unicodedata.category(one) in _HIDDEN


def _escaped(one: str) -> str:
    return one.encode("unicode_escape", errors="backslashreplace").decode()
