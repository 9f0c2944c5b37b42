"""A body is read by the type that declares it. Whatever is sent, the result is a value, or an error that names it."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.core.errors import RequestError
from qwen_edge.server.openai.chat_body import ChatBody, read_body
from qwen_edge.server.parameters import (
    HINT,
    Group,
    about,
    fields_of,
    hint,
    mapped,
    only,
    read_group,
    read_json,
    structs_in,
    treatment_of,
)

MESSAGES = [{"role": "user", "content": "hi"}]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


class Place(Group):
    room: str | None = None
    floor: int | None = None


class Lamp(Group, tag_field="type", tag="lamp"):
    watts: int | None = None
    place: Place | None = None


class Blind(Group, tag_field="type", tag="blind"):
    share: float | None = None
    side: Annotated[str | None, only("left")] = None


class Free(msgspec.Struct):
    name: str


class Body(Group):
    count: int | None = None
    share: float | None = None
    words: list[str | None] | None = None
    numbers: list[int | list[int]] | None = None
    place: Place | None = None
    places: list[Place | None] | None = None
    things: list[Lamp | Blind] | None = None
    free: Free | None = None
    data: dict[str, Any] | None = None
    shade: Literal["dark", "light"] | None = None
    one: Annotated[int | None, only(1, instead="Send one.")] = None
    nothing: Annotated[Any, only()] = None
    anything: Annotated[Any, only(0, [])] = None
    label: Annotated[str | None, HINT] = None


def read(**values: Any) -> Body:
    return read_group(Body, values, ignore_unknown=False)


def refused(**values: Any) -> RequestError:
    with pytest.raises(RequestError) as error:
        read(**values)
    return error.value


@pytest.mark.parametrize(
    ("values", "parameter"),
    [
        ({"cuont": 1}, "cuont"),
        ({"place": {"roof": "x"}}, "place.roof"),
        ({"places": [{"room": "x"}, {"roof": "x"}]}, "places[1].roof"),
        ({"places": [None, {"roof": "x"}]}, "places[1].roof"),
        ({"things": [{"type": "lamp", "volts": 1}]}, "things[0].volts"),
        ({"things": [{"type": "blind", "watts": 1}]}, "things[0].watts"),
        ({"things": [{"type": "lamp", "place": {"roof": 1}}]}, "things[0].place.roof"),
    ],
)
def test_an_unknown_name_is_named_wherever_it_stands(values, parameter):
    error = refused(**values)
    assert (error.code, error.parameter) == ("unknown_parameter", parameter)
    assert isinstance(read_group(Body, values, ignore_unknown=True), Body)


def test_an_object_that_is_no_group_may_have_any_fields():
    assert read(free={"name": "x", "more": 1}).free == Free("x")
    assert read(data={"any": None}).data == {"any": None}


@pytest.mark.parametrize(
    ("values", "parameter", "words"),
    [
        ({"one": 2}, "one", "only 1 is accepted). Send one."),
        ({"one": 1.5}, "one", "Expected int"),
        ({"one": True}, "one", "Expected int"),
        ({"nothing": False}, "nothing", "(refused). Leave nothing out."),
        ({"nothing": {}}, "nothing", "(refused)"),
        ({"anything": False}, "anything", "only 0, [] is accepted"),
        ({"anything": [0]}, "anything", "only 0, [] is accepted"),
        ({"things": [{"type": "lamp"}, {"type": "blind", "side": "right"}]}, "things[1].side", "Leave things[1].side"),
    ],
)
def test_a_value_that_cannot_be_honoured_is_refused_with_what_to_do(values, parameter, words):
    error = refused(**values)
    assert error.parameter == parameter
    assert words in error.message


@pytest.mark.parametrize("values", [{"one": 1}, {"one": 1.0}, {"one": None}, {"anything": []}, {"anything": 0.0}])
def test_the_value_that_describes_what_happens_anyway_is_accepted(values):
    assert isinstance(read(**values), Body)


@pytest.mark.parametrize(
    ("values", "parameter", "words"),
    [
        ({"count": "1"}, "count", "Expected int"),
        ({"count": 1.5}, "count", "Expected int"),
        ({"place": []}, "place", "Expected object"),
        ({"places": [{"floor": "1"}]}, "places[0].floor", "Expected int"),
        ({"things": [{"type": "door"}]}, "things[0].type", "'door'"),
        ({"things": [{}]}, "things[0]", "type"),
        ({"shade": "grey"}, "shade", "must be one of dark, light"),
        ({"free": {}}, "free", "name"),
    ],
)
def test_a_wrong_type_is_refused_with_its_place(values, parameter, words):
    error = refused(**values)
    assert error.parameter == parameter
    assert words in error.message


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ({"count": 150.0}, {"count": 150}),
        ({"place": {"floor": 2.0}}, {"place": {"floor": 2}}),
        ({"places": [{"floor": 2.0}]}, {"places": [{"floor": 2}]}),
        ({"things": [{"type": "lamp", "watts": 4.0}]}, {"things": [{"type": "lamp", "watts": 4}]}),
        ({"numbers": [1.0, 2]}, {"numbers": [1, 2]}),
        ({"numbers": [[1.0], [2.0]]}, {"numbers": [[1], [2]]}),
        ({"share": 1e300}, {"share": 1e300}),
    ],
)
def test_a_whole_number_may_be_written_with_a_point(sent, meant):
    assert read(**sent) == read(**meant)


def test_numbers_in_free_data_stay_as_they_are():
    assert repr(read(data={"a": 1.0, "b": [2.0]}).data) == "{'a': 1.0, 'b': [2.0]}"


@given(st.dictionaries(st.sampled_from(["count", "share", "shade", "one", "unknown"]), st.none()))
def test_null_counts_as_left_out_whether_the_name_is_known_or_not(nulls):
    assert read(**nulls) == read()
    assert read(place=nulls, places=[nulls]) == read(place={}, places=[{}])


@given(JSON)
def test_any_json_is_read_or_refused_and_nothing_else(value):
    for name in fields_of(Body):
        try:
            read(**{name: value})
        except RequestError as error:
            assert error.parameter and error.parameter.startswith(name)


@given(st.sampled_from(sorted(fields_of(ChatBody))), JSON)
def test_any_value_of_any_parameter_of_a_chat_is_read_or_refused(name, value):
    body = {"messages": MESSAGES, name: value}
    try:
        read_body(json.dumps(body).encode(), ignore_unknown=False)
    except RequestError as error:
        assert error.parameter is None or error.parameter.startswith(name)


@pytest.mark.parametrize("data", [b"[]", b'"x"', b"1", b"null"])
def test_a_body_must_be_an_object(data):
    with pytest.raises(RequestError, match="must be a JSON object"):
        read_json(data)


@pytest.mark.parametrize("number", [b"1e308", b"-1e308", b"1" + b"0" * 300, b"-1" + b"0" * 300])
@pytest.mark.parametrize("name", ["max_tokens", "n", "temperature", "top_k", "thinking_budget", "wait_seconds"])
def test_a_huge_number_is_refused_by_the_limits_of_its_parameter(name, number):
    with pytest.raises(RequestError) as refused:
        read_body(b'{"messages": [{"role": "user"}], "%s": %s}' % (name.encode(), number), ignore_unknown=False)
    assert refused.value.parameter == name


def test_what_is_not_marked_is_honoured_and_a_mark_says_otherwise():
    marks = {"honoured": about("x"), "mapped": mapped("x"), "hint": hint("x"), "refused": only(1)}
    for treatment, mark in marks.items():
        assert treatment_of(Annotated[int, mark]) == treatment
    assert treatment_of(int | None) == treatment_of(Annotated[int, msgspec.Meta(ge=1)]) == "honoured"


def test_all_structs_of_a_body_are_found():
    assert set(structs_in(Body)) == {Body, Place, Lamp, Blind, Free}
