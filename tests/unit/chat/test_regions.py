"""Each piece of text is told the region in which it stands, however it is cut, and none of it is lost."""

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.chat.regions import Regions
from qwen_edge.chat.template import THINK
from qwen_edge.chat.tools import CALL
from qwen_edge.protocol.messages import Markers, Part
from tests.cuts import cut

BODY = '\n{"name": "f", "arguments": {"a": "</tool_call>"}}\n'


def split(pieces, reasoning=THINK, calls=CALL, *, reasons=False) -> list[tuple[str, str, str]]:
    """Region, kind of mark and text of the parts; what came in several pieces is joined."""
    regions = Regions(reasoning, calls, reasons=reasons)
    parts = [part for piece in pieces for part in regions.feed(piece)] + regions.finish()
    together = groupby(parts, lambda part: (part.region, part.mark))
    return [(region, mark, "".join(part.text for part in some)) for (region, mark), some in together]


KNOWN = {
    "plain": ("Hello!\n", [("answer", "", "Hello!\n")]),
    "thinking, an answer and a call": (
        f"\n<think>\na\n</think>\n\nb\n<tool_call>{BODY}</tool_call>\nc",
        [
            ("reasoning", "open", "\n<think>"),
            ("reasoning", "break", "\n"),
            ("reasoning", "", "a"),
            ("reasoning", "close", "\n</think>"),
            ("answer", "break", "\n\n"),
            ("answer", "", "b"),
            ("call", "open", "\n<tool_call>"),
            ("call", "", BODY),
            ("call", "close", "</tool_call>"),
            ("answer", "break", "\n"),
            ("answer", "", "c"),
        ],
    ),
    "a call inside the thinking": (
        f"<think>a <tool_call>{BODY}</tool_call> b</think>c",
        [
            ("reasoning", "open", "<think>"),
            ("reasoning", "", "a "),
            ("thought_call", "open", "<tool_call>"),
            ("thought_call", "", BODY),
            ("thought_call", "close", "</tool_call>"),
            ("reasoning", "", " b"),
            ("reasoning", "close", "</think>"),
            ("answer", "", "c"),
        ],
    ),
    "thinking that ends inside a call": (
        '<think><tool_call>{"</think>c',
        [
            ("reasoning", "open", "<think>"),
            ("thought_call", "open", "<tool_call>"),
            ("thought_call", "", '{"'),
            ("reasoning", "close", "</think>"),
            ("answer", "", "c"),
        ],
    ),
    "a tag that is only mentioned": (
        "Use <tool_call>\ntags",
        [("answer", "", "Use "), ("call", "open", "<tool_call>"), ("answer", "", "\ntags")],
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_texts_cut_anywhere(name):
    text, expected = KNOWN[name]
    assert split([text]) == split(text) == expected
    for at in range(len(text)):
        assert split([text[:at], text[at:]]) == expected


fragments = st.lists(
    st.sampled_from([THINK.open, THINK.close, CALL.open, CALL.close, BODY, "{", '"', "\\", "\n", " ", "<", "§"]),
    max_size=12,
).map("".join)
markers = st.sampled_from((None, THINK))
calls = st.sampled_from((None, CALL, Markers("[call", "call]")))


@given(fragments, st.lists(st.integers(0, 200)), markers, calls, st.booleans())
def test_cuts_change_no_region_and_no_letter_is_lost(text, cuts, reasoning, calls, reasons):
    parts = split([text], reasoning, calls, reasons=reasons)
    assert split(cut(text, cuts), reasoning, calls, reasons=reasons) == parts
    assert "".join(part for _, _, part in parts) == text


@pytest.mark.parametrize("reasons", [False, True])
def test_text_comes_at_once_where_no_marker_may_begin(reasons):
    regions = Regions(THINK, CALL, reasons=reasons)
    region = "reasoning" if reasons else "answer"
    assert regions.feed("Hello") == [Part(region, "Hello")]
    assert regions.feed(", world\n") == [Part(region, ", world")]
    assert regions.feed("<") == []
    assert regions.feed("3") == [Part(region, "\n<3")]


def test_the_body_of_a_call_comes_as_it_is_written():
    regions = Regions(None, CALL)
    assert regions.feed(CALL.open) == [Part("call", CALL.open, "open")]
    assert regions.feed("\n") == []  # not known yet whether this is a call
    assert regions.feed('{"na') == [Part("call", '\n{"na')]
    assert regions.feed('me"') == [Part("call", 'me"')]
    assert regions.region == "call"


def test_a_prompt_that_opens_a_block_which_the_model_never_closes_is_no_reasoning():
    assert split(["a\n"], None, reasons=True) == [("answer", "", "a\n")]
