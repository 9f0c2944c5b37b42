"""Text from outside (models, servers, files, names) as it may be shown in a log line, in an error, on a terminal.

What a log or a terminal would obey instead of show is written as an escape sequence (\\x1b): control characters,
characters that turn the direction of writing or take no room, halves of surrogate pairs.
"""

from __future__ import annotations

import unicodedata

_MOST = 100  # characters
_LINES = {"\n", "\t"}
# controls (escape codes begin with one), formatting, surrogates, separators of lines and paragraphs
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = {"\u200c", "\u200d"}  # part of words and of emoji


def printable(text: object, most: int = _MOST) -> str:
    """`text` on one line and no longer than `most` characters, with an ellipsis where it was cut."""
    whole = str(text)
    shown = "".join(_escaped(one) if is_hidden(one) or one in _LINES else one for one in whole[: most + 1])
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def clean(text: str) -> str:
    """`text` whole; line ends and tabs stay."""
    return "".join(_escaped(one) if is_hidden(one) else one for one in text)


def is_hidden(one: str) -> bool:
    """Whether this character is not seen, but may be obeyed."""
    return one not in _LINES and one not in _JOINERS and unicodedata.category(one) in _HIDDEN


def _escaped(one: str) -> str:
    return one.encode("unicode_escape", errors="backslashreplace").decode()
