"""How text that others wrote (models, servers, files, errors) is shown on a terminal: as it is, and as nothing else."""

from __future__ import annotations

import json
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_edge.paths import Place

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_SHOWN = {"\n", "\t"}
# controls (escape codes begin with one), and formatting that turns the reading direction around
_HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = {"\u200c", "\u200d"}  # part of words and of emoji


def clean(text: str) -> str:
    """The same with control characters written out (\\x1b), so that a terminal shows them and obeys none."""
    return "".join(_written(one) if _is_hidden(one) else one for one in text)


def terminal(*, stderr: bool = False) -> Console:
    """Where tables go: what stands in them is no markup, even an address such as http://[fe80::1]."""
    from rich.console import Console  # the daemon starts without it

    return Console(stderr=stderr, markup=False, emoji=False)


def plain(text: object) -> Text:
    """For rich: one line, no markup in it, and no control characters."""
    from rich.text import Text

    return Text(clean(str(text)).replace("\n", "\\n").replace("\t", "\\t"))


def as_json(value: Any) -> str:
    """For scripts, and for terminals: JSON leaves some control characters as they are."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return "".join(f"\\u{ord(one):04x}" if _is_hidden(one) and ord(one) < 0x10000 else one for one in text)


def _is_hidden(one: str) -> bool:
    return one not in _SHOWN and one not in _JOINERS and unicodedata.category(one) in _HIDDEN


def _written(one: str) -> str:
    return one.encode("unicode_escape", errors="backslashreplace").decode()


def other_program(place: Place) -> str:
    """A sentence, if the service runs another installation than this one."""
    if place.program is None or place.program.parent.resolve() == (Path(sys.prefix) / "bin").resolve():
        return ""
    return f"The service runs {place.program}, and this is the installation in {sys.prefix}."
