"""What an engine does until it is ready is shown, each of its works once, and to its end."""

import pytest

from qwen_edge.core.progress import Progress
from qwen_edge.daemon.load_display import LoadDisplay
from qwen_edge.protocol.messages import Loading, Ready, Sampling

READY = Ready("name", 64, 0, (), None, Sampling(), 0, 1, 1)


class Shown:
    def __init__(self, folder) -> None:
        self.said: list[str] = []
        self.now = 0.0
        self.model = folder / "some.gguf"
        with self.model.open("wb") as file:
            file.truncate(400_000_000)
        self.display = LoadDisplay(Progress(self.said.append, None, lambda: self.now), self.model)

    def after(self, seconds: float, message: Loading | Ready | None) -> list[str]:
        """What is said of this message."""
        self.now += seconds
        before = len(self.said)
        self.display(message)
        return self.said[before:]


@pytest.fixture
def shown(tmp_path):
    return Shown(tmp_path)


def test_a_long_load_is_told_every_ten_seconds_with_what_is_left(shown):
    assert shown.after(1, Loading(0.1)) == ["loading some.gguf (400.0 MB)"]
    assert shown.after(5, Loading(0.2)) == []
    assert shown.after(5, Loading(0.3)) == ["loading some.gguf: 30 % of 400.0 MB, 8.0 MB/s, 35 s left"]
    assert shown.after(20, READY) == ["loading some.gguf: done in 30.0 s, 12.0 MB/s"]


def test_each_work_is_told_when_it_begins_and_when_it_ends(shown):
    shown.after(1, Loading(0.5))
    first = shown.after(1, Loading(0.0, "measure"))
    title = "measuring what is fastest on this device, for the first start with this model"
    assert first == ["loading some.gguf: done in 1.0 s, 200.0 MB/s", title]
    assert shown.after(12, Loading(0.5, "measure")) == [f"{title}: 50 %, 12 s left"]
    opened = "opening the folder of remembered conversations"
    assert shown.after(12, Loading(0.0, "remember")) == [f"{title}: done in 24.0 s", opened]
    assert shown.after(3, READY) == [f"{opened}: done in 3.0 s"]
    assert shown.after(1, READY) == []


def test_an_engine_that_dies_has_not_done_its_work(shown):
    shown.after(1, Loading(0.5))
    assert shown.after(1, None) == []
    assert shown.after(1, Loading(0.1)) == ["loading some.gguf (400.0 MB)"]


def test_what_turns_out_to_be_more_work_goes_on_under_the_same_title(shown):
    shown.after(1, Loading(0.5, "measure"))
    assert shown.after(1, Loading(0.4, "measure")) == []
    assert len(shown.after(1, READY)) == 1


def test_a_model_that_is_moved_while_it_is_loaded_is_shown_without_its_size(shown):
    shown.model.unlink()
    assert shown.after(1, Loading(0.5)) == ["loading some.gguf"]
    assert shown.after(20, Loading(0.75)) == ["loading some.gguf: 75 %, 20 s left"]
    assert shown.after(1, READY) == ["loading some.gguf: done in 21.0 s"]
