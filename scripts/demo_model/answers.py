"""Reads what the model said: thought, words and calls, and whether it is what was expected."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer taken apart; `calls` is None when a call cannot be read."""

    thought: str
    text: str
    calls: Sequence[Mapping[str, Any]] | None


def read(text: str) -> Answer:
    """The text after the prompt, up to the end of the turn."""
    before, mark, after = text.partition("</think>")
    thought, rest = (before.removeprefix("<think>").strip(), after) if mark else ("", before)
    try:
        calls = [json.loads(body) for body in _CALL.findall(rest)]
    except json.JSONDecodeError:
        return Answer(thought, rest.strip(), None)
    return Answer(thought, _CALL.sub("", rest).strip(), calls)


def is_right(answer: Answer, calls: Sequence[Mapping[str, Any]], text: str) -> bool:
    """Calls must be the expected ones, name and arguments; without calls the words must be."""
    if calls:
        return answer.calls is not None and list(answer.calls) == list(calls)
    return not answer.calls and answer.text == text
