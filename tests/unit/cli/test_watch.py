"""The live view of a daemon: what it says, on terminals of every size, and when the daemon or its engine goes away."""

import io
from queue import SimpleQueue

import pytest
from rich.console import Console
from rich.screen import Screen

from qwen_edge.cli import main
from qwen_edge.cli.sparkline import Trail, sparkline
from qwen_edge.cli.watch import Asker, show, watch
from qwen_edge.cli.watch_rows import why
from qwen_edge.cli.watch_view import Seen, Unseen, View
from qwen_edge.core.errors import NotNowError, UserError
from tests.unit.cli.devices import device
from tests.unit.cli.test_terminal import NASTY, obeyed

URL = "http://127.0.0.1:9"
CONVERSATION = {"key": "k", "tokens": 1147, "file_bytes": 2_000_000, "pinned_until": 7200.0, "ends": "and so on"}


class Clock:
    now = 3600.0

    def __call__(self) -> float:
        return self.now


def found(text: str = "model", *, remembered=None, restarts: int = 0, death: str | None = None, **governor) -> Seen:
    seen = device(text)
    calm = {"level": "nominal", "because": "", "refused": [], **governor}
    seen["governor"] = {**seen["governor"], **calm} if text == "model" else seen["governor"]
    return Seen({**seen, "restarts": restarts, "last_death": death}, remembered)


def screen(view: View, width: int = 110, height: int = 30) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(Screen(view), end="")
    return console.file.getvalue().split("\n")


@pytest.fixture
def view() -> View:
    return View(URL, clock=Clock())


def test_what_is_known_is_on_the_screen(view):
    view.take(found(remembered=(CONVERSATION,)))
    text = "\n".join(screen(view))
    for words in (
        "nominal  model  engine model",
        "Nothing is slowed or refused",
        "50.0 °C, target 85, pause 95",
        "5.0 W",
        "1.0 tokens/s",
        "1 running, 0 waiting",
        "93 MB, device 0.0 of 0.0 GB",
        "0.1 J a token",
        "1 conversation, 1147 tokens, 2 MB on disk",
        "1147 tokens, pinned 1.0 h, and so on",
        "q or Ctrl-C leaves",
    ):
        assert words in text, words


@pytest.mark.parametrize("width", [1, 2, 7, 24, 50, 80, 200])
@pytest.mark.parametrize("height", [1, 2, 5, 12, 60])
def test_a_terminal_of_any_size_is_filled_and_never_overflows(view, width, height):
    view.take(found(remembered=(CONVERSATION,) * 50))
    lines = screen(view, width, height)
    assert len(lines) == height
    assert all(len(line) <= width for line in lines)
    assert height == 1 or lines[-1].strip() == "the last 15 minutes at the right; q or Ctrl-C leaves"[:width].strip()


def test_a_narrow_terminal_keeps_the_words_and_loses_the_pictures(view):
    view.take(found())
    text = "\n".join(screen(view, 50))
    assert "50.0 °C" in text and "█" not in text
    assert "█" in "\n".join(screen(view, 80))


def test_texts_of_a_stranger_are_shown_as_they_are(view):
    view.take(found(NASTY, remembered=({**CONVERSATION, "ends": NASTY},), death=NASTY))
    view.take(Unseen(NASTY))
    text = "\n".join(screen(view, 400))
    assert "[red]x[/red]" in text and not obeyed(text)


def test_a_daemon_that_goes_away_is_told_and_picked_up_again(view):
    view.take(found())
    view.take(Unseen("Connection refused."))
    view.clock.now += 7
    text = "\n".join(screen(view))
    assert "No answer for 7 s. Connection refused." in text
    assert "Nothing is slowed" not in text, "that would be told of a daemon that nobody can ask"
    view.take(found())
    assert "The daemon answers again. It was away for 7 s." in "\n".join(screen(view))
    view.clock.now += 61
    view.take(found())
    assert "away" not in "\n".join(screen(view)), "news are news for a minute"


def test_a_question_that_hangs_is_told_before_it_fails(view):
    view.take(found())
    view.clock.now += 9
    assert "No answer for 9 s." in "\n".join(screen(view))


def test_an_engine_that_died_is_told_with_its_reason(view):
    view.take(found())
    view.take(found(restarts=1, death="killed by SIGKILL"))
    assert "another one replaces it: killed by SIGKILL" in "\n".join(screen(view))


def test_why_requests_are_slowed_is_a_sentence():
    slowed = found(level="warm", duty=0.53, because="heat").device
    assert why(slowed) == "Answers are slowed to 53% of the time to hold the target temperature."
    refused = found(level="hot", duty=0.1, because="heat", refused=["background", "idle"], retry_after=12.0).device
    assert why(refused) == "New background and idle requests are refused; clients should try again in 12 s."


def test_without_sensors_that_is_said_instead_of_empty_figures(view):
    seen = found(level="unknown")
    view.take(Seen({**seen.device, "telemetry": None, "energy": None, "trouble": None}))
    text = "\n".join(screen(view))
    assert "There is no temperature sensor: heat is left to the hardware." in text
    assert "°C" not in text and "power" not in text


def test_a_line_of_the_last_minutes_has_gaps_where_nothing_is_known():
    trail = Trail(60.0)
    for at in range(0, 61, 5):
        trail.add(at, {"celsius": None if 20 <= at < 40 else float(at)})
    assert trail.columns("celsius", 6, 60.0) == [5.0, 15.0, None, 40.0, 47.5, 57.5]
    assert sparkline([0.0, 50.0, None, 100.0], 0.0, 100.0) == "▁▅ █"


def test_a_value_holds_between_two_samples_and_not_for_ever():
    trail = Trail(90.0)
    trail.add(10.0, {"watts": 5.0})
    assert trail.columns("watts", 9, 90.0) == [5.0, 5.0, 5.0, *[None] * 6]
    assert trail.columns("unknown", 2, 90.0) == [None, None]


def test_a_clock_set_back_and_an_old_sample_do_no_harm():
    trail = Trail(60.0)
    for at in (100.0, 50.0, 170.0):
        trail.add(at, {"watts": at})
    assert [value for value in trail.columns("watts", 4, 170.0) if value] == [170.0]


def test_the_view_is_drawn_after_every_event_until_q():
    events, drawn, view = SimpleQueue(), [], View(URL)
    for event in (found(), b"x", Unseen("gone"), b"q", found()):
        events.put(event)
    show(events, view, lambda: drawn.append("\n".join(screen(view))))
    assert len(drawn) == 4 and "gone" in drawn[3]
    assert events.qsize() == 1


def test_an_engine_that_is_unloaded_is_not_loaded_by_a_question_about_conversations(monkeypatch):
    asked, state = [], {"engine": "asleep", "pending": 0}
    monkeypatch.setattr("qwen_edge.cli.watch.ask", lambda method, url: asked.append(url) or {"data": []})
    monkeypatch.setattr("qwen_edge.cli.watch.ask_device", lambda _: {**device("x"), **state})
    asker = Asker(URL)
    assert asker.look().remembered is None and not asked
    state.update(engine="ready", pending=1)
    assert asker.look().remembered == () and asked == [f"{URL}/v1/cache"]
    assert asker.look().remembered is None and len(asked) == 1, "the queue is as it was"


def test_without_a_terminal_another_command_is_named(capsys):
    with pytest.raises(SystemExit) as stopped:
        main("status", "--watch", "--url", URL)
    assert stopped.value.code == 2
    assert "--watch needs a terminal" in capsys.readouterr().err


def test_two_ways_to_show_the_same_are_refused_by_their_names(capsys):
    with pytest.raises(SystemExit) as stopped:
        main("status", "--watch", "--plot", "1", "--url", URL)
    assert stopped.value.code == 2
    assert "--watch and --plot do not go together" in capsys.readouterr().err


def test_a_daemon_that_is_not_there_at_the_start_is_an_error(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with pytest.raises(NotNowError, match="There is no qwen-edge at"):
        watch("http://127.0.0.1:1", 1.0)


WRONG = {
    "no fields": {"object": "device", "restarts": 0},
    "a text for a number": {**device("x"), "tokens_per_second": "fast"},
    "a number for an object": {**device("x"), "governor": 5},
    "a list for a level": {**device("x"), "governor": {**device("x")["governor"], "level": []}},
    "a text for telemetry": {**device("x"), "telemetry": "hot"},
}


@pytest.mark.parametrize("wrong", WRONG)
def test_an_answer_of_another_form_is_a_sentence(monkeypatch, wrong):
    monkeypatch.setattr("qwen_edge.cli.watch.ask_device", lambda _url: WRONG[wrong])
    monkeypatch.setattr("qwen_edge.cli.watch.ask", lambda *_: {"data": [{"tokens": "x"}]})
    with pytest.raises(UserError, match="not a qwen-edge of this release"):
        Asker(URL).look()


@pytest.mark.parametrize("samples", [5, [5], [{"at": "x"}], [{"celsius": 5}], None])
def test_a_history_of_another_form_is_none(monkeypatch, samples):
    monkeypatch.setattr(
        "qwen_edge.cli.watch.ask", lambda *_: {"object": "device.history", "every": 5, "samples": samples}
    )
    assert Asker(URL).history() == []
