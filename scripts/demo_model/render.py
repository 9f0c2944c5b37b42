"""Renders a conversation with the demo's chat template, in Hugging Face's jinja environment."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

TEMPLATE = Path(__file__).resolve().parents[2] / "models" / "demo" / "chat_template.jinja"
Message = Mapping[str, Any]


@cache
def compiled(path: Path) -> Template:
    """The template at the path, as `transformers` would compile it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(path.read_text(encoding="utf-8"))


def render(
    messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], *, thinking: bool = True, prompt: bool = False
) -> str:
    """The conversation as text; with `prompt`, up to where the assistant's answer begins."""
    return compiled(TEMPLATE).render(
        messages=messages, tools=tools, add_generation_prompt=prompt, enable_thinking=thinking
    )
