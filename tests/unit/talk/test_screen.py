"""What a terminal shows of an answer: text as text, thinking folded, code in colours."""

import io

import pytest
from rich.console import Console

from qwen_edge.talk.answer import Piece
from qwen_edge.talk.conversation import Call
from qwen_edge.talk.screen import Shown, call_line


def shown(*pieces, width=40, colours=True, thinking=True):
    console = Console(
        file=io.StringIO(), width=width, force_terminal=colours, color_system="standard" if colours else None
    )
    with Shown(console, thinking=thinking) as screen:
        for kind, text in pieces:
            screen.put(Piece(kind, text), 1.25)
    return console.file.getvalue()


def test_thinking_is_folded_into_one_line():
    out = shown(("reasoning", "let me "), ("reasoning", "see"), ("content", "Yes."), colours=False)
    assert out == "thought for 1.2 s\nYes.\n"
    assert shown(("reasoning", "only this"), colours=False) == "thought for 1.2 s\n"


def test_code_has_colours_line_by_line_and_prose_has_none():
    out = shown(*(("content", one) for one in "import\n```python\nimport os\n```\nimport\n"))
    plain, code, last = out.partition("```python")[0], out.partition("```python")[2], out.rpartition("```")[2]
    assert "\x1b[3" not in plain.replace("\x1b[?25", "")
    assert "\x1b[94mimport" in code
    assert last.endswith("\nimport\n")


@pytest.mark.parametrize("language", ["", "no-such-language", "\\x1b[31m"])
def test_code_of_an_unknown_language_is_shown_as_it_is(language):
    assert "x  = 1" in shown(("content", f"```{language}\nx  = 1\n```"))


def test_an_answer_that_ends_in_the_middle_of_anything_is_whole_and_ends_its_line():
    for text in ("half", "```", "```\nx = 1", "a\n``"):
        out = shown(*(("content", one) for one in text), colours=False)
        assert out == text + "\n"
    assert shown(colours=False) == ""


def test_a_long_string_in_code_keeps_its_colour():
    lines = ["```python\n", "'''\n", *["word\n"] * 10, "'''\n", "```\n"]
    assert shown(("content", "".join(lines))).count("\x1b[33mword") == 10


def test_a_call_is_one_line_without_control_characters():
    assert call_line(Call("f\x1b", '{"a":\n"\t"}')).plain == 'call f\\x1b({"a":\\n"\\t"})'
