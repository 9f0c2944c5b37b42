"""/openapi.json: the description of all paths in OpenAPI 3.1, made of the routes and of the types that check bodies.

A path with aliases is described once: `x-aliases` lists the others, so that generated clients have each call once.
`x-treatment` says of a parameter whether it is honoured, mapped, a hint, or refused. The schema of a stream is that of
each of its events, as is usual before OpenAPI 3.2. Pure.

Reference: https://spec.openapis.org/oas/v3.1.1.html.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec
from aiohttp import web

from qwen_edge.server.dialects import Dialects
from qwen_edge.server.parameters import Group, fields_of, read_as_of, structs_in
from qwen_edge.server.routes import Route, is_open
from qwen_edge.server.sse import EVENTS

Json = dict[str, Any]

_REF = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"\{(?P<name>\w+)(?::(?P<pattern>[^{}]*))?\}")  # in aiohttp's paths
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
_BARE = {304}  # statuses without a body
_WAITS = {429, 503}  # statuses that may have Retry-After
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "string", "pattern": "^[0-9]+$"}}}

_OVERLOADED = 529


class Description:
    """The description of one application. It is made when it is first asked for."""

    def __init__(self, routes: Sequence[Route], dialects: Dialects, *, keys: bool, ignores_unknown: bool) -> None:
        """`keys`: whether requests need a key. `ignores_unknown`: whether unknown parameters are passed over."""
        self._routes, self._dialects = routes, dialects
        self._keys, self._ignores_unknown = keys, ignores_unknown

    @cached_property
    def page(self) -> bytes:
        """The JSON."""
        return msgspec.json.encode(self.document)

    @cached_property
    def document(self) -> Json:
        """The value of the JSON."""
        types = [one for route in self._routes for one in self._types(route) if one is not None]
        schemas = _Schemas(types, ignores_unknown=self._ignores_unknown)
        paths: dict[str, Json] = {}
        for route in self._routes:
            operation = self._operation(route, schemas)
            paths.setdefault(_PARAMETER.sub(r"{\g<name>}", route.path), {})[route.method.lower()] = operation
        return {
            "openapi": "3.1.0",
            "info": {"title": "qwen-edge", "version": version("qwen-edge")},
            "security": [{name: []} for name in _SCHEMES] + ([] if self._keys else [{}]),
            "paths": paths,
            "components": {"schemas": schemas.components, "securitySchemes": _SCHEMES},
        }

    def _types(self, route: Route) -> tuple[Any, ...]:
        return (route.body, route.answer, route.event, self._dialects.at(route.path).error_type)

    def _operation(self, route: Route, schemas: _Schemas) -> Json:
        operation: Json = {
            "operationId": _operation_id(route),
            "summary": route.summary,
            "parameters": _parameters(route),
            "responses": self._responses(route, schemas),
        }
        if route.body is not None:
            body = schemas.of(route.body)
            required = any(field.required for field in msgspec.structs.fields(route.body))
            operation["requestBody"] = {"required": required, "content": {"application/json": {"schema": body}}}
        if route.also:
            operation["x-aliases"] = [_PARAMETER.sub(r"{\g<name>}", path) for path in route.also]
        if is_open(route.path):
            operation["security"] = []
        return operation

    def _responses(self, route: Route, schemas: _Schemas) -> Json:
        """A response for each status. A status may have an answer of its own instead of the dialect's error."""
        error = {"application/json": {"schema": schemas.of(self._dialects.at(route.path).error_type)}}
        schema: Json = {"schema": {} if route.answer is None else schemas.of(route.answer)}
        answer = dict.fromkeys((route.content_type, *route.other_types), schema)
        if route.stream:
            answer[route.stream] = {"schema": self._stream(route, schemas)}
        contents = dict.fromkeys(route.answer_at, answer)
        statuses = sorted({*route.errors, *contents})
        return {
            str(status): {
                "description": _phrase(status),
                **({"headers": _RETRY_AFTER} if status in _WAITS else {}),
                **({} if status in _BARE else {"content": contents.get(status, error)}),
            }
            for status in statuses
        }

    def _stream(self, route: Route, schemas: _Schemas) -> Json:
        """The schema of each event of a stream, or of each line: the last one may be an error."""
        error = schemas.of(self._dialects.at(route.path).error_type)
        item = {} if route.event is None else {"anyOf": [schemas.of(route.event), error]}
        if route.stream != EVENTS:
            return item
        data = {"type": "string", "contentMediaType": "application/json", "contentSchema": item}
        properties = {"event": {"type": "string"}, "data": {"anyOf": [{"const": "[DONE]"}, data]}}
        return {"type": "object", "properties": properties, "required": ["data"]}


def _operation_id(route: Route) -> str:
    return re.sub(r"\W+", "_", route.method.lower() + _PARAMETER.sub(r"by_\g<name>", route.path))


def _parameters(route: Route) -> list[Json]:
    """The parameters in the path, which cannot be empty, and in the query."""
    in_path = [
        {"name": match["name"], "in": "path", "required": True, "schema": _path_schema(match["pattern"])}
        for match in _PARAMETER.finditer(route.path)
    ]
    in_query = [
        {"name": name, "in": "query", "description": about, "schema": {"type": "string"}}
        for name, about in route.query.items()
    ]
    return [*in_path, *in_query]


def _path_schema(pattern: str | None) -> Json:
    """Of a parameter in the path, which may hold any text but nothing if it has no pattern, or the pattern `.+`."""
    if pattern in (None, ".+"):
        return {"type": "string", "minLength": 1}
    return {"type": "string", "pattern": f"^{pattern}$"}


class _Schemas:
    """The JSON schemas of types, and the components to which they refer."""

    def __init__(self, types: Sequence[Any], *, ignores_unknown: bool) -> None:
        structs = {struct: None for one in types for struct in structs_in(one)}
        shadows = [shadow for struct in structs for field in fields_of(struct).values() for shadow in read_as_of(field)]
        listed = [*types, *structs, *shadows]
        found, self.components = msgspec.json.schema_components(listed, ref_template=_REF)
        self._of = list(zip(listed, found, strict=True))
        for struct in structs:
            self._complete(struct, self.components[self.of(struct)["$ref"].rpartition("/")[2]], ignores_unknown)

    def of(self, kind: Any) -> Json:
        return next(dict(schema) for one, schema in self._of if one is kind or one == kind)

    def _complete(self, struct: type[msgspec.Struct], component: Json, ignores_unknown: bool) -> None:
        """Add what msgspec does not know of the struct."""
        for name, annotated in fields_of(struct).items():
            for shadow in read_as_of(annotated):
                plain = component["properties"][name]
                for key in ("type", "items", "anyOf"):
                    plain.pop(key, None)
                plain.update(self.of(shadow))
        if issubclass(struct, Group) and not ignores_unknown:
            component["additionalProperties"] = {"type": "null"}
        component.update(getattr(struct, "rules", {}))


DESCRIPTION = web.AppKey("description", Description)


def _phrase(status: int) -> str:
    """What the status says; Anthropic's 529 is of no standard."""
    return "Overloaded" if status == _OVERLOADED else HTTPStatus(status).phrase
