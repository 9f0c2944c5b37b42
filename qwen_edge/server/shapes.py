"""The shape that an answer is asked to keep: how a request's wish becomes one, in every dialect. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.protocol.messages import Shape, ShapeKind
from qwen_edge.structured.drafts import current
from qwen_edge.structured.errors import ShapeError
from qwen_edge.structured.keywords import pattern_complaint
from qwen_edge.structured.schema import check

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
_LONGEST = 1 << 16  # characters of a pattern or a grammar
STRICT_REMEDY = 'accept answers that are not held to it: response_format of type "json_schema" with "strict": false'
_LARGE = ", because it has a number beyond 2^53"
_REASONS: Mapping[str, str] = {  # of keywords that other schemas may have
    "oneOf": ", because a value may fit two of its schemas: anyOf would be",
    "minProperties": ", unless as many properties are required",
    "maxProperties": ", because the schema names optional properties, or allows others",
    **dict.fromkeys(("const", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _LARGE),
}


class Wanted(NamedTuple):
    """A shape as the client wrote it. `parameter`: where. `strict`: whether keywords that are not enforced are errors
    (None: keywords are, formats are not)."""

    parameter: str
    kind: ShapeKind
    value: Any
    strict: bool | None = None


class AnswerShape(NamedTuple):
    """`shape`: None if any text will do. `parameter`: what the client calls the shape. `shown`: the schema, if the
    model is to see it. `unenforced`: what of the schema answers are not held to."""

    shape: Shape | None = None
    parameter: str | None = None
    shown: str = ""
    unenforced: tuple[str, ...] = ()


def answer_shape(
    wanted: Sequence[Wanted], *, whitespace: bool = False, shown: bool = True, remedy: str = STRICT_REMEDY
) -> AnswerShape:
    """The shape of the answer, if one parameter asks for one. `whitespace`: it may stand between the values of JSON.
    `shown`: the model is to see the schema. `remedy`: how the client accepts what is not enforced. Raises
    RequestError."""
    if not wanted:
        return AnswerShape()
    if len(wanted) > 1:
        names = " and ".join(one.parameter for one in wanted[:2])
        raise RequestError(f"{names} both ask for a shape. Send one of them.", parameter=wanted[1].parameter)
    [one] = wanted
    value = one.value
    unenforced: tuple[str, ...] = ()
    if one.kind == "json_schema":
        value, unenforced = checked(one.value, one.parameter, strict=one.strict, remedy=remedy)
    elif isinstance(one.value, str) and len(one.value) > _LONGEST:
        raise RequestError(f"{one.parameter} has more than {_LONGEST} characters.", parameter=one.parameter)
    elif one.kind == "regex" and (wrong := pattern_complaint(one.value)):
        raise RequestError(f"{one.parameter}: {wrong}.", code="unsupported_value", parameter=one.parameter)
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return AnswerShape(
        Shape(one.kind, text, whitespace),
        one.parameter,
        text if shown and one.kind == "json_schema" and one.value is not ANY_OBJECT else "",
        unenforced,
    )


class CheckedSchema(NamedTuple):
    """`schema`: in the words of JSON Schema 2020-12. `unenforced`: what of it answers are not held to."""

    schema: Mapping[str, Any]
    unenforced: tuple[str, ...]


def checked(schema: Mapping[str, Any], parameter: str, *, strict: bool | None, remedy: str) -> CheckedSchema:
    """The schema as it is enforced. Raises RequestError if a keyword is not enforced, unless `strict` is False; if
    `strict` is True, for a format, too. `remedy`: how the client accepts what is not enforced."""
    schema = current(schema)
    try:
        found = check(schema)
    except ShapeError as error:
        raise RequestError(f"{parameter}: {error}.", parameter=parameter) from None
    refused = found.keywords if strict is not False else ()
    if refused := refused + (found.formats if strict else ()):
        why = _REASONS.get(refused[0].partition(" ")[0], "")
        raise RequestError(
            f"{parameter}: {printable(refused[0], 200)} is not enforced here{why}. Leave it out, or {remedy}.",
            code="unsupported_value",
            parameter=parameter,
        )
    return CheckedSchema(schema, found.keywords + found.formats)
