"""The chat template of a model file, without its weights."""

from __future__ import annotations

from pathlib import Path

from qwen_edge.chat.abilities import TemplateSource
from qwen_edge.llama.bindings import send_log_to
from qwen_edge.llama.model import Model


def read_template(path: Path) -> TemplateSource | None:
    """None if the file has none. Takes a third of a second. Raises EngineError."""
    send_log_to(lambda _level, _text: None)
    with Model(path, gpu_layers=0, simulate=True) as model:
        return template_of(model)


def template_of(model: Model) -> TemplateSource | None:
    """Raises UnservableError if the template is no text."""
    specials, bos, eos = tuple(model.vocab.specials), model.token_text("bos"), model.token_text("eos")
    return TemplateSource.chosen(model.chat_template, model.tool_template, specials, bos, eos)
