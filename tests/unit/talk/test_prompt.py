"""What was typed is kept for the next time: privately, and not without end. Commands are completed."""

import os
import stat

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.history import InMemoryHistory

from qwen_edge.talk.commands import COMMANDS
from qwen_edge.talk.prompt import CommandCompleter, open_history


def test_the_history_stays_small_and_whole(tmp_path):
    for _ in range(6):
        history = open_history(tmp_path)
        for number in range(500):
            history.append_string(f"{number} {'x' * 300}")
    history.append_string("y" * 1_000_000)
    file = tmp_path / "chat_history"
    entries = list(open_history(tmp_path).load_history_strings())
    assert file.stat().st_size < 600_000
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert 500 < len(entries) < 3000
    assert {len(entry.split()[1]) for entry in entries} == {300}
    assert entries[0].startswith("499 ")


def test_a_file_that_others_may_read_becomes_private(tmp_path):
    (tmp_path / "chat_history").touch(0o644)
    open_history(tmp_path).append_string("a\ud800\nb")
    assert stat.S_IMODE((tmp_path / "chat_history").stat().st_mode) == 0o600
    assert list(open_history(tmp_path).load_history_strings()) == ["a?\nb"]


def test_without_a_place_the_history_is_in_memory(tmp_path):
    (tmp_path / "file").touch()
    assert isinstance(open_history(tmp_path / "file"), InMemoryHistory)


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("/th", ["/think"]),
        ("/", list(COMMANDS)),
        ("/think o", ["on", "off"]),
        ("/model qw", ["qwen3"]),
        ("/nothing x", []),
        ("/help x", []),
        ("what /th", []),
    ],
)
def test_tab_offers_what_may_follow(text, offered):
    completer = CommandCompleter(lambda: ["qwen3", "other"])
    found = completer.get_completions(Document(text), CompleteEvent())
    assert [text[: len(text) + one.start_position] + one.text for one in found] == [
        text.rpartition(" ")[0] + " " * (" " in text) + one for one in offered
    ]


def test_tab_completes_names_of_files(tmp_path):
    (tmp_path / "notes.json").touch()
    text = f"/load {tmp_path}/no"
    (found,) = CommandCompleter(tuple).get_completions(Document(text), CompleteEvent())
    assert found.text == "tes.json"


def test_a_pipe_in_the_place_of_the_history_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "chat_history")
    assert isinstance(open_history(tmp_path), InMemoryHistory)
