"""Writes a shape in llguidance's own terms. Pure text, but for GBNF, which llguidance translates."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

from qwen_edge.protocol.messages import Shape
from qwen_edge.structured.closed import closed
from qwen_edge.structured.errors import ShapeError
from qwen_edge.structured.schema import check

# between two values in a tool call: the spaces of Python's json.dumps, in which Qwen's calls are written
_SPACED = {"item_separator": ", ", "key_separator": ": "}

_LONGEST_GBNF = 1 << 15  # characters: llguidance's translator takes a second for as many, and four for twice as many
_MOST_RULES = 500  # llguidance compiles rules recursively: some 1,200 in a chain exhaust a stack of 8 MB
# texts, regular expressions, comments
_LITERALS = re.compile(r'"(?:\\.|[^"\\])*"|/(?!/)(?:\\.|[^/\\\n])+/|//.*|#.*')
_RULE = re.compile(r"^\s*[?!]?\w[\w-]*(?:\[[^\]]*\])?(?:\.-?\d+)?\s*:", re.MULTILINE)


def grammar(shape: Shape) -> str:
    """The grammar that llguidance compiles. Raises ShapeError for a text that cannot be read."""
    try:
        return _grammar(shape)
    except (ValueError, RecursionError) as error:  # of the parsers of JSON and regular expressions
        raise ShapeError(f"the {shape.kind} cannot be read: {error}") from None


def _grammar(shape: Shape) -> str:
    if shape.kind == "json_schema":
        return _document({"json_schema": _with_options(_read(shape.text), shape)})
    if shape.kind == "calls":
        return _document({"lark_grammar": _calls(shape)})
    if shape.kind == "regex":
        return _document({"lark_grammar": f"start: {_regex(shape.text)}"})
    if shape.kind == "choice":
        if not (words := json.loads(shape.text)):
            raise ShapeError("there is nothing to choose from")
        listed = " | ".join(map(_quoted, words))
        return _document({"lark_grammar": f"start: WORD\nWORD: {listed}"})
    return _document({"lark_grammar": _checked(shape.text if shape.kind == "lark" else _from_gbnf(shape.text))})


def single_calls(shape: Shape) -> dict[str, Shape]:
    """The calls of each tool by itself."""
    return {name: Shape("calls", json.dumps([[name, schema]])) for name, schema in json.loads(shape.text)}


def without_schemas(shape: Shape, names: Collection[str]) -> Shape:
    """The same calls; the arguments of these tools are any JSON object."""
    tools = [[name, {"type": "object"} if name in names else schema] for name, schema in json.loads(shape.text)]
    return Shape("calls", json.dumps(tools))


def _document(grammar: dict[str, Any]) -> str:
    return json.dumps({"grammars": [grammar]}, ensure_ascii=False)


def _quoted(value: Any) -> str:
    """JSON, as it may stand in a Lark grammar, where DEL may not."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _with_options(schema: dict[str, Any], shape: Shape, **separators: str) -> dict[str, Any]:
    """The schema with llguidance's own options inside, as it reads them. `lenient`: what it does not implement is known
    (`schema.check`)."""
    options = {"whitespace_flexible": shape.whitespace, "lenient": True, "coerce_one_of": True}
    return {**closed(schema), "x-guidance": {**options, **separators}}


def _read(text: str) -> dict[str, Any]:
    """The schema, if it is one that llguidance compiles in bounded time and depth. The daemon has checked it as well,
    but one that it let through would end the whole engine. Raises ShapeError."""
    schema: dict[str, Any] = json.loads(text)
    check(schema)
    return schema


def _calls(shape: Shape) -> str:
    """One call of a tool, as Qwen writes it between its markers: {"name": "lamp", "arguments": {...}}, and the
    line break behind it, which is often one token with the braces."""
    tools = json.loads(shape.text)
    for _, schema in tools:
        check(schema)
    rules = []
    for number, (name, schema) in enumerate(tools):
        begin = _quoted(f'{{"name": {_quoted(name)}, "arguments": ')
        arguments = _quoted(_with_options(schema, shape, **_SPACED))
        rules.append(f'call_{number}: {begin} %json {arguments} "}}\\n"')
    return "\n".join([f"start: {' | '.join(f'call_{number}' for number in range(len(tools)))}", *rules])


def _regex(pattern: str) -> str:
    """The pattern between slashes, with its own slashes and line breaks escaped."""
    from llguidance import regex_to_lark

    return f"/{regex_to_lark(pattern, use_ascii='d')}/"


def _checked(lark: str) -> str:
    """The grammar, if it is one that llguidance compiles in bounded time and depth. Raises ShapeError."""
    bare = _LITERALS.sub(" ", lark)
    if "&" in bare:
        raise ShapeError("the grammar uses &: what is common to two expressions may take for ever to find")
    if "%json" in bare:
        raise ShapeError("the grammar contains a JSON schema (%json); send it as response_format")
    if len(_RULE.findall(bare)) > _MOST_RULES:
        raise ShapeError(f"the grammar has more than {_MOST_RULES} rules")
    return lark


def _from_gbnf(text: str) -> str:
    from llguidance.gbnf_to_lark import any_to_lark

    if len(text) > _LONGEST_GBNF:
        raise ShapeError(f"the grammar has more than {_LONGEST_GBNF} characters; write it in Lark, which may be longer")
    try:
        lark: str = any_to_lark(text)
    except Exception as error:  # its parser raises exceptions of several kinds
        raise ShapeError(f"the grammar cannot be read: {error}") from None
    return lark
