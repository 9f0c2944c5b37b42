"""Text from outside as it may be shown: in a log line, in an error, on a terminal."""

from __future__ import annotations

_MOST = 100  # characters


def printable(text: object, most: int = _MOST) -> str:
    """`text` on one line and no longer than `most` characters, with an ellipsis where it was cut. What a terminal or a
    log would obey instead of show is written as an escape sequence: line breaks, control characters, characters that
    turn the direction of writing or take no room, halves of surrogate pairs."""
    whole = str(text)
    shown = "".join(one if one.isprintable() else _escaped(one) for one in whole[: most + 1])
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
