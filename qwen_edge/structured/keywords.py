"""The types of the values that JSON Schema's keywords take. Pure.

Reference: https://json-schema.org/draft/2020-12/json-schema-validation. Keywords whose values are schemas are checked
where schemas are walked through (`schema.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

_Count = Annotated[int, msgspec.Meta(ge=0)]
_Number = int | float
_Positive = Annotated[int, msgspec.Meta(gt=0)] | Annotated[float, msgspec.Meta(gt=0)]
_Type = Literal["array", "boolean", "integer", "null", "number", "object", "string"]


class _Keywords(msgspec.Struct):
    """Only the keywords that this program or llguidance reads."""

    type: _Type | list[_Type] | msgspec.UnsetType = msgspec.UNSET
    enum: list[Any] | msgspec.UnsetType = msgspec.UNSET
    required: list[str] | msgspec.UnsetType = msgspec.UNSET
    format: str | msgspec.UnsetType = msgspec.UNSET
    pattern: str | msgspec.UnsetType = msgspec.UNSET
    ref: str | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="$ref")
    minimum: _Number | msgspec.UnsetType = msgspec.UNSET
    maximum: _Number | msgspec.UnsetType = msgspec.UNSET
    exclusiveMinimum: _Number | msgspec.UnsetType = msgspec.UNSET  # noqa: N815, as JSON Schema spells it
    exclusiveMaximum: _Number | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    multipleOf: _Positive | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    minLength: _Count | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    maxLength: _Count | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    minItems: _Count | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    maxItems: _Count | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    minProperties: _Count | msgspec.UnsetType = msgspec.UNSET  # noqa: N815
    maxProperties: _Count | msgspec.UnsetType = msgspec.UNSET  # noqa: N815


def complaint(schema: Mapping[str, Any]) -> str:
    """What is wrong with a keyword of this schema, as "minItems: Expected int, got str"; empty if nothing is."""
    try:
        msgspec.convert(dict(schema), _Keywords)
    except msgspec.ValidationError as error:
        what, _, where = str(error).replace("`", "").partition(" - at $.")
        return f"{where}: {what}" if where else what
    return ""
