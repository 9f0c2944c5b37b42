"""The chat template of a checkpoint, tried before anything is written: no model can be served without a sound one."""

from __future__ import annotations

from pathlib import Path

import msgspec

from qwen_edge.chat.abilities import TemplateAbilities, TemplateSource
from qwen_edge.convert.tokenizer import CONTROL, USER_DEFINED, Tokenizer
from qwen_edge.errors import ConversionError, UnservableError
from qwen_edge.renderer.handle import check_template


class _Named(msgspec.Struct):
    """One of several templates."""

    name: str
    template: str


def check_chat_template(folder: Path, tokenizer: Tokenizer) -> TemplateAbilities:
    """What the template can do. Takes a tenth of a second, and some seconds for one that loops. Raises
    ConversionError."""
    try:
        return check_template(_source(tokenizer))
    except msgspec.ValidationError as error:
        raise ConversionError(f"{folder / 'tokenizer_config.json'}: chat_template: {error}.") from None
    except UnservableError as error:
        raise ConversionError(f"{folder}: {error}") from None


def _source(tokenizer: Tokenizer) -> TemplateSource | None:
    """As the daemon will find it in the GGUF file. Raises msgspec.ValidationError."""
    given = tokenizer.chat_template
    named = [_Named("default", given)] if isinstance(given, str) else msgspec.convert(given or [], list[_Named])
    templates = {one.name: one.template for one in named}
    default, tool_use = templates.get("default"), templates.get("tool_use")
    if not (default or tool_use):
        return None
    kinds = zip(tokenizer.texts, tokenizer.kinds, strict=True)
    specials = tuple(text for text, kind in kinds if kind in (CONTROL, USER_DEFINED))
    bos, eos = (_text(tokenizer, role) for role in ("bos", "eos"))
    return TemplateSource(default or tool_use or "", tool_use or None, specials, bos, eos)


def _text(tokenizer: Tokenizer, role: str) -> str:
    token = tokenizer.roles.get(role)
    return "" if token is None else tokenizer.texts[token]
