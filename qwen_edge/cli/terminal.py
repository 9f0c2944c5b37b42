"""Shows text from models, servers, files and errors on a terminal: verbatim, never as markup or control sequences."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_edge.config.paths import Place
from qwen_edge.core.printable import clean, is_hidden

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


LEVEL_STYLES = {"nominal": "green", "warm": "yellow", "hot": "red", "critical": "bold red"}
"""How rich shows the governor's levels; "unknown" has no style."""


def terminal(*, stderr: bool = False) -> Console:
    """The console for tables. Text in them is not markup, not even an address such as http://[fe80::1]."""
    from rich.console import Console  # the daemon does not import rich

    return Console(stderr=stderr, markup=False, emoji=False)


def plain(text: object) -> Text:
    """Text for rich: one line, without markup and control characters."""
    from rich.text import Text

    return Text(clean(str(text)).replace("\n", "\\n").replace("\t", "\\t"))


def as_json(value: Any) -> str:
    """JSON for scripts and terminals: control characters that JSON would leave as they are become \\u escapes."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return "".join(f"\\u{ord(one):04x}" if is_hidden(one) and ord(one) < 0x10000 else one for one in text)


def other_program(place: Place) -> str:
    """A sentence if the service runs another installation than this one, else ""."""
    if place.program is None or place.program.parent.resolve() == (Path(sys.prefix) / "bin").resolve():
        return ""
    return f"The service runs {place.program}, but this command belongs to the installation in {sys.prefix}."
