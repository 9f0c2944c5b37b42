"""Checks the chat template of a checkpoint before anything is written: a model without a valid one cannot be served."""

from __future__ import annotations

from pathlib import Path

from qwen_edge.chat.abilities import TemplateAbilities, TemplateSource
from qwen_edge.convert.end_tokens import CONTROL, USER_DEFINED
from qwen_edge.convert.templates import DEFAULT
from qwen_edge.convert.tokenizer import Tokenizer
from qwen_edge.core.errors import ConversionError, UnservableError
from qwen_edge.renderer.handle import check_template


def check_chat_template(folder: Path, tokenizer: Tokenizer) -> TemplateAbilities:
    """The abilities of the template. Takes 0.1 s, and several seconds for a template that loops. Raises
    ConversionError."""
    try:
        return check_template(_source(tokenizer))
    except UnservableError as error:
        raise ConversionError(f"{folder}: {error}") from None


def _source(tokenizer: Tokenizer) -> TemplateSource | None:
    """The template as the daemon will read it from the GGUF file."""
    templates = tokenizer.chat_templates
    if DEFAULT not in templates:
        return None
    kinds = zip(tokenizer.texts, tokenizer.kinds, strict=True)
    specials = tuple(text for text, kind in kinds if kind in (CONTROL, USER_DEFINED))
    bos, eos = (_text(tokenizer, role) for role in ("bos", "eos"))
    return TemplateSource(templates[DEFAULT], templates.get("tool_use"), specials, bos, eos)


def _text(tokenizer: Tokenizer, role: str) -> str:
    token = tokenizer.roles.get(role)
    return "" if token is None else tokenizer.texts[token]
