"""A record of the log is one line, whatever is in it."""

import io
import logging
import subprocess
import sys

import pytest

from qwen_edge.core.logs import ToldBefore, start_logging


@pytest.fixture
def written(monkeypatch):
    """The log of a process, which has one handler."""
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.root.level)  # to be put back
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    start_logging("debug")
    return stream


def test_a_name_from_outside_forges_no_line_and_no_escape_code(written):
    logging.getLogger("any").warning("unknown: %s", "x\n2026-01-01 ERROR engine died\x1b[2J")
    (line,) = written.getvalue().splitlines()
    assert line.endswith("WARNING unknown: x\\n2026-01-01 ERROR engine died\\x1b[2J")


def test_a_traceback_forges_no_line_either(written):
    try:
        raise ValueError("bad\n2026-01-01 ERROR engine died\x1b[2J")
    except ValueError:
        logging.getLogger("any").exception("failed")
    first, *lines = written.getvalue().splitlines()
    assert first.endswith("ERROR failed")
    assert all(line.startswith("    ") for line in lines)
    assert "\x1b" not in written.getvalue()
    assert any("ValueError" in line for line in lines)


def test_a_record_of_great_length_is_cut(written):
    logging.getLogger("any").error("%s", "x" * 900_000)
    assert len(written.getvalue()) < 2100


def test_what_was_told_is_told_again_only_when_it_is_long_ago():
    told = ToldBefore(most=2)
    assert [told.is_new(what) for what in ("a", "a", "b", "a", "c", "a", "b")] == [
        True, False, True, False, True, False, True,
    ]  # fmt: skip


def test_the_log_starts_where_stream_handlers_take_no_type_as_on_python_3_10():
    lines = (
        "import logging",
        "if '__class_getitem__' in vars(logging.StreamHandler): del logging.StreamHandler.__class_getitem__",
        "import qwen_edge.core.logs",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)
