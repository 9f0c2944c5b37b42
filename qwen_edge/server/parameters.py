"""Reads a JSON body into the msgspec struct that a dialect declares for it. Every error names the parameter.

The struct is the only description of the parameters: the same types check a body, fill /openapi.json, and give the
tables of docs/. A field is honoured, unless its type carries one of the marks below:

- `HINT`, `hint(why)`: the server accepts the parameter, and it changes nothing in the answer.
- `mapped(to)`: it means the same as another parameter.
- `only(values)`: no other value can be honoured: another value is an error.

`about(text)` says what an honoured field does. A row of the tables holds all fields that follow each other and share
this text. `read_as(type)` names the type that checks a field which keeps its plain JSON.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import MappingProxyType, UnionType
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from qwen_edge.config.validation import split_complaint
from qwen_edge.core.errors import RequestError
from qwen_edge.core.printable import printable
from qwen_edge.server.body import parse_json, pass_over_unknown
from qwen_edge.server.spelling import advice

_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`")

Treatment = Literal["honoured", "mapped", "hint", "refused"]


class Group(msgspec.Struct):
    """A group of parameters: the body itself, or an object inside it. An unknown name in it is an unknown parameter,
    null means the same as a missing value, and 150.0 the same as 150. (Objects that are no Group may have any
    fields.)

    `rules`: keywords of JSON schema for what holds between the fields, which the dialect's own code checks."""

    rules: ClassVar[Mapping[str, Any]] = MappingProxyType({})


_Group = TypeVar("_Group", bound=Group)


def _mark(treatment: Treatment, about: str, schema: Mapping[str, Any] | None = None, **more: Any) -> msgspec.Meta:
    shown = {"x-treatment": treatment, **(schema or {})}
    return msgspec.Meta(description=about or None, extra_json_schema=shown, extra=more)


HINT = _mark("hint", "Accepted; it does not change the answer.")


def hint(about: str) -> msgspec.Meta:
    """Like HINT; `about` says why it changes nothing."""
    return _mark("hint", about)


def mapped(to: str) -> msgspec.Meta:
    """Means the same as the parameter `to`."""
    return _mark("mapped", f"The same as {to}.", to=to)


def only(*values: Any, instead: str = "", by_type: bool = False) -> msgspec.Meta:
    """Only these values, and null, are accepted: they ask for what happens anyway. `instead`: a sentence that says what
    the client can do. `by_type`: the field's type refuses all others already."""
    shown = ", ".join(msgspec.json.encode(value).decode() for value in values)
    about = f"Only {shown} is accepted." if values else "Refused."
    return _mark(
        "refused",
        about,
        None if by_type else {"enum": [*values, None]},
        **{"shown" if by_type else "values": values, "instead": instead},
    )


def about(text: str) -> msgspec.Meta:
    """What an honoured parameter does, for the docs. The text may be Markdown."""
    return _mark("honoured", text)


def read_as(kind: Any) -> msgspec.Meta:
    """The field is a plain JSON value that the dialect checks as this type."""
    return msgspec.Meta(extra={"read_as": kind})


def treatment_of(kind: Any) -> Treatment:
    """How the server treats a field of this annotated type."""
    shown = (mark.extra_json_schema for mark in marks_of(kind))
    return next((mark["x-treatment"] for mark in shown if mark and "x-treatment" in mark), "honoured")


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
        if parameter is None and (missing := _MISSING.fullmatch(what)):
            name = missing["name"]
            raise RequestError(f"Missing required parameter: {name!r}. Send it.", parameter=name) from None
        complaint = printable(what.replace("`", ""), 300) + _allowed(kind, what, parameter or "")
        raise RequestError(f"Invalid {printable(parameter or 'body')}: {complaint}.", parameter=parameter) from None
    _refuse(kind, values)
    return group


def _plain(kind: type[Group], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a group without nulls, with whole numbers as integers: JSON, and the languages of some clients,
    have no integer type."""
    fields = fields_of(kind)
    return {name: _plain_value(fields.get(name), value) for name, value in values.items() if value is not None}


def _plain_value(annotated: Any, value: Any) -> Any:
    if isinstance(value, dict):
        group = _group_of(annotated, value)
        return _plain(group, value) if group else value
    if isinstance(value, list):
        item = _item_of(annotated)
        if groups_in(item):
            return [_plain_value(item, one) for one in value]
        return value if item is Any else _whole(value)
    return _whole(value)


def _whole(value: Any) -> Any:
    """The number, or the numbers in lists, as integers where they are whole."""
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _unknown(kind: type[Group], values: Mapping[str, Any]) -> Iterator[str]:
    """The unknown parameters that are not null, also those in groups inside."""
    for path, group, inside in _groups(kind, values):
        known = {*fields_of(group), group.__struct_config__.tag_field}
        yield from (path + name for name, value in inside.items() if value is not None and name not in known)


@cache
def _names(kind: type[Group], path: str = "") -> tuple[str, ...]:
    """The full names of all parameters, such as stream_options.include_usage; not of those inside lists."""
    inner = list[str]()
    for name, annotated in _fields_with_groups(kind).items():
        groups = [one for one in _options(annotated) if isinstance(one, type) and issubclass(one, Group)]
        inner += [found for group in groups for found in _names(group, f"{path}{name}.")]
    return (*(path + name for name in fields_of(kind)), *inner)


def _refuse(kind: type[Group], values: Mapping[str, Any]) -> None:
    """Raises RequestError for a value that cannot be honoured."""
    for path, group, inside in _groups(kind, values):
        for name, annotated in fields_of(group).items():
            value = inside.get(name)
            for mark in marks_of(annotated):
                extra = mark.extra or {}
                if value is None or "values" not in extra or any(_is_same(value, one) for one in extra["values"]):
                    continue
                instead = extra["instead"] or f"Leave {path}{name} out."
                what = (mark.description or "").removesuffix(".").lower()
                raise RequestError(
                    f"{path}{name}: this value is not supported here ({what}). {instead}",
                    code="unsupported_value",
                    parameter=path + name,
                )


def _is_same(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same. To Python, true is 1."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _groups(kind: type[Group], values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, type[Group], Any]]:
    """The group and all groups inside, also those in lists: the beginning of their parameters' names, their types,
    their values."""
    yield path, kind, values
    for name, annotated in _fields_with_groups(kind).items():
        yield from _groups_at(annotated, values.get(name), path + name)


def _groups_at(annotated: Any, value: Any, at: str) -> Iterator[tuple[str, type[Group], Any]]:
    if isinstance(value, dict) and (group := _group_of(annotated, value)):
        yield from _groups(group, value, f"{at}.")
    elif isinstance(value, list):
        item = _item_of(annotated)
        for number, one in enumerate(value):
            yield from _groups_at(item, one, f"{at}[{number}]")


def _group_of(annotated: Any, value: Mapping[str, Any]) -> type[Group] | None:
    """The group that the object is read into; in a union of tagged groups, the one with its tag."""
    groups = [one for one in _options(annotated) if isinstance(one, type) and issubclass(one, Group)]
    if len(groups) < 2:
        return next(iter(groups), None)
    configs = {group: group.__struct_config__ for group in groups}
    return next((group for group, config in configs.items() if value.get(config.tag_field or "") == config.tag), None)


def _item_of(annotated: Any) -> Any:
    """The type of the items, where the value may be a list; else Any."""
    lists = [one for one in _options(annotated) if get_origin(one) in (list, tuple, Sequence)]
    return get_args(lists[0])[0] if lists else Any


def _options(annotated: Any) -> list[Any]:
    """The types of a union, or the one type."""
    if get_origin(annotated) is Annotated:
        return _options(get_args(annotated)[0])
    if get_origin(annotated) in (Union, UnionType):
        return [option for one in get_args(annotated) for option in _options(one)]
    return [annotated]


def _allowed(kind: type[Group], what: str, parameter: str) -> str:
    """The allowed words, if `what` complains about a word that is not allowed; else an empty text."""
    if what.startswith("Invalid value") and ".content" in parameter:
        return ": content is text here, or a list of parts of type text"
    if not what.startswith("Invalid enum value"):
        return ""
    options = [one for field in _fields_at(kind, parameter) for one in _inside(field)]
    words = [str(word) for one in options if get_origin(one) is Literal for word in get_args(one) if word != ""]
    others = ", or an object" if any(get_origin(one) in (dict, Mapping) for one in options) else ""
    return f": must be one of {', '.join(dict.fromkeys(words))}{others}"


@cache  # to resolve type hints takes a millisecond
def fields_of(kind: type[msgspec.Struct]) -> Mapping[str, Any]:
    """The annotated types of a struct's fields, by the names that they have in JSON."""
    hints = get_type_hints(kind, include_extras=True)
    names = zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True)
    return {encoded: hints[name] for name, encoded in names}


@cache
def _fields_with_groups(kind: type[Group]) -> Mapping[str, Any]:
    """The fields that are groups themselves, or hold some."""
    return {name: annotated for name, annotated in fields_of(kind).items() if groups_in(annotated)}


def groups_in(kind: Any) -> list[type[Group]]:
    """The groups that a field's type is, or holds."""
    return [one for one in _inside(kind) if isinstance(one, type) and issubclass(one, Group)]


def structs_in(kind: Any) -> Iterator[type[msgspec.Struct]]:
    """The structs in a type, and all structs inside them."""
    seen, waiting = set[Any](), [kind]
    while waiting:
        for one in _inside(waiting.pop()):
            if isinstance(one, type) and issubclass(one, msgspec.Struct) and one not in seen:
                seen.add(one)
                yield one
                for annotated in fields_of(one).values():
                    waiting += [annotated, *read_as_of(annotated)]


def _fields_at(kind: type[msgspec.Struct], parameter: str) -> list[Any]:
    """The annotated types of the field with a path such as messages[0].role; several, if a union leads there."""
    found: list[Any] = [kind]
    for name in (part.partition("[")[0] for part in parameter.split(".")):
        options = [one for field in found for one in (field, *read_as_of(field))]
        structs = [one for option in options for one in _inside(option) if isinstance(one, type)]
        found = [fields_of(one)[name] for one in structs if issubclass(one, msgspec.Struct) and name in fields_of(one)]
    return found


def _inside(kind: Any) -> Iterator[Any]:
    """The type, and the types of which it is made."""
    yield kind
    if get_origin(kind) is Literal:
        return
    for one in get_args(kind)[: 1 if get_origin(kind) is Annotated else None]:
        yield from _inside(one)


def marks_of(kind: Any) -> list[msgspec.Meta]:
    """The marks of a field's type."""
    metadata = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return [one for one in metadata if isinstance(one, msgspec.Meta)]


def read_as_of(kind: Any) -> list[Any]:
    """The types of `read_as` marks."""
    return [mark.extra["read_as"] for mark in marks_of(kind) if mark.extra and "read_as" in mark.extra]
