"""A conversation is what was said, whatever is taken back, written and read again."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_edge.core.errors import UserError
from qwen_edge.talk.conversation import NOT_RUN, Call, Conversation, Message

_TEXT = st.text(max_size=20)
_CALLS = st.lists(st.builds(Call, st.text("ab", min_size=1), _TEXT, st.uuids().map(str)), max_size=2)
_TURN = st.tuples(_TEXT, _TEXT.filter(bool), _TEXT, _CALLS)
_TURNS = st.lists(_TURN, max_size=5)


def talked(turns, system=""):
    conversation = Conversation()
    conversation.system = system
    for question, content, reasoning, calls in turns:
        conversation.ask(question)
        conversation.answer(content, reasoning, calls)
    return conversation


@given(_TURNS, _TEXT)
def test_what_was_saved_is_loaded_as_it_was(turns, system):
    conversation = talked(turns, system)
    assert Conversation.loads(conversation.dumps(), "a file").messages == conversation.messages


@given(_TURNS, _TURN, _TEXT)
def test_undo_takes_back_the_last_question_with_its_answer(turns, last, system):
    before = talked(turns, system).messages
    conversation = talked([*turns, last], system)
    assert conversation.undo() == conversation_text(last[0])
    assert conversation.messages == before


def conversation_text(text):
    return text.encode("utf-8", errors="replace").decode()


@given(_TURNS, _TEXT, _TEXT)
def test_the_system_prompt_is_one_and_the_first(turns, one, other):
    conversation = talked(turns, one)
    conversation.system = other
    roles = [message.role for message in conversation.messages]
    assert roles == ["system"] * bool(other) + ["user", "assistant"] * len(turns)
    assert conversation.system == conversation_text(other)
    conversation.clear()
    assert [message.content for message in conversation.messages] == [conversation_text(other)] * bool(other)


@given(_TURNS)
def test_every_call_is_sent_with_a_result_and_no_reasoning_is_sent(turns):
    conversation = talked(turns)
    conversation.ask("and now?")
    sent = conversation.to_send()
    open_ids = []
    for message in sent:
        assert "reasoning_content" not in message
        if message["role"] == "tool":
            assert message["tool_call_id"] == open_ids.pop(0)
            assert message["content"] == NOT_RUN
        else:
            assert not open_ids
            open_ids = [call["id"] for call in message.get("tool_calls", ())]
    assert not open_ids


def test_undo_of_an_empty_conversation_is_nothing():
    assert Conversation().undo() is None
    assert talked([], "be short").undo() is None


def test_results_in_a_loaded_conversation_are_sent_as_they_are():
    messages = [
        {"role": "user", "content": "light"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "a", "type": "function", "function": {"name": "on", "arguments": "{}"}},
                {"id": "b", "type": "function", "function": {"name": "on", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "a", "content": "done"},
        {"role": "user", "content": "thanks"},
    ]
    sent = Conversation.loads(json.dumps({"messages": messages}).encode(), "f").to_send()
    assert sent[:3] == messages[:3]
    assert sent[3:] == [{"role": "tool", "tool_call_id": "b", "content": NOT_RUN}, messages[3]]


def test_text_parts_and_developers_of_other_programs_are_understood():
    data = b'[{"role":"developer","content":[{"type":"text","text":"be "},{"type":"text","text":"short"}],"name":"x"}]'
    assert Conversation.loads(data, "f").messages == (Message("system", "be short"),)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"5",
        b"{}",
        b'[{"role":"robot","content":"x"}]',
        b'[{"role":"user","content":[{"type":"image_url"}]}]',
        b'[{"role":"user","content":5}]',
        b"\xff\xfe",
        b'["\\ud800"]',
        b"[" * 100_000,
    ],
)
def test_a_file_that_is_no_conversation_is_named_in_one_sentence(data):
    with pytest.raises(UserError, match=r"^notes\.json is"):
        Conversation.loads(data, "notes.json")


def test_halves_of_characters_become_question_marks():
    conversation = talked([("a\ud800", "b\udfff", "", [])])
    assert [message.content for message in conversation.messages] == ["a?", "b?"]
    assert b"a?" in conversation.dumps()
