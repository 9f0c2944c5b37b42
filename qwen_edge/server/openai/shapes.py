"""The parameters that ask for a shape of the answer.

Reference: https://platform.openai.com/docs/guides/structured-outputs, with the parameters of vLLM (guided_json,
guided_regex, guided_choice, guided_grammar, structured_outputs) and llama-server (grammar, json_schema, and a schema
inside json_object). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec

from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.protocol.messages import ShapeKind
from qwen_edge.server.parameters import Group, about
from qwen_edge.server.sampling import SamplingParameters
from qwen_edge.server.shapes import ANY_OBJECT, Wanted

_MOST_CHOICES = 1024


class NamedSchema(Group):
    """OpenAI's: a schema with a name. `strict` false accepts keywords that are not enforced."""

    schema: dict[str, Any] | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Group):
    """`schema` inside json_object is llama-server's."""

    type: str | None = None
    json_schema: NamedSchema | None = None
    schema: dict[str, Any] | None = None


class StructuredOutputs(Group):
    """vLLM's. At most one of these."""

    json: dict[str, Any] | str | None = None
    regex: str | None = None
    choice: list[str | None] | None = None
    grammar: str | None = None
    json_object: bool | None = None


_SAME = about("The same, in the words of llama-server and vLLM.")


class ShapeParameters(SamplingParameters, kw_only=True):
    """What the answer looks like"""

    # behind those of sampling: msgspec has no multiple inheritance
    response_format: Annotated[
        ResponseFormat | None,
        about("`text`, `json_object` or `json_schema`: see [answers that keep a shape](#answers-that-keep-a-shape)."),
    ] = None
    grammar: Annotated[str | None, _SAME] = None
    json_schema: Annotated[dict[str, Any] | None, _SAME] = None
    guided_json: Annotated[dict[str, Any] | str | None, _SAME] = None
    guided_regex: Annotated[str | None, _SAME] = None
    guided_choice: Annotated[list[str | None] | None, _SAME] = None
    guided_grammar: Annotated[str | None, _SAME] = None
    structured_outputs: Annotated[StructuredOutputs | None, _SAME] = None
    x_json_whitespace: Annotated[
        bool | None, about("`true`: white space may stand between the values of JSON; without it JSON is compact.")
    ] = None
    x_schema_in_prompt: Annotated[
        bool | None, about("`false`: the model is not shown the schema that its answer is held to.")
    ] = None


def wanted_shapes(body: ShapeParameters) -> list[Wanted]:
    """All shapes that the body asks for; a request may ask for one. Raises RequestError."""
    return [*_from_response_format(body.response_format), *_from_others(body)]


def _from_response_format(form: ResponseFormat | None) -> list[Wanted]:
    kind = form.type if form else None
    if form is None:
        return []
    named = form.json_schema or NamedSchema()
    unread = "json_schema" if named.schema is not None else "schema" if form.schema is not None else ""
    if kind in (None, "text"):
        if unread:
            raise _not_json_schema(unread, kind)
        return []
    if kind == "json_object":
        if named.schema is not None:
            raise _not_json_schema("json_schema", kind)
        if form.schema is None:
            return [Wanted("response_format", "json_schema", ANY_OBJECT)]
        return [Wanted("response_format.schema", "json_schema", form.schema)]
    if kind != "json_schema":
        raise RequestError(
            f"response_format.type: {printable(str(kind), 60)!r} is unknown. "
            'Send "text", "json_object" or "json_schema".',
            code="unsupported_value",
            parameter="response_format.type",
        )
    if named.schema is not None and form.schema is not None:
        raise RequestError(
            "response_format.json_schema and response_format.schema both ask for a shape. Send one of them.",
            parameter="response_format.schema",
        )
    if (schema := named.schema if form.schema is None else form.schema) is None:
        raise RequestError(
            'response_format.json_schema.schema is missing: with type "json_schema" it holds the schema.',
            parameter="response_format.json_schema.schema",
        )
    return [Wanted("response_format.json_schema.schema", "json_schema", schema, named.strict)]


def _not_json_schema(unread: str, kind: str | None) -> RequestError:
    """A schema that the type says nothing about."""
    present = "response_format.type is missing" if kind is None else f'response_format.type is "{kind}"'
    return RequestError(
        f'{present}, and response_format.{unread} would not be used. Send the type "json_schema" with a schema.',
        parameter="response_format.type",
    )


def _from_others(body: ShapeParameters) -> list[Wanted]:
    """What vLLM's and llama-server's parameters ask for."""
    outputs = body.structured_outputs or StructuredOutputs()
    found = [
        _schema("json_schema", body.json_schema),
        _schema("guided_json", body.guided_json),
        _schema("structured_outputs.json", outputs.json),
        _schema("structured_outputs.json_object", ANY_OBJECT if outputs.json_object else None),
        _text("guided_regex", "regex", body.guided_regex),
        _text("structured_outputs.regex", "regex", outputs.regex),
        _choice("guided_choice", body.guided_choice),
        _choice("structured_outputs.choice", outputs.choice),
        _grammar("grammar", body.grammar),
        _grammar("guided_grammar", body.guided_grammar),
        _grammar("structured_outputs.grammar", outputs.grammar),
    ]
    return [one for one in found if one is not None]


def _schema(parameter: str, value: Mapping[str, Any] | str | None) -> Wanted | None:
    """vLLM takes a schema as text, too."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            raise RequestError(f"{parameter} is no JSON schema.", parameter=parameter) from None
    return None if value is None else Wanted(parameter, "json_schema", value)


def _text(parameter: str, kind: ShapeKind, value: str | None) -> Wanted | None:
    return Wanted(parameter, kind, value) if value else None


def _choice(parameter: str, value: Sequence[str | None] | None) -> Wanted | None:
    if value is None:
        return None
    words = [word for word in value if word is not None]
    if not 1 <= len(words) <= _MOST_CHOICES or not all(words):
        raise RequestError(
            f"{parameter} must hold 1 to {_MOST_CHOICES} texts, none of them empty.", parameter=parameter
        )
    return Wanted(parameter, "choice", words)


def _grammar(parameter: str, value: str | None) -> Wanted | None:
    """GBNF has rules with ::=, Lark rules with a colon."""
    return _text(parameter, "gbnf" if value and "::=" in value else "lark", value)
