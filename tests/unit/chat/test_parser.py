"""What the model says comes out as reasoning, answer and calls, and nothing of it is lost, however it is cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.chat.messages import (
    Content,
    Reasoning,
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

CALL = '<tool_call>\n{"name": "set_light", "arguments": {"room": "kitchen", "on": true}}\n</tool_call>'
LIGHT = ToolCall("set_light", '{"room": "kitchen", "on": true}')


class Whole:
    """From text to deltas: what the engine does with the text, and then the daemon with its parts."""

    def __init__(self, reasoning, tools, *, reasons=False) -> None:
        self._regions = Regions(reasoning, TAGS if tools else None, reasons=reasons)
        self._parser = Parser(tools)

    def feed(self, text):
        return self._parser.feed(self._regions.feed(text))

    def finish(self):
        return self._parser.feed(self._regions.finish()) + self._parser.finish()


def parse(pieces, *, tools=("set_light",), reasons=False, reasoning=THINK):
    """Reasoning, answer and calls, each joined."""
    parser = Whole(reasoning, tools, reasons=reasons)
    deltas = [delta for piece in pieces for delta in parser.feed(piece)] + parser.finish()
    thought = "".join(delta.text for delta in deltas if isinstance(delta, Reasoning))
    said = "".join(delta.text for delta in deltas if isinstance(delta, Content))
    return thought, said, [*whole_calls(deltas)]


GOLDEN = {
    "a plain answer": ("Hello!", ("", "Hello!", [])),
    "thinking, then an answer": ("<think>\nHm.\n</think>\n\nYes.", ("Hm.", "Yes.", [])),
    "an empty think block": ("<think>\n\n</think>\n\nYes.", ("", "Yes.", [])),
    "space before the think block": ("\n<think>a</think>b", ("a", "b", [])),
    "thinking that never ends": ("<think>\nHm, wait", ("Hm, wait", "", [])),
    "a think block in the middle is text": ("So: <think>a</think>", ("", "So: <think>a</think>", [])),
    "blank lines inside stay": ("<think>a\n\nb</think>\n\nc\n\nd\n", ("a\n\nb", "c\n\nd\n", [])),
    "one call": (CALL, ("", "", [LIGHT])),
    "thinking, words, a call": (f"<think>\na\n</think>\n\nDoing it.\n{CALL}", ("a", "Doing it.", [LIGHT])),
    "two calls": (f"{CALL}\n{CALL}", ("", "", [LIGHT, LIGHT])),
    "words after a call": (f"{CALL}\nDone.", ("", "Done.", [LIGHT])),
    "a call without its closing tag": (CALL.removesuffix("\n</tool_call>"), ("", "", [LIGHT])),
    "a closing tag inside an argument": (
        '<tool_call>{"name": "set_light", "arguments": {"room": "</tool_call>"}}</tool_call>',
        ("", "", [ToolCall("set_light", '{"room": "</tool_call>"}')]),
    ),
    "a broken call stays text": (
        "a\n<tool_call>\n{oops}\n</tool_call> b",
        ("", "a\n<tool_call>\n{oops}\n</tool_call> b", []),
    ),
    "an unknown tool stays text": (
        '<tool_call>{"name": "rm", "arguments": {}}</tool_call>',
        ("", '<tool_call>{"name": "rm", "arguments": {}}</tool_call>', []),
    ),
    "arguments that are no object stay text": (
        '<tool_call>{"name": "set_light", "arguments": "x"}</tool_call>',
        ("", '<tool_call>{"name": "set_light", "arguments": "x"}</tool_call>', []),
    ),
    "a call cut off stays text": ('<tool_call>\n{"name": "set_l', ("", '<tool_call>\n{"name": "set_l', [])),
    "a good call after a broken one": (f"<tool_call>x</tool_call>\n{CALL}", ("", "<tool_call>x</tool_call>", [LIGHT])),
    "a tag that is only mentioned": (f"Use <tool_call> so: {CALL}", ("", "Use <tool_call> so: ", [LIGHT])),
    "a call inside thinking that never ends": (f"<think>\nThe light.\n{CALL}", ("The light.", "", [LIGHT])),
    "two of them": (f"<think>a\n{CALL}\n{CALL}\n", ("a", "", [LIGHT, LIGHT])),
    "a call cut off inside thinking is thinking": (
        '<think>a\n<tool_call>\n{"name": "set_l',
        ('a\n<tool_call>\n{"name": "set_l', "", []),
    ),
    "a call that was only thought of": (f"<think>a\n{CALL}\nor not</think>\n\nNo.", (f"a\n{CALL}\nor not", "No.", [])),
    "a call thought of, then made": (f"<think>a {CALL}</think>{CALL}", (f"a {CALL}", "", [LIGHT])),
    "a broken call inside thinking": (
        f"<think><tool_call>{{oops}}</tool_call> b\n{CALL}",
        ("<tool_call>{oops}</tool_call> b", "", [LIGHT]),
    ),
    "a tag mentioned before a call": (f"<tool_call>\n{CALL}", ("", "<tool_call>", [LIGHT])),
    "lines behind a broken call": (
        "<tool_call>{oops}</tool_call>\n\nb",
        ("", "<tool_call>{oops}</tool_call>\n\nb", []),
    ),
    "lines between a broken call and a good one": (
        f"<tool_call>{{oops}}</tool_call>\n\n{CALL}",
        ("", "<tool_call>{oops}</tool_call>", [LIGHT]),
    ),
    "lines behind a broken call that ends the thinking": (
        "<think><tool_call>{oops}</tool_call>\n\n</think>b",
        ("<tool_call>{oops}</tool_call>", "b", []),
    ),
    "thinking that ends inside a call": (
        '<think>a\n<tool_call>{"name": "</think>b',
        ('a\n<tool_call>{"name": "', "b", []),
    ),
    "almost a marker": ("a < b <tool", ("", "a < b <tool", [])),
    "almost thinking": ("<thin", ("", "<thin", [])),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_known_answers(name):
    text, expected = GOLDEN[name]
    assert parse([text]) == expected


@pytest.mark.parametrize("name", GOLDEN)
def test_known_answers_cut_anywhere(name):
    text, expected = GOLDEN[name]
    assert parse(list(text)) == expected
    for at in range(len(text)):
        assert parse([text[:at], text[at:]]) == expected


def test_without_tools_tags_are_text():
    assert parse([CALL], tools=()) == ("", CALL, [])


def test_without_reasoning_think_tags_are_text():
    assert parse(["<think>a</think>b"], reasoning=None) == ("", "<think>a</think>b", [])


def test_a_template_that_opens_the_think_block_itself():
    assert parse(["a", "\n</thi", "nk>\n\nb"], reasons=True) == ("a", "b", [])


def test_an_answer_streams_without_waiting_for_its_end():
    parser = Whole(THINK, ("set_light",))
    assert parser.feed("Hello") == [Content("Hello")]
    assert parser.feed(", world <") == [Content(", world ")]
    assert parser.feed("3") == [Content("<3")]


def test_thinking_that_mentions_the_tag_streams_on():
    parser = Whole(THINK, ("set_light",))
    pieces = ["<think>I use ", "<tool_call>", " tags", " here"]
    assert [parser.feed(piece) for piece in pieces] == [
        [Reasoning("I use ")],
        [],
        [Reasoning("<tool_call>"), Reasoning(" tags")],
        [Reasoning(" here")],
    ]


def test_a_call_comes_whole_with_its_arguments_letter_for_letter():
    arguments = '{"room":  "厨房",\n "level": 1.50}'
    _, _, [call] = parse(list(f'<tool_call>{{"name": "set_light", "arguments": {arguments}}}</tool_call>'))
    assert call.arguments == arguments
    assert json.loads(call.arguments)["level"] == 1.5


@pytest.mark.parametrize("text", [f"a{CALL}b", f"a{CALL}{CALL}b", f"<think>a{CALL}{CALL}"])
def test_a_call_is_a_start_its_arguments_and_an_end_with_nothing_between(text):
    parser = Whole(THINK, ("set_light",))
    deltas = [delta for letter in text for delta in parser.feed(letter)] + parser.finish()
    calls = [delta for delta in deltas if not isinstance(delta, Content | Reasoning)]
    one = [ToolCallStart(LIGHT.name), ToolCallArguments(LIGHT.arguments), ToolCallEnd()]
    assert calls == one * text.count("<tool_call>")
    start = deltas.index(one[0])
    assert deltas[start : start + len(calls)] == calls


PLAIN = "§"  # never part of a marker or of a valid call
fragments = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<tool_call>", "</tool_call>", "\n", PLAIN, '{"name"', '"', CALL, "<", "\\"]
    ),
    max_size=12,
)


@given(fragments, st.lists(st.integers(0, 200), max_size=6), st.booleans())
def test_cuts_change_nothing_and_no_letter_is_lost(parts, cuts, reasons):
    text = "".join(parts)
    thought, said, calls = parse([text], reasons=reasons)
    assert parse(cut(text, cuts), reasons=reasons) == (thought, said, calls)
    assert (thought + said).count(PLAIN) == text.count(PLAIN)
    if not calls and not reasons and not text.lstrip().startswith("<think>"):
        assert said == text
