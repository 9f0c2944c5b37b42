"""Reads a JSON body into the msgspec struct that a dialect declares for it. Every error names the parameter.

The struct is the only description of the parameters: the same types check a body, fill /openapi.json, and give the
tables of docs/api.md. A field is honoured, unless its type carries one of the marks below:

- `HINT`: the server accepts the parameter, and it changes nothing in the answer.
- `mapped(to)`: it means the same as another parameter.
- `only(values)`: no other value can be honoured: another value is an error.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from qwen_edge.config.validation import split_complaint
from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.server.body import parse_json, pass_over_unknown
from qwen_edge.server.spelling import advice

Treatment = Literal["honoured", "mapped", "hint", "refused"]


class Group(msgspec.Struct):
    """A group of parameters: the body itself, or an object inside it. An unknown name in it is an unknown parameter,
    null means the same as a missing value, and 150.0 the same as 150. (Objects that are no Group may have any
    fields.)"""


_Group = TypeVar("_Group", bound=Group)


def _mark(treatment: Treatment, about: str, **more: Any) -> msgspec.Meta:
    return msgspec.Meta(description=about, extra_json_schema={"x-treatment": treatment}, extra=more)


HINT = _mark("hint", "Accepted; it does not change the answer.")


def hint(about: str) -> msgspec.Meta:
    """Like HINT; `about` says why it changes nothing."""
    return _mark("hint", about)


def mapped(to: str) -> msgspec.Meta:
    """Means the same as the parameter `to`."""
    return _mark("mapped", f"The same as {to}.")


def only(*values: Any, instead: str = "") -> msgspec.Meta:
    """Only these values, and null, are accepted: they ask for what happens anyway. `instead`: a sentence that says what
    the client can do."""
    shown = ", ".join(msgspec.json.encode(value).decode() for value in values)
    about = f"Only {shown} is accepted." if values else "Refused."
    return _mark("refused", about, values=values, instead=instead)


def treatment_of(kind: Any) -> Treatment:
    """How the server treats a field of this annotated type."""
    marks = (mark.extra_json_schema for mark in _marks(kind))
    return next((mark["x-treatment"] for mark in marks if mark and "x-treatment" in mark), "honoured")


def read_json(data: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises RequestError."""
    values = parse_json(data)
    if not isinstance(values, dict):
        raise RequestError("The body must be a JSON object.")
    return values


def read_group(kind: type[_Group], values: Mapping[str, Any], *, ignore_unknown: bool) -> _Group:
    """Check the values, and convert them. Unknown parameters are errors, or with `ignore_unknown` a line of the log.
    Raises RequestError."""
    if unknown := sorted(_unknown(kind, values)):
        pass_over_unknown(unknown, ignore=ignore_unknown, advice=advice(unknown[0], _names(kind)))
    try:
        group = msgspec.convert(_plain(kind, values), kind)
    except msgspec.ValidationError as error:
        what, path = split_complaint(error)
        parameter = path[2:] or None
        complaint = printable(what.replace("`", ""), 300) + _allowed(kind, what, parameter or "")
        raise RequestError(f"Invalid {printable(parameter or 'body')}: {complaint}.", parameter=parameter) from None
    _refuse(kind, values)
    return group


def _plain(kind: type[Group], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a group without nulls, with whole numbers as integers: JSON, and the languages of some clients,
    have no integer type."""
    groups = _groups_in(kind)
    plain: dict[str, Any] = {}
    for name, value in values.items():
        if value is None:
            continue
        if name in groups and isinstance(value, dict):
            plain[name] = _plain(groups[name], value)
        else:
            plain[name] = int(value) if isinstance(value, float) and value.is_integer() else value
    return plain


def _unknown(kind: type[Group], values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The unknown parameters that are not null, also those in groups inside."""
    groups, known = _groups_in(kind), _fields(kind)
    for name, value in values.items():
        if value is not None and name not in known:
            yield path + name
        elif name in groups and isinstance(value, dict):
            yield from _unknown(groups[name], value, f"{path}{name}.")


@cache
def _names(kind: type[Group], path: str = "") -> tuple[str, ...]:
    """The full names of all parameters, such as stream_options.include_usage."""
    inner = [name for group, one in _groups_in(kind).items() for name in _names(one, f"{path}{group}.")]
    return (*(path + name for name in _fields(kind)), *inner)


def _refuse(kind: type[Group], values: Mapping[str, Any], path: str = "") -> None:
    """Raises RequestError for a value that cannot be honoured."""
    groups = _groups_in(kind)
    for name, annotated in _fields(kind).items():
        value = values.get(name)
        if name in groups and isinstance(value, dict):
            _refuse(groups[name], value, f"{path}{name}.")
        for mark in _marks(annotated):
            extra = mark.extra or {}
            if value is None or "values" not in extra or value in extra["values"]:
                continue
            instead = extra["instead"] or f"Leave {path}{name} out."
            about = (mark.description or "").removesuffix(".").lower()
            raise RequestError(
                f"{path}{name}: this value is not supported here ({about}). {instead}",
                code="unsupported_value",
                parameter=path + name,
            )


def _allowed(kind: type[Group], what: str, parameter: str) -> str:
    """The allowed words, if `what` complains about a word that is not allowed; else an empty text."""
    if what.startswith("Invalid value") and ".content" in parameter:
        return ": content is text here, or a list of parts of type text"
    if not what.startswith("Invalid enum value"):
        return ""
    name = parameter.rpartition(".")[2].partition("[")[0]
    fields = [fields[name] for struct in _structs(kind) if name in (fields := _fields(struct))]
    words = [str(word) for field in fields for one in _inside(field) if get_origin(one) is Literal
             for word in get_args(one)]  # fmt: skip
    return f": must be one of {', '.join(dict.fromkeys(words))}"


@cache  # to resolve type hints takes a millisecond
def _fields(kind: type[msgspec.Struct]) -> Mapping[str, Any]:
    """The annotated types of a struct's fields, by the names that they have in JSON."""
    hints = get_type_hints(kind, include_extras=True)
    names = zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True)
    return {encoded: hints[name] for name, encoded in names}


@cache
def _groups_in(kind: type[Group]) -> Mapping[str, type[Group]]:
    """The fields that are groups themselves."""
    return {
        name: group
        for name, annotated in _fields(kind).items()
        for group in _inside(annotated)
        if isinstance(group, type) and issubclass(group, Group)
    }


def _structs(kind: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    """The struct, and all structs inside it."""
    seen, waiting = set[Any](), [kind]
    while waiting:
        if (struct := waiting.pop()) in seen:
            continue
        seen.add(struct)
        yield struct
        for annotated in _fields(struct).values():
            waiting += [one for one in _inside(annotated) if isinstance(one, type) and issubclass(one, msgspec.Struct)]


def _inside(kind: Any) -> Iterator[Any]:
    """The type, and the types of which it is made."""
    yield kind
    if get_origin(kind) is Literal:
        return
    for one in get_args(kind)[: 1 if get_origin(kind) is Annotated else None]:
        yield from _inside(one)


def _marks(kind: Any) -> list[msgspec.Meta]:
    metadata = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return [one for one in metadata if isinstance(one, msgspec.Meta)]
