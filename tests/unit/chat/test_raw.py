"""Text that no template has rendered: special tokens are read where they stand, and nothing is lost."""

from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.chat.raw import marked
from qwen_edge.protocol.messages import Segment

SPECIALS = ("<a>", "<a>b", "<|end|>", "", "a+")


def test_special_tokens_in_raw_text_are_tokens():
    assert marked("<|end|>hi <a>c", SPECIALS) == (
        Segment("<|end|>", special=True),
        Segment("hi "),
        Segment("<a>", special=True),
        Segment("c"),
    )


def test_of_two_special_tokens_that_begin_alike_the_longer_one_counts():
    assert marked("<a>bc", SPECIALS) == (Segment("<a>b", special=True), Segment("c"))


def test_a_model_without_special_tokens_has_plain_text():
    assert marked("<a>b", ()) == (Segment("<a>b"),)
    assert marked("", SPECIALS) == ()


@given(st.lists(st.sampled_from([*SPECIALS, "a", "<", "b", "\n"])).map("".join))
def test_no_character_is_lost_and_plain_text_holds_no_special_token(text):
    segments = marked(text, SPECIALS)
    assert "".join(one.text for one in segments) == text
    assert not any(special in one.text for one in segments if not one.special for special in SPECIALS if special)
