"""The error of a shape that cannot be used, and the place in a schema. Pure."""

from __future__ import annotations

Path = tuple[str | int, ...]


class ShapeError(Exception):
    """A shape that cannot be used. `where` is a JSON pointer into the schema; empty for the whole."""

    def __init__(self, what: str, where: Path = ()) -> None:
        super().__init__(what)
        self.what, self.where = what, pointer(where)

    def __str__(self) -> str:
        return f"{self.what} (at {self.where})" if self.where else self.what


def pointer(path: Path) -> str:
    """The JSON pointer of a place in the schema: /properties/percent."""
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)
