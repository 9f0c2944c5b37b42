"""jinja2 as Hugging Face sets it up for chat templates: sandboxed, with its functions, filters and tags.

A template is untrusted code. The sandbox keeps it away from Python's objects, but does not prevent an endless loop or
gigabytes of memory: `renderer/` runs it in a process with limits.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, ClassVar

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from qwen_edge.core.printable import printable

LONGEST_SOURCE = 1 << 18  # characters; the longest templates of well-known models have about 30,000
LONGEST_PROMPT = 1 << 23  # characters: more than any context holds
_LONGEST_REASON = 300  # characters: some templates put all messages into their error text
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class DeclinedError(jinja2.TemplateError):
    """The template called raise_exception to refuse these messages."""


class Program:
    """One compiled template."""

    def __init__(self, source: str) -> None:
        """Raises jinja2.TemplateSyntaxError, or any other exception: the compiler computes constant expressions."""
        if len(source) > LONGEST_SOURCE:
            raise ValueError(f"it has {len(source):,} characters, more than {LONGEST_SOURCE:,}")
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationTags]
        )
        environment.filters["tojson"] = to_json
        environment.globals["raise_exception"] = _decline
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        self._template = environment.from_string(source)

    def render(self, /, **variables: Any) -> str:
        """The rendered text, without lone surrogates. Raises DeclinedError, or any other exception."""
        pieces, length = list[str](), 0
        for piece in self._template.generate(variables):
            length += len(piece)
            if length > LONGEST_PROMPT:
                raise OverflowError(f"it renders more than {LONGEST_PROMPT:,} characters")
            pieces.append(piece)
        text = "".join(pieces)
        if lone := _LONE_SURROGATE.search(text):
            raise ValueError(f"it renders {printable(lone[0])}, half of a surrogate pair, which is no character")
        return text


class _GenerationTags(Extension):
    """{% generation %} and {% endgeneration %} mark the model's own text, for training tools. They are ignored here:
    the text between them is rendered as usual."""

    tags: ClassVar[set[str]] = {"generation"}  # type: ignore[misc]

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def error_line(error: BaseException) -> str:
    """The template's error in one line."""
    if isinstance(error, MemoryError):
        return "it takes too much memory"
    if isinstance(error, RecursionError):
        return "the template, the messages or the tools are nested too deeply"
    words = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, jinja2.TemplateSyntaxError):
        words = f"line {error.lineno}: {words}"
    return printable(words, _LONGEST_REASON)


def to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The filter `tojson` with the arguments of the one in transformers. jinja2's own filter escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _decline(message: str) -> None:
    raise DeclinedError(message)
