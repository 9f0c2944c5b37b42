"""Text is shown only when it is certain: whole characters, and no part of a stop text."""

from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.engine.output import Output
from qwen_edge.protocol.messages import Markers, Part
from tests.cuts import cut

THINK = Markers("<think>", "</think>")
words = st.text(st.sampled_from("abXY<>/think你好🙂\n "), max_size=40)


def show(output: Output, pieces: list[bytes]) -> list[Part]:
    shown = []
    for piece in pieces:
        shown += output.push(piece)
        if output.stopped:
            return shown
    return shown + output.finish()


def run(output: Output, pieces: list[bytes]) -> str:
    return "".join(part.text for part in show(output, pieces))


@given(words, st.lists(st.integers(0, 1000), max_size=12))
def test_text_without_stop_comes_out_as_it_went_in_however_it_is_cut(text, cuts):
    assert run(Output(()), cut(text.encode(), cuts)) == text


@given(
    words,
    st.lists(st.text(st.sampled_from("abXY<"), min_size=1, max_size=3), max_size=3),
    st.lists(st.integers(0, 1000)),
)
def test_the_answer_ends_before_the_first_stop_text_however_it_is_cut(text, stop, cuts):
    ends = [at for marker in stop if (at := text.find(marker)) >= 0]
    output = Output(tuple(stop))
    shown = run(output, cut(text.encode(), cuts))
    # the earliest by what has arrived: with one byte at a time, the stop text that is complete first
    assert not any(marker in shown for marker in stop)
    assert text.startswith(shown)
    assert output.stopped == bool(ends)
    assert text[len(shown) :].startswith(output.stop_text)
    assert output.stop_text in (stop if ends else [""])
    if not ends:
        assert shown == text


@given(words, st.lists(st.integers(0, 1000), max_size=12))
def test_stop_texts_count_only_after_the_reasoning(thought, cuts):
    thought = thought.replace("</think>", "")
    text = f"<think>X{thought}X</think>ok X no"
    shown = run(Output(("X",), THINK), cut(text.encode(), cuts))
    assert shown == f"<think>X{thought}X</think>ok "


def test_stop_texts_count_at_once_when_the_model_does_not_think():
    assert run(Output(("\n",), THINK), [b"one", b" line\ntwo"]) == "one line"


def test_a_prompt_that_opened_the_reasoning_is_known_to_the_output():
    assert run(Output(("\n",), THINK, reasons=True), [b"a\nb</think>c", b"\nd"]) == "a\nb</think>c"


@given(st.lists(st.integers(0, 1000), max_size=12))
def test_the_blank_line_behind_the_reasoning_is_no_stop_text(cuts):
    text = "<think>\na\n</think>\n\none\ntwo"
    shown = run(Output(("\n",), THINK), cut(text.encode(), cuts))
    assert shown == "<think>\na\n</think>\n\none"


CALLS = Markers("<tool_call>", "</tool_call>")
CALL = '<tool_call>\n{"name": "set_light", "arguments": {"room": "X", "text": "</tool_call>"}}\n</tool_call>'


@given(st.lists(st.integers(0, 1000), max_size=12))
def test_stop_texts_do_not_count_in_a_call_or_in_the_line_breaks_around_it(cuts):
    text = f"<think>\na\n</think>\n\n{CALL}\n{CALL}\none\ntwo"
    shown = run(Output(("\n", "X", "}"), THINK, CALLS), cut(text.encode(), cuts))
    assert shown == text.removesuffix("\ntwo")


@given(st.lists(st.integers(0, 1000), max_size=12))
def test_a_stop_text_before_a_call_counts(cuts):
    shown = run(Output(("X",), THINK, CALLS), cut(f"ok X{CALL}".encode(), cuts))
    assert shown == "ok "


@given(st.lists(st.integers(0, 1000), max_size=12))
def test_a_line_break_before_a_call_is_no_stop_text_and_one_before_other_text_is(cuts):
    assert run(Output(("\n",), None, CALLS), cut(f"Doing it.\n{CALL}".encode(), cuts)) == f"Doing it.\n{CALL}"
    assert run(Output(("\n",), None, CALLS), cut(b"one\n<tool> two", cuts)) == "one"
    assert run(Output(("\n",), None, CALLS), cut(b"one\n", cuts)) == "one"


@given(st.lists(st.integers(0, 1000), max_size=12))
def test_a_stop_text_behind_a_tag_that_is_only_mentioned_counts(cuts):
    shown = run(Output(("X",), None, CALLS), cut(b"Use <tool_call> tags X now", cuts))
    assert shown == "Use <tool_call> tags "


@given(st.lists(st.integers(0, 1000), max_size=12))
def test_a_line_break_behind_a_tag_that_is_only_mentioned_is_a_stop_text(cuts):
    assert run(Output(("\n",), None, CALLS), cut(b"Use <tool_call>\n tags", cuts)) == "Use <tool_call>"


@given(st.lists(st.integers(0, 1000), max_size=12))
def test_of_several_stop_texts_the_one_that_is_complete_first_ends_the_answer(cuts):
    assert run(Output(("b c d", "c", "d")), cut(b"a b c d", cuts)) == "a b "


fragments = st.lists(
    st.sampled_from(["<think>", "</think>", "<tool_call>", "</tool_call>", CALL, "{", '"', "\n", "X", "Y", "<", "好"]),
    max_size=12,
)
stops = st.lists(st.sampled_from(["X", "XY", "Y", "\n", "\n\n", "X\n", "<tool", "}", "<"]), max_size=3).map(tuple)


@given(
    fragments,
    stops,
    st.sampled_from((None, THINK)),
    st.sampled_from((None, CALLS)),
    st.booleans(),
    st.lists(st.integers(0, 1000)),
)
def test_cuts_change_neither_the_text_of_a_region_nor_the_end(texts, stop, reasoning, calls, reasons, cuts):
    data = "".join(texts).encode()
    whole, cut_up = (Output(stop, reasoning, calls, reasons=reasons) for _ in range(2))
    shown = show(whole, [data])
    assert joined(show(cut_up, cut(data, cuts))) == joined(shown)
    assert (cut_up.stopped, cut_up.region) == (whole.stopped, whole.region) or whole.stopped
    text = "".join(part.text for part in shown)
    assert data.decode().startswith(text)
    assert whole.stopped or text == data.decode()


def joined(parts: list[Part]) -> list[tuple[str, str, str]]:
    """The parts, as they would be if nothing came in pieces."""
    together = groupby(parts, lambda part: (part.region, part.mark))
    return [(region, mark, "".join(part.text for part in some)) for (region, mark), some in together]


def test_where_the_next_token_stands_is_known_after_each_token():
    tokens = ["<think>", "\n", "Hm", "\n", "</think>", "\n\n", "Yes", ".", "\n", "<tool_call>", "\n", "{", "}", "\n"]
    output, regions = Output((), THINK, CALLS), []
    for token in [*tokens, "</tool_call>", "\n"]:
        output.push(token.encode())
        regions.append(output.region)
    assert regions == ["reasoning"] * 4 + ["answer"] * 5 + ["call"] * 5 + ["answer"] * 2


def test_where_the_first_token_stands_is_open_while_the_model_may_still_think():
    output = Output((), THINK)
    assert output.region is None
    output.push(b"\n<th")
    assert output.region is None
    output.push(b"ree>")
    assert output.region == "answer"
    assert Output((), None).region == "answer"
    assert Output((), THINK, reasons=True).region == "reasoning"


def test_without_tools_a_stop_text_counts_between_tags_too():
    assert run(Output(("room",)), [CALL.encode()]) == CALL.partition("room")[0]


def test_half_a_character_is_never_shown():
    output = Output(())
    assert output.push("你".encode()[:2]) == []
    assert output.push("你".encode()[2:]) == [Part("answer", "你")]


def test_a_character_that_never_becomes_whole_is_shown_as_such_at_the_end():
    output = Output(())
    output.push(b"ok \xe4\xbd")
    assert output.finish() == [Part("answer", "\ufffd")]


def test_empty_stop_texts_stop_nothing():
    assert run(Output(("",)), [b"abc"]) == "abc"
