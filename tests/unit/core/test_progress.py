"""Progress is told in words that are true, once, and in the form that suits where it is shown."""

import errno
import io
import logging

import pytest
from rich.console import Console

from qwen_edge.core.logs import start_logging
from qwen_edge.core.progress import (
    CHARACTERS,
    ERASE,
    MEGABYTES,
    SHARE,
    Progress,
    Stage,
    counted,
    duration,
    on_console,
    on_stream,
)

HOSTILE = "model \x1b[2J[bold]x[/bold]"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return Terminal()


def lines(said: list[str], clock: Clock) -> Progress:
    return Progress(said.append, None, clock)


def test_a_stage_knows_its_rate_and_how_long_is_left(clock):
    stage = Stage("writing", 1000e6, MEGABYTES, clock=clock)
    assert (str(stage), stage.left) == ("0 % of 1000.0 MB", None)
    clock.now += 2
    stage(250e6)
    assert (str(stage), stage.left) == ("25 % of 1000.0 MB, 125.0 MB/s, 6 s left", 6.0)
    clock.now += 1.5
    assert stage.left == 4.5, "time passes while nothing is reported"
    clock.now += 60
    assert stage.left == 0.0


def test_what_was_done_before_does_not_count_as_speed(clock):
    stage = Stage("loading", 100, counted("things"), done=80, clock=clock)
    clock.now += 1
    stage.reach(90)
    assert str(stage) == "90 % of 100 things, 10.0/s, 1 s left"


def test_more_work_than_was_said_is_counted_in(clock):
    stage = Stage("measuring", 4, counted("measurements"), clock=clock)
    clock.now += 3
    stage(1)
    assert str(stage) == "25 % of 4 measurements, 3.0 s each, 9 s left"
    stage.expect(4)
    assert str(stage) == "12 % of 8 measurements, 3.0 s each, 21 s left"


def test_a_stage_that_is_overdone_is_at_its_end(clock):
    stage = Stage("", 10, SHARE, clock=clock)
    clock.now += 1
    stage(15)
    assert (stage.share, stage.left, str(stage)) == (1.0, 0.0, "100 %, 0 s left")


def test_a_log_has_a_line_at_the_start_every_ten_seconds_and_at_the_end(clock):
    said: list[str] = []
    with lines(said, clock).stage("reading", 8000, CHARACTERS) as stage:
        for _ in range(8):
            clock.now += 4
            stage(1000)
    assert said == [
        "reading (8,000 characters)",
        "reading: 38 % of 8,000 characters, 250 characters/s, 20 s left",
        "reading: 75 % of 8,000 characters, 250 characters/s, 8 s left",
        "reading: done in 32.0 s, 250 characters/s",
    ]


def test_a_log_has_a_line_for_each_part_with_the_time_that_is_left(clock):
    said: list[str] = []
    with lines(said, clock).stage("measuring", 3, counted("measurements")) as stage:
        for name in ("one", "two", "three"):
            stage.begin(name)
            clock.now += 20
            stage(1)
    assert said[1:4] == ["one", "two (40 s left)", "three (20 s left)"]
    assert said[4:] == ["measuring: done in 60.0 s, 20.0 s each"]


def test_nothing_is_animated_where_there_is_no_terminal(clock):
    for stream in (io.StringIO(), Terminal()):  # the terminal is a dumb one
        said: list[str] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TERM", "dumb")
            progress = on_stream(stream, said.append, clock)
            with progress.stage("loading", 100) as stage:
                stage(50)
        assert (progress.on_terminal, stream.getvalue(), len(said)) == (False, "", 2)
    shown = io.StringIO()
    with on_console(Console(file=shown, width=200)).stage("loading", 100) as stage:
        stage(50)
    assert "\x1b" not in shown.getvalue()
    assert len(shown.getvalue().splitlines()) == 2


def test_the_daemons_line_changes_in_place_and_goes(terminal, clock):
    said: list[str] = []
    with on_stream(terminal, said.append, clock).stage("loading", 400e6) as stage:
        clock.now += 1
        stage(100e6)
        clock.now += 0.01
        stage(100e6)  # too soon to be drawn
        clock.now += 1
        stage(100e6)
    drawn = terminal.getvalue().split(ERASE)
    assert drawn == [
        "",
        "loading ........................ 0 % of 400.0 MB",
        "loading ######.................. 25 % of 400.0 MB, 100.0 MB/s, 3 s left",
        "loading ##################...... 75 % of 400.0 MB, 149.3 MB/s, 1 s left",
        "",
    ]
    assert said == ["loading: done in 2.0 s, 199.0 MB/s"]


def test_a_line_is_no_longer_than_the_terminal_is_wide(terminal, clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    with on_stream(terminal, lambda _: None, clock).stage("x" * 100, 1) as stage:
        stage(1)
    assert max(map(len, terminal.getvalue().split(ERASE))) == 39


def test_the_line_goes_when_the_work_fails(terminal, clock):
    with pytest.raises(RuntimeError), on_stream(terminal, lambda _: None, clock).stage("loading", 1):
        raise RuntimeError
    assert terminal.getvalue().endswith(ERASE)


def test_the_work_goes_on_when_the_terminal_is_gone(terminal, clock, monkeypatch):
    said: list[str] = []
    with on_stream(terminal, said.append, clock).stage("loading", 1) as stage:
        monkeypatch.setattr(terminal, "write", _fail)
        clock.now += 1
        stage(1)
    assert said == ["loading: done in 1.0 s, 0.0 MB/s"]


def _fail(_: str) -> int:
    raise OSError(errno.EIO, "Input/output error")


def test_a_log_line_erases_the_line_that_shows_progress(terminal, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr("sys.stderr", terminal)
    start_logging("info")
    terminal.write("loading 50 %")
    logging.getLogger("test").info("a line")
    assert terminal.getvalue().startswith(f"loading 50 %{ERASE}")
    assert terminal.getvalue().endswith("INFO a line\n")
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr("sys.stderr", plain := io.StringIO())
    start_logging("info")
    logging.getLogger("test").info("a line")
    assert "\x1b" not in plain.getvalue()


def test_a_bar_on_a_terminal_shows_the_words(monkeypatch):
    shown = io.StringIO()
    console = Console(file=shown, width=120, force_terminal=True, force_interactive=True)
    clock = Clock()
    with on_console(console, clock).stage("measuring", 2, counted("measurements")) as stage:
        clock.now += 3
        stage(1)
        stage.begin("two threads")
    assert "two threads" in shown.getvalue()
    assert "50 % of 2 measurements, 3.0 s each, 3 s left" in shown.getvalue()
    assert shown.getvalue().endswith("measuring: done in 3.0 s, 1.5 s each\n")


def test_names_from_outside_are_text(terminal, clock):
    said: list[str] = []
    console = io.StringIO()
    for progress in (
        lines(said, clock),
        on_stream(terminal, said.append, clock),
        on_console(Console(file=console, width=120, force_terminal=True)),
    ):
        with progress.stage(HOSTILE, 2) as stage:
            clock.now += 20
            stage(1)
            stage.begin(HOSTILE)
    for shown in (*said, terminal.getvalue(), console.getvalue()):
        assert "\x1b[2J" not in shown
    assert "[bold]x[/bold]" in console.getvalue()


def test_a_length_of_time_is_told_in_its_unit():
    assert [duration(seconds) for seconds in (0.4, 119, 121, 7000, 9000)] == [
        "0 s",
        "119 s",
        "2 min",
        "117 min",
        "2.5 h",
    ]
