"""Qwen3's soft switch: /think and /no_think in a message turn the thinking on and off, the last one counts. Pure.

Source: https://huggingface.co/Qwen/Qwen3-0.6B, "Advanced Usage: Switching Between Thinking and Non-Thinking Modes via
User Input".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# a word of its own, perhaps with punctuation behind it: not a path, and not the name of a file
_SWITCH = re.compile(r"(?<!\S)/(?P<no>no_)?think(?![\w/-]|\.\w)")
_ROLES = ("user", "system")  # the model was trained on switches in these


def switched_thinking(messages: Sequence[Mapping[str, Any]]) -> bool | None:
    """What the last switch in the messages asks for; None if there is none. `messages` are in the template's form."""
    for message in reversed(messages):
        if message["role"] in _ROLES and (found := list(_SWITCH.finditer(message["content"]))):
            return found[-1]["no"] is None
    return None
