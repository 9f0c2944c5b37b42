"""What a model, a file or a server may say to make a page run something, ask somebody else or show what is not true.

Each text sets `window.__pwned`, asks evil.invalid, or leaves an id or a class that begins with `clobber`, if it works.
"""

from __future__ import annotations

import re
from pathlib import Path

RUN = "window.__pwned=1"
ELSEWHERE = "https://evil.invalid"


def _written() -> dict[str, str]:
    """The texts of hostile.txt, by name. RUN and ELSEWHERE in them stand for the two above; a tab and a control
    character are written as in Python."""
    text = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")
    parts = (part.partition("\n") for part in ("\n" + text).split("\n=== ")[1:])
    meant = {"RUN": RUN, "ELSEWHERE": ELSEWHERE, "\\t": "\t", "\\x01": "\x01"}
    return {name: re.sub(r"RUN|ELSEWHERE|\\t|\\x01", lambda found: meant[found[0]], body) for name, _, body in parts}


MARKUP = _written()

TEXTS = {
    "terminal": "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b]8;;javascript:x\x07link\x1b]8;;\x07 \x9b2J",
    "right to left": "\u202edrowssap ruoy\u2066evil\u2069 \u200fa \u2067x",
    "invisible": "pass\u200bword \u2060\ufeff\u00ad \U000e0041\U000e0042 \u034f",
    "combining": "Z" + "\u0300\u0301\u0302\u0303" * 500,
    "null and surrogates": "a\x00b \ufffe \uffff \x7f \x85",
    "line separators": "a\u2028b\u2029c\rd\x0be\x0cf",
    "prototype": "__proto__ constructor.prototype toString hasOwnProperty {{7*7}} ${7*7} <%= 7*7 %> #{7*7}",
}

HUGE = {
    "nested quotes": "> " * 3000 + "deep",
    "nested lists": "\n".join(" " * 2 * depth + "- x" for depth in range(250)),
    "nested lists in one line": "- " * 3000 + "deep",
    "brackets": "[" * 20_000,
    "links that never close": "[a](" * 5000,
    "images that never close": "![" * 10_000,
    "stars": "*a" * 8000,
    "underscores": "_" * 20_000 + "a" + "_" * 20_000,
    "backticks": " ".join("`" * length for length in range(1, 250)),
    "tags": "<b>" * 4000,
    "divs": "<div>" * 4000 + "deep",
    "angle brackets": "<" * 20_000,
    "table": "|" * 3000 + "\n" + "|-" * 3000 + "|\n" + ("|" * 3000 + "\n") * 5,
    "references": "\n".join(f"[r{number}]: http://a.example/{number}" for number in range(3000)),
    "entities": "&#x41;" * 8000,
    "a line": "x" * 200_000,
    "words in a line": "word " * 40_000,
    "line breaks": "\n" * 50_000 + "end",
    "math and svg": "<math><mtext>" * 1000 + "<svg><desc>" * 1000,
}
