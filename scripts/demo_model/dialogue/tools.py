"""A tool as a dialogue offers it: an OpenAI schema, and how an intent is written as a call to it.

Pure values; `spelling` makes them up. What a parameter does with a slot's value is decided
by `written`: a table from canonical keys to what the schema lists, or None, which means that
the user's own word (or number) is copied.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .split import held_out

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Value:
    """What fills a slot: its canonical key, the words it was said in, what a free parameter is given."""

    key: str
    said: str
    plain: str | int

    def is_name(self) -> bool:
        """A proper name ("Lena's den", "room 7"), not a word for a kind of thing."""
        return self.said[:1].isupper() or any(mark.isdigit() for mark in self.said)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One argument of a tool."""

    slot: str
    name: str
    schema: Schema
    written: Mapping[str, str | int | bool] | None = None

    def write(self, value: Value) -> str | int | bool:
        return value.plain if self.written is None else self.written[value.key]

    def takes(self, key: str) -> bool:
        return self.written is None or key in self.written


@dataclass(frozen=True, slots=True)
class Tool:
    """`fixed` is what the tool's name already says: turn_on_light has power fixed to on."""

    family: str
    name: str
    description: str
    parameters: Sequence[Parameter]
    required: Sequence[str]
    fixed: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, bool] = field(default_factory=dict)

    def parameter(self, slot: str) -> Parameter | None:
        return next((p for p in self.parameters if p.slot == slot), None)

    def takes(self, slot: str, key: str) -> bool:
        """Whether the value can be told to this tool, or is what it does anyway."""
        if slot in self.fixed:
            return self.fixed[slot] == key
        parameter = self.parameter(slot)
        return parameter is not None and parameter.takes(key)

    @property
    def unseen(self) -> bool:
        """Whether this spelling is kept from training."""
        return held_out("tool", self.name, tuple(p.name for p in self.parameters))

    def call(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """Name and arguments, in the order of the schema."""
        arguments = {p.name: p.write(values[p.slot]) for p in self.parameters if p.slot in values}
        return {"name": self.name, "arguments": arguments}

    def schema(self) -> Schema:
        """The tool as OpenAI's API writes it."""
        names = {p.slot: p.name for p in self.parameters}
        parameters: Schema = {"type": "object", "properties": {p.name: p.schema for p in self.parameters}}
        if self.required:
            parameters["required"] = [names[slot] for slot in self.required]
        function: Schema = {"name": self.name}
        if self.description:
            function["description"] = self.description
        return {"type": "function", "function": function | {"parameters": parameters | dict(self.extras)}}
