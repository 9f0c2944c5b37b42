"""msgspec's complaints come apart the same way for settings and for requests, whatever a person wrote."""

import msgspec
import pytest

from qwen_edge.config.validation import split_complaint


class _Inner(msgspec.Struct, forbid_unknown_fields=True):
    counts: dict[str, int] = {}


class _Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: _Inner | None = None
    many: list[_Inner] = []


@pytest.mark.parametrize(
    ("value", "what", "path"),
    [
        (3, "Expected `object`, got `int`", "$"),
        ({"many": [{}, 3]}, "Expected `object`, got `int`", "$.many[1]"),
        ({"inner": {"counts": {"a": "b"}}}, "Expected `int`, got `str`", "$.inner.counts[...]"),
        ({"inner": {"counts": {1: 2}}}, "Expected `str`, got `int`", "$.inner.counts"),
        ({"inner": {"con\ntext": 1}}, "Object contains unknown field `con\ntext`", "$.inner"),
        ({"a`b": 1}, "Object contains unknown field `a`b`", "$"),
    ],
)
def test_a_complaint_is_split_into_what_and_where(value, what, path):
    with pytest.raises(msgspec.ValidationError) as error:
        msgspec.convert(value, _Outer)
    assert split_complaint(error.value) == (what, path)
