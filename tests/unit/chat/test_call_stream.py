"""A call that is held to a schema is handed on while it is written, however its text is cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.chat.call_stream import CallStream
from qwen_edge.chat.messages import (
    CallBuilder,
    Content,
    ToolCall,
    ToolCallArguments,
    ToolCallEnd,
    ToolCallStart,
    whole_calls,
)
from qwen_edge.chat.parser import Parser
from qwen_edge.chat.regions import Regions
from qwen_edge.chat.template import THINK
from qwen_edge.chat.tools import CALL as TAGS
from tests.cuts import cut

NAME = "set_light"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(st.text(), JSON, max_size=4)


def written(name, arguments, *, ascii_only=False, spaces=("", "")):
    """A call as a model writes it, between the markers."""
    before, behind = spaces
    inside = json.dumps(arguments, ensure_ascii=ascii_only)
    return f'{before}{{"name": {json.dumps(name, ensure_ascii=ascii_only)}, "arguments": {inside}}}{behind}'


def fed(pieces, names=(NAME,)):
    """The name and the joined arguments, and the stream behind the last piece."""
    stream = CallStream(names)
    deltas = [delta for piece in pieces for delta in stream.feed(piece)]
    started = [delta.name for delta in deltas if isinstance(delta, ToolCallStart)]
    assert [isinstance(delta, ToolCallStart) for delta in deltas] == [True] * len(started) + [False] * (
        len(deltas) - len(started)
    ), "the name comes first"
    assert all(delta.text for delta in deltas if isinstance(delta, ToolCallArguments)), "no piece is empty"
    return started, "".join(delta.text for delta in deltas if isinstance(delta, ToolCallArguments)), stream


@given(ARGUMENTS, st.booleans(), st.sampled_from([("", ""), ("\n", "\n"), (" ", " \n")]), st.lists(st.integers(0, 400)))
def test_wherever_a_call_is_cut_its_name_and_arguments_are_the_same(arguments, ascii_only, spaces, places):
    text = written(NAME, arguments, ascii_only=ascii_only, spaces=spaces)
    started, joined, stream = fed(cut(text, places))
    assert started == [NAME]
    assert joined == json.dumps(arguments, ensure_ascii=ascii_only)
    assert stream.complete


@given(st.text(min_size=1), st.booleans(), st.lists(st.integers(0, 100)))
def test_a_name_of_any_characters_is_told(name, ascii_only, places):
    text = written(name, {"a": 1}, ascii_only=ascii_only)
    assert fed(cut(text, places), [name])[:2] == ([name], '{"a": 1}')


@pytest.mark.parametrize(
    "arguments",
    [
        '{"a": "}"}',
        '{"a": "{[\\"}"}',
        '{"a": "\\\\"}',
        '{"a": "\\\\\\"}"}',
        '{"a": "\\ud83d\\ude00", "b": "\\ud83d"}',
        '{"a": {"b": [{"c": "]}"}, []]}}',
        "{}",
        '{ "a" : 1 }',
        '{"</tool_call>": "<tool_call>"}',
    ],
)
def test_braces_and_escapes_inside_strings_end_no_arguments(arguments):
    text = f'{{"name": "{NAME}", "arguments": {arguments}}}\n'
    for size in (1, 2, 3, 7, len(text)):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        started, joined, stream = fed(pieces)
        assert (started, joined, stream.complete) == ([NAME], arguments, True)


def test_arguments_come_before_the_call_is_complete():
    stream = CallStream([NAME])
    assert [*stream.feed('{"name": "set_li')] == []
    assert [*stream.feed('ght", "arguments": ')] == [], "the braces of the arguments tell that the call is one"
    assert [*stream.feed('{"room": "kit')] == [ToolCallStart(NAME), ToolCallArguments('{"room": "kit')]
    assert not stream.complete
    assert [*stream.feed('chen"}}')] == [ToolCallArguments('chen"}')]
    assert stream.complete
    assert [*stream.feed("\n")] == []


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "rm", "arguments": {}}',
        '{"arguments": {}, "name": "set_light"}',
        '{"name": "set_light", "arguments": 5}',
        '{"name": "bad \\x", "arguments": {}}',
        '{"name": "line\nbreak", "arguments": {}}',
        '{"name": "\\ud83d", "arguments": {}}',
        "oops",
        "",
    ],
)
def test_nothing_comes_of_what_is_no_call_of_these_tools(text):
    started, joined, stream = fed(list(text))
    assert (started, joined, stream.begun, stream.complete) == ([], "", False, False)


# with the parser


class Held:
    """From text to deltas, with calls that are held to their schemas."""

    def __init__(self, names=(NAME,)) -> None:
        self._regions, self._parser = Regions(THINK, TAGS), Parser(names, streams_calls=True)

    def all(self, pieces):
        deltas = [delta for piece in pieces for delta in self._parser.feed(self._regions.feed(piece))]
        return deltas + self._parser.feed(self._regions.finish()) + self._parser.finish()


def call(arguments, name=NAME):
    return f"{TAGS.open}\n{written(name, arguments)}\n{TAGS.close}"


@given(st.lists(ARGUMENTS, min_size=1, max_size=3), st.lists(st.integers(0, 400)))
def test_several_calls_come_one_after_the_other_wherever_the_text_is_cut(several, places):
    text = "<think>\nHm.\n</think>\n\nBoth.\n" + "\n".join(map(call, several))
    deltas = Held().all(cut(text, places))
    expected = tuple(ToolCall(NAME, json.dumps(one, ensure_ascii=False)) for one in several)
    assert whole_calls(deltas) == expected
    assert "".join(delta.text for delta in deltas if isinstance(delta, Content)) == "Both."


def test_a_marker_inside_a_string_ends_no_call():
    arguments = {"text": "</tool_call> and <tool_call>"}
    assert whole_calls(Held().all(list(call(arguments)))) == (ToolCall(NAME, json.dumps(arguments)),)


@given(st.integers(0, 100))
def test_a_call_that_is_cut_is_never_text(length):
    text = call({"room": "kitchen", "on": True})[:length]
    deltas = Held().all([text])
    if length >= len(TAGS.open):
        assert not any(isinstance(delta, Content) for delta in deltas)
    builder = CallBuilder()
    whole = [one for delta in deltas if (one := builder.add(delta))]
    arguments = json.dumps({"room": "kitchen", "on": True})
    if arguments in text:
        assert whole == [ToolCall(NAME, arguments)], "only the closing marker is missing"
        assert builder.unfinished is None
    elif builder.unfinished:
        assert builder.unfinished.name == NAME
        assert arguments.startswith(builder.unfinished.arguments)


def test_a_call_ends_once():
    deltas = Held().all([call({"a": 1})])
    assert [type(delta) for delta in deltas] == [ToolCallStart, ToolCallArguments, ToolCallEnd]


def test_text_behind_a_call_stays_text():
    deltas = Held().all([call({}) + "\nDone."])
    assert deltas[-1] == Content("Done.")
