#!/usr/bin/env python3
"""Write the tables of parameters in docs/, from the types that check the requests: `python -m scripts.api_tables`.

In docs/api.md everything between a pair of markers is replaced; docs/parameters.md is written as a whole. With
`--check` nothing is written, and the exit code is 1 if a page is not current.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from qwen_edge.server.app import ROUTES
from qwen_edge.server.openai.chat_body import ChatBody
from qwen_edge.server.parameters import Group, fields_of, groups_in, marks_of, treatment_of

ROOT = Path(__file__).resolve().parent.parent
API, PARAMETERS = ROOT / "docs" / "api.md", ROOT / "docs" / "parameters.md"

_INTRODUCTION = """# Every parameter, by path

Made from the types that check the requests (`make docs`). What a cell says:

| cell | what it means |
|---|---|
| honoured | The parameter does what its name says; [api.md](api.md) and the dialects' pages have the details. |
| = `other` | It means the same as `other`. |
| hint | It is accepted, and it does not change the answer. |
| only `value` | Only this value, which asks for what happens anyway, is accepted; any other is a 400. |
| refused | Every value but `null` is a 400. |
| (empty) | The path does not know the parameter: a 400, or see `server.unknown_parameters`. |

`null` counts as left out everywhere. `/openapi.json` of a running server has the same, for programs.

"""


def main() -> int:
    """Write the pages. The exit code: 0, or 1 if `--check` finds a page that is not current."""
    stale = [page for page, text in pages().items() if not page.exists() or page.read_text() != text]
    if "--check" in sys.argv[1:]:
        print(*(f"{page} is not current: make docs" for page in stale), sep="\n")
        return int(bool(stale))
    for page in stale:
        page.write_text(pages()[page])
        print(f"{page} is written")
    return 0


def pages() -> Mapping[Path, str]:
    """The pages, as they should be."""
    bodies = {route.path: route.body for route in ROUTES if route.body is not None}
    chat = "\n".join(_tables(ChatBody))
    return {
        API: _replaced(API.read_text(), "chat completions", chat),
        PARAMETERS: _INTRODUCTION + "\n".join(_by_path(bodies)) + "\n",
    }


def _replaced(page: str, name: str, text: str) -> str:
    """The page with the text between the markers of this name."""
    begin, end = f"<!-- made by make docs: {name} -->", "<!-- end -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(page)) != 1:
        raise ValueError(f"one pair of markers is needed: {begin}")
    return pattern.sub(lambda _: f"{begin}\n\n{text}\n\n{end}", page)


def _tables(body: type[Group]) -> Iterator[str]:
    """What is honoured, a table for each part of the body; then the other names, the hints, and what is refused."""
    for title, fields in _parts(body):
        yield f"**{title}**\n"
        yield "| parameter | what it does here |"
        yield "|---|---|"
        for names, about in _rows(fields):
            yield f"| {_listed(names)} | {about} |"
        yield ""
    all_ = [(name, kind) for _, fields in _parts(body) for name, kind in fields.items()]
    mapped = [(name, _extra(kind, "to")) for name, kind in all_ if treatment_of(kind) == "mapped"]
    yield "**Other names for the same**\n"
    yield "| parameter | is the same as |"
    yield "|---|---|"
    yield from (f"| `{name}` | {_code(to)} |" for name, to in mapped)
    hints = [(name, _about(kind)) for name, kind in all_ if treatment_of(kind) == "hint"]
    plain = [name for name, about in hints if about == "Accepted; it does not change the answer."]
    yield f"\n**Accepted, and without effect on the answer:** {_listed(plain)}. With a reason of their own:\n"
    yield "| parameter | why |"
    yield "|---|---|"
    yield from (f"| `{name}` | {_sentence(about)} |" for name, about in hints if name not in plain)
    yield "\n**Accepted only with the value that describes what happens anyway**, or `null`; another value is a 400:\n"
    yield "| parameter | accepted | what to do instead |"
    yield "|---|---|---|"
    for name, kind in all_:
        if treatment_of(kind) == "refused":
            values = _values(kind) or "nothing"
            yield f"| `{name}` | {values} | {_extra(kind, 'instead') or 'Leave it out.'} |"


def _parts(body: type[Group]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The fields of the body and of each of its base classes, with the first line of the class's docstring."""
    for struct in body.__mro__:
        if issubclass(struct, Group) and struct is not Group:
            own = [name for name in fields_of(struct) if not any(name in fields_of(base) for base in _bases(struct))]
            if own:
                title = (struct.__doc__ or struct.__name__).strip().splitlines()[0].rstrip(".")
                yield title, {name: fields_of(struct)[name] for name in own}


def _bases(struct: type[Group]) -> list[type[Group]]:
    return [base for base in struct.__mro__[1:] if issubclass(base, Group) and base is not Group]


def _rows(fields: Mapping[str, Any]) -> Iterator[tuple[list[str], str]]:
    """The honoured fields. Those that share a text and follow each other share a row."""
    honoured = [(name, _about(kind)) for name, kind in fields.items() if treatment_of(kind) == "honoured"]
    rows: list[tuple[list[str], str]] = []
    for name, about in honoured:
        if rows and about and rows[-1][1] == about:
            rows[-1][0].append(name)
        else:
            rows.append(([name], about))
    return iter(rows)


def _by_path(bodies: Mapping[str, type[msgspec.Struct]]) -> Iterator[str]:
    """A row for each parameter, in the order of the alphabet; those inside a group follow it."""
    columns = {path: dict(_cells(body)) for path, body in bodies.items()}
    names = sorted({name for cells in columns.values() for name in cells})
    yield f"| parameter | {' | '.join(f'`{path}`' for path in columns)} |"
    yield "|---|" + "---|" * len(columns)
    for name in names:
        yield f"| `{name}` | {' | '.join(cells.get(name, '') for cells in columns.values())} |"


def _cells(body: type[msgspec.Struct], path: str = "", above: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """The parameters and their cells. A group inside another group of its own type is not entered."""
    for name, kind in fields_of(body).items():
        cell = _cell(kind)
        yield path + name, above or cell
        for group in groups_in(kind) if depth < 3 else ():
            # what stands in a group that is only a hint, is one as well
            yield from _cells(group, f"{path}{name}.", "hint" if cell == "hint" else above, depth + 1)


def _cell(kind: Any) -> str:
    treatment = treatment_of(kind)
    if treatment == "mapped":
        return f"= {_code(_extra(kind, 'to'))}"
    if treatment == "refused":
        values = _values(kind)
        return f"only {values}" if values else "refused"
    return treatment


def _about(kind: Any) -> str:
    return next((mark.description for mark in marks_of(kind) if mark.description), "")


def _extra(kind: Any, name: str) -> Any:
    return next((mark.extra[name] for mark in marks_of(kind) if mark.extra and name in mark.extra), None)


def _values(kind: Any) -> str:
    return ", ".join(
        f"`{msgspec.json.encode(value).decode()}`" for value in _extra(kind, "values") or _extra(kind, "shown") or ()
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _sentence(about: str) -> str:
    """The reason, as a sentence of its own."""
    first, space, rest = about.removeprefix("Accepted; ").partition(" ")
    return (_code(first) if re.search(r"[._]\w", first) else first[:1].upper() + first[1:]) + space + rest


def _code(to: str) -> str:
    """The names of parameters in the text as code."""
    return re.sub(r"[a-z]\w*(?:[._]\w+)+|\b(?!and\b|or\b|the\b|of\b|in\b)[a-z]\w*\b", lambda name: f"`{name[0]}`", to)


if __name__ == "__main__":
    sys.exit(main())
