"""A dialect is a folder of its own, and only the table of paths knows one."""

from pathlib import Path

import pytest
from multidict import CIMultiDict

import qwen_edge
from qwen_edge.server.dialects import Dialects
from qwen_edge.server.openai import errors

ROOT = Path(qwen_edge.__file__).parent
SPEAKERS = {"openai": [("server", "openai"), ("server", "llama_server")]}  # llama-server's API is OpenAI's and more
TABLE = "app.py"  # paths to handlers and to error forms


NAMES = [file.parent.name for file in (ROOT / "server").glob("*/errors.py")]


@pytest.mark.parametrize("dialect", NAMES)
@pytest.mark.parametrize("room", ["core", "chat", "renderer", "service", "supervisor", "server"])
def test_nothing_outside_a_dialect_imports_it(room, dialect):
    files = [
        file
        for file in (ROOT / room).rglob("*.py")
        if file.relative_to(ROOT).parts[:2] not in SPEAKERS.get(dialect, [("server", dialect)]) and file.name != TABLE
    ]
    assert files
    for file in files:
        assert f"server.{dialect}" not in file.read_text(), file


@pytest.mark.parametrize("dialect", NAMES)
def test_a_dialect_has_a_file_for_each_of_its_tasks(dialect):
    files = {file.stem for file in (ROOT / "server" / dialect).rglob("*.py")}
    assert files >= {"errors", "routes", "encode", "parse"}


class Form:
    """An error form that is told from others by being another one."""

    error_response = staticmethod(errors.error_response)
    http_error_response = staticmethod(errors.http_error_response)


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/api", "ollama"),
        ("/api/chat", "ollama"),
        ("/apiary", "default"),
        ("/v1/messages", "anthropic"),
        ("/v1/messages/count_tokens", "counting"),
        ("/v1/chat/completions", "default"),
        ("/", "default"),
        ("*", "default"),
        ("", "default"),
    ],
)
def test_a_path_belongs_to_the_dialect_of_its_longest_beginning_in_whole_segments(path, form):
    forms = {name: Form() for name in ("default", "ollama", "anthropic", "counting")}
    others = {
        "/api": forms["ollama"],
        "/v1/messages": forms["anthropic"],
        "/v1/messages/count_tokens": forms["counting"],
    }
    assert Dialects(forms["default"], others).at(path) is forms[form]


@pytest.mark.parametrize(
    ("path", "headers", "form"),
    [
        ("/v1/models", {"Anthropic-Version": "2023-06-01"}, "anthropic"),
        ("/v1/models", {"Accept": "*/*"}, "default"),
        ("/api/chat", {"Anthropic-Version": "2023-06-01"}, "ollama"),
    ],
)
def test_on_a_path_of_no_other_dialect_a_header_tells(path, headers, form):
    forms = {name: Form() for name in ("default", "ollama", "anthropic")}
    dialects = Dialects(forms["default"], {"/api": forms["ollama"]}, {"anthropic-version": forms["anthropic"]})
    assert dialects.at(path, CIMultiDict(headers)) is forms[form]
