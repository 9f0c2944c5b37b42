"""Text from outside (models, servers, files, names) made fit for a terminal, which then shows it and obeys nothing."""

from __future__ import annotations

import unicodedata

_SHOWN = {"\n", "\t"}
# controls (escape codes begin with one), and formatting that turns the reading direction around
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = {"\u200c", "\u200d"}  # part of words and of emoji


def clean(text: str) -> str:
    """The same with control characters written out (\\x1b). Line ends and tabs stay."""
    return "".join(_written(one) if is_hidden(one) else one for one in text)


def is_hidden(one: str) -> bool:
    """Whether this character is not seen, but may be obeyed."""
    return one not in _SHOWN and one not in _JOINERS and unicodedata.category(one) in _HIDDEN


def _written(one: str) -> str:
    return one.encode("unicode_escape", errors="backslashreplace").decode()
