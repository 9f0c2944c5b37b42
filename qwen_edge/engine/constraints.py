"""The constraints of one answer, made of the shapes that its request asks for.

A shape that is new is compiled in the thread that tokenizes (`tokenizing`), never in the engine's thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, NamedTuple

from qwen_edge.core.printable import printable
from qwen_edge.engine.backend import Shapes
from qwen_edge.protocol.messages import Shape, Submit, Warm
from qwen_edge.structured.constraint import Constraint
from qwen_edge.structured.errors import ShapeError
from qwen_edge.structured.grammar import single_calls, without_schemas

log = logging.getLogger(__name__)


class Constraints(NamedTuple):
    """At their beginning: of the answer, and of a tool call."""

    answer: Constraint | None = None
    call: Constraint | None = None


class UnusableShape(NamedTuple):
    """Why the request is refused. `code`, of a Failed: which of its two shapes cannot be kept."""

    code: Literal["bad_shape", "bad_call_shape"]
    why: str


def known(message: Submit | Warm, shapes: Shapes) -> Constraints | UnusableShape | None:
    """The constraints, at once; None if a shape must be compiled first."""
    found = _constraints(message, shapes.known, logging.DEBUG)
    if not isinstance(message, Submit) or isinstance(found, UnusableShape):
        return found
    is_missing = (message.shape and not found.answer) or (message.call_shape and not found.call)
    return None if is_missing else found


def compiled(message: Submit | Warm, shapes: Shapes) -> Constraints | UnusableShape:
    """The constraints; takes as long as new shapes take to compile."""
    return _constraints(message, shapes.compile, logging.WARNING)


def _constraints(
    message: Submit | Warm, constraint_of: Callable[[Shape], Constraint | None], level: int
) -> Constraints | UnusableShape:
    """`level`, of the log: how to tell that tool calls are free. Worth a warning only when their shape is new."""
    if not isinstance(message, Submit):
        return Constraints()
    try:
        answer = constraint_of(message.shape) if message.shape else None
    except ShapeError as error:
        return UnusableShape("bad_shape", str(error))
    if message.shape and not answer:  # to be compiled first: of two that cannot be kept, the answer's is told
        return Constraints()
    try:
        return Constraints(answer, _of_call(message, constraint_of, level))
    except ShapeError as error:
        return UnusableShape("bad_call_shape", str(error))


def _of_call(message: Submit, constraint_of: Callable[[Shape], Constraint | None], level: int) -> Constraint | None:
    """If the schema of a tool cannot be kept, the arguments of its calls are any JSON object, unless a call is required
    or the tool is strict. Raises ShapeError."""
    if message.call_shape is None:
        return None
    try:
        return constraint_of(message.call_shape)
    except ShapeError as error:
        if message.requires_call:
            raise
        unusable = dict[str, str]()
        for name, shape in single_calls(message.call_shape).items():
            try:
                if constraint_of(shape) is None:  # to be compiled first
                    return None
            except ShapeError as fault:
                unusable[name] = str(fault)
        unusable = unusable or dict.fromkeys(single_calls(message.call_shape), str(error))  # too much only together
        if strict := next((name for name in unusable if name in message.strict_calls), None):
            raise ShapeError(f"{printable(strict, 60)}: {unusable[strict]}") from None
        for name, why in unusable.items():
            log.log(level, "calls of %s are held to no schema: %s", printable(name, 60), printable(why, 300))
        return constraint_of(without_schemas(message.call_shape, unusable))
