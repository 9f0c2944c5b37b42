"""What is marked as volatile moves to the last question, letter for letter, and nothing else does."""

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from qwen_edge.chat.volatile import moved, taken_out
from qwen_edge.core.errors import RequestError


def said(role: str, content: str):
    return {"role": role, "content": content}


def marked(text: str) -> str:
    return f"<volatile>{text}</volatile>"


words = st.sampled_from(["a", "B c", " ", "\n", "你", "<", "/", "volatile>", "<volatile", "<VOLATILE>", ""])
plain = st.lists(words, max_size=6).map("".join).filter(lambda text: "<volatile>" not in text and "</vol" not in text)
marks = st.sampled_from(["<volatile>", "</volatile>"])
anything = st.lists(words | marks, max_size=6).map("".join)
others = st.lists(st.builds(said, st.sampled_from(["user", "assistant", "tool"]), anything), max_size=4)


@given(st.lists(st.tuples(plain, plain), max_size=4), plain, others, anything, others)
def test_the_prompt_is_the_one_that_a_hand_would_write(stretches, rest, before, question, answers):
    assume(not any(message["role"] == "user" for message in answers))
    system = "".join(f"{kept}{marked(text)}\n" for kept, text in stretches) + rest
    kept = "".join(kept for kept, _ in stretches) + rest
    assume("<volatile>" not in kept)
    assume("</volatile>" not in kept)
    texts = [text.strip("\n") for _, text in stretches]
    carried = "\n".join(text for text in texts if text)
    asked = "\n\n".join(text for text in (carried, question) if text) if carried else question
    conversation = [said("system", system), *before, said("user", question), *answers]
    assert moved(conversation) == (said("system", kept), *before, said("user", asked), *answers)


@given(plain, plain, plain, plain, others)
def test_another_clock_changes_the_last_question_only(before, after, now, later, history):
    assume(all("<volatile>" not in before + after + clock for clock in (now, later)))
    requests = ([said("system", before + marked(clock) + after), *history, said("user", "?")] for clock in (now, later))
    one, other = (moved(request) for request in requests)
    assert one[:-1] == other[:-1]
    assert taken_out([said("system", before + marked(now) + after)])[0] == one[:1]


@given(others)
def test_marks_of_users_tools_and_answers_are_text_of_theirs(conversation):
    assert moved([said("system", "Be brief."), *conversation]) == (said("system", "Be brief."), *conversation)


@given(st.lists(st.builds(said, st.sampled_from(["system", "user"]), anything), min_size=1, max_size=4))
def test_marks_in_pairs_are_taken_with_what_they_hold_and_others_refused(conversation):
    systems = [message["content"] for message in conversation if message["role"] == "system"]
    found = [re.findall("</?volatile>", text) for text in systems]
    if any(marks != ["<volatile>", "</volatile>"] * (len(marks) // 2) for marks in found):
        with pytest.raises(RequestError):
            moved(conversation)
        return
    kept, _ = taken_out(conversation)
    outside = [re.sub("<volatile>.*?</volatile>\n?", "", text, flags=re.DOTALL) for text in systems]
    assert [message["content"] for message in kept if message["role"] == "system"] == outside
    assert [one for one in kept if one["role"] == "user"] == [one for one in conversation if one["role"] == "user"]


@pytest.mark.parametrize(
    ("system", "kept"),
    [
        ("<volatile>It is noon.</volatile>\nBe brief.", "Be brief."),
        ("<volatile>\nIt is noon.\n</volatile>\nBe brief.", "Be brief."),
        ("Be brief.\n<volatile>\nIt is noon.\n</volatile>\nBe kind.", "Be brief.\nBe kind."),
        ("Be brief.\n\n<volatile>It is noon.</volatile>\n\nBe kind.", "Be brief.\n\n\nBe kind."),
        ("Be brief. <volatile>It is noon.</volatile> Be kind.", "Be brief.  Be kind."),
        ("Be brief.\n<volatile>It is noon.</volatile>", "Be brief.\n"),
        ("<volatile>It is noon.</volatile>", ""),
    ],
)
def test_the_line_break_after_a_stretch_goes_with_it(system, kept):
    question = "It is noon.\n\nTea?"
    assert moved([said("system", system), said("user", "Tea?")]) == (said("system", kept), said("user", question))


def test_several_stretches_of_several_messages_follow_each_other():
    system = [said("system", f"{marked('one')}A{marked('two')}"), said("system", f"B{marked('three')}")]
    assert moved([*system, said("user", "Q")])[-1] == said("user", "one\ntwo\nthree\n\nQ")


def test_without_a_question_it_ends_the_last_system_message():
    system = [said("system", f"A{marked('one')}"), said("system", f"{marked('two')}B")]
    assert moved([*system, said("assistant", "C")]) == (
        said("system", "A"),
        said("system", "B\n\none\ntwo"),
        said("assistant", "C"),
    )
    assert moved([said("system", marked("one"))]) == (said("system", "one"),)


def test_what_else_a_message_has_stays():
    conversation = [{**said("system", marked("one") + "A"), "name": "home"}, {**said("user", "Q"), "name": "Anna"}]
    assert [message["name"] for message in moved(conversation)] == ["home", "Anna"]


def test_nothing_marked_is_nothing_moved():
    conversation = (said("system", f"A{marked('')}"), said("user", "Q"))
    assert moved(conversation) == (said("system", "A"), said("user", "Q"))


@pytest.mark.parametrize(
    ("system", "part"),
    [
        ("A <volatile> B", "a <volatile> is never closed"),
        (f"{marked('A')} <volatile>", "a <volatile> is never closed"),
        ("A </volatile> B", "there is a </volatile> with no <volatile> before it"),
        (f"{marked('A')}</volatile>", "there is a </volatile> with no <volatile> before it"),
        (f"<volatile>{marked('A')}", "there is a <volatile> inside another"),
    ],
)
def test_a_mark_without_its_partner_is_refused(system, part):
    with pytest.raises(RequestError) as refused:
        moved([said("system", "Be brief."), said("system", system), said("user", "Q")])
    assert refused.value.message.startswith(f"messages[1]: {part}")
    assert (refused.value.kind, refused.value.parameter) == ("invalid_request", "messages")
