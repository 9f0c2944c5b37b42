"""A dialect is a folder of its own, and only what chooses between dialects knows one."""

from pathlib import Path

import pytest

import qwen_edge

ROOT = Path(qwen_edge.__file__).parent
CHOOSE = {"app.py", "connections.py", "middleware.py"}  # paths to handlers, and errors before there is a handler


@pytest.mark.parametrize("room", ["core", "chat", "renderer", "service", "supervisor", "server"])
def test_nothing_outside_a_dialect_imports_it(room):
    files = [
        file
        for file in (ROOT / room).rglob("*.py")
        if file.relative_to(ROOT).parts[:2] != ("server", "openai") and file.name not in CHOOSE
    ]
    assert files
    for file in files:
        assert "server.openai" not in file.read_text(), file


def test_the_dialect_has_a_file_for_each_of_its_tasks():
    files = {file.stem for file in (ROOT / "server/openai").glob("*.py")}
    assert files == {"__init__", "chat", "encode", "errors", "framing", "models", "parse"}
