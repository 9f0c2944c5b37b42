"""The chat templates of a checkpoint, from any of the files that may hold them, chosen as in transformers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qwen_edge.convert.checkpoint import read_json, read_text, short_repr
from qwen_edge.core.errors import ConversionError

DEFAULT = "default"


def read_templates(folder: Path, settings: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Name -> template, and notes on the choice. {} if there is no template; otherwise one is named "default".

    Template files take precedence over tokenizer_config.json (`settings`), and that over chat_template.json, which is
    meant for image processors. Raises ConversionError.
    """
    where = folder / "tokenizer_config.json"
    inside = _by_name(settings.get("chat_template"), where)
    chosen, notes = {**inside, **_additional(folder)}, []
    file = folder / "chat_template.jinja"
    if file.exists():
        chosen = {DEFAULT: read_text(file), **_additional(folder)}
        if inside and inside.get(DEFAULT) != chosen[DEFAULT]:
            notes.append(f"{file.name} is used, as in transformers; {where.name} has another chat template")
    if not chosen:
        where = folder / "chat_template.json"
        chosen = _by_name(read_json(where).get("chat_template"), where)
    if chosen and DEFAULT not in chosen:
        raise ConversionError(
            f"{where}: there are chat templates ({', '.join(sorted(chosen))[:200]}), but none is called {DEFAULT!r}. "
            "Give that name to the one for ordinary conversations."
        )
    return chosen, notes


def _by_name(found: object, where: Path) -> dict[str, str]:
    """Name -> template from a value that is a template, a list of {name, template}, or an object; {} if empty."""
    if not found:
        return {}
    if isinstance(found, str):
        return {DEFAULT: found}
    items: list[tuple[Any, Any]] = []
    if isinstance(found, dict):
        items = list(found.items())
    elif isinstance(found, list) and all(isinstance(one, dict) for one in found):
        items = [(one.get("name"), one.get("template")) for one in found]
    if not items or not all(isinstance(name, str) and name and isinstance(text, str) for name, text in items):
        raise ConversionError(
            f"{where}: chat_template is {short_repr(found)}; a text or a list of {{name, template}} was expected."
        )
    named = dict(items)
    if len({gguf_template_name(name) for name in named}) < len(items):
        raise ConversionError(f"{where}: two chat templates have the same name. Remove one of them.")
    return named


def _additional(folder: Path) -> dict[str, str]:
    files = sorted((folder / "additional_chat_templates").glob("*.jinja"))
    named = {file.stem: read_text(file) for file in files}
    if len({gguf_template_name(name) for name in named}) < len(named):
        raise ConversionError(f"{files[0].parent}: two chat templates have the same name. Remove one of them.")
    return named


def gguf_template_name(name: str) -> str:
    """The name of a template as GGUF writes it: every character but ASCII letters and digits becomes _."""
    return "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
