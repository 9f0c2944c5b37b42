"""The constraints of one answer, made of the shapes that its request asks for.

A shape that is new is compiled in the thread that tokenizes (`tokenizing`), never in the engine's thread.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from qwen_edge.core.printable import printable
from qwen_edge.engine.backend import Shapes
from qwen_edge.protocol.messages import Shape, Submit, Warm
from qwen_edge.structured.constraint import Constraint
from qwen_edge.structured.grammar import single_calls, without_schemas
from qwen_edge.structured.schema import ShapeError

log = logging.getLogger(__name__)


class Constraints(NamedTuple):
    """At their beginning: of the answer, and of a tool call."""

    answer: Constraint | None = None
    call: Constraint | None = None


def known(message: Submit | Warm, shapes: Shapes) -> Constraints | ShapeError | None:
    """The constraints, at once; None if a shape must be compiled first."""
    if not isinstance(message, Submit) or (message.shape is None and message.call_shape is None):
        return Constraints()
    try:
        answer = shapes.known(message.shape) if message.shape else None
    except ShapeError as error:
        return error
    try:
        call = shapes.known(message.call_shape) if message.call_shape else None
    except ShapeError as error:
        return error if message.requires_call else None
    missing = (message.shape and not answer) or (message.call_shape and not call)
    return None if missing else Constraints(answer, call)


def compiled(message: Submit | Warm, shapes: Shapes) -> Constraints | ShapeError:
    """The constraints; takes as long as new shapes take to compile. If the schema of a tool cannot be kept, and no call
    is required, the arguments of this tool's calls are any JSON object."""
    if not isinstance(message, Submit):
        return Constraints()
    try:
        answer = shapes.compile(message.shape) if message.shape else None
        return Constraints(answer, _of_call(message, shapes))
    except ShapeError as error:
        return error


def _of_call(message: Submit, shapes: Shapes) -> Constraint | None:
    if message.call_shape is None:
        return None
    try:
        return shapes.compile(message.call_shape)
    except ShapeError as error:
        if message.requires_call:
            raise
        single = single_calls(message.call_shape)
        unusable = {name: why for name, shape in single.items() if (why := _fault(shape, shapes))}
        unusable = unusable or dict.fromkeys(single, str(error))  # too much only together
        for name, why in unusable.items():
            log.warning("calls of %s are held to no schema: %s", printable(name, 60), printable(why, 300))
        return shapes.compile(without_schemas(message.call_shape, unusable))


def _fault(shape: Shape, shapes: Shapes) -> str:
    """Why the shape cannot be kept; empty if it can."""
    try:
        shapes.compile(shape)
    except ShapeError as error:
        return str(error)
    return ""
