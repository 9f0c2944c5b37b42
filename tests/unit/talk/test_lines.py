"""However a stream is divided, lines break between words and Chinese characters, and code is told apart."""

from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from qwen_edge.talk.lines import Fences, WordWrap

_TEXT = st.text(st.sampled_from("ab c\n，。中文é😀-"), max_size=60)
_CUTS = st.lists(st.integers(0, 60), max_size=8)
_MARKDOWN = st.lists(
    st.sampled_from(["```", "```python", "~~~", "  ```", "`", "x = 1", "a", "", " ", "``x``"]), max_size=12
)


def pieces(text, cuts):
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    return [text[one:other] for one, other in pairwise(places)]


def wrapped(text, width, cuts=()):
    wrap = WordWrap(width)
    return "".join([*map(wrap.put, pieces(text, cuts)), wrap.end()])


def parts(text, cuts=()):
    fences = Fences()
    found = [part for piece in pieces(text, cuts) for part in fences.put(piece)] + list(fences.end())
    joined = []
    for kind, group in groupby(found, key=lambda part: part.kind):
        if kind == "prose":
            joined.append(("prose", "".join(part.text for part in group), ""))
        else:
            joined += [(part.kind, part.text, part.language) for part in group]
    return joined


@given(_TEXT, st.integers(2, 20), _CUTS)
def test_the_lines_do_not_depend_on_how_the_stream_is_divided(text, width, cuts):
    assert wrapped(text, width, cuts) == wrapped(text, width)


@given(_TEXT, st.integers(2, 20))
def test_nothing_but_white_space_changes(text, width):
    assert wrapped(text, width).split() == text.split() or "".join(wrapped(text, width).split()) == "".join(
        text.split()
    )


@given(st.lists(st.sampled_from(["a", "abcdef", " ", " ", "\n", "中", "文，", "é"]), max_size=30), st.integers(6, 20))
def test_no_line_is_wider_than_the_terminal(words, width):
    text = " ".join(words)
    assert all(cell_len(line) <= width for line in wrapped(text, width).split("\n"))


def test_a_word_that_is_too_long_is_left_to_the_terminal():
    assert wrapped("x abcdefghij kl", 6) == "x \nabcdefghij \nkl"
    assert wrapped("x " + "a" * 50 + " kl", 6) == "x \n" + "a" * 50 + " kl"


def test_no_more_than_a_line_is_held_back():
    wrap = WordWrap(20)
    shown = wrap.put("x " + "a" * 10_000)
    assert len(shown) > 10_000 - 20


def test_chinese_characters_take_two_cells_and_no_comma_begins_a_line():
    assert wrapped("你好世界再见", 7) == "你好世\n界再见"
    assert wrapped("你好世，界", 6) == "你好\n世，界"
    assert wrapped("one two three", 8) == "one two \nthree"
    assert wrapped("用 Python 写", 9) == "用 Python\n写"


@given(_MARKDOWN, _CUTS)
def test_the_parts_do_not_depend_on_how_the_stream_is_divided(lines, cuts):
    text = "\n".join(lines)
    assert parts(text, cuts) == parts(text)
    again = "".join(text if kind == "prose" else f"{text}\n" for kind, text, _ in parts(text))
    assert again.rstrip("\n") == text.rstrip("\n")


def test_code_is_told_line_by_line_with_its_language():
    text = "Look:\n```python\nx = 1\n\n~~~\n```\nThere `it` is."
    assert parts(text) == [
        ("prose", "Look:\n", ""),
        ("fence", "```python", "python"),
        ("code", "x = 1", "python"),
        ("code", "", "python"),
        ("code", "~~~", "python"),
        ("fence", "```", ""),
        ("prose", "There `it` is.", ""),
    ]


@pytest.mark.parametrize("text", ["```", "a\n```c\nint x", "```\n```\n```"])
def test_a_block_that_is_not_closed_is_shown(text):
    assert "".join(part for _, part, _ in parts(text)).replace("\n", "") == text.replace("\n", "")


def test_prose_is_told_as_it_comes_but_what_may_be_a_fence_is_held_back():
    fences = Fences()
    assert [part.text for part in fences.put("He")] == ["He"]
    assert list(fences.put("llo\n``"))[-1].text == "llo\n"
    assert [part.kind for part in fences.put("`js\n")] == ["fence"]
