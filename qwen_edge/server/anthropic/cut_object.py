"""What is complete of a JSON object that was cut. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_CLOSES = {"{": "}", "[": "]"}


def cut_object(text: str) -> dict[str, Any]:
    """The object at the beginning of `text`, with the members that are complete; empty if it is no object. A number at
    the end of the text is not complete: further digits may be missing."""
    closing, whole, is_name = list[str](), "", False
    for token in _TOKEN.finditer(text):
        word, end = token[0], token.end()
        if word in _CLOSES:
            closing.append(_CLOSES[word])
            is_name = word == "{"
        elif word in "}]":
            closing = closing[:-1]
            is_name = False
        elif word == ",":
            is_name = closing[-1:] == ["}"]
            continue
        elif word == ":":
            is_name = False
            continue
        elif is_name or (end == len(text) and word[0] != '"'):
            continue
        whole = text[:end] + "".join(reversed(closing))
        if not closing:
            break
    try:
        return msgspec.json.decode(whole, type=dict[str, Any])
    except msgspec.DecodeError:
        return {}
